"""What leads elsewhere than a near branch: far jumps, calls and returns, system calls, software interrupts, HLT.

The transfers themselves are in transfer.pyx.

Ref: Intel SDM volume 2; volume 3, 5.8 (transfers between code segments), chapter 6 (interrupts).
"""

from accel.soft.control cimport *
from accel.soft.cpu cimport *
from accel.soft.exception cimport enter_redirected, intel, merge_pending, redirects, soft_interrupt
from accel.soft.protect cimport *
from accel.soft.segment cimport *
from accel.soft.smm cimport resume
from accel.soft.transfer cimport *


cdef int do_jump(Cpu *c, Uop *u) noexcept nogil:
    return far_jump(c, u.x | (<u32>u.b << 8), <u32>u.disp, u.a, rip_after(c, u))


cdef int do_call(Cpu *c, Uop *u) noexcept nogil:
    return far_call(c, u.x | (<u32>u.b << 8), <u32>u.disp, u.a, rip_after(c, u))


cdef int do_jump_mem(Cpu *c, Uop *u) noexcept nogil:
    """Through a far pointer in memory; b 1: call."""
    cdef u64 offset = 0, at = address(c, u)
    cdef u16 sel = 0
    if c.memory.load(c, at, u.a, &offset) or ld16(c, at + u.a, &sel):
        return 1
    if u.b:
        return far_call(c, sel, offset, u.a, rip_after(c, u))
    return far_jump(c, sel, offset, u.a, rip_after(c, u))


cdef int do_return(Cpu *c, Uop *u) noexcept nogil:
    return far_return(c, u.a, <u32>u.disp)


cdef int do_iret(Cpu *c, Uop *u) noexcept nogil:
    return interrupt_return(c, u.a, rip_after(c, u))


cdef int do_syscall(Cpu *c, Uop *u) noexcept nogil:
    """The trap behind it is that of the new TF, which FMASK may have cleared.

    Outside of 64-bit mode it is AMD's alone. Kernels rely on that: where CPUID says Intel, Linux leaves CSTAR at 0.
    """
    cdef u32 before = c.eflags
    if not is_64(c) and intel(c):
        return undefined(c)
    if fast_call(c, rip_after(c, u)):
        return 1
    if before & F_TF and not c.eflags & F_TF:
        c.shadow |= 2
    return 0


cdef int do_sysret(Cpu *c, Uop *u) noexcept nogil:
    """With TF in what it restores, the trap comes before the first instruction there."""
    cdef u32 before = c.eflags
    if not is_64(c) and intel(c):
        return undefined(c)
    if fast_return(c, u.a):
        return 1
    if c.eflags & F_TF and not before & F_TF:
        c.dr6 |= 0x4000
        raised(c, X_DB, 0, False)
        return 2
    return 0


cdef bint has_sysenter(Cpu *c) noexcept nogil:
    """AMD's processors have it in legacy mode alone (AMD64 volume 3, 24594)."""
    return has(c, FEAT_1_EDX, 11) and (intel(c) or not is_long(c))


cdef int do_sysenter(Cpu *c, Uop *u) noexcept nogil:
    return sysenter(c) if has_sysenter(c) else undefined(c)


cdef int do_sysexit(Cpu *c, Uop *u) noexcept nogil:
    return sysexit(c, u.a) if has_sysenter(c) else undefined(c)


cdef int do_int(Cpu *c, Uop *u) noexcept nogil:
    """int n (b), int3; x 1: IOPL counts in virtual-8086 mode."""
    cdef int redirected = 0
    if c.host_int3 and u.b == 3:
        c.host_stop = HOST_SOFTWARE
        leave(c, u, STOP_LEAVE)
        c.rip = rip_of(c, u)
        return 2
    if u.x and is_v86(c):
        if c.cr4 & CR4_VME:
            redirected = redirects(c, u.b)
            if redirected < 0:
                return 1
        if iopl(c) != 3 and not redirected:
            return failed(c, X_GP, 0)
    if c.eflags & F_TF:
        c.shadow |= 2                               # no trap behind this instruction
    c.rip = rip_after(c, u) & rip_mask(c.mode)
    return enter_redirected(c, u.b) if redirected else soft_interrupt(c, u.b)


cdef int do_into(Cpu *c, Uop *u) noexcept nogil:
    cdef int result
    if not status_flags(c) & F_OF:
        return 0
    result = do_int(c, u)
    if result:
        return result
    c.stop = STOP_NEXT
    return 2


cdef void op_icebp(Cpu *c, Uop *u) noexcept nogil:
    leave(c, u, STOP_EXCEPTION)
    merge_pending(c)
    raised(c, X_DB, 0, False)


cdef int do_rsm(Cpu *c, Uop *u) noexcept nogil:
    if not c.in_smm:
        return undefined(c)
    resume(c)
    return 0


cdef void op_hlt(Cpu *c, Uop *u) noexcept nogil:
    if c.cpl != 0:
        raise_gp(c, u, 0)
        return
    leave(c, u, STOP_HALT)


cdef int do_bound(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 low = 0, high = 0, at = address(c, u)
    cdef i64 value
    if c.memory.load(c, at, u.a, &low) or c.memory.load(c, at + u.a, u.a, &high):
        return 1
    if u.a == 2:
        value = <i16>r16(c, u.d)[0]
        if <i16>low <= value <= <i16>high:
            return 0
    else:
        value = <i32>r32(c, u.d)[0]
        if <i32>low <= value <= <i32>high:
            return 0
    raised(c, X_BR, 0, False)
    return 1
