"""A PCI card for test programs that count how often, and how fast, writes reach a device.

Writing n to byte 0 of a BAR starts its test n; the BAR then begins with what the test is: its number, the width, offset
and value of the write that counts, how many there were, and its name.

Ref: QEMU docs/specs/pci-testdev.txt.
An -eventfd test's write is a doorbell while that test is chosen: where the accelerator has them, no exit is made for
it. It is not counted, and nobody waits for it.
"""

from __future__ import annotations

import struct

from accel.api import Notifier, PyIoRegion
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import U32, Parts, Signed, Stateful, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

MEMORY_SIZE, IO_SIZE = 2048, 128  # a BAR is twice as large: the header, then the bytes that are written to
MATCH, NO_MATCH = 0xFA, 0xCE
KINDS = ("no-eventfd", "wildcard-eventfd", "datamatch-eventfd")
COUNT = 12  # offset of the counter


class _Test(Stateful):
    state = Table("pci-testdev-test", 1, U32("count"))

    def __init__(self, number: int, name: str, offset: int) -> None:
        kind = KINDS[number % len(KINDS)]
        self.matches = kind != "wildcard-eventfd"
        self.eventful = kind != "no-eventfd"
        self.offset = offset
        self.data = MATCH if self.matches else NO_MATCH
        self.count = 0
        self.number, self.name = number, name

    def header(self) -> bytes:
        head = struct.pack("<BBxxIII", self.number, 1, self.offset, self.data, self.count)
        return head + self.name.encode() + b"\0"


@register("pci-testdev", description="PCI device for test programs")
class PciTestdev(PciDevice):
    vendor_id = 0x1B36
    device_id = 0x0005
    class_code = 0x00FF00

    state = PciDevice.state.extend("pci-testdev", 1, Signed("current", -1, 2 * len(KINDS) - 1, -1), Parts("tests"))

    membar = Prop("size", 0, "size of a further, empty memory BAR; 0 for none")

    def pci_realize(self, platform: Platform) -> None:
        self.tests = []
        for base, size, space in ((0, MEMORY_SIZE, "mmio"), (len(KINDS), IO_SIZE, "portio")):
            for n, kind in enumerate(KINDS):
                self.tests.append(_Test(base + n, f"{space}-{kind}", size + base + n))
        self.current = -1
        memory = PyIoRegion("pci-testdev", self._read, lambda o, s, v: self._write(0, o, s, v), 1, 4)
        ports = PyIoRegion("pci-testdev-io", self._read, lambda o, s, v: self._write(len(KINDS), o, s, v), 1, 4)
        self.notifier = Notifier()
        self.regions = [
            Region.device("pci-testdev", memory, 2 * MEMORY_SIZE),
            Region.device("pci-testdev-io", ports, 2 * IO_SIZE),
        ]
        self.add_bar(0, self.regions[0], 2 * MEMORY_SIZE, "mem32")
        self.add_bar(1, self.regions[1], 2 * IO_SIZE, "io")
        if self.membar:
            if self.membar & (self.membar - 1) or self.membar < 16:
                raise BuildError(f"{self.path}.membar: {self.membar} is no size of a BAR", remedy="a power of two")
            self.add_bar(2, Region.container("pci-testdev-membar", self.membar), self.membar, "mem64-pref")

    def settle(self) -> None:
        super().settle()
        self._hang_doorbell()

    def _hang_doorbell(self) -> None:
        for region in self.regions:
            region.remove_doorbells()
        if self.current >= 0 and self.tests[self.current].eventful:
            test = self.tests[self.current]
            region = self.regions[self.current // len(KINDS)]
            region.add_doorbell(test.offset, 1, self.notifier, test.data if test.matches else None)

    def _stop(self) -> None:
        self.current = -1
        for test in self.tests:
            test.count = 0

    def _read(self, offset: int, size: int) -> int:
        if self.current < 0:
            return 0
        header = self.tests[self.current].header()
        taken = header[offset : offset + size]
        if offset + size >= len(header):  # its last byte is never shown
            taken = header[offset:-1]
        return int.from_bytes(taken, "little")

    def _write(self, first: int, offset: int, size: int, value: int) -> None:
        """Aligned pieces; of those only a single byte can be the event that QEMU's processor hands on uncounted."""
        at = offset
        while at < offset + size:
            piece = next(n for n in (4, 2, 1) if not at & (n - 1) and at + n <= offset + size)
            for n in range(at, at + piece):
                self._byte(first, n, value >> 8 * (n - offset) & 0xFF, piece == 1)
            at += piece

    def _byte(self, first: int, offset: int, value: int, alone: bool) -> None:
        if offset == 0:
            self._stop()
            if first + value < len(self.tests):
                self.current = first + value
            self._hang_doorbell()
            return
        if self.current < 0:
            return
        test = self.tests[self.current]
        wanted = value == test.data or not test.matches
        if offset == test.offset and wanted and not (test.eventful and alone):
            test.count = (test.count + 1) & 0xFFFFFFFF
