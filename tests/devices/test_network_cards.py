"""Network cards of vmrun with a test at the other end of the cable: what hostile guests and peers send, what waits,
what is saved.
"""

from __future__ import annotations

import random
import struct
import time
from typing import Any

import pytest
from vmrun.backends.net.base import PyNet

from tests.devices.differences import DIFFERENCES
from tests.devices.senders import activate_vmxnet3, pcnet_register, start_pcnet, start_sending_vmxnet3, vmxnet3_queues
from tests.peers.nics import BAR, PORTS, STATION, Ours, frame, pci_enable

# driver → (bar of ports, of memory), size of the registers in memory or of the ports
CARDS: dict[str, tuple[int | None, int | None, int]] = {
    "e1000": (1, 0, 0x20000),
    "e1000-82544gc": (1, 0, 0x20000),
    "e1000e": (2, 0, 0x20000),
    "vmxnet3": (None, 1, 0x1000),
    "rtl8139": (0, 1, 0x100),
    "pcnet": (0, 1, 0x20),
    "ne2k_pci": (0, None, 0x20),
    "i82551": (1, 0, 0x40),
    "i82557b": (1, 0, 0x40),
}
LENGTHS = (0, 1, 6, 13, 14, 59, 60, 64, 1514, 1518, 1522, 4096, 8192, 16384, 16385, 65535, 65536, 70000)
RDBAL, RDLEN, RDH, RDT, TDBAL, TDLEN, TDH, TDT = 0x2800, 0x2808, 0x2810, 0x2818, 0x3800, 0x3808, 0x3810, 0x3818
RCTL, TCTL, CTRL, STATUS = 0x100, 0x400, 0, 8
RING, DATA = 0x100000, 0x200000
E1000_OFTEN = (0, 0x38, 0x100, 0x400, *range(0x2800, 0x281C, 4), *range(0x3800, 0x381C, 4), 0xC0, 0xD0, 0x20)
LONG_ONLY = ("e1000", "e1000-82544gc", "e1000e", "vmxnet3")
RTL_OFTEN = (*range(0x10, 0x60, 2), 0xD9, 0xE0, 0xE4, 0xE8)


def access(card: Ours, driver: str, chosen: random.Random) -> None:
    """One write of a driver that makes no sense."""
    bars = CARDS[driver]
    at = chosen.randrange(bars[2]) & ~3
    if driver == "e1000e" and chosen.random() < 0.1:
        at = chosen.choice([0x2170, 0x5008, 0x5818, 0xE4, 0x5000, 0x2C00])
    elif driver.startswith("e1000") and chosen.random() < 0.8:
        at = chosen.choice(E1000_OFTEN)
    if driver == "rtl8139" and chosen.random() < 0.8:
        at = chosen.choice(RTL_OFTEN)
    size = 4 if driver in LONG_ONLY else chosen.choice([1, 2, 2, 4])
    value = chosen.choice([0, 0xFFFFFFFF, RING, RING + chosen.randrange(4096), DATA, 0x0C, chosen.getrandbits(32)])
    board = card.machine.machine.board
    with board.lock:
        if bars[1] is None or chosen.random() < 0.3 and driver not in LONG_ONLY:
            board.io.write(PORTS + at % 0x100, size, value & (1 << 8 * size) - 1)
            board.io.read(PORTS + chosen.randrange(0x20), size)
        else:
            board.memory.write(BAR + at, size, value & (1 << 8 * size) - 1)
            board.memory.read(BAR + chosen.randrange(bars[2]) // 4 * 4, size)


@pytest.mark.parametrize("driver", CARDS)
def test_nothing_that_a_guest_or_a_peer_does_is_too_much(driver: str) -> None:
    """Registers, rings in memory that changes, and frames of all lengths, for two seconds; the state stays a state."""
    chosen = random.Random(driver)
    with Ours(driver) as card:
        pci_enable(card.q, *CARDS[driver][:2])
        board, end = card.machine.machine.board, time.monotonic() + 2.0
        while time.monotonic() < end:
            with board.lock:
                board.memory.write_bytes(RING, chosen.randbytes(4096))
                for n in range(0, 4096, 16):  # descriptors with addresses that often are ones
                    if chosen.random() < 0.7:
                        where = chosen.choice([0, DATA, RING, 0xFEE00000, 64 << 20, 0xFFFFFFFFFFFFFFF0])
                        board.memory.write_bytes(RING + n, where.to_bytes(8, "little"))
                board.virtual.set_time(board.virtual.time() + chosen.choice([0, 10**6, 10**9]))
                board.timers.run()
            for _ in range(60):
                access(card, driver, chosen)
            for length in chosen.sample(LENGTHS, 4):
                card.deliver(frame(length, chosen.choice([STATION, b"\xff" * 6]), length))
            with board.lock:
                card.card.load(card.card.save())
            card.frames.clear()
        assert card.q.pci_read(5, 0, 0) & 0xFFFF in (0x8086, 0x10EC, 0x1022, 0x15AD)


def e1000(card: Ours) -> None:
    """Rings of 64 descriptors; what there is to receive goes to DATA and on, 2 KiB each."""
    pci_enable(card.q, 1, 0)
    for at, value in ((TDBAL, RING), (TDLEN, 1024), (TDH, 0), (TDT, 0), (RDBAL, RING + 4096), (RDLEN, 1024), (RDH, 0)):
        card.q.writel(BAR + at, value)
    for n in range(64):
        card.q.write(RING + 4096 + 16 * n, struct.pack("<QQ", DATA + 2048 * n, 0))
    card.q.writel(BAR + TCTL, 2)
    card.q.writel(BAR + RCTL, 0x801A)
    card.wait(1.0)


def test_a_frame_waits_for_a_machine_that_is_stopped() -> None:
    with Ours("e1000") as card:
        e1000(card)
        card.q.writel(BAR + RDT, 63)
        with card.machine.machine.board.lock:
            card.net.set_running(False)
        card.deliver(frame(100, STATION))
        assert card.q.readl(BAR + RDH) == 0
        with card.machine.machine.board.lock:
            card.net.set_running(True)
        assert card.q.readl(BAR + RDH) == 1
        assert card.q.read(DATA, 100) == frame(100, STATION)


def test_frames_wait_until_there_are_buffers() -> None:
    with Ours("e1000") as card:
        e1000(card)
        for n in range(5):
            card.deliver(frame(200, STATION, n))
        assert card.q.readl(BAR + RDH) == 0
        card.q.writel(BAR + RDT, 3)
        assert card.q.readl(BAR + RDH) == 3
        card.q.writel(BAR + RDT, 10)
        assert [card.q.read(DATA + 2048 * n, 200) for n in range(5)] == [frame(200, STATION, n) for n in range(5)]


def test_a_frame_of_more_than_64_kib_is_cut_off() -> None:
    with Ours("e1000") as card:
        e1000(card)
        for n in range(8):
            command = 0x01 if n == 7 else 0
            card.q.write(RING + 16 * n, struct.pack("<QII", DATA, command << 24 | 0x3000, 0))
        card.q.writel(BAR + TDT, 8)
        assert [len(sent) for sent in card.sent()] == [0x10000]
        assert card.q.readl(BAR + TDH) == 8


def test_half_a_frame_is_saved_and_goes_on() -> None:
    with Ours("e1000") as card:
        e1000(card)
        card.q.write(DATA, frame(300))
        for n, (at, size, command) in enumerate(((0, 100, 0), (100, 200, 0x01))):
            card.q.write(RING + 16 * n, struct.pack("<QII", DATA + at, command << 24 | size, 0))
        card.q.writel(BAR + TDT, 1)
        with card.machine.machine.board.lock:
            saved = card.card.save()
            card.card.reset()
            card.card.load(saved)
        card.q.writel(BAR + TDT, 2)
        assert card.sent() == [frame(300)]


def test_one_access_does_not_send_without_end() -> None:
    """Segments of a byte each, from 60 descriptors: the rest follows when time passes."""
    with Ours("e1000") as card:
        e1000(card)
        context = struct.pack("<BBHBBHIBBH", 14, 24, 33, 34, 50, 0, 0x27 << 24 | 0xFFFF, 0, 54, 1)
        card.q.write(RING, context)
        for n in range(1, 60):
            card.q.write(RING + 16 * n, struct.pack("<QII", DATA, 0x25100000 | 3000, 0))
        with card.machine.machine.board.lock:
            card.machine.machine.board.memory.write(BAR + TDT, 4, 60)
            first = len(card.frames)
        assert 0 < first <= 256 and card.q.readl(BAR + TDH) == 1  # in the middle of a descriptor
        again(card)
        for _ in range(60 * 2947 // 200):
            card.q.clock_step(1)
        assert card.q.readl(BAR + TDH) == 60
        sent = card.sent()
        assert len(sent) == 59 * 2947  # the last one of each has the headers alone
        numbers = [int.from_bytes(one[38:42], "big") for one in sent[:2947]]
        assert numbers == list(range(numbers[0], numbers[0] + 2947))


@pytest.mark.parametrize(("ring", "head"), [(RING + 0x8000, 0), (RING, 1)], ids=["another", "the same"])
@pytest.mark.parametrize("name", ["e1000", "e1000e"])
def test_a_ring_laid_anew_begins_with_its_first_byte(name: str, ring: int, head: int) -> None:
    """The driver gives a card a ring while a descriptor of the last one is half done."""
    with Ours(name) as card:
        e1000(card)
        context = struct.pack("<BBHBBHIBBH", 14, 24, 33, 34, 50, 0, 0x27 << 24 | 0xFFFF, 0, 54, 1)
        card.q.write(RING, context + struct.pack("<QII", DATA, 0x25100000 | 3000, 0))
        memory = card.machine.machine.board.memory
        with card.machine.machine.board.lock:
            memory.write(BAR + TDT, 4, 2)
            before = len(card.frames)
            memory.write(BAR + TCTL, 4, 0)
            memory.write_bytes(ring, context + struct.pack("<QII", DATA, 0x25100000 | 3000, 0))
            for at, value in ((TDBAL, ring), (TDH, head), (TDT, 2), (TCTL, 2)):
                memory.write(BAR + at, 4, value)
        for _ in range(20):
            card.q.clock_step(1)
        assert 0 < before < 300 and len(card.sent()) - before >= 3000


def again(card: Ours) -> None:
    """The card is saved, reset, and goes on from what was saved."""
    with card.machine.machine.board.lock:
        saved = card.card.save()
        card.card.reset()
        card.card.load(saved)


def test_a_frame_in_segments_is_left_off_and_gone_on_with() -> None:
    """An rtl8139's, of 3,000 bytes in segments of one."""
    with Ours("rtl8139") as card:
        pci_enable(card.q, 0, 1)
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 3040, 7, 0, 64, 6, 0, 1, 2)
        tcp = struct.pack(">HHIIBBHHH", 1, 2, 1000, 0, 0x50, 0x19, 100, 0, 0)
        data = random.Random(1).randbytes(3000)
        card.q.write(DATA, bytes(12) + b"\x08\0" + ip + tcp + data)
        card.q.write(RING, struct.pack("<IIQ", 0xF8000000 | 1 << 16 | 3054, 0x20000, DATA))
        board = card.machine.machine.board
        with board.lock:
            for at, size, value in ((0xE0, 2, 3), (0x37, 1, 12), (0x20, 4, RING), (0x24, 4, 0), (0xD9, 1, 0x40)):
                board.io.write(PORTS + at, size, value)
        assert 0 < len(card.frames) <= 256
        again(card)
        for _ in range(3000 // 200):
            card.q.clock_step(1)
        sent: list[Any] = card.sent()
        assert len(sent) == 3000
        assert bytes(one[58] for one in sent) == data and {one[12:16] for one in sent} == {b"\x81\0\0\0"}
        assert [int.from_bytes(one[42:46], "big") for one in sent] == list(range(1000, 4000))
        assert [int.from_bytes(one[22:24], "big") for one in sent] == list(range(7, 3007))
        assert [one[51] for one in sent] == [0x10] * 2999 + [0x19]


@pytest.mark.parametrize("status", [0x8300, 0x8000])
def test_a_ring_of_thousands_goes_out_in_turns(status: int) -> None:
    """A pcnet's: frames in a descriptor each, or one frame in all of them, of a byte each."""
    count = 3000
    with Ours("pcnet") as card:
        start_pcnet(card, count, status, -60 if status & 0x100 else -1)
        data = frame(4096)
        card.q.write(DATA, data)
        last = DATA + 0x100000 + 16 * (count - 1)
        card.q.write(DATA + 0x100000 + 6, b"\0\x82" if status == 0x8000 else b"\0\x83")
        card.q.write(last + 6, b"\0\x81" if status == 0x8000 else b"\0\x83")
        ram = card.machine.machine.board.ram
        with card.machine.machine.board.lock:
            card.machine.machine.board.io.write(PORTS + 0x12, 2, 0)
            card.machine.machine.board.io.write(PORTS + 0x10, 2, 0x4A)
            assert ram.read(last + 7, 1)[0] & 0x80 and not ram.read(DATA + 0x100007, 1)[0] & 0x80
            assert len(card.frames) <= 256
        card.deliver(frame(60))  # half a frame that goes out is not overwritten
        again(card)
        for _ in range(40):
            card.q.clock_step(1)
        assert not card.q.read(last + 7, 1)[0] & 0x80
        assert card.sent() == ([data[:60]] * count if status & 0x100 else [data[:1] * count])
        assert card.net.held_count == 0


def test_a_vmxnet3_that_is_stopped_writes_no_statistics() -> None:
    """What its driver gave it is another's by then: Linux asks for them before it activates a card that it has anew."""
    with Ours("vmxnet3") as card:
        vmxnet3_queues(card, ((0, 8, 12), (512, 0, 512)), ((20, 21, 22), (32, 32, 32)))
        activate_vmxnet3(card)
        for stopped in (False, True):
            if stopped:
                card.q.writel(BAR + 0x1020, 0xCAFE0001)
            card.q.memset(RING + 0x800, 0x200, 0xEE)
            card.q.writel(BAR + 0x1020, 0xF00D0001)
            assert (card.q.read(RING + 0x800, 0x200) == b"\xee" * 0x200) == stopped


def test_a_reply_to_a_frame_that_is_being_sent_is_received() -> None:
    """A pcnet's, from a network that answers at once: what is in the buffer is on its way out, not half a frame."""
    with Ours("pcnet") as card:
        answer = b"\xff" * 6 + frame(60)[6:]
        card.net = PyNet(lambda data, header: card.net.incoming(answer))
        with card.machine.machine.board.lock:
            card.card.chip.attach(card.net)
            card.net.set_running(True)
        start_pcnet(card, 8, 0x8300, -60)
        card.q.write(DATA, frame(60))
        for n in range(8):
            row = struct.pack("<IHHII", RING + 0x10000 + 0x1000 * n, 0xFA00, 0x8000, 0, 0)
            card.q.write(RING + 0x1000 + 16 * n, row)
        pcnet_register(card, 0, 0x4A)
        for n in range(8):
            assert card.q.read(RING + 0x10000 + 0x1000 * n, 60) == answer
        assert card.net.held_count == 0


def test_a_chain_of_large_blocks_goes_in_turns() -> None:
    """An i82551's: computing a hash takes time."""
    with Ours("i82551") as card:
        start_8255x(card)
        for n in range(64):
            at, following = RING + 0x10000 + 0x5000 * n, RING + 0x10000 + 0x5000 * (n + 1)
            card.q.write(at, struct.pack("<HHIH", 0, 3 | (0x8000 if n == 63 else 0), following, 16380))
        card.q.writel(BAR + 4, RING + 0x10000)
        card.q.writeb(BAR + 2, 0x10)
        assert card.q.readb(BAR) & 0xC0 == 0x80
        assert card.q.readw(RING + 0x10000) & 0x8000 and not card.q.readw(RING + 0x10000 + 0x5000 * 3)
        again(card)
        for _ in range(64):
            card.q.clock_step(1)
        assert card.q.readb(BAR) & 0xC0 == 0 and card.q.readw(RING + 0x10000 + 0x5000 * 63) & 0x8000


def test_segments_that_the_back_end_cuts_are_cut_in_turns() -> None:
    """A vmxnet3's frame: what comes behind it waits until all of it has gone."""
    with Ours("vmxnet3") as card:
        board = card.machine.machine.board
        card.net.rest_on(board.iothread)
        board.iothread.start()
        start_sending_vmxnet3(card, 2, 3054, 1)
        with board.lock:
            board.memory.write(BAR + 0x600, 4, 2)
            assert len(card.frames) == 128 and card.net.cutting
            board.virtual.set_time(board.virtual.time() + 1_000_000)
            board.timers.run()
            assert len(card.frames) == 128
        end = time.monotonic() + 60
        while len(card.frames) < 6000 and time.monotonic() < end:
            card.q.clock_step(20_000)
        assert [int.from_bytes(one[38:42], "big") for one in card.sent()] == 2 * list(range(1000, 4000))
        card.net.close()


def test_the_cable_takes_the_link_with_it() -> None:
    with Ours("e1000") as card:
        e1000(card)
        card.link(False)
        assert not card.q.readl(BAR + STATUS) & 2 and card.q.readl(BAR + 0xC8) & 4
        card.link(True)
        assert not card.q.readl(BAR + STATUS) & 2  # it negotiates
        card.wait(0.5)
        assert card.q.readl(BAR + STATUS) & 2


def test_the_last_segment_alone_has_psh_and_fin() -> None:
    with Ours("rtl8139") as card:
        pci_enable(card.q, 0, 1)
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 3040, 7, 0, 64, 6, 0, 1, 2)
        tcp = struct.pack(">HHIIBBHHH", 1, 2, 1000, 0, 0x50, 0x19, 100, 0, 0)
        card.q.write(DATA, bytes(12) + b"\x08\0" + ip + tcp + bytes(3000))
        card.q.write(RING, struct.pack("<IIQ", 0xF8000000 | 1460 << 16 | 3054, 0, DATA))
        for write in ("w 0xe0 3", "b 0x37 12", f"l 0x20 {RING}", "l 0x24 0", "b 0xd9 0x40"):
            width, at, value = write.split()
            card.q.ask(f"out{width} {PORTS + int(at, 0):#x} {value}")
        sent: list[Any] = card.sent()
        assert [len(one) for one in sent] == [1514, 1514, 134]
        assert [one[47] for one in sent] == [0x10, 0x10, DIFFERENCES["rtl8139-flags"].vmrun]
        assert [int.from_bytes(one[38:42], "big") for one in sent] == [1000, 2460, 3920]


def test_a_full_ring_of_an_ne2000_keeps_its_interrupt() -> None:
    with Ours("ne2k_pci") as card:
        pci_enable(card.q, 0, None)
        start = ((0, 0x21), (14, 0x49), (1, 0x46), (2, 0x60), (3, 0x46), (12, 4), (0, 0x61), (7, 0x47), (0, 0x22))
        for at, value in start:
            card.q.outb(PORTS + at, value)
        for n in range(8):
            card.deliver(frame(1514, seed=n))
        assert card.net.held_count > 0
        card.q.outb(PORTS + 7, 1)
        assert card.q.inb(PORTS + 7) & 1 == DIFFERENCES["ne2000-full"].vmrun
        card.q.outb(PORTS + 3, 0x5E)  # the driver has read nearly all
        card.q.clock_step(1_000_000)
        assert card.q.inb(PORTS + 7) & 1 == 1
        card.q.outb(PORTS + 7, 1)


def vmxnet3_area(chosen: random.Random) -> bytes:
    """A shared area that nearly makes sense: rings of all sizes, anywhere."""
    area = bytearray(0x1000)
    struct.pack_into("<I", area, 0, 0xBABEFEE1)
    struct.pack_into("<QQQ", area, 24, chosen.getrandbits(4), 0, RING + 0x400)
    area[62], area[63] = chosen.choice([1, 1, 2, 8, 0, 255]), chosen.choice([1, 1, 2, 8, 0, 255])
    area[80:83] = bytes((chosen.randrange(2), chosen.randrange(30), chosen.randrange(30)))
    struct.pack_into("<I", area, 120, chosen.getrandbits(5))
    struct.pack_into("<HHQ", area, 124, chosen.choice([0, 6, 600, 65535]), 0, DATA)
    struct.pack_into("<IIQ", area, 648, 1, 176, RING + chosen.randrange(0x1000))
    for n in range(12):
        base = 0x400 + 256 * n
        for at in (16, 24, 32):
            ring = chosen.choice([RING + 0xC00, DATA, 0, 63 << 20, 0xFFFFFFFFFFFFF000])
            struct.pack_into("<Q", area, base + at, ring)
        for at in (56, 60, 64):
            struct.pack_into("<I", area, base + at, chosen.choice([0, 1, 32, 512, 8192, 8193, 0xFFFFFFFF]))
        area[base + 72] = chosen.choice([0, 1, 24, 25, 255])
    return bytes(area)


def test_no_shared_area_of_a_vmxnet3_is_too_much() -> None:
    chosen = random.Random(3)
    with Ours("vmxnet3") as card:
        pci_enable(card.q)
        for bar in range(2):
            card.q.pci_write(5, 0, 0x10 + 4 * bar, BAR + 0x1000 * bar)
        board, end, started = card.machine.machine.board, time.monotonic() + 2.0, 0
        while time.monotonic() < end or started < 4:  # about one in ten areas is good enough to start with
            with board.lock:
                memory = board.memory
                memory.write_bytes(RING, vmxnet3_area(chosen))
                memory.write_bytes(RING + 0xC00, chosen.randbytes(0x400))
                for at, value in ((0x10, RING), (0x18, 0), (0x20, 0xCAFE0000)):
                    memory.write(BAR + 0x1000 + at, 4, value)
                started += memory.read(BAR + 0x1020, 4) == 0
                for _ in range(20):
                    at = chosen.choice([0, 8 * chosen.randrange(25), 0x600, 0x638, 0x800, 0x808, 0xA00])
                    memory.write(BAR + at, 4, chosen.getrandbits(13))
                    memory.write(BAR + 0x1020, 4, chosen.choice([0xCAFE0000, 0xF00D0000]) + chosen.randrange(12))
                    memory.read(BAR + 0x1020, 4)
                board.virtual.set_time(board.virtual.time() + 1000)
                board.timers.run()
            for length in chosen.sample(LENGTHS, 4):
                card.deliver(frame(length, chosen.choice([STATION, b"\xff" * 6]), length))
            with board.lock:
                card.card.load(card.card.save())
            card.frames.clear()


EVERY = (*range(2050), *range(2050, 16400, 13), *range(16400, 70001, 101))


def start_8255x(card: Ours) -> None:
    """Reception of long frames into one buffer of 1520 bytes, whose list has no end."""
    pci_enable(card.q, 1, 0)
    config = bytes((22, 8, 0, 1, 0, 0, 0x32, 3, 1, 0, 0x2E, 0, 0x60, 0, 0xF2, 0xC9, 0, 0x40, 0xFE, 0x80, 0x3F, 5))
    card.q.write(RING, struct.pack("<HHI", 0, 0x8002, 0) + config)
    card.q.write(RING + 0x1000, struct.pack("<HHIIHH", 0, 0, RING + 0x1000, 0xFFFFFFFF, 0, 1520))
    for pointer, command in ((RING, 0x10), (RING + 0x1000, 1)):
        card.q.writel(BAR + 4, pointer)
        card.q.writeb(BAR + 2, command)


def start_vmxnet3(card: Ours) -> None:
    """A queue each way; 64 buffers of 2 KiB whose generation is always right, completions that nobody reads."""
    vmxnet3_queues(card, ((0, 8, 12), (32, 0, 32)), ((4, 5, 6), (64, 64, 64)))
    for ring, kind in ((4, 0), (5, 0x4000)):
        one = b"".join(struct.pack("<QII", DATA + 2048 * n, 2048 | kind | 1 << 31, 0) for n in range(64))
        card.q.write(RING + 0x1000 * (1 + ring), one)
    activate_vmxnet3(card)


def start_e1000(card: Ours) -> None:
    e1000(card)
    card.q.writel(BAR + RCTL, 0x803E)
    card.wait(1.0)
    card.q.writel(BAR + RDT, 63)


def more_e1000(card: Ours) -> None:
    memory = card.machine.machine.board.memory
    memory.write(BAR + RDT, 4, (memory.read(BAR + RDH, 4) + 63) % 64)


def more_vmxnet3(card: Ours) -> None:
    """Descriptors of the other generation are as right, after a turn of the rings."""
    memory = card.machine.machine.board.memory
    for ring in (5, 6):
        for n in range(64):
            at = RING + 0x1000 * ring + 16 * n + 8
            memory.write(at, 4, memory.read(at, 4) ^ 1 << 31)
    for at in (0x800, 0xA00):
        memory.write(BAR + at, 4, 0)


STARTED: dict[str, tuple[Any, Any]] = {
    "e1000": (start_e1000, more_e1000),
    "e1000e": (start_e1000, more_e1000),
    "i82551": (start_8255x, lambda card: None),
    "vmxnet3": (start_vmxnet3, more_vmxnet3),
}


@pytest.mark.parametrize("driver", STARTED)
def test_frames_of_every_length_reach_a_card_that_receives(driver: str) -> None:
    """All that are short enough arrive; none does harm, and none is kept."""
    start, more = STARTED[driver]
    data = STATION + b"\x52\x54\0\0\0\1\x88\xb5" + bytes(70000)
    with Ours(driver) as card:
        start(card)
        board = card.machine.machine.board
        with board.lock:
            for length in EVERY:
                card.net.incoming(data[:length])
                more(card)
        arrived = card.net.frames_received
        assert arrived > 2050 - 14
        assert card.net.held_count == 0
        assert card.q.pci_read(5, 0, 0) & 0xFFFF in (0x8086, 0x15AD)


def test_a_receive_unit_that_is_started_twice_goes_on_where_it_is() -> None:
    """iPXE starts it twice, one after the other: a frame in between is neither lost nor written over, and the list is
    not gone through again when the driver has freed it."""
    first, second = 0x110000, 0x110800
    with Ours("i82559c") as card:
        pci_enable(card.q, 1, 0)
        for at, link, what in ((first, second, 0), (second, 0, 0x8000)):
            card.q.write(at, struct.pack("<HHIIHH", 0, what, link, 0xFFFFFFFF, 0, 1520))

        def ru_start() -> None:
            card.q.writel(BAR + 4, first)
            card.q.writeb(BAR + 2, 1)

        ru_start()
        card.deliver(STATION + bytes(94))
        ru_start()
        card.deliver(STATION + bytes(194))
        assert [card.q.readw(at + 12) & 0x3FFF for at in (first, second)] == [100, 0]
        assert card.q.readb(BAR) & 0x3C == 4 << 2  # ready: the driver has time to add to the list
        card.wait(0.001)
        assert [card.q.readw(at + 12) & 0x3FFF for at in (first, second)] == [100, 200]
        assert card.q.readb(BAR) & 0x3C == 2 << 2  # the list's end: no resources


def test_a_saved_8255x_knows_for_how_long_the_last_frame_of_its_list_waits() -> None:
    """A restored one made it wait anew, and one that was reset gave a stale frame to its next driver."""
    at = 0x110000
    with Ours("i82559c") as card:
        chip = card.card.chip
        pci_enable(card.q, 1, 0)

        def begin() -> None:
            card.q.write(at, struct.pack("<HHIIHH", 0, 0x8000, 0, 0xFFFFFFFF, 0, 1520))
            card.q.writel(BAR + 4, at)
            card.q.writeb(BAR + 2, 1)

        begin()
        card.deliver(STATION + bytes(94))
        saved = card.card.save()
        assert card.net.held_count == 1 and chip.last_timer.deadline > 0
        with card.machine.machine.board.lock:
            card.card.reset()
        assert card.net.held_count == 0 and chip.last_timer.deadline < 0
        pci_enable(card.q, 1, 0)
        begin()
        assert card.q.readw(at + 12) & 0x3FFF == 0
        with card.machine.machine.board.lock:
            card.card.load(saved)
        card.wait(0.0006)  # of it alone: no frame has come
        assert chip.last_may_come
        card.deliver(STATION + bytes(194))
        assert card.q.readw(at + 12) & 0x3FFF == 200
