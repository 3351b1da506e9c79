"""Snapshots, copies and commits of disks in use, alone or as one transaction."""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine import bitmaps, blockops, chainops, internal, jobs
from vmrun.machine.blocks import blocks
from vmrun.machine.jobs import Transaction
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import alternates, check, command, enums, struct, union, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

enums["NewImageMode"] = ("existing", "absolute-paths")
enums["MirrorSyncMode"] = ("top", "full", "none", "incremental", "bitmap")
enums["BitmapSyncMode"] = ("on-success", "never", "always")
enums["BlockdevOnError"] = ("report", "ignore", "enospc", "stop", "auto")
enums["MirrorCopyMode"] = ("background", "write-blocking")
_JOB = {"job-id?": "str", "speed?": "int", "auto-finalize?": "bool", "auto-dismiss?": "bool"}
_ERRORS = {"on-source-error?": "BlockdevOnError", "on-target-error?": "BlockdevOnError"}
MIRROR = {
    **{"device": "str", "target": "str", "format?": "str", "node-name?": "str", "replaces?": "str"},
    **{"sync": "MirrorSyncMode", "mode?": "NewImageMode", "granularity?": "int", "buf-size?": "int"},
    **{"unmap?": "bool", "copy-mode?": "MirrorCopyMode", **_JOB, **_ERRORS},
}
MIRROR_TO = {
    **{"device": "str", "target": "str", "replaces?": "str", "sync": "MirrorSyncMode", "granularity?": "int"},
    **{"buf-size?": "int", "filter-node-name?": "str", "copy-mode?": "MirrorCopyMode", **_JOB, **_ERRORS},
}
struct("BackupPerf", {"use-copy-range?": "bool", "max-workers?": "int", "max-chunk?": "int"})
_BACKUP = {
    **{"device": "str", "sync": "MirrorSyncMode", "bitmap?": "str", "bitmap-mode?": "BitmapSyncMode"},
    **{"compress?": "bool", "filter-node-name?": "str", "x-perf?": "BackupPerf", **_JOB, **_ERRORS},
}
BACKUP = {**_BACKUP, "target": "str", "format?": "str", "mode?": "NewImageMode"}
BACKUP_TO = {**_BACKUP, "target": "str"}
STREAM = {
    **{"device": "str", "base?": "str", "base-node?": "str", "backing-file?": "str", "bottom?": "str"},
    **{"on-error?": "BlockdevOnError", "filter-node-name?": "str", **_JOB},
}
COMMIT = {
    **{"device": "str", "base-node?": "str", "base?": "str", "top-node?": "str", "top?": "str"},
    **{"backing-file?": "str", "on-error?": "BlockdevOnError", "filter-node-name?": "str", **_JOB},
}
SNAPSHOT_SYNC = {
    **{"device?": "str", "node-name?": "str", "snapshot-file": "str", "snapshot-node-name?": "str"},
    **{"format?": "str", "mode?": "NewImageMode"},
}
BITMAP = {"node": "str", "name": "str"}
BITMAP_ADD = {**BITMAP, "granularity?": "int", "persistent?": "bool", "disabled?": "bool"}
alternates["BlockDirtyBitmapOrStr"] = ("BlockDirtyBitmap", "str")
BITMAP_MERGE = {"node": "str", "target": "str", "bitmaps": "[BlockDirtyBitmapOrStr]"}
INTERNAL = {"device": "str", "name": "str"}
struct("DriveBackup", BACKUP)
struct("BlockdevBackup", BACKUP_TO)
struct("BlockdevSnapshotSync", SNAPSHOT_SYNC)
struct("BlockdevSnapshot", {"node": "str", "overlay": "str"})
struct("BlockdevSnapshotInternal", INTERNAL)
struct("BlockDirtyBitmap", BITMAP)
struct("BlockDirtyBitmapAdd", BITMAP_ADD)
struct("BlockDirtyBitmapMerge", BITMAP_MERGE)
struct("Abort", {})
enums["PreallocMode"] = ("off", "metadata", "falloc", "full")
enums["BlockdevQcow2Version"] = ("v2", "v3")
struct(
    "BlockdevCreateOptionsFile",
    {"filename": "str", "size": "int", "preallocation?": "PreallocMode", "nocow?": "bool"},
)
struct(
    "BlockdevCreateOptionsQcow2",
    {
        **{"file": "BlockdevRef", "data-file?": "BlockdevRef", "data-file-raw?": "bool", "extended-l2?": "bool"},
        **{"size": "int", "version?": "BlockdevQcow2Version", "backing-file?": "str", "backing-fmt?": "BlockdevDriver"},
        **{"cluster-size?": "int", "preallocation?": "PreallocMode", "lazy-refcounts?": "bool"},
        **{"refcount-bits?": "int", "compression-type?": "Qcow2CompressionType"},
    },
)
union(
    "BlockdevCreateOptions",
    "driver",
    {"driver": "BlockdevDriver"},
    {"file": "BlockdevCreateOptionsFile", "qcow2": "BlockdevCreateOptionsQcow2"},
)
enums["ActionCompletionMode"] = ("individual", "grouped")
struct("TransactionProperties", {"completion-mode?": "ActionCompletionMode"})


def _told(act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return act(*arguments, **named)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None
    except OSError as error:
        raise QmpError(error.strerror or str(error)) from None


def _commit_device(monitor: Any, device: str) -> None:
    """block-commit's words for a device that is not there."""
    try:
        blocks(monitor.machine).find(device)
    except BuildError:
        raise QmpError(f"Device '{device}' not found", "DeviceNotFound") from None


def _filter(monitor: Any, given: dict[str, Any]) -> None:
    name = given.get("filter_node_name")
    if name is not None:
        _told(blockops.filter_named, monitor.machine, name)


def _buffer(given: dict[str, Any]) -> None:
    """How much a mirror has in memory is its own affair."""
    if given.pop("buf_size", 0) < 0:
        raise QmpError("Invalid parameter 'buf-size'")


@command("drive-mirror", MIRROR)
def drive_mirror(monitor: Any, device: str, target: str, sync: str, **given: Any) -> None:
    """Copy a disk to an image while the guest goes on, and keep both alike until the job is completed or cancelled."""
    _buffer(given)
    given.pop("unmap", None)
    if sync in ("incremental", "bitmap"):
        raise QmpError(f"Sync mode '{sync}' not supported")
    _told(blockops.drive_mirror, monitor.machine, device, target, sync, **given)


@command("blockdev-mirror", MIRROR_TO)
def blockdev_mirror(monitor: Any, device: str, target: str, sync: str, **given: Any) -> None:
    """The same, to a node."""
    _buffer(given)
    _filter(monitor, given)
    if sync in ("incremental", "bitmap"):
        raise QmpError(f"Sync mode '{sync}' not supported")
    _told(blockops.blockdev_mirror, monitor.machine, device, target, sync, **given)


@command("drive-backup", BACKUP)
def drive_backup(monitor: Any, device: str, target: str, sync: str, **given: Any) -> None:
    """Copy a disk as it is now to an image."""
    given.pop("x_perf", None)
    _filter(monitor, given)
    _told(blockops.drive_backup, monitor.machine, device, target, sync, **given)


@command("blockdev-backup", BACKUP_TO)
def blockdev_backup(monitor: Any, device: str, target: str, sync: str, **given: Any) -> None:
    """The same, to a node."""
    given.pop("x_perf", None)
    _filter(monitor, given)
    _told(blockops.blockdev_backup, monitor.machine, device, target, sync, **given)


@command("block-stream", STREAM)
def block_stream(monitor: Any, device: str, **given: Any) -> None:
    """Copy what an image has from its backing images into it, down to a base or to the last."""
    _filter(monitor, given)
    _told(chainops.block_stream, monitor.machine, device, **given)


@command("block-commit", COMMIT)
def block_commit(monitor: Any, device: str, **given: Any) -> None:
    """Copy what lies above a backing image into it; of the image in use, until the job is completed."""
    _commit_device(monitor, device)
    _filter(monitor, given)
    _told(chainops.block_commit, monitor.machine, device, **given)


@command("change-backing-file", {"device": "str", "image-node-name": "str", "backing-file": "str"})
def change_backing_file(monitor: Any, device: str, image_node_name: str, backing_file: str) -> None:
    """Write another name of the backing image into an image."""
    _told(chainops.change_backing_file, monitor.machine, device, image_node_name, backing_file)


def _snapshot_sync(machine: Any, given: dict[str, Any], how: Any) -> Any:
    named = {key.replace("-", "_"): value for key, value in given.items()}
    defaults = {"device": "", "node_name": "", "snapshot_node_name": "", "format": "qcow2", "mode": "absolute-paths"}
    return blockops.SnapshotSync(machine, **{**defaults, **named})


@command("blockdev-snapshot-sync", SNAPSHOT_SYNC)
def snapshot_sync(monitor: Any, **given: Any) -> None:
    """A new image that takes the writes from now on; the one of before stays as it is."""
    _told(lambda: _snapshot_sync(monitor.machine, given, None).commit())


@command("blockdev-snapshot", {"node": "str", "overlay": "str"})
def snapshot(monitor: Any, node: str, overlay: str) -> None:
    """The same, with a node as the new image."""
    _told(lambda: blockops.Snapshot(monitor.machine, node, overlay).commit())


@command("blockdev-snapshot-internal-sync", INTERNAL)
def snapshot_internal(monitor: Any, device: str, name: str) -> None:
    """A snapshot of a disk inside its image."""
    _told(internal.keep, monitor.machine, device, name)


@command("blockdev-snapshot-delete-internal-sync", {"device": "str", "id?": "str", "name?": "str"}, "SnapshotInfo")
def snapshot_delete_internal(monitor: Any, device: str, id: str = "", name: str = "") -> dict[str, Any]:
    """Delete it; what it was is told."""
    found = _told(internal.drop, monitor.machine, device, id, name)
    return {
        "id": found.id, "name": found.name, "vm-state-size": found.vm_state_size, "date-sec": found.date_sec,
        "date-nsec": found.date_nsec, "vm-clock-sec": found.vm_clock_nsec // 10**9,
        "vm-clock-nsec": found.vm_clock_nsec % 10**9,
    }  # fmt: skip


_STATE = {"job-id": "str", "tag": "str", "devices": "[str]"}


@command("snapshot-save", {**_STATE, "vmstate": "str"})
def snapshot_save(monitor: Any, job_id: str, tag: str, vmstate: str, devices: list[str]) -> None:
    """A job: the machine's state and the disks that are named, inside the images."""
    _told(internal.save_job, monitor.machine, job_id, tag, vmstate, devices)


@command("snapshot-load", {**_STATE, "vmstate": "str"})
def snapshot_load(monitor: Any, job_id: str, tag: str, vmstate: str, devices: list[str]) -> None:
    """A job: back to such a snapshot."""
    _told(internal.load_job, monitor.machine, job_id, tag, vmstate, devices)


@command("snapshot-delete", _STATE)
def snapshot_delete(monitor: Any, job_id: str, tag: str, devices: list[str]) -> None:
    """A job: such a snapshot is gone."""
    _told(internal.delete_job, monitor.machine, job_id, tag, devices)


@command("blockdev-create", {"job-id": "str", "options": "BlockdevCreateOptions"})
def blockdev_create(monitor: Any, job_id: str, options: dict[str, Any]) -> None:
    """A job: a new image, of driver `file` or `qcow2`."""
    _told(jobs.jobs(monitor.machine).check_id, job_id)
    _told(blockops.blockdev_create, monitor.machine, job_id, options)


@command("blockdev-reopen", {"options": "[BlockdevOptions]"})
def blockdev_reopen(monitor: Any, options: list[dict[str, Any]]) -> None:
    """Other options for nodes that are open: read-only, backing."""
    _told(blockops.blockdev_reopen, monitor.machine, options)


# --- bitmaps ---------------------------------------------------------------------------------------------------------


@command("block-dirty-bitmap-add", BITMAP_ADD)
def bitmap_add(monitor: Any, node: str, name: str, **given: Any) -> None:
    """Note what is written to a node from now on."""
    _told(bitmaps.add, monitor.machine, node, name, **given)


@command("block-dirty-bitmap-remove", BITMAP)
def bitmap_remove(monitor: Any, node: str, name: str) -> None:
    """Forget a bitmap."""
    _told(lambda: bitmaps.remove(monitor.machine, bitmaps.find(monitor.machine, node, name)))


@command("block-dirty-bitmap-clear", BITMAP)
def bitmap_clear(monitor: Any, node: str, name: str) -> None:
    """As if nothing had been written."""
    _told(lambda: bitmaps.changeable(bitmaps.find(monitor.machine, node, name)).bits.clear())


def _enable(machine: Any, node: str, name: str, enabled: bool) -> None:
    bitmaps.changeable(bitmaps.find(machine, node, name)).bits.enabled = enabled


@command("block-dirty-bitmap-enable", BITMAP)
def bitmap_enable(monitor: Any, node: str, name: str) -> None:
    """Note writes from now on."""
    _told(_enable, monitor.machine, node, name, True)


@command("block-dirty-bitmap-disable", BITMAP)
def bitmap_disable(monitor: Any, node: str, name: str) -> None:
    """Note none any more."""
    _told(_enable, monitor.machine, node, name, False)


def _merge(machine: Any, node: str, target: str, sources: list[Any]) -> None:
    bitmaps.merge(machine, bitmaps.changeable(bitmaps.find(machine, node, target)), sources, node)


@command("block-dirty-bitmap-merge", BITMAP_MERGE)
def bitmap_merge(monitor: Any, node: str, target: str, **given: Any) -> None:
    """What is noted in others is noted in this one, too."""
    _told(_merge, monitor.machine, node, target, given["bitmaps"])


struct("BlockDirtyBitmapSha256", {"sha256": "str"})


@command("x-debug-block-dirty-bitmap-sha256", BITMAP, "BlockDirtyBitmapSha256")
def bitmap_sha256(monitor: Any, node: str, name: str) -> Any:
    """The SHA-256 of what a bitmap has."""
    return {"sha256": _told(bitmaps.digest, monitor.machine, node, name)}


# --- transactions -------------------------------------------------------------------------------------------


class _Step:
    """An action that is done at once and can be taken back."""

    def __init__(self, undo: Callable[[], object] = lambda: None, commit: Callable[[], object] = lambda: None) -> None:
        self.abort, self.commit = undo, commit


def _job_step(make: Callable[..., Any]) -> Callable[..., Any]:
    def act(machine: Any, given: dict[str, Any], transaction: Transaction | None) -> _Step:
        named = {key.replace("-", "_"): value for key, value in given.items()}
        named.pop("x_perf", None)
        first = (named.pop("device"), named.pop("target"), named.pop("sync"))
        job = make(machine, *first, transaction=transaction, **named)
        return _Step(lambda: job.cancel(True))

    return act


def _add_step(machine: Any, given: dict[str, Any], transaction: Any) -> _Step:
    named = {key.replace("-", "_"): value for key, value in given.items()}
    made = bitmaps.add(machine, named.pop("node"), named.pop("name"), **named)
    return _Step(lambda: bitmaps.remove(machine, made))


def _clear_step(machine: Any, given: dict[str, Any], transaction: Any) -> _Step:
    found = bitmaps.changeable(bitmaps.find(machine, given["node"], given["name"]))
    kept = found.bits.copy()
    found.bits.clear()
    return _Step(lambda: found.bits.merge(kept))


def _switch_step(enabled: bool) -> Callable[..., Any]:
    def act(machine: Any, given: dict[str, Any], transaction: Any) -> _Step:
        found = bitmaps.changeable(bitmaps.find(machine, given["node"], given["name"]))
        before = found.bits.enabled
        found.bits.enabled = enabled
        return _Step(lambda: setattr(found.bits, "enabled", before))

    return act


def _merge_step(machine: Any, given: dict[str, Any], transaction: Any) -> _Step:
    found = bitmaps.changeable(bitmaps.find(machine, given["node"], given["target"]))
    kept = found.bits.copy()
    bitmaps.merge(machine, found, given["bitmaps"], given["node"])

    def undo() -> None:
        found.bits.clear()
        found.bits.merge(kept)

    return _Step(undo)


def _remove_step(machine: Any, given: dict[str, Any], transaction: Any) -> _Step:
    found = bitmaps.find(machine, given["node"], given["name"])
    return _Step(commit=lambda: bitmaps.remove(machine, found))


def _abort_step(machine: Any, given: dict[str, Any], transaction: Any) -> _Step:
    raise BuildError("Transaction aborted using Abort action")


def _internal_step(machine: Any, given: dict[str, Any], transaction: Any) -> _Step:
    made = internal.keep(machine, given["device"], given["name"])
    return _Step(lambda: internal.drop(machine, given["device"], made.id, made.name))


ACTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "abort": ("Abort", _abort_step),
    "block-dirty-bitmap-add": ("BlockDirtyBitmapAdd", _add_step),
    "block-dirty-bitmap-remove": ("BlockDirtyBitmap", _remove_step),
    "block-dirty-bitmap-clear": ("BlockDirtyBitmap", _clear_step),
    "block-dirty-bitmap-enable": ("BlockDirtyBitmap", _switch_step(True)),
    "block-dirty-bitmap-disable": ("BlockDirtyBitmap", _switch_step(False)),
    "block-dirty-bitmap-merge": ("BlockDirtyBitmapMerge", _merge_step),
    "blockdev-backup": ("BlockdevBackup", _job_step(blockops.blockdev_backup)),
    "blockdev-snapshot": ("BlockdevSnapshot", lambda machine, given, how: blockops.Snapshot(machine, **given)),
    "blockdev-snapshot-internal-sync": ("BlockdevSnapshotInternal", _internal_step),
    "blockdev-snapshot-sync": ("BlockdevSnapshotSync", _snapshot_sync),
    "drive-backup": ("DriveBackup", _job_step(blockops.drive_backup)),
}
wrapped("TransactionAction", "TransactionActionKind", {name: shape for name, (shape, _) in ACTIONS.items()})


_GROUPED = ("blockdev-backup", "drive-backup", "abort")


@command("transaction", {"actions": "[TransactionAction]", "properties?": "TransactionProperties"})
def transaction(monitor: Any, actions: list[dict[str, Any]], properties: dict[str, Any] | None = None) -> None:
    """Several of these at one moment of the guest's disks, all or none. `grouped`: jobs succeed or fail together."""
    machine = monitor.machine
    grouped = (properties or {}).get("completion-mode") == "grouped"
    together = Transaction() if grouped else None
    done: list[Any] = []
    table = blocks(machine)
    from vmrun.machine.blocks import Quiet

    with Quiet(table.all_drives()):
        try:
            for action in actions:
                if grouped and action["type"] not in _GROUPED:
                    raise QmpError(
                        f"Action '{action['type']}' does not support Transaction property completion-mode = grouped"
                    )
                shape, act = ACTIONS[action["type"]]
                given = check(action["data"], shape, "data")
                done.append(_told(act, machine, given, together))
        except BaseException:
            for step in reversed(done):
                step.abort()
            raise
        for step in done:
            _told(step.commit)

