"""A resolved machine as a machine file: YAML that a person can read and that resolves to itself."""

from __future__ import annotations

from vmrun.config.scalar import plain_scalar, size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Numbers that people know in hexadecimal: addresses and masks.
HEX = frozenset((
    "iobase", "base", "page-base", "elcr_addr", "elcr_mask", "smb_io_base", "config-address", "config-data",
    "readback",
    "ioport", "reserved-end", "low-ram-limit", "low-ram-split", "high-ram", "end", "identity-map", "tss",
))  # fmt: skip
_SIZES = frozenset(("memory", "size", "isa-window", "below-4g", "above-4g", "data-size", "maxmem"))
_SAFE_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/_0123456789")
_SAFE = _SAFE_FIRST | frozenset("-.+ ()~")
_WIDTH = 118


def flat(data: dict[str, Any]) -> dict[str, Any]:
    """The plain form as a machine file has it: properties beside the driver, wires as from/to, nothing
    empty.
    """
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key == "devices":
            result[key] = [_flat_device(device) for device in value]
        elif key == "wires":
            result[key] = [{"from": wire[0], "to": wire[1]} for wire in collapse(value)]
        elif key == "cpus":
            result[key] = {
                name: child for name, child in value.items() if name != "model-data"
            }  # found by the name
        elif key == "memory-backing" and value and "memdevs" in value:
            continue  # objects of a command line, which no machine file has
        elif value is not None and value != {} and value != [] and value != "":
            result[key] = (
                {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
            )
    return result


def collapse(wires: list[list[str]]) -> list[tuple[str, str]]:
    """Wires with runs of neighbouring pins written as ranges: the opposite of wires.expand."""
    runs: list[
        tuple[str, int, str, int, int]
    ] = []  # stem, first, stem, first, how many (0: pins without numbers)
    for source, target in wires:
        a, i = _numbered(source)
        b, j = _numbered(target)
        if i < 0 or j < 0:
            runs.append((source, 0, target, 0, 0))
        elif runs and runs[-1][4] and runs[-1] == (a, i - runs[-1][4], b, j - runs[-1][4], runs[-1][4]):
            runs[-1] = (*runs[-1][:4], runs[-1][4] + 1)
        else:
            runs.append((a, i, b, j, 1))
    return [(_run(a, i, count), _run(b, j, count)) for a, i, b, j, count in runs]


def _numbered(pin: str) -> tuple[str, int]:
    stem, _, rest = pin.partition("[")
    return (stem, int(rest[:-1])) if rest else (stem, -1)


def _run(stem: str, first: int, count: int) -> str:
    if count == 0:
        return stem
    return f"{stem}[{first}]" if count == 1 else f"{stem}[{first}..{first + count - 1}]"


def _flat_device(device: dict[str, Any]) -> dict[str, Any]:
    result = {key: device[key] for key in ("id", "driver", "in-kernel", "bus", "addr") if device.get(key)}
    if device["provides"]:
        result["provides"] = device["provides"]
    return {**result, **device.get("in-kernel-props", {}), **device["props"]}


def yaml_text(data: dict[str, Any], heading: str = "") -> str:
    """The YAML of a plain form; heading becomes comment lines at the top."""
    return file_text(flat(data), heading)


def file_text(data: dict[str, Any], heading: str = "") -> str:
    """The YAML of a machine file's content."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    for key, value in data.items():
        lines += _entry(key, value, 0)
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, indent: int) -> list[str]:
    pad = " " * indent
    head = f"{pad}{_word(key)}:"
    if isinstance(value, dict):
        one = f"{head} {_flow(value, key)}"
        if len(one) <= _WIDTH and all(not isinstance(child, dict | list) for child in value.values()):
            return [one]
        return [head, *(line for name, child in value.items() for line in _entry(name, child, indent + 2))]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [head, *(f"{pad}  - {_flow(item, key)}" for item in value)]
    return [f"{head} {_flow(value, key)}"]


def _flow(value: Any, key: str = "") -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_word(name)}: {_flow(child, name)}" for name, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(child) for child in value) + "]"
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        if key in HEX:
            return hex(value)
        return size_text(value) if key in _SIZES else str(value)
    return _word(value)


def _word(text: str) -> str:
    """Text bare when it reads back as itself, else in double quotes."""
    safe = (
        text != ""
        and text[0] in _SAFE_FIRST
        and _SAFE.issuperset(text)
        and text == text.strip()
        and type(plain_scalar(text)) is str
        and not _numeric(text)
    )
    return text if safe else _quoted(text)


def _numeric(text: str) -> bool:
    """Other programs' YAML takes 01.2, 1e5 and yes for something else than text; quote what might be
    mistaken.
    """
    return text[0].isdigit() or text.lower() in ("yes", "no", "on", "off", "y", "n", "null")


def _quoted(text: str) -> str:
    result = []
    for char in text:
        if char in '"\\':
            result.append("\\" + char)
        elif char.isprintable():
            result.append(char)
        elif ord(char) < 0x100:
            result.append(f"\\x{ord(char):02x}")
        else:
            result.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    return '"' + "".join(result) + '"'
