"""Registers as gdb knows them: the target description, and where in a processor's state each one lies.

Ref: GDB manual, "i386 Features": core, sse and segments have their registers in this order; what gdb has no standard
feature for (control registers, the kernel's GS base) follows in one of its own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    State = dict[str, Any]

GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
GENERAL_32 = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer")
X87 = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
KERNEL_GS = 0xC0000102
# types of registers whose bits have names: id → (bytes, ((name, bit or first and last bit), …))
FLAGS: dict[str, tuple[int, tuple[tuple[str, int | tuple[int, int]], ...]]] = {
    "i386_eflags": (4, (
        ("ID", 21), ("VIP", 20), ("VIF", 19), ("AC", 18), ("VM", 17), ("RF", 16), ("NT", 14), ("IOPL", (12, 13)),
        ("OF", 11), ("DF", 10), ("IF", 9), ("TF", 8), ("SF", 7), ("ZF", 6), ("AF", 4), ("PF", 2), ("CF", 0),
    )),
    "i386_mxcsr": (4, (
        ("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6), ("IM", 7), ("DM", 8),
        ("ZM", 9), ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15),
    )),
    "i386_cr0": (8, (
        ("PG", 31), ("CD", 30), ("NW", 29), ("AM", 18), ("WP", 16), ("NE", 5), ("ET", 4), ("TS", 3), ("EM", 2),
        ("MP", 1), ("PE", 0),
    )),
    "i386_cr4": (8, (
        ("PKE", 22), ("SMAP", 21), ("SMEP", 20), ("OSXSAVE", 18), ("PCIDE", 17), ("FSGSBASE", 16), ("VMXE", 13),
        ("LA57", 12), ("UMIP", 11), ("OSXMMEXCPT", 10), ("OSFXSR", 9), ("PCE", 8), ("PGE", 7), ("MCE", 6), ("PAE", 5),
        ("PSE", 4), ("DE", 3), ("TSD", 2), ("PVI", 1), ("VME", 0),
    )),
    "i386_efer": (8, (("NXE", 11), ("LMA", 10), ("LME", 8), ("SCE", 0))),
}  # fmt: skip


def _flags(name: str, bytes: int) -> str:
    fields = ""
    for field, at in FLAGS[name][1]:
        first, last = at if isinstance(at, tuple) else (at, at)
        fields += f'<field name="{field}" start="{first}" end="{last}"/>'
    return f'<flags id="{name}" size="{bytes}">{fields}</flags>'


VECTOR = (
    '<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>'
    '<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>'
    '<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>'
    '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>'
    '<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>'
    '<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>'
)


class Register:
    """`part` and `key` of the state as Accelerator.save_vcpu gives it."""

    def __init__(self, name: str, bits: int, type: str, part: str, key: Any, group: str = "") -> None:
        self.name, self.bits, self.type, self.part, self.key, self.group = name, bits, type, part, key, group

    @property
    def size(self) -> int:
        return self.bits // 8

    def get(self, state: State) -> bytes:
        if self.part == "fpr":
            return bytes(state["fpu"]["fpr"][self.key][:10]).ljust(10, b"\0")
        if self.part == "xmm":
            return bytes(state["fpu"]["xmm"][self.key][:16]).ljust(16, b"\0")
        return (self._number(state) & ((1 << self.bits) - 1)).to_bytes(self.size, "little")

    def _number(self, state: State) -> int:
        found: int
        if self.part == "x87":
            return _x87(state["fpu"], self.key)
        if self.part == "selector":
            found = state["sregs"][self.key]["selector"]
        elif self.part == "base":
            found = state["sregs"][self.key]["base"]
        elif self.part == "msrs":
            found = state["msrs"].get(self.key, 0)
        else:
            found = state[self.part][self.key]
        return found

    def put(self, state: State, data: bytes) -> str:
        """Change the state; the part of it that has to be loaded again."""
        value = int.from_bytes(data, "little")
        if self.part in ("fpr", "xmm"):
            state["fpu"][self.part][self.key] = data.ljust(16, b"\0")
            return "fpu"
        if self.part == "x87":
            _put_x87(state["fpu"], self.key, value)
            return "fpu"
        if self.part in ("selector", "base"):
            state["sregs"][self.key] = {**state["sregs"][self.key], self.part: value}
            if self.part == "selector" and not state["sregs"]["cr0"] & 1:
                state["sregs"][self.key]["base"] = value << 4
            return "sregs"
        state[self.part][self.key] = value
        return self.part


def _x87(fpu: State, name: str) -> int:
    if name == "ftag":
        return _full_tags(fpu)
    key, shift, mask = {
        "fctrl": ("fcw", 0, 0xFFFF), "fstat": ("fsw", 0, 0xFFFF), "fop": ("last_opcode", 0, 0x7FF),
        "fioff": ("last_ip", 0, 0xFFFFFFFF), "fiseg": ("last_ip", 32, 0xFFFF),
        "fooff": ("last_dp", 0, 0xFFFFFFFF), "foseg": ("last_dp", 32, 0xFFFF),
    }[name]  # fmt: skip
    found: int = fpu[key] >> shift & mask
    return found


def _put_x87(fpu: State, name: str, value: int) -> None:
    if name == "ftag":
        fpu["ftwx"] = sum(1 << n for n in range(8) if value >> 2 * n & 3 != 3)
    elif name in ("fctrl", "fstat"):
        fpu["fcw" if name == "fctrl" else "fsw"] = value & 0xFFFF
    elif name == "fop":
        fpu["last_opcode"] = value & 0x7FF
    else:
        key, shift = "last_ip" if name[1] == "i" else "last_dp", 0 if name.endswith("off") else 32
        mask = 0xFFFFFFFF if not shift else 0xFFFF
        fpu[key] = fpu[key] & ~(mask << shift) | (value & mask) << shift


def _full_tags(fpu: State) -> int:
    """Two bits for each register, 0 valid, 1 zero, 2 special, 3 empty; FXSAVE's image has one."""
    tags, top = 0, fpu["fsw"] >> 11 & 7
    for n in range(8):
        tag = 3
        if fpu["ftwx"] >> n & 1:
            image = bytes(fpu["fpr"][n - top & 7])
            exponent, mantissa = int.from_bytes(image[8:10], "little") & 0x7FFF, int.from_bytes(image[:8], "little")
            tag = 2 if exponent == 0x7FFF or not mantissa >> 63 else 0
            if not exponent:
                tag = 2 if mantissa else 1
        tags |= tag << 2 * n
    return tags


class Target:
    """The registers of one kind of processor, in gdb's order, and their description."""

    def __init__(self, wide: bool) -> None:
        self.wide = wide
        bits = 64 if wide else 32
        names = GENERAL if wide else GENERAL_32
        core = []
        for name in names:
            pointer = name in ("rbp", "rsp")
            shown = name if wide else f"e{name[1:]}"
            core.append(Register(shown, bits, "data_ptr" if pointer else f"int{bits}", "regs", name))
        core.append(Register("rip" if wide else "eip", bits, "code_ptr", "regs", "rip"))
        core.append(Register("eflags", 32, "i386_eflags", "regs", "rflags"))
        core += [Register(name, 32, "int32", "selector", name) for name in SEGMENTS]
        core += [Register(f"st{n}", 80, "i387_ext", "fpr", n) for n in range(8)]
        core += [Register(name, 32, "int", "x87", name, "float") for name in X87]
        sse = [Register(f"xmm{n}", 128, "vec128", "xmm", n) for n in range(16 if wide else 8)]
        sse.append(Register("mxcsr", 32, "i386_mxcsr", "fpu", "mxcsr", "vector"))
        system = []
        if wide:
            system += [Register(f"{name}_base", 64, "int64", "base", name) for name in ("fs", "gs")]
        own = [
            Register(name, bits, kind if (kind := f"i386_{name}") in FLAGS else f"int{bits}", "sregs", name)
            for name in CONTROL
        ]
        if wide:
            own.insert(0, Register("k_gs_base", 64, "int64", "msrs", KERNEL_GS))
        self.features = [("org.gnu.gdb.i386.core", core), ("org.gnu.gdb.i386.sse", sse)]
        if system:
            self.features.append(("org.gnu.gdb.i386.segments", system))
        self.features.append(("org.vmrun.system", own))
        self.registers = [register for _, registers in self.features for register in registers]

    def description(self) -> bytes:
        """target.xml."""
        text = '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target><architecture>'
        text += f"{'i386:x86-64' if self.wide else 'i386'}</architecture>"
        number = 0
        for name, registers in self.features:
            text += f'<feature name="{name}">'
            text += VECTOR if name.endswith("sse") else ""
            for kind in dict.fromkeys(register.type for register in registers if register.type in FLAGS):
                text += _flags(kind, min(FLAGS[kind][0], 8 if self.wide else 4))
            for register in registers:
                group = f' group="{register.group}"' if register.group else ""
                text += f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.type}" '
                text += f'regnum="{number}"{group}/>'
                number += 1
            text += "</feature>"
        return (text + "</target>").encode()
