"""Snapshots inside a qcow2 image, and other sizes of it: what changes the tables as a whole, with nothing else going on."""

import os
import struct

from accel.api cimport u8, u32, u64
from accel.threads cimport (
    pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, pthread_rwlock_rdlock, pthread_rwlock_t,
    pthread_rwlock_unlock, pthread_rwlock_wrlock,
)
from vmrun.backends.block.node cimport NODE_STATE, NODE_UNMAP, Cursor, cursor_memory
from vmrun.backends.block.qcow2 cimport Qcow2Node
from vmrun.backends.block.qcow2_cache cimport COPIED, OFFSET, PACKED, get64, put64
from vmrun.backends.protocols cimport IoVec

cdef int raise_counts(Qcow2Node node, const u8 *l1, u64 l1_size, int step, bint copied) except -1:
    """One reference more or less of all that an L1 table reaches, and of its L2 tables; COPIED flags of the active tables
    follow when `copied`. With all locks.
    """
    cdef u64 n, table, entry, offset, first, last, mask = node.cluster_size - 1, count, wanted
    cdef u32 at, shift = 62 - (node.cluster_bits - 8)
    cdef u8 *l2
    cdef int error = 0
    for n in range(l1_size):
        table = get64(l1 + n * 8) & OFFSET
        if table == 0:
            continue
        if table & mask:
            raise OSError(5, "an L2 table is not aligned")
        data = bytearray(node.file.read(table, node.cluster_size))
        l2 = data
        at = 0
        while at < node.cluster_size and step:
            entry = get64(l2 + at)
            if entry & PACKED:
                offset = entry & ((<u64>1 << shift) - 1)
                first = offset >> node.cluster_bits
                last = ((offset & ~<u64>511) + ((entry >> shift & ((<u64>1 << (node.cluster_bits - 8)) - 1)) + 1) * 512 - 1)
                last >>= node.cluster_bits
                error = node.change_refcount(first, last - first + 1, step, True)
            elif entry & OFFSET and not node.external:
                if entry & OFFSET & mask:
                    raise OSError(5, "a cluster is not aligned")
                error = node.change_refcount((entry & OFFSET) >> node.cluster_bits, 1, step, True)
            if error:
                raise OSError(error, os.strerror(error))
            at += node.entry_size
        if step:
            error = node.change_refcount(table >> node.cluster_bits, 1, step, True)
            if error:
                raise OSError(error, os.strerror(error))
    return 0


cdef int fix_flags(Qcow2Node node) except -1:
    """COPIED of the active tables as the counts say."""
    cdef u64 n, table, entry, count = 0, fixed, mask = node.cluster_size - 1
    cdef u32 at
    cdef u8 *l2
    for n in range(node.l1_size):
        table = node.l1[n] & OFFSET
        if table == 0 or table & mask:
            continue
        data = bytearray(node.file.read(table, node.cluster_size))
        l2 = data
        changed = False
        at = 0
        while at < node.cluster_size:
            entry = get64(l2 + at)
            if entry & OFFSET and not entry & PACKED and not node.external:
                node.get_refcount((entry & OFFSET) >> node.cluster_bits, &count)
                fixed = entry & ~COPIED | (COPIED if count == 1 else 0)
                if fixed != entry:
                    put64(l2 + at, fixed)
                    changed = True
            at += node.entry_size
        if changed:
            node.l2.drop(table, node.cluster_size)
            node.file.write(table, data)
        node.get_refcount(table >> node.cluster_bits, &count)
        node.l1[n] = table | (COPIED if count == 1 else 0)
    return 0


cdef write_active_l1(Qcow2Node node):
    cdef u64 n
    raw = bytearray(node.l1_size * 8)
    cdef u8 *data = raw
    for n in range(node.l1_size):
        put64(data + n * 8, node.l1[n])
    if raw:
        node.file.write(node.l1_offset, raw)


cdef u64 place(Qcow2Node node, u64 size) except? 0:
    """Clusters for a table of `size` bytes."""
    cdef u64 offset = 0, got = 0
    cdef int error
    if size == 0:
        return 0
    error = node.allocate((size + node.cluster_size - 1) >> node.cluster_bits, True, &offset, &got)
    if error:
        raise OSError(error, os.strerror(error))
    return offset


cdef forget(Qcow2Node node, u64 offset, u64 size):
    cdef int error
    if size:
        error = node.change_refcount(offset >> node.cluster_bits, (size + node.cluster_size - 1) >> node.cluster_bits, -1, True)
        if error:
            raise OSError(error, os.strerror(error))


cdef flush_all(Qcow2Node node):
    cdef int error = node.apply_freed()
    if error == 0:
        error = node.flush_meta()
    if error == 0:
        error = node.write_slots(node.blocks, 0)
    if error == 0:
        error = node.file.flush()
    if error:
        raise OSError(error, os.strerror(error))


cdef write_snapshots(Qcow2Node node, list snapshots, bint kept=False):
    """The table anew, then the header, then the old one is free; `kept`: not yet, for it may be anything's."""
    cdef u64 old = node.header.snapshots_offset, offset
    old_size = node.header.snapshots_size
    data = b"".join(snapshot.pack() for snapshot in snapshots)
    if len(data) > 64 << 20 or len(snapshots) > 65536:
        raise OSError(27, "Too many snapshots")
    offset = place(node, len(data))
    if data:
        node.file.write(offset, data.ljust(-(-len(data) // node.cluster_size) * node.cluster_size, b"\0"))
    flush_all(node)
    node.file.write(60, struct.pack(">IQ", len(snapshots), offset))
    node.file.sync()
    node.header.nb_snapshots, node.header.snapshots_offset = len(snapshots), offset
    node.header.snapshots_size = len(data)
    node.snapshots = snapshots
    node.keep_off()
    if not kept:
        forget(node, old, old_size)


cdef tables_of(Qcow2Node node, snapshot):
    """A snapshot's L1 table. OSError where it is not one."""
    if snapshot.fault:
        raise OSError(27 if snapshot.fault.endswith("large") else 22, snapshot.fault)
    return node.file.read(snapshot.l1_table_offset, snapshot.l1_size * 8)


class Whole:
    """Nothing else goes on in the image meanwhile."""

    def __init__(self, Qcow2Node node):
        self.node = node

    def __enter__(self):
        cdef Qcow2Node node = self.node
        with nogil:
            pthread_rwlock_wrlock(<pthread_rwlock_t *>&node.graph)
            pthread_mutex_lock(<pthread_mutex_t *>&node.mutex)

    def __exit__(self, *exc):
        cdef Qcow2Node node = self.node
        pthread_mutex_unlock(<pthread_mutex_t *>&node.mutex)
        pthread_rwlock_unlock(<pthread_rwlock_t *>&node.graph)


def create_snapshot(Qcow2Node node, snapshot):
    """Keep the disk as it is now. `snapshot`: id, name and dates are filled in."""
    cdef u64 offset
    if node.external:
        raise OSError(95, "snapshots of images with an external data file are not supported")
    with Whole(node):
        flush_all(node)
        raw = node.file.read(node.l1_offset, node.l1_size * 8)
        offset = place(node, len(raw))
        node.file.write(offset, raw)
        raise_counts(node, raw, node.l1_size, 1, False)
        flush_all(node)
        snapshot.l1_table_offset, snapshot.l1_size, snapshot.disk_size = offset, node.l1_size, node.size
        fix_flags(node)
        write_active_l1(node)
        write_snapshots(node, [*node.snapshots, snapshot])
        flush_all(node)


def write_state(Qcow2Node node, read, u64 size):
    """Keep `size` bytes behind the disk's end, where the next snapshot takes them along; read(n) gives the next n. They
    are the snapshot's alone after drop_state().
    """
    cdef u64 at = 0, step
    _reserve_state(node, size)
    while at < size:
        step = min(size - at, max(<u64>1 << 20, node.cluster_size))
        held = read(step).ljust((step + node.cluster_size - 1) // node.cluster_size * node.cluster_size, b"\0")
        put_state(node, at, held)
        at += len(held)
    node.sync()


def state_offset(Qcow2Node node):
    """Where the state begins, as the disk counts."""
    return node.header.l1_needed(node.size) * node.cluster_size * node.header.l2_entries


cdef _reserve_state(Qcow2Node node, u64 end):
    """Tables for a state of so many bytes."""
    cdef u64 span = node.cluster_size * node.header.l2_entries
    cdef u64 needed = node.header.l1_needed(node.size) + end // span + (end % span != 0)
    if needed * 8 > 32 << 20:
        raise OSError(27, "the state is too large for the image")
    with Whole(node):
        if needed > node.l1_size:
            _grow_l1(node, needed)


def put_state(Qcow2Node node, u64 offset, const u8[::1] data):
    """Write a piece of the state that the next snapshot takes along."""
    cdef u64 first = state_offset(node), count = data.shape[0]
    cdef Cursor cursor
    cdef IoVec vector
    cdef int error = 0
    if count == 0:
        return
    _reserve_state(node, offset + count)
    with nogil:
        cursor_memory(&cursor, &vector, <void *>&data[0], count)
        pthread_rwlock_rdlock(<pthread_rwlock_t *>&node.graph)
        error = node.inner_write(first + offset, count, &cursor)
        pthread_rwlock_unlock(<pthread_rwlock_t *>&node.graph)
    if error:
        raise OSError(error, os.strerror(error))


def get_state(Qcow2Node node, u64 offset, u64 count):
    """A piece of it. What was never written is zeros."""
    cdef u64 first = state_offset(node)
    cdef Cursor cursor
    cdef IoVec vector
    cdef int error = 0
    cdef bytearray found = bytearray(count)
    cdef u8 *memory = found
    with nogil:
        cursor_memory(&cursor, &vector, memory, count)
        pthread_rwlock_rdlock(<pthread_rwlock_t *>&node.graph)
        error = node.inner_read(first + offset, count, &cursor, NODE_STATE)
        pthread_rwlock_unlock(<pthread_rwlock_t *>&node.graph)
    if error:
        raise OSError(error, os.strerror(error))
    return bytes(found)


def drop_state(Qcow2Node node):
    """What lies behind the disk's end belongs to snapshots alone from now on."""
    cdef u64 span = node.cluster_size * node.header.l2_entries, first = state_offset(node)
    cdef int error = 0
    if first < node.l1_size * span:
        with nogil:
            pthread_rwlock_wrlock(<pthread_rwlock_t *>&node.graph)
            error = node.inner_zero(first, node.l1_size * span - first, NODE_UNMAP, True, True)
            pthread_rwlock_unlock(<pthread_rwlock_t *>&node.graph)
    if error:
        raise OSError(error, os.strerror(error))
    node.sync()


def read_state(Qcow2Node node, snapshot):
    """The pieces of what write_state() kept with a snapshot."""
    cdef u64 span = node.cluster_size * node.header.l2_entries, left = snapshot.vm_state_size, place
    cdef u64 index = node.header.l1_needed(snapshot.disk_size)
    cdef u32 at
    cdef const u8 *table
    raw = tables_of(node, snapshot)
    while left:
        place = get64(<const u8 *><char *>raw + index * 8) & OFFSET if index < snapshot.l1_size else 0
        held = node.file.read(place, node.cluster_size) if place else bytes(node.cluster_size)
        table = held
        index += 1
        at = 0
        while at < node.cluster_size and left:
            place = get64(table + at) & OFFSET
            if get64(table + at) & PACKED or place & (node.cluster_size - 1):
                raise OSError(5, "the snapshot's state is damaged")
            piece = node.file.read(place, min(left, node.cluster_size)) if place else bytes(min(left, node.cluster_size))
            left -= len(piece)
            yield piece
            at += node.entry_size


cdef _grow_l1(Qcow2Node node, u64 needed):
    """A longer L1 table, in its own place; with all locks."""
    cdef u64 offset, old_offset, old_size
    raw = node.file.read(node.l1_offset, node.l1_size * 8)
    offset = place(node, needed * 8)
    node.file.write(offset, raw.ljust((needed * 8 + node.cluster_size - 1) // node.cluster_size * node.cluster_size, b"\0"))
    flush_all(node)
    old_offset, old_size = node.l1_offset, node.l1_size * 8
    node.header.l1_size, node.header.l1_table_offset = needed, offset
    node.file.write(36, struct.pack(">IQ", needed, offset))
    node.file.sync()
    node.set_l1(offset, needed)
    forget(node, old_offset, old_size)


def delete_snapshot(Qcow2Node node, snapshot):
    with Whole(node):
        flush_all(node)
        raw = tables_of(node, snapshot)
        write_snapshots(node, [other for other in node.snapshots if other is not snapshot])
        raise_counts(node, raw, snapshot.l1_size, -1, False)
        forget(node, snapshot.l1_table_offset, snapshot.l1_size * 8)
        flush_all(node)
        fix_flags(node)
        write_active_l1(node)
        flush_all(node)


def apply_snapshot(Qcow2Node node, snapshot):
    """The disk as it was then."""
    cdef u64 n
    cdef const u8 *data
    cdef bytes then, now
    with Whole(node):
        then = tables_of(node, snapshot)
        flush_all(node)
        if snapshot.disk_size != node.size:
            _resize(node, snapshot.disk_size)
        if snapshot.l1_size > node.l1_size:
            _grow_l1(node, snapshot.l1_size)
        now = node.file.read(node.l1_offset, node.l1_size * 8)
        if snapshot.l1_size > node.l1_size and any(then[node.l1_size * 8:]):
            raise OSError(22, "the snapshot's tables are longer than the image's")
        then = then[: node.l1_size * 8].ljust(node.l1_size * 8, b"\0")
        raise_counts(node, then, node.l1_size, 1, False)
        flush_all(node)
        data = then
        for n in range(node.l1_size):
            node.l1[n] = get64(data + n * 8) & OFFSET
        node.tables_changed()
        write_active_l1(node)
        flush_all(node)
        raise_counts(node, now, node.l1_size, -1, False)
        flush_all(node)
        fix_flags(node)
        write_active_l1(node)
        flush_all(node)


cdef _resize(Qcow2Node node, u64 size):
    """Header and L1 for another size; with all locks."""
    cdef u64 needed = node.header.l1_needed(size)
    if needed * 8 > 32 << 20:
        raise OSError(27, "Image size too large")
    if needed > node.l1_size:
        needed = max(needed, min(node.l1_size * 3 // 2, (32 << 20) // 8))
        _grow_l1(node, needed)
    node.header.size = size
    node.file.write(24, struct.pack(">Q", size))
    node.size = size
    flush_all(node)


def view_snapshot(Qcow2Node node, snapshot):
    """An image that is only read shows the disk as it was then, in the image's own size."""
    cdef u64 n, entries
    cdef const u8 *data
    if not node.readonly:
        raise OSError(22, "the image is open for writing")
    raw = tables_of(node, snapshot)
    data = raw
    entries = min(<u64>snapshot.l1_size, node.l1_size)
    with Whole(node):
        for n in range(node.l1_size):
            node.l1[n] = get64(data + n * 8) if n < entries else 0
        node.tables_changed()


def make_empty(Qcow2Node node):
    """Give all clusters up: the backing image shows everywhere."""
    cdef int error
    cdef u64 end = (node.size + node.cluster_size - 1) & ~(node.cluster_size - 1)
    with nogil:
        pthread_rwlock_wrlock(<pthread_rwlock_t *>&node.graph)
        error = node.inner_zero(0, end, 4, True, True)
        pthread_rwlock_unlock(<pthread_rwlock_t *>&node.graph)
    if error:
        raise OSError(error, os.strerror(error))
    node.sync()


def resize(Qcow2Node node, u64 size):
    """Another size. What is cut off is given up; what is new reads as zeros."""
    cdef u64 old = node.size, end, mask = node.cluster_size - 1
    cdef int error
    if size < old:
        end = (old + mask) & ~mask
        with nogil:
            pthread_rwlock_wrlock(<pthread_rwlock_t *>&node.graph)
            error = node.inner_zero((size + mask) & ~mask, end - ((size + mask) & ~mask), 4, True, True)
            pthread_rwlock_unlock(<pthread_rwlock_t *>&node.graph)
        if error:
            raise OSError(error, os.strerror(error))
        if size & mask:
            node.write_zeroes(size, min(old, (size + mask) & ~mask) - size)
        node.sync()
    with Whole(node):
        _resize(node, size)
    if node.external and node.data.size < size:
        node.data.truncate(size)
    elif size > old and node.backing is not None and node.backing.size > old:
        node.write_zeroes(old, min(size, node.backing.size) - old)
    node.sync()
