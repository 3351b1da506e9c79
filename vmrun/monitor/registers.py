"""`info registers`: a processor's state as QEMU's monitor writes it."""

from __future__ import annotations

from vmrun.machine.debugger import fxsave
from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp_args import Given

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUNNABLE = 0  # of mp_state; the others wait: for an interrupt, or to be started
FLAGS = ((11, "O"), (10, "D"), (7, "S"), (6, "Z"), (4, "A"), (2, "P"), (0, "C"))
SEGMENTS = (
    ("ES ", "es"), ("CS ", "cs"), ("SS ", "ss"), ("DS ", "ds"), ("FS ", "fs"), ("GS ", "gs"), ("LDT", "ldt"),
    ("TR ", "tr"),
)  # fmt: skip
# system segments by their type, outside and in long mode (SDM volume 3, table 3-2)
SYSTEM = (
    ("Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16", "TrapGate16", "Reserved",
     "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved", "IntGate32", "TrapGate32"),
    ("<hiword>", "Reserved", "LDT", *["Reserved"] * 6, "TSS64-avl", "Reserved", "TSS64-busy", "CallGate64",
     "Reserved", "IntGate64", "TrapGate64"),
)  # fmt: skip


def registers(machine: Any, words: Given, cpu: int) -> str:
    """General, segment, control, debug and floating-point registers. The processors stop for a moment."""
    chosen = machine.board.processors if "a" in words.flags else [int(word) for word in words] or (cpu,)
    if set(chosen) - set(machine.board.processors):
        return f"CPU#{chosen[0]} not available\n"
    running = machine.state == "running"
    if running:
        machine.accelerator.stop()
    try:
        return "".join(f"\nCPU#{index}\n{_cpu(_state(machine, index))}" for index in chosen)
    except NotImplementedError:
        raise QmpError(f"accelerator {machine.accelerator.name} has no processor registers") from None
    finally:
        if running:
            machine.accelerator.start()


def registers_of(machine: Any, index: int) -> str:
    """Those of a processor that stands still; nothing where the accelerator has none."""
    try:
        return _cpu(_state(machine, index))
    except NotImplementedError:
        return ""


def _state(machine: Any, index: int) -> dict[str, Any]:
    state: dict[str, Any] = machine.accelerator.save_vcpu(index)
    if "regs" not in state:
        raise NotImplementedError
    if "xsave" in state:
        state["fpu"] = fxsave(state["xsave"])
    waits = state.get("mp_state", RUNNABLE) != RUNNABLE
    return {**state, **state.get("sregs", {}), **state["regs"], "halted": waits}


def _cpu(r: dict[str, Any]) -> str:
    protected, long = bool(r["cr0"] & 1), bool(r["efer"] & 0x400)
    wide = long and bool(r["cs"].get("l"))
    flags = "".join(letter if r["rflags"] >> bit & 1 else "-" for bit, letter in FLAGS)
    level = r["ss"].get("dpl", 0) if protected else 0
    tail = f"[{flags}] CPL={level} II=0 A20=1 SMM=0 HLT={int(r['halted'])}\n"
    out = ""
    if wide:
        names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
        for n in range(0, 16, 4):
            out += " ".join(f"{name.upper():<3}={r[name]:016x}" for name in names[n : n + 4]) + "\n"
        out += f"RIP={r['rip']:016x} RFL={r['rflags']:08x} {tail}"
    else:
        for row in (("rax", "rbx", "rcx", "rdx"), ("rsi", "rdi", "rbp", "rsp")):
            out += " ".join(f"E{name[1:].upper()}={r[name] & 0xFFFFFFFF:08x}" for name in row) + "\n"
        out += f"EIP={r['rip'] & 0xFFFFFFFF:08x} EFL={r['rflags'] & 0xFFFFFFFF:08x} {tail}"
    digits = 16 if wide else 8
    for title, name in SEGMENTS:
        out += _segment(title, r[name], digits, protected, long)
    for title, name in (("GDT", "gdt"), ("IDT", "idt")):
        out += f"{title}=     {r[name]['base']:0{digits}x} {r[name]['limit']:08x}\n"
    out += f"CR0={r['cr0']:08x} CR2={r['cr2']:0{digits}x} CR3={r['cr3']:0{digits}x} CR4={r['cr4']:08x}\n"
    return out + _debug(r.get("debugregs")) + f"EFER={r['efer']:016x}\n" + _floating(r.get("fpu"), wide)


def _segment(title: str, segment: dict[str, Any], digits: int, protected: bool, long: bool) -> str:
    value = _attributes(segment)
    out = f"{title}={segment['selector']:04x} {segment['base']:0{digits}x} {segment['limit']:08x} {value:08x}"
    kind, big = segment.get("type", 0), segment.get("db", 0)
    if protected and segment.get("present"):
        out += f" DPL={segment.get('dpl', 0)} "
        if not segment.get("s"):
            out += SYSTEM[long][kind & 15]
        elif kind & 8:
            out += "CS64" if segment.get("l") else "CS32" if big else "CS16"
            out += f" [{'C' if kind & 4 else '-'}{'R' if kind & 2 else '-'}{'A' if kind & 1 else '-'}]"
        else:
            out += "DS  " if big or long else "DS16"
            out += f" [{'E' if kind & 4 else '-'}{'W' if kind & 2 else '-'}{'A' if kind & 1 else '-'}]"
    return out + "\n"


def _attributes(s: dict[str, Any]) -> int:
    """The second word of a descriptor, without base and limit (SDM volume 3, 3.4.5)."""
    value = s.get("type", 0) << 8 | s.get("s", 0) << 12 | s.get("dpl", 0) << 13 | s.get("present", 0) << 15
    return int(value | s.get("avl", 0) << 20 | s.get("l", 0) << 21 | s.get("db", 0) << 22 | s.get("g", 0) << 23)


def _debug(debug: dict[str, Any] | None) -> str:
    if not debug:
        return ""
    addresses = "".join(f"DR{n}={value:016x} " for n, value in enumerate(debug["db"]))
    return f"{addresses}\nDR6={debug['dr6']:016x} DR7={debug['dr7']:016x}\n"


def _floating(fpu: dict[str, Any] | None, wide: bool) -> str:
    """x87 by the numbers of the registers, whatever the top of their stack is, and SSE."""
    if not fpu:
        return ""
    top = fpu["fsw"] >> 11 & 7
    out = f"FCW={fpu['fcw']:04x} FSW={fpu['fsw']:04x} [ST={top}] FTW={fpu['ftwx']:02x} MXCSR={fpu['mxcsr']:08x}\n"
    cells = []
    for n in range(8):
        data = bytes(fpu["fpr"][n - top & 7])
        mantissa, exponent = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:10], "little")
        cells.append(f"FPR{n}={mantissa:016x} {exponent:04x}")
    for n in range(16 if wide else 8):
        data = bytes(fpu["xmm"][n])
        high, low = (int.from_bytes(data[at : at + 8], "little") for at in (8, 0))
        cells.append(f"XMM{n:02}={high:016x} {low:016x}")
    return out + "".join(f"{cells[n]} {cells[n + 1]}\n" for n in range(0, len(cells), 2))
