"""What the translator takes over of SSE and AVX: the instructions on vectors, and BMI's for their prefix.

Those that not each processor has are left to the interpreter, which raises #UD, unless they are declared. So are MMX, SSE4a, gathers,
masked moves, and what moves MXCSR.
"""

from accel.soft.avx cimport bytes_of as vex_bytes
from accel.soft.avx cimport feature as vex_feature
from accel.soft.insn cimport *
from accel.soft.native cimport *
from accel.soft.sseforms cimport bytes_of as legacy_bytes
from accel.soft.sseforms cimport feature_of
from accel.soft.stub cimport P66, prefix_of
from accel.soft.vex cimport *


cdef void packed(Form *f, u32 size) noexcept nogil:
    """From an XMM register or memory; 16 bytes are aligned."""
    f.kind, f.rm_size = N_SSE, size
    f.use = XMM_REG | XMM_RM | RM_READ | (ALIGNED if size == 16 else 0)


cdef void stored(Form *f, u32 size, bint aligned) noexcept nogil:
    f.kind, f.rm_size = N_SSE, size
    f.use = XMM_REG | XMM_RM | RM_WRITE | (ALIGNED if aligned else 0)


cdef inline u32 lead_of(const Insn *i) noexcept nogil:
    """The mandatory prefix, 0 for none."""
    if i.prefix & P_F2:
        return 0xF2
    return 0xF3 if i.prefix & P_F3 else (0x66 if i.prefix & P_66 else 0)


cdef void sse2(const Insn *i, Form *f) noexcept nogil:
    """SSE to SSE3, all in one map."""
    cdef u32 op = i.op, lead = lead_of(i), size
    size = 4 if lead == 0xF3 else (8 if lead == 0xF2 else 16)       # of what comes in all four kinds
    if op == 0x10:
        packed(f, size)
        f.use &= ~<u32>ALIGNED
    elif op == 0x11:
        stored(f, size, False)
    elif op == 0x12 or op == 0x16:
        if lead == 0xF3:
            packed(f, 16)
        elif lead == 0xF2:
            if op == 0x12:
                packed(f, 8)
        elif i.mem or lead == 0:                # movlpd and movhpd have no form with two registers
            packed(f, 8)
    elif op == 0x13 or op == 0x17:
        stored(f, 8, False)
    elif op == 0x14 or op == 0x15 or op == 0x28 or 0x54 <= op <= 0x57 or op == 0xC6:
        packed(f, 16)
    elif op == 0x29:
        stored(f, 16, True)
    elif op == 0x2B:
        if size == 16:
            stored(f, 16, True)
    elif op == 0x2A:
        if size < 16:
            f.kind, f.use, f.rm_size, f.size = N_SSE, XMM_REG | RM_READ, 8 if i.prefix & P_REXW else 4, i.osize
    elif op == 0x2C or op == 0x2D:
        if size < 16:
            f.kind, f.use, f.rm_size, f.size = N_SSE, REG_WRITE | XMM_RM | RM_READ, size, i.osize
    elif op == 0x2E or op == 0x2F:
        packed(f, 8 if lead else 4)
        f.use |= TOUCHES
    elif op == 0x50:
        f.kind, f.use, f.size = N_SSE, REG_WRITE | XMM_RM | RM_READ, 4
    elif op == 0x51 or op == 0x52 or op == 0x53 or op == 0x58 or op == 0x59 or 0x5C <= op <= 0x5F or op == 0xC2:
        packed(f, size)
    elif op == 0x5A:
        packed(f, 8 if lead == 0 or lead == 0xF2 else (4 if lead == 0xF3 else 16))
    elif op == 0x5B:
        packed(f, 16)
    elif op == 0x6E:
        if lead == 0x66:
            f.kind, f.use, f.rm_size, f.size = N_SSE, XMM_REG | RM_READ, 8 if i.prefix & P_REXW else 4, i.osize
    elif op == 0x6F:
        if lead:
            packed(f, 16)
            if lead == 0xF3:
                f.use &= ~<u32>ALIGNED
    elif op == 0x7E:
        if lead == 0xF3:
            packed(f, 8)
        elif lead == 0x66:
            f.kind, f.use, f.rm_size, f.size = N_SSE, XMM_REG | RM_WRITE, 8 if i.prefix & P_REXW else 4, i.osize
    elif op == 0x7F:
        if lead:
            stored(f, 16, lead == 0x66)
    elif op == 0x70:
        if lead:
            packed(f, 16)
    elif op == 0x7C or op == 0x7D or op == 0xD0:
        packed(f, 16)
    elif op == 0xF0:
        packed(f, 16)
        f.use &= ~<u32>ALIGNED
    elif lead == 0x66:
        if 0x60 <= op <= 0x6D or 0x74 <= op <= 0x76 or 0xD1 <= op <= 0xD5 or 0xD8 <= op <= 0xE5:
            packed(f, 16)
        elif 0xE8 <= op <= 0xEF or 0xF1 <= op <= 0xF6 or 0xF8 <= op <= 0xFE or op == 0xE6:
            packed(f, 16)
        elif 0x71 <= op <= 0x73:
            f.kind, f.use = N_SSE, XMM_RM | RM_READ | RM_WRITE
        elif op == 0xC4:
            f.kind, f.use, f.rm_size, f.size = N_SSE, XMM_REG | RM_READ, 2, 4
        elif op == 0xC5 or op == 0xD7:
            f.kind, f.use, f.size = N_SSE, REG_WRITE | XMM_RM | RM_READ, 4
        elif op == 0xD6:
            stored(f, 8, False)
        elif op == 0xE7:
            stored(f, 16, True)
    elif op == 0xE6:
        packed(f, 8 if lead == 0xF3 else 16)


cdef inline bint declared(const Insn *i, const Uop *check) noexcept nogil:
    """What an emitter would check in front of the instruction."""
    return i.features != NULL and i.features[check.a] >> check.b & 1


cdef void sse4(const Insn *i, Form *f) noexcept nogil:
    """SSSE3, SSE4, AES, PCLMULQDQ, SHA on XMM registers, as far as they are declared."""
    cdef u32 op = i.op, lead = lead_of(i)
    cdef Uop check
    feature_of(i, &check)
    if not declared(i, &check):
        return
    if i.map == MAP_0F38:
        if 0xC8 <= op <= 0xCD:
            if lead == 0:
                packed(f, 16)
        elif lead == 0x66:
            packed(f, legacy_bytes(i, P66))
            if op == 0x17:
                f.use |= TOUCHES
    elif op == 0xCC:
        if lead == 0:
            packed(f, 16)
    elif lead != 0x66:
        return
    elif 0x14 <= op <= 0x17:
        f.kind, f.use, f.size = N_SSE, XMM_REG | RM_WRITE, 4
        f.rm_size = 1 if op == 0x14 else (2 if op == 0x15 else (i.osize if op == 0x16 else 4))
        f.rm_size = 4 if f.rm_size == 2 and op == 0x16 else f.rm_size
    elif op == 0x20 or op == 0x22:
        f.kind, f.use, f.size = N_SSE, XMM_REG | RM_READ, 4
        f.rm_size = 1 if op == 0x20 else (8 if i.prefix & P_REXW else 4)
    else:
        packed(f, legacy_bytes(i, P66))
        if 0x60 <= op <= 0x63:                  # they use EAX, EDX, ECX or XMM0 too, which are the host's
            f.use = (f.use | TOUCHES) & ~<u32>ALIGNED


cdef void vex(const Insn *i, Form *f) noexcept nogil:
    """AVX, AVX2, FMA, F16C, BMI, as far as they are declared."""
    cdef const VexOp *op = vex_op(i.map, prefix_of(i), i.op, i.mem)
    cdef bint wide = i.wide and op.length != L_IGNORED
    cdef Uop check
    vex_feature(op, wide, &check)
    if not i.mode & MODE_64 or not declared(i, &check):
        return
    f.wide = wide
    if op.use & V_BMI:
        f.kind, f.size, f.rm_size, f.use = N_BMI, i.osize, i.osize, RM_READ | (TOUCHES if op.writes else 0)
        f.use |= (SECOND_WRITE if op.use & B_WRITE else 0) | (SECOND_READ if op.use & B_READ else 0)
        f.use |= REG_WRITE if op.use & G_WRITE else 0
    elif op.use & V_ZERO:
        f.kind = N_VZERO
    elif not op.use & V_OWN:
        f.kind, f.rm_size, f.size = N_VEX, vex_bytes(i, op, wide), 4
        f.use = (RM_READ if op.use & (W_READ | E_READ) else 0) | (RM_WRITE if op.use & (W_WRITE | E_WRITE) else 0)
        f.use |= (0 if op.use & (E_READ | E_WRITE) else XMM_RM) | (REG_WRITE if op.use & G_WRITE else 0)
        f.use |= (ALIGNED if op.use & V_ALIGNED else 0) | (TOUCHES if op.use & V_FLAGS else 0)


cdef void vector(const Insn *i, Form *f) noexcept nogil:
    if i.klass == K_VEX:
        vex(i, f)
    elif i.map == MAP_0F:
        sse2(i, f)
    else:
        sse4(i, f)
