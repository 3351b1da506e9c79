"""What a firmware does to the PCI bus: addresses for the BARs, decoding on, interrupt lines, and the few registers of
the chipset that operating systems expect to find set.

It works as firmware does, through the ports 0xcf8 and 0xcfc, and so knows no device of vmrun's.
Ref: PCI Local Bus Specification 2.1, 6.2.5; Intel 82371SB (PIIX3) 2.2; 82371AB (PIIX4) 7.
Not modelled: bridges, option ROMs.
"""

from __future__ import annotations

from vmrun.firmware.mptable import PCI_IRQS, pirq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[int, int], int]
    Write = Callable[[int, int, int], object]

ADDRESS, DATA = 0xCF8, 0xCFC
IO_WINDOW = (0xC000, 0x10000)
MEMORY_WINDOW = (0xE0000000, 0xFEC00000)
PIIX3_ISA, PIIX3_IDE, PIIX4_PM = 0x70008086, 0x70108086, 0x71138086
ELCR_HIGH, SMB_BASE = 0x4D1, 0x700


class _Function:
    """Configuration space of one function."""

    def __init__(self, read: Read, write: Write, devfn: int) -> None:
        self.read, self.write, self.devfn = read, write, devfn

    def get(self, offset: int, size: int) -> int:
        self.write(ADDRESS, 4, 1 << 31 | self.devfn << 8 | offset & 0xFC)
        return self.read(DATA + (offset & 3), size)

    def set(self, offset: int, size: int, value: int) -> None:
        self.write(ADDRESS, 4, 1 << 31 | self.devfn << 8 | offset & 0xFC)
        self.write(DATA + (offset & 3), size, value)


class _Bar:
    def __init__(self, function: _Function, offset: int, io: bool, size: int, wide: bool) -> None:
        self.function, self.offset, self.io, self.size, self.wide = function, offset, io, size, wide


def set_up(read: Read, write: Write, below_4g: int, pm_base: int) -> list[str]:
    """Bus 0, after a reset. What found no room, a sentence each. Ports: read(port, size), write(port, size, value)."""
    functions = list(_functions(read, write))
    bars = [bar for function in functions for bar in _bars(function)]
    bars.sort(key=lambda bar: -bar.size)
    at = {True: IO_WINDOW[0], False: max(MEMORY_WINDOW[0], -(-below_4g // (1 << 20)) * (1 << 20))}
    end = {True: IO_WINDOW[1], False: MEMORY_WINDOW[1]}
    left = []
    for bar in bars:
        start = -(-at[bar.io] // bar.size) * bar.size
        if start + bar.size > end[bar.io]:
            left.append(f"BAR {bar.offset:#x} of {bar.function.devfn >> 3:02x}.{bar.function.devfn & 7} found no room")
            continue
        at[bar.io] = start + bar.size
        bar.function.set(bar.offset, 4, start)
        if bar.wide:
            bar.function.set(bar.offset + 4, 4, 0)
    for function in functions:
        _interrupt(function)
        _chipset(function, write, pm_base)
        function.set(4, 2, function.get(4, 2) | 3)
    return left


def _functions(read: Read, write: Write) -> Iterator[_Function]:
    for slot in range(32):
        for number in range(8):
            function = _Function(read, write, slot << 3 | number)
            if function.get(0, 2) in (0, 0xFFFF):
                if number == 0:
                    break
                continue
            yield function
            if number == 0 and not function.get(0x0E, 1) & 0x80:
                break


def _bars(function: _Function) -> Iterator[_Bar]:
    """Those that take an address, sized as the specification says."""
    if function.get(0x0E, 1) & 0x7F:
        return
    offset = 0x10
    while offset < 0x28:
        before = function.get(offset, 4)
        function.set(offset, 4, 0xFFFFFFFF)
        answer = function.get(offset, 4)
        function.set(offset, 4, before)
        io = bool(before & 1)
        wide = not io and before & 6 == 4
        mask = answer & (0xFFFFFFFC if io else 0xFFFFFFF0)
        if mask:
            size = mask & -mask
            yield _Bar(function, offset, io, size, wide)
        offset += 8 if wide else 4


def _interrupt(function: _Function) -> None:
    pin = function.get(0x3D, 1)
    if 1 <= pin <= 4:
        function.set(0x3C, 1, PCI_IRQS[pirq(function.devfn >> 3, pin)])


def _chipset(function: _Function, write: Write, pm_base: int) -> None:
    kind = function.get(0, 4)
    if kind == PIIX3_ISA:
        for n, irq in enumerate(PCI_IRQS):
            function.set(0x60 + n, 1, irq)
        write(ELCR_HIGH, 1, sum({1 << irq - 8 for irq in PCI_IRQS}))
    elif kind == PIIX3_IDE:
        function.set(0x40, 2, 0x8000)  # both channels decode their ports
        function.set(0x42, 2, 0x8000)
    elif kind == PIIX4_PM:
        function.set(0x3C, 1, 9)  # the SCI, whatever the pin says
        function.set(0x40, 4, pm_base | 1)
        function.set(0x80, 1, 1)
        if not function.get(0x90, 4) & 0xFFC0:
            function.set(0x90, 4, SMB_BASE | 1)
        function.set(0xD2, 1, 9)
