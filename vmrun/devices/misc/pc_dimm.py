"""pc-dimm: a memory module in one of the machine's slots (`memory-slots:`), from the start or while the guest runs.

It is a memory backend's memory at an address of the range that the machine keeps free for modules; the guest learns of
it from the memory slots' registers and the tables around them. Ref: QEMU docs/memory-hotplug.txt.
"""

from __future__ import annotations

from accel.space import Region

from vmrun.core.interfaces import MemoryModule
from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform


@register("pc-dimm", description="DIMM memory module")
class PcDimm(Device, MemoryModule):
    memdev = Prop("object", doc="the memory backend", visible=False, of=("memory-backend",))
    addr = Prop("uint64", 0, "where it lies; 0: the first place that is free")
    slot = Prop("int32", -1, "its slot; -1: the first that is free", min=-1)
    node = Prop("uint32", 0, "its NUMA node")

    state = Table("pc-dimm", 1)
    kind = "dimm"
    size = 0

    def realize(self, platform: Platform) -> None:
        if self.memdev is None:
            raise BuildError("'memdev' property must be set")
        memory: Any = platform.user_object(self.memdev)
        if not hasattr(memory, "own_block"):
            raise BuildError(f"object '{self.memdev}' is no memory backend")
        if memory.users:
            raise BuildError(f"can't use already busy memdev: {self.memdev}")
        nodes = platform.memory_slots.nodes
        if self.node >= nodes and (self.node or nodes):
            raise BuildError(
                f"'DIMM property node has value {self.node}' which exceeds the number of numa nodes: {nodes or 1}"
            )
        self.alignment = int(memory.alignment)
        self.size = self.shown(memory)
        if self.size % self.alignment:
            raise BuildError(f"backend memory size must be multiple of {self.alignment:#x}")
        self.slots = platform.memory_slots
        self.slot_number = self.slots.take(self, self.slot)
        try:
            self.address = self.slots.place(self, self.addr)
            block = memory.own_block()
            region = Region.ram(f"{self.name}.memory", block, 0, self.size, memory.readonly)
            self.map(platform.system_memory, region, self.address)
        except BaseException:
            self.slots.give_back(self)
            raise
        self.ram_blocks.append(block)
        memory.users.append(self.path)
        self.memory, self.block = memory, block

    def shown(self, memory: Any) -> int:
        """Bytes of a backend's that the guest sees. BuildError."""
        return int(memory.size)

    def unrealize(self) -> None:
        super().unrealize()
        self.slots.give_back(self)
        self.memory.users.remove(self.path)

    @property
    def hotplug(self) -> Any:
        return self.slots.controller

    def memory_info(self) -> dict[str, Any]:
        """A row of query-memory-devices."""
        data = {
            **{"memdev": f"/objects/{self.memdev}", "hotplugged": self.hotplugged, "addr": self.address},
            **{"hotpluggable": True, "size": self.size, "slot": self.slot_number, "node": self.node},
        }
        return {"type": self.kind, "data": {**data, **({"id": self.id} if self.id else {})}}

    def qom_values(self) -> dict[str, Any]:
        return {"addr": self.address, "slot": self.slot_number, "size": self.size}
