"""qcow2's header, its extensions and its tables of snapshots and bitmaps, as Python values.

Ref: QEMU docs/interop/qcow2.txt. Everything in a file is hostile: offsets and sizes are bounded here, before anybody
allocates or reads by them. QcowError carries QEMU's words.
"""

from __future__ import annotations

import errno
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAGIC = b"QFI\xfb"
# incompatible features
DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = 1, 2, 4, 8, 16
KNOWN = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2
LAZY_REFCOUNTS = 1  # compatible
BITMAPS, RAW_EXTERNAL = 1, 2  # autoclear
# header extensions
END, BACKING_FORMAT, FEATURE_NAMES, BITMAPS_EXT, CRYPTO, DATA_FILE_NAME = (
    0, 0xE2792ACA, 0x6803F857, 0x23852875, 0x0537BE77, 0x44415441,
)  # fmt: skip
MOST_L1, MOST_REFTABLE, MOST_SNAPSHOTS, MOST_SNAPSHOT_TABLE = 32 << 20, 8 << 20, 65536, 64 << 20
MOST_EXTRA = 1024  # bytes that a snapshot has besides what is known
MOST_BITMAPS, MOST_DIRECTORY, MOST_BITMAP = 65535, 65535 * 1024, 512 << 20
MOST_OFFSET = (1 << 63) - (1 << 30)  # where a file ends at the latest
RESERVED_BITMAP = 0xFF000000000001FE  # of an entry of a bitmap's table
# what a write is checked against, as overlap-check.… names it; the bits are those of FAULT_… behind FAULT_HEADER
OVERLAPS = (
    "main-header", "active-l1", "active-l2", "refcount-table", "refcount-block", "snapshot-table", "inactive-l1",
    "inactive-l2", "bitmap-directory",
)  # fmt: skip
OVERLAP_CONSTANT, OVERLAP_CACHED, OVERLAP_ALL = 0b100101011, 0b101111111, 0b111111111
FEATURES = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)


class QcowError(Exception):
    """Not an image that can be used; the text is QEMU's where it has one. `unsupported`: it is one, of another kind."""

    def __init__(self, text: str, unsupported: bool = False, hint: str = "") -> None:
        """`hint`: what people are told besides."""
        super().__init__(text)
        self.unsupported, self.hint = unsupported, hint


class InUse(QcowError, OSError):
    """Met when an image is opened or made, and while it is used, when it is an error of the disk's."""

    def __init__(self, text: str, number: int) -> None:
        OSError.__init__(self, number, text)
        self.unsupported, self.hint = False, ""

    def __str__(self) -> str:
        return str(self.strerror)


class HeaderFull(InUse):
    """A header that does not fit."""

    def __init__(self, text: str) -> None:
        super().__init__(text, errno.ENOSPC)


class Header:
    """The fields by their names in the specification; `extensions` as [(type, data)] without those parsed."""

    def __init__(self, **fields: Any) -> None:
        self.version = 3
        self.backing_file = ""
        self.cluster_bits = 16
        self.size = 0
        self.crypt_method = 0
        self.l1_size = 0
        self.l1_table_offset = 0
        self.refcount_table_offset = 0
        self.refcount_table_clusters = 0
        self.nb_snapshots = 0
        self.snapshots_offset = 0
        self.snapshots_size = 0  # bytes of their table in the file
        self.incompatible = self.compatible = self.autoclear = 0
        self.refcount_order = 4
        self.header_length = 112
        self.compression_type = 0
        self.backing_format = ""
        self.data_file = ""
        self.bitmaps: tuple[int, int, int] | None = None  # number, size of the directory, its offset
        self.stale = False  # somebody who does not know bitmaps has written the image: it has none any more
        self.extensions: list[tuple[int, bytes]] = []
        self.tail = b""  # of a longer header: fields that nobody here knows
        self.__dict__.update(fields)

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def extended_l2(self) -> bool:
        return bool(self.incompatible & EXTENDED_L2)

    @property
    def l2_entries(self) -> int:
        return self.cluster_size // (16 if self.extended_l2 else 8)

    def l1_needed(self, size: int) -> int:
        """Entries of the L1 table for a disk of `size` bytes."""
        per = self.cluster_size * self.l2_entries
        return -(-size // per)

    def pack(self) -> bytes:
        """The header with extensions and the backing file's name; QcowError when that is more than a cluster."""
        fixed = 72 if self.version == 2 else 104
        if self.version >= 3:
            fixed = max(self.header_length, 112)
        parts = []
        if self.backing_format:
            parts.append((BACKING_FORMAT, self.backing_format.encode()))
        if self.data_file:
            parts.append((DATA_FILE_NAME, self.data_file.encode()))
        if self.version >= 3:
            names = b"".join(bytes((kind, bit)) + name.encode().ljust(46, b"\0") for kind, bit, name in FEATURES)
            parts.append((FEATURE_NAMES, names))
        if self.bitmaps:
            number, size, offset = self.bitmaps
            parts.append((BITMAPS_EXT, struct.pack(">IIQQ", number, 0, size, offset)))
        parts += self.extensions
        name = self.backing_file.encode(errors="surrogateescape")
        text = _packed(parts)
        offset = fixed + len(text) if name else 0
        head = struct.pack(
            ">4sIQIIQIIQQIIQ", MAGIC, self.version, offset, len(name), self.cluster_bits, self.size,
            self.crypt_method, self.l1_size, self.l1_table_offset, self.refcount_table_offset,
            self.refcount_table_clusters, self.nb_snapshots, self.snapshots_offset,
        )  # fmt: skip
        if self.version >= 3:
            head += struct.pack(
                ">QQQIIB7x", self.incompatible, self.compatible, self.autoclear, self.refcount_order, fixed,
                self.compression_type,
            )  # fmt: skip
            head += self.tail[: fixed - len(head)]
            head = head.ljust(fixed, b"\0")
        head += text + name
        if len(head) > self.cluster_size:
            if len(name) >= 1024:
                raise QcowError("Backing file name too long")
            raise HeaderFull("Header exceeds the cluster size")
        return head


def _packed(parts: list[tuple[int, bytes]]) -> bytes:
    """Extensions of a header, with the one that ends them."""
    text = b"".join(struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8) for kind, data in parts)
    return text + bytes(8)


def parse(read: Callable[[int, int], bytes], checking: bool = False) -> Header:
    """The header of an image; read(offset, count) gives exactly count bytes, zeros past the end. `checking`: what is
    wrong with snapshots is for who asked.
    """
    raw = read(0, 112)
    if raw[:4] != MAGIC:
        raise QcowError("Image is not in qcow2 format")
    h = Header()
    (
        _, h.version, name_offset, name_size, h.cluster_bits, h.size, h.crypt_method, h.l1_size, h.l1_table_offset,
        h.refcount_table_offset, h.refcount_table_clusters, h.nb_snapshots, h.snapshots_offset,
    ) = struct.unpack(">4sIQIIQIIQQIIQ", raw[:72])  # fmt: skip
    if h.version not in (2, 3):
        raise QcowError(f"Unsupported qcow2 version {h.version}", True)
    if not 9 <= h.cluster_bits <= 21:
        raise QcowError(f"Unsupported cluster size: 2^{h.cluster_bits}")
    if h.version >= 3:
        h.incompatible, h.compatible, h.autoclear, h.refcount_order, h.header_length, h.compression_type = (
            struct.unpack(">QQQIIB", raw[72:105])
        )
        if h.header_length < 104:
            raise QcowError("qcow2 header too short")
        if h.header_length > h.cluster_size:
            raise QcowError("qcow2 header exceeds cluster size")
        if h.header_length > 112:
            h.tail = read(112, h.header_length - 112)
        if h.header_length <= 104:
            h.compression_type = 0
    else:
        h.header_length = 72
    if name_offset > h.cluster_size:
        raise QcowError("Invalid backing file offset")
    end = name_offset or h.cluster_size
    names = _extensions(h, read, h.header_length, end)
    _features(h, names)
    if h.bitmaps and not h.autoclear & BITMAPS:
        h.bitmaps, h.stale = None, True
    if h.autoclear & RAW_EXTERNAL and not h.incompatible & DATA_FILE:
        raise QcowError("data-file-raw requires a data file")
    _tables(h, checking)
    if h.crypt_method:
        raise QcowError(
            {1: "AES-encrypted images are not supported", 2: "LUKS-encrypted images are not supported"}.get(
                h.crypt_method, f"Unsupported encryption method {h.crypt_method}"
            ),
            True,
        )
    if name_offset:
        if name_size > min(1023, h.cluster_size - name_offset):
            raise QcowError("Backing file name too long")
        h.backing_file = read(name_offset, name_size).decode(errors="surrogateescape").split("\0")[0]
    return h


def _features(h: Header, names: dict[tuple[int, int], str]) -> None:
    unknown = h.incompatible & ~KNOWN
    if unknown:
        told = [names[0, bit] for bit in range(64) if unknown >> bit & 1 and names.get((0, bit))]
        nameless = sum(1 << bit for bit in range(64) if unknown >> bit & 1 and not names.get((0, bit)))
        if nameless:
            told.append(f"Unknown incompatible feature: {nameless:x}")
        raise QcowError(f"Unsupported qcow2 feature(s): {', '.join(told)}", True)
    if h.refcount_order > 6:
        raise QcowError("Reference count entry width too large; may not exceed 64 bits")
    if h.incompatible & COMPRESSION and h.compression_type == 0:
        raise QcowError("qcow2: Compression type incompatible feature bit must not be set")
    if not h.incompatible & COMPRESSION and h.compression_type:
        raise QcowError("qcow2: Compression type incompatible feature bit must be set")
    if h.compression_type > 1:
        raise QcowError("qcow2: unknown compression type", True)
    if h.extended_l2 and h.cluster_bits < 14:
        raise QcowError("Invalid cluster size for extended L2 entries")


def _tables(h: Header, checking: bool) -> None:
    size = h.cluster_size
    if h.refcount_table_clusters == 0 and not checking:
        raise QcowError("Image does not contain a reference count table")
    _table(h.refcount_table_offset, h.refcount_table_clusters * size, size, MOST_REFTABLE, "Reference count table")
    if h.nb_snapshots > MOST_SNAPSHOTS and not checking:
        raise QcowError("Snapshot table too large")
    if not checking:
        _table(h.snapshots_offset, h.nb_snapshots * 40, size, MOST_SNAPSHOT_TABLE, "Snapshot table")
    _table(h.l1_table_offset, h.l1_size * 8, size, MOST_L1, "Active L1 table")
    if h.l1_needed(h.size) > MOST_L1 // 8:
        raise QcowError("Image is too big")
    if h.l1_size < h.l1_needed(h.size):
        raise QcowError("L1 table is too small")


def _table(offset: int, length: int, cluster: int, most: int, what: str) -> None:
    fault = _fault(offset, length, cluster, most, what)
    if fault:
        raise QcowError(fault)


def _fault(offset: int, length: int, cluster: int, most: int, what: str) -> str:
    """What is wrong with a table's place; "" for nothing."""
    if length > most:
        return f"{what} too large"
    return f"{what} offset invalid" if offset % cluster or offset + length > 1 << 63 else ""


def _extensions(h: Header, read: Callable[[int, int], bytes], at: int, end: int) -> dict[tuple[int, int], str]:
    names: dict[tuple[int, int], str] = {}
    while at < end:
        if at + 8 > end:
            raise QcowError("Header extension too large")
        kind, length = struct.unpack(">II", read(at, 8))
        at += 8
        if length > end - at:
            raise QcowError("Header extension too large")
        if kind == END:
            break
        data = read(at, length)
        if kind == BACKING_FORMAT:
            if length >= 16:
                raise QcowError(f"ERROR: ext_backing_format: len={length} too large (>=16)")
            h.backing_format = data.split(b"\0")[0].decode(errors="replace")
        elif kind == FEATURE_NAMES:
            for start in range(0, length - 1, 48):  # the last may be cut
                name = data[start + 2 : start + 48].split(b"\0")[0].decode(errors="replace")
                if name:
                    names[data[start], data[start + 1]] = name
        elif kind == DATA_FILE_NAME:
            h.data_file = data.decode(errors="surrogateescape")
        elif kind == BITMAPS_EXT:
            if length != 24:
                raise QcowError("bitmaps_ext: Invalid extension length")
            number, reserved, size, offset = struct.unpack(">IIQQ", data)
            if h.autoclear & BITMAPS:
                _bitmaps_fit(h, number, reserved, size, offset)
            h.bitmaps = (number, size, offset)
        else:
            h.extensions.append((kind, data))
        at += (length + 7) & ~7
    return names


def _bitmaps_fit(h: Header, number: int, reserved: int, size: int, offset: int) -> None:
    if reserved:
        raise QcowError("bitmaps_ext: Reserved field is not zero")
    if number > MOST_BITMAPS:
        raise QcowError(
            f"bitmaps_ext: Image has {number} bitmaps, exceeding the QEMU supported maximum of {MOST_BITMAPS}"
        )
    if number == 0:
        raise QcowError("found bitmaps extension with zero bitmaps")
    if offset % h.cluster_size:
        raise QcowError("bitmaps_ext: invalid bitmap directory offset")
    if size > MOST_DIRECTORY:
        raise QcowError(
            f"bitmaps_ext: bitmap directory size ({size}) exceeds the maximum supported size ({MOST_DIRECTORY})"
        )


class Snapshot:
    """An internal snapshot."""

    def __init__(self, **fields: Any) -> None:
        self.l1_table_offset = self.l1_size = 0
        self.id = self.name = ""
        self.date_sec = self.date_nsec = self.vm_clock_nsec = 0
        self.vm_state_size = 0
        self.disk_size = 0
        self.icount = (1 << 64) - 1
        self.extra = b""  # beyond what is known
        self.fault = ""  # why its tables cannot be looked at: the image itself can
        self.__dict__.update(fields)

    def pack(self) -> bytes:
        extra = struct.pack(">QQQ", self.vm_state_size, self.disk_size, self.icount) + self.extra
        id, name = (text.encode(errors="surrogateescape") for text in (self.id, self.name))
        small = self.vm_state_size if self.vm_state_size <= 0xFFFFFFFF else 0
        head = struct.pack(
            ">QIHHIIQII", self.l1_table_offset, self.l1_size, len(id), len(name), self.date_sec, self.date_nsec,
            self.vm_clock_nsec, small, len(extra),
        )  # fmt: skip
        text = head + extra + id + name
        return text + bytes(-len(text) % 8)


class SnapshotNotes:
    """What a check finds in a table of snapshots: `fatal` in (text, hint) when it cannot be read as it is."""

    def __init__(self) -> None:
        self.incomplete: list[int] = []  # entries that lack what version 3 has
        self.discarded: list[str] = []  # what a repair leaves out
        self.lost = 0  # how many faults that is
        self.fatal: tuple[str, str] | None = None

    def leaves_out(self, what: str, count: int, text: str, hint: str) -> None:
        self.discarded.append(what)
        self.lost += count
        self.fatal = self.fatal or (text, hint)


def parse_snapshots(
    h: Header, read: Callable[[int, int], bytes], notes: SnapshotNotes | None = None
) -> list[Snapshot]:
    """The snapshots; QcowError when the table is not one. With `notes` what can be had of it, and what is wrong."""
    found: list[Snapshot] = []
    at, end = h.snapshots_offset, h.snapshots_offset + MOST_SNAPSHOT_TABLE
    for n in range(min(h.nb_snapshots, MOST_SNAPSHOTS)):
        at = (at + 7) & ~7
        row = struct.unpack(">QIHHIIQII", read(at, 40)) if at + 40 <= end else None
        extra_size = row[8] if row is not None else 0
        if extra_size > MOST_EXTRA:
            text = f"Too much extra metadata in snapshot table entry {n}"
            hint = "You can force-remove this extra metadata with qemu-img check -r all"
            if notes is None:
                raise QcowError(text, hint=hint)
            what = f"Discarding too much extra metadata in snapshot table entry {n} ({extra_size} > {MOST_EXTRA})"
            notes.leaves_out(what, 1, text, hint)
        after = end + 1 if row is None else at + 40 + extra_size + row[2] + row[3]
        if row is None or after > end:
            left = h.nb_snapshots - n
            text = "Snapshot table is too big"
            hint = f"You can force-remove all {left} overhanging snapshots with qemu-img check -r all"
            if notes is None:
                raise QcowError(text, hint=hint)
            notes.leaves_out(f"Discarding {left} overhanging snapshots (snapshot table is too big)", left, text, hint)
            break
        extra = read(at + 40, min(extra_size, MOST_EXTRA))
        if extra_size > MOST_EXTRA:
            extra = extra[:24]
        elif notes is not None and extra_size < 16 and h.version >= 3:
            notes.incomplete.append(n)
        found.append(_snapshot(h, row, extra, read(at + 40 + extra_size, row[2] + row[3])))
        at = after
    h.snapshots_size = at - h.snapshots_offset if found else 0
    return found


def _snapshot(h: Header, row: tuple[int, ...], extra: bytes, names: bytes) -> Snapshot:
    l1, l1_size, id_size, _, sec, nsec, clock, small, _ = row
    large, disk, icount = struct.unpack(">QQQ", extra[:24].ljust(24, b"\0"))
    return Snapshot(
        l1_table_offset=l1, l1_size=l1_size, date_sec=sec, date_nsec=nsec, vm_clock_nsec=clock,
        id=names[:id_size].decode(errors="surrogateescape"), name=names[id_size:].decode(errors="surrogateescape"),
        vm_state_size=large if len(extra) >= 8 else small, disk_size=disk if len(extra) >= 16 else h.size,
        icount=icount if len(extra) >= 24 else (1 << 64) - 1, extra=extra[24:],
        fault=_fault(l1, l1_size * 8, h.cluster_size, MOST_L1, "Snapshot L1 table"),
    )  # fmt: skip


def parse_bitmaps(h: Header, read: Callable[[int, int], bytes]) -> list[dict[str, Any]]:
    """The dirty bitmaps' names, granularities, flags and places; `at`: where the row is in the file. QcowError: they
    contradict themselves.
    """
    if h.bitmaps is None:
        return []
    number, size, offset = h.bitmaps
    if size == 0:
        raise QcowError("Requested bitmap directory size is zero")
    if offset + size > MOST_OFFSET:
        raise QcowError("Failed to read bitmap directory: Input/output error")
    raw = read(offset, size)
    found: list[dict[str, Any]] = []
    at = 0
    while at < size:
        if at + 24 > size:
            raise QcowError("Broken bitmap directory")
        start = at
        table, entries, flags, kind, bits, name_size, extra = struct.unpack(">QIIBBHI", raw[at : at + 24])
        total = (24 + extra + name_size + 7) & ~7
        if at + total > size and extra < 1 << 31:
            raise QcowError("Broken bitmap directory")
        if extra:
            raise QcowError("Bitmap extra data is not supported")
        if len(found) == number:
            raise QcowError("More bitmaps found than specified in header extension")
        name = raw[at + 24 : at + 24 + name_size].split(b"\0")[0].decode(errors="surrogateescape")
        row = {"name": name, "granularity": 1 << (bits & 63), "in-use": bool(flags & 1), "auto": bool(flags & 2),
               "table": table, "entries": entries, "type": kind, "at": offset + start, "extra": b""}  # fmt: skip
        if flags & ~3 or kind != 1 or not 9 <= bits <= 31 or name_size > 1023 or not _covered(h, row):
            raise QcowError(f"Bitmap '{name}' doesn't satisfy the constraints")
        if not row["in-use"]:
            _table_of_bits(h, row, read)
        found.append(row)
        at += total
    if len(found) < number:
        raise QcowError("Less bitmaps found than specified in header extension")
    return found


def _covered(h: Header, row: dict[str, Any]) -> bool:
    """Whether a bitmap's table is one, and has bits for the whole disk."""
    bits = row["entries"] * h.cluster_size * 8
    return bool(
        row["table"] and row["table"] % h.cluster_size == 0 and 0 < bits <= MOST_BITMAP * 8
        and (row["in-use"] or bits * row["granularity"] >= h.size)
    )  # fmt: skip


def _table_of_bits(h: Header, row: dict[str, Any], read: Callable[[int, int], bytes]) -> None:
    fault = ""
    if row["table"] + row["entries"] * 8 > MOST_OFFSET:
        fault = "Input/output error"
    else:
        for (entry,) in struct.iter_unpack(">Q", read(row["table"], row["entries"] * 8)):
            place = entry & 0x00FFFFFFFFFFFE00
            if entry & RESERVED_BITMAP or place % h.cluster_size or place and entry & 1:
                fault = "Invalid argument"
    if fault:
        raise QcowError(f"Could not read bitmap_table table from image for bitmap '{row['name']}': {fault}")
    if row["entries"] != -(-h.size // (h.cluster_size * 8 * row["granularity"])):
        raise QcowError(f"Could not read bitmap '{row['name']}' from image: Invalid argument")
