"""Golden digests: what a guest sees of each released machine type, by section, to notice when one moves.

Of the type's standard machine (vmrun.config.standard), without what the host's firmware packages decide: images, the
contents of option ROMs, the size of the ROM BAR that holds one.
"""

from __future__ import annotations

from vmrun.config.catalogue import load_catalogue
from vmrun.config.digest import digest
from vmrun.config.machinetypes import type_names
from vmrun.config.standard import DISK, standard_machine
from vmrun.machine.visible import ROM_FOLDERS, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.catalogue import Catalogue

FIRMWARE = ("pc.bios", "pc.rom")  # regions whose size is an image's


def views() -> dict[str, dict[str, str]]:
    """Type → section → digest."""
    return {name: view(name) for name in type_names()}


def view(name: str) -> dict[str, str]:
    """Section → digest of a type."""
    return {section: digest(part) for section, part in seen(name).items()}


def seen(name: str) -> dict[str, Any]:
    """The sections themselves."""
    sections = visible(standard_machine(name).data, DISK)
    del sections["firmware"]
    sections["fw_cfg"] = _without_roms(sections["fw_cfg"])
    sections["memory"] = {key: what for key, what in sections["memory"].items() if not what.startswith(FIRMWARE)}
    sections["pci"] = {
        key: {**row, "bars": {bar: kind for bar, kind in row.get("bars", {}).items() if bar != "rom"}}
        for key, row in sections["pci"].items()
    }
    sections["devices"] = {id: _told(row, load_catalogue()) for id, row in sections["devices"].items()}
    return sections


def _told(row: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """A device with those of its properties that are not the driver's defaults: a property that is new to vmrun changes
    nothing.
    """
    entry = catalogue.driver(row["driver"])
    rows = entry.props if entry is not None else {}
    kept = {name: value for name, value in row["props"].items() if value != rows.get(name, {}).get("default")}
    return {**row, "props": kept}


def _without_roms(items: dict[str, str]) -> dict[str, str]:
    """fw_cfg without ROM files, whose being there shifts the others: the order of the rest stays."""
    found = {}
    position = 0
    for key, value in items.items():
        if not key.startswith("file "):
            found[key] = value
        elif not key.removeprefix("file ").startswith(ROM_FOLDERS):
            found[key] = f"{position}: {value.partition(': ')[2]}"
            position += 1
    return found
