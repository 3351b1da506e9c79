"""nvdimm: a memory module whose content outlives the machine, being that of its memory backend (a file, `share`).

The backend's last bytes are its label area, which the guest reaches through the methods of its tables alone
(devices.chipset.nvdimm_methods), and says there how it divided the module. Ref: QEMU docs/nvdimm.txt.
Not modelled: libpmem (the kernel writes the file's pages back), taking one out.
"""

from __future__ import annotations

from vmrun.core.interfaces import PersistentModule
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.misc.pc_dimm import PcDimm
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

LEAST_LABEL = 128 << 10


@register("nvdimm", description="DIMM memory module")
class Nvdimm(PcDimm, PersistentModule):
    kind = "nvdimm"

    label_size = named("label-size", "size", 0, "bytes of the label area at the end; 0: none", unit="bytes")
    unarmed = Prop("bool", False, "the guest is told that it does not keep what is written")
    uuid = Prop("str", "", "kept for pseries", visible=False, idle="other machines' firmware alone tells of it")

    def realize(self, platform: Platform) -> None:
        if not platform.memory_slots.nvdimm:
            raise BuildError(
                "nvdimm is not enabled: missing 'nvdimm' in '-M'", remedy="memory-slots: {nvdimm: true} in a file"
            )
        if 0 < self.label_size < LEAST_LABEL:
            raise BuildError(
                f"Property 'nvdimm.label-size' ({self.label_size:#x}) is required at least {LEAST_LABEL:#x}"
            )
        super().realize(platform)

    def shown(self, memory: Any) -> int:
        size = int(memory.size - self.label_size) // int(memory.alignment) * int(memory.alignment)
        if self.label_size >= memory.size or size <= 0:
            raise BuildError(
                f"the size of memdev {self.memdev} ({memory.size:#x}) is too small to contain nvdimm label "
                f"({self.label_size:#x}) and aligned PMEM ({memory.alignment:#x})"
            )
        if memory.readonly and not self.unarmed:
            raise BuildError(f"'unarmed' property must be 'on' since memdev {self.memdev} is read-only")
        return size

    # --- the label area --------------------------------------------------------------------------------------

    def read_label(self, offset: int, length: int) -> bytes:
        return bytes(self.block.read(self.memory.size - self.label_size + offset, length))

    def write_label(self, offset: int, data: bytes) -> None:
        if not self.memory.readonly:
            self.block.write(self.memory.size - self.label_size + offset, data)

    @property
    def hotplug(self) -> Any:
        return self.slots.methods
