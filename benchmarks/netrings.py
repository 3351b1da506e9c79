"""Frames of 1514 bytes through rings in memory, driven over qtest: e1000 and virtio-net, vmrun and QEMU in turn.

No guest runs: a processor that has halted. 'out': 255 frames are put into the ring at a time and rung for, until the
other end has them all; 'in': the other end sends without a pause, and the ring's buffers are given back as they are
filled. To a user network (out only: UDP to the host), a socket, and a tap (in a network namespace of its own, where it
may be made). Microseconds a frame; 1514 / that are MB/s. The second table is the machine's processor time, which a busy
host changes less; QEMU's and vmrun's answers to qtest are in it.

    python benchmarks/netrings.py [--runs N] [--json]
"""

from __future__ import annotations

import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

sys.path.insert(0, str(beside.ROOT))

from vmrun.testing import QtestProgram

BURST, ROUNDS, LENGTH, MOST = 255, 16, 1514, 60.0
RING, USED, DATA = 0x100000, 0x102000, 0x200000
MAC, HOST = bytes.fromhex("525400123456"), bytes.fromhex("525500000001")
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


class E1000:
    NAME, BAR = "e1000", 0xF0000000

    def __init__(self, q: QtestProgram, data: bytes) -> None:
        self.q, self.taken = q, 0
        q.pci_write(5, 0, 0x10, self.BAR)
        q.pci_write(5, 0, 4, 7, 2)
        q.write(DATA, data)
        q.write(RING, struct.pack("<QII", DATA, 0x09000000 | len(data), 0) * 256)
        q.write(RING + 4096, b"".join(struct.pack("<QQ", DATA + 0x10000 + 2048 * n, 0) for n in range(256)))
        registers = (0x3800, RING), (0x3808, 4096), (0x400, 2), (0x2800, RING + 4096), (0x2808, 4096), (0x100, 0x801A)
        for at, value in registers:
            q.writel(self.BAR + at, value)
        time.sleep(1.2)  # it receives a second after it is let

    def out(self) -> None:
        """A ring's worth goes out."""
        self.q.writel(self.BAR + 0x3818, (self.q.readl(self.BAR + 0x3810) + BURST) % 256)

    def take(self) -> int:
        """How many have come since the last time; their buffers are free again."""
        head = self.q.readl(self.BAR + 0x2810)
        count = (head - self.taken) % 256
        self.taken = head
        self.q.writel(self.BAR + 0x2818, (head + BURST) % 256)
        return count


class Virtio:
    """A legacy card: queues of 256, a header of 10 bytes before each frame."""

    NAME, PORTS = "virtio-net-pci", 0xC000
    OUT, IN = RING, RING + 0x4000

    def __init__(self, q: QtestProgram, data: bytes) -> None:
        self.q, self.sent, self.taken = q, 0, 0
        q.pci_write(5, 0, 0x10, self.PORTS)
        q.pci_write(5, 0, 4, 7, 2)
        q.write(DATA, bytes(10) + data)
        for value in (0, 1, 3):
            q.outb(self.PORTS + 0x12, value)
        q.outl(self.PORTS + 4, 1 << 27)
        for queue, at in ((0, self.IN), (1, self.OUT)):
            q.outw(self.PORTS + 14, queue)
            q.outl(self.PORTS + 8, at >> 12)
            if queue:
                table = struct.pack("<QIHH", DATA, 10 + len(data), 0, 0) * 256
            else:
                table = b"".join(struct.pack("<QIHH", DATA + 0x10000 + 2048 * n, 2048, 2, 0) for n in range(256))
            q.write(at, table + struct.pack("<HH", 1, 0) + struct.pack("<256H", *range(256)))
        q.outb(self.PORTS + 0x12, 7)

    def out(self) -> None:
        self.sent = (self.sent + BURST) & 0xFFFF
        self.q.writew(self.OUT + 4096 + 2, self.sent)
        self.q.outw(self.PORTS + 16, 1)
        end = time.monotonic() + MOST
        while self.q.readw(self.OUT + 8192 + 2) != self.sent and time.monotonic() < end:
            pass

    def take(self) -> int:
        used = self.q.readw(self.IN + 8192 + 2)
        count = (used - self.taken) & 0xFFFF
        self.taken = used
        self.q.writew(self.IN + 4096 + 2, (used + 256) & 0xFFFF)
        self.q.outw(self.PORTS + 16, 0)
        return count


class Stream:
    """A `socket` netdev's other end."""

    WAYS = ("out", "in")

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.netdev = f"socket,id=n,connect=127.0.0.1:{self.listener.getsockname()[1]}"
        self.came, self.stopping = 0, False
        self.frame = HOST + HOST + b"\x88\xb5" + bytes(LENGTH - 14)

    def open(self) -> None:
        self.peer, _ = self.listener.accept()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        room = bytearray(1 << 20)
        try:
            while count := self.peer.recv_into(room):
                self.came += count
        except OSError:
            pass

    def frames(self) -> int:
        return self.came // (LENGTH + 4)

    def send(self, count: int) -> None:
        one = struct.pack(">I", LENGTH) + MAC + HOST + b"\x88\xb5" + bytes(LENGTH - 14)
        try:
            for n in range(0, count, 32):
                self.peer.sendall(one * min(32, count - n))
        except OSError:
            pass

    def close(self) -> None:
        self.peer.close()
        self.listener.close()


class User:
    """A user network, and a UDP socket of the host's behind it."""

    WAYS = ("out",)

    def __init__(self) -> None:
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.peer.bind(("127.0.0.1", 0))
        self.netdev = "user,id=n"
        self.came = 0
        body = LENGTH - 14 - 20
        udp = struct.pack(">HHHH", 9, self.peer.getsockname()[1], body, 0) + bytes(body - 8)
        ends = b"\x0a\0\2\x0f", b"\x0a\0\2\2"
        head = bytearray(struct.pack(">BBHHHBBH4s4s", 0x45, 0, LENGTH - 14, 0, 0, 64, 17, 0, *ends))
        total = sum(struct.unpack(">10H", head))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        head[10:12] = struct.pack(">H", ~total & 0xFFFF)
        self.frame = bytes.fromhex("525500000202") + MAC + b"\x08\0" + bytes(head) + udp

    def open(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        room = bytearray(1 << 16)
        try:
            while self.peer.recv_into(room):
                self.came += 1
        except OSError:
            pass

    def frames(self) -> int:
        return self.came

    def close(self) -> None:
        self.peer.close()


class Tap:
    """A tap interface, read and written as packets."""

    WAYS = ("out", "in")

    def __init__(self) -> None:
        self.netdev = "tap,id=n,ifname=bench0,script=no,downscript=no"
        self.came = 0
        self.frame = HOST + HOST + b"\x88\xb5" + bytes(LENGTH - 14)

    def open(self) -> None:
        self.peer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        wait(lambda: "bench0:" in pathlib.Path("/proc/net/dev").read_text(), 20.0)
        subprocess.run(["ip", "link", "set", "bench0", "up"], check=True)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.peer.bind(("bench0", 0))

    def frames(self) -> int:
        """What the interface has counted: a socket would lose some."""
        return int(pathlib.Path("/proc/net/dev").read_text().partition("bench0:")[2].split()[1])

    def send(self, count: int) -> None:
        one = MAC + HOST + b"\x88\xb5" + bytes(LENGTH - 14)
        try:
            for _ in range(count):
                while True:
                    try:
                        self.peer.send(one)
                        break
                    except OSError as error:
                        if error.errno != 105:  # the interface's queue is full
                            raise
                        time.sleep(0)
        except OSError:
            pass

    def close(self) -> None:
        self.peer.close()


def out(card: Any, net: Any) -> float:
    """Microseconds a frame until the other end has all of them, or no more come."""
    start, wanted = net.frames(), BURST * ROUNDS
    began = last = time.perf_counter()
    seen = start
    for n in range(ROUNDS):
        card.out()
        if isinstance(net, User):  # UDP is lost when nobody reads it in time
            wait(lambda m=n: net.frames() - start >= (m + 1) * BURST, 1.0)
    while net.frames() - start < wanted and time.perf_counter() - last < 1.0:
        if net.frames() != seen:
            seen, last = net.frames(), time.perf_counter()
    ended = time.perf_counter() if net.frames() - start >= wanted else last
    return (ended - began) / max(1, net.frames() - start) * 1e6


def spent(pid: int) -> float:
    """Microseconds that a process's threads have run."""
    total = 0
    for path in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((path / "schedstat").read_text().split()[0])
        except OSError:
            pass  # it has ended
    return total / 1000


def wait(condition: Callable[[], bool], seconds: float) -> None:
    end = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < end:
        pass


def come(card: Any, net: Any) -> float:
    wanted = BURST * ROUNDS
    card.take()
    began = last = time.perf_counter()
    sender = threading.Thread(target=net.send, args=(wanted,), daemon=True)
    sender.start()
    count = 0
    while count < wanted and time.perf_counter() - last < 2.0:
        more = card.take()
        if more:
            count, last = count + more, time.perf_counter()
        else:
            time.sleep(0.0002)  # asking is the machine's work too
    sender.join(5)
    return (last - began) / max(1, count) * 1e6


def own_namespace() -> bool:
    """This process goes into a network namespace of its own. Whether it may."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | (CLONE_NEWUSER if os.getuid() else 0)) != 0:
        return False
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    return pathlib.Path("/dev/net/tun").exists()


def main() -> int:
    options = beside.options(__doc__ or "", 5)
    nets: list[Any] = [User, Stream]
    if own_namespace():
        nets.append(Tap)
    with tempfile.TemporaryDirectory() as name:
        halt = pathlib.Path(name) / "halt.bin"
        halt.write_bytes((b"\xf4" * 0xFFF0 + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\xf4"))
        sides = {"vmrun": [sys.executable, str(beside.ROOT / "bin" / "vmrun-qemu")]}
        if beside.has_qemu():
            sides["QEMU"] = [beside.QEMU]
        table = beside.Table("rings of network cards", "microseconds a frame; less is better")
        effort = beside.Table("the machine's work for them", "microseconds of processor time a frame; less is better")
        for kind in (E1000, Virtio):
            for make in nets:
                found: dict[str, dict[str, list[float]]] = {}
                worked: dict[str, dict[str, list[float]]] = {}
                for n in range(options.runs):
                    for side in beside.turned(sides, n):
                        net = make()
                        words = ["-M", "pc-i440fx-2.0", "-nodefaults", "-display", "none", "-m", "64"]
                        words += ["-bios", str(halt), "-accel", "tcg", "-netdev", net.netdev]
                        words += ["-device", f"{kind.NAME},netdev=n,addr=5,romfile="]
                        q = QtestProgram([*sides[side], *words])
                        try:
                            net.open()
                            card = kind(q, net.frame)
                            for way in net.WAYS:
                                work = out if way == "out" else come
                                work(card, net)
                                before = spent(q.process.pid)
                                found.setdefault(way, {}).setdefault(side, []).append(work(card, net))
                                mine = (spent(q.process.pid) - before) / (BURST * ROUNDS)
                                worked.setdefault(way, {}).setdefault(side, []).append(mine)
                        finally:
                            net.close()
                            q.close()
                aim = 1.0 if kind is E1000 else 0.67
                for way, row in found.items():
                    what = f"{kind.NAME}, {make.__name__.lower()}, {way}"
                    table.add(what, row["vmrun"], row.get("QEMU"), aim)
                    effort.add(what, worked[way]["vmrun"], worked[way].get("QEMU"), aim)
        table.show(options.json)
        effort.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
