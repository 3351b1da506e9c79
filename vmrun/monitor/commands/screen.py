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
    adapters = {name: found for name, found in machine.devices.items() if hasattr(found, "picture")}
    if device and device not in machine.devices:
        raise no_device(device)
    if device and device not in adapters or head:
        raise QmpError(f"Device '{device}' has no console {head}")
    if not adapters:
        raise QmpError("There is no console to take a screendump from")
    found = adapters[device] if device else next(iter(adapters.values()))
    data = encode(found.picture(), format)
    try:
        with open(filename, "wb") as file:
            file.write(data)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or str(error)
        raise QmpError(f"failed to open file '{filename}': {why}") from None
