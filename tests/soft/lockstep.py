"""A kernel's boot on QEMU's processor and on the soft one, instruction by instruction.

    python -m tests.soft.lockstep --count 1000000                   from the kernel's 64-bit entry, some 4 minutes
    python -m tests.soft.lockstep --count 100000 --after 2.5        from where the boot is after so many seconds

QEMU boots to the starting point; its registers, MSRs and memory are copied into a soft processor that has nothing but
memory. From there QEMU goes one step at a time, by its gdb stub, without interrupts. The soft processor follows by
whole blocks, as it always runs, or by single instructions in front of those that are forwarded. Compared after each
are all general and system registers, flags as far as they are defined and read, XMM and MXCSR; at the end all memory.

What depends on the machine (ports, TSC, CPUID, some MSRs) is not executed: QEMU's result is taken. Loads from a device
ask QEMU's devices. A loop of a repeated string instruction counts as one instruction.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time
from collections import deque
from typing import Any

from accel.api import DeviceLock, PyIoRegion
from accel.ram import RamBlock
from accel.run import RunControl
from accel.soft.decode import decode_fields
from accel.space import AddressSpace, Region

from accel.soft.accelerator import SoftAccelerator
from tests.soft.gdbqemu import GENERAL, SYSTEM, GdbQemu, Gone, Registers

MEMORY = 128 << 20
ENTRY = 0x1000000                       # of a kernel that is not relocated (CONFIG_PHYSICAL_START)
CPU = "qemu64,-svm,+ssse3,+sse4.1,+sse4.2,+popcnt"
MANY = 64                               # iterations of a string instruction that are not followed one by one
AHEAD = 40                              # instructions that QEMU is in front: more than a block has
PREFIXES = frozenset((0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, *range(0x40, 0x50)))
PORTS = frozenset((0xE4, 0xE5, 0xE6, 0xE7, 0xEC, 0xED, 0xEE, 0xEF, 0x6C, 0x6D, 0x6E, 0x6F))
MOST_IDLE = 10000                       # steps in a row that QEMU may answer without taking them
STRINGS = frozenset((0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF))
# The MSRs that both have: EFER, SYSCALL's, bases, SYSENTER's, PAT
MSRS = frozenset((0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102,
                  0x174, 0x175, 0x176, 0x277))
CF, PF, AF, ZF, SF, OF, RF = 1, 4, 0x10, 0x40, 0x80, 0x800, 0x10000
STATUS = CF | PF | AF | ZF | SF | OF


def opcode(code: bytes) -> tuple[int, int, bool]:
    """(opcode, with 0x0f00 for the second map; modrm behind it; has it a repeat prefix) of 64-bit code."""
    repeats, at = False, 0
    while at < len(code) and code[at] in PREFIXES:
        repeats |= code[at] in (0xF2, 0xF3)
        at += 1
    rest = code[at:] + bytes(4)
    if rest[0] == 0x0F:
        return 0x0F00 | rest[1], rest[2], repeats
    return rest[0], rest[1], repeats


def undefined(code: bytes) -> int:
    """Status flags that an instruction leaves undefined (SDM volume 2), or may leave so."""
    op, modrm, _ = opcode(code)
    group = modrm >> 3 & 7
    if op in (0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3):
        return OF | (AF if group & 4 else 0)
    if op in (0x0FA4, 0x0FA5, 0x0FAC, 0x0FAD):
        return OF | AF
    if op in (0x69, 0x6B, 0x0FAF) or op in (0xF6, 0xF7) and group in (4, 5):
        return SF | ZF | AF | PF
    if op in (0xF6, 0xF7) and group in (6, 7):
        return STATUS
    if op in (0x0FBC, 0x0FBD):
        return STATUS & ~ZF
    if op in (0x0FA3, 0x0FAB, 0x0FB3, 0x0FBB, 0x0FBA):
        return OF | SF | AF | PF
    logic = op < 0x40 and op & 7 < 6 and op >> 3 in (1, 4, 6) or 0x80 <= op <= 0x83 and group in (1, 4, 6)
    return AF if logic or op in (0x84, 0x85, 0xA8, 0xA9) or op in (0xF6, 0xF7) and group < 2 else 0


def stays(code: bytes, at: Registers) -> bool:
    """May this instruction lead to itself and change nothing: a jump or a branch whose target is its own address?"""
    op, modrm, _ = opcode(code)
    start = next(n for n, byte in enumerate(code) if byte not in PREFIXES)
    if op == 0xEB or 0x70 <= op <= 0x7F or op == 0xE3:
        return code[start + 1] == (-start - 2) & 0xFF
    if op == 0xE9:
        return code[start + 1 : start + 5] == (-start - 5).to_bytes(4, "little", signed=True)
    if 0x0F80 <= op <= 0x0F8F:
        return code[start + 2 : start + 6] == (-start - 6).to_bytes(4, "little", signed=True)
    return op == 0xFF and modrm >> 3 == 0o34 and at.rip in at.general[:16]      # (none jumps to itself through memory)


class Different(Exception):
    """The two processors are no longer the same."""


class Step:
    """What QEMU did: the code it executed and the registers afterwards."""

    def __init__(self, code: bytes, before: Registers, after: Registers) -> None:
        self.code, self.before, self.after = code, before, after
        op, modrm, self.repeats = opcode(code)
        self.op = op
        self.forwarded = (
            op in PORTS or op in (0xF4, 0x0F31, 0x0FA2, 0x0F33)
            or op == 0x0F01 and modrm == 0xF9                           # rdtscp
            or op == 0x0FC7 and modrm >> 6 == 3                         # rdrand, rdseed
            or op in (0x0F30, 0x0F32) and before.general[2] & 0xFFFFFFFF not in MSRS
        )


class SoftSide:
    """The soft processor with QEMU's state."""

    def __init__(self, qemu: GdbQemu) -> None:
        self.qemu = qemu
        self.loads = 0                      # from devices
        root, ports = Region.container("memory", 0), Region.container("io", 65536)
        memory, io = AddressSpace("memory", root), AddressSpace("io", ports, ports=True)
        self.accel: Any = SoftAccelerator(memory, io, DeviceLock(), RunControl(), {})
        self.ram = RamBlock("ram", MEMORY)
        root.add(Region.ram("ram", self.ram), 0)
        device = PyIoRegion("devices", self.load, lambda offset, size, value: None, max_access=8)
        root.add(Region.device("devices", device, (1 << 32) - MEMORY), MEMORY)
        cpuid = [
            {"function": leaf, "index": 0, "flags": int(leaf == 7), **qemu.cpuid(leaf)}
            for leaf in (0, 1, 7, 0x80000000, 0x80000001, 0x80000008)
        ]
        self.cpu = self.accel.create_vcpu(0, 0, cpuid)
        self.ram.write(0, qemu.memory(MEMORY))
        state = self.accel.save_vcpu(0)
        tables = qemu.tables()
        tables["tr"]["type"] = tables["tr"]["type"] | 2                     # busy
        at = qemu.registers()
        system = dict(zip(SYSTEM, at.system, strict=True))
        sregs = {**state["sregs"], **tables, **{name: system[name] for name in ("cr0", "cr2", "cr3", "cr4", "efer")}}
        sregs["gs"]["base"], sregs["fs"]["base"] = system["gs_base"], system["fs_base"]
        msrs = {index: qemu.rdmsr(index) for index in sorted(MSRS - {0xC0000080, 0xC0000100, 0xC0000101})}
        area = state["xsave"]
        area = area[:24] + at.sse[256:260] + area[28:160] + at.sse[:256] + area[416:]
        self.accel.load_vcpu(0, {"regs": self.regs(at), "sregs": sregs, "msrs": msrs, "xsave": area, "mp_state": 0})

    def load(self, offset: int, size: int) -> int:
        self.loads += 1
        return int.from_bytes(self.qemu.read_physical(MEMORY + offset, size), "little")

    @staticmethod
    def regs(at: Registers) -> dict[str, int]:
        return {**dict(zip(GENERAL, at.general, strict=True)), "rflags": at.flags}

    def take(self, at: Registers) -> None:
        """General registers, flags and RIP as QEMU has them."""
        self.accel.load_vcpu(0, {"regs": self.regs(at)})

    def differences(self, other: Registers) -> tuple[list[str], int]:
        """(what differs of everything but the status flags, the status flags that differ)."""
        state = self.accel.save_vcpu(0)
        found = []
        for name, value in zip(GENERAL, other.general, strict=True):
            if state["regs"][name] != value:
                found.append(f"{name} {state['regs'][name]:#x}, QEMU {value:#x}")
        flags = (state["regs"]["rflags"] ^ other.flags) & ~RF
        if flags & ~STATUS:
            found.append(f"rflags {state['regs']['rflags']:#x}, QEMU {other.flags:#x}")
        sregs = state["sregs"]
        for name, value in zip(("cs", "ss", "ds", "es", "fs", "gs"), other.selectors, strict=True):
            if sregs[name]["selector"] != value:
                found.append(f"{name} {sregs[name]['selector']:#x}, QEMU {value:#x}")
        mine = {
            **{name: sregs[name] for name in ("cr0", "cr2", "cr3", "cr4", "efer")}, "fs_base": sregs["fs"]["base"],
            "gs_base": sregs["gs"]["base"], "kernel_gs": state["msrs"][0xC0000102],
        }
        for name, value in zip(SYSTEM, other.system, strict=True):
            if mine.get(name, value) != value:
                found.append(f"{name} {mine[name]:#x}, QEMU {value:#x}")
        sse = state["xsave"][160:416] + state["xsave"][24:28]
        if sse != other.sse:
            n = next(n for n in range(260) if sse[n] != other.sse[n])
            found.append("mxcsr" if n >= 256 else f"xmm{n // 16}")
        return found, flags & STATUS

    def memory_differences(self, other: bytes) -> list[int]:
        """Addresses of the pages that differ, the legacy video window left out."""
        mine = self.ram.read(0, MEMORY)
        if mine == other:
            return []
        pages = (n for n in range(0, MEMORY, 4096) if mine[n : n + 4096] != other[n : n + 4096])
        return [n for n in pages if not 0xA0000 <= n < 0xC0000]

    def close(self) -> None:
        self.accel.close()


class Lockstep:
    """`compared` instructions so far; raises Different."""

    def __init__(self, qemu: GdbQemu) -> None:
        self.qemu = qemu
        self.soft = SoftSide(qemu)
        self.compared = self.blocks = self.forwarded = self.excused = 0
        self.ahead: deque[Step] = deque()
        self.last = qemu.registers()
        self.trail: deque[str] = deque(maxlen=12)

    # --- QEMU's side

    def step(self) -> None:
        """QEMU executes one instruction more."""
        before = self.last
        code = self.qemu.code(before.rip)
        op, _, repeats = opcode(code)
        after = before
        # One on a program's memory may fault, and behind the fault QEMU would take interrupts.
        pointers = before.general[5:6] if op in (0xAA, 0xAB) else before.general[4:6]
        certain = min(pointers) >= 1 << 63
        if repeats and op in STRINGS and before.general[2] > MANY and not before.flags & 0x100 and certain:
            after = self.over(before, code)
        else:
            # QEMU's stub now and then answers a step that it has not taken: something else wanted its processor. Only
            # an instruction that leads to itself leaves everything as it was; any other is asked for again.
            self_loop, idle = stays(code, before), 0
            while after.rip == before.rip:
                last = after
                self.qemu.step()
                after = self.qemu.registers()
                idle = idle + 1 if after == last else 0
                if idle and self_loop or not idle and not (repeats and op in STRINGS):
                    break
                if idle > MOST_IDLE:
                    raise Gone(f"{idle} steps at {before.rip:#x} changed nothing")
        self.last = after
        self.ahead.append(Step(code, before, after))

    def over(self, before: Registers, code: bytes) -> Registers:
        """A repeated string instruction at once, without interrupts, but with the page faults that it may cause."""
        length = next(n for n, byte in enumerate(code) if byte not in PREFIXES) + 1
        if before.flags & 0x200:
            self.qemu.set_register("rflags", before.flags & ~0x200)
        self.qemu.go_to(before.rip + length)
        after = self.qemu.registers()
        if before.flags & 0x200:
            self.qemu.set_register("rflags", after.flags | 0x200)
            after = after._replace(flags=after.flags | 0x200)
        return after

    # --- the soft processor's

    def follow(self, one: bool) -> None:
        """The soft processor executes a block, or one instruction; compare."""
        first = self.ahead[0]
        if first.forwarded:
            if first.op in (0x6C, 0x6D):
                raise Different(f"string input at {first.before.rip:#x}: cannot be followed")
            self.soft.take(first.after)
            self.forwarded += 1
            self.passed(1)
            return
        loads = self.soft.loads
        count = max(self.soft.cpu.execute(one), 1)
        rip = self.soft.cpu.registers()["rip"]
        for step in self.ahead:
            while rip == step.before.rip and self.amidst(step):
                self.soft.cpu.execute(one)
                rip = self.soft.cpu.registers()["rip"]
        self.blocks += not one
        # an exception ends a block before its end
        candidates = [count, *(n for n in range(1, min(count + 2, len(self.ahead) + 1)) if n != count)]
        number = self.on_the_way(candidates, rip)
        if not number:
            rip = self.through_fault(count)
            number = self.on_the_way(candidates, rip)
        if not number:
            raise Different(self.story(count, [f"rip {rip:#x} is not on QEMU's way"]))
        other = self.ahead[number - 1].after
        found, flags = self.soft.differences(other)
        if found and self.soft.loads > loads:
            self.excused += 1                       # a device's register that moves
            self.soft.take(other)
            found, flags = self.soft.differences(other)
        loose = 0
        for n in range(number):
            loose |= undefined(self.ahead[n].code)
        if found or self.read_later(number, flags & ~loose):
            raise Different(self.story(number, found or [
                f"status flags {(other.flags ^ flags) & STATUS:#x}, QEMU {other.flags & STATUS:#x}"]))
        if flags & loose:
            self.soft.take(other)
        self.passed(number)

    def read_later(self, number: int, flags: int) -> bool:
        """Does QEMU's way behind `number` instructions read one of `flags` before it writes them all?

        The soft processor does not compute what it sees to be dead.
        """
        for step in list(self.ahead)[number:]:
            if not flags:
                break
            fields = decode_fields(step.code, 64)
            if fields["reads"] & flags:
                return True
            flags &= ~fields["writes"]
        return False

    def on_the_way(self, candidates: list[int], rip: int) -> int:
        """After how many instructions QEMU was at `rip`; 0: not."""
        return next((n for n in candidates if n <= len(self.ahead) and self.ahead[n - 1].after.rip == rip), 0)

    def through_fault(self, count: int) -> int:
        """A long string instruction that QEMU did at once faulted: the handler and the rest of it; then RIP."""
        rip = int(self.soft.cpu.registers()["rip"])
        ends = {step.after.rip for step in list(self.ahead)[: count + 1] if step.repeats and step.op in STRINGS}
        for _ in range(200000 if ends else 0):
            self.soft.cpu.execute(True)
            rip = int(self.soft.cpu.registers()["rip"])
            if rip in ends:
                break
        return rip

    def amidst(self, step: Step) -> bool:
        """The soft processor gave way within a repeated string instruction."""
        if not step.repeats or step.op not in STRINGS or step.after.rip == step.before.rip:
            return False
        count = self.soft.cpu.registers()["rcx"]
        return bool(count != step.before.general[2])

    def passed(self, number: int) -> None:
        for _ in range(number):
            step = self.ahead.popleft()
            self.trail.append(f"{step.before.rip:#x} {step.code[:15].hex()}")
        self.compared += number

    def story(self, number: int, found: list[str]) -> str:
        steps = [f"{s.before.rip:#x} {s.code[:15].hex()}" for s in list(self.ahead)[:number]]
        return "\n".join(
            [f"after {self.compared} instructions:", *found, "block:", *steps, "before:", *list(self.trail)[-6:]]
        )

    # --- together

    def run(self, count: int) -> None:
        """`count` instructions; then memory is compared."""
        end = self.compared + count
        while self.compared < end:
            while len(self.ahead) < AHEAD and self.compared + len(self.ahead) < end:
                self.step()
            near = any(self.ahead[n].forwarded for n in range(min(34, len(self.ahead))))
            self.follow(one=near or len(self.ahead) < 34)
        pages = self.soft.memory_differences(self.qemu.memory(MEMORY))
        if pages:
            raise Different(f"after {self.compared} instructions {len(pages)} pages of memory differ: "
                            + " ".join(f"{page:#x}" for page in pages[:10]))

    def close(self) -> None:
        self.soft.close()


def boot_options(kernel: str, initrd: str | None = None) -> list[str]:
    options = ["-M", "pc,accel=tcg,hpet=off", "-cpu", CPU, "-m", str(MEMORY >> 20), "-kernel", kernel]
    return [*options, "-append", "nokaslr quiet", *(["-initrd", initrd] if initrd else [])]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soft.lockstep", description="a boot beside QEMU's processor")
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--after", type=float, default=0.0, help="seconds of QEMU's boot before it starts")
    parser.add_argument("--every", type=int, default=50000, help="compare memory after so many")
    parser.add_argument("--kernel", default="")
    parser.add_argument("--initrd", default="")
    options = parser.parse_args()
    from benchmarks.beside import linux

    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        initrd = options.initrd or linux.initramfs(path)
        qemu = GdbQemu(path, boot_options(options.kernel or linux.kernel(True), initrd))
        try:
            qemu.go_to(ENTRY)
            if options.after:
                qemu.go_for(options.after)
            while qemu.registers().selectors[0] & 3:
                qemu.go_for(0.001)
            both = Lockstep(qemu)
            began = time.monotonic()
            try:
                while both.compared < options.count:
                    both.run(min(options.every, options.count - both.compared))
                    print(f"{both.compared} instructions, {time.monotonic() - began:.0f} s", flush=True)
                result = 0
            except (Different, Gone) as why:
                print(why)
                result = 1
            print(f"{both.compared} instructions equal, {both.blocks} blocks, {both.forwarded} taken from QEMU,"
                  f" {both.soft.loads} loads from devices, {both.excused} of them excused")
            both.close()
            return result
        finally:
            qemu.close()


if __name__ == "__main__":
    sys.exit(main())
