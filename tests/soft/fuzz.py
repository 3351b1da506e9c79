"""Random instructions on the soft processor and on the host's own: `python -m tests.soft.fuzz --cases N --seed S`.

A case is one to three instructions of accel.soft.opcodes' table in 64-bit mode, with random registers, flags, memory
and x87/SSE state, often at boundaries; operands lie at the border of two pages, sometimes where access faults. Compared
are registers, flags as far as they are defined, memory, the FXSAVE image; of a fault vector, error code, RIP and CR2.

Not compared: what the manuals leave undefined (`undefined` of fuzz_cases.py) or processors do in different order; flags
at a fault behind the first instruction (those that nobody reads in the block may be stale then) or within a repeated
comparison; the x87 instruction and data pointers; whether an address that is not canonical is #SS or #GP.
"""

from __future__ import annotations

import argparse
import pathlib
import struct
import sys
import tempfile
import time

from tests.soft.fuzz_cases import DF, M64, STATUS, TAKEN, Case, Generator
from tests.soft.fuzz_compat import Compat
from tests.soft.fuzz_vex import Vex
from tests.soft.native import AVX, CODE, FX, MEMORY, MOST, RECORD, SEGMENTS, SLOT, UPPER, Host, HostDied, Program, Soft


class Bench:
    """Cases on both processors."""

    def __init__(self, directory: pathlib.Path, fx: bool = True) -> None:
        program = Program(directory)
        self.fx = fx
        self.left_out = 0               # cases of runs that the host did not survive
        self.fall, self.taken = program.symbols["after_fall"], program.symbols["after_taken"]
        self.host, self.soft = Host(program), Soft(program)

    def pack(self, cases: list[Case]) -> tuple[bytes, bytes]:
        """Records and code slots."""
        records, slots = bytearray(), bytearray()
        for number, case in enumerate(cases):
            slot = CODE + number * SLOT
            code = bytes(case.code) + self.leave(case, slot + len(case.code), self.fall)
            code = code.ljust(TAKEN, b"\xcc") + self.leave(case, slot + TAKEN, self.taken)
            slots += code.ljust(SLOT, b"\xcc")
            extra, code_segment, stack, data = case.segments
            entry = (slot if case.entry < 0 else case.entry) | code_segment << 32
            head = struct.pack("<18Q24x3H", *case.regs, case.flags, entry, extra, stack, data)
            area = case.fx.ljust(512, b"\0") + struct.pack("<Q56x", 7 if AVX else 3) + case.upper.ljust(256, b"\0")
            records += (head.ljust(FX, b"\0") + area.ljust(MEMORY - FX, b"\0") + case.memory)
        return bytes(records), bytes(slots)

    @staticmethod
    def leave(case: Case, at: int, to: int) -> bytes:
        """A jump from linear address `at` to `to` in 64-bit code; far ones with enough before them to be translated."""
        if case.segments[1] == 0x33:
            return b"\xe9" + struct.pack("<i", to - (at + 5))
        size = b"" if SEGMENTS[case.segments[1]].big else b"\x66"
        return b"\x90" * 4 + size + b"\xea" + struct.pack("<IH", to, 0x33)

    def run(self, cases: list[Case]) -> list[tuple[Case, int, list[str]]]:
        """The cases that differ: (case, its address, what)."""
        records, slots = self.pack(cases)
        host = self.host.run(records, slots, self.fx)
        return self.compare(cases, host, self.soft.run(records, slots, self.fx))

    @staticmethod
    def compare(cases: list[Case], host: bytes, soft: bytes) -> list[tuple[Case, int, list[str]]]:
        found = []
        for number, case in enumerate(cases):
            at = number * RECORD
            one, two = host[at : at + RECORD], soft[at : at + RECORD]
            if one == two:
                continue
            what = differences(case, CODE + number * SLOT, one, two)
            if what:
                found.append((case, CODE + number * SLOT, what))
        return found

    def close(self) -> None:
        self.soft.close()
        self.host.close()


ENVIRONMENTS = {"d9/4", "d9/6", "dd/4", "dd/6"}     # fldenv, fnstenv, frstor, fnsave: any byte may fault first
SHA = {*(f"np 0f38{op:02x}" for op in range(0xC8, 0xCE)), "np 0f3acc"}
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


def differences(case: Case, slot: int, host: bytes, soft: bytes) -> list[str]:
    one, two = struct.unpack_from("<21Q", host), struct.unpack_from("<21Q", soft)
    if int.from_bytes(host[FX + 24 : FX + 28], "little") >> 16:
        return []                           # MXCSR.MM, which only some hosts have, was loaded
    if SHA & set(case.names) and two[17] == 0x10D and one[17:21] != two[17:21]:
        return []                           # AMD's processors take operands that are not aligned
    if "ff/2" in case.names and min(one[17], two[17]) >= 0x100:
        return []                           # a call's push or its target: who is first
    if one[17] != two[17] and {one[17], two[17]} != ({0x10C, 0x10D} if case.segments[1] == 0x33 else set()):
        return [f"outcome {one[17]:#x}, not {two[17]:#x}; error {one[18]:#x}, {two[18]:#x}"
                f" address {one[19]:#x}, {two[19]:#x} rip +{one[20] - slot:#x}, +{two[20] - slot:#x}"]
    found = []
    compat = case.segments[1] != 0x33
    popa = one[17] >= 0x100 and "61" in case.names      # some load registers before the fault
    start = slot - SEGMENTS[case.segments[1]].base
    for n in range(8 if compat else 16):
        if (one[n] ^ two[n]) & (0xFFFFFFFF if compat else M64) and not popa and not case.loose >> n & 1:
            found.append(f"{NAMES[n]} {one[n]:#x}, not {two[n]:#x}")
    faulted = one[17] >= 0x100
    compared = (STATUS & ~case.undefined) | DF
    if faulted:
        strings = {"a6", "a7", "ae", "af", "np 0ff7", "66 0ff7"} & set(case.names)
        compared = DF if one[20] != start or one[17] == 0x100 or strings else STATUS | DF
        if one[20] != two[20]:
            found.append(f"rip of the fault +{one[20] - slot:#x}, not +{two[20] - slot:#x}")
        if (one[18] ^ two[18]) & (6 if one[17] == 0x10E else M64):
            found.append(f"error code {one[18]:#x}, not {two[18]:#x}")
        if one[17] == two[17] == 0x10E and one[19] != two[19] and not strings | ENVIRONMENTS & set(case.names):
            found.append(f"cr2 {one[19]:#x}, not {two[19]:#x}")
    if (one[16] ^ two[16]) & compared:
        found.append(f"flags {one[16] & compared:#x}, not {two[16] & compared:#x} (of {compared:#x})")
    if "np 0fae/0" in case.names:           # MXCSR_MASK of fxsave
        soft = soft[: MEMORY + 28] + host[MEMORY + 28 : MEMORY + 32] + soft[MEMORY + 32 :]
    if host[MEMORY:] != soft[MEMORY:] and not ENVIRONMENTS & set(case.names):       # x87 pointers
        n = next(k for k in range(MEMORY, RECORD) if host[k] != soft[k])
        found.append(f"memory at {n - MEMORY:#x}: {host[n:n + 16].hex()}, not {soft[n:n + 16].hex()}")
    pointers = sum(name in ENVIRONMENTS for name in case.names) > 1         # what was stored may be loaded as numbers
    if case.fx and not pointers and not (faulted and "np 0ff7" in case.names):
        a, b = bytearray(host[FX : FX + 512]), bytearray(soft[FX : FX + 512])
        a[6:24] = b[6:24] = bytes(18)
        a[28:32] = b[28:32] = bytes(4)
        for n in range(32, 160, 16):
            a[n + 10 : n + 16] = b[n + 10 : n + 16] = bytes(6)
        if a[:416] != b[:416]:
            n = next(k for k in range(416) if a[k] != b[k]) & ~15
            found.append(f"fx at {n}: {a[n:n + 16].hex()}, not {b[n:n + 16].hex()}")
        if host[UPPER : UPPER + 256] != soft[UPPER : UPPER + 256]:
            n = next(k for k in range(UPPER, UPPER + 256) if host[k] != soft[k]) & ~15
            found.append(f"upper half of ymm{(n - UPPER) // 16}: {host[n:n + 16].hex()}, not {soft[n:n + 16].hex()}")
    return found


def disassembled(case: Case, slot: int) -> str:
    try:
        import capstone
    except ImportError:
        return ""
    bits = {0x33: capstone.CS_MODE_64, 0x07: capstone.CS_MODE_16}.get(case.segments[1], capstone.CS_MODE_32)
    engine = capstone.Cs(capstone.CS_ARCH_X86, bits)
    return "; ".join(f"{i.mnemonic} {i.op_str}" for i in engine.disasm(bytes(case.code), slot))


def describe(case: Case, slot: int, what: list[str]) -> str:
    regs = " ".join(f"{name}={value:x}" for name, value in zip(NAMES, case.regs, strict=True))
    segments = " ".join(f"{n:x}" for n in case.segments)
    lines = [f"{case.code.hex()}  {disassembled(case, slot)}  [{', '.join(case.names)}]"]
    return "\n    ".join([*lines, f"{regs} flags={case.flags:x} segments={segments}", *what])


KINDS = {"64": Generator, "compat": Compat, "vex": Vex}


def fuzz(bench: Bench, count: int, seed: int, kind: str = "64") -> list[tuple[Case, int, list[str]]]:
    """All differences of `count` cases in 64-bit code, in 32- and 16-bit code, or of VEX in 64-bit code."""
    generator = KINDS[kind](seed, bench.fx)
    found: list[tuple[Case, int, list[str]]] = []
    done = 0
    while done < count:
        cases: list[Case] = []
        while len(cases) < min(MOST, count - done):
            case = generator.case(CODE + len(cases) * SLOT)
            if case is not None:
                cases.append(case)
        try:
            found += bench.run(cases)
        except HostDied:
            bench.left_out += len(cases)
        done += len(cases)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soft.fuzz", description="soft processor beside the host's")
    parser.add_argument("--cases", type=int, default=50000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--integer", action="store_true", help="no x87, MMX, SSE")
    parser.add_argument("--compat", action="store_true", help="32- and 16-bit code instead of 64-bit")
    parser.add_argument("--vex", action="store_true", help="AVX and BMI")
    parser.add_argument("--show", type=int, default=10, help="differences to print")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(pathlib.Path(directory), not options.integer)
        began = time.monotonic()
        kind = "compat" if options.compat else "vex" if options.vex else "64"
        found = fuzz(bench, options.cases, options.seed, kind)
        seconds = time.monotonic() - began
        bench.close()
    kinds: dict[str, int] = {}
    for case, _, _ in found:
        kinds[case.names[-1]] = kinds.get(case.names[-1], 0) + 1
    shown: dict[str, int] = {}
    for case, slot, what in found:
        shown[case.names[-1]] = shown.get(case.names[-1], 0) + 1
        if shown[case.names[-1]] <= 2 and sum(min(n, 2) for n in shown.values()) <= options.show:
            print(describe(case, slot, what))
    print(f"{options.cases} cases, {len(found)} differ, {bench.left_out} left out, {seconds:.1f} s")
    if kinds:
        print(" ".join(f"{name}:{n}" for name, n in sorted(kinds.items(), key=lambda item: -item[1])))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
