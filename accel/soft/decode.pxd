# Decoder of x86 instructions. The documentation is in decode.pyx.
from accel.soft.cpu cimport u8, u16, u32
from accel.soft.insn cimport Insn

cdef int decode(const u8 *bytes, u32 avail, u32 mode, u16 off, Insn *out) noexcept nogil
