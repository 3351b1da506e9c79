"""Ports for kernel test suites (kvm-unit-tests): a register to read and write, interrupt lines, a page of memory.

    0xe0      4 bytes, accesses of 1, 2 and 4
    0xe4      a dword: flush the page of that address from the processor's tables
    0xe8      the same register as 0xe0, byte by byte
    0x2000    24 bytes: writing n to byte i drives ISA interrupt i
    0xff000000  64 KiB that keep what is written

Ref: QEMU hw/misc/pc-testdev.c's documented ports.
Departures: a flush changes nothing (mappings of guest memory do not move).
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.bus.isa import IsaDevice
from vmrun.core.registry import register
from vmrun.core.state import KEEP, U32, Bytes, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

REGISTER, FLUSH, BYTES, LINES, LINE_COUNT = 0xE0, 0xE4, 0xE8, 0x2000, 24
MEMORY, MEMORY_SIZE = 0xFF000000, 0x10000
ISA_IRQS = 16


@register("pc-testdev", description="ports and memory for kernel test suites")
class PcTestdev(IsaDevice):
    resources = {"ports": [[REGISTER, 12], [LINES, LINE_COUNT]]}

    # What it holds outlives a reset.
    state = Table(
        "pc-testdev",
        1,
        U32("register", KEEP),
        Bytes("memory", MEMORY_SIZE, KEEP),
        Bytes("levels", ISA_IRQS, KEEP, each=1),
    )

    def realize(self, platform: Platform) -> None:
        self.register = 0
        self.memory = bytearray(MEMORY_SIZE)
        self.lines = [self.isa_irq(n) for n in range(ISA_IRQS)]
        self.map_io(PyIoRegion("pc-testdev", self._read, self._write, 1, 4), REGISTER, 4)
        self.map_io(PyIoRegion("pc-testdev-flush", lambda offset, size: 0, None, 4, 4), FLUSH, 4)
        self.map_io(PyIoRegion("pc-testdev-byte", self._read, self._write, 1, 1), BYTES, 4)
        self.map_io(PyIoRegion("pc-testdev-irq", lambda offset, size: 0, self._drive, 1, 1), LINES, LINE_COUNT)
        io = PyIoRegion("pc-testdev-memory", self._peek, self._poke, 1, 4)
        self.map(platform.system_memory, io, MEMORY, MEMORY_SIZE)

    def _read(self, offset: int, size: int) -> int:
        return self.register >> (8 * (offset & 3)) & ((1 << 8 * size) - 1)

    def _write(self, offset: int, size: int, value: int) -> None:
        shift, mask = 8 * (offset & 3), (1 << 8 * size) - 1
        self.register = (self.register & ~(mask << shift) | (value & mask) << shift) & 0xFFFFFFFF

    def _drive(self, offset: int, size: int, value: int) -> None:
        if offset < ISA_IRQS:
            self.lines[offset].drive(int(value != 0))

    def _peek(self, offset: int, size: int) -> int:
        return int.from_bytes(self.memory[offset : offset + size], "little")

    def _poke(self, offset: int, size: int, value: int) -> None:
        self.memory[offset : offset + size] = value.to_bytes(size, "little")

    @property
    def levels(self) -> bytes:
        return bytes(line.level for line in self.lines)

    @levels.setter
    def levels(self, values: bytes) -> None:
        for line, level in zip(self.lines, values, strict=True):
            line.drive(level)
