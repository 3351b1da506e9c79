"""SSE to SSE4.2: the host's instruction with xmm0 for the destination and xmm1 or [rsi] for the source (stub.pyx).

Uop: imm the stub, d and s the XMM registers (s also for a result in memory), b a general register, x the size in memory,
a 15 where an operand in memory must be aligned to 16 bytes. Instructions that round or raise exceptions have handlers of
their own (fp_…): with an exception unmasked they run apart and raise #XM instead of writing.
"""

from libc.string cimport memcpy, memset

from accel.soft.fpstate cimport *
from accel.soft.insn cimport *
from accel.soft.operand cimport *
from accel.soft.segment cimport CR4_OSXMMEXCPT
from accel.soft.shift cimport op_feature, op_nothing
from accel.soft.ssedirect cimport direct, set_fallbacks
from accel.soft.sseforms cimport bytes_of, feature_of, rounds, unaligned
from accel.soft.ssestate cimport emit_control, off, refuse
from accel.soft.stub cimport AT_RSI, NP as BARE, WITH_1, Code, P66, PF2, PF3, add, add_insn, finish, plain_immediate, prefix_of


cdef inline bint checked(Cpu *c) noexcept nogil:
    """An exception is not masked."""
    return c.mxcsr & MASKS != MASKS


cdef int apart(Cpu *c, Uop *u, u8 *to, const u8 *source, u64 value, u64 *result) noexcept nogil:
    """With an exception unmasked: 1: #XM is raised and nothing written. `to`: 16 bytes."""
    cdef u64 copy[2]
    cdef u32 raised_now
    fetch_mxcsr(c)
    memcpy(copy, to, 16)
    vr_set_mxcsr((c.mxcsr & ~<u32>0x3F) | MASKS)
    result[0] = (<Stub>u.imm)(copy, source, value)
    raised_now = vr_get_mxcsr() & 0x3F
    if raised_now & ~(c.mxcsr >> 7) & 7:        # invalid, denormal, divide by zero come before the others
        raised_now &= 7
    put_mxcsr(c, c.mxcsr | raised_now)
    if raised_now & ~(c.mxcsr >> 7) & 0x3F:
        raise_at(c, u, X_XM if c.cr4 & CR4_OSXMMEXCPT else X_UD)
        return 1
    memcpy(to, copy, 16)
    return 0


cdef int fetch(Cpu *c, Uop *u, void *data) noexcept nogil:
    """The operand in memory, with its check of alignment."""
    cdef u64 ea = address(c, u)
    if ea & u.a and not c.mxcsr & MISALIGNED:
        raise_gp(c, u, 0)
        return 1
    if c.memory.load_bytes(c, ea, u.x, data):
        fault(c, u)
        return 1
    return 0


# --- to an XMM register ------------------------------------------------------------------------------------------------------

cdef void op_r(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(off(c)):
        refuse(c, u)
        return
    (<Stub>u.imm)(xmm(c, u.d), xmm(c, u.s), 0)
    next(c, u)


cdef int slow_m(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 room[4]
    cdef u64 *data = <u64 *>((<u64>room + 15) & ~<u64>15)
    if fetch(c, u, data):
        return 1
    (<Stub>u.imm)(xmm(c, u.d), data, 0)
    return 0


cdef void op_m(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea
    cdef u8 *p
    if unlikely(off(c)):
        refuse(c, u)
        return
    ea = address(c, u)
    p = readable(c, ea, u.x)
    if unlikely(p == NULL or ea & u.a):
        if slow_m(c, u):
            return
    else:
        (<Stub>u.imm)(xmm(c, u.d), p, 0)
    next(c, u)


cdef void op_gpr(Cpu *c, Uop *u) noexcept nogil:
    """From general register u.b: movd, pinsr."""
    if unlikely(off(c)):
        refuse(c, u)
        return
    (<Stub>u.imm)(xmm(c, u.d), NULL, r64(c, u.b)[0])
    next(c, u)


cdef int fp_slow(Cpu *c, Uop *u, bint memory) noexcept nogil:
    cdef u64 room[4]
    cdef u64 *data = <u64 *>((<u64>room + 15) & ~<u64>15)
    cdef u64 ignored = 0
    if memory and fetch(c, u, data):
        return 1
    if checked(c):
        return apart(c, u, xmm(c, u.d), <u8 *>data if memory else xmm(c, u.s), r64(c, u.b)[0], &ignored)
    (<Stub>u.imm)(xmm(c, u.d), data if memory else xmm(c, u.s), r64(c, u.b)[0])
    return 0


cdef void fp_r(Cpu *c, Uop *u) noexcept nogil:
    """From an XMM register, or general register u.b (cvtsi2sd)."""
    if unlikely(off(c)):
        refuse(c, u)
        return
    if unlikely(checked(c)):
        if fp_slow(c, u, False):
            return
    else:
        (<Stub>u.imm)(xmm(c, u.d), xmm(c, u.s), r64(c, u.b)[0])
    next(c, u)


cdef void fp_m(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea
    cdef u8 *p
    if unlikely(off(c)):
        refuse(c, u)
        return
    ea = address(c, u)
    p = readable(c, ea, u.x)
    if unlikely(p == NULL or ea & u.a or checked(c)):
        if fp_slow(c, u, True):
            return
    else:
        (<Stub>u.imm)(xmm(c, u.d), p, 0)
    next(c, u)


set_fallbacks(fp_r, fp_m)


# --- moves without a stub ----------------------------------------------------------------------------------------------------

cdef void mov_r(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(off(c)):
        refuse(c, u)
        return
    memcpy(xmm(c, u.d), xmm(c, u.s), 16)
    next(c, u)


# --- SSE4a: a field of bits in the low half (AMD volume 4). The high half is undefined; processors clear it. ------------------

cdef u64 field(u64 control) noexcept nogil:
    """Its bits, at the bottom: control 5:0 is their number, 0 for all 64."""
    return (<u64>1 << (control & 63)) - 1 if control & 63 else ~<u64>0


cdef void extract(Cpu *c, Uop *u, u64 control) noexcept nogil:
    cdef u64 *to = <u64 *>xmm(c, u.d)
    if unlikely(off(c)):
        refuse(c, u)
        return
    to[0] = to[0] >> (control >> 8 & 63) & field(control)
    to[1] = 0
    next(c, u)


cdef void insert(Cpu *c, Uop *u, u64 control) noexcept nogil:
    cdef u64 *to = <u64 *>xmm(c, u.d)
    cdef u32 index = control >> 8 & 63
    if unlikely(off(c)):
        refuse(c, u)
        return
    to[0] = to[0] & ~(field(control) << index) | ((<u64 *>xmm(c, u.s))[0] & field(control)) << index
    to[1] = 0
    next(c, u)


cdef void op_extrq_i(Cpu *c, Uop *u) noexcept nogil:
    extract(c, u, <u64>u.imm)


cdef void op_extrq(Cpu *c, Uop *u) noexcept nogil:
    extract(c, u, (<u64 *>xmm(c, u.s))[0])


cdef void op_insertq_i(Cpu *c, Uop *u) noexcept nogil:
    insert(c, u, <u64>u.imm)


cdef void op_insertq(Cpu *c, Uop *u) noexcept nogil:
    insert(c, u, (<u64 *>xmm(c, u.s))[1])


cdef int slow_load(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 data[2]
    if address(c, u) & u.a:
        raise_gp(c, u, 0)
        return 1
    if fetch(c, u, data):
        return 1
    memcpy(xmm(c, u.d), data, 16)
    return 0


cdef void mov_m(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea
    cdef u8 *p
    if unlikely(off(c)):
        refuse(c, u)
        return
    ea = address(c, u)
    p = readable(c, ea, 16)
    if unlikely(p == NULL or ea & u.a):
        if slow_load(c, u):
            return
    else:
        memcpy(xmm(c, u.d), p, 16)
    next(c, u)


cdef int slow_store(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea = address(c, u)
    if ea & u.a:
        raise_gp(c, u, 0)
        return 1
    if c.memory.store_bytes(c, ea, u.x, xmm(c, u.s) + u.b):
        fault(c, u)
        return 1
    return 0


cdef void mov_store(Cpu *c, Uop *u) noexcept nogil:
    """u.x bytes from byte u.b of register u.s."""
    cdef u64 ea
    cdef u8 *p
    if unlikely(off(c)):
        refuse(c, u)
        return
    ea = address(c, u)
    p = writable(c, ea, u.x)
    if unlikely(p == NULL or ea & u.a):
        if slow_store(c, u):
            return
    elif u.x == 16:
        memcpy(p, xmm(c, u.s), 16)
    elif u.x == 8:
        (<u64 *>p)[0] = (<u64 *>(xmm(c, u.s) + u.b))[0]
    else:
        memcpy(p, xmm(c, u.s) + u.b, u.x)
    next(c, u)


cdef void op_movnti(Cpu *c, Uop *u) noexcept nogil:
    if c.memory.store(c, address(c, u), u.x, r64(c, u.b)[0]):
        fault(c, u)
        return
    next(c, u)


cdef int masked_store(Cpu *c, Uop *u) noexcept nogil:
    """maskmovdqu: bytes of u.s where u.d has the sign bit."""
    cdef u64 ea = address(c, u)
    cdef u32 n
    for n in range(16):
        if xmm(c, u.d)[n] & 0x80 and c.memory.probe(c, ea + n, 1, True):
            return 1
    for n in range(16):
        if xmm(c, u.d)[n] & 0x80 and c.memory.store(c, ea + n, 1, xmm(c, u.s)[n]):
            return 1
    return 0


cdef void op_masked_store(Cpu *c, Uop *u) noexcept nogil:
    if off(c):
        refuse(c, u)
        return
    if masked_store(c, u):
        fault(c, u)
        return
    next(c, u)


# --- to a general register, to the flags -------------------------------------------------------------------------------------

cdef void set_gpr(Cpu *c, Uop *u, u64 value) noexcept nogil:
    """u.d: the register; u.b: 8 for all of it."""
    r64(c, u.d)[0] = value if u.b == 8 else <u32>value


cdef void op_to_gpr(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(off(c)):
        refuse(c, u)
        return
    set_gpr(c, u, (<Stub>u.imm)(NULL, xmm(c, u.s), 0))
    next(c, u)


cdef int do_convert(Cpu *c, Uop *u, u64 *result) noexcept nogil:
    """cvtss2si and its like. The source is in memory when u.x is not 0."""
    cdef u64 room[8]
    cdef u8 *data = <u8 *>((<u64>room + 15) & ~<u64>15)
    cdef u8 *source = data
    memset(data, 0, 32)
    if u.x:
        if fetch(c, u, data):
            return 1
    else:
        source = xmm(c, u.s)
    if checked(c):
        return apart(c, u, data + 16, source, 0, result)
    result[0] = (<Stub>u.imm)(NULL, source, 0)
    return 0


cdef void fp_to_gpr(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(off(c)):
        refuse(c, u)
        return
    if do_convert(c, u, &c.regs[SLOW]):
        return
    set_gpr(c, u, c.regs[SLOW])
    next(c, u)


cdef int test(Cpu *c, Uop *u) noexcept nogil:
    """ptest."""
    cdef u64 data[2]
    cdef u64 *left = <u64 *>xmm(c, u.d)
    if not u.x:
        memcpy(data, xmm(c, u.s), 16)
    elif fetch(c, u, data):
        return 1
    set_status_flags(
        c,
        (F_ZF if left[0] & data[0] == 0 and left[1] & data[1] == 0 else 0)
        | (F_CF if ~left[0] & data[0] == 0 and ~left[1] & data[1] == 0 else 0),
    )
    return 0


cdef void op_ptest(Cpu *c, Uop *u) noexcept nogil:
    if off(c):
        refuse(c, u)
        return
    if test(c, u):
        return
    next(c, u)


cdef int compare_strings(Cpu *c, Uop *u) noexcept nogil:
    """pcmpestri … pcmpistrm. The stub: rdi both operands, result and flags; u.b: the result is an index."""
    cdef u64 room[10]
    cdef u64 *data = <u64 *>((<u64>room + 15) & ~<u64>15)
    memcpy(data, xmm(c, u.d), 16)
    if not u.x:
        memcpy(data + 2, xmm(c, u.s), 16)
    elif fetch(c, u, data + 2):
        return 1
    data[4], data[5] = c.regs[0], c.regs[2]
    set_status_flags(c, <u32>(<Stub>u.imm)(data, data + 2, 0) & F_STATUS)
    if u.b:
        c.regs[1] = <u32>data[4]
    else:
        memcpy(xmm(c, 0), data, 16)
    return 0


cdef void op_compare_strings(Cpu *c, Uop *u) noexcept nogil:
    if off(c):
        refuse(c, u)
        return
    if compare_strings(c, u):
        return
    next(c, u)


# --- choosing --------------------------------------------------------------------------------------------------------------

cdef int done(Uop *start, Uop *u, Code *code) noexcept nogil:
    if code.count:
        u.imm = <i64>finish(code)
        if u.imm == 0:
            return 0
    return <int>(u - start) + 1


cdef int emit_store(Insn *i, Uop *u, u32 prefix) noexcept nogil:
    """Those that write memory. 0: not one of them."""
    cdef Uop *start = u
    cdef u32 op = i.op, size = bytes_of(i, prefix)
    cdef bint wide = i.osize == 8
    if i.map == MAP_0F3A and 0x14 <= op <= 0x17:
        size = 1 if op == 0x14 else (2 if op == 0x15 else (8 if op == 0x16 and wide else 4))
        u = feature_of(i, u)
        u = mem_operand(i, u, size, True)
        u.b = <u8>((i.imm & (16 // size - 1)) * size)
    elif i.map == MAP_0F and op == 0xC3:
        u = mem_operand(i, u, 8 if wide else 4, True)
        u.x = 8 if wide else 4
        u.b = gpr(i, i.reg, 8)
        u.fn = op_movnti
        return <int>(u - start) + 1
    elif i.map == MAP_0F and (
        op == 0x11 or op == 0x13 or op == 0x17 or op == 0x29 or op == 0x2B or op == 0x7F or op == 0xD6 or op == 0xE7
        or op == 0x7E and prefix == P66
    ):
        if op == 0x7E:
            size = 8 if wide else 4
        u = mem_operand(i, u, size, True)
        u.b = 8 if op == 0x17 else 0
        u.a = 15 if size == 16 and not unaligned(i, prefix) else 0
    else:
        return 0
    u.x = <u8>size
    u.s = i.reg
    u.fn = mov_store
    return <int>(u - start) + 1


cdef int emit_sse4a(Insn *i, Uop *u, u32 prefix) noexcept nogil:
    """EXTRQ, INSERTQ, MOVNTSS, MOVNTSD. 0: not one of them."""
    cdef Uop *start = u
    u.fn, u.a, u.b = op_feature, 3, 6           # CPUID 80000001.ECX
    u += 1
    if i.op == 0x2B:
        u = mem_operand(i, u, 8 if prefix == PF2 else 4, True)
        u.a, u.b, u.x, u.s = 0, 0, 8 if prefix == PF2 else 4, i.reg
        u.fn = mov_store
        return <int>(u - start) + 1
    u.d, u.s = i.reg, i.rm
    if i.op == 0x78:
        u.imm = i.imm
        if prefix == P66:
            u.d = i.rm
        u.fn = op_extrq_i if prefix == P66 else op_insertq_i
    else:
        u.fn = op_extrq if prefix == P66 else op_insertq
    return <int>(u - start) + 1


cdef void add_load(Code *code, u32 n, bint from_rsi) noexcept nogil:
    """movaps xmm n, [rdi] or [rsi]."""
    add(code, 0x0F28, 2)
    add(code, (n << 3) | (6 if from_rsi else 7), 1)


cdef int emit_sse(Insn *i, Uop *u) noexcept nogil:
    """0: not an instruction."""
    cdef Uop *start = u
    cdef Code code
    cdef u32 op = i.op, prefix = prefix_of(i), size = bytes_of(i, prefix)
    cdef bint wide = i.osize == 8, one = i.map == MAP_0F, fp = rounds(i, prefix)
    cdef Handler quick
    cdef int n
    code.count = 0
    if one and (op == 0x78 or op == 0x79 or op == 0x2B and (prefix == PF3 or prefix == PF2)):
        return emit_sse4a(i, u, prefix)
    i.imm = plain_immediate(i)
    if one and op == 0xAE:
        return emit_control(i, u)
    if one and (op == 0x12 or op == 0x16) and prefix == P66 and not i.mem or one and op == 0xD6 and prefix != P66:
        return 0
    if i.mem:
        n = emit_store(i, u, prefix)
        if n:
            return n
    if not one:
        u = feature_of(i, u)
    if one and op == 0xF7:
        i.base, i.index, i.scale, i.disp, i.mem = RDI, R_ZERO, 0, 0, True
        u.s = i.reg
        n = i.rm
        u = mem_operand(i, u, 16, True)
        u.s, u.d = i.reg, <u8>n
        u.fn = op_masked_store
        return <int>(u - start) + 1
    # moves of whole registers
    if one and (op == 0x28 or op == 0x29 or op == 0x6F or op == 0x7F or (op == 0x10 or op == 0x11) and (
        prefix == BARE or prefix == P66
    ) or op == 0xF0):
        if i.mem:
            u = mem_operand(i, u, 16, False)
            u.x, u.a = 16, 0 if unaligned(i, prefix) else 15
            u.d = i.reg
            u.fn = mov_m
        else:
            u.d, u.s = i.reg, i.rm
            if op == 0x29 or op == 0x7F or op == 0x11:
                u.d, u.s = i.rm, i.reg
            u.fn = mov_r
        return <int>(u - start) + 1
    # results in general registers
    if one and (op == 0x50 or op == 0xD7 or op == 0xC5) or one and op == 0x7E and prefix == P66 or (
        i.map == MAP_0F3A and 0x14 <= op <= 0x17
    ):
        u.fn = op_to_gpr
        if one and op != 0x7E:
            u.s, u.d, u.b = i.rm, gpr(i, i.reg, 8), 4
            add_load(&code, 1, True)
            add_insn(&code, i, WITH_1, False)
        else:
            u.s, u.d, u.b = i.reg, gpr(i, i.rm, 8), 8 if wide and (one or op == 0x16) else 4
            add_load(&code, 1, True)
            add_insn(&code, i, 0xC8, u.b == 8)
        return done(start, u, &code)
    if one and (op == 0x2C or op == 0x2D or op == 0x2E or op == 0x2F):
        if i.mem:
            u = mem_operand(i, u, size, False)
            u.x = <u8>size
        else:
            u.s = i.rm
        if op < 0x2E:
            u.d, u.b = gpr(i, i.reg, 8), 8 if wide else 4
            u.fn = fp_to_gpr
            add_insn(&code, i, AT_RSI, wide)
        return done(start, u, &code) if op < 0x2E else emit_comis(i, start, u, &code)
    if i.map == MAP_0F38 and op == 0x17:
        if i.mem:
            u = mem_operand(i, u, 16, False)
            u.x, u.a = 16, 15
        u.d, u.s = i.reg, i.rm
        u.fn = op_ptest
        return <int>(u - start) + 1
    if i.map == MAP_0F3A and 0x60 <= op <= 0x63:
        if i.mem:
            u = mem_operand(i, u, 16, False)
            u.x = 16
        u.d, u.s, u.b = i.reg, i.rm, op & 1
        u.fn = op_compare_strings
        add_load(&code, 0, False)
        add_load(&code, 1, True)
        add(&code, 0x31C9, 2)                               # xor ecx, ecx
        add(&code, 0x488B4720, 4)                           # mov rax, [rdi+32]
        add(&code, 0x488B5728, 4)                           # mov rdx, [rdi+40]
        add_insn(&code, i, WITH_1, wide)
        add(&code, 0x9C58, 2)                               # pushfq; pop rax
        if op & 1:
            add(&code, 0x48894F20, 4)                       # mov [rdi+32], rcx
        else:
            add(&code, 0x0F2907, 3)                         # movaps [rdi], xmm0
        return done(start, u, &code)
    # from a general register
    if one and (op == 0x6E or op == 0xC4 or op == 0x2A) or i.map == MAP_0F3A and (op == 0x20 or op == 0x22):
        size = (8 if wide else 4) if op == 0x6E or op == 0x2A or op == 0x22 else (2 if op == 0xC4 else 1)
        wide = wide and size == 8
        fp = op == 0x2A
        u.d = i.reg
        add_load(&code, 0, False)
        if i.mem:
            u = mem_operand(i, u, size, False)
            u.x, u.d = <u8>size, i.reg
            add_insn(&code, i, AT_RSI, wide)
        else:
            u.b = gpr(i, i.rm, 8)
            add_insn(&code, i, 0xC2, wide)
        add(&code, 0x0F2907, 3)
        if i.mem:
            u.fn = fp_m if fp else op_m
        else:
            u.fn = fp_r if fp else op_gpr
        return done(start, u, &code)
    # shifts by an immediate
    if one and 0x71 <= op <= 0x73:
        u.d = u.s = i.rm
        add_load(&code, 0, False)
        add_insn(&code, i, 0xC0 | ((i.reg & 7) << 3), False)
        add(&code, 0x0F2907, 3)
        u.fn = op_r
        return done(start, u, &code)
    # everything else: xmm0 becomes what the instruction makes of xmm0 and its operand
    if one and op == 0x11 or one and op == 0xD6:            # register forms of stores: the other way round
        u.d, u.s = i.rm, i.reg
        if op == 0xD6:
            add(&code, 0xF30F7E06, 4)                       # movq xmm0, [rsi]
        else:
            add_load(&code, 0, False)
            add_load(&code, 1, True)
            add(&code, 0xF3 if prefix == PF3 else 0xF2, 1)
            add(&code, 0x0F10C1, 3)
        add(&code, 0x0F2907, 3)
        u.fn = op_r
        return done(start, u, &code)
    if i.map == MAP_0F38 and (op == 0x10 or op == 0x14 or op == 0x15 or op == 0xCB):
        return emit_blend(i, start, u, &code)
    u.d = i.reg
    add_load(&code, 0, False)
    if i.mem:
        u = mem_operand(i, u, size, False)
        u.d, u.x = i.reg, <u8>size
        u.a = 15 if size == 16 and not unaligned(i, prefix) else 0
        add_insn(&code, i, AT_RSI, False)
        u.fn = fp_m if fp else op_m
    else:
        u.s = i.rm
        add_load(&code, 1, True)
        add_insn(&code, i, WITH_1, False)
        u.fn = fp_r if fp else op_r
    add(&code, 0x0F2907, 3)
    n = done(start, u, &code)
    quick = direct(i, u, prefix)
    if n and quick != NULL:
        u.fn = quick
    return n


cdef int emit_comis(Insn *i, Uop *start, Uop *u, Code *code) noexcept nogil:
    """comiss and its like. The left operand is an XMM register, whose number is in u.d: it is copied by the handler."""
    u.d = i.reg
    u.fn = fp_compare
    add_load(code, 0, False)
    add_insn(code, i, AT_RSI, False)
    add(code, 0x9C58, 2)                                    # pushfq; pop rax
    return done(start, u, code)


cdef int do_compare(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 room[8]
    cdef u8 *data = <u8 *>((<u64>room + 15) & ~<u64>15)
    cdef u8 *source = data
    cdef u64 flags = 0
    if u.x:
        if fetch(c, u, data):
            return 1
    else:
        source = xmm(c, u.s)
    memcpy(data + 16, xmm(c, u.d), 16)
    if checked(c):
        if apart(c, u, data + 16, source, 0, &flags):
            return 1
    else:
        flags = (<Stub>u.imm)(data + 16, source, 0)
    set_status_flags(c, <u32>flags & (F_CF | F_PF | F_ZF))
    return 0


cdef void fp_compare(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(off(c)):
        refuse(c, u)
        return
    if do_compare(c, u):
        return
    next(c, u)


# --- blendv and sha256rnds2: the mask is XMM0 ------------------------------------------------------------------------------------------------

cdef int blend(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 room[8]
    cdef u64 *data = <u64 *>((<u64>room + 15) & ~<u64>15)
    if not u.x:
        memcpy(data, xmm(c, u.s), 16)
    elif fetch(c, u, data):
        return 1
    memcpy(data + 2, xmm(c, 0), 16)
    (<Stub>u.imm)(xmm(c, u.d), data, 0)
    return 0


cdef void op_blend(Cpu *c, Uop *u) noexcept nogil:
    if off(c):
        refuse(c, u)
        return
    if blend(c, u):
        return
    next(c, u)


cdef int emit_blend(Insn *i, Uop *start, Uop *u, Code *code) noexcept nogil:
    if i.mem:
        u = mem_operand(i, u, 16, False)
        u.x, u.a = 16, 15
    u.d, u.s = i.reg, i.rm
    u.fn = op_blend
    add(code, 0x0F284610, 4)                                # movaps xmm0, [rsi+16]
    add_load(code, 1, False)
    add_load(code, 2, True)
    add_insn(code, i, 0xCA, False)                          # xmm1, xmm2
    add(code, 0x0F290F, 3)                                  # movaps [rdi], xmm1
    return done(start, u, code)
