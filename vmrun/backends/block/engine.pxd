from accel.api cimport i64, u64, u32
from vmrun.backends.protocols cimport IoVec

cdef struct Transfer

ctypedef void (*transfer_landed)(Transfer *transfer, int error) noexcept nogil

cdef enum:
    TRANSFER_READ = 0
    TRANSFER_WRITE = 1

cdef struct Transfer:
    int kind                    # TRANSFER_…
    int fd
    u64 offset, bytes
    const IoVec *vectors        # all of them and no more than `bytes`; they stay until it has landed
    u32 count
    transfer_landed landed      # on the engine's thread: 0, or that it has to be done otherwise
    void *node                  # whose transfer it is
    transfer_landed then        # that node's caller
    unsigned char control[64]   # the kernel's


cdef class Engine:
    cdef readonly str name
    cdef u32 flying
    cdef readonly u64 transfers     # that came out whole
    cdef bint submit(self, Transfer *transfer) noexcept nogil
    cdef void reap(self) noexcept nogil
    cdef void over(self, u64 transfer, i64 result) noexcept nogil
