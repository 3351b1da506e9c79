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
the first is dense. When one is full everything begins anew.

Ref: Intel SDM volume 2; System V ABI, AMD64 supplement, 3.2 (registers that a function keeps).
Not translated: see native.pyx.
"""

from libc.string cimport memcpy
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE, mmap, munmap,
)
from posix.unistd cimport close, ftruncate

from accel.soft.block cimport MOST, Scratch, flow, gather, op_count, op_mark, op_native
from accel.soft.code cimport forget_all
from accel.soft.cpu cimport *
from accel.soft.guest cimport Guest, keep_at_hand, next_place, patch
from accel.soft.insn cimport *
from accel.soft.mmu cimport ACCESS_READ, ACCESS_WRITE
from accel.soft.mmu cimport translate as lookup
from accel.soft.native cimport *

cdef extern from *:
    """
    #include <sys/mman.h>
    #ifndef MADV_COLLAPSE
    #define MADV_COLLAPSE 25    /* since Linux 6.1 */
    #endif
    static int vr_room(void) { return memfd_create("vmrun-code", MFD_CLOEXEC); }
    """
    int vr_room() nogil
    int madvise(void *, size_t, int) nogil
    int MADV_COLLAPSE

cdef enum:
    H_RAX = 0
    H_RDX = 2
    H_RSP = 4               # points to Cpu
    H_RBP = 5
    H_A = 10                # addresses, and what leads out
    H_B = 11
    H_SP = 15               # the guest's RSP
    NOWHERE = 99            # a guest's register that is in Cpu
    LEAST_ROOM = 6144       # for one block, in both parts
    GREAT = 2 << 20         # bytes of a great page
    SIZES = 6               # of accesses: 1 … 32 bytes
    FIXES = 160
    PROLOGUE = 15           # bytes that take a block from the budget
    OP_LEA = 0x8D
    OP_LOAD = 0x8B
    OP_STORE = 0x89
    OP_ADD = 0x03
    OP_OR = 0x0B
    OP_SUB = 0x2B
    OP_CMP = 0x3B

# A block while it is translated.
cdef struct Work:
    u8 *at                  # where the next byte goes
    i64 shift               # from there to where it is executed
    Guest *g
    Block *block
    Insn *insns
    u32 count
    bint wide               # 64-bit code
    u32 word                # bytes of what the stack holds
    u32 now                 # the instruction
    u32 live[MOST + 1]      # flags that somebody reads from here on
    bint held               # the flags are the host's
    bint kept               # they are in Cpu.native_flags
    bint failed
    u32 vectors             # 1: the XMM registers are the host's already, 3: their upper halves too
    u8 *fix[FIXES]          # places of displacements that lead back to the interpreter, and at which instruction
    u32 fix_of[FIXES]
    u8 *fix_again[FIXES]    # where the access is tried anew once the TLB knows the page; NULL: it is none
    u32 fix_how[FIXES]      # which of FILLS
    u32 fixes
    u8 *site[2]             # the displacement of the jump to the block's link, taken and fall; NULL: there is none
    i64 leads[2]            # its target, as an offset from the page's beginning

# Where things are in Cpu, and in the room
cdef u32 AT_BUDGET, AT_TLB, AT_RIP, AT_BLOCK, AT_LINK, AT_FALL, AT_KEY, AT_FLAGS, AT_SP, AT_JCACHE, AT_ITLB
cdef u32 AT_NATIVE, AT_FX, AT_ARENA
cdef u32 AT_XMM, AT_MXCSR, AT_TRAP, AT_NARROW, AT_VEX
cdef u32 vectors_at, halves_at
cdef u32 fill_at[2 * SIZES]         # for accesses of 1, 2 … 32 bytes; then for writes
cdef u32 exit_at
cdef u32 find_at
cdef u32 follow_at


cdef void measure() noexcept nogil:
    global AT_BUDGET, AT_TLB, AT_RIP, AT_BLOCK, AT_LINK, AT_FALL, AT_KEY, AT_FLAGS, AT_SP, AT_JCACHE, AT_ITLB
    global AT_NATIVE, AT_FX, AT_ARENA, AT_XMM, AT_MXCSR, AT_TRAP, AT_NARROW, AT_VEX
    cdef Cpu *c = <Cpu *>4096
    cdef Block *b = <Block *>4096
    AT_BUDGET, AT_TLB, AT_RIP = <u32>(<u64>&c.budget - 4096), <u32>(<u64>&c.tlb - 4096), <u32>(<u64>&c.rip - 4096)
    AT_BLOCK, AT_LINK = <u32>(<u64>&c.block - 4096), <u32>(<u64>&c.link - 4096)
    AT_FALL, AT_KEY = <u32>(<u64>&c.link_fall - 4096), <u32>(<u64>&c.mode_key - 4096)
    AT_FLAGS, AT_SP = <u32>(<u64>&c.native_flags - 4096), <u32>(<u64>&c.host_sp - 4096)
    AT_JCACHE, AT_ITLB = <u32>(<u64>&c.jcache - 4096), <u32>(<u64>&c.itlb - 4096)
    AT_FX, AT_ARENA = <u32>(<u64>&c.fx - 4096), <u32>(<u64>&c.arena - 4096)
    AT_XMM, AT_MXCSR = <u32>(<u64>&c.native_xmm - 4096), <u32>(<u64>&c.mxcsr - 4096)
    AT_TRAP, AT_NARROW = <u32>(<u64>&c.sse_trap - 4096), <u32>(<u64>&c.narrow - 4096)
    AT_VEX = <u32>(<u64>&c.vex_trap - 4096)
    AT_NATIVE = <u32>(<u64>&b.native - 4096)


# --- bytes ---------------------------------------------------------------------------------------------------------------

cdef inline void put(Work *t, u64 bytes, u32 count) noexcept nogil:
    """`count` bytes, written as one number: 0x0F1007 is 0F 10 07."""
    cdef u32 n
    for n in range(count):
        t.at[0] = <u8>(bytes >> (8 * (count - 1 - n)))
        t.at += 1


cdef inline void put32(Work *t, i64 value) noexcept nogil:
    (<i32 *>t.at)[0] = <i32>value
    t.at += 4


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


cdef inline u32 rex(bint wide, u32 reg, u32 index, u32 base) noexcept nogil:
    return 0x40 | wide << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3


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


cdef inline void from_cpu(Work *t, u32 reg, u32 at) noexcept nogil:
    with_mem(t, OP_LOAD, reg, H_RSP, at)


cdef inline void to_cpu(Work *t, u32 reg, u32 at) noexcept nogil:
    with_mem(t, OP_STORE, reg, H_RSP, at)


cdef inline void move(Work *t, u32 to, u32 source) noexcept nogil:
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


cdef inline u8 *branch(Work *t, u32 condition) noexcept nogil:
    """A conditional branch forward; land() gives it its target."""
    put(t, 0x0F80 | condition, 2)
    put32(t, 0)
    return t.at


cdef inline void land(Work *t, u8 *behind) noexcept nogil:
    (<i32 *>(behind - 4))[0] = <i32>(t.at - behind)


# --- registers and flags ---------------------------------------------------------------------------------------------------

cdef inline u32 host_of(u32 n) noexcept nogil:
    if n == 4:
        return H_SP
    return NOWHERE if n == 10 or n == 11 or n == 15 else n


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
        put(t, 0x66898424, 4)                   # mov [rsp + …], ax
        put32(t, AT_FLAGS)
        put(t, 0x4C89D8, 3)                     # mov rax, r11
        t.kept = True


cdef void hold_flags(Work *t) noexcept nogil:
    """From Cpu, if the host does not have them. Uses R11."""
    if not t.held:
        put(t, 0x4989C3, 3)                     # mov r11, rax
        put(t, 0x8B8424, 3)                     # mov eax, [rsp + …]
        put32(t, AT_FLAGS)
        put(t, 0x047F9E4C89D8, 6)               # add al, 127; sahf; mov rax, r11
        t.held = True


cdef inline void disturb(Work *t) noexcept nogil:
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
    with_mem(t, OP_ADD, H_B, H_RSP, AT_TLB)
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
            put32(t, AT_NARROW)
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


cdef inline void move_stack(Work *t, i64 by) noexcept nogil:
    with_word(t, OP_LEA, H_SP, H_SP, by)


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
    put32(t, <i64>(t.g.native_run + find_at) - <i64>(t.at + t.shift + 4))
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
    to_cpu(t, H_B, AT_LINK)
    pointer(t, OP_LEA, H_B, t.block)
    to_cpu(t, H_B, AT_BLOCK)
    jump_to(t, t.g.native_run + follow_at)
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


cdef void flags_for(Work *t, const Insn *i, const Form *f) noexcept nogil:
    """The host's flags as this instruction needs them: what it reads, and what it leaves to others."""
    if i.reads or f.use & TOUCHES and t.live[t.now + 1] & ~i.writes:
        hold_flags(t)


cdef inline void flags_of(Work *t, const Form *f) noexcept nogil:
    if f.use & TOUCHES:
        t.held, t.kept = True, False


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


cdef void hold_vectors(Work *t, u32 level) noexcept nogil:
    """The XMM registers (3: YMM) are the host's from here on; out, when they are off or an exception not masked."""
    if t.vectors >= level:
        return
    disturb(t)
    put(t, 0x80BC24, 3)                         # cmp byte [rsp + …], …
    put32(t, AT_XMM)
    put(t, (0x03740B if level == 3 else 0x00750B), 3)       # je, jne over
    put(t, 0xE8, 1)
    put32(t, <i64>(t.g.native_run + (halves_at if level == 3 else vectors_at)) - <i64>(t.at + t.shift + 4))
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
    """Give the block host code. False: it has none at its beginning; c.block is NULL when everything was forgotten."""
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
        forget_all(g)
        return False
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
    put32(&t, AT_BUDGET)
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
    put32(&t, AT_BUDGET)
    put(&t, block.count, 1)
    rip_into(&t, H_A, off)
    to_cpu(&t, H_A, AT_RIP)
    put(&t, 0x4531D2, 3)                        # xor r10d, r10d
    jump_to(&t, g.native_run + exit_at)
    # the interpreter's ways on
    tail = t.at
    pointer(&t, OP_LEA, H_B, block)
    to_cpu(&t, H_B, AT_BLOCK)
    jump_to(&t, g.native_run + exit_at)
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
            put32(&t, <i64>(g.native_run + fill_at[t.fix_how[k]]) - <i64>(t.at + t.shift + 4))
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


# --- the room --------------------------------------------------------------------------------------------------------------

cdef u64 learn(Cpu *c, u64 ea, u32 how) noexcept nogil:
    """The TLB's entry of an address that translated code missed. 0: it cannot be used, or the access faults."""
    cdef TlbEntry *e = &c.tlb[(ea >> 12) & (TLB_SIZE - 1)]
    cdef u8 *host = NULL
    cdef u64 phys = 0
    if c.tlb == c.tlbs[2] or (ea & 0xFFF) + (how & 255) > 4096:
        return 0
    if lookup(c, ea, ACCESS_WRITE if how & 256 else ACCESS_READ, c.cpl == 3, &host, &phys):
        c.stop = STOP_NEXT
        return 0
    return (e.wtag if how & 256 else e.rtag) == ea & ~<u64>0xFFF


cdef void vector_at(Work *t, u32 op, u32 n, u32 base) noexcept nogil:
    """movaps between XMM `n` and the FXSAVE image at `base`."""
    put(t, rex(False, n, 0, base), 1)
    put(t, 0x0F, 1)
    put(t, op, 1)
    modrm_mem(t, n, base, 160 + 16 * n)


cdef void vectors_of(Work *t, bint store, u32 base) noexcept nogil:
    """All XMM registers to or from the image at `base`."""
    cdef u32 n
    for n in range(16):
        vector_at(t, 0x29 if store else 0x28, n, base)


cdef void load_vectors(Work *t) noexcept nogil:
    """XMM registers into the host's, in what is called; it returns not zero when SSE is off or an exception not masked."""
    put(t, 0x448B9C24, 4)                       # mov r11d, [rsp + mxcsr]
    put32(t, AT_MXCSR + 8)
    put(t, 0x41F7D34181E3, 6)                   # not r11d; and r11d, …
    put32(t, 0x1F80)
    put(t, 0x440B9C24, 4)                       # or r11d, [rsp + sse_trap]
    put32(t, AT_TRAP + 8)
    put(t, 0x7401C3, 3)                         # jz over; ret
    from_cpu(t, H_B, AT_FX + 8)
    vectors_of(t, False, H_B)


cdef void upper_halves(Work *t, bint store, u32 base) noexcept nogil:
    """Of all YMM registers, to or from the area at `base`. Stored, the host's are zero."""
    cdef u32 n
    for n in range(16):                         # vextractf128, vinsertf128
        put(t, 0xC4, 1)
        put(t, (n >> 3 ^ 1) << 7 | 0x40 | (base >> 3 ^ 1) << 5 | 3, 1)
        put(t, 0x7D if store else (n ^ 15) << 3 | 5, 1)
        put(t, 0x19 if store else 0x18, 1)
        modrm_mem(t, n, base, 576 + 16 * n)
        put(t, 1, 1)
    if store:
        put(t, 0xC5F877, 3)                     # vzeroupper


cdef void held_halves(Work *t, bint store, u32 base, i64 off) noexcept nogil:
    """The same if the host has them. `off`: of the stack's pointer."""
    cdef u8 *without
    put(t, 0xF68424, 3)                         # test byte [rsp + …], 2
    put32(t, AT_XMM + off)
    put(t, 0x02, 1)
    without = branch(t, 4)
    upper_halves(t, store, base)
    land(t, without)


cdef void enlarge(Guest *g) noexcept nogil:
    """Great pages where code is about to be written, if the host has some: what runs is spread over all of it."""
    cdef u64 part, at, used
    for part in range(2):
        used = (g.native_used if part == 0 else g.apart_used) + LEAST_ROOM
        at = g.great[part]
        while at <= used and at + GREAT <= (g.apart_first if part == 0 else g.native_size):
            g.native_write[at + GREAT - 1] = 0      # where nothing is there is nothing to collapse
            if madvise(g.native_write + at, GREAT, MADV_COLLAPSE) or madvise(g.native_run + at, GREAT, MADV_COLLAPSE):
                at = g.native_size
            at += GREAT
        g.great[part] = at


cdef void trampolines(Guest *g) noexcept nogil:
    """At its beginning: from C into the code, back, and from one block to another by RIP."""
    global exit_at, find_at, follow_at, vectors_at, halves_at
    cdef u8 *none
    cdef Work t
    cdef u8 *missed[2]
    cdef u8 *same
    cdef u8 *fill
    cdef u8 *base
    cdef u32 n
    t.at, t.shift, t.failed, t.fixes = g.native_write, g.native_run - g.native_write, False, 0
    # u64 enter(Cpu *rdi, u8 *rsi)
    put(&t, 0x535541544155, 6)                  # push rbx, rbp, r12, r13
    put(&t, 0x41564157, 4)                      # push r14, r15
    with_mem(&t, OP_STORE, H_RSP, 7, AT_SP)     # mov [rdi + host_sp], rsp
    move(&t, H_RSP, 7)
    move(&t, H_A, 6)
    for n in range(16):
        if host_of(n) != NOWHERE:
            from_cpu(&t, host_of(n), 8 * n)
    put(&t, 0x41FFE2, 3)                        # jmp r10
    exit_at = <u32>(t.at - g.native_write)
    for n in range(16):
        if host_of(n) != NOWHERE:
            to_cpu(&t, host_of(n), 8 * n)
    put(&t, 0x80BC24, 3)                        # cmp byte [rsp + …], 0
    put32(&t, AT_XMM)
    put(&t, 0, 1)
    same = branch(&t, 4)
    from_cpu(&t, H_B, AT_FX)
    vectors_of(&t, True, H_B)
    held_halves(&t, True, H_B, 0)
    put(&t, 0xC68424, 3)                        # mov byte [rsp + …], 0
    put32(&t, AT_XMM)
    put(&t, 0, 1)
    land(&t, same)
    move(&t, H_RAX, H_A)
    from_cpu(&t, H_RSP, AT_SP)
    put(&t, 0x415F415E415D415C, 8)              # pop r15, r14, r13, r12
    put(&t, 0x5D5BC3, 3)                        # pop rbp, rbx; ret
    # called: XMM registers into the host's. Not zero: SSE is off, or an exception not masked
    vectors_at = <u32>(t.at - g.native_write)
    load_vectors(&t)
    put(&t, 0xC68424, 3)                        # mov byte [rsp + …], 1
    put32(&t, AT_XMM + 8)
    put(&t, 0x01, 1)
    put(&t, 0x4531DBC3, 4)                      # xor r11d, r11d; ret
    # the same with their upper halves
    halves_at = <u32>(t.at - g.native_write)
    put(&t, 0x448B9C24, 4)                      # mov r11d, [rsp + vex_trap]
    put32(&t, AT_VEX + 8)
    put(&t, 0x4585DB7401C3, 6)                  # test r11d, r11d; jz over; ret
    put(&t, 0x80BC24, 3)                        # cmp byte [rsp + …], 0
    put32(&t, AT_XMM + 8)
    put(&t, 0, 1)
    same = branch(&t, 5)
    load_vectors(&t)
    land(&t, same)
    from_cpu(&t, H_B, AT_FX + 8)
    upper_halves(&t, False, H_B)
    put(&t, 0xC68424, 3)                        # mov byte [rsp + …], 3
    put32(&t, AT_XMM + 8)
    put(&t, 0x03, 1)
    put(&t, 0x4531DBC3, 4)                      # xor r11d, r11d; ret
    # the TLB learns of linear address r10; r11d: the access, its size or 256. Not zero: it is worth another try
    fill = t.at
    for n in range(10):
        if n < 3 or n > 5:
            to_cpu(&t, host_of(n), 8 * n + 8)
    put(&t, 0x80BC24, 3)                        # cmp byte [rsp + …], 0
    put32(&t, AT_XMM + 8)
    put(&t, 0, 1)
    same = branch(&t, 4)
    from_cpu(&t, 7, AT_FX + 8)
    vectors_of(&t, True, 7)
    held_halves(&t, True, 7, 8)
    land(&t, same)
    move(&t, 6, H_A)
    with_reg(&t, False, OP_LOAD, H_RDX, H_B)
    with_mem(&t, OP_LEA, 7, H_RSP, 8)
    with_mem(&t, OP_LOAD, H_RSP, 7, AT_SP)
    put(&t, 0x5748B8, 3)                        # push rdi; mov rax, …
    (<u64 *>t.at)[0] = <u64><void *>learn
    t.at += 8
    put(&t, 0xFFD0415B, 4)                      # call rax; pop r11
    with_mem(&t, OP_LEA, H_RSP, H_B, -8)
    with_reg(&t, False, OP_LOAD, H_A, H_RAX)
    put(&t, 0x80BC24, 3)
    put32(&t, AT_XMM + 8)
    put(&t, 0, 1)
    none = branch(&t, 4)
    from_cpu(&t, 7, AT_FX + 8)
    vectors_of(&t, False, 7)
    held_halves(&t, False, 7, 8)
    land(&t, none)
    for n in range(10):
        if n < 3 or n > 5:
            from_cpu(&t, host_of(n), 8 * n + 8)
    put(&t, 0x4585D2C3, 4)                      # test r10d, r10d; ret
    # to it, where r10 is the address less the TLB's entry's, which r11 points to
    for n in range(2 * SIZES):
        fill_at[n] = <u32>(t.at - g.native_write)
        with_mem(&t, OP_ADD, H_A, H_B, 8 if n >= SIZES else 0)
        put(&t, 0x41BB, 2)                      # mov r11d, …
        put32(&t, 1 << n % SIZES | (256 if n >= SIZES else 0))
        jump_to(&t, fill + t.shift)
    # to a block without code: r10 is the block, or it is in the jump cache's entry at r10
    g.cold_entry = <u32>(t.at - g.native_write)
    put(&t, 0x458B5208, 4)                      # mov r10d, [r10 + block]
    with_mem(&t, OP_ADD, H_A, H_RSP, AT_ARENA)
    put(&t, 0x41FF62, 3)                        # jmp [r10 + native]
    put(&t, AT_NATIVE, 1)
    g.cold = t.at + t.shift
    with_mem(&t, OP_LEA, H_A, H_A, 1)
    jump_to(&t, g.native_run + exit_at)
    # by the place that Cpu.link points to, to offset r10 in the page: its block's code, or to the interpreter to find one
    follow_at = <u32>(t.at - g.native_write)
    from_cpu(&t, H_B, AT_LINK)
    with_mem(&t, OP_LOAD, H_B, H_B, 0)
    put(&t, 0x4D85DB, 3)                        # test r11, r11
    same = branch(&t, 4)
    move(&t, H_A, H_B)
    put(&t, 0x4531DB, 3)                        # xor r11d, r11d
    to_cpu(&t, H_B, AT_LINK)
    put(&t, 0x41FF62, 3)                        # jmp [r10 + native]
    put(&t, AT_NATIVE, 1)
    land(&t, same)
    with_mem(&t, OP_ADD, H_A, H_RSP, R_RIPB)
    to_cpu(&t, H_A, AT_RIP)
    from_cpu(&t, H_B, AT_LINK)
    move(&t, H_A, H_B)
    put(&t, 0x4983E2E0, 4)                      # and r10, -32: a Link's size
    to_cpu(&t, H_A, AT_LINK)
    put(&t, 0x41C1EB034183E301, 8)              # shr r11d, 3; and r11d, 1
    put(&t, 0x44899C24, 4)                      # mov [rsp + …], r11d
    put32(&t, AT_FALL)
    put(&t, 0x4531D2, 3)                        # xor r10d, r10d
    jump_to(&t, g.native_run + exit_at)
    # called: r11 is where to go on to RIP r10
    base = t.at + t.shift
    (<u64 *>t.at)[0] = <u64>g.native_run
    t.at += 8
    find_at = <u32>(t.at - g.native_write)
    to_cpu(&t, H_A, AT_RIP + 8)
    put(&t, 0x4D89D349C1EB08, 7)                # mov r11, r10; shr r11, 12 - 4
    put(&t, 0x4181E3, 3)                        # and r11d, …
    put32(&t, (ITLB_SIZE - 1) * sizeof(ItlbEntry))
    with_mem(&t, OP_ADD, H_B, H_RSP, AT_ITLB + 8)
    with_mem(&t, OP_SUB, H_A, H_B, 0)
    put(&t, 0x4981FA, 3)                        # cmp r10, 4095
    put32(&t, 4095)
    missed[0] = branch(&t, 7)
    with_mem(&t, OP_ADD, H_A, H_B, 8)
    put(&t, 0x4D89D349C1EB10, 7)                # mov r11, r10; shr r11, 16
    put(&t, 0x4D31D3, 3)                        # xor r11, r10
    put(&t, 0x4181E3, 3)                        # and r11d, …
    put32(&t, JCACHE_SIZE - 1)
    put(&t, 0x49C1E304, 4)                      # shl r11, 4
    with_mem(&t, OP_ADD, H_B, H_RSP, AT_JCACHE + 8)
    with_mem(&t, OP_OR, H_A, H_RSP, AT_KEY + 8)
    with_mem(&t, OP_CMP, H_A, H_B, 0)
    missed[1] = branch(&t, 5)
    from_cpu(&t, H_A, AT_RIP + 8)
    put(&t, 0x4981E2, 3)                        # and r10, -4096
    put32(&t, -4096)
    to_cpu(&t, H_A, R_RIPB + 8)
    move(&t, H_A, H_B)
    put(&t, 0x458B5A0C, 4)                      # mov r11d, [r10 + native]
    pointer(&t, OP_ADD, H_B, base)
    put(&t, 0xC3, 1)                            # ret
    for n in range(2):
        land(&t, missed[n])
    put(&t, 0x4531D2, 3)                        # xor r10d, r10d
    pointer(&t, OP_LEA, H_B, g.native_run + exit_at)
    put(&t, 0xC3, 1)
    g.native_first = g.native_used = (<u64>(t.at - g.native_write) + 63) & ~<u64>63
    g.apart_first = g.apart_used = g.native_size // 2
    g.great[0], g.great[1] = 0, g.apart_first


cdef int open_room(Guest *g, u8 *run, u8 *write, u64 size, u32 hot) noexcept nogil:
    """Memory for code at `run` (not far from the blocks), which are translated from now on. 0: the host refuses.

    `run` and `write`, where it is written: addresses that are taken.
    """
    cdef int fd = vr_room()
    cdef void *first
    cdef void *second
    if fd < 0:
        return 0
    if ftruncate(fd, <i64>size) < 0:
        close(fd)
        return 0
    first = mmap(write, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0)
    second = mmap(run, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0)
    close(fd)
    if first == MAP_FAILED or second == MAP_FAILED:
        return 0
    measure()
    g.native_write, g.native_run, g.native_size, g.hot = <u8 *>first, <u8 *>second, size, hot
    g.hotspot = translate
    trampolines(g)
    if g.apart_first < g.native_first + LEAST_ROOM:
        g.native_write = NULL
    return g.native_write != NULL


def available():
    """Does this host give memory for translated code?"""
    cdef Guest g
    cdef u64 size = 65536
    cdef void *run = mmap(NULL, 2 * size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    cdef bint works
    if run == MAP_FAILED:
        return False
    works = open_room(&g, <u8 *>run, <u8 *>run + size, size, 0)
    munmap(run, 2 * size)
    return works
