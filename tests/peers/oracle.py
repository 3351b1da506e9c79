"""QEMU as an oracle: processors stand still, qtest drives ports and memory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from typing import Any

import pytest

QEMU = shutil.which("qemu-system-x86_64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")


class Qemu:
    """`with Qemu("pc-i440fx-2.0", "-m", "256") as q: q.inb(0x71)`. Nothing runs; state is as at power-on. `qmp` asks
    its monitor.
    """

    def __init__(self, machine: str, *args: str, accel: str = "tcg") -> None:
        self.directory = tempfile.mkdtemp(prefix="vmrun-peer-")
        path = os.path.join(self.directory, "qtest")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(20)
        command = [
            QEMU or "qemu-system-x86_64",
            "-M",
            machine,
            "-accel",
            accel,
            "-S",
            "-qtest",
            f"unix:{path}",
        ]
        self.monitor = os.path.join(self.directory, "qmp")
        command += ["-qmp", f"unix:{self.monitor},server=on,wait=off"]
        command += ["-qtest-log", "none", "-display", "none", "-nodefaults", *args]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            self.socket, _ = listener.accept()
        except TimeoutError:
            self.process.kill()
            assert self.process.stderr is not None
            raise RuntimeError(self.process.stderr.read().decode()) from None
        finally:
            listener.close()
        self.socket.settimeout(20)
        self.pending = b""

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stderr is not None
        self.process.stderr.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def qmp(self, *commands: tuple[str, dict[str, Any]]) -> list[Any]:
        """The answers to some commands of the monitor."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(self.monitor)
            with connection.makefile("rwb") as stream:
                stream.readline()
                answers = []
                for name, arguments in (("qmp_capabilities", {}), *commands):
                    stream.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
                    stream.flush()
                    answers.append(json.loads(stream.readline())["return"])
        return answers[1:]

    def ask(self, line: str) -> str:
        return self.ask_all([line])[0]

    def ask_all(self, lines: list[str]) -> list[str]:
        """Send all lines at once; their answers in order."""
        answers: list[str] = []
        for start in range(0, len(lines), 500):
            part = lines[start : start + 500]
            self.socket.sendall("".join(f"{line}\n" for line in part).encode())
            while len(part) and len(answers) < start + len(part):
                newline = self.pending.find(b"\n")
                if newline < 0:
                    more = self.socket.recv(65536)
                    if not more:
                        raise RuntimeError("QEMU has gone")
                    self.pending += more
                    continue
                line, self.pending = self.pending[:newline].decode(), self.pending[newline + 1 :]
                if line.startswith("IRQ"):
                    continue
                if not line.startswith("OK"):
                    raise RuntimeError(line)
                answers.append(line[2:].strip())
        return answers

    def inb(self, port: int) -> int:
        return int(self.ask(f"inb {port:#x}"), 0) & 0xFF

    def outb(self, port: int, value: int) -> None:
        self.ask(f"outb {port:#x} {value:#x}")

    def outw(self, port: int, value: int) -> None:
        self.ask(f"outw {port:#x} {value:#x}")

    def outl(self, port: int, value: int) -> None:
        self.ask(f"outl {port:#x} {value:#x}")

    def inl(self, port: int) -> int:
        return int(self.ask(f"inl {port:#x}"), 0)

    def read(self, addr: int, count: int) -> bytes:
        return bytes.fromhex(self.ask(f"read {addr:#x} {count}")[2:])

    def cmos(self, index: int) -> int:
        self.outb(0x70, index)
        return self.inb(0x71)

    def fw_cfg(self, key: int, count: int) -> bytes:
        """The first `count` bytes of an item."""
        answers = self.ask_all([f"outw 0x510 {key:#x}"] + ["inb 0x511"] * count)
        return bytes(int(answer, 0) & 0xFF for answer in answers[1:])

    def files(self) -> dict[str, tuple[int, int]]:
        """fw_cfg file name → (selector, size), in the order of the directory."""
        (count,) = struct.unpack(">I", self.fw_cfg(0x19, 4))
        data = self.fw_cfg(0x19, 4 + 64 * count)
        found = {}
        for index in range(count):
            size, key, _, name = struct.unpack_from(">IHH56s", data, 4 + 64 * index)
            found[name.split(b"\0")[0].decode()] = (key, size)
        return found

    def file(self, name: str) -> bytes:
        key, size = self.files()[name]
        return self.fw_cfg(key, size)

    def pci_write(self, device: int, function: int, offset: int, value: int, size: int = 4) -> None:
        self.outl(0xCF8, 0x80000000 | device << 11 | function << 8 | (offset & 0xFC))
        port = 0xCFC + (offset & 3)
        self.ask(f"{ {1: 'outb', 2: 'outw', 4: 'outl'}[size] } {port:#x} {value:#x}".replace("  ", " "))

    def pci_read(self, device: int, function: int, offset: int) -> int:
        self.outl(0xCF8, 0x80000000 | device << 11 | function << 8 | (offset & 0xFC))
        return self.inl(0xCFC)


def converse(command: list[str], requests: list[dict[str, Any]], env: dict[str, str] | None = None) -> list[Any]:
    """The answers of a program with `-qmp stdio`, each request sent once the one before is answered: QEMU drops what
    it has not written yet when it is told to quit.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            answers = []
            for request in ({"execute": "qmp_capabilities"}, *requests):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                while True:
                    message = json.loads(process.stdout.readline())
                    if "return" in message or "error" in message:
                        break
                answers.append(message)
            return answers[1:]
        finally:
            process.kill()


def wait_for(condition: Any, seconds: float) -> bool:
    """Poll a real program's progress; True when it came about."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


class Running:
    """A QEMU that runs its processors, spoken to through its monitor (under qtest time stands still)."""

    def __init__(self, machine: str, *args: str) -> None:
        command = [
            QEMU or "qemu-system-x86_64",
            "-M",
            machine,
            "-accel",
            "tcg",
            "-display",
            "none",
            "-monitor",
            "stdio",
        ]
        self.process = subprocess.Popen(
            [*command, "-nodefaults", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.until_prompt()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.process.kill()
        self.process.wait(20)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def until_prompt(self) -> str:
        assert self.process.stdout is not None
        text = b""
        while not text.endswith(b"(qemu) "):
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise RuntimeError(text.decode(errors="replace"))
            text += more
        return text.decode(errors="replace")

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self.until_prompt()

    def port(self, port: int, index: int | None = None) -> int:
        """A byte from a port; with an index, of the register behind index port `port`."""
        answer = self.ask(f"i /b {port:#x}" + (f".{index:#x}" if index is not None else ""))
        return int(answer.rsplit("=", 1)[1].split()[0], 0)

    def memory(self, addr: int, count: int, directory: str) -> bytes:
        path = os.path.join(directory, "memory.bin")
        self.ask(f'pmemsave {addr:#x} {count} "{path}"')
        with open(path, "rb") as file:
            return file.read()
