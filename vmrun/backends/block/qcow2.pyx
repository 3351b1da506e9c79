# distutils: libraries = z zstd
"""qcow2, versions 2 and 3: a disk in clusters that are given a place in the file when they are first written.

Ref: QEMU docs/interop/qcow2.txt. Not modelled: encryption; bitmaps are listed and kept, not updated (their autoclear
bit goes when the image is written, as the specification asks).

What a crash leaves: metadata reaches the file in one order, counted references first, then the tables that refer
(L2), then references that are gone; a table is whole in the file before another points to it. So a process that is
killed leaks clusters at worst. Before each step the file is flushed, so that the order holds for the host's crashes too.
With lazy refcounts the counts may be behind while the dirty bit is set; they are made anew at the next opening.

Locks: `graph`, then `mutex`. Data moves with `graph` shared and without `mutex`. Clusters that are about to get a place
are in `allocations` meanwhile; who wants the same ones waits.

A hostile image: tables are read through bounded caches, every offset is checked for alignment before it is used, what
lies past the end of the file reads as zeros. The first corruption that a write comes upon sets the corrupt bit.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EFBIG, EINVAL, EIO, ENOMEM, ENOSPC, EOPNOTSUPP
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

import os

from vmrun.backends.block import qcow2_header as headers

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_trylock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_cond_init(pthread_cond_t *, void *)
    int pthread_cond_destroy(pthread_cond_t *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_broadcast(pthread_cond_t *)
    ctypedef struct pthread_rwlockattr_t:
        pass
    int pthread_rwlockattr_init(pthread_rwlockattr_t *)
    int pthread_rwlockattr_setkind_np(pthread_rwlockattr_t *, int)
    int PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP
    int pthread_rwlock_init(pthread_rwlock_t *, pthread_rwlockattr_t *)
    int pthread_rwlock_destroy(pthread_rwlock_t *)
    int pthread_rwlock_rdlock(pthread_rwlock_t *)
    int pthread_rwlock_tryrdlock(pthread_rwlock_t *)
    int pthread_rwlock_wrlock(pthread_rwlock_t *)
    int pthread_rwlock_unlock(pthread_rwlock_t *)

cdef extern from "<endian.h>" nogil:
    u64 be64toh(u64)
    u64 htobe64(u64)
    u32 be32toh(u32)
    u32 htobe32(u32)
    u16 be16toh(u16)
    u16 htobe16(u16)

cdef extern from "<zlib.h>" nogil:
    ctypedef struct z_stream:
        u8 *next_in
        unsigned int avail_in
        u8 *next_out
        unsigned int avail_out
    int inflateInit2(z_stream *, int)
    int zlib_inflate "inflate" (z_stream *, int)
    int inflateEnd(z_stream *)
    int deflateInit2(z_stream *, int, int, int, int, int)
    int deflate(z_stream *, int)
    int deflateEnd(z_stream *)
    int Z_FINISH
    int Z_OK
    int Z_STREAM_END
    int Z_BUF_ERROR
    int Z_DEFLATED
    int Z_DEFAULT_STRATEGY
    int Z_DEFAULT_COMPRESSION

cdef extern from "<zstd.h>" nogil:
    ctypedef struct ZSTD_DCtx:
        pass
    ctypedef struct ZSTD_inBuffer:
        const void *src
        size_t size
        size_t pos
    ctypedef struct ZSTD_outBuffer:
        void *dst
        size_t size
        size_t pos
    ZSTD_DCtx *ZSTD_createDCtx()
    size_t ZSTD_freeDCtx(ZSTD_DCtx *)
    size_t ZSTD_decompressStream(ZSTD_DCtx *, ZSTD_outBuffer *, ZSTD_inBuffer *)
    unsigned ZSTD_isError(size_t)
    size_t ZSTD_compress(void *, size_t, const void *, size_t, int)

from vmrun.backends.block.node cimport (
    EVENT_CLUSTER_ALLOC, EVENT_CLUSTER_FREE, EVENT_COW_READ, EVENT_COW_WRITE, EVENT_L1_UPDATE, EVENT_L2_LOAD,
    EVENT_L2_UPDATE, EVENT_READ_BACKING_AIO, EVENT_READ_COMPRESSED, EVENT_REFBLOCK_LOAD, EVENT_REFBLOCK_UPDATE,
    EVENT_REFTABLE_UPDATE, EVENT_WRITE_COMPRESSED, EXTENT_ALLOCATED, EXTENT_COMPRESSED, EXTENT_DATA, EXTENT_OFFSET,
    EXTENT_ZERO, NODE_FUA, NODE_NOWAIT, NODE_UNMAP, cursor_advance, cursor_fill, cursor_get, cursor_memory, cursor_put,
    memory_zero,
)
from vmrun.backends.protocols cimport IoVec

cdef u64 OFFSET = 0x00fffffffffffe00
cdef u64 COPIED = <u64>1 << 63
cdef u64 PACKED = <u64>1 << 62
cdef u64 ZERO = 1
cdef u64 LOW = 0xffffffff          # of a bitmap: which subclusters are there; the upper half: which are zero
cdef u64 L2_CACHE = 32 << 20
cdef u64 BLOCK_CACHE = 8 << 20
cdef u64 MOST_REFTABLE = 8 << 20
cdef u64 MOST_RUN = 64 << 20        # bytes that one write gives a place at once


cdef u64 get64(const u8 *data) noexcept nogil:
    cdef u64 value
    memcpy(&value, data, 8)
    return be64toh(value)


cdef void put64(u8 *data, u64 value) noexcept nogil:
    value = htobe64(value)
    memcpy(data, &value, 8)


cdef u64 get_count(const u8 *block, u64 index, u32 order) noexcept nogil:
    """A reference count of 1 << order bits."""
    if order == 4:
        return be16toh((<const u16 *>block)[index])
    if order == 3:
        return block[index]
    if order == 5:
        return be32toh((<const u32 *>block)[index])
    if order == 6:
        return be64toh((<const u64 *>block)[index])
    return block[index >> (3 - order)] >> ((index & ((8 >> order) - 1)) << order) & ((1 << (1 << order)) - 1)


cdef void put_count(u8 *block, u64 index, u32 order, u64 value) noexcept nogil:
    cdef u32 shift, mask
    if order == 4:
        (<u16 *>block)[index] = htobe16(<u16>value)
    elif order == 3:
        block[index] = <u8>value
    elif order == 5:
        (<u32 *>block)[index] = htobe32(<u32>value)
    elif order == 6:
        (<u64 *>block)[index] = htobe64(value)
    else:
        shift = (index & ((8 >> order) - 1)) << order
        mask = (1 << (1 << order)) - 1
        block[index >> (3 - order)] = <u8>((block[index >> (3 - order)] & ~(mask << shift)) | (value << shift))


# --- the cache of tables -----------------------------------------------------------------------------------

cdef class MetaCache:
    """Slices of tables by their offset in the file: at most `count` of them, the least used goes."""

    def __cinit__(self, u64 slice, u64 count):
        cdef u32 n, buckets = 16
        if count < 8:
            count = 8
        while buckets < count:
            buckets *= 2
        self.slots = <Slot *>calloc(count, sizeof(Slot))
        self.buckets = <int *>malloc(buckets * sizeof(int))
        if self.slots == NULL or self.buckets == NULL:
            raise MemoryError
        self.slice, self.count, self.mask = slice, <u32>count, buckets - 1
        for n in range(buckets):
            self.buckets[n] = -1

    def __dealloc__(self):
        cdef u32 n
        if self.slots != NULL:
            for n in range(self.count):
                free(self.slots[n].data)
        free(self.slots)
        free(self.buckets)

    cdef Slot *find(self, u64 offset) noexcept nogil:
        cdef int n = self.buckets[(offset // self.slice) & self.mask]
        while n >= 0:
            if self.slots[n].offset == offset:
                self.clock += 1
                self.slots[n].used = self.clock
                return &self.slots[n]
            n = self.slots[n].next
        return NULL

    cdef Slot *oldest(self) noexcept nogil:
        cdef u32 n, best = 0
        for n in range(self.count):
            if self.slots[n].offset == 0:
                return &self.slots[n]
            if self.slots[n].used < self.slots[best].used:
                best = n
        return &self.slots[best]

    cdef void unlink(self, Slot *slot) noexcept nogil:
        cdef int *at
        cdef int me = <int>(slot - self.slots)
        if slot.offset == 0:
            return
        at = &self.buckets[(slot.offset // self.slice) & self.mask]
        while at[0] != me:
            at = &self.slots[at[0]].next
        at[0] = slot.next
        if slot.high:
            self.dirty -= 1
        slot.offset, slot.high, slot.low, slot.used = 0, 0, 0, 0

    cdef int place(self, Slot *slot, u64 offset) noexcept nogil:
        """`slot` stands for `offset` from now on; its data are the caller's to fill."""
        cdef u32 bucket = (offset // self.slice) & self.mask
        self.unlink(slot)
        if slot.data == NULL:
            slot.data = <u8 *>malloc(self.slice)
            if slot.data == NULL:
                return ENOMEM
        slot.offset = offset
        slot.next = self.buckets[bucket]
        self.buckets[bucket] = <int>(slot - self.slots)
        self.clock += 1
        slot.used = self.clock
        return 0

    cdef void drop(self, u64 offset, u64 bytes) noexcept nogil:
        """A table is gone: forget what is kept of it, written or not."""
        cdef Slot *slot
        cdef u64 at = offset
        while at < offset + bytes:
            slot = self.find(at)
            if slot != NULL:
                self.unlink(slot)
            at += self.slice

    cdef void mark(self, Slot *slot, u32 low, u32 high) noexcept nogil:
        if slot.high == 0:
            self.dirty += 1
            slot.low, slot.high = low, high
        else:
            if low < slot.low:
                slot.low = low
            if high > slot.high:
                slot.high = high


# --- the node ----------------------------------------------------------------------------------------------

cdef class Qcow2Node(Node):
    """An open image. `header` was parsed of `file`; `backing` and `data` are open, or None."""

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

    def children(self):
        found = [("file", self.file)]
        if self.external:
            found.append(("data-file", self.data))
        if self.backing is not None:
            found.append(("backing", self.backing))
        return found

    def shut(self):
        cdef int error
        if self.readonly:
            return
        with nogil:
            error = self.flush()
        if error == 0 and self.is_dirty and not self.broken:
            self.header.incompatible &= ~headers.DIRTY
            self.is_dirty = False
            self.update_header()
        if error:
            raise OSError(error, os.strerror(error))

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

    def stay_dirty(self, bint dirty):
        self.is_dirty = dirty

    def write_zeros_plainly(self, u64 offset, u64 bytes):
        """Zeros as data, for versions without zero clusters."""
        cdef int error
        with nogil:
            error = Node.zero(self, offset, bytes, 0)
        if error:
            raise OSError(error, os.strerror(error))

    def clean(self):
        """The counts are right again: the dirty bit goes."""
        self.sync()
        self.header.incompatible &= ~headers.DIRTY
        self.is_dirty = False
        self.update_header()

    def truncate(self, u64 size, str preallocation="off"):
        from vmrun.backends.block.qcow2_check import resize

        before = self.size
        resize(self, size)
        if preallocation != "off" and size > before:
            self.preallocate(before, size - before, preallocation)

    def preallocate(self, u64 offset, u64 bytes, str how):
        """Give clusters a place: `metadata`, `falloc` (the host's space reserved), `full` (zeros written)."""
        cdef Mapping m
        cdef u64 end = offset + bytes, place = 0, got = 0, n, wanted, most = self.file.size
        cdef u32 at = 0
        cdef Slot *slot
        cdef int error = 0
        cdef u64 mask = self.cluster_size - 1
        offset &= ~mask
        with nogil:
            pthread_rwlock_wrlock(&self.graph)
            pthread_mutex_lock(&self.mutex)
            while offset < end and error == 0:
                error = self.own_l2(offset, &slot, &at)
                if error:
                    break
                if get64(slot.data + at) != 0:
                    offset += self.cluster_size
                    continue
                wanted = 1
                n = at + self.entry_size
                while n < self.l2.slice and offset + (wanted << self.cluster_bits) < end and get64(slot.data + n) == 0:
                    n += self.entry_size
                    wanted += 1
                if self.external:
                    place, got = offset, wanted
                else:
                    error = self.allocate(wanted, False, &place, &got)
                    if error == 0:
                        error = self.own_l2(offset, &slot, &at)
                if error:
                    break
                for n in range(got):
                    put64(slot.data + at, (place + (n << self.cluster_bits)) | COPIED)
                    if self.ext:
                        put64(slot.data + at + 8, 0)
                    self.l2.mark(slot, at, at + self.entry_size)
                    at += self.entry_size
                offset += got << self.cluster_bits
                if place + (got << self.cluster_bits) > most:
                    most = place + (got << self.cluster_bits)
            pthread_mutex_unlock(&self.mutex)
            pthread_rwlock_unlock(&self.graph)
        if error:
            raise OSError(error, os.strerror(error))
        self.sync()
        target = self.data if self.external else self.file
        if most > target.size:
            target.truncate(most, "off" if how == "metadata" else how)

    def rebase(self, Node backing):
        """Another backing node; the header is the caller's to change."""
        self.backing = backing

    cdef int header_field(self, u64 offset, const u8 *data, u64 size) noexcept nogil:
        cdef int error = self.file.pwrite(data, size, offset)
        return error if error else self.file.flush()

    cdef int corrupt(self) noexcept nogil:
        """The image cannot be trusted: said in its header, and nothing is written any more."""
        cdef u8 field[8]
        if not self.readonly and not self.broken:
            self.broken = True
            if self.version >= 3 and self.file.pread(field, 8, 72) == 0:
                field[7] |= 2
                self.header_field(72, field, 8)
        return EIO

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
            return self.corrupt()
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
            return self.corrupt()
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

    cdef int map(self, u64 offset, u64 bytes, Mapping *found, bint nowait) noexcept nogil:
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
                return self.corrupt()
        sub = <u32>((offset & (self.cluster_size - 1)) // self.gran)
        found.entry, found.type = entry, self.kind(entry, bitmap, sub)
        found.copied = entry >> 63
        found.host = host = (entry & OFFSET) + (offset & (self.cluster_size - 1))
        if found.type in (NORMAL, ZERO_ALLOCATED) and entry & OFFSET & (self.cluster_size - 1):
            return self.corrupt()
        if self.ext and bitmap & LOW and not entry & OFFSET and not self.external:
            return self.corrupt()
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

    # --- reading ---------------------------------------------------------------------------------------------

    cdef int read_backing(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef u64 there
        cdef int error
        if self.backing is None or offset >= self.backing.size:
            cursor_fill(to, bytes)
            return 0
        there = self.backing.size - offset
        if there > bytes:
            there = bytes
        self.file.event(EVENT_READ_BACKING_AIO)
        error = self.backing.readv(offset, there, to, flags)
        if error == 0 and there < bytes:
            cursor_fill(to, bytes - there)
        return error

    cdef int inner_read(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        """With `graph` held, either way."""
        cdef Mapping m
        cdef int error = 0
        cdef bint nowait = flags & NODE_NOWAIT
        while bytes and error == 0:
            if offset >= self.size:
                cursor_fill(to, bytes)
                return 0
            if nowait:
                if pthread_mutex_trylock(&self.mutex) != 0:
                    return EAGAIN
            else:
                pthread_mutex_lock(&self.mutex)
            error = self.map(offset, bytes if bytes < self.size - offset else self.size - offset, &m, nowait)
            pthread_mutex_unlock(&self.mutex)
            if error:
                return error
            if m.type == NORMAL:
                error = self.data.readv(m.host, m.length, to, flags)
            elif m.type == UNALLOCATED:
                error = self.read_backing(offset, m.length, to, flags)
            elif m.type == COMPRESSED:
                error = self.read_compressed(m.entry, offset & (self.cluster_size - 1), m.length, to, flags)
            else:
                cursor_fill(to, m.length)
            offset += m.length
            bytes -= m.length
        return error

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef int error
        if self.broken:
            return EIO
        if flags & NODE_NOWAIT:
            if pthread_rwlock_tryrdlock(&self.graph) != 0:
                return EAGAIN
        else:
            pthread_rwlock_rdlock(&self.graph)
        error = self.inner_read(offset, bytes, to, flags)
        pthread_rwlock_unlock(&self.graph)
        return error

    cdef int read_compressed(self, u64 entry, u64 within, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef int error = 0
        cdef u64 fuzzy
        if flags & NODE_NOWAIT:
            return EAGAIN
        if bytes == self.cluster_size and to.left and to.at.length - to.skip >= bytes:
            error = self.inflate(entry, <u8 *>to.at.base + to.skip)
            cursor_advance(to, bytes)
            return error
        pthread_mutex_lock(&self.inflate_mutex)
        fuzzy = self.fuzzy
        if self.inflated_entry != entry:
            self.inflated_entry = 0
            error = self.inflate(entry, self.inflated)
            if error == 0 and fuzzy == self.fuzzy:
                self.inflated_entry = entry
        if error == 0:
            cursor_put(to, self.inflated + within, bytes)
        pthread_mutex_unlock(&self.inflate_mutex)
        return error

    cdef int inflate(self, u64 entry, u8 *into) noexcept nogil:
        """A compressed cluster, all of it; EIO when it is not one."""
        cdef u32 shift = 62 - (self.cluster_bits - 8)
        cdef u64 offset = entry & ((<u64>1 << shift) - 1)
        cdef u64 sectors = (entry >> shift & ((<u64>1 << (self.cluster_bits - 8)) - 1)) + 1
        cdef u64 size = sectors * 512 - (offset & 511)
        cdef u8 *packed
        cdef z_stream stream
        cdef ZSTD_DCtx *context
        cdef ZSTD_inBuffer source
        cdef ZSTD_outBuffer target
        cdef size_t answer
        cdef int error
        packed = <u8 *>malloc(size)
        if packed == NULL:
            return ENOMEM
        self.file.event(EVENT_READ_COMPRESSED)
        error = self.file.pread(packed, size, offset)
        if error:
            free(packed)
            return error
        if self.zstd:
            context = ZSTD_createDCtx()
            if context == NULL:
                free(packed)
                return ENOMEM
            source.src, source.size, source.pos = packed, size, 0
            target.dst, target.size, target.pos = into, self.cluster_size, 0
            while target.pos < target.size:
                answer = ZSTD_decompressStream(context, &target, &source)
                if ZSTD_isError(answer) or source.pos >= source.size and target.pos < target.size:
                    error = EIO
                    break
                if answer == 0 and target.pos < target.size:
                    error = EIO
                    break
            ZSTD_freeDCtx(context)
        else:
            memset(&stream, 0, sizeof(stream))
            if inflateInit2(&stream, -12) != Z_OK:
                error = ENOMEM
            else:
                stream.next_in, stream.avail_in = packed, <unsigned int>size
                stream.next_out, stream.avail_out = into, <unsigned int>self.cluster_size
                answer = <size_t>zlib_inflate(&stream, Z_FINISH)
                if stream.avail_out or <int>answer not in (Z_STREAM_END, Z_BUF_ERROR, Z_OK):
                    error = EIO
                inflateEnd(&stream)
        free(packed)
        return error

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
            return self.corrupt()
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
                return self.corrupt()
            at = cluster & (per - 1)
            value = get_count(slot.data, at, self.refcount_order)
            if step < 0 and value == 0:
                return self.corrupt()
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
        if self.overlaps_table(place, self.cluster_size):
            return self.corrupt()
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
        if self.overlaps_table(first << self.cluster_bits, run << self.cluster_bits):
            return self.corrupt()
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

    # --- writing ---------------------------------------------------------------------------------------------

    cdef bint overlaps(self, u64 host, u64 bytes) noexcept nogil:
        """Whether data would go over the header or a table: an image that says so is corrupt."""
        return not self.external and self.overlaps_table(host, bytes)

    cdef bint overlaps_table(self, u64 host, u64 bytes) noexcept nogil:
        cdef u64 end = host + bytes
        return (host < self.cluster_size
                or host < self.l1_offset + self.l1_size * 8 and end > self.l1_offset
                or host < self.reftable_offset + self.reftable_size * 8 and end > self.reftable_offset)

    cdef int write_new(self, u64 offset, u64 bytes, Cursor *source, u64 host, bint fresh, u64 start, u64 end) noexcept nogil:
        """Data into clusters that nobody refers to yet, which begin at `host` for the disk's `start` rounded down to a
        cluster; from `start` and up to `end` the old contents go with them. `fresh`: the file has zeros there.
        """
        cdef u64 head = offset - start, tail = end - (offset + bytes), base = start & ~(self.cluster_size - 1)
        cdef u8 *memory = NULL
        cdef IoVec vector
        cdef Cursor cursor
        cdef int error = 0
        if head or tail:
            memory = <u8 *>malloc(head if head > tail else tail)
            if memory == NULL:
                return ENOMEM
        if head:
            self.file.event(EVENT_COW_READ)
            cursor_memory(&cursor, &vector, memory, head)
            error = self.inner_read(start, head, &cursor, 0)
            if error == 0 and not (fresh and memory_zero(memory, head)):
                self.file.event(EVENT_COW_WRITE)
                cursor_memory(&cursor, &vector, memory, head)
                error = self.data.writev(host + (start - base), head, &cursor, 0)
        if tail and error == 0:
            self.file.event(EVENT_COW_READ)
            cursor_memory(&cursor, &vector, memory, tail)
            error = self.inner_read(offset + bytes, tail, &cursor, 0)
            if error == 0 and not (fresh and memory_zero(memory, tail)):
                self.file.event(EVENT_COW_WRITE)
                cursor_memory(&cursor, &vector, memory, tail)
                error = self.data.writev(host + (offset + bytes - base), tail, &cursor, 0)
        if error == 0:
            error = self.data.writev(host + (offset - base), bytes, source, 0)
        free(memory)
        return error

    cdef int write_piece(self, u64 offset, u64 bytes, Cursor *source, u64 *done) noexcept nogil:
        """As much of it as is alike: in place, or into clusters that get their place now."""
        cdef Mapping m
        cdef Allocation mine
        cdef Allocation *other
        cdef Allocation **link
        cdef Slot *slot
        cdef u32 at = 0, first_sub, last_sub
        cdef int error
        cdef u64 host = 0, got = 0, n, clusters, limit, entry, bitmap = 0, start, end, mask = self.cluster_size - 1
        cdef u64 grain = self.gran, before
        cdef bint reuse, fresh = False, clash
        pthread_mutex_lock(&self.mutex)
        while True:
            if self.broken:
                pthread_mutex_unlock(&self.mutex)
                return EIO
            error = self.map(offset, bytes, &m, False)
            if error:
                pthread_mutex_unlock(&self.mutex)
                return error
            if m.type == NORMAL and m.copied:
                if self.overlaps(m.host, m.length):
                    error = self.corrupt()
                pthread_mutex_unlock(&self.mutex)
                if error == 0:
                    error = self.data.writev(m.host, m.length, source, 0)
                done[0] = m.length
                return error
            error = self.own_l2(offset, &slot, &at)
            if error:
                pthread_mutex_unlock(&self.mutex)
                return error
            # How many clusters from here on want a place; one at a time where the old one is kept.
            entry = get64(slot.data + at)
            if self.ext:
                bitmap = get64(slot.data + at + 8)
            reuse = entry & COPIED != 0 and self.placed(entry)
            mine.first = mine.last = offset >> self.cluster_bits
            limit = (offset + bytes - 1) >> self.cluster_bits
            if limit - mine.first > MOST_RUN >> self.cluster_bits:
                limit = mine.first + (MOST_RUN >> self.cluster_bits)
            clusters = 1
            if not reuse:
                n = at + self.entry_size
                while mine.first + clusters <= limit and n < self.l2.slice:
                    entry = get64(slot.data + n)
                    if not entry & PACKED and entry & COPIED:
                        break
                    clusters += 1
                    n += self.entry_size
            mine.last = mine.first + clusters - 1
            other, clash = self.allocations, False
            while other != NULL:
                if other.first <= mine.last and mine.first <= other.last:
                    if other.first > mine.first:
                        mine.last = other.first - 1         # up to where the other begins
                    else:
                        clash = True
                other = other.next
            if not clash:
                break
            pthread_cond_wait(&self.settled, &self.mutex)
        clusters = mine.last - mine.first + 1
        before = self.file.size
        entry = get64(slot.data + at)
        if reuse:
            host = entry & OFFSET
            if host & mask or self.overlaps(host, self.cluster_size):
                error = self.corrupt()
        elif self.external:
            host = offset & ~mask
        else:
            error = self.set_dirty()
            if error == 0:
                error = self.allocate(clusters, False, &host, &got)
            clusters = got
            fresh = host >= before
        if error:
            pthread_mutex_unlock(&self.mutex)
            return error
        mine.last = mine.first + clusters - 1
        mine.next = self.allocations
        self.allocations = &mine
        pthread_mutex_unlock(&self.mutex)

        end = (mine.last + 1) << self.cluster_bits
        if offset + bytes < end:
            bytes = offset + bytes - offset
        else:
            bytes = end - offset
        if not reuse and (m.type != UNALLOCATED or entry or bitmap):
            grain = self.cluster_size                       # what the old cluster has goes along
        start = offset & ~(grain - 1)
        end = (offset + bytes + grain - 1) & ~(grain - 1)
        if self.ext and not reuse and grain < self.cluster_size and mine.last > mine.first:
            end = (mine.last + 1) << self.cluster_bits      # later clusters may have old contents, too
        error = self.write_new(offset, bytes, source, host, fresh, start, end)

        pthread_mutex_lock(&self.mutex)
        if error == 0:
            error = self.own_l2(offset, &slot, &at)
        if error == 0:
            for n in range(clusters):
                entry = get64(slot.data + at)
                if not reuse:
                    error = self.free_entry(entry)
                    if error:
                        break
                put64(slot.data + at, (host + (n << self.cluster_bits)) | COPIED)
                if self.ext:
                    bitmap = get64(slot.data + at + 8) if reuse else 0
                    first_sub, last_sub = 0, 31
                    if n == 0:
                        first_sub = <u32>((start & mask) // self.gran)
                    if n == clusters - 1 and end & mask:
                        last_sub = <u32>(((end - 1) & mask) // self.gran)
                    while first_sub <= last_sub:
                        bitmap |= <u64>1 << first_sub
                        bitmap &= ~(<u64>1 << (32 + first_sub))
                        first_sub += 1
                    put64(slot.data + at + 8, bitmap)
                self.l2.mark(slot, at, at + self.entry_size)
                at += self.entry_size
        elif not reuse and not self.external:
            self.free_clusters(host, clusters)
        link = &self.allocations
        while link[0] != &mine:
            link = &link[0].next
        link[0] = mine.next
        pthread_cond_broadcast(&self.settled)
        pthread_mutex_unlock(&self.mutex)
        done[0] = bytes
        return error

    cdef int inner_write(self, u64 offset, u64 bytes, Cursor *source) noexcept nogil:
        cdef u64 done = 0
        cdef int error = 0
        while bytes and error == 0:
            error = self.write_piece(offset, bytes, source, &done)
            offset += done
            bytes -= done
        return error

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef int error
        if self.readonly or offset > self.size or bytes > ((self.size + 511) & ~<u64>511) - offset:
            return EIO
        pthread_rwlock_rdlock(&self.graph)
        error = self.inner_write(offset, bytes, source)
        pthread_rwlock_unlock(&self.graph)
        if error == 0 and self.freed_count > ENOUGH_FREED:
            error = self.settle()
        if error == 0 and flags & NODE_FUA:
            error = self.flush()
        return error

    cdef int flush(self) noexcept nogil:
        cdef int error
        if self.readonly:
            return 0
        if self.broken:
            return EIO
        if self.freed_count:
            error = self.settle()
            if error:
                return error
        pthread_mutex_lock(&self.mutex)
        error = self.flush_meta()
        if error == 0:
            error = self.write_slots(self.blocks, EVENT_REFBLOCK_UPDATE)
        pthread_mutex_unlock(&self.mutex)
        if error == 0 and self.external:
            error = self.data.flush()
        if error == 0:
            error = self.file.flush()
        return error

    # --- zeros and discards ------------------------------------------------------------------------------------

    cdef int inner_zero(self, u64 offset, u64 bytes, u32 flags, bint discard, bint full) noexcept nogil:
        """Whole granules; `graph` is held exclusively, nothing else is under way. `full`: the backing shows again."""
        cdef Slot *slot
        cdef u32 at = 0, sub, last
        cdef u64 entry, bitmap, new_entry, new_bitmap, step, mask = self.cluster_size - 1, table_span
        cdef int error = 0
        cdef bint whole, keep
        pthread_mutex_lock(&self.mutex)
        table_span = <u64>1 << (self.cluster_bits + self.l2_bits)
        while bytes and error == 0:
            step = self.cluster_size - (offset & mask)
            if step > bytes:
                step = bytes
            error = self.find_l2(offset, &slot, &at, False)
            if error:
                break
            if slot == NULL and (full or self.backing is None):
                step = table_span - (offset & (table_span - 1))
                if step > bytes:
                    step = bytes
                offset += step
                bytes -= step
                continue
            error = self.own_l2(offset, &slot, &at)
            if error:
                break
            entry = get64(slot.data + at)
            bitmap = get64(slot.data + at + 8) if self.ext else 0
            whole = step == self.cluster_size
            keep = not discard and not flags & NODE_UNMAP and self.placed(entry) and entry & COPIED != 0
            new_entry, new_bitmap = entry, bitmap
            if self.ext and not whole:
                if entry & PACKED:
                    error = EOPNOTSUPP
                    break
                sub = <u32>((offset & mask) // self.gran)
                last = <u32>(((offset & mask) + step - 1) // self.gran)
                while sub <= last:
                    new_bitmap &= ~(<u64>1 << sub)
                    new_bitmap |= <u64>1 << (32 + sub)
                    sub += 1
            else:
                if not keep:
                    new_entry = 0
                if self.ext:
                    new_bitmap = 0 if full else LOW << 32
                elif not full:
                    new_entry |= ZERO
                if discard and not full and entry == 0 and bitmap == 0 and self.backing is None:
                    new_entry = new_bitmap = 0
            if new_entry != entry or new_bitmap != bitmap:
                put64(slot.data + at, new_entry)
                if self.ext:
                    put64(slot.data + at + 8, new_bitmap)
                self.l2.mark(slot, at, at + self.entry_size)
                if not self.placed(new_entry):
                    error = self.free_entry(entry)
            offset += step
            bytes -= step
            if error == 0 and self.freed_count > ENOUGH_FREED:
                error = self.apply_freed()
        pthread_mutex_unlock(&self.mutex)
        return error

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        """Whole clusters; they read as zeros then."""
        cdef u64 end = offset + bytes, mask = self.cluster_size - 1
        cdef int error
        if self.readonly or self.broken:
            return EIO
        if self.version < 3 and self.backing is not None:
            return 0                                    # the backing image would show
        if end > self.size or end < offset:
            end = self.size
        if end == self.size:
            end = (end + mask) & ~mask
        offset = (offset + mask) & ~mask
        end &= ~mask
        if offset >= end:
            return 0
        pthread_rwlock_wrlock(&self.graph)
        error = self.inner_zero(offset, end - offset, NODE_UNMAP, True, self.version < 3)
        pthread_rwlock_unlock(&self.graph)
        if error == 0 and self.external and self.passes_discards:
            error = self.data.discard(offset, end - offset)
        return error

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef u64 end = offset + bytes, first, last, mask = self.gran - 1
        cdef int error = 0
        cdef IoVec vector
        cdef Extent extent
        if self.readonly:
            return EIO
        if self.broken:
            return EIO
        if bytes == 0:
            return 0
        first, last = (offset + mask) & ~mask, end & ~mask
        if end >= self.size:
            last = (end + mask) & ~mask
        if self.version < 3 or first >= last or self.external:
            return self.zero_slowly(offset, bytes, flags)
        if offset < first:
            error = self.zero_slowly(offset, first - offset, 0)
        if error == 0:
            pthread_rwlock_wrlock(&self.graph)
            error = self.inner_zero(first, last - first, flags, False, False)
            pthread_rwlock_unlock(&self.graph)
            if error == EOPNOTSUPP:
                error = self.zero_slowly(first, (last if last < self.size else self.size) - first, 0)
        if error == 0 and end > last:
            error = self.zero_slowly(last, end - last, 0)
        if error == 0 and flags & NODE_FUA:
            error = self.flush()
        return error

    cdef int zero_slowly(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        """Written, except where there are zeros already."""
        cdef Extent extent
        cdef u64 step
        cdef int error = 0
        while bytes and error == 0:
            step = bytes
            error = self.status(offset, bytes, &extent)
            if error:
                return error
            step = extent.length
            if not extent.flags & EXTENT_ZERO and not (
                extent.flags & (EXTENT_ALLOCATED | EXTENT_DATA) == 0 and self.backing is None):
                error = Node.zero(self, offset, step, flags)
            offset += step
            bytes -= step
        return error

    # --- what is where -------------------------------------------------------------------------------------------

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        cdef Mapping m
        cdef int error
        found.host = 0
        if offset >= self.size:
            found.length, found.flags = bytes, EXTENT_ZERO
            return 0
        if bytes > self.size - offset:
            bytes = self.size - offset
        pthread_rwlock_rdlock(&self.graph)
        pthread_mutex_lock(&self.mutex)
        error = self.map(offset, bytes, &m, False)
        pthread_mutex_unlock(&self.mutex)
        pthread_rwlock_unlock(&self.graph)
        if error:
            return error
        found.length = m.length
        if m.type == NORMAL:
            found.flags, found.host = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET, m.host
        elif m.type == COMPRESSED:
            found.flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_COMPRESSED
        elif m.type == ZERO_ALLOCATED:
            found.flags, found.host = EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET, m.host
        elif m.type == ZERO_PLAIN:
            found.flags = EXTENT_ZERO | EXTENT_ALLOCATED
        else:
            found.flags = 0
        return 0

    # --- compressed clusters ---------------------------------------------------------------------------------------

    def write_compressed(self, u64 offset, memory):
        """A cluster, compressed where that makes it smaller. Shorter only at the disk's end."""
        cdef Py_buffer view
        cdef int error = EINVAL
        PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
        if not offset & (self.cluster_size - 1) and 0 < <u64>view.len <= self.cluster_size and not self.external:
            with nogil:
                error = self.deflate_cluster(offset, <const u8 *>view.buf, <u64>view.len)
        PyBuffer_Release(&view)
        if error:
            raise OSError(error, os.strerror(error))

    cdef int deflate_cluster(self, u64 offset, const u8 *data, u64 size) noexcept nogil:
        cdef u8 *packed = <u8 *>malloc(self.cluster_size * 2)
        cdef u8 *whole = NULL
        cdef u64 got = 0, place = 0, sectors
        cdef u32 at = 0, shift = 62 - (self.cluster_bits - 8)
        cdef Slot *slot
        cdef int error = 0
        cdef size_t answer
        cdef z_stream stream
        if packed == NULL:
            return ENOMEM
        if size < self.cluster_size:
            whole = <u8 *>calloc(1, self.cluster_size)
            if whole == NULL:
                free(packed)
                return ENOMEM
            memcpy(whole, data, size)
            data = whole
        if self.zstd:
            answer = ZSTD_compress(packed, self.cluster_size - 1, data, self.cluster_size, 3)
            if not ZSTD_isError(answer):
                got = answer
        else:
            memset(&stream, 0, sizeof(stream))
            if deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) == Z_OK:
                stream.next_in, stream.avail_in = <u8 *>data, <unsigned int>self.cluster_size
                stream.next_out, stream.avail_out = packed, <unsigned int>self.cluster_size - 1
                if deflate(&stream, Z_FINISH) == Z_STREAM_END:
                    got = self.cluster_size - 1 - stream.avail_out
                deflateEnd(&stream)
        if got == 0:
            free(packed)
            error = self.pwrite(data, size, offset)
            free(whole)
            return error
        pthread_rwlock_wrlock(&self.graph)
        pthread_mutex_lock(&self.mutex)
        error = self.set_dirty()
        if error == 0:
            error = self.own_l2(offset, &slot, &at)
        if error == 0 and get64(slot.data + at) != 0:
            error = self.free_entry(get64(slot.data + at))
        if error == 0:
            error = self.allocate_bytes(got, &place)
        if error == 0:
            self.file.event(EVENT_WRITE_COMPRESSED)
            error = self.file.pwrite(packed, got, place)
        if error == 0:
            error = self.own_l2(offset, &slot, &at)
        if error == 0:
            sectors = ((place + got - 1) >> 9) - (place >> 9)
            put64(slot.data + at, place | PACKED | sectors << shift)
            if self.ext:
                put64(slot.data + at + 8, 0)
            self.l2.mark(slot, at, at + self.entry_size)
        pthread_mutex_unlock(&self.mutex)
        pthread_rwlock_unlock(&self.graph)
        free(packed)
        free(whole)
        return error
