"""An open qcow2 image: its header, the two tables that are in memory whole, the caches of all others with the order in which
they reach the file, and what becomes of an image that contradicts itself.

A table is changed in its cache and written in the order that qcow2.pyx tells of. All but the opening is called with the
node's mutex held.
"""

from libc.errno cimport EAGAIN, EIO
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

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

from vmrun.backends.block.node cimport EVENT_L2_LOAD, EVENT_L2_UPDATE, EVENT_REFBLOCK_LOAD, EVENT_REFBLOCK_UPDATE
from vmrun.backends.block.qcow2_cache cimport OFFSET

# as QEMU has them, where it does
FAULTS = {
    FAULT_L2: "L2 table offset {place} unaligned (L1 index: {index})",
    FAULT_CLUSTER: "Cluster allocation offset {place} unaligned (L2 offset: {table}, L2 index: {index})",
    FAULT_DATA: "Data cluster offset {place} unaligned (guest offset: {index})",
    FAULT_REFBLOCK: "Refblock offset {place} unaligned (reftable index: {index})",
    FAULT_SUBCLUSTERS: "Invalid subcluster bitmap of the cluster at guest offset {place}",
    FAULT_ZERO: "Preallocated zero cluster offset {place} unaligned (guest offset: {index})",
    FAULT_FREE: "Cannot free unaligned cluster {place}",
    FAULT_COUNT: "Cluster at {place} is in use and not counted",
}
OVERLAPS = (
    "qcow2_header", "active L1 table", "active L2 table", "refcount table", "refcount block", "snapshot table",
    "inactive L1 table", "inactive L2 table", "bitmap directory",
)
cdef u64 L2_CACHE = 32 << 20
cdef u64 BLOCK_CACHE = 8 << 20
cdef u64 MOST_SPANNED = 1 << 20     # clusters of snapshots' and bitmaps' tables that are worth a sieve
cdef u64 ENOUGH = 512           # pieces that are enough for any image of some size, and for one that grows


cdef class Qcow2Image(Node):
    """An open image without its contents. `header` was parsed of `file`; `backing` and `data` are open, or None."""

    def __cinit__(self, *args, **kwargs):
        cdef pthread_rwlockattr_t attr
        pthread_mutex_init(&self.mutex, NULL)
        pthread_mutex_init(&self.inflate_mutex, NULL)
        pthread_cond_init(&self.settled, NULL)
        pthread_rwlockattr_init(&attr)
        pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP)
        pthread_rwlock_init(&self.graph, &attr)
        self.most_tables, self.most_counts = L2_CACHE, BLOCK_CACHE

    def __init__(self, Node file, object header, Node backing=None, Node data=None, bint readonly=False, bint checking=False):
        self.file, self.header, self.backing = file, header, backing
        self.external = data is not None
        self.hollow = -1
        self.found_size = file.size
        self.raw_external = bool(header.autoclear & headers.RAW_EXTERNAL)
        self.overlap_checks = headers.OVERLAP_CACHED
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
        self._make_caches()
        self.inflated = <u8 *>malloc(self.cluster_size)
        if self.inflated == NULL:
            raise MemoryError
        self._load_tables()
        self.snapshots = [] if checking else headers.parse_snapshots(header, file.read)  # a check reads them itself
        self.keep_off()

    def keep_off(self):
        """Where the tables of snapshots and bitmaps lie: nothing is written over them."""
        cdef u64 n = 0, clusters = 0
        cdef Span *spans
        header = self.header
        places = [(FAULT_OVER_SNAPSHOTS, header.snapshots_offset, header.snapshots_size)]
        places += [(FAULT_OVER_INACTIVE_L1, one.l1_table_offset, one.l1_size * 8) for one in self.snapshots if not one.fault]
        if header.bitmaps:
            places.append((FAULT_OVER_BITMAPS, header.bitmaps[2], header.bitmaps[1]))
        spans = <Span *>calloc(len(places), sizeof(Span))
        if spans == NULL:
            raise MemoryError
        for kind, start, size in places:
            if size:
                spans[n].kind, spans[n].start, spans[n].end = kind, start, start + size
                clusters += (spans[n].end - 1 >> self.cluster_bits) - (spans[n].start >> self.cluster_bits) + 1
                n += 1
        free(self.spans)
        self.spans, self.span_count, self.span_clusters = spans, n, clusters
        self.tables_changed()

    @property
    def unwritten(self):
        """Whether tables wait to be written."""
        return self.l2.dirty > 0 or self.blocks.dirty > 0

    def _make_caches(self):
        cdef u64 slice = min(self.cluster_size, <u64>65536), piece = self.piece or slice
        cdef u64 needed = (self.header.l1_needed(self.size) << self.l2_bits) * self.entry_size // piece + 1
        cdef u64 counts = ((self.file.size >> self.cluster_bits) << self.refcount_order >> 3) // slice + 1
        self.l2 = MetaCache(piece, min(max(needed, ENOUGH), self.most_tables // piece))
        self.blocks = MetaCache(slice, min(max(counts, ENOUGH), self.most_counts // slice))

    def bound(self, u64 tables, u64 counts, u64 piece):
        """How much is kept of the tables and of the counts, in bytes, and in what pieces of the tables (0: as it comes): as
        -blockdev says. OSError: what they had could not be written.
        """
        cdef int error
        with nogil:
            pthread_rwlock_wrlock(&self.graph)
            pthread_mutex_lock(&self.mutex)
            error = self.flush_meta()
            if error == 0:
                error = self.write_slots(self.blocks, EVENT_REFBLOCK_UPDATE)
        try:
            if error == 0:
                self.most_tables, self.most_counts, self.piece = tables, counts, piece
                self._make_caches()
        finally:
            pthread_mutex_unlock(&self.mutex)
            pthread_rwlock_unlock(&self.graph)
        if error:
            raise OSError(error, os.strerror(error))

    @property
    def kept(self):
        """(the most, now) bytes of tables, then of counts."""
        tables, counts = self.l2, self.blocks
        return (
            tables.count * tables.slice, tables.filled * tables.slice,
            counts.count * counts.slice, counts.filled * counts.slice,
        )

    def look_again(self, header):
        """Another program has written the image: nothing that is known of it holds. When it cannot be known anew, or is
        marked corrupt, nobody reads it.
        """
        checks = self.overlap_checks
        with nogil:
            pthread_rwlock_wrlock(&self.graph)
        try:
            self.broken = True
            self.l1_size = self.reftable_size = 0
            free(self.inflated)
            self.inflated = NULL
            self.inflated_entry = 0
            Qcow2Image.__init__(self, self.file, header, self.backing, self.data if self.external else None, self.readonly)
            self.overlap_checks = checks
            self.broken = bool(header.incompatible & headers.CORRUPT) and not self.readonly
        finally:
            pthread_rwlock_unlock(&self.graph)

    def _load_tables(self):
        """The L1 and the reference-count table, both bounded by the header's checks."""
        cdef u64 n
        header = self.header
        free(self.l1)
        free(self.reftable)
        self.l1 = self.reftable = NULL
        self.tables_changed()
        for what, start, size in (("L1", header.l1_table_offset, header.l1_size * 8),
                                  ("refcount", header.refcount_table_offset, header.refcount_table_clusters * self.cluster_size)):
            if size and start + size > headers.MOST_OFFSET:
                raise headers.QcowError(f"Could not read {what} table: Input/output error")
        self.l1_size, self.l1_offset = header.l1_size, header.l1_table_offset
        self.l1 = <u64 *>calloc(self.l1_size + 1, 8)
        self.reftable_offset = header.refcount_table_offset
        self.reftable_size = header.refcount_table_clusters * self.cluster_size // 8
        self.reftable = <u64 *>calloc(self.reftable_size, 8)
        if self.l1 == NULL or self.reftable == NULL:
            self.l1_size = self.reftable_size = 0
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
        free(self.sieve)
        free(self.spans)
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

    # --- tables through the caches; with the mutex -------------------------------------------------------------

    cdef int write_slots(self, MetaCache cache, int what) noexcept nogil:
        cdef u32 n
        cdef Slot *slot
        cdef int error
        if cache.dirty == 0:
            return 0
        for n in range(cache.filled):
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
                if cache.dirty == 0:
                    break
        return 0

    cdef int flush_meta(self) noexcept nogil:
        """Counts, then tables: each in the file before the next is written, unless the image is dirty, where a host that
        crashes may leave any of it; a program that is killed leaves the counts right in either case.
        """
        cdef int error
        if self.blocks.dirty:
            error = self.write_slots(self.blocks, EVENT_REFBLOCK_UPDATE)
            if error == 0 and self.l2.dirty and not self.is_dirty:
                error = self.file.flush()
            if error:
                return error
        return self.write_slots(self.l2, EVENT_L2_UPDATE)

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

    # --- what is wrong; with the mutex -------------------------------------------------------------------------

    cdef int corrupt(self, int kind, u64 place, u64 index=0, u64 table=0, u64 size=0) noexcept nogil:
        """The image cannot be trusted: said in its header, and nothing is read or written any more; one that is only read
        goes on where it can. The first is kept for take_fault(). EIO.
        """
        cdef u8 field[8]
        if not self.faulty or self.fault.kind == FAULT_NONE and not self.broken and not self.readonly and kind != FAULT_FREE:
            self.faulty = True
            self.fault.kind, self.fault.place, self.fault.index, self.fault.table = kind, place, index, table
            self.fault.size = size
        if not self.readonly and not self.broken and kind != FAULT_FREE:
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
        if FAULT_HEADER <= kind < FAULT_HEADER + len(OVERLAPS):
            text = f"Preventing invalid write on metadata (overlaps with {OVERLAPS[kind - FAULT_HEADER]})"
            return text, self.fault.place, self.fault.size, self.broken
        text = FAULTS[kind].format(place=place, index=index, table=table)
        return text, None, None, self.broken

    cdef int check_data(self, u64 host, u64 bytes) noexcept nogil:
        """EIO when data would go over the header or a table: an image that says so is corrupt."""
        return 0 if self.external else self.check_table(host, bytes)

    cdef int check_table(self, u64 host, u64 bytes) noexcept nogil:
        cdef int over = self.overlap(host, bytes)
        return self.corrupt(over, host, 0, 0, bytes) if over else 0

    cdef int overlap(self, u64 host, u64 bytes) noexcept nogil:
        """FAULT_…: what there is already, of what is to be checked; 0: nothing."""
        cdef u64 end = host + bytes, n, place
        cdef u32 checks = self.overlap_checks << FAULT_HEADER
        cdef bint near = self.has_table(host, end)
        if checks >> FAULT_HEADER & 1 and host < self.cluster_size:
            return FAULT_HEADER
        if checks >> FAULT_OVER_L1 & 1 and host < self.l1_offset + self.l1_size * 8 and end > self.l1_offset:
            return FAULT_OVER_L1
        if near and checks >> FAULT_OVER_L2 & 1:
            for n in range(self.l1_size):
                place = self.l1[n] & OFFSET
                if place < end and place and place + self.cluster_size > host:
                    return FAULT_OVER_L2
        if host < self.reftable_offset + self.reftable_size * 8 and end > self.reftable_offset:
            if checks >> FAULT_OVER_REFTABLE & 1:
                return FAULT_OVER_REFTABLE
        if near and checks >> FAULT_OVER_REFBLOCK & 1:
            for n in range(self.reftable_size):
                place = self.reftable[n] & ~<u64>511
                if place < end and place and place + self.cluster_size > host:
                    return FAULT_OVER_REFBLOCK
            for n in range(self.span_count):
                if checks >> self.spans[n].kind & 1 and self.spans[n].start < end and self.spans[n].end > host:
                    return self.spans[n].kind
        if checks >> FAULT_OVER_INACTIVE_L2 & 1 and self.over_inactive(host, end):
            return FAULT_OVER_INACTIVE_L2
        return 0

    cdef bint over_inactive(self, u64 host, u64 end) noexcept nogil:
        """Whether a snapshot's L2 table lies there: nobody but the file knows."""
        cdef u64 sector[64]
        cdef u64 n, m, at, step, place
        for n in range(self.span_count):
            at = self.spans[n].start
            while self.spans[n].kind == FAULT_OVER_INACTIVE_L1 and at < self.spans[n].end:
                step = self.spans[n].end - at
                if step > sizeof(sector):
                    step = sizeof(sector)
                if self.file.pread(sector, step, at):
                    break
                for m in range(step // 8):
                    place = be64toh(sector[m]) & OFFSET
                    if place < end and place and place + self.cluster_size > host:
                        return True
                at += step
        return False

    # Each write asks for what it goes over, and the tables of a large image are thousands: nearly always a bit says that
    # there is none.

    cdef bint has_table(self, u64 host, u64 end) noexcept nogil:
        """Whether a table that is in use may lie there; False is certain."""
        cdef u64 cluster = host >> self.cluster_bits, last = (end - 1) >> self.cluster_bits, bit
        if self.sieve_bits == 0:
            self.sift()
        if self.sieve_bits == 0 or last - cluster >= self.sieve_bits:
            return True
        while cluster <= last:
            bit = cluster & (self.sieve_bits - 1)
            if self.sieve[bit >> 6] >> (bit & 63) & 1:
                return True
            cluster += 1
        return False

    cdef void note_table(self, u64 place) noexcept nogil:
        """A table is there now. One that is not aligned lies in two clusters."""
        cdef u64 bit
        if self.sieve_bits == 0:
            return
        bit = place >> self.cluster_bits & (self.sieve_bits - 1)
        self.sieve[bit >> 6] |= <u64>1 << (bit & 63)
        bit = (place + self.cluster_size - 1) >> self.cluster_bits & (self.sieve_bits - 1)
        self.sieve[bit >> 6] |= <u64>1 << (bit & 63)
        self.sieve_count += 1
        if self.sieve_count > self.sieve_bits >> 4:
            self.sieve_bits = 0

    cdef void tables_changed(self) noexcept nogil:
        """`l1` or `reftable` have other tables than they had."""
        self.sieve_bits = 0

    cdef void sift(self) noexcept nogil:
        cdef u64 n, place, count = self.span_clusters, bits = 4096
        if count > MOST_SPANNED:
            return
        for n in range(self.l1_size):
            count += self.l1[n] & OFFSET != 0
        for n in range(self.reftable_size):
            count += self.reftable[n] & ~<u64>511 != 0
        while bits < count * 64:
            bits *= 2
        free(self.sieve)
        self.sieve = <u64 *>calloc(bits >> 6, 8)
        if self.sieve == NULL:
            return                                  # all of the tables are looked through, then
        self.sieve_bits, self.sieve_count = bits, 0
        for n in range(self.l1_size):
            if self.l1[n] & OFFSET:
                self.note_table(self.l1[n] & OFFSET)
        for n in range(self.reftable_size):
            if self.reftable[n] & ~<u64>511:
                self.note_table(self.reftable[n] & ~<u64>511)
        for n in range(self.span_count):
            place = self.spans[n].start & ~(self.cluster_size - 1)
            while place < self.spans[n].end:
                self.note_table(place)
                place += self.cluster_size
