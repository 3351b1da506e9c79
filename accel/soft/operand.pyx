"""Memory operands.

In 64-bit code with 64-bit addresses a handler computes the address itself (cpu.pxd, `address`). Everything else (16- and
32-bit addresses, segments with bases and limits) is an operation of its own in front of the handler, which leaves the
linear address in R_EA; so each handler exists once.
"""

from accel.soft.insn cimport *
from accel.soft.segment cimport seg_linear


cdef inline u64 offset_of(Cpu *c, Uop *u) noexcept nogil:
    return r64(c, u.base)[0] + (r64(c, u.index)[0] << u.scale) + <u64><i64>u.disp


cdef void op_ea16(Cpu *c, Uop *u) noexcept nogil:
    if seg_linear(c, u.a, offset_of(c, u) & 0xFFFF, <u32>u.imm, u.x, &c.regs[EA]):
        fault(c, u)
        return
    next(c, u)


cdef void op_ea32(Cpu *c, Uop *u) noexcept nogil:
    if seg_linear(c, u.a, offset_of(c, u) & <u64>0xFFFFFFFF, <u32>u.imm, u.x, &c.regs[EA]):
        fault(c, u)
        return
    next(c, u)


cdef void op_ea32_flat(Cpu *c, Uop *u) noexcept nogil:
    c.regs[EA] = offset_of(c, u) & <u64>0xFFFFFFFF
    next(c, u)


cdef void op_ea32_long(Cpu *c, Uop *u) noexcept nogil:
    """32-bit addresses in 64-bit code: cut before the segment's base is added."""
    c.regs[EA] = (offset_of(c, u) & <u64>0xFFFFFFFF) + r64(c, u.seg)[0]
    next(c, u)


cdef void op_ea_absolute(Cpu *c, Uop *u) noexcept nogil:
    """moffs with 64 bits."""
    c.regs[EA] = <u64>u.imm + r64(c, u.seg)[0]
    next(c, u)


cdef inline u8 long_seg(Insn *i) noexcept nogil:
    return R_FS if i.seg == FS else (R_GS if i.seg == GS else R_ZERO)


cdef void parts(Insn *i, Uop *u) noexcept nogil:
    u.base = i.base
    u.index = i.index
    u.scale = i.scale
    u.disp = <i32>i.disp


cdef Uop *mem_operand(Insn *i, Uop *u, u32 size, bint write) noexcept nogil:
    """Prepare the operand of `size` bytes; the operation to put the handler into.

    Its base, index, scale, disp and seg are set. `write`: the handler stores there.
    """
    cdef bint long_mode = i.mode & MODE_BITS == MODE_64
    if long_mode and i.asize == 8 and <i64><i32>i.disp == i.disp:
        parts(i, u)
        u.seg = long_seg(i)
        return u
    parts(i, u)
    if long_mode:
        u.seg = long_seg(i)
        u.imm = i.disp
        u.fn = op_ea_absolute if i.asize == 8 else op_ea32_long
    elif i.asize == 2:
        u.a, u.imm, u.x = i.seg, size, write
        u.fn = op_ea16
    else:
        u.a, u.imm, u.x = i.seg, size, write
        u.fn = op_ea32_flat if i.mode & MODE_FLAT and i.seg != FS and i.seg != GS and not (write and i.seg == CS) else op_ea32
    u += 1
    u.base = R_EA
    return u


cdef void op_lea_cut(Cpu *c, Uop *u) noexcept nogil:
    c.regs[EA] = offset_of(c, u) & <u64>u.imm
    next(c, u)


cdef Uop *address_only(Insn *i, Uop *u) noexcept nogil:
    """For lea: the offset, without segment and checks."""
    parts(i, u)
    if i.asize == 8:
        return u
    u.fn = op_lea_cut
    u.imm = 0xFFFF if i.asize == 2 else 0xFFFFFFFF
    u += 1
    u.base = R_EA
    return u
