"""Floppy disks by their size: what a drive, the CMOS and the ACPI tables say of them.

Rows come in the order in which they are tried. Ref: ISO/IEC 9529, 8860, ECMA-99 for the common ones; the long tracks
are those of Linux' fdformat and of distribution disks (DMF).
"""

from __future__ import annotations

RATE_500, RATE_300, RATE_250, RATE_1000 = 0, 1, 2, 3  # kbit/s, as DSR and CCR number them
CODES = {"none": 0, "120": 2, "144": 4, "288": 5}  # drive types, as the CMOS numbers them
TYPES = ("120", "144", "288", "auto", "none")
INCHES = {"120": 5, "144": 3, "288": 3}


class Format:
    """A disk of `drive`'s kind: sectors of 512 bytes per track, tracks, sides, data rate; `size` in sectors."""

    __slots__ = ("drive", "rate", "sectors", "sides", "size", "tracks")

    def __init__(self, drive: str, sectors: int, tracks: int, sides: int, rate: int) -> None:
        self.drive, self.sectors, self.tracks, self.sides, self.rate = drive, sectors, tracks, sides, rate
        self.size = sectors * tracks * sides


FORMATS = tuple(
    Format(*row)
    for row in (
        # 3.5", high density
        ("144", 18, 80, 2, RATE_500),
        ("144", 20, 80, 2, RATE_500),
        ("144", 21, 80, 2, RATE_500),
        ("144", 21, 82, 2, RATE_500),
        ("144", 21, 83, 2, RATE_500),
        ("144", 22, 80, 2, RATE_500),
        ("144", 23, 80, 2, RATE_500),
        ("144", 24, 80, 2, RATE_500),
        # 3.5", extra density
        ("288", 36, 80, 2, RATE_1000),
        ("288", 39, 80, 2, RATE_1000),
        ("288", 40, 80, 2, RATE_1000),
        ("288", 44, 80, 2, RATE_1000),
        ("288", 48, 80, 2, RATE_1000),
        # 3.5", double density
        ("144", 9, 80, 2, RATE_250),
        ("144", 10, 80, 2, RATE_250),
        ("144", 10, 82, 2, RATE_250),
        ("144", 10, 83, 2, RATE_250),
        ("144", 13, 80, 2, RATE_250),
        ("144", 14, 80, 2, RATE_250),
        # 5.25", high density
        ("120", 15, 80, 2, RATE_500),
        ("120", 18, 80, 2, RATE_500),
        ("120", 18, 82, 2, RATE_500),
        ("120", 18, 83, 2, RATE_500),
        ("120", 20, 80, 2, RATE_500),
        # 5.25", double density
        ("120", 9, 80, 2, RATE_250),
        ("120", 11, 80, 2, RATE_250),
        ("120", 9, 40, 2, RATE_300),
        ("120", 9, 40, 1, RATE_300),
        ("120", 10, 41, 2, RATE_300),
        ("120", 10, 42, 2, RATE_300),
        ("120", 8, 40, 2, RATE_250),
        ("120", 8, 40, 1, RATE_250),
        # 3.5", one side
        ("144", 9, 80, 1, RATE_250),
    )
)


def pick(sectors: int, drive: str, fallback: str) -> Format:
    """The format of a disk of so many sectors in a drive of that type (`auto`: any).

    The same drive and size, else the same size in inches and sectors, else what the drive usually takes.
    """
    same = [row for row in FORMATS if row.size == sectors]
    for row in same:
        if drive in ("auto", row.drive):
            return row
    for row in same:
        if INCHES[row.drive] == INCHES.get(drive):
            return row
    usual = fallback if drive == "auto" else drive
    return next(row for row in FORMATS if row.drive == usual)


def drive_type(given: str, sectors: int | None, fallback: str) -> str:
    """What kind of drive one of type `given` is; `auto` is as its first disk needs, sectors None: it is empty."""
    if given != "auto":
        return given
    return fallback if sectors is None else pick(sectors, given, fallback).drive


def limits(drive: str) -> tuple[int, int, int]:
    """(last track, last head, sectors per track) that a drive of the type can reach."""
    rows = [row for row in FORMATS if row.drive == drive]
    return max(r.tracks for r in rows) - 1, max(r.sides for r in rows) - 1, max(r.sectors for r in rows)
