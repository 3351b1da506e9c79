"""Linear to physical addresses, as a processor's own tables say: for those who look from outside.

Ref: SDM volume 3, chapter 4: 32-bit, PAE, 4-level and 5-level paging. Access rights are not looked at.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine

CR0_PG, CR4_PSE, CR4_PAE, CR4_LA57, EFER_LMA = 1 << 31, 1 << 4, 1 << 5, 1 << 12, 1 << 10
PRESENT, LARGE = 1 << 0, 1 << 7
FRAME = 0x000FFFFFFFFFF000
PAGE = 4096


def walk(read: Callable[[int, int], int], r: dict[str, Any], linear: int) -> int | None:
    """The physical address, or None where no page is. `read(address, bytes)` reads physical memory; `r` has cr0, cr3,
    cr4 and efer.
    """
    if not r["cr0"] & CR0_PG:
        return linear & 0xFFFFFFFF if not r.get("efer", 0) & EFER_LMA else linear
    if not r["cr4"] & CR4_PAE:
        return _walk32(read, r, linear & 0xFFFFFFFF)
    if r["efer"] & EFER_LMA:
        table, shift = r["cr3"] & FRAME, 48 if r["cr4"] & CR4_LA57 else 39
        if linear >> (shift + 8) not in (0, (1 << (64 - shift - 8)) - 1):
            return None  # not canonical
    else:
        linear &= 0xFFFFFFFF
        entry = read((r["cr3"] & 0xFFFFFFE0) + (linear >> 30) * 8, 8)
        if not entry & PRESENT:
            return None
        table, shift = entry & FRAME, 21
    while True:
        entry = read(table + (linear >> shift & 0x1FF) * 8, 8)
        if not entry & PRESENT:
            return None
        if shift == 12 or entry & LARGE and shift in (21, 30):
            low = (1 << shift) - 1
            return (entry & FRAME & ~low) | (linear & low)
        table, shift = entry & FRAME, shift - 9


def _walk32(read: Callable[[int, int], int], r: dict[str, Any], linear: int) -> int | None:
    entry = read((r["cr3"] & 0xFFFFF000) + (linear >> 22) * 4, 4)
    if not entry & PRESENT:
        return None
    if entry & LARGE and r["cr4"] & CR4_PSE:
        return entry & 0xFFC00000 | (entry >> 13 & 0xFF) << 32 | linear & 0x3FFFFF
    entry = read((entry & 0xFFFFF000) + (linear >> 12 & 0x3FF) * 4, 4)
    return entry & 0xFFFFF000 | linear & 0xFFF if entry & PRESENT else None


def is_there(space: Any, at: int, size: int) -> bool:
    """Whether something answers at each of these physical addresses."""
    end = at + size
    for piece in space.flat:  # in order, none over another
        if piece.start <= at < piece.start + piece.size:
            at = piece.start + piece.size
            if at >= end:
                return True
    return False


class Standing:
    """`with Standing(machine) as cpus: cpus.registers(0)`: processors that stand still for a moment. Main thread."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.ran = False

    def __enter__(self) -> Standing:
        self.ran = self.machine.state == "running"
        if self.ran:
            self.machine.accelerator.stop()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.ran:
            self.machine.accelerator.start()

    def state(self, index: int) -> dict[str, Any]:
        """All of a processor's state. NotImplementedError from an accelerator without any."""
        found = self.machine.accelerator.save_vcpu(index)
        if "regs" not in found:
            raise NotImplementedError
        return found

    def registers(self, index: int) -> dict[str, Any]:
        """General, segment and control registers by name."""
        found = self.state(index)
        return {**found.get("sregs", {}), **found.get("regs", {})}

    def physical(self, addr: int, size: int) -> int:
        """A number from physical memory, read as a processor reads tables."""
        with self.machine.board.lock:
            return int.from_bytes(self.machine.board.memory.read_bytes(addr, size), "little")

    def page(self, index: int, linear: int) -> int | None:
        """The physical address of a linear one."""
        return walk(self.physical, self.registers(index), linear)

    def pages(self, index: int, linear: int, size: int) -> list[tuple[int | None, int]]:
        """(physical address or None, bytes) of each page that a stretch of linear memory lies in, in order."""
        registers, found = self.registers(index), []
        while size > 0:
            count = min(size, PAGE - (linear & (PAGE - 1)))
            found.append((walk(self.physical, registers, linear & 0xFFFFFFFFFFFFFFFF), count))
            linear, size = linear + count, size - count
        return found
