"""What changes a block graph in use: snapshots, mirror and backup, new images, other options. BuildError in QEMU's
words; the main thread, without the device lock.
"""

from __future__ import annotations

import os

from vmrun.errors import BuildError
from vmrun.machine import bitmaps
from vmrun.machine.blockjobs import (
    Backup,
    BlockJob,
    Mirror,
    backing_of,
    below_of,
    chain_of,
    file_of,
    format_of,
    free,
    started,
)  # fmt: skip
from vmrun.machine.blocks import blocks
from vmrun.machine.dirtybitmap import of as dirty_bitmaps_of
from vmrun.machine.jobs import Job
from vmrun.machine.nodes import LETTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.jobs import Transaction
    from vmrun.machine.machine import Machine


def open_image(path: str, format: str, *, readonly: bool = False, backing: bool = True) -> Any:
    """An image that a command names by its file."""
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.images import PROTOCOLS, Access, open_node

    if format in PROTOCOLS:
        format = "raw"  # what a server has is the disk itself
    try:
        return open_node(path, format or None, Access(readonly=readonly), backing=backing)
    except ImageError as error:
        raise BuildError(error.text) from None


def make_image(path: str, format: str, size: int, backing: str = "", backing_format: str = "") -> None:
    from vmrun.backends.block import create
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.images import FORMATS

    if format not in FORMATS:
        raise BuildError(f"Unknown file format '{format}'")
    if backing and format != "qcow2":
        raise BuildError(f"Backing file not supported for file format '{format}'")
    try:
        create.create_image(path, format, size, {"backing_file": backing, "backing_fmt": backing_format})
    except ImageError as error:
        raise BuildError(error.text) from None


# --- snapshots -----------------------------------------------------------------------------------------------------


def put_on_top(machine: Machine, old: Any, new: Any) -> None:
    """`new`, whose backing image is `old`, takes its place."""
    table = blocks(machine)
    with table.quiet(old, new):
        new.rebase(old.hold())
        table.replace(old, new, but=(new,))


def _on_top(machine: Machine, node: Any) -> None:
    """A node that others are based on gets no overlay: they would see what is written there. BuildError."""
    table = blocks(machine)
    above = next((other for other, _ in table.nodes() if backing_of(other) is node), None)
    if above is not None:
        names = table.node_name(node), table.node_name(above)
        raise BuildError(f"Node '{names[0]}' is busy: node is used as backing hd of '{names[1]}'")


def _unused(machine: Machine, node: Any, user: Any) -> None:
    """A job writes into nothing that a device shows. `user`: the node's drive, or None. BuildError."""
    if user is not None and user.name in blocks(machine).users():
        raise BuildError(f"Conflicts with use by {user.name} as 'root', which does not allow 'write' on {node.name}")


class SnapshotSync:
    """blockdev-snapshot-sync, in the steps of a transaction."""

    def __init__(
        self, machine: Machine, device: str, node_name: str, snapshot_file: str, snapshot_node_name: str, format: str,
        mode: str,
    ) -> None:  # fmt: skip
        self.machine = machine
        table = blocks(machine)
        name = device or node_name
        self.old = table.lookup(device, node_name)
        free(machine, self.old, name)
        _on_top(machine, self.old)
        if node_name and not snapshot_node_name:
            raise BuildError("New overlay node-name missing")
        if snapshot_node_name and (snapshot_node_name in table.known or table.node(snapshot_node_name) is not None):
            raise BuildError("New overlay node-name already in use")
        if format not in ("qcow2",):
            raise BuildError(
                "The overlay does not support backing images" if format == "raw" else f"Unknown file format '{format}'"
            )
        if not self.old.readonly:
            self.old.sync_now()
        if mode != "existing":
            if os.path.abspath(snapshot_file) == os.path.abspath(file_of(self.old)):
                raise BuildError(f"{snapshot_file}: the image cannot be its own backing file")
            make_image(snapshot_file, format, self.old.size, os.path.abspath(file_of(self.old)), format_of(self.old))
        self.new = open_image(snapshot_file, format, backing=False)
        self.name = snapshot_node_name

    def commit(self) -> None:
        table = blocks(self.machine)
        put_on_top(self.machine, self.old, self.new)
        if self.name:
            self.new.name = self.name
            table.named.known[self.name] = {"node-name": self.name, "driver": "qcow2", "file": file_of(self.new)}
            table.named.open[self.name] = self.new  # the name's hold is ours
        else:
            self.new.close()
        settle_below(self.machine, self.old)

    def abort(self) -> None:
        self.new.close()


def settle_below(machine: Machine, node: Any) -> None:
    """An image that nobody writes any more is only read: others may read it as well."""
    from vmrun.backends.block.reopening import reopen

    if not node.readonly:
        with blocks(machine).quiet(node):
            reopen(node, True)


class Snapshot:
    """blockdev-snapshot: a node that is there becomes the overlay of another."""

    def __init__(self, machine: Machine, node: str, overlay: str) -> None:
        self.machine = machine
        table = blocks(machine)
        self.old, _ = table.find(node)
        self.new, drive = table.find(overlay)
        free(machine, self.old, node)
        _on_top(machine, self.old)
        if drive is not None or table.is_below(self.new):
            raise BuildError("The overlay is already in use")
        if getattr(self.new, "header", None) is None:
            raise BuildError("The overlay does not support backing images")
        if backing_of(self.new) is not None:
            raise BuildError("The overlay already has a backing image")
        if any(one is self.new for one in chain_of(self.old)):
            raise BuildError(f"Making '{self.old.name}' a backing child of '{self.new.name}' would create a cycle")
        if not self.old.readonly:
            self.old.sync_now()

    def commit(self) -> None:
        put_on_top(self.machine, self.old, self.new)
        settle_below(self.machine, self.old)

    def abort(self) -> None:
        pass


# --- jobs ------------------------------------------------------------------------------------------------------------


class How:
    """What every block job can be told."""

    def __init__(self, given: dict[str, Any], transaction: Transaction | None = None) -> None:
        self.id: str | None = given.get("job_id")
        self.speed = given.get("speed") or 0
        self.keywords: dict[str, Any] = {
            "speed": self.speed,
            "auto_finalize": given.get("auto_finalize", True) is not False,
            "auto_dismiss": given.get("auto_dismiss", True) is not False,
            "transaction": transaction,
            "filter_name": given.get("filter_node_name") or "",
        }
        if self.speed < 0:
            raise BuildError("Parameter 'speed' expects a non-negative value")
        for side in ("on_source_error", "on_target_error"):
            if given.get(side):
                self.keywords[side] = given[side]
        if given.get("on_error"):
            self.keywords["on_source_error"] = self.keywords["on_target_error"] = given["on_error"]

    def name(self, device: str, node: Any, machine: Machine) -> str:
        """The one that was given, or the drive's that shows the node. BuildError."""
        if self.id is not None:
            return self.id
        table = blocks(machine)
        name = next((table.public_name(drive.name) for drive in table.all_drives() if drive.node is node), "")
        if not name:
            raise BuildError("Invalid job ID ''")
        return name


def same_size(source: Any, target: Any) -> None:
    if target.size != source.size:
        raise BuildError("Source and target image have different sizes")


def root_alone(table: Any, node: Any) -> None:
    """BuildError for a node that lies below another."""
    if table.is_below(node):
        raise BuildError("Need a root block node")


def _granularity(given: int, target: Any) -> int:
    if given:
        if given < 512 or given > 64 << 20:
            raise BuildError("Parameter 'granularity' expects a value in range [512B, 64MB]")
        if given & (given - 1):
            raise BuildError("Parameter 'granularity' expects a power of 2")
        return given
    return max(4096, min(65536, getattr(target, "cluster_size", 65536)))


def drive_mirror(
    machine: Machine, device: str, target: str, sync: str, *, format: str = "", node_name: str = "",
    replaces: str = "", mode: str = "absolute-paths", granularity: int = 0, copy_mode: str = "background",
    **given: Any,
) -> BlockJob:  # fmt: skip
    how, table = How(given), blocks(machine)
    source, drive = table.find(device)
    free(machine, source, device)
    if replaces and not node_name:
        raise BuildError("a node-name must be provided when replacing a named node of the graph")
    base = below_of(source) if sync == "top" else None
    if sync == "top" and base is None:
        sync = "full"
    if sync == "none":
        base = source
    below = base if sync == "top" else source if sync == "none" else None
    made = mode == "absolute-paths"
    format = format or (format_of(source) if made else "")
    id = how.name(device, source, machine)
    if made:
        path = file_of(below) if below is not None else ""
        make_image(
            target, format, source.size, os.path.abspath(path) if path else "", format_of(below) if path else ""
        )
    image = open_image(target, format, backing=not made and sync == "top")
    try:
        if replaces:
            _check_replaces(table, source, replaces)
        if made and below is not None:
            image.rebase(below.hold())
        if node_name:
            _name(table, image, node_name)
        grain = _granularity(granularity, image)
        other = table.find(replaces)[0] if replaces else None
        return started(
            machine,
            lambda: Mirror(
                machine, id, source, image, sync=sync, base=base if sync == "top" else None, granularity=grain,
                blank=made and sync == "full", copy_mode=copy_mode, replaces=other, **how.keywords,
            ),
            id,
        )  # fmt: skip
    finally:
        image.close()


def _name(table: Any, node: Any, name: str) -> None:
    if name in table.known or table.node(name) is not None:
        raise BuildError(f"Duplicate nodes with node-name='{name}'")
    node.name = name


def filter_named(machine: Machine, name: str) -> None:
    """A name that the filter of a job can have. BuildError."""
    table = blocks(machine)
    if not name or not name[0].isalpha() or set(name) - LETTERS:
        raise BuildError(f"Invalid node-name: '{name}'")
    if name in table.known or table.node(name) is not None:
        raise BuildError(f"Duplicate nodes with node-name='{name}'")


def _check_replaces(table: Any, source: Any, replaces: str) -> None:
    other, _ = table.find(replaces)
    if other.size != source.size:
        raise BuildError("cannot replace image with a mirror image of different size")


def blockdev_mirror(
    machine: Machine, device: str, target: str, sync: str, *, replaces: str = "", granularity: int = 0,
    copy_mode: str = "background", **given: Any,
) -> BlockJob:  # fmt: skip
    how, table = How(given), blocks(machine)
    source, _ = table.find(device)
    root_alone(table, source)
    image, user = table.find(target)
    if image is source:
        raise BuildError("Can't mirror node into itself")
    free(machine, source, device)
    free(machine, image, target)
    _unused(machine, image, user)
    base = below_of(source) if sync == "top" else None
    if sync == "top" and base is None:
        sync = "full"
    writable(image)
    grain = _granularity(granularity, image)
    id = how.name(device, source, machine)
    other = table.find(replaces)[0] if replaces else None
    return started(
        machine,
        lambda: Mirror(
            machine, id, source, image, sync=sync, base=base, granularity=grain, copy_mode=copy_mode,
            replaces=other, **how.keywords,
        ),
        id,
    )  # fmt: skip


def writable(node: Any) -> None:
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.reopening import reopen

    if node.readonly:
        if not node.lazy:
            raise BuildError("Block node is read-only")
        try:
            reopen(node, False)
        except ImageError as error:
            raise BuildError(error.text) from None


def _backup(
    machine: Machine, source: Any, image: Any, id: str, sync: str, bitmap: Any, bitmap_mode: str, compress: bool,
    how: How,
) -> BlockJob:  # fmt: skip
    base = below_of(source) if sync == "top" else None
    if compress and (getattr(image, "header", None) is None or image.external):
        raise BuildError("Compression is not supported for this drive ")
    return started(
        machine,
        lambda: Backup(
            machine, id, source, image, sync=sync, base=base, bitmap=bitmap, bitmap_mode=bitmap_mode,
            compress=compress, **how.keywords,
        ),
        id,
    )


def _bitmap_for(machine: Machine, device: str, sync: str, name: str, mode: str) -> tuple[str, Any, str]:
    """(sync, bitmap or None, its mode)."""
    if name and name not in dirty_bitmaps_of(blocks(machine), blocks(machine).find(device)[0]):
        raise BuildError(f"Bitmap '{name}' could not be found")
    if sync == "incremental":
        if mode and mode != "on-success":
            raise BuildError("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'")
        mode = "on-success"
    if sync in ("bitmap", "incremental"):
        if not name:
            raise BuildError(f"must provide a valid bitmap name for '{sync}' sync mode")
        if not mode:
            raise BuildError("Bitmap sync mode must be given when providing a bitmap")
        return sync, bitmaps.usable(bitmaps.find(machine, device, name)), mode
    if name or mode:
        raise BuildError(
            "Cannot specify bitmap sync mode without a bitmap" if not name
            else f"Bitmap sync mode '{mode}' has no meaningful effect when combined with sync mode '{sync}'"
        )
    return sync, None, ""


def drive_backup(
    machine: Machine, device: str, target: str, sync: str, *, format: str = "", mode: str = "absolute-paths",
    bitmap: str = "", bitmap_mode: str = "", compress: bool = False, transaction: Transaction | None = None,
    **given: Any,
) -> BlockJob:  # fmt: skip
    how, table = How(given, transaction), blocks(machine)
    source, _ = table.find(device)
    free(machine, source, device)
    sync, bits, kind = _bitmap_for(machine, device, sync, bitmap, bitmap_mode)
    if sync == "top" and below_of(source) is None:
        sync = "full"
    made = mode == "absolute-paths"
    format = format or (format_of(source) if made else "")
    id = how.name(device, source, machine)
    below = below_of(source) if sync == "top" else source if sync == "none" else None
    if made:
        path = os.path.abspath(file_of(below)) if below is not None else ""
        make_image(target, format, source.size, path, format_of(below) if path else "")
    image = open_image(target, format, backing=False)
    try:
        if made and below is not None:
            image.rebase(below.hold())
        same_size(source, image)
        return _backup(machine, source, image, id, sync, bits, kind, compress, how)
    finally:
        image.close()


def blockdev_backup(
    machine: Machine, device: str, target: str, sync: str, *, bitmap: str = "", bitmap_mode: str = "",
    compress: bool = False, transaction: Transaction | None = None, **given: Any,
) -> BlockJob:  # fmt: skip
    how, table = How(given, transaction), blocks(machine)
    source, _ = table.find(device)
    image, user = table.find(target)
    free(machine, source, device)
    free(machine, image, target)
    if image is source:
        raise BuildError("Source and target cannot be the same")
    _unused(machine, image, user)
    sync, bits, kind = _bitmap_for(machine, device, sync, bitmap, bitmap_mode)
    if sync == "top" and below_of(source) is None:
        sync = "full"
    writable(image)
    same_size(source, image)
    return _backup(machine, source, image, how.name(device, source, machine), sync, bits, kind, compress, how)


class Create(Job):
    """blockdev-create, as a job."""

    kind, block = "create", False

    def __init__(self, machine: Machine, id: str, make: Any) -> None:
        super().__init__(machine, id, auto_dismiss=False)
        self.make, self.total = make, 1

    def work(self) -> None:
        from vmrun.backends.block.errors import ImageError

        try:
            self.make()
        except ImageError as error:
            raise BuildError(error.text) from None
        finally:
            self.current = 1


_QCOW2 = {
    "backing-file": "backing_file", "backing-fmt": "backing_fmt", "cluster-size": "cluster_size",
    "lazy-refcounts": "lazy_refcounts", "refcount-bits": "refcount_bits", "extended-l2": "extended_l2",
    "compression-type": "compression_type", "preallocation": "preallocation", "version": "compat",
    "data-file-raw": "data_file_raw",
}  # fmt: skip


def _fail(machine: Machine, id: str, why: str) -> None:
    """What is wrong with an image to be is the job's news, not the command's."""

    def make() -> None:
        raise BuildError(why)

    Create(machine, id, make).start()


def blockdev_create(machine: Machine, id: str, options: dict[str, Any]) -> None:
    from vmrun.backends.block import create

    given = dict(options)
    driver = given.pop("driver", None)
    if driver not in ("file", "qcow2"):
        raise BuildError("Driver does not support blockdev-create" if driver else "Parameter 'driver' is missing")
    size = given.pop("size", None)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BuildError("Parameter 'options.size' is missing" if size is None else "Parameter 'size' expects uint64")
    if driver == "file":
        path = str(given.get("filename") or "")
        if not path:
            raise BuildError("Parameter 'options.filename' is missing")
        how = str(given.get("preallocation") or "off")
        Create(machine, id, lambda: create.new_file(path, size, how)).start()
        return
    node: Any = None
    file = given.pop("file", None)
    if isinstance(file, dict):
        path = str(file.get("filename") or "")
    else:
        try:
            node, _ = blocks(machine).find(str(file))
        except BuildError as error:
            _fail(machine, id, error.problems[0].message)
            return
        path = file_of(node)
    if not path or node is not None and not hasattr(node, "adopt"):
        _fail(machine, id, "blockdev-create makes qcow2 images on files")
        return
    if size % 512:
        _fail(machine, id, "Image size must be a multiple of 512 bytes")
        return
    unknown = sorted(given.keys() - _QCOW2.keys() - {"data-file"})
    if unknown:
        raise BuildError(f"Parameter 'options.{unknown[0]}' is unexpected")
    if "data-file" in given:
        raise BuildError("blockdev-create makes no images with an external data file; vmrun img create does")
    wanted = {_QCOW2[key]: value for key, value in given.items()}
    wanted["size"] = size

    def make() -> None:
        from vmrun.backends.block.locks import lock_file, unlock_file

        if node is not None:
            unlock_file(node.fd)  # a name's own hold is no reason to keep its image as it is
        try:
            create.header_for(size, wanted).pack()
            create.new_file(path, 0)
            create.create_qcow2(path, size, wanted)
        finally:
            if node is not None:
                lock_file(node.path, node.fd, bool(node.readonly))
                node.measure()

    Create(machine, id, make).start()


# what blockdev-reopen leaves as it is, and what holds when it was not said
_FIXED: dict[str, Any] = {
    "discard": "ignore", "detect-zeroes": "off", "offset": 0, "size": None, "cache": {}, "aio": "threads",
    "locking": "auto", "auto-read-only": False, "force-share": False,
}  # fmt: skip


def _stays(node: Any, given: dict[str, Any], known: dict[str, Any] | None) -> None:
    """What of a node's options cannot be another while it is open is what it was. `known`: the options of a node that
    blockdev-add made. BuildError.
    """
    for key, default in _FIXED.items():
        if known is not None and given.get(key, default) != known.get(key, default):
            raise BuildError(
                f"Cannot change the option '{key}'", remedy="blockdev-add another node on the file, and take that"
            )
    file = given.get("file")
    below = next((child for role, child in node.children() if role == "file"), None)
    if isinstance(file, str) and below is not None and file != below.name:
        raise BuildError("Cannot change the option 'file'", remedy="blockdev-add a node with the other file")
    if isinstance(file, dict) and below is not None:
        for key, had in (("driver", str(below.driver)), ("node-name", str(below.name))):
            if had and file.get(key, had) != had:
                raise BuildError(f"Cannot change the option 'file.{key}'")
        path = getattr(below, "path", "")
        if path and os.path.realpath(str(file.get("filename", path))) != os.path.realpath(path):
            raise BuildError("Cannot change the option 'file.filename'")


def blockdev_reopen(machine: Machine, options: list[dict[str, Any]]) -> None:
    """Whether a node is for reading alone, which node lies below it, how much of its tables is kept; its other
    options stay as they are.
    """
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.images import bound, throttle_group
    from vmrun.backends.block.reopening import reopen

    table = blocks(machine)
    planned: list[tuple[Any, Any, dict[str, Any], Any]] = []
    for given in options:
        name = given.get("node-name")
        if not name:
            raise BuildError("node-name not specified")
        node = table.node(str(name))  # one of a -drive or below one, too
        if node is None or table.filters.get(id(node), ("",))[0] == name:
            raise BuildError(f"Failed to find node with node-name='{name}'")
        if "backing" not in given and backing_of(node) is not None:
            raise BuildError(f"backing is missing for '{name}'")
        if given.get("driver") != table.known.get(str(name), {}).get("driver", str(node.driver)):
            raise BuildError("Cannot change the option 'driver'")
        _stays(node, given, table.known.get(str(name)))
        free(machine, node, str(name))
        below: Any = backing_of(node)
        if "backing" in given and given["backing"] is not None:
            below = table.find(str(given["backing"]))[0]
        elif "backing" in given:
            below = None
        if any(one is node for one in (chain_of(below) if below is not None else [])):
            raise BuildError(f"Making '{getattr(below, 'name', '')}' a backing child of '{name}' would create a cycle")
        group = None
        if given["driver"] == "throttle":
            try:
                group = throttle_group(machine.board.objects.children, given)
            except ImageError as error:
                raise BuildError(error.text) from None
        planned.append((node, below, given, group))
    for node, below, given, group in planned:
        readonly = given.get("read-only") in (True, "on")
        with table.quiet(node):
            try:
                if not (node.lazy and not readonly):
                    reopen(node, readonly)
                if group is not None:
                    node.move(group)
                if given["driver"] == "qcow2":
                    bound(node, given)
            except ImageError as error:
                raise BuildError(error.text) from None
            old = backing_of(node)
            if below is not old and hasattr(node, "rebase"):
                node.rebase(below.hold() if below is not None else None)
                if old is not None:
                    old.close()
            for drive in table.over(node):
                drive.resized()
        table.known.get(str(given["node-name"]), {}).update(given)
