"""What the readers of all notations share: how much a file may hold, and what they say of what no machine file has."""

from __future__ import annotations

from vmrun.errors import ConfigError, Place, Problem

MAX_DEPTH = 32
MAX_ENTRIES = 2048  # of one list or mapping
MAX_NODES = 50_000  # of one file


class Budget:
    """Counts what a reader has made and stops it when a file goes beyond the limits."""

    __slots__ = ("file", "left")

    def __init__(self, file: str) -> None:
        self.file = file
        self.left = MAX_NODES

    def spend(self, line: int, col: int, depth: int, entries: int) -> None:
        """Account for one value at depth in a container that has so many entries by now."""
        self.left -= 1
        if depth > MAX_DEPTH:
            raise too_deep(Place(self.file, line, col))
        if entries > MAX_ENTRIES:
            raise ConfigError(
                f"more than {MAX_ENTRIES} entries in one list or mapping",
                code="VR0105",
                place=Place(self.file, line, col),
                remedy="no machine of this family can hold so many",
            )
        if self.left < 0:
            raise ConfigError(
                f"more than {MAX_NODES} values in one file", code="VR0105", place=Place(self.file, line, col)
            )


def too_deep(place: Place) -> ConfigError:
    return ConfigError(f"more than {MAX_DEPTH} levels of nesting", code="VR0105", place=place)


def duplicate(key: str, file: str, second: tuple[int, int], first: tuple[int, int]) -> Problem:
    return Problem(
        "VR0107",
        f"key '{key}' is given twice",
        Place(file, *second),
        also=[(Place(file, *first), "the first one is here")],
        remedy="keep one of the two",
    )


def nul(place: Place) -> ConfigError:
    return ConfigError("a NUL character is not allowed in text", code="VR0104", place=place)


def fraction(word: str, place: Place) -> ConfigError:
    return ConfigError(
        f"{word}: fractions are not used in machine files",
        code="VR0106",
        place=place,
        remedy=f'write "{word}" in quotes if it is an address or a name',
    )
