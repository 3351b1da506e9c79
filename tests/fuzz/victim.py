"""What all fuzzed devices share: addresses and sizes that hurt, and the shape of a machine with a victim in it."""

from __future__ import annotations

import pathlib
import random
from typing import Any

from tests.devices.scsi import image
from vmrun.testing import QTest

MIB = 1 << 20
# memory, its end, what lies behind it, registers, ROM, addresses that wrap
PLACES = (0, 0x1000, 0x100000, 0x200000, 64 * MIB - 16, 64 * MIB, 0xA0000, 0xF0000, 0xE0000000, 0xFEE00000, 0xFFFFFFF0)
WIDE = (1 << 32, (1 << 64) - 16, 1 << 63)


def place(rng: random.Random, wide: bool = True) -> int:
    return rng.choice((*PLACES, *WIDE) if wide else PLACES) + rng.choice((0, 0, 1, 2, 512, rng.randrange(4096))) & (
        (1 << 64) - 1 if wide else 0xFFFFFFFF
    )


def size(rng: random.Random) -> int:
    return rng.choice((0, 1, 2, 15, 16, 512, 4096, 65536, 0xFFFF, 0xFFFFFFFF, rng.randrange(1 << 32)))


class Victim:
    """A machine with a device; `burst` is a round, `prove` resets the device and shows that it works."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory

    def open(self) -> QTest:
        raise NotImplementedError

    def burst(self, q: QTest, rng: random.Random) -> None:
        raise NotImplementedError

    def prove(self, q: QTest) -> None:
        raise NotImplementedError

    def disk(self) -> dict[str, Any]:
        return {"d0": {"file": str(image(self.directory / "disk.img")), "format": "raw", "snapshot": True}}
