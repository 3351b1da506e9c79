# Segmentation: linear addresses with all checks, descriptors, segment registers, the stack. Documentation in segment.pyx.
#
# Functions that return int: 0 done; 1 an exception is noted (raised()) and nothing has changed.

from accel.soft.cpu cimport *

ctypedef struct Desc:
    u32 lo, hi
    u64 at                  # linear address of the descriptor

# A stack while several values are pushed or popped; RSP changes only when all went well.
ctypedef struct Stack:
    u64 base
    u64 sp
    u64 mask                # of sp: 0xFFFF, 0xFFFFFFFF or all ones
    u32 limit
    u32 ar
    u32 cpl                 # with whose rights
    u32 error               # of #SS
    bint wide               # 64-bit: no limit, canonical addresses

cdef enum:                  # CR0, CR4, EFER
    CR0_PE = 1
    CR0_MP = 2
    CR0_EM = 4
    CR0_TS = 8
    CR0_ET = 0x10
    CR0_NE = 0x20
    CR0_WP = 0x10000
    CR0_AM = 0x40000
    CR0_NW = 0x20000000
    CR0_CD = 0x40000000
    CR4_VME = 1
    CR4_PVI = 2
    CR4_TSD = 4
    CR4_DE = 8
    CR4_PSE = 0x10
    CR4_PAE = 0x20
    CR4_MCE = 0x40
    CR4_PGE = 0x80
    CR4_PCE = 0x100
    CR4_OSFXSR = 0x200
    CR4_OSXMMEXCPT = 0x400
    CR4_UMIP = 0x800
    CR4_FSGSBASE = 0x10000
    CR4_PCIDE = 0x20000
    CR4_OSXSAVE = 0x40000
    CR4_SMEP = 0x100000
    CR4_SMAP = 0x200000
    CR4_PKE = 0x400000
    CR4_PKS = 0x1000000
    EFER_SCE = 1
    EFER_LME = 0x100
    EFER_LMA = 0x400
    EFER_NXE = 0x800
    EFER_FFXSR = 0x4000

cdef inline bint is_64(Cpu *c) noexcept nogil:
    return c.mode & MODE_BITS == MODE_64

cdef inline bint is_protected(Cpu *c) noexcept nogil:
    """PE and not virtual-8086: selectors mean descriptors."""
    return c.cr0 & CR0_PE and not c.eflags & F_VM

cdef inline bint is_long(Cpu *c) noexcept nogil:
    return c.efer & EFER_LMA != 0

cdef inline bint is_v86(Cpu *c) noexcept nogil:
    return c.eflags & F_VM != 0

cdef inline u32 iopl(Cpu *c) noexcept nogil:
    return (c.eflags >> 12) & 3

cdef inline bint canonical(u64 at) noexcept nogil:
    return <u64>(<i64>(at << 16) >> 16) == at

cdef inline int failed(Cpu *c, u32 vector, u32 error) noexcept nogil:
    """Note an exception with an error code: `return failed(c, X_NP, sel & 0xFFFC)`."""
    raised(c, vector, error, True)
    return 1

cdef inline u64 desc_base(Desc *d) noexcept nogil:
    return (d.lo >> 16) | ((d.hi & 0xFF) << 16) | (d.hi & <u32>0xFF000000)

cdef inline u32 desc_limit(Desc *d) noexcept nogil:
    cdef u32 limit = (d.lo & 0xFFFF) | (d.hi & 0xF0000)
    return (limit << 12) | 0xFFF if d.hi & 0x800000 else limit

cdef inline u32 desc_ar(Desc *d) noexcept nogil:
    return (d.hi >> 8) & 0xF0FF

cdef inline u32 ar_dpl(u32 ar) noexcept nogil:
    return (ar >> 5) & 3

cdef inline bint is_code(u32 ar) noexcept nogil:
    return ar & (AR_S | AR_CODE) == AR_S | AR_CODE

cdef inline bint is_writable(u32 ar) noexcept nogil:
    """A data segment that may be written."""
    return ar & (AR_S | AR_CODE | AR_RW) == AR_S | AR_RW

cdef inline bint within(u32 ar, u32 limit, u64 offset, u32 size) noexcept nogil:
    """Does an access of `size` bytes at `offset` (32 bits) lie inside the segment?"""
    if ar & (AR_S | AR_CODE | AR_CE) == AR_S | AR_CE:
        return offset > limit and offset + size - 1 <= (<u64>0xFFFFFFFF if ar & AR_DB else 0xFFFF)
    return offset + size - 1 <= limit or limit == <u32>0xFFFFFFFF

cdef inline u64 sp_mask(Cpu *c) noexcept nogil:
    if is_64(c):
        return ~<u64>0
    return <u64>0xFFFFFFFF if c.seg[SS].ar & AR_DB else 0xFFFF

cdef inline void set_sp(Cpu *c, u64 value) noexcept nogil:
    """RSP as wide as the stack is; a 16-bit stack keeps the upper half of ESP."""
    cdef u64 mask = sp_mask(c)
    if mask == 0xFFFF:
        r16(c, RSP)[0] = <u16>value
    else:
        r64(c, RSP)[0] = value & mask

cdef int seg_linear(Cpu *c, u32 seg, u64 offset, u32 size, bint write, u64 *linear) noexcept nogil
cdef int fetch_desc(Cpu *c, u32 sel, u32 vector, Desc *d) noexcept nogil
cdef int mark_accessed(Cpu *c, Desc *d) noexcept nogil
cdef void set_seg(Cpu *c, u32 n, u32 sel, Desc *d) noexcept nogil
cdef void set_seg_null(Cpu *c, u32 n, u32 sel) noexcept nogil
cdef void set_seg_real(Cpu *c, u32 n, u32 sel) noexcept nogil
cdef int check_ss(Cpu *c, u32 sel, u32 cpl, u32 vector, Desc *d) noexcept nogil
cdef int load_seg(Cpu *c, u32 n, u32 sel) noexcept nogil
cdef void stack_of(Cpu *c, Stack *s) noexcept nogil
cdef void stack_new(Cpu *c, Stack *s, u32 sel, Desc *d, u64 sp, u32 cpl) noexcept nogil
cdef int put(Cpu *c, Stack *s, u32 size, u64 value) noexcept nogil
cdef int take(Cpu *c, Stack *s, u32 size, u64 *value) noexcept nogil
cdef int push(Cpu *c, u32 size, u64 value) noexcept nogil
cdef int pop(Cpu *c, u32 size, u64 *value) noexcept nogil
