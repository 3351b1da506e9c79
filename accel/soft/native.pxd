# Which instructions are translated to the host's, and how they use their operands. The documentation is in native.pyx.
from accel.soft.insn cimport *

cdef enum:                  # Form.kind
    N_NOT = 0               # the interpreter's
    N_NOTHING               # no effect
    N_PLAIN                 # registers that the opcode implies, or none; the bytes are taken over
    N_MODRM                 # the instruction with other operands
    N_OPREG                 # its register is in the opcode
    N_STEP                  # the same, inc and dec of one byte
    N_LEA
    N_PUSH                  # of the register in the opcode
    N_PUSH_IMM
    N_PUSH_MEM
    N_POP
    N_LEAVE
    N_DIV                   # div, idiv
    N_JCC
    N_JMP
    N_CALL
    N_RET
    N_JMP_TO                # indirect
    N_CALL_TO
    N_SSE                   # XMM registers, which are the host's meanwhile
    N_VEX                   # XMM and YMM registers, too
    N_VZERO                 # vzeroupper, vzeroall
    N_BMI                   # general registers, with VEX

cdef enum:                  # Form.use
    RM_READ = 1
    RM_WRITE = 2
    REG = 4                 # modrm.reg is a register that is read
    REG_WRITE = 8           # … or (also) written
    TOUCHES = 16            # changes flags
    XMM_RM = 32             # the operands are XMM registers
    XMM_REG = 64
    ALIGNED = 128           # memory on its size
    LEGACY = 256            # AH, CH, DH or BH is among the operands
    WITH_66 = 512           # mandatory prefixes of instructions on general registers
    WITH_F3 = 1024
    WITH_F2 = 2048
    SECOND_READ = 4096      # vvvv is a general register that is read
    SECOND_WRITE = 8192     # … or written

ctypedef struct Form:
    u32 kind
    u32 use
    u32 size                # of modrm.reg, or of the register in the opcode, in bytes
    u32 rm_size             # of modrm.rm, in memory too
    u32 op                  # the opcode it has on the host
    u32 imm_len             # bytes of its immediates
    bint wide               # VEX.L

cdef inline bint translatable(u32 mode) noexcept nogil:
    """Blocks of 64-bit code are translated, and of 32-bit code whose segments are flat."""
    return not mode & MODE_STEP and (
        mode & MODE_BITS == MODE_64 or mode & (MODE_BITS | MODE_STACK32 | MODE_FLAT) == MODE_32 | MODE_STACK32 | MODE_FLAT
    )

cdef inline u32 word_of(u32 mode) noexcept nogil:
    """Bytes of what the stack holds."""
    return 8 if mode & MODE_64 else 4

cdef void form_of(const Insn *i, Form *form) noexcept nogil

cdef inline bint translates(const Insn *i) noexcept nogil:
    cdef Form form
    form_of(i, &form)
    return form.kind != N_NOT
