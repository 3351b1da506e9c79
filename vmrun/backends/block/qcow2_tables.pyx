"""Where in the file the clusters of a qcow2 image's disk are: its L1 and L2 tables. Called with the node's mutex held."""

from libc.errno cimport EAGAIN, EIO, ENOMEM
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    u64 htobe64(u64)

from vmrun.backends.block.node cimport EVENT_L1_UPDATE
from vmrun.backends.block.qcow2_cache cimport COPIED, LOW, OFFSET, PACKED, ZERO, Slot, get64
from vmrun.backends.block.qcow2_image cimport FAULT_CLUSTER, FAULT_DATA, FAULT_L2, FAULT_SUBCLUSTERS, FAULT_ZERO


cdef class Qcow2Tables(Qcow2Counts):
    """An open image without its contents."""

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

    cdef int keep_table(self, const u8 *table, u64 offset) noexcept nogil:
        """Keep a slice of a table that was just written: it is wanted at once."""
        cdef Slot *slot = self.l2.oldest()
        cdef int error
        if slot.high:
            return 0                                    # no room that is clean: it is read, then
        self.l2.unlink(slot)
        error = self.l2.place(slot, offset)
        if error == 0:
            memcpy(slot.data, table, self.l2.slice)
        return error

    cdef int own_l2(self, u64 offset, Slot **found, u32 *at) noexcept nogil:
        """find_l2 for writing: makes a table, or a copy of one that a snapshot has too."""
        cdef u64 index = offset >> (self.cluster_bits + self.l2_bits), old, new = 0, got = 0, slice
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
        if error == 0:
            error = self.file.flush()
        if error == 0:
            slice = (offset >> self.cluster_bits) * self.entry_size & (self.cluster_size - 1) & ~(self.l2.slice - 1)
            error = self.keep_table(table + slice, new + slice)
        free(table)
        if error:
            self.free_clusters(new, 1)
            return error
        self.l1[index] = new | COPIED
        self.note_table(new)
        error = self.write_l1(index)
        if error:
            self.l1[index] = old                    # the file may have either: the cluster is not given back
            return error
        if old:
            error = self.free_clusters(old, 1)
            if error:
                return error
        return self.find_l2(offset, found, at, False)

    # --- where things are --------------------------------------------------------------------------------------

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
                return self.corrupt(FAULT_DATA if found.type == NORMAL else FAULT_ZERO, entry & OFFSET, offset)
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
