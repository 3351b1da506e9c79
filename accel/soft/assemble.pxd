# Writing the host's instructions. The documentation is in assemble.pyx.
from accel.soft.block cimport MOST
from accel.soft.cpu cimport *
from accel.soft.guest cimport Guest
from accel.soft.insn cimport *
from accel.soft.native cimport Form

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
    SIZES = 6               # of accesses: 1 … 32 bytes
    FIXES = 160
    OP_LEA = 0x8D
    OP_LOAD = 0x8B
    OP_STORE = 0x89
    OP_ADD = 0x03
    OP_OR = 0x0B
    OP_SUB = 0x2B
    OP_CMP = 0x3B

# A block while it is translated.
ctypedef struct Work:
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

# Where things are in Cpu (and Block.native), and in the room, once it is open.
ctypedef struct Places:
    u32 budget, tlb, rip, block, link, fall, key, flags, host_sp, jcache, itlb, native, fx, arena, xmm, mxcsr, trap, narrow, vex
    u32 vectors, halves     # called: XMM registers, YMM registers into the host's
    u32 fill[2 * SIZES]     # called: the TLB learns, for accesses of 1, 2 … 32 bytes; then for writes
    u32 exit                # back to C, with what R10 says
    u32 find                # called: R11 is where to go on to RIP R10
    u32 follow              # on by the place that Cpu.link points to

cdef Places where

cdef inline void put(Work *t, u64 bytes, u32 count) noexcept nogil:
    """`count` bytes, written as one number: 0x0F1007 is 0F 10 07."""
    cdef u32 n
    for n in range(count):
        t.at[0] = <u8>(bytes >> (8 * (count - 1 - n)))
        t.at += 1

cdef inline void put32(Work *t, i64 value) noexcept nogil:
    (<i32 *>t.at)[0] = <i32>value
    t.at += 4

cdef inline u32 rex(bint wide, u32 reg, u32 index, u32 base) noexcept nogil:
    return 0x40 | wide << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3

cdef inline u32 host_of(u32 n) noexcept nogil:
    if n == 4:
        return H_SP
    return NOWHERE if n == 10 or n == 11 or n == 15 else n

cdef void measure() noexcept nogil
cdef void modrm_mem(Work *t, u32 reg, u32 base, i64 disp) noexcept nogil
cdef void with_mem(Work *t, u32 op, u32 reg, u32 base, i64 disp) noexcept nogil
cdef void with_word(Work *t, u32 op, u32 reg, u32 base, i64 disp) noexcept nogil
cdef void with_reg(Work *t, bint wide, u32 op, u32 reg, u32 rm) noexcept nogil
cdef void from_cpu(Work *t, u32 reg, u32 at) noexcept nogil
cdef void to_cpu(Work *t, u32 reg, u32 at) noexcept nogil
cdef void move(Work *t, u32 to, u32 source) noexcept nogil
cdef void pointer(Work *t, u32 op, u32 reg, void *to) noexcept nogil
cdef void jump_to(Work *t, u8 *target) noexcept nogil
cdef void leads_out(Work *t) noexcept nogil
cdef u8 *branch(Work *t, u32 condition) noexcept nogil
cdef void land(Work *t, u8 *behind) noexcept nogil
cdef u32 read_reg(Work *t, u32 n, u32 scratch) noexcept nogil
cdef void keep_flags(Work *t) noexcept nogil
cdef void hold_flags(Work *t) noexcept nogil
cdef void disturb(Work *t) noexcept nogil
cdef void offset_into(Work *t, const Insn *i, u32 to, bint wide) noexcept nogil
cdef void check(Work *t, u32 size, bint write, u8 *again) noexcept nogil
cdef void reach(Work *t, const Insn *i, u32 size, bint write) noexcept nogil
cdef void reach_stack(Work *t, bint write) noexcept nogil
cdef void move_stack(Work *t, i64 by) noexcept nogil
cdef void flags_for(Work *t, const Insn *i, const Form *f) noexcept nogil
cdef void flags_of(Work *t, const Form *f) noexcept nogil
