from accel.aio cimport Completion, EventHandler, IoThread
from accel.api cimport IoRegion, IrqLine, u8, u16, u32, u64
from accel.dma cimport Dma
from vmrun.bus.pci.msi cimport MsixChip
from vmrun.bus.virtio.ring cimport Chain, VirtQueue

cdef enum:
    MOST_QUEUES = 64
    CONFIG_ROOM = 256
    NO_VECTOR = 0xFFFF
    # device status
    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64


cdef class QueueKick(EventHandler):
    cdef void *chip             # borrowed, NULL when it is gone
    cdef u32 queue


cdef class Debt(Completion):
    cdef void *chip


cdef class VirtioChip:
    cdef Dma dma
    cdef readonly list queues
    cdef void *queue_of[MOST_QUEUES]
    cdef readonly u32 queue_count
    cdef public u64 offered, accepted           # feature bits
    cdef public u64 modern_only, legacy_only    # of the offered: those that one kind of driver alone is shown
    cdef public u32 status, isr, select, feature_select, driver_select, generation, config_vector
    cdef public bint legacy                   # the driver came by the legacy registers
    cdef public bint has_modern, has_legacy
    cdef public u32 config_size
    cdef u8 config[CONFIG_ROOM]
    cdef MsixChip msix
    cdef IrqLine intx
    cdef readonly int running
    cdef readonly IoThread thread               # where kicks are served; None: by whoever kicks
    cdef readonly bint offloads                 # every kick is, not only those that leave no trace
    cdef readonly bint own_locks                # a lock for each queue
    cdef readonly list kicks
    cdef void *kick_of[MOST_QUEUES]
    cdef Debt debt
    cdef u64 owed                               # queues whose interrupt waits for the device lock
    cdef int faulty                             # a ring was broken: to be told with the device lock
    cdef public object on_running
    cdef readonly u64 exits, served             # kicks that came by a register; those that the I/O thread had
    # what a device overrides
    cdef void kicked(self, u32 queue) noexcept nogil
    cdef void stopped(self) noexcept nogil
    cdef void queue_stopped(self, u32 queue) noexcept nogil
    cdef int serve_chain(self, VirtQueue queue, Chain *chain) noexcept nogil
    cdef void started(self) noexcept nogil
    cdef void config_written(self, u32 offset, u32 size, u32 value) noexcept nogil
    # what it calls
    cdef void interrupt(self, VirtQueue queue) noexcept nogil
    cdef bint has_thread(self) noexcept nogil
    cdef void serve_later(self, u32 queue) noexcept nogil
    cdef void serve_queue(self, VirtQueue queue) noexcept nogil
    cdef void config_changed(self) noexcept nogil
    cdef void fault(self) noexcept nogil
    # the transport's
    cdef void raise_vector(self, u32 vector) noexcept nogil
    cdef void kick(self, u32 queue) noexcept nogil
    cdef void attend(self, u32 queue) noexcept nogil
    cdef void take_kick(self, u32 queue) noexcept nogil
    cdef void pay(self) noexcept nogil
    cdef void lock_queues(self, bint lock) noexcept nogil
    cdef void need_reset(self) noexcept nogil
    cdef void reset_all(self) noexcept nogil
    cdef void set_status(self, u32 value) noexcept nogil
    cdef u64 shown(self, bint legacy) noexcept nogil
    cdef void set_legacy_pfn(self, u32 pfn) noexcept nogil
    cdef u32 read_isr(self) noexcept nogil
    cdef u32 read_config(self, u32 offset, u32 size) noexcept nogil
    cdef void write_config(self, u32 offset, u32 size, u32 value) noexcept nogil
    cdef u32 vector(self, u32 value) noexcept nogil
    cdef u32 read_legacy(self, u32 offset, u32 size) noexcept nogil
    cdef void write_legacy(self, u32 offset, u32 size, u32 value) noexcept nogil
    cdef u32 read_common(self, u32 offset, u32 size) noexcept nogil
    cdef void write_common(self, u32 offset, u32 size, u32 value) noexcept nogil


cdef class VirtioRegion(IoRegion):
    cdef VirtioChip chip


cdef class LegacyRegion(VirtioRegion):
    pass


cdef class CommonRegion(VirtioRegion):
    pass


cdef class IsrRegion(VirtioRegion):
    pass


cdef class ConfigRegion(VirtioRegion):
    pass


cdef class NotifyPort(VirtioRegion):
    pass


cdef class NotifyRegion(VirtioRegion):
    cdef u32 multiplier
