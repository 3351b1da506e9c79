"""Blocks whose code is written: by a processor, by another one, by a bus master.

A page that blocks were made of is marked in its RamBlock (RamBlock.code), and no TLB lets it be written without being
seen. When the last of its blocks is gone so is the mark.

Between threads one gap is left: a processor that has looked into its TLB and not yet stored, while another marks the
page and decodes it. So every processor compares, at the beginning of its next slice, the blocks of pages that were marked
meanwhile with the bytes that are there (`look_again`).
"""

from libc.string cimport memset

from accel.soft.paging cimport TLB_ALL
from accel.soft.physical cimport *

cdef u64 PAGE = ~<u64>0xFFF


cdef inline void take_world(World *w) noexcept nogil:
    if w.threads:
        vr_take_spin(&w.lock)


cdef inline void give_world(World *w) noexcept nogil:
    if w.threads:
        vr_give_spin(&w.lock)


cdef int note_code(Cpu *c, u64 phys, u8 *host) noexcept nogil:
    """The page of `host` holds cached code from now on: writes to it must be seen. -1: they cannot be.

    Before the code is read; Guest.building keeps the mark until the block is in its place.
    """
    cdef Entry *entry
    cdef u8 *page = plain(c, phys & PAGE, &entry)
    cdef Guest *g = <Guest *>c.guest
    cdef World *w = g.world
    cdef u8 *code
    cdef u32 m, n, t, i
    cdef Cpu *other
    cdef u64 number
    if page == NULL:
        return -1
    code = code_map(entry.block)
    if code == NULL:
        return -1
    number = <u64>(page - host_of(entry.block)) >> 12
    take_world(w)
    g.building = page
    if code[number]:                        # CODE_WRITTEN stays until it has been seen to
        give_world(w)
        return 0
    code[number] = 1
    if w.threads:
        vr_fence()
    for m in range(w.count):
        for n in range(w.guests[m].count):
            other = w.guests[m].cpus[n]
            for t in range(2):
                for i in range(TLB_ALL):
                    if other.tlbs[t][i].wtag == other.tlbs[t][i].rtag and (
                        <u8 *>other.tlbs[t][i].host == page
                    ):
                        other.tlbs[t][i].wtag = <u64>(i ^ 1) << 12
    if w.threads:
        w.recent[w.noted % RECENT] = page
        vr_fence()
        w.noted += 1
    give_world(w)
    return 0


cdef void resync(Cpu *c, Uop *u) noexcept nogil:
    """In place of the operations of a block whose code was written: look it, or the rest of it, up again."""
    c.rip = rip_of(c, u)
    c.stop = STOP_NEXT


cdef void kill(Guest *g, Block *block, Cpu *runs) noexcept nogil:
    cdef Block **link = &g.buckets[bucket(block.host)]
    cdef Block **place = block.places
    cdef Link *own
    cdef JumpEntry *e = &g.jcache[jump_slot(block.host)]
    cdef u32 i
    while link[0] != NULL and link[0] != block:
        link = &link[0].next
    if link[0] == block:
        link[0] = block.next
    block.dead = 1
    block.native = g.cold
    if block.linked:                    # its jumps are never patched again: other code may come to lie there
        own = <Link *>&code_of(block)[block.uops - 1]
        own.stub[0] = own.stub[1] = 0
    if e.key == block_key(block.host, block.mode):
        e.key = 0
    code_of(block).fn = resync          # others' links may still lead here
    if runs != NULL and runs.block == block:
        for i in range(<u32>block.uops - block.linked):
            code_of(block)[i].fn = resync
    block.places = NULL
    while place != NULL:
        place[0] = NULL
        unpatch(g, place)
        place = next_place(g, place)


cdef u32 forget_range(Guest *g, Cpu *runs, u8 *host, u64 size) noexcept nogil:
    """Blocks that overlap the bytes written are gone; `runs`: the processor that wrote them. How many are left."""
    cdef u64 page = <u64>host & PAGE
    cdef Block **link = &g.pages[page_bucket(page)]
    cdef Block *block
    cdef u32 left = 0
    while link[0] != NULL:
        block = link[0]
        if block.host & PAGE != page:
            link = &block.page_next
        elif page + block.low < <u64>host + size and <u64>host < page + block.high:
            link[0] = block.page_next
            kill(g, block, runs)
        else:
            left += 1
            link = &block.page_next
    return left


cdef void settle(World *w, u8 *code, u8 *page) noexcept nogil:
    """Nobody has blocks of the page, it seems: then it is like any other. `code`: its mark."""
    cdef u32 n, left = 0
    take_world(w)
    for n in range(w.count):
        take(w.guests[n])
        left += w.guests[n].building == page
        left += forget_range(w.guests[n], NULL, page, 0)
        give(w.guests[n])
    if not left and code[0] == 1:
        code[0] = 0
    give_world(w)


cdef void written(Cpu *c, Entry *entry, u8 *host, u64 size) noexcept nogil:
    """A processor stored these bytes of a page."""
    cdef Guest *g = <Guest *>c.guest
    cdef World *w = g.world
    cdef u64 number = <u64>(host - host_of(entry.block))
    cdef u8 *code = code_map(entry.block)
    cdef u32 n, left = 0
    mark(entry.block, number, size)
    if w.threads:
        vr_fence()                          # stored, before the mark is looked at
    if code == NULL or not code[number >> 12]:
        return
    for n in range(w.count):
        take(w.guests[n])
        left += forget_range(w.guests[n], c if w.guests[n] == g else NULL, host, size)
        give(w.guests[n])
    if not left:
        settle(w, code + (number >> 12), <u8 *>(<u64>host & PAGE))


cdef void forget_page(World *w, u8 *page) noexcept nogil:
    cdef u32 n
    for n in range(w.count):
        take(w.guests[n])
        forget_range(w.guests[n], NULL, page, 4096)
        give(w.guests[n])


cdef void forget_written(Guest *g) noexcept nogil:
    """Bus masters wrote to pages with code (RamBlock.code is 2 there)."""
    cdef World *w = g.world
    cdef u32 i, count = 0
    cdef Entry *entry
    cdef Entry *entries = layout(w, &count)
    cdef u8 *code
    cdef u64 number, writes = 0
    for i in range(count):
        if entries[i].block != NULL:
            writes += writes_of(entries[i].block)
    if writes == w.code_writes:
        return
    take_world(w)
    for i in range(count):
        entry = &entries[i]
        if entry.host == NULL or entry.block == NULL:
            continue
        code = code_map(entry.block)
        if code == NULL:
            continue
        for number in range(<u64>(entry.host - host_of(entry.block)) >> 12,
                            (<u64>(entry.host - host_of(entry.block)) + (entry.last - entry.start)) // 4096 + 1):
            if code[number] == 2:
                code[number] = 1
                if w.threads:
                    vr_fence()
                forget_page(w, host_of(entry.block) + (number << 12))
    w.code_writes = writes                  # only now: others wait until it is done
    give_world(w)


cdef u64 digest(const u8 *bytes, u32 count) noexcept nogil:
    cdef u64 value = count
    cdef u32 n
    for n in range(count):
        value = (value ^ bytes[n]) * <u64>0x100000001B3
    return value


cdef void compare(Guest *g, u8 *page) noexcept nogil:
    """Drop the blocks of a page (NULL: all) that are not what is there."""
    cdef Block **link
    cdef Block *block
    cdef u32 first = 0, end = PAGE_BUCKETS, n
    if page != NULL:
        first = page_bucket(<u64>page)
        end = first + 1
    for n in range(first, end):
        link = &g.pages[n]
        while link[0] != NULL:
            block = link[0]
            if digest(<u8 *>(block.host & PAGE) + block.low, block.high - block.low) != block.digest:
                link[0] = block.page_next
                kill(g, block, NULL)
            else:
                link = &block.page_next


cdef void look_again(Guest *g) noexcept nogil:
    """At the beginning of a slice: pages that were marked while this processor may have been about to write there."""
    cdef World *w = g.world
    cdef u64 noted = w.noted
    cdef u8 *page
    cdef u32 n
    if not w.threads or g.seen == noted:
        return
    if noted - g.seen > RECENT - 64:
        g.seen = noted
        for n in range(w.count):
            take(w.guests[n])
            compare(w.guests[n], NULL)
            give(w.guests[n])
        return
    while g.seen != noted:
        page = w.recent[g.seen % RECENT]
        g.seen += 1
        for n in range(w.count):
            take(w.guests[n])
            compare(w.guests[n], page)
            give(w.guests[n])


cdef void forget_blocks(Guest *g) noexcept nogil:
    cdef u32 n
    if g.used:                              # else the tables are empty, and mostly not even memory yet
        memset(g.buckets, 0, BUCKETS * sizeof(Block *))
        memset(g.pages, 0, PAGE_BUCKETS * sizeof(Block *))
        memset(g.jcache, 0, JCACHE_SIZE * sizeof(JumpEntry))
    g.used = 0
    g.native_used, g.apart_used = g.native_first, g.apart_first
    for n in range(g.count):
        g.cpus[n].block = NULL
        g.cpus[n].link = NULL


cdef void forget_marks(World *w) noexcept nogil:
    cdef u32 i, count = 0
    cdef u8 *code
    cdef Entry *entries = layout(w, &count)
    for i in range(count):
        if entries[i].host != NULL and entries[i].block != NULL:
            code = code_map(entries[i].block)
            if code != NULL:
                memset(code, 0, pages_of(entries[i].block))


cdef void forget_all(Guest *g) noexcept nogil:
    """The arena is full, or the layout of memory changed: begin anew. Its lock is held, or nobody runs."""
    if not g.world.threads:                 # else others may have blocks of the same pages
        forget_marks(g.world)
    g.near.start, g.near.last = 1, 0
    forget_blocks(g)


cdef void forget_world(World *w) noexcept nogil:
    """The layout of memory changed: all blocks of all processors are gone. They are outside."""
    cdef u32 n
    forget_marks(w)
    for n in range(w.count):
        w.guests[n].near.start, w.guests[n].near.last = 1, 0
        forget_blocks(w.guests[n])
