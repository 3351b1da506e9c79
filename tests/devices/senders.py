"""Network cards that are about to send a long list of the guest's."""

from __future__ import annotations

import struct

from tests.peers.nics import BAR, PORTS, Ours, pci_enable

RING, DATA = 0x100000, 0x200000
Queue = tuple[tuple[int, int, int], tuple[int, int, int]]  # of three rings: which page behind RING, descriptors
TCP = bytes(12) + b"\x08\x00" + struct.pack(">BBHHHBBHII", 0x45, 0, 65500, 7, 0, 64, 6, 0, 1, 2)
TCP += struct.pack(">HHIIBBHHH", 1, 2, 1000, 0, 0x50, 0x19, 100, 0, 0)


def pcnet_register(card: Ours, n: int, value: int) -> None:
    card.q.outw(PORTS + 0x12, n)
    card.q.outw(PORTS + 0x10, value)


def start_pcnet(card: Ours, count: int, status: int, length: int) -> None:
    """A ring of so many descriptors, each a frame at DATA or a part of one; 0x4A in CSR0 starts it."""
    pci_enable(card.q, 0, 1)
    card.q.inw(PORTS + 0x14)
    card.q.outw(PORTS + 0x12, 20)
    card.q.outw(PORTS + 0x16, 2)
    ring = DATA + 0x100000
    block = struct.pack("<HBB", 0, 3 << 4, 3 << 4) + bytes(16) + struct.pack("<II", RING + 0x1000, ring)
    card.q.write(RING, block)
    one = struct.pack("<IHHII", DATA, length & 0xFFFF, status, 0, 0)
    for n in range(0, count, 4096):
        card.q.write(ring + 16 * n, one * min(4096, count - n))
    start = (1, RING & 0xFFFF), (2, RING >> 16), (3, 0), (4, 0x1115), (0, 1), (0, 4), (74, count), (78, count)
    for n, value in start:
        pcnet_register(card, n, value)


def start_sending_vmxnet3(card: Ours, count: int, size: int, mss: int) -> None:
    """A transmit ring full of TCP over IPv4 of that size, in five descriptors each, to be cut to `mss`."""
    vmxnet3_queues(card, ((0, 8, 12), (512, 0, 512)), ((20, 21, 22), (32, 32, 32)))
    card.q.write(DATA, TCP + bytes(size - len(TCP)))
    rows, left, at = [], size, DATA
    for _ in range(count):
        if not left:
            left, at = size, DATA
        part = min(left, 16384)
        left -= part
        end = 0x3000 if not left else 0
        rows.append(struct.pack("<QII", at, part & 0x3FFF | 1 << 14 | mss << 18, 54 | 3 << 10 | end))
        at += part
    card.q.write(RING + 0x1000, b"".join(rows))
    activate_vmxnet3(card)


def vmxnet3_queues(card: Ours, transmit: Queue, receive: Queue) -> None:
    """A queue each way, of such rings, in a shared area at RING."""
    pci_enable(card.q)
    for bar in range(2):
        card.q.pci_write(5, 0, 0x10 + 4 * bar, BAR + 0x1000 * bar)
    area = bytearray(0x1000)
    struct.pack_into("<I", area, 0, 0xBABEFEE1)
    struct.pack_into("<QQQ", area, 24, 1, 0, RING + 0x800)
    area[62] = area[63] = 1
    struct.pack_into("<I", area, 120, 31)
    for base, (places, sizes) in ((0x800, transmit), (0x900, receive)):
        struct.pack_into("<QQQ", area, base + 16, *(RING + 0x1000 * (1 + n) for n in places))
        struct.pack_into("<III", area, base + 56, *sizes)
    card.q.write(RING, bytes(area))


def activate_vmxnet3(card: Ours) -> None:
    for at, value in ((0x10, RING), (0x18, 0), (0x20, 0xCAFE0000)):
        card.q.writel(BAR + 0x1000 + at, value)
    assert card.q.readl(BAR + 0x1020) == 0
