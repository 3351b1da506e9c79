"""Snapshots inside images: of one disk, or of all together with the machine's state (savevm, loadvm, delvm).

The state is what `vmrun save` writes (snapshot.py), in the image's own place for it: behind the disk's end, where a
snapshot keeps it as it keeps the disk's clusters. Errors are BuildError in QEMU's words.
"""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine.blocks import blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine


def new_record(node: Any, name: str, machine: Machine) -> Any:
    """A snapshot that is to be made now."""
    from time import time_ns

    from vmrun.backends.block.qcow2_header import Snapshot

    now = time_ns()
    numbers = [int(one.id) for one in node.snapshots if one.id.isdigit()]
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
            f"Snapshot with id '{id or '(null)'}' and name '{name or '(null)'}' does not exist on device '{device}'"
        )
    with blocks(machine).quiet(node):
        try:
            delete_snapshot(node, found)
        except OSError as error:
            raise BuildError(error.strerror or str(error)) from None
    return found
