"""What an image is, in QEMU's words: ImageInfo, for `vmrun img info` and query-block."""

from __future__ import annotations

import os

from vmrun.backends.block import qcow2_header as headers
from vmrun.backends.block.images import beside
from vmrun.backends.block.sizes import people

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.node import Node

NOTHING = ("null-co", "null-aio")  # they take no room, and nothing of them can be dirty


def describe(name: str, node: Any) -> dict[str, Any]:
    """QEMU's ImageInfo."""
    header = getattr(node, "header", None)
    found: dict[str, Any] = {}
    if header is not None and header.backing_format:
        found["backing-filename-format"] = header.backing_format
    if header is not None and node.snapshots:
        found["snapshots"] = [
            {
                "icount": snapshot.icount,
                "vm-clock-nsec": snapshot.vm_clock_nsec % 1_000_000_000,
                "name": snapshot.name,
                "date-sec": snapshot.date_sec,
                "date-nsec": snapshot.date_nsec,
                "vm-clock-sec": snapshot.vm_clock_nsec // 1_000_000_000,
                "id": snapshot.id,
                "vm-state-size": snapshot.vm_state_size,
            }
            for snapshot in node.snapshots
        ]
        for snapshot in found["snapshots"]:
            if snapshot["icount"] == (1 << 64) - 1:
                del snapshot["icount"]
    found["virtual-size"] = (node.size + 511) & ~511  # whole sectors
    found["filename"] = name
    if header is not None:
        found["cluster-size"] = header.cluster_size
    layout = getattr(node, "layout", None)
    if layout is not None and layout.block:
        found["cluster-size"] = layout.block
    found["format"] = str(node.driver)
    used = allocated(node)
    if used is not None:
        found["actual-size"] = used
    if header is not None:
        found["format-specific"] = {"type": "qcow2", "data": _specific(node, header)}
        if header.backing_file:
            found["full-backing-filename"] = beside(name, header.backing_file)
            found["backing-filename"] = header.backing_file
    if layout is not None and (told := layout.told(name)):
        found["format-specific"] = told
    below = node
    while below.driver == "raw" and below.children():
        below = below.children()[0][1]
    if below.driver not in NOTHING:
        found["dirty-flag"] = bool(header is not None and header.incompatible & 1)
    return found


def _specific(node: Node, header: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"compat": "1.1" if header.version >= 3 else "0.10"}
    data["compression-type"] = "zstd" if header.compression_type else "zlib"
    if header.version < 3:
        data["refcount-bits"] = 1 << header.refcount_order
        return data
    data["lazy-refcounts"] = bool(header.compatible & headers.LAZY_REFCOUNTS)
    bitmaps = headers.parse_bitmaps(header, node.children()[0][1].read) if header.bitmaps else []
    if bitmaps:
        data["bitmaps"] = [
            {
                "flags": [word for word in ("in-use", "auto") if bitmap[word]],
                "name": bitmap["name"],
                "granularity": bitmap["granularity"],
            }
            for bitmap in bitmaps
        ]
    data["refcount-bits"] = 1 << header.refcount_order
    if header.incompatible & headers.DATA_FILE:
        data["data-file"] = header.data_file
        data["data-file-raw"] = bool(header.autoclear & headers.RAW_EXTERNAL)
    data["corrupt"] = bool(header.incompatible & headers.CORRUPT)
    data["extended-l2"] = header.extended_l2
    return data


def allocated(node: Node) -> int | None:
    """Bytes of the host's disk that the image and its data file take."""
    fd = getattr(node, "fd", None)
    if node.driver in NOTHING:
        return 0
    if fd is not None:
        return os.fstat(fd).st_blocks * 512
    sizes = [allocated(child) for role, child in node.children() if role != "backing"]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def snapshot_rows(snapshots: list[Any], id: str = "") -> str:
    """A table of snapshots (qcow2_header.Snapshot), with its head; `id` in place of each one's own."""
    import time

    from vmrun.backends.block.people import padded

    text = f"{'ID':<9} {'TAG':<16} {'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}\n"
    for one in snapshots:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.date_sec))
        seconds, rest = divmod(one.vm_clock_nsec // 1_000_000, 1000)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"
        icount = "" if one.icount == (1 << 64) - 1 else str(one.icount)
        size = people(one.vm_state_size)
        text += f"{id or one.id:<9} {padded(one.name, 16)} {size:>8}{date:>20}{clock:>13}{icount:>11}\n"
    return text
