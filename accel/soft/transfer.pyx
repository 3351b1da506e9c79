"""Far transfers of control: jmp, call, ret and iret in every mode, gates, stack switches; syscall and sysenter.

Return values: 0 done, c.rip is set; 1 an exception is noted and nothing has changed; 2 an exception is noted that
belongs to c.rip (a task switch has happened).

Ref: Intel SDM volume 2 (the pseudo code of CALL, JMP, RET, IRET, SYSCALL, SYSENTER), volume 3 chapter 5.
Not modelled: control-flow enforcement.
"""

from accel.soft.cpu cimport *
from accel.soft.segment cimport *
from accel.soft.task cimport TASK_CALL, TASK_IRET, TASK_JUMP, task_switch

cdef enum:                  # types of system descriptors
    TYPE_TSS16 = 1
    TYPE_CALL16 = 4
    TYPE_TASK = 5
    TYPE_TSS32 = 9
    TYPE_CALL = 12

cdef enum:
    F_ALL = 0x3F7700            # that exist, beside the status flags
    FLAGS_RETURN = F_TF | F_DF | F_NT | F_RF | F_AC | F_ID      # what iret may change at any level


cdef void set_cs(Cpu *c, u32 sel, Desc *d, u32 cpl) noexcept nogil:
    """CS and CPL, after all checks. SS, when it changes too, is set before."""
    set_seg(c, CS, (sel & 0xFFFC) | cpl, d)
    c.cpl = cpl
    if is_long(c) and c.seg[CS].ar & AR_L:
        c.regs[BASE + CS] = 0
    c.memory.set_mode(c)


cdef void set_cs_real(Cpu *c, u32 sel) noexcept nogil:
    set_seg_real(c, CS, sel)
    c.memory.set_mode(c)


cdef void set_eflags(Cpu *c, u32 value, u32 mask) noexcept nogil:
    """The status flags, and of the others those in `mask`. The caller tells the memory (set_mode)."""
    mask &= F_ALL
    set_status_flags(c, value)
    c.eflags = (c.eflags & ~mask) | (value & mask)


cdef u32 virtual_flags(Cpu *c) noexcept nogil:
    """What a program of virtual-8086 mode with VME and IOPL below 3 sees: VIF for IF, IOPL 3."""
    return get_eflags(c) & ~<u32>(F_VM | F_RF | F_IF) | F_IOPL | (F_IF if c.eflags & F_VIF else 0)


cdef int set_virtual_flags(Cpu *c, u32 value) noexcept nogil:
    """The other way. #GP for TF, and for IF when an interrupt waits for it."""
    if value & F_TF or value & F_IF and c.eflags & F_VIP:
        return failed(c, X_GP, 0)
    set_eflags(c, value, (F_DF | F_NT) & 0xFFFF)
    c.eflags = c.eflags & ~<u32>F_VIF | (F_VIF if value & F_IF else 0)
    return 0


cdef int check_rip(Cpu *c, Desc *d, u64 rip) noexcept nogil:
    """Does `rip` lie inside the code segment, or is it canonical? Else #GP(0)."""
    if is_long(c) and desc_ar(d) & AR_L:
        return 0 if canonical(rip) else failed(c, X_GP, 0)
    return failed(c, X_GP, 0) if rip > desc_limit(d) else 0


cdef int check_code(Cpu *c, u32 sel, Desc *d, u32 rpl) noexcept nogil:
    """May CPL go on in this code segment at the same level? `rpl`: of the selector (0 through a gate)."""
    cdef u32 ar = desc_ar(d)
    if not is_code(ar) or (is_long(c) and ar & (AR_L | AR_DB) == AR_L | AR_DB):
        return failed(c, X_GP, sel & 0xFFFC)
    if ar & AR_CE:
        if ar_dpl(ar) > c.cpl:
            return failed(c, X_GP, sel & 0xFFFC)
    elif rpl > c.cpl or ar_dpl(ar) != c.cpl:
        return failed(c, X_GP, sel & 0xFFFC)
    if not ar & AR_P:
        return failed(c, X_NP, sel & 0xFFFC)
    return 0


cdef int tss_stack(Cpu *c, u32 level, u64 *sp, u32 *ss) noexcept nogil:
    """Stack of a privilege level (in long mode 4-10: of the interrupt stack table) from the TSS; #TS(TR)."""
    cdef Segment *tr = &c.seg[TR]
    cdef bint small = tr.ar & AR_TYPE in (1, 3)
    cdef u32 at, size
    cdef u64 value = 0
    sp[0] = 0
    ss[0] = 0
    if is_long(c):
        at, size = 4 + level * 8, 8
    elif small:
        at, size = 2 + level * 4, 4
    else:
        at, size = 4 + level * 8, 6
    if at + size - 1 > tr.limit:
        return failed(c, X_TS, tr.sel & 0xFFFC)
    if is_long(c):
        if c.memory.sys_load(c, tr.base + at, 8, sp):
            return 1
        if not canonical(sp[0]):
            return failed(c, X_SS, 0)
        return 0
    if c.memory.sys_load(c, tr.base + at, 2 if small else 4, sp):
        return 1
    if c.memory.sys_load(c, tr.base + at + (2 if small else 4), 2, &value):
        return 1
    ss[0] = <u32>value
    return 0


# --- gates ---------------------------------------------------------------------------------------------------

ctypedef struct Gate:
    u32 sel
    u64 offset
    u32 size                # 2, 4, 8: what is pushed
    u32 count               # of parameters


cdef int read_gate(Cpu *c, u32 sel, Desc *d, Gate *gate) noexcept nogil:
    """A call gate."""
    cdef u64 high = 0
    gate.sel = d.lo >> 16
    gate.offset = (d.lo & 0xFFFF) | (d.hi & <u32>0xFFFF0000)
    gate.count = d.hi & 31
    gate.size = 4
    if is_long(c):
        gate.size = 8
        gate.count = 0
        if (sel | 15) > (c.seg[LDTR].limit if sel & 4 else c.gdt.limit):
            return failed(c, X_GP, sel & 0xFFFC)
        if c.memory.sys_load(c, d.at + 8, 8, &high):
            return 1
        if (high >> 40) & 31:
            return failed(c, X_GP, sel & 0xFFFC)
        gate.offset |= high << 32
    elif (d.hi >> 8) & AR_TYPE == TYPE_CALL16:
        gate.size = 2
        gate.offset &= 0xFFFF
    return 0


cdef int system_target(Cpu *c, u32 sel, Desc *d, u32 how, u64 after, Gate *gate) noexcept nogil:
    """jmp or call to a system descriptor. 3: through the gate; else the result of a task switch, or 1."""
    cdef u32 ar = desc_ar(d), kind = ar & AR_TYPE
    cdef bint good = kind == TYPE_CALL
    cdef u32 target
    if not is_long(c):
        good = kind in (TYPE_TSS16, TYPE_CALL16, TYPE_TASK, TYPE_TSS32, TYPE_CALL)
    if not good or ar_dpl(ar) < c.cpl or ar_dpl(ar) < sel & 3:
        return failed(c, X_GP, sel & 0xFFFC)
    if not ar & AR_P:
        return failed(c, X_NP, sel & 0xFFFC)
    if kind in (TYPE_TSS16, TYPE_TSS32):
        return task_switch(c, sel, d, how, after, get_eflags(c), False, 0)
    if kind == TYPE_TASK:
        target = d.lo >> 16
        if target & 4:
            return failed(c, X_GP, target & 0xFFFC)
        if fetch_desc(c, target, X_GP, d):
            return 1
        if desc_ar(d) & (AR_S | AR_TYPE) not in (TYPE_TSS16, TYPE_TSS32):
            return failed(c, X_GP, target & 0xFFFC)
        if not desc_ar(d) & AR_P:
            return failed(c, X_NP, target & 0xFFFC)
        return task_switch(c, target, d, how, after, get_eflags(c), False, 0)
    if read_gate(c, sel, d, gate):
        return 1
    if gate.sel & 0xFFFC == 0:
        return failed(c, X_GP, 0)
    if fetch_desc(c, gate.sel, X_GP, d):
        return 1
    if is_long(c) and desc_ar(d) & (AR_L | AR_DB) != AR_L:
        return failed(c, X_GP, gate.sel & 0xFFFC)
    return 3


# --- jmp and call --------------------------------------------------------------------------------------------

cdef u64 cut(u64 value, u32 size) noexcept nogil:
    return value if size == 8 else value & ((<u64>1 << (size * 8)) - 1)


cdef int far_jump(Cpu *c, u32 sel, u64 offset, u32 osize, u64 after) noexcept nogil:
    cdef Desc d
    cdef Gate gate
    cdef int result
    offset = cut(offset, osize)
    sel &= 0xFFFF
    if not is_protected(c):
        if offset > c.seg[CS].limit:
            return failed(c, X_GP, 0)
        set_cs_real(c, sel)
        c.rip = offset
        return 0
    if sel & 0xFFFC == 0:
        return failed(c, X_GP, 0)
    if fetch_desc(c, sel, X_GP, &d):
        return 1
    if desc_ar(&d) & AR_S:
        if check_code(c, sel, &d, sel & 3):
            return 1
    else:
        result = system_target(c, sel, &d, TASK_JUMP, after, &gate)
        if result != 3:
            return result
        sel, offset = gate.sel, gate.offset
        if check_code(c, sel, &d, 0):
            return 1
    if check_rip(c, &d, offset) or mark_accessed(c, &d):
        return 1
    set_cs(c, sel, &d, c.cpl)
    c.rip = offset
    return 0


cdef int far_call(Cpu *c, u32 sel, u64 offset, u32 osize, u64 after) noexcept nogil:
    cdef Desc d
    cdef Gate gate
    cdef Stack s
    cdef int result
    offset = cut(offset, osize)
    sel &= 0xFFFF
    stack_of(c, &s)
    if not is_protected(c):
        if offset > c.seg[CS].limit:
            return failed(c, X_GP, 0)
        if put(c, &s, osize, c.seg[CS].sel) or put(c, &s, osize, after):
            return 1
        set_sp(c, s.sp)
        set_cs_real(c, sel)
        c.rip = offset
        return 0
    if sel & 0xFFFC == 0:
        return failed(c, X_GP, 0)
    if fetch_desc(c, sel, X_GP, &d):
        return 1
    if desc_ar(&d) & AR_S:
        if check_code(c, sel, &d, sel & 3):
            return 1
    else:
        result = system_target(c, sel, &d, TASK_CALL, after, &gate)
        if result != 3:
            return result
        sel, offset, osize = gate.sel, gate.offset, gate.size
        if is_code(desc_ar(&d)) and not desc_ar(&d) & AR_CE and ar_dpl(desc_ar(&d)) < c.cpl:
            return inner_call(c, &d, &gate, after)
        if check_code(c, sel, &d, 0):
            return 1
    if check_rip(c, &d, offset):
        return 1
    if put(c, &s, osize, c.seg[CS].sel) or put(c, &s, osize, after) or mark_accessed(c, &d):
        return 1
    set_sp(c, s.sp)
    set_cs(c, sel, &d, c.cpl)
    c.rip = offset
    return 0


cdef int inner_call(Cpu *c, Desc *d, Gate *gate, u64 after) noexcept nogil:
    """Through a call gate to a more privileged level: its stack, with the caller's and the parameters on it."""
    cdef Desc ssd
    cdef Stack s, old
    cdef u64 sp = 0, value = 0
    cdef u32 ss = 0, i, cpl = ar_dpl(desc_ar(d))
    if not desc_ar(d) & AR_P:
        return failed(c, X_NP, gate.sel & 0xFFFC)
    if tss_stack(c, cpl, &sp, &ss):
        return 1
    if is_long(c):
        stack_new(c, &s, 0, NULL, sp, cpl)
    else:
        if check_ss(c, ss, cpl, X_TS, &ssd):
            return 1
        stack_new(c, &s, ss, &ssd, sp, cpl)
    if put(c, &s, gate.size, c.seg[SS].sel) or put(c, &s, gate.size, c.regs[4]):
        return 1
    stack_of(c, &old)
    old.sp = (old.sp + <u64>gate.count * gate.size) & old.mask
    for i in range(gate.count):
        old.sp = (old.sp - gate.size) & old.mask
        if take(c, &old, gate.size, &value):
            return 1
        old.sp = (old.sp - gate.size) & old.mask
        if put(c, &s, gate.size, value):
            return 1
    if put(c, &s, gate.size, c.seg[CS].sel) or put(c, &s, gate.size, after):
        return 1
    if check_rip(c, d, gate.offset) or mark_accessed(c, d):
        return 1
    if is_long(c):
        set_seg_null(c, SS, cpl)
    else:
        if mark_accessed(c, &ssd):
            return 1
        set_seg(c, SS, ss, &ssd)
    set_cs(c, gate.sel, d, cpl)
    set_sp(c, s.sp)
    c.rip = gate.offset
    return 0


# --- ret and iret --------------------------------------------------------------------------------------------

cdef void drop_segments(Cpu *c) noexcept nogil:
    """After a return to an outer level: what it may not use becomes null, and null 0. Bases stay (FS, GS of 64-bit code)."""
    cdef u32 n, ar
    for n in range(6):
        if n == CS or n == SS:
            continue
        ar = c.seg[n].ar
        if ar & AR_UNUSABLE:
            c.seg[n].sel = 0                        # 1 to 3 are null too; Linux counts on their going
        if ar & AR_UNUSABLE or ar & (AR_CODE | AR_CE) == AR_CODE | AR_CE:
            continue
        if ar_dpl(ar) < c.cpl:
            c.seg[n].sel = 0
            c.seg[n].ar |= AR_UNUSABLE


cdef int return_code(Cpu *c, u32 sel, Desc *d) noexcept nogil:
    """The code segment that ret or iret goes to."""
    cdef u32 ar, rpl = sel & 3
    if sel & 0xFFFC == 0:
        return failed(c, X_GP, 0)
    if fetch_desc(c, sel, X_GP, d):
        return 1
    ar = desc_ar(d)
    if not is_code(ar) or rpl < c.cpl or (is_long(c) and ar & (AR_L | AR_DB) == AR_L | AR_DB):
        return failed(c, X_GP, sel & 0xFFFC)
    if ar_dpl(ar) > rpl if ar & AR_CE else ar_dpl(ar) != rpl:
        return failed(c, X_GP, sel & 0xFFFC)
    if not ar & AR_P:
        return failed(c, X_NP, sel & 0xFFFC)
    return 0


cdef int outer_stack(Cpu *c, u32 ss, u32 rpl, Desc *d, Desc *ssd) noexcept nogil:
    """Check SS of the level returned to; null is good for 64-bit code below level 3. 3: null."""
    if ss & 0xFFFC == 0 and is_long(c) and desc_ar(d) & AR_L and rpl != 3:
        return 3
    if check_ss(c, ss, rpl, X_GP, ssd) or mark_accessed(c, ssd):
        return 1
    return 0


cdef void enter_outer(Cpu *c, u32 sel, Desc *d, u32 ss, Desc *ssd, bint null, u64 sp) noexcept nogil:
    """CS, SS and RSP, checked before; `null`: SS is."""
    cdef u32 cpl = c.cpl
    if null:
        set_seg_null(c, SS, ss)
    else:
        set_seg(c, SS, ss, ssd)
    set_cs(c, sel, d, sel & 3)
    set_sp(c, sp)
    if c.cpl != cpl:
        drop_segments(c)
        c.memory.set_mode(c)


cdef int far_return(Cpu *c, u32 osize, u32 release) noexcept nogil:
    """retf; `release` more bytes are taken from the stack, or from both."""
    cdef Desc d, ssd
    cdef Stack s
    cdef u64 rip = 0, sel64 = 0, sp = 0, ss64 = 0
    cdef u32 sel, ss
    cdef int null
    stack_of(c, &s)
    if take(c, &s, osize, &rip) or take(c, &s, osize, &sel64):
        return 1
    sel = <u32>sel64 & 0xFFFF
    s.sp = (s.sp + release) & s.mask
    if not is_protected(c):
        if rip > c.seg[CS].limit:
            return failed(c, X_GP, 0)
        set_sp(c, s.sp)
        set_cs_real(c, sel)
        c.rip = rip
        return 0
    if return_code(c, sel, &d):
        return 1
    if sel & 3 == c.cpl:
        if check_rip(c, &d, rip) or mark_accessed(c, &d):
            return 1
        set_sp(c, s.sp)
        set_cs(c, sel, &d, c.cpl)
        c.rip = rip
        return 0
    if take(c, &s, osize, &sp) or take(c, &s, osize, &ss64):
        return 1
    ss = <u32>ss64 & 0xFFFF
    null = outer_stack(c, ss, sel & 3, &d, &ssd)
    if null == 1 or check_rip(c, &d, rip) or mark_accessed(c, &d):
        return 1
    enter_outer(c, sel, &d, ss, &ssd, null == 3, sp + release)
    c.rip = rip
    return 0


cdef int return_v86(Cpu *c, Stack *s, u32 sel, u32 flags) noexcept nogil:
    """iret at CPL 0 with VM in the flags: the rest of the frame holds the stack and four more segments."""
    cdef u64 values[6]      # ESP SS ES DS FS GS
    cdef u32 i
    for i in range(6):
        if take(c, s, 4, &values[i]):
            return 1
    set_eflags(c, flags, FLAGS_RETURN | F_IF | F_IOPL | F_VM | F_VIF | F_VIP)
    set_seg_real(c, CS, sel)
    set_seg_real(c, SS, <u32>values[1])
    set_seg_real(c, ES, <u32>values[2])
    set_seg_real(c, DS, <u32>values[3])
    set_seg_real(c, FS, <u32>values[4])
    set_seg_real(c, GS, <u32>values[5])
    c.regs[4] = values[0]
    c.cpl = 3
    c.memory.set_mode(c)
    return 0


cdef int task_return(Cpu *c, u64 after) noexcept nogil:
    """iret with NT: to the task whose TSS is linked from ours."""
    cdef Desc d
    cdef u64 link = 0
    if is_long(c):
        return failed(c, X_GP, 0)
    if c.memory.sys_load(c, c.seg[TR].base, 2, &link):
        return 1
    if link & 4:
        return failed(c, X_TS, <u32>link & 0xFFFC)
    if fetch_desc(c, <u32>link, X_TS, &d):
        return 1
    if desc_ar(&d) & (AR_S | AR_TYPE) not in (3, 11):
        return failed(c, X_TS, <u32>link & 0xFFFC)
    if not desc_ar(&d) & AR_P:
        return failed(c, X_NP, <u32>link & 0xFFFC)
    return task_switch(c, <u32>link, &d, TASK_IRET, after, get_eflags(c), False, 0)


cdef void returned(Cpu *c, u64 rip) noexcept nogil:
    """iret has succeeded. RF is only of use when the next instruction is looked at (run loop: MODE_STEP)."""
    c.rip = rip
    c.nmi_blocked = False
    if not c.mode & MODE_STEP:
        c.eflags &= ~<u32>F_RF


cdef int interrupt_return(Cpu *c, u32 osize, u64 after) noexcept nogil:
    cdef Desc d, ssd
    cdef Stack s
    cdef u64 rip = 0, sel64 = 0, flags64 = 0, sp = 0, ss64 = 0
    cdef u32 sel, flags, ss, mask
    cdef int null = 0
    cdef bint stacked, virtual
    if is_protected(c) and c.eflags & F_NT:
        return task_return(c, after)
    virtual = is_v86(c) and iopl(c) != 3
    if virtual and (osize != 2 or not c.cr4 & CR4_VME):
        return failed(c, X_GP, 0)
    stack_of(c, &s)
    if take(c, &s, osize, &rip) or take(c, &s, osize, &sel64) or take(c, &s, osize, &flags64):
        return 1
    sel, flags = <u32>sel64 & 0xFFFF, <u32>flags64
    mask = FLAGS_RETURN
    if c.cpl <= iopl(c):
        mask |= F_IF
    if c.cpl == 0:
        mask |= F_IOPL | F_VIF | F_VIP
    if osize == 2:
        mask &= 0xFFFF
    if not is_protected(c):
        if rip > c.seg[CS].limit:
            return failed(c, X_GP, 0)
        if virtual:
            if set_virtual_flags(c, flags):
                return 1
        else:
            set_eflags(c, flags, mask & ~<u32>(F_VIF | F_VIP))
        set_sp(c, s.sp)
        set_cs_real(c, sel)
        returned(c, rip)
        return 0
    if osize == 4 and flags & F_VM and c.cpl == 0 and not is_long(c):
        if return_v86(c, &s, sel, flags):
            return 1
        returned(c, rip & 0xFFFF)
        return 0
    if return_code(c, sel, &d):
        return 1
    stacked = is_64(c) or sel & 3 != c.cpl
    if stacked:
        if take(c, &s, osize, &sp) or take(c, &s, osize, &ss64):
            return 1
        ss = <u32>ss64 & 0xFFFF
        null = outer_stack(c, ss, sel & 3, &d, &ssd)
        if null == 1:
            return 1
    if check_rip(c, &d, rip) or mark_accessed(c, &d):
        return 1
    set_eflags(c, flags, mask)
    if stacked:
        enter_outer(c, sel, &d, ss, &ssd, null == 3, sp)
    else:
        set_sp(c, s.sp)
        set_cs(c, sel, &d, c.cpl)
    returned(c, rip)
    return 0


# --- syscall, sysret, sysenter, sysexit ----------------------------------------------------------------------

cdef void flat_cs(Cpu *c, u32 sel, u32 cpl, u32 kind) noexcept nogil:
    """A code segment that no descriptor was read for; `kind`: AR_L, AR_DB."""
    c.seg[CS].sel = <u16>sel
    c.seg[CS].limit = <u32>0xFFFFFFFF
    c.seg[CS].ar = AR_G | AR_P | AR_S | 11 | (cpl << 5) | kind
    c.regs[BASE + CS] = 0
    c.cpl = cpl


cdef void flat_ss(Cpu *c, u32 sel, u32 cpl) noexcept nogil:
    c.seg[SS].sel = <u16>sel
    c.seg[SS].limit = <u32>0xFFFFFFFF
    c.seg[SS].ar = AR_G | AR_DB | AR_P | AR_S | 3 | (cpl << 5)
    c.regs[BASE + SS] = 0


cdef int no_such(Cpu *c) noexcept nogil:
    raised(c, X_UD, 0, False)
    return 1


cdef int fast_call(Cpu *c, u64 after) noexcept nogil:
    """syscall, in each mode in which AMD's processors have it; far.pyx knows Intel's."""
    if not c.efer & EFER_SCE or not c.cr0 & CR0_PE:
        return no_such(c)
    if is_long(c):
        c.regs[1] = after
        c.regs[11] = get_eflags(c) & ~<u32>F_RF
        c.rip = c.lstar if is_64(c) else c.cstar
        set_eflags(c, <u32>c.regs[11] & ~<u32>c.sfmask, ~<u32>0)
        flat_cs(c, <u32>(c.star >> 32) & 0xFFFC, 0, AR_L)
    else:
        c.regs[1] = after
        c.rip = c.star & <u64>0xFFFFFFFF
        c.eflags &= ~<u32>(F_IF | F_VM | F_RF)
        flat_cs(c, <u32>(c.star >> 32) & 0xFFFC, 0, AR_DB)
    flat_ss(c, (<u32>(c.star >> 32) & 0xFFFC) + 8, 0)
    c.memory.set_mode(c)
    return 0


cdef int fast_return(Cpu *c, u32 osize) noexcept nogil:
    """sysret."""
    cdef u32 base = <u32>(c.star >> 48)
    if not c.efer & EFER_SCE or not c.cr0 & CR0_PE:
        return no_such(c)
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if is_long(c):
        if osize == 8 and not canonical(c.regs[1]):
            return failed(c, X_GP, 0)
        set_eflags(c, <u32>c.regs[11] & ~<u32>(F_RF | F_VM), ~<u32>0)
    else:
        c.eflags |= F_IF
    if osize == 8:
        c.rip = c.regs[1]
        flat_cs(c, (base + 16) | 3, 3, AR_L)
    else:
        c.rip = c.regs[1] & <u64>0xFFFFFFFF
        flat_cs(c, base | 3, 3, AR_DB)
    flat_ss(c, (base + 8) | 3, 3)
    c.memory.set_mode(c)
    return 0


cdef int sysenter(Cpu *c) noexcept nogil:
    if not c.cr0 & CR0_PE or c.sysenter_cs & 0xFFFC == 0:
        return failed(c, X_GP, 0)
    c.eflags &= ~<u32>(F_VM | F_IF | F_RF)
    flat_cs(c, <u32>c.sysenter_cs & 0xFFFC, 0, AR_L if is_long(c) else AR_DB)
    flat_ss(c, (<u32>c.sysenter_cs & 0xFFFC) + 8, 0)
    c.regs[4] = cut(c.sysenter_esp, 8 if is_long(c) else 4)
    c.rip = cut(c.sysenter_eip, 8 if is_long(c) else 4)
    c.memory.set_mode(c)
    return 0


cdef int sysexit(Cpu *c, u32 osize) noexcept nogil:
    cdef u32 base = <u32>c.sysenter_cs & 0xFFFC
    if not c.cr0 & CR0_PE or base == 0 or c.cpl != 0:
        return failed(c, X_GP, 0)
    if osize == 8:
        if not canonical(c.regs[1]) or not canonical(c.regs[2]):
            return failed(c, X_GP, 0)
        c.regs[4], c.rip = c.regs[1], c.regs[2]
        flat_cs(c, (base + 32) | 3, 3, AR_L)
        flat_ss(c, (base + 40) | 3, 3)
    else:
        c.regs[4], c.rip = c.regs[1] & <u64>0xFFFFFFFF, c.regs[2] & <u64>0xFFFFFFFF
        flat_cs(c, (base + 16) | 3, 3, AR_DB)
        flat_ss(c, (base + 24) | 3, 3)
    c.memory.set_mode(c)
    return 0
