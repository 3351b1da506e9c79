"""What of a qcow2 image is where: the tables of the disk's clusters, the counts of references, and places in the file.

A table is changed in its cache and written in the order that qcow2.pyx tells of. All but the opening is called with the
node's mutex held.
"""

from libc.errno cimport EAGAIN, EFBIG, EINVAL, EIO, ENOMEM
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import os

from vmrun.backends.block import qcow2_header as headers

from accel.threads cimport (
    PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP, pthread_cond_destroy, pthread_cond_init, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, pthread_rwlock_destroy, pthread_rwlock_init,
    pthread_rwlock_unlock, pthread_rwlock_wrlock, pthread_rwlockattr_init, pthread_rwlockattr_setkind_np,
    pthread_rwlockattr_t,
)

cdef extern from "<endian.h>" nogil:
    u64 be64toh(u64)
    u64 htobe64(u64)
    u32 be32toh(u32)
    u32 htobe32(u32)
    u16 be16toh(u16)
    u16 htobe16(u16)

from vmrun.backends.block.node cimport (
    EVENT_CLUSTER_ALLOC, EVENT_CLUSTER_FREE, EVENT_L1_UPDATE, EVENT_L2_LOAD, EVENT_L2_UPDATE, EVENT_REFBLOCK_LOAD,
    EVENT_REFBLOCK_UPDATE, EVENT_REFTABLE_UPDATE,
)
from vmrun.backends.block.qcow2_cache cimport (
    COPIED, LOW, OFFSET, PACKED, ZERO, get64, get_count, put64, put_count,
)

# as QEMU has them, where it does
FAULTS = {
    FAULT_L2: "L2 table offset {place} unaligned (L1 index: {index})",
    FAULT_CLUSTER: "Cluster allocation offset {place} unaligned (L2 offset: {table}, L2 index: {index})",
    FAULT_DATA: "Data cluster offset {place} unaligned (guest offset: {index})",
    FAULT_REFBLOCK: "Refblock offset {place} unaligned (reftable index: {index})",
    FAULT_SUBCLUSTERS: "Invalid subcluster bitmap of the cluster at guest offset {place}",
    FAULT_COUNT: "Cluster at {place} is in use and not counted",
}
OVERLAPS = ("qcow2_header", "active L1 table", "active L2 table", "refcount table", "refcount block")
cdef u64 L2_CACHE = 32 << 20
cdef u64 BLOCK_CACHE = 8 << 20
cdef u64 MOST_REFTABLE = 8 << 20


cdef class Qcow2Tables(Node):
    """An open image without its contents. `header` was parsed of `file`; `backing` and `data` are open, or None."""

    def __cinit__(self, *args, **kwargs):
        cdef pthread_rwlockattr_t attr
        pthread_mutex_init(&self.mutex, NULL)
        pthread_mutex_init(&self.inflate_mutex, NULL)
        pthread_cond_init(&self.settled, NULL)
        pthread_rwlockattr_init(&attr)
        pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP)
        pthread_rwlock_init(&self.graph, &attr)

    def __init__(self, Node file, object header, Node backing=None, Node data=None, bint readonly=False):
        self.file, self.header, self.backing = file, header, backing
        self.external = data is not None
        self.hollow = -1
        self.data = data if data is not None else file
        self.driver, self.readonly = "qcow2", readonly
        self.version, self.size = header.version, header.size
        self.cluster_bits, self.cluster_size = header.cluster_bits, header.cluster_size
        self.ext = header.extended_l2
        self.entry_size = 16 if self.ext else 8
        self.l2_bits = self.cluster_bits - (4 if self.ext else 3)
        self.gran = self.cluster_size // 32 if self.ext else self.cluster_size
        self.refcount_order = header.refcount_order
        self.refblock_entries = self.cluster_size * 8 >> self.refcount_order
        self.most_refcount = ~<u64>0 if self.refcount_order == 6 else (<u64>1 << (1 << self.refcount_order)) - 1
        self.lazy = bool(header.compatible & headers.LAZY_REFCOUNTS) and self.version >= 3
        self.is_dirty = bool(header.incompatible & headers.DIRTY)
        self.zstd = header.compression_type == 1
        slice = min(self.cluster_size, 65536)
        needed = (header.l1_needed(self.size) << self.l2_bits) * self.entry_size // slice + 1
        self.l2 = MetaCache(slice, min(needed, L2_CACHE // slice))
        self.blocks = MetaCache(slice, BLOCK_CACHE // slice if self.cluster_size >= 65536 else 512)
        self.inflated = <u8 *>malloc(self.cluster_size)
        if self.inflated == NULL:
            raise MemoryError
        self._load_tables()
        self.snapshots = headers.parse_snapshots(header, file.read)

    def look_again(self, header):
        """Another program has written the image: nothing that is known of it holds."""
        free(self.inflated)
        self.inflated = NULL
        Qcow2Tables.__init__(self, self.file, header, self.backing, self.data if self.external else None, self.readonly)

    def _load_tables(self):
        """The L1 and the reference-count table, both bounded by the header's checks."""
        cdef u64 n
        header = self.header
        free(self.l1)
        free(self.reftable)
        self.l1 = self.reftable = NULL
        self.l1_size, self.l1_offset = header.l1_size, header.l1_table_offset
        self.l1 = <u64 *>calloc(self.l1_size + 1, 8)
        self.reftable_offset = header.refcount_table_offset
        self.reftable_size = header.refcount_table_clusters * self.cluster_size // 8
        self.reftable = <u64 *>calloc(self.reftable_size, 8)
        if self.l1 == NULL or self.reftable == NULL:
            raise MemoryError
        cdef int error
        with nogil:
            error = self.file.pread(self.l1, self.l1_size * 8, self.l1_offset)
            if error == 0:
                error = self.file.pread(self.reftable, self.reftable_size * 8, self.reftable_offset)
            for n in range(self.l1_size):
                self.l1[n] = be64toh(self.l1[n])
            for n in range(self.reftable_size):
                self.reftable[n] = be64toh(self.reftable[n])
        if error:
            raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        free(self.l1)
        free(self.reftable)
        free(self.freed)
        free(self.inflated)
        pthread_mutex_destroy(&self.mutex)
        pthread_mutex_destroy(&self.inflate_mutex)
        pthread_cond_destroy(&self.settled)
        pthread_rwlock_destroy(&self.graph)

    def update_header(self):
        """Write `header` anew, in one piece."""
        data = self.header.pack()
        self.file.write(0, data)

    def set_l1(self, u64 offset, u64 entries):
        """A longer L1 table is in the file, with what the old one has."""
        cdef u64 *grown = <u64 *>realloc(self.l1, (entries + 1) * 8)
        if grown == NULL:
            raise MemoryError
        if entries > self.l1_size:
            memset(grown + self.l1_size, 0, (entries - self.l1_size) * 8)
        self.l1, self.l1_offset, self.l1_size = grown, offset, entries

    def be_lazy(self, bint lazy):
        """Whether counts may be behind the tables while the dirty bit says so; with nothing under way."""
        self.lazy = lazy

    def stay_dirty(self, bint dirty):
        self.is_dirty = dirty

    cdef int header_field(self, u64 offset, const u8 *data, u64 size) noexcept nogil:
        cdef int error = self.file.pwrite(data, size, offset)
        return error if error else self.file.flush()

    cdef int corrupt(self, int kind, u64 place, u64 index=0, u64 table=0, u64 size=0) noexcept nogil:
        """The image cannot be trusted: said in its header, and nothing is read or written any more; one that is only read
        goes on where it can. The first is kept for take_fault(). EIO.
        """
        cdef u8 field[8]
        if not self.faulty:
            self.faulty = True
            self.fault.kind, self.fault.place, self.fault.index, self.fault.table = kind, place, index, table
            self.fault.size = size
        if not self.readonly and not self.broken:
            self.broken = True
            if self.version >= 3 and self.file.pread(field, 8, 72) == 0:
                field[7] |= 2
                self.header_field(72, field, 8)
                with gil:
                    self.header.incompatible |= headers.CORRUPT
        return EIO

    def take_fault(self):
        """(what is wrong, where a write would have gone or None, how long it is, whether nothing goes on), once; else None."""
        cdef int kind = self.fault.kind
        if kind == FAULT_NONE:
            return None
        self.fault.kind = FAULT_NONE
        place, index, table = (f"{value:#x}" if value else "0" for value in (
            self.fault.place, self.fault.index, self.fault.table))
        if kind >= FAULT_HEADER:
            text = f"Preventing invalid write on metadata (overlaps with {OVERLAPS[kind - FAULT_HEADER]})"
            return text, self.fault.place, self.fault.size, self.broken
        text = FAULTS[kind].format(place=place, index=index, table=table)
        return text, None, None, self.broken

    cdef int set_dirty(self) noexcept nogil:
        """Before the first reference that the counts do not know of."""
        cdef u8 field[8]
        cdef int error
        if not self.lazy or self.is_dirty:
            return 0
        error = self.file.pread(field, 8, 72)
        field[7] |= 1
        if error == 0:
            error = self.header_field(72, field, 8)
        if error == 0:
            self.is_dirty = True
            with gil:
                self.header.incompatible |= 1
        return error

    # --- tables through the caches; with the mutex -----------------------------------------------------------

    cdef int write_slots(self, MetaCache cache, int what) noexcept nogil:
        cdef u32 n
        cdef Slot *slot
        cdef int error
        if cache.dirty == 0:
            return 0
        for n in range(cache.count):
            slot = &cache.slots[n]
            if slot.high:
                self.file.event(what)
                slot.low &= ~<u32>511
                slot.high = (slot.high + 511) & ~<u32>511
                error = self.file.pwrite(slot.data + slot.low, slot.high - slot.low, slot.offset + slot.low)
                if error:
                    return error
                slot.low = slot.high = 0
                cache.dirty -= 1
        return 0

    cdef int flush_meta(self) noexcept nogil:
        """Counts, then tables: each in the file before the next is written."""
        cdef int error
        cdef bint ordered = not self.is_dirty
        if self.blocks.dirty and ordered:
            error = self.write_slots(self.blocks, EVENT_REFBLOCK_UPDATE)
            if error == 0 and self.l2.dirty:
                error = self.file.flush()
            if error:
                return error
        error = self.write_slots(self.l2, EVENT_L2_UPDATE)
        if error:
            return error
        if not ordered:
            error = self.write_slots(self.blocks, EVENT_REFBLOCK_UPDATE)
        return error

    cdef int apply_freed(self) noexcept nogil:
        """Count down what no table refers to any more; with `graph` exclusively, for a read under way may still look
        there.
        """
        cdef u32 n, count
        cdef int error = self.flush_meta()
        if error == 0 and self.freed_count and not self.is_dirty:
            error = self.file.flush()
        if error:
            return error
        count, self.freed_count = self.freed_count, 0
        for n in range(count):
            error = self.change_refcount(self.freed[n].offset >> self.cluster_bits, self.freed[n].count, -1, True)
            if error:
                return error
        return 0

    cdef int settle(self) noexcept nogil:
        cdef int error
        pthread_rwlock_wrlock(&self.graph)
        pthread_mutex_lock(&self.mutex)
        error = self.apply_freed()
        pthread_mutex_unlock(&self.mutex)
        pthread_rwlock_unlock(&self.graph)
        return error

    cdef int load(self, MetaCache cache, u64 offset, Slot **found, bint nowait) noexcept nogil:
        """The slice at `offset`, which is aligned to it."""
        cdef Slot *slot = cache.find(offset)
        cdef int error
        if slot == NULL:
            if nowait:
                return EAGAIN
            slot = cache.oldest()
            if slot.high:
                error = self.flush_meta()
                if error:
                    return error
                if cache.find(offset) != NULL:
                    found[0] = cache.find(offset)
                    return 0
                slot = cache.oldest()
                if slot.high:
                    error = self.write_slots(self.blocks, EVENT_REFBLOCK_UPDATE)
                    if error:
                        return error
            cache.unlink(slot)
            self.file.event(EVENT_L2_LOAD if cache is self.l2 else EVENT_REFBLOCK_LOAD)
            error = cache.place(slot, offset)
            if error == 0:
                error = self.file.pread(slot.data, cache.slice, offset)
            if error:
                cache.unlink(slot)
                return error
        found[0] = slot
        return 0

    cdef int find_l2(self, u64 offset, Slot **found, u32 *at, bint nowait) noexcept nogil:
        """The slice with the entry of the disk's `offset`, and the entry's place in it; NULL: there is no table."""
        cdef u64 index = offset >> (self.cluster_bits + self.l2_bits), table, place
        found[0] = NULL
        if index >= self.l1_size:
            return 0
        table = self.l1[index] & OFFSET
        if table == 0:
            return 0
        if table & (self.cluster_size - 1):
            return EAGAIN if nowait else self.corrupt(FAULT_L2, table, index)
        place = ((offset >> self.cluster_bits) & ((<u64>1 << self.l2_bits) - 1)) * self.entry_size
        at[0] = <u32>(place & (self.l2.slice - 1))
        return self.load(self.l2, table + (place & ~(self.l2.slice - 1)), found, nowait)

    cdef int write_l1(self, u64 index) noexcept nogil:
        """The sector of the table that has this entry."""
        cdef u64 sector[64]
        cdef u64 first = index & ~<u64>63, n, count = 64
        if first + count > self.l1_size:
            count = self.l1_size - first
        for n in range(count):
            sector[n] = htobe64(self.l1[first + n])
        self.file.event(EVENT_L1_UPDATE)
        return self.file.pwrite(sector, count * 8, self.l1_offset + first * 8)

    cdef int own_l2(self, u64 offset, Slot **found, u32 *at) noexcept nogil:
        """find_l2 for writing: makes a table, or a copy of one that a snapshot has too."""
        cdef u64 index = offset >> (self.cluster_bits + self.l2_bits), old, new = 0, got = 0
        cdef u8 *table
        cdef int error
        if index >= self.l1_size:
            return EIO
        if self.l1[index] & COPIED and self.l1[index] & OFFSET:
            return self.find_l2(offset, found, at, False)
        old = self.l1[index] & OFFSET
        if old & (self.cluster_size - 1):
            return self.corrupt(FAULT_L2, old, index)
        error = self.set_dirty()
        if error == 0:
            error = self.allocate(1, True, &new, &got)
        if error:
            return error
        table = <u8 *>calloc(1, self.cluster_size)
        if table == NULL:
            return ENOMEM
        error = self.flush_meta()
        if error == 0 and old:
            error = self.file.pread(table, self.cluster_size, old)
        if error == 0:
            self.l2.drop(new, self.cluster_size)
            error = self.file.pwrite(table, self.cluster_size, new)
        free(table)
        if error == 0:
            error = self.file.flush()
        if error:
            self.free_clusters(new, 1)
            return error
        self.l1[index] = new | COPIED
        error = self.write_l1(index)
        if error:
            self.l1[index] = old                    # the file may have either: the cluster is not given back
            return error
        if old:
            error = self.free_clusters(old, 1)
            if error:
                return error
        return self.find_l2(offset, found, at, False)

    # --- where things are; with the mutex ---------------------------------------------------------------------

    cdef bint placed(self, u64 entry) noexcept nogil:
        """Whether a cluster of the file belongs to it; in a file of its own, cluster 0 can."""
        if entry & PACKED:
            return False
        if self.external and entry & COPIED:
            return True
        return entry & OFFSET != 0

    cdef int kind(self, u64 entry, u64 bitmap, u32 sub) noexcept nogil:
        cdef bint placed = self.placed(entry)
        if entry & PACKED:
            return COMPRESSED
        if self.ext:
            if bitmap >> 32 >> sub & 1:
                return ZERO_ALLOCATED if placed else ZERO_PLAIN
            if bitmap >> sub & 1:
                return NORMAL
            return UNALLOCATED
        if entry & ZERO and self.version >= 3:
            return ZERO_ALLOCATED if placed else ZERO_PLAIN
        return NORMAL if placed else UNALLOCATED

    cdef int map(self, u64 offset, u64 bytes, Mapping *found, bint nowait, bint writing=False) noexcept nogil:
        """What the disk has at `offset`, and how far the same, within one slice of a table."""
        cdef Slot *slot
        cdef u32 at = 0, sub
        cdef int error, type
        cdef u64 entry, bitmap = 0, host, span, end, next_host = 0
        error = self.find_l2(offset, &slot, &at, nowait)
        if error:
            return error
        if slot == NULL:
            span = (<u64>1 << (self.cluster_bits + self.l2_bits))
            found.type, found.host, found.entry, found.copied = UNALLOCATED, 0, 0, False
            found.length = span - (offset & (span - 1))
            if found.length > bytes:
                found.length = bytes
            return 0
        entry = get64(slot.data + at)
        if self.ext:
            bitmap = get64(slot.data + at + 8)
            if bitmap >> 32 & bitmap & LOW or entry & PACKED and bitmap:
                return EAGAIN if nowait else self.corrupt(FAULT_SUBCLUSTERS, offset)
        sub = <u32>((offset & (self.cluster_size - 1)) // self.gran)
        found.entry, found.type = entry, self.kind(entry, bitmap, sub)
        found.copied = entry >> 63
        found.host = host = (entry & OFFSET) + (offset & (self.cluster_size - 1))
        if found.type in (NORMAL, ZERO_ALLOCATED) and entry & OFFSET & (self.cluster_size - 1):
            if nowait:
                return EAGAIN                           # who may wait comes upon it again
            if writing:
                return self.corrupt(FAULT_DATA, entry & OFFSET, offset)
            return self.corrupt(FAULT_CLUSTER, entry & OFFSET, (slot.offset + at & (self.cluster_size - 1)) // self.entry_size,
                                slot.offset & ~(self.cluster_size - 1))
        if self.ext and bitmap & LOW and not entry & OFFSET and not self.external:
            return EAGAIN if nowait else self.corrupt(FAULT_SUBCLUSTERS, offset)
        end = self.gran - (offset & (self.gran - 1))
        if found.type == COMPRESSED:
            end = self.cluster_size - (offset & (self.cluster_size - 1))
            found.length = end if end < bytes else bytes
            return 0
        while end < bytes:
            if self.ext and sub < 31:
                sub += 1
            else:
                sub = 0
                at += self.entry_size
                if at >= self.l2.slice:
                    break
                entry = get64(slot.data + at)
                if self.ext:
                    bitmap = get64(slot.data + at + 8)
                    if bitmap >> 32 & bitmap & LOW:
                        break
                next_host = entry & OFFSET
                if entry >> 63 != found.copied:
                    break
                if found.type in (NORMAL, ZERO_ALLOCATED) and next_host != host + end:
                    break
            type = self.kind(entry, bitmap, sub)
            if type != found.type:
                break
            end += self.gran
        found.length = end if end < bytes else bytes
        return 0

    # --- counts of references; with the mutex -----------------------------------------------------------------

    cdef int refcount_slot(self, u64 cluster, Slot **found, bint make) noexcept nogil:
        """The slice that has the cluster's count; NULL: there is no block, and `make` is not set."""
        cdef u64 index = cluster // self.refblock_entries, block, place
        cdef int error
        found[0] = NULL
        block = self.reftable[index] & ~<u64>511 if index < self.reftable_size else 0
        if block == 0:
            if not make:
                return 0
            error = self.new_refblock(index, cluster)
            if error:
                return error
            block = self.reftable[index] & ~<u64>511
        if block & (self.cluster_size - 1):
            return self.corrupt(FAULT_REFBLOCK, block, index)
        place = (cluster % self.refblock_entries << self.refcount_order) >> 3
        return self.load(self.blocks, block + (place & ~(self.blocks.slice - 1)), found, False)

    cdef int get_refcount(self, u64 cluster, u64 *count) noexcept nogil:
        cdef Slot *slot
        cdef int error = self.refcount_slot(cluster, &slot, False)
        count[0] = 0
        if error == 0 and slot != NULL:
            cluster &= (self.blocks.slice * 8 >> self.refcount_order) - 1
            count[0] = get_count(slot.data, cluster, self.refcount_order)
        return error

    cdef int change_refcount(self, u64 cluster, u64 count, int step, bint now) noexcept nogil:
        """One reference more or less of `count` clusters."""
        cdef Slot *slot
        cdef int error
        cdef u64 at, value, per = self.blocks.slice * 8 >> self.refcount_order
        cdef u32 low, width = 1 << (self.refcount_order - 3) if self.refcount_order > 3 else 1
        while count:
            error = self.refcount_slot(cluster, &slot, False)
            if error:
                return error
            if slot == NULL:
                return self.corrupt(FAULT_COUNT, cluster << self.cluster_bits)
            at = cluster & (per - 1)
            value = get_count(slot.data, at, self.refcount_order)
            if step < 0 and value == 0:
                return self.corrupt(FAULT_COUNT, cluster << self.cluster_bits)
            if step > 0 and value == self.most_refcount:
                return EINVAL
            value = value + 1 if step > 0 else value - 1
            put_count(slot.data, at, self.refcount_order, value)
            low = <u32>(at << self.refcount_order >> 3)
            self.blocks.mark(slot, low, low + width)
            if step < 0 and value == 0:
                self.file.event(EVENT_CLUSTER_FREE)
                if cluster < self.hint:
                    self.hint = cluster
                self.l2.drop(cluster << self.cluster_bits, self.cluster_size)
                self.blocks.drop(cluster << self.cluster_bits, self.cluster_size)
                if self.byte_hint >> self.cluster_bits == cluster:
                    self.byte_hint = 0
                self.fuzzy += 1
                self.inflated_entry = 0
                if self.passes_discards:
                    self.file.discard(cluster << self.cluster_bits, self.cluster_size)
            cluster += 1
            count -= 1
        return 0

    cdef int new_refblock(self, u64 index, u64 cluster) noexcept nogil:
        """A block of counts, in `cluster`, which is free: of its own range, then it counts itself, or of one before."""
        cdef u8 *block
        cdef u8 field[8]
        cdef u64 place = cluster << self.cluster_bits
        cdef int error
        if self.check_table(place, self.cluster_size) != 0:
            return EIO
        if index >= self.reftable_size:
            return self.grow_reftable(index, cluster)
        block = <u8 *>calloc(1, self.cluster_size)
        if block == NULL:
            return ENOMEM
        if cluster // self.refblock_entries == index:
            put_count(block, cluster % self.refblock_entries, self.refcount_order, 1)
        else:
            error = self.change_refcount(cluster, 1, 1, True)
            if error == 0:
                error = self.flush_meta()
            if error:
                free(block)
                return error
        self.blocks.drop(place, self.cluster_size)
        error = self.file.pwrite(block, self.cluster_size, place)
        free(block)
        if error == 0:
            error = self.file.flush()
        if error:
            return error
        put64(field, place)
        self.file.event(EVENT_REFTABLE_UPDATE)
        error = self.file.pwrite(field, 8, self.reftable_offset + index * 8)
        if error == 0:
            self.reftable[index] = place
        return error

    cdef int grow_reftable(self, u64 index, u64 cluster) noexcept nogil:
        """A longer table, at `cluster`, behind the blocks that count it and themselves."""
        cdef u64 entries = self.refblock_entries, wanted, clusters, blocks, first_block, n, end, old_offset, old_clusters
        cdef u8 *area
        cdef u64 *table
        cdef u8 field[12]
        cdef u32 short_count
        cdef int error
        wanted = index + 1 + index // 2
        clusters = (wanted * 8 + self.cluster_size - 1) >> self.cluster_bits
        if clusters * self.cluster_size > MOST_REFTABLE:
            return EFBIG
        first_block = cluster // entries
        blocks = 1
        while first_block + blocks < (cluster + blocks + clusters + entries - 1) // entries:
            blocks += 1
        if first_block + blocks > clusters * self.cluster_size // 8:
            clusters += 1
        if clusters * self.cluster_size > MOST_REFTABLE:
            return EFBIG
        end = cluster + blocks + clusters
        area = <u8 *>calloc(blocks + clusters, self.cluster_size)
        table = <u64 *>calloc(clusters * self.cluster_size, 1)
        if area == NULL or table == NULL:
            free(area)
            free(table)
            return ENOMEM
        memcpy(table, self.reftable, self.reftable_size * 8)
        for n in range(blocks):
            table[first_block + n] = (cluster + n) << self.cluster_bits
        for n in range(cluster, end):
            put_count(area + ((n // entries - first_block) << self.cluster_bits), n % entries, self.refcount_order, 1)
        for n in range(clusters * self.cluster_size // 8):
            put64(area + (blocks << self.cluster_bits) + n * 8, table[n])
        self.blocks.drop(cluster << self.cluster_bits, (blocks + clusters) << self.cluster_bits)
        error = self.file.pwrite(area, (blocks + clusters) << self.cluster_bits, cluster << self.cluster_bits)
        free(area)
        if error == 0:
            error = self.file.flush()
        if error == 0:
            put64(field, (cluster + blocks) << self.cluster_bits)
            short_count = htobe32(<u32>clusters)
            memcpy(field + 8, &short_count, 4)
            error = self.header_field(48, field, 12)
        if error:
            free(table)
            return error
        old_offset, old_clusters = self.reftable_offset, self.reftable_size * 8 >> self.cluster_bits
        free(self.reftable)
        self.reftable, self.reftable_size = table, clusters * self.cluster_size // 8
        self.reftable_offset = (cluster + blocks) << self.cluster_bits
        with gil:
            self.header.refcount_table_offset, self.header.refcount_table_clusters = self.reftable_offset, clusters
        return self.free_clusters(old_offset, old_clusters)

    cdef int allocate(self, u64 wanted, bint exactly, u64 *offset, u64 *got) noexcept nogil:
        """Free clusters next to each other, counted from now on: `wanted`, or fewer unless `exactly`."""
        cdef u64 at = self.hint, run = 0, first = 0, count, index
        cdef Slot *slot
        cdef int error
        self.file.event(EVENT_CLUSTER_ALLOC)
        while run < wanted:
            if at >> (63 - self.cluster_bits):
                return EFBIG
            index = at // self.refblock_entries
            if index >= self.reftable_size or self.reftable[index] & ~<u64>511 == 0:
                # Nothing is counted there yet: the block takes its first cluster, or the one behind what was found.
                if run and not exactly:
                    break
                if run and index < self.reftable_size:
                    error = self.new_refblock(index, first)
                    first += 1
                    run -= 1
                else:
                    error = self.new_refblock(index, at)
                    run = 0
                if error:
                    return error
                continue
            error = self.get_refcount(at, &count)
            if error:
                return error
            if count == 0:
                if run == 0:
                    first = at
                run += 1
            elif run and not exactly:
                break
            else:
                run = 0
            at += 1
        if self.check_table(first << self.cluster_bits, run << self.cluster_bits) != 0:
            return EIO
        error = self.change_refcount(first, run, 1, True)
        if error:
            return error
        if first <= self.hint or not exactly or wanted == 1:
            self.hint = first + run
        offset[0], got[0] = first << self.cluster_bits, run
        return 0

    cdef int allocate_bytes(self, u64 bytes, u64 *offset) noexcept nogil:
        """Room for compressed data, which share clusters."""
        cdef u64 place = 0, got = 0, count, within
        cdef int error
        within = self.byte_hint & (self.cluster_size - 1)
        if self.byte_hint and within:
            error = self.get_refcount(self.byte_hint >> self.cluster_bits, &count)
            if error:
                return error
            if count and count < self.most_refcount:
                if bytes <= self.cluster_size - within:
                    error = self.change_refcount(self.byte_hint >> self.cluster_bits, 1, 1, True)
                    if error:
                        return error
                    offset[0] = self.byte_hint
                    self.byte_hint += bytes
                    return 0
                # on into the next cluster, when that is free
                error = self.allocate(1, True, &place, &got)
                if error:
                    return error
                if place == (self.byte_hint & ~(self.cluster_size - 1)) + self.cluster_size:
                    error = self.change_refcount(self.byte_hint >> self.cluster_bits, 1, 1, True)
                    if error:
                        return error
                    offset[0] = self.byte_hint
                    self.byte_hint += bytes
                    return 0
                offset[0] = place
                self.byte_hint = place + bytes
                return 0
        error = self.allocate(1, True, &place, &got)
        offset[0] = place
        self.byte_hint = place + bytes
        return error

    cdef int free_clusters(self, u64 offset, u64 count) noexcept nogil:
        """One reference less, once the tables that referred are in the file without it."""
        cdef Freed *grown
        cdef u32 room
        if self.freed_count and self.freed[self.freed_count - 1].offset + (
            self.freed[self.freed_count - 1].count << self.cluster_bits) == offset:
            self.freed[self.freed_count - 1].count += count
            return 0
        if self.freed_count == self.freed_room:
            room = self.freed_room * 2 if self.freed_room else 256
            grown = <Freed *>realloc(self.freed, room * sizeof(Freed))
            if grown == NULL:
                return 0                                # a leak, which a check finds
            self.freed, self.freed_room = grown, room
        self.freed[self.freed_count].offset, self.freed[self.freed_count].count = offset, count
        self.freed_count += 1
        return 0

    cdef int free_entry(self, u64 entry) noexcept nogil:
        """What an L2 entry referred to."""
        cdef u32 shift
        cdef u64 first, last
        if entry & PACKED:
            shift = 62 - (self.cluster_bits - 8)
            first = entry & ((<u64>1 << shift) - 1)
            last = (first & ~<u64>511) + ((entry >> shift & ((<u64>1 << (self.cluster_bits - 8)) - 1)) + 1) * 512 - 1
            first >>= self.cluster_bits
            last >>= self.cluster_bits
            self.inflated_entry = 0
            self.fuzzy += 1
            return self.free_clusters(first << self.cluster_bits, last - first + 1)
        if self.external or entry & OFFSET == 0:
            return 0
        return self.free_clusters(entry & OFFSET & ~(self.cluster_size - 1), 1)

    cdef int check_data(self, u64 host, u64 bytes) noexcept nogil:
        """EIO when data would go over the header or a table: an image that says so is corrupt."""
        return 0 if self.external else self.check_table(host, bytes)

    cdef int check_table(self, u64 host, u64 bytes) noexcept nogil:
        cdef int over = self.overlap(host, bytes)
        return self.corrupt(over, host, 0, 0, bytes) if over else 0

    cdef int overlap(self, u64 host, u64 bytes) noexcept nogil:
        """FAULT_…: what there is already; 0: nothing."""
        cdef u64 end = host + bytes, n, place
        if host < self.cluster_size:
            return FAULT_HEADER
        if host < self.l1_offset + self.l1_size * 8 and end > self.l1_offset:
            return FAULT_OVER_L1
        for n in range(self.l1_size):
            place = self.l1[n] & OFFSET
            if place < end and place and place + self.cluster_size > host:
                return FAULT_OVER_L2
        if host < self.reftable_offset + self.reftable_size * 8 and end > self.reftable_offset:
            return FAULT_OVER_REFTABLE
        for n in range(self.reftable_size):
            place = self.reftable[n] & ~<u64>511
            if place < end and place and place + self.cluster_size > host:
                return FAULT_OVER_REFBLOCK
        return 0
