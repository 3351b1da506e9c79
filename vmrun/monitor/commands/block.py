"""Disks: drives, the nodes they are made of, their sizes and their counters."""

from __future__ import annotations

import os
import stat

from vmrun.errors import BuildError
from vmrun.machine import blocks
from vmrun.machine.thresholds import thresholds
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import alternates, check, command, enums, event, struct, union, wrapped
from vmrun.monitor.work import Work, apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

enums["BlockDeviceIoStatus"] = ("ok", "failed", "nospace")
enums["BlockdevDetectZeroesOptions"] = ("off", "on", "unmap")
struct("BlockdevCacheInfo", {"writeback": "bool", "direct": "bool", "no-flush": "bool"})
struct(
    "SnapshotInfo",
    {
        **{"id": "str", "name": "str", "vm-state-size": "int", "date-sec": "int", "date-nsec": "int"},
        **{"vm-clock-sec": "int", "vm-clock-nsec": "int", "icount?": "int"},
    },
)
enums["Qcow2CompressionType"] = ("zlib", "zstd")
enums["Qcow2BitmapInfoFlags"] = ("in-use", "auto")
struct("Qcow2BitmapInfo", {"name": "str", "granularity": "int", "flags": "[Qcow2BitmapInfoFlags]"})
struct(
    "ImageInfoSpecificQCow2",
    {
        **{"compat": "str", "data-file?": "str", "data-file-raw?": "bool", "extended-l2?": "bool"},
        **{"lazy-refcounts?": "bool", "corrupt?": "bool", "refcount-bits": "int", "bitmaps?": "[Qcow2BitmapInfo]"},
        **{"compression-type": "Qcow2CompressionType"},
    },
)
struct(
    "ImageInfoSpecificVmdk", {"create-type": "str", "cid": "int", "parent-cid": "int", "extents": "[ImageInfo]"}
)
wrapped(
    "ImageInfoSpecific", "ImageInfoSpecificKind", {"qcow2": "ImageInfoSpecificQCow2", "vmdk": "ImageInfoSpecificVmdk"}
)
struct(
    "ImageInfo",
    {
        **{"filename": "str", "format": "str", "dirty-flag?": "bool", "actual-size?": "int", "virtual-size": "int"},
        **{"cluster-size?": "int", "encrypted?": "bool", "compressed?": "bool", "backing-filename?": "str"},
        **{"full-backing-filename?": "str", "backing-filename-format?": "str", "snapshots?": "[SnapshotInfo]"},
        **{"backing-image?": "ImageInfo", "format-specific?": "ImageInfoSpecific"},
    },
)
struct(
    "BlockDirtyInfo",
    {
        **{"name?": "str", "count": "int", "granularity": "int", "recording": "bool", "busy": "bool"},
        **{"persistent": "bool", "inconsistent?": "bool"},
    },
)
struct(
    "BlockDeviceInfo",
    {
        **{"file": "str", "node-name?": "str", "ro": "bool", "drv": "str", "backing_file?": "str"},
        **{"backing_file_depth": "int", "encrypted": "bool", "detect_zeroes": "BlockdevDetectZeroesOptions"},
        **{"bps": "int", "bps_rd": "int", "bps_wr": "int", "iops": "int", "iops_rd": "int", "iops_wr": "int"},
        **{"image": "ImageInfo", "cache": "BlockdevCacheInfo", "write_threshold": "int"},
        **{"dirty-bitmaps?": "[BlockDirtyInfo]"},
    },
)
struct(
    "BlockInfo",
    {
        **{"device": "str", "qdev?": "str", "type": "str", "removable": "bool", "locked": "bool"},
        **{"inserted?": "BlockDeviceInfo", "tray_open?": "bool", "io-status?": "BlockDeviceIoStatus"},
    },
)
_WHAT = ("bytes", "operations", "merged", "total_time_ns")
_COUNTS = {f"{name}_{what}": "int" for name in ("rd", "wr", "unmap") for what in _WHAT} | {
    f"{state}_{name}_operations": "int" for state in ("failed", "invalid") for name in ("rd", "wr", "unmap", "flush")
}
struct("BlockLatencyHistogramInfo", {"boundaries": "[int]", "bins": "[int]"})
struct(
    "BlockDeviceStats",
    {
        **_COUNTS,
        **{"flush_operations": "int", "flush_total_time_ns": "int", "wr_highest_offset": "int"},
        **{"account_invalid": "bool", "account_failed": "bool", "timed_stats": "[any]"},
        **{f"{name}_latency_histogram?": "BlockLatencyHistogramInfo" for name in ("rd", "wr", "flush")},
    },
)
struct(
    "BlockStats",
    {
        **{"device?": "str", "qdev?": "str", "node-name?": "str", "stats": "BlockDeviceStats"},
        **{"driver-specific?": "any", "parent?": "BlockStats", "backing?": "BlockStats"},
    },
)


_NODE = {
    **{"driver": "BlockdevDriver", "node-name?": "str", "discard?": "BlockdevDiscardOptions"},
    **{"cache?": "BlockdevCacheOptions", "read-only?": "bool", "auto-read-only?": "bool", "force-share?": "bool"},
    **{"detect-zeroes?": "BlockdevDetectZeroesOptions"},
}
enums["BlockdevDiscardOptions"] = ("ignore", "unmap")
enums["BlockdevDriver"] = (
    "blkdebug", "copy-on-read", "file", "host_cdrom", "host_device", "http", "https", "nbd", "null-aio", "null-co",
    "qcow2", "raw", "throttle", "vdi", "vhdx", "vmdk", "vpc", "vvfat",
)  # fmt: skip
enums["OnOffAuto"] = ("auto", "on", "off")
enums["BlockdevAioOptions"] = ("threads", "native", "io_uring")
struct("BlockdevCacheOptions", {"direct?": "bool", "no-flush?": "bool"})
struct(
    "BlockdevOptionsFile",
    {"filename": "str", "pr-manager?": "str", "locking?": "OnOffAuto", "aio?": "BlockdevAioOptions",
     "drop-cache?": "bool", "x-check-cache-dropped?": "bool"},
)  # fmt: skip
struct("BlockdevOptionsNull", {"size?": "int", "latency-ns?": "int", "read-zeroes?": "bool"})
struct("BlockdevOptionsFormat", {"file": "BlockdevRef"})
struct("BlockdevOptionsRaw", {"file": "BlockdevRef", "offset?": "int", "size?": "int"})
struct(
    "BlockdevOptionsQcow2",
    {
        **{"file": "BlockdevRef", "backing?": "BlockdevRefOrNull", "data-file?": "BlockdevRef"},
        **{"lazy-refcounts?": "bool", "overlap-check?": "any"},
        **{f"pass-discard-{what}?": "bool" for what in ("request", "snapshot", "other")},
        **{f"{which}-size?": "int" for which in ("cache", "l2-cache", "l2-cache-entry", "refcount-cache")},
        "cache-clean-interval?": "int",
    },
)
struct("BlockdevOptionsGenericFormat", {"file": "BlockdevRef"})
struct("BlockdevOptionsGenericCOWFormat", {"file": "BlockdevRef", "backing?": "BlockdevRefOrNull"})
struct("BlockdevOptionsThrottle", {"file": "BlockdevRef", "throttle-group": "str"})
struct("BlockdevOptionsCor", {"file": "BlockdevRef", "bottom?": "str"})
struct(
    "BlockdevOptionsHttp",
    {"url": "str", "timeout?": "int", "cookie?": "str", "sslverify?": "bool", "readahead?": "int", "username?": "str",
     "password-secret?": "str", "proxy-username?": "str", "proxy-password-secret?": "str", "cookie-secret?": "str"},
)  # fmt: skip
struct(
    "BlockdevOptionsVVFAT",
    {"dir": "str", "fat-type?": "int", "floppy?": "bool", "label?": "str", "rw?": "bool"},
)
union("SocketAddress", "type", {"type": "SocketAddressType"}, {
    "inet": "InetSocketAddress", "unix": "UnixSocketAddress", "fd": "String",
})  # fmt: skip
struct(
    "BlockdevOptionsNbd",
    {"server": "SocketAddress", "export?": "str", "tls-creds?": "str", "tls-hostname?": "str", "x-dirty-bitmap?": "str",
     "reconnect-delay?": "int", "open-timeout?": "int"},
)  # fmt: skip
struct("BlkdebugOptions", {
    "image": "BlockdevRef", "config?": "str", "inject-error?": "[any]", "set-state?": "[any]", "align?": "int",
    "max-transfer?": "int", "opt-write-zero?": "int", "max-write-zero?": "int", "opt-discard?": "int",
    "max-discard?": "int",
})  # fmt: skip
alternates["BlockdevRef"] = ("BlockdevOptions", "str")
alternates["BlockdevRefOrNull"] = ("BlockdevOptions", "str", "null")
union(
    "BlockdevOptions",
    "driver",
    _NODE,
    {
        **dict.fromkeys(("file", "host_cdrom", "host_device"), "BlockdevOptionsFile"),
        **dict.fromkeys(("null-aio", "null-co"), "BlockdevOptionsNull"),
        **{"qcow2": "BlockdevOptionsQcow2", "raw": "BlockdevOptionsRaw", "nbd": "BlockdevOptionsNbd"},
        **dict.fromkeys(("vdi", "vhdx", "vpc"), "BlockdevOptionsGenericFormat"),
        **{"vmdk": "BlockdevOptionsGenericCOWFormat"},
        **{"blkdebug": "BlkdebugOptions", "throttle": "BlockdevOptionsThrottle", "copy-on-read": "BlockdevOptionsCor"},
        **{"http": "BlockdevOptionsHttp", "https": "BlockdevOptionsHttp", "vvfat": "BlockdevOptionsVVFAT"},
    },
)


def _told(act: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return act(*arguments)
    except BuildError as error:
        text = error.problems[0].message
        missing = text.startswith("Device '") and text.endswith("' not found")
        raise QmpError(text, "DeviceNotFound" if missing else "GenericError") from None


@command("query-block", returns="[BlockInfo]")
def query_block(monitor: Any) -> list[dict[str, Any]]:
    """The drives, and what lies in them."""
    return blocks.blocks(monitor.machine).block_info()


@command("query-named-block-nodes", {"flat?": "bool"}, "[BlockDeviceInfo]")
def query_named_block_nodes(monitor: Any, flat: bool = False) -> list[dict[str, Any]]:
    """The nodes that drives are made of, the top ones first. `flat`: without those below inside each."""
    table = blocks.blocks(monitor.machine)
    found = []
    for node, drive in table.nodes():
        filter = table.filter_info(node, drive)
        found += [*([filter] if filter is not None else []), table.device_info(node, drive)]
    if flat:
        for row in found:
            row["image"].pop("backing-image", None)
    return found


@command("query-blockstats", {"query-nodes?": "bool"}, "[BlockStats]")
def query_blockstats(monitor: Any, query_nodes: bool = False) -> list[dict[str, Any]]:
    """What guests have asked of their drives so far. Nodes by themselves count nothing."""
    return blocks.blocks(monitor.machine).statistics(query_nodes)


@command(
    "block-latency-histogram-set",
    {"id": "str", **{f"boundaries{kind}?": "[int]" for kind in ("", "-read", "-write", "-flush")}},
)
def block_latency_histogram_set(
    monitor: Any, id: str, boundaries: list[int] | None = None, boundaries_read: list[int] | None = None,
    boundaries_write: list[int] | None = None, boundaries_flush: list[int] | None = None,
) -> None:  # fmt: skip
    """Have query-blockstats tell how long a device's requests took: how many between these boundaries, in ns. Without
    any it tells no more.
    """
    given = {"read": boundaries_read, "write": boundaries_write, "flush": boundaries_flush}
    _told(blocks.histograms, monitor.machine, id, boundaries, given)


@command("block_resize", {"device?": "str", "node-name?": "str", "size": "int"})
def block_resize(monitor: Any, size: int, device: str = "", node_name: str = "") -> None:
    """Another size for an image that is in use; the guest is told."""
    _told(blocks.resize, monitor.machine, device, node_name, size)


event(
    "BLOCK_WRITE_THRESHOLD",
    "A node was written beyond the offset that block-set-write-threshold gave; there is no threshold any more.",
    {"node-name": "str", "amount-exceeded": "int", "write-threshold": "int"},
)


@command("block-set-write-threshold", {"node-name": "str", "write-threshold": "int"})
def block_set_write_threshold(monitor: Any, node_name: str, write_threshold: int) -> None:
    """Have BLOCK_WRITE_THRESHOLD tell, once, of a write beyond an offset; 0 is no offset."""
    _told(thresholds(monitor.machine).set, node_name, write_threshold)


_LIMITS = [f"{unit}{kind}" for unit in ("bps", "iops") for kind in ("", "_rd", "_wr")]


@command(
    "block_set_io_throttle",
    {
        **{"device?": "str", "id?": "str", **dict.fromkeys(_LIMITS, "int")},
        **dict.fromkeys((f"{name}_max?" for name in _LIMITS), "int"),
        **dict.fromkeys((f"{name}_max_length?" for name in _LIMITS), "int"),
        **{"iops_size?": "int", "group?": "str"},
    },
)
def block_set_io_throttle(monitor: Any, device: str = "", id: str = "", group: str = "", **limits: int) -> None:
    """How many bytes and requests a drive moves per second at most; 0 is no limit. Drives of a `group` share them."""
    wanted = {name.replace("_", "-"): value for name, value in limits.items() if value is not None}
    _told(blocks.limit, monitor.machine, device, id, wanted, group)


@command("blockdev-add", {"driver": "str", "node-name?": "str"}, gen=False, shape="BlockdevOptions")
def blockdev_add(monitor: Any, **options: Any) -> Work | None:
    """Name an image, or a part of what one is made of, for device_add. The driver's options are further arguments."""
    options = {key.replace("_", "-") if key == "node_name" else key: value for key, value in options.items()}
    check(options, "BlockdevOptions", "")
    if pipes := list(_pipes(options)):
        return Work(monitor.machine, lambda work: [_poured(level, work) for level in pipes]).map(
            lambda kept: _add_of(monitor, options, kept)
        )
    table = blocks.blocks(monitor.machine)
    if options.get("node-name") and (far := _told(table.named.far, options)):
        return Work(monitor.machine, lambda work: apart(work, far)).map(lambda node: _told(table.add, options, node))
    _told(table.add, options)
    return None


def _pipes(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those whose rules (blkdebug's `config`) come out of a pipe: who asked waits for them, and nobody else."""
    config = options.get("config")
    named = options.get("driver") == "blkdebug" and isinstance(config, str) and os.path.exists(config)
    if named and stat.S_ISFIFO(os.stat(str(config)).st_mode):
        yield options
    for value in options.values():
        if isinstance(value, dict):
            yield from _pipes(value)


def _poured(level: dict[str, Any], work: Work) -> int:
    """A file without a name of what the pipe gives until its writers are gone; the options name it instead."""
    import select

    kept = os.memfd_create("rules")
    try:
        pipe = os.open(level["config"], os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # add() will say why
        return kept
    ready = select.poll()
    ready.register(pipe, select.POLLIN)
    with os.fdopen(pipe, "rb", buffering=0) as given:
        while not work.ended:
            if ready.poll(500):
                data = given.read(1 << 16)
                if not data:
                    break
                os.write(kept, data)
    level["config"] = f"/proc/self/fd/{kept}"
    return kept


def _add_of(monitor: Any, options: dict[str, Any], kept: list[int]) -> None:
    try:
        _told(blocks.blocks(monitor.machine).add, options)
    finally:
        for fd in kept:
            os.close(fd)


@command("blockdev-del", {"node-name": "str"})
def blockdev_del(monitor: Any, node_name: str) -> None:
    """Forget what blockdev-add named; not while something is built on it."""
    _told(blocks.blocks(monitor.machine).delete, node_name)
