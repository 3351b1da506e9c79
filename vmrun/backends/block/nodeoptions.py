"""The options of block nodes: which each driver has, and what they may be; messages are QEMU's.

One table for whatever way they come: -blockdev, `json:` names, the image tool's --image-opts, blockdev-add. From text
or typed, `checked` gives the values their types. What would have no effect here is refused by name, except for hints on
how much memory a cache may take.

Ref: QEMU qapi/block-core.json, BlockdevOptions.
"""

from __future__ import annotations

from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.sizes import bytes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Kind = str | tuple[str, ...] | Mapping[str, Any]

COMMON: dict[str, Kind] = {
    "driver": "str", "node-name": "str", "read-only": "bool", "auto-read-only": "bool", "force-share": "bool",
    "discard": "discard", "detect-zeroes": ("off", "on", "unmap"), "cache": {"direct": "bool", "no-flush": "bool"},
}  # fmt: skip
_FILE: dict[str, Kind] = {
    "filename": "str", "aio": ("threads", "native", "io_uring"), "locking": ("auto", "on", "off"),
    "drop-cache": "bool", "x-check-cache-dropped": "bool", "pr-manager": "none",
}  # fmt: skip
_NULL: dict[str, Kind] = {"size": "size", "latency-ns": "no number", "read-zeroes": "bool"}
_HTTP: dict[str, Kind] = {
    "url": "str", "readahead": "size", "timeout": "any", "sslverify": "bool", "cookie": "str", "username": "str",
    "password-secret": "str", "proxy-username": "str", "proxy-password-secret": "str", "cookie-secret": "str",
}  # fmt: skip
PROTOCOLS: dict[str, dict[str, Kind]] = {
    **dict.fromkeys(("file", "host_device", "host_cdrom"), _FILE),
    "null-co": _NULL, "null-aio": _NULL, "http": _HTTP, "https": _HTTP,
    "nbd": {
        "filename": "str", "server": "any", "path": "str", "host": "str", "port": "str", "export": "str",
        "tls-creds": "str", "tls-hostname": "str", "x-dirty-bitmap": "str",
        "reconnect-delay": "seconds", "open-timeout": "seconds",
    },
    "vvfat": {"dir": "str", "fat-type": "number", "floppy": "bool", "label": "str", "rw": "bool"},
    "blkdebug": {
        "image": "any", "config": "str", "inject-error": "any", "set-state": "any",
        "take-child-perms": "none", "unshare-child-perms": "none", "align": "limit", "max-transfer": "limit",
        "opt-write-zero": "limit", "max-write-zero": "limit", "opt-discard": "limit", "max-discard": "limit",
    },
    "throttle": {"file": "any", "throttle-group": "str"},
    "copy-on-read": {"file": "any", "bottom": "none"},
}  # fmt: skip
FORMATS: dict[str, dict[str, Kind]] = {
    "raw": {"file": "any", "offset": "size", "size": "size"},
    "qcow2": {
        "file": "any", "backing": "any", "data-file": "any", "lazy-refcounts": "bool", "pass-discard-request": "bool",
        "pass-discard-snapshot": "bool", "pass-discard-other": "bool", "overlap-check": "any", "cache-size": "size",
        "l2-cache-size": "size", "l2-cache-entry-size": "size", "refcount-cache-size": "size",
        "cache-clean-interval": "number", "encrypt": "any",
    },
    "vmdk": {"file": "any", "backing": "any"}, **dict.fromkeys(("vdi", "vpc", "vhdx"), {"file": "any"}),
}  # fmt: skip
ON, OFF = ("on", "yes", "true", "y"), ("off", "no", "false", "n")
SIZE = (
    "Parameter '{}' expects a non-negative number below 2^64\n"
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
)


def checked(options: dict[str, Any], driver: str | None) -> dict[str, Any]:
    """The same with numbers and truth values for texts; what is nested for others is left as it is. A driver that is
    not in the tables has no options to be checked. ImageError.
    """
    table = FORMATS.get(driver or "") or PROTOCOLS.get(driver or "")
    if table is None:
        return options
    if "file" in table and "file" not in options:
        raise ImageError('A block device must be specified for "file"')
    found = {}
    for key, value in options.items():
        kind = table.get(key) or COMMON.get(key)
        if kind is None and key == "backing" and isinstance(value, dict):
            raise ImageError("Driver doesn't support backing files")
        if kind is None:
            raise unknown(driver or "", key)
        found[key] = _nested(driver or "", key, kind, value) if not isinstance(kind, str | tuple) else typed(
            key, kind, value
        )
    if found.get("detect-zeroes") == "unmap" and found.get("discard") not in ("unmap", "on"):
        raise ImageError("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
    return found


MOST_TABLES, MOST_COUNTS = 32 << 20, 8 << 20  # bytes of a qcow2 image's that are kept without a word on it


def caches(options: Mapping[str, Any], cluster: int) -> tuple[int, int, int] | None:
    """What a qcow2 image's options say of its caches: bytes of L2 tables, of counts, and of a piece of tables (0: not
    said); None: nothing is said. ImageError: it is not possible.
    """
    whole, tables, counts = (options.get(f"{kind}cache-size") for kind in ("", "l2-", "refcount-"))
    entry = options.get("l2-cache-entry-size")
    if whole is not None:
        if tables is not None and counts is not None:
            raise ImageError("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
        for found, name in ((tables, "l2-cache-size"), (counts, "refcount-cache-size")):
            if found is not None and found > whole:
                raise ImageError(f"{name} may not exceed cache-size")
        if counts is None:
            tables = whole - min(whole, 4 * cluster) if tables is None else tables
            counts = whole - tables
        else:
            tables = whole - counts
    if entry is not None and (not 512 <= entry <= cluster or entry & entry - 1):
        raise ImageError(f"L2 cache entry size must be a power of two between 512 and the cluster size ({cluster})")
    if tables is None and counts is None and entry is None:
        return None
    return MOST_TABLES if tables is None else tables, MOST_COUNTS if counts is None else counts, entry or 0


def unknown(driver: str, key: str) -> ImageError:
    if driver in FORMATS:
        return ImageError(f"Block format '{driver}' does not support the option '{key}'")
    return ImageError(f"Block protocol '{driver}' doesn't support the option '{key}'")


def _nested(driver: str, key: str, kind: Mapping[str, Any], value: Any) -> Any:
    if not isinstance(value, dict):
        raise unknown(driver, key)
    for inner in value:
        if inner not in kind:
            raise unknown(driver, f"{key}.{inner}")
    return {inner: typed(f"{key}.{inner}", kind[inner], item) for inner, item in value.items()}


def typed(key: str, kind: Kind, value: Any) -> Any:
    """One value. ImageError."""
    if kind == "any":
        return value
    if kind == "none":
        raise ImageError(f"Parameter '{key}' is not modelled")
    if isinstance(value, dict | list):
        raise ImageError(f"Invalid parameter type for '{key}'")
    if isinstance(kind, tuple):
        if value not in kind:
            raise ImageError(f"invalid parameter value: {value}")
        return value
    if kind == "discard":
        if value not in ("ignore", "off", "unmap", "on"):
            raise ImageError("Invalid discard option")
        return value
    if kind == "bool":
        return flag(key, value)
    if kind == "limit":
        return number(key, value, sized=True, most=1 << 64)
    if kind in ("size", "number", "no number"):
        found = number(key, value, sized=kind.endswith("size"))
        if found and kind.startswith("no "):
            raise ImageError(f"Parameter '{key}' is not modelled, only 0 is")
        return found
    if kind == "seconds":
        found = number(key, value)
        if found >= 1 << 32:
            raise ImageError(f"Value '{value}' is out of range for parameter '{key}'")
        return found
    return str(value)


def flag(key: str, value: Any) -> bool:
    if value in (True, *ON):
        return True
    if value in (False, *OFF):
        return False
    raise ImageError(f"Parameter '{key}' expects 'on' or 'off'")


def number(key: str, value: Any, sized: bool = False, negative: bool = False, most: int = 1 << 63) -> int:
    """A count, or bytes that may have a suffix; below `most`."""
    found: int | None
    if isinstance(value, bool):
        found = None
    elif isinstance(value, int):
        found = value
    elif sized:
        found = bytes_of(str(value))
    else:
        try:
            found = int(str(value), 0)
        except ValueError:
            found = None
    if found is None or found < 0 and not negative:
        raise ImageError(SIZE.format(key) if sized else f"Parameter '{key}' expects a number")
    if not -1 << 63 <= found < most:
        raise ImageError(f"Value '{value}' is out of range for parameter '{key}'")
    return found


def of_the_host(text: str) -> bool:
    """Whether a message says that a file itself could not be opened: QEMU always names it then."""
    told = (
        "No such file", "Permission denied", "Is a directory", "O_DIRECT", "Not a directory",
        "No such device or address", "Too many levels of symbolic links", "File name too long",
    )  # fmt: skip
    return "backing file" not in text and "Failed to connect" not in text and any(words in text for words in told)


def unnamed(text: str) -> str:
    """A message about an image that was given by options, which has no name."""
    if text.startswith("Could not open '") and not of_the_host(text) and "backing file" not in text:
        return text.partition("': ")[2]
    return text


def from_json(text: str) -> dict[str, Any]:
    """The object behind `json:`. ImageError in the words of QEMU's parser."""
    import json

    from vmrun.core.quotes import requoted

    def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(members)
        if len(found) < len(members):
            raise ImageError("Could not parse the JSON options: JSON parse error, duplicate key")
        return found

    try:
        found = json.loads(text if "'" not in text else requoted(text), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ImageError(f"Could not parse the JSON options: {_parse_error(text, error.msg, error.pos)}") from None
    except (ValueError, RecursionError):
        raise ImageError("Could not parse the JSON options: JSON parse error, expecting value") from None
    if not isinstance(found, dict):
        raise ImageError("Invalid JSON object given")
    return found


def _parse_error(text: str, message: str, place: int) -> str:
    if not text.strip():
        return "Expecting a JSON value"
    if message.startswith("Extra data"):
        return "Expecting at most one JSON value"
    rest = text[place:].strip()
    if not rest or message.startswith("Unterminated"):
        return "JSON parse error, premature EOI"
    word = ""
    for letter in rest:
        if not letter.isalpha():
            break
        word += letter
    if word:
        return f"JSON parse error, invalid keyword '{word}'"
    if "escape" in message:
        return "JSON parse error, invalid escape sequence in string"
    if "':' delimiter" in message:
        return "JSON parse error, missing : in object pair"
    return "JSON parse error, expecting value"


def overlap_checks(options: dict[str, Any], before: int) -> int:
    """The bits of what writes are checked against, as `overlap-check` says. ImageError."""
    given = options.get("overlap-check")
    given = dict(given) if isinstance(given, dict) else {"template": given} if given is not None else {}
    for key in list(options):
        if key.startswith("overlap-check."):
            given[key.partition(".")[2]] = options[key]
    if not given:
        return before
    from vmrun.backends.block import qcow2_header as headers

    templates = {
        "none": 0, "constant": headers.OVERLAP_CONSTANT, "cached": headers.OVERLAP_CACHED, "all": headers.OVERLAP_ALL,
    }  # fmt: skip
    template = given.pop("template", None)
    if template is not None and template not in templates:
        raise ImageError(
            f"Unsupported value '{template}' for qcow2 option 'overlap-check'. Allowed are any of the following: "
            "none, constant, cached, all"
        )
    checks = headers.OVERLAP_CACHED if template is None else templates[template]
    for key, value in given.items():
        if key not in headers.OVERLAPS:
            raise ImageError(f"Block format 'qcow2' does not support the option 'overlap-check.{key}'")
        bit = 1 << headers.OVERLAPS.index(key)
        checks = checks | bit if typed(f"overlap-check.{key}", "bool", value) else checks & ~bit
    return checks
