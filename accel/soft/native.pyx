"""What of 64-bit code and of flat 32-bit code the translator takes over, and how each instruction uses its operands.

Everything else is left to the interpreter, instruction by instruction: system instructions, x87, MMX, strings with their counts and
directions, the accumulator's moves to 64-bit addresses, and what is not declared to the guest; of 32-bit code, operands and addresses of 16 bits where they change more than their size, and data read through CS.
"""

from accel.soft.control cimport FEAT_1_ECX, FEAT_7_EBX, FEAT_EXT_ECX
from accel.soft.insn cimport *
from accel.soft.nativevec cimport vector


cdef inline bint high(const Insn *i, u32 n) noexcept nogil:
    """Is byte register `n` AH, CH, DH or BH?"""
    return 4 <= n < 8 and not i.prefix & P_REX


cdef inline bint elsewhere(u32 n) noexcept nogil:
    """Register `n` needs a REX prefix when it is translated: it lies in another one of the host's."""
    return n == 4 or n >= 8


cdef void bytes_of(const Insn *i, Form *f) noexcept nogil:
    """The operands when they are bytes: AH and its like exclude what needs a REX prefix."""
    cdef bint rm_high = f.rm_size == 1 and not i.mem and f.use & (RM_READ | RM_WRITE) and high(i, i.rm)
    cdef bint reg_high = f.size == 1 and f.use & (REG | REG_WRITE) and high(i, i.reg)
    if not rm_high and not reg_high:
        return
    f.use |= LEGACY
    if i.mem or i.prefix & P_REXW:
        f.kind = N_NOT
    elif not rm_high and f.use & (RM_READ | RM_WRITE) and (elsewhere(i.rm) or f.rm_size == 1 and i.rm >= 4):
        f.kind = N_NOT
    elif not reg_high and f.use & (REG | REG_WRITE) and (elsewhere(i.reg) or f.size == 1 and i.reg >= 4):
        f.kind = N_NOT


cdef void modrm(const Insn *i, Form *f, u32 use, u32 size, u32 rm_size) noexcept nogil:
    f.kind, f.use, f.size, f.rm_size = N_MODRM, use, size, rm_size
    if i.writes:
        f.use |= TOUCHES
    bytes_of(i, f)


cdef void one(const Insn *i, Form *f) noexcept nogil:
    cdef u32 op = i.op, size = i.osize, n = i.reg & 7, word = word_of(i.mode)
    if op < 0x40:
        size = 1 if not op & 1 else size
        if op & 7 < 4:
            if op & 2:
                modrm(i, f, RM_READ | REG | (0 if op >= 0x38 else REG_WRITE), size, size)
            else:
                modrm(i, f, RM_READ | REG | (0 if op >= 0x38 else RM_WRITE), size, size)
        elif op & 7 < 6:
            f.kind, f.use, f.size = N_PLAIN, TOUCHES, size
    elif op < 0x50:                             # elsewhere they are REX prefixes
        f.kind, f.use, f.size = N_STEP, TOUCHES, size
    elif op <= 0x5F:
        if size == word:
            f.kind = N_PUSH if op < 0x58 else N_POP
    elif op == 0x63:
        modrm(i, f, RM_READ | REG_WRITE, size, 4)
        if size == 2:
            f.kind = N_NOT
    elif op == 0x68 or op == 0x6A:
        if size == word:
            f.kind = N_PUSH_IMM
    elif op == 0x69 or op == 0x6B:
        modrm(i, f, RM_READ | REG_WRITE, size, size)
    elif 0x70 <= op <= 0x7F:
        f.kind = N_JCC
    elif op == 0x80 or op == 0x81 or op == 0x83:
        size = 1 if op == 0x80 else size
        modrm(i, f, RM_READ | (0 if n == 7 else RM_WRITE), size, size)
    elif op == 0x84 or op == 0x85:
        size = 1 if op == 0x84 else size
        modrm(i, f, RM_READ | REG, size, size)
    elif op == 0x86 or op == 0x87:
        size = 1 if op == 0x86 else size
        modrm(i, f, RM_READ | RM_WRITE | REG | REG_WRITE, size, size)
    elif op == 0x88 or op == 0x89:
        size = 1 if op == 0x88 else size
        modrm(i, f, RM_WRITE | REG, size, size)
    elif op == 0x8A or op == 0x8B:
        size = 1 if op == 0x8A else size
        modrm(i, f, RM_READ | REG_WRITE, size, size)
    elif op == 0x8D:
        if size != 2:
            f.kind, f.size = N_LEA, size
    elif op == 0x90:
        if not i.prefix & (P_F2 | P_F3) and i.opreg == 0:
            f.kind = N_NOTHING
        elif i.opreg:
            f.kind, f.use, f.size = N_OPREG, REG | REG_WRITE, size
    elif 0x91 <= op <= 0x97:
        f.kind, f.use, f.size = N_OPREG, REG | REG_WRITE, size
    elif op == 0x98 or op == 0x99:
        f.kind, f.size = N_PLAIN, size
    elif 0xA0 <= op <= 0xA3:
        if i.asize == 4 and not i.mode & MODE_64:
            modrm(i, f, RM_READ | REG_WRITE if op < 0xA2 else RM_WRITE | REG, size if op & 1 else 1, size if op & 1 else 1)
            f.op, f.imm_len = (0x8A if op < 0xA2 else 0x88) | op & 1, 0
    elif op == 0xA8 or op == 0xA9:
        f.kind, f.use, f.size = N_PLAIN, TOUCHES, (1 if op == 0xA8 else size)
    elif 0xB0 <= op <= 0xB7:
        f.kind, f.use, f.size = N_OPREG, REG_WRITE, 1
        if high(i, i.opreg):
            f.use |= LEGACY
    elif 0xB8 <= op <= 0xBF:
        f.kind, f.use, f.size = N_OPREG, REG_WRITE, size
    elif op == 0xC0 or op == 0xC1 or 0xD0 <= op <= 0xD3:
        size = 1 if not op & 1 else size
        modrm(i, f, RM_READ | RM_WRITE, size, size)
        if op >= 0xD2:
            f.use |= TOUCHES
    elif op == 0xC2 or op == 0xC3:
        f.kind = N_RET
    elif op == 0xC6 or op == 0xC7:
        size = 1 if op == 0xC6 else size
        modrm(i, f, RM_WRITE, size, size)
    elif op == 0xC9:
        if size == word:
            f.kind = N_LEAVE
    elif op == 0xE8:
        f.kind = N_CALL
    elif op == 0xE9 or op == 0xEB:
        f.kind = N_JMP
    elif op == 0xF5 or op == 0xF8 or op == 0xF9:
        f.kind, f.use = N_PLAIN, TOUCHES
    elif op == 0xF6 or op == 0xF7:
        size = 1 if op == 0xF6 else size
        if n < 2:
            modrm(i, f, RM_READ, size, size)
        elif n < 4:
            modrm(i, f, RM_READ | RM_WRITE, size, size)
        elif n < 6:
            modrm(i, f, RM_READ, size, size)
        elif size >= 4:
            f.kind, f.use, f.size, f.rm_size = N_DIV, TOUCHES | RM_READ, size, size
    elif op == 0xFE or (op == 0xFF and n < 2):
        size = 1 if op == 0xFE else size
        if n < 2:
            modrm(i, f, RM_READ | RM_WRITE, size, size)
    elif op == 0xFF and n == 2:
        f.kind, f.rm_size = N_CALL_TO, word
    elif op == 0xFF and n == 4:
        f.kind, f.rm_size = N_JMP_TO, word
    elif op == 0xFF and n == 6 and i.mem and size == word:
        f.kind, f.rm_size = N_PUSH_MEM, word


cdef inline bint has(const Insn *i, u32 word, u32 bit) noexcept nogil:
    return i.features != NULL and i.features[word] >> bit & 1


cdef inline bint counts(const Insn *i) noexcept nogil:
    """tzcnt, lzcnt, popcnt with F3: declared. Without the first two are bsf and bsr."""
    if i.op == 0xB8:
        return has(i, FEAT_1_ECX, 23)
    return has(i, FEAT_7_EBX, 3) if i.op == 0xBC else has(i, FEAT_EXT_ECX, 5)


cdef void three(const Insn *i, Form *f) noexcept nogil:
    """movbe, crc32, adcx and adox, if they are declared."""
    cdef u32 op = i.op, size = i.osize
    if op == 0xF6:
        size = 8 if i.prefix & P_REXW else 4
        if has(i, FEAT_7_EBX, 19):
            modrm(i, f, RM_READ | REG | REG_WRITE | TOUCHES | (WITH_F3 if i.prefix & P_F3 else WITH_66), size, size)
    elif op != 0xF0 and op != 0xF1:
        return
    elif i.prefix & P_F2:
        if has(i, FEAT_1_ECX, 20):
            modrm(i, f, RM_READ | REG | REG_WRITE | WITH_F2, size, 1 if op == 0xF0 else size)
    elif i.mem and has(i, FEAT_1_ECX, 22):
        modrm(i, f, RM_READ | REG_WRITE if op == 0xF0 else RM_WRITE | REG, size, size)


cdef void two(const Insn *i, Form *f) noexcept nogil:
    cdef u32 op = i.op, size = i.osize, n = i.reg & 7
    if op == 0x0D or 0x18 <= op <= 0x1F:
        f.kind = N_NOTHING
    elif 0x40 <= op <= 0x4F:
        modrm(i, f, RM_READ | REG | REG_WRITE, size, size)
    elif 0x80 <= op <= 0x8F:
        f.kind = N_JCC
    elif 0x90 <= op <= 0x9F:
        modrm(i, f, RM_WRITE, 1, 1)
    elif op == 0xA3 or op == 0xAB or op == 0xB3 or op == 0xBB:
        modrm(i, f, RM_READ | REG | (0 if op == 0xA3 else RM_WRITE), size, size)
        if i.mem:                               # the bit may lie anywhere
            f.kind = N_NOT
    elif op == 0xA4 or op == 0xA5 or op == 0xAC or op == 0xAD:
        modrm(i, f, RM_READ | RM_WRITE | REG, size, size)
        f.use |= TOUCHES
        if size == 2:                           # undefined for counts above 16, and hosts differ
            f.kind = N_NOT
    elif op == 0xAF:
        modrm(i, f, RM_READ | REG | REG_WRITE, size, size)
    elif op == 0xB0 or op == 0xB1:
        size = 1 if op == 0xB0 else size
        modrm(i, f, RM_READ | RM_WRITE | REG, size, size)
    elif op == 0xB6 or op == 0xBE:
        modrm(i, f, RM_READ | REG_WRITE, size, 1)
    elif op == 0xB7 or op == 0xBF:
        modrm(i, f, RM_READ | REG_WRITE, size, 2)
    elif op == 0xBA:
        modrm(i, f, RM_READ | (0 if n == 4 else RM_WRITE), size, size)
    elif op == 0xBC or op == 0xBD or op == 0xB8:
        modrm(i, f, RM_READ | REG | REG_WRITE, size, size)
        if i.prefix & P_F3 and counts(i):
            f.use |= WITH_F3
        elif op == 0xB8 or size == 2:
            f.kind = N_NOT
    elif op == 0xC0 or op == 0xC1:
        size = 1 if op == 0xC0 else size
        modrm(i, f, RM_READ | RM_WRITE | REG | REG_WRITE, size, size)
    elif 0xC8 <= op <= 0xCF:
        if size != 2:
            f.kind, f.use, f.size = N_OPREG, REG | REG_WRITE, size


cdef void form_of(const Insn *i, Form *form) noexcept nogil:
    form.kind = N_NOT
    form.use = 0
    form.size = form.rm_size = 0
    form.op, form.imm_len = i.op, i.imm_len
    if not translatable(i.mode):
        return
    if not i.mode & MODE_64 and i.mem and (i.asize == 2 or i.seg == CS):
        return                                  # CS may forbid reading, and forbids writing
    if i.klass == K_VEX or i.klass == K_FPU and i.map != MAP_ONE:
        vector(i, form)
        return
    if i.klass != K_INTEGER and not (i.klass == K_SYSTEM and i.map == MAP_0F38 and i.op == 0xF6):
        return
    if i.map == MAP_ONE:
        one(i, form)
    elif i.map == MAP_0F:
        two(i, form)
    elif i.map == MAP_0F38:
        three(i, form)
    if N_JCC <= form.kind <= N_CALL_TO and i.osize != word_of(i.mode):
        form.kind = N_NOT                       # RIP is cut
