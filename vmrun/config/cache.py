"""Resolved machines kept from run to run, so that `vmrun up` of an unchanged file starts without reading
YAML.

An entry is trusted only if it was written by this very version of vmrun and Python, every file that went
into it has the same contents, nothing has appeared where something was looked for in vain, and its own
checksum holds. Anything else, and any fault of the directory, means resolving anew: the cache can be
removed, or unwritable, at any time.
"""

from __future__ import annotations

import marshal
import os
import sys

from vmrun.config.spec import ResolvedMachine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

try:
    from _blake2 import (
        blake2b,
    )  # hashlib would bring in OpenSSL, which takes longer than all the rest of this
except ImportError:
    from hashlib import blake2b

FORMAT = 1
_CHECK = 32  # bytes of checksum in front of an entry
MAX_ENTRY = 8 << 20
MOST_ENTRIES = 256
_CLOCK = 20_000_000  # ns by which a file's time may lag behind the clock


def resolve_cached(path: str, sets: Sequence[str] = ()) -> ResolvedMachine:
    """What resolve_file(path, sets) returns, from the cache when nothing has changed. Raises the same
    errors.
    """
    entry_path = _entry_path(path, sets) if path != "-" else ""  # standard input is read once
    if entry_path:
        machine = _load(entry_path)
        if machine is not None:
            return machine
    import time

    from vmrun.config.resolve import resolve_file

    began = time.time_ns()
    machine = resolve_file(path, sets)
    if entry_path and not machine.warnings:  # warnings are to be seen every time
        _store(entry_path, machine, began)
    return machine


def read_own(path: str) -> Any:
    """The contents of a JSON file of vmrun's own, without importing json when they are kept from an earlier run."""
    info = os.stat(path)
    known = _own.get(path)
    if known is not None and known[0] == info.st_mtime_ns:
        return known[1]
    data = _read_own(path, info)
    _own[path] = info.st_mtime_ns, data
    return data


_own: dict[str, tuple[int, Any]] = {}


def _read_own(path: str, info: os.stat_result) -> Any:
    stamp = (FORMAT, sys.version_info[:3], path, info.st_size, info.st_mtime_ns)
    directory = cache_dir()
    entry_path = directory and os.path.join(directory, digest(f"own\0{path}".encode())[:40])
    if entry_path:
        entry = read_entry(entry_path)
        if isinstance(entry, dict) and entry.get("stamp") == stamp:
            return entry.get("data")
    import json

    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    if entry_path:
        write_entry(entry_path, {"stamp": stamp, "data": data})
    return data


def kept(kind: str, of: Any, directory: str, make: Callable[[], Any]) -> Any:
    """What `make` makes of `of`, or made of its like in an earlier run. Both are plain data; `directory` (from here)
    has the code that makes it.
    """
    place = cache_dir()
    key = digest(f"{kind}\0{of!r}".encode("utf-8", "surrogateescape"))
    path = place and os.path.join(place, key[:40])
    entry = read_entry(path) if path else None
    if isinstance(entry, dict) and entry.get("key") == key and entry.get("version") == version((directory,)):
        return entry["data"]
    data = make()
    if path:
        write_entry(path, {"version": version((directory,)), "key": key, "data": data})
    return data


def cache_dir() -> str:
    """Directory of the entries: $XDG_CACHE_HOME/vmrun/resolved, or under ~/.cache; '' when there is no
    home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return ""
        base = os.path.join(home, ".cache")
    return os.path.join(base, "vmrun", "resolved")


def _entry_path(path: str, sets: Sequence[str]) -> str:
    directory = cache_dir()
    if not directory:
        return ""
    key = "\0".join((os.path.abspath(path), path, *sets)).encode("utf-8", "surrogateescape")
    return os.path.join(directory, digest(key)[:40])


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


def unchanged(entry: dict[str, Any]) -> bool:
    """What went into an entry is as it was. OSError when a file is gone."""
    return all(file_digest(name) == known for name, known in entry["files"].items()) and not any(
        os.path.lexists(name) for name in entry["missing"]
    )


def _load(entry_path: str) -> ResolvedMachine | None:
    try:
        entry = read_entry(entry_path)
        if entry is None or entry["version"] != version() or not unchanged(entry):
            return None
        return ResolvedMachine(
            entry["data"], entry["places"], (), tuple(entry["files"]), tuple(entry["missing"])
        )
    except (OSError, ValueError, EOFError, TypeError, KeyError, AttributeError):
        return None


def read_entry(entry_path: str) -> Any:
    """What write_entry wrote, or None."""
    try:
        with open(entry_path, "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None  # marshal is not for data of others
            raw = file.read(MAX_ENTRY + 1)
        body = raw[_CHECK:]
        if len(raw) > MAX_ENTRY or blake2b(body, digest_size=_CHECK).digest() != raw[:_CHECK]:
            return None
        return marshal.loads(body)
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _store(entry_path: str, machine: ResolvedMachine, began: int) -> None:
    try:
        if any(os.stat(name).st_mtime_ns > began - _CLOCK for name in machine.files):
            return  # written while we read: the digest might be of other contents than those resolved
        entry = {
            "version": version(),
            "files": {os.path.abspath(name): file_digest(name) for name in machine.files},
            "missing": [os.path.abspath(name) for name in machine.missing],
            "data": machine.data,
            "places": machine.places,
        }
    except OSError:
        return
    write_entry(entry_path, entry)


def write_entry(entry_path: str, entry: dict[str, Any]) -> None:
    try:
        body = marshal.dumps(entry)
        if len(body) > MAX_ENTRY - _CHECK:
            return
        os.makedirs(os.path.dirname(entry_path), mode=0o700, exist_ok=True)
        part = f"{entry_path}.{os.getpid()}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(blake2b(body, digest_size=_CHECK).digest() + body)
            os.replace(part, entry_path)
            _prune(os.path.dirname(entry_path))
        except OSError:
            os.unlink(part)
    except (OSError, ValueError):
        return


def _prune(directory: str) -> None:
    """Remove the older half of the entries when there are too many."""
    names = os.listdir(directory)
    if len(names) <= MOST_ENTRIES:
        return
    paths = [os.path.join(directory, name) for name in names]
    paths.sort(key=lambda path: os.lstat(path).st_mtime_ns)
    for path in paths[: len(paths) // 2]:
        os.unlink(path)


def file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return digest(file.read())


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()
