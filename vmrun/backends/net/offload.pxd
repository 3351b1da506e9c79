from accel.api cimport u8, u16, u32
from vmrun.backends.protocols cimport NetHeader

ctypedef struct Cut:            # a frame that is being cut into segments
    const u8 *frame
    u32 length
    u32 ip, transport, payload  # offsets of IP's header, TCP's or UDP's, and of the data
    u32 at, size                # of the data that comes next; bytes of a segment
    u32 number
    bint six, udp

cdef u32 net_needs(const NetHeader *header) noexcept nogil
cdef int net_checksum(u8 *frame, u32 length, const NetHeader *header) noexcept nogil
cdef int net_whole(u8 *frame, u32 length) noexcept nogil
cdef void net_join(u8 *frame, u32 length) noexcept nogil
cdef int cut_begin(Cut *cut, u8 *frame, u32 length, const NetHeader *header) noexcept nogil
cdef u32 cut_next(Cut *cut, u8 *out) noexcept nogil
