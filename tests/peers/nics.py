"""A network card with a test at the other end of its cable: vmrun's in this process, or QEMU's. The same commands and
frames go to both.
"""

from __future__ import annotations

import fcntl
import pathlib
import random
import socket
import struct
import termios
import time
from typing import Any

from vmrun.backends.net.base import PyNet

from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestCommands, QtestProgram

SLOT, BAR, PORTS = 5, 0xF0000000, 0xC000
MAC = "52:54:00:12:34:57"
STATION = bytes.fromhex(MAC.replace(":", ""))
MACHINE = "pc-i440fx-7.2"


class Ours:
    """`q`: qtest commands; `sent()`: what it has sent since the last call; `deliver` puts a frame onto the wire."""

    def __init__(self, driver: str, *, machine: str = MACHINE, isa: bool = False, **props: Any) -> None:
        device = {"driver": driver, "id": "nic", "mac": MAC, **props}
        if not isa:
            device["addr"] = f"{SLOT:02x}.0"
        self.machine = QTest({"machine": machine, "memory": "64MiB", "rtc": {"clock": "vm"}, "devices": [device]})
        self.q: QtestCommands = self.machine
        self.card: Any = self.machine.machine.devices["nic"]
        self.frames: list[bytes] = []
        self.net = PyNet(lambda frame, header: self.frames.append(frame))
        with self.machine.machine.board.lock:
            self.card.chip.attach(self.net)
            self.net.set_running(True)

    def __enter__(self) -> Ours:
        return self

    def __exit__(self, *exc: object) -> None:
        self.machine.close()

    def sent(self) -> list[bytes]:
        found = self.frames[:]
        self.frames.clear()
        return found

    def deliver(self, frame: bytes) -> None:
        with self.machine.machine.board.lock:
            self.net.incoming(frame)

    def wait(self, seconds: float) -> None:
        self.q.clock_step(int(seconds * 1e9))

    def link(self, up: bool) -> None:
        with self.machine.machine.board.lock:
            self.card.set_link(up)


class Theirs:
    """The same with QEMU's card."""

    def __init__(
        self, directory: pathlib.Path, driver: str, *, machine: str = MACHINE, isa: bool = False, **props: Any
    ) -> None:
        here, there = directory / "here", directory / "there"
        for path in (here, there):
            path.unlink(missing_ok=True)
        self.wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.wire.bind(str(here))
        self.there = str(there)
        words = [driver, "id=nic", "netdev=n", f"mac={MAC}"]
        words += [f"{name}={_word(value)}" for name, value in props.items()]
        if not isa:
            words.append(f"addr={SLOT:#x}")
        # Its clock runs, which a card's timers need; its processor halts at once.
        halt = directory / "halt.bin"
        halt.write_bytes(bytes(0xFFF0) + b"\xfa\xf4\xeb\xfd".ljust(16, b"\0"))
        command = [QEMU or "qemu-system-x86_64", "-M", machine, "-m", "64", "-accel", "tcg", "-display", "none"]
        command += ["-nodefaults", "-bios", str(halt), "-device", ",".join(words)]
        command += ["-netdev", f"dgram,id=n,local.type=unix,local.path={there},remote.type=unix,remote.path={here}"]
        self.q: QtestCommands = QtestProgram(command)

    def __enter__(self) -> Theirs:
        return self

    def __exit__(self, *exc: object) -> None:
        self.q.close()  # type: ignore[attr-defined]
        self.wire.close()

    def sent(self) -> list[bytes]:
        found: list[bytes] = []
        idle = 0
        while idle < 3:  # its queue empties as the socket's does
            self.q.inb(0x80)
            idle += 1
            try:
                while True:
                    found.append(self.wire.recv(1 << 17, socket.MSG_DONTWAIT))
                    idle = 0
            except BlockingIOError:
                pass
        return [frame for frame in found if len(frame) >= 14]  # ours sends nothing shorter

    def deliver(self, frame: bytes) -> None:
        self.wire.sendto(frame, self.there)
        for _ in range(200):  # a card without room lets it lie
            if not struct.unpack("i", fcntl.ioctl(self.wire, termios.TIOCOUTQ, bytes(4)))[0]:
                break
            self.q.inb(0x80)
        for _ in range(2):
            self.q.inb(0x80)  # its loop takes the frame beside the command

    def wait(self, seconds: float) -> None:
        time.sleep(seconds + 0.02)


def ask(side: Any, lines: list[str]) -> list[tuple[str, str]]:
    """(command, answer in hex) of all that answer something."""
    answers: list[str] = []
    for n in range(0, len(lines), 300):
        answers += side.q.ask_all(lines[n : n + 300])
    return [(line, hex(int(answer, 16))) for line, answer in zip(lines, answers, strict=True) if answer]


def both(tmp_path: pathlib.Path, steps: Any, driver: str, bars: tuple[int | None, int | None], **props: Any) -> None:
    """`steps(side)` returns what was seen; both sides see the same. `bars`: which is for ports, which for memory."""
    with Ours(driver, **props) as one:
        pci_enable(one.q, *bars)
        found = steps(one)
    with Theirs(tmp_path, driver, **props) as other:
        pci_enable(other.q, *bars)
        wanted = steps(other)
    for n, (mine, theirs) in enumerate(zip(found, wanted, strict=True)):
        if isinstance(mine, list) and len(mine) == len(theirs):
            wrong = [(one, other) for one, other in zip(mine, theirs, strict=True) if one != other]
            before = [step for step in found[max(0, n - 5) : n] if not isinstance(step, list)]
            assert wrong == [], f"step {n} after {before!r:.80}: {wrong!r:.400}"
        assert mine == theirs, f"step {n}: {mine!r:.200} is not {theirs!r:.200}"


def frame(length: int, to: bytes = b"\xff" * 6, seed: int = 0, kind: bytes = b"\x08\x00") -> bytes:
    return (to + b"\x52\x54\0\0\0\1" + kind + random.Random(seed).randbytes(max(0, length - 14)))[:length]


def _word(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def pci_enable(q: QtestCommands, io_bar: int | None = None, memory_bar: int | None = None) -> None:
    """BARs at PORTS and BAR, bus mastering on."""
    if memory_bar is not None:
        q.pci_write(SLOT, 0, 0x10 + 4 * memory_bar, BAR)
    if io_bar is not None:
        q.pci_write(SLOT, 0, 0x10 + 4 * io_bar, PORTS)
    q.pci_write(SLOT, 0, 4, 7, 2)


__all__ = ["BAR", "MAC", "PORTS", "SLOT", "STATION", "Ours", "Theirs", "ask", "both", "frame", "pci_enable"]
