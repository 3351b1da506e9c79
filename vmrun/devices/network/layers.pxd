# What a frame carries, for cards that look into it. The documentation is in layers.pyx.
from accel.api cimport u8, u32

cdef enum:
    TCP = 6
    UDP = 17

ctypedef struct Layers:
    u32 l3                      # where IP begins, 0: not IP
    u32 l4                      # where TCP or UDP begins, 0: neither, or a fragment
    u32 payload
    u32 version                 # of IP
    u32 protocol
    u32 end                     # behind IP's last byte
    bint fragment

cdef void look(const u8 *frame, u32 size, Layers *found) noexcept nogil
cdef bint header_sum_right(const u8 *frame, const Layers *found) noexcept nogil
cdef bint transport_sum_right(const u8 *frame, const Layers *found) noexcept nogil
cdef u32 pseudo_sum(const u8 *frame, const Layers *found, u32 length) noexcept nogil
cdef u32 toeplitz(const u8 *key, const u8 *data, u32 count) noexcept nogil
