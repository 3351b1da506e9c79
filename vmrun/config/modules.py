"""The files that `initrd:` names: one initial RAM disk, or a multiboot kernel's modules with their words.

    "a.bin first words,b.bin"

A comma within a name is written twice, as QEMU has it (vmrun.firmware.modules reads the same text).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def paths(text: str) -> list[str]:
    return [path for path, _ in _parts(text) if path]


def moved(text: str, move: Callable[[str], str]) -> str:
    """The text with each path changed by `move`."""
    return ",".join(move(path).replace(",", ",,") + words if path else "" for path, words in _parts(text))


def _parts(text: str) -> list[tuple[str, str]]:
    """(path, its words with the space before them)."""
    found = []
    for part in text.replace(",,", "\0").split(","):
        path, space, words = part.strip(" ").partition(" ")
        found.append((path.replace("\0", ","), space + words.replace("\0", ",,")))
    return found
