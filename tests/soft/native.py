"""Instruction cases run by the host's processor and by the soft one, from the same bytes at the same addresses.

native.s is the program that runs them, one record after the other. On the host it is a function of a forked child, with
exceptions as signals; for the soft processor it is a guest in long mode, ring 3, with exceptions through its IDT. Both
have the same selectors: 33 code, 2B data, 23 32-bit code, and the LDT of SEGMENTS. What differs: IF, IOPL.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pathlib
import signal
import struct
import subprocess
import time
from typing import Any, NamedTuple

from accel.api import DeviceLock, PyIoRegion
from accel.ram import RamBlock
from accel.run import RunControl
from accel.space import AddressSpace, Region

from accel.soft.accelerator import SoftAccelerator

AVX = "avx" in pathlib.Path("/proc/cpuinfo").read_text().split()
SOURCE = pathlib.Path(__file__).with_name("native.s")
# As in native.s
BASE, RECORD = 0x20000000, 1792
DATA, GS = BASE + 0x8000, BASE + 0x11000
IDT, GDT = BASE + 0x4000, BASE + 0x5000
WINDOW, WINDOW_SIZE = BASE + 0x11F00, 512
FX, UPPER, MEMORY = 192, 192 + 576, 192 + 1024 + 64     # of a record
# Pages without access, and one to read only
HOLES = (0x10000, 0x13000, 0x15000)
READ_ONLY = 0x14000
CODE, SLOT = BASE + 0x20000, 64
RECORDS = BASE + 0x40000
MOST = 1024                     # cases of a run
SIZE = 0x240000


class Segment(NamedTuple):
    base: int
    limit: int
    code: bool = False
    big: bool = True            # 32 bits
    down: bool = False          # expand-down
    read_only: bool = False


# By selector; those with bit 2 are in the LDT
SEGMENTS = {
    0x33: Segment(0, 0xFFFFFFFF, code=True),
    0x2B: Segment(0, 0xFFFFFFFF),
    0x23: Segment(0, 0xFFFFFFFF, code=True),
    0x07: Segment(CODE, 0xFFFF, code=True, big=False),
    0x0F: Segment(BASE, 0xFFFFF, code=True),
    0x17: Segment(BASE + 0x11000, 0x1FFF),
    0x1F: Segment(BASE + 0x11000, 0x1FFF, big=False),
    0x27: Segment(BASE + 0x10000, 0xFFF, down=True),
    0x2F: Segment(BASE + 0x11000, 0x1FFF, read_only=True),
}
LDT = BASE + 0x5800
EXIT, END_PORT = 32, 0xF4
PHYSICAL = 0x10000              # where BASE lies in the guest's RAM; page tables below


class Program:
    """native.s assembled: its bytes and symbols."""

    def __init__(self, directory: pathlib.Path) -> None:
        obj, elf, flat = (directory / name for name in ("native.o", "native.elf", "native.bin"))
        subprocess.run(["as", "--64", "-o", str(obj), str(SOURCE)], check=True, timeout=60)
        subprocess.run(
            ["ld", "-m", "elf_x86_64", "-e", "entry", "-Ttext", hex(BASE), "-o", str(elf), str(obj)],
            check=True, timeout=60, stderr=subprocess.DEVNULL,
        )
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(elf), str(flat)], check=True, timeout=60)
        listing = subprocess.run(["nm", str(elf)], check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout
        self.symbols = {name: int(at, 16) for at, _, name in (line.split() for line in listing.splitlines())}
        self.code = flat.read_bytes()

    def image(self, records: bytes, slots: bytes, guest: bool, fx: bool) -> bytearray:
        """The memory from BASE on."""
        image = bytearray(SIZE)
        image[: len(self.code)] = self.code
        local = [segment for selector, segment in SEGMENTS.items() if selector & 4]
        struct.pack_into(
            "<7Q", image, DATA - BASE, RECORDS, RECORDS + len(records), guest, fx, 0, fx and AVX, len(local)
        )
        for n, segment in enumerate(local):                 # struct user_desc
            kind = 2 if segment.code else int(segment.down)
            flags = segment.big | kind << 1 | segment.read_only << 3 | 1 << 6
            struct.pack_into("<4I", image, DATA + 0x400 - BASE + 16 * n, n, segment.base, segment.limit, flags)
        image[CODE - BASE : CODE - BASE + len(slots)] = slots
        image[RECORDS - BASE : RECORDS - BASE + len(records)] = records
        return image


class HostDied(Exception):
    """The child was killed: a case wrote over the program or its stacks."""


class Host:
    """The host's processor."""

    def __init__(self, program: Program) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        fixed = 0x100000                                    # MAP_FIXED_NOREPLACE
        everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        at = libc.mmap(BASE, SIZE, everything, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | fixed, -1, 0)
        if at != BASE:
            raise OSError(ctypes.get_errno(), "cannot map the cases' memory")
        for page in HOLES:
            libc.mprotect(BASE + page, 0x1000, 0)
        libc.mprotect(BASE + READ_ONLY, 0x1000, mmap.PROT_READ)
        self.libc = libc
        self.program = program
        self.entry = ctypes.CFUNCTYPE(None)(BASE)

    def run(self, records: bytes, slots: bytes, fx: bool, seconds: float = 60.0) -> bytes:
        image = self.program.image(records, slots, False, fx)
        at = 0
        for page in sorted((*HOLES, READ_ONLY)):
            ctypes.memmove(BASE + at, bytes(image[at:page]), page - at)
            at = page + 0x1000
        ctypes.memmove(BASE + at, bytes(image[at:]), SIZE - at)
        child = os.fork()
        if child == 0:
            self.entry()                    # does not return
        end = time.monotonic() + seconds
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise TimeoutError("the host's run did not end")
            time.sleep(0.001)
        if status:
            raise HostDied(f"the host's run ended with status {status:#x} at case {self.current()}")
        return ctypes.string_at(RECORDS, len(records))

    def close(self) -> None:
        self.libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.libc.munmap(BASE, SIZE)

    def current(self) -> int:
        return (int.from_bytes(ctypes.string_at(DATA, 8), "little") - RECORDS) // RECORD


def _descriptor(base: int, limit: int, access: int, flags: int) -> bytes:
    return struct.pack(
        "<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, limit >> 16 & 15 | flags << 4, base >> 24
    )


def _of(segment: Segment, long: bool = False) -> bytes:
    """A descriptor of ring 3, accessed."""
    kind = 0xFB if segment.code else 0xF1 | segment.down << 2 | (not segment.read_only) << 1
    pages = segment.limit == 0xFFFFFFFF
    flags = pages << 3 | (2 if long else segment.big << 2)
    return _descriptor(segment.base, segment.limit >> 12 if pages else segment.limit, kind, flags)


def _state(selector: int, base: int, limit: int, kind: int, s: int = 1, long: int = 0) -> dict[str, int]:
    """A segment register as KVM_GET_SREGS gives it."""
    return {
        "base": base, "limit": limit, "selector": selector, "type": kind, "s": s, "dpl": 3 * s, "present": 1, "avl": 0,
        "l": long, "db": s and not long, "g": s, "unusable": 0,
    }


def cpuid() -> list[dict[str, int]]:
    """All that it can do, and what it would do if it were declared: AES, PCLMULQDQ."""
    from accel.soft.features import supported_cpuid

    leaves = supported_cpuid()
    for leaf in leaves:
        if leaf["function"] == 1:
            leaf["ecx"] |= 1 << 25 | 1 << 1
    return leaves


class Soft:
    """The soft processor, alone with memory and one port."""

    def __init__(self, program: Program) -> None:
        self.program = program
        root, ports = Region.container("memory", 0), Region.container("io", 65536)
        memory, io = AddressSpace("memory", root), AddressSpace("io", ports, ports=True)
        self.control = RunControl()
        self.accel: Any = SoftAccelerator(memory, io, DeviceLock(), self.control, {})
        self.ram = RamBlock("ram", PHYSICAL + SIZE)
        root.add(Region.ram("ram", self.ram), 0)
        region = PyIoRegion("end", None, lambda offset, size, value: EXIT)
        ports.add(Region.device("end", region, 1), END_PORT)
        self.accel.create_vcpu(0, 0, cpuid())
        self.start = self.accel.save_vcpu(0)
        self.tables()

    def tables(self) -> None:
        """Page tables, IDT, GDT with a task state segment."""
        self.ram.write(0x1000, struct.pack("<Q", 0x2007))
        self.ram.write(0x2000, struct.pack("<Q", 0x3007))
        self.ram.write(0x3000 + 256 * 8, struct.pack("<QQ", 0x4007, 0x5007))
        entries = []
        for page in range(0, SIZE, 0x1000):
            entries.append(0 if page in HOLES else (PHYSICAL + page) | (5 if page == READ_ONLY else 7))
        self.ram.write(0x4000, struct.pack(f"<{len(entries)}Q", *entries))
        self.gates = b"".join(
            struct.pack("<HHBBHII", at & 0xFFFF, 8, 1, 0x8E, at >> 16 & 0xFFFF, 0, 0)
            for at in range(self.program.symbols["vectors"], self.program.symbols["vectors"] + 512, 16)
        )
        self.tss = struct.pack("<I10Q", 0, 0, 0, 0, 0, BASE + 0x10000, 0, 0, 0, 0, 0).ljust(0x68, b"\0")

    def run(self, records: bytes, slots: bytes, fx: bool, seconds: float = 60.0) -> bytes:
        image = self.program.image(records, slots, True, fx)
        image[IDT - BASE : IDT - BASE + 512] = self.gates
        image[GDT - BASE + 0x100 : GDT - BASE + 0x168] = self.tss
        gdt = bytearray(0x60)
        gdt[8:16] = _descriptor(0, 0xFFFFF, 0x9B, 0xA)
        for selector in (0x23, 0x2B, 0x33):
            gdt[selector & ~7 : (selector & ~7) + 8] = _of(SEGMENTS[selector], selector == 0x33)
        image[GDT - BASE : GDT - BASE + len(gdt)] = gdt
        local = b"".join(_of(segment) for selector, segment in SEGMENTS.items() if selector & 4)
        image[LDT - BASE : LDT - BASE + len(local)] = local
        self.ram.write(PHYSICAL, bytes(image))
        self.accel.reset_vcpus()
        state = dict(self.start)
        flat = _state(0x2B, 0, 0xFFFFFFFF, 3)
        sregs = {
            **state["sregs"],
            "cs": _state(0x33, 0, 0xFFFFFFFF, 11, long=1), "ss": flat, "ds": flat, "es": flat, "fs": flat,
            "gs": _state(0x2B, GS, 0xFFFFFFFF, 3), "tr": _state(0x40, GDT + 0x100, 0x67, 11, 0),
            "ldt": _state(0x50, LDT, len(local) - 1, 2, 0),
            "gdt": {"base": GDT, "limit": 0x5F}, "idt": {"base": IDT, "limit": 0x1FF},
            "cr0": 0x80010033, "cr3": 0x1000, "cr4": 0x620, "efer": 0x500,
        }
        regs = dict.fromkeys(state["regs"], 0)
        regs.update(rip=BASE, rflags=0x3002, rsp=BASE + 0xC000)
        if AVX:
            sregs["cr4"] |= 1 << 18
        self.accel.load_vcpu(0, {"regs": regs, "sregs": sregs, "xcrs": {0: 7 if AVX else 1}, "mp_state": 0})
        self.control.take()
        self.accel.start()
        requests = 0
        end = time.monotonic() + seconds
        while not requests and time.monotonic() < end:
            time.sleep(0.0005)
            requests = self.control.take()
        self.accel.stop()
        if not requests & EXIT:
            at = (int.from_bytes(self.ram.read(PHYSICAL + DATA - BASE, 8), "little") - RECORDS) // RECORD
            raise RuntimeError(f"the soft processor's run did not end: requests {requests:#x} at case {at}")
        return bytes(self.ram.read(PHYSICAL + RECORDS - BASE, len(records)))

    def close(self) -> None:
        self.accel.close()
