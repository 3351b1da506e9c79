"""Which bus takes a device that names none, and what the buses of controllers without an id are called: as in QEMU.

QEMU searches from the machine down and meets what came last first, so the youngest controller's bus is taken, and of an
IDE controller's two the second.
Ref: QEMU docs/qdev-device-use.txt.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from vmrun.config.catalogue import Catalogue

# kind of bus → how those of controllers without an id are numbered, and how many the board itself has
_NAMES = {
    "SCSI": ("scsi", 0),
    "PCI": ("pci", 1),
    "USB": ("usb-bus", 0),
    "virtio-serial-bus": ("virtio-serial-bus", 0),
    "HDA": ("hda", 0),
    "ccid-bus": ("ccid-bus", 0),
    "nvme-bus": ("nvme-bus", 0),
}
_BOARD_IDE = ("ide.0", "ide.1")
_IDE_UNITS = 2
# kinds of which there may be several
CHOSEN = ("SCSI", "IDE", "USB", "virtio-serial-bus", "HDA", "ccid-bus", "nvme-bus")


def place(devices: Iterable[dict[str, Any]], catalogue: Catalogue) -> None:
    """Give the devices of a command line, in the order in which QEMU makes them, their buses."""
    count = {kind: first for kind, (_, first) in _NAMES.items()}
    buses: dict[str, list[str]] = {"IDE": list(_BOARD_IDE)}  # by kind, the eldest first
    drives = dict.fromkeys(_BOARD_IDE, 0)
    for device in devices:
        entry = catalogue.driver(str(device["driver"]))
        if entry is None:
            continue
        kind = entry.bus
        if "bus" not in device and kind in CHOSEN:
            found = newest(buses.get(kind, ()), drives)
            if found is not None:
                device["bus"] = found
        if kind == "IDE" and "bus" in device:
            drives[device["bus"]] = drives.get(device["bus"], 0) + 1
        for bus, provided in _named(device, entry.buses(str(device.get("id", ""))), count).items():
            buses.setdefault(provided, []).append(bus)


def written(devices: list[dict[str, Any]], catalogue: Catalogue) -> list[dict[str, Any]]:
    """A machine file's devices for a command line: each with the bus that the file's own rule gives it, the eldest with
    room, and buses called as QEMU calls them. A controller whose buses have other names gets an id.
    """
    plain = [{key: value for key, value in device.items() if key != "provides"} for device in devices]
    guesses = [dict(device) for device in plain]
    place(guesses, catalogue)
    buses: dict[str, list[str]] = {"IDE": list(_BOARD_IDE)}
    drives = dict.fromkeys(_BOARD_IDE, 0)
    renamed: dict[str, str] = {}
    for given, device, guess in zip(devices, plain, guesses, strict=True):
        entry = catalogue.driver(str(device["driver"]))
        if entry is None:
            continue
        if entry.bus == "IDE" and "bus" in device:
            drives[device["bus"]] = drives.get(device["bus"], 0) + 1
        names = given.get("provides") or {}
        if names and names != guess.get("provides"):
            own = entry.buses(str(device.setdefault("id", next(iter(names)).replace(".", "-"))))
            renamed |= dict(zip(names, own, strict=False))
        for name, kind in (names or guess.get("provides") or entry.buses(str(device.get("id", "")))).items():
            buses.setdefault(kind, []).append(name)
    for device in plain:
        entry = catalogue.driver(str(device["driver"]))
        kind = entry.bus if entry is not None else None
        if "bus" not in device and kind in CHOSEN:
            found = next((bus for bus in buses.get(kind, ()) if drives.get(bus, 0) < _IDE_UNITS), None)
            if found is not None:
                device["bus"] = found
                if kind == "IDE":
                    drives[found] = drives.get(found, 0) + 1
        if device.get("bus") in renamed:
            device["bus"] = renamed[device["bus"]]
    return plain


def newest(buses: Iterable[str], drives: dict[str, int]) -> str | None:
    """The bus that came last, of those with room for another drive (drives: how many an IDE bus has)."""
    return next((bus for bus in reversed([*buses]) if drives.get(bus, 0) < _IDE_UNITS), None)


def _named(device: dict[str, Any], own: dict[str, str], count: dict[str, int]) -> dict[str, str]:
    """name → kind of the buses that a device provides; a device without an id is told QEMU's names of them."""
    given = device.get("provides")
    if isinstance(given, dict):  # by another option; what -device says of it is no property, and refused as such
        for name, kind in given.items():
            count[kind] = max(count[kind], int(name.rpartition(".")[2]) + 1)  # -drive if=scsi,bus=1: not scsi.0 alone
    elif given is None and "id" not in device and own and _NAMES.keys() >= set(own.values()):
        names = {}
        for kind in own.values():
            names[f"{_NAMES[kind][0]}.{count[kind]}"] = kind
            count[kind] += 1
        device["provides"] = given = names
    return given if isinstance(given, dict) else own
