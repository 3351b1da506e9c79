# A device lock whose holder can put something off. The documentation is in errands.pyx.
from accel.api cimport DeviceLock, pthread_mutex_t, u32

cdef struct Errand

ctypedef void (*errand_run)(Errand *errand) noexcept nogil

cdef struct Errand:
    errand_run run
    Errand *next                # the lock's own

cdef void *noted                # what the lock's holder does just now, borrowed: an IoRegion, an IoHandler; for watch()


cdef class ErrandLock(DeviceLock):
    cdef unsigned long owner    # the thread that holds it; read by others, for whom any other value is as good
    cdef u32 depth, count
    cdef u32 holds              # how often it has been taken
    cdef Errand *first
    cdef Errand *last
    cdef void acquire_watched(self) noexcept nogil
    cdef void release_watched(self) noexcept nogil
    cdef bint mine(self) noexcept nogil
    cdef bint put_off(self, Errand *errand) noexcept nogil
