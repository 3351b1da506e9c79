"""Bitmaps that a qcow2 image keeps: what was written since, for programs that copy only that.

They are read when somebody asks for them or the image is opened for writing; then the image says that they are in use, and
the node marks in them what is written (Qcow2Node.note). Closing the image writes them, and they are not in use any more. A
process that is killed meanwhile leaves bitmaps that are said to be in use: nobody knows what they lack. They are
`inconsistent`, and stay in the image as they are until somebody removes them.

Ref: QEMU docs/interop/qcow2.txt, "Bitmaps extension". Bitmaps of other types than dirty tracking and entries with data that this
program does not know are refused.
"""

import os
import struct

from accel.api cimport u64
from libc.stdlib cimport calloc, free
from vmrun.backends.block.bitmap cimport Bitmap
from vmrun.backends.block.qcow2 cimport Qcow2Node
from vmrun.backends.block.qcow2_snapshots cimport flush_all, forget, place

from vmrun.backends.block import qcow2_header as headers
from vmrun.backends.block.qcow2_snapshots import Whole

IN_USE, AUTO = 1, 2
DIRTY_TRACKING = 1
MOST_BYTES = 512 << 20          # of a bitmap
MOST_BITMAPS = 65535
MOST_NAME = 1023
cdef u64 PLACE = 0x00FFFFFFFFFFFE00


class Kept:
    """One of them. `row`: where it is in the file, None when it is not there."""

    def __init__(self, str name, Bitmap bits, bint inconsistent=False, row=None):
        self.name, self.bits, self.inconsistent, self.row = name, bits, inconsistent, row


def known(Qcow2Node node):
    """The image's bitmaps: a list of Kept, which stays the node's own. QcowError: they cannot be understood."""
    if node.bitmaps is None:
        node.bitmaps = _load(node)
    return node.bitmaps


def _load(Qcow2Node node):
    header = node.header
    if header.bitmaps is None:
        return []
    found = []
    for row in headers.parse_bitmaps(header, node.file.read):
        name = row["name"]
        if row["in-use"]:
            found.append(Kept(name, Bitmap(1, max(512, row["granularity"])), True, row))
            continue
        length = ((<object>node.size + row["granularity"] - 1) // row["granularity"] + 7) // 8
        bits = Bitmap(node.size, row["granularity"])
        bits.enabled = row["auto"]
        bits.load(_read(node, row)[:length])
        found.append(Kept(name, bits, False, row))
    return found


def _read(Qcow2Node node, row):
    """Its bytes; clusters that are all zeros or all ones have no place."""
    cdef u64 entry
    pieces = []
    for entry in struct.unpack(f">{row['entries']}Q", node.file.read(row["table"], row["entries"] * 8)):
        if entry & PLACE:
            pieces.append(node.file.read(entry & PLACE, node.cluster_size))
        else:
            pieces.append((b"\xff" if entry & 1 else b"\0") * node.cluster_size)
    return b"".join(pieces)


def take(Qcow2Node node):
    """The image is going to be written: say that its bitmaps are in use, and mark in them from now on."""
    known(node)
    marked = False
    for kept in node.bitmaps:
        if kept.row is not None and not kept.inconsistent and not kept.row["in-use"]:
            node.file.write(kept.row["at"] + 12, struct.pack(">I", IN_USE | (AUTO if kept.row["auto"] else 0)))
            kept.row["in-use"] = marked = True
    if marked:
        node.file.sync()
    follow(node)


def follow(Qcow2Node node):
    """Mark in those that the list has now."""
    cdef u64 n
    cdef void **marks
    wanted = [kept.bits for kept in node.bitmaps or () if not kept.inconsistent]
    marks = <void **>calloc(len(wanted) + 1, sizeof(void *))
    if marks == NULL:
        raise MemoryError
    for n in range(len(wanted)):
        marks[n] = <void *>wanted[n]
    with Whole(node):
        free(node.marks)
        node.marks, node.mark_count = marks, len(wanted)
        node.marked = wanted                        # they are there as long as their pointers


def add(Qcow2Node node, str name, Bitmap bits):
    """One more. ValueError says why not, in QEMU's words."""
    if node.version < 3:
        raise ValueError("Cannot store dirty bitmaps in qcow2 v2 files")
    if len(name.encode(errors="surrogateescape")) > MOST_NAME:
        raise ValueError(f"Name length exceeds maximum ({MOST_NAME} characters)")
    if bits.granularity > 1 << 31:
        raise ValueError(f"Granularity exceeds maximum ({1 << 31} bytes)")
    bitmaps = known(node)
    if len(bitmaps) >= MOST_BITMAPS:
        raise ValueError("Maximum number of persistent bitmaps is already reached")
    if bits.size // bits.granularity // 8 > MOST_BYTES:
        raise ValueError("Too much space will be occupied by the bitmap. Use larger granularity")
    bitmaps.append(Kept(name, bits))
    follow(node)


def drop(Qcow2Node node, str name):
    """Forget one; its place in the file is free when the image is closed."""
    bitmaps = known(node)
    gone = [kept for kept in bitmaps if kept.name == name]
    for kept in gone:
        bitmaps.remove(kept)
        if kept.row is not None:
            node.gone.append(kept.row)
    follow(node)


def store(Qcow2Node node):
    """Write them all: nothing is in use any more. OSError: the image has them as they were, in use."""
    bitmaps = node.bitmaps
    if bitmaps is None or not bitmaps and not node.gone:
        return
    with Whole(node):
        old = [row for row in node.gone] + [kept.row for kept in bitmaps if kept.row is not None and not kept.inconsistent]
        if node.header.version < 3:
            bitmaps = []                            # which knows of none
        data = bytearray()
        rows = []
        for kept in bitmaps:
            at = len(data)
            row = kept.row if kept.inconsistent else _write(node, kept)
            flags = IN_USE if kept.inconsistent else 0
            if row["auto"]:
                flags |= AUTO
            name = kept.name.encode(errors="surrogateescape")
            data += struct.pack(
                ">QIIBBHI", row["table"], row["entries"], flags, row["type"], row["granularity"].bit_length() - 1, len(name),
                len(row["extra"]),
            ) + row["extra"] + name
            data += bytes((8 - len(data) % 8) % 8)
            rows.append((kept, {**row, "at": at, "in-use": kept.inconsistent}))
        before = node.header.bitmaps
        offset = _put(node, bytes(data))
        flush_all(node)
        node.header.bitmaps = (len(rows), len(data), offset) if rows else None
        node.header.autoclear = node.header.autoclear & ~headers.BITMAPS | (headers.BITMAPS if rows else 0)
        node.update_header()
        node.file.sync()
        node.gone = []
        for kept, row in rows:
            row["at"] += offset
            kept.row = row
        for row in old:
            _free(node, row)
        if before is not None:
            forget(node, before[2], before[1])
        flush_all(node)
        node.keep_off()


def _write(Qcow2Node node, kept):
    """A new place for its bits; the row that says so."""
    cdef u64 n
    bits = kept.bits.pack()
    entries = []
    for n in range(0, len(bits), node.cluster_size):
        piece = bits[n : n + node.cluster_size]
        entries.append(_put(node, piece) if any(piece) else 0)
    return {
        "table": _put(node, struct.pack(f">{len(entries)}Q", *entries)), "entries": len(entries), "auto": bool(kept.bits.enabled), "type": DIRTY_TRACKING,
        "granularity": kept.bits.granularity, "extra": b"",
    }


cdef u64 _put(Qcow2Node node, bytes data) except? 0:
    """Into clusters of its own."""
    cdef u64 offset = place(node, len(data)), rest = len(data) & (node.cluster_size - 1)
    if data:
        node.file.write(offset, data + bytes(node.cluster_size - rest if rest else 0))
    return offset


cdef _free(Qcow2Node node, row):
    cdef u64 entry
    if row["entries"] * 8 > MOST_BYTES or row["table"] % node.cluster_size:
        return                                      # not a table: `check -r leaks` gives back what it had
    for entry in struct.unpack(f">{row['entries']}Q", node.file.read(row["table"], row["entries"] * 8)):
        if entry & PLACE:
            forget(node, entry & PLACE, node.cluster_size)
    forget(node, row["table"], row["entries"] * 8)


def resized(Qcow2Node node):
    """They are about as much as the disk has now."""
    for kept in node.bitmaps or ():
        if not kept.inconsistent:
            kept.bits.resize(node.size)
