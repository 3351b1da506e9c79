"""Model-specific registers, and CPUID.

The local APIC's (base, x2APIC), the deadline timer's and kvmclock's MSRs are the run loop's (c.hooks). What is not
listed raises #GP, as the probes of kernels expect. Machine-check banks exist and never hold an error.

Ref: Intel SDM volume 4; AMD64 volume 2, appendix A; Linux Documentation/virt/kvm/x86/cpuid.rst.
"""

from accel.soft.control cimport *
from accel.soft.cpu cimport *
from accel.soft.exception cimport intel
from accel.soft.pmu cimport is_counter, read_counter_msr, write_counter_msr
from accel.soft.segment cimport *

cdef enum:
    MSR_TSC = 0x10
    MSR_APIC_BASE = 0x1B
    MSR_TSC_ADJUST = 0x3B
    MSR_UCODE = 0x8B
    MSR_MTRRCAP = 0xFE
    MSR_SPEC_CTRL = 0x48        # kept; there is nothing to be afraid of
    MSR_PRED_CMD = 0x49
    MSR_SYSENTER_CS = 0x174
    MSR_SYSENTER_ESP = 0x175
    MSR_SYSENTER_EIP = 0x176
    MSR_MCG_CAP = 0x179
    MSR_MCG_STATUS = 0x17A
    MSR_MISC_ENABLE = 0x1A0
    MSR_MTRR_BASE0 = 0x200
    MSR_PAT = 0x277
    MSR_MTRR_DEF = 0x2FF
    MSR_MC0_CTL = 0x400
    MSR_PKRS = 0x6E1
    MSR_XSS = 0xDA0             # of states that there are none of
    BANKS = 10
    MCG_CAP = BANKS | 1 << 24   # SER_P

cdef u32 MSR_OSVW = <u32>0xC0010140              # no errata are told of
cdef u32 MSR_EFER = <u32>0xC0000080
cdef u32 MSR_STAR = <u32>0xC0000081
cdef u32 MSR_LSTAR = <u32>0xC0000082
cdef u32 MSR_CSTAR = <u32>0xC0000083
cdef u32 MSR_SFMASK = <u32>0xC0000084
cdef u32 MSR_FS_BASE = <u32>0xC0000100
cdef u32 MSR_GS_BASE = <u32>0xC0000101
cdef u32 MSR_KERNEL_GS = <u32>0xC0000102
cdef u32 MSR_TSC_AUX = <u32>0xC0000103


cdef int fixed_mtrr(u32 msr) noexcept nogil:
    """Index of a fixed-range MTRR, or -1."""
    if msr == 0x250:
        return 0
    if msr == 0x258 or msr == 0x259:
        return <int>(msr - 0x257)
    if 0x268 <= msr <= 0x26F:
        return <int>(msr - 0x265)
    return -1


cdef bint quiet(u32 msr) noexcept nogil:
    """Reads as 0 and takes 0: platform id, power-on configuration, DEBUGCTL; AMD's SYSCFG, HWCR, NB_CFG, INT_PENDING."""
    return (
        msr == 0x17 or msr == 0x2A or msr == MSR_XSS or msr == MSR_OSVW or msr == MSR_OSVW + 1 or msr == 0x1D9 or msr == <u32>0xC0010010 or msr == <u32>0xC0010015
        or msr == <u32>0xC001001F or msr == <u32>0xC0010055
    )


cdef bint in_banks(Cpu *c, u32 msr) noexcept nogil:
    return MSR_MC0_CTL <= msr < MSR_MC0_CTL + 4 * BANKS and has(c, FEAT_1_EDX, 14)


cdef bint counts(Cpu *c, u32 msr) noexcept nogil:
    """The performance counters that every AMD processor has (four, or six), and their controls; here they never count."""
    if <u32>0xC0010200 <= msr <= <u32>0xC001020B:
        return has(c, FEAT_EXT_ECX, 23)
    return <u32>0xC0010000 <= msr <= <u32>0xC0010007 and not intel(c)


cdef bint exists(Cpu *c, u32 msr) noexcept nogil:
    """Registers that come with a feature of CPUID."""
    cdef CpuidLeaf *leaf
    if MSR_SYSENTER_CS <= msr <= MSR_SYSENTER_EIP:
        return has(c, FEAT_1_EDX, 11)
    if msr == MSR_MTRRCAP or msr == MSR_MTRR_DEF or MSR_MTRR_BASE0 <= msr < MSR_MTRR_BASE0 + 16 or fixed_mtrr(msr) >= 0:
        return has(c, FEAT_1_EDX, 12)
    if msr == MSR_MCG_CAP or msr == MSR_MCG_STATUS:
        return has(c, FEAT_1_EDX, 14)
    if msr == MSR_PAT:
        return has(c, FEAT_1_EDX, 16)
    if msr == MSR_TSC:
        return has(c, FEAT_1_EDX, 4)
    if msr == MSR_TSC_ADJUST:
        return has(c, FEAT_7_EBX, 1)
    if msr == MSR_TSC_AUX:
        return has(c, FEAT_EXT_EDX, 27) or has(c, FEAT_7_ECX, 22)
    if msr == MSR_SPEC_CTRL:
        return has(c, FEAT_7_EDX, 26) or c.features[FEAT_EXT_8_EBX] & (1 << 14 | 1 << 15 | 1 << 24) != 0
    if msr == MSR_PRED_CMD:
        return has(c, FEAT_7_EDX, 26) or has(c, FEAT_EXT_8_EBX, 12)
    if msr == MSR_OSVW or msr == MSR_OSVW + 1:
        return has(c, FEAT_EXT_ECX, 9)
    if msr == MSR_PKRS:
        return has(c, FEAT_7_ECX, 31)
    if msr == MSR_XSS:
        leaf = find_leaf(c, 0xD, 1)
        return leaf != NULL and leaf.eax & 8
    if msr == MSR_STAR:
        return has(c, FEAT_EXT_EDX, 11)
    if MSR_LSTAR <= msr <= MSR_SFMASK or MSR_FS_BASE <= msr <= MSR_KERNEL_GS:
        return has(c, FEAT_EXT_EDX, 29)
    return True


cdef int read_msr(Cpu *c, u32 msr, u64 *value) noexcept nogil:
    cdef u64 v = 0
    cdef int n
    if not exists(c, msr):
        return failed(c, X_GP, 0)
    if msr == MSR_GS_BASE:
        v = c.regs[BASE + GS]
    elif msr == MSR_FS_BASE:
        v = c.regs[BASE + FS]
    elif msr == MSR_KERNEL_GS:
        v = c.kernel_gs
    elif msr == MSR_EFER:
        v = c.efer
    elif msr == MSR_STAR:
        v = c.star
    elif msr == MSR_LSTAR:
        v = c.lstar
    elif msr == MSR_CSTAR:
        v = c.cstar
    elif msr == MSR_SFMASK:
        v = c.sfmask
    elif msr == MSR_TSC_AUX:
        v = c.tsc_aux
    elif msr == MSR_TSC:
        v = c.hooks.tsc(c) + c.tsc_offset
    elif msr == MSR_TSC_ADJUST:
        v = c.tsc_offset
    elif msr == MSR_UCODE:
        v = <u64>1 << 32
    elif msr == MSR_SYSENTER_CS:
        v = c.sysenter_cs
    elif msr == MSR_SYSENTER_ESP:
        v = c.sysenter_esp
    elif msr == MSR_SYSENTER_EIP:
        v = c.sysenter_eip
    elif msr == MSR_SPEC_CTRL:
        v = c.spec_ctrl
    elif msr == MSR_PKRS:
        v = c.pkrs
    elif msr == MSR_PRED_CMD:
        return failed(c, X_GP, 0)
    elif msr == MSR_PAT:
        v = c.pat
    elif msr == MSR_MISC_ENABLE:
        v = c.misc_enable
    elif msr == MSR_MTRRCAP:
        v = 0x508                                       # eight ranges, fixed ranges, write-combining
    elif msr == MSR_MTRR_DEF:
        v = c.mtrr_def
    elif fixed_mtrr(msr) >= 0:
        v = c.mtrr_fixed[fixed_mtrr(msr)]
    elif MSR_MTRR_BASE0 <= msr < MSR_MTRR_BASE0 + 16:
        n = <int>(msr - MSR_MTRR_BASE0) >> 1
        v = c.mtrr_mask[n] if msr & 1 else c.mtrr_base[n]
    elif msr == MSR_MCG_CAP:
        v = MCG_CAP
    elif msr == MSR_MCG_STATUS:
        v = c.mcg_status
    elif in_banks(c, msr):
        v = c.mc_ctl[(msr - MSR_MC0_CTL) >> 2] if msr & 3 == 0 else 0
    elif counts(c, msr):
        v = 0
    elif is_counter(msr):
        return read_counter_msr(c, msr, value)
    elif not quiet(msr) and c.hooks.rdmsr(c, msr, &v) < 0:
        return failed(c, X_GP, 0)
    value[0] = v
    return 0


cdef bint memory_type(u64 value) noexcept nogil:
    """UC, WC, WT, WP, WB."""
    return value in (0, 1, 4, 5, 6)


cdef bint memory_types(u64 value, bint pat) noexcept nogil:
    """Eight of them; a PAT also knows UC-."""
    cdef u32 i
    for i in range(8):
        if not memory_type(value & 0xFF) and not (pat and value & 0xFF == 7):
            return False
        value >>= 8
    return True


cdef int write_mtrr(Cpu *c, u32 msr, u64 value) noexcept nogil:
    """0 done, 1 refused, -1 not one of them."""
    cdef int n = fixed_mtrr(msr)
    if n >= 0:
        if not memory_types(value, False):
            return 1
        c.mtrr_fixed[n] = value
    elif msr == MSR_MTRR_DEF:
        if value & ~<u64>0xCFF or not memory_type(value & 0xFF):
            return 1
        c.mtrr_def = value
    elif MSR_MTRR_BASE0 <= msr < MSR_MTRR_BASE0 + 16:
        n = <int>(msr - MSR_MTRR_BASE0) >> 1
        if value & ~(c.phys_mask & ~<u64>0xFFF | (0x800 if msr & 1 else 0xFF)):
            return 1
        if msr & 1:
            c.mtrr_mask[n] = value
        elif memory_type(value & 0xFF):
            c.mtrr_base[n] = value
        else:
            return 1
    else:
        return -1
    return 0


cdef int write_msr(Cpu *c, u32 msr, u64 value) noexcept nogil:
    """The caller leaves the block after EFER; all others change nothing that running code depends on."""
    cdef int done
    if not exists(c, msr):
        return failed(c, X_GP, 0)
    if msr in (MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS, MSR_LSTAR, MSR_CSTAR, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP):
        if not canonical(value):
            return failed(c, X_GP, 0)
    if msr == MSR_GS_BASE:
        c.regs[BASE + GS] = value
    elif msr == MSR_FS_BASE:
        c.regs[BASE + FS] = value
    elif msr == MSR_KERNEL_GS:
        c.kernel_gs = value
    elif msr == MSR_EFER:
        return write_efer(c, value)
    elif msr == MSR_STAR:
        c.star = value
    elif msr == MSR_LSTAR:
        c.lstar = value
    elif msr == MSR_CSTAR:
        c.cstar = value
    elif msr == MSR_SFMASK:
        if value >> 32:
            return failed(c, X_GP, 0)
        c.sfmask = value
    elif msr == MSR_TSC_AUX:
        if value >> 32:
            return failed(c, X_GP, 0)
        c.tsc_aux = value
    elif msr == MSR_TSC:
        c.tsc_offset = value - c.hooks.tsc(c)
    elif msr == MSR_TSC_ADJUST:
        c.tsc_offset = value
    elif msr == MSR_SYSENTER_CS:
        c.sysenter_cs = value & <u64>0xFFFFFFFF
    elif msr == MSR_SYSENTER_ESP:
        c.sysenter_esp = value
    elif msr == MSR_SYSENTER_EIP:
        c.sysenter_eip = value
    elif msr == MSR_SPEC_CTRL:
        if value & ~<u64>7:
            return failed(c, X_GP, 0)
        c.spec_ctrl = value
    elif msr == MSR_PKRS:
        if value >> 32:
            return failed(c, X_GP, 0)
        if c.cr4 & CR4_PKS and value != c.pkrs:
            c.memory.flush(c, True)
        c.pkrs = value
    elif msr == MSR_PRED_CMD:
        if value & ~<u64>1:
            return failed(c, X_GP, 0)
    elif msr == MSR_PAT:
        if not memory_types(value, True):
            return failed(c, X_GP, 0)
        c.pat = value
    elif msr == MSR_MISC_ENABLE:
        c.misc_enable = value
    elif msr == MSR_MCG_STATUS:
        if value:
            return failed(c, X_GP, 0)
        c.mcg_status = 0
    elif msr == MSR_UCODE:                              # the trigger of reading the revision
        if value:
            return failed(c, X_GP, 0)
    elif in_banks(c, msr):
        if msr & 3 == 0:
            c.mc_ctl[(msr - MSR_MC0_CTL) >> 2] = value
        elif value:
            return failed(c, X_GP, 0)
    elif counts(c, msr):
        pass
    elif is_counter(msr):
        return write_counter_msr(c, msr, value)
    elif msr == MSR_APIC_BASE and value & ~c.phys_mask:
        return failed(c, X_GP, 0)
    elif msr == MSR_MTRRCAP or msr == MSR_MCG_CAP:
        return failed(c, X_GP, 0)
    elif quiet(msr):
        if value:
            return failed(c, X_GP, 0)
    else:
        done = write_mtrr(c, msr, value)
        if done == 1 or (done < 0 and c.hooks.wrmsr(c, msr, value) < 0):
            return failed(c, X_GP, 0)
    return 0


# --- CPUID ---------------------------------------------------------------------------------------------------

cdef CpuidLeaf *find_leaf(Cpu *c, u32 function, u32 index) noexcept nogil:
    cdef u32 i
    for i in range(c.cpuid_count):
        if c.cpuid[i].function == function and (not c.cpuid[i].flags & 1 or c.cpuid[i].index == index):
            return &c.cpuid[i]
    return NULL


cdef bint has_kvm(Cpu *c) noexcept nogil:
    """Is KVM's signature leaf declared?"""
    cdef CpuidLeaf *leaf = find_leaf(c, 0x40000000, 0)
    return leaf != NULL and leaf.ebx == 0x4B4D564B      # "KVMK"


cdef void cpuid(Cpu *c, u32 function, u32 index, u32 *out) noexcept nogil:
    """EAX, EBX, ECX, EDX. A leaf out of range answers as the highest basic leaf; AMD processors answer 0."""
    cdef CpuidLeaf *found = find_leaf(c, function, index)
    cdef CpuidLeaf *limit
    cdef u32 group = function & <u32>0xC0000000
    cdef u64 base = 0
    out[0], out[1], out[2], out[3] = 0, 0, 0, 0
    if found == NULL:
        limit = find_leaf(c, group if group != 0x40000000 else function & <u32>0xFFFFFF00, 0)
        if limit != NULL and function <= limit.eax:
            if function == 0xB or function == 0x1F:     # an empty level keeps its number and the x2APIC id
                limit = find_leaf(c, function, 0)
                if limit != NULL:
                    out[2], out[3] = index & 0xFF, limit.edx
            return
        limit = find_leaf(c, 0, 0)
        if limit == NULL or limit.ebx != 0x756E6547:    # "Genu"
            return
        found = find_leaf(c, limit.eax, index)
        if found == NULL:
            return
    out[0], out[1], out[2], out[3] = found.eax, found.ebx, found.ecx, found.edx
    if found.function == 0xD and found.index < 2 and out[0 if found.index else 1]:
        # the area for what XCR0 has on; of index 1, in its compact form
        out[1] = 832 if c.xcr0 & 4 and (not found.index or out[0] & 10) else 576
        if c.xcr0 & 0x200 and not found.index:
            out[1] = c.keys_at + 8
        elif c.xcr0 & 0x200 and out[0] & 10:
            out[1] += 8
    if found.function == 7 and found.index == 0:
        out[2] = out[2] & ~<u32>16 | <u32>(c.cr4 & CR4_PKE) >> 18
    if found.function == 1:
        out[2] = out[2] & ~<u32>(1 << 27) | <u32>(c.cr4 & CR4_OSXSAVE) << 9
        if c.hooks.rdmsr(c, MSR_APIC_BASE, &base) == 0 and not base & 0x800:
            out[3] &= ~<u32>(1 << 9)                    # the APIC is off
