"""What the peer's own tests of network cards do, by public descriptions of them, to vmrun-qemu and to QEMU alike:
frames in and out, one that is too long, one that is held while the machine stands still, announcements, hot-plug,
a timer.
"""

from __future__ import annotations

import os
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers.nics import Ours
from tests.peers.oracle import QEMU
from vmrun.monitor.client import QmpClient
from vmrun.testing import QtestProgram

pytestmark = pytest.mark.peer

ROOT = pathlib.Path(__file__).parents[2]
SLOT, BAR, PORTS = 5, 0xF0000000, 0xC000
MAC = bytes.fromhex("525400123457")
PEER = bytes.fromhex("525400000001")
RINGS, BUFFERS = 0x100000, 0x200000
EJECT = 0xAE08  # of the slots of bus 0, a bit for each
TEST = MAC + PEER + b"\x88\xb5" + b"TEST".ljust(60, b".")
BACK = PEER + MAC + b"\x88\xb5" + b"BACK".ljust(60, b".")


class Side:
    """A program with a card in slot 5; `net` is its netdev's other end, each frame after its length. Its clock runs,
    its processor halts at once."""

    def __init__(self, program: list[str], directory: pathlib.Path, card: str | None) -> None:
        halt = directory / "halt.bin"
        halt.write_bytes(bytes(0xFFF0) + b"\xfa\xf4\xeb\xfd".ljust(16, b"\0"))
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        self.net, self.monitor = ours, str(directory / "qmp")
        ours.settimeout(20)
        words = ["-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-display", "none", "-nodefaults"]
        words += ["-bios", str(halt)]
        words += ["-qmp", f"unix:{self.monitor},server=on,wait=off", "-netdev", f"socket,id=n,fd={theirs.fileno()}"]
        if card is not None:
            words += ["-device", f"{card},id=nic,netdev=n,addr={SLOT},mac={MAC.hex(':')},romfile="]
        # The descriptor is the program's by its number: nothing else is open that it could be.
        self.q = QtestProgram(["/usr/bin/env", *program, *words])
        self.given = theirs

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exc: object) -> None:
        self.q.close()
        self.net.close()
        self.given.close()

    def send(self, frame: bytes) -> None:
        self.net.sendall(struct.pack(">I", len(frame)) + frame)

    def receive(self, seconds: float = 20) -> bytes | None:
        """A frame; None: none comes for so long."""
        self.net.settimeout(seconds)
        try:
            head = self.net.recv(4)
        except TimeoutError:
            return None
        self.net.settimeout(20)
        head += self.exactly(4 - len(head))
        return self.exactly(struct.unpack(">I", head)[0])

    def exactly(self, count: int) -> bytes:
        """So many bytes. MSG_WAITALL would not do: with a time limit, a socket gives what is there."""
        found = b""
        while len(found) < count:
            part = self.net.recv(count - len(found))
            assert part, "the connection ended within a frame"
            found += part
        return found

    def qmp(self, command: str, **arguments: Any) -> Any:
        with QmpClient(self.monitor) as client:
            return client.execute(command, **arguments)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.002)


PROGRAMS = {"vmrun": [sys.executable, str(ROOT / "bin" / "vmrun-qemu")], "qemu": [QEMU or "qemu-system-x86_64"]}


@pytest.fixture(params=PROGRAMS)
def side(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """side(card) is a context with the program at work."""
    if request.param == "qemu" and QEMU is None:
        pytest.skip("no QEMU")
    from subprocess import Popen

    def inherit(*args: Any, **keys: Any) -> Popen[bytes]:
        return Popen(*args, close_fds=False, **keys)

    monkeypatch.setattr("subprocess.Popen", inherit)
    return lambda card=None: Side(PROGRAMS[request.param], tmp_path, card)


class VirtioNet:
    """A legacy driver: queue 0 takes frames into buffers of 2 KiB, queue 1 sends; a header of 10 bytes."""

    def __init__(self, q: QtestProgram) -> None:
        self.q, self.out_at, self.in_seen = q, 0, 0
        q.pci_write(SLOT, 0, 0x10, PORTS)
        q.pci_write(SLOT, 0, 4, 7, 2)
        for value in (0, 1, 3):
            q.outb(PORTS + 0x12, value)
        q.outl(PORTS + 4, 0)
        for queue in range(2):
            q.outw(PORTS + 14, queue)
            q.write(self.ring(queue), bytes(0x4000))
            q.outl(PORTS + 8, self.ring(queue) >> 12)
        q.outb(PORTS + 0x12, 7)

    @staticmethod
    def ring(queue: int) -> int:
        return RINGS + 0x8000 * queue

    def describe(self, queue: int, n: int, at: int, length: int, flags: int, following: int = 0) -> None:
        self.q.write(self.ring(queue) + 16 * n, struct.pack("<QIHH", at, length, flags, following))

    def offer(self, queue: int, first: int, count: int) -> None:
        """The chain that begins at descriptor `first` is available, as the ring's number `count`."""
        at = self.ring(queue) + 4096
        self.q.write(at + 4 + 2 * ((count - 1) % 256), struct.pack("<H", first))
        self.q.writew(at + 2, count)
        self.q.outw(PORTS + 16, queue)

    def used(self, queue: int) -> int:
        return self.q.readw(self.ring(queue) + 8192 + 2)

    def send(self, frame: bytes) -> None:
        self.q.write(BUFFERS, bytes(10) + frame)
        self.describe(1, 0, BUFFERS, 10 + len(frame), 0)
        self.out_at += 1
        self.offer(1, 0, self.out_at)

    def room(self, count: int) -> None:
        self.describe(0, 0, BUFFERS + 0x10000, 2048, 2)
        self.offer(0, 0, count)

    def came(self, length: int) -> bytes:
        return bytes(self.q.read(BUFFERS + 0x10000 + 10, length))


def test_virtio_net_takes_and_sends_a_frame(side: Any) -> None:
    with side("virtio-net-pci") as one:
        card = VirtioNet(one.q)
        card.room(1)
        one.send(TEST)
        one.until(lambda: card.used(0) == 1)
        assert card.came(len(TEST)) == TEST
        card.send(BACK)
        assert one.receive() == BACK
        one.until(lambda: card.used(1) == 1)


def test_a_frame_that_comes_while_virtio_net_s_machine_stands_still_is_held(side: Any) -> None:
    with side("virtio-net-pci") as one:
        card = VirtioNet(one.q)
        card.room(1)
        one.qmp("stop")
        one.send(TEST)
        time.sleep(0.2)
        assert card.used(0) == 0
        one.qmp("cont")
        one.until(lambda: card.used(0) == 1)
        assert card.came(len(TEST)) == TEST


def test_virtio_net_survives_a_frame_that_is_too_long(side: Any) -> None:
    with side("virtio-net-pci") as one:
        card = VirtioNet(one.q)
        for n in range(250):  # 250 times 1 KiB in one chain
            card.describe(1, n, BUFFERS, 1024, 1 if n < 249 else 0, n + 1)
        card.out_at = 1
        card.offer(1, 0, 1)
        one.until(lambda: card.used(1) == 1)
        card.send(BACK)
        assert one.receive() == BACK


def test_a_burst_arrives_whole_and_in_order_at_a_peer_that_reads_late(side: Any) -> None:
    """More than goes down the connection at one time, rung for once."""
    frames = [BACK + n.to_bytes(2, "big") * 700 for n in range(250)]
    with side("virtio-net-pci") as one:
        card = VirtioNet(one.q)
        for n, frame in enumerate(frames):
            one.q.write(BUFFERS + 2048 * n, bytes(10) + frame)
            card.describe(1, n, BUFFERS + 2048 * n, 10 + len(frame), 0)
        one.q.write(card.ring(1) + 4096 + 4, struct.pack("<250H", *range(250)))
        one.q.writew(card.ring(1) + 4096 + 2, 250)
        one.q.outw(PORTS + 16, 1)
        time.sleep(0.2)
        for n, frame in enumerate(frames):
            assert one.receive() == frame, n  # the first that fails ends it: each might wait as long
        one.until(lambda: card.used(1) == 250)


def test_a_ring_goes_on_when_a_peer_that_reads_late_has_read(side: Any) -> None:
    """More than the program queues: the rest waits in the ring, rung for once."""
    body = bytes(range(256)) * 240
    heads = [BACK + n.to_bytes(2, "big") for n in range(120)]
    with side("virtio-net-pci") as one:
        card = VirtioNet(one.q)
        one.q.write(BUFFERS + 0x100000, body)
        for n, head in enumerate(heads):
            one.q.write(BUFFERS + 2048 * n, bytes(10) + head)
            card.describe(1, 2 * n, BUFFERS + 2048 * n, 10 + len(head), 1, 2 * n + 1)
            card.describe(1, 2 * n + 1, BUFFERS + 0x100000, len(body), 0)
        one.q.write(card.ring(1) + 4096 + 4, struct.pack("<120H", *range(0, 240, 2)))
        one.q.writew(card.ring(1) + 4096 + 2, 120)
        one.q.outw(PORTS + 16, 1)
        time.sleep(0.2)
        assert card.used(1) < 120
        for n, head in enumerate(heads):
            assert one.receive() == head + body, n
        one.until(lambda: card.used(1) == 120)


def test_virtio_net_sends_a_frame_in_crumbs(side: Any) -> None:
    """Each byte in a buffer of its own, after the header."""
    with side("virtio-net-pci") as one:
        card = VirtioNet(one.q)
        one.q.write(BUFFERS, bytes(10) + BACK + b"!" * 60)
        card.describe(1, 0, BUFFERS, 10, 1, 1)
        size = len(BACK) + 60
        for n in range(size):
            card.describe(1, n + 1, BUFFERS + 10 + n, 1, 1 if n < size - 1 else 0, n + 2)
        card.offer(1, 0, 1)
        assert one.receive() == BACK + b"!" * 60


def test_announce_self_sends_rarp_so_many_times(side: Any) -> None:
    with side("virtio-net-pci") as one:
        VirtioNet(one.q)
        one.qmp("announce-self", initial=20, max=100, rounds=5, step=40)
        seen = [one.receive() for _ in range(5)]
        assert one.receive(0.5) is None
        assert {(frame or b"")[:14] for frame in seen} == {b"\xff" * 6 + MAC + b"\x80\x35"}
        body = b"\0\1\x08\0\6\4\0\3" + MAC + bytes(4) + MAC + bytes(4)
        assert {(frame or b"")[14:42] for frame in seen} == {body}


def test_an_announcement_ends_the_one_of_its_id(side: Any) -> None:
    """QEMU's programs stop announcements by one of no rounds; others go on."""
    with side("virtio-net-pci") as one:
        VirtioNet(one.q)
        endless = {"initial": 10, "max": 10, "rounds": 100_000, "step": 0}
        one.qmp("announce-self", **endless)
        one.qmp("announce-self", **endless, id="bob")
        one.qmp("announce-self", **{**endless, "rounds": 0}, id="bob")
        assert all(one.receive() for _ in range(20)), "the nameless one goes on"
        one.qmp("announce-self", **{**endless, "rounds": 0})
        assert any(one.receive(0.5) is None for _ in range(500)), "they go on"


CARDS = ["virtio-net-pci", "e1000", "e1000e", "rtl8139", "pcnet", "ne2k_pci", "i82559c", "vmxnet3"]


@pytest.mark.parametrize("card", CARDS)
def test_a_card_comes_and_goes_by_acpi(side: Any, card: str) -> None:
    """No operating system: the test ejects the slot itself."""
    with side() as one, QmpClient(one.monitor) as client:
        client.execute("device_add", driver=card, id="nic", netdev="n", addr=f"{SLOT:02x}", romfile="")
        assert one.q.pci_read(SLOT, 0, 0, 4) not in (0, 0xFFFFFFFF)
        client.execute("device_del", id="nic")
        one.q.outl(EJECT, 1 << SLOT)
        end = time.monotonic() + 20
        while not any(event["event"] == "DEVICE_DELETED" for event in client.events):
            assert time.monotonic() < end
            client.execute("query-status")
        assert one.q.pci_read(SLOT, 0, 0, 4) == 0xFFFFFFFF
        client.execute("netdev_del", id="n")


class E1000e:
    """One transmit ring of legacy descriptors, one receive ring of extended ones, 8 of each."""

    SIZE = 8

    def __init__(self, q: QtestProgram) -> None:
        self.q, self.out_at, self.in_at = q, 0, 0
        q.pci_write(SLOT, 0, 0x10, BAR)
        q.pci_write(SLOT, 0, 4, 7, 2)
        q.write(RINGS, bytes(0x2000))
        for n in range(self.SIZE):
            q.write(RINGS + 0x1000 + 16 * n, struct.pack("<QQ", BUFFERS + 0x10000 + 2048 * n, 0))
        for at, value in (
            (0x5008, 0x8000), (0x3800, RINGS), (0x3808, 16 * self.SIZE), (0x3810, 0), (0x3818, 0), (0x400, 2),
            (0x2800, RINGS + 0x1000), (0x2808, 16 * self.SIZE), (0x2810, 0), (0x2818, self.SIZE - 1),
            (0x100, 0x400801A),
        ):  # fmt: skip
            q.writel(BAR + at, value)

    def send(self, frame: bytes) -> None:
        self.q.write(BUFFERS, frame)
        self.q.write(RINGS + 16 * self.out_at, struct.pack("<QII", BUFFERS, 0x09000000 | len(frame), 0))
        before, self.out_at = self.out_at, (self.out_at + 1) % self.SIZE
        self.q.writel(BAR + 0x3818, self.out_at)
        assert self.q.readl(RINGS + 16 * before + 12) & 1  # descriptor done

    def came(self) -> bytes | None:
        at = RINGS + 0x1000 + 16 * self.in_at
        status, length = self.q.readl(at + 8), self.q.readw(at + 12)
        if not status & 1:
            return None
        assert status & 2  # the frame's end
        found = bytes(self.q.read(BUFFERS + 0x10000 + 2048 * self.in_at, length))
        self.q.write(at, struct.pack("<QQ", BUFFERS + 0x10000 + 2048 * self.in_at, 0))
        self.q.writel(BAR + 0x2818, self.in_at)
        self.in_at = (self.in_at + 1) % self.SIZE
        return found


def test_e1000e_moves_frames_one_after_the_other_in_both_directions(side: Any) -> None:
    with side("e1000e") as one:
        card = E1000e(one.q)
        found: list[bytes] = []
        for n in range(40):
            card.send(BACK + bytes([n]))
            assert one.receive() == BACK + bytes([n])
            one.send(TEST + bytes([n]) * 10)
            one.until(lambda: (frame := card.came()) is not None and not found.append(frame))
        assert found == [TEST + bytes([n]) * 10 for n in range(40)]


def test_rtl8139_s_timer_interrupts_when_the_counter_is_there(side: Any) -> None:
    with side("rtl8139") as one:
        q, half_a_second = one.q, 16_500_000  # at 33 MHz
        q.pci_write(SLOT, 0, 0x10, PORTS)
        q.pci_write(SLOT, 0, 4, 7, 2)

        def pending() -> bool:
            return bool(q.inw(PORTS + 0x3E) & 0x4000)

        q.outw(PORTS + 0x3E, 0x4000)
        q.outl(PORTS + 0x54, 0)
        q.outl(PORTS + 0x48, 0)
        time.sleep(0.1)
        assert not pending()  # 0 is never
        q.outl(PORTS + 0x48, 0)
        began = time.monotonic()
        q.outl(PORTS + 0x54, half_a_second)
        one.until(pending)
        assert time.monotonic() - began > 0.45 and q.inl(PORTS + 0x48) >= half_a_second
        q.outw(PORTS + 0x3E, 0x4000)
        time.sleep(0.1)
        assert not pending()  # the counter goes on to its end first


def test_rtl8139_s_timer_is_exact() -> None:
    with Ours("rtl8139") as one:
        q = one.q
        q.pci_write(SLOT, 0, 0x10, PORTS)
        q.pci_write(SLOT, 0, 4, 7, 2)
        q.outl(PORTS + 0x48, 0)
        q.outl(PORTS + 0x54, 33_000)
        q.clock_step(999_000)
        assert not q.inw(PORTS + 0x3E) & 0x4000 and 32_900 < q.inl(PORTS + 0x48) < 33_000
        q.clock_step(2_000)
        assert q.inw(PORTS + 0x3E) & 0x4000
