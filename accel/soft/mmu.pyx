"""Paging, the TLB behind the handlers' fast path, and stores into memory whose code is cached.

The fast path (cpu.pxd) compares an address with the tag of one TLB entry; everything else comes here: misses, accesses
over the end of a page, devices, pages with cached code, watched addresses. A TLB entry is filled with only those
rights that need no further check: no write tag while the page is clean or holds code.

The walk is in paging.pyx, what lies at a physical address in physical.pyx, cached code and writes into it in code.pyx.

Ref: Intel SDM vol. 3, chapter 4 (paging), 17.2 (debug registers).
"""

from libc.string cimport memcpy, memset

from accel.soft.code cimport written
from accel.soft.paging cimport *
from accel.soft.pmu cimport recount
from accel.soft.physical cimport *
from accel.soft.segment cimport (
    CR0_PE, CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXSAVE, CR0_WP, CR0_AM, CR4_PSE, CR4_PAE, CR4_PGE, CR4_SMEP,
    CR4_SMAP, CR4_PKE, CR4_PKS, EFER_LMA, EFER_NXE,
)

cdef extern from *:
    """
    static inline int vr_cas(void *p, unsigned size, unsigned long long old, unsigned long long value)
    {
        unsigned char a = old; unsigned short b = old; unsigned c = old;
        switch (size) {
        case 1: return __atomic_compare_exchange_n((unsigned char *)p, &a, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        case 2: return __atomic_compare_exchange_n((unsigned short *)p, &b, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        case 4: return __atomic_compare_exchange_n((unsigned *)p, &c, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        default: return __atomic_compare_exchange_n((unsigned long long *)p, &old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        }
    }
    /* found: what was there */
    static inline int vr_cas16(void *p, unsigned long long *found, const unsigned long long *value)
    {
        unsigned char same;
        __asm__ volatile("lock cmpxchg16b %1; setz %0"
                         : "=q"(same), "+m"(*(unsigned __int128 *)p), "+a"(found[0]), "+d"(found[1])
                         : "b"(value[0]), "c"(value[1]) : "cc", "memory");
        return same;
    }
    """
    bint vr_cas(void *, u32, u64, u64) nogil
    bint vr_cas16(void *, u64 *, const u64 *) nogil

cdef u64 CR0_PG = <u64>1 << 31
cdef u64 PAGE = ~<u64>0xFFF
cdef u64 NEVER = ~<u64>0            # no page


# --- the TLB -------------------------------------------------------------------------------------------------------

cdef inline void drop(TlbEntry *tlb, u32 i) noexcept nogil:
    # Addresses with this index never lie in the page of another index.
    tlb[i].rtag = <u64>(i ^ 1) << 12
    tlb[i].wtag = tlb[i].rtag
    tlb[i].phys = 0


cdef inline void drop_victims(TlbEntry *tlb, bint globals_too, u64 page) noexcept nogil:
    """All of them, or those of a page (1: of all pages)."""
    cdef u32 i
    for i in range(TLB_SIZE, TLB_ALL):
        if (page & 1 or tlb[i].rtag == page) and (globals_too or not tlb[i].phys & TLB_GLOBAL):
            tlb[i].rtag = tlb[i].wtag = NEVER


cdef inline void put_by(Cpu *c, TlbEntry *tlb, u32 i) noexcept nogil:
    """Entry `i` is about to become another page's: pages that share a place take turns with those dropped last."""
    if (tlb[i].rtag >> 12) & (TLB_SIZE - 1) == i:
        tlb[TLB_SIZE + (c.fills & (VICTIMS - 1))] = tlb[i]


cdef inline bint recall(Cpu *c, TlbEntry *tlb, u32 i, u64 page) noexcept nogil:
    """Entry `i` becomes the page's again, if it is among those dropped last."""
    cdef u32 v
    cdef TlbEntry other
    for v in range(TLB_SIZE, TLB_ALL):
        if tlb[v].rtag != page:
            continue
        other, tlb[i] = tlb[i], tlb[v]
        if tlb[i].wtag != page or (<Guest *>c.guest).world.threads:     # (others may not have seen the tag on its way)
            tlb[i].wtag = <u64>(i ^ 1) << 12
        if (other.rtag >> 12) & (TLB_SIZE - 1) != i:
            other.rtag = other.wtag = NEVER
        tlb[v] = other
        return True
    return False


cdef inline void drop_code(ItlbEntry *itlb, u32 i) noexcept nogil:
    itlb[i].tag = <u64>(i ^ 1) << 12


cdef void note_fetch(Cpu *c, u64 linear, u8 *host) noexcept nogil:
    """Code at this linear address lies there: translate() has just said so."""
    cdef u32 t = c.cpl == 3, i = (linear >> 12) & (ITLB_SIZE - 1)
    cdef TlbEntry *e = &c.tlbs[t][(linear >> 12) & (TLB_SIZE - 1)]
    if e.rtag != linear & PAGE:
        return                  # the TLB does not keep it either (SMAP)
    c.itlbs[t][i].tag, c.itlbs[t][i].host = linear & PAGE, <u64>host & PAGE
    if not e.phys & TLB_GLOBAL:
        if c.itlb_count[t] < ITLB_FRESH:
            c.itlb_fresh[t][c.itlb_count[t]] = <u16>i
        c.itlb_count[t] += 1


cdef inline void writable_again(Cpu *c, TlbEntry *e, u32 i, Entry *entry) noexcept nogil:
    """A write tag for an entry whose page may be written, while it holds no code."""
    cdef Guest *g = <Guest *>c.guest
    cdef u8 *code
    cdef u64 number
    if entry == &g.near:
        code, number = g.near_code, (e.host - <u64>g.near_base) >> 12
    else:
        code, number = code_map(entry.block), (e.host - <u64>host_of(entry.block)) >> 12
    if code == NULL or code[number]:
        return
    e.wtag = e.rtag
    if g.world.threads:
        vr_fence()                          # whoever marks the page either is seen here or sees the tag
        if code[number]:
            e.wtag = <u64>(i ^ 1) << 12
            return
    mark(entry.block, number << 12, 1)


cdef int translate(Cpu *c, u64 linear, u32 access, bint user, u8 **host, u64 *phys) noexcept nogil:
    """To a physical address, and to the host's where plain memory may be accessed so (else NULL). Fills the TLB.

    What the kernel may do to a user's page between STAC and CLAC is kept in the user's TLB: it may do what the user may.
    """
    cdef u32 i = (linear >> 12) & (TLB_SIZE - 1), t = 1 if user else 0
    cdef TlbEntry *e = &c.tlbs[t][i]
    cdef Entry *entry
    cdef Walk found
    cdef u8 *page
    if e.rtag != linear & PAGE and not recall(c, c.tlbs[t], i, linear & PAGE) and not user and (
        access != ACCESS_FETCH and c.cr4 & CR4_SMAP and opened(c)
    ):
        e = &c.tlbs[1][i]
        if e.rtag != linear & PAGE:
            recall(c, c.tlbs[1], i, linear & PAGE)
    if e.rtag == linear & PAGE:
        if access == ACCESS_READ or (access == ACCESS_FETCH and e.phys & TLB_EXEC):
            host[0] = <u8 *>(e.host + (linear & 0xFFF))
            phys[0] = (e.phys & PAGE) | (linear & 0xFFF)
            return 0
        if access == ACCESS_WRITE and e.phys & TLB_WRITE:
            if e.wtag != e.rtag and plain(c, e.phys & PAGE, &entry) != NULL:
                writable_again(c, e, i, entry)
            host[0] = <u8 *>(e.host + (linear & 0xFFF))
            phys[0] = (e.phys & PAGE) | (linear & 0xFFF)
            return 0
    c.fills += 1
    if walk(c, linear, access, user, &found):
        return 1
    found.phys &= c.a20_mask
    phys[0] = found.phys | (linear & 0xFFF)
    page = plain(c, found.phys, &entry)
    host[0] = page + (linear & 0xFFF) if page != NULL else NULL
    if page == NULL or (access == ACCESS_WRITE and (entry.region != NULL or not entry.writable)):
        host[0] = NULL
        return 0
    if found.closed:
        return 0                # only fetches
    if not user and found.user and c.cr4 & CR4_SMAP:
        if access == ACCESS_FETCH or not c.cr0 & CR0_WP:
            return 0            # allowed now, but not for long, and not to the user
        t = 1
    e = &c.tlbs[t][i]
    if e.rtag != linear & PAGE:
        put_by(c, c.tlbs[t], i)
    e.rtag = linear & PAGE
    e.host = <u64>page
    e.phys = found.phys | (TLB_EXEC if found.executable else 0) | (TLB_GLOBAL if found.all_pages else 0)
    if found.level == 2:
        c.large[(linear >> 27) & 63] |= <u64>1 << ((linear >> 21) & 63)
    elif found.level == 3:
        c.huge |= <u64>1 << ((linear >> 30) & 63)
    if not found.all_pages:
        if c.fresh_count[t] < FRESH:
            c.fresh[t][c.fresh_count[t]] = <u16>i
        c.fresh_count[t] += 1
    e.wtag = <u64>(i ^ 1) << 12
    if found.writable and found.dirty and entry.region == NULL and entry.writable:
        e.phys |= TLB_WRITE
        writable_again(c, e, i, entry)
    return 0


cdef void flush(Cpu *c, bint globals_too) noexcept nogil:
    cdef u32 t, i, n
    for t in range(2):
        if globals_too or c.fresh_count[t] > FRESH:
            for i in range(TLB_SIZE):
                if globals_too or not c.tlbs[t][i].phys & TLB_GLOBAL:
                    drop(c.tlbs[t], i)
        else:
            for n in range(c.fresh_count[t]):
                i = c.fresh[t][n]
                if not c.tlbs[t][i].phys & TLB_GLOBAL:
                    drop(c.tlbs[t], i)
        c.fresh_count[t] = 0
        drop_victims(c.tlbs[t], globals_too, 1)
        if globals_too or c.itlb_count[t] > ITLB_FRESH:
            for i in range(ITLB_SIZE):
                drop_code(c.itlbs[t], i)
        else:
            for n in range(c.itlb_count[t]):
                drop_code(c.itlbs[t], c.itlb_fresh[t][n])
        c.itlb_count[t] = 0
    c.gen_walk += 1
    if globals_too:
        memset(c.large, 0, sizeof(c.large))
        c.huge = 0


cdef void flush_part(Cpu *c, u64 linear, u32 shift) noexcept nogil:
    """All that has these upper bits."""
    cdef u32 t, i, first = 0, count = TLB_SIZE
    if shift == 21:
        first, count = (linear >> 12) & (TLB_SIZE - 1) & ~<u32>511, 512
    for t in range(2):
        for i in range(first, first + count):
            if c.tlbs[t][i].rtag >> shift == linear >> shift:
                drop(c.tlbs[t], i)
        drop_victims(c.tlbs[t], True, 1)
        for i in range(ITLB_SIZE):
            if c.itlbs[t][i].tag >> shift == linear >> shift:
                drop_code(c.itlbs[t], i)


cdef void flush_page(Cpu *c, u64 linear) noexcept nogil:
    cdef u32 t, i = (linear >> 12) & (TLB_SIZE - 1), k = (linear >> 12) & (ITLB_SIZE - 1)
    for t in range(2):
        if c.tlbs[t][i].rtag == linear & PAGE:
            drop(c.tlbs[t], i)
        drop_victims(c.tlbs[t], True, linear & PAGE)
        if c.itlbs[t][k].tag == linear & PAGE:
            drop_code(c.itlbs[t], k)
    c.gen_walk += 1
    # One address stands for the whole of a great page, of which the TLB has parts.
    if c.huge >> ((linear >> 30) & 63) & 1:
        flush_part(c, linear, 30)
        return
    if c.large[(linear >> 27) & 63] >> ((linear >> 21) & 63) & 1:
        flush_part(c, linear, 21)


cdef bint whole(Cpu *c, u32 n, u32 kind) noexcept nogil:
    """4 GiB of code, or of data that may be written."""
    cdef Segment *s = &c.seg[n]
    return (
        s.limit == <u32>0xFFFFFFFF
        and s.ar & (AR_P | AR_S | AR_UNUSABLE | AR_CODE) == AR_P | AR_S | (kind & AR_CODE)
        and (kind & AR_CODE or s.ar & (AR_RW | AR_CE) == AR_RW)
    )


cdef inline bint flat(Cpu *c, u32 n, u32 kind) noexcept nogil:
    return c.regs[BASE + n] == 0 and whole(c, n, kind)


cdef void set_mode(Cpu *c) noexcept nogil:
    """c.mode and c.tlb from CS, SS, DS, ES, CPL, CR0, EFER, TF, AC, DR7; drops what paging bits made wrong."""
    cdef u32 mode, i
    cdef bint looks = False
    recount(c)
    if c.efer & EFER_LMA and c.seg[CS].ar & AR_L:
        mode = MODE_64 | MODE_STACK32
    else:
        mode = MODE_32 if c.seg[CS].ar & AR_DB else MODE_16
        if c.seg[SS].ar & AR_DB:
            mode |= MODE_STACK32
        if c.cr0 & CR0_PE and not c.eflags & F_VM and (
            flat(c, ES, 0) and flat(c, SS, 0) and flat(c, DS, 0) and flat(c, CS, AR_CODE)
        ):
            mode |= MODE_FLAT
            c.narrow = (not whole(c, FS, 0)) | (not whole(c, GS, 0)) << 1
    if c.cpl == 3:
        mode |= MODE_USER
        looks = c.eflags & F_AC and c.cr0 & CR0_AM
    if c.eflags & F_TF:
        mode |= MODE_STEP
    if c.host_step:
        mode |= MODE_STEP
    if (c.dr7 | c.host_dr7) & 0xFF:
        for i in range(4):
            if c.dr7 >> (2 * i) & 3:
                mode |= MODE_STEP
                if (c.dr7 >> (16 + 4 * i)) & 3:
                    looks = True
            if c.host_dr7 >> (2 * i) & 3:
                mode |= MODE_STEP
                if (c.host_dr7 >> (16 + 4 * i)) & 3:
                    looks = True
    c.mode = mode
    c.mode_key = block_key(0, mode)
    c.itlb = c.itlbs[c.cpl == 3]
    c.sse_trap = c.cr0 & (CR0_EM | CR0_TS) != 0 or not c.cr4 & CR4_OSFXSR
    c.vex_trap = (
        (0 if c.cr0 & CR0_PE and not c.eflags & F_VM else VEX_NONE)
        | (0 if c.cr4 & CR4_OSXSAVE and c.xcr0 & 6 == 6 else VEX_OFF)
        | (VEX_AWAY if c.cr0 & CR0_TS else 0)
    )
    c.tlb = c.tlbs[2 if looks else (1 if c.cpl == 3 else 0)]
    if (
        (c.cr0 ^ c.last_cr0) & (CR0_PG | CR0_WP | CR0_PE)
        or (c.cr4 ^ c.last_cr4) & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS)
        or (c.efer ^ c.last_efer) & (EFER_LMA | EFER_NXE)
    ):
        c.last_cr0, c.last_cr4, c.last_efer = c.cr0, c.cr4, c.efer
        flush(c, True)


# --- accesses that the fast path leaves ---------------------------------------------------------------------------------

cdef bint watching(Cpu *c) noexcept nogil:
    return c.tlb == c.tlbs[2]


cdef int check_alignment(Cpu *c, u64 ea, u32 size) noexcept nogil:
    if c.cpl == 3 and not c.implicit and c.eflags & F_AC and c.cr0 & CR0_AM and size <= 8 and ea & (size - 1):
        raised(c, X_AC, 0, True)
        return 1
    return 0


cdef u32 touched(const u64 *dr, u64 dr7, u64 ea, u32 size, bint write) noexcept nogil:
    """A bit for each point that an access to data touches."""
    cdef u32 i, kind, length, hits = 0
    cdef u64 start
    for i in range(4):
        if not dr7 >> (2 * i) & 3:
            continue
        kind = (dr7 >> (16 + 4 * i)) & 3
        length = (dr7 >> (18 + 4 * i)) & 3
        length = 8 if length == 2 else length + 1
        start = dr[i] & ~<u64>(length - 1)
        if (kind == 3 or (kind == 1 and write)) and ea < start + length and start < ea + size:
            hits |= <u32>1 << i
    return hits


cdef void note_watch(Cpu *c, u64 ea, u32 size, bint write) noexcept nogil:
    """Data breakpoints (DR7.RW 1: writes, 3: reads too) that this access touches, the guest's and the debugger's."""
    c.debug_hits |= touched(c.dr, c.dr7, ea, size, write)
    if c.host_dr7 & 0xFF:
        c.host_hits |= touched(c.host_dr, c.host_dr7, ea, size, write)


cdef int load(Cpu *c, u64 ea, u32 size, u64 *value) noexcept nogil:
    return any_load(c, ea, size, value, c.cpl == 3, ACCESS_READ)


cdef int load_rmw(Cpu *c, u64 ea, u32 size, u64 *value) noexcept nogil:
    return any_load(c, ea, size, value, c.cpl == 3, ACCESS_WRITE)


cdef int sys_load(Cpu *c, u64 ea, u32 size, u64 *value) noexcept nogil:
    cdef int failed
    c.implicit = True
    failed = any_load(c, ea, size, value, False, ACCESS_READ)
    c.implicit = False
    return failed


cdef u64 read_part(Cpu *c, u8 *host, u64 phys, u32 size) noexcept nogil:
    cdef u64 value = 0
    cdef u32 i
    if host != NULL:
        if size == 8:
            value = (<u64 *>host)[0]
        elif size == 4:
            value = (<u32 *>host)[0]
        elif size == 2:
            value = (<u16 *>host)[0]
        else:
            memcpy(&value, host, size)
    elif size == 1 or size == 2 or size == 4 or size == 8:
        value = c.hooks.phys_load(c, phys, size)
    else:
        for i in range(size):
            value |= (c.hooks.phys_load(c, phys + i, 1) & 0xFF) << (8 * i)
    return value


cdef inline bint both_at_hand(
    Cpu *c, u64 ea, u64 part, u32 first, u32 rest, bint write, u8 **host, u8 **host2
) noexcept nogil:
    """The two parts of an access over a page's end, where the TLB allows both."""
    if c.implicit:                          # the TLB is CPL's
        return False
    host[0] = writable(c, ea, first) if write else readable(c, ea, first)
    host2[0] = writable(c, part, rest) if write else readable(c, part, rest)
    return host[0] != NULL and host2[0] != NULL


cdef int any_load(Cpu *c, u64 ea, u32 size, u64 *value, bint user, u32 access) noexcept nogil:
    cdef u8 *host
    cdef u8 *host2
    cdef u64 phys, phys2, part
    cdef u32 first
    c.slow += 1
    if not (c.efer & EFER_LMA):
        ea &= <u64>0xFFFFFFFF
    if watching(c):
        if check_alignment(c, ea, size):
            return 1
        note_watch(c, ea, size, access == ACCESS_WRITE)
    if (ea & 0xFFF) + size <= 4096:
        if translate(c, ea, access, user, &host, &phys):
            return 1
        if host == NULL and access == ACCESS_WRITE:     # a device, a ROM, a page with code
            if translate(c, ea, ACCESS_READ, user, &host, &phys):
                return 1
        if host != NULL and size == 8:
            value[0] = (<u64 *>host)[0]
        else:
            value[0] = read_part(c, host, phys, size)
        if c.locked:
            c.lock_old = value[0]
        return 0
    if c.locked and (<Guest *>c.guest).alone != 2:
        (<Guest *>c.guest).alone = 1            # no instruction of the host's is atomic there: begin anew, alone
        c.stop = STOP_NEXT
        return 1
    first = 4096 - <u32>(ea & 0xFFF)
    part = ea + first
    if not (c.efer & EFER_LMA):
        part &= <u64>0xFFFFFFFF
    if both_at_hand(c, ea, part, first, size - first, access == ACCESS_WRITE, &host, &host2):
        value[0] = 0
        memcpy(value, host, first)
        memcpy(<u8 *>value + first, host2, size - first)
        return 0
    if translate(c, ea, access, user, &host, &phys) or translate(c, part, access, user, &host2, &phys2):
        return 1
    if access == ACCESS_WRITE:
        if translate(c, ea, ACCESS_READ, user, &host, &phys) or translate(c, part, ACCESS_READ, user, &host2, &phys2):
            return 1
    value[0] = read_part(c, host, phys, first) | (read_part(c, host2, phys2, size - first) << (8 * first))
    return 0


cdef int store(Cpu *c, u64 ea, u32 size, u64 value) noexcept nogil:
    return any_store(c, ea, size, value, c.cpl == 3)


cdef int sys_store(Cpu *c, u64 ea, u32 size, u64 value) noexcept nogil:
    cdef int failed
    c.implicit = True
    failed = any_store(c, ea, size, value, False)
    c.implicit = False
    return failed


cdef inline void put_part(u8 *host, u32 size, const void *data) noexcept nogil:
    """In one piece, for others who look."""
    if size == 8:
        (<u64 *>host)[0] = (<u64 *>data)[0]
    elif size == 4:
        (<u32 *>host)[0] = (<u32 *>data)[0]
    elif size == 2:
        (<u16 *>host)[0] = (<u16 *>data)[0]
    elif size == 1:
        host[0] = (<u8 *>data)[0]
    else:
        memcpy(host, data, size)


cdef void write_part(Cpu *c, u64 phys, u32 size, const void *data) noexcept nogil:
    """Into memory, seeing to cached code; or to a device."""
    cdef Entry *entry
    cdef u8 *host = plain(c, phys, &entry)
    cdef u64 value = 0
    cdef u32 i
    if host != NULL and entry.writable and entry.region == NULL:
        put_part(host, size, data)
        written(c, entry, host, size)
    elif size == 1 or size == 2 or size == 4 or size == 8:
        memcpy(&value, data, size)
        c.hooks.phys_store(c, phys, size, value)
    else:
        for i in range(size):
            c.hooks.phys_store(c, phys + i, 1, (<u8 *>data)[i])


cdef int exchange(Cpu *c, u64 phys, u32 size, u64 value) noexcept nogil:
    """The store of an instruction with LOCK: if memory is what it was at its load. Not 0: the instruction begins anew."""
    cdef Entry *entry
    cdef u8 *host = plain(c, phys, &entry)
    if host == NULL or not entry.writable or entry.region != NULL:
        write_part(c, phys, size, &value)
        return 0
    if not vr_cas(host, size, c.lock_old, value):
        c.stop = STOP_NEXT
        return 1
    written(c, entry, host, size)
    return 0


cdef int exchange16(Cpu *c, u64 ea, u64 *found, const u64 *value) noexcept nogil:
    """cmpxchg16b on one page: 1 stored, 0 not, `found` is what was there. -1: an exception is noted, -2: not on memory."""
    cdef Entry *entry
    cdef u8 *host = NULL
    cdef u64 phys = 0
    cdef bint same
    if translate(c, ea, ACCESS_WRITE, c.cpl == 3, &host, &phys):
        return -1
    host = plain(c, phys, &entry)
    if host == NULL or not entry.writable or entry.region != NULL:
        return -2
    same = vr_cas16(host, found, value)
    written(c, entry, host, 16)
    return same


cdef int any_store(Cpu *c, u64 ea, u32 size, u64 value, bint user) noexcept nogil:
    cdef u8 *host
    cdef u8 *host2
    cdef u64 phys, phys2, part
    cdef u32 first
    c.slow += 1
    if not (c.efer & EFER_LMA):
        ea &= <u64>0xFFFFFFFF
    if watching(c):
        if check_alignment(c, ea, size):
            return 1
    if (ea & 0xFFF) + size <= 4096:
        if translate(c, ea, ACCESS_WRITE, user, &host, &phys):
            return 1
        if c.locked:
            if exchange(c, phys, size, value):
                return 1
        else:
            write_part(c, phys, size, &value)
    else:
        first = 4096 - <u32>(ea & 0xFFF)
        part = ea + first
        if not (c.efer & EFER_LMA):
            part &= <u64>0xFFFFFFFF
        if both_at_hand(c, ea, part, first, size - first, True, &host, &host2):
            memcpy(host, &value, first)
            memcpy(host2, <u8 *>&value + first, size - first)
            return 0
        if translate(c, ea, ACCESS_WRITE, user, &host, &phys) or translate(c, part, ACCESS_WRITE, user, &host2, &phys2):
            return 1
        write_part(c, phys, first, &value)
        write_part(c, phys2, size - first, <u8 *>&value + first)
    if watching(c):
        note_watch(c, ea, size, True)
    return 0


cdef int probe(Cpu *c, u64 ea, u32 size, bint write) noexcept nogil:
    cdef u8 *host
    cdef u64 phys
    cdef u32 access = ACCESS_WRITE if write else ACCESS_READ
    if translate(c, ea, access, c.cpl == 3, &host, &phys):
        return 1
    if (ea & 0xFFF) + size > 4096:
        return translate(c, (ea + size - 1) & PAGE, access, c.cpl == 3, &host, &phys)
    return 0


cdef int load_bytes(Cpu *c, u64 ea, u32 size, void *data) noexcept nogil:
    cdef u64 value = 0
    cdef u32 part
    cdef u8 *out = <u8 *>data
    cdef u8 *host
    if probe(c, ea, size, False):
        return 1
    while size:
        part = 4096 - <u32>(ea & 0xFFF)
        if part > size:
            part = size
        host = readable(c, ea, part)
        if host != NULL:
            memcpy(out, host, part)
        else:
            part = 8 if part >= 8 else (4 if part >= 4 else 1)
            if any_load(c, ea, part, &value, c.cpl == 3, ACCESS_READ):
                return 1
            memcpy(out, &value, part)
        out += part
        ea += part
        size -= part
    return 0


cdef int store_bytes(Cpu *c, u64 ea, u32 size, const void *data) noexcept nogil:
    cdef u64 value
    cdef u32 part
    cdef const u8 *source = <const u8 *>data
    cdef u8 *host
    if probe(c, ea, size, True):
        return 1
    while size:
        part = 4096 - <u32>(ea & 0xFFF)
        if part > size:
            part = size
        host = writable(c, ea, part)
        if host != NULL:
            memcpy(host, source, part)
        else:
            part = 8 if part >= 8 else (4 if part >= 4 else 1)
            value = 0
            memcpy(&value, source, part)
            if any_store(c, ea, part, value, c.cpl == 3):
                return 1
        source += part
        ea += part
        size -= part
    return 0


cdef void install(Cpu *c) noexcept nogil:
    c.memory.load = load
    c.memory.load_rmw = load_rmw
    c.memory.store = store
    c.memory.load_bytes = load_bytes
    c.memory.store_bytes = store_bytes
    c.memory.probe = probe
    c.memory.sys_load = sys_load
    c.memory.sys_store = sys_store
    c.memory.flush = flush
    c.memory.flush_page = flush_page
    c.memory.set_mode = set_mode
    c.exchange16 = exchange16
    c.last_cr0 = ~<u64>0
    c.gen_walk = 1
    cdef u32 i
    for i in range(TLB_SIZE):
        drop(c.tlbs[2], i)
    flush(c, True)
