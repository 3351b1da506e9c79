"""What earlier runs of vmrun worked out, in the user's cache directory: entries of plain data.

An entry is trusted only if this user wrote it and its own checksum holds; who reads it looks whether it is of this
version of vmrun and Python and of what it was made from. The directory can be removed, or unwritable, at any time.
What the user's directory has not is looked for in the installation's, which tools/prepare.py fills.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

try:
    from _blake2 import (
        blake2b,
    )  # hashlib would bring in OpenSSL, which takes longer than all the rest of this
except ImportError:
    from hashlib import blake2b

FORMAT = 2
_CHECK = 32  # bytes of checksum in front of an entry
MAX_ENTRY = 8 << 20
MOST_ENTRIES = 256  # of a kind
READY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "ready")


def read_own(path: str, part: str = "", pick: Callable[[Any], Any] | None = None) -> Any:
    """The contents of a JSON file of vmrun's own, without importing json when they are kept from an earlier run.

    part, pick: pick(contents) alone, under that name: a start that needs little of much need not read it all.
    """
    info = os.stat(path)
    known = _own.get((path, part))
    if known is not None and known[0] == info.st_mtime_ns:
        return known[1]
    data = _read_own(path, part, pick, info)
    _own[path, part] = info.st_mtime_ns, data
    return data


_own: dict[tuple[str, str], tuple[int, Any]] = {}


def _read_own(path: str, part: str, pick: Callable[[Any], Any] | None, info: os.stat_result) -> Any:
    stamp = (FORMAT, sys.version_info[:3], path, info.st_size, info.st_mtime_ns)
    directory = cache_dir("own")
    entry_path = directory and os.path.join(directory, digest(f"own\0{path}\0{part}".encode())[:40])
    if entry_path:
        entry = read_entry(entry_path)
        if isinstance(entry, dict) and entry.get("stamp") == stamp:
            return entry.get("data")
    if pick is not None:
        data = pick(read_own(path))
    else:
        import json

        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    if entry_path:
        write_entry(entry_path, {"stamp": stamp, "data": data})
    return data


def read_part(kind: str, of: bytes) -> Any:
    """What write_part kept of these bytes; None when there is nothing."""
    entry_path = _part_path(kind, of)
    entry = read_entry(entry_path) if entry_path else None
    return entry[1] if isinstance(entry, tuple) and entry[0] == (FORMAT, sys.version_info[:3]) else None


def write_part(kind: str, of: bytes, data: Any) -> None:
    """Keep what a pure function that does not change makes of some bytes."""
    entry_path = _part_path(kind, of)
    if entry_path:
        write_entry(entry_path, ((FORMAT, sys.version_info[:3]), data))


def _part_path(kind: str, of: bytes) -> str:
    directory = cache_dir("own")
    return os.path.join(directory, digest(kind.encode() + b"\0" + of)[:40]) if directory else ""


def cache_dir(kind: str = "resolved") -> str:
    """Directory of the entries of a kind: $XDG_CACHE_HOME/vmrun/KIND, or under ~/.cache; '' when there is no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return ""
        base = os.path.join(home, ".cache")
    return os.path.join(base, "vmrun", kind)


def read_entry(entry_path: str) -> Any:
    """What write_entry wrote, here or where the installation's entries are; or None."""
    entry = _read_entry(entry_path)
    return entry if entry is not None else _read_entry(ready(entry_path))


def ready(entry_path: str) -> str:
    """The installation's entry of that kind and name."""
    directory, name = os.path.split(entry_path)
    return os.path.join(READY, os.path.basename(directory), name)


def is_trusted(info: os.stat_result) -> bool:
    """Whether a file is this user's, or of who could change our code anyway: marshal is not for data of others."""
    return info.st_uid == os.geteuid() or info.st_uid == os.stat(__file__).st_uid


def _read_entry(entry_path: str) -> Any:
    try:
        with open(entry_path, "rb") as file:
            if not is_trusted(os.fstat(file.fileno())):
                return None
            raw = file.read(MAX_ENTRY + 1)
        body = raw[_CHECK:]
        if len(raw) > MAX_ENTRY or blake2b(body, digest_size=_CHECK).digest() != raw[:_CHECK]:
            return None
        return marshal.loads(body)
    except (OSError, ValueError, EOFError, TypeError):
        return None


def write_entry(entry_path: str, entry: Any) -> None:
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
