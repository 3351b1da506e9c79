"""Architectural performance counters, version 2: four that count what they are told to, three fixed ones.

Instructions are the interpreter's and the translator's own count, which is taken block by block: one that faults in the
middle of a block is counted with the rest of it, some thirty at most. Cycles are ticks of the TSC while the processor is not
halted, and so are reference cycles. Other events are not declared (CPUID 0AH, EBX) and count nothing.

What was counted is added where somebody looks, where CPL changes and at the end of a slice, which ends where a counter of
instructions overflows; one of cycles is seen to at the end of its slice, some 50 µs later at most.

Ref: Intel SDM volume 3, 20.2 (architectural performance monitoring); volume 2, CPUID leaf 0AH, RDPMC.
"""

from accel.soft.segment cimport failed

cdef enum:
    GENERAL = 4
    FIXED = 3
    MSR_COUNTER = 0xC1
    MSR_SELECT = 0x186
    MSR_FIXED = 0x309
    MSR_FIXED_CONTROL = 0x38D
    MSR_STATUS = 0x38E
    MSR_CONTROL = 0x38F
    MSR_OVERFLOWS = 0x390       # clears bits of the status
    USER = 1 << 16              # of a select register
    SYSTEM = 1 << 17
    EDGE = 1 << 18
    ANY = 1 << 21               # of a later version
    INTERRUPT = 1 << 20
    ENABLE = 1 << 22
    MODIFIED = 0xFF800000       # a count mask, inverted: occurrences in a cycle
    INSTRUCTIONS = 0x00C0       # unit mask and event
    CYCLES = 0x003C
    REFERENCE = 0x013C

cdef u64 WRAP = <u64>1 << 48
cdef u64 ALL = (<u64>1 << GENERAL) - 1 | ((<u64>1 << FIXED) - 1) << 32


cdef inline u32 fixed_field(Cpu *c, u32 n) noexcept nogil:
    """Bit 0: counts at CPL 0, 1: at others, 3: interrupts."""
    return <u32>(c.pmu.fixed_control >> (4 * n)) & 15


cdef u32 kind_of(Cpu *c, u32 n, u32 *rings) noexcept nogil:
    """What counter `n` (general ones, then fixed ones) counts, 0 for nothing; `rings`: bit 0 CPL 0, bit 1 others."""
    cdef u32 select
    rings[0] = 0
    if n >= GENERAL:
        n -= GENERAL
        if c.pmu.control >> (32 + n) & 1:
            rings[0] = fixed_field(c, n) & 3
        return INSTRUCTIONS if n == 0 else CYCLES
    select = <u32>c.pmu.selects[n]
    if not select & ENABLE or select & (EDGE | <u32>MODIFIED) or not c.pmu.control >> n & 1:
        return 0
    rings[0] = (1 if select & SYSTEM else 0) | (2 if select & USER else 0)
    if select & 0xFFFF == INSTRUCTIONS:
        return INSTRUCTIONS
    return CYCLES if select & 0xFFFF == CYCLES or select & 0xFFFF == REFERENCE else 0


cdef inline u64 *counter_at(Cpu *c, u32 n) noexcept nogil:
    return &c.pmu.counters[n] if n < GENERAL else &c.pmu.fixed[n - GENERAL]


cdef inline u64 done(Cpu *c) noexcept nogil:
    return c.executed + <u64>(<i64>c.slice - c.budget)


cdef void count_up(Cpu *c) noexcept nogil:
    """Add what was done since the last time; an overflow is noted in the status, and in `due` if it interrupts."""
    cdef u64 instructions = done(c), cycles = c.hooks.tsc(c), more
    cdef u64 *counter
    cdef u32 n, rings = 0, kind
    for n in range(GENERAL + FIXED):
        kind = kind_of(c, n, &rings)
        if not kind or not rings >> (c.pmu.cpl != 0) & 1:
            continue
        more = instructions - c.pmu.instructions if kind == INSTRUCTIONS else cycles - c.pmu.cycles
        counter = counter_at(c, n)
        counter[0] += more
        if counter[0] >= WRAP:
            counter[0] -= WRAP
            c.pmu.status |= <u64>1 << (n if n < GENERAL else 32 + n - GENERAL)
            if c.pmu.selects[n] & INTERRUPT if n < GENERAL else fixed_field(c, n - GENERAL) & 8:
                c.pmu.due = True
    c.pmu.instructions, c.pmu.cycles, c.pmu.cpl = instructions, cycles, c.cpl


cdef void count_from(Cpu *c) noexcept nogil:
    """A slice begins: what time went by since the last one is not the processor's."""
    c.pmu.instructions, c.pmu.cycles, c.pmu.cpl = done(c), c.hooks.tsc(c), c.cpl


cdef u64 until_overflow(Cpu *c, u64 most) noexcept nogil:
    """Instructions until the next overflow of a counter of them, `most` at most."""
    cdef u32 n, rings = 0
    for n in range(GENERAL + FIXED):
        if kind_of(c, n, &rings) == INSTRUCTIONS and rings and WRAP - counter_at(c, n)[0] < most:
            most = WRAP - counter_at(c, n)[0]
    return most


cdef void changed(Cpu *c) noexcept nogil:
    """Controls or a counter were written: the slice ends, and the next one ends where an overflow is."""
    cdef u32 n, rings = 0
    c.pmu.active = False
    for n in range(GENERAL + FIXED):
        if kind_of(c, n, &rings) and rings:
            c.pmu.active = True
    c.slice -= c.budget
    c.budget = 0


# --- as the guest sees them --------------------------------------------------------------------------------------------

cdef bint is_counter(u32 msr) noexcept nogil:
    return (
        MSR_COUNTER <= msr < MSR_COUNTER + GENERAL or MSR_SELECT <= msr < MSR_SELECT + GENERAL
        or MSR_FIXED <= msr < MSR_FIXED + FIXED or MSR_FIXED_CONTROL <= msr <= MSR_OVERFLOWS
    )


cdef int read_counter_msr(Cpu *c, u32 msr, u64 *value) noexcept nogil:
    if c.counting < 2:
        return failed(c, X_GP, 0)
    count_up(c)
    if msr == MSR_FIXED_CONTROL:
        value[0] = c.pmu.fixed_control
    elif msr == MSR_STATUS:
        value[0] = c.pmu.status
    elif msr == MSR_CONTROL:
        value[0] = c.pmu.control
    elif msr == MSR_OVERFLOWS:
        value[0] = 0
    elif msr >= MSR_FIXED:
        value[0] = c.pmu.fixed[msr - MSR_FIXED]
    elif msr >= MSR_SELECT:
        value[0] = c.pmu.selects[msr - MSR_SELECT]
    else:
        value[0] = c.pmu.counters[msr - MSR_COUNTER]
    return 0


cdef int write_counter_msr(Cpu *c, u32 msr, u64 value) noexcept nogil:
    if c.counting < 2:
        return failed(c, X_GP, 0)
    count_up(c)
    if msr == MSR_FIXED_CONTROL:
        if value & ~<u64>0xBBB:
            return failed(c, X_GP, 0)
        c.pmu.fixed_control = value
    elif msr == MSR_STATUS:
        return failed(c, X_GP, 0)
    elif msr == MSR_CONTROL:
        if value & ~ALL:
            return failed(c, X_GP, 0)
        c.pmu.control = value
    elif msr == MSR_OVERFLOWS:
        if value & ~(ALL | <u64>3 << 62):
            return failed(c, X_GP, 0)
        c.pmu.status &= ~value
        return 0
    elif msr >= MSR_FIXED:
        if value >= WRAP:
            return failed(c, X_GP, 0)
        c.pmu.fixed[msr - MSR_FIXED] = value
    elif msr >= MSR_SELECT:
        if value >> 32 or value & ANY:
            return failed(c, X_GP, 0)
        c.pmu.selects[msr - MSR_SELECT] = value
    else:                                   # 32 bits, whose sign goes on
        c.pmu.counters[msr - MSR_COUNTER] = <u64><i64><i32>value & (WRAP - 1)
    changed(c)
    return 0


cdef int load_counter_msr(Cpu *c, u32 msr, u64 value) noexcept nogil:
    """As it was saved: the status, and all bits of a counter."""
    if c.counting < 2 or msr != MSR_STATUS and not MSR_COUNTER <= msr < MSR_COUNTER + GENERAL:
        return write_counter_msr(c, msr, value)
    if msr == MSR_STATUS:
        c.pmu.status = value & (ALL | <u64>3 << 62)
    else:
        c.pmu.counters[msr - MSR_COUNTER] = value & (WRAP - 1)
    return 0


cdef int read_counter(Cpu *c, u32 number, u64 *value) noexcept nogil:
    """RDPMC: bit 30 for a fixed one."""
    cdef u32 n = number & 0xFFFF
    if c.counting < 2 or number & ~<u32>(1 << 30 | 0xFFFF) or n >= <u32>(FIXED if number >> 30 else GENERAL):
        return failed(c, X_GP, 0)
    count_up(c)
    value[0] = c.pmu.fixed[n] if number >> 30 else c.pmu.counters[n]
    return 0
