"""System management mode: the interrupt, the state save map in SMRAM, and rsm.

The map is AMD64's (revision 0x20064) for processors with long mode, the 32-bit one (0x20000) for others. Offsets count
from SMBASE + 0x8000.

Ref: AMD64 volume 2, chapter 10; Intel SDM volume 3, chapter 32.
Not modelled: restart of I/O instructions and of hlt.
"""

from accel.soft.control cimport FEAT_EXT_EDX, has, set_cr0
from accel.soft.cpu cimport *
from accel.soft.segment cimport *
from accel.soft.transfer cimport set_eflags

cdef enum:
    REVISION_32 = 0x20000       # SMBASE may be moved
    REVISION_64 = 0x20064
    NMI_MASK = 0x7ECA


cdef void save(Cpu *c, u32 at, u32 size, u64 value) noexcept nogil:
    c.hooks.phys_store(c, (<u64>c.smbase + 0x8000 + at) & c.a20_mask, size, value)


cdef u64 restore(Cpu *c, u32 at, u32 size) noexcept nogil:
    return c.hooks.phys_load(c, (<u64>c.smbase + 0x8000 + at) & c.a20_mask, size)


cdef u32 place64(u32 n) noexcept nogil:
    """Of a segment register in the 64-bit map."""
    if n == LDTR:
        return 0x7E70
    return 0x7E90 if n == TR else 0x7E00 + n * 16


cdef u64 base_of(Cpu *c, u32 n) noexcept nogil:
    return c.regs[BASE + n] if n < LDTR else c.seg[n].base


cdef void set_base(Cpu *c, u32 n, u64 base) noexcept nogil:
    if n < LDTR:
        c.regs[BASE + n] = base
    else:
        c.seg[n].base = base


cdef u32 from_attributes(u32 stored) noexcept nogil:
    return stored & 0xF0FF if stored & AR_P else (stored & 0xF0FF) | AR_UNUSABLE


cdef u32 to_attributes(u32 ar) noexcept nogil:
    return 0 if ar & AR_UNUSABLE else ar & 0xF0FF


cdef void save64(Cpu *c) noexcept nogil:
    cdef u32 i, at
    for i in range(8):
        at = place64(i)
        save(c, at, 2, c.seg[i].sel)
        save(c, at + 2, 2, to_attributes(c.seg[i].ar))
        save(c, at + 4, 4, c.seg[i].limit)
        save(c, at + 8, 8, base_of(c, i))
    save(c, 0x7E64, 4, c.gdt.limit)
    save(c, 0x7E68, 8, c.gdt.base)
    save(c, 0x7E84, 4, c.idt.limit)
    save(c, 0x7E88, 8, c.idt.base)
    save(c, 0x7ED0, 8, c.efer)
    save(c, 0x7EFC, 4, REVISION_64)
    save(c, 0x7F00, 4, c.smbase)
    save(c, 0x7F48, 8, c.cr4)
    save(c, 0x7F50, 8, c.cr3)
    save(c, 0x7F58, 8, c.cr0)
    save(c, 0x7F60, 8, c.dr7)
    save(c, 0x7F68, 8, c.dr6)
    save(c, 0x7F70, 8, get_eflags(c))
    save(c, 0x7F78, 8, c.rip)
    for i in range(16):
        save(c, 0x7FF8 - i * 8, 8, c.regs[i])


cdef u32 place32(u32 n, u32 *sel) noexcept nogil:
    """Of a segment's attributes in the 32-bit map (limit and base follow), and of its selector."""
    if n == LDTR:
        sel[0] = 0x7FC0
        return 0x7F78
    if n == TR:
        sel[0] = 0x7FC4
        return 0x7F5C
    sel[0] = 0x7FA8 + n * 4
    return 0x7F84 + n * 12 if n < 3 else 0x7F2C + (n - 3) * 12


cdef void save32(Cpu *c) noexcept nogil:
    cdef u32 i, at, sel = 0
    save(c, 0x7FFC, 4, c.cr0)
    save(c, 0x7FF8, 4, c.cr3)
    save(c, 0x7FF4, 4, get_eflags(c))
    save(c, 0x7FF0, 4, c.rip)
    for i in range(8):
        save(c, 0x7FD0 + i * 4, 4, c.regs[i])
    save(c, 0x7FCC, 4, c.dr6)
    save(c, 0x7FC8, 4, c.dr7)
    for i in range(8):
        at = place32(i, &sel)
        save(c, sel, 4, c.seg[i].sel)
        save(c, at, 4, to_attributes(c.seg[i].ar))
        save(c, at + 4, 4, c.seg[i].limit)
        save(c, at + 8, 4, base_of(c, i))
    save(c, 0x7F74, 4, c.gdt.base)
    save(c, 0x7F70, 4, c.gdt.limit)
    save(c, 0x7F58, 4, c.idt.base)
    save(c, 0x7F54, 4, c.idt.limit)
    save(c, 0x7F14, 4, c.cr4)
    save(c, 0x7EFC, 4, REVISION_32)
    save(c, 0x7EF8, 4, c.smbase)


cdef void enter_smi(Cpu *c) noexcept nogil:
    """A system management interrupt, between two instructions."""
    cdef u32 i
    c.in_smm = True
    if has(c, FEAT_EXT_EDX, 29):
        save64(c)
    else:
        save32(c)
    save(c, NMI_MASK, 1, c.nmi_blocked)
    c.nmi_blocked = True
    set_eflags(c, 0, ~<u32>0)
    set_cr0(c, c.cr0 & ~(<u64>1 << 31 | CR0_PE | CR0_EM | CR0_TS))
    c.cr4, c.efer, c.dr7 = 0, 0, 0x400
    c.cpl = 0
    for i in range(6):
        c.seg[i].sel = 0
        c.seg[i].limit = <u32>0xFFFFFFFF
        c.seg[i].ar = 0x8093
        c.regs[BASE + i] = 0
    c.seg[CS].sel = <u16>(c.smbase >> 4)
    c.seg[CS].ar = 0x809B
    c.regs[BASE + CS] = c.smbase
    c.rip = 0x8000
    arrived(c)


cdef void arrived(Cpu *c) noexcept nogil:
    c.memory.flush(c, True)
    c.memory.set_mode(c)
    c.stop = STOP_NEXT


cdef void restore64(Cpu *c) noexcept nogil:
    cdef u32 i, at
    for i in range(8):
        at = place64(i)
        c.seg[i].sel = <u16>restore(c, at, 2)
        c.seg[i].ar = from_attributes(<u32>restore(c, at + 2, 2))
        c.seg[i].limit = <u32>restore(c, at + 4, 4)
        set_base(c, i, restore(c, at + 8, 8))
    c.gdt.limit, c.gdt.base = <u16>restore(c, 0x7E64, 4), restore(c, 0x7E68, 8)
    c.idt.limit, c.idt.base = <u16>restore(c, 0x7E84, 4), restore(c, 0x7E88, 8)
    c.efer = restore(c, 0x7ED0, 8)
    c.cr4 = restore(c, 0x7F48, 4)
    c.cr3 = restore(c, 0x7F50, 8)
    set_cr0(c, restore(c, 0x7F58, 4))
    c.dr7 = restore(c, 0x7F60, 4)
    c.dr6 = restore(c, 0x7F68, 4)
    set_eflags(c, <u32>restore(c, 0x7F70, 4), ~<u32>0)
    c.rip = restore(c, 0x7F78, 8)
    for i in range(16):
        c.regs[i] = restore(c, 0x7FF8 - i * 8, 8)
    if restore(c, 0x7EFC, 4) & 0x20000:
        c.smbase = <u32>restore(c, 0x7F00, 4)


cdef void restore32(Cpu *c) noexcept nogil:
    cdef u32 i, at, sel = 0
    set_cr0(c, restore(c, 0x7FFC, 4))
    c.cr3 = restore(c, 0x7FF8, 4)
    set_eflags(c, <u32>restore(c, 0x7FF4, 4), ~<u32>0)
    c.rip = restore(c, 0x7FF0, 4)
    for i in range(8):
        c.regs[i] = restore(c, 0x7FD0 + i * 4, 4)
    c.dr6, c.dr7 = restore(c, 0x7FCC, 4), restore(c, 0x7FC8, 4)
    for i in range(8):
        at = place32(i, &sel)
        c.seg[i].sel = <u16>restore(c, sel, 4)
        c.seg[i].ar = from_attributes(<u32>restore(c, at, 4))
        c.seg[i].limit = <u32>restore(c, at + 4, 4)
        set_base(c, i, restore(c, at + 8, 4))
    c.gdt.base, c.gdt.limit = restore(c, 0x7F74, 4), <u16>restore(c, 0x7F70, 4)
    c.idt.base, c.idt.limit = restore(c, 0x7F58, 4), <u16>restore(c, 0x7F54, 4)
    c.cr4 = restore(c, 0x7F14, 4)
    if restore(c, 0x7EFC, 4) & 0x20000:
        c.smbase = <u32>restore(c, 0x7EF8, 4)


cdef void resume(Cpu *c) noexcept nogil:
    """rsm. The guest may have written anything into the map: what the processor cannot be in is put right."""
    if has(c, FEAT_EXT_EDX, 29):
        restore64(c)
    else:
        restore32(c)
    if not c.cr0 & CR0_PE:
        c.cpl = 0
    elif is_v86(c):
        c.cpl = 3
    else:
        c.cpl = ar_dpl(c.seg[SS].ar)
    c.in_smm = False
    c.nmi_blocked = restore(c, NMI_MASK, 1) & 1
    arrived(c)
