"""What a QEMU command line comes to: all that vmrun-qemu needs to run it, kept from run to run.

Reading a line and resolving its machine takes longer than all the rest of a start. What comes of it is kept under what
the line means: file names of sockets, images and the like are holes in it, so that a line that differs in them alone is
found again. An entry is trusted as those of vmrun.config.cache are, and only while the images that it names are there.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from vmrun.config.sections import MachineData

FORMAT = 2
HOLE = "\x02{}\x02"
# what a hole's file name may stand in, beside the texts of options
_NAMES = (
    "path", "file", "pidfile", "logfile", "kernel", "initrd", "bios", "qtest-log", "fd", "mem-path", "dir", "tftp",
    "smb", "script", "downscript", "helper",
)  # fmt: skip
_NEEDED = ("file", "kernel", "initrd", "bios")  # files that have to be there


class QemuError(Exception):
    """What is said after the program's name, on the way to exit code `code`."""

    code = 1


class Start:
    """Plain data. `config`: what the builder reads, or None for `-machine none`. `run`: the options that concern the
    process. `monitors`: (kind, chardev, pretty). `users`: chardevs that devices have. `sources`: the option of each
    back end, as text. `warnings`: said before anything else.
    """

    __slots__ = ("actions", "chardevs", "config", "monitors", "run", "sources", "users", "warnings")

    def __init__(
        self,
        config: MachineData | None,
        run: dict[str, Any],
        chardevs: dict[str, dict[str, Any]],
        monitors: list[tuple[str, str, bool]],
        users: list[str | None],
        actions: dict[str, str],
        sources: dict[str, str],
        warnings: list[str],
    ) -> None:
        self.config, self.run, self.chardevs, self.monitors = config, run, chardevs, monitors
        self.users, self.actions, self.sources, self.warnings = users, actions, sources, warnings

    def parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def recall(argv: Sequence[str]) -> Start | None:
    """What an earlier run made of a line like this one."""
    from vmrun.config import cache, kept

    skeleton, holes = _split(argv)
    path = _entry_path(skeleton)
    entry = kept.read_entry(path) if path else None
    try:
        if entry is None or entry["version"] != _version() or entry["skeleton"] != skeleton:
            return None
        if not cache.unchanged(entry):
            return None
        parts = entry["start"]
        _fill(parts, entry["places"], {HOLE.format(n): hole for n, hole in enumerate(holes)})
        return Start(**parts) if _is_there(parts["config"]) else None
    except (OSError, KeyError, TypeError, ValueError, IndexError):
        return None


def keep(argv: Sequence[str], start: Start, files: Sequence[str], missing: Sequence[str]) -> None:
    """Remember what came of a line."""
    from vmrun.config import cache, kept

    skeleton, holes = _split(argv)
    path = _entry_path(skeleton)
    if not path:
        return
    cut = _cut(start.parts(), {hole: HOLE.format(n) for n, hole in enumerate(holes)})
    try:
        entry = {
            "version": _version(),
            "skeleton": skeleton,
            "files": {name: cache.stand(name) for name in map(os.path.abspath, files)},
            "missing": [os.path.abspath(name) for name in missing],
            "start": cut,
            "places": _places(cut, ()),
        }
    except OSError:
        return
    if not _mentions(cut, holes):
        kept.write_entry(path, entry)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the line with a number for each absolute path, the paths). A comma that is part of a value leaves no holes."""
    skeleton: list[str] = []
    holes: list[str] = []
    for word in argv:
        if "/" not in word or ",," in word or "{" in word:
            skeleton.append(word)
            continue
        parts = word.split(",")
        for n, part in enumerate(parts):
            at = part.find("/")
            if at >= 0 and (at == 0 or part[at - 1] in "=:") and "://" not in part:
                parts[n] = part[:at] + HOLE.format(len(holes))
                holes.append(part[at:])
        skeleton.append(",".join(parts))
    return skeleton, holes


def _cut(value: Any, holes: dict[str, str], name: str = "") -> Any:
    """The paths out: whole values of the names that paths stand under, and anywhere in the texts of options."""
    if isinstance(value, dict):
        return {key: _cut(item, holes, "sources" if name == "sources" else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cut(item, holes, name) for item in value)
    if isinstance(value, str):
        if name in _NAMES:
            return holes.get(value, value)
        if name in ("sources", "warnings"):
            for hole in sorted(holes, key=len, reverse=True):
                value = value.replace(hole, holes[hole])
    return value


def _mentions(value: Any, holes: Sequence[str]) -> bool:
    """A path is left where no hole can be: another line's would be missed there."""
    if isinstance(value, dict):
        return any(_mentions(item, holes) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_mentions(item, holes) for item in value)
    return isinstance(value, str) and any(hole in value for hole in holes)


def _places(value: Any, at: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Where the holes are: (key, index, …) of each text with one."""
    if isinstance(value, str):
        return [at] if "\x02" in value else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [place for key, item in pairs for place in _places(item, (*at, key))]


def _fill(parts: dict[str, Any], places: Sequence[tuple[Any, ...]], holes: dict[str, str]) -> None:
    for place in places:
        inside: Any = parts
        for step in place[:-1]:
            inside = inside[step]
        value = inside[place[-1]]
        for token, hole in holes.items():
            value = value.replace(token, hole)
        inside[place[-1]] = value


def _is_there(value: Any) -> bool:
    """Every file that the machine reads exists: else the long way says which option names it."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _NEEDED and isinstance(item, str) and item.startswith("/") and not os.path.exists(item):
                return False
            if isinstance(item, dict) and not _is_there(item):
                return False
    return True


def _entry_path(skeleton: Sequence[str]) -> str:
    from vmrun.config import kept

    directory = kept.cache_dir()
    key = "\0".join(("qemu", os.getcwd(), *skeleton)).encode("utf-8", "surrogateescape")
    return os.path.join(directory, kept.digest(key)[:40]) if directory else ""


def _version() -> tuple[Any, ...]:
    from vmrun.config import cache

    return FORMAT, *cache.version(("", "importers", "../cli"))


def started(argv: Sequence[str], read: Callable[[], tuple[Start, Sequence[str], Sequence[str]]]) -> Start:
    """From what is kept; else from `read`, which gives (start, files that it read, files that it did not find)."""
    found = recall(argv)
    if found is None:
        found, files, missing = read()
        keep(argv, found, files, missing)
    return found
