"""Resolved machines kept from run to run, so that `vmrun up` of an unchanged file starts without reading
YAML.

An entry is trusted only if it was written by this very version of vmrun and Python, every file that went
into it has the same contents, nothing has appeared where something was looked for in vain, and its own
checksum holds. Anything else, and any fault of the directory, means resolving anew: the cache can be
removed, or unwritable, at any time.
"""

from __future__ import annotations

import os
import sys

from vmrun.config.data import data_dir
from vmrun.config.kept import FORMAT, cache_dir, digest, file_digest, read_entry, write_entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from vmrun.config.spec import ResolvedMachine

_CLOCK = 20_000_000  # ns by which a file's time may lag behind the clock


def resolve_cached(path: str, sets: Sequence[str] = ()) -> ResolvedMachine:
    """What resolve_file(path, sets) returns, from the cache when nothing has changed. Raises the same
    errors.
    """
    machine = kept_machine("", path, sets)
    if machine is not None:
        return machine
    import time

    from vmrun.config.resolve import resolve_file

    began = time.time_ns()
    machine = resolve_file(path, sets)
    if not machine.warnings:  # warnings are to be seen every time
        keep_machine("", path, sets, machine, began)
    return machine


def kept_machine(kind: str, path: str, sets: Sequence[str]) -> ResolvedMachine | None:
    """What keep_machine kept; None when there is nothing, or something has changed since."""
    entry_path = _entry_path(kind, path, sets)
    return _load(entry_path) if entry_path else None


def keep_machine(
    kind: str, path: str, sets: Sequence[str], machine: ResolvedMachine, began: int, files: Sequence[str] = ()
) -> None:
    """Keep a machine for later runs, as that kind of knowledge about it. began: when reading its files began, in ns;
    files: what else it depends on.
    """
    entry_path = _entry_path(kind, path, sets)
    if entry_path:
        _store(entry_path, machine, began, files)


def _entry_path(kind: str, path: str, sets: Sequence[str]) -> str:
    directory = cache_dir() if path != "-" else ""  # standard input is read once
    if not directory:
        return ""
    key = "\0".join((kind, os.path.abspath(path), path, *sets)).encode("utf-8", "surrogateescape")
    return os.path.join(directory, digest(key)[:40])


def unchanged(entry: dict[str, Any]) -> bool:
    """What went into an entry is as it was. OSError when a file is gone."""
    return all(stand(name) == known for name, known in entry["files"].items()) and not any(
        os.path.lexists(name) for name in entry["missing"]
    )


def stand(name: str) -> Any:
    """What a file's contents are known by: their digest; size and time of vmrun's own data. OSError when it is gone."""
    if name.startswith((data_dir("machines") + os.sep, data_dir("schema") + os.sep)):
        info = os.stat(name)
        return info.st_size, info.st_mtime_ns
    return file_digest(name)


def _load(entry_path: str) -> ResolvedMachine | None:
    from vmrun.config.spec import ResolvedMachine

    try:
        entry = read_entry(entry_path)
        if entry is None or entry["version"] != version() or not unchanged(entry):
            return None
        return ResolvedMachine(
            entry["data"], entry["places"], (), tuple(entry["files"]), tuple(entry["missing"])
        )
    except (OSError, ValueError, EOFError, TypeError, KeyError, AttributeError):
        return None


def _store(entry_path: str, machine: ResolvedMachine, began: int, more: Sequence[str]) -> None:
    files = (*machine.files, *more)
    try:
        if any(os.stat(name).st_mtime_ns > began - _CLOCK for name in files):
            return  # written while we read: the digest might be of other contents than those resolved
        entry = {
            "version": version(),
            "files": {name: stand(name) for name in map(os.path.abspath, files)},
            "missing": [os.path.abspath(name) for name in machine.missing],
            "data": machine.data,
            "places": machine.places,
        }
    except OSError:
        return
    write_entry(entry_path, entry)


def kept(kind: str, of: Any, directory: str, make: Callable[[], Any]) -> Any:
    """What `make` makes of `of`, or made of its like in an earlier run. Both are plain data; `directory` (from here)
    has the code that makes it.
    """
    place = cache_dir("own")
    key = digest(f"{kind}\0{of!r}".encode("utf-8", "surrogateescape"))
    path = place and os.path.join(place, key[:40])
    entry = read_entry(path) if path else None
    if isinstance(entry, dict) and entry.get("key") == key and entry.get("version") == version((directory,)):
        return entry["data"]
    data = make()
    if path:
        write_entry(path, {"version": version((directory,)), "key": key, "data": data})
    return data


def version(directories: Sequence[str] = ("",)) -> tuple[Any, ...]:
    """What an entry is of: this vmrun, this Python. `directories`: whose code it depends on, from here."""
    from vmrun import __version__

    return FORMAT, __version__, sys.version_info[:3], _own_digest(directories)


def _own_digest(directories: Sequence[str]) -> str:
    """What stands for vmrun's code: in a source tree it changes without its version changing."""
    stamps = []
    for directory in directories:
        here = os.path.join(os.path.dirname(os.path.abspath(__file__)), directory)
        for entry in os.scandir(here):
            if entry.name.endswith((".py", ".so")):
                info = entry.stat()
                stamps.append(f"{directory} {entry.name} {info.st_size} {info.st_mtime_ns}")
    return digest("\n".join(sorted(stamps)).encode())
