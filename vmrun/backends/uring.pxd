from accel.api cimport u32, u64

cdef extern from "<linux/io_uring.h>" nogil:
    struct io_uring_sqe:
        unsigned char opcode
        int fd
        u64 off
        u64 addr
        u32 len
        u64 user_data
    struct io_uring_cqe:
        u64 user_data
        int res


cdef class SharedRing:
    cdef readonly int fd
    cdef readonly u32 features              # IORING_FEAT_…
    cdef u32 *tail
    cdef u32 *array
    cdef u32 mask
    cdef io_uring_sqe *entries
    cdef u32 *done_head
    cdef u32 *done_tail
    cdef u32 done_mask
    cdef io_uring_cqe *results
    cdef void *maps[3]
    cdef u64 sizes[3]
    cdef void *map(self, u32 n, u64 bytes, u64 what) except NULL
    cdef io_uring_sqe *entry(self, u32 n) noexcept nogil
    cdef long submit(self, u32 count, u32 wait) noexcept nogil
    cdef bint wait(self) noexcept nogil
    cdef bint result(self, u64 *user_data, int *res) noexcept nogil
