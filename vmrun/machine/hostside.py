"""What a machine file says of the host: nothing that a guest can see. `diff` shows changes here as invisible; a lock
file has none of it.
"""

from __future__ import annotations

import os

from vmrun.config.catalogue import load_catalogue
from vmrun.machine.visible import FILES, seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData

SETTINGS = ("name", "accel", "kernel_irqchip", "paused", "netdevs", "chardevs", "monitors")
CLOCK = ("clock", "driftfix")
GUEST_SEES = ("readonly", "media", "serial")  # options of a drive


def host_side(config: MachineData) -> dict[str, Any]:
    """key → value of everything in a resolved machine that concerns the host alone."""
    catalogue = load_catalogue()
    whole: dict[str, Any] = {**config}
    found = {name: whole[name] for name in SETTINGS}
    for name in ("translate", "thread", "clock", "memory-backing", "objects", "on"):
        if name in whole:
            found[name] = whole[name]
    found |= {f"rtc.{name}": whole["rtc"][name] for name in CLOCK}
    found["firmware.dirs"] = config["firmware"].get("dirs", [])
    found["firmware.bios"] = os.path.dirname(str(config["firmware"]["bios"]))
    for key in ("kernel", "initrd"):
        found[key] = config[key]
    for id, drive in config["drives"].items():
        found[f"drives.{id}"] = {name: value for name, value in drive.items() if name not in GUEST_SEES}
    for device in config["devices"]:
        entry = catalogue.driver(device["driver"])
        rows = entry.props if entry is not None else {}
        hidden = {name: value for name, value in device["props"].items() if not seen(name, rows.get(name, {}))}
        hidden |= {name: os.path.dirname(str(device["props"].get(name, ""))) for name in FILES if name in rows}
        found[f"devices.{device['id']}"] = {name: value for name, value in hidden.items() if value not in (None, "")}
    return found
