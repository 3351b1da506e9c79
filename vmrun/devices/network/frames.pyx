"""Ethernet frames as bytes: addresses, Internet checksums, the CRC of the FCS and of multicast filters.

Ref: IEEE 802.3 3.2 (frame, FCS); RFC 1071 (checksum).
"""

from libc.string cimport memcpy

cdef u32 CRC_LAST[256]          # of each byte, least significant bit first


cdef int kind(const u8 *frame) noexcept nogil:
    """UNICAST, MULTICAST or BROADCAST, by the destination of at least six bytes."""
    if not frame[0] & 1:
        return UNICAST
    if frame[0] & frame[1] & frame[2] & frame[3] & frame[4] & frame[5] == 0xFF:
        return BROADCAST
    return MULTICAST


cdef u32 be16(const u8 *data) noexcept nogil:
    return <u32>data[0] << 8 | data[1]


cdef void put_be16(u8 *data, u32 value) noexcept nogil:
    data[0] = value >> 8 & 0xFF
    data[1] = value & 0xFF


cdef u32 be32(const u8 *data) noexcept nogil:
    return be16(data) << 16 | be16(data + 2)


cdef void put_be32(u8 *data, u32 value) noexcept nogil:
    put_be16(data, value >> 16)
    put_be16(data + 2, value & 0xFFFF)


cdef u32 le16(const u8 *data) noexcept nogil:
    return <u32>data[1] << 8 | data[0]


cdef void put_le16(u8 *data, u32 value) noexcept nogil:
    data[0] = value & 0xFF
    data[1] = value >> 8 & 0xFF


cdef u32 le32(const u8 *data) noexcept nogil:
    return le16(data + 2) << 16 | le16(data)


cdef void put_le32(u8 *data, u32 value) noexcept nogil:
    put_le16(data, value & 0xFFFF)
    put_le16(data + 2, value >> 16)


cdef u64 le64(const u8 *data) noexcept nogil:
    return <u64>le32(data + 4) << 32 | le32(data)


cdef u32 add_up(const u8 *data, u32 count, u32 sum) noexcept nogil:
    """Ones'-complement sum of big-endian words, an odd byte at the end being a high one; `sum` comes from a call before
    with an even count. At most 16 bits wide.
    """
    cdef u64 total = 0
    cdef u32 word, n = 0
    while n + 4 <= count:
        memcpy(&word, data + n, 4)                              # byte order does not matter to the sum, only to its bytes
        total += word
        n += 4
    total = (total & 0xFFFFFFFFU) + (total >> 32)
    total = (total & 0xFFFFFFFFU) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFF) << 8 | total >> 8                    # little-endian words until here
    if count - n >= 2:
        total += be16(data + n)
        n += 2
    if n < count:
        total += <u32>data[n] << 8
    return folded(<u32>total + sum)


cdef u32 folded(u32 sum) noexcept nogil:
    sum = (sum & 0xFFFF) + (sum >> 16)
    return (sum & 0xFFFF) + (sum >> 16)


cdef u32 checksum(const u8 *data, u32 count, u32 sum) noexcept nogil:
    """The Internet checksum of `count` bytes and what was summed up before."""
    return ~add_up(data, count, sum) & 0xFFFF


cdef u32 crc_last(const u8 *data, u32 count) noexcept nogil:
    """CRC-32 register after these bytes, not inverted, the last bit of the wire in bit 0 (the FCS is its complement)."""
    cdef u32 crc = 0xFFFFFFFFU, n
    for n in range(count):
        crc = crc >> 8 ^ CRC_LAST[(crc ^ data[n]) & 0xFF]
    return crc


cdef u32 crc_first(const u8 *data, u32 count) noexcept nogil:
    """The same register the other way round: its top bits choose a place in the multicast filters of most chips."""
    cdef u32 crc = crc_last(data, count), out = 0, n
    for n in range(32):
        out = out << 1 | crc >> n & 1
    return out


def _fill():
    cdef u32 n, k, crc
    for n in range(256):
        crc = n
        for k in range(8):
            crc = crc >> 1 ^ (0xEDB88320U if crc & 1 else 0)
        CRC_LAST[n] = crc


_fill()


# --- from Python (tests, glue) ------------------------------------------------------------------------------


def kind_of(bytes frame):
    return kind(frame) if len(frame) >= 6 else UNICAST


def sum_of(bytes data, u32 start=0):
    return add_up(data, <u32>len(data), start)


def checksum_of(bytes data, u32 start=0):
    return checksum(data, <u32>len(data), start)


def crc_of(bytes data):
    """(crc_last, crc_first)"""
    return crc_last(data, <u32>len(data)), crc_first(data, <u32>len(data))
