"""The PCI functions as the guest has set them up."""

from __future__ import annotations

from vmrun.monitor.table import command, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

struct("PciDeviceClass", {"desc?": "str", "class": "int"})
struct("PciDeviceId", device="int", vendor="int", subsystem_="int", subsystem_vendor_="int")
struct(
    "PciMemoryRegion",
    {"bar": "int", "type": "str", "address": "int", "size": "int", "prefetch?": "bool", "mem_type_64?": "bool"},
)
struct(
    "PciDeviceInfo",
    {
        "bus": "int",
        "slot": "int",
        "function": "int",
        "class_info": "PciDeviceClass",
        "id": "PciDeviceId",
        "irq?": "int",
        "irq_pin": "int",
        "qdev_id": "str",
        "pci_bridge?": "PciBridgeInfo",
        "regions": "[PciMemoryRegion]",
    },
)
struct("PciMemoryRange", base="int", limit="int")
struct(
    "PciBusInfo",
    {
        "number": "int",
        "secondary": "int",
        "subordinate": "int",
        "io_range": "PciMemoryRange",
        "memory_range": "PciMemoryRange",
        "prefetchable_range": "PciMemoryRange",
    },
)
struct("PciBridgeInfo", {"bus": "PciBusInfo", "devices?": "[PciDeviceInfo]"})
struct("PciInfo", bus="int", devices="[PciDeviceInfo]")

# PCI Local Bus Specification 2.1, appendix D, in QEMU's words
NAMES = {
    0x0001: "VGA controller",
    0x0100: "SCSI controller",
    0x0101: "IDE controller",
    0x0102: "Floppy controller",
    0x0104: "RAID controller",
    0x0106: "SATA controller",
    0x0180: "Storage controller",
    0x0200: "Ethernet controller",
    0x0280: "Network controller",
    0x0300: "VGA controller",
    0x0301: "XGA controller",
    0x0302: "3D controller",
    0x0380: "Display controller",
    0x0400: "Video controller",
    0x0401: "Audio controller",
    0x0480: "Multimedia controller",
    0x0500: "RAM controller",
    0x0501: "Flash controller",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0680: "Bridge",
    0x0700: "Serial port",
    0x0780: "Communication controller",
    0x0880: "System peripheral",
    0x0C00: "Firewire controller",
    0x0C03: "USB controller",
    0x0C05: "SMBus",
}


@command("query-pci", returns="[PciInfo]")
def query_pci(monitor: Any) -> list[dict[str, Any]]:
    """The root bus with its functions, and behind each bridge that the guest has numbered those of its bus: ids, class,
    interrupt, and the regions where the guest has put them.
    """
    with monitor.machine.board.lock:
        return [
            {"bus": 0, "devices": [function(device, 0) for device in functions(bus)]} for bus in buses(monitor.machine)
        ]


def buses(machine: Any) -> Iterator[Any]:
    """Root buses."""
    for device in machine.devices.values():
        for bus in device.buses.values():
            if bus.kind == "PCI" and bus.bridge is None:
                yield bus


def functions(bus: Any) -> list[Any]:
    return sorted(bus.devices, key=lambda device: int(device.devfn))


def function(device: Any, bus: int) -> dict[str, Any]:
    """PciDeviceInfo of a function."""
    config = device.config
    code = int(config.get(10, 2))
    kind: dict[str, Any] = {"class": code}
    if code in NAMES:
        kind["desc"] = NAMES[code]
    found = {
        "bus": bus,
        "slot": device.devfn >> 3,
        "function": device.devfn & 7,
        "class_info": kind,
        "id": {"vendor": config.get(0, 2), "device": config.get(2, 2)},
        "irq_pin": config.get(0x3D, 1),
        "qdev_id": "" if device.parent is None or device.parent.name != "peripheral" else device.name,
        "regions": [_region(bar) for bar in sorted(device.bars.values(), key=lambda bar: int(bar.n))],
    }
    if found["irq_pin"]:
        found["irq"] = config.get(0x3C, 1)
    if device.header_type == 1:
        found["pci_bridge"] = _bridge(device)
    else:
        found["id"] |= {"subsystem-vendor": config.get(0x2C, 2), "subsystem": config.get(0x2E, 2)}
    return found


def _bridge(device: Any) -> dict[str, Any]:
    primary, secondary, subordinate = (int(device.config.get(offset, 1)) for offset in (0x18, 0x19, 0x1A))
    names = {"io": "io_range", "memory": "memory_range", "prefetch": "prefetchable_range"}
    ranges = {names[name]: {"base": base, "limit": limit} for name, (base, limit) in device.ranges().items()}
    row: dict[str, Any] = {
        "bus": {"number": primary, "secondary": secondary, "subordinate": subordinate, **ranges},
    }
    if secondary:
        row["devices"] = [function(behind, secondary) for behind in functions(device.secondary)]
    return row


def class_name(kind: dict[str, Any]) -> str:
    return str(kind.get("desc") or f"Class {kind['class']:04d}")


def _region(bar: Any) -> dict[str, Any]:
    row = {
        "bar": bar.n,
        "type": "io" if bar.flags & 1 else "memory",
        "address": -1 if bar.mapped is None else bar.mapped,
        "size": bar.size,
    }
    if not bar.flags & 1:
        row["prefetch"] = bool(bar.flags & 8)
        row["mem_type_64"] = bool(bar.flags & 4)
    return row
