# Instructions with a VEX prefix: what each is. The documentation is in vex.pyx.
from accel.soft.cpu cimport u8, u16, u32

cdef enum:                  # VexOp.use
    V_WRITE = 1             # modrm.reg, a vector
    V_READ = 2
    H_READ = 4              # vvvv, a vector
    H_WRITE = 8
    W_READ = 0x10           # modrm.rm, a vector or memory
    W_WRITE = 0x20
    E_READ = 0x40           # modrm.rm, a general register or memory
    E_WRITE = 0x80
    G_WRITE = 0x100         # modrm.reg, a general register
    B_READ = 0x200          # vvvv, a general register
    B_WRITE = 0x400
    IS4 = 0x800
    V_FLAGS = 0x1000        # the result is flags
    V_MOVE = 0x2000
    V_ROUNDS = 0x4000
    V_ALIGNED = 0x8000
    V_BMI = 0x10000         # general registers only
    V_MASKED = 0x20000      # those that have functions of their own
    V_GATHER = 0x40000
    V_ZERO = 0x80000
    V_MXCSR = 0x100000
    V_BYTES = 0x200000
    V_STRINGS = 0x400000
    V_OWN = 0x7E0000

cdef enum:                  # VexOp.size beside bytes
    S_NONE = 0
    S_X = 0x80
    S_HALF = 0x81
    S_QUARTER = 0x82
    S_EIGHTH = 0x83
    S_Y = 0x84
    S_DUP = 0x85

cdef enum:                  # VexOp.length
    L_ANY = 0
    L_0 = 1
    L_1 = 2
    L_IGNORED = 3

cdef enum:                  # VexOp.feature
    F_AVX = 0
    F_AVX2 = 1
    F_A2 = 2
    F_FMA = 3
    F_F16C = 4
    F_BMI1 = 5
    F_BMI2 = 6
    F_AES = 7
    F_CLMUL = 8

ctypedef struct VexOp:
    u32 use                 # 0: not an instruction
    u8 size
    u8 length
    u8 width                # of VEX.W: 0 any, 1 must be 0, 2 must be 1
    u8 feature
    u8 imm                  # an immediate byte
    u8 regs                 # bits: which modrm.reg there are
    u16 writes              # flags

cdef const VexOp *vex_op(u32 map, u32 lead, u32 opcode, bint mem) noexcept nogil
