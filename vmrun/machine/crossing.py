"""Saved processors between accelerators: KVM has its local APICs in another form than `soft`.

Both say a processor's state in KVM's layouts (accel.kvm.state). What differs: KVM keeps an APIC in its kernel as a
page of registers beside the processor, `soft` as a device of the board; `soft` has no extended states behind AVX; and
what `soft` saved before it had XSAVE holds the parts of an FXSAVE area.

Ref: Intel SDM volume 1, 10.5 and 13.4 (FXSAVE, XSAVE); volume 3, table 10-1 (APIC registers).
"""

from __future__ import annotations

import struct

from vmrun.core.state import shown
from vmrun.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine

X87, SSE, AVX, KEYS = 1, 2, 4, 1 << 9
KEYS_AT = 2688  # where the last of them lies in the area
APIC_PAGE = 0x400
# MSRs of the host's processor that a guest does not see, or that nothing but their CPUID feature (compared) brings
UNSEEN = {0x4B564D05, 0x8B, 0x3A, 0x34, 0x1D9, 0x480, *range(0x480, 0x492), 0xC0010015, 0xC001001F, 0x10A, 0xCE, 0x140}


def fit(whole: dict[str, Any], before: Any, machine: Machine) -> tuple[dict[str, Any], list[Any]]:
    """(devices, processors) of a saved state as this machine's accelerator takes them."""
    devices, processors = whole.get("devices"), whole.get("processors")
    if not isinstance(devices, dict) or not isinstance(processors, list):
        raise StateError("the state has no devices or no processors")
    if not all(isinstance(state, dict) for state in processors):
        raise StateError("the state of a processor is missing")
    devices = dict(devices)
    processors = [dict(state) for state in processors]
    own = [id for id in machine.board.devices if id.startswith("lapic[")]
    try:
        if len(processors) != len(machine.board.processors):
            raise StateError(f"the saved machine had {len(processors)} processors")
        for n, state in zip(machine.board.processors, processors, strict=True):
            if machine.accelerator.name == "soft" and "xsave" in state:
                check_extended(state["xsave"])
            elif "fpu" in state and before != "kvm":
                state["xsave"] = xsave_of(state.pop("fpu"))
            id = f"lapic[{n}]"
            if own and "lapic" in state:
                devices[id] = {"driver": "apic", "state": apic_of(state.pop("lapic"), state)}
            elif not own and id in devices:
                state["lapic"] = page_of(devices.pop(id)["state"])
    except (KeyError, TypeError, ValueError, IndexError, struct.error) as exc:
        raise StateError(f"the state of a processor cannot be read: {type(exc).__name__}: {exc}") from None
    return devices, processors


def check_shape(value: Any, own: Any, where: str) -> None:
    """StateError unless a processor's state has the parts, lengths and kinds of values that this processor's has."""
    if type(value) is not type(own):
        raise StateError(f"{where} is {shown(value)}, which it cannot be")
    if isinstance(own, dict):
        registers = where.endswith((".msrs", ".xcrs"))  # by number; which there are depends on the processor
        if not registers and set(value) != set(own):
            odd = ", ".join(sorted(map(str, set(value) ^ set(own)))[:4])
            raise StateError(f"{where} has not the parts that it has here: {odd}")
        for key, item in value.items():
            if registers and (type(key) is not int or not 0 <= key < 1 << 32):
                raise StateError(f"{where}: there is no register {shown(key)}")
            check_shape(item, 0 if registers else own[key], f"{where}.{key}")
    elif isinstance(own, list | bytes):
        if len(value) != len(own):
            raise StateError(f"{where} is {shown(value)}, not of {len(own)}")
        if isinstance(own, list):
            for n, item in enumerate(value):
                check_shape(item, own[n], f"{where}[{n}]")
    elif isinstance(own, int) and not 0 <= value < 1 << 64:
        raise StateError(f"{where} is {shown(value)}, not a number of 64 bits")


def check_refused(n: int, state: dict[str, Any], refused: list[int]) -> None:
    """MSRs that the accelerator does not take matter when they hold something that the guest put there."""
    msrs = state.get("msrs", {})
    lost = [index for index in refused if msrs.get(index) and index not in UNSEEN]
    if lost:
        names = ", ".join(f"{index:#x}" for index in lost[:8])
        raise StateError(f"processor {n}: there is no model-specific register {names} here, and the guest uses it")


# --- CPUID ----------------------------------------------------------------------------------------------------

# (function, index, register) of the words that name features
WORDS = {
    (1, 0, "ecx"), (1, 0, "edx"), (7, 0, "ebx"), (7, 0, "ecx"), (7, 0, "edx"), (7, 1, "eax"), (0xD, 1, "eax"),
    (0x80000001, 0, "ecx"), (0x80000001, 0, "edx"), (0x80000007, 0, "edx"), (0x80000008, 0, "ebx"),
    (0x40000001, 0, "eax"),
}  # fmt: skip


def same_cpuid(rows: Any, index: int, own: list[dict[str, int]], any_layout: bool = False) -> list[dict[str, int]]:
    """The saved entries of processor `index`. StateError names what `own`, which the host can give, has not of them.

    `any_layout`: the processor saves extended states where the entries say (soft); others where the host's does.
    """
    from vmrun.machine.cpuid import AMD_DUPLICATES, REGISTERS, features

    fields = ("function", "index", "flags", *REGISTERS)
    if not isinstance(rows, list) or len(rows) > 256:
        raise StateError(f"the saved machine does not say what processor {index} is")
    for row in rows:
        if not isinstance(row, dict) or set(row) != set(fields):
            raise StateError(f"the saved machine does not say what processor {index} is")
        if not all(type(row[name]) is int and 0 <= row[name] < 1 << 32 for name in fields):
            raise StateError(f"the saved machine does not say what processor {index} is")
    for row in rows:
        for other in own:
            same = row["function"] == other["function"] == 0xD and row["index"] == other["index"] >= 2
            if same and row["ebx"] != other["ebx"] and row["eax"] and other["eax"] and not any_layout:
                raise StateError(
                    f"the saved machine's processor keeps state {row['index']} at {row['ebx']} of an XSAVE area, "
                    f"the processor here at {other['ebx']}",
                    remedy="restore it with `accel: soft`, or save a machine without the feature that brings it",
                )
    held = {(row["function"], row["index"], name): row[name] for row in own for name in REGISTERS}
    lost: list[str] = []
    for row in rows:
        for name in REGISTERS:
            place = (row["function"], row["index"], name)
            word = f"{place[0]:x}.{place[1]}.{name}"
            gone = row[name] & ~held.get(place, 0) if place in WORDS else 0
            if place == (0x80000001, 0, "edx"):
                gone &= ~AMD_DUPLICATES  # of 1.EDX, where the vendor is AMD
            names = features()["names"].get(word) or features()["names"].get(f"{place[0]:x}.{name}") or []
            for bit in range(32):
                if gone >> bit & 1:
                    lost.append(names[bit] if bit < len(names) and names[bit] else f"{word} bit {bit}")
    if lost:
        raise StateError(
            f"the processor here has not what the saved machine's had: {', '.join(lost)}",
            remedy="restore it on such a host, or save a machine whose `cpus.model` both can give",
        )
    return [dict(row) for row in rows]


# --- floating point -------------------------------------------------------------------------------------------


def check_extended(area: bytes) -> None:
    """StateError when parts of an XSAVE area are in use that `soft` has not."""
    used = struct.unpack_from("<Q", area, 512)[0]
    if used & ~(X87 | SSE | AVX | KEYS) and any(area[832:KEYS_AT]):
        names = {3: "mpx", 4: "mpx", 5: "avx512f", 6: "avx512f", 7: "avx512f"}
        lost = sorted({names.get(bit, f"component {bit}") for bit in range(3, 64) if used >> bit & 1 and bit != 9})
        raise StateError(f"the guest uses {', '.join(lost)}, which the processor here has not")


def xsave_of(fpu: dict[str, Any]) -> bytes:
    """KVM's fpu layout as an XSAVE area."""
    area = bytearray(4096)
    names = ("fcw", "fsw", "ftwx", "last_opcode", "last_ip", "last_dp", "mxcsr")
    struct.pack_into("<HHBxHQQII", area, 0, *(fpu[name] for name in names), 0xFFFF)
    for at, part in zip(range(32, 160, 16), fpu["fpr"], strict=True):
        area[at : at + 16] = part[:16].ljust(16, b"\0")
    for at, part in zip(range(160, 416, 16), fpu["xmm"], strict=True):
        area[at : at + 16] = part[:16].ljust(16, b"\0")
    struct.pack_into("<Q", area, 512, X87 | SSE)
    return bytes(area)


# --- local APICs ----------------------------------------------------------------------------------------------

ID, VERSION, TPR, LDR, DFR, SVR, ISR, TMR, IRR, ESR = 0x20, 0x30, 0x80, 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280
ICR, ICR_HIGH, LVT, INITIAL, CURRENT, DIVIDE = 0x300, 0x310, 0x320, 0x380, 0x390, 0x3E0
# the entries of our table, in its order, as offsets of the page: timer, thermal, performance, LINT0, LINT1, error
LVT_ORDER = (0x320, 0x330, 0x340, 0x350, 0x360, 0x370)
X2APIC, DEADLINE_MODE = 1 << 10, 2 << 17


def apic_of(page: bytes, processor: dict[str, Any]) -> dict[str, Any]:
    """The state of our APIC out of KVM's page of registers."""

    def word(offset: int) -> int:
        return int.from_bytes(page[offset : offset + 4], "little")

    base = processor["sregs"]["apic_base"]
    wide = bool(base & X2APIC)
    divide = word(DIVIDE) & 0xB
    passed = (word(INITIAL) - word(CURRENT)) * divider(divide)
    left = word(CURRENT) * divider(divide)
    mode = word(LVT) & (3 << 17)
    return {
        "of": "apic",
        "version": 1,
        "base": base,
        "id": word(ID) if wide else word(ID) >> 24,
        "tpr_value": word(TPR) & 0xFF,
        "ldr": word(LDR),
        "dfr": word(DFR),
        "svr": word(SVR) & 0x3FF,
        "esr": word(ESR) & 0xFF,
        "errors": 0,
        "icr": word(ICR) | word(ICR_HIGH) << 32,
        "initial_count": word(INITIAL),
        "divide": divide,
        "deadline": processor["msrs"].get(0x6E0, 0),
        "start": -passed,
        "extint": 0,
        "lvt": [word(offset) for offset in LVT_ORDER],
        "irr": [word(IRR + 16 * n) for n in range(8)],
        "isr": [word(ISR + 16 * n) for n in range(8)],
        "tmr": [word(TMR + 16 * n) for n in range(8)],
        "timer": left if left and mode != DEADLINE_MODE else None,
    }


def page_of(state: dict[str, Any]) -> bytes:
    """The other way."""
    page = bytearray(APIC_PAGE)

    def put(offset: int, value: int) -> None:
        page[offset : offset + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    wide = bool(state["base"] & X2APIC)
    put(ID, state["id"] if wide else state["id"] << 24)
    put(VERSION, 0x50014)
    for offset, name in ((TPR, "tpr_value"), (LDR, "ldr"), (DFR, "dfr"), (SVR, "svr"), (ESR, "esr"), (DIVIDE,
    "divide")):
        put(offset, state[name])
    put(ICR, state["icr"])
    put(ICR_HIGH, state["icr"] >> 32)
    put(INITIAL, state["initial_count"])
    left = state["timer"]
    put(CURRENT, max(0, left) // divider(state["divide"]) if left is not None else 0)
    for offset, value in zip(LVT_ORDER, state["lvt"], strict=True):
        put(offset, value)
    for start, name in ((IRR, "irr"), (ISR, "isr"), (TMR, "tmr")):
        for n, value in enumerate(state[name]):
            put(start + 16 * n, value)
    return bytes(page)


def divider(value: int) -> int:
    """The divide configuration register; the bus ticks once a nanosecond, as KVM's does."""
    shift = (value & 3 | (value & 8) >> 1) + 1
    return 1 << (shift & 7)
