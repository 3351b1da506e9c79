"""The range of addresses that a machine keeps free for memory modules, and who is where in it."""

from __future__ import annotations

from vmrun.core.interfaces import MemoryModule, PersistentModule
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.board import Board

# what is written back at a loss of power: caches and memory controllers, as bits of the platform's capabilities
PERSISTENCE = {"": 0, "mem-ctrl": 2, "cpu": 3}


class MemorySlots:
    """`controller`: the chip with the slots' registers (devices.chipset.memory_hotplug), None on a board without.
    `nvdimm`: modules may be non-volatile ones, of which `methods` (devices.chipset.nvdimm_methods) tells.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.controller: Any = None
        self.methods: Any = None
        settings = board.config.get("memory-slots")
        self.count = settings["count"] if settings else 0
        self.nvdimm = bool(settings and settings.get("nvdimm"))
        self.persistence = PERSISTENCE[settings.get("nvdimm-persistence", "")] if settings else 0

    @property
    def nodes(self) -> int:
        return len(self.board.config.get("numa") or ())

    @property
    def plugged(self) -> int:
        """Bytes of all modules."""
        return sum(device.size for device in self.board.devices.values() if isinstance(device, MemoryModule))

    @property
    def persistent(self) -> list[PersistentModule]:
        return [device for device in self.board.devices.values() if isinstance(device, PersistentModule)]

    def take(self, device: Any, wanted: int) -> int:
        if self.controller is None or not self.count:
            raise BuildError("no slots where allocated, please specify the 'slots' option")
        return int(self.controller.take(device, wanted))

    def give_back(self, device: Any) -> None:
        if self.controller is not None:
            self.controller.give_back(device)

    def place(self, device: Any, wanted: int) -> int:
        """The address of a module; the first that is free for 0. BuildError in QEMU's words."""
        settings = self.board.config["memory-slots"]
        base, size = int(settings["base"]), int(settings["size"])
        most = int(settings["maxmem"]) - self.board.ram_size
        others = sorted(
            (other.address, other.address + other.size, other)
            for other in self.board.devices.values()
            if isinstance(other, MemoryModule) and other is not device
        )
        used = sum(end - start for start, end, _ in others)
        if used + device.size > most:
            raise BuildError(
                f"not enough space, currently {used:#x} in use of total space for memory devices {most:#x}"
            )
        if wanted:
            if wanted % device.alignment:
                raise BuildError(f"address must be aligned to {device.alignment:#x} bytes")
            if not base <= wanted <= base + size - device.size:
                raise BuildError(
                    f"can't add memory device [{wanted:#x}:{device.size:#x}], usable range for memory devices "
                    f"[{base:#x}:{size:#x}]"
                )
            for start, end, other in others:
                if start < wanted + device.size and wanted < end:
                    raise BuildError(f"address range conflicts with memory device id='{other.id}'")
            return wanted
        at = base
        for start, end, _ in others:
            if at + device.size <= start:
                break
            at = -(-max(at, end) // device.alignment) * device.alignment
        if at + device.size > base + size:
            raise BuildError(
                "could not find position in guest address space for memory device - memory fragmented due to alignments"
            )
        return at
