# Memory operands and flags of the emitters and handlers. The documentation is in operand.pyx.
from accel.soft.cpu cimport *
from accel.soft.insn cimport Insn

cdef enum:
    SLOW = 27               # index in Cpu.regs: where slow loads leave their value, so that no local's address escapes

cdef Uop *mem_operand(Insn *i, Uop *u, u32 size, bint write) noexcept nogil
cdef Uop *address_only(Insn *i, Uop *u) noexcept nogil


# --- flags, for the sizes of operands. `r` is the result, a and b what went in -----------------------------------------

cdef inline void flags_logic8(Cpu *c, u8 r) noexcept nogil:
    c.fz = c.fs = <i8>r
    c.fc = 0

cdef inline void flags_logic16(Cpu *c, u16 r) noexcept nogil:
    c.fz = c.fs = <i16>r
    c.fc = 0

cdef inline void flags_logic32(Cpu *c, u32 r) noexcept nogil:
    c.fz = c.fs = <i32>r
    c.fc = 0

cdef inline void flags_logic64(Cpu *c, u64 r) noexcept nogil:
    c.fz = c.fs = <i64>r
    c.fc = 0

cdef inline void flags_add8(Cpu *c, u8 a, u8 b, u8 r) noexcept nogil:
    cdef u64 carries = ((a & b) | ((a | b) & ~<u32>r)) & 0xFF
    c.fz = c.fs = <i8>r
    c.fc = (carries << 56) | (carries & 8)

cdef inline void flags_add16(Cpu *c, u16 a, u16 b, u16 r) noexcept nogil:
    cdef u64 carries = ((a & b) | ((a | b) & ~<u32>r)) & 0xFFFF
    c.fz = c.fs = <i16>r
    c.fc = (carries << 48) | (carries & 8)

cdef inline void flags_add32(Cpu *c, u32 a, u32 b, u32 r) noexcept nogil:
    cdef u64 carries = (a & b) | ((a | b) & ~r)
    c.fz = c.fs = <i32>r
    c.fc = (carries << 32) | (carries & 8)

cdef inline void flags_add64(Cpu *c, u64 a, u64 b, u64 r) noexcept nogil:
    c.fz = c.fs = <i64>r
    c.fc = (a & b) | ((a | b) & ~r)

cdef inline void flags_sub8(Cpu *c, u8 a, u8 b, u8 r) noexcept nogil:
    cdef u64 borrows = ((~<u32>a & b) | ((~<u32>a | b) & r)) & 0xFF
    c.fz = c.fs = <i8>r
    c.fc = (borrows << 56) | (borrows & 8)

cdef inline void flags_sub16(Cpu *c, u16 a, u16 b, u16 r) noexcept nogil:
    cdef u64 borrows = ((~<u32>a & b) | ((~<u32>a | b) & r)) & 0xFFFF
    c.fz = c.fs = <i16>r
    c.fc = (borrows << 48) | (borrows & 8)

cdef inline void flags_sub32(Cpu *c, u32 a, u32 b, u32 r) noexcept nogil:
    cdef u64 borrows = (~a & b) | ((~a | b) & r)
    c.fz = c.fs = <i32>r
    c.fc = (borrows << 32) | (borrows & 8)

cdef inline void flags_sub64(Cpu *c, u64 a, u64 b, u64 r) noexcept nogil:
    c.fz = c.fs = <i64>r
    c.fc = (~a & b) | ((~a | b) & r)

# SF, ZF, PF of a result, with CF and OF given (0 or 1) and AF clear.
cdef inline void flags_of(Cpu *c, i64 r, u32 cf, u32 of) noexcept nogil:
    c.fz = c.fs = r
    c.fc = (<u64>cf << 63) | (<u64>(cf ^ of) << 62)

# inc and dec: CF stays.
cdef inline void flags_step(Cpu *c, i64 r, bint overflow, bint half) noexcept nogil:
    cdef u64 cf = c.fc >> 63
    c.fz = c.fs = r
    c.fc = (cf << 63) | ((cf ^ <u64>overflow) << 62) | (8 if half else 0)

cdef inline void flags_inc8(Cpu *c, u8 r) noexcept nogil:
    flags_step(c, <i8>r, r == <u8>(<u64>1 << 7), r & 15 == 0)

cdef inline void flags_dec8(Cpu *c, u8 r) noexcept nogil:
    flags_step(c, <i8>r, r == <u8>((<u64>1 << 7) - 1), r & 15 == 15)

cdef inline void flags_inc16(Cpu *c, u16 r) noexcept nogil:
    flags_step(c, <i16>r, r == <u16>(<u64>1 << 15), r & 15 == 0)

cdef inline void flags_dec16(Cpu *c, u16 r) noexcept nogil:
    flags_step(c, <i16>r, r == <u16>((<u64>1 << 15) - 1), r & 15 == 15)

cdef inline void flags_inc32(Cpu *c, u32 r) noexcept nogil:
    flags_step(c, <i32>r, r == <u32>(<u64>1 << 31), r & 15 == 0)

cdef inline void flags_dec32(Cpu *c, u32 r) noexcept nogil:
    flags_step(c, <i32>r, r == <u32>((<u64>1 << 31) - 1), r & 15 == 15)

cdef inline void flags_inc64(Cpu *c, u64 r) noexcept nogil:
    flags_step(c, <i64>r, r == <u64>(<u64>1 << 63), r & 15 == 0)

cdef inline void flags_dec64(Cpu *c, u64 r) noexcept nogil:
    flags_step(c, <i64>r, r == <u64>((<u64>1 << 63) - 1), r & 15 == 15)
