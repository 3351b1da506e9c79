"""XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS, XGETBV, XSETBV: the states of x87, SSE, AVX and protection keys.

c.fx is an area in the standard form (with PKRU at Intel's place; the guest's area has it where CPUID says). A state in its initial form is told from others by its contents, each time. There are no
supervisor states, so XSAVES is XSAVEC for the kernel. What was saved is not kept track of: XSAVEOPT saves all in use.

Ref: Intel SDM volume 1, chapter 13.
"""

from libc.string cimport memcpy, memset

from accel.soft.control cimport FEAT_1_ECX, has
from accel.soft.fpstate cimport *
from accel.soft.msr cimport cpuid
from accel.soft.protect cimport undefined
from accel.soft.segment cimport CR0_TS, CR4_OSXSAVE, CR4_PKE, failed, is_64

cdef enum:
    X87 = 1
    SSE = 2
    YMM = 4
    KEYS = 512
    HEADER = 512
    AREA = 832
    WORDS = 104             # of it
    OPT = 1                 # bits of CPUID D.1.EAX
    COMPACT = 2
    XGETBV_1 = 4
    SUPERVISOR = 8
    INIT_MXCSR = 0x1F80

cdef u64 COMPACTED = <u64>1 << 63


cdef bint declared(Cpu *c, u32 bits) noexcept nogil:
    """CPUID D.1.EAX."""
    cdef u32 out[4]
    cpuid(c, 0xD, 1, out)
    return out[0] & bits != 0


cdef bint zero(const u8 *data, u32 count) noexcept nogil:
    cdef u32 n
    for n in range(count // 8):
        if (<const u64 *>data)[n]:
            return False
    return True


cdef u64 in_use(Cpu *c) noexcept nogil:
    """Which states are not in their initial form; that of x87 lies in c.fx."""
    cdef u64 found = 0
    if fcw(c)[0] != 0x37F or fsw(c)[0] or c.fx[4] or not zero(c.fx + 8, 16) or not zero(c.fx + 32, 128):
        found |= X87
    if (<u16 *>c.fx)[3]:
        found |= X87
    if not zero(c.fx + XMM0, 256):
        found |= SSE
    if not zero(c.fx + YMM0, 256):
        found |= YMM
    if pkru(c)[0]:
        found |= KEYS
    return found & c.xcr0


cdef inline u32 keys_at(Cpu *c, u64 layout) noexcept nogil:
    """Where PKRU is in an area: `layout` is XCOMP_BV."""
    if not layout & COMPACTED:
        return c.keys_at
    return YMM0 + (256 if layout & YMM else 0)


cdef void set_pkru(Cpu *c, u32 value) noexcept nogil:
    if pkru(c)[0] != value:
        pkru(c)[0] = value
        if c.cr4 & CR4_PKE:
            c.memory.flush(c, True)


cdef int failed_plain(Cpu *c, u32 vector) noexcept nogil:
    raised(c, vector, 0, False)
    return 1


cdef int barred(Cpu *c, u64 ea) noexcept nogil:
    if not c.cr4 & CR4_OSXSAVE or not has(c, FEAT_1_ECX, 26):
        return undefined(c)
    if c.cr0 & CR0_TS:
        return failed_plain(c, X_NM)
    if ea & 63:
        return failed(c, X_GP, 0)
    return 0


cdef int put(Cpu *c, u64 ea, u32 size, const void *data) noexcept nogil:
    return c.memory.store_bytes(c, ea, size, data)


cdef int do_xsave(Cpu *c, Uop *u) noexcept nogil:
    """u.b: 0 xsave, 1 xsaveopt, 2 xsavec, 3 xsaves."""
    cdef u64 ea = address(c, u), wanted, used, before = 0
    cdef u64 header[8]
    cdef u32 vectors = 256 if is_64(c) else 128
    cdef bint compact = u.b >= 2
    if u.b and not declared(c, OPT if u.b == 1 else (COMPACT if u.b == 2 else SUPERVISOR)):
        return undefined(c)
    if u.b == 3 and c.cpl != 0 and c.cr4 & CR4_OSXSAVE:
        return failed(c, X_GP, 0)
    if barred(c, ea):
        return 1
    settle(c)
    fetch_mxcsr(c)
    wanted = c.xcr0 & ((c.regs[0] & <u64>0xFFFFFFFF) | c.regs[2] << 32)
    used = in_use(c)
    if compact and c.mxcsr != INIT_MXCSR:
        used |= SSE & c.xcr0
    memset(header, 0, 64)
    if c.memory.probe(c, ea, HEADER + 64, True):
        return 1
    if not compact and c.memory.load(c, ea + HEADER, 8, &before):
        return 1
    header[0] = before & ~wanted | wanted & used
    header[1] = COMPACTED | wanted
    if u.b:
        wanted &= used
    if wanted & X87 and (put(c, ea, 24, c.fx) or put(c, ea + 32, 128, c.fx + 32)):
        return 1
    (<u32 *>c.fx)[6], (<u32 *>c.fx)[7] = c.mxcsr, mxcsr_mask(c)
    if (wanted & SSE or not compact and wanted_mxcsr(c)) and put(c, ea + 24, 8, c.fx + 24):
        return 1
    if wanted & SSE and put(c, ea + XMM0, vectors, c.fx + XMM0):
        return 1
    if wanted & YMM and put(c, ea + YMM0, vectors, c.fx + YMM0):
        return 1
    if wanted & KEYS and put(c, ea + keys_at(c, header[1] if compact else 0), 8, c.fx + PKRU):
        return 1
    return put(c, ea + HEADER, 64 if compact else 8, header)


cdef inline bint wanted_mxcsr(Cpu *c) noexcept nogil:
    """MXCSR goes with AVX too in the standard form."""
    return c.xcr0 & c.regs[0] & (SSE | YMM) != 0


cdef int do_xrstor(Cpu *c, Uop *u) noexcept nogil:
    """u.b: 0 xrstor, 1 xrstors."""
    cdef u64 ea = address(c, u), wanted, held, keys = 0
    cdef u64 area[WORDS]
    cdef u64 *header = area + HEADER // 8
    cdef u8 *data = <u8 *>area
    cdef u32 vectors = 256 if is_64(c) else 128, value = INIT_MXCSR
    cdef bint compact
    if u.b and not declared(c, SUPERVISOR):
        return undefined(c)
    if u.b and c.cpl != 0 and c.cr4 & CR4_OSXSAVE:
        return failed(c, X_GP, 0)
    if barred(c, ea):
        return 1
    wanted = c.xcr0 & ((c.regs[0] & <u64>0xFFFFFFFF) | c.regs[2] << 32)
    if c.memory.load_bytes(c, ea, HEADER + 64, area):
        return 1
    compact = header[1] & COMPACTED != 0
    if compact:
        if not declared(c, COMPACT | SUPERVISOR) or header[1] & ~COMPACTED & ~c.xcr0 or header[0] & ~header[1]:
            return failed(c, X_GP, 0)
        if not zero(<u8 *>header + 16, 48):
            return failed(c, X_GP, 0)
    elif u.b or header[1] or header[2] or header[0] & ~c.xcr0:
        return failed(c, X_GP, 0)
    held = wanted & header[0]
    if held & YMM and c.memory.load_bytes(c, ea + YMM0, vectors, data + YMM0):
        return 1
    if held & KEYS and c.memory.load(c, ea + keys_at(c, header[1]), 8, &keys):
        return 1
    if wanted & (SSE if compact else SSE | YMM) and (not compact or held & SSE):
        value = (<u32 *>data)[6]
        if value & ~mxcsr_mask(c):
            return failed(c, X_GP, 0)
    elif not (compact and wanted & SSE):
        fetch_mxcsr(c)
        value = c.mxcsr
    settle(c)
    if wanted & X87:
        if held & X87:
            memcpy(c.fx, data, 24)
            c.fx[5] = 0
            memcpy(c.fx + 32, data + 32, 128)
            fcw(c)[0] = control_word(fcw(c)[0])
        else:
            memset(c.fx, 0, 24)
            memset(c.fx + 32, 0, 128)
            fcw(c)[0] = 0x37F
        adapt_status(c)
    if wanted & SSE:
        if held & SSE:
            memcpy(c.fx + XMM0, data + XMM0, vectors)
        else:
            memset(c.fx + XMM0, 0, vectors)
    if wanted & YMM:
        if held & YMM:
            memcpy(c.fx + YMM0, data + YMM0, vectors)
        else:
            memset(c.fx + YMM0, 0, vectors)
    if wanted & KEYS:
        set_pkru(c, <u32>keys)
    put_mxcsr(c, value)
    return 0


cdef int do_pkru(Cpu *c, Uop *u) noexcept nogil:
    """rdpkru, wrpkru (b 1)."""
    if not c.cr4 & CR4_PKE:
        return undefined(c)
    if <u32>c.regs[1] or u.b and <u32>c.regs[2]:
        return failed(c, X_GP, 0)
    if u.b:
        set_pkru(c, <u32>c.regs[0])
    else:
        c.regs[0], c.regs[2] = pkru(c)[0], 0
    return 0


cdef int do_xcr(Cpu *c, Uop *u) noexcept nogil:
    """xgetbv, xsetbv (b 1)."""
    cdef u64 value
    if not c.cr4 & CR4_OSXSAVE:
        return undefined(c)
    if not u.b:
        if <u32>c.regs[1] == 0:
            value = c.xcr0
        elif <u32>c.regs[1] == 1 and declared(c, XGETBV_1):
            settle(c)
            value = in_use(c)
        else:
            return failed(c, X_GP, 0)
        c.regs[0], c.regs[2] = value & <u64>0xFFFFFFFF, value >> 32
        return 0
    value = c.regs[0] & <u64>0xFFFFFFFF | c.regs[2] << 32
    if c.cpl != 0 or <u32>c.regs[1] or not value & X87 or value & ~c.xcr_mask or value & (SSE | YMM) == YMM:
        return failed(c, X_GP, 0)
    c.xcr0 = value
    c.memory.set_mode(c)
    return 0
