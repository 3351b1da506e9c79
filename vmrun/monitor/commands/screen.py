"""What the machine shows."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError, no_device
from vmrun.monitor.image import FORMATS, encode
from vmrun.monitor.table import command, enums

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["ImageFormat"] = FORMATS


@command("screendump", {"filename": "str", "device?": "str", "head?": "int", "format?": "ImageFormat"})
def screendump(monitor: Any, filename: str, device: str = "", head: int = 0, format: str = "ppm") -> None:
    """Write the screen to a file of the host, as PPM or PNG."""
    machine = monitor.machine
    consoles = machine.board.consoles
    if device and device not in machine.devices:
        raise no_device(device)
    if device:
        consoles = [console for console in consoles if console.device.id == device and console.head == head]
        if not consoles:
            raise QmpError(f"There is no console {head} on device '{device}'")
    elif head:
        raise QmpError("'head' must be specified together with 'device'")
    elif not consoles:
        raise QmpError("There is no console to take a screendump from")
    consoles[0].refresh()
    data = encode(consoles[0].surface, format)
    try:
        with open(filename, "wb") as file:
            file.write(data)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or str(error)
        raise QmpError(f"failed to open file '{filename}': {why}") from None
