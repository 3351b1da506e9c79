"""Near branches: jcc, jmp, call, ret, loop, jcxz.

Direct branches carry their targets as offsets from RIPB, with a Link behind; indirect ones go through the jump cache.
Outside 64-bit mode the run loop checks the limit of CS when it looks the target up; a branch to another page always
gets there (a target in the same page is inside the limit as far as any software can tell).
"""

from accel.soft.insn cimport *
from accel.soft.operand cimport *
from accel.soft.segment cimport canonical, pop, push


cdef void unlinked(Cpu *c, Uop *u, i64 target, bint fall) noexcept nogil:
    """The branch has no link yet, or the slice is over."""
    cdef Link *link = <Link *>(u + 1)
    c.rip = (c.regs[RIPB] + <u64>target) & rip_mask(c.mode)
    if link.ways[fall] != NULL:
        c.stop = STOP_EVENT
    elif <u64>target < 4096:
        c.link = link
        c.link_fall = fall
        c.stop = STOP_NEXT
    else:
        go(c)


cdef void op_jo(Cpu *c, Uop *u) noexcept nogil:
    if (c.fc ^ (c.fc << 1)) >> 63:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jno(Cpu *c, Uop *u) noexcept nogil:
    if not (c.fc ^ (c.fc << 1)) >> 63:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jb(Cpu *c, Uop *u) noexcept nogil:
    if c.fc >> 63:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jnb(Cpu *c, Uop *u) noexcept nogil:
    if not c.fc >> 63:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jz(Cpu *c, Uop *u) noexcept nogil:
    if c.fz == 0:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jnz(Cpu *c, Uop *u) noexcept nogil:
    if c.fz != 0:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jbe(Cpu *c, Uop *u) noexcept nogil:
    if c.fz == 0 or c.fc >> 63:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jnbe(Cpu *c, Uop *u) noexcept nogil:
    if c.fz != 0 and not c.fc >> 63:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_js(Cpu *c, Uop *u) noexcept nogil:
    if c.fs < 0:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jns(Cpu *c, Uop *u) noexcept nogil:
    if c.fs >= 0:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jp(Cpu *c, Uop *u) noexcept nogil:
    if parity(<u64>c.fs):
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jnp(Cpu *c, Uop *u) noexcept nogil:
    if not parity(<u64>c.fs):
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jl(Cpu *c, Uop *u) noexcept nogil:
    if <i64>(<u64>c.fs ^ c.fc ^ (c.fc << 1)) < 0:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jnl(Cpu *c, Uop *u) noexcept nogil:
    if <i64>(<u64>c.fs ^ c.fc ^ (c.fc << 1)) >= 0:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jle(Cpu *c, Uop *u) noexcept nogil:
    if c.fz == 0 or <i64>(<u64>c.fs ^ c.fc ^ (c.fc << 1)) < 0:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef void op_jnle(Cpu *c, Uop *u) noexcept nogil:
    if c.fz != 0 and <i64>(<u64>c.fs ^ c.fc ^ (c.fc << 1)) >= 0:
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)

cdef Handler conditional[16]
conditional[0], conditional[1], conditional[2], conditional[3] = op_jo, op_jno, op_jb, op_jnb
conditional[4], conditional[5], conditional[6], conditional[7] = op_jz, op_jnz, op_jbe, op_jnbe
conditional[8], conditional[9], conditional[10], conditional[11] = op_js, op_jns, op_jp, op_jnp
conditional[12], conditional[13], conditional[14], conditional[15] = op_jl, op_jnl, op_jle, op_jnle


cdef void op_jmp(Cpu *c, Uop *u) noexcept nogil:
    jump(c, u, u.imm, False)


cdef void op_jmp_far(Cpu *c, Uop *u) noexcept nogil:
    """To another page."""
    c.rip = (c.regs[RIPB] + <u64>u.imm) & rip_mask(c.mode)
    go(c)


# --- targets of 16 bits ------------------------------------------------------------------------------------------------------

cdef inline void narrow_jump(Cpu *c, Uop *u, i64 target, bint fall) noexcept nogil:
    """By the link where RIP is not cut: the same code may lie elsewhere in its 64 KiB each time."""
    cdef u64 rip = c.regs[RIPB] + <u64>target
    if likely(rip <= 0xFFFF):
        jump(c, u, target, fall)
        return
    c.rip = rip & (rip_mask(c.mode) if fall else 0xFFFF)
    go(c)


cdef bint holds(Cpu *c, u32 condition) noexcept nogil:
    cdef u32 flags = status_flags(c)
    cdef u32 found, less = (flags >> 7 ^ flags >> 11) & 1
    condition &= 15
    if condition < 2:
        found = flags & F_OF
    elif condition < 4:
        found = flags & F_CF
    elif condition < 6:
        found = flags & F_ZF
    elif condition < 8:
        found = flags & (F_CF | F_ZF)
    elif condition < 10:
        found = flags & F_SF
    elif condition < 12:
        found = flags & F_PF
    elif condition < 14:
        found = less
    else:
        found = less | (flags & F_ZF)
    return (found != 0) != (condition & 1)


cdef void op_jcc16(Cpu *c, Uop *u) noexcept nogil:
    """u.a: condition, 16 for always."""
    if u.a == 16 or holds(c, u.a):
        narrow_jump(c, u, u.imm, False)
    else:
        narrow_jump(c, u, u.disp, True)


# --- loop, jcxz: u.a is the address size, u.x which one ----------------------------------------------------------------------

cdef u64 count_of(Cpu *c, u32 size) noexcept nogil:
    return c.regs[1] if size == 8 else (<u32>c.regs[1] if size == 4 else <u16>c.regs[1])


cdef bint loops(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 count
    if u.x == 3:
        return count_of(c, u.a) == 0
    if u.a == 8:
        c.regs[1] -= 1
    elif u.a == 4:
        c.regs[1] = <u32>(c.regs[1] - 1)
    else:
        r16(c, RCX)[0] = <u16>(c.regs[1] - 1)
    count = count_of(c, u.a)
    if u.x == 2:
        return count != 0
    return count != 0 and (c.fz == 0) == (u.x == 1)


cdef void op_loop(Cpu *c, Uop *u) noexcept nogil:
    if loops(c, u):
        jump(c, u, u.imm, False)
    else:
        jump(c, u, u.disp, True)


cdef void op_loop16(Cpu *c, Uop *u) noexcept nogil:
    if loops(c, u):
        narrow_jump(c, u, u.imm, False)
    else:
        narrow_jump(c, u, u.disp, True)


# --- calls -----------------------------------------------------------------------------------------------------------------

cdef void op_call64_slow(Cpu *c, Uop *u) noexcept nogil:
    if c.memory.store(c, c.regs[4] - 8, 8, rip_after(c, u)):
        fault(c, u)
        return
    c.regs[4] -= 8
    jump(c, u, u.imm, False)


cdef void op_call64(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea = c.regs[4] - 8
    cdef u8 *p = writable(c, ea, 8)
    if unlikely(p == NULL):
        op_call64_slow(c, u)
        return
    (<u64 *>p)[0] = rip_after(c, u)
    c.regs[4] = ea
    jump(c, u, u.imm, False)


cdef void op_call64_far(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea = c.regs[4] - 8
    cdef u8 *p = writable(c, ea, 8)
    if unlikely(p == NULL):
        op_call64_slow(c, u)
        return
    (<u64 *>p)[0] = rip_after(c, u)
    c.regs[4] = ea
    c.rip = c.regs[RIPB] + <u64>u.imm
    go(c)


cdef void op_call(Cpu *c, Uop *u) noexcept nogil:
    """u.b: operand size 2 or 4."""
    if push(c, u.b, rip_after(c, u) & (0xFFFF if u.b == 2 else rip_mask(c.mode))):
        fault(c, u)
        return
    if u.b == 2:
        narrow_jump(c, u, u.imm, False)
        return
    jump(c, u, u.imm, False)


cdef bint sound(Cpu *c, u64 rip) noexcept nogil:
    """May RIP become this? Else #GP is noted."""
    if c.mode & MODE_64:
        if canonical(rip):
            return True
    elif rip <= c.seg[CS].limit:
        return True
    raised(c, X_GP, 0, True)
    return False


cdef void op_call_r64_slow(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 target = r64(c, u.s)[0]
    if not sound(c, target) or c.memory.store(c, c.regs[4] - 8, 8, rip_after(c, u)):
        fault(c, u)
        return
    c.regs[4] -= 8
    c.rip = target
    go(c)


cdef void op_call_r64(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea = c.regs[4] - 8, target = r64(c, u.s)[0]
    cdef u8 *p = writable(c, ea, 8)
    if unlikely(p == NULL or not canonical(target)):
        op_call_r64_slow(c, u)
        return
    (<u64 *>p)[0] = rip_after(c, u)
    c.regs[4] = ea
    c.rip = target
    go(c)


cdef void op_jmp_r64(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 target = r64(c, u.s)[0]
    if unlikely(not canonical(target)):
        raise_gp(c, u, 0)
        return
    c.rip = target
    go(c)


cdef void op_ret64_slow(Cpu *c, Uop *u) noexcept nogil:
    if c.memory.load(c, c.regs[4], 8, &c.regs[SLOW]) or not sound(c, c.regs[SLOW]):
        fault(c, u)
        return
    c.regs[4] += 8 + <u64>u.imm
    c.rip = c.regs[SLOW]
    go(c)


cdef void op_ret64(Cpu *c, Uop *u) noexcept nogil:
    """u.imm: bytes of arguments to drop."""
    cdef u64 ea = c.regs[4], target
    cdef u8 *p = readable(c, ea, 8)
    if unlikely(p == NULL or not canonical((<u64 *>p)[0])):
        op_ret64_slow(c, u)
        return
    target = (<u64 *>p)[0]
    c.regs[4] = ea + 8 + <u64>u.imm
    c.rip = target
    go(c)


cdef void op_indirect(Cpu *c, Uop *u) noexcept nogil:
    """The target is in c.regs[u.s] (a load in front may have put it into SLOW). u.b: operand size; u.x: 1 calls."""
    cdef u64 target = r64(c, u.s)[0]
    target = <u16>target if u.b == 2 else (<u32>target if u.b == 4 else target)
    if not sound(c, target):
        fault(c, u)
        return
    if u.x and push(c, u.b, rip_after(c, u) & (0xFFFF if u.b == 2 else rip_mask(c.mode))):
        fault(c, u)
        return
    c.rip = target
    go(c)


cdef void op_load_target(Cpu *c, Uop *u) noexcept nogil:
    """In front of op_indirect: the target from memory. u.b: size."""
    if c.memory.load(c, address(c, u), u.b, &c.regs[TARGET]):
        fault(c, u)
        return
    next(c, u)


cdef void op_load_target64(Cpu *c, Uop *u) noexcept nogil:
    cdef u8 *p = readable(c, address(c, u), 8)
    if unlikely(p == NULL):
        op_load_target(c, u)
        return
    c.regs[TARGET] = (<u64 *>p)[0]
    next(c, u)


cdef void op_ret(Cpu *c, Uop *u) noexcept nogil:
    """u.b: operand size."""
    cdef u64 before = c.regs[4]
    if pop(c, u.b, &c.regs[SLOW]):
        fault(c, u)
        return
    if not sound(c, c.regs[SLOW]):
        c.regs[4] = before
        fault(c, u)
        return
    if c.mode & MODE_64:
        c.regs[4] += <u64>u.imm
    elif c.mode & MODE_STACK32:
        c.regs[4] = <u32>(c.regs[4] + <u64>u.imm)
    else:
        r16(c, RSP)[0] = <u16>(c.regs[4] + <u64>u.imm)
    c.rip = c.regs[SLOW]
    go(c)


cdef enum:
    TARGET = 28             # index in Cpu.regs
    R_TARGET = 224


cdef void targets(Insn *i, Uop *u) noexcept nogil:
    u.imm = <i64>i.off + i.len + i.imm
    u.disp = <i32>i.off + i.len


cdef int emit_branch(Insn *i, Uop *u) noexcept nogil:
    """0: not an instruction of this module."""
    cdef Uop *start = u
    cdef u32 op = i.op
    cdef bint long_mode = i.mode & MODE_64, narrow = i.osize == 2 and not long_mode
    if i.map == MAP_0F and 0x80 <= op <= 0x8F or i.map == MAP_ONE and 0x70 <= op <= 0x7F:
        targets(i, u)
        u.a = op & 15
        u.fn = op_jcc16 if narrow else conditional[op & 15]
        return 2
    if i.map != MAP_ONE:
        return 0
    u.b = 8 if long_mode else i.osize
    if op == 0xEB or op == 0xE9:
        targets(i, u)
        u.a = 16
        u.fn = op_jcc16 if narrow else (op_jmp if 0 <= u.imm < 4096 else op_jmp_far)
        return 2
    if 0xE0 <= op <= 0xE3:
        targets(i, u)
        u.a = i.asize
        u.x = op & 3
        u.fn = op_loop16 if narrow else op_loop
        return 2
    if op == 0xE8:
        targets(i, u)
        u.fn = (op_call64 if 0 <= u.imm < 4096 else op_call64_far) if long_mode else op_call
        return 2
    if op == 0xC2 or op == 0xC3:
        u.imm = i.imm & 0xFFFF if op == 0xC2 else 0
        u.fn = op_ret64 if long_mode else op_ret
        return 1
    if op == 0xFF and ((i.reg & 7) == 2 or (i.reg & 7) == 4):
        if i.mem:
            u = mem_operand(i, u, 8 if long_mode else i.osize, False)
            u.b = 8 if long_mode else i.osize
            u.fn = op_load_target64 if long_mode else op_load_target
            u += 1
            u.s = R_TARGET
        else:
            u.s = gpr(i, i.rm, 8)
        u.b = 8 if long_mode else i.osize
        u.x = (i.reg & 7) == 2
        if long_mode:
            u.fn = op_call_r64 if u.x else op_jmp_r64
        else:
            u.fn = op_indirect
        return <int>(u - start) + 1
    return 0
