# Which namespaces an NVMe controller has. The documentation is in nvme_spaces.pyx.
from accel.api cimport u8, u32, u64
from vmrun.devices.storage.nvme_io cimport MOST_NAMESPACES, NvmeIo
from vmrun.devices.storage.nvme_queues cimport Command

cdef enum:
    MOST_CONTROLLERS = 32           # of a subsystem


cdef class NvmeSpaces(NvmeIo):
    cdef readonly u32 number
    cdef readonly bint in_subsystem
    cdef readonly dict known_spaces         # number → NvmeSpace: what `known` and `spaces` borrow
    cdef void *known[MOST_NAMESPACES + 1]   # all of the subsystem
    cdef void *peers[MOST_CONTROLLERS]      # NvmeSpaces of the subsystem by number, this one too; borrowed
    cdef u8 changed[MOST_NAMESPACES + 1]    # since the list of changed namespaces was read

    cdef int give(self, Command *c, const u8 *data, u64 length) noexcept nogil
    cdef int receive(self, Command *c, u8 *data, u64 length) noexcept nogil
    cdef void enter_family(self) noexcept nogil
    cdef void leave_family(self) noexcept nogil
    cdef bint attached_anywhere(self, u32 nsid) noexcept nogil
    cdef int attach(self, Command *c) noexcept nogil
    cdef int attach_to(self, Command *c, const u8 *controllers) noexcept nogil
    cdef void notice(self, u32 nsid) noexcept nogil
    cdef int format(self, Command *c) noexcept nogil
    cdef int identify_space(self, Command *c, u8 *data) noexcept nogil
    cdef void list_spaces(self, void **table, u32 above, u8 *data) noexcept nogil
    cdef int list_controllers(self, Command *c, u8 *data) noexcept nogil
    cdef void list_changed(self, u8 *data) noexcept nogil
    cdef u32 most_deallocated(self) noexcept nogil
