# Arithmetic and logic. The documentation is in alu.pyx.in.
from accel.soft.cpu cimport Uop, u32
from accel.soft.insn cimport Insn

cdef enum:                  # Choice.form
    RR = 0
    RI = 1
    RM = 2
    MR = 3
    MI = 4

cdef enum:                  # Choice.op: 0-6 as the opcodes have them, add or adc sbb and sub xor
    CMP = 7
    TEST = 8

# What one instruction asks of the tables.
ctypedef struct Choice:
    u32 op, form, size      # size: log2 of bytes

cdef bint choose(Insn *i, Choice *out) noexcept nogil
cdef bint choose_unary(Insn *i, Choice *out) noexcept nogil
cdef Uop *operands(Insn *i, Uop *u, Choice *w) noexcept nogil
cdef int emit_alu(Insn *i, Uop *u) noexcept nogil
