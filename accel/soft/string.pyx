"""String instructions: movs, cmps, stos, lods, scas, with and without repetition.

A repeated one is a loop over stretches: as many items as lie in one page, in the segment and below the wrap of offsets,
done straight in host memory, or handed to a device under one lock, RUN at most; an item that cannot be reached so (the first of a page, one across pages, devices, DF = 1)
is done alone with all checks. After each stretch the loop may leave at the same instruction with the registers as
far as it came, so that interrupts are seen; four items take as much of the slice as one instruction.

Registers and flags are written when the loop ends or leaves; a fault leaves those of the items done before, and the
flags as they were.
"""

from libc.string cimport memchr, memmove, memset

from accel.soft.insn cimport *
from accel.soft.operand cimport *
from accel.soft.segment cimport CR4_SMAP, seg_linear

cdef enum:                  # Uop.d
    MOVS = 0
    CMPS = 1
    STOS = 2
    LODS = 3
    SCAS = 4

cdef enum:                  # Uop.s
    ONCE = 0
    REPE = 1                # rep as well
    REPNE = 2

cdef enum:
    MOST = 4096             # items of a stretch
    RUN = 64                # ... that a device is handed, with the machine's lock held

cdef DeviceRun device_run = NULL


cdef void run_devices_by(DeviceRun run) noexcept:
    """Whoever knows devices says how (accel/soft/vcpu.pyx)."""
    global device_run
    device_run = run


# An instruction at work: the operation itself may be overwritten by its own stores.
cdef struct Work:
    u32 op, size, seg, repeat
    u64 mask                # of offsets and the count
    u64 step                # of an offset: size, or minus size
    u64 si, di, count
    u64 a, b                # the items moved, or compared last


cdef inline u64 get(const u8 *p, u32 size) noexcept nogil:
    if size == 1:
        return p[0]
    if size == 2:
        return (<const u16 *>p)[0]
    if size == 4:
        return (<const u32 *>p)[0]
    return (<const u64 *>p)[0]


cdef inline void put(u8 *p, u32 size, u64 value) noexcept nogil:
    if size == 1:
        p[0] = <u8>value
    elif size == 2:
        (<u16 *>p)[0] = <u16>value
    elif size == 4:
        (<u32 *>p)[0] = <u32>value
    else:
        (<u64 *>p)[0] = value


cdef inline u64 cut(u64 value, u32 size) noexcept nogil:
    return value if size == 8 else value & ((<u64>1 << (8 * size)) - 1)


cdef inline bint has_source(Work *w) noexcept nogil:
    return w.op == MOVS or w.op == CMPS or w.op == LODS


cdef inline bint compares(Work *w) noexcept nogil:
    return w.op == CMPS or w.op == SCAS


cdef inline bint writes(Work *w) noexcept nogil:
    return w.op == MOVS or w.op == STOS


cdef inline int place(Cpu *c, Work *w, u32 seg, u64 offset, bint write, u64 *linear) noexcept nogil:
    """Linear address of an item. 1: outside of the segment, noted."""
    if c.mode & MODE_64:
        linear[0] = offset + (c.regs[BASE + seg] if seg >= FS else 0)
        return 0
    return seg_linear(c, seg, offset, w.size, write, linear)


cdef int item(Cpu *c, Work *w) noexcept nogil:
    """One item with all checks: w.a and w.b are set, memory is written. 1: a fault is noted."""
    cdef u64 from_ = 0, to = 0
    w.a = cut(c.regs[0], w.size)
    if w.op == CMPS and (                       # as processors do: ES:DI is the first to fault
        place(c, w, ES, w.di, False, &to) or c.memory.load(c, to, w.size, &w.b)
    ):
        return 1
    if has_source(w):
        if place(c, w, w.seg, w.si, False, &from_) or c.memory.load(c, from_, w.size, &w.a):
            return 1
    if w.op == LODS or w.op == CMPS:
        return 0
    if place(c, w, ES, w.di, writes(w), &to):
        return 1
    return c.memory.store(c, to, w.size, w.a) if writes(w) else c.memory.load(c, to, w.size, &w.b)


cdef u64 room(Cpu *c, Work *w, u32 seg, u64 offset, u64 linear) noexcept nogil:
    """Bytes from an item on in its page, its segment and below the wrap of offsets. 0: go item by item."""
    cdef u64 most = 4096 - (linear & 4095)
    if w.mask - offset < most:
        most = w.mask - offset + 1
    if not c.mode & MODE_64:
        if c.seg[seg].ar & (AR_CODE | AR_CE) == AR_CE or offset > c.seg[seg].limit:
            return 0
        if c.seg[seg].limit - offset < most:
            most = c.seg[seg].limit - offset + 1
    return most


cdef void copy(u8 *to, u8 *source, u32 size, u64 n) noexcept nogil:
    """Item after item, upwards: what was just written may be read again."""
    cdef u64 k
    if <u64>to - <u64>source >= n * size:
        memmove(to, source, n * size)
    elif size == 1:
        for k in range(n):
            to[k] = source[k]
    else:
        for k in range(n):
            put(to + k * size, size, get(source + k * size, size))


cdef void fill(u8 *to, u64 value, u32 size, u64 n) noexcept nogil:
    cdef u64 k
    if size == 1 or value == cut((value & 0xFF) * <u64>0x0101010101010101, size):
        memset(to, <int>(value & 0xFF), n * size)
    elif size == 8:
        for k in range(n):
            (<u64 *>to)[k] = value
    elif size == 4:
        for k in range(n):
            (<u32 *>to)[k] = <u32>value
    else:
        for k in range(n):
            (<u16 *>to)[k] = <u16>value


cdef u64 compare(Work *w, u8 *left, u8 *right, u64 n) noexcept nogil:
    """Items compared, the last of which ends the repetition, or all `n`. `left` NULL: with the accumulator, w.a."""
    cdef u64 k
    cdef u8 *found
    if left == NULL and w.size == 1 and w.repeat == REPNE:
        found = <u8 *>memchr(right, <int>w.a, n)
        k = <u64>(found - right) + 1 if found != NULL else n
        w.b = right[k - 1]
        return k
    for k in range(n):
        if left != NULL:
            w.a = get(left + k * w.size, w.size)
        w.b = get(right + k * w.size, w.size)
        if (w.a == w.b) != (w.repeat == REPE):
            return k + 1
    return n


cdef inline bint rivals(Cpu *c, Work *w, u64 from_, u64 to) noexcept nogil:
    """Whether two pages have one place in the TLB, where each access to one would drop the other."""
    return has_source(w) and w.op != LODS and ((from_ ^ to) >> 12) & (TLB_SIZE - 1) == 0 and (from_ ^ to) >> 12 != 0 and (
        c.tlb != c.tlbs[2])


cdef inline u8 *reach(Cpu *c, u64 ea, u32 size, bint write) noexcept nogil:
    """readable() or writable(), of a user's page too where the kernel may touch it (SMAP: between STAC and CLAC)."""
    cdef u8 *p = writable(c, ea, size) if write else readable(c, ea, size)
    cdef TlbEntry *e
    cdef u64 at
    if p == NULL and c.eflags & F_AC and c.tlb == c.tlbs[0]:
        e = &c.tlbs[1][(ea >> 12) & (TLB_SIZE - 1)]
        at = ea - (e.wtag if write else e.rtag)
        if at <= 4096 - size and c.cr4 & CR4_SMAP:
            return <u8 *>(at + e.host)
    return p


cdef i64 stretch(Cpu *c, Work *w) noexcept nogil:
    """Items done in host memory; 0: this one cannot be done so; -1: a fault is noted."""
    cdef u64 from_ = 0, to = 0, bytes = w.count * w.size if w.count < MOST else MOST * w.size, n, most
    cdef u8 *p = NULL
    cdef u8 *q = NULL
    if w.step != w.size or c.mode & MODE_STEP:
        return 0
    if has_source(w):
        if place(c, w, w.seg, w.si, False, &from_):
            return 0 if w.op == CMPS else -1
        most = room(c, w, w.seg, w.si, from_)
        bytes = most if most < bytes else bytes
    if w.op != LODS:
        if place(c, w, ES, w.di, writes(w), &to):
            return 0 if has_source(w) else -1       # whose fault comes first is for item() to say
        most = room(c, w, ES, w.di, to)
        bytes = most if most < bytes else bytes
    n = bytes // w.size
    bytes = n * w.size
    if n == 0:
        return 0
    if has_source(w):
        p = reach(c, from_, <u32>bytes, False)
        if p == NULL and rivals(c, w, from_, to):
            if c.memory.probe(c, from_, w.size, False):
                return -1 if w.op == MOVS else 0
            p = reach(c, from_, <u32>bytes, False)
        if p == NULL:
            return 0
    if w.op != LODS:
        q = reach(c, to, <u32>bytes, writes(w))
        if q == NULL and rivals(c, w, from_, to):           # p stays good: it is memory of the host
            if c.memory.probe(c, to, w.size, writes(w)):
                return -1
            q = reach(c, to, <u32>bytes, writes(w))
        if q == NULL:
            if not writes(w) or n < 2 or device_run == NULL or c.tlb == c.tlbs[2]:       # watched
                return 0
            return device_run(c, to, w.size, p, cut(c.regs[0], w.size), n if n < RUN else RUN)
    if w.op == MOVS:
        copy(q, p, w.size, n)
    elif w.op == STOS:
        fill(q, cut(c.regs[0], w.size), w.size, n)
    elif w.op == LODS:
        w.a = get(p + bytes - w.size, w.size)
    else:
        w.a = cut(c.regs[0], w.size)
        n = compare(w, p, q, n)
    return <i64>n


cdef inline void put_offset(Cpu *c, u32 at, u64 mask, u64 value) noexcept nogil:
    if mask == 0xFFFF:
        r16(c, at)[0] = <u16>value
    else:
        r64(c, at)[0] = value


cdef void write_back(Cpu *c, Work *w) noexcept nogil:
    if has_source(w):
        put_offset(c, RSI, w.mask, w.si)
    if w.op != LODS:
        put_offset(c, RDI, w.mask, w.di)
    if w.repeat:
        put_offset(c, RCX, w.mask, w.count)


cdef void conclude(Cpu *c, Work *w) noexcept nogil:
    """What the last item leaves: flags, or the accumulator."""
    if w.op == LODS:
        if w.size >= 4:
            c.regs[0] = w.a
        else:
            put(<u8 *>c.regs, w.size, w.a)
    elif not compares(w):
        return
    elif w.size == 1:
        flags_sub8(c, <u8>w.a, <u8>w.b, <u8>(w.a - w.b))
    elif w.size == 2:
        flags_sub16(c, <u16>w.a, <u16>w.b, <u16>(w.a - w.b))
    elif w.size == 4:
        flags_sub32(c, <u32>w.a, <u32>w.b, <u32>(w.a - w.b))
    else:
        flags_sub64(c, w.a, w.b, w.a - w.b)


cdef void start(Cpu *c, Uop *u, Work *w) noexcept nogil:
    w.op, w.size, w.seg, w.repeat = u.d, u.b, u.a, u.s
    w.mask = ~<u64>0 if u.x == 8 else (<u64>0xFFFFFFFF if u.x == 4 else 0xFFFF)
    w.step = <u64>0 - w.size if c.eflags & F_DF else w.size
    w.si, w.di = c.regs[6] & w.mask, c.regs[7] & w.mask
    w.count = c.regs[1] & w.mask if w.repeat else 1


cdef enum:                  # results of repeat()
    DONE
    FAULT
    AGAIN                   # leave at the same instruction


cdef int repeat(Cpu *c, Uop *u) noexcept nogil:
    cdef Work w
    cdef i64 n
    cdef u64 spent = 0
    cdef int result = DONE
    start(c, u, &w)
    if w.count == 0:
        return DONE
    while True:
        n = stretch(c, &w)
        if n == 0:
            n = -1 if item(c, &w) else 1
        if n < 0:
            result = FAULT
            break
        if w.op == LODS:
            conclude(c, &w)             # a fault behind leaves what was loaded before
        spent += <u64>n
        w.si = (w.si + <u64>n * w.step) & w.mask
        w.di = (w.di + <u64>n * w.step) & w.mask
        w.count -= <u64>n
        if w.count == 0 or compares(&w) and (w.a == w.b) != (w.repeat == REPE):
            break
        if c.budget < <i64>(spent >> 2) or c.mode & MODE_STEP or (
            c.pending and (c.pending != PEND_INTR or c.eflags & F_IF)
        ):
            result = AGAIN
            break
    c.budget -= <i64>(spent >> 2)
    write_back(c, &w)
    if result != FAULT and w.op != LODS:
        conclude(c, &w)
    return result


cdef void op_repeat(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 rip = rip_of(c, u)
    cdef int result = repeat(c, u)
    if result == DONE:
        next(c, u)
        return
    c.rip = rip
    if result == AGAIN:
        c.stop = STOP_EVENT


cdef int once(Cpu *c, Uop *u) noexcept nogil:
    cdef Work w
    start(c, u, &w)
    if item(c, &w):
        return 1
    w.si = (w.si + w.step) & w.mask
    w.di = (w.di + w.step) & w.mask
    write_back(c, &w)
    conclude(c, &w)
    return 0


cdef void op_once(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 rip = rip_of(c, u)
    if once(c, u):
        c.rip = rip
        return
    next(c, u)


cdef int emit_string(Insn *i, Uop *u) noexcept nogil:
    """0: not an instruction of this module."""
    cdef u32 kind
    if i.map != MAP_ONE:
        return 0
    kind = i.op & 0xFE
    if kind == 0xA4:
        u.d = MOVS
    elif kind == 0xA6:
        u.d = CMPS
    elif kind == 0xAA:
        u.d = STOS
    elif kind == 0xAC:
        u.d = LODS
    elif kind == 0xAE:
        u.d = SCAS
    else:
        return 0
    u.a = i.seg
    u.b = i.osize if i.op & 1 else 1
    u.x = i.asize
    u.s = REPNE if i.prefix & P_F2 else (REPE if i.prefix & P_F3 else ONCE)
    u.fn = op_repeat if u.s else op_once
    return 1
