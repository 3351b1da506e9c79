from accel.api cimport u8, u64
from vmrun.backends.protocols cimport CharBackend


cdef class HostChar(CharBackend):
    cdef public bint connected
    cdef public bint stalled
    cdef readonly u64 dropped
    cdef object log                 # write(bytes) of a copy; None
    cdef int put(self, u8 byte) noexcept nogil
    cdef void input_room(self) noexcept nogil
