"""The table of VEX instructions, made of the words of vexcodes.py at import.

Ref: Intel SDM volume 2, 2.3 and appendix A.
"""

from libc.string cimport memset

from accel.soft import opcodes, vexcodes

cdef VexOp table[3][4][256][2]      # map - 1; np, 66, f3, f2; opcode; with memory

USES = {
    "V": V_WRITE, "rV": V_READ | V_WRITE, "H": H_READ, "wH": H_WRITE, "W": W_READ, "oW": W_WRITE | V_READ,
    "E": E_READ, "oE": E_WRITE | V_READ, "G": G_WRITE, "B": B_READ, "wB": B_WRITE, "is4": IS4,
    "flags": V_FLAGS | V_READ, "mov": V_MOVE, "fp": V_ROUNDS, "al": V_ALIGNED, "bmi": V_BMI, "masked": V_MASKED,
    "gather": V_GATHER, "zero": V_ZERO, "mxcsr": V_MXCSR, "bytes": V_BYTES, "strings": V_STRINGS,
}
SIZES = {
    "x": S_X, "h": S_HALF, "q": S_QUARTER, "e": S_EIGHTH, "my": S_Y, "dup": S_DUP,
    "m1": 1, "m2": 2, "m4": 4, "m8": 8, "m16": 16,
}
LENGTHS = {"l0": L_0, "l1": L_1, "lig": L_IGNORED}
WIDTHS = {"w0": 1, "w1": 2}
FEATURES = {
    "avx2": F_AVX2, "a2": F_A2, "fma": F_FMA, "f16c": F_F16C, "bmi1": F_BMI1, "bmi2": F_BMI2, "aes": F_AES,
    "clmul": F_CLMUL,
}
LEADS = {"np": 0, "66": 1, "f3": 2, "f2": 3}


cdef VexOp compiled(list words) except *:
    """The words of one row as a VexOp; ValueError: a word nobody knows."""
    cdef VexOp op
    memset(&op, 0, sizeof(VexOp))
    for word in words:
        if word in USES:
            op.use |= <u32>USES[word]
        elif word in SIZES:
            op.size = SIZES[word]
        elif word in LENGTHS:
            op.length = LENGTHS[word]
        elif word in WIDTHS:
            op.width = WIDTHS[word]
        elif word in FEATURES:
            op.feature = FEATURES[word]
        elif word == "ib":
            op.imm = 1
        elif word[:2] == "w=":
            op.writes = opcodes.flag_mask(word[2:])
        elif word not in LEADS and word not in ("mem", "reg"):
            raise ValueError(f"unknown word {word!r} of {' '.join(words)!r}")
    op.imm |= op.use & IS4 != 0
    return op


cdef int fill(u32 number, str text) except -1:
    cdef VexOp op
    cdef VexOp *entry
    cdef u32 lead, mem
    cdef u8 regs
    for places, words in opcodes.lines(text):
        op = compiled(words)
        bmi = op.use & V_BMI and op.feature == F_AVX
        for opcode, reg in places:
            regs = <u8>(0xFF if reg is None else 1 << <int>reg)
            if bmi:
                op.feature = F_BMI2 if opcode == 0xF5 else F_BMI1
            for word in words:
                if word not in LEADS:
                    continue
                lead = LEADS[word]
                for mem in range(2):
                    if ("reg" if mem else "mem") in words:
                        continue
                    entry = &table[number][lead][<int>opcode][mem]
                    op.regs = entry.regs | regs
                    entry[0] = op
    return 0


memset(table, 0, sizeof(table))
fill(0, vexcodes.ONE)
fill(1, vexcodes.TWO)
fill(2, vexcodes.THREE)


cdef const VexOp *vex_op(u32 map, u32 lead, u32 opcode, bint mem) noexcept nogil:
    """The instruction of map 1 to 3 with one of np, 66, f3, f2."""
    return &table[map - 1][lead][opcode][mem]
