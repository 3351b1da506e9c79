"""The fw_cfg files `bootorder`: devices with a bootindex, least first, as Open Firmware paths in QEMU's spelling; and
`bios-geometry`: the disks whose geometry the firmware is told.
"""

from __future__ import annotations

from vmrun.core.values import PCI_NICS
from vmrun.firmware import parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmrun.config.sections import DeviceRow, MachineData

ROOT = "/pci@i0cf8"
SCSI_ADAPTERS = ("virtio-scsi-pci", "lsi53c895a", "lsi53c810", "megasas", "pvscsi", "virtio-blk-pci")


def bootorder(machine: MachineData, roms: Iterable[tuple[int, str]] = ()) -> bytes:
    """Paths, newline-separated with a final NUL; b'' when no device has a bootindex.

    roms: (bootindex, fw_cfg name) of option ROMs that are booted themselves, such as genroms/linuxboot.bin.
    """
    entries = [(index, f"/rom@{name}") for index, name in roms if index >= 0]
    for device in machine["devices"]:
        index = device["props"].get("bootindex")
        if index is not None and int(index) >= 0:
            found = path(machine, device)
            if found is not None:
                entries.append((int(index), found))
        for unit, name in enumerate(("bootindexA", "bootindexB")) if device["driver"] == "isa-fdc" else ():
            index = device["props"].get(name)
            if index is not None and int(index) >= 0:
                base = int(device["props"].get("iobase", 0x3F0))
                entries.append((int(index), f"{ROOT}/isa@1/fdc@{base:04x}/floppy@{unit}"))
    lines = [line for _, line in sorted(entries, key=lambda entry: entry[0])]
    if not lines:
        return b""
    if machine.get("boot", {}).get("strict"):
        lines.append("HALT")
    return "\n".join(lines).encode() + b"\0"


def geometries(machine: MachineData) -> bytes:
    """A line per disk, its path and its cylinders, heads and sectors, with a final NUL; b'' when none has any."""
    lines = []
    for device in machine["devices"]:
        told = [int(device["props"].get(name) or 0) for name in ("lcyls", "lheads", "lsecs")]
        if any(told):
            lines.append(" ".join((path(machine, device) or "", *map(str, told))))
    return "\n".join(lines).encode() + b"\0" if lines else b""


def path(machine: MachineData, device: DeviceRow) -> str | None:
    """The path of a device that can be booted from; None when its kind has none."""
    driver, props = device["driver"], device["props"]
    if driver in ("ide-hd", "ide-cd", "ide-drive"):
        controller = _owner(machine, device)
        if controller is None:
            return None
        channel = list(controller["provides"]).index(device["bus"])
        return f"{_pci(controller, 'ide')}/drive@{channel:x}/disk@{int(props.get('unit') or 0):x}"
    if driver in ("scsi-hd", "scsi-cd", "scsi-disk", "scsi-block", "scsi-generic"):
        controller = _owner(machine, device)
        if controller is None:
            return None
        place = [int(props.get(name) or 0) for name in ("channel", "scsi-id", "lun")]
        return f"{_pci(controller, 'scsi')}/channel@{place[0]:x}/disk@{place[1]:x},{place[2]:x}"
    if driver in ("virtio-blk-pci", "virtio-blk"):
        return f"{_pci(device, 'scsi')}/disk@0,0"
    if driver in ("nvme", "nvme-ns"):
        controller = _owner(machine, device) if driver == "nvme-ns" else device
        if controller is None:
            return None
        ids = "8086,5845" if controller["props"].get("use-intel-id") else "1b36,0010"
        nsid, eui64 = int(props.get("nsid") or 1), int(props.get("eui64") or 0)
        return f"{_pci(controller, f'pci{ids}')}/namespace@{nsid:x},{eui64:x}"
    if driver in PCI_NICS:
        return f"{_pci(device, 'ethernet')}/ethernet-phy@0"
    if driver == "usb-storage":
        controller = _owner(machine, device)
        if controller is None:
            return None
        return f"{_pci(controller, 'usb')}/storage@{props.get('port', '1')}/channel@0/disk@0,0"
    return None


def _pci(device: DeviceRow, name: str) -> str:
    number, function = parts.slot(device)
    return f"{ROOT}/{name}@{number:x}" + (f",{function:x}" if function else "")


def _owner(machine: MachineData, device: DeviceRow) -> DeviceRow | None:
    """The device that provides the bus this one sits on."""
    for other in machine["devices"]:
        if device.get("bus") in (other.get("provides") or {}) and other.get("addr"):
            return other
    return None
