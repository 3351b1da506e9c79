"""Random cases for fuzz.py: instructions with a VEX prefix, now and then with bits that they must not have."""

from __future__ import annotations

from typing import NamedTuple

from accel.soft import opcodes, vexcodes
from tests.soft.fuzz_cases import AF, BORDER, HOST, PF, SF, WINDOW, WINDOW_SIZE, Case, Generator
from tests.soft.native import GS

LEADS = ("np", "66", "f3", "f2")
HAS = {"avx2": "avx2", "fma": "fma", "f16c": "f16c", "bmi1": "bmi1", "bmi2": "bmi2", "aes": "aes", "clmul": "pclmulqdq"}


class Row(NamedTuple):
    map: int
    opcode: int
    reg: int | None
    lead: int
    words: frozenset[str]

    @property
    def name(self) -> str:
        return f"vex {LEADS[self.lead]} {('', '0f', '0f38', '0f3a')[self.map]}{self.opcode:02x}"


def rows() -> list[Row]:
    """All that the host has."""
    found = []
    for number, table in enumerate((vexcodes.ONE, vexcodes.TWO, vexcodes.THREE), 1):
        for opcode, reg, words in opcodes.rows(table):
            if any(word in HAS and HAS[word] not in HOST for word in words):
                continue
            found += [Row(number, opcode, reg, LEADS.index(word), frozenset(words)) for word in words if word in LEADS]
    return found


class Vex(Generator):
    def __init__(self, seed: int, fx: bool) -> None:
        super().__init__(seed, True)
        self.rows = rows()

    def one(self, case: Case, fixed: set[int], first: bool) -> tuple[Row, bytes] | None:
        r = self.random
        row = r.choice(self.rows)
        words = row.words
        reg = row.reg if row.reg is not None else r.randrange(16)
        long = r.random() < 0.5
        wide = r.random() < 0.3
        vvvv = r.randrange(16) if words & {"H", "wH", "B", "wB"} or r.random() < 0.02 else 0
        if "l0" in words and r.random() < 0.9:
            long = False
        if "l1" in words and r.random() < 0.9:
            long = True
        if "w1" in words or "w0" in words and r.random() < 0.9:
            wide = "w1" in words                # some processors take VPERMQ without W too
        if r.random() < 0.02:
            reg = r.randrange(16)
        prefix = b"\x65" if r.random() < 0.05 else b""
        if r.random() < 0.01:
            prefix += bytes((r.choice((0x66, 0xF2, 0xF3, 0xF0, 0x48)),))
        tail = int(bool(words & {"ib", "is4", "strings"}))
        of_memory = "mem" in words or "reg" not in words and r.random() < 0.5
        if "zero" in words:
            rex, modrm = 0, b""
        elif of_memory:
            size = 32
            target = self.target(32 if r.random() < 0.8 else 1)
            if r.random() < 0.2:
                target = BORDER - r.randrange(40)
            if not first:
                target = WINDOW + 0x40 + r.randrange(0x100)
            target = min(target, WINDOW + WINDOW_SIZE - size) if WINDOW <= target < WINDOW + WINDOW_SIZE else target
            if prefix[:1] == b"\x65":
                target -= GS
            if "gather" in words:
                made = self.spread(case, fixed, reg, target, prefix)
                if made is None:
                    return None
                rex, modrm = made
            else:
                if words & {"B", "wB"}:
                    fixed |= {vvvv}
                rex, modrm, narrow = self.memory(case, fixed, reg, target, tail, len(case.code) + len(prefix) + 4)
                if narrow:
                    prefix += b"\x67"
                    if modrm[0] & 0xC7 == 5:
                        return None
        else:
            rm = r.randrange(16)
            rex, modrm = 0, bytes((0xC0 | (reg & 7) << 3 | rm & 7,))
            rex = (4 if reg & 8 else 0) | (1 if rm & 8 else 0)
        if "bytes" in words:
            if 7 in fixed:
                return None
            case.regs[7] = (BORDER - r.randrange(20) if first else WINDOW + 0x40) - (GS if prefix[:1] == b"\x65" else 0)
            fixed.add(7)
        if "zero" not in words and reg & 8:
            rex |= 4
        second = (vvvv ^ 15) << 3 | long << 2 | row.lead
        short = row.map == 1 and not rex & 3 and not wide and r.random() < 0.5 and not of_memory
        if short:
            head = bytes((0xC5, (0 if rex & 4 else 0x80) | second, row.opcode))
        else:
            head = bytes((0xC4, (rex & 7 ^ 7) << 5 | row.map, wide << 7 | second, row.opcode))
        return row, prefix + head + modrm + (bytes((r.getrandbits(8),)) if tail else b"")

    def spread(self, case: Case, fixed: set[int], reg: int, target: int, prefix: bytes) -> tuple[int, bytes] | None:
        """modrm and SIB of a gather, whose vector of indices gets small numbers, and whose mask is random."""
        r = self.random
        base, index = r.randrange(16), r.randrange(16)
        if base in fixed or base in case.touched:
            return None
        scale = r.randrange(4)
        case.regs[base] = target & (1 << 64) - 1
        fixed.add(base)
        size = r.choice((4, 8))
        numbers = b"".join(r.randrange(-6, 7).to_bytes(size, "little", signed=True) for _ in range(32 // size))
        if not case.names:
            at = 160 + 16 * index
            case.fx = case.fx[:at] + numbers[:16] + case.fx[at + 16 :]
            case.upper = case.upper.ljust(256, b"\0")
            case.upper = case.upper[: 16 * index] + numbers[16:] + case.upper[16 * index + 16 :]
        rex = (1 if base & 8 else 0) | (2 if index & 8 else 0) | (4 if reg & 8 else 0)
        return rex, bytes((0x44 | (reg & 7) << 3, scale << 6 | (index & 7) << 3 | base & 7, 0))

    def case(self, slot: int) -> Case | None:
        r = self.random
        self.slot = slot
        case = Case(bytearray(), self.registers(), self.flags(), self.state(), r.randbytes(WINDOW_SIZE))
        case.upper = self.state()[160:416] if r.random() < 0.9 else b""
        if r.random() < 0.6:
            case.memory = case.fx[160:416] * 2
        fixed: set[int] = set()
        for number in range(r.choice((1, 1, 2))):
            made = self.one(case, fixed, number == 0)
            if made is None or len(case.code) + len(made[1]) > 24:
                break
            row, code = made
            case.code += code
            case.names.append(row.name)
            case.undefined |= lost(row)
            if row.words & {"mxcsr", "G", "wB", "oE"} or "strings" in row.words:
                break                       # addresses of another one would not be what they were
        return case if case.names else None


def lost(row: Row) -> int:
    """Status flags left undefined."""
    if "bmi" not in row.words or "w=*" not in row.words:
        return 0
    if row.opcode == 0xF7:
        return AF | SF | PF
    return AF | PF
