"""The words of a QEMU command line: options with their positions, and what stands inside their values.

A value is QemuOpts notation (`kind,key=value,flag`, `,,` for a comma) or, for some options, a JSON object.
"""

from __future__ import annotations

from vmrun.core.values import is_identifier
from vmrun.errors import WARNING, ConfigError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

PROGRAM = "qemu-system-x86_64"
SOURCE = "command line"
_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_TRUE, _FALSE = ("on", "yes", "true", "y"), ("off", "no", "false", "n")


class LineError(ConfigError):
    """A command line that QEMU refuses too; the message has QEMU's form, without the caret."""

    default_code = "VR0120"

    def __init__(self, message: str, index: int = 0, nearest: str = "", caret: str = "") -> None:
        self.said = f"{PROGRAM}: {message}"
        self.caret = caret
        problem = Problem("VR0120", message, Place(SOURCE, index + 1, 1), nearest=nearest)
        super().__init__(problems=[problem])


class Option:
    """One option: name without dashes, value (None for a flag), index of its word in argv, text as given."""

    __slots__ = ("index", "name", "text", "value")

    def __init__(self, name: str, value: str | None, index: int, text: str) -> None:
        self.name, self.value, self.index, self.text = name, value, index, text

    def __repr__(self) -> str:
        return f"Option({self.text!r} at {self.index})"

    def shown(self) -> str:
        """The option as QEMU names it before a message: cut, and without what a terminal would act upon."""
        text = "".join(char if char.isprintable() else "?" for char in self.text)
        return text if len(text) <= 200 else text[:199] + "…"

    def caret(self, part: str = "") -> str:
        """Two lines: the option, and a caret under the part of it that is meant."""
        text = self.shown()
        at = max(text.find(part), 0) if part else 0
        return f"    {text}\n    {' ' * at}^ argument {self.index + 1}"

    def wrong(self, message: str, part: str = "", nearest: str = "") -> LineError:
        message = "".join(char if char.isprintable() else "?" for char in message)
        return LineError(f"{self.shown()}: {message}", self.index, nearest, self.caret(part))

    def warning(self, message: str, part: str = "") -> Problem:
        """What a machine file has no word for, with its position."""
        where = Place(SOURCE, self.index + 1, 1)
        return Problem(
            "VR0121", f"{self.shown()}: {message}", where, remedy=self.caret(part).lstrip(), severity=WARNING
        )


def split(text: str) -> list[str]:
    """The parts between single commas, with `,,` read as a comma: 'a,b=1,,2' → ['a', 'b=1,2']."""
    parts, start, at = [], 0, 0
    while (at := text.find(",", at)) >= 0:
        if text.startswith(",,", at):
            at += 2
        else:
            parts.append(text[start:at].replace(",,", ","))
            start = at = at + 1
    parts.append(text[start:].replace(",,", ","))
    return parts


def join(pairs: Collection[tuple[str, Any]], first: str = "") -> str:
    """The opposite of split: QemuOpts text. first is the value of the implied key."""
    parts = [first.replace(",", ",,")] if first else []
    parts += [f"{key}={word(value).replace(',', ',,')}" for key, value in pairs]
    return ",".join(parts)


def word(value: Any) -> str:
    """A value as QEMU writes it."""
    if value is True or value is False:
        return "on" if value else "off"
    return str(value)


def settings(option: Option, implied: str = "", json: bool = False, flags: Collection[str] = ()) -> dict[str, Any]:
    """The settings in an option's value; a bare word is the implied key's (first) or a flag (later), and of a
    key given twice the last counts. Text only, but for JSON objects, whose nesting becomes dotted keys.
    """
    text = option.value or ""
    if json and text.startswith("{"):
        return _json(option, text)
    found: dict[str, Any] = {}
    for place, part in enumerate(split(text)):
        key, equals, value = part.partition("=")
        if equals and key:
            found[key] = value
        elif place == 0 and implied:
            found[implied] = part
        elif part.startswith("no") and len(part) > 2 and part[2:] in flags:
            found[part[2:]] = "off"
        elif part and not equals:
            found[part] = "on"
        elif part:
            raise option.wrong("Invalid parameter ''", part)
    if "id" in found and not is_identifier(found["id"]):
        raise option.wrong("Parameter 'id' expects an identifier", found["id"])
    return found


def _json(option: Option, text: str) -> dict[str, Any]:
    import json

    from vmrun.core.quotes import requoted

    try:
        data = json.loads(text if "'" not in text else requoted(text))
    except (ValueError, RecursionError):
        raise option.wrong("JSON parse error, invalid keyword or unbalanced brackets") from None
    found: dict[str, Any] = {}
    todo = [("", data)]
    while todo:
        prefix, node = todo.pop()
        children = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in children:
            name = f"{prefix}{key}"
            if isinstance(value, dict | list):
                todo.append((f"{name}.", value))
            elif value is None and key == "backing":
                found[name] = None  # none, whatever the image says
            elif value is None or isinstance(value, float):
                raise option.wrong(f"Invalid parameter type for '{name}'", str(key))
            else:
                found[name] = value
    return found


CPU_TYPE = "-x86_64-cpu"  # what names of processors' types end in


def only(option: Option, given: dict[str, Any], known: Collection[str]) -> None:
    """Refuse a parameter that is not known."""
    from vmrun.config.near import nearest

    for key in given:
        if key not in known:
            raise option.wrong(f"Invalid parameter '{key}'", key, nearest(key, known))


def boolean(option: Option, key: str, value: Any) -> bool:
    if value is True or value in _TRUE:
        return True
    if value is False or value in _FALSE:
        return False
    raise option.wrong(f"Parameter '{key}' expects 'on' or 'off'", key)


def number(option: Option, key: str, value: Any) -> int:
    """A whole number; hexadecimal with 0x, octal with a leading 0, as strtol reads it."""
    text = str(value).strip()
    try:
        if len(text) > 24 or "_" in text:
            raise ValueError
        return int(text, 8 if text[:1] == "0" and text.isdecimal() else 0)
    except ValueError:
        raise option.wrong(f"Parameter '{key}' expects a number", key) from None


def size(option: Option, key: str, value: Any, unit: str = "b", step: int = 1024) -> int:
    """Bytes of '64', '1.5G', '0x1000'; a number without a suffix counts `unit`s. step: of the suffixes."""
    text = str(value).strip().lower()
    hexadecimal = text.startswith("0x")
    if text and text[-1] in _UNITS and not hexadecimal:
        text, unit = text[:-1], text[-1]
    try:
        if len(text) > 24 or not text.isascii() or set(text) & set("_e+- ") - ({"e"} if hexadecimal else set()):
            raise ValueError
        amount = (
            float(text) * step ** (_UNITS[unit] // 10)
            if "." in text
            else int(text, 0 if hexadecimal else 10) * step ** (_UNITS[unit] // 10)
        )
        if not 0 <= amount < 1 << 64:
            raise ValueError
    except ValueError:
        raise option.wrong(f"Parameter '{key}' expects a non-negative number below 2^64", key) from None
    return int(amount)
