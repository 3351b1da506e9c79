"""e1000e beside QEMU's: a link whose speed the driver forces, as `ethtool -s` asks for it."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.peers.nics import BAR, ask, both
from tests.peers.oracle import needs_qemu

pytestmark = [needs_qemu, pytest.mark.peer]

BARS = (2, 0)
CTRL, STATUS, MDIC = 0, 8, 0x20
FORCED = (1 << 11, 1 << 12, 1 << 11 | 1 << 12, 0)
READ_BMCR = 0x0820_0000


@pytest.mark.parametrize("speed", [0, 1, 2])
def test_status_has_the_speed_that_ctrl_forces(speed: int, tmp_path: pathlib.Path) -> None:
    lines = []
    for forced in FORCED:
        for duplex in (0, 1):
            lines += [f"writel {BAR + CTRL:#x} {0x40 | forced | speed << 8 | duplex:#x}", f"readl {BAR + STATUS:#x}"]

    def steps(side: Any) -> list[Any]:
        return [(line, hex(int(value, 16) & 0xC3)) for line, value in ask(side, lines)]

    both(tmp_path, steps, "e1000e", BARS)


@pytest.mark.parametrize("control", [0x0000, 0x0100, 0x2000, 0x2100, 0x1140, 0x0140])
def test_what_the_phy_was_set_to_outlives_its_own_reset(control: int, tmp_path: pathlib.Path) -> None:
    """Drivers set speed and duplex, then make them valid by a reset of the PHY."""
    lines = []
    for value in (control, control | 0x8000):
        lines += [f"writel {BAR + MDIC:#x} {0x0420_0000 | value:#x}", f"writel {BAR + MDIC:#x} {READ_BMCR:#x}"]
        lines += [f"readl {BAR + MDIC:#x}"]

    def steps(side: Any) -> list[Any]:
        return [(line, hex(int(value, 16) & 0xFFFF)) for line, value in ask(side, lines)]

    both(tmp_path, steps, "e1000e", BARS)
