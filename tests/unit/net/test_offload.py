"""Checksums and segments, held to sums that are worked out here word by word."""

from __future__ import annotations

import struct

import pytest
from vmrun.backends.net.offload import finish

MACS = bytes.fromhex("525400123456" "525400123457")


def sum16(data: bytes) -> int:
    if len(data) & 1:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def tcp4(payload: bytes, flags: int = 0x18, vlan: bool = False) -> bytes:
    total = 20 + 20 + len(payload)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, 0xFFFF, 0x4000, 64, 6, 0, b"\x0a\0\2\x0f", b"\x0a\0\2\2")
    tcp = struct.pack(">HHIIBBHHH", 1000, 80, 0xFFFFFF00, 7, 0x50, flags, 1000, 0x1111, 0)
    tag = b"\x81\x00\x00\x05" if vlan else b""
    return MACS + tag + b"\x08\x00" + ip + tcp + payload


def tcp6(payload: bytes) -> bytes:
    ip = struct.pack(">IHBB16s16s", 6 << 28, 20 + len(payload), 6, 64, b"\xfe" + bytes(15), b"\xfe" + bytes(14) + b"\1")
    return MACS + b"\x86\xdd" + ip + struct.pack(">HHIIBBHHH", 1, 2, 5, 6, 0x50, 0x10, 9, 0, 0) + payload


def right(segment: bytes, at: int, six: bool = False) -> bool:
    """Whether IP's and TCP's checksums are."""
    body = segment[at + (40 if six else 20) :]
    addresses = segment[at + 8 : at + 40] if six else segment[at + 12 : at + 20]
    header = True if six else sum16(segment[at : at + 20]) == 0xFFFF
    return header and sum16(addresses + struct.pack(">HH", 6, len(body)) + body) == 0xFFFF


@pytest.mark.parametrize("vlan", [False, True])
def test_tcp_over_ipv4_is_cut(vlan: bool) -> None:
    payload = bytes(n * 7 & 0xFF for n in range(2500))
    at = 18 if vlan else 14
    segments = finish(tcp4(payload, 0x99, vlan), flags=1, gso=1, segment_size=1000, csum_start=34, csum_offset=16)
    assert segments is not None
    assert b"".join(segment[at + 40 :] for segment in segments) == payload
    assert [len(segment) - at - 40 for segment in segments] == [1000, 1000, 500]
    assert all(right(segment, at) for segment in segments)
    assert [segment[at + 33] for segment in segments] == [0x90, 0x10, 0x19]  # CWR in the first, FIN and PSH in the last
    assert [struct.unpack_from(">I", s, at + 24)[0] for s in segments] == [0xFFFFFF00, 0x2E8, 0x6D0]
    assert [struct.unpack_from(">H", s, at + 4)[0] for s in segments] == [0xFFFF, 0, 1]


def test_tcp_over_ipv6_is_cut() -> None:
    segments = finish(tcp6(bytes(range(250)) * 10), flags=1, gso=4, segment_size=1200, csum_start=54, csum_offset=16)
    assert segments is not None
    assert [len(segment) - 74 for segment in segments] == [1200, 1200, 100]
    assert all(right(segment, 14, True) for segment in segments)
    assert [struct.unpack_from(">H", s, 18)[0] for s in segments] == [1220, 1220, 120]


def test_headers_between_ipv6_and_tcp_are_in_each_segment() -> None:
    """Hop-by-hop options of eight bytes, then destination options of sixteen."""
    plain = tcp6(bytes(range(250)) * 10)
    between = bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes([6, 1, 1, 12, *bytes(12)])
    ip = plain[14:18] + struct.pack(">HB", len(plain) - 54 + len(between), 0) + plain[21:54]
    frame = plain[:14] + ip + between + plain[54:]
    segments = finish(frame, flags=1, gso=4, segment_size=1200, csum_start=78, csum_offset=16)
    assert segments is not None
    assert [len(segment) - 98 for segment in segments] == [1200, 1200, 100]
    for segment in segments:
        assert segment[54:78] == between and struct.unpack_from(">H", segment, 18)[0] == len(segment) - 54
        assert right(segment[:14] + segment[14:54] + segment[78:], 14, True)
    for length in range(55, 98):
        assert finish(frame[:length], flags=1, gso=4, segment_size=1200, csum_start=78, csum_offset=16) is None


def test_a_udp_datagram_becomes_fragments() -> None:
    payload = bytes(range(200)) * 20
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 9, 0, 64, 17, 0, b"\x0a\0\2\x0f", b"\x0a\0\2\2")
    udp = struct.pack(">HHHH", 1, 2, 8 + len(payload), 0)
    frame = MACS + b"\x08\x00" + ip + udp + payload
    pieces = finish(frame, flags=1, gso=3, segment_size=1480, csum_start=34, csum_offset=6)
    assert pieces is not None
    assert [struct.unpack_from(">H", p, 20)[0] for p in pieces] == [0x2000, 0x2000 | 185, 370]
    assert b"".join(p[34:] for p in pieces)[8:] == payload
    assert all(sum16(p[14:34]) == 0xFFFF for p in pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 61])
def test_a_checksum_covers_every_byte(size: int) -> None:
    frame = MACS + b"\x08\x00" + b"\0\0" + bytes(n + 1 for n in range(size))
    done = finish(frame, flags=1, csum_start=14, csum_offset=0)
    assert done is not None
    assert sum16(done[0][14:]) == 0xFFFF


@pytest.mark.parametrize("start, offset", [(200, 0), (0, 1000), (65535, 65535), (63, 0)])
def test_a_checksum_outside_is_refused(start: int, offset: int) -> None:
    assert finish(MACS + bytes(52), flags=1, csum_start=start, csum_offset=offset) is None


@pytest.mark.parametrize("cut", range(0, 54, 3))
def test_frames_cut_short_are_refused(cut: int) -> None:
    assert finish(tcp4(b"")[:cut], flags=1, gso=1, segment_size=100, csum_start=34, csum_offset=16) is None


@pytest.mark.parametrize("gso, size", [(1, 0), (4, 100), (3, 100), (5, 100), (2, 100)])
def test_what_the_frame_is_not_is_refused(gso: int, size: int) -> None:
    assert finish(tcp4(bytes(300)), flags=1, gso=gso, segment_size=size, csum_start=34, csum_offset=16) is None


def test_a_segment_as_long_as_can_be_fits() -> None:
    segments = finish(tcp4(bytes(65000)), gso=1, segment_size=65535)
    assert segments is not None and [len(segment) for segment in segments] == [65054]
