"""Writing the host's instructions into the room: bytes, operands in Cpu, flags, addresses of the guest's memory.

What is written and which registers stand for what says translate.pyx.
"""

from accel.soft.insn cimport *
from accel.soft.native cimport *

cdef Places where


cdef void measure() noexcept nogil:
    """The places in Cpu and Block."""
    cdef Cpu *c = <Cpu *>4096
    cdef Block *b = <Block *>4096
    where.budget = <u32>(<u64>&c.budget - 4096)
    where.tlb = <u32>(<u64>&c.tlb - 4096)
    where.rip = <u32>(<u64>&c.rip - 4096)
    where.block = <u32>(<u64>&c.block - 4096)
    where.link = <u32>(<u64>&c.link - 4096)
    where.fall = <u32>(<u64>&c.link_fall - 4096)
    where.key = <u32>(<u64>&c.mode_key - 4096)
    where.flags = <u32>(<u64>&c.native_flags - 4096)
    where.host_sp = <u32>(<u64>&c.host_sp - 4096)
    where.jcache = <u32>(<u64>&c.jcache - 4096)
    where.itlb = <u32>(<u64>&c.itlb - 4096)
    where.fx = <u32>(<u64>&c.fx - 4096)
    where.arena = <u32>(<u64>&c.arena - 4096)
    where.xmm = <u32>(<u64>&c.native_xmm - 4096)
    where.mxcsr = <u32>(<u64>&c.mxcsr - 4096)
    where.trap = <u32>(<u64>&c.sse_trap - 4096)
    where.narrow = <u32>(<u64>&c.narrow - 4096)
    where.vex = <u32>(<u64>&c.vex_trap - 4096)
    where.native = <u32>(<u64>&b.native - 4096)


# --- bytes ---------------------------------------------------------------------------------------------------------------

cdef void modrm_mem(Work *t, u32 reg, u32 base, i64 disp) noexcept nogil:
    """[base + disp] as the operand of an instruction; the upper bits of the registers are in its REX."""
    cdef u32 mod = 2
    if disp == 0 and base & 7 != 5:
        mod = 0
    elif -128 <= disp < 128:
        mod = 1
    put(t, mod << 6 | (reg & 7) << 3 | (base & 7), 1)
    if base & 7 == 4:
        put(t, 0x24, 1)
    if mod == 1:
        put(t, <u64>disp & 0xFF, 1)
    elif mod == 2:
        put32(t, disp)


cdef void with_mem(Work *t, u32 op, u32 reg, u32 base, i64 disp) noexcept nogil:
    """A 64-bit instruction on `reg` and [base + disp]."""
    put(t, rex(True, reg, 0, base), 1)
    put(t, op, 1)
    modrm_mem(t, reg, base, disp)


cdef void with_word(Work *t, u32 op, u32 reg, u32 base, i64 disp) noexcept nogil:
    """The same as wide as the guest's addresses are."""
    put(t, rex(t.wide, reg, 0, base), 1)
    put(t, op, 1)
    modrm_mem(t, reg, base, disp)


cdef void with_reg(Work *t, bint wide, u32 op, u32 reg, u32 rm) noexcept nogil:
    put(t, rex(wide, reg, 0, rm), 1)
    put(t, op, 1)
    put(t, 0xC0 | (reg & 7) << 3 | (rm & 7), 1)


cdef void from_cpu(Work *t, u32 reg, u32 at) noexcept nogil:
    with_mem(t, OP_LOAD, reg, H_RSP, at)


cdef void to_cpu(Work *t, u32 reg, u32 at) noexcept nogil:
    with_mem(t, OP_STORE, reg, H_RSP, at)


cdef void move(Work *t, u32 to, u32 source) noexcept nogil:
    with_reg(t, True, OP_LOAD, to, source)


cdef void pointer(Work *t, u32 op, u32 reg, void *to) noexcept nogil:
    """`reg` and [to], which is as near as all blocks are."""
    put(t, rex(True, reg, 0, 0), 1)
    put(t, op, 1)
    put(t, 5 | (reg & 7) << 3, 1)
    put32(t, <i64>to - <i64>(t.at + t.shift + 4))


cdef void jump_to(Work *t, u8 *target) noexcept nogil:
    """`target` in the room as it is executed."""
    put(t, 0xE9, 1)
    put32(t, <i64>target - <i64>(t.at + t.shift + 4))


cdef void leads_out(Work *t) noexcept nogil:
    """The displacement of a branch to the interpreter at this instruction."""
    if t.fixes == FIXES:
        t.failed = True
        return
    t.fix[t.fixes], t.fix_of[t.fixes], t.fix_again[t.fixes] = t.at, t.now, NULL
    t.fixes += 1
    put32(t, 0)


cdef u8 *branch(Work *t, u32 condition) noexcept nogil:
    """A conditional branch forward; land() gives it its target."""
    put(t, 0x0F80 | condition, 2)
    put32(t, 0)
    return t.at


cdef void land(Work *t, u8 *behind) noexcept nogil:
    (<i32 *>(behind - 4))[0] = <i32>(t.at - behind)


# --- registers and flags ---------------------------------------------------------------------------------------------------

cdef u32 read_reg(Work *t, u32 n, u32 scratch) noexcept nogil:
    """The host's register with the guest's `n`: `scratch` when it had to be loaded."""
    if host_of(n) != NOWHERE:
        return host_of(n)
    from_cpu(t, scratch, 8 * n)
    return scratch


cdef void keep_flags(Work *t) noexcept nogil:
    """Into Cpu, if only the host has them. Uses R11, changes no flag."""
    if t.held and not t.kept:
        put(t, 0x4989C39F0F90C0, 7)             # mov r11, rax; lahf; seto al
        put(t, 0x898424, 3)                     # mov [rsp + …], eax: all that hold_flags() reads, or it would wait for
        put32(t, where.flags)
        put(t, 0x4C89D8, 3)                     # mov rax, r11
        t.kept = True


cdef void hold_flags(Work *t) noexcept nogil:
    """From Cpu, if the host does not have them. Uses R11."""
    if not t.held:
        put(t, 0x4989C3, 3)                     # mov r11, rax
        put(t, 0x8B8424, 3)                     # mov eax, [rsp + …]
        put32(t, where.flags)
        put(t, 0x047F9E4C89D8, 6)               # add al, 127; sahf; mov rax, r11
        t.held = True


cdef void disturb(Work *t) noexcept nogil:
    """The host's flags are about to be lost."""
    if t.live[t.now]:
        keep_flags(t)
    t.held = False


# --- memory ----------------------------------------------------------------------------------------------------------------

cdef void offset_into(Work *t, const Insn *i, u32 to, bint wide) noexcept nogil:
    """The operand's offset (cut to 32 bits unless `wide`); without the segment's base. Uses R10 and R11, no flags."""
    cdef u32 base = NOWHERE, index = NOWHERE
    cdef i64 disp = i.disp if wide else <i64><i32>i.disp
    if <i64><i32>disp != disp:
        t.failed = True
        return
    if i.riprel:
        from_cpu(t, H_A, R_RIPB)
        base = H_A
    elif i.base != R_ZERO:
        base = read_reg(t, i.base >> 3, H_A)
    if i.index != R_ZERO:
        index = read_reg(t, i.index >> 3, H_B)
    if index == NOWHERE and base == NOWHERE:
        put(t, rex(wide, 0, 0, to), 1)          # mov to, imm32
        put(t, 0xC7C0 | (to & 7), 2)
        put32(t, disp)
        return
    if index == NOWHERE:
        put(t, rex(wide, to, 0, base), 1)
        put(t, OP_LEA, 1)
        modrm_mem(t, to, base, disp)
        return
    put(t, rex(wide, to, index, 0 if base == NOWHERE else base), 1)
    put(t, OP_LEA, 1)
    put(t, (0x04 if base == NOWHERE else 0x84) | (to & 7) << 3, 1)
    put(t, <u32>i.scale << 6 | (index & 7) << 3 | (5 if base == NOWHERE else base & 7), 1)
    put32(t, disp)


cdef void check(Work *t, u32 size, bint write, u8 *again) noexcept nogil:
    """R10 from a linear address to the host's; or out. `again`: where R10 was computed. Uses R11 and flags."""
    put(t, 0x4D89D349C1EB07, 7)                 # mov r11, r10; shr r11, 12 - 5
    put(t, 0x4181E3, 3)                         # and r11d, …
    put32(t, (TLB_SIZE - 1) * sizeof(TlbEntry))
    with_mem(t, OP_ADD, H_B, H_RSP, where.tlb)
    with_mem(t, OP_SUB, H_A, H_B, 8 if write else 0)
    put(t, 0x4981FA, 3)                         # cmp r10, …
    put32(t, 4096 - <i64>size)
    put(t, 0x0F87, 2)                           # ja
    leads_out(t)
    if not t.failed:
        t.fix_again[t.fixes - 1], t.fix_how[t.fixes - 1] = again, SIZES if write else 0
        while size > 1:
            t.fix_how[t.fixes - 1] += 1
            size >>= 1
    with_mem(t, OP_ADD, H_A, H_B, 16)


cdef void reach(Work *t, const Insn *i, u32 size, bint write) noexcept nogil:
    """R10 = the host's address of the instruction's operand."""
    cdef u8 *again
    disturb(t)
    again = t.at
    offset_into(t, i, H_A, i.asize == 8)
    if i.seg == FS or i.seg == GS:
        if not t.wide:
            put(t, 0xF68424, 3)                 # test byte [rsp + …], …
            put32(t, where.narrow)
            put(t, 1 << (i.seg - FS), 1)
            put(t, 0x0F85, 2)
            leads_out(t)
        with_word(t, OP_ADD, H_A, H_RSP, R_FS if i.seg == FS else R_GS)
    check(t, size, write, again)


cdef void reach_stack(Work *t, bint write) noexcept nogil:
    """R10 = the host's address of the word that is pushed (`write`) or popped."""
    cdef u8 *again
    disturb(t)
    again = t.at
    with_word(t, OP_LEA, H_A, H_SP, -<i64>t.word if write else 0)
    check(t, t.word, write, again)


cdef void move_stack(Work *t, i64 by) noexcept nogil:
    with_word(t, OP_LEA, H_SP, H_SP, by)


cdef void flags_for(Work *t, const Insn *i, const Form *f) noexcept nogil:
    """The host's flags as this instruction needs them: what it reads, and what it leaves to others."""
    if i.reads or f.use & TOUCHES and t.live[t.now + 1] & ~i.writes:
        hold_flags(t)


cdef void flags_of(Work *t, const Form *f) noexcept nogil:
    if f.use & TOUCHES:
        t.held, t.kept = True, False
