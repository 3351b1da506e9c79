"""Random cases for fuzz.py: what the instructions of accel.soft.opcodes need of registers, and leave undefined."""

from __future__ import annotations

import pathlib
import random
import struct
from dataclasses import dataclass, field

from accel.soft import opcodes
from tests.soft.native import BASE, GS, HOLES, READ_ONLY, WINDOW, WINDOW_SIZE

CF, PF, AF, ZF, SF, DF, OF = 1, 4, 0x10, 0x40, 0x80, 0x400, 0x800
STATUS = CF | PF | AF | ZF | SF | OF
TAKEN = 32                      # where in a slot a branch leads to
BORDER = WINDOW + WINDOW_SIZE // 2
M64 = (1 << 64) - 1
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
INTERESTING = (
    0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF,
    0x80000000, 0xFFFFFFFF, 0x100000000, (1 << 63) - 1, 1 << 63, M64, M64 - 1, 0x8000000080000000, 0x5555555555555555,
)
# Doubles and floats that matter: ones, zeros, infinities, NaNs, denormals, big and small numbers
DOUBLES = (0.0, -0.0, 1.0, -1.0, 1.5, 2.5, 1e300, 1e-300, 3.25e9, -7.75, float("inf"), -float("inf"), float("nan"))
FLOATS = (
    *(struct.unpack("<Q", struct.pack("<d", value))[0] for value in DOUBLES),
    1, 0x000FFFFFFFFFFFFF, 0x7FF0000000000001, 0xFFF8000000000000,
)
SINGLES = (0, 0x80000000, 0x3F800000, 0xBF800000, 0x3FC00000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 1,
           0x007FFFFF, 0x7F7FFFFF, 0x4F000000, 0xCF000001, 0x40490FDB)


@dataclass
class Form:
    """A row of the table."""

    map: int
    opcode: int
    reg: int | None             # of a group
    words: frozenset[str]
    prefix: str | None          # np, 66, f3, f2 where it is part of the opcode
    reads: int
    writes: int
    fpu: bool

    @property
    def name(self) -> str:
        group = "" if self.reg is None else f"/{self.reg}"
        return f"{self.prefix or ''} {('', '0f', '0f38', '0f3a')[self.map]}{self.opcode:02x}{group}".strip()


@dataclass
class Case:
    code: bytearray
    regs: list[int]
    flags: int
    fx: bytes
    memory: bytes
    names: list[str] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)      # registers that may have changed: no addresses any more

    upper: bytes = b""          # halves of the YMM registers
    undefined: int = 0          # status flags that are not compared
    loose: int = 0              # general registers that are not
    segments: list[int] = field(default_factory=lambda: [0x2B, 0x33, 0x2B, 0x2B])       # ES CS SS DS
    entry: int = -1             # offset of the code in CS; -1: its linear address

    def put(self, at: int, value: int, size: int) -> None:
        """Into the memory window."""
        at -= WINDOW
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.memory = self.memory[:at] + data + self.memory[at + size :]


HOST = set(pathlib.Path("/proc/cpuinfo").read_text().split())               # what the host has
SSE4A = "sse4a" in HOST


def forms(long: bool) -> list[Form]:
    """All that is not a system instruction and exists in (or outside of) 64-bit mode."""
    found = [Form(0, 0x63, None, frozenset("m"), None, 0, 0, False)] if long else []      # movsxd
    for number, table in enumerate((opcodes.ONE, opcodes.TWO, opcodes.THREE_38, opcodes.THREE_3A)):
        rows = list(opcodes.rows(table))
        if number == 0:                     # x87: a row for each modrm.reg
            rows = [row for row in rows if not 0xD8 <= row[0] <= 0xDF]
            rows += [(op, reg, words) for op, _, words in opcodes.rows(table) if 0xD8 <= op <= 0xDF for reg in range(8)]
        for opcode, reg, words in rows:
            given = frozenset(words)
            if "sys" in given or long and "no64" in given or (number, opcode) in EXCLUDED:
                continue
            reads = sum(opcodes.flag_mask(word[2:]) for word in words if word[:2] == "r=")
            writes = sum(opcodes.flag_mask(word[2:]) for word in words if word[:2] == "w=")
            if "cc" in given:
                reads |= opcodes.flag_mask(opcodes.CONDITIONS[(opcode & 15) >> 1])
            prefixes = [word for word in words if word in ("np", "66", "f3", "f2")] or [None]
            if number == 1 and not SSE4A and (opcode in (0x78, 0x79) or opcode == 0x2B):
                prefixes = [prefix for prefix in prefixes if opcode == 0x2B and prefix not in ("f3", "f2")]
            if number == 1 and opcode == 0xAE and not {"clflushopt", "clwb"} <= HOST:
                prefixes = [prefix for prefix in prefixes if prefix != "66"]
            for prefix in prefixes:
                found.append(Form(number, opcode, reg, given, prefix, reads, writes, "fpu" in given))
    return found


# They may leave exceptions unmasked: what x87 and conversions to MMX do then is only nearly right.
LOADERS = ("d9/4", "d9/5", "dd/4", "np 0fae/1", "np 0fae/2")
PREFIXES = (0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x65, 0x26, 0x2E, 0x36, 0x3E)
EXCLUDED = {(0, 0x9B)}          # wait: its exceptions are another instruction's


class Generator:
    def __init__(self, seed: int, fx: bool) -> None:
        self.random = random.Random(seed)
        self.fx = fx
        self.bits, self.osize = 64, 8
        every = forms(True)
        self.integer = [form for form in every if not form.fpu]
        self.fpu = [form for form in every if form.fpu] if fx else []
        self.branches = [form for form in self.integer if "cond" in form.words]     # fused with what is before

    # --- values

    def value(self) -> int:
        r = self.random
        kind = r.random()
        if kind < 0.4:
            return r.getrandbits(64)
        if kind < 0.7:
            return r.choice(INTERESTING)
        if kind < 0.85:
            return r.getrandbits(r.randrange(1, 65))
        return (r.choice(INTERESTING) + r.randrange(-3, 4)) & M64

    def registers(self) -> list[int]:
        return [self.value() for _ in range(16)]

    def state(self) -> bytes:
        """An FXSAVE image with exceptions masked."""
        r = self.random
        image = bytearray(512)
        control = 0x037F if r.random() < 0.6 else 0x007F | r.choice((0, 0x200, 0x300)) | r.randrange(4) << 10
        top = r.randrange(8)
        tags = r.choice((0, 0xFF, r.getrandbits(8)))
        status = top << 11 | r.choice((0, 0x4700 & r.getrandbits(16)))
        mxcsr = 0x1F80 | r.choice((0, 0, 0, r.randrange(4) << 13 | r.choice((0, 0x8000, 0x40, 0x8040))))
        struct.pack_into("<HHBxHQQII", image, 0, control, status, tags, 0, 0, 0, mxcsr, 0xFFFF)
        for at in range(32, 160, 16):
            struct.pack_into("<QH", image, at, *self.extended())
        for at in range(160, 416, 8):
            kind = r.random()
            if kind < 0.4:
                number = r.choice(FLOATS)
            elif kind < 0.7:
                number = r.choice(SINGLES) | r.choice(SINGLES) << 32
            elif kind < 0.9:
                number = r.getrandbits(64)
            else:
                number = r.choice(INTERESTING)
            struct.pack_into("<Q", image, at, number)
        return bytes(image)

    def extended(self) -> tuple[int, int]:
        """Mantissa and exponent with sign."""
        r = self.random
        kind = r.random()
        if kind < 0.5:
            return 1 << 63 | r.getrandbits(63), 0x3FFF + r.randrange(-70, 71) | r.getrandbits(1) << 15
        if kind < 0.7:
            return 1 << 63, r.choice((0x3FFF, 0xBFFF, 0x7FFF, 0xFFFF, 0x4000))
        if kind < 0.8:
            return 0, r.choice((0, 0x8000))
        if kind < 0.9:
            return r.getrandbits(64) | 1 << 62, r.choice((0x7FFF, 0xFFFF))
        return r.getrandbits(64), r.getrandbits(16)

    def flags(self) -> int:
        r = self.random
        return 2 | (r.getrandbits(12) & STATUS) | (DF if r.random() < 0.15 else 0)

    # --- operands

    def target(self, align: int) -> int:
        """Where a memory operand shall lie."""
        r = self.random
        kind = r.random()
        if kind < 0.03:
            return r.choice((
                BASE + HOLES[1] + r.randrange(64), BASE + HOLES[1] - r.randrange(1, 16),
                BASE + READ_ONLY + r.randrange(4000), 0x800000000000 + r.randrange(64, 128),
                BASE + HOLES[2] - r.randrange(1, 16),
            )) & ~(align - 1)
        if kind < 0.3:
            at = BORDER + r.randrange(-17, 18)
        else:
            at = WINDOW + r.randrange(0x20, WINDOW_SIZE - 0x40)
        return at & ~(align - 1) if r.random() < 0.8 else at

    def memory(self, case: Case, fixed: set[int], reg: int, target: int, tail: int, at: int) -> tuple[int, bytes, bool]:
        """REX bits, modrm with all that belongs to it, whether a 67 prefix is needed. `at`: its offset in the slot."""
        r = self.random
        modrm = (reg & 7) << 3
        rex = 4 if reg & 8 else 0
        short = target < 1 << 31
        kind = r.random()
        if kind < 0.08 and short:                                       # [rip + disp]
            size = at + 5 + tail
            return rex, bytes((modrm | 5,)) + struct.pack("<i", target - (self.slot + size)), False
        if kind < 0.14 and short:                                       # [disp]
            return rex, bytes((modrm | 4, 0x25)) + struct.pack("<i", target), False
        base = r.randrange(16)
        narrow = r.random() < 0.06 and short
        indexed = r.random() < 0.4
        index = r.randrange(16)
        if case.touched and (base in case.touched or base in fixed):
            base = next((n for n in range(8, 16) if n not in case.touched and n not in fixed), base)
            indexed = False
        elif base in fixed:
            base = RSP if RSP not in fixed or r.random() < 0.3 else base
        scale = r.randrange(4)
        value = case.regs[index] << scale if indexed and index != RSP else 0
        if indexed and index == base:
            indexed, value = False, 0
        if index == RSP:
            indexed = False
        mode = r.choice((0, 1, 1, 2))
        if mode == 0 and base & 7 == 5:
            mode = 1
        disp = 0 if mode == 0 else r.randrange(-128, 128) if mode == 1 else r.randrange(-(1 << 31), 1 << 31)
        if base in fixed:                                               # its value is given: the displacement follows
            disp = target - case.regs[base]
            mode, indexed, value = 2, False, 0
            if not -(1 << 31) <= disp < 1 << 31:
                disp = 0
        else:
            wanted = target - disp - value
            case.regs[base] = (wanted & 0xFFFFFFFF) | r.getrandbits(32) << 32 if narrow else wanted & M64
        fixed.add(base)
        rex |= 1 if base & 8 else 0
        tail_bytes = b"" if mode == 0 else struct.pack("<b", disp) if mode == 1 else struct.pack("<i", disp)
        modrm |= mode << 6
        if indexed:
            fixed.add(index)
            rex |= 2 if index & 8 else 0
            return rex, bytes((modrm | 4, scale << 6 | (index & 7) << 3 | base & 7)) + tail_bytes, narrow
        if base & 7 == 4:
            return rex, bytes((modrm | 4, 0x24)) + tail_bytes, narrow
        return rex, bytes((modrm | base & 7,)) + tail_bytes, narrow

    # --- instructions

    def instruction(self, case: Case, form: Form, fixed: set[int], first: bool) -> bytes | None:
        """Its bytes, and what it wants of registers; None: not with what is there already."""
        r = self.random
        words, op = form.words, form.opcode
        prefix = bytearray()
        long_op = form.map == 0
        rexw = r.random() < 0.35
        word = form.prefix is None and r.random() < 0.25
        if form.prefix in ("66", "f3", "f2"):
            prefix.append(int(form.prefix, 16))
        if form.prefix == "f3" and form.map == 1 and op == 0xB8 and r.random() < 0.2:
            prefix.insert(0, 0x66)
        string = long_op and (0xA4 <= op <= 0xA7 or 0xAA <= op <= 0xAF)
        if word:
            prefix.append(0x66)
        if string and r.random() < 0.6:
            prefix.append(r.choice((0xF2, 0xF3)))
        elif form.map == 1 and op in (0xBC, 0xBD) and r.random() < 0.5:
            prefix.append(0xF3)
        self.osize = osize = 8 if rexw or "f64" in words else 2 if 0x66 in prefix else 8 if "d64" in words else 4
        if osize == 2 and form.map == 1 and 0xC8 <= op <= 0xCF:
            return None                                                 # bswap of 16 bits
        if 0x66 in prefix and ("f64" in words or op == 0x63 and long_op):
            return None                                                 # AMD's and Intel's differ
        modrm = b""
        rex = 8 if rexw else 0
        if r.random() < 0.2:
            rex |= 0x40
        sizes = {"ib": 1, "ub": 1, "iw": 2, "iz": 2 if osize == 2 else 4, "iv": osize, "jb": 1, "jz": 4,
                 "moffs": 8, "enter": 3}
        tail = sum(size for name, size in sizes.items() if name in words)
        is_byte = not op & 1 and long_op
        if "moffs" in words and r.random() < 0.2:
            prefix.append(0x67)
            tail = sizes["moffs"] = 4
        opcode_bytes = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")[form.map] + bytes((op,))
        if not self.wants(case, form, fixed, first, osize, rexw):
            return None
        if "m" in words:
            reg = form.reg if form.reg is not None else r.randrange(16)
            if form.reg is not None and r.random() < 0.1:
                rex |= 4
            of_memory = "mem" in words or "reg" not in words and (r.random() < 0.5 or (form.map, op) == (1, 0x0D))
            if of_memory:
                locked = "lock" in words and r.random() < 0.2
                bits = form.map == 1 and op in (0xA3, 0xAB, 0xB3, 0xBB)
                if bits:
                    if reg in fixed and not -3000 < self.signed(case.regs[reg], osize) < 3000 or not first:
                        return None
                    if reg not in fixed:
                        low = r.randrange(-1200, 1200)
                        case.regs[reg] = low & M64 if osize == 8 else r.getrandbits(64) >> 8 * osize << 8 * osize | (
                            low & (1 << 8 * osize) - 1)
                    fixed.add(reg)
                big = form.map == 1 and op == 0xAE and form.reg in (0, 1)
                target = WINDOW if big else self.target(16 if form.fpu or op == 0xC7 else 1)
                if bits:
                    target = BORDER + r.randrange(-20, 20)
                if form.map == 0 and op == 0xFF and form.reg in (2, 4):
                    target = BORDER - 4 if r.random() < 0.2 else WINDOW + 8 * r.randrange(8, 40)
                    case.put(target, self.slot + TAKEN if r.random() < 0.95 else 1 << 47, 8)
                if not first and not short_of_fault(target):
                    target = WINDOW + 0x40 + r.randrange(0x100)
                if r.random() < 0.05 and not big:
                    prefix.append(0x65)
                    target -= GS
                if locked:
                    prefix.append(0xF0)
                room = len(case.code) + len(prefix) + 1 + len(opcode_bytes)
                bits_of_rex, modrm, narrow = self.memory(case, fixed, reg, target, tail, room)
                rex |= bits_of_rex
                if narrow:
                    prefix.append(0x67)
                rex |= 0x40                                             # so that `room` is right
                if narrow and modrm[0] & 0xC7 == 5:
                    return None
            else:
                rm = r.randrange(16)
                rex |= (4 if reg & 8 else 0) | (1 if rm & 8 else 0)
                modrm = bytes((0xC0 | (reg & 7) << 3 | rm & 7,))
                if form.map == 0 and op == 0xFF and form.reg in (2, 4):
                    if rm in fixed:
                        return None
                    wild = form.reg == 4 and r.random() < 0.05
                    case.regs[rm] = 1 << 47 if wild else self.slot + TAKEN
        elif long_op and (0x50 <= op <= 0x5F or 0xB0 <= op <= 0xBF or 0x90 <= op <= 0x97) or 0xC8 <= op <= 0xCF:
            rex |= r.getrandbits(1)
        if rex:
            rex |= 0x40
        head = bytes(prefix) + (bytes((rex,)) if rex else b"") + opcode_bytes + modrm
        return head + self.immediate(case, form, sizes, osize, len(head), is_byte)

    @staticmethod
    def signed(value: int, size: int) -> int:
        value &= (1 << 8 * size) - 1
        return value - (1 << 8 * size) if value >> 8 * size - 1 else value

    def immediate(self, case: Case, form: Form, sizes: dict[str, int], osize: int, head: int, is_byte: bool) -> bytes:
        r = self.random
        words = form.words
        for name in ("jb", "jz"):
            if name in words:
                size = sizes[name]
                distance = TAKEN - (len(case.code) + head + size)
                return distance.to_bytes(size, "little", signed=True)
        if "moffs" in words:
            return (self.target(1) & (1 << 8 * sizes["moffs"]) - 1).to_bytes(sizes["moffs"], "little")
        if "enter" in words:
            return struct.pack("<HB", r.randrange(0x40), r.choice((0, 0, 1, 2, 3, 4)))
        if "iw" in words:
            return struct.pack("<H", r.choice((0, 8, 16, r.randrange(64))))
        for name in ("ib", "ub", "iz", "iv"):
            if name in words:
                return (self.value() & (1 << 8 * sizes[name]) - 1).to_bytes(sizes[name], "little")
        return b""

    def wants(self, case: Case, form: Form, fixed: set[int], first: bool, osize: int, rexw: bool) -> bool:
        """Registers that an instruction uses by itself."""
        r = self.random
        op = form.opcode

        def give(reg: int, value: int) -> bool:
            if not first or reg in fixed and case.regs[reg] != value:
                return False
            case.regs[reg] = value
            fixed.add(reg)
            return True

        if form.map == 0:
            if 0x50 <= op <= 0x5F or op in (0x68, 0x6A, 0x8F, 0xC8, 0xE8) or op == 0xFF and form.reg in (2, 6):
                return give(RSP, self.target(1)) and (op != 0xC8 or give(RBP, WINDOW + 0x60 + r.randrange(0x100)))
            if op == 0xC9:
                return give(RBP, self.target(1))
            if op in (0xC2, 0xC3):
                at = BORDER - 4 if r.random() < 0.2 else WINDOW + 8 * r.randrange(8, 40)
                address = self.slot + TAKEN if r.random() < 0.95 else 1 << 47
                case.put(at, address, 8)
                return give(RSP, at)
            if op == 0xFF and form.reg == 4:
                return first
            if 0xA4 <= op <= 0xA7 or 0xAA <= op <= 0xAF:
                near = self.target(1)
                source = self.target(1) if r.random() < 0.6 else near + r.randrange(-9, 10)
                count = r.choice((0, 1, 2, 3, 5, 8, r.randrange(40)))
                return give(RCX, count) and give(RSI, source) and give(RDI, near)
            if op == 0xD7:
                return give(RBX, self.target(1))
            if op in (0xF6, 0xF7) and form.reg in (6, 7) and first and r.random() < 0.6:
                case.regs[RDX] = r.choice((0, 1, r.getrandbits(8), M64))
                fixed.add(RDX)
            if op in (0xD2, 0xD3):
                fixed.add(RCX)
            if 0xE0 <= op <= 0xE3 and r.random() < 0.6:
                give(RCX, r.choice((0, 1, 2, 0x100000001, 0x100000000)))
        if form.map == 1 and op in (0xA5, 0xAD):
            fixed.add(RCX)
        if form.map == 1 and op == 0xF7 and form.fpu:
            return give(RDI, WINDOW + 0x20 + r.randrange(0x1C0))
        return True

    def case(self, slot: int) -> Case | None:
        """One case whose code lies at linear address `slot`."""
        r = self.random
        self.slot = slot
        case = Case(bytearray(), self.registers(), self.flags(), b"", r.randbytes(WINDOW_SIZE))
        if self.fx:
            case.fx = self.state()
            case.upper = self.state()[160:416] if r.random() < 0.8 else b""
            if r.random() < 0.6:
                case.memory = self.state() if r.random() < 0.3 else case.fx[160:416] * 2
        fixed: set[int] = set()
        pool = self.fpu if self.fpu and r.random() < 0.5 else self.integer
        for number in range(r.choice((1, 1, 1, 2, 3))):
            form = r.choice(pool if number == 0 or r.random() < 0.7 else self.branches)
            if form.reads & case.undefined:
                break
            code = self.instruction(case, form, fixed, number == 0)
            if code is None or len(case.code) + len(code) > TAKEN - 12:
                break
            lost, loose, sure = undefined(form, code, case, number == 0, self.osize)
            if case.loose or loose < 0:
                break
            case.code += code
            case.touched |= touched(code) if self.bits == 64 else set(range(8))
            case.names.append(form.name)
            case.undefined = case.undefined & ~sure | lost
            case.loose |= loose
            if "cond" in form.words or "jump" in form.words or form.name in LOADERS:
                break
        if not case.names:
            return None
        return case


def short_of_fault(target: int) -> bool:
    return WINDOW <= target < WINDOW + WINDOW_SIZE


def touched(code: bytes) -> set[int]:
    """Registers an instruction names, and those that some use by themselves."""
    _, op, modrm, rex = parts(code)
    return {
        *range(8), modrm >> 3 & 7 | (rex & 4) << 1, modrm & 7 | (rex & 1) << 3,
        op & 7 | (rex & 1) << 3,
    }


def parts(code: bytes) -> tuple[int, int, int, int]:
    """(map, opcode, modrm if there is one, REX) of an instruction of 64-bit code."""
    at = 0
    while code[at] in PREFIXES:
        at += 1
    rex = 0
    if code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    number = 0
    if code[at] == 0x0F:
        number = 1
        at += 1
        if code[at] in (0x38, 0x3A):
            number = 2 if code[at] == 0x38 else 3
            at += 1
    return number, code[at], code[at + 1] if at + 1 < len(code) else 0, rex


def undefined(form: Form, code: bytes, case: Case, first: bool, osize: int) -> tuple[int, int, int]:
    """Status flags left undefined, registers left undefined (-1: leave it out), and flags surely defined anew."""
    op, reg = form.opcode, form.reg
    prefixes = code[: next(n for n, byte in enumerate(code) if byte not in PREFIXES)]
    low = 8 * (1 if not op & 1 else osize)
    if form.fpu:
        return 0, 0, form.writes
    if form.map == 0:
        if op in (0x27, 0x2F):
            return OF, 0, STATUS
        if op in (0x37, 0x3F):
            return STATUS & ~(AF | CF), 0, STATUS
        if op in (0xD4, 0xD5):
            return OF | AF | CF, 0, STATUS
        if op < 0x40 and op & 7 < 6 and op >> 3 in (1, 4, 6) or 0x80 <= op <= 0x83 and reg in (1, 4, 6) or (
            op in (0x84, 0x85, 0xA8, 0xA9) or op in (0xF6, 0xF7) and reg in (0, 1)
        ):
            return AF, 0, STATUS
        if op in (0x69, 0x6B) or op in (0xF6, 0xF7) and reg in (4, 5):
            return SF | ZF | AF | PF, 0, STATUS
        if op in (0xF6, 0xF7) and reg in (6, 7):
            return STATUS, 0, 0
        if op in (0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3):
            mask = 63 if low == 64 else 31
            if op < 0xD0:
                count = code[-1] & mask
            elif op < 0xD2:
                count = 1
            elif first:
                count = case.regs[RCX] & mask
            else:
                return STATUS & ~PF & ~ZF & ~SF if reg is not None and reg >= 4 else OF | CF, 0, 0
            if reg is not None and reg < 4:
                return (OF if count != 1 and count else 0), 0, 0
            if count == 0:
                return 0, 0, 0
            lost = AF | (OF if count != 1 else 0)
            if count >= low and reg in (4, 5, 6):
                lost |= CF
            return lost, 0, STATUS & ~OF if count != 1 else STATUS
        return 0, 0, form.writes if not 0xA4 <= op <= 0xAF else 0
    if form.map == 1:
        if op == 0xAF:
            return SF | ZF | AF | PF, 0, STATUS
        if op in (0xA3, 0xAB, 0xB3, 0xBB, 0xBA):
            return OF | SF | AF | PF, 0, CF
        if op in (0xBC, 0xBD):
            if 0xF3 in prefixes:
                return OF | SF | AF | PF, 0, CF | ZF
            return STATUS & ~ZF, 0, ZF
        if op in (0xA4, 0xA5, 0xAC, 0xAD):
            mask = 63 if osize == 8 else 31
            if op & 1:
                if not first:
                    return 0, -1, 0
                count = case.regs[RCX] & mask
            else:
                count = code[-1] & mask
            if count > 8 * osize:
                return 0, -1, 0
            if count == 0:
                return 0, 0, 0
            return AF | (OF if count != 1 else 0) | (CF if count == 8 * osize else 0), 0, STATUS
    return 0, 0, form.writes
