"""A guest's memory as an ELF core file, as QEMU writes it: crash and gdb open it.

Ref: ELF64 (gABI 4.1), NT_PRSTATUS of Linux x86-64, and QEMU's note "QEMU" with a QEMUCPUState for each processor, which
crash needs for a kernel that was placed at random.
"""

from __future__ import annotations

import re
import struct

from vmrun.core.interfaces import CoreInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from vmrun.machine.machine import Machine

EHDR, PHDR = 64, 56
PT_LOAD, PT_NOTE = 1, 4
NT_PRSTATUS = 1
PRSTATUS = 336          # bytes of struct elf_prstatus; the registers begin at 112
PID, REGISTERS = 32, 112
MSR_KERNEL_GS, MSR_FS, MSR_GS = 0xC0000102, 0xC0000100, 0xC0000101
PART = 1 << 20
MOST_NOTE = 1 << 20
_ORDER = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
)  # fmt: skip
_QEMU = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
    "rflags",
)  # fmt: skip
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt")


class Span:
    """A piece of physical memory, and where the guest's kernel maps it where that is asked for."""

    __slots__ = ("physical", "size", "virtual")

    def __init__(self, physical: int, size: int, virtual: int) -> None:
        self.physical, self.size, self.virtual = physical, size, virtual


def spans(machine: Machine, begin: int = 0, length: int = 1 << 64) -> list[Span]:
    """The RAM of the machine, in the order of addresses; device memory and ROM are left out."""
    found: list[Span] = []
    end = begin + length
    for piece in machine.board.memory.flat:
        if piece.region.kind_name != "ram":
            continue
        start, stop = max(piece.start, begin), min(piece.start + piece.size, end)
        if start < stop:
            found.append(Span(start, stop - start, 0))
    return found


def notes(machine: Machine, states: list[dict[str, Any]]) -> bytes:
    """Those of the processors, and what the guest's kernel says of itself."""
    return notes_of_processors(machine, states) + guests_note(machine)


def notes_of_processors(machine: Machine, states: list[dict[str, Any]]) -> bytes:
    """PRSTATUS of each, then QEMU's own note of each."""
    found = [_note(b"CORE", NT_PRSTATUS, _prstatus(n, state)) for n, state in enumerate(states)]
    found += [_note(b"QEMU", 0, _qemu_state(state)) for state in states]
    return b"".join(found)


def guests_note(machine: Machine) -> bytes:
    """The note that the guest has pointed to (vmcoreinfo); nothing when there is none, or it is none."""
    for device in machine.all(CoreInfo):
        told = device.note()
        if told is None or not 12 <= told[1] <= MOST_NOTE:
            continue
        with machine.board.lock:
            data = machine.board.memory.read_bytes(*told)
        name, body, _ = struct.unpack_from("<III", data)
        whole = 12 + -(-name // 4) * 4 + -(-body // 4) * 4
        if whole <= len(data):
            return bytes(data[:whole])
    return b""


def physical_base(note: bytes) -> int:
    """Where its kernel lies, as the guest's note says; 0 when it does not."""
    found = re.search(rb"NUMBER\(phys_base\)=(-?[0-9]{1,19})\n", note)
    return int(found[1]) & (1 << 64) - 1 if found else 0


def _note(name: bytes, kind: int, body: bytes) -> bytes:
    title = name + b"\0"
    head = struct.pack("<III", len(title), len(body), kind)
    return head + title.ljust(-(-len(title) // 4) * 4, b"\0") + body.ljust(-(-len(body) // 4) * 4, b"\0")


def _prstatus(index: int, state: dict[str, Any]) -> bytes:
    r, s, m = state.get("regs", {}), state.get("sregs", {}), state.get("msrs", {})
    words = [r.get(name, 0) for name in _ORDER] + [0xFFFFFFFFFFFFFFFF]  # no system call
    words += [r.get("rip", 0), _selector(s, "cs"), r.get("rflags", 0), r.get("rsp", 0), _selector(s, "ss")]
    words += [s.get("fs", {}).get("base", m.get(MSR_FS, 0)), s.get("gs", {}).get("base", m.get(MSR_GS, 0))]
    words += [_selector(s, name) for name in ("ds", "es", "fs", "gs")]
    body = bytearray(PRSTATUS)
    struct.pack_into("<I", body, PID, index + 1)
    struct.pack_into(f"<{len(words)}Q", body, REGISTERS, *words)
    return bytes(body)


def _selector(sregs: dict[str, Any], name: str) -> int:
    return int(sregs.get(name, {}).get("selector", 0))


def _qemu_state(state: dict[str, Any]) -> bytes:
    r, s, m = state.get("regs", {}), state.get("sregs", {}), state.get("msrs", {})
    body = struct.pack(f"<{len(_QEMU)}Q", *(r.get(name, 0) for name in _QEMU))
    for name in _SEGMENTS:
        segment = s.get(name, {})
        selector, limit, base = (segment.get(part, 0) for part in ("selector", "limit", "base"))
        body += struct.pack("<IIIIQ", selector, limit, attributes(segment), 0, base)
    body += struct.pack("<5Q", s.get("cr0", 0), 0, s.get("cr2", 0), s.get("cr3", 0), s.get("cr4", 0))
    body += struct.pack("<Q", m.get(MSR_KERNEL_GS, 0))
    return struct.pack("<II", 1, len(body) + 8) + body


def attributes(s: dict[str, Any]) -> int:
    """The second word of a descriptor, without base and limit (SDM volume 3, 3.4.5)."""
    value = s.get("type", 0) << 8 | s.get("s", 0) << 12 | s.get("dpl", 0) << 13 | s.get("present", 0) << 15
    return int(value | s.get("avl", 0) << 20 | s.get("l", 0) << 21 | s.get("db", 0) << 22 | s.get("g", 0) << 23)


def headers(found: list[Span], note: bytes) -> bytes:
    """The file up to the first byte of memory."""
    count = len(found) + 1
    offset = EHDR + PHDR * count
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, EHDR, 0, 0, EHDR, PHDR, count, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", PT_NOTE, 0, offset, 0, 0, len(note), len(note), 0)
    at = offset + len(note)
    for span in found:
        head += struct.pack("<IIQQQQQQ", PT_LOAD, 0, at, span.virtual, span.physical, span.size, span.size, 0)
        at += span.size
    return head + note


def contents(machine: Machine, found: list[Span]) -> Iterator[bytes]:
    """The memory, piece by piece; each is read with the device lock held, for a moment."""
    for span in found:
        at, end = span.physical, span.physical + span.size
        while at < end:
            with machine.board.lock:
                data = machine.board.memory.read_bytes(at, min(end - at, PART))
            yield data
            at += len(data)


def write(
    machine: Machine, write_to: Callable[[bytes], object], states: list[dict[str, Any]], found: list[Span],
    told: Callable[[int], bool],
) -> None:  # fmt: skip
    """All of it. `told(bytes written)` returns True to give up. OSError from write_to."""
    head = headers(found, notes(machine, states))
    write_to(head)
    done = len(head)
    if told(done):
        return
    for data in contents(machine, found):
        write_to(data)
        done += len(data)
        if told(done):
            return


def total(found: list[Span], processors: int) -> int:
    """Bytes of the whole file."""
    return sum(span.size for span in found)
