"""vmcoreinfo: where a guest's kernel says what tools need to read a dump of its memory.

The guest writes to the file etc/vmcoreinfo: the host's format, its own (1: an ELF note), bytes and address of the note.
Ref: QEMU docs/specs/vmcoreinfo.
"""

from __future__ import annotations

import struct

from vmrun.core.interfaces import CoreInfo
from vmrun.core.object import Device
from vmrun.core.registry import register
from vmrun.core.state import Bytes, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

FILE, LAYOUT = "etc/vmcoreinfo", struct.Struct("<HHIQ")
ELF = 1
EMPTY = LAYOUT.pack(ELF, 0, 0, 0)


@register("vmcoreinfo", description="the guest's note for dumps of it")
class VmCoreInfo(Device, CoreInfo):
    hotpluggable = False

    state = Table("vmcoreinfo", 1, Bytes("told", LAYOUT.size, EMPTY))

    def realize(self, platform: Platform) -> None:
        if not platform.writes_to_fw_cfg():
            raise BuildError("vmcoreinfo device requires fw_cfg with DMA")
        self.told = bytearray(EMPTY)
        platform.add_fw_cfg_file(FILE, self.told)

    def note(self) -> tuple[int, int] | None:
        _, kind, size, address = LAYOUT.unpack(self.told)
        return (address, size) if kind == ELF and size else None
