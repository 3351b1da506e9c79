"""virtio-net, ring by ring over qtest: frames out and in, filters, control, what a hostile driver does."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from vmrun.backends.net.base import PyCard, PyNet

from tests.unit.net.host import ALL, A, B, frame
from vmrun.errors import BuildError
from vmrun.testing import QTest

COMMON, NOTIFY, CONFIG = 0xE0000000, 0xE0003000, 0xE0002000
RINGS, DATA = 0x100000, 0x200000
VERSION_1, PACKED, EVENT_IDX = 1 << 32, 1 << 34, 1 << 29
CSUM, GUEST_CSUM, MAC, MERGEABLE, STATUS, CTRL, CTRL_RX, CTRL_VLAN, EXTRA, ANNOUNCE, CTRL_MAC = (
    1 << n for n in (0, 1, 5, 15, 16, 17, 18, 19, 20, 21, 23)
)
USUAL = VERSION_1 | MAC | MERGEABLE | STATUS | CTRL | CTRL_RX | CTRL_VLAN | EXTRA | CTRL_MAC | ANNOUNCE | CSUM
NEXT, WRITE = 1, 2
OWN = bytes.fromhex("525400123456")


class Ring:
    """One queue of 16 entries; a request at a time has an id of its own."""

    def __init__(self, q: QTest, number: int, packed: bool) -> None:
        self.q, self.number, self.packed, self.size = q, number, packed, 16
        base = RINGS + 0x10000 * number
        self.desc, self.avail, self.used = base, base + 0x4000, base + 0x8000
        self.index = self.seen = self.free = 0
        self.wrap = self.used_wrap = 1
        q.writew(COMMON + 0x16, number)
        q.writew(COMMON + 0x18, self.size)
        q.memset(base, 0x10000)
        for offset, value in ((0x20, self.desc), (0x28, self.avail), (0x30, self.used)):
            q.writel(COMMON + offset, value)
            q.writel(COMMON + offset + 4, 0)
        q.writew(COMMON + 0x1C, 1)

    def put(self, pieces: list[tuple[int, int, int]]) -> None:
        rows = []
        for n, (addr, length, flags) in enumerate(pieces):
            more = NEXT if n < len(pieces) - 1 else 0
            if self.packed:
                flags |= more | (0x80 if self.wrap else 0x8000)
                rows.append((self.index, struct.pack("<QIHH", addr, length, 7, flags)))
                self.index += 1
                if self.index == self.size:
                    self.index, self.wrap = 0, self.wrap ^ 1
            else:
                place = (self.free + n) % self.size
                rows.append((place, struct.pack("<QIHH", addr, length, flags | more, (place + 1) % self.size)))
        for place, row in reversed(rows):
            self.q.write(self.desc + 16 * place, row)
        if not self.packed:
            self.q.writew(self.avail + 4 + 2 * (self.index % self.size), self.free)
            self.free = (self.free + len(pieces)) % self.size
            self.index = (self.index + 1) & 0xFFFF
            self.q.writew(self.avail + 2, self.index)

    def kick(self) -> None:
        self.q.writew(NOTIFY + 4 * self.number, self.number)
        self.q.settle()

    def answer(self) -> int | None:
        if self.packed:
            _, length, _, flags = struct.unpack("<QIHH", self.q.read(self.desc + 16 * self.seen, 16))
            if (flags >> 15 & 1) != self.used_wrap or (flags >> 7 & 1) != self.used_wrap:
                return None
            self.seen += 1
            if self.seen == self.size:
                self.seen, self.used_wrap = 0, self.used_wrap ^ 1
            return int(length)
        if self.q.readw(self.used + 2) == self.seen:
            return None
        _, length = struct.unpack("<II", self.q.read(self.used + 4 + 8 * (self.seen % self.size), 8))
        self.seen = (self.seen + 1) & 0xFFFF
        return int(length)


class Net:
    def __init__(self, features: int = USUAL, **props: Any) -> None:
        self.q = QTest(
            {
                "machine": "pc-i440fx-7.2",
                "memory": "16MiB",
                "netdevs": {"n": {"type": "hubport", "hubid": 0}, "m": {"type": "hubport", "hubid": 0}},
                "devices": [
                    {"id": "net", "driver": "virtio-net-pci", "netdev": "n", "addr": "05.0", "packed": True,
                     "mac": OWN.hex(":"), "romfile": "", **props}
                ],
            }
        )  # fmt: skip
        board = self.board = self.q.machine.board
        self.wire = board.netdev("m")
        self.sent: list[bytes] = []
        self.headers: list[Any] = []
        self.room, self.takes = True, 0.0
        self.card = PyCard(self._sent, lambda: self.room, takes=0)
        with board.lock:
            self.wire.plug(self.card)
            for netdev in board.netdevs.values():
                netdev.set_running(True)
        self.q.pci_write(5, 0, 0x20, COMMON)
        self.q.pci_write(5, 0, 0x24, 0)
        self.q.pci_write(5, 0, 4, 6, 2)
        self.start(features)

    def _sent(self, data: bytes, header: Any) -> bool:
        self.sent.append(data)
        self.headers.append(header)
        time.sleep(self.takes)
        return True

    def start(self, features: int) -> None:
        q = self.q
        q.writeb(COMMON + 0x14, 0)
        q.writeb(COMMON + 0x14, 3)
        for word in (0, 1):
            q.writel(COMMON + 0x08, word)
            q.writel(COMMON + 0x0C, features >> (32 * word) & 0xFFFFFFFF)
        q.writeb(COMMON + 0x14, 11)
        self.rx, self.tx, self.ctrl = (Ring(q, n, bool(features & PACKED)) for n in range(3))
        q.writeb(COMMON + 0x14, 15)

    @property
    def chip(self) -> Any:
        return self.q.machine.devices["net"].chip

    def give(self, sizes: list[int]) -> None:
        """Receive buffers of these sizes."""
        for n, size in enumerate(sizes):
            self.rx.put([(DATA + 0x10000 * n, size, WRITE)])
        self.rx.kick()

    def answers(self) -> list[int]:
        """Frames that came, since the last time."""
        return [*iter(self.rx.answer, None)]

    def come(self, data: bytes) -> None:
        with self.board.lock:
            self.wire.transmit(data)

    def send(self, data: bytes, header: bytes = bytes(12), cut: int = 0) -> None:
        where = DATA + 0x80000
        whole = header + data
        self.q.write(where, whole)
        cut = cut or len(whole)
        self.tx.put([(where + n, min(cut, len(whole) - n), 0) for n in range(0, len(whole), cut)])
        self.tx.kick()

    def control(self, kind: int, command: int, data: bytes) -> int:
        where = DATA + 0xA0000
        self.q.write(where, bytes([kind, command]) + data + b"\xee")
        self.ctrl.put([(where, 2 + len(data), 0), (where + 2 + len(data), 1, WRITE)])
        self.ctrl.kick()
        return int(self.q.read(where + 2 + len(data), 1)[0])

    def close(self) -> None:
        self.q.close()


@pytest.fixture(params=[0, PACKED], ids=["split", "packed"])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    one = Net(USUAL | request.param)
    yield one
    one.close()


def test_a_frame_goes_out(net: Net) -> None:
    net.send(frame(B, OWN, b"hello"), cut=20)
    assert net.sent == [frame(B, OWN, b"hello")]
    assert net.tx.answer() == 0


def test_a_frame_comes_in_behind_its_header(net: Net) -> None:
    net.give([2048])
    net.come(frame(OWN, B, b"hello"))
    assert net.rx.answer() == 12 + 60
    assert net.q.read(DATA, 72) == bytes(10) + b"\1\0" + frame(OWN, B, b"hello")


def test_a_frame_fills_several_buffers_at_once(net: Net) -> None:
    net.give([300] * 6)
    data = frame(OWN, B, bytes(range(256)) * 4, 1400)
    net.come(data)
    lengths = [net.rx.answer() for _ in range(5)]
    assert lengths == [300, 300, 300, 300, 212]
    assert net.q.read(DATA + 10, 2) == b"\5\0"
    got = net.q.read(DATA + 12, 288) + b"".join(net.q.read(DATA + 0x10000 * n, 300) for n in range(1, 5))
    assert got[:1400] == data
    assert net.rx.answer() is None


def test_a_frame_waits_for_buffers(net: Net) -> None:
    net.give([300])
    net.come(frame(OWN, B, size=1400))
    assert net.rx.answer() is None
    for n in range(1, 5):
        net.rx.put([(DATA + 0x10000 * n, 300, WRITE)])
    net.rx.kick()
    assert net.rx.answer() == 300


def test_frames_wait_while_the_machine_stands_still(net: Net) -> None:
    net.give([2048])
    wire = net.board.netdevs["n"]
    with net.board.lock:
        wire.set_running(False)
    net.come(frame(OWN, B))
    assert net.rx.answer() is None
    with net.board.lock:
        wire.set_running(True)
    assert net.rx.answer() == 72


def test_checksums_are_filled_in_for_who_takes_none(net: Net) -> None:
    net.send(frame(B, OWN, bytes(20) + b"\0\0" + b"\x12\x34" * 5), struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 0, 0))
    assert sum(struct.unpack(">13H", net.sent[0][34:])) % 0xFFFF == 0


def test_filters(net: Net) -> None:
    net.give([2048] * 8)
    assert net.control(0, 0, b"\0") == 0  # not promiscuous
    assert net.control(1, 0, struct.pack("<I", 1) + B + struct.pack("<I", 1) + b"\1\0\x5e\0\0\1") == 0
    for to in (A, OWN, B, ALL, b"\1\0\x5e\0\0\1", b"\1\0\x5e\0\0\2"):
        net.come(frame(to, A))
    count = 0
    while net.rx.answer():
        count += 1
    assert count == 4
    assert net.control(0, 5, b"\1") == 0  # no broadcasts
    net.come(frame(ALL, A))
    assert net.rx.answer() is None
    row = net.q.machine.devices["net"].filters()
    assert row["unicasts"] == [B] and row["multicasts"] == [b"\1\0\x5e\0\0\1"] and not row["broadcast"]


def test_vlans_are_filtered(net: Net) -> None:
    net.give([2048] * 4)
    net.control(0, 0, b"\0")
    tagged = OWN + A + b"\x81\0\0\x05\x08\0" + bytes(50)
    net.come(tagged)
    assert net.rx.answer() is None
    assert net.control(2, 0, b"\5\0") == 0
    net.come(tagged)
    assert net.rx.answer() is not None


def test_another_address(net: Net) -> None:
    assert net.control(1, 1, A) == 0
    assert net.q.read(CONFIG, 6) == A
    assert net.q.machine.devices["net"].current_address() == A


@pytest.mark.parametrize(
    ("kind", "command", "data"),
    [
        (0, 9, b"\1"), (0, 0, b""), (0, 0, b"\1\1"), (1, 1, bytes(5)), (1, 1, bytes(7)), (1, 0, b""),
        (1, 0, struct.pack("<I", 1) + bytes(6)), (1, 0, struct.pack("<II", 0xFFFFFFFF, 0)), (2, 0, b"\0\x10"),
        (2, 2, b"\0\0"), (3, 0, b""), (4, 0, b"\1\0"), (5, 0, bytes(8)), (77, 0, b""),
    ],
)  # fmt: skip
def test_commands_that_cannot_be_done(net: Net, kind: int, command: int, data: bytes) -> None:
    assert net.control(kind, command, data) == 1


def test_the_cable_is_told(net: Net) -> None:
    assert net.q.readw(CONFIG + 6) == 1
    with net.board.lock:
        net.q.machine.devices["net"].set_link(False)
    assert net.q.readw(CONFIG + 6) == 0
    net.send(frame(B, OWN))
    assert net.sent == []


def test_announcements_are_asked_for_and_acknowledged(net: Net) -> None:
    with net.board.lock:
        assert net.q.machine.devices["net"].announce()
    assert net.q.readw(CONFIG + 6) == 3
    assert net.control(3, 0, b"") == 0
    assert net.q.readw(CONFIG + 6) == 1


def test_a_frame_that_the_back_end_has_no_room_for_stays_in_the_ring(net: Net) -> None:
    full = PyNet(lambda data, header: net.sent.append(data))
    device = net.q.machine.devices["net"]
    with net.board.lock:
        net.board.netdevs["n"].plug(None)
        chip_wire(device, full)
        full.block()
    net.send(frame(B, OWN))
    assert net.sent == [] and net.tx.answer() is None
    with net.board.lock:
        full.release()
    assert net.sent == [frame(B, OWN)] and net.tx.answer() == 0


def chip_wire(device: Any, net: PyNet) -> None:
    device.chip.rewire(net)
    net.plug(device.chip.port)


@pytest.mark.parametrize(
    "pieces", [[(0xFFFFFFFFFFFF0000, 100, 0)], [(0x3F00000, 70000, 0)], [(DATA, 5, 0)], [(DATA, 100, WRITE)]]
)
def test_hostile_frames_out_do_no_harm(net: Net, pieces: list[tuple[int, int, int]]) -> None:
    net.tx.put(pieces)
    net.tx.kick()
    net.start(USUAL)
    net.send(frame(B, OWN))
    assert net.sent[-1] == frame(B, OWN)


def test_a_ring_that_loops_breaks_the_device_until_its_reset() -> None:
    net = Net()
    net.q.write(net.tx.desc, struct.pack("<QIHH", DATA, 20, NEXT, 1) + struct.pack("<QIHH", DATA, 20, NEXT, 0))
    net.q.writew(net.tx.avail + 4, 0)
    net.q.writew(net.tx.avail + 2, 1)
    net.tx.kick()
    assert net.q.readb(COMMON + 0x14) & 64
    net.start(USUAL)
    net.send(frame(B, OWN))
    assert net.sent == [frame(B, OWN)]
    net.close()


def test_state_comes_back(net: Net) -> None:
    net.control(0, 0, b"\0")
    net.control(1, 0, struct.pack("<I", 1) + B + struct.pack("<I", 0))
    device = net.q.machine.devices["net"]
    with net.board.lock:
        saved = device.save()
        device.reset()
        assert device.filters()["promiscuous"]
        device.load(saved)
    row = device.filters()
    assert not row["promiscuous"] and row["unicasts"] == [B]
    net.give([2048])
    net.come(frame(A, B))
    assert net.rx.answer() is None


def test_features_are_those_of_qemu_and_all_offloads() -> None:
    net = Net()
    offered = net.chip.offered & 0xFFFFFFFF & ~(1 << 34)
    assert offered & 0x79BF8064 == 0x79BF8064 and offered & 0x7F83 == 0x7F83
    net.close()


@pytest.mark.parametrize(
    ("prop", "value"), [("tx", "timer"), ("rss", True), ("hash", True), ("guest_rsc_ext", True), ("failover", True)]
)
def test_what_is_not_modelled_is_refused(prop: str, value: Any) -> None:
    devices = [{"id": "net", "driver": "virtio-net-pci", "romfile": "", prop: value}]
    with pytest.raises(BuildError, match="not modelled"):
        QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "devices": devices})


def test_a_burst_is_as_long_as_x_txburst_says() -> None:
    devices = [{"id": "net", "driver": "virtio-net-pci", "romfile": "", "x-txburst": 3}]
    with QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "devices": devices}) as q:
        assert q.machine.devices["net"].chip.burst == 3


@pytest.mark.parametrize(("length", "first"), [(60, 4), (5000, 1)])
def test_large_frames_look_at_the_clock(net: Net, length: int, first: int) -> None:
    """What is left is another turn's; the thread that has it stands still here."""
    net.takes = 0.002
    whole = bytes(12) + frame(B, OWN, bytes(length - 14))
    net.q.write(DATA, whole)
    for _ in range(4):
        net.tx.put([(DATA, len(whole), 0)])
    net.tx.kick()
    assert len(net.sent) == first


def test_kicks_are_asked_for_by_an_empty_queue_alone(net: Net) -> None:
    """used.flags, or a packed ring's device event area."""

    def asks(ring: Ring) -> bool:
        return not net.q.readw(ring.used + (2 if ring.packed else 0))

    net.give([2048, 2048])
    assert not asks(net.rx)
    for n in range(2):
        net.come(frame(OWN, B, bytes([n])))
        assert not asks(net.rx)
    net.come(frame(OWN, B, b"\2"))
    assert asks(net.rx) and len(net.answers()) == 2
    net.give([2048])
    assert not asks(net.rx) and len(net.answers()) == 1
    net.send(frame(B, OWN))
    assert asks(net.tx) and net.sent == [frame(B, OWN)]


def test_kicks_by_event_index() -> None:
    net = Net(USUAL | EVENT_IDX)

    def event(ring: Ring) -> int:
        return net.q.readw(ring.used + 4 + 8 * ring.size)

    net.give([2048, 2048])
    for n in range(2):
        net.come(frame(OWN, B, bytes([n])))
    assert event(net.rx) == 0  # nothing is waited for: the next buffers need no kick
    net.come(frame(OWN, B, b"\2"))
    assert event(net.rx) == 2
    net.give([2048])
    assert len(net.answers()) == 3
    net.send(frame(B, OWN))
    assert event(net.tx) == 1
    net.close()
