"""Instructions with a VEX prefix: the host's own, executed on copies of the guest's registers.

A stub (stub.pyx) is the instruction with fixed operands: modrm.reg is ymm0 or eax, vvvv is ymm1 or ecx, modrm.rm ymm2,
edx or what lies at rdi + 64, the register of an immediate is ymm3. Before and after it they are in a Frame, which is filled
from the guest's and copied back when nothing is raised. vex.pyx says of each instruction which of them it uses.

Two operations: the handler's, with the operand in memory, imm the stub, d modrm.reg, s modrm.rm, b vvvv, x the size in
memory, a what alignment it needs; behind it one that is never executed, whose imm is VexOp.use, x what is left of VEX.L, s
the immediate's register, a the vector of addresses, b the size of elements.

Ref: Intel SDM volume 2, 2.4 (exceptions of VEX instructions), 2.3.12 (gathers).
"""

from libc.string cimport memcpy, memset

from accel.soft.control cimport FEAT_1_ECX, FEAT_7_EBX, FEAT_7_ECX
from accel.soft.fpstate cimport *
from accel.soft.insn cimport *
from accel.soft.operand cimport SLOW, mem_operand
from accel.soft.segment cimport CR4_OSXMMEXCPT, seg_linear
from accel.soft.shift cimport op_feature
from accel.soft.stub cimport Code, Stub, add, finish, plain_immediate
from accel.soft.vex cimport *

# 32 bytes each, in memory that is aligned so: modrm.reg, vvvv, modrm.rm, the immediate's register
cdef enum:
    REG = 0
    SECOND = 32
    RM = 64
    FOURTH = 96
    FRAME = 128
    WORDS = 16              # of it


cdef inline u8 *frame_in(u8 *room) noexcept nogil:
    """A frame in FRAME + 32 bytes."""
    return <u8 *>((<u64>room + 31) & ~<u64>31)


cdef inline void take(Cpu *c, u8 *to, u32 n) noexcept nogil:
    memcpy(to, xmm(c, n), 16)
    memcpy(to + 16, ymm_high(c, n), 16)


cdef inline void give(Cpu *c, const u8 *source, u32 n) noexcept nogil:
    memcpy(xmm(c, n), source, 16)
    memcpy(ymm_high(c, n), source + 16, 16)


cdef inline u32 use_of(const Uop *u) noexcept nogil:
    return <u32>u[1].imm


cdef inline void skip(Cpu *c, Uop *u) noexcept nogil:
    """The operation behind the one with the operands. A tail call."""
    next(c, u + 1)


cdef void refuse(Cpu *c, Uop *u) noexcept nogil:
    raise_at(c, u, X_UD if c.vex_trap & (VEX_NONE | VEX_OFF) else X_NM)


cdef int fetch(Cpu *c, Uop *u, void *data) noexcept nogil:
    """The operand in memory."""
    cdef u64 ea = address(c, u)
    cdef u8 *p = readable(c, ea, u.x)
    if ea & u.a:
        raise_gp(c, u, 0)
        return 1
    if p != NULL:
        memcpy(data, p, u.x)
    elif c.memory.load_bytes(c, ea, u.x, data):
        fault(c, u)
        return 1
    return 0


cdef int put(Cpu *c, Uop *u, const void *data) noexcept nogil:
    cdef u64 ea = address(c, u)
    cdef u8 *p = writable(c, ea, u.x)
    if ea & u.a:
        raise_gp(c, u, 0)
        return 1
    if p != NULL:
        memcpy(p, data, u.x)
    elif c.memory.store_bytes(c, ea, u.x, data):
        fault(c, u)
        return 1
    return 0


cdef int call(Cpu *c, Uop *u, u8 *frame, u64 value, u64 *result) noexcept nogil:
    """The stub. 1: #XM is raised, and nothing is to be written."""
    cdef u32 raised_now
    if likely(c.mxcsr & MASKS == MASKS or not use_of(u) & V_ROUNDS):
        result[0] = (<Stub>u.imm)(frame, frame + RM, value)
        return 0
    fetch_mxcsr(c)
    vr_set_mxcsr((c.mxcsr & ~<u32>0x3F) | MASKS)
    result[0] = (<Stub>u.imm)(frame, frame + RM, value)
    raised_now = vr_get_mxcsr() & 0x3F
    if raised_now & ~(c.mxcsr >> 7) & 7:        # invalid, denormal, divide by zero come before the others
        raised_now &= 7
    put_mxcsr(c, c.mxcsr | raised_now)
    if raised_now & ~(c.mxcsr >> 7) & 0x3F:
        raise_at(c, u, X_XM if c.cr4 & CR4_OSXMMEXCPT else X_UD)
        return 1
    return 0


cdef int vector(Cpu *c, Uop *u) noexcept nogil:
    """An instruction on vectors. 1: an exception is noted."""
    cdef u8 room[FRAME + 32]
    cdef u8 *frame = frame_in(room)
    cdef u32 use = use_of(u)
    cdef u64 value = 0, result = 0
    if use & V_READ:
        take(c, frame + REG, u.d)
    if use & H_READ:
        take(c, frame + SECOND, u.b)
    if use & IS4:
        take(c, frame + FOURTH, u[1].s)
    if u.x:
        if use & (W_READ | E_READ) and fetch(c, u, frame + RM):
            return 1
    elif use & W_READ:
        take(c, frame + RM, u.s)
    elif use & E_READ:
        value = r64(c, u.s)[0]
    if u.x and use & V_ROUNDS and use & W_WRITE and c.memory.probe(c, address(c, u), u.x, True):
        fault(c, u)                             # before MXCSR changes
        return 1
    if call(c, u, frame, value, &result):
        return 1
    if u.x and use & (W_WRITE | E_WRITE):
        return put(c, u, frame + RM)
    if use & V_WRITE:
        give(c, frame + REG, u.d)
    elif use & H_WRITE:
        give(c, frame + REG, u.b)
    elif use & W_WRITE:
        give(c, frame + RM, u.s)
    elif use & G_WRITE:
        r64(c, u.d)[0] = result
    elif use & E_WRITE:
        r64(c, u.s)[0] = result
    if use & V_FLAGS:
        set_status_flags(c, <u32>result & F_STATUS)
    return 0


cdef void op_vector(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(c.vex_trap):
        refuse(c, u)
        return
    if vector(c, u):
        return
    skip(c, u)


cdef int general(Cpu *c, Uop *u) noexcept nogil:
    """BMI1 and BMI2: general registers only."""
    cdef u64 frame[WORDS]
    cdef u32 use = use_of(u)
    cdef u64 flags
    frame[RM // 8] = 0
    frame[SECOND // 8] = r64(c, u.b)[0]
    frame[FOURTH // 8] = c.regs[2]
    if not u.x:
        frame[RM // 8] = r64(c, u.s)[0]
    elif fetch(c, u, &frame[RM // 8]):
        return 1
    flags = (<Stub>u.imm)(frame, NULL, 0)
    if use & B_WRITE:
        r64(c, u.b)[0] = frame[SECOND // 8]
    if use & G_WRITE:                           # of mulx the last when both are the same
        r64(c, u.d)[0] = frame[REG // 8]
    if u[1].x:
        set_status_flags(c, <u32>flags & F_STATUS)
    return 0


cdef void op_general(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(c.vex_trap & VEX_NONE):
        raise_at(c, u, X_UD)
        return
    if general(c, u):
        return
    skip(c, u)


# --- moves, without a stub -----------------------------------------------------------------------------------------------

cdef int load(Cpu *c, Uop *u) noexcept nogil:
    cdef u8 data[32]
    memset(data + 16, 0, 16)
    if fetch(c, u, data):
        return 1
    give(c, data, u.d)
    return 0


cdef void op_load(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea
    cdef u8 *p
    if unlikely(c.vex_trap):
        refuse(c, u)
        return
    ea = address(c, u)
    p = readable(c, ea, u.x)
    if unlikely(p == NULL or ea & u.a):
        if load(c, u):
            return
    else:
        memcpy(xmm(c, u.d), p, 16)
        if u.x == 32:
            memcpy(ymm_high(c, u.d), p + 16, 16)
        else:
            memset(ymm_high(c, u.d), 0, 16)
    skip(c, u)


cdef int store(Cpu *c, Uop *u) noexcept nogil:
    cdef u8 data[32]
    take(c, data, u.d)
    return put(c, u, data)


cdef void op_store(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 ea
    cdef u8 *p
    if unlikely(c.vex_trap):
        refuse(c, u)
        return
    ea = address(c, u)
    p = writable(c, ea, u.x)
    if unlikely(p == NULL or ea & u.a):
        if store(c, u):
            return
    else:
        memcpy(p, xmm(c, u.d), 16)
        if u.x == 32:
            memcpy(p + 16, ymm_high(c, u.d), 16)
    skip(c, u)


cdef void op_copy(Cpu *c, Uop *u) noexcept nogil:
    """From u.s to u.d."""
    if unlikely(c.vex_trap):
        refuse(c, u)
        return
    memcpy(xmm(c, u.d), xmm(c, u.s), 16)
    if u[1].x:
        memcpy(ymm_high(c, u.d), ymm_high(c, u.s), 16)
    else:
        memset(ymm_high(c, u.d), 0, 16)
    skip(c, u)


# --- those that are not only registers and one operand --------------------------------------------------------------------

cdef void op_zero(Cpu *c, Uop *u) noexcept nogil:
    """vzeroupper; vzeroall (L)."""
    cdef u32 n, count = 16 if c.mode & MODE_64 else 8
    if unlikely(c.vex_trap):
        refuse(c, u)
        return
    memset(ymm_high(c, 0), 0, 16 * count)
    if u[1].x:
        for n in range(count):
            memset(xmm(c, n), 0, 16)
    skip(c, u)


cdef int mxcsr(Cpu *c, Uop *u) noexcept nogil:
    """vldmxcsr, vstmxcsr (s 3)."""
    cdef u32 value = 0
    if u.s == 3:
        fetch_mxcsr(c)
        value = c.mxcsr
        return put(c, u, &value)
    if fetch(c, u, &value):
        return 1
    if value & ~mxcsr_mask(c):
        raise_gp(c, u, 0)
        return 1
    put_mxcsr(c, value)
    return 0


cdef int masked_bytes(Cpu *c, Uop *u) noexcept nogil:
    """vmaskmovdqu: bytes of d where s has the sign bit."""
    cdef u64 ea = address(c, u)
    cdef u32 n
    for n in range(16):
        if xmm(c, u.s)[n] & 0x80 and c.memory.probe(c, ea + n, 1, True):
            fault(c, u)
            return 1
    for n in range(16):
        if xmm(c, u.s)[n] & 0x80 and c.memory.store(c, ea + n, 1, xmm(c, u.d)[n]):
            fault(c, u)
            return 1
    return 0


cdef inline bint chosen(const u8 *mask, u32 size, u32 n) noexcept nogil:
    """The sign of element n."""
    return mask[size * n + size - 1] & 0x80


cdef int masked(Cpu *c, Uop *u) noexcept nogil:
    """vmaskmov and vpmaskmov: elements of b bytes where vvvv has the sign bit; no others are accessed."""
    cdef u8 mask[32]
    cdef u8 data[32]
    cdef u64 ea = address(c, u)
    cdef u32 size = u[1].b, n, count = u.x // size
    cdef bint writes = u.s
    take(c, mask, u.b)
    memset(data, 0, 32)
    if writes:
        take(c, data, u.d)
    for n in range(count):
        if not chosen(mask, size, n):
            continue
        if writes:
            if c.memory.probe(c, ea + size * n, size, True):
                fault(c, u)
                return 1
        elif c.memory.load_bytes(c, ea + size * n, size, data + size * n):
            fault(c, u)
            return 1
    if not writes:
        give(c, data, u.d)
        return 0
    for n in range(count):
        if chosen(mask, size, n) and c.memory.store_bytes(c, ea + size * n, size, data + size * n):
            fault(c, u)
            return 1
    return 0


cdef int element_at(Cpu *c, Uop *u, i64 index, u64 *ea) noexcept nogil:
    """Where an element of a gather lies. s: the size of addresses, x: the segment."""
    cdef u64 offset = r64(c, u.base)[0] + (<u64>index << u.scale) + <u64><i64>u.disp
    if u.s == 4:
        offset &= <u64>0xFFFFFFFF
    if c.mode & MODE_64:
        ea[0] = offset + r64(c, u.seg)[0]
        return 0
    return seg_linear(c, u.x, offset, u[1].b, False, ea)


cdef int gathered(Cpu *c, Uop *u) noexcept nogil:
    """Element by element: after a fault those before it are there, and gone from the mask."""
    cdef u8 mask[32]
    cdef u8 data[32]
    cdef u8 indices[32]
    cdef u32 size = u[1].b, wide = u.a, count, n
    cdef i64 index
    cdef u64 ea = 0
    cdef int failed = 0
    count = (32 if u[1].x else 16) // (size if size > wide else wide)
    take(c, mask, u.b)
    take(c, data, u.d)
    take(c, indices, u[1].a)
    for n in range(count):
        if chosen(mask, size, n):
            index = (<i64 *>indices)[n] if wide == 8 else (<i32 *>indices)[n]
            if element_at(c, u, index, &ea) or c.memory.load_bytes(c, ea, size, data + size * n):
                failed = 1
                break
        memset(mask + size * n, 0, size)
    if not failed:
        memset(mask, 0, 32)
        memset(data + size * count, 0, 32 - size * count)
    give(c, data, u.d)
    give(c, mask, u.b)
    if failed:
        fault(c, u)
    return failed


cdef int strings(Cpu *c, Uop *u) noexcept nogil:
    """vpcmpestrm, vpcmpestri, vpcmpistrm, vpcmpistri. s 1: the result is an index; stub: as that of sse.pyx."""
    cdef u64 room[12]
    cdef u64 *data = <u64 *>((<u64>room + 15) & ~<u64>15)
    memcpy(data, xmm(c, u.d), 16)
    if not u.x:
        memcpy(data + 2, xmm(c, u.b), 16)
    elif fetch(c, u, data + 2):
        return 1
    data[4], data[5] = c.regs[0], c.regs[2]
    set_status_flags(c, <u32>(<Stub>u.imm)(data, data + 2, 0) & F_STATUS)
    if u.s:
        c.regs[1] = <u32>data[4]
    else:
        memcpy(xmm(c, 0), data, 16)
        memset(ymm_high(c, 0), 0, 16)
    return 0


ctypedef int (*Own)(Cpu *c, Uop *u) noexcept nogil


cdef void op_own(Cpu *c, Uop *u) noexcept nogil:
    """One of these functions: u[1].disp says which."""
    cdef Own function = owns[u[1].disp]
    if unlikely(c.vex_trap):
        refuse(c, u)
        return
    if function(c, u):
        return
    skip(c, u)


cdef Own owns[5]
owns[0], owns[1], owns[2], owns[3], owns[4] = mxcsr, masked_bytes, masked, gathered, strings


# --- the emitter ---------------------------------------------------------------------------------------------------------

cdef Uop *feature(const VexOp *op, bint wide, Uop *u) noexcept nogil:
    """The check in front."""
    u.fn, u.a, u.b = op_feature, FEAT_1_ECX, 28
    if op.feature == F_AVX2 or op.feature == F_A2 and wide:
        u.a, u.b = FEAT_7_EBX, 5
    elif op.feature == F_FMA:
        u.b = 12
    elif op.feature == F_F16C:
        u.b = 29
    elif op.feature == F_BMI1:
        u.a, u.b = FEAT_7_EBX, 3
    elif op.feature == F_BMI2:
        u.a, u.b = FEAT_7_EBX, 8
    elif op.feature == F_AES or op.feature == F_CLMUL:
        if wide:
            u.a, u.b = FEAT_7_ECX, 9 if op.feature == F_AES else 10
        else:
            u.b = 25 if op.feature == F_AES else 1
    return u + 1


cdef u32 bytes_of(const Insn *i, const VexOp *op, bint wide) noexcept nogil:
    """Of the operand in memory."""
    cdef u32 size = 32 if wide else 16
    if op.size == S_X:
        return size
    if op.size == S_HALF:
        return size // 2
    if op.size == S_QUARTER:
        return size // 4
    if op.size == S_EIGHTH:
        return size // 8
    if op.size == S_DUP:
        return 32 if wide else 8
    if op.size == S_Y:
        if op.use & (E_READ | E_WRITE | V_BMI):
            return i.osize
        return 8 if i.prefix & P_REXW else 4
    return op.size


cdef void instruction(Code *code, const Insn *i, const VexOp *op, bint wide, u32 second, u32 modrm) noexcept nogil:
    """The instruction with other operands; `second`: vvvv."""
    cdef u32 lead = 3 if i.prefix & P_F2 else (2 if i.prefix & P_F3 else (1 if i.prefix & P_66 else 0))
    cdef bint w = i.prefix & P_REXW != 0
    if op.use & (E_READ | E_WRITE | G_WRITE | V_BMI):
        w = i.osize == 8                        # in 32-bit code it means nothing
        if i.map == MAP_0F3A and (i.op == 0x14 or i.op == 0x15 or i.op == 0x20 or i.op == 0x17):
            w = False
        elif i.map == MAP_0F and (i.op == 0xC4 or i.op == 0xC5 or i.op == 0x50 or i.op == 0xD7):
            w = False
    elif op.size != S_Y and op.width != 2 and not (i.map == MAP_0F38 and (0x45 <= i.op <= 0x47 or 0x96 <= i.op <= 0xBF)):
        w = False
    add(code, 0xC4E0 | i.map, 2)
    add(code, w << 7 | (second ^ 15) << 3 | wide << 2 | lead, 1)
    add(code, i.op, 1)
    add(code, modrm, 1)
    if modrm < 0xC0:
        add(code, RM, 1)
    if op.use & IS4:
        add(code, 0x30, 1)                      # ymm3
    elif op.imm:
        add(code, <u64>i.imm & 0xFF, 1)


cdef void vector_stub(Code *code, const Insn *i, const VexOp *op, bint wide) noexcept nogil:
    cdef u32 modrm = 0x40 | 7 if i.mem else 0xC2, second = 0
    if op.use & V_READ:
        add(code, 0xC5FD6F07, 4)                # vmovdqa ymm0, [rdi]
    if op.use & H_READ:
        add(code, 0xC5FD6F4F20, 5)              # vmovdqa ymm1, [rdi+32]
        second = 1
    if op.use & W_READ and not i.mem:
        add(code, 0xC5FD6F5740, 5)              # vmovdqa ymm2, [rdi+64]
    if op.use & IS4:
        add(code, 0xC5FD6F5F60, 5)              # vmovdqa ymm3, [rdi+96]
    if op.use & E_WRITE and not i.mem:
        modrm = 0xC0                            # eax
    if op.use & H_WRITE:
        modrm |= (i.reg & 7) << 3
    instruction(code, i, op, wide, second, modrm)
    if op.use & V_FLAGS:
        add(code, 0x9C58, 2)                    # pushfq; pop rax
    if op.use & (V_WRITE | H_WRITE):
        add(code, 0xC5FD7F07, 4)                # vmovdqa [rdi], ymm0
    if op.use & W_WRITE and not i.mem:
        add(code, 0xC5FD7F5740, 5)              # vmovdqa [rdi+64], ymm2
    add(code, 0xC5F877, 3)                      # vzeroupper


cdef void general_stub(Code *code, const Insn *i, const VexOp *op) noexcept nogil:
    cdef u32 modrm = 0xC6                       # esi
    add(code, 0x488B4F20, 4)                    # mov rcx, [rdi+32]
    add(code, 0x488B7740, 4)                    # mov rsi, [rdi+64]
    add(code, 0x488B5760, 4)                    # mov rdx, [rdi+96]
    if i.op == 0xF3:
        modrm |= (i.reg & 7) << 3
    instruction(code, i, op, False, 1 if op.use & (B_READ | B_WRITE) else 0, modrm)
    add(code, 0x488907, 3)                      # mov [rdi], rax
    add(code, 0x48894F20, 4)                    # mov [rdi+32], rcx
    add(code, 0x9C58, 2)                        # pushfq; pop rax


cdef void strings_stub(Code *code, const Insn *i) noexcept nogil:
    add(code, 0x0F2807, 3)                      # movaps xmm0, [rdi]
    add(code, 0x0F280E, 3)                      # movaps xmm1, [rsi]
    add(code, 0x31C9, 2)                        # xor ecx, ecx
    add(code, 0x488B4720, 4)                    # mov rax, [rdi+32]
    add(code, 0x488B5728, 4)                    # mov rdx, [rdi+40]
    add(code, 0x66480F3A if i.osize == 8 else 0x660F3A, 4 if i.osize == 8 else 3)
    add(code, i.op, 1)
    add(code, 0xC1, 1)
    add(code, <u64>i.imm & 0x7F, 1)
    add(code, 0x9C58, 2)                        # pushfq; pop rax
    if i.op & 1:
        add(code, 0x48894F20, 4)                # mov [rdi+32], rcx
    else:
        add(code, 0x0F2907, 3)                  # movaps [rdi], xmm0


cdef int own(Insn *i, const VexOp *op, Uop *u) noexcept nogil:
    """Those with functions of their own: what is beside the operand. Which of the functions; -1: #UD."""
    cdef bint qwords = i.prefix & P_REXW
    if op.use & V_MXCSR:
        u.s = i.reg & 7
        return 0
    if op.use & V_BYTES:
        u.d, u.s = i.reg, i.rm
        return 1
    if op.use & V_MASKED:
        u.s = i.op == 0x2E or i.op == 0x2F or i.op == 0x8E
        u[1].b = 8 if qwords or i.op == 0x2D or i.op == 0x2F else 4
        return 2
    if op.use & V_GATHER:
        u.base, u.disp, u.scale = i.base, <i32>i.disp, i.scale
        u.seg = R_FS if i.seg == FS else (R_GS if i.seg == GS else R_ZERO)
        u.s, u.x, u.a = i.asize, i.seg, 8 if i.op & 1 else 4
        u[1].a, u[1].b = i.vindex, 8 if qwords else 4
        return 3 if i.reg != i.vvvv and i.reg != i.vindex and i.vvvv != i.vindex else -1
    u.s, u.b = i.op & 1, i.rm
    return 4


cdef int emit_vex(Insn *i, Uop *u) noexcept nogil:
    """0: not an instruction."""
    cdef Uop *start = u
    cdef Code code
    cdef u32 lead = 3 if i.prefix & P_F2 else (2 if i.prefix & P_F3 else (1 if i.prefix & P_66 else 0)), size
    cdef const VexOp *op = vex_op(i.map, lead, i.op, i.mem)
    cdef bint wide = i.wide and op.length != L_IGNORED
    cdef u8 reg = i.reg, rm = i.rm
    cdef int which
    code.count = 0
    u = feature(op, wide, u)
    size = bytes_of(i, op, wide)
    if op.use & V_BYTES:
        i.base, i.index, i.scale, i.disp, i.mem, i.riprel = RDI, R_ZERO, 0, 0, True, False
        size = 16
    if i.mem and not op.use & V_GATHER:
        u = mem_operand(i, u, size, op.use & (W_WRITE | E_WRITE | V_BYTES) != 0 or op.use & V_MASKED and i.op & 0xE == 0xE)
        u.x = <u8>size
    u.d, u.s, u.b = reg, rm, i.vvvv
    u.a = <u8>(size - 1) if i.mem and op.use & V_ALIGNED else 0
    u[1].imm, u[1].x, u[1].s = op.use, wide, <u8>(i.imm >> 4 & (15 if i.mode & MODE_64 else 7))
    u[1].fn = NULL
    if op.use & V_OWN:
        if op.use & V_ZERO:
            u.fn = op_zero
            return <int>(u - start) + 2
        which = own(i, op, u)
        if which < 0:
            return 0
        if op.use & V_STRINGS:
            strings_stub(&code, i)
        u[1].disp = which
        u.fn = op_own
    elif op.use & V_BMI:
        u.d, u.b = gpr(i, reg, 8), gpr(i, i.vvvv, 8)
        if not i.mem:
            u.s = gpr(i, rm, 8)
        u[1].x = op.writes != 0
        general_stub(&code, i, op)
        u.fn = op_general
    elif op.use & V_MOVE:
        if i.mem:
            u.fn = op_load if op.use & V_WRITE else op_store
        else:
            u.fn = op_copy
            if not op.use & V_WRITE:
                u.d, u.s = rm, reg
    else:
        if op.use & G_WRITE:
            u.d = gpr(i, reg, 8)
        if op.use & (E_READ | E_WRITE) and not i.mem:
            u.s = gpr(i, rm, 8)
        vector_stub(&code, i, op, wide)
        u.fn = op_vector
    if code.count:
        u.imm = <i64>finish(&code)
        if u.imm == 0:
            return 0
    return <int>(u - start) + 2
