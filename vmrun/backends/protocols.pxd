# All that a device may see of the host, at C level. The documentation is in protocols.pyx.
from accel.api cimport ByteRing, i64, u8, u32, u64

ctypedef struct IoVec:
    void *base
    u64 length

cpdef enum:
    BLOCK_READ = 0
    BLOCK_WRITE = 1
    BLOCK_FLUSH = 2
    BLOCK_DISCARD = 3


cpdef enum:
    CHAR_EVENT_CLOSED = 0       # the other side went away
    CHAR_EVENT_OPENED = 1
    CHAR_EVENT_BREAK = 2        # the line was held low
    CHAR_EVENT_DRAINED = 3      # `output` has room again


cdef class BlockRequest:
    cdef public int op
    cdef public u64 offset
    cdef IoVec *vectors
    cdef u32 vector_count
    cdef public int error
    cdef public bint in_flight
    cdef u32 generation         # the back end's: a cancelled request is of an older one
    cdef void done(self) noexcept nogil


cdef class BlockBackend:
    cdef public str name
    cdef readonly u64 size
    cdef readonly bint readonly
    cdef public object serial
    cdef int submit(self, BlockRequest request) noexcept nogil
    cdef void cancel(self, BlockRequest request) noexcept nogil


cdef class CharFrontend:
    cdef u32 can_receive(self) noexcept nogil
    cdef void receive(self, const u8 *data, u32 count) noexcept nogil
    cdef void event(self, int what) noexcept nogil


cdef class CharBackend:
    cdef public str name
    cdef readonly ByteRing output
    cdef public CharFrontend frontend
    cdef int put(self, u8 byte) noexcept nogil
    cdef void input_room(self) noexcept nogil
