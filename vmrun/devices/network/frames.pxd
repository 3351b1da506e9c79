# What chips do to Ethernet frames. The documentation is in frames.pyx.
from accel.api cimport u8, u16, u32, u64

cpdef enum:
    UNICAST = 0
    MULTICAST = 1
    BROADCAST = 2

cdef enum:
    HEADER = 14                 # two addresses and the type
    SHORTEST = 60               # of a frame, without its FCS
    FCS = 4

cdef int kind(const u8 *frame) noexcept nogil
cdef u32 be16(const u8 *data) noexcept nogil
cdef void put_be16(u8 *data, u32 value) noexcept nogil
cdef u32 be32(const u8 *data) noexcept nogil
cdef void put_be32(u8 *data, u32 value) noexcept nogil
cdef u32 le16(const u8 *data) noexcept nogil
cdef void put_le16(u8 *data, u32 value) noexcept nogil
cdef u32 le32(const u8 *data) noexcept nogil
cdef void put_le32(u8 *data, u32 value) noexcept nogil
cdef u64 le64(const u8 *data) noexcept nogil
cdef u32 add_up(const u8 *data, u32 count, u32 sum) noexcept nogil
cdef u32 folded(u32 sum) noexcept nogil
cdef u32 checksum(const u8 *data, u32 count, u32 sum) noexcept nogil
cdef u32 crc_first(const u8 *data, u32 count) noexcept nogil
cdef u32 crc_last(const u8 *data, u32 count) noexcept nogil
