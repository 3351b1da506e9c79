from accel.api cimport u64

cdef struct Job

ctypedef void (*job_run)(Job *job) noexcept nogil

cdef struct Job:
    job_run run
    Job *next                   # the pool's own
    u64 due                     # CLOCK_MONOTONIC in ns; 0: at once


cdef void pool_put(Job *job) noexcept nogil
cdef u64 pool_now() noexcept nogil
cdef Job *pool_take(bint (*wanted)(Job *, void *) noexcept nogil, void *owner) noexcept nogil
