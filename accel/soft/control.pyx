"""Control registers and EFER with the transitions between modes; the state after power-on, reset, INIT and start-up IPI.

The TLB follows by itself: set_mode drops what a change of CR0, CR4 or EFER made wrong.

Ref: Intel SDM volume 3, chapters 2.5 (control registers), 4.1 (paging modes), 10.1 (state after reset).
Not modelled: PCIDs (a change of CR3 always flushes).
"""

from libc.string cimport memset

from accel.soft.cpu cimport *
from accel.soft.segment cimport *

cdef u64 CR0_PG = <u64>1 << 31
cdef u64 CR0_BITS = (
    CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | <u64>CR0_CD | <u64>1 << 31
)
cdef u64 DEFAULT_PAT = 0x0007040600070406


cdef void set_cr0(Cpu *c, u64 value) noexcept nogil:
    """CR0 and what of it the x87 and SSE handlers look at. The caller tells the memory (set_mode)."""
    c.cr0 = (value & CR0_BITS) | CR0_ET
    c.fp_trap = c.cr0 & (CR0_EM | CR0_TS) != 0
    c.sse_trap = c.cr0 & (CR0_EM | CR0_TS) != 0 or not c.cr4 & CR4_OSFXSR
    c.vex_trap = c.vex_trap & ~<u32>VEX_AWAY | (VEX_AWAY if c.cr0 & CR0_TS else 0)


cdef int load_pdptes(Cpu *c, u64 cr3) noexcept nogil:
    """The four entries that PAE paging keeps in the processor; #GP(0) for reserved bits."""
    cdef u64 entries[4]
    cdef u64 reserved = ~c.phys_mask | 0x1E6
    cdef u32 i
    for i in range(4):
        entries[i] = c.hooks.phys_load(c, ((cr3 & <u64>0xFFFFFFE0) + i * 8) & c.a20_mask, 8)
        if entries[i] & 1 and entries[i] & reserved:
            return failed(c, X_GP, 0)
    for i in range(4):
        c.pdpte[i] = entries[i]
    return 0


cdef int write_cr0(Cpu *c, u64 value) noexcept nogil:
    cdef u64 changed
    if value >> 32 or value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW:
        return failed(c, X_GP, 0)
    changed = (value ^ c.cr0) & CR0_BITS
    if changed & CR0_PG:
        if value & CR0_PG and c.efer & EFER_LME:
            if not c.cr4 & CR4_PAE or c.seg[CS].ar & AR_L:
                return failed(c, X_GP, 0)
        elif not value & CR0_PG and (is_64(c) or c.cr4 & CR4_PCIDE):
            return failed(c, X_GP, 0)
    if value & CR0_PG and changed & (CR0_PG | CR0_CD | CR0_NW) and c.cr4 & CR4_PAE and not c.efer & EFER_LME:
        if load_pdptes(c, c.cr3):
            return 1
    if changed & CR0_PG:
        if value & CR0_PG and c.efer & EFER_LME:
            c.efer |= EFER_LMA
        else:
            c.efer &= ~<u64>EFER_LMA
    set_cr0(c, value)
    c.memory.set_mode(c)
    return 0


cdef int write_cr3(Cpu *c, u64 value) noexcept nogil:
    if is_long(c):
        if c.cr4 & CR4_PCIDE:
            value &= ~(<u64>1 << 63)
        if value & ~c.phys_mask:
            return failed(c, X_GP, 0)
    else:
        value &= <u64>0xFFFFFFFF
        if c.cr0 & CR0_PG and c.cr4 & CR4_PAE and load_pdptes(c, value):
            return 1
    c.cr3 = value
    c.memory.flush(c, False)
    return 0


cdef u64 cr4_bits(Cpu *c) noexcept nogil:
    """The bits of CR4 that the processor's CPUID declares; the others are reserved."""
    cdef u64 bits = CR4_PCE
    if has(c, FEAT_1_EDX, 1):
        bits |= CR4_VME | CR4_PVI
    if has(c, FEAT_1_EDX, 2):
        bits |= CR4_DE
    if has(c, FEAT_1_EDX, 3):
        bits |= CR4_PSE
    if has(c, FEAT_1_EDX, 4):
        bits |= CR4_TSD
    if has(c, FEAT_1_EDX, 6):
        bits |= CR4_PAE
    if has(c, FEAT_1_EDX, 7):
        bits |= CR4_MCE
    if has(c, FEAT_1_EDX, 13):
        bits |= CR4_PGE
    if has(c, FEAT_1_EDX, 24):
        bits |= CR4_OSFXSR
    if has(c, FEAT_1_EDX, 25):
        bits |= CR4_OSXMMEXCPT
    if has(c, FEAT_1_ECX, 17):
        bits |= CR4_PCIDE
    if has(c, FEAT_1_ECX, 26):
        bits |= CR4_OSXSAVE
    if has(c, FEAT_7_EBX, 0):
        bits |= CR4_FSGSBASE
    if has(c, FEAT_7_EBX, 7):
        bits |= CR4_SMEP
    if has(c, FEAT_7_EBX, 20):
        bits |= CR4_SMAP
    if has(c, FEAT_7_ECX, 2):
        bits |= CR4_UMIP
    if has(c, FEAT_7_ECX, 3):
        bits |= CR4_PKE
    if has(c, FEAT_7_ECX, 31):
        bits |= CR4_PKS
    return bits


cdef int write_cr4(Cpu *c, u64 value) noexcept nogil:
    cdef u64 changed = value ^ c.cr4
    if value & ~cr4_bits(c):
        return failed(c, X_GP, 0)
    if is_long(c) and not value & CR4_PAE:
        return failed(c, X_GP, 0)
    if changed & value & CR4_PCIDE and (not is_long(c) or c.cr3 & 0xFFF):
        return failed(c, X_GP, 0)
    if c.cr0 & CR0_PG and not is_long(c) and value & CR4_PAE and changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP):
        if load_pdptes(c, c.cr3):
            return 1
    c.cr4 = value
    c.memory.set_mode(c)
    return 0


cdef int write_efer(Cpu *c, u64 value) noexcept nogil:
    cdef u64 bits = EFER_LMA
    if has(c, FEAT_EXT_EDX, 11):
        bits |= EFER_SCE
    if has(c, FEAT_EXT_EDX, 20):
        bits |= EFER_NXE
    if has(c, FEAT_EXT_EDX, 25):
        bits |= EFER_FFXSR
    if has(c, FEAT_EXT_EDX, 29):
        bits |= EFER_LME
    if value & ~bits or ((value ^ c.efer) & EFER_LME and c.cr0 & CR0_PG):
        return failed(c, X_GP, 0)
    c.efer = (value & ~<u64>EFER_LMA) | (c.efer & EFER_LMA)
    c.memory.set_mode(c)
    return 0


# --- reset ---------------------------------------------------------------------------------------------------

cdef void reset_segment(Cpu *c, u32 n, u32 ar) noexcept nogil:
    c.seg[n].sel = 0
    c.seg[n].base = 0
    c.seg[n].limit = 0xFFFF
    c.seg[n].ar = ar
    if n < LDTR:
        c.regs[BASE + n] = 0


cdef u32 signature(Cpu *c) noexcept nogil:
    """EDX after reset: EAX of CPUID leaf 1."""
    cdef u32 i
    for i in range(c.cpuid_count):
        if c.cpuid[i].function == 1:
            return c.cpuid[i].eax
    return 0x600


cdef void reset_cpu(Cpu *c, bint init) noexcept nogil:
    """The state after power-on and reset; `init`: after INIT, which spares caches' control, FPU, MTRRs and MSRs."""
    cdef u32 i
    for i in range(16):
        c.regs[i] = 0
    c.regs[2] = signature(c)
    c.rip = 0xFFF0
    c.eflags = 2
    set_status_flags(c, 0)
    for i in range(6):
        reset_segment(c, i, 0x93)
    reset_segment(c, CS, 0x9B)
    c.seg[CS].sel = 0xF000
    c.regs[BASE + CS] = <u64>0xFFFF0000
    reset_segment(c, LDTR, 0x82)
    reset_segment(c, TR, 0x8B)
    c.gdt.base, c.gdt.limit = 0, 0xFFFF
    c.idt.base, c.idt.limit = 0, 0xFFFF
    c.cpl = 0
    set_cr0(c, (c.cr0 & (CR0_CD | CR0_NW) if init else <u64>(CR0_CD | CR0_NW)) | CR0_ET)
    c.cr2, c.cr3, c.cr4, c.efer = 0, 0, 0, 0
    for i in range(4):
        c.dr[i] = 0
        c.pdpte[i] = 0
    c.dr6, c.dr7 = <u64>0xFFFF0FF0, 0x400
    c.debug_hits = 0
    c.shadow = 0
    c.stop = STOP_NEXT
    c.nmi_blocked = False
    c.in_smm = False
    c.halted = False
    c.link = NULL
    if not init:
        reset_msrs(c)
    c.memory.flush(c, True)
    c.memory.set_mode(c)


cdef void reset_msrs(Cpu *c) noexcept nogil:
    cdef u32 i
    c.smbase = 0x30000
    c.star, c.lstar, c.cstar, c.sfmask, c.kernel_gs = 0, 0, 0, 0, 0
    c.sysenter_cs, c.sysenter_esp, c.sysenter_eip = 0, 0, 0
    c.pat, c.misc_enable, c.tsc_aux, c.tsc_offset = DEFAULT_PAT, 1, 0, 0
    c.mtrr_def, c.mcg_status, c.spec_ctrl, c.pkrs = 0, 0, 0, 0
    for i in range(11):
        c.mtrr_fixed[i] = 0
    for i in range(10):
        c.mc_ctl[i] = ~<u64>0
    for i in range(8):
        c.mtrr_base[i] = 0
        c.mtrr_mask[i] = 0
    memset(&c.pmu, 0, sizeof(Pmu))
    c.pmu.control = 15          # all general counters
    c.fp_live = False
    c.mxcsr = 0x1F80
    c.xcr0 = 1
    memset(c.fx, 0, 4096)
    (<u16 *>c.fx)[0] = 0x37F
    (<u32 *>c.fx)[6] = 0x1F80
    (<u32 *>c.fx)[7] = 0xFFFF


cdef void start_cpu(Cpu *c, u8 vector) noexcept nogil:
    """The start-up IPI: real mode at vector * 4096."""
    c.seg[CS].sel = <u16>(vector << 8)
    c.regs[BASE + CS] = <u64>vector << 12
    c.rip = 0
    c.wait_sipi = False
    c.memory.set_mode(c)
