"""Instructions on descriptors: lgdt and its like, lldt, ltr, lar, lsl, verr, verw, arpl.

Operations: s, d registers; x 1 when the operand r/m is in memory (else it is register s); a operand size; b variant.

Ref: Intel SDM volume 2, volume 3 chapters 2.8 and 5.10.
"""

from accel.soft.cpu cimport *
from accel.soft.segment cimport *

cdef enum:
    NOT_THERE = 0xFF        # in place of a vector: the selector names nothing, which is no fault here


cdef int undefined(Cpu *c) noexcept nogil:
    raised(c, X_UD, 0, False)
    return 1


cdef void set_reg(Cpu *c, u32 at, u32 size, u64 value) noexcept nogil:
    if size == 2:
        r16(c, at)[0] = <u16>value
    elif size == 4:
        r64(c, at)[0] = value & <u64>0xFFFFFFFF
    else:
        r64(c, at)[0] = value


cdef int read_word(Cpu *c, Uop *u, u32 *value) noexcept nogil:
    """16 bits of the operand r/m."""
    cdef u16 word = 0
    if not u.x:
        value[0] = r16(c, u.s)[0]
        return 0
    if ld16(c, address(c, u), &word):
        return 1
    value[0] = word
    return 0


cdef int write_word(Cpu *c, Uop *u, u64 value) noexcept nogil:
    """To r/m: 16 bits of memory, or the whole register."""
    if u.x:
        return st16(c, address(c, u), <u16>value)
    set_reg(c, u.s, u.a, value)
    return 0


# --- tables ----------------------------------------------------------------------------------------------------------

cdef int do_table_load(Cpu *c, Uop *u) noexcept nogil:
    """lgdt, lidt (b 1)."""
    cdef u64 base = 0
    cdef u16 limit = 0
    cdef u64 at = address(c, u)
    cdef Table *table = &c.idt if u.b else &c.gdt
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if ld16(c, at, &limit) or c.memory.load(c, at + 2, 8 if is_64(c) else 4, &base):
        return 1
    if u.a == 2 and not is_64(c):
        base &= 0xFFFFFF
    if not canonical(base):
        return failed(c, X_GP, 0)
    table.base, table.limit = base, limit
    return 0


cdef int do_table_store(Cpu *c, Uop *u) noexcept nogil:
    """sgdt, sidt (b 1)."""
    cdef Table *table = &c.idt if u.b else &c.gdt
    cdef u64 at = address(c, u)
    cdef u32 size = 8 if is_64(c) else 4
    if c.cr4 & CR4_UMIP and c.cpl != 0:
        return failed(c, X_GP, 0)
    if c.memory.probe(c, at, size + 2, True) or st16(c, at, table.limit):
        return 1
    return c.memory.store(c, at + 2, size, table.base)


cdef int do_selector_store(Cpu *c, Uop *u) noexcept nogil:
    """sldt, str (b: which)."""
    if not is_protected(c):
        return undefined(c)
    if c.cr4 & CR4_UMIP and c.cpl != 0:
        return failed(c, X_GP, 0)
    return write_word(c, u, c.seg[u.b].sel)


cdef int system_desc(Cpu *c, u32 sel, Desc *d, u64 *base) noexcept nogil:
    """An LDT's or TSS's descriptor from the GDT, of 16 bytes in long mode."""
    cdef u64 high = 0
    if sel & 4:
        return failed(c, X_GP, sel & 0xFFFC)
    if fetch_desc(c, sel, X_GP, d):
        return 1
    base[0] = desc_base(d)
    if is_long(c):
        if (sel | 15) > c.gdt.limit:
            return failed(c, X_GP, sel & 0xFFFC)
        if c.memory.sys_load(c, d.at + 8, 8, &high):
            return 1
        base[0] |= high << 32
        if (high >> 40) & 31 or not canonical(base[0]):
            return failed(c, X_GP, sel & 0xFFFC)
    return 0


cdef void set_system(Cpu *c, u32 n, u32 sel, Desc *d, u64 base) noexcept nogil:
    c.seg[n].sel = <u16>sel
    c.seg[n].base = base
    c.seg[n].limit = desc_limit(d)
    c.seg[n].ar = desc_ar(d)


cdef int do_lldt(Cpu *c, Uop *u) noexcept nogil:
    cdef Desc d
    cdef u32 sel = 0
    cdef u64 base = 0
    if not is_protected(c):
        return undefined(c)
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if read_word(c, u, &sel):
        return 1
    if sel & 0xFFFC == 0:
        c.seg[LDTR].sel = <u16>sel
        c.seg[LDTR].ar = AR_UNUSABLE
        return 0
    if system_desc(c, sel, &d, &base):
        return 1
    if desc_ar(&d) & (AR_S | AR_TYPE) != 2:
        return failed(c, X_GP, sel & 0xFFFC)
    if not desc_ar(&d) & AR_P:
        return failed(c, X_NP, sel & 0xFFFC)
    set_system(c, LDTR, sel, &d, base)
    return 0


cdef int do_ltr(Cpu *c, Uop *u) noexcept nogil:
    cdef Desc d
    cdef u32 sel = 0, kind
    cdef u64 base = 0
    if not is_protected(c):
        return undefined(c)
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if read_word(c, u, &sel):
        return 1
    if sel & 0xFFFC == 0:
        return failed(c, X_GP, 0)
    if system_desc(c, sel, &d, &base):
        return 1
    kind = desc_ar(&d) & (AR_S | AR_TYPE)
    if kind != 9 and (kind != 1 or is_long(c)):
        return failed(c, X_GP, sel & 0xFFFC)
    if not desc_ar(&d) & AR_P:
        return failed(c, X_NP, sel & 0xFFFC)
    d.hi |= 0x200                                   # busy
    if c.memory.sys_store(c, d.at + 5, 1, (d.hi >> 8) & 0xFF):
        return 1
    set_system(c, TR, sel, &d, base)
    return 0


# --- questions -------------------------------------------------------------------------------------------------------

cdef int look_up(Cpu *c, Uop *u, Desc *d, u32 *sel) noexcept nogil:
    """The descriptor that r/m names. 0: here it is; 1: a fault; 2: there is none that CPL and RPL may see."""
    cdef u32 ar
    if not is_protected(c):
        return undefined(c)
    if read_word(c, u, sel):
        return 1
    if sel[0] & 0xFFFC == 0:
        return 2
    if fetch_desc(c, sel[0], NOT_THERE, d):
        if c.vector != NOT_THERE:
            return 1
        c.stop = STOP_NEXT
        return 2
    ar = desc_ar(d)
    if ar & (AR_S | AR_CODE | AR_CE) == AR_S | AR_CODE | AR_CE:
        return 0
    return 2 if ar_dpl(ar) < c.cpl or ar_dpl(ar) < sel[0] & 3 else 0


cdef int do_verify(Cpu *c, Uop *u) noexcept nogil:
    """verr, verw (b 1)."""
    cdef Desc d
    cdef u32 sel = 0, ar
    cdef int found = look_up(c, u, &d, &sel)
    if found == 1:
        return 1
    c.fz = 1
    if found == 0:
        ar = desc_ar(&d)
        if u.b:
            c.fz = 0 if is_writable(ar) else 1
        elif ar & AR_S and ar & (AR_CODE | AR_RW) != AR_CODE:
            c.fz = 0
    return 0


cdef bint asked(u32 ar, bint long_mode, bint limits) noexcept nogil:
    """Kinds of system descriptors that lar, or lsl, answers for."""
    cdef u32 kind = ar & AR_TYPE
    if ar & AR_S or kind in (2, 9, 11):
        return True
    if kind == 12:
        return not limits
    if long_mode:
        return False
    return kind in (1, 3) or (kind in (4, 5) and not limits)


cdef int do_lar(Cpu *c, Uop *u) noexcept nogil:
    cdef Desc d
    cdef u32 sel = 0
    cdef int found = look_up(c, u, &d, &sel)
    if found == 1:
        return 1
    c.fz = 1
    if found == 0 and asked(desc_ar(&d), is_long(c), False):
        c.fz = 0
        set_reg(c, u.d, u.a, d.hi & 0xF0FF00)
    return 0


cdef int do_lsl(Cpu *c, Uop *u) noexcept nogil:
    cdef Desc d
    cdef u32 sel = 0
    cdef int found = look_up(c, u, &d, &sel)
    if found == 1:
        return 1
    c.fz = 1
    if found == 0 and asked(desc_ar(&d), is_long(c), True):
        c.fz = 0
        set_reg(c, u.d, u.a, desc_limit(&d))
    return 0


cdef int do_arpl(Cpu *c, Uop *u) noexcept nogil:
    """r/m (register s or memory): its RPL becomes at least that of register d."""
    cdef u64 value = 0
    cdef u32 rpl = r16(c, u.d)[0] & 3
    if not is_protected(c):
        return undefined(c)
    if u.x:
        if c.memory.load_rmw(c, address(c, u), 2, &value):
            return 1
    else:
        value = r16(c, u.s)[0]
    if value & 3 >= rpl:
        c.fz = 1
        return 0
    value = (value & 0xFFFC) | rpl
    if u.x:
        if st16(c, address(c, u), <u16>value):
            return 1
    else:
        r16(c, u.s)[0] = <u16>value
    c.fz = 0
    return 0
