"""What a card left to do for a frame, in software: checksums, and cutting large frames into segments.

Ref: Virtual I/O Device (VIRTIO) 1.1, 5.1.6; RFC 791, 793, 1071, 8200.

The frame and its header are a guest's or a peer's: every offset is checked against the frame's length.
"""

from libc.string cimport memcpy

from vmrun.backends.protocols cimport (
    NET_CAN_CSUM, NET_CAN_ECN, NET_CAN_TSO4, NET_CAN_TSO6, NET_CAN_UFO, NET_GSO_ECN, NET_GSO_NONE, NET_GSO_TCP4,
    NET_GSO_TCP6, NET_GSO_UDP, NET_MOST_FRAME, NET_NEEDS_CSUM,
)

cdef enum:
    ETHERNET = 14
    TAG = 4
    TCP = 6
    UDP = 17
    UDP_HEADER = 8
    FIN_PSH = 0x09
    CWR = 0x80
    MORE_FRAGMENTS = 0x2000
    HOP_OPTIONS = 0             # headers of IPv6
    DESTINATION_OPTIONS = 60


cdef u32 net_needs(const NetHeader *header) noexcept nogil:
    """NET_CAN_… that somebody must have to take a frame with this header; all of them for an unknown kind."""
    cdef u32 kind, needs = 0
    if header == NULL:
        return 0
    if header.flags & NET_NEEDS_CSUM:
        needs |= NET_CAN_CSUM
    if header.gso:
        kind = header.gso & ~<u32>NET_GSO_ECN
        if kind == NET_GSO_TCP4:
            needs |= NET_CAN_TSO4
        elif kind == NET_GSO_TCP6:
            needs |= NET_CAN_TSO6
        elif kind == NET_GSO_UDP:
            needs |= NET_CAN_UFO
        else:
            needs = ~<u32>0
        if header.gso & NET_GSO_ECN:
            needs |= NET_CAN_ECN
    return needs


cdef inline u32 get16(const u8 *data) noexcept nogil:
    return <u32>data[0] << 8 | data[1]


cdef inline void put16(u8 *data, u32 value) noexcept nogil:
    data[0], data[1] = value >> 8 & 0xFF, value & 0xFF


cdef inline u32 get32(const u8 *data) noexcept nogil:
    return get16(data) << 16 | get16(data + 2)


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* The one's complement sum of big-endian words, not folded: eight bytes at a time, in the host's order. */
    static inline uint64_t net_sum(const unsigned char *p, uint32_t n)
    {
        uint64_t sum = 0, word;
        uint32_t half;
        uint16_t low;
        while (n >= 8) {
            memcpy(&word, p, 8);
            sum += word & 0xFFFFFFFFu;
            sum += word >> 32;
            p += 8, n -= 8;
        }
        if (n >= 4) {
            memcpy(&half, p, 4);
            sum += half;
            p += 4, n -= 4;
        }
        if (n >= 2) {
            memcpy(&low, p, 2);
            sum += low;
            p += 2, n -= 2;
        }
        if (n) {
            low = 0;
            memcpy(&low, p, 1);
            sum += low;
        }
        sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
        sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        return __builtin_bswap16((uint16_t)sum);
    }
    """
    unsigned long long net_sum(const u8 *data, u32 count) nogil


cdef inline u32 folded(unsigned long long sum) noexcept nogil:
    while sum >> 16:
        sum = (sum & 0xFFFF) + (sum >> 16)
    return <u32>sum


cdef u32 past_ip6(const u8 *frame, u32 length, u32 ip, u32 *protocol) noexcept nogil:
    """Where the packet of an IPv6 header lies, behind headers that change nothing of it (for hops, for its destination),
    and what it is. 0: the frame ends before that.
    """
    cdef u32 at = ip + 40
    protocol[0] = frame[ip + 6] if at <= length else 0
    while protocol[0] == HOP_OPTIONS or protocol[0] == DESTINATION_OPTIONS:
        if at + 8 > length:
            return 0
        protocol[0] = frame[at]
        at += 8 + 8 * <u32>frame[at + 1]
    return at if at <= length else 0


cdef int net_checksum(u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
    """Fill in the checksum that the header asks for. -1: it lies outside the frame."""
    cdef u32 start = header.csum_start, place = start + header.csum_offset, sum
    if start >= length or place + 2 > length:
        return -1
    sum = ~folded(net_sum(frame + start, length - start)) & 0xFFFF
    put16(frame + place, sum if sum else 0xFFFF)
    return 0


cdef int net_whole(u8 *frame, u32 length) noexcept nogil:
    """The checksum of a TCP or UDP packet that is passed on uncut, however long it is. -1: it is no such packet."""
    cdef u32 ip = ETHERNET, transport, protocol, sum, place, end
    cdef bint six
    if length < ETHERNET + 20:
        return -1
    six = get16(frame + 12) == 0x86DD
    if six:
        transport = past_ip6(frame, length, ip, &protocol)
        if not transport:
            return -1
        end = ip + 40 + get16(frame + ip + 4)
    elif get16(frame + 12) == 0x0800:
        transport, protocol = ip + 4 * (frame[ip] & 15), frame[ip + 9]
        end = ip + get16(frame + ip + 2)
    else:
        return -1
    place = transport + (16 if protocol == TCP else 6)
    if protocol != TCP and protocol != UDP or end > length or place + 2 > end:
        return -1
    put16(frame + place, 0)
    sum = folded(
        net_sum(frame + ip + (8 if six else 12), 32 if six else 8)
        + protocol + (end - transport) + net_sum(frame + transport, end - transport)
    )
    sum = ~sum & 0xFFFF
    put16(frame + place, sum if sum or protocol == TCP else 0xFFFF)
    return 0


cdef void net_join(u8 *frame, u32 length) noexcept nogil:
    """The lengths and checksums of a TCP/IPv4 frame without options that was made of several: TCP's is left to do."""
    put16(frame + 16, length - ETHERNET)
    put16(frame + 24, 0)
    put16(frame + 24, ~folded(net_sum(frame + 14, 20)) & 0xFFFF)
    put16(frame + 50, folded(net_sum(frame + 26, 8) + TCP + (length - 34)))


cdef int cut_begin(Cut *cut, u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
    """Find the headers of a frame that is to be cut. -1: it is not what its header says.

    A UDP datagram becomes fragments of IP, its checksum is filled in here.
    """
    cdef u32 ip = ETHERNET, type, transport, kind = header.gso & ~<u32>NET_GSO_ECN, protocol
    if length < ETHERNET:
        return -1
    type = get16(frame + 12)
    while type == 0x8100 or type == 0x88A8:
        ip += TAG
        if ip + 2 > length or ip > ETHERNET + 2 * TAG:
            return -1
        type = get16(frame + ip - 2)
    cut.six = type == 0x86DD
    cut.udp = kind == NET_GSO_UDP
    if type == 0x0800:
        if (kind != NET_GSO_TCP4 and not cut.udp) or ip + 20 > length or frame[ip] >> 4 != 4:
            return -1
        transport = ip + 4 * (frame[ip] & 15)
        if transport < ip + 20:
            return -1
        protocol = frame[ip + 9]
    elif type == 0x86DD:
        transport = past_ip6(frame, length, ip, &protocol)
        if kind != NET_GSO_TCP6 or not transport:
            return -1                                           # fragments of IPv6 are nobody's offload
    else:
        return -1
    if protocol != (UDP if cut.udp else TCP) or not header.segment_size:
        return -1
    if cut.udp:
        cut.payload = transport                                 # UDP's header is in the first fragment
        cut.size = header.segment_size & ~<u32>7
        if transport + UDP_HEADER > length or not cut.size:
            return -1
        if header.flags & NET_NEEDS_CSUM and net_checksum(frame, length, header) != 0:
            return -1
    else:
        if transport + 20 > length:
            return -1
        cut.payload = transport + 4 * (frame[transport + 12] >> 4)
        if cut.payload < transport + 20 or cut.payload > length:
            return -1
        cut.size = header.segment_size
    if length > NET_MOST_FRAME or length - cut.payload > 0xFFFF:
        return -1
    cut.frame, cut.length, cut.ip, cut.transport = frame, length, ip, transport
    cut.at, cut.number = cut.payload, 0
    return 0


cdef u32 cut_next(Cut *cut, u8 *out) noexcept nogil:
    """Write the next segment, finished, to `out` (NET_MOST_FRAME bytes). Its length, 0 at the end."""
    cdef u32 part, total, sum, flags, offset
    cdef bint last
    if cut.at >= cut.length and not (cut.number == 0 and not cut.udp):
        return 0
    part = min(cut.size, cut.length - cut.at)
    last = cut.at + part >= cut.length
    memcpy(out, cut.frame, cut.payload)
    memcpy(out + cut.payload, cut.frame + cut.at, part)
    total = cut.payload + part
    offset = cut.at - cut.payload
    if cut.six:
        put16(out + cut.ip + 4, total - cut.ip - 40)
    else:
        put16(out + cut.ip + 2, total - cut.ip)
        if cut.udp:
            put16(out + cut.ip + 6, offset >> 3 | (0 if last else MORE_FRAGMENTS))
        else:
            put16(out + cut.ip + 4, get16(cut.frame + cut.ip + 4) + cut.number & 0xFFFF)
        put16(out + cut.ip + 10, 0)
        put16(out + cut.ip + 10, ~folded(net_sum(out + cut.ip, cut.transport - cut.ip)) & 0xFFFF)
    if not cut.udp:
        sum = get32(cut.frame + cut.transport + 4) + offset
        put16(out + cut.transport + 4, sum >> 16)
        put16(out + cut.transport + 6, sum & 0xFFFF)
        flags = cut.frame[cut.transport + 13]
        if not last:
            flags &= ~<u32>FIN_PSH
        if cut.number:
            flags &= ~<u32>CWR
        out[cut.transport + 13] = flags
        put16(out + cut.transport + 16, 0)
        sum = folded(
            net_sum(out + cut.ip + (8 if cut.six else 12), 32 if cut.six else 8)
            + TCP + (total - cut.transport) + net_sum(out + cut.transport, total - cut.transport)
        )
        put16(out + cut.transport + 16, ~sum & 0xFFFF)
    cut.at += part
    cut.number += 1
    return total


# --- for tests -------------------------------------------------------------------------------------------------

def finish(bytes frame, flags=0, gso=0, segment_size=0, csum_start=0, csum_offset=0):
    """The finished frames that one with such a header stands for; None when it is not what its header says."""
    cdef NetHeader header
    cdef Cut cut
    cdef bytearray work = bytearray(frame), out = bytearray(NET_MOST_FRAME)
    cdef u32 count
    header.flags, header.gso, header.segment_size = flags, gso, segment_size
    header.csum_start, header.csum_offset, header.header_length = csum_start, csum_offset, 0
    if not gso:
        if flags & NET_NEEDS_CSUM and net_checksum(<u8 *>(<char *>work), <u32>len(work), &header) != 0:
            return None
        return [bytes(work)]
    if cut_begin(&cut, <u8 *>(<char *>work), <u32>len(work), &header) != 0:
        return None
    found = []
    while True:
        count = cut_next(&cut, <u8 *>(<char *>out))
        if not count:
            return found
        found.append(bytes(out[:count]))
