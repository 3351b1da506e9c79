"""The ISA bus: ports in the I/O space, 16 shared interrupt lines, two DMA controllers."""

from __future__ import annotations

from accel.api import IrqFan, IrqLine

from vmrun.core.object import Device
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import IoRegion
    from accel.space import Region

    from vmrun.core.platform import Platform


class IsaBus:
    """Sixteen interrupts (wired-OR, as the machine's wires route them on) and the ports of the machine."""

    kind = "ISA"

    def __init__(self, name: str, platform: Platform) -> None:
        self.name = name
        self.platform = platform
        self.irqs = IrqFan(f"{name}.irq", 16)
        self.dma: list[Any] = [None] * 8        # channel → (controller, its channel); the i8257s fill it in
        self.devices: list[Device] = []

    def irq(self, n: int) -> IrqLine:
        """A new line into interrupt `n` (0..15)."""
        if not 0 <= n < 16:
            raise BuildError(f"{self.name}: there is no ISA interrupt {n}")
        return IrqLine(self.irqs, n)


class IsaDevice(Device):
    """Base of ISA devices: claim ports with `map_io`, an interrupt with `isa_irq`."""

    bus = "ISA"

    def map_io(self, io: IoRegion, base: int, size: int, name: str = "", priority: int = 0) -> Region:
        """Answer ports base … base+size-1."""
        if base is None:
            raise BuildError(f"{self.driver} is given no I/O port", remedy="add `iobase:`")
        return self.map(self.parent_bus.platform.system_io, io, base, size, name=name or self.driver, priority=priority)

    def isa_irq(self, n: int) -> IrqLine:
        line: IrqLine = self.parent_bus.irq(n)
        return line
