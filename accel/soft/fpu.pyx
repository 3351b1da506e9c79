"""The emitter of x87, MMX and SSE instructions, and when the host's registers hold the guest's.

The host's own instructions do the arithmetic (stub.pyx): they round and flag as a processor does. Handlers are in
x87.pyx (with MMX) and sse.pyx.
Not modelled: the x87 instruction and data pointers (they stay as loaded); an unmasked x87 exception is raised at the
next instruction that waits, but the masked result has been stored by then.
"""

from accel.soft.fpstate cimport *
from accel.soft.insn cimport *
from accel.soft.sse cimport emit_sse
from accel.soft.x87 cimport emit_mmx, emit_x87

from accel.soft.stub import stubs_available


cdef void fpu_resume(Cpu *c) noexcept nogil:
    """The guest goes on: its rounding; the x87 registers come when they are needed."""
    vr_set_mxcsr(c.mxcsr | MASKS)


cdef void fpu_suspend(Cpu *c) noexcept nogil:
    """The host's own code runs."""
    settle(c)
    fetch_mxcsr(c)
    vr_set_mxcsr(MASKS)


cdef void fpu_enter_slice(Cpu *c) noexcept nogil:
    fpu_resume(c)


cdef void fpu_leave_slice(Cpu *c) noexcept nogil:
    fpu_suspend(c)


cdef int emit_fpu(Insn *i, Uop *u) noexcept nogil:
    """0: not an instruction."""
    cdef int n
    if i.map == MAP_ONE:
        return emit_x87(i, u)
    if i.map == MAP_0F38 and 0xC8 <= i.op <= 0xCD or i.map == MAP_0F3A and i.op == 0xCC:
        return emit_sse(i, u)               # SHA, of which there is no MMX
    n = emit_mmx(i, u)
    return n if n else emit_sse(i, u)


def fpu_available():
    """(works, why not, what to do about it)"""
    return stubs_available()
