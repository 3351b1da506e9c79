"""The counts of references to a qcow2 image's clusters, and with them free places in the file: taken, and given back.

All but settle() is called with the node's mutex held. What is given back is counted down by settle(), once the tables that
referred are in the file without it.
"""

from libc.errno cimport EFBIG, EINVAL, EIO, ENOMEM
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from accel.threads cimport pthread_mutex_lock, pthread_mutex_unlock, pthread_rwlock_unlock, pthread_rwlock_wrlock

cdef extern from "<endian.h>" nogil:
    u32 htobe32(u32)

from vmrun.backends.block.node cimport EVENT_CLUSTER_ALLOC, EVENT_CLUSTER_FREE, EVENT_REFTABLE_UPDATE
from vmrun.backends.block.qcow2_cache cimport OFFSET, PACKED, Slot, get_count, put64, put_count
from vmrun.backends.block.qcow2_image cimport FAULT_COUNT, FAULT_FREE, FAULT_REFBLOCK

cdef u64 MOST_REFTABLE = 8 << 20


cdef class Qcow2Counts(Qcow2Image):
    """An open image whose clusters can be counted."""

    def __dealloc__(self):
        free(self.freed)

    def look_again(self, header):
        super().look_again(header)
        self.hint = self.byte_hint = 0

    # --- counts of references ----------------------------------------------------------------------------------

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
        if block >> 63:                             # no file is that long
            return EIO
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
            self.note_table(place)
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
        self.tables_changed()
        with gil:
            self.header.refcount_table_offset, self.header.refcount_table_clusters = self.reftable_offset, clusters
        return self.free_clusters(old_offset, old_clusters)

    # --- free places, taken ------------------------------------------------------------------------------------

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

    # --- and given back ----------------------------------------------------------------------------------------

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
        if entry & OFFSET & (self.cluster_size - 1):
            self.corrupt(FAULT_FREE, entry & OFFSET)
            return 0
        return self.free_clusters(entry & OFFSET, 1)

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
