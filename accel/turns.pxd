# What a guest makes long goes in turns. The documentation is in turns.pyx.
from accel.aio cimport EventHandler

ctypedef void (*turn_fn)(void *owner) noexcept nogil


cdef class Turn(EventHandler):
    cdef void *owner            # borrowed: he owns this
    cdef turn_fn go
    cdef readonly str name

cdef Turn turn_of(object owner, turn_fn go)
