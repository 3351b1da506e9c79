"""Instructions that move control and debug registers, and the machine status word.

Ref: Intel SDM volume 2 (MOV to and from CRn and DRn, LMSW, SMSW, CLTS); volume 3, 2.5, 18.2 (debug registers).
"""

from accel.soft.control cimport *
from accel.soft.cpu cimport *
from accel.soft.exception cimport merge_pending
from accel.soft.protect cimport *
from accel.soft.segment cimport *


cdef int do_mov_from_cr(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 value
    if u.b not in (0, 2, 3, 4, 8):
        return undefined(c)
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if u.b == 0:
        value = c.cr0
    elif u.b == 2:
        value = c.cr2
    elif u.b == 3:
        value = c.cr3
    elif u.b == 4:
        value = c.cr4
    else:
        value = c.hooks.get_tpr(c)
    set_reg(c, u.d, u.a, value)
    return 0


cdef int do_mov_to_cr(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 value = r64(c, u.s)[0] if u.a == 8 else r32(c, u.s)[0]
    cdef int result = 0
    if u.b not in (0, 2, 3, 4, 8):
        return undefined(c)
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if u.b == 2:
        c.cr2 = value
        return 0
    if u.b == 0:
        result = write_cr0(c, value)
    elif u.b == 3:
        result = write_cr3(c, value)
    elif u.b == 4:
        result = write_cr4(c, value)
    elif value >> 4:
        result = failed(c, X_GP, 0)
    else:
        c.hooks.set_tpr(c, <u32>value)
    return result if result else left(c, u)


cdef int do_lmsw(Cpu *c, Uop *u) noexcept nogil:
    cdef u32 value = 0
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if read_word(c, u, &value):
        return 1
    if write_cr0(c, (c.cr0 & ~<u64>0xE) | (value & 0xF)):       # PE is set, never cleared
        return 1
    return left(c, u)


cdef int do_smsw(Cpu *c, Uop *u) noexcept nogil:
    if c.cr4 & CR4_UMIP and c.cpl != 0:
        return failed(c, X_GP, 0)
    return write_word(c, u, c.cr0)


cdef int do_clts(Cpu *c, Uop *u) noexcept nogil:
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    set_cr0(c, c.cr0 & ~<u64>CR0_TS)
    return 0


cdef int check_debug(Cpu *c, Uop *u) noexcept nogil:
    """Common to both directions; aliases DR4 and DR5 in u.b are the caller's."""
    if u.b > 7 or (u.b in (4, 5) and c.cr4 & CR4_DE):
        return undefined(c)
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if c.dr7 & 0x2000:                              # GD
        c.dr6 |= 0x2000
        merge_pending(c)
        raised(c, X_DB, 0, False)
        return 1
    return 0


cdef int do_mov_from_dr(Cpu *c, Uop *u) noexcept nogil:
    if check_debug(c, u):
        return 1
    set_reg(c, u.d, u.a, c.dr[u.b] if u.b < 4 else (c.dr7 if u.b & 1 else c.dr6))
    return 0


cdef int do_mov_to_dr(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 value = r64(c, u.s)[0] if u.a == 8 else r32(c, u.s)[0]
    if check_debug(c, u):
        return 1
    if u.b < 4:
        c.dr[u.b] = value
        return 0
    if value >> 32:
        return failed(c, X_GP, 0)
    if u.b & 1:
        c.dr7 = (value & <u64>0xFFFF23FF) | 0x400
        c.memory.set_mode(c)
        return left(c, u)
    c.dr6 = (value & 0xE00F) | <u64>0xFFFF0FF0
    return 0
