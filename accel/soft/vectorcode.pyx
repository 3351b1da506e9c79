"""Translated instructions on vectors, and those of BMI. Part of translate.pyx.

XMM registers are the host's from the first such instruction until the code is left, with VEX their upper halves too.
"""

from accel.soft.assemble cimport *
from accel.soft.insn cimport *
from accel.soft.native cimport *


cdef void hold_vectors(Work *t, u32 level) noexcept nogil:
    """The XMM registers (3: YMM) are the host's from here on; out, when they are off or an exception not masked."""
    if t.vectors >= level:
        return
    disturb(t)
    put(t, 0x80BC24, 3)                         # cmp byte [rsp + …], …
    put32(t, where.xmm)
    put(t, (0x03740B if level == 3 else 0x00750B), 3)       # je, jne over
    put(t, 0xE8, 1)
    put32(t, <i64>(t.g.native_run + (where.halves if level == 3 else where.vectors)) - <i64>(t.at + t.shift + 4))
    put(t, 0x0F85, 2)
    leads_out(t)
    t.vectors = level


cdef u32 operand_at(Work *t, const Insn *i, const Form *f) noexcept nogil:
    """modrm.rm on the host: R10 for memory, which is as it must be."""
    if i.mem:
        reach(t, i, f.rm_size, f.use & RM_WRITE)
        if f.use & ALIGNED:
            put(t, 0x41F6C2, 3)                 # test r10b, …
            put(t, f.rm_size - 1, 1)
            put(t, 0x0F85, 2)
            leads_out(t)
        return H_A
    return i.rm if f.use & XMM_RM else read_reg(t, i.rm, H_A)


cdef void ending(Work *t, const Insn *i, const Form *f, u32 reg, u32 rm) noexcept nogil:
    """Behind the opcode: modrm and immediate; then what goes back into Cpu."""
    cdef u32 n
    if i.mem:
        modrm_mem(t, reg, rm, 0)
    else:
        put(t, 0xC0 | (reg & 7) << 3 | (rm & 7), 1)
    for n in range(f.imm_len):
        put(t, i.bytes[i.len - i.imm_len + n], 1)
    if not i.mem and not f.use & XMM_RM and f.use & RM_WRITE and rm == H_A:
        to_cpu(t, rm, 8 * i.rm)
    flags_of(t, f)


cdef void on_vector(Work *t, const Insn *i, const Form *f) noexcept nogil:
    cdef u32 reg = i.reg, rm, prefix
    hold_vectors(t, 1)
    rm = operand_at(t, i, f)
    if f.use & REG_WRITE:
        reg = host_of(i.reg)
        if reg == NOWHERE:
            reg = H_B
    if i.prefix & P_F2:
        put(t, 0xF2, 1)
    elif i.prefix & P_F3:
        put(t, 0xF3, 1)
    elif i.prefix & P_66:
        put(t, 0x66, 1)
    prefix = rex(i.prefix & P_REXW != 0, reg, 0, rm)
    if prefix != 0x40:
        put(t, prefix, 1)
    put(t, 0x0F, 1)
    if i.map != MAP_0F:
        put(t, 0x38 if i.map == MAP_0F38 else 0x3A, 1)
    put(t, i.op, 1)
    ending(t, i, f, reg, rm)
    if f.use & REG_WRITE and reg == H_B:
        to_cpu(t, reg, 8 * i.reg)


cdef void vex_prefix(Work *t, const Insn *i, const Form *f, u32 reg, u32 second, u32 rm) noexcept nogil:
    """C4 and the opcode."""
    cdef u32 lead = 3 if i.prefix & P_F2 else (2 if i.prefix & P_F3 else i.prefix & P_66)
    put(t, 0xC4, 1)
    put(t, (reg >> 3 ^ 1) << 7 | 0x40 | (rm >> 3 ^ 1) << 5 | i.map, 1)
    put(t, (0x80 if i.prefix & P_REXW else 0) | (second ^ 15) << 3 | f.wide << 2 | lead, 1)
    put(t, i.op, 1)


cdef void on_vex(Work *t, const Insn *i, const Form *f) noexcept nogil:
    cdef u32 reg = i.reg, rm
    hold_vectors(t, 3)
    if f.kind == N_VZERO:
        put(t, 0xC5FC77 if f.wide else 0xC5F877, 3)
        return
    rm = operand_at(t, i, f)
    if f.use & REG_WRITE:
        reg = host_of(i.reg)
        if reg == NOWHERE:
            reg = H_B
    vex_prefix(t, i, f, reg, i.vvvv, rm)
    ending(t, i, f, reg, rm)
    if f.use & REG_WRITE and reg == H_B:
        to_cpu(t, reg, 8 * i.reg)


cdef void on_bmi(Work *t, const Insn *i, const Form *f) noexcept nogil:
    """What is written is so last, thus R10 and R11 may be sources and results of the same instruction."""
    cdef u32 reg = i.reg, second = i.vvvv, rm = operand_at(t, i, f)
    if f.use & REG_WRITE:
        reg = host_of(i.reg)
        if reg == NOWHERE:
            reg = H_A
    if f.use & SECOND_READ:
        second = read_reg(t, i.vvvv, H_B)
    elif f.use & SECOND_WRITE:
        second = host_of(i.vvvv)
        if second == NOWHERE:
            second = reg if f.use & REG_WRITE and i.reg == i.vvvv else H_B
    vex_prefix(t, i, f, reg, second, rm)
    ending(t, i, f, reg, rm)
    if f.use & SECOND_WRITE and second == H_B:
        to_cpu(t, second, 8 * i.vvvv)
    if f.use & REG_WRITE and reg == H_A:
        to_cpu(t, reg, 8 * i.reg)
