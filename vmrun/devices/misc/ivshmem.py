"""ivshmem-plain: a card whose memory other machines, and programs of the host, have too.

Ref: QEMU docs/specs/ivshmem-spec, revision 1 of the device; without doorbells it interrupts nobody.
BAR 0: interrupt mask and status, the machine's number (0), the doorbell, which nobody hears; BAR 2: the memory.
"""

from __future__ import annotations

from accel.api import PyIoRegion
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import U32, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

MASK, STATUS, POSITION, DOORBELL = 0, 4, 8, 12
REGISTERS = 0x100


@register("ivshmem-plain", description="Inter-VM shared memory")
class IvshmemPlain(PciDevice):
    """With `master` the memory is part of the saved machine; without, whoever else has it keeps it."""

    vendor_id = 0x1AF4
    device_id = 0x1110
    revision = 1
    class_code = 0x050000

    memdev = Prop("object", doc="the memory backend", visible=False, of=("memory-backend",))
    master = Prop("enum", "off", "this machine owns the memory", choices=("on", "off", "auto"), visible=False)

    state: Table = PciDevice.state.extend("ivshmem", 1, U32("mask"), U32("status"))

    def pci_realize(self, platform: Platform) -> None:
        if self.memdev is None:
            raise BuildError("You must specify a 'memdev'")
        memory: Any = platform.user_object(self.memdev)
        if not hasattr(memory, "own_block"):
            raise BuildError(f"object '{self.memdev}' is no memory backend")
        if memory.users:
            raise BuildError(f"can't use already busy memdev: {self.memdev}")
        size = memory.size
        if size & (size - 1):
            raise BuildError(f"memdev '{self.memdev}': a BAR of {size} bytes cannot be; give it a power of two")
        self.mask = self.status = 0
        block = memory.own_block()
        self.add_bar(0, PyIoRegion("ivshmem", self._read, self._write, 4, 4), REGISTERS, "mem32")
        self.add_bar(2, Region.ram(f"{self.name}.memory", block), size, "mem64-pref")
        if self.master == "on":
            self.ram_blocks.append(block)
        memory.users.append(self.path)
        self.memory = memory

    def unrealize(self) -> None:
        super().unrealize()
        self.memory.users.remove(self.path)

    def _read(self, offset: int, size: int) -> int:
        if offset == MASK:
            return self.mask
        if offset == STATUS:
            status, self.status = self.status, 0
            return status
        return 0

    def _write(self, offset: int, size: int, value: int) -> None:
        if offset == MASK:
            self.mask = value
        elif offset == STATUS:
            self.status = value
