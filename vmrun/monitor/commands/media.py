"""Media of removable drives."""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine import media
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

enums["BlockdevChangeReadOnlyMode"] = media.MODES
event(
    "DEVICE_TRAY_MOVED",
    "The tray of a drive opened or closed, by hand.",
    {"device": "str", "id": "str", "tray-open": "bool"},
)
_WHICH = {"device?": "str", "id?": "str"}


def _do(act: Callable[..., None], monitor: Any, device: str, id: str, *more: Any) -> None:
    try:
        act(monitor.machine, media.find(monitor.machine, device, id), *more)
    except BuildError as error:
        text = error.problems[0].message
        raise QmpError(text, "DeviceNotFound" if text.endswith("' not found") else "GenericError") from None


@command("eject", {**_WHICH, "force?": "bool"})
def eject(monitor: Any, device: str = "", id: str = "", force: bool = False) -> None:
    """Open the tray and take the medium out."""

    def act(machine: Any, unit: Any) -> None:
        media.open_tray(machine, unit, force)
        media.remove(machine, unit)

    _do(act, monitor, device, id)


@command("blockdev-open-tray", {**_WHICH, "force?": "bool"})
def open_tray(monitor: Any, device: str = "", id: str = "", force: bool = False) -> None:
    """Open the tray; the medium stays in it."""
    _do(media.open_tray, monitor, device, id, force)


@command("blockdev-close-tray", _WHICH)
def close_tray(monitor: Any, device: str = "", id: str = "") -> None:
    """Close the tray."""
    _do(media.close_tray, monitor, device, id)


@command("blockdev-remove-medium", {"id": "str"})
def remove_medium(monitor: Any, id: str) -> None:
    """Take the medium out of an open tray."""
    _do(media.remove, monitor, "", id)


@command("blockdev-insert-medium", {"id": "str", "node-name": "str"})
def insert_medium(monitor: Any, id: str, node_name: str) -> None:
    """Put a node of blockdev-add into an open tray that is empty."""
    _do(media.insert_node, monitor, "", id, node_name)


@command(
    "blockdev-change-medium",
    {**_WHICH, "filename": "str", "format?": "str", "force?": "bool", "read-only-mode?": "BlockdevChangeReadOnlyMode"},
)
def change_medium(
    monitor: Any,
    filename: str,
    device: str = "",
    id: str = "",
    format: str = "",
    force: bool = False,
    read_only_mode: str = "retain",
) -> None:
    """Another image in a drive: open, take out, put in, close."""
    _do(media.change, monitor, device, id, filename, format, force, read_only_mode)
