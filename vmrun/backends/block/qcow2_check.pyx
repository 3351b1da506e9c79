"""Checks of a qcow2 image's counts of references, and their repair.

Every cluster that a table refers to is counted in memory (four bytes a cluster, at most 2^28 clusters) and compared with
what the image says. The sentences are QEMU's.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

import os
import struct

from accel.api cimport u8, u32, u64
from vmrun.backends.block.qcow2 cimport Qcow2Node
from vmrun.backends.block import qcow2_header as headers
from vmrun.backends.block.qcow2_image cimport FAULT_HEADER, FAULT_OVER_L1, FAULT_OVER_L2
from vmrun.backends.block.qcow2_snapshots cimport write_snapshots
from vmrun.backends.block.qcow2_cache cimport COPIED, LOW, OFFSET, PACKED, Slot, get64, get_count, put64, put_count

cdef u64 MOST_CLUSTERS = 1 << 28
# bits of entries that have no meaning
cdef u64 RESERVED_L1 = <u64>0x7F000000000001FF
cdef u64 RESERVED_L2 = <u64>0x3F000000000001FE


class Result:
    """What a check has found: QEMU's ImageCheck."""

    def __init__(self):
        self.corruptions = self.leaks = self.errors = 0
        self.corruptions_fixed = self.leaks_fixed = 0
        self.total_clusters = self.allocated_clusters = self.fragmented_clusters = self.compressed_clusters = 0
        self.image_end_offset = 0


cdef class Counter:
    """References to each cluster of the file, as the tables have them."""

    cdef Qcow2Node node
    cdef u32 *counts
    cdef u64 clusters
    cdef object result, say, flags
    cdef bint repairs

    def __init__(self, Qcow2Node node, result, say, bint repairs):
        self.node, self.result, self.say, self.repairs = node, result, say, repairs
        self.clusters = (node.file.size + node.cluster_size - 1) >> node.cluster_bits
        if self.clusters > MOST_CLUSTERS:
            raise OSError(27, "the image has too many clusters to be checked")
        self.counts = <u32 *>calloc(self.clusters + 2, 4)
        if self.counts == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.counts)

    cdef bint add(self, u64 offset, u64 size):
        """References to the clusters of a range. False: it is not in the file."""
        cdef u64 first = offset >> self.node.cluster_bits, last
        if size == 0:
            return True
        last = (offset + size - 1) >> self.node.cluster_bits
        if offset + size > <u64>1 << 62 or offset + size >= self.node.file.size + self.node.cluster_size:
            self.say(f"ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
                     f"offset 0x{offset:x} size 0x{size:x}\n")
            self.result.corruptions += 1
            return False
        if last >= self.clusters:                   # a part of one that the file ends in, or before
            self.clusters = last + 1
        while first <= last:
            if self.counts[first] == self.node.most_refcount:
                self.say(f"ERROR: overflow cluster offset=0x{first << self.node.cluster_bits:x}\n"
                         "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean "
                         "copy if the image cannot be opened for writing\n")
                self.result.corruptions += 1
            else:
                self.counts[first] += 1
            first += 1
        return True

    cdef tables(self, u64 l1_offset, u64 l1_size, bint active):
        """An L1 table and all below it."""
        cdef u64 n, table, entry, offset, sectors, next_host = 0, mask = self.node.cluster_size - 1
        cdef u32 at, entry_size = self.node.entry_size, shift = 62 - (self.node.cluster_bits - 8)
        cdef u8 *l2
        cdef const u8 *l1
        self.add(l1_offset, l1_size * 8)            # one that leaves the file has entries all the same
        if l1_offset + l1_size * 8 > headers.MOST_OFFSET:
            self.say("ERROR: I/O error in check_refcounts_l1\n")
            raise headers.InUse("Check failed: Input/output error", 5)
        raw = self.node.file.read(l1_offset, l1_size * 8)
        l1 = raw
        for n in range(l1_size):
            entry = get64(l1 + n * 8)
            table = entry & OFFSET
            if entry == 0:
                continue
            if entry & RESERVED_L1:
                self.say(f"ERROR found L1 entry with reserved bits set: {entry:x}\n")
                self.result.corruptions += 1
            self.add(table, self.node.cluster_size)
            if table & mask:
                self.say(f"ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted\n")
                self.result.corruptions += 1
            data = self.node.file.read(table, self.node.cluster_size)
            l2 = data
            at, next_host = 0, 0
            while at < self.node.cluster_size:
                entry = get64(l2 + at)
                if self.node.ext:
                    self.subclusters(entry, get64(l2 + at + 8))
                if entry & PACKED:
                    offset = entry & ((<u64>1 << shift) - 1)
                    sectors = (entry >> shift & ((<u64>1 << (self.node.cluster_bits - 8)) - 1)) + 1
                    if entry & COPIED:
                        self.say(f"ERROR: coffset=0x{offset:x}: copied flag must never be set for compressed clusters\n")
                        self.result.corruptions += 1
                    if self.node.external:
                        self.say(f"ERROR compressed cluster {at // entry_size} with data file, entry=0x{entry:x}\n")
                        self.result.corruptions += 1
                    else:
                        self.add(offset & ~<u64>511, sectors * 512)
                    if active:
                        self.result.compressed_clusters += 1
                        self.result.allocated_clusters += 1
                        self.result.fragmented_clusters += 1
                else:
                    offset = entry & OFFSET
                    if entry & RESERVED_L2 or self.node.ext and entry & 1:
                        self.say(f"ERROR found l2 entry with reserved bits set: {entry:x}\n")
                        self.result.corruptions += 1
                    if offset or self.node.external and entry & COPIED:
                        if offset & mask:
                            bare = self.node.version >= 3 and not self.node.ext and entry & 1
                            self.say(f"ERROR offset={offset:x}: {'Preallocated' if bare else 'Data'} cluster is not properly "
                                     "aligned; L2 entry corrupted.\n")
                            self.result.corruptions += 1
                        if active:
                            self.result.allocated_clusters += 1
                            if next_host and offset != next_host:
                                self.result.fragmented_clusters += 1
                            next_host = offset + self.node.cluster_size
                        if not self.node.external:
                            self.add(offset, self.node.cluster_size)
                at += entry_size

    cdef subclusters(self, u64 entry, u64 bitmap):
        """The bitmap of an extended entry: data only where there is a cluster, and not both data and zeros."""
        cdef u64 data = bitmap & LOW, zeros = bitmap >> 32
        if entry & PACKED:
            if bitmap:
                self.say("ERROR compressed cluster with non-zero subcluster allocation bitmap, entry="
                         f"0x{entry:016x}\n")
                self.result.corruptions += 1
        elif not entry & OFFSET and not (self.node.external and entry & COPIED):
            if data:
                self.say("ERROR: Unallocated cluster has non-zero subcluster allocation map\n")
                self.result.corruptions += 1
        elif data & zeros:
            self.say(f"ERROR offset={entry & OFFSET:x}: Allocated cluster has corrupted subcluster allocation bitmap\n")
            self.result.corruptions += 1

    cdef copied_flags(self, u64 l1_offset, u64 l1_size, bint repair):
        """COPIED is set where the count is one, in the active tables."""
        cdef u64 n, entry, count, table, mask = self.node.cluster_size - 1, fixed
        cdef u32 at
        cdef u8 *l2
        for n in range(l1_size):
            entry = self.node.l1[n]
            table = entry & OFFSET
            if table == 0 or table & mask or table >> self.node.cluster_bits >= self.clusters:
                continue
            count = self.known(table >> self.node.cluster_bits)
            if (entry >> 63) != (count == 1):
                self.say(f"{'Repairing' if repair else 'ERROR'} OFLAG_COPIED L2 cluster: l1_index={n} "
                         f"l1_entry={entry:x} refcount={count}\n")
                self.result.corruptions += 1
                if repair:
                    self.free_to_write(self.node.l1_offset, self.node.l1_size * 8, FAULT_OVER_L1)
                    self.node.l1[n] = table | (COPIED if count == 1 else 0)
                    if self.node.write_l1(n):
                        self.result.errors += 1
                    else:
                        self.result.corruptions_fixed += 1
            data = bytearray(self.node.file.read(table, self.node.cluster_size))
            l2 = data
            changed = 0
            at = 0
            while at < self.node.cluster_size:
                entry = get64(l2 + at)
                if entry & OFFSET and not entry & PACKED and not entry & OFFSET & mask:
                    if self.node.external or (entry & OFFSET) >> self.node.cluster_bits < self.clusters:
                        # nobody else refers to what is in a data file
                        count = 1 if self.node.external else self.known((entry & OFFSET) >> self.node.cluster_bits)
                        if (entry >> 63) != (count == 1):
                            self.say(f"{'Repairing' if repair else 'ERROR'} OFLAG_COPIED data cluster: "
                                     f"l2_entry={entry:x} refcount={count}\n")
                            self.result.corruptions += 1
                            fixed = entry & ~COPIED | (COPIED if count == 1 else 0)
                            put64(l2 + at, fixed)
                            changed += 1
                at += self.node.entry_size
            if changed and repair:
                self.free_to_write(table, self.node.cluster_size, FAULT_OVER_L2)
                self.node.l2.drop(table, self.node.cluster_size)
                self.node.file.write(table, data)
                self.result.corruptions_fixed += changed

    cdef free_to_write(self, u64 place, u64 size, int itself):
        """QcowError when a table that is to be mended lies in another: whichever is written spoils one of them."""
        cdef u32 checks = self.node.overlap_checks
        cdef int over
        self.node.overlap_checks &= ~(1 << (itself - FAULT_HEADER))
        over = self.node.overlap(place, size)
        self.node.overlap_checks = checks
        if over:
            self.node.corrupt(over, place, 0, 0, size)
            raise headers.InUse("Check failed: Input/output error", 5)

    cdef u64 known(self, u64 cluster):
        """What the image says."""
        cdef u64 count = 0
        if self.node.get_refcount(cluster, &count):
            return 0
        return count

    def run(self, repair):
        cdef Qcow2Node node = self.node
        cdef u64 n, count, block, last_used = 0
        header = node.header
        result = self.result
        result.total_clusters = (node.size + node.cluster_size - 1) >> node.cluster_bits
        self.add(0, node.cluster_size)
        self.tables(node.l1_offset, node.l1_size, True)
        for snapshot in node.snapshots:
            if snapshot.fault:
                place = snapshot.l1_table_offset
                what = f"offset={place:#x}: L1 table is not cluster aligned" if place & (node.cluster_size - 1) else (
                    f"size={snapshot.l1_size:#x}: L1 table is too large")
                self.say(f"ERROR snapshot {snapshot.id} ({snapshot.name}) l1_{what}; snapshot table entry corrupted\n")
                result.corruptions += 1
                continue
            self.tables(snapshot.l1_table_offset, snapshot.l1_size, False)
        self.add(header.snapshots_offset, header.snapshots_size)
        if header.bitmaps:
            self.bitmaps(header)
        for kind, data in header.extensions:
            if kind == 0x0537BE77 and len(data) == 16:
                offset, length = struct.unpack(">QQ", data)
                self.add(offset, length)
        self.add(node.reftable_offset, node.reftable_size * 8)
        rebuild = False
        for n in range(node.reftable_size):
            block = node.reftable[n] & ~<u64>511
            if node.reftable[n] & 511:
                self.say(f"ERROR refcount table entry {n} has reserved bits set\n")
                result.corruptions += 1
                rebuild = True
                continue
            if block == 0:
                continue
            if block & (node.cluster_size - 1):
                self.say(f"ERROR refcount block {n} is not cluster aligned; refcount table entry corrupted\n")
                result.corruptions += 1
                rebuild = True
            elif block >> node.cluster_bits >= self.clusters:
                self.say(f"{'Repairing' if repair == 'all' else 'ERROR'} refcount block {n} is outside image\n")
                result.corruptions += 1
                rebuild = rebuild or repair == "all"
            else:
                self.add(block, node.cluster_size)
                if self.counts[block >> node.cluster_bits] != 1:
                    self.say(f"ERROR refcount block {n} refcount={self.counts[block >> node.cluster_bits]}\n")
                    result.corruptions += 1
                    rebuild = True
        before = result.leaks, result.corruptions
        rebuild = self.compare(None) or rebuild
        if rebuild and repair == "leaks":           # what counts as free is in use: nothing that is freed would be sure
            self.say("ERROR need to rebuild refcount structures\n")
            raise headers.InUse("Check failed: Input/output error", 5)
        if rebuild and repair == "all":
            result.leaks = 0
            self.rebuild()
            self.copied_flags(node.l1_offset, node.l1_size, True)
            return
        if repair and (result.leaks, result.corruptions) != before:
            result.leaks, result.corruptions = before
            self.compare(repair)
        sound = not result.errors and (result.leaks, result.corruptions) == (result.leaks_fixed, result.corruptions_fixed)
        self.copied_flags(node.l1_offset, node.l1_size, repair == "all" or repair == "leaks" and sound)
        for n in range(self.clusters):
            if self.counts[n] or self.known(n):
                last_used = n + 1
        result.image_end_offset = last_used << node.cluster_bits

    cdef bitmaps(self, header):
        number, size, offset = header.bitmaps
        self.add(offset, size)
        try:
            found = headers.parse_bitmaps(header, self.node.file.read)
        except headers.QcowError:
            self.result.corruptions += 1
            return
        for bitmap in found:
            if bitmap["entries"] > 1 << 23:
                self.result.corruptions += 1
                continue
            self.add(bitmap["table"], bitmap["entries"] * 8)
            for entry in struct.unpack(f">{bitmap['entries']}Q", self.node.file.read(bitmap["table"], bitmap["entries"] * 8)):
                if entry & OFFSET:
                    self.add(entry & OFFSET, self.node.cluster_size)

    cdef bint compare(self, repair):
        """What the image says beside what there is. Whether clusters that are in use count as free: what writes next
        would overwrite them, so the counts are made anew rather than mended one by one.
        """
        cdef u64 n, count, wanted
        cdef bint lost = False
        cdef int error
        cdef Slot *slot
        cdef u64 per = self.node.blocks.slice * 8 >> self.node.refcount_order
        cdef u64 most = self.clusters
        result = self.result
        for n in range(most):
            wanted = self.counts[n]
            error = self.node.get_refcount(n, &count)
            if error:
                self.say(f"Can't get refcount for cluster {n}: {os.strerror(error)}\n")
                result.errors += 1
                continue
            if count == wanted:
                continue
            leak = count > wanted
            fixes = repair == "all" or repair == "leaks" and leak
            word = "Repairing" if fixes else "Leaked" if leak else "ERROR"
            self.say(f"{word} cluster {n} refcount={count} reference={wanted}\n")
            if leak:
                result.leaks += 1
            else:
                result.corruptions += 1
                lost = lost or count == 0
            if fixes:
                if self.set_count(n, wanted) == 0:
                    if leak:
                        result.leaks_fixed += 1
                    else:
                        result.corruptions_fixed += 1
                else:
                    result.errors += 1
        return lost

    cdef int set_count(self, u64 cluster, u64 count):
        cdef Slot *slot
        cdef u64 at, low, width = 1 << (self.node.refcount_order - 3) if self.node.refcount_order > 3 else 1
        cdef int error
        cdef u64 made = 0
        if count > self.node.most_refcount:
            return 22
        error = self.node.refcount_slot(cluster, &slot, False)
        if error == 0 and slot == NULL:
            # A block for the range, at the file's end: it is counted by itself or by one that is there.
            error = self.new_block(cluster // self.node.refblock_entries)
            if error == 0:
                error = self.node.refcount_slot(cluster, &slot, False)
        if error:
            return error
        at = cluster & ((self.node.blocks.slice * 8 >> self.node.refcount_order) - 1)
        put_count(slot.data, at, self.node.refcount_order, count)
        low = at << self.node.refcount_order >> 3
        self.node.blocks.mark(slot, <u32>low, <u32>(low + width))
        return 0

    cdef int new_block(self, u64 index):
        """A block for a range that has none, in a cluster of the range that nobody refers to."""
        cdef u64 n, first = index * self.node.refblock_entries
        for n in range(first, first + self.node.refblock_entries):
            if n >= self.clusters or self.counts[n] == 0:
                if n < self.clusters:
                    self.counts[n] = 1
                return self.node.new_refblock(index, n)
        return 28

    cdef rebuild(self):
        """All blocks and the table anew, behind the end of the file."""
        cdef Qcow2Node node = self.node
        cdef u64 n, entries = node.refblock_entries, blocks, table_clusters, start = self.clusters, end, at
        cdef u64 most = node.most_refcount
        cdef u8 *block
        self.say("Rebuilding refcount structure\n")
        # The old structure is free then: count without it.
        old = list(range(node.reftable_offset >> node.cluster_bits,
                         (node.reftable_offset + node.reftable_size * 8) >> node.cluster_bits))
        for n in range(node.reftable_size):
            at = node.reftable[n] & ~<u64>511
            if at and not at & (node.cluster_size - 1):
                old.append(at >> node.cluster_bits)
        given = {}
        for n in old:
            if n < self.clusters and self.counts[n]:
                given.setdefault(n, self.counts[n])
                self.counts[n] -= 1
        blocks, table_clusters = 0, 1
        while True:
            end = start + blocks + table_clusters
            if (end + entries - 1) // entries > blocks:
                blocks = (end + entries - 1) // entries
            elif (blocks * 8 + node.cluster_size - 1) >> node.cluster_bits > table_clusters:
                table_clusters = (blocks * 8 + node.cluster_size - 1) >> node.cluster_bits
            else:
                break
        raw = bytearray(node.cluster_size)
        block = raw
        node.blocks = type(node.blocks)(node.blocks.slice, node.blocks.count)
        for n in range(blocks):
            memset(block, 0, node.cluster_size)
            for at in range(n * entries, (n + 1) * entries):
                if at < self.clusters:
                    put_count(block, at - n * entries, node.refcount_order, min(self.counts[at], most))
                elif at < end:
                    put_count(block, at - n * entries, node.refcount_order, 1)
            node.file.write((start + n) << node.cluster_bits, raw)
        table = b"".join(struct.pack(">Q", (start + n) << node.cluster_bits) for n in range(blocks))
        node.file.write((start + blocks) << node.cluster_bits, table.ljust(table_clusters << node.cluster_bits, b"\0"))
        node.file.sync()
        node.header.refcount_table_offset = (start + blocks) << node.cluster_bits
        node.header.refcount_table_clusters = table_clusters
        node.file.write(48, struct.pack(">QI", node.header.refcount_table_offset, table_clusters))
        node.file.sync()
        node._load_tables()
        for n in sorted(given):
            self.say(f"Repairing cluster {n} refcount={given[n]} reference={self.counts[n]}\n")
        self.result.corruptions_fixed = self.result.corruptions


def check(Qcow2Node node, repair, say):
    """Check an image, and repair it (`leaks`, `all`; None: not). `say` gets a sentence for each fault. After a repair the
    image is checked again: what is left are the result's corruptions and leaks beyond those fixed.
    """
    cdef bint rewritten
    result = Result()
    rewritten = _snapshots(node, result, repair == "all", say)
    if not node.readonly:
        _flush(node)
    Counter(node, result, say, repair is not None).run(repair)
    if rewritten:                                   # whose old place was counted, and may be anything's: it is not given back
        node.header.snapshots_size = 0
        node.keep_off()
        write_snapshots(node, node.snapshots, True)
        _flush(node)
        Counter(node, Result(), lambda line: None, True).run(repair)
    if repair and (result.leaks_fixed or result.corruptions_fixed):
        _flush(node)
        again = Result()
        Counter(node, again, say, False).run(None)
        result.errors = again.errors
        result.total_clusters, result.image_end_offset = again.total_clusters, again.image_end_offset
        result.corruptions = again.corruptions + result.corruptions_fixed
        result.leaks = again.leaks + result.leaks_fixed
        result.allocated_clusters = again.allocated_clusters
        result.fragmented_clusters = again.fragmented_clusters
        result.compressed_clusters = again.compressed_clusters
    return result


cdef bint _snapshots(Qcow2Node node, result, bint repair, say) except? -1:
    """Read their table, which need not be one. True: it is to be written anew. QcowError: nobody knows what is in use."""
    header = node.header
    notes = headers.SnapshotNotes()
    cdef object most = headers.MOST_SNAPSHOTS
    if header.snapshots_offset % node.cluster_size or header.snapshots_offset >= 1 << 63:
        raise headers.InUse("ERROR snapshot table offset invalid\nCheck failed: Invalid argument", 22)
    if header.nb_snapshots and header.snapshots_offset + header.nb_snapshots * 40 > headers.MOST_OFFSET:
        raise headers.InUse("ERROR failed to read the snapshot table: Failed to read snapshot table: Input/output error\n"
                            "Check failed: Input/output error", 5)
    if header.nb_snapshots > most:
        over = header.nb_snapshots - most
        if not repair:
            raise headers.InUse(
                f"ERROR snapshot table too large\nYou can force-remove all {over} overhanging snapshots with qemu-img check "
                "-r all\nCheck failed: File too large", 27
            )
        say(f"Discarding {over} overhanging snapshots\n")
        result.corruptions += over
        result.corruptions_fixed += over
        header.nb_snapshots = most
    node.snapshots = headers.parse_snapshots(header, node.file.read, notes)
    if notes.fatal is not None and not repair:
        text, hint = notes.fatal
        raise headers.InUse(f"ERROR failed to read the snapshot table: {text}\n{hint}\nCheck failed: File too large", 27)
    for line in notes.discarded:
        say(f"{line}\n")
    for n in notes.incomplete:
        say(f"{'Repairing' if repair else 'ERROR'} snapshot table entry {n} is incomplete\n")
    result.corruptions += notes.lost + len(notes.incomplete)
    if repair:
        result.corruptions_fixed += notes.lost + len(notes.incomplete)
    node.keep_off()
    return repair and result.corruptions_fixed > 0


cdef _flush(Qcow2Node node):
    node.sync()
