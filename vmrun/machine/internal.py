"""Snapshots inside images: of one disk, or of all together with the machine's state (savevm, loadvm, delvm).

The state is what `vmrun save` writes (snapshot.py), in the image's own place for it: behind the disk's end, where a
snapshot keeps it as it keeps the disk's clusters. Errors are BuildError in QEMU's words.
"""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine.blocks import blocks
from vmrun.machine.jobs import Job, jobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine


def new_record(node: Any, name: str, machine: Machine) -> Any:
    """A snapshot that is to be made now."""
    from time import time_ns

    from vmrun.backends.block.qcow2_header import Snapshot
    from vmrun.backends.block.sizes import digits

    now = time_ns()
    numbers = [digits(one.id) or 0 for one in node.snapshots]
    return Snapshot(
        id=str(max(numbers, default=0) + 1), name=name, date_sec=now // 10**9, date_nsec=now % 10**9 // 1000 * 1000,
        vm_clock_nsec=int(machine.board.virtual.time()),
    )  # fmt: skip


def _image(machine: Machine, device: str) -> tuple[Any, str]:
    table = blocks(machine)
    node, _ = table.find(device)
    if getattr(node, "snapshots", None) is None:
        raise BuildError(
            f"Block format '{node.driver}' used by device '{device}' does not support internal snapshots"
        )
    return node, device


def keep(machine: Machine, device: str, name: str) -> Any:
    """blockdev-snapshot-internal-sync."""
    from vmrun.backends.block.qcow2_snapshots import create_snapshot

    node, _ = _image(machine, device)
    if node.readonly:
        raise BuildError(f"Device '{device}' is read only")
    if not name:
        raise BuildError("Name is empty")
    if any(one.name == name for one in node.snapshots):
        raise BuildError(f"Snapshot with name '{name}' already exists on device '{device}'")
    made = new_record(node, name, machine)
    with blocks(machine).quiet(node):
        try:
            create_snapshot(node, made)
        except OSError as error:
            raise BuildError(
                f"Failed to create snapshot '{name}' on device '{device}': {error.strerror}"
            ) from None
    return made


def drop(machine: Machine, device: str, id: str, name: str) -> Any:
    """blockdev-snapshot-delete-internal-sync: the snapshot that was."""
    from vmrun.backends.block.qcow2_snapshots import delete_snapshot

    node, _ = _image(machine, device)
    if not id and not name:
        raise BuildError("Name or id must be provided")
    found = next(
        (one for one in node.snapshots if (not id or one.id == id) and (not name or one.name == name)), None
    )
    if found is None:
        raise BuildError(
            f"Snapshot with id '{id or 'null'}' and name '{name or 'null'}' does not exist on device '{device}'"
        )
    with blocks(machine).quiet(node):
        try:
            delete_snapshot(node, found)
        except OSError as error:
            raise BuildError(error.strerror or str(error)) from None
    return found


# --- of the machine ------------------------------------------------------------------------------------------


def disks(machine: Machine, names: list[str] | None = None) -> list[tuple[str, Any]]:
    """(name, node) of what a snapshot has: all that can be written, or those that are named. BuildError for a disk that
    cannot keep snapshots.
    """
    from vmrun.machine import runstate

    table = blocks(machine)
    if names is not None:
        found = [(name, table.find(name)[0]) for name in names]
    else:
        found = [(id, drive.node) for id, drive, _ in table.drives() if drive.node is not None and not drive.readonly]
    others = machine.left or machine.state == runstate.INMIGRATE  # who has the images now
    for name, node in found:
        if others or getattr(node, "snapshots", None) is None:
            raise BuildError(f"Device '{name}' is writable but does not support snapshots")
    return found


def keeper(machine: Machine, name: str = "", names: list[str] | None = None) -> Any:
    """The image that has the machine's state. BuildError when none can."""
    table = blocks(machine)
    if name:
        node, _ = table.find(name)
        if getattr(node, "snapshots", None) is None or node.readonly:
            raise BuildError(f"vmstate block device '{name}' does not support snapshots")
        return node
    for _, drive, _ in table.drives():
        node = drive.node
        if node is not None and not drive.readonly and getattr(node, "snapshots", None) is not None:
            return node
    raise BuildError("no block device can store vmstate for snapshot")


def named(node: Any, name: str) -> Any:
    """The snapshot of that name or id, None when there is none."""
    return next((one for one in node.snapshots if one.name == name), None) or next(
        (one for one in node.snapshots if one.id == name), None
    )


def automatic_name() -> str:
    from time import localtime, strftime

    return strftime("vm-%Y%m%d%H%M%S", localtime())


class Saving:
    """savevm in three steps: begin() holds the machine, write() may be long and on another thread, finish() or undo()
    let it go on.
    """

    def __init__(
        self, machine: Machine, name: str, *, overwrite: bool = False, vmstate: str = "", names: list[str] | None = None
    ) -> None:  # fmt: skip
        self.machine, self.name = machine, name or automatic_name()
        self.disks = disks(machine, names)
        self.keeper = keeper(machine, vmstate, names)
        if not any(node is self.keeper for _, node in self.disks):
            self.disks.append(("", self.keeper))
        there = [(id, node) for id, node in self.disks if any(one.name == self.name for one in node.snapshots)]
        if there and not overwrite:
            raise BuildError(f"Snapshot '{self.name}' already exists in one or more devices")
        self.replaced = bool(there)

    def begin(self) -> None:
        import tempfile

        from vmrun.errors import StateError
        from vmrun.machine import runstate
        from vmrun.machine.snapshot import Outgoing

        self.before = self.machine.state
        if self.before in (runstate.INMIGRATE, runstate.FINISH_MIGRATE, runstate.POSTMIGRATE):
            raise BuildError(f"a machine that is '{self.before}' cannot be saved")
        try:
            self.machine.go(runstate.SAVE)
            self.outgoing = Outgoing(self.machine, self.before)
        except StateError as error:
            self.undo()
            raise BuildError(error.problems[0].message) from None
        self.file = tempfile.TemporaryFile(dir="/var/tmp")

    def write(self, ended: Any = lambda: False, told: Any = lambda done, written: None) -> None:
        """BuildError, OSError."""
        import os

        from vmrun.backends.block.qcow2_snapshots import write_state
        from vmrun.errors import StateError

        try:
            self.outgoing.write(self.name, ended, os.dup(self.file.fileno()), told)
        except StateError as error:
            raise BuildError(error.problems[0].message) from None
        self.size = self.file.seek(0, 2)
        self.file.seek(0)
        write_state(self.keeper, self.file.read, self.size)

    def finish(self) -> None:
        from vmrun.backends.block.qcow2_snapshots import create_snapshot, drop_state

        try:
            if self.replaced:
                forget(self.machine, self.name, [node for _, node in self.disks])
            with blocks(self.machine).quiet(*(node for _, node in self.disks)):
                for _, node in self.disks:
                    made = new_record(node, self.name, self.machine)
                    made.vm_state_size = self.size if node is self.keeper else 0
                    create_snapshot(node, made)
                drop_state(self.keeper)
        except OSError as error:
            raise BuildError(f"Error while creating snapshot: {error.strerror}") from None
        finally:
            self.undo()

    def undo(self) -> None:
        from vmrun.machine import runstate

        if self.machine.state == runstate.SAVE:
            self.machine.go(self.before)


def forget(machine: Machine, name: str, nodes: list[Any]) -> None:
    from vmrun.backends.block.qcow2_snapshots import delete_snapshot

    with blocks(machine).quiet(*nodes):
        for node in nodes:
            found = next((one for one in node.snapshots if one.name == name), None)
            if found is not None:
                try:
                    delete_snapshot(node, found)
                except OSError as error:
                    raise BuildError(f"Failed to delete snapshot: {error.strerror}") from None


def delete(machine: Machine, name: str, names: list[str] | None = None) -> None:
    """delvm: of every disk that has it."""
    held = disks(machine, names)
    keeper(machine)
    forget(machine, name, [node for _, node in held])


def save(machine: Machine, name: str) -> None:
    """savevm, all at once."""
    saving = Saving(machine, name, overwrite=True)
    saving.begin()
    try:
        saving.write()
    except OSError as error:
        saving.undo()
        raise BuildError(f"Error while writing VM state: {error.strerror}") from None
    except BaseException:
        saving.undo()
        raise
    saving.finish()


def load(machine: Machine, name: str, vmstate: str = "", names: list[str] | None = None) -> None:
    """loadvm: the machine and its disks as they were then; it runs on if it ran. BuildError leaves it paused where it
    could not be undone.
    """
    import os
    import tempfile

    from vmrun.backends.block.qcow2_snapshots import apply_snapshot, drop_state, read_state
    from vmrun.errors import StateError
    from vmrun.machine import runstate
    from vmrun.machine.snapfile import Reader
    from vmrun.machine.snapshot import load as load_state

    held = disks(machine, names)
    node = keeper(machine, vmstate, names)
    if any(named(one, name) is None for _, one in held) or named(node, name) is None:
        raise BuildError(f"Snapshot '{name}' does not exist in one or more devices")
    kept = named(node, name)
    if not kept.vm_state_size:
        raise BuildError("This is a disk-only snapshot. Revert to it  offline using qemu-img")
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        try:
            for piece in read_state(node, kept):
                file.write(piece)
            file.flush()
            file.seek(0)
            reader = Reader(f"the state of snapshot '{name}'", os.dup(file.fileno()))
        except (OSError, StateError) as error:
            text = error.problems[0].message if isinstance(error, StateError) else str(error)
            raise BuildError(f"Error while loading VM state: {text}") from None
        with reader:
            before, ran = machine.state, runstate.mode(machine.state) != runstate.STILL
            if machine.state not in (runstate.PRELAUNCH, runstate.INMIGRATE):
                machine.go(runstate.RESTORE)
            applied = False

            def reset() -> None:
                nonlocal applied
                applied = True
                machine.cold_reset()
                with blocks(machine).quiet(*(one for _, one in held)):
                    for _, one in held:
                        apply_snapshot(one, named(one, name))
                    drop_state(node)
                for drive in blocks(machine).over(*(one for _, one in held)):
                    drive.resized()

            try:
                load_state(machine, reader, reset)
            except (StateError, OSError) as error:
                if machine.state == runstate.RESTORE:
                    machine.go(runstate.PAUSED if applied else before)
                text = error.problems[0].message if isinstance(error, StateError) else str(error)
                raise BuildError(f"Error while loading VM state: {text}") from None
    then = runstate.SUSPENDED if machine.asleep else runstate.RUNNING
    if machine.state == runstate.RESTORE:
        machine.go(then if ran else runstate.PAUSED if before == runstate.SUSPENDED else before)


def table(machine: Machine) -> str:
    """info snapshots: those of all disks, then those of some alone."""
    from vmrun.backends.block.describe import snapshot_rows

    keeper(machine)
    held = [(id, node) for id, node in _listed(machine)]
    first = next((node for _, node in held if getattr(node, "snapshots", None) is not None), None)
    everywhere = [
        one for one in (first.snapshots if first is not None else [])
        if all(any(other.name == one.name for other in node.snapshots) for _, node in held)
    ]  # fmt: skip
    partial = [
        (id, [one for one in node.snapshots if all(one.name != other.name for other in everywhere)])
        for id, node in held
    ]
    partial = [(id, rows) for id, rows in partial if rows]
    if not everywhere and not partial:
        return "There is no snapshot available.\n"
    text = "List of snapshots present on all disks:\n"
    text += snapshot_rows(everywhere, "--") if everywhere else "None\n"
    for id, rows in partial:
        text += f"\nList of partial (non-loadable) snapshots on '{id}':\n" + snapshot_rows(rows)
    return text


def _listed(machine: Machine) -> list[tuple[str, Any]]:
    return [
        (id, drive.node)
        for id, drive, _ in blocks(machine).drives()
        if drive.node is not None and not drive.readonly and getattr(drive.node, "snapshots", None) is not None
    ]


# --- as jobs --------------------------------------------------------------------------------------------------------


class SnapshotJob(Job):
    """`act` is done on the main loop, at the end; of a save, memory is written before, on the job's thread."""

    block = False

    def __init__(self, machine: Machine, id: str, kind: str, act: Any) -> None:
        super().__init__(machine, id, auto_dismiss=False)
        self.kind, self.act, self.saving = kind, act, None  # type: str, Any, Saving | None
        self.total = 1

    def work(self) -> None:
        if self.saving is not None:
            self.saving.write(lambda: self.cancelled)
        self.check()

    def prepare(self) -> None:
        self.act()
        self.current = self.total

    def abort(self) -> None:
        if self.saving is not None:
            self.saving.undo()


def _started(machine: Machine, id: str, kind: str, act: Any, saving: Saving | None = None) -> None:
    jobs(machine).check_id(id)
    if saving is not None:
        saving.begin()
    job = SnapshotJob(machine, id, kind, act)
    job.saving = saving
    job.start()


def save_job(machine: Machine, id: str, tag: str, vmstate: str, names: list[str]) -> None:
    saving = Saving(machine, tag, vmstate=vmstate, names=names)
    _started(machine, id, "snapshot-save", saving.finish, saving)


def load_job(machine: Machine, id: str, tag: str, vmstate: str, names: list[str]) -> None:
    _started(machine, id, "snapshot-load", lambda: load(machine, tag, vmstate, names))


def delete_job(machine: Machine, id: str, tag: str, names: list[str]) -> None:
    held = [node for _, node in disks(machine, names)]
    _started(machine, id, "snapshot-delete", lambda: forget(machine, tag, held))
