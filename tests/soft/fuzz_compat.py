"""Random cases in 32- and 16-bit code under long mode, with segments of an LDT (native.py lists them)."""

from __future__ import annotations

import struct

from tests.soft.fuzz_cases import (
    BORDER,
    M64,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    TAKEN,
    Case,
    Form,
    Generator,
    forms,
)
from tests.soft.native import SEGMENTS, WINDOW

ES, CS, SS, DS = range(4)
OVERRIDES = (0x26, 0x2E, 0x36, 0x3E)
DATA = (0x2B, 0x17, 0x1F, 0x27, 0x2F)
FLAT = 0x2B
# mod/rm of 16-bit addresses: the registers added, and whether the stack segment is the default
PAIRS = ((RBX, RSI), (RBX, RDI), (RBP, RSI), (RBP, RDI), (RSI,), (RDI,), (RBP,), (RBX,))


class Compat(Generator):
    def __init__(self, seed: int, fx: bool) -> None:
        super().__init__(seed, fx)
        every = forms(False)
        self.integer = [form for form in every if not form.fpu]
        self.fpu = [form for form in every if form.fpu] if fx else []

    def case(self, slot: int) -> Case | None:
        r = self.random
        self.bits = r.choice((32, 32, 16))
        code = 0x07 if self.bits == 16 else r.choice((0x23, 0x23, 0x0F))
        if r.random() < 0.4:
            self.segments = [FLAT, code, FLAT, FLAT]
        else:
            self.segments = [r.choice(DATA), code, r.choice((FLAT, 0x17, 0x1F, 0x1F, 0x27)), r.choice(DATA)]
        self.wide_stack = SEGMENTS[self.segments[SS]].big
        case = super().case(slot)
        if case is not None:
            case.segments = list(self.segments)
            case.entry = slot - SEGMENTS[code].base
        return case

    def registers(self) -> list[int]:
        return [self.value() & 0xFFFFFFFF if n < 8 else 0 for n in range(16)]

    def offset(self, segment: int, align: int = 1, linear: int | None = None) -> int:
        """Offset of a target in the segment register."""
        at = self.target(align) if linear is None else linear
        if at >= 1 << 32:
            at = WINDOW + 0x100
        return at - SEGMENTS[self.segments[segment]].base & 0xFFFFFFFF

    def sized(self, reg: int, value: int, wide: bool) -> int:
        """A value for an offset: with 16 bits the upper half is anything."""
        return value if wide else value & 0xFFFF | self.random.getrandbits(16) << 16

    def instruction(self, case: Case, form: Form, fixed: set[int], first: bool) -> bytes | None:
        r = self.random
        words, op = form.words, form.opcode
        prefix = bytearray()
        if form.prefix in ("66", "f3", "f2"):
            prefix.append(int(form.prefix, 16))
        if form.prefix is None and r.random() < 0.3:
            prefix.append(0x66)
        short_address = (self.bits == 16) != (r.random() < 0.25)
        if short_address != (self.bits == 16):
            prefix.append(0x67)
        self.asize = 2 if short_address else 4
        self.osize = osize = 2 if (self.bits == 16) != (0x66 in prefix) else 4
        string = form.map == 0 and (0xA4 <= op <= 0xA7 or 0xAA <= op <= 0xAF)
        if string and r.random() < 0.6:
            prefix.append(r.choice((0xF2, 0xF3)))
        elif form.map == 1 and op in (0xBC, 0xBD) and r.random() < 0.5:
            prefix.append(0xF3)
        if osize == 2 and form.map == 1 and 0xC8 <= op <= 0xCF:
            return None
        leaves = words & {"jump", "cond"}
        if leaves and osize == 2 and self.bits == 32:
            return None                                                 # EIP cut to 16 bits: nowhere
        segment = DS
        if r.random() < 0.15 and not leaves:
            segment = r.randrange(4)
            prefix.append(OVERRIDES[segment])
        override = segment if prefix and prefix[-1] in OVERRIDES else None
        if not self.wants_here(case, form, fixed, first, segment):
            return None
        sizes = {"ib": 1, "ub": 1, "iw": 2, "iz": osize, "iv": osize, "jb": 1, "jz": osize, "moffs": self.asize,
                 "enter": 3}
        modrm = b""
        if "m" in words:
            reg = form.reg if form.reg is not None else r.randrange(8)
            if "mem" in words or "reg" not in words and (r.random() < 0.5 or (form.map, op) == (1, 0x0D)):
                bits = form.map == 1 and op in (0xA3, 0xAB, 0xB3, 0xBB)
                if bits and (not first or reg in fixed):
                    return None
                if bits:
                    case.regs[reg] = r.randrange(-1200, 1200) & 0xFFFFFFFF
                    fixed.add(reg)
                if "lock" in words and r.random() < 0.2:
                    prefix.append(0xF0)
                big = form.map == 1 and op == 0xAE and form.reg in (0, 1)
                linear = WINDOW if big else BORDER + r.randrange(-20, 20) if bits else None
                if form.map == 0 and op == 0xFF and form.reg in (2, 4):
                    linear = BORDER - 2 if r.random() < 0.2 else WINDOW + 8 * r.randrange(8, 40)
                    case.put(linear, self.landing(), osize)
                align = 16 if form.fpu or op == 0xC7 else 1
                found = self.address(case, fixed, reg, first, override, align, linear)
                if found is None:
                    return None
                modrm = found
            else:
                rm = r.randrange(8)
                modrm = bytes((0xC0 | reg << 3 | rm,))
                if form.map == 0 and op == 0xFF and form.reg in (2, 4):
                    if rm in fixed:
                        return None
                    case.regs[rm] = self.sized(rm, self.landing(), osize == 4)
        head = bytes(prefix) + (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")[form.map] + bytes((op,)) + modrm
        if "moffs" in words:
            at = self.offset(segment)
            if self.asize == 2 and at > 0xFFFF:
                return None
            return head + at.to_bytes(self.asize, "little")
        return head + self.immediate(case, form, sizes, osize, len(head), False)

    def landing(self) -> int:
        """Offset of the taken side in the code segment."""
        return self.slot + TAKEN - SEGMENTS[self.segments[CS]].base

    def address(
        self, case: Case, fixed: set[int], reg: int, first: bool, override: int | None, align: int, linear: int | None
    ) -> bytes | None:
        """The modrm and all behind it."""
        r = self.random
        if not first and linear is None:
            linear = WINDOW + 0x40 + r.randrange(0x100)
        if self.asize == 2:
            pair = PAIRS[rm := r.randrange(8)]
            if not first or rm == 6 and r.random() < 0.3:
                at = self.offset(DS if override is None else override, align, linear)
                return bytes((reg << 3 | 6,)) + struct.pack("<H", at) if at < 0x10000 else None
            segment = override if override is not None else SS if RBP in pair else DS
            at = self.offset(segment, align, linear)
            if at > 0xFFFF or fixed & set(pair):
                return None
            mode = r.choice((0, 1, 2)) if rm != 6 else r.choice((1, 2))
            disp = 0 if mode == 0 else r.randrange(-128, 128) if mode == 1 else r.randrange(-32768, 32768)
            base = pair[0]
            other = case.regs[pair[1]] if len(pair) == 2 else 0
            case.regs[base] = (at - disp - other) & 0xFFFF | r.getrandbits(16) << 16
            fixed |= set(pair)
            tail = b"" if mode == 0 else struct.pack("<b", disp) if mode == 1 else struct.pack("<h", disp)
            return bytes((mode << 6 | reg << 3 | rm,)) + tail
        if not first or r.random() < 0.1:
            at = self.offset(DS if override is None else override, align, linear)
            return bytes((reg << 3 | 5,)) + struct.pack("<I", at)
        base, index, scale = r.randrange(8), r.randrange(8), r.randrange(4)
        indexed = r.random() < 0.4 and index not in (RSP, base)
        if base in fixed:
            return None
        segment = override if override is not None else SS if base in (RSP, RBP) else DS
        at = self.offset(segment, align, linear)
        mode = r.choice((0, 1, 1, 2)) if base != RBP else r.choice((1, 2))
        disp = 0 if mode == 0 else r.randrange(-128, 128) if mode == 1 else r.randrange(-(1 << 31), 1 << 31)
        case.regs[base] = at - disp - ((case.regs[index] << scale) if indexed else 0) & 0xFFFFFFFF
        fixed |= {base, index} if indexed else {base}
        tail = b"" if mode == 0 else struct.pack("<b", disp) if mode == 1 else struct.pack("<i", disp)
        if indexed:
            return bytes((mode << 6 | reg << 3 | 4, scale << 6 | index << 3 | base)) + tail
        if base == RSP:
            return bytes((mode << 6 | reg << 3 | 4, 0x24)) + tail
        return bytes((mode << 6 | reg << 3 | base,)) + tail

    def wants_here(self, case: Case, form: Form, fixed: set[int], first: bool, segment: int) -> bool:
        """Registers that an instruction uses by itself."""
        r = self.random
        op = form.opcode

        def give(reg: int, value: int) -> bool:
            if not first:
                return False
            case.regs[reg] = value & 0xFFFFFFFF
            fixed.add(reg)
            return True

        def stack() -> bool:
            return give(RSP, self.sized(RSP, self.offset(SS), self.wide_stack))

        wide = self.asize == 4
        if form.map == 1 and op in (0xA5, 0xAD) or form.map == 0 and op in (0xD2, 0xD3):
            fixed.add(RCX)
        if form.map == 1 and op == 0xF7 and form.fpu:
            at = self.offset(segment, 1, WINDOW + 0x20 + r.randrange(0x1C0))
            return (wide or at < 0x10000) and give(RDI, self.sized(RDI, at, wide))
        if form.map:
            return True
        if 0x50 <= op <= 0x61 or op in (0x68, 0x6A, 0x8F, 0xE8) or op == 0xFF and form.reg in (2, 6):
            return stack()
        if op == 0xC8:
            at = self.offset(SS, 1, WINDOW + 0x60 + r.randrange(0x100))
            return stack() and give(RBP, self.sized(RBP, at, self.wide_stack))
        if op == 0xC9:
            return give(RBP, self.sized(RBP, self.offset(SS), self.wide_stack))
        if op in (0xC2, 0xC3):
            at = BORDER - 2 if r.random() < 0.2 else WINDOW + 8 * r.randrange(8, 40)
            case.put(at, self.landing(), self.osize)
            return give(RSP, self.sized(RSP, self.offset(SS, 1, at), self.wide_stack))
        if op == 0xFF and form.reg == 4:
            return first
        if 0xA4 <= op <= 0xA7 or 0xAA <= op <= 0xAF:
            to, source = self.offset(ES), self.offset(segment)
            if not wide and (to > 0xFFFF or source > 0xFFFF):
                return False
            count = self.sized(RCX, r.choice((0, 1, 2, 3, 5, 8, r.randrange(40))), wide)
            return give(RCX, count) and give(RSI, self.sized(RSI, source, wide)) and give(
                RDI, self.sized(RDI, to, wide))
        if op == 0xD7:
            at = self.offset(segment)
            return first and (wide or at < 0x10000) and give(RBX, self.sized(RBX, at - (case.regs[RAX] & 0xFF), wide))
        if op in (0xF6, 0xF7) and form.reg in (6, 7) and first and r.random() < 0.6:
            give(RDX, r.choice((0, 1, r.getrandbits(8), M64)))
        if 0xE0 <= op <= 0xE3 and r.random() < 0.6:
            give(RCX, r.choice((0, 1, 2, 0x10001, 0x10000)))
        return True

