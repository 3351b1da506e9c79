"""A -blockdev graph as a machine file's drive: a format over a file, an address, or all of it as `json:{…}`."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import boolean, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.qemuopts import Option
    from vmrun.config.importers.state import Line

_FILES = ("file", "host_device", "host_cdrom")
_FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx")
_NULL = ("null-co", "null-aio")
# Drivers that vmrun's block layer has besides: a graph with one is kept whole.
_OTHERS = ("nbd", "http", "https", "vvfat", "blkdebug", "throttle", *_NULL)
# Of every node, and said of the drive as a whole; an image itself says what it is based on.
_COMMON = frozenset((
    "driver", "node-name", "file", "read-only", "auto-read-only", "force-share", "discard", "detect-zeroes",
    "cache.direct", "cache.no-flush", "aio", "locking", "filename", "backing", "x-check-cache-dropped",
))  # fmt: skip
# How much of a format's tables is kept in memory, and how else it goes about them.
_CACHES = frozenset(("cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size"))
TABLES = _CACHES | frozenset((
    "lazy-refcounts", "overlap-check", "cache-clean-interval", "pass-discard-request", "pass-discard-snapshot",
    "pass-discard-other",
))  # fmt: skip
_TUNING = TABLES - _CACHES | {"drop-cache", "aio-max-batch", "pr-manager", "discard-no-unref"}


def drive(line: Line, name: str) -> dict[str, Any]:
    """The drive that a chain of nodes is, from its top."""
    spec: dict[str, Any] = {}
    whole = False
    chain = _chain(line, name)
    for option, given in chain:
        driver = str(given["driver"])
        own = given.keys() - _COMMON
        for key in sorted(own & _TUNING):
            line.no_equal(option, key, host=True)
        own -= _TUNING
        if driver == "copy-on-read":
            host_option(line, option, spec, driver, True)
        elif driver in _FILES:
            if "filename" in given:
                spec["file"] = str(given["filename"])
        elif driver in _FORMATS:
            whole = whole or bool(own) or "format" in spec
            spec.setdefault("format", driver)
        elif driver in _NULL and not own and len(chain) == 1:
            spec["format"] = driver
        elif driver == "nbd" and (address := nbd(given)):
            spec["file"] = address
        elif driver in _OTHERS:
            whole = True
        else:
            line.no_equal(option, driver)
        if driver in _FILES:
            for key in sorted(own):
                line.no_equal(option, key)
        whole = _of_drive(line, option, given, spec) or whole
    if whole:
        spec["file"] = _as_json(_graph(line, name))
        spec.pop("aio", None)  # its file's node says it
        spec["format"] = "raw"  # as it comes out of the graph
    # what else a node is made of the machine has of the node itself
    spec.setdefault("format", "raw" if "file" in spec else "null-co")
    return spec


# Of a node of a driver of its own, given to -drive.
_OWN = frozenset((
    "size", "offset", "read-zeroes", "latency-ns", "url", "dir", "floppy", "fat-type", "label", "rw", "timeout",
    "readahead", "sslverify",
))  # fmt: skip


def inline(line: Line, option: Option, given: dict[str, Any]) -> dict[str, Any]:
    """What -drive says of nodes that are no image file, taken out of its settings."""
    below = {key[5:]: given[key] for key in given if key.startswith("file.")}
    driver = str(below.get("driver", "file"))
    if driver not in _FILES:
        for key in below:
            del given[f"file.{key}"]
        if driver not in _OTHERS:
            line.no_equal(option, f"file.driver={driver}")
            return {}
        return {"file": (nbd(below) if driver == "nbd" else "") or _as_json(below)}
    own = given.keys() & _OWN
    if not own:
        return {}
    graph = {"driver": given.pop("driver", None) or given.pop("format", "raw")}
    for key in sorted(own):
        value = given.pop(key)
        graph[key] = size(option, key, value) if key in ("size", "offset") else value
    file = given.pop("file", None) or given.pop("file.filename", None)
    if file:
        graph["file"] = {"driver": "file", "filename": file}
    if graph["driver"] not in (*_FORMATS, *_OTHERS):
        line.no_equal(option, str(graph["driver"]))
    return {"file": _as_json(graph), "format": "raw"}


# Of -drive, for the drive as a whole or its file, where a machine file has it.
_PLAIN = frozenset((
    "file.filename", "file.locking", "file.aio", "file.driver", "file.file.filename", "file.pr-manager",
))  # fmt: skip
_ABOUT_HOST = ("file.cache.", "file.x-", "file.drop-")


def root(line: Line, option: Option, given: dict[str, Any]) -> dict[str, Any]:
    """What -drive says of its nodes by name, or of those below, taken out of its settings: as a -blockdev, with the
    name of the file as `filename`. Empty when there is nothing of the kind. What is below goes into the machine file,
    too.
    """
    deep = {
        key: value for key, value in given.items()
        if key.startswith("backing.")
        or key.startswith("file.") and key not in _PLAIN and not key.startswith(_ABOUT_HOST)
    }  # fmt: skip
    words = sorted(_CACHES) if given.get("format", given.get("driver")) == "qcow2" else ()
    own: dict[str, Any] = {key: given[key] for key in ("lazy-refcounts", *words) if key in given}
    below = str(given.get("file.driver", "file"))
    if below in (*_FORMATS, "blkdebug", "copy-on-read"):
        deep |= {key: value for key, value in given.items() if key.startswith("file.")}
    elif not deep and not own or below not in _FILES:
        return {}
    for key in (*deep, *own):
        del given[key]
    name = given.get("file") or given.get("file.filename") or given.get("file.file.filename") or ""
    driver, format = given.get("driver"), given.get("format")
    if driver and format:
        raise option.wrong("Cannot specify both 'driver' and 'format'", "driver")
    found: dict[str, Any] = {**own, **deep}
    if "node-name" in given:
        found["node-name"] = given["node-name"]
    if name:
        found["filename"] = str(name)
    if driver or format:
        found["driver"] = driver or format
    if given.get("file.locking"):
        found["file.locking"] = given["file.locking"]
    if given.get("aio", "threads") != "threads":
        found["file.aio"] = given["aio"]
    if given.get("read-only", given.get("readonly")):
        found["read-only"] = given.get("read-only", given.get("readonly"))
    if given.get("discard"):
        found["discard"] = given["discard"]
    cache = str(given.get("cache", "writeback"))
    if cache in ("none", "off", "directsync"):
        found["cache.direct"] = True
    if cache == "unsafe":
        found["cache.no-flush"] = True
    if deep:
        unnamed = {key: value for key, value in found.items() if not key.endswith("node-name")}
        unnamed.pop("filename", None)
        if name:
            unnamed["file.filename"] = str(name)
        given["file"], given["format"] = _as_json(unnamed), "raw"
        for key in ("driver", "file.filename", "file.file.filename"):
            given.pop(key, None)
    return found


def nbd(given: dict[str, Any]) -> str:
    """The address that a machine file has for a node of that driver; empty when there is none for it."""
    known = {"server.type", "server.host", "server.port", "server.path", "host", "port", "path", "export"}
    if given.keys() - known - _COMMON:
        return ""
    path = given.get("server.path", given.get("path"))
    host = given.get("server.host", given.get("host"))
    if not path and not host or ":" in str(host or ""):
        return ""
    where = f"unix:{path}" if path else f"{host}:{given.get('server.port', given.get('port', 10809))}"
    return f"nbd:{where}:exportname={given['export']}" if given.get("export") else f"nbd:{where}"


def host_option(line: Line, option: Option, spec: dict[str, Any], key: str, value: Any) -> None:
    """What a drive says about the host's side, when vmrun does it."""
    names = line.catalogue.names_of_drives()
    choices = line.catalogue.choices_of_drives(key)
    if key in names and (not choices or value in choices):
        spec.setdefault(key, value)
    else:
        line.no_equal(option, key, host=True)


def nested(given: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as objects in objects."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        *path, last = key.split(".")
        at = found
        for part in path:
            inner = at.setdefault(part, {})
            at = inner if isinstance(inner, dict) else {}
        at[last] = value
    return found


def _chain(line: Line, name: str) -> list[tuple[Option, dict[str, Any]]]:
    """(option, settings) of a node and of those below it, by name or written inside it."""
    option, given = line.blockdevs[name]
    found: list[tuple[Option, dict[str, Any]]] = []
    while len(found) <= len(line.blockdevs):
        inside = {key[5:]: value for key, value in given.items() if key.startswith("file.")}
        own = {key: value for key, value in given.items() if not key.startswith("file.")}
        found.append((option, own))
        below = given.get("file") or given.get("image")
        if isinstance(below, str) and below in line.blockdevs:
            option, given = line.blockdevs[below]
        elif inside:
            given = {"driver": "file", **inside}
        else:
            break
    return found


def _of_drive(line: Line, option: Option, given: dict[str, Any], spec: dict[str, Any]) -> bool:
    """What a node says of the drive. Whether it takes the whole graph to say it."""
    driver = given["driver"]
    if "read-only" in given:
        spec.setdefault("readonly", boolean(option, "read-only", given["read-only"]))
    # libvirt lets every node's file discard; it is the format above that counts
    if given.get("discard") == "unmap" and driver not in (*_FILES, "nbd", "copy-on-read"):
        host_option(line, option, spec, "discard", "unmap")
    if given.get("detect-zeroes", "off") != "off":
        host_option(line, option, spec, "detect-zeroes", given["detect-zeroes"])
    if "aio" in given:
        host_option(line, option, spec, "aio", given["aio"])
    direct, flush = given.get("cache.direct"), given.get("cache.no-flush")
    if direct is not None or flush is not None:
        past, lax = direct in (True, "on"), flush in (True, "on")
        spec.setdefault("cache", "unsafe" if lax else "none" if past else "writeback")
        return past and lax  # no word of a drive's is both
    return False


def _as_json(graph: dict[str, Any]) -> str:
    import json

    return f"json:{json.dumps(nested(graph), separators=(',', ':'))}"


def _graph(line: Line, name: str) -> dict[str, Any]:
    """All of it as one object, without names."""

    def whole(name: str, depth: int) -> dict[str, Any]:
        given = nested({key: value for key, value in line.blockdevs[name][1].items() if key != "node-name"})
        for key in ("file", "image"):
            below = given.get(key)
            if isinstance(below, str) and below in line.blockdevs and depth <= len(line.blockdevs):
                given[key] = whole(below, depth + 1)
        return given

    return whole(name, 0)
