# Blocks of predecoded operations. The documentation is in block.pyx.
from accel.soft.cpu cimport *
from accel.soft.insn cimport *

cdef enum:
    MOST = 32               # instructions of a block
    DRAFT = (MOST + 1) * (MAX_UOPS + 3)

# A processor's working space.
ctypedef struct Scratch:
    Insn insns[MOST]
    Uop draft[DRAFT]
    Block block             # the one that is not kept,
    Uop code[DRAFT]         # and its operations
    u8 bytes[32]
    u8 page[4096]           # a copy, where others may write to it
    Insn ahead              # behind the block,
    const u32 *features     # the processor's
    u32 left                # how many more may be looked at,
    u32 low, high           # and what was, as offsets in the page

cdef Block *find_block(Cpu *c) noexcept nogil
cdef u32 gather(Scratch *s, const u8 *bytes, u32 avail, u32 off, u32 mode, u32 most, int *failure) noexcept nogil
cdef u32 flow(Scratch *s, u32 count, const u8 *page) noexcept nogil
cdef void op_mark(Cpu *c, Uop *u) noexcept nogil
cdef void op_count(Cpu *c, Uop *u) noexcept nogil
cdef void op_native(Cpu *c, Uop *u) noexcept nogil
