"""The guest's memory as files of the host."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PART = 1 << 16  # bytes that are copied with the device lock held
FOUR_GIB = 1 << 32


@command("pmemsave", {"val": "int", "size": "int", "filename": "str"})
def pmemsave(monitor: Any, val: int, size: int, filename: str) -> Work:
    """Write guest memory, from a physical address on, to a file of the host."""
    return save(monitor.machine, val, size, filename)


def save(machine: Any, addr: int, size: int, path: str) -> Work:
    """QmpError when the memory has not so much."""
    high = int(machine.config["memory-map"].get("above-4g", 0))
    end = int(machine.config["memory-map"].get("high-ram", FOUR_GIB)) + high if high else FOUR_GIB
    if addr < 0 or size < 0 or addr + size > end:
        raise QmpError(f"Parameter 'size' expects a range that ends within the memory, below {end:#x}")

    def write(work: Work) -> None:
        at, stop = addr, addr + size
        try:
            with open(path, "wb", buffering=0) as file:
                while at < stop and not work.ended:
                    with machine.board.lock:
                        data = machine.board.memory.read_bytes(at, min(stop - at, PART))
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) :]
                    at += len(data)
        except OSError as error:
            raise QmpError(f"Could not write '{path}': {error.strerror}") from None

    return Work(machine, write)
