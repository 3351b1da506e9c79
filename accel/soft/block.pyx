"""From code bytes to a block of operations, found again by host address and mode.

A block is a run of instructions within one page, up to a branch. It is decoded whole first, so that flags nobody
reads need not be computed (`Insn.live`). To know what is read of the flags a block leaves behind, the instructions
that a direct branch at its end leads to are looked at too, a few and in the same page only; the block is dropped when
one of them is written to. An instruction over the end of a page is a block of its own, which compares the bytes in the
second page each time (`op_across`). Code that is not plain memory gives a block of one instruction that is not kept.
"""

from libc.string cimport memcmp, memcpy, memmove, memset

from accel.soft.avx cimport emit_vex
from accel.soft.code cimport digest, forget_all, forget_range, note_code
from accel.soft.decode cimport decode
from accel.soft.fpu cimport emit_fpu
from accel.soft.fused cimport emit_fused
from accel.soft.guest cimport *
from accel.soft.insn cimport *
from accel.soft.integer cimport emit_integer
from accel.soft.mmu cimport ACCESS_FETCH, note_fetch, translate
from accel.soft.native cimport translatable, translates
from accel.soft.system cimport emit_system

cdef enum:
    FAR = 20                # instructions looked at behind a block, all ways together
    DEEP = 3                # branches in a row
    LONGEST = 15            # bytes of an instruction
    COMPARED = 12           # of them in a second page: those of Uop that follow each other

SCRATCH_SIZE = sizeof(Scratch)


cdef void op_end(Cpu *c, Uop *u) noexcept nogil:
    """The block is over; its successor follows in memory."""
    jump(c, u, u.imm, 0)


# --- into translated code (translate.pyx), which is entered where these stand: at a block's beginning, and behind
# instructions that it leaves to the interpreter

ctypedef u64 (*Enter)(Cpu *c, i64 code) noexcept nogil


cdef void op_mark(Cpu *c, Uop *u) noexcept nogil:
    """A place that translated code may begin at."""
    next(c, u)


cdef void op_count(Cpu *c, Uop *u) noexcept nogil:
    """The same at the beginning of a block that has not run often yet. u.imm: how many times are left."""
    u.imm -= 1
    if likely(u.imm >= 0):
        next(c, u)
        return
    op_hot(c, u)


cdef void op_hot(Cpu *c, Uop *u) noexcept nogil:
    cdef Block *block = <Block *>u - 1
    cdef Guest *g = <Guest *>c.guest
    take(g)
    if not block.dead and not g.hotspot(c, block):
        u.fn = op_mark
    give(g)
    u.fn(c, u)


cdef void op_native(Cpu *c, Uop *u) noexcept nogil:
    """Host code at u.imm. It returns an operation to go on with, a block (with bit 0 set), or nothing: c.rip is set."""
    cdef u32 flags = status_flags(c)
    cdef u64 result
    cdef Uop *at
    cdef Block *block
    c.native_flags = ((flags & 0xD5) << 8) | (flags >> 11)
    result = (<Enter><void *>(<Guest *>c.guest).native_run)(c, u.imm)
    flags = c.native_flags
    set_status_flags(c, (flags >> 8 & 0xD5) | (flags & 1) << 11)
    if result == 0:
        return
    if result & 1:
        block = <Block *>(result - 1)
        c.budget -= block.count
        if likely(c.budget >= 0):
            enter(c, block)
            return
        c.budget += block.count
        c.rip = c.regs[RIPB] + (block.host & 0xFFF)
        c.stop = STOP_EVENT
        return
    at = <Uop *>result
    at.fn(c, at)


# --- LOCK, where processors have threads: before and behind the instruction's own operations

cdef void op_lock(Cpu *c, Uop *u) noexcept nogil:
    """All of its accesses look (mmu.pyx), and its store is made only if nobody else's came between.

    Else the operation leaves as if it had faulted, and the run loop begins it anew.
    """
    c.locked = 1
    c.lock_tlb = c.tlb
    c.tlb = c.tlbs[2]
    next(c, u)


cdef void op_unlock(Cpu *c, Uop *u) noexcept nogil:
    c.locked = 0
    c.tlb = c.lock_tlb
    next(c, u)


# --- an instruction over the end of a page

cdef inline u64 next_page(Cpu *c, u64 linear) noexcept nogil:
    linear = (linear & ~<u64>0xFFF) + 4096
    return linear if c.mode & MODE_64 else linear & <u64>0xFFFFFFFF


cdef void op_across(Cpu *c, Uop *u) noexcept nogil:
    """Are its last bytes, `u.x` of them, in the next page as they were? They are in `u`, from `imm` on."""
    cdef u64 linear = next_page(c, c.regs[RIPB] + (0 if c.mode & MODE_64 else c.regs[BASE + CS]))
    cdef ItlbEntry *page = &c.itlb[(linear >> 12) & (ITLB_SIZE - 1)]
    if likely(page.tag == linear and memcmp(<void *>page.host, &u.imm, u.x) == 0):
        next(c, u)
        return
    op_across_slow(c, u)


cdef void op_across_slow(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 linear = next_page(c, c.regs[RIPB] + (0 if c.mode & MODE_64 else c.regs[BASE + CS])), phys = 0
    cdef Block *block = <Block *>u - 1
    cdef Guest *g = <Guest *>c.guest
    cdef u8 *host = NULL
    c.rip = rip_of(c, u)
    if translate(c, linear, ACCESS_FETCH, c.cpl == 3, &host, &phys):
        return
    if host != NULL and memcmp(host, &u.imm, u.x) == 0:
        note_fetch(c, linear, host)
        next(c, u)
        return
    take(g)
    forget_range(g, c, <u8 *>block.host, 1)
    give(g)
    c.budget += block.count
    c.stop = STOP_NEXT


cdef void op_undefined(Cpu *c, Uop *u) noexcept nogil:
    raise_at(c, u, X_UD)


cdef void op_too_long(Cpu *c, Uop *u) noexcept nogil:
    raise_gp(c, u, 0)


cdef void blank(Uop *u, Insn *i) noexcept nogil:
    cdef u32 n
    memset(u, 0, MAX_UOPS * sizeof(Uop))
    for n in range(MAX_UOPS):
        u[n].off = i.off
        u[n].len = i.len
        u[n].base = u[n].index = u[n].seg = R_ZERO


cdef inline bint locks(const Insn *i) noexcept nogil:
    """With LOCK, or xchg with memory."""
    return i.klass == K_INTEGER and i.mem and (i.prefix & P_LOCK or i.map == MAP_ONE and i.op | 1 == 0x87)


cdef u32 emit(Insn *i, Uop *u, bint threads) noexcept nogil:
    cdef int n = 0
    if threads and locks(i):
        blank(u, i)
        u.fn = op_lock
        n = <int>emit(i, u + 1, False) + 1
        blank(u + n, i)
        u[n].fn = op_unlock
        return n + 1
    blank(u, i)
    if i.klass == K_INTEGER:
        n = emit_integer(i, u)
    elif i.klass == K_SYSTEM:
        n = emit_system(i, u)
    elif i.klass == K_FPU:
        n = emit_fpu(i, u)
    elif i.klass == K_VEX:
        n = emit_vex(i, u)
    if n <= 0:
        blank(u, i)
        u.fn = op_undefined
        i.ends = ENDS_JUMP
        n = 1
    return n


cdef u32 gather(Scratch *s, const u8 *bytes, u32 avail, u32 off, u32 mode, u32 most, int *failure) noexcept nogil:
    """Decode up to `most` instructions into `insns`; how many. `failure`: why there is not another."""
    cdef u32 count = 0, at = 0
    cdef int size
    failure[0] = 1
    while count < most:
        size = decode(bytes + at, avail - at, mode, <u16>(off + at), &s.insns[count])
        if size <= 0:
            failure[0] = size
            return count
        s.insns[count].bytes = bytes + at
        s.insns[count].features = s.features
        at += size
        count += 1
        if s.insns[count - 1].klass == K_INVALID or s.insns[count - 1].ends == ENDS_JUMP or (
            s.insns[count - 1].ends == ENDS_COND
        ):
            return count
    return count


cdef bint leads(const Insn *i, i64 *target) noexcept nogil:
    """The instruction is a direct near branch (jmp, call, jcc, loop); its target as an offset from the page's start."""
    target[0] = <i64>i.off + i.len + i.imm
    if i.klass != K_INTEGER or (i.osize == 2 and not i.mode & MODE_64):
        return False
    if i.map == MAP_0F:
        return 0x80 <= i.op <= 0x8F
    return i.map == MAP_ONE and (0x70 <= i.op <= 0x7F or 0xE0 <= i.op <= 0xE3 or 0xE8 <= i.op <= 0xE9 or i.op == 0xEB)


cdef u32 wanted(Scratch *s, const u8 *page, i64 at, u32 mode, u32 open, u32 depth) noexcept nogil:
    """Which of the flags in `open` the code at offset `at` of the page may read before it writes them."""
    cdef Insn *i = &s.ahead
    cdef u32 read = 0
    cdef i64 target = 0
    while open and 0 <= at < 4096 and s.left:
        s.left -= 1
        if decode(page + at, <u32>(4096 - at), mode, <u16>at, i) <= 0 or i.klass == K_INVALID:
            break
        s.low = <u32>at if at < s.low else s.low
        at += i.len
        s.high = <u32>at if at > s.high else s.high
        read |= open & i.reads
        open &= ~(i.reads | i.writes)
        if i.ends == ENDS_NOT:
            continue
        if depth == 0 or not leads(i, &target):
            break
        if i.ends == ENDS_COND:
            read |= wanted(s, page, at, mode, open & ~read, depth - 1)
        at = target
        depth -= 1
    return read | open


cdef u32 flow(Scratch *s, u32 count, const u8 *page) noexcept nogil:
    """Which flags somebody reads, from the last instruction to the first; those read behind the block.

    `page` NULL: those behind read all.
    """
    cdef u32 live = F_STATUS, behind, n
    cdef Insn *last = &s.insns[count - 1]
    cdef u32 mode = last.mode, after = <u32>last.off + last.len
    cdef i64 target = 0
    s.low, s.high, s.left = s.insns[0].off, after, FAR
    if page != NULL and not mode & MODE_STEP and mode & MODE_BITS != MODE_16:
        if last.ends == ENDS_NOT:
            live = wanted(s, page, after, mode, F_STATUS, DEEP)
        elif leads(last, &target):
            live = wanted(s, page, target, mode, F_STATUS, DEEP)
            if last.ends == ENDS_COND:
                live |= wanted(s, page, after, mode, F_STATUS & ~live, DEEP)
    behind = live
    for n in range(count, 0, -1):
        s.insns[n - 1].live = s.insns[n - 1].writes & live
        live = (live & ~s.insns[n - 1].writes) | s.insns[n - 1].reads
    if last.ends == ENDS_COND:
        last.live = behind
    return behind


cdef void place(Uop *u, Handler fn, const Insn *i, i64 imm) noexcept nogil:
    memset(u, 0, sizeof(Uop))
    u.fn = fn
    u.imm = imm
    u.off = i.off


cdef u32 produce(Scratch *s, u32 *count, u32 *size, Guest *g, bint threads) noexcept nogil:
    """Operations of s.insns[0 … count - 1] into `draft`; how many. Cuts `count` where an emitter ends the block.

    `g`: with places for translated code, or NULL.
    """
    cdef u32 n = 0, used = 0
    cdef int made
    cdef Insn *last = NULL
    if g != NULL:
        place(s.draft, op_count, s.insns, g.hot)
        used = 1
    while n < count[0]:
        if g != NULL and n and not translates(last):
            place(s.draft + used, op_mark, &s.insns[n], 0)
            used += 1
        last = &s.insns[n]
        if n + 1 < count[0] and s.insns[n + 1].ends == ENDS_COND and s.insns[n + 1].klass == K_INTEGER and last.klass == K_INTEGER and (
            not threads or not locks(last)
        ):
            blank(s.draft + used, last)
            made = emit_fused(last, last + 1, s.draft + used)
            if made > 0:
                used += made
                n += 2
                last = &s.insns[n - 1]
                continue
        used += emit(last, s.draft + used, threads)
        n += 1
        if last.ends == ENDS_JUMP:
            break
    count[0] = n
    size[0] = last.off + last.len - s.insns[0].off
    if last.ends == ENDS_NOT:
        memset(s.draft + used, 0, 2 * sizeof(Uop))
        s.draft[used].fn = op_end
        s.draft[used].imm = <i64>last.off + last.len
        s.draft[used].off = last.off
        s.draft[used].len = last.len
        used += 2
    return used


cdef Block *keep(Cpu *c, u8 *host, u64 phys, u32 mode, u32 count, u32 used, const u8 *bytes) noexcept nogil:
    """A block of `draft`, found again by host address and mode. `bytes`: the page as it was decoded. NULL: cannot be kept."""
    cdef Guest *g = <Guest *>c.guest
    cdef Scratch *s = <Scratch *>c.scratch
    cdef bint threads = g.world.threads
    cdef Block *block
    cdef u32 at
    if g.used + sizeof(Block) + used * sizeof(Uop) > g.size:
        forget_all(g)
        if not threads and note_code(c, phys, host):
            return NULL
    block = <Block *>(g.arena + g.used)
    g.used += sizeof(Block) + used * sizeof(Uop)
    memcpy(code_of(block), s.draft, used * sizeof(Uop))
    block.host = <u64>host
    block.mode = mode
    block.count = <u16>count
    block.uops = <u16>used
    block.low, block.high = <u16>s.low, <u16>s.high
    if threads:
        block.digest = digest(bytes + block.low, block.high - block.low)
    block.dead = 0
    block.linked = s.draft[used - 1].fn == NULL
    if block.linked:
        memset(&code_of(block)[used - 1], 0, sizeof(Link))
    block.places = NULL
    block.native = g.cold
    at = bucket(block.host)
    block.next = g.buckets[at]
    g.buckets[at] = block
    at = page_bucket(block.host & ~<u64>0xFFF)
    block.page_next = g.pages[at]
    g.pages[at] = block
    c.builds += 1
    return block


cdef Block *build(Cpu *c, u8 *host, u64 phys, u32 mode) noexcept nogil:
    """Decode at `host`. NULL: the first instruction does not fit the page."""
    cdef Guest *g = <Guest *>c.guest
    cdef Scratch *s = <Scratch *>c.scratch
    cdef u32 off = <u32>(<u64>host & 0xFFF), count, size = 0, used
    cdef int failure = 0
    cdef bint threads = g.world.threads
    cdef const u8 *bytes = host
    if threads:                             # others may write there: all looks are at the same bytes
        memcpy(s.page, host - off, 4096)
        bytes = s.page + off
    s.features = c.features
    count = gather(s, bytes, 4096 - off, off, mode, 1 if mode & MODE_STEP else MOST, &failure)
    if count == 0:
        return NULL
    flow(s, count, bytes - off)
    used = produce(
        s, &count, &size, g if g.native_write != NULL and translatable(mode) else NULL, threads
    )
    return keep(c, host, phys, mode, count, used, bytes - off)


cdef Block *build_apart(Cpu *c, u64 linear, u8 *host, u64 phys, u32 mode, bint kept) noexcept nogil:
    """A block of one instruction that lies in two pages, or not in plain memory. NULL: an exception is noted.

    `kept`: writes into the first page are seen, so that it may be kept.
    """
    cdef Scratch *s = <Scratch *>c.scratch
    cdef u32 off = <u32>(linear & 0xFFF), n, first = 4096 - off, count = 1, size = 0
    cdef u64 there = 0
    cdef u8 *page2 = NULL
    cdef Guest *g = <Guest *>c.guest
    cdef Block *block
    cdef int made
    if first > LONGEST:
        first = LONGEST
    for n in range(first):
        s.bytes[n] = host[n] if host != NULL else <u8>c.hooks.phys_load(c, phys + n, 1)
    made = decode(s.bytes, first, mode, <u16>off, &s.insns[0])
    if made == 0 and first < LONGEST:
        if translate(c, next_page(c, linear), ACCESS_FETCH, c.cpl == 3, &page2, &there):
            return NULL
        for n in range(first, LONGEST):
            s.bytes[n] = page2[n - first] if page2 != NULL else <u8>c.hooks.phys_load(c, there + n - first, 1)
        made = decode(s.bytes, LONGEST, mode, <u16>off, &s.insns[0])
    s.insns[0].bytes = s.bytes
    if made <= 0:
        s.insns[0].off = <u16>off
        s.insns[0].len = 1
        blank(s.draft, &s.insns[0])
        s.draft[0].fn = op_too_long
        n = 1
    else:
        flow(s, 1, NULL)
        n = produce(s, &count, &size, NULL, g.world.threads)
        if kept and page2 != NULL and 0 < made - <int>first <= COMPARED:
            memmove(s.draft + 1, s.draft, n * sizeof(Uop))
            place(s.draft, op_across, &s.insns[0], 0)
            s.draft[0].x = <u8>(made - first)
            memcpy(&s.draft[0].imm, s.bytes + first, made - first)
            s.high = 4096
            memcpy(s.page + off, s.bytes, first)
            take(g)
            block = keep(c, host, phys, mode, 1, n + 1, s.page)
            give(g)
            if block != NULL:
                return block
    memcpy(s.code, s.draft, n * sizeof(Uop))
    s.block.host = 0
    s.block.mode = mode
    s.block.count = 1
    s.block.uops = <u16>n
    s.block.low = s.block.high = 0
    return &s.block


cdef inline Block *known(Guest *g, u8 *host, u32 mode) noexcept nogil:
    """The block is the first of its bucket afterwards: what is looked for again is at hand."""
    cdef Block **first = &g.buckets[bucket(<u64>host)]
    cdef Block **link = first
    cdef Block *block = first[0]
    while block != NULL and (block.host != <u64>host or block.mode != mode):
        link = &block.next
        block = block.next
    if block != NULL and link != first:
        link[0] = block.next
        block.next = first[0]
        first[0] = block
    return block


cdef Block *find_block(Cpu *c) noexcept nogil:
    """The block at c.rip, RIPB set for it. NULL: an exception is noted. Links the branch that led here, if any."""
    cdef Guest *g = <Guest *>c.guest
    cdef u64 linear = c.rip, phys = 0
    cdef u8 *host = NULL
    cdef Block *block
    cdef Link *link = c.link
    cdef Block **place
    cdef Block *before = c.block
    cdef u32 mode = c.mode
    c.link = NULL
    c.lookups += 1
    if link == NULL and not c.shadow:
        block = at_hand(c, &c.regs[RIPB])
        if block != NULL and not block.dead:
            return block
    c.misses += 1
    if not mode & MODE_64:
        if c.rip > c.seg[CS].limit:
            raised(c, X_GP, 0, True)
            return NULL
        linear = (linear + c.regs[BASE + CS]) & <u64>0xFFFFFFFF
    if c.shadow:
        mode |= MODE_STEP
    if translate(c, linear, ACCESS_FETCH, c.cpl == 3, &host, &phys):
        return NULL
    c.regs[RIPB] = c.rip - (linear & 0xFFF)
    if host == NULL:
        return build_apart(c, linear, NULL, phys, mode, False)
    take(g)
    block = known(g, host, mode)
    if block == NULL:
        give(g)
        if note_code(c, phys, host):        # (its lock comes first)
            g.building = NULL
            return build_apart(c, linear, host, phys, mode, False)
        take(g)
        block = build(c, host, phys, mode)
        if block == NULL:
            give(g)
            block = build_apart(c, linear, host, phys, mode, not mode & MODE_STEP)
            g.building = NULL
            if block == NULL or block.host == 0:
                return block
            take(g)
        g.building = NULL
        if c.block == NULL:
            link = NULL             # everything was forgotten
    if link != NULL and before != NULL and before.mode == mode and not before.dead and (
        (before.host ^ block.host) < 4096
    ):
        place = &link.ways[c.link_fall]
        if place[0] == NULL:
            place[0] = block
            add_place(g, block, place)
            if block.native != g.cold:
                patch(g, place, block.native)
    if mode == c.mode:
        note_fetch(c, linear, host)
        keep_at_hand(g, block)
    give(g)
    return block
