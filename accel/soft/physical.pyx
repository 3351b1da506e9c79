"""Physical memory as the processors reach it: which host memory lies at an address, and what its block keeps of code.

Borrowed pointers all of it: calls through them take no reference and no GIL.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from accel.ram cimport RamBlock
from accel.space cimport AddressSpace

cdef u64 PAGE = ~<u64>0xFFF


cdef u8 *code_map(void *block) noexcept nogil:
    """A byte for each page of a RamBlock, CODE_…; NULL: no memory for it."""
    return (<RamBlock>block).code if (<RamBlock>block).code != NULL or (<RamBlock>block).watch_code() == 0 else NULL


cdef u8 *host_of(void *block) noexcept nogil:
    return (<RamBlock>block).host


cdef u64 pages_of(void *block) noexcept nogil:
    return (<RamBlock>block).size >> 12


cdef u64 writes_of(void *block) noexcept nogil:
    """How often bus masters wrote into cached code."""
    return (<RamBlock>block).code_writes


cdef void mark(void *block, u64 offset, u64 size) noexcept nogil:
    """A processor wrote there."""
    if (<RamBlock>block).logging:
        (<RamBlock>block).mark_dirty(offset, size)


ctypedef struct AddressSpaceTable:
    Entry *entries
    u32 count


cdef void space_table(AddressSpace space, AddressSpaceTable *out) noexcept nogil:
    out.entries = space.table
    out.count = space.entries


cdef Entry *layout(World *w, u32 *count) noexcept nogil:
    """All ranges of memory, `count` of them."""
    cdef AddressSpaceTable table
    if w.threads:
        count[0] = w.map_count
        return w.map
    space_table(<AddressSpace>w.memory, &table)
    count[0] = table.count
    return table.entries


cdef int keep_layout(World *w) noexcept nogil:
    """It has changed, and no processor is inside. -1: no memory for it."""
    cdef AddressSpaceTable table
    cdef Entry *copy
    if not w.threads:
        return 0
    space_table(<AddressSpace>w.memory, &table)
    copy = <Entry *>calloc(table.count + 1, sizeof(Entry))
    if copy == NULL:
        return -1
    memcpy(copy, table.entries, table.count * sizeof(Entry))
    free(w.map)
    w.map, w.map_count = copy, table.count
    return 0


cdef Entry *find(World *w, u64 phys) noexcept nogil:
    cdef u32 low = 0, high = w.map_count, middle
    if not w.threads:
        return (<AddressSpace>w.memory).find(phys)
    while low < high:
        middle = (low + high) // 2
        if phys < w.map[middle].start:
            high = middle
        elif phys > w.map[middle].last:
            low = middle + 1
        else:
            return &w.map[middle]
    return NULL


cdef u8 *plain(Cpu *c, u64 phys, Entry **found) noexcept nogil:
    """Host address of a physical one where plain memory is, for reading; `found` says what else it is."""
    cdef Guest *g = <Guest *>c.guest
    cdef Entry *entry = &g.near
    if unlikely((phys & PAGE) < entry.start or (phys | 0xFFF) > entry.last):
        entry = find(g.world, phys)
        if entry == NULL or entry.host == NULL or (phys & PAGE) < entry.start or (phys | 0xFFF) > entry.last:
            found[0] = entry
            return NULL
        if entry.writable and entry.region == NULL:
            g.near = entry[0]
            g.near_base, g.near_code = host_of(entry.block), code_map(entry.block)
            entry = &g.near
    found[0] = entry
    return entry.host + (phys - entry.start)
