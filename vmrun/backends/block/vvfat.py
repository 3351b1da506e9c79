"""A directory of the host as a disk with a FAT file system that is made up: `fat:DIR`, read-only.

Laid out as QEMU's vvfat: a disk of 504 MiB with FAT16 (`fat:12:DIR` of 32 MiB with FAT12) and a partition table, or a
floppy of 2.88 MB (`fat:floppy:DIR`). Names and sizes are those of the moment when it is opened; contents are read from
the files when the guest reads them.
"""

from __future__ import annotations

import os
import stat
import struct
from bisect import bisect_right

from vmrun.backends.block.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.node import Node

SECTOR = 512
ROOT_ENTRIES = 512
MOST_FILE = 0x7FFFFFFF
SERIAL = 0xFABE1AFD
SHORT = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ$%'-_@~`!(){}^#&")


def named(name: str) -> dict[str, Any]:
    """fat:[floppy:][12:|16:|32:][rw:]DIR"""
    found: dict[str, Any] = {}
    rest = name.removeprefix("fat:")
    while True:
        head, colon, tail = rest.partition(":")
        if not colon or head not in ("floppy", "12", "16", "32", "rw"):
            break
        if head.isdigit():
            found["fat-type"] = int(head)
        else:
            found[head] = True
        rest = tail
    return {**found, "dir": rest}


class Entry:
    """A file or directory: its path, where it lies, its row in the directory that has it."""

    __slots__ = ("cluster", "clusters", "info", "is_directory", "path", "row", "size")

    def __init__(self, path: str, info: os.stat_result) -> None:
        self.path, self.info, self.is_directory = path, info, stat.S_ISDIR(info.st_mode)
        self.size = 0 if self.is_directory else info.st_size
        self.cluster = self.clusters = 0
        self.row: bytearray | None = None


class Fat:
    """What ForeignNode reads."""

    def __init__(self, directory: str, *, fat: int, floppy: bool, label: str) -> None:
        if fat == 32:
            raise ImageError("vvfat with FAT32 is not modelled; FAT16 and FAT12 are")
        if fat not in (0, 12, 16):
            raise ImageError("Valid FAT types are only 12, 16 and 32")
        if len(label.encode()) > 11:
            raise ImageError("vvfat label cannot be longer than 11 bytes")
        if not os.path.isdir(directory):
            raise ImageError(f"Could not read directory {directory}")
        if floppy:
            self.fat = fat or 12
            cylinders, heads, per_track, self.lead = 80, 2, 36 if fat != 12 else 18, 0
        else:
            self.fat = fat or 16
            cylinders, heads, per_track, self.lead = 64 if self.fat == 12 else 1024, 16, 63, 63
        self.per_cluster = 16
        self.floppy, self.label = floppy, label.ljust(11).encode()
        self.heads, self.per_track = heads, per_track
        self.size = cylinders * heads * per_track * SECTOR
        self.sectors = cylinders * heads * per_track - self.lead
        self.cluster = self.per_cluster * SECTOR
        per = 1 + self.cluster * 8 // self.fat
        self.fat_sectors = (self.sectors + per) // per
        self.fat_at = (self.lead + 1) * SECTOR
        self.root_at = self.fat_at + 2 * self.fat_sectors * SECTOR
        self.data_at = self.root_at + ROOT_ENTRIES * 32
        self.table: dict[int, int] = {}  # cluster → the next
        self.files: list[Entry] = []
        self.contents: dict[int, list[bytearray]] = {}  # rows of directories by their first cluster
        self.head = self._head()
        self._walk(directory)
        self._finish()

    # --- what there is --------------------------------------------------------------------------------------------

    def _walk(self, directory: str) -> None:
        """All files and directories, what is in a directory after those beside it."""
        root = Entry(directory, os.stat(directory))
        self.next = 2
        rows, order = self._listed(root)
        self.root_rows = [bytearray(self.label + b"\x28" + bytes(20)), *rows]
        if len(self.root_rows) > ROOT_ENTRIES:
            raise ImageError(f"{directory} has more names than the root directory of a FAT file system takes")
        waiting = [(entry, 0) for entry in order]
        for entry, parent in waiting:  # it grows meanwhile
            if entry.is_directory:
                rows, children = self._listed(entry)
                dots = [self._row(name.ljust(11), entry.info, True) for name in (b".", b"..")]
                self._place(entry, (len(rows) + 2) * 32)
                struct.pack_into("<H", dots[0], 26, entry.cluster)
                struct.pack_into("<H", dots[1], 26, parent)
                self.contents[entry.cluster] = [*dots, *rows]
                waiting += [(child, entry.cluster) for child in children]
            elif entry.size:
                self._place(entry, entry.size)
                self.files.append(entry)

    def _listed(self, entry: Entry) -> tuple[list[bytearray], list[Entry]]:
        """The rows of a directory, and what they are of."""
        try:
            with os.scandir(entry.path) as found:
                names = [one.name for one in found]
        except OSError as error:
            raise ImageError(f"Could not read directory {entry.path}: {error.strerror}") from None
        taken: set[bytes] = set()
        rows: list[bytearray] = []
        children = []
        for name in names:
            path = os.path.join(entry.path, name)
            try:
                info = os.stat(path)
            except OSError:
                continue
            if not (stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode)):
                continue
            child = Entry(path, info)
            if child.size > MOST_FILE:
                raise ImageError(f"File {path} is larger than 2GB")
            short = self._short(name, taken)
            child.row = self._row(short, info, child.is_directory)
            struct.pack_into("<I", child.row, 28, child.size)
            rows += [*self._long(name, short), child.row]
            children.append(child)
        return rows, children

    def _place(self, entry: Entry, size: int) -> None:
        count = -(-size // self.cluster)
        if self.data_at + (self.next - 2 + count) * self.cluster > self.size:
            raise ImageError(f"Directory does not fit in FAT{self.fat} (capacity {self.size / (1 << 20):.2f} MB)")
        entry.cluster, entry.clusters = self.next, count
        for n in range(self.next, self.next + count - 1):
            self.table[n] = n + 1
        self.table[self.next + count - 1] = 0xFFF if self.fat == 12 else 0xFFFF
        self.next += count
        if entry.row is not None:
            struct.pack_into("<H", entry.row, 26, entry.cluster)

    @staticmethod
    def _short(name: str, taken: set[bytes]) -> bytes:
        """The name of eight and three, unlike those before."""
        base, extension, lossy = "", "", False
        first, last = name, ""
        at = name.rfind(".")
        if at > 0:
            first, last = name[:at], name[at + 1 :]
            cut = first.find(".", 1)
            if cut > 0:
                first, lossy = first[:cut], True
        lossy = lossy or name.startswith(".")
        for text, most in ((first.lstrip(".") if name.startswith(".") else first, 8), (last, 3)):
            made = ""
            for char in text:
                upper = char.upper()
                if upper in SHORT and len(made) < most:
                    made += upper
                else:
                    lossy = True
            base, extension = (made, extension) if most == 8 else (base, made)
        number = 1 if lossy else 0
        while True:
            tail = f"~{number}" if number else ""
            found = (base[: 8 - len(tail)] + tail).ljust(8).encode() + extension.ljust(3).encode()
            if found not in taken:
                taken.add(found)
                return found
            number += 1

    @staticmethod
    def _long(name: str, short: bytes) -> list[bytearray]:
        sum_ = 0
        for byte in short:
            sum_ = ((sum_ >> 1 | sum_ << 7) + byte) & 0xFF
        text = name.encode("utf-16-le", errors="replace")[: 255 * 2]
        count = -(-len(text) // 26)
        if len(text) < count * 26:
            text += b"\0\0"
        text = text.ljust(count * 26, b"\xff")
        rows = []
        for n in range(count, 0, -1):
            part = text[(n - 1) * 26 : n * 26]
            head = bytes([n | (0x40 if n == count else 0)])
            rows.append(
                bytearray(head + part[:10] + b"\x0f\0" + bytes([sum_]) + part[10:22] + b"\0\0" + part[22:])
            )
        return rows

    @staticmethod
    def _row(short: bytes, info: os.stat_result, directory: bool) -> bytearray:
        import time

        def stamp(seconds: float) -> tuple[int, int]:
            at = time.localtime(seconds)
            day = at.tm_mday | at.tm_mon << 5 | (max(at.tm_year, 1980) - 1980) << 9
            return at.tm_sec // 2 | at.tm_min << 5 | at.tm_hour << 11, day

        made_time, made_day = stamp(info.st_ctime)
        changed_time, changed_day = stamp(info.st_mtime)
        _, seen = stamp(info.st_atime)
        return bytearray(
            short
            + struct.pack(
                "<BBBHHHHHHHI", 0x10 if directory else 0x20, 0, 0, made_time, made_day, seen, 0, changed_time,
                changed_day, 0, 0,
            )
        )  # fmt: skip

    # --- the sectors before the files -----------------------------------------------------------------------------

    def _head(self) -> bytes:
        boot = struct.pack(
            "<3s8sHBHBHHBHHHIIBBBI11s8s", b"\xeb\x3e\x90", b"MSWIN4.1", SECTOR, self.per_cluster, 1, 2, ROOT_ENTRIES,
            self.sectors if self.sectors < 0x10000 else 0, 0xF0 if self.floppy else 0xF8, self.fat_sectors,
            self.per_track, self.heads, self.lead, 0 if self.sectors < 0x10000 else self.sectors,
            0 if self.floppy else 0x80, 0, 0x29, SERIAL, self.label, f"FAT{self.fat}".ljust(8).encode(),
        )  # fmt: skip
        boot = boot.ljust(510, b"\0") + b"\x55\xaa"
        if not self.lead:
            return boot
        last = b"\x0f\xff\xff" if self.fat == 16 else b"\x0f\x3f\x3f"
        kind = 6 if self.fat == 16 else 1
        part = b"\x80\x01\x01\0" + bytes([kind]) + last + struct.pack("<II", self.lead, self.sectors)
        table = b"\xfa\xfd\x1a\xbe\0\0" + part
        return (bytes(0x1B8) + table).ljust(510, b"\0") + b"\x55\xaa" + bytes((self.lead - 1) * SECTOR) + boot

    def _finish(self) -> None:
        """The table of clusters and the directories as bytes."""
        table = bytearray(self.fat_sectors * SECTOR)
        media = 0xF0 if self.floppy else 0xF8
        entries = {0: 0xFF00 | media, 1: 0xFFFF, **self.table}
        for number, value in entries.items():
            if self.fat == 16:
                struct.pack_into("<H", table, number * 2, value & 0xFFFF)
            else:
                at = number * 3 // 2
                (old,) = struct.unpack_from("<H", table, at)
                value &= 0xFFF
                new = old & 0xF | value << 4 if number & 1 else old & 0xF000 | value
                struct.pack_into("<H", table, at, new & 0xFFFF)
        root = b"".join(self.root_rows).ljust(ROOT_ENTRIES * 32, b"\0")
        self.start = self.head + bytes(table) * 2 + root
        self.firsts = [entry.cluster for entry in self.files]
        self.folders = {cluster: b"".join(rows) for cluster, rows in self.contents.items()}
        self.folder_firsts = sorted(self.folders)

    # --- for ForeignNode ------------------------------------------------------------------------------------------

    def read(self, offset: int, count: int) -> bytes:
        parts, end = [], offset + count
        while offset < end:
            if offset < len(self.start):
                part = self.start[offset:end]
            else:
                number, within = divmod(offset - self.data_at, self.cluster)
                step = min(self.cluster - within, end - offset)
                part = self._cluster(number + 2, within, step).ljust(step, b"\0")
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def _cluster(self, number: int, within: int, count: int) -> bytes:
        at = bisect_right(self.firsts, number) - 1
        if at >= 0 and number < self.firsts[at] + self.files[at].clusters:
            start = (number - self.firsts[at]) * self.cluster + within
            try:
                with open(self.files[at].path, "rb") as file:
                    file.seek(start)
                    return file.read(max(0, min(count, self.files[at].size - start)))
            except OSError:
                raise OSError(5, "a file of the directory cannot be read") from None
        at = bisect_right(self.folder_firsts, number) - 1
        if at >= 0:
            first = self.folder_firsts[at]
            start = (number - first) * self.cluster + within
            return self.folders[first][start : start + count]
        return b""

    def end(self) -> None:
        pass


def open_vvfat(options: dict[str, Any], readonly: bool) -> Node:
    """`dir`, `fat-type`, `floppy`, `label`. ImageError."""
    from vmrun.backends.block.foreign import ForeignNode

    if not options.get("dir"):
        raise ImageError("vvfat block driver requires a 'dir' option")
    if options.get("rw") in (True, "on"):
        raise ImageError("vvfat: writing to the host's directory is not modelled; leave out rw")
    directory, label = str(options.get("dir") or ""), str(options.get("label") or "QEMU VVFAT")
    try:
        fat = int(options.get("fat-type") or 0)
    except (TypeError, ValueError):
        raise ImageError("Valid FAT types are only 12, 16 and 32") from None
    made = Fat(directory, fat=fat, floppy=options.get("floppy") in (True, "on"), label=label)
    node: Node = ForeignNode("vvfat", directory, made.size, made)
    return node
