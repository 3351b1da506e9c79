"""x87 and MMX: the host's instruction on the host's registers, which hold the guest's while c.fp_live.

A stub gets (destination in c.fx or memory, source, value of a general register); its instruction names the same x87 or
MMX registers as the guest's. Uop: imm the stub, x the size in memory, a 1 for MMX, d and s XMM registers, b a general one.
Not modelled: #XM of conversions between MMX and XMM registers (what is not masked is taken as masked).
"""

from libc.string cimport memcpy, memset

from accel.soft.fpstate cimport *
from accel.soft.insn cimport *
from accel.soft.operand cimport *
from accel.soft.segment cimport CR0_EM, CR0_MP, CR0_TS
from accel.soft.shift cimport op_feature
from accel.soft.stub cimport Code, add, finish, NP as BARE, P66, PF2, PF3, plain_immediate, prefix_of


cdef bint denied(Cpu *c, Uop *u) noexcept nogil:
    """Make the registers live, or raise #NM, #UD, #MF."""
    if c.fp_trap:
        raise_at(c, u, X_UD if u.a and c.cr0 & CR0_EM else X_NM)
        return True
    if pending(c):
        raise_at(c, u, X_MF)
        return True
    if not c.fp_live:
        vr_fp_load(c.fx)
        c.fp_live = True
    return False


cdef bint pending(Cpu *c) noexcept nogil:
    """An unmasked exception waits."""
    cdef u32 status
    if fcw(c)[0] & 0x3F == 0x3F:
        return False
    status = vr_get_fsw() if c.fp_live else fsw(c)[0]
    return status & ~<u32>fcw(c)[0] & 0x3F != 0


cdef inline bint asks(Cpu *c) noexcept nogil:
    return not c.fp_live or c.fp_trap or c.fx[0] & 0x3F != 0x3F


cdef void op_reg(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(asks(c)) and denied(c, u):
        return
    (<Stub>u.imm)(xmm(c, u.d), xmm(c, u.s), r64(c, u.b)[0])
    next(c, u)


cdef int load_apart(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 data[2]
    cdef u64 ea = address(c, u)
    if u.x == 16 and ea & 15:
        raise_gp(c, u, 0)
        return 1
    if c.memory.load_bytes(c, ea, u.x, data):
        fault(c, u)
        return 1
    if denied(c, u):                    # a device may have been called
        return 1
    (<Stub>u.imm)(xmm(c, u.d), data, 0)
    return 0


cdef void op_load(Cpu *c, Uop *u) noexcept nogil:
    cdef u8 *p
    if unlikely(asks(c)) and denied(c, u):
        return
    p = readable(c, address(c, u), u.x)
    if unlikely(p == NULL or u.x > 8):
        if load_apart(c, u):
            return
    else:
        (<Stub>u.imm)(xmm(c, u.d), p, 0)
    next(c, u)


cdef int store_apart(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 data[2]
    cdef u64 ea = address(c, u)
    if c.memory.probe(c, ea, u.x, True):
        fault(c, u)
        return 1
    (<Stub>u.imm)(data, NULL, 0)
    if c.memory.store_bytes(c, ea, u.x, data):
        fault(c, u)
        return 1
    return 0


cdef void op_store(Cpu *c, Uop *u) noexcept nogil:
    cdef u8 *p
    if unlikely(asks(c)) and denied(c, u):
        return
    p = writable(c, address(c, u), u.x)
    if unlikely(p == NULL):
        if store_apart(c, u):
            return
    else:
        (<Stub>u.imm)(p, NULL, 0)
    next(c, u)


cdef void op_to_gpr(Cpu *c, Uop *u) noexcept nogil:
    """u.b: the register, u.x: 4 or 8 bytes."""
    cdef u64 value
    if unlikely(asks(c)) and denied(c, u):
        return
    value = (<Stub>u.imm)(NULL, xmm(c, u.s), 0)
    r64(c, u.b)[0] = value if u.x == 8 else <u32>value
    next(c, u)


cdef void op_compare(Cpu *c, Uop *u) noexcept nogil:
    """fcomi and its like."""
    if unlikely(asks(c)) and denied(c, u):
        return
    set_status_flags(c, <u32>(<Stub>u.imm)(NULL, NULL, 0) & (F_CF | F_PF | F_ZF))
    next(c, u)


cdef void op_cmov(Cpu *c, Uop *u) noexcept nogil:
    if unlikely(asks(c)) and denied(c, u):
        return
    (<Stub>u.imm)(NULL, NULL, status_flags(c) | 2)
    next(c, u)


cdef int masked_store(Cpu *c, Uop *u) noexcept nogil:
    """maskmovq."""
    cdef u8 data[16]
    cdef u64 ea = address(c, u)
    cdef u32 n
    (<Stub>u.imm)(data, NULL, 0)
    for n in range(8):
        if data[8 + n] & 0x80 and c.memory.probe(c, ea + n, 1, True):
            return 1
    for n in range(8):
        if data[8 + n] & 0x80 and c.memory.store(c, ea + n, 1, data[n]):
            return 1
    return 0


cdef void op_masked_store(Cpu *c, Uop *u) noexcept nogil:
    if asks(c) and denied(c, u):
        return
    if masked_store(c, u):
        fault(c, u)
        return
    next(c, u)


cdef int shuffle(Cpu *c, Uop *u) noexcept nogil:
    """pshufw, in c.fx: stubs for each pair of registers and each immediate would be too many. u.x: from memory."""
    cdef u64 value, result = 0
    cdef u32 n
    if u.x and c.memory.load(c, address(c, u), 8, &c.regs[SLOW]):
        fault(c, u)
        return 1
    if denied(c, u):
        return 1
    settle(c)
    turn(c, 0)
    fsw(c)[0] &= 0xC7FF
    c.fx[4] = 0xFF
    value = c.regs[SLOW] if u.x else (<u64 *>(c.fx + 32 + u.s * 16))[0]
    for n in range(4):
        result |= (value >> (16 * ((u.imm >> (2 * n)) & 3)) & 0xFFFF) << (16 * n)
    (<u64 *>(c.fx + 32 + u.d * 16))[0] = result
    (<u16 *>(c.fx + 40 + u.d * 16))[0] = 0xFFFF
    return 0


cdef void op_shuffle(Cpu *c, Uop *u) noexcept nogil:
    if asks(c) and denied(c, u):
        return
    if shuffle(c, u):
        return
    next(c, u)


# --- control ---------------------------------------------------------------------------------------------------------------

cdef u32 status_word(Cpu *c) noexcept nogil:
    settle(c)
    return fsw(c)[0]


cdef void turn(Cpu *c, u32 top) noexcept nogil:
    """A new top of the stack: the registers stay where they are, and c.fx has them in the order of the stack."""
    cdef u8 old[128]
    cdef u32 n, by = top - ((fsw(c)[0] >> 11) & 7)
    memcpy(old, c.fx + 32, 128)
    for n in range(8):
        memcpy(c.fx + 32 + n * 16, old + ((n + by) & 7) * 16, 16)


cdef void init(Cpu *c) noexcept nogil:
    settle(c)
    turn(c, 0)
    fcw(c)[0], fsw(c)[0] = 0x37F, 0
    c.fx[4] = 0
    memset(c.fx + 6, 0, 18)


cdef inline bint trapped(Cpu *c, Uop *u) noexcept nogil:
    if c.fp_trap:
        raise_at(c, u, X_NM)
        return True
    return False


cdef void op_wait(Cpu *c, Uop *u) noexcept nogil:
    if c.cr0 & CR0_TS and c.cr0 & CR0_MP:
        raise_at(c, u, X_NM)
        return
    if pending(c):
        raise_at(c, u, X_MF)
        return
    next(c, u)


cdef void op_nop(Cpu *c, Uop *u) noexcept nogil:
    if trapped(c, u):
        return
    next(c, u)


cdef void op_fninit(Cpu *c, Uop *u) noexcept nogil:
    if trapped(c, u):
        return
    init(c)
    next(c, u)


cdef void op_fnclex(Cpu *c, Uop *u) noexcept nogil:
    if trapped(c, u):
        return
    settle(c)
    fsw(c)[0] &= 0x7F00
    next(c, u)


cdef void op_fnstsw_ax(Cpu *c, Uop *u) noexcept nogil:
    if trapped(c, u):
        return
    r16(c, RAX)[0] = <u16>status_word(c)
    next(c, u)


cdef void op_store_word(Cpu *c, Uop *u) noexcept nogil:
    """fnstcw; fnstsw with u.b."""
    if trapped(c, u):
        return
    if c.memory.store(c, address(c, u), 2, status_word(c) if u.b else fcw(c)[0]):
        fault(c, u)
        return
    next(c, u)


cdef void op_fldcw(Cpu *c, Uop *u) noexcept nogil:
    if trapped(c, u):
        return
    if pending(c):
        raise_at(c, u, X_MF)
        return
    if c.memory.load(c, address(c, u), 2, &c.regs[SLOW]):
        fault(c, u)
        return
    settle(c)
    fcw(c)[0] = control_word(<u16>c.regs[SLOW])
    adapt_status(c)
    next(c, u)


cdef u32 full_tags(Cpu *c) noexcept nogil:
    """Two bits a physical register: valid, zero, special, empty."""
    cdef u32 n, tag, tags = 0, top = (fsw(c)[0] >> 11) & 7, exponent
    cdef u64 mantissa
    for n in range(8):
        mantissa = (<u64 *>(c.fx + 32 + ((n - top) & 7) * 16))[0]
        exponent = (<u16 *>(c.fx + 40 + ((n - top) & 7) * 16))[0] & 0x7FFF
        if not c.fx[4] >> n & 1:
            tag = 3
        elif exponent == 0 and mantissa == 0:
            tag = 1
        elif exponent == 0x7FFF or not mantissa >> 63:
            tag = 2
        else:
            tag = 0
        tags |= tag << (2 * n)
    return tags


cdef u32 environment(Cpu *c, u8 *out, bint narrow) noexcept nogil:
    """What fnstenv stores; how many bytes."""
    cdef u32 n
    cdef u32 words[7]
    memset(words, 0, sizeof(words))
    words[0], words[1], words[2] = fcw(c)[0], fsw(c)[0], full_tags(c)
    if narrow:
        for n in range(7):
            (<u16 *>out)[n] = <u16>words[n]
        return 14
    for n in range(3):
        words[n] |= <u32>0xFFFF0000
    words[6] = <u32>0xFFFF0000
    memcpy(out, words, 28)
    return 28


cdef void take_environment(Cpu *c, const u8 *data, bint narrow) noexcept nogil:
    cdef u32 n, tags = 0, step = 2 if narrow else 4
    turn(c, ((<const u16 *>(data + step))[0] >> 11) & 7)
    fcw(c)[0] = control_word((<const u16 *>data)[0])
    fsw(c)[0] = (<const u16 *>(data + step))[0]
    for n in range(8):
        if ((<const u16 *>(data + 2 * step))[0] >> (2 * n)) & 3 != 3:
            tags |= 1 << n
    c.fx[4] = <u8>tags
    adapt_status(c)


cdef int do_environment(Cpu *c, Uop *u) noexcept nogil:
    """u.b: 0 fldenv, 1 fnstenv, 2 frstor, 3 fnsave; u.s: 16-bit form."""
    cdef u8 data[108]
    cdef u32 n, size = 14 if u.s else 28, whole = size + (80 if u.b & 2 else 0)
    settle(c)
    if u.b & 1:
        environment(c, data, u.s)
        for n in range(8):
            memcpy(data + size + n * 10, c.fx + 32 + n * 16, 10)
        if c.memory.store_bytes(c, address(c, u), whole, data):
            return 1
        if u.b & 2:
            init(c)
        else:
            fcw(c)[0] |= 0x3F
            adapt_status(c)
        return 0
    if c.memory.load_bytes(c, address(c, u), whole, data):
        return 1
    take_environment(c, data, u.s)
    if u.b & 2:
        for n in range(8):
            memset(c.fx + 32 + n * 16, 0, 16)
            memcpy(c.fx + 32 + n * 16, data + size + n * 10, 10)
    return 0


cdef void op_environment(Cpu *c, Uop *u) noexcept nogil:
    if trapped(c, u):
        return
    if not u.b & 1 and pending(c):
        raise_at(c, u, X_MF)
        return
    if do_environment(c, u):
        fault(c, u)
        return
    next(c, u)


# --- choosing --------------------------------------------------------------------------------------------------------------

# Bytes in memory of D8+n /reg; 0: no such instruction or a special one.
cdef u8 sizes[8][8]
sizes[0] = [4, 4, 4, 4, 4, 4, 4, 4]
sizes[1] = [4, 0, 4, 4, 0, 0, 0, 0]
sizes[2] = [4, 4, 4, 4, 4, 4, 4, 4]
sizes[3] = [4, 4, 4, 4, 0, 10, 0, 10]
sizes[4] = [8, 8, 8, 8, 8, 8, 8, 8]
sizes[5] = [8, 8, 8, 8, 0, 0, 0, 0]
sizes[6] = [2, 2, 2, 2, 2, 2, 2, 2]
sizes[7] = [2, 2, 2, 2, 10, 8, 10, 8]

cdef u8 storing[8]          # bits by reg
storing[:] = [0, 0x0C, 0, 0x8E, 0, 0x0E, 0, 0xCE]


cdef bint register_form(u32 op, u32 modrm) noexcept nogil:
    """Does D8+op with this modrm (C0 and up) exist, as an instruction that needs nothing special?"""
    cdef u32 n = modrm & 7
    if op == 1:
        return not (0xD1 <= modrm <= 0xD7 or 0xE2 <= modrm <= 0xE3 or 0xE6 <= modrm <= 0xE7 or modrm == 0xEF)
    if op == 2:
        return modrm < 0xE0 or modrm == 0xE9
    if op == 3:
        return modrm < 0xE0 or 0xE8 <= modrm <= 0xF7
    if op == 5:
        return modrm < 0xF0
    if op == 6:
        return not 0xD8 <= modrm <= 0xDF or n == 1
    if op == 7:
        return modrm < 0xE0 or 0xE8 <= modrm <= 0xF7
    return True


cdef int emit_control(Insn *i, Uop *u) noexcept nogil:
    """Those that touch control, status or everything at once."""
    cdef Uop *start = u
    cdef u32 op = i.op & 7, reg = i.reg & 7
    if i.op == 0x9B:
        u.fn = op_wait
        return 1
    if not i.mem:
        if op == 3 and 0xE0 <= i.modrm <= 0xE4:
            u.fn = op_fnclex if i.modrm == 0xE2 else (op_fninit if i.modrm == 0xE3 else op_nop)
            return 1
        if op == 7 and i.modrm == 0xE0:
            u.fn = op_fnstsw_ax
            return 1
        return 0
    if op == 1 and reg >= 4 or op == 5 and (reg == 4 or reg >= 6):
        if reg == 5 or reg == 7:
            u = mem_operand(i, u, 2, reg == 7)
            u.fn = op_fldcw if reg == 5 else op_store_word
            u.b = op == 5
        else:
            u = mem_operand(i, u, (14 if i.osize == 2 else 28) + (80 if op == 5 else 0), reg == 6)
            u.b = (1 if reg == 6 else 0) | (2 if op == 5 else 0)
            u.s = i.osize == 2
            u.fn = op_environment
        return <int>(u - start) + 1
    return 0


cdef int emit_x87(Insn *i, Uop *u) noexcept nogil:
    """0: not an instruction."""
    cdef Uop *start = u
    cdef u32 op = i.op & 7, reg = i.reg & 7, size
    cdef Code code
    cdef int n = emit_control(i, u)
    code.count = 0
    if n or i.op == 0x9B:
        return n
    if i.mem:
        size = sizes[op][reg]
        if size == 0:
            return 0
        u = mem_operand(i, u, size, storing[op] >> reg & 1)
        u.x = <u8>size
        u.fn = op_store if storing[op] >> reg & 1 else op_load
        add(&code, i.op, 1)
        add(&code, (reg << 3) | (7 if u.fn == op_store else 6), 1)
    else:
        if not register_form(op, i.modrm):
            return 0
        u.fn = op_reg
        if (op == 2 or op == 3) and i.modrm < 0xE0:
            u.fn = op_cmov
            add(&code, 0x529D, 2)           # push rdx; popfq
        add(&code, i.op, 1)
        add(&code, i.modrm, 1)
        if (op == 3 or op == 7) and i.modrm >= 0xE8:
            u.fn = op_compare
            add(&code, 0x9C58, 2)           # pushfq; pop rax
    u.imm = <i64>finish(&code)
    u.b = RAX
    return <int>(u - start) + 1 if u.imm else 0


cdef bint is_mmx(Insn *i, u32 prefix) noexcept nogil:
    """Does it work on MMX registers?"""
    if i.map == MAP_0F:
        if i.op == 0x2A or i.op == 0x2C or i.op == 0x2D:
            return prefix == BARE or prefix == P66
        if i.op == 0xD6:
            return prefix == PF3 or prefix == PF2
        return prefix == BARE and (
            0x60 <= i.op <= 0x6F or 0x70 <= i.op <= 0x77 or i.op == 0x7E or i.op == 0x7F or i.op == 0xC4 or i.op == 0xC5
            or i.op >= 0xD1
        )
    return prefix == BARE and (i.map == MAP_0F38 and i.op < 0xF0 or i.map == MAP_0F3A and i.op == 0x0F)


cdef void add_mmx(Code *code, Insn *i, u32 modrm, bint wide) noexcept nogil:
    cdef u32 prefix = prefix_of(i)
    if prefix:
        add(code, 0x66 if prefix == P66 else (0xF3 if prefix == PF3 else 0xF2), 1)
    if wide:
        add(code, 0x48, 1)
    add(code, 0x0F, 1)
    if i.map != MAP_0F:
        add(code, 0x38 if i.map == MAP_0F38 else 0x3A, 1)
    add(code, i.op, 1)
    if i.op != 0x77 or i.map != MAP_0F:
        add(code, modrm, 1)
    if i.map == MAP_0F3A or i.map == MAP_0F and (0x70 <= i.op <= 0x73 or i.op == 0xC4 or i.op == 0xC5):
        add(code, <u64>i.imm & 0xFF, 1)


cdef int emit_mmx(Insn *i, Uop *u) noexcept nogil:
    """0: nothing of MMX."""
    cdef Uop *start = u
    cdef Code code
    cdef u32 prefix = prefix_of(i), reg = i.reg & 7, rm = i.rm & 7, size = 8
    cdef bint wide = i.osize == 8, stores = False, to_xmm = False, one = i.map == MAP_0F
    if not is_mmx(i, prefix) or one and i.op == 0xD6 and i.mem:
        return 0
    i.imm = plain_immediate(i)
    code.count = 0
    if i.map != MAP_0F:
        u.fn, u.a, u.b = op_feature, 1, 9
        u += 1
    if one:
        if 0x60 <= i.op <= 0x62:
            size = 4
        elif i.op == 0x6E or i.op == 0x7E:
            size = 8 if wide else 4
        elif i.op == 0xC4:
            size = 2
        elif (i.op == 0x2C or i.op == 0x2D) and prefix == P66:
            size = 16
        stores = i.op == 0x7E or i.op == 0x7F or i.op == 0xE7
        to_xmm = i.op == 0x2A or i.op == 0xD6 and prefix == PF3
    if one and i.op == 0x70:
        if i.mem:
            u = mem_operand(i, u, 8, False)
            u.x = 8
        u.d, u.s, u.a, u.imm = <u8>reg, <u8>rm, 1, i.imm
        u.fn = op_shuffle
        return <int>(u - start) + 1
    if one and i.op == 0xF7:                # mov [rdi], first; [rdi+8], mask
        i.base, i.index, i.scale, i.disp, i.mem = RDI, R_ZERO, 0, 0, True
        u = mem_operand(i, u, 8, True)
        add(&code, 0x0F7F, 2)
        add(&code, (reg << 3) | 7, 1)
        add(&code, 0x0F7F, 2)
        add(&code, 0x47 | (rm << 3), 1)
        add(&code, 8, 1)
        u.fn = op_masked_store
    elif i.mem:
        u = mem_operand(i, u, size, stores)
        u.x = <u8>size
        if to_xmm:
            add(&code, 0x0F2807, 3)
            u.d = i.reg
            add_mmx(&code, i, 6, False)
            add(&code, 0x0F2907, 3)
        else:
            add_mmx(&code, i, (reg << 3) | (7 if stores else 6), wide and (i.op == 0x6E or i.op == 0x7E))
        u.fn = op_store if stores else op_load
    elif to_xmm:
        u.d = i.reg
        add(&code, 0x0F2807, 3)
        add_mmx(&code, i, 0xC0 | rm, False)
        add(&code, 0x0F2907, 3)
        u.fn = op_reg
    elif one and (i.op == 0x2C or i.op == 0x2D or i.op == 0xD6):
        u.s = i.rm
        if i.op == 0xD6:
            add(&code, 0x0F2806, 3)
        add_mmx(&code, i, (reg << 3) | (0xC0 if i.op == 0xD6 else 6), False)
        u.fn = op_reg
    elif one and (i.op == 0x6E or i.op == 0xC4):
        u.b = gpr(i, i.rm, 8)
        add_mmx(&code, i, 0xC2 | (reg << 3), wide and i.op == 0x6E)
        u.fn = op_reg
    elif one and (i.op == 0x7E or i.op == 0xD7 or i.op == 0xC5):
        u.b = gpr(i, i.rm if i.op == 0x7E else i.reg, 8)
        u.x = 8 if wide and i.op == 0x7E else 4
        add_mmx(&code, i, 0xC0 | (reg << 3 if i.op == 0x7E else rm), wide and i.op == 0x7E)
        u.fn = op_to_gpr
    else:
        add_mmx(&code, i, 0xC0 | (reg << 3) | rm, False)
        u.fn = op_reg
    u.a = 1
    u.imm = <i64>finish(&code)
    return <int>(u - start) + 1 if u.imm else 0
