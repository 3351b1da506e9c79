"""Port I/O: permissions, single accesses, and strings a page at a time.

Operations: a size; b 1 with a repeat prefix; x address size of a string; d its segment; s 1 when the port is in DX,
else it is in disp. Every access leaves the block: the device may have raised an interrupt.

Ref: Intel SDM volume 1, chapter 19 (input/output).
"""

from accel.soft.cpu cimport *
from accel.soft.segment cimport *


cdef int may(Cpu *c, u32 port, u32 size) noexcept nogil:
    """IOPL, then the bit map of the TSS: #GP(0). Notes I/O breakpoints."""
    cdef Segment *tr = &c.seg[TR]
    cdef u64 at = 0, bits = 0
    cdef u32 i
    if c.cr0 & CR0_PE and (c.cpl > iopl(c) or is_v86(c)):
        if tr.ar & (AR_UNUSABLE | AR_TYPE) not in (9, 11) or tr.limit < 103:
            return failed(c, X_GP, 0)
        if c.memory.sys_load(c, tr.base + 102, 2, &at):
            return 1
        at += port >> 3
        if at + 1 > tr.limit:
            return failed(c, X_GP, 0)
        if c.memory.sys_load(c, tr.base + at, 2, &bits):
            return 1
        if (bits >> (port & 7)) & ((1 << size) - 1):
            return failed(c, X_GP, 0)
    if c.dr7 & 0xFF and c.cr4 & CR4_DE:
        for i in range(4):
            if (c.dr7 >> (2 * i)) & 3 and (c.dr7 >> (16 + 4 * i)) & 3 == 2:
                at = c.dr[i] & <u64>0xFFFF
                if port < at + 1 + ((c.dr7 >> (18 + 4 * i)) & 3) and at < port + size:
                    c.debug_hits |= <u64>1 << i
    return 0


cdef void set_accumulator(Cpu *c, u32 size, u64 value) noexcept nogil:
    if size == 1:
        r8(c, RAX)[0] = <u8>value
    elif size == 2:
        r16(c, RAX)[0] = <u16>value
    else:
        c.regs[0] = value & <u64>0xFFFFFFFF


cdef int do_in(Cpu *c, Uop *u) noexcept nogil:
    cdef u32 port = <u32>c.regs[2] & 0xFFFF if u.s else <u32>u.disp
    if may(c, port, u.a):
        return 1
    set_accumulator(c, u.a, c.hooks.port_in(c, port, u.a))
    leave(c, u, STOP_EVENT)
    return 2


cdef int do_out(Cpu *c, Uop *u) noexcept nogil:
    cdef u32 port = <u32>c.regs[2] & 0xFFFF if u.s else <u32>u.disp
    if may(c, port, u.a):
        return 1
    c.hooks.port_out(c, port, u.a, c.regs[0] & ((<u64>1 << (8 * u.a)) - 1))
    leave(c, u, STOP_EVENT)
    return 2


cdef u64 size_mask(u32 asize) noexcept nogil:
    return ~<u64>0 if asize == 8 else (<u64>0xFFFFFFFF if asize == 4 else 0xFFFF)


cdef void advance(Cpu *c, u32 reg, u32 asize, i64 by) noexcept nogil:
    if asize == 8:
        c.regs[reg] += <u64>by
    elif asize == 4:
        c.regs[reg] = (c.regs[reg] + <u64>by) & <u64>0xFFFFFFFF
    else:
        r16(c, reg * 8)[0] = <u16>(c.regs[reg] + <u64>by)


cdef int string_place(Cpu *c, Uop *u, u32 seg, u32 reg, bint write, u64 *linear, u64 *count) noexcept nogil:
    """Where the next elements are, and how many of `count` lie in one page and one stretch of the segment."""
    cdef u64 offset = c.regs[reg] & size_mask(u.x), room
    if seg_linear(c, seg, offset, u.a, write, linear) or c.memory.probe(c, linear[0], u.a, write):
        return 1
    room = (4096 - (linear[0] & 0xFFF)) // u.a
    if room < count[0]:
        count[0] = room
    if count[0] <= 1 or c.eflags & F_DF or offset + count[0] * u.a > size_mask(u.x):
        count[0] = 1
    elif not is_64(c) and not within(c.seg[seg].ar, c.seg[seg].limit, offset, <u32>count[0] * u.a):
        count[0] = 1
    return 0


cdef int done(Cpu *c, Uop *u, u32 reg, u64 total, u64 count) noexcept nogil:
    """Registers behind `count` elements; the instruction begins anew for the rest."""
    advance(c, reg, u.x, -<i64>(count * u.a) if c.eflags & F_DF else <i64>(count * u.a))
    leave(c, u, STOP_EVENT)
    if u.b:
        advance(c, 1, u.x, -<i64>count)
        if total > count:
            c.rip = rip_of(c, u)
    return 2


cdef int do_ins(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 total = c.regs[1] & size_mask(u.x) if u.b else 1, count = total, linear = 0
    cdef u32 port = <u32>c.regs[2] & 0xFFFF
    cdef u8 *host = NULL
    if total == 0:
        return 0
    if may(c, port, u.a) or string_place(c, u, ES, 7, True, &linear, &count):
        return 1
    if count > 1:
        host = writable(c, linear, <u32>count * u.a)
    if host != NULL:
        c.hooks.port_in_string(c, port, u.a, host, <u32>count)
    else:
        count = 1
        if c.memory.store(c, linear, u.a, c.hooks.port_in(c, port, u.a)):
            return 1
    return done(c, u, 7, total, count)


cdef int do_outs(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 total = c.regs[1] & size_mask(u.x) if u.b else 1, count = total, linear = 0, value = 0
    cdef u32 port = <u32>c.regs[2] & 0xFFFF
    cdef u8 *host = NULL
    if total == 0:
        return 0
    if may(c, port, u.a) or string_place(c, u, u.d, 6, False, &linear, &count):
        return 1
    if count > 1:
        host = readable(c, linear, <u32>count * u.a)
    if host != NULL:
        c.hooks.port_out_string(c, port, u.a, host, <u32>count)
    else:
        count = 1
        if c.memory.load(c, linear, u.a, &value):
            return 1
        c.hooks.port_out(c, port, u.a, value)
    return done(c, u, 6, total, count)
