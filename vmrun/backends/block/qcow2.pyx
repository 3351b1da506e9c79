"""qcow2, versions 2 and 3: a disk in clusters that are given a place in the file when they are first written.

Ref: QEMU docs/interop/qcow2.txt. Not modelled: encryption.

What a crash leaves: metadata reaches the file in one order, counted references first, then the tables that refer
(L2), then references that are gone; a table is whole in the file before another points to it. So a process that is
killed leaks clusters at worst. Before each step the file is flushed, so that the order holds for the host's crashes too.
With lazy refcounts the counts may be behind while the dirty bit is set; they are made anew at the next opening.

Locks: `graph`, then `mutex`. Data moves with `graph` shared and without `mutex`. Clusters that are about to get a place
are in `allocations` meanwhile; who wants the same ones waits.

A hostile image: tables are read through bounded caches, every offset is checked for alignment before it is used, what
lies past the end of the file reads as zeros. The first corruption that a write comes upon sets the corrupt bit.

One image in rooms, each built on the one before: what is open (qcow2_image.pyx; the cache of tables is qcow2_cache.pyx), counts
and places in the file (qcow2_counts.pyx), the disk's tables (qcow2_tables.pyx), reading (qcow2_reading.pyx), and here what
changes it. Checks and repairs are qcow2_check.pyx, snapshots qcow2_snapshots.pyx, dirty bitmaps qcow2_bitmaps.pyx, what
compresses qcow2_packed.pyx.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EINVAL, EIO, ENOMEM, EOPNOTSUPP, EPERM
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

import contextlib
import os

from vmrun.backends.block import qcow2_header as headers

from vmrun.backends.block.bitmap cimport Bitmap
from vmrun.backends.block.node cimport (
    EVENT_COW_READ, EVENT_COW_WRITE, EVENT_REFBLOCK_UPDATE, EVENT_WRITE_AIO, EVENT_WRITE_COMPRESSED, EXTENT_ALLOCATED,
    EXTENT_DATA, EXTENT_ZERO, NODE_FUA, NODE_STATE, NODE_UNMAP, Extent, Node, cursor_memory, memory_zero,
)
from vmrun.backends.block.qcow2_cache cimport COPIED, LOW, OFFSET, PACKED, ZERO, Slot, get64, put64
from vmrun.backends.block.qcow2_counts cimport ENOUGH_FREED
from vmrun.backends.block.qcow2_image cimport FAULT_DATA
from vmrun.backends.block.qcow2_packed cimport pack_cluster
from vmrun.backends.block.qcow2_tables cimport COMPRESSED, NORMAL, UNALLOCATED, Mapping
from vmrun.backends.protocols cimport IoVec

from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_wait, pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock,
    pthread_rwlock_rdlock, pthread_rwlock_tryrdlock, pthread_rwlock_unlock, pthread_rwlock_wrlock,
)

cdef extern from "<errno.h>" nogil:
    int ENOMEDIUM

cdef u64 MOST_RUN = 64 << 20        # bytes that one write gives a place at once


cdef class Qcow2Node(Qcow2Reader):
    """An open image."""

    def __cinit__(self, *args, **kwargs):
        self.gone, self.marked = [], []

    def __dealloc__(self):
        free(self.marks)

    cdef void note(self, u64 offset, u64 bytes) noexcept nogil:
        """In the bitmaps: this was written."""
        cdef u32 n
        if self.mark_count == 0:
            return
        pthread_mutex_lock(&self.mutex)
        for n in range(self.mark_count):
            if (<Bitmap>self.marks[n]).enabled:
                (<Bitmap>self.marks[n]).mark(offset, bytes)
        pthread_mutex_unlock(&self.mutex)

    def children(self):
        found = [("file", self.file)]
        if self.external:
            found.append(("data-file", self.data))
        if self.backing is not None:
            found.append(("backing", self.backing))
        return found

    def shut(self):
        cdef int error
        if self.readonly or self.asleep:
            return
        if self.bitmaps and not self.broken or self.gone:
            from vmrun.backends.block.qcow2_bitmaps import store

            store(self)
        with nogil:
            error = self.flush()
        if error == 0 and self.file.size > self.found_size and self.file.size % self.cluster_size and not self.broken:
            # its last cluster is whole: other programs may read no further than the file goes
            with contextlib.suppress(OSError):
                self.file.truncate(self.file.size + self.cluster_size - self.file.size % self.cluster_size)
        if error == 0 and self.is_dirty and not self.broken:
            self.header.incompatible &= ~headers.DIRTY
            self.is_dirty = False
            self.update_header()
        if error:
            raise OSError(error, os.strerror(error))

    def rest(self):
        self.shut()
        self.asleep = True

    def wake(self):
        from vmrun.backends.block.qcow2_bitmaps import follow

        self.look_again(headers.parse(self.file.read))
        self.bitmaps, self.gone = None, []
        follow(self)
        self.asleep = False

    def turn(self, bint readonly):
        if readonly:
            self.shut()
        self.readonly = readonly

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
        from vmrun.backends.block.qcow2_snapshots import resize

        if self.asleep:
            raise OSError(EPERM, os.strerror(EPERM))
        before = self.size
        resize(self, size)
        if self.bitmaps:
            from vmrun.backends.block.qcow2_bitmaps import resized

            resized(self)
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
        cdef u64 hint
        offset &= ~mask
        with nogil:
            pthread_rwlock_wrlock(&self.graph)
            pthread_mutex_lock(&self.mutex)
            # behind the file's end, where zeros are and `how` can be done; a free cluster within it has old contents
            hint = self.hint
            if self.hint < (most + mask) >> self.cluster_bits:
                self.hint = (most + mask) >> self.cluster_bits
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
            if hint < self.hint:
                self.hint = hint
            pthread_mutex_unlock(&self.mutex)
            pthread_rwlock_unlock(&self.graph)
        if error:
            raise OSError(error, os.strerror(error))
        self.sync()
        target = self.data if self.external else self.file
        if most > target.size:
            target.truncate(most, "off" if how == "metadata" else how)

    def rebase(self, Node backing or None):
        """Another backing node, with nothing under way; the header is the caller's to change, the old one to close."""
        self.backing = backing

    # --- writing ---------------------------------------------------------------------------------------------

    cdef int write_new(self, u64 offset, u64 bytes, Cursor *source, u64 host, bint fresh, u64 start, u64 end) noexcept nogil:
        """Data into clusters that nobody refers to yet, which begin at `host` for the disk's `start` rounded down to a
        cluster; from `start` and up to `end` the old contents go with them. `fresh`: the file has zeros there.
        """
        cdef u64 head = offset - start, tail = end - (offset + bytes), base = start & ~(self.cluster_size - 1)
        cdef u8 *memory = NULL
        cdef IoVec vector
        cdef Cursor cursor
        cdef int error = 0
        cdef u32 flags = NODE_STATE if start >= self.size else 0
        if head or tail:
            memory = <u8 *>malloc(head if head > tail else tail)
            if memory == NULL:
                return ENOMEM
        if head:
            self.file.event(EVENT_COW_READ)
            cursor_memory(&cursor, &vector, memory, head)
            error = self.inner_read(start, head, &cursor, flags)
            if error == 0 and not (fresh and memory_zero(memory, head)):
                self.file.event(EVENT_COW_WRITE)
                cursor_memory(&cursor, &vector, memory, head)
                error = self.data.writev(host + (start - base), head, &cursor, 0)
        if tail and error == 0:
            self.file.event(EVENT_COW_READ)
            cursor_memory(&cursor, &vector, memory, tail)
            error = self.inner_read(offset + bytes, tail, &cursor, flags)
            if error == 0 and not (fresh and memory_zero(memory, tail)):
                self.file.event(EVENT_COW_WRITE)
                cursor_memory(&cursor, &vector, memory, tail)
                error = self.data.writev(host + (offset + bytes - base), tail, &cursor, 0)
        if error == 0:
            self.file.event(EVENT_WRITE_AIO)
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
                return ENOMEDIUM
            error = self.map(offset, bytes, &m, False, True)
            if error:
                pthread_mutex_unlock(&self.mutex)
                return error
            if m.type == NORMAL and m.copied:
                error = self.check_data(m.host, m.length)
                pthread_mutex_unlock(&self.mutex)
                if error == 0:
                    self.file.event(EVENT_WRITE_AIO)
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
            error = self.corrupt(FAULT_DATA, host, offset) if host & mask else self.check_data(host, self.cluster_size)
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
        if self.broken:
            error = ENOMEDIUM                           # its tables are not written any more
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
        if self.asleep:
            return EPERM
        if self.readonly or offset > self.size or bytes > ((self.size + 511) & ~<u64>511) - offset:
            return EIO
        pthread_rwlock_rdlock(&self.graph)
        error = self.inner_write(offset, bytes, source)
        pthread_rwlock_unlock(&self.graph)
        self.note(offset, bytes)
        if error == 0 and self.freed_count > ENOUGH_FREED:
            error = self.settle()
        if error == 0 and flags & NODE_FUA:
            error = self.flush()
        return error

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        """Into clusters that are the disk's alone, by what is known of the tables."""
        cdef Mapping m
        cdef int error = 0
        if self.readonly or self.asleep or self.broken or self.mark_count or offset > self.size or bytes > self.size - offset:
            return EOPNOTSUPP
        if pthread_rwlock_tryrdlock(&self.graph) != 0:
            return EAGAIN
        while bytes and error == 0:
            if pthread_mutex_trylock(&self.mutex) != 0:
                error = EAGAIN
                break
            error = self.map(offset, bytes, &m, True)
            if error == 0 and (m.type != NORMAL or not m.copied or not self.external and self.overlap(m.host, m.length)):
                error = EOPNOTSUPP
            pthread_mutex_unlock(&self.mutex)
            if error == 0:
                error = self.data.write_now(m.host, m.length, source, flags)
            offset += m.length
            bytes -= m.length
        pthread_rwlock_unlock(&self.graph)
        return error

    cdef int flush(self) noexcept nogil:
        cdef int error
        if self.readonly or self.asleep:
            return 0
        if self.broken:
            return ENOMEDIUM
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
            if slot == NULL and (full or discard and self.backing is None):
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
        if self.readonly or self.asleep:
            return EPERM if self.asleep else EIO
        if self.broken:
            return ENOMEDIUM
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
        self.note(offset, end - offset)
        if error == 0 and self.external and self.passes_discards:
            error = self.data.discard(offset, end - offset)
        return error

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef u64 end = offset + bytes, first, last, mask = self.gran - 1
        cdef bint plain = self.version < 3
        cdef int error = 0
        if self.readonly or self.asleep:
            return EPERM if self.asleep else EIO
        if self.broken:
            return ENOMEDIUM
        if bytes == 0:
            return 0
        first, last = (offset + mask) & ~mask, end & ~mask
        if end >= self.size:
            last = (end + mask) & ~mask
        # Version 2 has no zero clusters: what has no place and no backing image is zeros there.
        if self.raw_external or plain and self.backing is not None:
            return self.zero_slowly(offset, bytes, flags)
        # Zeros are said of themselves even where there is nothing yet and no backing image: the image may get one.
        pthread_rwlock_wrlock(&self.graph)
        if first > offset and self.is_hollow(first - self.gran, offset, end):
            first -= self.gran
            offset = first
        if end > last and last >= first and self.is_hollow(last, offset, end):
            last += self.gran
            end = last
        if first < last:
            error = self.inner_zero(first, last - first, NODE_UNMAP if plain else flags, plain, plain)
        pthread_rwlock_unlock(&self.graph)
        if first >= last:
            return self.zero_slowly(offset, bytes, flags)
        if error == EOPNOTSUPP:
            error = self.zero_slowly(first, (last if last < self.size else self.size) - first, 0)
        if error == 0 and offset < first:
            error = self.zero_slowly(offset, first - offset, 0)
        if error == 0 and end > last:
            error = self.zero_slowly(last, end - last, 0)
        self.note(offset, bytes)
        if error == 0 and flags & NODE_FUA:
            error = self.flush()
        return error

    def _zeros_below(self, u64 offset, u64 bytes):
        from vmrun.backends.block.chain import seen

        end = min(offset + bytes, self.backing.size)
        try:
            while offset < end:
                length, _, zero = seen(self.backing, offset, end - offset)
                if not zero:
                    return False
                offset += length
        except OSError:
            return False                                # what is there is copied, and that fails then
        return True

    cdef bint is_hollow(self, u64 offset, u64 start, u64 stop) noexcept nogil:
        """Whether the granule there has no data of its own, and what is below reads as zeros outside start … stop, by what
        the tables say; with `graph` exclusively."""
        cdef Mapping m
        cdef u64 end = offset + self.gran, to
        cdef int error
        while offset < end:
            pthread_mutex_lock(&self.mutex)
            error = self.map(offset, end - offset, &m, False)
            pthread_mutex_unlock(&self.mutex)
            if error or m.type in (NORMAL, COMPRESSED):
                return False
            if m.type == UNALLOCATED and self.backing is not None and offset < self.backing.size:
                to = offset + m.length
                with gil:
                    if offset < start and not self._zeros_below(offset, min(to, start) - offset):
                        return False
                    if to > stop and not self._zeros_below(max(offset, stop), to - max(offset, stop)):
                        return False
            offset += m.length
        return True

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
            if not extent.flags & EXTENT_ZERO:
                error = Node.zero(self, offset, step, flags)
            offset += step
            bytes -= step
        return error

    # --- compressed clusters ---------------------------------------------------------------------------------------

    def write_compressed(self, u64 offset, memory):
        """A cluster, compressed where that makes it smaller. Shorter only at the disk's end."""
        cdef Py_buffer view
        cdef int error = EINVAL
        PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
        if not offset & (self.cluster_size - 1) and 0 < <u64>view.len <= self.cluster_size and not self.external:
            with nogil:
                error = self.deflate_cluster(offset, <const u8 *>view.buf, <u64>view.len)
                self.note(offset, <u64>view.len)
        PyBuffer_Release(&view)
        if error:
            raise OSError(error, os.strerror(error))

    cdef int deflate_cluster(self, u64 offset, const u8 *data, u64 size) noexcept nogil:
        cdef u8 *packed = <u8 *>malloc(self.cluster_size)
        cdef u8 *whole = NULL
        cdef u64 got = 0, place = 0, sectors
        cdef u32 at = 0, shift = 62 - (self.cluster_bits - 8)
        cdef Slot *slot
        cdef int error = 0
        if packed == NULL:
            return ENOMEM
        if size < self.cluster_size:
            whole = <u8 *>calloc(1, self.cluster_size)
            if whole == NULL:
                free(packed)
                return ENOMEM
            memcpy(whole, data, size)
            data = whole
        got = pack_cluster(self.zstd, data, self.cluster_size, packed)
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
