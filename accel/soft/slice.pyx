"""A slice of instructions of one processor: events that wait, then block after block, until the budget is spent.

Ref: Intel SDM volume 3, 6.9 (priority among interrupts), 17.3 (debug exceptions).
"""

from accel.soft.block cimport find_block
from accel.soft.code cimport forget_all, forget_written
from accel.soft.control cimport reset_cpu, start_cpu
from accel.soft.cpu cimport *
from accel.soft.exception cimport after_step, before_step, deliver, host_point, interrupt, nmi
from accel.soft.guest cimport *
from accel.soft.mmu cimport flush
from accel.soft.pending cimport *
from accel.soft.smm cimport enter_smi


cdef bint events(Cpu *c) noexcept nogil:
    """See to what waits. False: the slice is over."""
    cdef u32 p = vr_get32(&c.pending)
    cdef int vector
    if p & PEND_STOP:
        return False
    if p & PEND_FLUSH:
        vr_and32(&c.pending, ~<u32>PEND_FLUSH)
        forget_all(<Guest *>c.guest)
        flush(c, True)
    if p & PEND_INIT:
        vr_and32(&c.pending, ~<u32>(PEND_INIT | PEND_SIPI))
        reset_cpu(c, True)
        c.wait_sipi = c.index != 0
    if p & PEND_SIPI:
        vr_and32(&c.pending, ~<u32>PEND_SIPI)
        if c.wait_sipi:
            c.wait_sipi = False
            start_cpu(c, c.sipi_vector)
    if c.wait_sipi:
        return False
    if c.shadow:
        return not c.halted
    # (one who steps is not led away by interrupts)
    if p & PEND_SMI and not c.in_smm:
        vr_and32(&c.pending, ~<u32>PEND_SMI)
        c.halted = False
        enter_smi(c)
    elif p & PEND_NMI and not c.nmi_blocked:
        vr_and32(&c.pending, ~<u32>PEND_NMI)
        c.halted = False
        nmi(c)
    elif p & PEND_INTR and c.eflags & F_IF and (not c.host_step or c.halted):
        vector = c.hooks.acknowledge(c)
        if vector >= 0:
            c.halted = False
            interrupt(c, <u32>vector)
        # Else it was withdrawn meanwhile, which has cleared the flag; clearing it here could lose the next one.
    return not c.halted


cdef void run_slice(Cpu *c) noexcept nogil:
    """Until the budget is spent, the processor halts, or somebody wants it out."""
    cdef Block *block
    cdef i64 kept
    cdef bint step, trap, behind_ss
    c.stop = STOP_NEXT
    while c.budget > 0:
        if vr_get32(&c.pending) or c.halted or c.wait_sipi:
            c.link = NULL
            if not events(c):
                return
        block = find_block(c)
        if block == NULL:
            c.budget -= 1               # an endless chain of exceptions takes time too
            deliver(c)
            if c.stop == STOP_SHUTDOWN:
                return
            continue
        c.budget -= block.count
        c.block = block
        c.stop = STOP_NEXT
        behind_ss = c.shadow & 4
        c.shadow = 0
        step = block.mode & MODE_STEP
        if step and c.host_dr7 and host_point(c):
            c.budget += block.count
            c.shadow = 4 if behind_ss else 0
            c.host_stop = HOST_HARDWARE
            return
        if step and before_step(c, behind_ss):
            c.stop = STOP_EXCEPTION
        elif step:
            trap = c.eflags & F_TF
            kept = c.budget
            c.budget = 0
            c.slice -= kept
            code_of(block).fn(c, code_of(block))
            c.budget += kept
            c.slice += kept
            if c.locked and c.stop == STOP_NEXT:
                c.locked = 0                # another processor's store came between: once more
                c.tlb = c.lock_tlb
                if (<Guest *>c.guest).alone == 1:
                    return
                continue
            if c.stop != STOP_EXCEPTION:
                after_step(c, trap)
        else:
            code_of(block).fn(c, code_of(block))
        if c.locked:
            c.locked = 0
            c.tlb = c.lock_tlb
            if (<Guest *>c.guest).alone == 1:
                return
        if step and (c.host_step or c.host_hits) and not c.host_stop:
            c.host_stop = HOST_HARDWARE if c.host_hits else HOST_STEP
        if c.stop == STOP_NEXT and not c.host_stop:
            continue
        if c.stop == STOP_EXCEPTION:
            c.link = NULL
            deliver(c)
        if c.stop == STOP_EVENT:
            forget_written(<Guest *>c.guest)
        elif c.stop == STOP_HALT:
            c.halted = True
        if c.stop == STOP_SHUTDOWN or c.stop == STOP_LEAVE or c.host_stop:
            return
