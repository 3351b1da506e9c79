"""The walk through page tables in memory, with 2, 3 and 4 levels: what may be accessed, or the page fault that it is.

Ref: Intel SDM vol. 3, chapter 4 (paging).
"""

from accel.soft.fpstate cimport pkru
from accel.soft.physical cimport *
from accel.soft.segment cimport (
    CR0_WP, CR4_PSE, CR4_PAE, CR4_PGE, CR4_SMEP, CR4_SMAP, CR4_PKE, CR4_PKS, EFER_LMA, EFER_NXE,
)

cdef extern from *:
    """
    static inline int vr_cas32(void *p, unsigned was, unsigned value)
    {
        return __atomic_compare_exchange_n((unsigned *)p, &was, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    bint vr_cas32(void *, u32, u32) nogil

cdef enum:
    PTE_P = 1
    PTE_W = 2
    PTE_U = 4
    PTE_A = 0x20
    PTE_D = 0x40
    PTE_PS = 0x80
    PTE_G = 0x100
    ERROR_P = 1
    ERROR_W = 2
    ERROR_U = 4
    ERROR_RSVD = 8
    ERROR_FETCH = 16
    ERROR_KEY = 32

cdef u64 CR0_PG = <u64>1 << 31
cdef u64 NX = <u64>1 << 63
cdef u64 PAGE = ~<u64>0xFFF


cdef u64 table_load(Cpu *c, u64 phys, u32 size) noexcept nogil:
    cdef Entry *entry
    cdef u8 *host = plain(c, phys, &entry)
    if host == NULL:
        return c.hooks.phys_load(c, phys, size)
    return (<u64 *>host)[0] if size == 8 else (<u32 *>host)[0]


cdef bint table_mark(Cpu *c, u64 phys, u32 was, u32 bits) noexcept nogil:
    """Set A and D, unless the entry is no longer what it was: False."""
    cdef Entry *entry
    cdef u8 *host = plain(c, phys, &entry)
    if host == NULL or not entry.writable:
        return True
    if not (<Guest *>c.guest).world.threads:
        (<u32 *>host)[0] |= bits
    elif not vr_cas32(host, was, was | bits):
        return False
    mark(entry.block, <u64>(host - host_of(entry.block)), 4)
    return True


cdef int page_fault(Cpu *c, u64 linear, u32 error, u32 access, bint user) noexcept nogil:
    if access == ACCESS_WRITE:
        error |= ERROR_W
    if user:
        error |= ERROR_U
    if access == ACCESS_FETCH and (c.efer & EFER_NXE and c.cr4 & CR4_PAE or c.cr4 & CR4_SMEP):
        error |= ERROR_FETCH
    c.cr2 = linear
    c.faults += 1
    raised(c, X_PF, error, True)
    return 1


cdef enum:
    AGAIN = 2               # from the root: what was remembered may be out of date

cdef inline int refuse(Cpu *c, u64 linear, u32 error, u32 access, bint user, bint remembered) noexcept nogil:
    return AGAIN if remembered else page_fault(c, linear, error, access, user)


cdef int walk_tables(Cpu *c, u64 linear, u32 access, bint user, Walk *out, bint remembered) noexcept nogil:
    """`remembered`: from the table where c.walked says that it ends."""
    cdef u64 entry = 0, at, rights = PTE_W | PTE_U, nx = 0, reserved
    cdef u64 table, last = 0
    cdef u64 places[4]
    cdef u32 lows[4]
    cdef u32 sizes = 8, level, shift, count = 0, end, i
    cdef u32 had = PTE_W | PTE_U
    cdef u64 had_nx = 0
    cdef u32 key = 0
    cdef bint barred = False
    cdef Walked *known = &c.walked[(linear >> 21) & (WALKED - 1)]
    cdef bint wide = c.cr4 & CR4_PAE
    out.executable = True
    out.all_pages = out.closed = False
    out.level = 1
    if not c.cr0 & CR0_PG:
        out.phys = linear & <u64>0xFFFFF000
        out.writable = True
        out.user = True
        out.dirty = True
        return 0
    reserved = ~c.phys_mask & ((<u64>1 << 52) - 1)
    if not c.efer & EFER_NXE:
        reserved |= NX
    if c.efer & EFER_LMA:
        if <u64>(<i64>(linear << 16) >> 16) != linear:
            raised(c, X_GP, 0, True)
            c.far_out, c.far_address = access != ACCESS_FETCH, linear
            return 1
        table = c.cr3 & c.phys_mask & PAGE
        level = 4
        if remembered:
            table, level, rights, nx = known.table, known.level, known.rights, known.nx
    elif wide:
        entry = c.pdpte[(linear >> 30) & 3]
        if not entry & PTE_P:
            return page_fault(c, linear, 0, access, user)
        table = entry & c.phys_mask & PAGE
        level = 2
    else:
        table = c.cr3 & <u64>0xFFFFF000
        level = 2
        sizes = 4
        reserved = 0
    while True:
        shift = (12 + 9 * (level - 1)) if sizes == 8 else (12 + 10 * (level - 1))
        at = table + ((linear >> shift) & (511 if sizes == 8 else 1023)) * sizes
        entry = table_load(c, at & c.a20_mask, sizes)
        if not entry & PTE_P:
            return refuse(c, linear, 0, access, user, remembered)
        if entry & reserved:
            return refuse(c, linear, ERROR_P | ERROR_RSVD, access, user, remembered)
        had, had_nx, last = <u32>rights, nx, table
        places[count] = at & c.a20_mask
        lows[count] = <u32>entry
        count += 1
        rights &= entry
        nx |= entry & NX
        if level == 1:
            table = entry & c.phys_mask & PAGE
            break
        if entry & PTE_PS and (level == 2 and (sizes == 8 or c.cr4 & CR4_PSE) or level == 3):
            if sizes == 4:      # PSE-36: bits 13-20 are bits 32-39 of the address
                table = (entry & <u64>0xFFC00000) | ((entry >> 13 & 0xFF) << 32)
                table = (table & c.phys_mask) | (linear & 0x3FF000)
            else:
                at = ((<u64>1 << shift) - 1) & PAGE
                if entry & at & ~<u64>0x1000:
                    return refuse(c, linear, ERROR_P | ERROR_RSVD, access, user, remembered)
                table = (entry & c.phys_mask & ~((<u64>1 << shift) - 1)) | (linear & at)
            break
        if level > 2 and entry & PTE_PS:
            return refuse(c, linear, ERROR_P | ERROR_RSVD, access, user, remembered)
        table = entry & c.phys_mask & PAGE
        level -= 1
    end = level
    out.level = 3 if level == 2 and sizes == 4 else level
    if not c.efer & EFER_NXE or sizes == 4:
        nx = 0
    out.user = (rights & PTE_U) != 0
    out.writable = (rights & PTE_W) != 0 or (not user and not c.cr0 & CR0_WP)
    out.executable = nx == 0 and not (not user and out.user and c.cr4 & CR4_SMEP)
    if c.efer & EFER_LMA and c.cr4 & (CR4_PKE if out.user else CR4_PKS) and (out.user or not user):
        key = (pkru(c)[0] if out.user else <u32>c.pkrs) >> (entry >> 58 & 30) & 3
        if not user and not c.cr0 & CR0_WP:
            key &= 1
        out.closed = key & 1
        barred = access != ACCESS_FETCH and out.closed or access == ACCESS_WRITE and key
        out.writable = out.writable and not key
    if (
        barred
        or (user and not out.user)
        or (access == ACCESS_WRITE and not out.writable)
        or (access == ACCESS_FETCH and not out.executable)
        or (not user and out.user and access != ACCESS_FETCH and c.cr4 & CR4_SMAP and not opened(c))
    ):
        return refuse(c, linear, ERROR_P | (ERROR_KEY if barred else 0), access, user, remembered)
    if c.efer & EFER_LMA and not remembered:
        known.gen, known.tag, known.table, known.level = c.gen_walk, linear >> 21, last, end
        known.rights, known.nx = had, had_nx
    for i in range(count):
        level = PTE_A | (PTE_D if i == count - 1 and access == ACCESS_WRITE else 0)
        if lows[i] & level != level:
            if not table_mark(c, places[i], lows[i], level):
                return AGAIN
    out.dirty = entry & PTE_D or access == ACCESS_WRITE
    out.all_pages = entry & PTE_G and c.cr4 & CR4_PGE
    out.phys = table
    return 0


cdef int walk(Cpu *c, u64 linear, u32 access, bint user, Walk *out) noexcept nogil:
    """Through the tables in memory; sets A and D. Not 0: #PF (or #GP for a non-canonical address) is noted."""
    cdef Walked *known = &c.walked[(linear >> 21) & (WALKED - 1)]
    cdef int result
    if known.gen == c.gen_walk and known.tag == linear >> 21:
        result = walk_tables(c, linear, access, user, out, True)
        if result != AGAIN:
            return result
        known.gen = 0
    result = AGAIN
    while result == AGAIN:                  # another processor changes the tables meanwhile
        result = walk_tables(c, linear, access, user, out, False)
    return result
