# Native code for single guest instructions. The documentation is in stub.pyx.
from accel.soft.cpu cimport i64, u8, u32, u64
from accel.soft.insn cimport Insn

ctypedef u64 (*Stub)(void *dst, const void *src, u64 value) noexcept nogil

ctypedef struct Code:
    u8 bytes[80]
    u32 count

cdef enum:                  # which mandatory prefix
    NP = 0
    P66 = 1
    PF3 = 2
    PF2 = 3

cdef enum:                  # modrm bytes: xmm0, mm0, eax as `reg` and …
    AT_RSI = 0x06           # [rsi]
    WITH_0 = 0xC0           # register 0
    WITH_1 = 0xC1
    WITH_EDX = 0xC2

cdef inline u32 prefix_of(const Insn *i) noexcept nogil:
    if i.prefix & 4:
        return PF2
    if i.prefix & 8:
        return PF3
    return P66 if i.prefix & 1 else NP

cdef void add(Code *code, u64 bytes, u32 count) noexcept nogil
cdef void add_insn(Code *code, const Insn *i, u32 modrm, bint wide) noexcept nogil
cdef i64 plain_immediate(const Insn *i) noexcept nogil
cdef Stub finish(Code *code) noexcept nogil
