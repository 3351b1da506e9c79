"""The PC's flash: firmware, and the variables that it keeps, below 4 GiB.

Ref: Intel 82371AB, BIOSCS#; EDK II's OvmfPkg for the order of the two. Not modelled: `secure` (system management mode).
"""

from __future__ import annotations

from accel.ram import RamBlock
from accel.space import Region

from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.storage.cfi01 import CfiFlash
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

TOP, MOST = 1 << 32, 8 << 20
SECTOR = 4096


@register("cfi.pflash01", description="flash with Intel's command set; a PC's firmware, below 4 GiB")
class Pflash(Device):
    """`below` puts it under another one; without, it ends at 4 GiB and is the machine's firmware."""

    hotpluggable = False
    user_creatable = False  # `pflash:` makes them

    drive = Prop("drive", None, "the drive whose image are its contents", visible=False)
    below = Prop("link", None, "the flash that it lies under; none: it ends at 4 GiB")
    name_ = named("name", "str", "", "name of the memory region", visible=False)
    sector_length = named("sector-length", "uint64", SECTOR, "bytes that one erase takes", min=SECTOR, max=SECTOR)
    width = Prop("uint8", 1, "bytes of its bus", min=1, max=1)

    base: int

    def realize(self, platform: Platform) -> None:
        if not self.drive:
            raise BuildError(f"{self.path}: {self.driver} needs a drive", remedy="add `drive: <id of a drive>`")
        backend = platform.drive(self.drive)
        size = int(backend.size)
        name = self.name_ or "system.flash"
        if not size or size % SECTOR:
            raise BuildError(
                f"{self.path}: the flash image has {size} bytes; it must be a multiple of {SECTOR}, and not empty"
            )
        end, used = TOP, 0
        if self.below:
            other = platform.device(self.below)
            if not isinstance(other, Pflash):
                raise BuildError(f"{self.path}.below: '{self.below}' is no flash")
            end, used = other.base, TOP - other.base
        if size > MOST - used:
            raise BuildError(
                f"{self.path}: the flash images have {(size + used) >> 10} KiB together; "
                f"a PC has room for {MOST >> 10} KiB of firmware"
            )
        self.base = end - size
        self.block = RamBlock(name, size)
        step = 1 << 20
        for at in range(0, size, step):
            self.block.write(at, backend.read_bytes(at, min(step, size - at)))
        self.ram_blocks.append(self.block)
        self.chip = CfiFlash(self.block, backend, self._show_array, self.sector_length)
        whole = Region.container(name, size)
        self.array = Region.rom_device(name, self.block, self.chip, size)
        commands = Region.device(name, self.chip, size)
        self.array.owner = commands.owner = self
        whole.add(commands, 0)
        whole.add(self.array, 0, 1)
        self.map(platform.system_memory, whole, self.base)

    def _show_array(self, shown: bool) -> None:
        self.array.set_enabled(shown)
