# What a group of disks may move per second. The documentation is in limits.pyx.
from accel.api cimport pthread_mutex_t, u32, u64

cdef enum:
    BUDGETS = 6                     # bytes and requests per second: all, reads, writes


cdef class LimitGroup:
    cdef readonly str name
    cdef readonly dict limits       # what is not 0 (a length: not 1)
    cdef readonly bint limited
    cdef readonly u32 changes       # how often set() was called
    cdef public list members        # drives and nodes that it counts
    cdef public bint kept           # an object's: it stays without any
    cdef pthread_mutex_t mutex
    cdef double rates[BUDGETS]      # units per second; 0: no limit
    cdef double bursts[BUDGETS]     # units that may come at once
    cdef u64 free_at[BUDGETS]       # when what has passed so far is paid for
    cdef u64 unit                   # bytes that count as one request; 0: each is one
    cdef double cost(self, int n, bint write, u64 bytes) noexcept nogil
    cdef u64 admit(self, bint write, u64 bytes) noexcept nogil
    cdef void give_back(self, bint write, u64 bytes) noexcept nogil
