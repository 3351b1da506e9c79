"""Small guests that tell what KVM can do here, by doing it.

`first_steps` decides whether KVM is used at all: three instructions. `kernel_steps` is for `vmrun doctor` and takes
longer: 64-bit kernel code that does one after the other what stock kernels do early and what a KVM without full help of
the processor (nested, or emulating privileged code) is known to give up on.
"""

from __future__ import annotations

import struct
from time import perf_counter

from accel.api import DeviceLock, PyIoRegion
from accel.errors import AccelFailure
from accel.ram import RamBlock
from accel.run import RunControl
from accel.space import AddressSpace, Region

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.accelerator import Accelerator

    Make = type[Accelerator]  # KVM's; given by its caller, which imports this module

PORT, DONE, TRAPPED = 0x80, 0x7F, 0x7E
PATIENCE = 3.0  # seconds
LOOPS, SLOW = 200_000, 4_000_000.0  # instructions; a second: with all that is around them, a processor does 20 million
ROOM = 0x10000

# mov al, 42h; out 80h, al; hlt
FIRST = bytes.fromhex("b042 e680 f4")

# What each step does, its code, and the bits of CPUID 1 (ECX, EDX) without which it is left out.
STEPS = (
    ("a breakpoint (int3) and iretq", "cc", 0, 0),
    ("an invalid opcode (ud2) and iretq", "0f0b", 0, 0),
    ("cmpxchg16b", "31c031d231db31c9 f0480fc70c2500600000", 1 << 13, 0),
    ("lock xadd", "f0480fc1042500600000", 0, 0),
    ("an SSE2 move", "f30f6f042500500000 f30f7f042500500000", 0, 1 << 26),
    ("fxsave and fxrstor", "0fae042500500000 0fae0c2500500000", 0, 1 << 24),
    ("xsave and xrstor", "b80700000031d2 0fae242500500000 0fae2c2500500000", 1 << 26, 0),
    ("swapgs", "0f01f8", 0, 0),
    ("reading the time-stamp counter's MSR", "b910000000 0f32", 0, 0),
    ("cpuid", "31c0 0fa2", 0, 0),
    ("invlpg", "0f013c2500500000", 0, 0),
)

CODE_AT, IDT_AT, GDT_AT, RETURN_AT, SKIP_AT, WRONG_AT = 0x8000, 0x3000, 0xA000, 0x7000, 0x7100, 0x7200
OSXSAVE = 1 << 18


class _Guest:
    """64 KiB of memory and a port that notes what is written to it."""

    def __init__(self, make: Make, at: tuple[int, ...], last: int) -> None:
        self.seen: list[int] = []
        self.last = last
        root, ports = Region.container("memory", 0), Region.container("io", 65536)
        self.ram = RamBlock("probe", ROOM)
        for addr in at:
            root.add(Region.ram("probe", self.ram), addr)
        self.control = RunControl()
        ports.add(Region.device("probe", PyIoRegion("probe", write=self._port), 1), PORT)
        memory, io = AddressSpace("memory", root), AddressSpace("io", ports, ports=True)
        self.accel = make(memory, io, DeviceLock(), self.control, {"kernel_irqchip": "off"})

    def _port(self, offset: int, size: int, value: int) -> int:
        self.seen.append(value)
        return int(value in (self.last, TRAPPED))  # a reset request: the processor waits, the main thread looks

    def run(self) -> list[dict[str, Any]]:
        """Until the last value is written, it gives up, or patience ends; the reports."""
        import select

        self.accel.start()
        waiting = select.poll()  # a process may have more descriptors than select(2) knows
        waiting.register(self.control.notifier.fileno(), select.POLLIN)
        waiting.poll(PATIENCE * 1000)
        self.control.stop()
        found: list[dict[str, Any]] = self.control.take_reports()
        return found


def first_steps(make: Make) -> None:
    """AccelFailure when KVM is absent, forbidden, or does not execute three instructions."""
    guest = _Guest(make, (0xF0000, 0xFFFF0000), 0x42)
    try:
        guest.ram.write(0xFFF0, FIRST)
        guest.accel.create_vcpu(0, 0, [])
        reports = guest.run()
        if guest.seen != [0x42]:
            ended = f"it ends with {reports[0]['exit']}" if reports else "it never writes to its port"
            raise AccelFailure("KVM opens but does not run a guest", ended, "use --accel soft")
    finally:
        guest.accel.close()


def kernel_steps(make: Make) -> str:
    """The steps on which this KVM gives up, and how, separated by semicolons; '' when there are none."""
    lost = lost_steps(make)
    rate = speed(make)
    if rate < SLOW:
        lost.append(f"kernel code runs at {rate / 1e6:.1f} million instructions a second, so KVM emulates it")
    return "; ".join(lost)


def lost_steps(make: Make) -> list[str]:
    """The steps that do not end well, and how each ends."""
    return [] if not take(make, STEPS) else [found for found in (take(make, (step,)) for step in STEPS) if found]


def dead_ends(make: Make) -> str:
    """Those of them on which KVM itself gives up; what only takes long here is none."""
    return "; ".join(found for found in lost_steps(make) if "INTERNAL_ERROR" in found)


def speed(make: Make) -> float:
    """Instructions a second of a small loop in 64-bit kernel code; infinite when the loop does not end well."""
    loop = (("a loop", "b9" + struct.pack("<I", LOOPS // 2).hex() + "ffc9 75fc", 0, 0),)  # dec ecx; jnz
    best = 0.0
    for _ in range(2):
        began = perf_counter()
        if take(make, loop):
            return float("inf")
        best = max(best, LOOPS / (perf_counter() - began))
    return best


def take(make: Make, steps: tuple[tuple[str, str, int, int], ...]) -> str:
    """The first of these steps that does not end well, and how; '' when all do. AccelFailure: nothing starts."""
    guest = _Guest(make, (0,), DONE)
    try:
        cpuid = guest.accel.supported_cpuid()
        leaf = next((entry for entry in cpuid if entry["function"] == 1), {"ecx": 0, "edx": 0})
        chosen = [step for step in steps if not step[2] & ~leaf["ecx"] and not step[3] & ~leaf["edx"]]
        _fill(guest.ram, chosen)
        guest.accel.create_vcpu(0, 0, cpuid)
        wide = OSXSAVE if leaf["ecx"] & 1 << 26 else 0
        guest.accel.load_vcpu(0, _long_mode(guest.accel.save_vcpu(0), wide))
        reports = guest.run()
    finally:
        guest.accel.close()
    if DONE in guest.seen:
        return ""
    reached = [value for value in guest.seen if value < len(chosen)]
    what = chosen[reached[-1]][0] if reached else "its first 64-bit instruction"
    if TRAPPED in guest.seen:
        return f"{what} raises an exception that it should not"
    if reports:
        why = f" ({reports[0]['why']})" if reports[0].get("why") else ""
        return f"{what} ends the guest with {reports[0]['exit']}{why}"
    return f"{what} never comes to an end"


def _fill(ram: RamBlock, steps: list[tuple[str, str, int, int]]) -> None:
    """Page tables for 2 MiB, descriptors, handlers, then the steps, each telling its number first."""
    ram.write(0x1000, struct.pack("<Q", 0x2003))
    ram.write(0x2000, struct.pack("<Q", 0x4003))
    ram.write(0x4000, struct.pack("<Q", 0x83))
    ram.write(GDT_AT, struct.pack("<4Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF))
    for vector in range(32):
        handler = {3: RETURN_AT, 6: SKIP_AT}.get(vector, WRONG_AT)
        ram.write(IDT_AT + 16 * vector, struct.pack("<HHHHII", handler, 0x10, 0x8E00, 0, 0, 0))
    ram.write(RETURN_AT, bytes.fromhex("48cf"))
    ram.write(SKIP_AT, bytes.fromhex("4883042402 48cf"))
    ram.write(WRONG_AT, b"\xb0" + bytes([TRAPPED]) + b"\xe6\x80\xf4\xeb\xfd")
    code = b""
    for number, (_, step, *_) in enumerate(steps):
        code += b"\xb0" + bytes([number]) + b"\xe6" + bytes([PORT]) + bytes.fromhex(step)
    ram.write(CODE_AT, code + b"\xb0" + bytes([DONE]) + b"\xe6" + bytes([PORT]) + b"\xf4\xeb\xfd")


def _long_mode(state: dict[str, Any], cr4: int) -> dict[str, Any]:
    sregs, regs = dict(state["sregs"]), dict(state["regs"])
    flat = {"base": 0, "limit": 0xFFFFFFFF, "s": 1, "dpl": 0, "present": 1, "avl": 0, "g": 1, "unusable": 0}
    data = {**flat, "selector": 0x18, "type": 3, "l": 0, "db": 1}
    sregs.update(dict.fromkeys(("ds", "es", "fs", "gs", "ss"), data))
    sregs["cs"] = {**flat, "selector": 0x10, "type": 11, "l": 1, "db": 0}
    sregs["gdt"], sregs["idt"] = {"base": GDT_AT, "limit": 31}, {"base": IDT_AT, "limit": 511}
    sregs.update(cr0=0x80000033, cr3=0x1000, cr4=0x620 | cr4, efer=0x500)
    return {"sregs": sregs, "regs": {**regs, "rip": CODE_AT, "rsp": 0x6F00, "rflags": 2}}
