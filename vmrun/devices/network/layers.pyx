"""What an Ethernet frame carries: where IP, TCP and UDP begin, whether their checksums are right, RSS's hash.

Ref: RFC 791, 793, 768, 8200, 1071; Microsoft, Receive Side Scaling (Toeplitz hash).
"""

from libc.string cimport memset

from vmrun.devices.network.frames cimport add_up, be16, be32, folded


cdef void look(const u8 *frame, u32 size, Layers *found) noexcept nogil:
    """What a frame of at least 60 bytes carries, a VLAN tag left out of account."""
    cdef u32 at = 14, type = be16(frame + 12), length
    memset(found, 0, sizeof(Layers))
    if type == 0x8100 and size >= 22:
        type, at = be16(frame + 16), 18
    if type == 0x0800 and size >= at + 20 and frame[at] >> 4 == 4:
        length = (frame[at] & 15) * 4
        if length < 20 or at + length > size:
            return
        found.l3, found.version, found.protocol = at, 4, frame[at + 9]
        found.end = min(size, at + be16(frame + at + 2))
        if be16(frame + at + 6) & 0x3FFF or found.end < at + length:
            found.end, found.fragment = max(found.end, at + length), True
            return
        at += length
    elif type == 0x86DD and size >= at + 40 and frame[at] >> 4 == 6:
        found.l3, found.version, found.protocol = at, 6, frame[at + 6]
        found.end = min(size, at + 40 + be16(frame + at + 4))
        at += 40
    else:
        return
    if found.protocol == TCP and found.end >= at + 20:
        length = (frame[at + 12] >> 4) * 4
        if length >= 20 and at + length <= found.end:
            found.l4, found.payload = at, at + length
    elif found.protocol == UDP and found.end >= at + 8:
        found.l4, found.payload = at, at + 8


cdef u32 toeplitz(const u8 *key, const u8 *data, u32 count) noexcept nogil:
    cdef u32 result = 0, window = be32(key), n, bit, next = 4
    for n in range(count):
        for bit in range(8):
            if data[n] >> (7 - bit) & 1:
                result ^= window
            window = window << 1 | key[next] >> (7 - bit) & 1
        next = next + 1 if next < 39 else 0
    return result


cdef bint header_sum_right(const u8 *frame, const Layers *found) noexcept nogil:
    """IPv4's."""
    return add_up(frame + found.l3, (frame[found.l3] & 15) * 4, 0) == 0xFFFF


cdef u32 pseudo_sum(const u8 *frame, const Layers *found, u32 length) noexcept nogil:
    """The sum of the pseudo header of TCP or UDP with so many bytes."""
    cdef u32 sum
    if found.version == 4:
        sum = add_up(frame + found.l3 + 12, 8, 0)
    else:
        sum = add_up(frame + found.l3 + 8, 32, 0)
    return folded(sum + found.protocol + folded(length))


cdef bint transport_sum_right(const u8 *frame, const Layers *found) noexcept nogil:
    """TCP's or UDP's; `l4` is not 0."""
    cdef u32 length = found.end - found.l4
    return add_up(frame + found.l4, length, pseudo_sum(frame, found, length)) == 0xFFFF


# --- from Python (tests) --------------------------------------------------------------------------------------


def layers_of(bytes frame):
    """{name: number} of a frame of at least 60 bytes."""
    cdef Layers found
    look(<const u8 *>frame, <u32>len(frame), &found)
    return found


def hash_of(bytes key, bytes data):
    """RSS's hash with a key of 40 bytes."""
    return toeplitz(<const u8 *>key, <const u8 *>data, <u32>len(data))
