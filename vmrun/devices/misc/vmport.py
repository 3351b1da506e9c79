"""vmport: VMware's backdoor at port 5658h, as far as drivers look for it.

Ref: open-vm-tools, backdoor_def.h (magic, command numbers).
A command is in the processor's registers: EAX the magic, ECX the number; the answer goes back in EAX to EDX.
They come from `platform.cpu_registers()`; an access that no processor makes finds every command unknown and reads all
ones, as on a machine without the port.
The mouse's commands are vmmouse's. Not modelled: time and processor commands.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import named
from vmrun.core.registry import register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.platform import Platform

    Registers = Any

MAGIC = 0x564D5868
ALL_ONES = 0xFFFFFFFF

GET_VERSION = 10
GET_BIOS_UUID = 19
GET_RAM_SIZE = 20


@register("vmport", description="VMware backdoor port")
class Vmport(IsaDevice):
    """Other devices add commands with `commands[number] = function(registers) -> eax`."""

    user_creatable = False
    resources = {"ports": [[0x5658, 4]], "irqs": [], "dmas": []}

    read_set_eax = named("x-read-set-eax", "bool", True, doc="a read returns what the command left in EAX")
    signal_unsupported = named(
        "x-signal-unsupported-cmd", "bool", True, doc="unknown commands answer all ones"
    )
    report_vmx_type = named("x-report-vmx-type", "bool", True, doc="GETVERSION gives the product in ECX")
    cmds_v2 = named("x-cmds-v2", "bool", True, doc="the commands that QEMU 5.1 added exist")
    vmx_version = named("vmware-vmx-version", "uint32", 6, doc="version that GETVERSION reports")
    vmx_type = named("vmware-vmx-type", "uint8", 2, doc="product that GETVERSION reports")

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        platform.want_registers()
        self.commands: dict[int, Callable[[Registers], int]] = {
            GET_VERSION: self.get_version,
            GET_RAM_SIZE: self.get_ram_size,
        }
        if self.cmds_v2:
            self.commands[GET_BIOS_UUID] = self.get_uuid
        self.map_io(PyIoRegion("vmport", self.read, self.write), 0x5658, 4)

    def read(self, offset: int, size: int) -> int:
        registers = self.platform.cpu_registers()
        if registers is None or offset:
            return ALL_ONES
        answer = self._answer(registers)
        if self.read_set_eax:  # with other registers changed, KVM takes EAX from there too, not from the bus
            registers["eax"] = answer
        return answer

    def write(self, offset: int, size: int, value: int) -> None:
        """OUT runs the command too; the answer is in EAX."""
        registers = self.platform.cpu_registers()
        if registers is not None and not offset:
            registers["eax"] = self._answer(registers)

    def _answer(self, registers: Registers) -> int:
        command = self.commands.get(registers["ecx"] & 0xFFFF) if registers["eax"] == MAGIC else None
        if command is None:
            return ALL_ONES if self.signal_unsupported else int(registers["eax"])
        return command(registers)

    def get_version(self, registers: Registers) -> int:
        registers["ebx"] = MAGIC
        if self.report_vmx_type:
            registers["ecx"] = self.vmx_type
        version: int = self.vmx_version
        return version

    def get_ram_size(self, registers: Registers) -> int:
        registers["ebx"] = 0x1177
        return self.platform.ram_size & ALL_ONES

    def get_uuid(self, registers: Registers) -> int:
        text = self.platform.uuid.replace("-", "")
        words = [int.from_bytes(bytes.fromhex(text[i : i + 8]), "little") for i in range(0, 32, 8)]
        registers["ebx"], registers["ecx"], registers["edx"] = words[1], words[2], words[3]
        return words[0]
