"""Segmentation: linear addresses, descriptors, segment registers, and stacks.

Everything here is for the ways off the fast path: 64-bit code and flat 32-bit code compute their addresses inline.
Functions that return int: 0 done; 1 an exception is noted and no register has changed.

Ref: Intel SDM volume 3 (order number 325384), chapters 3 and 5; AMD64 volume 2 (24593), chapter 4.
Not modelled: alignment checks (CR0.AM), wrap-around of accesses at the end of a 4 GiB segment (they wrap, no fault).
"""

from accel.soft.cpu cimport *
from accel.soft.cpu cimport Segment


cdef int seg_linear(Cpu *c, u32 seg, u64 offset, u32 size, bint write, u64 *linear) noexcept nogil:
    """Linear address of `size` bytes at `offset` (cut to the address size) of segment `seg`; #GP(0), #SS(0)."""
    cdef Segment *s = &c.seg[seg]
    cdef bint bad = False
    if is_64(c):
        linear[0] = offset + (c.regs[BASE + seg] if seg >= FS else 0)
        if canonical(linear[0]):
            return 0
        return failed(c, X_SS if seg == SS else X_GP, 0)
    if is_protected(c):
        if s.ar & AR_UNUSABLE:
            bad = True
        elif write:
            bad = not is_writable(s.ar)
        else:
            bad = s.ar & (AR_CODE | AR_RW) == AR_CODE       # execute-only
    if bad or not within(s.ar, s.limit, offset, size):
        return failed(c, X_SS if seg == SS else X_GP, 0)
    linear[0] = (c.regs[BASE + seg] + offset) & <u64>0xFFFFFFFF
    return 0


# --- descriptors ---------------------------------------------------------------------------------------------

cdef int fetch_desc(Cpu *c, u32 sel, u32 vector, Desc *d) noexcept nogil:
    """The descriptor that `sel` names, from GDT or LDT; `vector`(sel) when it lies outside of the table."""
    cdef u64 base = c.gdt.base, value = 0
    cdef u32 limit = c.gdt.limit
    if sel & 4:
        base, limit = c.seg[LDTR].base, c.seg[LDTR].limit
        if c.seg[LDTR].ar & AR_UNUSABLE:
            return failed(c, vector, sel & 0xFFFC)
    if (sel | 7) > limit:
        return failed(c, vector, sel & 0xFFFC)
    d.at = base + (sel & 0xFFF8)
    if not is_long(c):
        d.at &= <u64>0xFFFFFFFF
    if c.memory.sys_load(c, d.at, 8, &value):
        return 1
    d.lo, d.hi = <u32>value, <u32>(value >> 32)
    return 0


cdef int mark_accessed(Cpu *c, Desc *d) noexcept nogil:
    """Set the accessed bit of a code or data descriptor, in memory as well."""
    if d.hi & (AR_ACCESSED << 8):
        return 0
    d.hi |= AR_ACCESSED << 8
    return c.memory.sys_store(c, d.at + 5, 1, (d.hi >> 8) & 0xFF)


cdef void set_seg(Cpu *c, u32 n, u32 sel, Desc *d) noexcept nogil:
    """One of the six registers from a descriptor that has passed all checks."""
    c.seg[n].sel = <u16>sel
    c.seg[n].limit = desc_limit(d)
    c.seg[n].ar = desc_ar(d)
    c.regs[BASE + n] = desc_base(d)


cdef void set_seg_null(Cpu *c, u32 n, u32 sel) noexcept nogil:
    c.seg[n].sel = <u16>sel
    c.seg[n].limit = 0
    c.seg[n].ar = AR_UNUSABLE
    c.regs[BASE + n] = 0
    if n == SS:                                     # 64-bit mode: what CPL the empty stack segment belongs to
        c.seg[n].ar |= (sel & 3) << 5


cdef void set_seg_real(Cpu *c, u32 n, u32 sel) noexcept nogil:
    """Real mode changes selector and base only, so limits set in protected mode stay; virtual-8086 mode sets all."""
    c.seg[n].sel = <u16>sel
    c.regs[BASE + n] = <u64>(sel & 0xFFFF) << 4
    if is_v86(c):
        c.seg[n].limit = 0xFFFF
        c.seg[n].ar = 0xF3
    else:
        c.seg[n].ar = (c.seg[n].ar & (AR_DB | AR_G)) | (0x9B if n == CS else 0x93)


cdef int check_ss(Cpu *c, u32 sel, u32 cpl, u32 vector, Desc *d) noexcept nogil:
    """A stack segment for `cpl`: `vector` (#GP, or #TS in a switch) when it cannot serve, #SS when not present."""
    cdef u32 ar
    if sel & 0xFFFC == 0:
        return failed(c, vector, 0)
    if fetch_desc(c, sel, vector, d):
        return 1
    ar = desc_ar(d)
    if sel & 3 != cpl or ar_dpl(ar) != cpl or not is_writable(ar):
        return failed(c, vector, sel & 0xFFFC)
    if not ar & AR_P:
        return failed(c, X_SS, sel & 0xFFFC)
    return 0


cdef int load_seg(Cpu *c, u32 n, u32 sel) noexcept nogil:
    """ES, SS, DS, FS or GS as mov, pop and lds… load them. The caller tells the memory (set_mode)."""
    cdef Desc d
    cdef u32 ar
    sel &= 0xFFFF
    if not is_protected(c):
        set_seg_real(c, n, sel)
        return 0
    if n == SS:
        if sel & 0xFFFC == 0 and is_64(c) and c.cpl != 3 and sel & 3 == c.cpl:
            set_seg_null(c, SS, sel)
            return 0
        if check_ss(c, sel, c.cpl, X_GP, &d):
            return 1
    elif sel & 0xFFFC == 0:
        set_seg_null(c, n, sel)
        return 0
    else:
        if fetch_desc(c, sel, X_GP, &d):
            return 1
        ar = desc_ar(&d)
        if not ar & AR_S or ar & (AR_CODE | AR_RW) == AR_CODE:
            return failed(c, X_GP, sel & 0xFFFC)
        if ar & (AR_CODE | AR_CE) != AR_CODE | AR_CE and (sel & 3 > ar_dpl(ar) or c.cpl > ar_dpl(ar)):
            return failed(c, X_GP, sel & 0xFFFC)
        if not ar & AR_P:
            return failed(c, X_NP, sel & 0xFFFC)
    if mark_accessed(c, &d):
        return 1
    set_seg(c, n, sel, &d)
    return 0


# --- stacks --------------------------------------------------------------------------------------------------

cdef void stack_of(Cpu *c, Stack *s) noexcept nogil:
    """The stack in use."""
    s.wide = is_64(c)
    s.base = 0 if s.wide else c.regs[BASE + SS]
    s.limit, s.ar = c.seg[SS].limit, c.seg[SS].ar
    s.mask = sp_mask(c)
    s.sp = c.regs[4] & s.mask
    s.cpl = c.cpl
    s.error = 0


cdef void stack_new(Cpu *c, Stack *s, u32 sel, Desc *d, u64 sp, u32 cpl) noexcept nogil:
    """The stack that a change of privilege leads to; `d` NULL: a 64-bit one."""
    s.wide = d == NULL
    s.sp, s.cpl, s.error = sp, cpl, sel & 0xFFFC
    if d == NULL:
        s.base, s.limit, s.ar, s.mask = 0, 0, 0, ~<u64>0
        return
    s.base, s.limit, s.ar = desc_base(d), desc_limit(d), desc_ar(d)
    s.mask = <u64>0xFFFFFFFF if s.ar & AR_DB else 0xFFFF
    s.sp &= s.mask


cdef inline int stack_at(Cpu *c, Stack *s, u64 sp, u32 size, u64 *linear) noexcept nogil:
    linear[0] = s.base + sp
    if s.wide:
        return 0 if canonical(linear[0]) else failed(c, X_SS, s.error)
    linear[0] &= <u64>0xFFFFFFFF
    return 0 if within(s.ar, s.limit, sp, size) else failed(c, X_SS, s.error)


cdef int put(Cpu *c, Stack *s, u32 size, u64 value) noexcept nogil:
    """Push 2, 4 or 8 bytes."""
    cdef u64 sp = (s.sp - size) & s.mask, linear = 0
    if stack_at(c, s, sp, size, &linear):
        return 1
    if s.cpl == 3 or c.cpl != 3:
        if c.memory.store(c, linear, size, value):
            return 1
    elif c.memory.sys_store(c, linear, size, value):
        return 1
    s.sp = sp
    return 0


cdef int take(Cpu *c, Stack *s, u32 size, u64 *value) noexcept nogil:
    """Pop 2, 4 or 8 bytes."""
    cdef u64 linear = 0
    value[0] = 0
    if stack_at(c, s, s.sp, size, &linear):
        return 1
    if s.cpl == 3 or c.cpl != 3:
        if c.memory.load(c, linear, size, value):
            return 1
    elif c.memory.sys_load(c, linear, size, value):
        return 1
    s.sp = (s.sp + size) & s.mask
    return 0


cdef int push(Cpu *c, u32 size, u64 value) noexcept nogil:
    cdef Stack s
    stack_of(c, &s)
    if put(c, &s, size, value):
        return 1
    set_sp(c, s.sp)
    return 0


cdef int pop(Cpu *c, u32 size, u64 *value) noexcept nogil:
    cdef Stack s
    stack_of(c, &s)
    if take(c, &s, size, value):
        return 1
    set_sp(c, s.sp)
    return 0
