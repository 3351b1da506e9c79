"""What single words mean: plain YAML words, sizes, PCI addresses, MAC addresses."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WORDS = {
    "": None, "~": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
# null is text: no key of a machine file takes nothing for a value, and a chardev's type may be null
_HEX = frozenset("0123456789abcdefABCDEF")
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}
_LONGEST_NUMBER = 24  # digits; longer than any 64-bit number, short enough to cost nothing


def plain_scalar(text: str) -> Any:
    """The value of an unquoted YAML word: None, bool, int, else the text itself. No octal, base 60, dates,
    fractions.
    """
    first = text[:1]
    if first in "0123456789-" and first and len(text) <= _LONGEST_NUMBER:
        digits = text[1:] if first == "-" else text
        if digits.isdecimal() and digits.isascii() and (digits[0] != "0" or digits == "0"):
            return int(text)
        if text[:2] in ("0x", "0X") and len(text) > 2 and _HEX.issuperset(text[2:]):
            return int(text[2:], 16)
        return text
    return _WORDS.get(text, text)


def parse_size(value: Any) -> int | None:
    """Bytes of 4096, '64k', '1111MiB', '2G' (all binary); None when it is no size."""
    if type(value) is int:
        return value if value >= 0 else None
    if type(value) is not str:
        return None
    text = value.strip()
    number = text
    shift = 0
    if text[-2:] == "iB":
        number = text[:-2]
        if number[-1:].lower() not in _UNITS:
            return None
    if number[-1:].lower() in _UNITS:
        shift = _UNITS[number[-1].lower()]
        number = number[:-1]
    number = number.rstrip()
    if not (number.isdecimal() and number.isascii() and len(number) <= _LONGEST_NUMBER):
        return None
    return int(number) << shift


def size_text(value: int) -> str:
    """A size as a person writes it: '1111MiB', or the bytes when it is no whole KiB."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value and not value & ((1 << shift) - 1):
            return f"{value >> shift}{unit}"
    return str(value)


def parse_pci_addr(value: Any) -> tuple[int, int] | None:
    """(slot, function) of '05.0', '5', 5 or '0x1.0x2' as QEMU writes it: always hexadecimal in text; None
    if neither.
    """
    if type(value) is int:
        return (value, 0) if 0 <= value < 32 else None
    if type(value) is not str:
        return None
    parts = value.split(".")
    if len(parts) > 2:
        return None
    numbers = []
    for part in parts:
        digits = part[2:] if part[:2] in ("0x", "0X") else part
        if not digits or len(digits) > 2 or not _HEX.issuperset(digits):
            return None
        numbers.append(int(digits, 16))
    slot, function = numbers[0], numbers[1] if len(numbers) == 2 else 0
    return (slot, function) if slot < 32 and function < 8 else None


def pci_addr_text(slot: int, function: int) -> str:
    return f"{slot:02x}.{function:x}"


def parse_mac(value: Any) -> str | None:
    """A MAC address in lower case with colons; None when it is none."""
    if type(value) is not str:
        return None
    parts = value.replace("-", ":").split(":")
    if len(parts) != 6 or any(len(part) != 2 or not _HEX.issuperset(part) for part in parts):
        return None
    return ":".join(parts).lower()
