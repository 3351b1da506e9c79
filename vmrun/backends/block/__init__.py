"""Drives: image files behind disks.

`open_drive(name, spec, lock)` opens what a machine file calls a drive. Images are nodes (images.py opens them), a drive
is the queue on top (drive.py). An image that somebody writes is locked the way qemu-kvm locks it, so that vmrun, QEMU
and qemu-img keep out of each other's way. `snapshot: true` keeps the image as it is: what the guest writes lies in a
temporary file and is gone with it.
"""

from __future__ import annotations

import os

from vmrun.core import iolimits
from vmrun.errors import BackendError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.backends.block.drive import Drive
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.images import Access
    from vmrun.backends.block.limits import LimitGroup
    from vmrun.backends.block.node import Node

    Groups = MutableMapping[str, LimitGroup]

ZEROES = {"off": 0, "on": 1, "unmap": 2}


def open_drive(
    name: str, spec: dict[str, Any], lock: DeviceLock, node: Node | None = None, groups: Groups | None = None,
    objects: dict[str, Any] | None = None,
) -> Drive:  # fmt: skip
    """The back end of drive `name`, on a `node` that is there already or on what `spec` says. `groups`: of drives that
    share their limits, by name; `objects`: the host's, which an image's options may name. BackendError says why the
    image cannot be had and what to do.
    """
    from vmrun.backends.block.drive import Drive
    from vmrun.backends.block.images import Access

    cache = spec.get("cache") or "writeback"
    disc = spec.get("media") == "cdrom"
    readonly = bool(spec.get("readonly", False)) or disc
    snapshot = bool(spec.get("snapshot", False)) and not readonly
    access = Access(
        cache=cache, readonly=readonly or snapshot, discard=spec.get("discard") == "unmap",
        lock=spec.get("locking") != "off", aio=spec.get("aio") or "threads",
    ).with_objects(objects or {})  # fmt: skip
    if node is None and (spec.get("file") or str(spec.get("format")).startswith("null-")):
        node = _open(name, spec, access)
        if snapshot:
            node = over_temporary(name, node)
        elif spec.get("copy-on-read") and not readonly:
            from vmrun.backends.block.tap import CopyOnReadNode

            node = CopyOnReadNode(node)
    drive = Drive(name, node, lock)
    drive.ignore_flush = cache == "unsafe" or snapshot
    drive.write_cache = cache not in ("writethrough", "directsync")
    drive.discards = spec.get("discard") == "unmap"
    drive.detect_zeroes = ZEROES[spec.get("detect-zeroes") or "off"]
    try:
        _limit(drive, spec, {} if groups is None else groups)
    except ValueError as error:
        drive.close()
        raise BackendError(f"drive {name}: {error}") from None
    drive.set_errors(spec.get("rerror") or "report", spec.get("werror") or "enospc")
    drive.serial = spec.get("serial")
    drive.cdrom = disc
    return drive


def _limit(drive: Drive, spec: dict[str, Any], groups: Groups) -> None:
    limits = {name: int(spec[name]) for name in iolimits.NAMES if spec.get(name) is not None}
    group = spec.get("throttle-group")
    if iolimits.checked(limits) or group:
        found = limit_group(groups, group or drive.name)
        if iolimits.checked(limits):
            found.set(limits)
        drive.join(found)


def limit_group(groups: Groups, name: str) -> LimitGroup:
    """The one of this name, which is there as long as somebody belongs to it."""
    from vmrun.backends.block.limits import LimitGroup

    found = groups.get(name)
    if found is None or not found.members and not found.kept:
        found = groups[name] = LimitGroup(name)
    return found


def queue(node: Node) -> Drive:
    """A drive of nobody's: requests to a node, many at a time."""
    from accel.errands import ErrandLock

    from vmrun.backends.block.drive import Drive

    drive = Drive("", node, ErrandLock())
    drive.set_errors("report", "report")  # there is no machine that stops on a full disk, and nobody who lets it go on
    return drive


def open_medium(name: str, spec: dict[str, Any], objects: dict[str, Any]) -> Node:
    """The image of a removable drive: `spec`, `objects` as open_drive's. BackendError when it cannot be had."""
    from vmrun.backends.block.images import Access

    readonly = spec.get("media") == "cdrom" or bool(spec.get("readonly"))
    access = Access(
        cache=spec.get("cache") or "writeback", readonly=readonly, lock=spec.get("locking") != "off",
        aio=spec.get("aio") or "threads",
    ).with_objects(objects)  # fmt: skip
    return _open(name, spec, access)


def _open(name: str, spec: dict[str, Any], access: Access) -> Node:
    from vmrun.backends.block import images
    from vmrun.backends.block.errors import ImageError

    path, format = spec.get("file"), spec.get("format") or "auto"
    if format.startswith("null-"):
        return images.open_options({"driver": format, "read-zeroes": True}, access)
    if not path:
        raise BackendError(f"drive {name}: no file is given", remedy="add `file:` to the drive")
    try:
        file = images.open_protocol(path, access)
    except ImageError as error:
        raise _told(name, path, spec, error) from None
    try:
        if file.size == 0:
            raise BackendError(
                f"drive {name}: {path} is empty", remedy=f"give it a size, for example: truncate -s 10G {path}"
            )
        if format == "auto":
            format = images.probe(file, path)
            if format == "raw":
                return images.over(file, path, None, access)
            raise BackendError(
                f"drive {name}: {path} looks like an image of format {format}, and the drive says no format",
                remedy=f"say `format: {format}`; or `format: raw`, if the guest is to see the file as it is",
            )
        if format == "nbd":
            format = "raw"
        return images.over(file, path, format, access)
    except ImageError as error:
        file.close()
        raise _told(name, path, spec, error) from None
    except BaseException:
        file.close()
        raise


def _told(name: str, path: str, spec: dict[str, Any], error: ImageError) -> BackendError:
    """In this house's words, with what to do; QEMU's are with them."""
    from vmrun.backends.block.nodeoptions import of_the_host

    text = error.text.removeprefix(f"Could not open '{path}': ")
    wanted = "read" if spec.get("readonly") else "read and written"
    remedy = error.remedy
    if text == "No such file or directory":
        kind = "qcow2" if spec.get("format") == "qcow2" else "raw"
        text, remedy = f"{path} does not exist", f"create it, for example: vmrun img create -f {kind} {path} 10G"
    elif text == "Permission denied":
        text = f"{path} may not be {wanted}"
        remedy = "change its permissions" + ("" if spec.get("readonly") else ", or add `readonly: true` to the drive")
    elif os.path.isdir(path):
        text = f"{path} is a directory, not an image"
    elif text.endswith("to be a regular file"):
        text = f"{path} is neither a file nor a block device"
    elif "lock" in text:
        text, remedy = (
            f"{path} is in use by another process",
            ("stop the other machine, or add `readonly: true` to both"),
        )
    else:
        text = f"{path}: {text}"
    inner = error.text.removeprefix(f"Could not open '{path}': ")
    words = error.text if of_the_host(inner) else inner
    if error.remedy.startswith("Is "):
        words += f"\n{error.remedy}"
    told = f"drive {name}: {text}"
    return BackendError(problems=[Problem(BackendError.default_code, told, remedy=remedy, facts={"qemu": words})])


def over_temporary(name: str, base: Node) -> Node:
    """`base` under a temporary file that takes the writes; base is closed when there can be none."""
    from vmrun.backends.block.file import FileNode
    from vmrun.backends.block.overlay import OverlayNode

    try:
        file = FileNode(_temporary(name), "")
        try:
            return OverlayNode(base, file)
        except BaseException:
            file.close()
            raise
    except BaseException:
        base.close()
        raise


def _temporary(name: str) -> int:
    """A file without a name in $TMPDIR, else /var/tmp, where there is room for disks."""
    import tempfile

    directory = os.environ.get("TMPDIR") or "/var/tmp"
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            return os.dup(file.fileno())
    except OSError as exc:
        raise BackendError(
            f"drive {name}: no temporary file in {directory}: {exc.strerror}",
            remedy="set TMPDIR to a directory with room for what the guest writes",
        ) from None
