"""The drivers that a user may ask for, by category, in QEMU's form."""

from __future__ import annotations

from vmrun.config.catalogue import load_catalogue
from vmrun.monitor.typetree import drivers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CATEGORIES = {
    "chipset": "Controller/Bridge/Hub",
    "bridge": "Controller/Bridge/Hub",
    "usb": "USB",
    "storage": "Storage",
    "network": "Network",
    "input": "Input",
    "char": "Input",
    "display": "Display",
    "audio": "Sound",
    "misc": "Misc",
    "watchdog": "Watchdog",
    "ipmi": "Uncategorized",
}
# devices of a folder of several kinds, by file
BY_FILE = {
    **{"virtio_9p": "Storage", "virtio_blk": "Storage", "virtio_scsi": "Storage", "virtio_net": "Network"},
    **{"virtio_input": "Input", "virtio_serial": "Input", "virtio_gpu": "Display", "virtio_sound": "Sound"},
    **{"i6300esb": "Watchdog", "ib700": "Watchdog", "pc_dimm": "Uncategorized", "nvdimm": "Storage", "sga": "Display"},
}
ALIASES = {"e1000-82540em": "e1000", "lsi": "lsi53c895a"}  # beside those that end in -pci
BUSES = {"floppy": "floppy-bus"}  # kinds by QEMU's names of their classes


def devices() -> str:
    """What `-device help` and `info qdm` print."""
    groups: dict[str, list[str]] = {name: [] for name in (*CATEGORIES.values(), "Uncategorized")}
    known = load_catalogue()
    for name in known.modelled_names():
        row = drivers()[name]
        if not row.get("user_creatable", True):
            continue
        if name in ALIASES or row["module"] == drivers().get(f"{name}-pci", {}).get("module"):
            continue  # an alias, told with the driver
        folder, file = row["module"].split(".")[2:4]
        category = "Misc" if name == "isa-debugcon" else BY_FILE.get(file) or CATEGORIES.get(folder, "Misc")
        groups[category].append(_line(name, row, drivers()))
    return "\n".join(f"{title} devices:\n{''.join(lines)}" for title, lines in groups.items() if lines)


def _line(name: str, row: dict[str, Any], rows: dict[str, Any]) -> str:
    bus = f", bus {BUSES.get(row['bus'], row['bus'])}" if row["bus"] else ""
    bus += "".join(f', alias "{alias}"' for alias, of in ALIASES.items() if of == name)
    alias = name.removesuffix("-pci")
    if alias != name and rows.get(alias, {}).get("module") == row["module"]:
        bus += f', alias "{alias}"'
    text = f', desc "{row["description"]}"' if row["description"] else ""
    return f'name "{name}"{bus}{text}\n'
