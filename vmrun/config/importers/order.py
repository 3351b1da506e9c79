"""Places that a command line leaves open: slots, SCSI ids, units, numbers of namespaces and ports.

QEMU gives them in the order in which it makes the devices. In a machine file the order of devices does not count: who
has no place gets one by id. Where that would not be the same, the places are written down.
Ref: what QEMU 7.2 does: cards of -net and -nic first, then -device in their order, then the disks of -drive if=virtio.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vmrun.config.catalogue import Catalogue, Driver

# kind of bus → the properties that are a place there
_PLACES = {
    "PCI": ("addr",),
    "SCSI": ("scsi-id", "lun"),
    "IDE": ("unit",),
    "floppy": ("unit",),
    "nvme-bus": ("nsid",),
}
_LATE = ("virtio-blk-pci", "virtio-blk-device")


def as_made(early: Sequence[dict[str, Any]], given: Sequence[dict[str, Any]], catalogue: Catalogue) -> list[Any]:
    """Devices in the order in which QEMU makes them. early: of options other than -device."""

    def rank(device: dict[str, Any]) -> int:
        entry = catalogue.driver(str(device["driver"]))
        return 0 if entry is not None and "netdev" in entry.props else 1

    first = [device for device in early if device["driver"] not in _LATE]
    return [*sorted(first, key=rank), *given, *(device for device in early if device["driver"] in _LATE)]


def settle(document: dict[str, Any], made: Sequence[dict[str, Any]], catalogue: Catalogue) -> None:
    """Write down the places of `document`'s devices that others would get by id. made: the devices in QEMU's order."""
    open_: dict[tuple[str, str], list[int]] = {}
    for number, device in enumerate(made):
        entry = catalogue.driver(str(device["driver"]))
        names = _names(entry)
        if names and not any(name in device for name in names):
            assert entry is not None
            where = (str(entry.bus), str(device.get("bus", "pci.0")))
            if entry.index:
                where = ("", str(device["driver"]))
            open_.setdefault(where, []).append(number)
    wanted = [row for row in open_.values() if len(row) > 1 and row != sorted(row, key=_by_id(made))]
    if not wanted or "include" in document:
        return
    found = _resolved(document, made, catalogue)
    for number in [number for row in wanted for number in row]:
        resolved = found.get(_id(number))
        if resolved is None:
            continue
        entry = catalogue.driver(str(made[number]["driver"]))
        for name in _names(entry)[:1] if entry is not None and entry.index else _names(entry):
            value = resolved["addr"] if name == "addr" else resolved["props"].get(name)
            if value is not None and not (name == "lun" and value == 0):
                made[number][name] = value


def _names(entry: Driver | None) -> tuple[str, ...]:
    if entry is None:
        return ()
    if entry.index:
        return (str(entry.index["prop"]), *entry.index["sets"])
    return _PLACES.get(entry.bus or "", ())


def _id(number: int) -> str:
    return f"n{number:05d}"


def _by_id(made: Sequence[dict[str, Any]]) -> Any:
    """The key by which a machine file's devices are served: their ids, or the driver and what they have."""
    import json

    def key(number: int) -> tuple[str, int, str]:
        device = made[number]
        if "id" in device:
            return str(device["id"]), 0, ""
        return f"{device['driver']}-", 1, json.dumps(device, sort_keys=True, default=str)

    return key


def _resolved(document: dict[str, Any], made: Sequence[dict[str, Any]], catalogue: Catalogue) -> dict[str, Any]:
    """id → row of the devices as they are when their ids are in QEMU's order; {} when they cannot be."""
    import json

    from vmrun.config.load import load_bytes
    from vmrun.config.resolve import resolve
    from vmrun.errors import ConfigError, Problem

    ids = {str(device["id"]): _id(number) for number, device in enumerate(made) if "id" in device}
    devices = []
    for number, device in enumerate(made):
        entry = catalogue.driver(str(device["driver"]))
        other = {**device, "id": _id(number)}
        if entry is not None and entry.provides and "id" in device and "provides" not in device:
            other["provides"] = entry.buses(str(device["id"]))
        for name, prop in entry.props.items() if entry is not None else ():
            if prop["type"] == "link" and device.get(name) in ids:
                other[name] = ids[device[name]]
        devices.append(other)
    problems: list[Problem] = []
    try:
        text = json.dumps({**document, "devices": devices}, default=str)
        found = resolve(load_bytes(text.encode(), "machine.json", problems), problems, "", catalogue=catalogue)
    except ConfigError:
        return {}
    return {} if found is None else {str(row["id"]): row for row in found.data["devices"]}
