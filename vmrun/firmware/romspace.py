"""Whether the option ROMs of a machine fit where firmware copies them: 0xc0000 and above, the display's first.

A ROM that is copied whole and gives back what it does not need (as those of network cards do) counts only while it is
being copied, so what is told here is what cannot fit in any case. A ROM that this host does not have is not looked at.
"""

from __future__ import annotations

from vmrun.errors import BuildError, Problem
from vmrun.firmware import images, parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.config.sections import MachineData
    from vmrun.errors import Place

BLOCK = 512  # the unit of a ROM's own length, its third byte


class _Rom:
    def __init__(self, owner: str, file: str, size: int, path: tuple[str, ...]) -> None:
        self.owner, self.file, self.size, self.path = owner, file, size, path

    @property
    def label(self) -> str:
        return f"{self.file} of {self.owner} ({self.size / 1024:g} KiB)"


def refuse_roms(machine: MachineData, images: dict[str, Any]) -> None:
    """What check_roms() finds as a BuildError. images: those that are loaded (data), by their files."""

    def size(file: str, dirs: object) -> int:
        return _taken(images[file].data) if file in images else 0

    problems = check_roms(machine, lambda *path: None, size)
    if problems:
        raise BuildError(problems=problems)


def check_roms(
    machine: MachineData, place: Callable[..., Place | None], size: Callable[[str, Any], int] | None = None
) -> list[Problem]:
    """Problems with ROM space. place: ResolvedMachine.place, which says where a path of the file was written. size:
    bytes of a ROM; read from the file when it is not given.
    """
    room = int(machine["memory-map"].get("option-roms", {}).get("size", 0))
    roms = _roms(machine, size or _size)
    display = next((rom for rom, first in roms if first), None)
    problems = []
    for rom, first in roms:
        used = display.size if display is not None and not first else 0
        if used + rom.size <= room or used > room:  # where the display's does not fit, that is told
            continue
        where = place(*rom.path)
        also = []
        if used and display is not None:
            there = place(*display.path)
            also = [(there, f"{display.label} comes first")] if there is not None else []
        problems.append(
            Problem(
                "VR0522",
                f"there is no room for {rom.label}: {(room - used) / 1024:g} KiB of {room / 1024:g} KiB are left",
                where,
                path=".".join(rom.path),
                also=also,
                remedy='use a smaller one, or `romfile: ""` for none',
            )
        )
    return problems


def _roms(machine: MachineData, size_of: Callable[[str, Any], int]) -> list[tuple[_Rom, bool]]:
    """Each ROM, and whether it is that of the first display."""
    dirs = machine["firmware"].get("dirs", ())
    found: list[tuple[_Rom, bool]] = []
    displays = 0
    for device in machine["devices"]:
        file = device["props"].get("romfile")
        if not isinstance(file, str) or not file:
            continue
        first = device["driver"] in parts.DISPLAYS and not displays
        displays += device["driver"] in parts.DISPLAYS
        size = size_of(file, dirs)
        if size:
            path = ("devices", device["id"], "romfile")
            found.append((_Rom(f"{device['driver']} '{device['id']}'", file, size, path), first))
    for file in machine["firmware"].get("option-roms", ()):
        size = size_of(str(file), dirs)
        if size:
            found.append((_Rom("the machine type", str(file), size, ("firmware", "option-roms")), False))
    return found


def _size(file: str, dirs: Any) -> int:
    """Bytes that firmware copies of a ROM; 0 when there is none on this host."""
    path = images.locate(file, dirs)
    if path is None:
        return 0
    try:
        with open(path, "rb") as image:
            head = image.read(3)
    except OSError:
        return 0
    return _taken(head)


def _taken(head: bytes) -> int:
    """Bytes of a ROM that begins like this; 0 for what is none."""
    return head[2] * BLOCK if len(head) > 2 and head[:2] == b"\x55\xaa" else 0
