"""QEMU under the control of its gdb stub and its monitor: stop, step, registers, memory.

Ref: GDB manual, appendix E (remote protocol); QEMU docs/system/gdb.rst.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import time
from typing import Any, NamedTuple

QEMU = shutil.which("qemu-system-x86_64")
GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
)
SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
SYSTEM = ("fs_base", "gs_base", "kernel_gs", "cr0", "cr2", "cr3", "cr4", "cr8", "efer")
LAYOUT = struct.Struct("<17Q 7I 9Q")            # then ST0-7 (10 bytes each), 8 control words, XMM0-15, MXCSR
XMM_AT = LAYOUT.size + 80 + 32
MOST_STOPS = 1000                               # for nothing, on the way to an address


class Registers(NamedTuple):
    """As the stub gives them: 17 general, flags and 6 selectors, 9 of the system; XMM0-15 and MXCSR as bytes."""

    general: tuple[int, ...]
    flags: int
    selectors: tuple[int, ...]
    system: tuple[int, ...]
    sse: bytes

    @property
    def rip(self) -> int:
        return self.general[16]


class Gone(Exception):
    """QEMU ended or does not answer."""


def _connect(path: pathlib.Path, seconds: float = 20.0) -> socket.socket:
    end = time.monotonic() + seconds
    while True:
        try:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
            connection.settimeout(120)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > end:
                raise Gone(f"no connection to {path}") from None
            time.sleep(0.02)


class GdbQemu:
    """`options`: QEMU's. The machine waits for `go()` or `step()`."""

    def __init__(self, directory: pathlib.Path, options: list[str]) -> None:
        gdb, qmp = directory / "gdb.sock", directory / "qmp.sock"
        self.directory = directory
        self.process = subprocess.Popen(
            [
                str(QEMU), *options, "-nodefaults", "-display", "none", "-no-reboot", "-S",
                "-chardev", f"socket,id=gdb,path={gdb},server=on,wait=off", "-gdb", "chardev:gdb",
                "-qmp", f"unix:{qmp},server=on,wait=off",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )
        self.socket = _connect(gdb)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.buffer = b""
        self.monitor = _connect(qmp).makefile("rw")
        self.monitor.readline()
        self.qmp("qmp_capabilities")
        self.ask("QStartNoAckMode")
        self.socket.sendall(b"+")
        self.ask("qSupported:xmlRegisters=i386")
        self.ask("qXfer:features:read:target.xml:0,ffb")        # else it takes no single registers
        self.lines: dict[int, bytes] = {}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()
        self.monitor.close()

    # --- the protocols

    def qmp(self, command: str, **arguments: Any) -> Any:
        self.monitor.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.monitor.flush()
        while True:
            answer = json.loads(self.monitor.readline())
            if "error" in answer:
                raise Gone(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def send(self, text: str) -> None:
        data = text.encode()
        self.socket.sendall(b"$" + data + b"#" + b"%02x" % (sum(data) & 0xFF))

    def receive(self) -> str:
        while True:
            start = self.buffer.find(b"$")
            end = self.buffer.find(b"#", start) if start >= 0 else -1
            if end >= 0 and len(self.buffer) >= end + 3:
                found = self.buffer[start + 1 : end]
                self.buffer = self.buffer[end + 3 :]
                return found.decode()
            more = self.socket.recv(65536)
            if not more:
                raise Gone("the stub closed its connection")
            self.buffer += more

    def ask(self, text: str) -> str:
        self.send(text)
        return self.receive()

    # --- running

    def step(self) -> None:
        """One instruction, or one iteration of a repeated one. No interrupts, no timers (QEMU's default)."""
        self.send("s")
        self.receive()

    def go_to(self, address: int) -> None:
        """Run to a linear address."""
        self.ask(f"Z1,{address:x},1")
        for _ in range(MOST_STOPS):
            self.send("c")
            self.receive()
            if self.registers().rip == address:     # else it stopped for something else
                break
        else:
            raise Gone(f"{address:#x} is not reached")
        self.ask(f"z1,{address:x},1")

    def go_for(self, seconds: float) -> None:
        self.send("c")
        time.sleep(seconds)
        self.socket.sendall(b"\x03")
        self.receive()

    # --- state

    def registers(self) -> Registers:
        data = bytes.fromhex(self.ask("g"))
        values = LAYOUT.unpack_from(data)
        return Registers(values[:17], values[17], values[18:24], values[24:33], data[XMM_AT : XMM_AT + 260])

    def set_register(self, name: str, value: int) -> None:
        number, form = (17, "<I") if name == "rflags" else (GENERAL.index(name), "<Q")
        if self.ask(f"P{number:x}={struct.pack(form, value).hex()}") != "OK":
            raise Gone(f"cannot set {name}")

    def read(self, address: int, count: int) -> bytes:
        """Of linear memory; b'' where none is mapped."""
        answer = self.ask(f"m{address:x},{count:x}")
        return b"" if answer.startswith("E") else bytes.fromhex(answer)

    def write(self, address: int, data: bytes) -> None:
        if self.ask(f"M{address:x},{len(data):x}:{data.hex()}") != "OK":
            raise Gone(f"cannot write at {address:#x}")

    def read_physical(self, address: int, count: int) -> bytes:
        self.ask("Qqemu.PhyMemMode:1")
        try:
            return self.read(address, count)
        finally:
            self.ask("Qqemu.PhyMemMode:0")

    def code(self, rip: int) -> bytes:
        """16 bytes at `rip`, of a cache: text that is patched may be old."""
        found = b""
        for line in (rip >> 6, (rip >> 6) + 1):
            if line not in self.lines:
                self.lines[line] = self.read(line << 6, 64)
            found += self.lines[line]
            if (rip & 63) <= 48:
                break
        return found[rip & 63 : (rip & 63) + 16]

    def memory(self, size: int) -> bytes:
        """Physical memory from 0 on."""
        path = self.directory / "memory"
        self.qmp("pmemsave", val=0, size=size, filename=str(path))
        data = path.read_bytes()
        path.unlink()
        return data

    def execute(self, code: bytes, **given: int) -> Registers:
        """One instruction of ours at RIP, with these registers; all is as before afterwards."""
        before = self.registers()
        kept = self.read(before.rip, len(code))
        self.write(before.rip, code)
        for name, value in given.items():
            self.set_register(name, value)
        self.step()
        after = self.registers()
        self.write(before.rip, kept)
        for name, value in zip(GENERAL, before.general, strict=True):
            self.set_register(name, value)
        return after

    def cpuid(self, leaf: int, sub: int = 0) -> dict[str, int]:
        got = dict(zip(GENERAL, self.execute(b"\x0f\xa2", rax=leaf, rcx=sub).general, strict=True))
        return {name: got["r" + name[1:]] & 0xFFFFFFFF for name in ("eax", "ebx", "ecx", "edx")}

    def rdmsr(self, index: int) -> int:
        got = self.execute(b"\x0f\x32", rcx=index).general
        return got[3] << 32 & 0xFFFFFFFF00000000 | got[0] & 0xFFFFFFFF

    def tables(self) -> dict[str, dict[str, int]]:
        """Segment registers with what is hidden of them, GDT and IDT, in KVM's form."""
        text = self.qmp("human-monitor-command", **{"command-line": "info registers"})
        found: dict[str, dict[str, int]] = {}
        for name, *parts in re.findall(r"^(\w\w\w?) ?=(\w{4}) (\w{16}) (\w{8}) (\w{8})", text, re.M):
            selector, base, limit, flags = (int(part, 16) for part in parts)
            access = flags >> 8 & 0xFF
            found[name.lower()] = {
                "base": base, "limit": limit, "selector": selector, "type": access & 15, "s": access >> 4 & 1,
                "dpl": access >> 5 & 3, "present": access >> 7, "avl": flags >> 20 & 1, "l": flags >> 21 & 1,
                "db": flags >> 22 & 1, "g": flags >> 23 & 1, "unusable": int(not access >> 7),
            }
        for name, base, limit in re.findall(r"^(GDT|IDT)= +(\w{16}) (\w{8})", text, re.M):
            found[name.lower()] = {"base": int(base, 16), "limit": int(limit, 16) & 0xFFFF}
        return found
