"""The emitter of integer instructions, and the few that belong to none of its parts: decimals, single flags, hints."""

from accel.soft.alu cimport emit_alu
from accel.soft.branch cimport emit_branch
from accel.soft.guest cimport *
from accel.soft.insn cimport *
from accel.soft.move cimport emit_move
from accel.soft.operand cimport *
from accel.soft.shift cimport emit_shift, op_nothing
from accel.soft.string cimport emit_string


# --- single flags ----------------------------------------------------------------------------------------------------------

cdef inline void set_carry(Cpu *c, u64 cf) noexcept nogil:
    cdef u64 of = (c.fc ^ (c.fc << 1)) >> 63
    c.fc = (c.fc & 8) | (cf << 63) | ((cf ^ of) << 62)


cdef void op_clc(Cpu *c, Uop *u) noexcept nogil:
    set_carry(c, 0)
    next(c, u)


cdef void op_stc(Cpu *c, Uop *u) noexcept nogil:
    set_carry(c, 1)
    next(c, u)


cdef void op_cmc(Cpu *c, Uop *u) noexcept nogil:
    set_carry(c, c.fc >> 63 ^ 1)
    next(c, u)


cdef void op_cld(Cpu *c, Uop *u) noexcept nogil:
    c.eflags &= ~<u32>F_DF
    next(c, u)


cdef void op_std(Cpu *c, Uop *u) noexcept nogil:
    c.eflags |= F_DF
    next(c, u)


cdef void op_salc(Cpu *c, Uop *u) noexcept nogil:
    r8(c, RAX)[0] = 0xFF if carry(c) else 0
    next(c, u)


# --- decimals. Flags left undefined come from AL ------------------------------------------------------------------------------

cdef inline void adjusted(Cpu *c, u32 cf, u32 af) noexcept nogil:
    flags_of(c, <i8>r8(c, RAX)[0], cf, 0)
    c.fc |= af << 3


cdef void op_daa(Cpu *c, Uop *u) noexcept nogil:
    cdef u32 al = r8(c, RAX)[0], cf = carry(c), af = c.fc >> 3 & 1
    cdef bint high = al > 0x99 or cf, low = (al & 15) > 9 or af
    r8(c, RAX)[0] = <u8>(al + (6 if low else 0) + (0x60 if high else 0))
    adjusted(c, high, low)
    next(c, u)


cdef void op_das(Cpu *c, Uop *u) noexcept nogil:
    cdef u32 al = r8(c, RAX)[0], cf = carry(c), af = c.fc >> 3 & 1
    cdef bint high = al > 0x99 or cf, low = (al & 15) > 9 or af
    r8(c, RAX)[0] = <u8>(al - (6 if low else 0) - (0x60 if high else 0))
    adjusted(c, high or (low and al < 6), low)
    next(c, u)


cdef void op_aaa(Cpu *c, Uop *u) noexcept nogil:
    cdef bint over = (c.regs[0] & 15) > 9 or c.fc & 8
    r16(c, RAX)[0] = <u16>(c.regs[0] + (0x106 if over else 0)) & 0xFF0F
    adjusted(c, over, over)
    next(c, u)


cdef void op_aas(Cpu *c, Uop *u) noexcept nogil:
    cdef bint over = (c.regs[0] & 15) > 9 or c.fc & 8
    r16(c, RAX)[0] = <u16>(c.regs[0] - (0x106 if over else 0)) & 0xFF0F
    adjusted(c, over, over)
    next(c, u)


cdef void op_aam(Cpu *c, Uop *u) noexcept nogil:
    cdef u32 al = r8(c, RAX)[0], base = <u8>u.imm
    if base == 0:
        raise_at(c, u, X_DE)
        return
    r16(c, RAX)[0] = <u16>(al // base << 8 | al % base)
    adjusted(c, 0, 0)
    next(c, u)


cdef void op_aad(Cpu *c, Uop *u) noexcept nogil:
    r16(c, RAX)[0] = <u8>(r8(c, RAX)[0] + r8(c, 1)[0] * <u32>(<u8>u.imm))
    adjusted(c, 0, 0)
    next(c, u)


# --- hints -----------------------------------------------------------------------------------------------------------------

cdef void op_fence(Cpu *c, Uop *u) noexcept nogil:
    vr_fence()
    next(c, u)


cdef void op_pause(Cpu *c, Uop *u) noexcept nogil:
    """Waits for another processor: gives up the rest of the slice, at once (a lock it has just released stays free).

    One with a thread of its own gives way now and then, as the other may be waiting for the host's.
    """
    if (<Guest *>c.guest).count == 1:
        if (<Guest *>c.guest).world.threads:
            c.pauses += 1
            if c.pauses & 63 == 0:
                vr_yield()
        next(c, u)
        return
    if c.budget > 0:
        c.slice -= <u64>c.budget
        c.budget = 0
    leave(c, u, STOP_EVENT)


cdef void op_clflush(Cpu *c, Uop *u) noexcept nogil:
    """u.a: the bit of 7.EBX that clwb and clflushopt need."""
    if u.a and not c.features[4] >> u.a & 1:
        raise_at(c, u, X_UD)
        return
    if c.memory.probe(c, address(c, u), 1, False):
        fault(c, u)
        return
    next(c, u)


# --- choosing --------------------------------------------------------------------------------------------------------------

cdef Handler single[256]    # of the first map
single[0x27], single[0x2F], single[0x37], single[0x3F] = op_daa, op_das, op_aaa, op_aas
single[0xD4], single[0xD5], single[0xD6], single[0x90] = op_aam, op_aad, op_salc, op_nothing
single[0xF5], single[0xF8], single[0xF9] = op_cmc, op_clc, op_stc
single[0xFC], single[0xFD] = op_cld, op_std


cdef int emit_rest(Insn *i, Uop *u) noexcept nogil:
    cdef Uop *start = u
    if i.map == MAP_ONE:
        u.imm = i.imm
        u.fn = op_pause if i.op == 0x90 and i.prefix & P_F3 else single[i.op]
        return u.fn != NULL
    if i.map != MAP_0F:
        return 0
    u.fn = op_nothing
    if i.op == 0xAE:
        if i.mem:
            u = mem_operand(i, u, 1, False)
            u.fn = op_clflush
            u.a = 0 if not i.prefix & P_66 else (24 if (i.reg & 7) == 6 else 23)
        elif i.reg & 7 == 6:
            u.fn = op_fence
        return <int>(u - start) + 1
    return i.op == 0x0D or 0x18 <= i.op <= 0x1F


cdef int emit_integer(Insn *i, Uop *u) noexcept nogil:
    """0: not an instruction."""
    cdef int n = emit_alu(i, u)
    if n == 0:
        n = emit_move(i, u)
    if n == 0:
        n = emit_branch(i, u)
    if n == 0:
        n = emit_shift(i, u)
    if n == 0:
        n = emit_string(i, u)
    if n == 0:
        n = emit_rest(i, u)
    return n
