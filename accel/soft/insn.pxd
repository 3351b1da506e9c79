# One decoded instruction, between the decoder (bytes in) and the emitters (operations out). No Cython module of its own.
#
#   decode.pyx    decode(bytes) -> Insn                        lengths, prefixes, operands, table of flags and classes
#   block.pyx     a block of Insns, liveness of flags, then for each the emitter of its class
#   integer.pyx   emit_integer, emit_fused; stack, branches, strings     system.pyx  emit_system      fpu.pyx  emit_fpu
#
# An emitter writes one or more operations at `u` and returns how many (Links included), or 0: not an instruction, #UD.
# Only the last operation of an instruction may store or change registers; a fault restarts the whole instruction.
# All operations of an instruction carry its `off` and `len`. The block builder zeroes the operations and sets, before
# it calls the emitter, off, len, base = index = seg = R_ZERO in all of the MAX_UOPS.

from accel.soft.cpu cimport *

cdef enum:
    MAX_UOPS = 6            # of one instruction, Link included

cdef enum:                  # Insn.klass
    K_INVALID = 0           # #UD
    K_INTEGER = 1
    K_SYSTEM = 2
    K_FPU = 3               # x87, MMX, SSE
    K_VEX = 4               # with a VEX prefix

cdef enum:                  # Insn.prefix
    P_66 = 1
    P_67 = 2
    P_F2 = 4                # the last of F2/F3 alone
    P_F3 = 8
    P_LOCK = 16
    P_REX = 32              # any REX: SPL, BPL, SIL, DIL instead of AH…BH
    P_REXW = 64
    P_SEG = 128             # an override was given

cdef enum:                  # Insn.map
    MAP_ONE = 0
    MAP_0F = 1
    MAP_0F38 = 2
    MAP_0F3A = 3

cdef enum:                  # Insn.ends
    ENDS_NOT = 0
    ENDS_JUMP = 1           # a branch, or leaves to the run loop: nothing of the block comes behind it
    ENDS_COND = 2           # a conditional branch: both ways are in its Link

ctypedef struct Insn:
    const u8 *bytes         # the whole instruction
    u8 len
    u8 map                  # MAP_…
    u8 op                   # the opcode byte in its map
    u8 klass
    u8 ends
    u8 prefix               # P_…
    u8 osize                # operand size: 2, 4, 8 (of 8-bit forms too: that of the others)
    u8 asize                # address size: 2, 4, 8
    u8 has_modrm
    u8 modrm                # as it stands
    u8 mod, reg, rm         # reg and rm with REX.R and REX.B applied; reg & 7 is the opcode extension of a group
    u8 opreg                # low 3 bits of the opcode with REX.B (push, pop, mov imm, bswap, xchg)
    bint mem                # modrm with mod != 3, or a moffs form (A0-A3: disp64)
    bint riprel             # base is RIPB, and disp counts from there (offset of the next instruction added)
    u8 base, index, scale   # register offsets; R_ZERO for none
    u8 seg                  # segment number with default and override applied (DS for strings' source)
    i64 disp                # sign-extended (64 bits only for moffs)
    i64 imm                 # sign-extended as the operand size wants; of a relative branch: the displacement
    u64 imm2                # enter's level, selector of a far pointer
    u16 off                 # in the page
    u8 imm_len              # bytes of all immediates; they are the last
    u32 mode                # MODE_…
    u32 reads, writes       # status flags (F_…) it needs, and it surely writes or leaves undefined
    u8 vvvv                 # of a VEX prefix: the register, and bit L
    bint wide
    u8 vindex               # the vector of addresses of a gather
    const u32 *features     # of the declared processor (Cpu.features); NULL: not known
    u32 live                # set by the block builder: flags written here that somebody reads; of a conditional
                            # branch at the end of a block: flags that somebody reads behind it

# Offset of general register `n` for `size` bytes (SPL… need any REX prefix; without, 4-7 are AH, CH, DH, BH).
cdef inline u8 gpr(const Insn *i, u32 n, u32 size) noexcept nogil:
    if size == 1 and n >= 4 and n < 8 and not i.prefix & P_REX:
        return <u8>((n - 4) * 8 + 1)
    return <u8>(n * 8)
