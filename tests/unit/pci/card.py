"""A PCI card for tests on a bus of its own, and what its messages said."""

from __future__ import annotations

from typing import Any

from accel.api import DeviceLock, PyIoRegion
from accel.clock import SteppedClock
from accel.ram import RamBlock
from accel.space import AddressSpace, Region

from vmrun.bus.pci import Capability, PciDevice, RootBus

RAM_SIZE = 0x10000


class _Accelerator:
    def __init__(self, apic: Any) -> None:
        self.apic = apic

    def msi_sink(self) -> Any:
        return self.apic


class Board:
    """Two spaces with 64 KiB of RAM, a root bus, and a sink that notes messages."""

    def __init__(self, sink: Any) -> None:
        self.lock, self.virtual = DeviceLock(), SteppedClock()
        self.system_memory, self.system_io = Region.container("system", 0), Region.container("io", 0x10000)
        self.pci_memory = Region.container("pci", 1 << 32)
        self.system_memory.add(self.pci_memory, 0, -1)
        self.ram = RamBlock("ram", RAM_SIZE)
        self.system_memory.add(Region.ram("ram", self.ram), 0)
        self.memory = AddressSpace("memory", self.system_memory)
        self.io = AddressSpace("I/O", self.system_io, ports=True)
        self.accelerator = _Accelerator(sink)
        self.bus = RootBus("pci.0", self)  # type: ignore[arg-type]

    def plug(self, *capabilities: Capability, addr: str = "05.0", bus: Any = None, cls: Any = None) -> Card:
        card = (cls or Card)("card")
        card.wanted = capabilities
        card.set_props({"addr": addr})
        card.parent_bus = bus or self.bus
        card.realize(self)
        card.reset()
        card.config.poke(4, 2, 7)
        return card


class Card(PciDevice):
    vendor_id, device_id, class_code, interrupt_pin = 0x1234, 0x5678, 0xFF0000, 1
    wanted: tuple[Capability, ...] = ()

    def pci_realize(self, platform: Any) -> None:
        self.container = Region.container("card", 0x1000)
        self.writes: list[tuple[int, int]] = []
        self.container.add(Region.device("card", PyIoRegion("card", None, self._note), 0x1000), 0)
        self.add_bar(1, self.container, 0x1000, "mem32")
        for capability in self.wanted:
            self.add_capability(capability)
            show = getattr(capability, "show", None)
            if show is not None:
                show(self.container)

    def _note(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, value))
