"""Plugging and unplugging. None of the drivers so far is one that its bus lets come and go; the answers say so."""

from __future__ import annotations

from vmrun.monitor import qom
from vmrun.monitor.errors import QmpError, no_device
from vmrun.monitor.table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Buses whose slots a running machine can fill; on them a driver decides.
HOTPLUG_BUSES = ("PCI",)
# Parts of the board, which no user plugs at any time
BOARD_ONLY = (
    *("PIIX3", "PIIX4_PM", "i440FX", "i440FX-pcihost", "apic", "fw_cfg_io", "hpet", "ioapic", "mc146818rtc", "i8042"),
    *("i8257", "isa-i8259", "isa-pcspk", "isa-pit", "kvm-i8259", "kvm-ioapic", "kvm-pit", "port92", "vmport"),
)


@command("device_add", {"driver": "str", "bus?": "str", "id?": "str"}, gen=False)
def device_add(monitor: Any, driver: str, bus: str = "", id: str = "", **props: Any) -> None:
    """Plug a device in. Its properties are further arguments."""
    row = qom.drivers().get(driver)
    if row is None:
        raise QmpError(f"'{driver}' is not a valid device model name")
    if driver in BOARD_ONLY or row["bus"] in HOTPLUG_BUSES:
        raise QmpError("Parameter 'driver' expects a pluggable device type")
    buses = {name: found for device in monitor.machine.devices.values() for name, found in device.buses.items()}
    if bus and bus not in buses:
        raise QmpError(f"Bus '{bus}' not found")
    if bus and buses[bus].kind != row["bus"]:
        raise QmpError(f"Device '{driver}' can't go on {buses[bus].kind} bus")
    if not bus:
        bus = next((name for name, found in buses.items() if found.kind == row["bus"]), "")
        if not bus:
            raise QmpError(f"No '{row['bus']}' bus found for device '{driver}'")
    if id and id in monitor.machine.devices:
        raise QmpError(f"Duplicate device ID '{id}'")
    raise QmpError(f"Bus '{bus}' does not support hotplugging")


@command("device_del", {"id": "str"})
def device_del(monitor: Any, id: str) -> None:
    """Ask for a device to be unplugged, by its id or path; DEVICE_DELETED tells when it is gone."""
    tree = qom.Tree(monitor.machine)
    node = monitor.machine.root.children["peripheral"].children.get(id)
    if id.startswith("/"):
        node = tree.resolve(id)
    if node is None:
        raise no_device(id)
    bus = getattr(node, "parent_bus", None)
    if bus is not None and bus.kind not in HOTPLUG_BUSES:
        raise QmpError(f"Bus '{bus.name}' does not support hotplugging")
    raise QmpError(f"Device '{tree.type_of(node)}' does not support hotplugging")
