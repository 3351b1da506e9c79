"""vmgenid: a number that a guest finds changed when it goes on from a copy of its state.

The guest's firmware puts a page of etc/vmgenid_guid into memory and writes where the number is to etc/vmgenid_addr; the
tables' device VGEN tells the operating system. A machine that is restored has a new number: it is written there, and
event 5 tells the guest to look.
Ref: QEMU docs/specs/vmgenid; Microsoft, Virtual Machine Generation ID.
"""

from __future__ import annotations

import uuid

from accel.dma import Dma

from vmrun.core.interfaces import Generation
from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import Bytes, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

GUID_FILE, GUID_SIZE, GUID_OFFSET = "etc/vmgenid_guid", 4096, 40
ADDRESS_FILE = "etc/vmgenid_addr"
CHANGED = 0x20


@register("vmgenid", description="virtual machine generation ID")
class VmGenId(Device, Generation):
    hotpluggable = False

    guid = Prop("str", "auto", "the number: a UUID, or auto for a new one at each start", visible=False)

    state = Table("vmgenid", 1, Bytes("address", 8))

    def realize(self, platform: Platform) -> None:
        if not platform.writes_to_fw_cfg():
            raise BuildError("vmgenid requires DMA write support in fw_cfg, which this machine type does not provide")
        try:
            number = uuid.uuid4() if self.guid == "auto" else uuid.UUID(self.guid)
        except ValueError:
            raise BuildError(f"{self.path}.guid: '{self.guid}' is no UUID") from None
        self.generation = str(number)
        self.platform = platform
        self.dma = Dma(platform.memory)
        self.address = bytearray(8)
        page = bytearray(GUID_SIZE)
        page[GUID_OFFSET : GUID_OFFSET + 16] = number.bytes_le
        platform.add_fw_cfg_file(GUID_FILE, bytes(page))
        platform.add_fw_cfg_file(ADDRESS_FILE, self.address)

    def apply(self, checked: dict[str, Any]) -> None:
        """The guest goes on from a copy: another number is where it looks."""
        super().apply(checked)
        where = int.from_bytes(self.address, "little")
        number = uuid.UUID(self.generation).bytes_le
        if where and self.dma.read(where, 16) != number:
            self.dma.write(where, number)
            self.platform.acpi_event(CHANGED)
