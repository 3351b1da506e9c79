"""Media that come and go while the machine runs: the tray of a CD-ROM drive and what lies in it.

A drive is named by the id of its device, or (as before QEMU 2.9) by that of its back end. Errors are BuildError in
QEMU's words. The main thread, without the device lock.
"""

from __future__ import annotations

from vmrun.core.interfaces import Removable
from vmrun.errors import BackendError, BuildError
from vmrun.machine.blocks import blocks, is_named, qdev
from vmrun.machine.board import writable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.drive import Drive
    from vmrun.machine.machine import Machine

MODES = ("retain", "read-only", "read-write")


def find(machine: Machine, device: str, id: str) -> Removable:
    """The drive that one of the two names."""
    if bool(device) == bool(id):
        raise BuildError("Need exactly one of 'device' and 'id'")
    for one in machine.all(Removable):
        if one.removable and (is_named(one, id) if id else one.drive == device):
            return one
    name = id or device
    if name in machine.devices or name in machine.config["drives"]:
        raise BuildError(f"Device '{name}' is not removable")
    raise BuildError(f"Device '{name}' not found")


def _drive(machine: Machine, unit: Removable) -> str:
    """The id of its drive, which is a bay when it was given none."""
    bays: dict[str, Any] = {**machine.board.bays}
    return str(unit.drive or next(name for name, one in bays.items() if one is unit))


def _called(machine: Machine, unit: Removable) -> str:
    """What monitors call it: its drive, or the device where the drive has no name of its own."""
    return blocks(machine).public_name(_drive(machine, unit)) or qdev(unit)


def open_tray(machine: Machine, unit: Removable, force: bool = False) -> None:
    """BuildError while the guest holds the door, which is told that somebody pressed the button."""
    with machine.board.lock:
        opened, locked = unit.open_tray(force)
    if locked:
        raise BuildError(
            f"Device '{_called(machine, unit)}' is locked and force was not specified, "
            "wait for tray to open and try again"
        )
    if opened:
        _tell(machine, unit, True)


def close_tray(machine: Machine, unit: Removable) -> None:
    with machine.board.lock:
        closed = unit.close_tray()
    if closed:
        _tell(machine, unit, False)


def _tell(machine: Machine, unit: Removable, opened: bool) -> None:
    if unit.has_tray:
        name = blocks(machine).public_name(_drive(machine, unit))
        machine.tell("DEVICE_TRAY_MOVED", **{"device": name, "id": qdev(unit), "tray-open": opened})


def moved(machine: Machine, unit: Removable, opened: bool) -> None:
    """The guest has moved the tray itself. Any thread, the device lock held."""
    machine.loop.call_soon(lambda: _tell(machine, unit, opened))


def _opened(machine: Machine, unit: Removable) -> Drive:
    """Its drive, which is ready to be filled or emptied: what has no tray is taken in hand for it."""
    with machine.board.lock:
        if unit.has_tray and not unit.tray_is_open:
            raise BuildError(f"Tray of device '{_called(machine, unit)}' is not open")
        if not unit.has_tray:
            unit.open_tray(True)
    return machine.board.drives[_drive(machine, unit)]


def remove(machine: Machine, unit: Removable) -> None:
    """Take the medium out of an open tray."""
    drive = _opened(machine, unit)
    if drive.node is not None:
        drive.change(None)
        _written_down(machine, unit, {"file": None, "format": "raw"})


def insert(machine: Machine, unit: Removable, file: str, format: str, mode: str = "retain") -> None:
    """Put an image into an open tray that is empty."""
    from vmrun.backends.block import open_medium

    spec = _spec(machine, unit, file, format, mode)
    try:
        node = open_medium(_drive(machine, unit), spec, machine.board.objects.children)
    except BackendError as error:
        raise BuildError(error.problems[0].message, remedy=error.remedy) from None
    machine.board.drives[_drive(machine, unit)].change(node)
    _written_down(machine, unit, spec)


def insert_node(machine: Machine, unit: Removable, name: str) -> None:
    """Put the node of that name into an open tray that is empty; what has no tray shows it to the guest at once."""
    table = blocks(machine)
    if name not in table.named.open:
        raise BuildError(f"Node '{name}' not found")
    node = table.named.open[name]
    if table.is_shown(node):
        raise BuildError(f"Node '{name}' is already in use")
    drive = _opened(machine, unit)
    if drive.node is not None:
        raise BuildError(f"There already is a medium in device '{_called(machine, unit)}'")
    if not unit.reads_only:
        writable(node)
    table.show(drive, node)
    _written_down(machine, unit, {key: value for key, value in table.spec(name).items() if key != "media"})
    if not unit.has_tray:
        close_tray(machine, unit)


def change(
    machine: Machine, unit: Removable, file: str, format: str, force: bool = False, mode: str = "retain"
) -> None:
    """Open, take out, put in, close. The old medium stays when the new one cannot be opened. `format`: '' is what the
    image looks like.
    """
    from vmrun.backends.block import open_medium

    name, objects = _drive(machine, unit), machine.board.objects.children
    try:
        spec = _spec(machine, unit, file, format or "raw", mode)
        node = open_medium(name, spec, objects)
        try:
            format = format or _probed(node, file, spec)
        finally:
            node.close()
        if format != spec["format"]:
            open_medium(name, {**spec, "format": format}, objects).close()
    except BackendError as error:
        raise BuildError(error.problems[0].message, remedy=error.remedy) from None
    open_tray(machine, unit, force)
    remove(machine, unit)
    insert(machine, unit, file, format, mode)
    close_tray(machine, unit)


def _probed(node: Any, file: str, spec: dict[str, Any]) -> str:
    """The format that an image is in, where nobody says one. A guest that may write could make it look like another
    one: what is not raw must be said then. BuildError.
    """
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.images import probe

    try:
        found = probe(node, file)
    except ImageError as error:
        raise BuildError(str(error)) from None
    if found != "raw" and not (spec.get("readonly") or spec.get("media") == "cdrom"):
        raise BuildError(
            f"'{file}' looks like an image of format {found}, and no format is given",
            remedy=f"say the format: {found}, or raw if the guest is to see the file as it is",
        )
    return found


def _spec(machine: Machine, unit: Removable, file: str, format: str, mode: str) -> dict[str, Any]:
    """The drive with another image; mode: what becomes of its read-only switch."""
    own = machine.config["drives"].get(_drive(machine, unit)) or _bay(unit)
    spec: dict[str, Any] = {**own, "file": file, "format": format}
    if mode != "retain":
        if mode == "read-write" and spec.get("media") == "cdrom":
            raise BuildError("a CD-ROM drive cannot write")
        spec["readonly"] = mode == "read-only"
    return spec


def _bay(unit: Removable) -> dict[str, Any]:
    """The drive of a device that was given none, as a machine file has one: nobody said that it may write."""
    return {"media": "cdrom" if unit.reads_only else "disk", "readonly": True}


def _written_down(machine: Machine, unit: Removable, medium: dict[str, Any]) -> None:
    """The machine as it is now: what a saved state of it names."""
    config, id = machine.config, _drive(machine, unit)
    drives = config["drives"]
    spec: dict[str, Any] = {**(drives.get(id) or _bay(unit)), **medium}
    spec = {name: value for name, value in spec.items() if value is not None}
    rows = config["devices"]
    if not unit.drive:  # a bay is a drive like any other from now on
        rows = [{**row, "props": {**row["props"], "drive": id}} if row["id"] == unit.id else row for row in rows]
    machine.config = machine.board.config = {**config, "drives": {**drives, id: spec}, "devices": rows}
