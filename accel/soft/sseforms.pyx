"""What SSE instructions are, apart from what they do: for the emitter and for the translator.

The size of their operand in memory, whether it must be aligned, whether they round, and which feature they come with.
"""

from accel.soft.insn cimport *
from accel.soft.shift cimport op_feature
from accel.soft.stub cimport NP as BARE, P66, PF2, PF3


cdef u32 bytes_of(const Insn *i, u32 prefix) noexcept nogil:
    """Size of the operand in memory."""
    cdef u32 op = i.op
    if i.map == MAP_0F:
        if op == 0x12:
            return 16 if prefix == PF3 else 8
        if op == 0x16:
            return 16 if prefix == PF3 else 8
        if op == 0x13 or op == 0x17 or op == 0xD6 or (op == 0x7E and prefix == PF3):
            return 8
        if op == 0x2E or op == 0x2F:
            return 4 if prefix == BARE else 8
        if op == 0x5A and prefix == BARE or op == 0xE6 and prefix == PF3:
            return 8
        if op == 0x5B or op == 0xE6 or op >= 0x60 and op != 0xC2:
            return 16
        return 4 if prefix == PF3 else (8 if prefix == PF2 else 16)
    if i.map == MAP_0F38:
        if 0x20 <= op <= 0x25 or 0x30 <= op <= 0x35:
            return 4 if op & 7 == 1 or op & 7 == 4 else (2 if op & 7 == 2 else 8)
        return 16
    if op == 0x0A or op == 0x21:
        return 4
    return 8 if op == 0x0B else 16


cdef bint rounds(Insn *i, u32 prefix) noexcept nogil:
    """Does it look at MXCSR?"""
    cdef u32 op = i.op
    if i.map == MAP_0F:
        return op == 0x51 or 0x58 <= op <= 0x5F or op == 0x7C or op == 0x7D or op == 0xC2 or op == 0xD0 or op == 0xE6
    return i.map == MAP_0F3A and (0x08 <= op <= 0x0B or op == 0x40 or op == 0x41)


cdef bint unaligned(Insn *i, u32 prefix) noexcept nogil:
    if i.map == MAP_0F:
        return i.op == 0x10 or i.op == 0x11 or i.op == 0xF0 or (i.op == 0x6F or i.op == 0x7F) and prefix == PF3
    return i.map == MAP_0F3A and 0x60 <= i.op <= 0x63


cdef Uop *feature_of(const Insn *i, Uop *u) noexcept nogil:
    """The check in front: CPUID 1.ECX."""
    cdef u32 bit = 19
    if i.map == MAP_0F38 and 0xC8 <= i.op <= 0xCD or i.map == MAP_0F3A and i.op == 0xCC:
        u.fn, u.a, u.b = op_feature, 4, 29      # SHA: CPUID 7.EBX
        return u + 1
    if i.map == MAP_0F38:
        if i.op < 0x10 or 0x1C <= i.op <= 0x1E:
            bit = 9
        elif i.op == 0x37:
            bit = 20
        elif i.op >= 0xDB:
            bit = 25
    elif i.op == 0x0F:
        bit = 9
    elif 0x60 <= i.op <= 0x63:
        bit = 20
    elif i.op == 0x44:
        bit = 1
    elif i.op == 0xDF:
        bit = 25
    u.fn, u.a, u.b = op_feature, 1, <u8>bit
    return u + 1
