# The processor as data, and what every handler needs of it inline: registers, lazy flags, memory through the TLB, leaving and linking blocks.
# Read this file first: the conventions of the whole package are here.
#
# A handler executes one predecoded operation (Uop) and tail-calls the next: it ends in `next(c, u)`, or, for a branch,
# in `jump(c, u, …)` / `go(c)`. When it cannot go on it sets c.rip and returns, which leads back to the run loop.
#
# Registers are named by their byte offset in Cpu (a u8), so AH is 1 and R9D is 72, and a handler needs no table.
# R_ZERO always reads 0 (no base, no index, flat segment); it must never be written.
#
# RIP is not kept up to date. c.regs[RIPB] + u.off is the RIP of the running instruction: RIPB is what RIP would be at
# the start of the page (of linear addresses) the block lies in. Blocks are therefore valid at any address.

from accel.api cimport i8, i32, i64, u8, u32, u64

ctypedef unsigned short u16
ctypedef short i16

cdef extern from * nogil:
    """
    /* The next operation, computed in the register that the call wants it in: gcc would rather keep a copy. */
    static inline void *vr_step(void *u) { u = (char *)u + 32; __asm__("" : "+r"(u)); return u; }
    """
    bint likely(bint)
    bint unlikely(bint)
    void unreachable "__builtin_unreachable"()
    void *vr_step(void *)

ctypedef void (*Handler)(Cpu *c, Uop *u) noexcept nogil

# 32 bytes. Register fields are byte offsets into Cpu.
ctypedef struct Uop:
    Handler fn
    i64 imm                 # immediate; of a branch: target as offset from RIPB (may lie outside 0..4095)
    i32 disp
    u16 off                 # of the instruction's first byte within its page
    u8 len                  # of the instruction, bytes
    u8 d                    # destination register
    u8 s                    # source register
    u8 base                 # memory operand: [base] + ([index] << scale) + disp + [seg]
    u8 index
    u8 scale
    u8 seg                  # R_ZERO, or the offset of a segment's base (R_FS, R_GS …)
    u8 a, b, x              # what else a handler needs: segment number, size, condition …

# A branch at the end of a block is followed by one of these in place of a Uop (the same 32 bytes).
ctypedef struct Link:
    Block *ways[2]          # blocks in the same page it leads to: taken, fall. NULL: not known yet, or not any more
    u32 more[2]             # the next of the places that hold the same block (Block.places), from the arena's beginning
    u32 stub[2]             # of the host's code for it (translate.pyx), from the room's beginning; 0: there is none

ctypedef struct Block:
    u64 host                # host address of the first byte: the same memory under another address is the same code
    u32 mode                # MODE_… it was decoded for
    u16 count               # instructions
    u16 uops                # operations, links included
    u16 low, high           # offsets in the page: what it depends on, its own code and what it looked at behind
    u16 dead                # invalidated: its operations lead out
    u16 linked              # the last of its operations is a Link
    Block *next             # in its hash bucket
    Block *page_next        # of the same page
    Block **places          # Link.ways that hold it
    u8 *native              # host code, or what leads to the interpreter (translate.pyx)
    u64 digest              # of the bytes low … high, where processors have threads (code.pyx)
                            # 64 bytes: each of the operations that follow lies in one cache line

ctypedef struct TlbEntry:
    u64 rtag                # linear address of the page when it may be read, else an address of another index
    u64 wtag                # the same for writes (only once the page is dirty, and holds no code)
    u64 host                # address of the page in the host's memory
    u64 phys                # page address | TLB_…

cdef enum:
    TLB_BITS = 10
    TLB_SIZE = 2048
    TLB_EXEC = 1            # may be executed (NX clear, or no NX)
    TLB_GLOBAL = 2
    TLB_WRITE = 4           # may be written, and D is set; there is no write tag all the same when it holds code
    FRESH = 512             # entries that a change of address space drops one by one
    WALKED = 64
    JCACHE_SIZE = 65536
    ITLB_SIZE = 1024
    ITLB_FRESH = 64

# Where a walk through the page tables ended, so that the next one in the same 2 MiB begins there (long mode).
ctypedef struct Walked:
    u64 gen                 # valid while equal to c.gen_walk
    u64 tag                 # linear address >> 21
    u64 table               # physical address of the last table, …
    u64 nx                  # and what those above it allow
    u32 rights
    u32 level               # 1: of pages of 4 KiB; 2, 3: of greater ones

# Where blocks are by host address: the jump cache, of all processors that share a Guest. Mappings of the guest's do not
# matter to it. What a page of linear addresses is to the fetch of instructions says the other table.
ctypedef struct JumpEntry:
    u64 key                 # block_key(); 0: none
    u32 block               # from the arena's beginning
    u32 native              # Block.native, from the room's

ctypedef struct ItlbEntry:
    u64 tag                 # linear address of the page, else that of a page with another index
    u64 host                # of the page

# Segment attributes as in VMX and KVM: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
cdef enum:
    AR_TYPE = 15
    AR_ACCESSED = 1
    AR_RW = 2               # data: writable; code: readable
    AR_CE = 4               # data: expand-down; code: conforming
    AR_CODE = 8
    AR_S = 0x10
    AR_DPL = 0x60
    AR_P = 0x80
    AR_L = 0x2000
    AR_DB = 0x4000
    AR_G = 0x8000
    AR_UNUSABLE = 0x10000

cdef enum:                  # segment numbers, as instructions encode them
    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5
    LDTR = 6
    TR = 7

cdef enum:                  # offsets of registers in Cpu (index * 8)
    RAX = 0
    RCX = 8
    RDX = 16
    RBX = 24
    RSP = 32
    RBP = 40
    RSI = 48
    RDI = 56
    R_ZERO = 128
    R_RIPB = 136
    R_ES = 144              # bases of the six segments, in order
    R_CS = 152
    R_SS = 160
    R_DS = 168
    R_FS = 176
    R_GS = 184
    R_EA = 192              # linear address that an address operation left for the one after it
    R_T0 = 200
    R_T1 = 208

cdef enum:                  # the same as indices into Cpu.regs
    ZERO = 16
    RIPB = 17
    BASE = 18               # regs[BASE + segment number]
    EA = 24

# The key of a block beside its address. Only what changes how bytes are decoded or where they may run.
cdef enum:
    MODE_16 = 0
    MODE_32 = 1
    MODE_64 = 2
    MODE_BITS = 3
    MODE_STACK32 = 4        # SS.B (always set in 64-bit mode)
    MODE_FLAT = 8           # ES, SS, DS and CS: base 0, limit 4 GiB, writable data: no checks on their use
    MODE_USER = 16          # CPL 3
    MODE_STEP = 32          # one instruction a block: TF, instruction breakpoints

cdef enum:                  # flags of EFLAGS
    F_CF = 1
    F_PF = 4
    F_AF = 0x10
    F_ZF = 0x40
    F_SF = 0x80
    F_TF = 0x100
    F_IF = 0x200
    F_DF = 0x400
    F_OF = 0x800
    F_IOPL = 0x3000
    F_NT = 0x4000
    F_RF = 0x10000
    F_VM = 0x20000
    F_AC = 0x40000
    F_VIF = 0x80000
    F_VIP = 0x100000
    F_ID = 0x200000
    F_STATUS = 0x8D5        # CF PF AF ZF SF OF: these live in fz, fs, fc and nowhere else

cdef enum:                  # exceptions
    X_DE = 0
    X_DB = 1
    X_NMI = 2
    X_BP = 3
    X_OF = 4
    X_BR = 5
    X_UD = 6
    X_NM = 7
    X_DF = 8
    X_TS = 10
    X_NP = 11
    X_SS = 12
    X_GP = 13
    X_PF = 14
    X_MF = 16
    X_AC = 17
    X_MC = 18
    X_XM = 19

cdef enum:                  # Cpu.stop: why the handlers returned
    STOP_NEXT = 0           # nothing special: look the block at c.rip up and go on
    STOP_EXCEPTION = 1      # c.vector, c.error; c.rip is the RIP to be saved
    STOP_HALT = 2           # hlt; c.rip is behind it
    STOP_EVENT = 3          # look for interrupts before going on (after sti, popf, I/O, CR8 …)
    STOP_SHUTDOWN = 4       # triple fault
    STOP_LEAVE = 5          # back to the scheduler (an Action was asked for)

cdef enum:                  # Cpu.vex_trap
    VEX_NONE = 1            # real or virtual-8086 mode: #UD
    VEX_OFF = 2             # no CR4.OSXSAVE, or XCR0 without AVX: #UD for vectors
    VEX_AWAY = 4            # CR0.TS: #NM

cdef enum:                  # Cpu.host_stop
    HOST_STEP = 1
    HOST_SOFTWARE = 2
    HOST_HARDWARE = 4

cdef enum:                  # Cpu.pending: events that wait, set by any thread with pend()
    PEND_INTR = 1
    PEND_NMI = 2
    PEND_SMI = 4
    PEND_INIT = 8
    PEND_SIPI = 16
    PEND_STOP = 32          # the scheduler wants the processor out
    PEND_FLUSH = 64         # memory layout changed: drop the TLB and all links

ctypedef struct Segment:    # the base is c.regs[BASE + n] for the six; for LDTR and TR it is here
    u64 base
    u32 limit               # in bytes, granularity applied
    u32 ar                  # AR_…
    u16 sel

ctypedef struct Table:
    u64 base
    u16 limit

ctypedef struct CpuidLeaf:
    u32 function, index, flags, eax, ebx, ecx, edx      # flags 1: index is significant

# Performance counters (pmu.pyx).
ctypedef struct Pmu:
    u64 selects[4]
    u64 counters[4]         # of 48 bits
    u64 fixed[3]
    u64 fixed_control, control, status
    u64 instructions, cycles        # as of when the counters were last added to,
    u32 cpl                 # for this one
    bint active             # one of them counts
    bint due                # an overflow is to interrupt

# Memory behind the TLB (mmu.pyx), by linear address. 0: done; else an exception is noted.
ctypedef struct Memory:
    int (*load)(Cpu *c, u64 ea, u32 size, u64 *value) noexcept nogil        # 1, 2, 4, 8 bytes, with the rights of CPL
    int (*load_rmw)(Cpu *c, u64 ea, u32 size, u64 *value) noexcept nogil    # the same; faults as a write would
    int (*store)(Cpu *c, u64 ea, u32 size, u64 value) noexcept nogil
    int (*load_bytes)(Cpu *c, u64 ea, u32 size, void *data) noexcept nogil      # any size up to 4096
    int (*store_bytes)(Cpu *c, u64 ea, u32 size, const void *data) noexcept nogil   # all or nothing
    int (*probe)(Cpu *c, u64 ea, u32 size, bint write) noexcept nogil       # would fault? no access is made
    int (*sys_load)(Cpu *c, u64 ea, u32 size, u64 *value) noexcept nogil    # as supervisor: descriptors, TSS
    int (*sys_store)(Cpu *c, u64 ea, u32 size, u64 value) noexcept nogil
    void (*flush)(Cpu *c, bint globals_too) noexcept nogil                  # TLB and jump cache
    void (*flush_page)(Cpu *c, u64 ea) noexcept nogil                       # invlpg
    void (*set_mode)(Cpu *c) noexcept nogil     # after any change of CS, SS, DS, ES, CPL, CR0, EFER, TF, DR7: mode, tlb

# What the processor asks of its surroundings (vcpu.pyx). All take the device lock themselves.
ctypedef struct Hooks:
    u64 (*port_in)(Cpu *c, u32 port, u32 size) noexcept nogil
    void (*port_out)(Cpu *c, u32 port, u32 size, u64 value) noexcept nogil
    void (*port_in_string)(Cpu *c, u32 port, u32 size, u8 *data, u32 count) noexcept nogil
    void (*port_out_string)(Cpu *c, u32 port, u32 size, u8 *data, u32 count) noexcept nogil
    u64 (*phys_load)(Cpu *c, u64 phys, u32 size) noexcept nogil
    void (*phys_store)(Cpu *c, u64 phys, u32 size, u64 value) noexcept nogil
    u64 (*tsc)(Cpu *c) noexcept nogil                   # without TSC_ADJUST / offset: c.tsc_offset is added by rdtsc
    int (*rdmsr)(Cpu *c, u32 msr, u64 *value) noexcept nogil    # APIC base, x2APIC, TSC deadline, kvmclock; -1: #GP
    int (*wrmsr)(Cpu *c, u32 msr, u64 value) noexcept nogil
    u32 (*get_tpr)(Cpu *c) noexcept nogil               # CR8
    void (*set_tpr)(Cpu *c, u32 value) noexcept nogil
    int (*acknowledge)(Cpu *c) noexcept nogil           # vector of the pending interrupt, -1: none any more

ctypedef struct Cpu:
    u64 regs[32]            # first, so that a register's offset is its offset in Cpu. 16-: see R_ZERO …
    # --- lazy status flags: ZF = (fz == 0); SF = sign of fs; PF = even parity of fs's low byte;
    #     CF = bit 63 of fc; OF = bit 63 ^ bit 62 of fc; AF = bit 3 of fc
    i64 fz
    i64 fs
    u64 fc
    i64 budget              # instructions left in this slice; a block is entered while >= 0
    TlbEntry *tlb           # tlbs[CPL == 3]
    ItlbEntry *itlb         # itlbs[CPL == 3]
    u64 mode_key            # of c.mode in block_key()
    Memory memory
    void (*unlinked)(Cpu *c, Uop *u, i64 target, bint fall) noexcept nogil  # jump() without a link, or at a slice's end
    Block *block            # that runs (the last one entered by the run loop or a link)
    u32 mode
    u32 stop                # STOP_…
    u64 rip                 # valid only outside handlers
    Link *link              # branch that wants to be linked to the block at c.rip, or NULL
    u32 link_fall           # 1: its fall side
    u32 pending             # PEND_…; also written by other threads: use pend() / vr_pending()
    u32 eflags              # everything but the status flags; bit 1 set
    u32 cpl
    # --- exception being raised
    u32 vector, error
    bint has_error
    u32 shadow              # until after the next instruction: 1 no interrupts (sti, mov ss), 2 no #DB, 4 behind mov ss
    bint implicit           # an access is the processor's own: descriptors, TSS
    bint far_out            # the #GP is for far_address, which is not canonical: #SS when it is the stack's
    u64 far_address
    # --- system state
    u64 cr0, cr2, cr3, cr4
    u64 efer
    u64 dr[4]
    u64 dr6, dr7
    u64 debug_hits
    Segment seg[8]
    Table gdt, idt
    u64 star, lstar, cstar, sfmask, kernel_gs
    u64 sysenter_cs, sysenter_esp, sysenter_eip
    u64 pat, misc_enable, tsc_aux, tsc_offset, mtrr_def, spec_ctrl, pkrs
    u64 mtrr_fixed[11]
    u64 mtrr_base[8]
    u64 mtrr_mask[8]
    u64 mcg_status
    u64 mc_ctl[10]
    bint nmi_blocked, in_smm, halted, wait_sipi
    u32 smbase
    u8 sipi_vector
    u64 a20_mask            # ~0, or ~(1 << 20)
    u64 phys_mask           # of physical addresses: (1 << MAXPHYADDR) - 1
    u64 pdpte[4]            # PAE: loaded with CR3
    Pmu pmu
    u32 counting            # version of the performance counters, as CPUID says
    # --- CPUID
    CpuidLeaf *cpuid
    u32 cpuid_count
    u32 features[8]         # FEAT_… words: 1.edx, 1.ecx, 80000001.edx, 80000001.ecx, 7.ebx, 7.ecx, 7.edx,
                            # 80000008.ebx
    # --- x87, MMX, SSE, AVX (fpu.pyx)
    u8 *fx                  # XSAVE's area in its standard form: FXSAVE's 512 bytes, the header, YMM's upper halves
    u32 mxcsr
    bint fp_live            # the x87 state is in the host's FPU, not in fx
    bint fp_trap            # CR0.EM or CR0.TS: x87/MMX raise #NM
    bint sse_trap           # CR0.TS (#NM), CR0.EM or no CR4.OSFXSR (#UD)
    u32 vex_trap            # VEX_…: why an instruction with VEX must not be executed
    u64 xcr0, xcr_mask      # and what may be set in it
    u32 keys_at             # where PKRU lies in an XSAVE area, as CPUID says
    # --- translated code (translate.pyx)
    u64 host_sp             # the stack of the thread while RSP points here
    u64 native_spare[2]
    u32 native_flags        # status flags as lahf and seto leave them in AX
    u32 native_xmm          # 1: the XMM registers are the host's
    u32 narrow              # bits 0, 1: FS, GS is not a writable segment of 4 GiB
    # --- the rest is cold
    TlbEntry *tlbs[3]       # supervisor, user; the third stays empty: every access looks (alignment check, watch points)
    Walked walked[WALKED]
    u64 gen_walk            # changes with everything that drops a translation
    u64 large[64]           # a bit for each 2 MiB (number & 4095) with parts of a page of that size in the TLB
    u64 huge                # the same for 1 GiB (number & 63) and greater pages
    u16 fresh[2][FRESH]     # entries filled since the last flush that are not global
    u32 fresh_count[2]      # more than FRESH: any entry
    JumpEntry *jcache       # Guest.jcache
    u8 *arena               # Guest.arena
    ItlbEntry *itlbs[2]     # supervisor, user
    u16 itlb_fresh[2][ITLB_FRESH]       # entries filled since the last flush that are not global
    u32 itlb_count[2]       # more than ITLB_FRESH: any entry
    Hooks hooks
    void *owner             # SoftCpu
    void *guest             # Guest (mmu.pxd)
    void *scratch           # for blocks that are not kept (block.pyx)
    u64 seed                # of rdrand, where runs are to be repeatable; 0: the host's numbers
    bint exact              # by the clock of instructions: a slice is never cut short from outside
    u64 slice               # budget at the slice's start
    u64 executed            # instructions before this slice
    u32 index
    # --- a debugger of the host's (vcpu.pyx): points in the form of DR0-3 and DR7, beside the guest's own
    u64 host_dr[4]
    u64 host_dr7
    u32 host_hits           # points that the present instruction touched, a bit each
    u32 host_stop           # HOST_…: the processor stopped for it
    bint host_step          # one instruction, without interrupts
    bint host_int3          # int3 is the debugger's
    bint host_frozen        # it stays where it is
    u64 last_cr0, last_cr4, last_efer                   # what the TLB's contents depend on
    u64 faults, fills, builds, lookups, misses          # counts; misses: look-ups that the jump cache did not know;
    u64 slow                # accesses that the TLB did not answer
    # an instruction with LOCK, where processors have threads (block.pyx)
    u32 locked              # it runs: a store is one only if memory is what it was at the load
    u32 pauses
    u64 lock_old
    TlbEntry *lock_tlb      # Cpu.tlb, which is the empty one meanwhile
    int (*exchange16)(Cpu *c, u64 ea, u64 *found, const u64 *value) noexcept nogil      # cmpxchg16b (mmu.pyx)


# --- registers ---------------------------------------------------------------------------------------------------------

cdef inline u64 *r64(Cpu *c, u32 at) noexcept nogil:
    return <u64 *>(<u8 *>c + at)

cdef inline u32 *r32(Cpu *c, u32 at) noexcept nogil:
    return <u32 *>(<u8 *>c + at)

cdef inline u16 *r16(Cpu *c, u32 at) noexcept nogil:
    return <u16 *>(<u8 *>c + at)

cdef inline u8 *r8(Cpu *c, u32 at) noexcept nogil:
    return <u8 *>c + at

cdef inline u64 address(Cpu *c, Uop *u) noexcept nogil:
    """Linear address of the memory operand (64-bit addressing, or what an address operation prepared)."""
    return r64(c, u.base)[0] + (r64(c, u.index)[0] << u.scale) + <u64><i64>u.disp + r64(c, u.seg)[0]

cdef inline u64 based(Cpu *c, Uop *u) noexcept nogil:
    """The same for an operand without index and segment, as most are."""
    return r64(c, u.base)[0] + <u64><i64>u.disp

cdef inline bint is_based(const Uop *u) noexcept nogil:
    return u.index == R_ZERO and u.seg == R_ZERO


# --- going on, leaving, linking ----------------------------------------------------------------------------------------

cdef inline void next(Cpu *c, Uop *u) noexcept nogil:
    """Last statement of a handler: the following operation."""
    cdef Uop *following = <Uop *>vr_step(u)
    following.fn(c, following)

cdef inline u64 rip_of(Cpu *c, Uop *u) noexcept nogil:
    return c.regs[RIPB] + u.off

cdef inline u64 rip_after(Cpu *c, Uop *u) noexcept nogil:
    return c.regs[RIPB] + u.off + u.len

cdef inline u64 rip_mask(u32 mode) noexcept nogil:
    return ~<u64>0 if mode & MODE_64 else <u64>0xFFFFFFFF

cdef inline void fault(Cpu *c, Uop *u) noexcept nogil:
    """Leave with the exception that raised() or a failed access has noted. `fault(c, u); return`."""
    c.rip = rip_of(c, u)

cdef inline void raised(Cpu *c, u32 vector, u32 error, bint has_error) noexcept nogil:
    c.vector = vector
    c.error = error
    c.has_error = has_error
    c.far_out = False
    c.stop = STOP_EXCEPTION

cdef inline void raise_at(Cpu *c, Uop *u, u32 vector) noexcept nogil:
    """#UD, #DE, … without an error code. `raise_at(c, u, X_UD); return`."""
    raised(c, vector, 0, False)
    c.rip = rip_of(c, u)

cdef inline void raise_gp(Cpu *c, Uop *u, u32 error) noexcept nogil:
    raised(c, X_GP, error, True)
    c.rip = rip_of(c, u)

cdef inline void leave(Cpu *c, Uop *u, u32 stop) noexcept nogil:
    """Back to the run loop behind this instruction."""
    c.rip = rip_after(c, u) & rip_mask(c.mode)
    c.stop = stop

cdef inline Uop *code_of(Block *block) noexcept nogil:
    return <Uop *>(block + 1)

cdef inline void enter(Cpu *c, Block *block) noexcept nogil:
    c.block = block
    code_of(block).fn(c, code_of(block))

cdef inline u64 block_key(u64 host, u32 mode) noexcept nogil:
    return host | <u64>mode << 48

cdef inline u32 jump_slot(u64 host) noexcept nogil:
    return <u32>(host ^ (host >> 16)) & (JCACHE_SIZE - 1)

cdef inline Block *at_hand(Cpu *c, u64 *ripb) noexcept nogil:
    """The block at c.rip when both caches know the way, and what RIPB is there; else NULL."""
    cdef u64 linear = c.rip, host
    cdef ItlbEntry *page
    cdef JumpEntry *e
    if not c.mode & MODE_64:
        if c.rip > c.seg[CS].limit:
            return NULL
        linear = (linear + c.regs[BASE + CS]) & <u64>0xFFFFFFFF
    page = &c.itlb[(linear >> 12) & (ITLB_SIZE - 1)]
    if unlikely(linear - page.tag > 4095):
        return NULL
    host = linear - page.tag + page.host
    e = &c.jcache[jump_slot(host)]
    if unlikely(e.key != host | c.mode_key):
        return NULL
    ripb[0] = c.rip - (linear & 0xFFF)
    return <Block *>(c.arena + e.block)

cdef inline void go(Cpu *c) noexcept nogil:
    """To c.rip, anywhere: through the jump cache when it knows the way, else by the run loop. A tail call."""
    cdef u64 ripb = 0
    cdef Block *block = at_hand(c, &ripb)
    if likely(block != NULL):
        c.budget -= block.count
        if likely(c.budget >= 0):
            c.regs[RIPB] = ripb
            enter(c, block)
            return
        c.budget += block.count
        c.stop = STOP_EVENT
        return
    c.stop = STOP_NEXT

cdef inline void jump(Cpu *c, Uop *u, i64 target, bint fall) noexcept nogil:
    """A direct branch to offset `target` from RIPB, with the Link behind `u` (u[1]). A tail call.

    `fall` (a constant): the fall side of the link. The target is masked by the caller when the operand size cuts RIP.
    """
    cdef Link *link = <Link *>(u + 1)
    cdef Block *block = link.ways[fall]
    if likely(block != NULL):
        c.budget -= block.count
        if likely(c.budget >= 0):
            enter(c, block)
            return
        c.budget += block.count
    c.unlinked(c, u, target, fall)


# --- flags -------------------------------------------------------------------------------------------------------------

cdef inline u32 parity(u64 value) noexcept nogil:
    """F_PF when the low byte has an even number of ones."""
    cdef u32 v = <u32>value & 0xFF
    v ^= v >> 4
    return ((0x9669 >> (v & 15)) & 1) << 2

cdef inline u32 status_flags(Cpu *c) noexcept nogil:
    """CF PF AF ZF SF OF as EFLAGS has them."""
    return (
        <u32>(c.fc >> 63)
        | parity(<u64>c.fs)
        | <u32>((c.fc & 8) << 1)
        | (F_ZF if c.fz == 0 else 0)
        | (F_SF if c.fs < 0 else 0)
        | (<u32>((c.fc ^ (c.fc << 1)) >> 63) << 11)
    )

cdef inline void set_status_flags(Cpu *c, u32 flags) noexcept nogil:
    c.fz = 0 if flags & F_ZF else 1
    c.fs = <i64>((<u64>(flags & F_SF) << 56) | (0 if flags & F_PF else 1))
    # bit 63 CF, bit 62 CF ^ OF, bit 3 AF
    c.fc = (<u64>(flags & 1) << 63) | (<u64>((flags ^ (flags >> 11)) & 1) << 62) | ((flags & F_AF) >> 1)

cdef inline u32 get_eflags(Cpu *c) noexcept nogil:
    return c.eflags | status_flags(c)

cdef inline u32 carry(Cpu *c) noexcept nogil:
    return <u32>(c.fc >> 63)


# --- memory ------------------------------------------------------------------------------------------------------------
# Everything by linear address. Not 0: an exception is noted, the handler does `fault(c, u); return`.
# Accesses may be misaligned and may cross pages; the slow functions (mmu.pyx) see to it, and to devices.

cdef inline u8 *readable(Cpu *c, u64 ea, u32 size) noexcept nogil:
    """Host address of `size` bytes at `ea` when the TLB allows reading them here, else NULL."""
    cdef TlbEntry *e = &c.tlb[(ea >> 12) & (TLB_SIZE - 1)]
    cdef u64 at = ea - e.rtag
    if likely(at <= 4096 - size):
        if at + e.host == 0:
            unreachable()
        return <u8 *>(at + e.host)
    return NULL

cdef inline u8 *writable(Cpu *c, u64 ea, u32 size) noexcept nogil:
    """The same for writing (and reading: a read-modify-write in place)."""
    cdef TlbEntry *e = &c.tlb[(ea >> 12) & (TLB_SIZE - 1)]
    cdef u64 at = ea - e.wtag
    if likely(at <= 4096 - size):
        if at + e.host == 0:
            unreachable()
        return <u8 *>(at + e.host)
    return NULL

cdef inline int ld64(Cpu *c, u64 ea, u64 *value) noexcept nogil:
    cdef u8 *p = readable(c, ea, 8)
    if likely(p != NULL):
        value[0] = (<u64 *>p)[0]
        return 0
    return c.memory.load(c, ea, 8, value)

cdef inline int ld32(Cpu *c, u64 ea, u32 *value) noexcept nogil:
    cdef u8 *p = readable(c, ea, 4)
    cdef u64 wide = 0
    if likely(p != NULL):
        value[0] = (<u32 *>p)[0]
        return 0
    if c.memory.load(c, ea, 4, &wide):
        return 1
    value[0] = <u32>wide
    return 0

cdef inline int ld16(Cpu *c, u64 ea, u16 *value) noexcept nogil:
    cdef u8 *p = readable(c, ea, 2)
    cdef u64 wide = 0
    if likely(p != NULL):
        value[0] = (<u16 *>p)[0]
        return 0
    if c.memory.load(c, ea, 2, &wide):
        return 1
    value[0] = <u16>wide
    return 0

cdef inline int ld8(Cpu *c, u64 ea, u8 *value) noexcept nogil:
    cdef u8 *p = readable(c, ea, 1)
    cdef u64 wide = 0
    if likely(p != NULL):
        value[0] = p[0]
        return 0
    if c.memory.load(c, ea, 1, &wide):
        return 1
    value[0] = <u8>wide
    return 0

cdef inline int st64(Cpu *c, u64 ea, u64 value) noexcept nogil:
    cdef u8 *p = writable(c, ea, 8)
    if likely(p != NULL):
        (<u64 *>p)[0] = value
        return 0
    return c.memory.store(c, ea, 8, value)

cdef inline int st32(Cpu *c, u64 ea, u32 value) noexcept nogil:
    cdef u8 *p = writable(c, ea, 4)
    if likely(p != NULL):
        (<u32 *>p)[0] = value
        return 0
    return c.memory.store(c, ea, 4, value)

cdef inline int st16(Cpu *c, u64 ea, u16 value) noexcept nogil:
    cdef u8 *p = writable(c, ea, 2)
    if likely(p != NULL):
        (<u16 *>p)[0] = value
        return 0
    return c.memory.store(c, ea, 2, value)

cdef inline int st8(Cpu *c, u64 ea, u8 value) noexcept nogil:
    cdef u8 *p = writable(c, ea, 1)
    if likely(p != NULL):
        p[0] = value
        return 0
    return c.memory.store(c, ea, 1, value)
