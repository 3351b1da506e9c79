"""Devices without a guest, for tests.

    with QTest("machine.yaml") as q:
        q.outb(0x70, 0x0A)
        assert q.inb(0x71) & 0x80 == 0
        q.clock_step(1_000_000_000)

A QTest is the machine of a file, in this process, on the accelerator qtest: no processor runs, and time moves only by
clock_step. `q.machine` is the machine itself. QtestProgram is the same over a socket, for a program that takes QEMU's
options: vmrun-qemu, or QEMU beside it.
"""

from __future__ import annotations

import _thread

from accel.aio import PyIoHandler
from accel.api import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from accel.aio import IoThread

    from vmrun.machine.machine import Machine


class QtestError(Exception):
    """A command that was answered with FAIL, or not at all."""


class QtestCommands:
    """The protocol's commands as methods. `irqs`: levels as told since an intercept."""

    def __init__(self) -> None:
        self.irqs: dict[int, int] = {}
        self.irq_log: list[tuple[int, int]] = []
        self._text = b""

    def _exchange(self, data: bytes) -> bytes:
        """Send lines, return what comes back by now."""
        raise NotImplementedError

    def ask(self, line: str) -> str:
        """One command; its answer without the OK."""
        return self.ask_all([line])[0]

    def ask_all(self, lines: Sequence[str]) -> list[str]:
        """Commands at once; their answers in order. QtestError for the first FAIL."""
        answers: list[str] = []
        data = "".join(f"{line}\n" for line in lines).encode()
        while len(answers) < len(lines):
            self._text += self._exchange(data)
            data = b""
            *whole, self._text = self._text.split(b"\n")
            for line in whole:
                word, _, rest = line.decode().partition(" ")
                if word == "IRQ":
                    self._told(rest)
                elif word == "OK":
                    answers.append(rest)
                else:
                    raise QtestError(f"{lines[len(answers)]}: {line.decode()}")
        return answers

    def _told(self, text: str) -> None:
        what, _, number = text.partition(" ")
        level = int(what == "raise")
        self.irqs[int(number)] = level
        self.irq_log.append((int(number), level))

    # --- ports and memory -----------------------------------------------------------------------------------

    def inb(self, port: int) -> int:
        return int(self.ask(f"inb {port:#x}"), 16)

    def inw(self, port: int) -> int:
        return int(self.ask(f"inw {port:#x}"), 16)

    def inl(self, port: int) -> int:
        return int(self.ask(f"inl {port:#x}"), 16)

    def outb(self, port: int, value: int) -> None:
        self.ask(f"outb {port:#x} {value:#x}")

    def outw(self, port: int, value: int) -> None:
        self.ask(f"outw {port:#x} {value:#x}")

    def outl(self, port: int, value: int) -> None:
        self.ask(f"outl {port:#x} {value:#x}")

    def readb(self, addr: int) -> int:
        return int(self.ask(f"readb {addr:#x}"), 16)

    def readw(self, addr: int) -> int:
        return int(self.ask(f"readw {addr:#x}"), 16)

    def readl(self, addr: int) -> int:
        return int(self.ask(f"readl {addr:#x}"), 16)

    def readq(self, addr: int) -> int:
        return int(self.ask(f"readq {addr:#x}"), 16)

    def writeb(self, addr: int, value: int) -> None:
        self.ask(f"writeb {addr:#x} {value:#x}")

    def writew(self, addr: int, value: int) -> None:
        self.ask(f"writew {addr:#x} {value:#x}")

    def writel(self, addr: int, value: int) -> None:
        self.ask(f"writel {addr:#x} {value:#x}")

    def writeq(self, addr: int, value: int) -> None:
        self.ask(f"writeq {addr:#x} {value:#x}")

    def read(self, addr: int, count: int) -> bytes:
        return bytes.fromhex(self.ask(f"read {addr:#x} {count}")[2:])

    def write(self, addr: int, data: bytes) -> None:
        self.ask(f"write {addr:#x} {len(data)} 0x{data.hex()}")

    def memset(self, addr: int, count: int, value: int = 0) -> None:
        self.ask(f"memset {addr:#x} {count} {value:#x}")

    # --- PCI --------------------------------------------------------------------------------------------------

    def pci_read(self, slot: int, function: int, offset: int, size: int = 4) -> int:
        """From configuration space, through 0xcf8 and 0xcfc."""
        self.outl(0xCF8, 0x80000000 | slot << 11 | function << 8 | offset & 0xFC)
        port = 0xCFC + (offset & 3)
        return int(self.ask(f"in{'bw.l'[size - 1]} {port:#x}"), 16)

    def pci_write(self, slot: int, function: int, offset: int, value: int, size: int = 4) -> None:
        self.outl(0xCF8, 0x80000000 | slot << 11 | function << 8 | offset & 0xFC)
        port = 0xCFC + (offset & 3)
        self.ask(f"out{'bw.l'[size - 1]} {port:#x} {value:#x}")

    # --- time and interrupts ----------------------------------------------------------------------------------

    def clock_step(self, ns: int | None = None) -> int:
        """Let virtual time pass, to the next timer or by so many ns; the new time."""
        return int(self.ask("clock_step" if ns is None else f"clock_step {ns}"))

    def intercept_in(self, path: str) -> None:
        self.ask(f"irq_intercept_in {path}")

    def intercept_out(self, path: str) -> None:
        self.ask(f"irq_intercept_out {path}")

    def set_irq_in(self, path: str, name: str, number: int, level: int) -> None:
        self.ask(f"set_irq_in {path} {name} {number} {level}")


class QTest(QtestCommands):
    """A machine of this process. `file`: a machine file, or its contents as a mapping."""

    def __init__(self, file: Any, *, sets: Iterable[str] = ()) -> None:
        from vmrun.config.resolve import resolve_file
        from vmrun.machine.builder import build
        from vmrun.monitor.qtest import QtestSession

        super().__init__()
        if isinstance(file, dict):
            import json
            import os
            import tempfile

            with tempfile.TemporaryDirectory() as directory:
                path = os.path.join(directory, "machine.json")
                with open(path, "w", encoding="utf-8") as out:
                    json.dump({"schema": "vmrun/machine/1", "name": "qtest", **file}, out)
                config = resolve_file(path, list(sets)).data
        else:
            config = resolve_file(str(file), list(sets)).data
        self.machine: Machine = build(config, accel=["qtest"])
        for thread in self._threads():
            thread.resume()
        self._sent: list[bytes] = []
        self._session = QtestSession(self.machine, self._sent.append)

    def __enter__(self) -> QTest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()
        self.machine.close()

    def _exchange(self, data: bytes) -> bytes:
        if data:
            self._session.feed(data)
        self.machine.loop.run_once(0)  # what the commands asked of the machine
        found = b"".join(self._sent)
        self._sent.clear()
        return found

    def settle(self) -> None:
        """Wait until all kicks so far are served, and all disk I/O is over and told."""
        self._serve()
        for drive in self.machine.board.drives.values():
            drive.drain()
        self._serve()
        self.machine.loop.run_once(0)
        self._text += self._exchange(b"")
        *whole, self._text = self._text.split(b"\n")
        for line in whole:
            self._told(line.decode().partition(" ")[2])


    def _threads(self) -> list[IoThread]:
        """Those of objects. The machine's own stands still: wall-clock time does not move either."""
        return self.machine.board.iothreads[1:]

    def _serve(self) -> None:
        """Wait until the I/O threads have looked at what was ready before."""
        for thread in self._threads():
            notifier, done = Notifier(), _thread.allocate_lock()
            done.acquire()

            def ready(events: int, notifier: Notifier = notifier, done: Any = done) -> None:
                notifier.drain()
                done.release()

            handler = PyIoHandler(notifier.fileno(), ready, locked=False)
            thread.add(handler)
            notifier.notify()
            done.acquire()
            thread.remove(handler)


class QtestProgram(QtestCommands):
    """A program started with QEMU's options and `-qtest unix:…`; `process` is it. QtestError with what it said on
    standard error when it does not come up.
    """

    def __init__(self, command: Sequence[str], timeout: float = 20.0) -> None:
        import os
        import socket
        import subprocess
        import tempfile

        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="vmrun-qtest-")
        path = os.path.join(self._directory.name, "qtest")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(0.1)
        self.process = subprocess.Popen(
            [*command, "-qtest", f"unix:{path}", "-qtest-log", "none"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            self._socket = self._accept(listener, timeout)
        except BaseException:
            self.process.kill()
            self._end()
            raise
        finally:
            listener.close()
        self._socket.settimeout(timeout)

    def _accept(self, listener: Any, timeout: float) -> Any:
        from time import monotonic

        end = monotonic() + timeout
        while monotonic() < end:
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self.process.poll() is not None:
                    assert self.process.stderr is not None
                    raise QtestError(self.process.stderr.read().decode(errors="replace")) from None
        raise QtestError(f"{self.process.args!r} does not connect")

    def __enter__(self) -> QtestProgram:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
        self.process.terminate()
        self._end()

    def _end(self) -> None:
        import subprocess

        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self._directory.cleanup()

    def _exchange(self, data: bytes) -> bytes:
        if data:
            self._socket.sendall(data)
        found: bytes = self._socket.recv(1 << 16)
        if not found:
            raise QtestError("the program has gone")
        return found
