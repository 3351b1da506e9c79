"""Backends of a machine's memory, `-object memory-backend-…`, and `memory-backing` of its file, one for all of it."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import join
from vmrun.config.scalar import parse_size
from vmrun.errors import WARNING, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.qemuopts import Option

_USUAL = {"share": False, "prealloc": False, "merge": True, "dump": True, "policy": "default", "host-nodes": ""}
_USUAL["mem-path"] = ""
# what is said elsewhere, or makes no difference to a machine of vmrun's
_OTHERS = frozenset(("id", "qom-type", "size", "x-use-canonical-path-for-ramblock-id", "discard-data", "seal"))
# keys that only a backend object can say: QEMU has no option for them
_OF_OBJECTS = ("share", "policy", "host-nodes")


def _own(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(the option as it is shown, what it says) of each."""
    named = run.get("memdevs", ())
    return [(text, given) for text, given in run.get("objects", ()) if given.get("id") in named]


def _values(own: list[tuple[str, dict[str, Any]]], key: str) -> set[Any]:
    found: set[Any] = set()
    for _, given in own:
        usual = True if key == "share" and given["qom-type"].endswith("memfd") else _USUAL[key]
        value = given.get(key, usual)
        if isinstance(usual, bool):
            value = str(value).lower() in ("on", "yes", "true", "y")
        found.add(value if isinstance(value, bool) else str(value))
    return found


def told(run: dict[str, Any]) -> dict[str, Any]:
    """`memory-backing` of the backends that a line's memory is made of, as far as they agree."""
    own = _own(run)
    found = {}
    for key, usual in _USUAL.items():
        values = _values(own, key)
        if len(values) == 1 and values != {usual}:
            found[key] = values.pop()
    return found


def untold(run: dict[str, Any], among: list[Option]) -> list[Problem]:
    """What the backends say beyond that. among: the line's options."""
    own = _own(run)
    shown = {option.shown(): option for option in among} if own else {}
    problems = []
    for text, given in own:
        for key, value in given.items():
            if key in _OTHERS:
                continue
            if key not in _USUAL and str(value).lower() not in ("off", "no", "false", "n"):
                message = f"'{key}' has no equal in a machine file"
            elif key in _USUAL and len(_values(own, key)) > 1:
                message = f"'{key}' is not that of the other nodes, and a machine file has one for all memory"
            else:
                continue
            if text in shown:
                problems.append(shown[text].warning(message, key))
            else:  # of a file of -readconfig
                problems.append(Problem("VR0121", f"{text}: {message}", severity=WARNING))
    return problems


def objects(document: dict[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """(the options -object, what -machine says of them) for what has no option of its own; the nodes of `numa` have
    their objects anyhow. libvirt has a `pc.ram` of its own.
    """
    backing = document.get("memory-backing", {})
    if document.get("numa") or not any(key in backing for key in _OF_OBJECTS) or _is_old(document):
        return [], []
    size = parse_size(document.get("memory", "128MiB")) or 0
    return ["-object", _object("ram0", size, backing)], [("memory-backend", "ram0")]


def node(document: dict[str, Any], id: str, size: int) -> list[str]:
    """The option -object of a node's memory."""
    return ["-object", _object(id, size, document.get("memory-backing", {}))]


def options(document: dict[str, Any]) -> list[str]:
    """What options of its own say of `memory-backing`: where objects do, they say all."""
    backing = document.get("memory-backing", {})
    if not backing or document.get("numa") and not _is_old(document) or objects(document)[0]:
        return []
    words = ["-mem-path", str(backing["mem-path"])] if "mem-path" in backing else []
    return words + (["-mem-prealloc"] if backing.get("prealloc") else [])


def lost(document: dict[str, Any]) -> list[str]:
    """The keys that QEMU's machine has no option for."""
    return [key for key in document.get("memory-backing", {}) if key in _OF_OBJECTS and _is_old(document)]


def _is_old(document: dict[str, Any]) -> bool:
    """RHEL 6's program has no memory backends."""
    return str(document["machine"]).startswith("rhel6")


def _object(id: str, size: int, backing: dict[str, Any]) -> str:
    kind = "file" if "mem-path" in backing else "memfd" if backing.get("share") else "ram"
    said = [key for key in ("mem-path", "share", "prealloc", "policy") if key in backing]
    pairs: list[tuple[str, Any]] = [(key, backing[key]) for key in said]
    pairs += [("host-nodes", part) for part in str(backing.get("host-nodes", "")).split(",") if part]
    return join([("id", id), ("size", f"{size}B"), *pairs], f"memory-backend-{kind}")
