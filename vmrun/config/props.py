"""A property's value against its row in the catalogue: the right kind, inside its bounds, one of its
choices.
"""

from __future__ import annotations

from vmrun.config.near import nearest
from vmrun.config.node import Node, kind, plain
from vmrun.config.scalar import parse_mac, parse_pci_addr, parse_size, pci_addr_text
from vmrun.core.values import RANGES
from vmrun.errors import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SWITCHES = {"on": "true", "yes": "true", "off": "false", "no": "false"}


def convert(node: Node, prop: dict[str, Any], owner: str, path: str, problems: list[Problem]) -> Any:
    """The value of a property as the builder wants it, or None after a problem has been added.

    owner is what has the property, for messages: "isa-serial", "chardev type 'socket'".
    """
    value, fault, remedy, near = _convert(node.value, prop)
    if fault:
        problems.append(
            Problem(
                "VR0404",
                f"'{prop['name']}' of {owner} {fault}",
                node.place,
                path=path,
                remedy=remedy,
                nearest=near,
            )
        )
        return None
    return value


def _convert(value: Any, prop: dict[str, Any]) -> tuple[Any, str, str, str]:
    """(value, fault, remedy, nearest); fault is empty when the value is good."""
    wanted = prop["type"]
    if value is None:
        return None, "has no value", "remove the key to get the default", ""
    if wanted == "bool":
        return _bool(value)
    if wanted in RANGES:
        return _number(value, prop, wanted)
    if wanted == "pci-addr":
        at = parse_pci_addr(value)
        if at is None:
            return (
                None,
                f"is {shown(value)}, not a PCI address",
                'write slot.function in hexadecimal: "05.0"',
                "",
            )
        return pci_addr_text(*at), "", "", ""
    if wanted == "mac":
        mac = parse_mac(value)
        if mac is None:
            return None, f"is {shown(value)}, not a MAC address", 'six bytes: "52:54:00:12:34:56"', ""
        if int(mac[:2], 16) & 1:
            return (
                None,
                f"is {mac}, a multicast address",
                "the first byte of a card's own address is even",
                "",
            )
        return mac, "", "", ""
    if wanted == "strs":
        values = [one.value for one in value] if type(value) is list else [value]
        if any(type(one) is not str for one in values):
            return None, "has something that is not text", "write each in quotes", ""
        return values, "", "", ""
    if wanted == "rules":
        return _rules(value)
    if wanted == "usb-port" and type(value) is int and value > 0:
        return str(value), "", "", ""  # ports read as numbers but are paths: 1, 1.2
    choices = prop.get("choices")
    if choices and type(value) is int and str(value) in choices:
        return str(value), "", "", ""
    if type(value) is bool or type(value) is not str:
        if type(value) is int or type(value) is bool:
            return None, f"is {kind(value)}, not text", f'write it in quotes: "{_as_written(value)}"', ""
        return None, f"is {kind(value)}, not text", "", ""
    if choices and value not in choices:
        return None, f"is {shown(value)}", f"one of: {', '.join(choices)}", nearest(value, choices)
    return value, "", "", ""


def _rules(value: Any) -> tuple[Any, str, str, str]:
    """Those of an authz-list, as the object takes them."""
    found = [plain(one) for one in value] if type(value) is list else []
    for rule in found:
        good = type(rule) is dict and set(rule) <= {"match", "policy", "format"} and type(rule.get("match")) is str
        good = good and rule.get("policy") in ("deny", "allow") and rule.get("format", "exact") in ("exact", "glob")
        if not good:
            return None, f"has a rule that is none: {shown(rule)}", 'write {match: "CN=…", policy: allow}', ""
    if type(value) is not list:
        return None, f"is {kind(value)}, not a list of rules", 'write [{match: "CN=…", policy: allow}]', ""
    return found, "", "", ""


def _bool(value: Any) -> tuple[Any, str, str, str]:
    if type(value) is bool:
        return value, "", "", ""
    if value in _SWITCHES:
        return None, f"is '{value}'", f"write {_SWITCHES[value]}", ""
    if type(value) is int and value in (0, 1):
        return None, f"is {value}", f"write {'true' if value else 'false'}", ""
    return None, f"is {shown(value)}, not true or false", "", ""


def _number(value: Any, prop: dict[str, Any], wanted: str) -> tuple[Any, str, str, str]:
    number = parse_size(value) if wanted == "size" else value
    if type(number) is not int:
        if type(value) is bool:
            return None, f"is {shown(value)}, not a number", f"write {int(value)}", ""
        if wanted == "size":
            return None, f"is {shown(value)}, not a size", "bytes, or a number with KiB, MiB or GiB", ""
        if type(value) is str and value[:1].isdigit() and value.isalnum():
            return None, f"is {shown(value)}, not a number", "decimal, or hexadecimal with 0x in front", ""
        return None, f"is {shown(value)}, not a number", "", ""
    low, high = RANGES[wanted]
    low = prop["min"] if prop.get("min") is not None else low
    high = prop["max"] if prop.get("max") is not None else high
    if not low <= number <= high:
        return None, f"is {number}, outside {low}…{high}", "", ""
    return number, "", "", ""


def shown(value: Any) -> str:
    """A value in a message: quoted text (cut when long), numbers bare, the rest by kind."""
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is str:
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}…'"
    return str(value) if type(value) is int else kind(value)


def _as_written(value: Any) -> str:
    return str(value).lower() if type(value) is bool else str(value)
