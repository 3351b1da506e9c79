"""Putting a device into a machine and taking it out again: the steps that the builder and hot-plug share.

A device is made from its entry in the resolved machine: object, properties, place on its bus, buses of its own,
realize. `create` leaves nothing behind when it fails; `discard` undoes it.
"""

from __future__ import annotations

from vmrun.core import registry
from vmrun.core.interfaces import BusOwner
from vmrun.core.object import Object
from vmrun.errors import BuildError
from vmrun.machine.wiring import Wiring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import DeviceRow
    from vmrun.core.object import Device
    from vmrun.machine.board import Board


class Assembly:
    """The object tree and the ends of wires of one machine."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.wiring = Wiring()
        self.apic_system: Any = None  # the bus of the APICs, where the accelerator has none inside
        self.root = Object("machine")
        self.board_parts = Object("unattached")
        self.peripheral = Object("peripheral")
        self.anonymous = Object("peripheral-anon")
        for node in (self.board_parts, self.peripheral, self.anonymous):
            self.root.add_child(node)

    def create(self, entry: DeviceRow) -> Device:
        """`entry`: a row of the resolved machine's devices. The device lock is held. BuildError."""
        driver, values = entry["driver"], entry["props"]
        twin = entry.get("in-kernel")
        if twin and twin in self.board.accelerator.in_kernel:
            driver, values = twin, entry.get("in-kernel-props", values)
        module = modules().get(driver)
        if module is None:
            raise BuildError(f"{entry['id']}: driver {driver} is not modelled yet")
        device = registry.find(driver, module)(entry["id"])
        if entry.get("board"):
            self.board_parts.add_child(device)
        elif entry["id"]:
            self.peripheral.add_child(device)
        else:
            self.anonymous.add_child(device, f"device[{len(self.anonymous.children)}]")
        try:
            settings = {**values, "id": entry["id"]}
            if entry.get("addr") is not None:
                settings["addr"] = entry["addr"]
            device.set_props(settings)
            self._attach(device, entry)
            self._make_buses(device, entry)
            device.realize(self.board)
        except BaseException:
            self._forget(device)
            raise
        device.realized = True
        self.board.devices[entry["id"]] = device
        self.wiring.devices[entry["id"]] = device
        return device

    def _attach(self, device: Device, entry: DeviceRow) -> None:
        if entry.get("bus") is None:
            return
        for owner in self.board.devices.values():
            bus = owner.buses.get(entry["bus"])
            if bus is not None:
                device.parent_bus = bus
                if device not in bus.devices and bus.kind != "PCI":
                    bus.devices.append(device)
                return
        raise BuildError(f"{device.path}: there is no bus '{entry['bus']}'")

    def _make_buses(self, device: Device, entry: DeviceRow) -> None:
        if not isinstance(device, BusOwner) or not entry["provides"]:
            return
        device.make_buses(list(entry["provides"]), self.board)
        for name, bus in device.buses.items():
            bus.owner = device
            if bus.kind == "ISA":
                self.wiring.fans[f"{name}.irq"] = bus.irqs
            elif bus.kind == "PCI" and bus.bridge is None:
                self.wiring.lines[f"{name}.pirq"] = bus.pirq

    def discard(self, device: Device) -> None:
        """Out of the guest's sight, and off the tree. The device lock is held."""
        self.withdraw(device)
        self._forget(device)

    def withdraw(self, device: Device) -> None:
        """Out of the guest's sight: what a device claimed is free. It stays in the tree until `discard`."""
        if device.realized:
            device.realized = False
            device.unrealize()

    def _forget(self, device: Device) -> None:
        if device.parent is not None:
            device.parent.children.pop(device.name, None)
        bus = device.parent_bus
        if bus is not None and device in bus.devices:
            bus.devices.remove(device)
        for table in (self.board.devices, self.wiring.devices):
            for id in [id for id, other in table.items() if other is device]:
                del table[id]
        self.board.close_bay(device, filled=False)  # with a medium it is closed when the device lock is let go


def modules() -> dict[str, str]:
    """Driver → the module that has it, of schema/devices.json."""
    from vmrun.config.data import data_dir
    from vmrun.config.kept import read_own

    def pick(rows: dict[str, Any]) -> dict[str, str]:
        return {driver: row["module"] for driver, row in rows.items()}

    found: dict[str, str] = read_own(f"{data_dir('schema')}/devices.json", "modules", pick)
    return found
