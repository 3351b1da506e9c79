# A bus master's way to memory. The documentation is in dma.pyx.
from accel.api cimport u8, u32, u64
from accel.space cimport AddressSpace

ctypedef struct IoVec:
    void *base
    u64 length

cpdef enum:
    DMA_OFF = -1            # the device is no bus master now
    DMA_HOLE = -2           # nothing there, or a device's registers, or memory that cannot be written
    DMA_FULL = -3           # more pieces than there is room for
    DMA_WRAP = -4           # past the end of the address space


cdef void dma_unmap(IoVec *pieces, void **blocks, u32 count, bint to_memory, u64 written) noexcept nogil


cdef class Dma:
    cdef readonly AddressSpace space
    cdef public bint enabled
    cdef readonly bint registers
    cdef int read_into(self, u64 addr, u8 *data, u64 count) noexcept nogil
    cdef int write_from(self, u64 addr, const u8 *data, u64 count) noexcept nogil
    cdef int map(self, u64 addr, u64 count, bint to_memory, IoVec *pieces, void **blocks, u32 most) noexcept nogil


cdef class Scatter:
    cdef readonly Dma dma
    cdef readonly u32 capacity, count
    cdef readonly u64 total
    cdef readonly bint to_memory
    cdef IoVec *pieces
    cdef void **blocks
    cdef u32 near                           # the piece of the last look-up, and where it begins
    cdef u64 near_start
    cdef void begin(self, bint to_memory) noexcept nogil
    cdef int add(self, u64 addr, u64 count) noexcept nogil
    cdef IoVec *seek(self, u64 offset, u64 *within) noexcept nogil
    cdef u64 get(self, u64 offset, u8 *data, u64 count) noexcept nogil
    cdef u64 put(self, u64 offset, const u8 *data, u64 count) noexcept nogil
    cdef u64 fill(self, u64 offset, u8 value, u64 count) noexcept nogil
    cdef u32 window(self, u64 offset, u64 count, IoVec *out, u32 most) noexcept nogil
    cdef void hand_over(self) noexcept nogil
    cdef void finish(self, u64 written) noexcept nogil
