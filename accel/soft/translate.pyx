"""Hot blocks of 64-bit and of flat 32-bit code become the host's instructions: the same ones, with other operands.

Registers are the host's one to one but for four: RSP is in the host's R15, and R10, R11 and R15 stay in Cpu, for R10 and R11
are what the code between the guest's instructions works with. RSP points to the Cpu, so its fields are operands; below
it is room for what the host's kernel puts onto a stack. Status flags are the host's while an instruction's are wanted
and nothing came between; else they lie in Cpu.native_flags, as lahf and seto leave them.

Of 32-bit code addresses and RIP are computed with 32 bits, which clears the upper halves; its one-byte inc and dec, and moves of
the accumulator, have other opcodes here. FS and GS may have any base where they reach 4 GiB (Cpu.narrow).

A memory operand's address is computed into R10 and compared with the TLB, as `readable` does it. Whatever is not as it
should be (a miss, a device, a page's border, code that is written to, a division that faults) leads back into the
interpreter at the same instruction, of which nothing has been done yet. So no exception is ever raised here, and
none of the host's: every operand has been looked at before.

Blocks lead to each other by the links and the jump cache of the interpreter; Block.native says where a block's code is,
or leads out. A jump whose link is known is patched to lead there at once, where no other thread writes to links; else it
leads to a stub that looks. Each block takes its instructions from the budget when it is entered, like the interpreter's.

The room for code is mapped twice, once to write and once to execute. In its second part lie stubs and ways out, so that
the first is dense. When one is full all code is dropped, and blocks are the interpreter's until they are hot again; where that
comes too soon they have to be hotter, so that a room which is too small for what the guest does holds what matters.

Ref: Intel SDM volume 2; System V ABI, AMD64 supplement, 3.2 (registers that a function keeps).
Not translated: see native.pyx.
"""

from accel.soft.assemble cimport *
from accel.soft.block cimport MOST, Scratch, flow, gather, op_count, op_mark, op_native
from accel.soft.cpu cimport *
from accel.soft.guest cimport Guest, keep_at_hand, next_place, patch
from accel.soft.insn cimport *
from accel.soft.native cimport *
from accel.soft.room cimport drop_code, enlarge
from accel.soft.vectorcode cimport on_bmi, on_vector, on_vex

cdef enum:
    PROLOGUE = 15           # bytes that take a block from the budget


# --- ways on ---------------------------------------------------------------------------------------------------------------

cdef void canonical_or_out(Work *t) noexcept nogil:
    """R10 may be RIP. Uses R11. Of 32-bit code any number may: CS is flat."""
    if not t.wide:
        return
    put(t, 0x4D89D349C1FB2F, 7)                 # mov r11, r10; sar r11, 47
    put(t, 0x49FFC3, 3)                         # inc r11
    put(t, 0x4983FB01, 4)                       # cmp r11, 1
    put(t, 0x0F87, 2)
    leads_out(t)


cdef void rip_into(Work *t, u32 reg, i64 offset) noexcept nogil:
    """RIP of an offset in the page."""
    from_cpu(t, reg, R_RIPB)
    with_word(t, OP_LEA, reg, reg, offset)


cdef void find(Work *t) noexcept nogil:
    """On to RIP R10."""
    put(t, 0xE8, 1)
    put32(t, <i64>(t.g.native_run + where.find) - <i64>(t.at + t.shift + 4))
    put(t, 0x41FFE3, 3)                         # jmp r11


cdef bint by_link(Work *t, i64 target, u32 way) noexcept nogil:
    """A displacement for the jump to an offset from the page's beginning that the block's link leads to, if it does."""
    if not t.block.linked or not 0 <= target < 4096 or target == t.insns[0].off:
        return False
    t.site[way], t.leads[way] = t.at, target
    return True


cdef void go_to(Work *t, i64 target, u32 way, u8 *start) noexcept nogil:
    """On to an offset from the page's beginning, by way 0 (taken) or 1 (fall) of the block's link."""
    if target == t.insns[0].off:
        jump_to(t, start)
        return
    put(t, 0xE9, 1)
    if by_link(t, target, way):
        put32(t, 0)
        return
    t.at -= 1
    if <i64><i32>target != target:
        t.failed = True
    rip_into(t, H_A, target)
    find(t)


cdef void stubs(Work *t) noexcept nogil:
    """Where the ways of the block's link lead while they are not patched."""
    cdef Link *link = <Link *>&code_of(t.block)[t.block.uops - 1]
    cdef u8 *tail = t.at
    cdef u32 way
    if t.site[0] == NULL and t.site[1] == NULL:
        return
    to_cpu(t, H_B, where.link)
    pointer(t, OP_LEA, H_B, t.block)
    to_cpu(t, H_B, where.block)
    jump_to(t, t.g.native_run + where.follow)
    for way in range(2):
        if t.site[way] == NULL:
            continue
        put32(t, t.site[way] - t.g.native_write)
        link.stub[way] = <u32>(t.at - t.g.native_write)
        (<i32 *>t.site[way])[0] = <i32>(t.at - (t.site[way] + 4))
        pointer(t, OP_LEA, H_B, &link.ways[way])
        put(t, 0x41BA, 2)                       # mov r10d, …
        put32(t, t.leads[way])
        jump_to(t, tail + t.shift)


# --- instructions ------------------------------------------------------------------------------------------------------------

cdef void instruction(Work *t, const Insn *i, const Form *f, u32 reg, u32 rm, bint mem) noexcept nogil:
    """The instruction itself on host registers; `mem`: [rm] instead of rm."""
    cdef bint wide = f.size == 8
    cdef u32 prefix, n
    cdef bint force = not f.use & LEGACY and (
        f.size == 1 and f.use & (REG | REG_WRITE) and reg >= 4 or f.rm_size == 1 and not mem and rm >= 4
    )
    if mem and i.prefix & P_LOCK and t.g.world.threads:
        put(t, 0xF0, 1)
    if f.size == 2 or f.use & WITH_66:
        put(t, 0x66, 1)
    if f.use & (WITH_F2 | WITH_F3):
        put(t, 0xF2 if f.use & WITH_F2 else 0xF3, 1)
    prefix = rex(wide, reg, 0, rm)
    if prefix != 0x40 or force:
        put(t, prefix, 1)
    if i.map != MAP_ONE:
        put(t, 0x0F, 1)
    if i.map == MAP_0F38:
        put(t, 0x38, 1)
    put(t, f.op, 1)
    if mem:
        modrm_mem(t, reg, rm, 0)
    else:
        put(t, 0xC0 | (reg & 7) << 3 | (rm & 7), 1)
    for n in range(f.imm_len):
        put(t, i.bytes[i.len - i.imm_len + n], 1)


cdef inline u32 legacy_or(Work *t, const Form *f, u32 n, u32 size, u32 prefix, u32 scratch) noexcept nogil:
    """A register operand; AH and its like are what they are."""
    if size == 1 and 4 <= n < 8 and not prefix & P_REX:
        return n
    return read_reg(t, n, scratch)


cdef void on_modrm(Work *t, const Insn *i, const Form *f) noexcept nogil:
    cdef u32 reg = i.reg & 7, rm = H_A
    if i.mem:
        reach(t, i, f.rm_size, f.use & RM_WRITE)
    flags_for(t, i, f)
    if f.use & (REG | REG_WRITE):
        reg = legacy_or(t, f, i.reg, f.size, i.prefix, H_B)
    if not i.mem:
        rm = legacy_or(t, f, i.rm, f.rm_size, i.prefix, H_A)
        if rm == H_A and reg == H_B and i.reg == i.rm:
            rm = H_B                            # the same register twice
    instruction(t, i, f, reg, rm, i.mem)
    if not i.mem and f.use & RM_WRITE and host_of(i.rm) == NOWHERE:
        to_cpu(t, rm, 8 * i.rm)
    if f.use & REG_WRITE and reg == H_B:
        to_cpu(t, reg, 8 * i.reg)
    flags_of(t, f)


cdef void on_opreg(Work *t, const Insn *i, const Form *f) noexcept nogil:
    """mov, bswap, xchg of the register in the opcode."""
    cdef u32 n = i.opreg, reg = n, j
    cdef bint legacy = f.use & LEGACY
    if not legacy:
        reg = host_of(n)
        if reg == NOWHERE:
            reg = H_A
            if f.use & REG or f.size < 4:
                from_cpu(t, reg, 8 * n)
    if f.size == 2:
        put(t, 0x66, 1)
    if f.size == 8 or reg >= 8 or f.size == 1 and reg >= 4 and not legacy:
        put(t, rex(f.size == 8, 0, 0, reg), 1)
    if i.map == MAP_0F:
        put(t, 0x0F, 1)
    put(t, (i.op & 0xF8) | (reg & 7), 1)
    for j in range(i.imm_len):
        put(t, i.bytes[i.len - i.imm_len + j], 1)
    if reg == H_A:
        to_cpu(t, reg, 8 * n)


cdef void on_plain(Work *t, const Insn *i, const Form *f) noexcept nogil:
    cdef u32 j
    flags_for(t, i, f)
    if f.size == 2:
        put(t, 0x66, 1)
    if f.size == 8:
        put(t, 0x48, 1)
    put(t, i.op, 1)
    for j in range(i.imm_len):
        put(t, i.bytes[i.len - i.imm_len + j], 1)
    flags_of(t, f)


cdef void on_lea(Work *t, const Insn *i, const Form *f) noexcept nogil:
    cdef u32 to = host_of(i.reg)
    offset_into(t, i, H_A if to == NOWHERE else to, f.size == 8 and i.asize == 8)
    if to == NOWHERE:
        to_cpu(t, H_A, 8 * i.reg)


cdef void on_div(Work *t, const Insn *i, const Form *f) noexcept nogil:
    """Nothing that would fault."""
    cdef bint wide = f.size == 8
    if i.mem:
        reach(t, i, f.size, False)
        put(t, rex(wide, H_B, 0, H_A), 1)
        put(t, OP_LOAD, 1)
        modrm_mem(t, H_B, H_A, 0)
    else:
        disturb(t)
        with_reg(t, wide, OP_LOAD, H_B, read_reg(t, i.rm, H_B))
    if i.reg & 7 == 6:
        with_reg(t, wide, OP_CMP, H_RDX, H_B)
        put(t, 0x0F83, 2)                       # jae
        leads_out(t)
    else:                                       # a dividend that is the sign-extended RAX, and not by -1 or 0
        with_reg(t, wide, OP_LOAD, H_A, H_RAX)
        put(t, rex(wide, 0, 0, H_A), 1)
        put(t, 0xC1FA, 2)                       # sar r10, …
        put(t, 63 if wide else 31, 1)
        with_reg(t, wide, OP_CMP, H_A, H_RDX)
        put(t, 0x0F85, 2)
        leads_out(t)
        put(t, rex(wide, H_A, 0, H_B), 1)
        put(t, OP_LEA, 1)
        modrm_mem(t, H_A, H_B, 1)
        put(t, rex(wide, 0, 0, H_A), 1)
        put(t, 0x83FA01, 3)                     # cmp r10, 1
        put(t, 0x0F86, 2)
        leads_out(t)
    with_reg(t, wide, 0xF7, i.reg & 7, H_B)
    t.held, t.kept = True, False


cdef void on_step(Work *t, const Insn *i, const Form *f) noexcept nogil:
    """inc and dec that are one byte where there are no REX prefixes."""
    cdef u32 reg = host_of(i.opreg)
    flags_for(t, i, f)
    if f.size == 2:
        put(t, 0x66, 1)
    with_reg(t, False, 0xFF, i.op >> 3 & 1, reg)
    flags_of(t, f)


cdef void on_push(Work *t, const Insn *i, const Form *f) noexcept nogil:
    if f.kind == N_PUSH_MEM:
        reach(t, i, t.word, False)
        with_word(t, OP_LOAD, H_A, H_A, 0)
        to_cpu(t, H_A, R_T0)
    reach_stack(t, True)
    if f.kind == N_PUSH_IMM:
        put(t, rex(t.wide, 0, 0, H_A), 1)
        put(t, 0xC702, 2)                       # mov [r10], imm32
        put32(t, i.imm)
    elif f.kind == N_PUSH_MEM:
        from_cpu(t, H_B, R_T0)
        with_word(t, OP_STORE, H_B, H_A, 0)
    else:
        with_word(t, OP_STORE, read_reg(t, i.opreg, H_B), H_A, 0)
    move_stack(t, -<i64>t.word)


cdef void on_pop(Work *t, const Insn *i) noexcept nogil:
    cdef u32 to = host_of(i.opreg)
    reach_stack(t, False)
    with_word(t, OP_LOAD, H_B if to == NOWHERE else to, H_A, 0)
    if to == NOWHERE:
        to_cpu(t, H_B, 8 * i.opreg)
    if to != H_SP:
        move_stack(t, t.word)


cdef void on_leave(Work *t) noexcept nogil:
    cdef u8 *again
    disturb(t)
    again = t.at
    with_reg(t, t.wide, OP_LOAD, H_A, H_RBP)
    check(t, t.word, False, again)
    with_word(t, OP_LEA, H_SP, H_RBP, t.word)
    with_word(t, OP_LOAD, H_RBP, H_A, 0)


cdef void return_address(Work *t, const Insn *i) noexcept nogil:
    """Push it."""
    reach_stack(t, True)
    rip_into(t, H_B, <i64>i.off + i.len)
    with_word(t, OP_STORE, H_B, H_A, 0)
    move_stack(t, -<i64>t.word)


cdef void on_indirect(Work *t, const Insn *i, bint calls) noexcept nogil:
    if i.mem:
        reach(t, i, t.word, False)
        with_word(t, OP_LOAD, H_A, H_A, 0)
    else:
        disturb(t)
        with_reg(t, t.wide, OP_LOAD, H_A, read_reg(t, i.rm, H_A))
    canonical_or_out(t)
    if calls:
        to_cpu(t, H_A, R_T0)
        return_address(t, i)
        from_cpu(t, H_A, R_T0)
    find(t)


cdef void on_ret(Work *t, const Insn *i) noexcept nogil:
    reach_stack(t, False)
    with_word(t, OP_LOAD, H_A, H_A, 0)
    canonical_or_out(t)
    move_stack(t, t.word + (i.imm & 0xFFFF if i.op == 0xC2 else 0))
    find(t)


cdef void on_jcc(Work *t, const Insn *i, u8 *start) noexcept nogil:
    cdef u8 *taken
    cdef i64 behind = <i64>i.off + i.len
    hold_flags(t)
    if t.live[t.now + 1]:
        keep_flags(t)
    if behind + i.imm == t.insns[0].off:        # a loop
        put(t, 0x0F80 | (i.op & 15), 2)
        put32(t, <i64>start - <i64>(t.at + t.shift + 4))
        go_to(t, behind, 1, start)
        return
    put(t, 0x0F80 | (i.op & 15), 2)
    if by_link(t, behind + i.imm, 0):
        put32(t, 0)
        go_to(t, behind, 1, start)
        return
    t.at -= 2
    taken = branch(t, i.op & 15)
    go_to(t, behind, 1, start)
    land(t, taken)
    go_to(t, behind + i.imm, 0, start)


cdef void one(Work *t, const Insn *i, const Form *f, u8 *start) noexcept nogil:
    if f.kind == N_PLAIN:
        on_plain(t, i, f)
    elif f.kind == N_MODRM:
        on_modrm(t, i, f)
    elif f.kind == N_OPREG:
        on_opreg(t, i, f)
    elif f.kind == N_LEA:
        on_lea(t, i, f)
    elif f.kind == N_STEP:
        on_step(t, i, f)
    elif f.kind == N_PUSH or f.kind == N_PUSH_IMM or f.kind == N_PUSH_MEM:
        on_push(t, i, f)
    elif f.kind == N_POP:
        on_pop(t, i)
    elif f.kind == N_LEAVE:
        on_leave(t)
    elif f.kind == N_DIV:
        on_div(t, i, f)
    elif f.kind == N_SSE:
        on_vector(t, i, f)
    elif f.kind == N_VEX or f.kind == N_VZERO:
        on_vex(t, i, f)
    elif f.kind == N_BMI:
        on_bmi(t, i, f)
    elif f.kind == N_JCC:
        on_jcc(t, i, start)
    elif f.kind == N_JMP:
        if t.live[t.now + 1]:
            keep_flags(t)
        go_to(t, <i64>i.off + i.len + i.imm, 0, start)
    elif f.kind == N_CALL:
        return_address(t, i)
        go_to(t, <i64>i.off + i.len + i.imm, 0, start)
    elif f.kind == N_RET:
        on_ret(t, i)
    elif f.kind == N_JMP_TO or f.kind == N_CALL_TO:
        on_indirect(t, i, f.kind == N_CALL_TO)


# --- a block ---------------------------------------------------------------------------------------------------------------

cdef Uop *operation(Block *block, u32 off, bint mark) noexcept nogil:
    """The first of the instruction at `off`; or the mark in front of it."""
    cdef Uop *u = code_of(block)
    cdef u32 n
    for n in range(<u32>block.uops - block.linked):
        if u[n].off == off and (u[n].fn == op_mark) == mark and u[n].fn not in (NULL, op_count, op_native):
            return &u[n]
    return NULL


cdef bint worth(Work *t, u32 n) noexcept nogil:
    """Enough instructions from the n-th on to enter the code here."""
    cdef Form form
    cdef u32 found = 0
    while n < t.count:
        form_of(&t.insns[n], &form)
        if form.kind == N_NOT:
            return found >= 4
        if t.insns[n].ends != ENDS_NOT:
            return True
        found += 1
        n += 1
    return True


cdef bint translate(Cpu *c, Block *block) noexcept nogil:
    """Give the block host code. False: it has none at its beginning."""
    cdef Guest *g = <Guest *>c.guest
    cdef Scratch *s = <Scratch *>c.scratch
    cdef Work t
    cdef Form form
    cdef u8 *start
    cdef u8 *begin
    cdef u8 *end
    cdef u8 *tail
    cdef Uop *at
    cdef Uop *marks[MOST]
    cdef u8 *places[MOST]
    cdef Block **place
    cdef Link *link = <Link *>&code_of(block)[block.uops - 1]
    cdef u32 n, k, found = 0, off = <u32>(block.host & 0xFFF)
    cdef int failure = 0
    cdef bint first, inside
    if g.apart_first - g.native_used < LEAST_ROOM or g.native_size - g.apart_used < LEAST_ROOM:
        drop_code(c, g)
    enlarge(g)
    t.insns = s.insns
    s.features = c.features
    t.wide, t.word = block.mode & MODE_64 != 0, word_of(block.mode)
    t.count = gather(s, <u8 *>block.host, 4096 - off, off, block.mode, block.count, &failure)
    if t.count != block.count:
        return False
    t.live[t.count] = flow(s, t.count, <u8 *>block.host - off)
    for n in range(t.count, 0, -1):
        t.live[n - 1] = (t.live[n] & ~s.insns[n - 1].writes) | s.insns[n - 1].reads
    t.at = g.native_write + g.native_used
    t.shift = g.native_run - g.native_write
    t.g, t.block, t.fixes, t.failed, t.now = g, block, 0, False, 0
    t.site[0] = t.site[1] = NULL
    begin = t.at
    start = t.at + t.shift
    put(&t, 0x4883AC24, 4)                      # sub qword [rsp + budget], count
    put32(&t, where.budget)
    put(&t, block.count, 1)
    put(&t, 0x0F88, 2)                          # js
    put32(&t, 0)
    t.held, t.kept, t.vectors, inside = False, True, 0, True
    form_of(&s.insns[0], &form)
    first = form.kind != N_NOT and worth(&t, 0)
    inside = first
    if not first:                               # for loops back to the beginning
        put(&t, 0xE9, 1)
        leads_out(&t)
    n = 0
    while n < t.count:
        t.now = n
        form_of(&s.insns[n], &form)
        if form.kind == N_NOT:
            if inside:
                if t.live[n]:
                    keep_flags(&t)
                put(&t, 0xE9, 1)
                leads_out(&t)
            inside = False
            n += 1
            if n < t.count:
                at = operation(block, s.insns[n].off, True)
                form_of(&s.insns[n], &form)
                if at != NULL and form.kind != N_NOT and worth(&t, n):
                    inside = True
                    t.held, t.kept, t.vectors = False, True, 0
                    marks[found], places[found] = at, t.at + t.shift
                    found += 1
            continue
        if inside:
            one(&t, &s.insns[n], &form, start)
        n += 1
    t.now = t.count - 1
    if inside and s.insns[t.count - 1].ends == ENDS_NOT:
        if t.live[t.count]:
            keep_flags(&t)
        go_to(&t, <i64>s.insns[t.count - 1].off + s.insns[t.count - 1].len, 0, start)
    if t.failed or not first and not found:
        return False
    end = t.at
    t.at = g.native_write + g.apart_used
    # the budget is spent: out, in front of the block
    (<i32 *>(begin + PROLOGUE - 4))[0] = <i32>(t.at - (begin + PROLOGUE))
    put(&t, 0x48838424, 4)
    put32(&t, where.budget)
    put(&t, block.count, 1)
    rip_into(&t, H_A, off)
    to_cpu(&t, H_A, where.rip)
    put(&t, 0x4531D2, 3)                        # xor r10d, r10d
    jump_to(&t, g.native_run + where.exit)
    # the interpreter's ways on
    tail = t.at
    pointer(&t, OP_LEA, H_B, block)
    to_cpu(&t, H_B, where.block)
    jump_to(&t, g.native_run + where.exit)
    for n in range(t.count):
        at = NULL
        for k in range(t.fixes):
            if t.fix_of[k] != n:
                continue
            if at == NULL:
                at = operation(block, s.insns[n].off, False)
                if at == NULL:
                    return False
                begin = t.at
                pointer(&t, OP_LEA, H_A, at)
                jump_to(&t, tail + t.shift)
            if t.fix_again[k] == NULL:
                (<i32 *>t.fix[k])[0] = <i32>(begin - (t.fix[k] + 4))
                continue
            (<i32 *>t.fix[k])[0] = <i32>(t.at - (t.fix[k] + 4))
            put(&t, 0xE8, 1)
            put32(&t, <i64>(g.native_run + where.fill[t.fix_how[k]]) - <i64>(t.at + t.shift + 4))
            put(&t, 0x0F85, 2)
            put32(&t, t.fix_again[k] - (t.at + 4))
            put(&t, 0xE9, 1)
            put32(&t, begin - (t.at + 4))
    stubs(&t)
    g.native_used = (<u64>(end - g.native_write) + 15) & ~<u64>15
    g.apart_used = <u64>(t.at - g.native_write)
    for n in range(2):
        if t.site[n] != NULL and link.ways[n] != NULL and link.ways[n].native != g.cold:
            patch(g, &link.ways[n], link.ways[n].native)
    for k in range(found):
        marks[k].imm = <i64>places[k]
        marks[k].fn = op_native
    if not first:
        return False
    block.native = start
    code_of(block).imm = <i64>(start + PROLOGUE)
    code_of(block).fn = op_native
    if g.jcache[jump_slot(block.host)].key == block_key(block.host, block.mode):
        keep_at_hand(g, block)
    place = block.places
    while place != NULL:
        patch(g, place, start)
        place = next_place(g, place)
    return True
