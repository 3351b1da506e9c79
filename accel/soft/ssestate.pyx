"""MXCSR and the whole state of x87 and SSE: ldmxcsr, stmxcsr, fxsave, fxrstor; and why SSE is off."""

from libc.string cimport memcpy

from accel.soft.fpstate cimport *
from accel.soft.insn cimport *
from accel.soft.operand cimport SLOW, mem_operand
from accel.soft.segment cimport CR0_EM, CR4_OSFXSR, EFER_FFXSR


cdef void refuse(Cpu *c, Uop *u) noexcept nogil:
    raise_at(c, u, X_UD if c.cr0 & CR0_EM or not c.cr4 & CR4_OSFXSR else X_NM)


cdef void op_stmxcsr(Cpu *c, Uop *u) noexcept nogil:
    if off(c):
        refuse(c, u)
        return
    fetch_mxcsr(c)
    if c.memory.store(c, address(c, u), 4, c.mxcsr):
        fault(c, u)
        return
    next(c, u)


cdef void op_ldmxcsr(Cpu *c, Uop *u) noexcept nogil:
    if off(c):
        refuse(c, u)
        return
    if c.memory.load(c, address(c, u), 4, &c.regs[SLOW]):
        fault(c, u)
        return
    if <u32>c.regs[SLOW] & ~mxcsr_mask(c):
        raise_gp(c, u, 0)
        return
    put_mxcsr(c, <u32>c.regs[SLOW])
    next(c, u)


cdef inline u32 image_size(Cpu *c) noexcept nogil:
    """Without XMM8 … outside of 64-bit mode; without any for a kernel that does not want them (FFXSR)."""
    if c.efer & EFER_FFXSR and c.cpl == 0 and c.mode & MODE_64:
        return 160
    return 416 if c.mode & MODE_64 else 288


cdef int do_fxsave(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea = address(c, u)
    if ea & 15:
        raise_gp(c, u, 0)
        return 1
    settle(c)
    fetch_mxcsr(c)
    (<u32 *>c.fx)[6], (<u32 *>c.fx)[7] = c.mxcsr, mxcsr_mask(c)
    if c.memory.store_bytes(c, ea, image_size(c), c.fx):
        fault(c, u)
        return 1
    return 0


cdef int do_fxrstor(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea = address(c, u)
    cdef u64 image[64]
    if ea & 15:
        raise_gp(c, u, 0)
        return 1
    if c.memory.load_bytes(c, ea, 512, image):
        fault(c, u)
        return 1
    if (<u32 *>image)[6] & ~mxcsr_mask(c):
        raise_gp(c, u, 0)
        return 1
    settle(c)
    memcpy(c.fx, image, 24)
    c.fx[5] = 0
    memcpy(c.fx + 32, <u8 *>image + 32, image_size(c) - 32)
    fcw(c)[0] = control_word(fcw(c)[0])
    adapt_status(c)
    put_mxcsr(c, (<u32 *>image)[6])
    return 0


cdef void op_state(Cpu *c, Uop *u) noexcept nogil:
    """u.b: 0 fxsave, 1 fxrstor."""
    if c.fp_trap:
        raise_at(c, u, X_NM)
        return
    if do_fxrstor(c, u) if u.b else do_fxsave(c, u):
        return
    next(c, u)


cdef int emit_control(Insn *i, Uop *u) noexcept nogil:
    """0F AE."""
    cdef Uop *start = u
    cdef u32 reg = i.reg & 7
    u = mem_operand(i, u, 512 if reg < 2 else 4, reg == 0 or reg == 3)
    u.b = reg & 1
    u.fn = op_state if reg < 2 else (op_ldmxcsr if reg == 2 else op_stmxcsr)
    return <int>(u - start) + 1
