"""What values may be, said once: for the classes of devices and for the checks of machine files."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# kinds of whole numbers → (least, greatest)
RANGES = {
    "uint8": (0, 0xFF),
    "uint16": (0, 0xFFFF),
    "uint32": (0, 0xFFFFFFFF),
    "uint64": (0, 0xFFFFFFFFFFFFFFFF),
    "int32": (-0x80000000, 0x7FFFFFFF),
    "size": (0, 0xFFFFFFFFFFFFFFFF),
}

# network cards of QEMU's PCs on a PCI bus, as its drivers are called
PCI_NICS = (
    "e1000", "e1000-82544gc", "e1000-82545em", "e1000e", "rtl8139", "pcnet", "ne2k_pci", "virtio-net-pci", "vmxnet3",
    "i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a", "i82558b", "i82559a", "i82559b", "i82559c",
    "i82559er", "i82562", "i82801",
)  # fmt: skip

DATES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d")
FIRST_YEAR, LAST_YEAR = 1700, 2200  # a clock that counts ns since 1970 in 64 bits can hold them and go on


def seconds(date: str) -> int | None:
    """Seconds since 1970 of a date of DATES, in UTC; None for what is none, or too far away."""
    import time
    from calendar import timegm

    for form in DATES:
        try:
            moment = time.strptime(date, form)
        except ValueError:
            continue
        return timegm(moment) if FIRST_YEAR <= moment.tm_year <= LAST_YEAR else None
    return None


_IN_IDENTIFIERS = str.maketrans("-._", "aaa")


def is_identifier(text: str) -> bool:
    """What QEMU takes as an id: letters, digits, '-', '.', '_', starting with a letter."""
    return text.isascii() and text[:1].isalpha() and text.translate(_IN_IDENTIFIERS).isalnum()


# images that are not files: network block devices, web servers, directories, and blocks of options
ADDRESSES = (
    "nbd:", "nbd+", "blkdebug:", "json:", "http://", "https://", "fat:", "null-co:", "null-aio:", "/dev/fdset/",
)  # fmt: skip

_UNITS = {letter: 1 << 10 * power for power, letter in enumerate("BKMGTPE")}
_ON, _OFF = ("on", "yes", "true", "y"), ("off", "no", "false", "n")


def read_value(kind: str, value: Any) -> Any:
    """A value as text, as options give it, for a property of type `kind`; others are left as they are."""
    if not isinstance(value, str):
        return value
    if kind == "bool":
        return True if value in _ON else False if value in _OFF else value
    if kind == "size" or kind in RANGES:
        unit = _UNITS.get(value[-1:].upper(), 0) if kind == "size" else 0
        try:
            return int(float(value[:-1]) * unit) if unit else int(value, 0)
        except (ValueError, OverflowError):
            return value
    return value
