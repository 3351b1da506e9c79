"""Media that come and go while the machine runs: the tray of a CD-ROM drive and what lies in it.

A drive is named by the id of its device, or (as before QEMU 2.9) by that of its back end. Errors are BuildError in
QEMU's words. The main thread, without the device lock.
"""

from __future__ import annotations

from vmrun.core.interfaces import Removable
from vmrun.errors import BackendError, BuildError
from vmrun.machine.blocks import is_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


def open_tray(machine: Machine, unit: Removable, force: bool = False) -> None:
    """BuildError while the guest holds the door, which is told that somebody pressed the button."""
    with machine.board.lock:
        opened, locked = unit.open_tray(force)
    if locked:
        raise BuildError(
            f"Device '{unit.drive or unit.id}' is locked and force was not specified, "
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
        machine.tell("DEVICE_TRAY_MOVED", **{"device": unit.drive or "", "id": unit.path, "tray-open": opened})


def moved(machine: Machine, unit: Removable, opened: bool) -> None:
    """The guest has moved the tray itself. Any thread, the device lock held."""
    machine.loop.call_soon(lambda: _tell(machine, unit, opened))


def remove(machine: Machine, unit: Removable) -> None:
    """Take the medium out of an open tray."""
    with machine.board.lock:
        if not unit.tray_is_open:
            raise BuildError(f"Tray of device '{unit.drive or unit.id}' is not open")
    if unit.drive:
        machine.board.drive(unit.drive).change(None)
        _written_down(machine, unit, None, None)


def insert(machine: Machine, unit: Removable, file: str, format: str, mode: str = "retain") -> None:
    """Put an image into an open tray that is empty."""
    from vmrun.backends.block import open_medium

    if not unit.drive:
        raise BuildError(f"Device '{unit.id}' has no drive that could take a medium")
    spec = _spec(machine, unit, file, format, mode)
    try:
        node = open_medium(unit.drive, spec)
    except BackendError as error:
        raise BuildError(error.problems[0].message, remedy=error.remedy) from None
    machine.board.drive(unit.drive).change(node)
    _written_down(machine, unit, file, format)


def change(
    machine: Machine, unit: Removable, file: str, format: str, force: bool = False, mode: str = "retain"
) -> None:
    """Open, take out, put in, close. The old medium stays when the new one cannot be opened."""
    from vmrun.backends.block import open_medium

    if unit.drive:
        spec = _spec(machine, unit, file, format, mode)
        try:
            open_medium(unit.drive, spec).close()
        except BackendError as error:
            raise BuildError(error.problems[0].message, remedy=error.remedy) from None
    open_tray(machine, unit, force)
    remove(machine, unit)
    insert(machine, unit, file, format, mode)
    close_tray(machine, unit)


def _spec(machine: Machine, unit: Removable, file: str, format: str, mode: str) -> dict[str, Any]:
    """The drive with another image; mode: what becomes of its read-only switch."""
    spec: dict[str, Any] = {**machine.config["drives"][unit.drive], "file": file, "format": format}
    if mode != "retain":
        if mode == "read-write" and spec.get("media") == "cdrom":
            raise BuildError("a CD-ROM drive cannot write")
        spec["readonly"] = mode == "read-only"
    return spec


def _written_down(machine: Machine, unit: Removable, file: str | None, format: str | None) -> None:
    """The machine as it is now: what a saved state of it names."""
    drives = machine.config["drives"]
    spec: dict[str, Any] = {**drives[unit.drive], "file": file, "format": format or "raw"}
    machine.config = {**machine.config, "drives": {**drives, unit.drive: spec}}
