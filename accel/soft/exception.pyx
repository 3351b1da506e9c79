"""Exceptions and interrupts, from the vector to the first instruction of the handler; debug exceptions.

Ref: Intel SDM volume 3, chapters 6 (interrupt and exception handling), 17.2 and 17.3 (debug registers and exceptions);
volume 2, INT n; volume 3, 20.1.4 (real mode), 20.3.3 (software interrupts in virtual-8086 mode).
"""

from accel.soft.cpu cimport *
from accel.soft.decode cimport decode
from accel.soft.insn cimport MAP_0F, MAP_ONE, Insn
from accel.soft.segment cimport *
from accel.soft.task cimport TASK_GATE, task_switch
from accel.soft.transfer cimport check_rip, set_cs, tss_stack, virtual_flags

cdef enum:                  # where an interrupt comes from
    FROM_FAULT = 0          # an exception
    FROM_OUTSIDE = 1        # INTR, NMI
    FROM_CODE = 2           # int n, int3, into: the gate's DPL counts

cdef enum:
    DR6_BD = 0x2000
    DR6_BS = 0x4000
    DR7_GD = 0x2000


# --- one delivery. 0 done; 1 an exception is noted, nothing has changed; 2 it is noted and belongs to c.rip --------------

cdef int enter_table(Cpu *c, u64 at, u32 flags, u32 cleared) noexcept nogil:
    """Through the entry (offset, segment) at linear address `at`, with these flags on the stack."""
    cdef Stack s
    cdef u64 entry = 0
    if c.memory.sys_load(c, at & <u64>0xFFFFFFFF, 4, &entry):
        return 1
    stack_of(c, &s)
    if put(c, &s, 2, flags) or put(c, &s, 2, c.seg[CS].sel) or put(c, &s, 2, c.rip):
        return 1
    if (entry & 0xFFFF) > c.seg[CS].limit:
        return failed(c, X_GP, 0)
    set_sp(c, s.sp)
    c.eflags &= ~cleared
    set_seg_real(c, CS, <u32>(entry >> 16))
    c.memory.set_mode(c)
    c.rip = entry & 0xFFFF
    return 0


cdef int enter_real(Cpu *c, u32 vector) noexcept nogil:
    if vector * 4 + 3 > c.idt.limit:
        return failed(c, X_GP, 0)
    return enter_table(c, c.idt.base + vector * 4, get_eflags(c), F_IF | F_TF | F_AC | F_RF)


cdef int redirects(Cpu *c, u32 vector) noexcept nogil:
    """Does an int of virtual-8086 mode go to the program's own handler? By the bit map below that of ports. -1: #GP."""
    cdef Segment *tr = &c.seg[TR]
    cdef u64 at = 0, bits = 0
    if tr.ar & (AR_UNUSABLE | AR_TYPE) not in (9, 11) or tr.limit < 103:
        failed(c, X_GP, 0)
        return -1
    if c.memory.sys_load(c, tr.base + 102, 2, &at):
        return -1
    at += (vector >> 3) - <u64>32
    if at > tr.limit:
        failed(c, X_GP, 0)
        return -1
    if c.memory.sys_load(c, tr.base + at, 1, &bits):
        return -1
    return not bits >> (vector & 7) & 1


cdef int enter_redirected(Cpu *c, u32 vector) noexcept nogil:
    if iopl(c) == 3:
        return enter_table(c, vector * 4, get_eflags(c), F_IF | F_TF | F_RF)
    return enter_table(c, vector * 4, virtual_flags(c), F_VIF | F_TF | F_RF)


ctypedef struct Entry:      # a gate of the IDT, and the code segment it names
    u32 ar
    u32 sel
    u64 offset
    u32 ist
    Desc code


cdef int read_entry(Cpu *c, u32 vector, u32 origin, Entry *e) noexcept nogil:
    """The gate with all checks of its own."""
    cdef u32 size = 16 if is_long(c) else 8, kind
    cdef u64 low = 0, high = 0
    if vector * size + size - 1 > c.idt.limit:
        return failed(c, X_GP, vector * 8 + 2)
    if c.memory.sys_load(c, c.idt.base + vector * size, 8, &low):
        return 1
    if size == 16 and c.memory.sys_load(c, c.idt.base + vector * size + 8, 8, &high):
        return 1
    e.ar = <u32>(low >> 40) & 0xFF
    e.sel = <u32>(low >> 16) & 0xFFFF
    e.offset = (low & 0xFFFF) | ((low >> 32) & <u64>0xFFFF0000) | (high << 32)
    e.ist = <u32>(low >> 32) & 7 if size == 16 else 0
    kind = e.ar & (AR_S | AR_TYPE)
    if not (kind in (14, 15) or (size == 8 and kind in (5, 6, 7))):
        return failed(c, X_GP, vector * 8 + 2)
    if origin == FROM_CODE and ar_dpl(e.ar) < c.cpl:
        return failed(c, X_GP, vector * 8 + 2)
    if not e.ar & AR_P:
        return failed(c, X_NP, vector * 8 + 2)
    return 0


cdef int read_code(Cpu *c, Entry *e) noexcept nogil:
    cdef u32 ar
    if e.sel & 0xFFFC == 0:
        return failed(c, X_GP, 0)
    if fetch_desc(c, e.sel, X_GP, &e.code):
        return 1
    ar = desc_ar(&e.code)
    if not is_code(ar) or ar_dpl(ar) > c.cpl or (is_long(c) and ar & (AR_L | AR_DB) != AR_L):
        return failed(c, X_GP, e.sel & 0xFFFC)
    if not ar & AR_P:
        return failed(c, X_NP, e.sel & 0xFFFC)
    return 0


cdef int enter_task(Cpu *c, u32 sel, u32 flags, bint has_error, u32 error) noexcept nogil:
    cdef Desc d
    if sel & 4:
        return failed(c, X_GP, sel & 0xFFFC)
    if fetch_desc(c, sel, X_GP, &d):
        return 1
    if desc_ar(&d) & (AR_S | AR_TYPE) not in (1, 9):
        return failed(c, X_GP, sel & 0xFFFC)
    if not desc_ar(&d) & AR_P:
        return failed(c, X_NP, sel & 0xFFFC)
    return task_switch(c, sel, &d, TASK_GATE, c.rip, flags, has_error, error)


cdef void enter_handler(Cpu *c, Entry *e, u32 cpl) noexcept nogil:
    if not e.ar & 1:                                # an interrupt gate
        c.eflags &= ~<u32>F_IF
    c.eflags &= ~<u32>(F_TF | F_NT | F_RF | F_VM)
    set_cs(c, e.sel, &e.code, cpl)
    c.rip = e.offset


cdef int enter_protected(Cpu *c, u32 vector, u32 origin, u32 flags, bint has_error, u32 error) noexcept nogil:
    cdef Entry e
    cdef Desc ssd
    cdef Stack s
    cdef u64 sp = 0
    cdef u32 ss = 0, size, cpl = c.cpl, n
    cdef bint inner, v86 = is_v86(c)
    if read_entry(c, vector, origin, &e):
        return 1
    if e.ar & AR_TYPE == 5:
        return enter_task(c, e.sel, flags, has_error, error)
    if read_code(c, &e):
        return 1
    size = 4 if e.ar & 8 else 2
    if size == 2:
        e.offset &= 0xFFFF
    inner = not desc_ar(&e.code) & AR_CE and ar_dpl(desc_ar(&e.code)) < c.cpl
    if v86 and (not inner or ar_dpl(desc_ar(&e.code)) != 0):
        return failed(c, X_GP, e.sel & 0xFFFC)
    if inner:
        cpl = ar_dpl(desc_ar(&e.code))
        if tss_stack(c, cpl, &sp, &ss) or check_ss(c, ss, cpl, X_TS, &ssd):
            return 1
        stack_new(c, &s, ss, &ssd, sp, cpl)
        if v86:
            if put(c, &s, size, c.seg[GS].sel) or put(c, &s, size, c.seg[FS].sel):
                return 1
            if put(c, &s, size, c.seg[DS].sel) or put(c, &s, size, c.seg[ES].sel):
                return 1
        if put(c, &s, size, c.seg[SS].sel) or put(c, &s, size, c.regs[4]):
            return 1
    else:
        stack_of(c, &s)
    if put(c, &s, size, flags) or put(c, &s, size, c.seg[CS].sel) or put(c, &s, size, c.rip):
        return 1
    if has_error and put(c, &s, size, error):
        return 1
    if check_rip(c, &e.code, e.offset) or mark_accessed(c, &e.code):
        return 1
    if inner:
        if mark_accessed(c, &ssd):
            return 1
        set_seg(c, SS, ss, &ssd)
    if v86:
        for n in range(6):
            if n != CS and n != SS:
                set_seg_null(c, n, 0)
    enter_handler(c, &e, cpl)
    set_sp(c, s.sp)
    return 0


cdef int enter_long(Cpu *c, u32 vector, u32 origin, u32 flags, bint has_error, u32 error) noexcept nogil:
    cdef Entry e
    cdef Stack s
    cdef u64 sp = c.regs[4]
    cdef u32 ss, cpl = c.cpl
    cdef bint inner
    if read_entry(c, vector, origin, &e) or read_code(c, &e):
        return 1
    inner = not desc_ar(&e.code) & AR_CE and ar_dpl(desc_ar(&e.code)) < c.cpl
    if inner:
        cpl = ar_dpl(desc_ar(&e.code))
    if e.ist or inner:
        if tss_stack(c, e.ist + 3 if e.ist else cpl, &sp, &ss):
            return 1
    stack_new(c, &s, 0, NULL, sp & ~<u64>15, cpl)
    if put(c, &s, 8, c.seg[SS].sel) or put(c, &s, 8, c.regs[4]) or put(c, &s, 8, flags):
        return 1
    if put(c, &s, 8, c.seg[CS].sel) or put(c, &s, 8, c.rip) or (has_error and put(c, &s, 8, error)):
        return 1
    if check_rip(c, &e.code, e.offset) or mark_accessed(c, &e.code):
        return 1
    if inner:
        set_seg_null(c, SS, cpl)
    enter_handler(c, &e, cpl)
    set_sp(c, s.sp)
    return 0


cdef int enter_vector(Cpu *c, u32 vector, u32 origin, bint has_error, u32 error) noexcept nogil:
    cdef u32 flags
    cdef int result
    if not c.cr0 & CR0_PE:
        return enter_real(c, vector)
    flags = get_eflags(c)
    if origin == FROM_FAULT and vector not in (X_DB, X_NMI, X_BP, X_OF, X_DF, X_MC):
        flags |= F_RF                               # a fault: the instruction begins anew without its breakpoint
    if is_long(c):
        result = enter_long(c, vector, origin, flags, has_error, error)
    else:
        result = enter_protected(c, vector, origin, flags, has_error, error)
    if result and origin != FROM_CODE and X_TS <= c.vector <= X_GP:
        c.error |= 1                                # EXT: not the program's doing
    return result


# --- the order of exceptions ---------------------------------------------------------------------------------

cdef bint contributory(u32 vector) noexcept nogil:
    return vector == X_DE or X_TS <= vector <= X_GP


cdef void serve(Cpu *c, u32 vector, u32 origin, bint has_error, u32 error) noexcept nogil:
    """Deliver, with the double and the triple fault."""
    cdef int result
    while True:
        result = enter_vector(c, vector, origin, has_error, error)
        if result == 0:
            if vector == X_DB and origin == FROM_FAULT:
                c.dr7 &= ~<u64>DR7_GD
            c.stop = STOP_NEXT
            return
        if origin == FROM_FAULT:                    # in the old task or, behind a task gate, in the new one
            if vector == X_DF:
                c.stop = STOP_SHUTDOWN
                return
            if contributory(c.vector) and (contributory(vector) or vector == X_PF) or (
                vector == X_PF and c.vector == X_PF
            ):
                raised(c, X_DF, 0, True)
        vector, has_error, error = c.vector, c.has_error, c.error
        origin = FROM_FAULT


cdef bint through_stack(Cpu *c) noexcept nogil:
    """Did the instruction at c.rip reach c.far_address by SS (RSP or RBP as base, push, pop, call, ret …)?"""
    cdef u8 code[15]
    cdef u32 n = 0, op
    cdef u64 value = 0, cr2 = c.cr2
    cdef Insn i
    while n < 15 and c.memory.sys_load(c, c.rip + n, 1, &value) == 0:
        code[n] = <u8>value
        n += 1
    c.cr2, c.vector, c.error, c.has_error, c.stop = cr2, X_GP, 0, True, STOP_EXCEPTION
    if decode(code, n, c.mode, <u16>(c.rip & 0xFFF), &i) <= 0:
        return False
    op = i.op
    if i.mem and i.seg == SS:
        return True
    if i.map == MAP_0F:
        return (op == 0xA0 or op == 0xA1 or op == 0xA8 or op == 0xA9)
    if i.map != MAP_ONE:
        return False
    if op == 0xFF and i.reg & 7 in (2, 3, 6) or op == 0x8F:
        return c.far_address - (c.regs[4] - 16) <= 32
    return (
        0x50 <= op <= 0x5F or op in (0x68, 0x6A, 0x9C, 0x9D, 0xC2, 0xC3, 0xC8, 0xC9, 0xCA, 0xCB, 0xCF, 0xE8)
    )


cdef void deliver(Cpu *c) noexcept nogil:
    """The exception in c.vector, c.error; c.rip is the RIP to be saved. c.stop says how it went."""
    if c.far_out:
        c.far_out = False
        if through_stack(c):
            c.vector = X_SS
    serve(c, c.vector, FROM_FAULT, c.has_error, c.error)


cdef void interrupt(Cpu *c, u32 vector) noexcept nogil:
    """An external interrupt that the caller has acknowledged; IF and the shadow are the caller's to look at."""
    serve(c, vector, FROM_OUTSIDE, False, 0)


cdef void nmi(Cpu *c) noexcept nogil:
    """A non-maskable interrupt; the next one waits for iret."""
    c.nmi_blocked = True
    serve(c, X_NMI, FROM_OUTSIDE, False, 0)


cdef int soft_interrupt(Cpu *c, u32 vector) noexcept nogil:
    """int n, int3, into; c.rip lies behind the instruction. 1: the caller sets c.rip back; see enter_vector."""
    return enter_vector(c, vector, FROM_CODE, False, 0)


# --- debug exceptions ----------------------------------------------------------------------------------------

cdef bint intel(Cpu *c) noexcept nogil:
    """By the vendor of CPUID."""
    cdef u32 i
    for i in range(c.cpuid_count):
        if c.cpuid[i].function == 0:
            return c.cpuid[i].ebx == 0x756E6547     # "Genu"
    return False


cdef void merge_pending(Cpu *c) noexcept nogil:
    """A #DB of its own takes what a mov ss before it has put off."""
    if c.debug_hits & 15:
        c.dr6 &= ~<u64>15
    c.dr6 |= c.debug_hits
    c.debug_hits = 0


cdef bint host_point(Cpu *c) noexcept nogil:
    """True: a debugger of the host's wants to stop before the instruction at c.rip."""
    cdef u64 linear = c.rip
    cdef u32 i
    if not is_64(c):
        linear = (linear + c.regs[BASE + CS]) & <u64>0xFFFFFFFF
    for i in range(4):
        if (c.host_dr7 >> (2 * i)) & 3 and (c.host_dr7 >> (16 + 4 * i)) & 15 == 0 and c.host_dr[i] == linear:
            c.host_hits |= <u32>1 << i
    return c.host_hits != 0


cdef bint before_step(Cpu *c, bint behind_ss) noexcept nogil:
    """True: an instruction breakpoint lies at c.rip, #DB is noted. RF lets one instruction pass, and is gone."""
    cdef u64 linear = c.rip
    if behind_ss and intel(c):
        return False
    cdef u32 i
    cdef u64 hits = 0
    if c.eflags & F_RF:
        c.eflags &= ~<u32>F_RF
        return False
    if not is_64(c):
        linear = (linear + c.regs[BASE + CS]) & <u64>0xFFFFFFFF
    for i in range(4):
        if (c.dr7 >> (2 * i)) & 3 and (c.dr7 >> (16 + 4 * i)) & 15 == 0 and c.dr[i] == linear:
            hits |= <u64>1 << i
    if not hits:
        return False
    c.dr6 = (c.dr6 & ~<u64>15) | hits
    raised(c, X_DB, 0, False)
    return True


cdef bint after_step(Cpu *c, bint stepped) noexcept nogil:
    """Behind an instruction: True when #DB is noted. `stepped`: TF was set before it. Takes c.debug_hits."""
    cdef u64 hits = c.debug_hits
    if not hits and not stepped:
        return False
    if c.shadow & 2:                                # mov ss: one instruction later
        if stepped and c.shadow & 4:
            c.debug_hits |= DR6_BS
        return False
    c.debug_hits = 0
    if hits & 15:
        c.dr6 &= ~<u64>15
    c.dr6 |= hits | (DR6_BS if stepped else 0)
    raised(c, X_DB, 0, False)
    return True
