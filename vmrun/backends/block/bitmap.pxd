from accel.api cimport u8, u32, u64
from accel.threads cimport pthread_mutex_t


cdef class Bitmap:
    cdef readonly u64 size          # bytes of the disk
    cdef readonly u32 shift         # a bit stands for 1 << shift bytes
    cdef u64 bits                   # of the disk
    cdef u64 *words
    cdef u64 set_bits
    cdef public bint enabled        # writes are noted
    cdef pthread_mutex_t mutex
    cdef void mark(self, u64 offset, u64 bytes) noexcept nogil
    cdef void change(self, u64 first, u64 end, bint value) noexcept nogil
    cdef bint has(self, u64 bit) noexcept nogil
    cdef bint take(self, u64 *at, u64 *bytes, u64 most) noexcept nogil
