from accel.api cimport IoRegion, pthread_mutex_t, u8, u32, u64
from accel.run cimport MsiSink
from accel.dma cimport Dma
from vmrun.bus.pci.config cimport PciConfig


cdef class Messages:
    cdef PciConfig config
    cdef Dma dma
    cdef MsiSink sink
    cdef readonly u32 offset, vectors
    cdef bint anywhere(self) noexcept nogil
    cdef void send(self, u64 addr, u32 data) noexcept nogil
    cdef bint enabled(self) noexcept nogil
    cdef void notify(self, u32 vector) noexcept nogil
    cdef void flush(self) noexcept nogil


cdef class MsiChip(Messages):
    cdef readonly bint wide, masks
    cdef u32 field(self, u32 offset) noexcept nogil


cdef class MsixChip(Messages):
    cdef u8 *table
    cdef u8 *pending
    cdef pthread_mutex_t mutex
    cdef readonly IoRegion table_io, pending_io
    cdef void raise_one(self, u32 vector) noexcept nogil
    cdef bint masked(self, u32 vector) noexcept nogil
    cdef void flush_vector(self, u32 vector) noexcept nogil


cdef class MsixTable(IoRegion):
    cdef void *chip             # borrowed: the chip owns its regions


cdef class MsixPending(IoRegion):
    cdef void *chip
