"""The educational device: a PCI card to learn drivers on, with a factorial unit, a DMA engine and one MSI.

Ref: QEMU docs/specs/edu.txt.
Departures: the factorial is there at once, its status bit 0 is never seen set; a DMA command outside the card's buffer
moves nothing (QEMU ends itself). A second of virtual time has ten DMA commands at most, as there.
"""

from __future__ import annotations

from accel.api import PyIoRegion
from accel.clock import PyTimer

from vmrun.bus.pci import Msi, PciDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import U32, Bytes, Deadline, Words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

SIZE = 1 << 20
IDENTIFICATION, LIVENESS, FACTORIAL, STATUS, INTERRUPT, RAISE, ACKNOWLEDGE = 0, 4, 8, 0x20, 0x24, 0x60, 0x64
DMA_SOURCE, DMA_TARGET, DMA_COUNT, DMA_COMMAND = 0x80, 0x88, 0x90, 0x98
DMA_REGISTERS = (DMA_SOURCE, DMA_TARGET, DMA_COUNT, DMA_COMMAND)
ID = 0x010000ED
FACTORIAL_INTERRUPT, DMA_INTERRUPT = 0x001, 0x100
STATUS_INTERRUPT = 0x80  # status: interrupt after a factorial
RUN, TO_MEMORY, TELL = 1, 2, 4  # DMA command
BUFFER, BUFFER_SIZE = 0x40000, 4096
DMA_TIME = 100_000_000  # ns from a command to its end
ZERO_FROM = 34  # 34! and all above are multiples of 2**32
WORD, QUAD = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


@register("edu", description="educational device: factorials, DMA, MSI")
class Edu(PciDevice):
    vendor_id = 0x1234
    device_id = 0x11E8
    revision = 0x10
    class_code = 0x00FF00
    interrupt_pin = 1

    state = PciDevice.state.extend(
        "edu",
        1,
        *map(U32, ("live", "factorial", "status", "raised")),
        Words("dma_values", len(DMA_REGISTERS), QUAD),
        Bytes("buffer", BUFFER_SIZE),
        Deadline("timer"),
    )

    dma_mask = Prop("uint64", (1 << 28) - 1, "address bits that its DMA engine has")

    def pci_realize(self, platform: Platform) -> None:
        self.msi = Msi()
        self.add_capability(self.msi)
        self.timer = PyTimer(platform.timers, self._dma_done)
        self.add_bar(0, PyIoRegion("edu", self._read, self._write, 1, 8), SIZE, "mem32")
        self.live = self.factorial = self.status = self.raised = 0
        self.dma_registers = dict.fromkeys(DMA_REGISTERS, 0)
        self.buffer = bytearray(BUFFER_SIZE)

    @property
    def dma_values(self) -> list[int]:
        return [self.dma_registers[register] for register in DMA_REGISTERS]

    @dma_values.setter
    def dma_values(self, values: list[int]) -> None:
        self.dma_registers = dict(zip(DMA_REGISTERS, values, strict=True))

    def settle(self) -> None:
        super().settle()
        self.intx.drive(int(self.raised and not self.msi.enabled))

    def unrealize(self) -> None:
        self.timer.stop()
        super().unrealize()

    # --- registers ----------------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> int:
        if size < 4 or offset & 3:
            return 0  # its bus takes dwords and pairs of them
        if size == 8 and offset & 4:
            return self._read(offset, 4) & WORD | (self._read(offset + 4, 4) & WORD) << 32
        if size == 8 and offset < DMA_SOURCE:
            return QUAD
        if offset in self.dma_registers:
            return self.dma_registers[offset]
        return {
            IDENTIFICATION: ID,
            LIVENESS: self.live,
            FACTORIAL: self.factorial,
            STATUS: self.status,
            INTERRUPT: self.raised,
        }.get(offset, QUAD)

    def _write(self, offset: int, size: int, value: int) -> None:
        if size == 8 and offset & 7 == 4:
            self._write(offset, 4, value & WORD)
            self._write(offset + 4, 4, value >> 32)
        elif size == 4 and not offset & 3 or size == 8 and not offset & 7 and offset >= DMA_SOURCE:
            self._written(offset, value)

    def _written(self, offset: int, value: int) -> None:
        if offset == LIVENESS:
            self.live = ~value & WORD
        elif offset == FACTORIAL:
            self._compute(value & WORD)
        elif offset == STATUS:
            self.status = value & STATUS_INTERRUPT
        elif offset == RAISE:
            self._raise(value & WORD)
        elif offset == ACKNOWLEDGE:
            self.raised &= ~value
            if not self.raised and not self.msi.enabled:
                self.intx.drive(0)
        elif offset in self.dma_registers and not self.dma_registers[DMA_COMMAND] & RUN:
            self._set_dma(offset, value)

    def _compute(self, n: int) -> None:
        result = 0 if n >= ZERO_FROM else 1
        for factor in range(2, min(n, ZERO_FROM) + 1):
            result = result * factor & WORD
        self.factorial = result
        if self.status & STATUS_INTERRUPT:
            self._raise(FACTORIAL_INTERRUPT)

    def _raise(self, bits: int) -> None:
        self.raised |= bits
        if not self.raised:
            return
        if self.msi.enabled:
            self.msi.chip.raise_vector(0)
        else:
            self.intx.drive(1)

    # --- DMA ----------------------------------------------------------------------------------------------

    def _set_dma(self, offset: int, value: int) -> None:
        if offset == DMA_COMMAND:
            if not value & RUN:
                return
            self.timer.schedule(self.platform.virtual.time() + DMA_TIME)
        self.dma_registers[offset] = value

    def _dma_done(self) -> None:
        source, target, count, command = (self.dma_registers[register] for register in DMA_REGISTERS)
        own, other = (source, target) if command & TO_MEMORY else (target, source)
        start = own - BUFFER
        if start >= 0 and count <= BUFFER_SIZE - start:
            if command & TO_MEMORY:
                self.dma.write(other & self.dma_mask, self.buffer[start : start + count])
            else:
                self.buffer[start : start + count] = self.dma.read(other & self.dma_mask, count) or b"\xff" * count
        self.dma_registers[DMA_COMMAND] &= ~RUN
        if command & TELL:
            self._raise(DMA_INTERRUPT)
