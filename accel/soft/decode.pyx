"""The decoder: bytes in, one Insn out. What an opcode is comes from the words of opcodes.py, expanded at import."""

from libc.string cimport memset

from accel.soft.cpu cimport *
from accel.soft.insn cimport *
from accel.soft.vex cimport *

from accel.soft import opcodes

cdef enum:                  # Op.imm
    IMM_NONE
    IMM_IB
    IMM_UB
    IMM_IW
    IMM_IZ
    IMM_IV
    IMM_JB
    IMM_JZ
    IMM_PTR
    IMM_MOFFS
    IMM_ENTER

cdef enum:                  # Op.form
    OP_MODRM = 1
    OP_MEM = 2
    OP_REG = 4
    OP_D64 = 8
    OP_F64 = 0x10
    OP_NO64 = 0x20
    OP_LOCK = 0x40
    OP_COUNT = 0x80
    OP_REP = 0x100
    OP_CREG = 0x200
    OP_GROUP = 0x400

cdef enum:                  # Op.prefixes, and which of them an instruction has
    NP = 1
    P66 = 2
    PF3 = 4
    PF2 = 8

cdef struct Op:
    u8 klass
    u8 imm
    u8 ends
    u8 prefixes             # 0: any
    u16 form
    u16 reads, writes
    u16 group               # OP_GROUP: which

cdef enum:
    GROUPS = 48
    SEG_NONE = 0xFF

cdef Op maps[4][256]
cdef Op groups[GROUPS][16]  # by modrm.reg; 8 and more: of registers
cdef Op movsxd              # 63 in long mode
cdef u8 prefix_of[256]      # P_… of the legacy prefixes

IMMEDIATES = {
    "ib": IMM_IB, "ub": IMM_UB, "iw": IMM_IW, "iz": IMM_IZ, "iv": IMM_IV, "jb": IMM_JB, "jz": IMM_JZ,
    "ptr": IMM_PTR, "moffs": IMM_MOFFS, "enter": IMM_ENTER,
}
FORMS = {
    "m": OP_MODRM, "mem": OP_MEM, "reg": OP_REG, "d64": OP_D64, "f64": OP_F64, "no64": OP_NO64, "lock": OP_LOCK,
    "count": OP_COUNT, "rep": OP_REP, "creg": OP_CREG,
}
PREFIXES = {"np": NP, "66": P66, "f3": PF3, "f2": PF2}
CLASSES = {"sys": K_SYSTEM, "fpu": K_FPU}
ENDS = {"jump": ENDS_JUMP, "cond": ENDS_COND}


cdef Op compiled(list words) except *:
    """The words of one row as an Op, but for `cc`. ValueError: a word nobody knows."""
    cdef Op op
    memset(&op, 0, sizeof(Op))
    op.klass = K_INTEGER
    for word in words:
        if word in IMMEDIATES:
            op.imm = IMMEDIATES[word]
        elif word in FORMS:
            op.form |= <u16>FORMS[word]
        elif word in PREFIXES:
            op.prefixes |= <u8>PREFIXES[word]
        elif word in CLASSES:
            op.klass = CLASSES[word]
        elif word in ENDS:
            op.ends = ENDS[word]
        elif word[:2] == "r=":
            op.reads = opcodes.flag_mask(word[2:])
        elif word[:2] == "w=":
            op.writes = opcodes.flag_mask(word[2:])
        elif word != "cc":
            raise ValueError(f"unknown word {word!r} of {' '.join(words)!r}")
    if op.klass == K_SYSTEM:
        op.reads = F_STATUS
    return op


cdef int expand() except -1:
    """Fill the tables from opcodes.py."""
    cdef int number = 0, at, half
    cdef Op *entry
    cdef Op op
    cdef list conditions = [opcodes.flag_mask(letters) for letters in opcodes.CONDITIONS]
    memset(maps, 0, sizeof(maps))
    memset(groups, 0, sizeof(groups))
    for at, table in enumerate((opcodes.ONE, opcodes.TWO, opcodes.THREE_38, opcodes.THREE_3A)):
        for places, words in opcodes.lines(table):
            op = compiled(words)
            for opcode, reg in places:
                if "cc" in words:
                    op.reads = conditions[(<int>opcode & 15) >> 1]
                entry = &maps[at][<int>opcode]
                if reg is None:
                    entry[0] = op
                    continue
                if not entry.form & OP_GROUP:
                    if number == GROUPS:
                        raise ValueError("too many groups")
                    entry.form = OP_GROUP | OP_MODRM
                    entry.group = number
                    number += 1
                for half in range(2):
                    if ("reg" if half == 0 else "mem") not in words:
                        groups[entry.group][<int>reg + 8 * half] = op
    movsxd.klass, movsxd.form = K_INTEGER, OP_MODRM
    prefix_of[0x66], prefix_of[0x67], prefix_of[0xF0] = P_66, P_67, P_LOCK
    prefix_of[0xF2], prefix_of[0xF3] = P_F2, P_F3
    for at in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65):
        prefix_of[at] = P_SEG
    return 0


expand()


cdef inline i64 signed_at(const u8 *p, u32 size) noexcept nogil:
    """A little-endian number of 1, 2, 4 or 8 bytes, sign-extended."""
    if size == 1:
        return <signed char>p[0]
    if size == 2:
        return (<const i16 *>p)[0]
    if size == 4:
        return (<const i32 *>p)[0]
    return (<const i64 *>p)[0]


cdef inline u64 unsigned_at(const u8 *p, u32 size) noexcept nogil:
    if size == 1:
        return p[0]
    if size == 2:
        return (<const u16 *>p)[0]
    if size == 4:
        return (<const u32 *>p)[0]
    return (<const u64 *>p)[0]


cdef u32 imm_size(const Insn *i, u32 kind) noexcept nogil:
    """Bytes of all immediates together."""
    if kind == IMM_NONE:
        return 0
    if kind == IMM_IB or kind == IMM_UB or kind == IMM_JB:
        return 1
    if kind == IMM_IW:
        return 2
    if kind == IMM_IZ or kind == IMM_JZ:
        return 2 if i.osize == 2 else 4
    if kind == IMM_IV:
        return i.osize
    if kind == IMM_MOFFS:
        return i.asize
    if kind == IMM_PTR:
        return 4 if i.osize == 2 else 6
    return 3


cdef void take_immediate(Insn *i, const u8 *p, u32 kind, u32 size) noexcept nogil:
    if kind == IMM_IB or kind == IMM_JB or kind == IMM_IZ or kind == IMM_JZ or kind == IMM_IV:
        i.imm = signed_at(p, size)
    elif kind == IMM_UB or kind == IMM_IW:
        i.imm = <i64>unsigned_at(p, size)
    elif kind == IMM_MOFFS:
        i.disp = <i64>unsigned_at(p, size)
        i.mem = True
    elif kind == IMM_PTR:
        i.imm = <i64>unsigned_at(p, size - 2)
        i.imm2 = unsigned_at(p + size - 2, 2)
    elif kind == IMM_ENTER:
        i.imm = <i64>unsigned_at(p, 2)
        i.imm2 = p[2]


cdef u32 operand16(Insn *i) noexcept nogil:
    """Registers of a 16-bit memory operand; returns the bytes of its displacement."""
    cdef u32 rm = i.modrm & 7
    if rm == 0 or rm == 1 or rm == 7:
        i.base = RBX
    elif rm == 2 or rm == 3 or (rm == 6 and i.mod):
        i.base = RBP
        i.seg = SS
    elif rm == 4:
        i.base = RSI
    elif rm == 5:
        i.base = RDI
    if rm == 0 or rm == 2:
        i.index = RSI
    elif rm == 1 or rm == 3:
        i.index = RDI
    return 2 if i.mod == 2 or (i.mod == 0 and rm == 6) else i.mod


cdef u32 operand32(Insn *i, u32 sib, u32 rex) noexcept nogil:
    """The same with 32 or 64 bits; `sib` is only looked at when there is one."""
    cdef u32 base = i.modrm & 7
    if base == 4:
        base = sib & 7
        if (sib & 0x38) != 0x20 or rex & 2:
            i.index = <u8>((((sib >> 3) & 7) | ((rex & 2) << 2)) * 8)
            i.scale = <u8>(sib >> 6)
    elif base == 5 and i.mod == 0 and i.mode & MODE_64:
        i.riprel = True
        i.base = R_RIPB
        return 4
    if base == 5 and i.mod == 0:
        return 4
    base |= (rex & 1) << 3
    i.base = <u8>(base * 8)
    if i.base == RSP or i.base == RBP:
        i.seg = SS
    return 4 if i.mod == 2 else i.mod


cdef inline void address_size(Insn *i) noexcept nogil:
    if i.mode & MODE_64:
        i.asize = 4 if i.prefix & P_67 else 8
    else:
        i.asize = 2 if ((i.mode & MODE_BITS) == MODE_16) != ((i.prefix & P_67) != 0) else 4


cdef inline void sizes(Insn *i, u32 form) noexcept nogil:
    """Operand size from mode, prefixes and the opcode's default."""
    if i.mode & MODE_64:
        if i.prefix & P_REXW or form & OP_F64:
            i.osize = 8
        elif i.prefix & P_66:
            i.osize = 2
        else:
            i.osize = 8 if form & OP_D64 else 4
    elif form & OP_CREG:
        i.osize = 4
    else:
        i.osize = 2 if ((i.mode & MODE_BITS) == MODE_16) != ((i.prefix & P_66) != 0) else 4


cdef bint legal(const Insn *i, const Op *op) noexcept nogil:
    """False: #UD for a prefix, the mode, or the kind of operand."""
    cdef u32 given = NP
    if op.form & OP_NO64 and i.mode & MODE_64:
        return False
    if op.form & OP_MEM and i.mod == 3 or op.form & OP_REG and i.mod != 3:
        return False
    if i.prefix & P_LOCK and not (op.form & OP_LOCK and (i.mem or op.form & OP_CREG and i.reg == 0)):
        return False
    if op.prefixes:
        if i.prefix & P_F2:
            given = PF2
        elif i.prefix & P_F3:
            given = PF3
        elif i.prefix & P_66:
            given = P66
        return op.prefixes & given != 0
    return True


cdef void flags(Insn *i, const Op *op) noexcept nogil:
    i.reads = op.reads
    i.writes = op.writes
    if op.form & OP_COUNT and i.imm & (63 if i.osize == 8 and (i.map or i.op & 1) else 31) == 0:
        i.writes = 0
    elif op.form & OP_REP and i.prefix & (P_F2 | P_F3):
        i.writes = 0


cdef int invalid(Insn *i, u32 at) noexcept nogil:
    i.klass = K_INVALID
    i.ends = ENDS_JUMP
    i.len = <u8>at
    return <int>at


cdef u32 memory_operand(Insn *i, const u8 *bytes, u32 at, u32 limit, u32 rex) noexcept nogil:
    """SIB and displacement at bytes[at]; where they end. 0: they go beyond `limit`."""
    cdef u32 given = i.seg, size, sib = 0       # an override goes before the default
    if i.asize == 2:
        size = operand16(i)
    else:
        if (i.modrm & 7) == 4:
            if at == limit:
                return 0
            sib = bytes[at]
            at += 1
            i.vindex = <u8>((sib >> 3) & 7 | (rex & 2) << 2)
        size = operand32(i, sib, rex)
    if given != SEG_NONE:
        i.seg = <u8>given
    if at + size > limit:
        return 0
    if size:
        i.disp = signed_at(bytes + at, size)
    return at + size


cdef inline bint fits(const Insn *i, const VexOp *op, u32 unused) noexcept nogil:
    """Registers, VEX.L, VEX.W and vvvv are as the instruction allows."""
    if op.use == 0 or not op.regs >> (i.reg & 7) & 1:
        return False
    if op.length == L_0 and i.wide or op.length == L_1 and not i.wide:
        return False
    if op.width and op.width != (2 if i.prefix & P_REXW else 1):
        return False
    if unused != 15 and not op.use & (H_READ | H_WRITE | B_READ | B_WRITE):
        return False
    return not op.use & V_GATHER or i.modrm & 7 == 4 and i.asize > 2


cdef int decode_vex(const u8 *bytes, u32 at, u32 limit, u32 lead, Insn *i) noexcept nogil:
    """The rest of an instruction behind `lead` (C4 or C5), which is bytes[at - 1]. As decode()."""
    cdef int short_of = -1 if limit == 15 else 0
    cdef u32 rex = 0, b, head = i.mode & MODE_64, given
    cdef const VexOp *op
    given = i.prefix & (P_66 | P_F2 | P_F3 | P_LOCK | P_REX)
    i.map = MAP_0F
    if at + (3 if lead == 0xC4 else 2) > limit:
        return short_of
    b = bytes[at]
    if lead == 0xC4:
        rex = ((b >> 7 ^ 1) << 2) | ((b >> 6 & 1 ^ 1) << 1) | (b >> 5 & 1 ^ 1)
        i.map = <u8>(b & 31)
        b = bytes[at + 1]
        at += 1
        rex |= b >> 4 & 8
    else:
        rex = (b >> 7 ^ 1) << 2
    if not head:
        rex &= 8
    i.prefix |= P_REX | (P_REXW if rex & 8 else 0)
    i.wide = b >> 2 & 1
    i.vvvv = <u8>((b >> 3 & 15 ^ 15) & (15 if head else 7))
    lead = b & 3
    i.prefix |= P_66 if lead == 1 else (P_F3 if lead == 2 else (P_F2 if lead == 3 else 0))
    given |= 0 if 1 <= i.map <= 3 else P_LOCK
    i.op = bytes[at + 1]
    at += 2
    address_size(i)
    i.osize = 8 if rex & 8 and head else 4
    i.base = i.index = R_ZERO
    if given:
        return invalid(i, at)
    if i.map == MAP_0F and i.op == 0x77:
        op = vex_op(1, lead, 0x77, False)
    else:
        if at == limit:
            return short_of
        i.has_modrm = True
        i.modrm = bytes[at]
        i.mod = <u8>(i.modrm >> 6)
        i.reg = <u8>((i.modrm >> 3 & 7) | (rex & 4) << 1)
        i.rm = <u8>((i.modrm & 7) | (rex & 1) << 3)
        i.mem = i.mod != 3
        at += 1
        op = vex_op(i.map, lead, i.op, i.mem)
    if not fits(i, op, b >> 3 & 15):
        return invalid(i, at)
    if i.mem:
        given = at
        at = memory_operand(i, bytes, at, limit, rex)
        if at == 0:
            return short_of
        if op.use & V_GATHER:
            i.index, i.scale = R_ZERO, bytes[given] >> 6
    if i.seg == SEG_NONE:
        i.seg = DS
    if op.imm:
        if at == limit:
            return short_of
        i.imm = bytes[at]
        i.imm_len = 1
        at += 1
    i.klass = K_VEX
    i.len = <u8>at
    if i.riprel:
        i.disp += i.off + <i64>at
    i.ends = ENDS_NOT
    i.writes = op.writes
    return <int>at


cdef int decode(const u8 *bytes, u32 avail, u32 mode, u16 off, Insn *i) noexcept nogil:
    """One instruction at `bytes`. Its length; 0: more than `avail` bytes are needed; -1: it is longer than 15 bytes.

    K_INVALID is an instruction that raises #UD; its length is what was needed to see that.
    """
    cdef u32 limit = avail if avail < 15 else 15
    cdef int short_of = -1 if limit == 15 else 0
    cdef u32 at = 0, b, kind, rex = 0, size
    cdef const Op *op
    memset(i, 0, sizeof(Insn))
    i.bytes = bytes
    i.off = off
    i.mode = mode
    i.seg = SEG_NONE
    while True:
        if at == limit:
            return short_of
        b = bytes[at]
        at += 1
        kind = prefix_of[b]
        if kind == 0:
            if mode & MODE_64 and (b & 0xF0) == 0x40:
                rex = b
                continue
            break
        rex = 0                             # a REX counts only right before the opcode
        if kind == P_SEG:
            if b >= 0x64:
                i.seg = <u8>(b - 0x60)
            elif not mode & MODE_64:
                i.seg = <u8>((b >> 3) & 3)
            else:
                continue
        elif kind & (P_F2 | P_F3):
            i.prefix &= <u8>~(P_F2 | P_F3)
        i.prefix |= <u8>kind
    if rex:
        i.prefix |= P_REX
        if rex & 8:
            i.prefix |= P_REXW

    if (b == 0xC4 or b == 0xC5) and at == limit:
        return short_of
    if (b == 0xC4 or b == 0xC5) and (mode & MODE_64 or bytes[at] >= 0xC0):
        return decode_vex(bytes, at, limit, b, i)
    if b == 0x0F:
        if at == limit:
            return short_of
        b = bytes[at]
        at += 1
        i.map = MAP_0F
        if b == 0x38 or b == 0x3A:
            i.map = MAP_0F38 if b == 0x38 else MAP_0F3A
            if at == limit:
                return short_of
            b = bytes[at]
            at += 1
    i.op = <u8>b
    i.opreg = <u8>((b & 7) | ((rex & 1) << 3))
    op = &maps[i.map][b]
    if b == 0x63 and i.map == MAP_ONE and mode & MODE_64:
        op = &movsxd
    address_size(i)
    i.base = i.index = R_ZERO

    if op.form & OP_MODRM:
        if at == limit:
            return short_of
        b = bytes[at]
        at += 1
        i.has_modrm = True
        i.modrm = <u8>b
        i.mod = 3 if op.form & OP_CREG else <u8>(b >> 6)
        i.reg = <u8>(((b >> 3) & 7) | ((rex & 4) << 1))
        i.rm = <u8>((b & 7) | ((rex & 1) << 3))
        i.mem = i.mod != 3
        if op.form & OP_GROUP:
            op = &groups[op.group][((b >> 3) & 7) | (0 if i.mem else 8)]
    i.klass = op.klass
    if op.klass == K_INVALID:
        return invalid(i, at)
    sizes(i, op.form)

    if i.mem:
        at = memory_operand(i, bytes, at, limit, rex)
        if at == 0:
            return short_of
    if i.seg == SEG_NONE:
        i.seg = DS

    size = imm_size(i, op.imm)
    if at + size > limit:
        return short_of
    take_immediate(i, bytes + at, op.imm, size)
    i.imm_len = <u8>size
    at += size
    i.len = <u8>at
    if i.riprel:
        i.disp += off + <i64>at
    if not legal(i, op):
        return invalid(i, at)
    i.ends = op.ends
    flags(i, op)
    return <int>at


NAMES = ("invalid", "integer", "system", "fpu", "vex")


cdef int decode_python(object code, int bits, int off, Insn *i) except -2:
    cdef bytes data = bytes(code)
    return decode(<const u8 *>data, <u32>len(data), {16: MODE_16, 32: MODE_32, 64: MODE_64}[bits], <u16>off, i)


def decode_bytes(code, int bits=64):
    """(length, class) of the instruction that begins `code`: for tests. The length is as decode() gives it."""
    cdef Insn i
    cdef int size = decode_python(code, bits, 0, &i)
    return size, NAMES[i.klass] if size > 0 else ""


def decode_fields(code, int bits=64, int off=0):
    """All that decode() finds, by the names of Insn; empty when it is no whole instruction. For tests and debuggers."""
    cdef Insn i
    if decode_python(code, bits, off, &i) <= 0:
        return {}
    return {
        "len": i.len, "map": i.map, "op": i.op, "klass": NAMES[i.klass], "ends": i.ends, "prefix": i.prefix,
        "osize": i.osize, "asize": i.asize, "mod": i.mod, "reg": i.reg, "rm": i.rm, "opreg": i.opreg,
        "mem": bool(i.mem), "riprel": bool(i.riprel), "base": i.base, "index": i.index, "scale": i.scale,
        "seg": i.seg, "disp": i.disp, "imm": i.imm, "imm2": i.imm2, "reads": i.reads, "writes": i.writes,
    }
