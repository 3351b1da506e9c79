"""The task switch: all of a processor's state into one TSS and out of another, of 16 or 32 bits.

Ref: Intel SDM volume 3, chapter 8 (task management).
"""

from accel.soft.control cimport load_pdptes, set_cr0
from accel.soft.cpu cimport *
from accel.soft.segment cimport *
from accel.soft.transfer cimport set_eflags

cdef enum:
    BUSY = 2                # in a TSS descriptor's type
    DR7_LOCAL = 0x155       # L0-L3, LE

ctypedef struct Image:      # what a TSS holds
    u64 cr3, rip, flags
    u64 general[8]
    u64 sel[6]              # ES CS SS DS FS GS
    u64 ldt, trap


cdef int set_busy(Cpu *c, u32 sel, bint busy) noexcept nogil:
    """In the descriptor of a TSS, which is always in the GDT."""
    cdef u64 at = c.gdt.base + (sel & 0xFFF8) + 5, value = 0
    if c.memory.sys_load(c, at, 1, &value):
        return 1
    return c.memory.sys_store(c, at, 1, (value | BUSY) if busy else value & ~<u64>BUSY)


cdef int read_tss(Cpu *c, u64 base, bint small, Image *t) noexcept nogil:
    cdef u32 i, size = 2 if small else 4
    t.cr3 = 0
    t.trap = 0
    t.sel[FS] = 0
    t.sel[GS] = 0
    if small:
        if c.memory.sys_load(c, base + 14, 2, &t.rip) or c.memory.sys_load(c, base + 16, 2, &t.flags):
            return 1
        if c.memory.sys_load(c, base + 42, 2, &t.ldt):
            return 1
    else:
        if c.memory.sys_load(c, base + 0x1C, 4, &t.cr3) or c.memory.sys_load(c, base + 0x20, 4, &t.rip):
            return 1
        if c.memory.sys_load(c, base + 0x24, 4, &t.flags) or c.memory.sys_load(c, base + 0x60, 2, &t.ldt):
            return 1
        if c.memory.sys_load(c, base + 0x64, 2, &t.trap):
            return 1
    for i in range(8):
        if c.memory.sys_load(c, base + (18 if small else 0x28) + i * size, size, &t.general[i]):
            return 1
    for i in range(4 if small else 6):
        if c.memory.sys_load(c, base + (34 if small else 0x48) + i * size, 2, &t.sel[i]):
            return 1
    if small:               # what a 16-bit TSS does not hold reads as ones
        for i in range(8):
            t.general[i] |= <u64>0xFFFF0000
    return 0


cdef int write_tss(Cpu *c, u64 base, bint small, u64 rip, u32 flags) noexcept nogil:
    cdef u32 i, size = 2 if small else 4
    if c.memory.sys_store(c, base + (14 if small else 0x20), size, rip):
        return 1
    if c.memory.sys_store(c, base + (16 if small else 0x24), size, flags):
        return 1
    for i in range(8):
        if c.memory.sys_store(c, base + (18 if small else 0x28) + i * size, size, c.regs[i]):
            return 1
    for i in range(4 if small else 6):
        if c.memory.sys_store(c, base + (34 if small else 0x48) + i * size, 2, c.seg[i].sel):
            return 1
    return 0


cdef int writable_tss(Cpu *c, u64 base, u32 size) noexcept nogil:
    """Write its first and last byte as they are: page faults belong to the old task."""
    cdef u64 value = 0
    if c.memory.sys_load(c, base, 1, &value) or c.memory.sys_store(c, base, 1, value):
        return 1
    return c.memory.sys_load(c, base + size - 1, 1, &value) or c.memory.sys_store(c, base + size - 1, 1, value)


cdef int load_ldt(Cpu *c, u32 sel) noexcept nogil:
    cdef Desc d
    c.seg[LDTR].sel = <u16>sel
    c.seg[LDTR].ar = AR_UNUSABLE
    if sel & 0xFFFC == 0:
        return 0
    if sel & 4:
        return failed(c, X_TS, sel & 0xFFFC)
    if fetch_desc(c, sel, X_TS, &d):
        return 1
    if desc_ar(&d) & (AR_P | AR_S | AR_TYPE) != AR_P | 2:
        return failed(c, X_TS, sel & 0xFFFC)
    c.seg[LDTR].base, c.seg[LDTR].limit, c.seg[LDTR].ar = desc_base(&d), desc_limit(&d), desc_ar(&d)
    return 0


cdef int load_code(Cpu *c, u32 sel) noexcept nogil:
    cdef Desc d
    cdef u32 ar
    if sel & 0xFFFC == 0:
        return failed(c, X_TS, 0)
    if fetch_desc(c, sel, X_TS, &d):
        return 1
    ar = desc_ar(&d)
    if not is_code(ar) or (ar_dpl(ar) > (sel & 3) if ar & AR_CE else ar_dpl(ar) != sel & 3):
        return failed(c, X_TS, sel & 0xFFFC)
    if not ar & AR_P:
        return failed(c, X_NP, sel & 0xFFFC)
    if mark_accessed(c, &d):
        return 1
    set_seg(c, CS, sel, &d)
    return 0


cdef int load_data(Cpu *c, u32 n, u32 sel) noexcept nogil:
    """The errors of a segment load are #TS here; #NP and #SS stay."""
    if not load_seg(c, n, sel):
        return 0
    if c.vector == X_GP:
        c.vector = X_TS
    return 1


cdef int task_switch(
    Cpu *c, u32 sel, Desc *d, u32 how, u64 after, u32 flags, bint has_error, u32 error
) noexcept nogil:
    """To the task of TSS `sel` with descriptor `d`, whose kind and presence the caller has checked.

    `after`, `flags`: RIP and EFLAGS that the old task goes on with. 1: nothing happened; 2: an exception of the new task
    is noted.
    """
    cdef Image t
    cdef Stack s
    cdef u64 base = desc_base(d)
    cdef Segment *tr = &c.seg[TR]
    cdef u32 old = tr.sel, i, kind = desc_ar(d) & AR_TYPE
    cdef bint small = kind & ~<u32>BUSY == 1, old_small = tr.ar & AR_TYPE & ~<u32>BUSY == 1
    if desc_limit(d) < (43 if small else 103):
        return failed(c, X_TS, sel & 0xFFFC)
    if read_tss(c, base, small, &t):
        return 1
    if writable_tss(c, tr.base, 44 if old_small else 104):
        return 1
    if how == TASK_CALL or how == TASK_GATE:
        if writable_tss(c, base, 2):
            return 1
    if how == TASK_IRET:
        flags &= ~<u32>F_NT
    if write_tss(c, tr.base, old_small, after, flags):
        return 1
    if how == TASK_JUMP or how == TASK_IRET:
        if set_busy(c, old, False):
            return 1
    else:
        t.flags |= F_NT
        if c.memory.sys_store(c, base, 2, old):
            return 1
    if how != TASK_IRET:
        if set_busy(c, sel, True):
            return 1
    # From here on it is the new task that faults.
    tr.sel, tr.base, tr.limit, tr.ar = <u16>sel, base, desc_limit(d), desc_ar(d) | BUSY
    set_cr0(c, c.cr0 | CR0_TS)
    if not small and c.cr0 >> 31 & 1 and c.cr3 != t.cr3:
        c.cr3 = t.cr3
        if c.cr4 & CR4_PAE and load_pdptes(c, t.cr3):
            return 2
        c.memory.flush(c, False)
    c.rip = t.rip
    set_eflags(c, <u32>t.flags & (0xFFFF if small else ~<u32>0), ~<u32>0)
    for i in range(8):
        c.regs[i] = t.general[i]
    c.dr7 &= ~<u64>DR7_LOCAL
    for i in range(6):
        c.seg[i].sel = <u16>t.sel[i]
        if c.eflags & F_VM:
            set_seg_real(c, i, <u32>t.sel[i])
        else:
            c.seg[i].ar |= AR_UNUSABLE
    c.cpl = 3 if c.eflags & F_VM else <u32>t.sel[CS] & 3
    c.seg[CS].ar &= ~<u32>AR_UNUSABLE
    c.memory.set_mode(c)
    if load_ldt(c, <u32>t.ldt):
        return 2
    if not c.eflags & F_VM:
        if load_code(c, <u32>t.sel[CS]):
            return 2
        c.memory.set_mode(c)
        if load_data(c, SS, <u32>t.sel[SS]) or load_data(c, ES, <u32>t.sel[ES]) or load_data(c, DS, <u32>t.sel[DS]):
            return 2
        if load_data(c, FS, <u32>t.sel[FS]) or load_data(c, GS, <u32>t.sel[GS]):
            return 2
        c.memory.set_mode(c)
    if c.rip > c.seg[CS].limit:
        failed(c, X_GP, 0)
        return 2
    if has_error:
        stack_of(c, &s)
        if put(c, &s, 2 if small else 4, error):
            return 2
        set_sp(c, s.sp)
    if t.trap & 1:
        c.dr6 |= 0x8000
        raised(c, X_DB, 0, False)
        return 2
    return 0
