# An NVMe controller. The documentation is in nvme_chip.pyx.
from accel.api cimport i64, u8, u16, u32, u64
from accel.clock cimport Clock
from vmrun.devices.storage.nvme_queues cimport Command
from vmrun.devices.storage.nvme_spaces cimport NvmeSpaces

cdef enum:
    EVENTS = 8
    AER_MOST = 4


cdef class NvmeChip(NvmeSpaces):
    cdef bytes controller
    cdef u8 *controller_data
    cdef readonly u32 vectors, warning, events_least, events_most
    cdef public u32 aqa
    cdef public u64 asq, acq
    cdef bint caching(self) noexcept with gil
    cdef void set_caches(self, bint on) noexcept with gil
    cdef public u32 hot, cold, event_config, cache, event_count, waiting_events, masked_events
    cdef readonly Clock clock           # virtual
    cdef public u64 timestamp           # as it was at `stamped`; above its 48 bits where it is from
    cdef public i64 stamped
    cdef u8 host_list[512]              # feature 16h
    cdef u16 event_ids[AER_MOST]
    cdef u32 event_list[EVENTS]

    cdef void write_cc(self, u32 value) noexcept nogil
    cdef bint begin(self, u32 value) noexcept nogil
    cdef void stop(self) noexcept nogil
    cdef int admin(self, Command *c, u32 *result) noexcept nogil
    cdef int create_completion(self, Command *c) noexcept nogil
    cdef int create_submission(self, Command *c) noexcept nogil
    cdef int delete_queue(self, Command *c) noexcept nogil
    cdef u64 time_stamp(self) noexcept nogil
    cdef int virtualization(self, Command *c) noexcept nogil
    cdef int identify(self, Command *c) noexcept nogil
    cdef int health(self, Command *c, u8 *data) noexcept nogil
    cdef int log_page(self, Command *c) noexcept nogil
    cdef int get_feature(self, Command *c, u32 *result) noexcept nogil
    cdef int set_feature(self, Command *c, u32 *result) noexcept nogil
