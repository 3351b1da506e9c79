"""The monitor's description, and the adapters without a VGA, beside QEMU's."""

from __future__ import annotations

import base64
import pathlib
import random
from typing import Any

import pytest

from tests.peers.oracle import Qemu, needs_qemu
from tests.unit.display.test_vga_pci import Machine
from vmrun.core.edid import edid
from vmrun.core.surface import Surface
from vmrun.devices.display.bochs_display import BochsDisplay
from vmrun.devices.display.vga_pci import SecondaryVga

pytestmark = [pytest.mark.peer, needs_qemu]
CARD, BAR0, BAR2 = 2 << 11, 0xE0000000, 0xE8000000


def start(qemu: Qemu) -> None:
    for offset, value in ((0x10, BAR0), (0x18, BAR2), (4, 3)):
        qemu.outl(0xCF8, 0x80000000 | CARD | offset)
        qemu.outl(0xCFC, value)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"xres": 1920, "yres": 1200},
        {"xres": 5120, "yres": 2160},  # more than a detailed timing can say
        {"xres": 3840, "yres": 2160},  # a clock that it cannot say
        {"yres": 1080, "refresh_rate": 60000},
        {"xmax": 1024, "ymax": 768},
        {"xmax": 1920, "ymax": 1440},
        {"xmax": 1920, "ymax": 1439},
        {"xmax": 1900, "ymax": 1500},
        {"xmax": 3840, "ymax": 1080, "xres": 8, "yres": 8},
    ],
)
def test_the_monitor_says_the_same(said: dict[str, int]) -> None:
    props = "".join(f",{name}={value}" for name, value in said.items())
    with Qemu("pc", "-device", f"VGA,addr=2,romfile={props}") as qemu:
        start(qemu)
        theirs = base64.b64decode(qemu.ask(f"b64read {BAR2:#x} 0x180"))
    refresh = said.pop("refresh_rate", 0)
    assert edid(**said, refresh=refresh).ljust(0x180, b"\0").hex(" ") == theirs.hex(" ")


def card(kind: Any) -> tuple[Machine, Any]:
    machine = Machine()
    device = kind("video0")
    device.set_props({"addr": "02.0"})
    device.parent_bus = machine.bus
    device.realize(machine)
    device.reset()
    for offset, value in ((0x10, BAR0), (0x18, BAR2)):
        device.config.poke(offset, 4, value)
    device.config.poke(4, 2, 3)
    return machine, device


@pytest.mark.parametrize(("driver", "kind"), [("secondary-vga", SecondaryVga), ("bochs-display", BochsDisplay)])
def test_registers_in_memory_are_the_same(driver: str, kind: Any) -> None:
    rng = random.Random(1)
    machine, device = card(kind)
    with Qemu("pc", "-device", f"{driver},addr=2") as qemu:
        start(qemu)
        for offset in range(0, 64, 4):
            qemu.outl(0xCF8, 0x80000000 | CARD | offset)
            assert device.config.get(offset, 4) == qemu.inl(0xCFC), hex(offset)
        for _ in range(400):
            offset = 0x500 + 2 * rng.randrange(12)
            value = rng.choice([0, 1, 8, 16, 32, 640, 480, 0x41, rng.randrange(65536)])
            if rng.random() < 0.5:
                qemu.ask(f"writew {BAR2 + offset:#x} {value:#x}")
                machine.memory.write(BAR2 + offset, 2, value)
            theirs = int(qemu.ask(f"readw {BAR2 + offset:#x}"), 0)
            assert machine.memory.read(BAR2 + offset, 2) == theirs, hex(offset)
        for offset, value in ((0x600, 0), (0x604, 0), (0x604, 0xBEBEBEBE), (0x604, 0x12345678), (0x604, 0x1E1E1E1E)):
            if value:
                qemu.ask(f"writel {BAR2 + offset:#x} {value:#x}")
                machine.memory.write(BAR2 + offset, 4, value)
            theirs = int(qemu.ask(f"readl {BAR2 + offset:#x}"), 0)
            assert machine.memory.read(BAR2 + offset, 4) == theirs, hex(offset)


@pytest.mark.parametrize(
    ("width", "height", "bits", "virtual", "x", "y"),
    [(640, 480, 32, 0, 0, 0), (800, 600, 16, 1000, 7, 3), (64, 64, 32, 100, 9, 1), (1024, 768, 32, 0, 5, 0)],
)
def test_bochs_display_shows_the_same(
    width: int, height: int, bits: int, virtual: int, x: int, y: int, tmp_path: pathlib.Path
) -> None:
    machine, device = card(BochsDisplay)
    data = random.Random(2).randbytes(4 << 20)
    device.vram.write(0, data)
    with Qemu("pc", "-device", "bochs-display,addr=2") as qemu:
        start(qemu)
        for at in range(0, len(data), 65536):
            part = base64.b64encode(data[at : at + 65536]).decode()
            qemu.ask(f"b64write {BAR0 + at:#x} 0x10000 {part}")
        for index, value in ((1, width), (2, height), (3, bits), (6, virtual), (8, x), (9, y), (4, 1)):
            qemu.ask(f"writew {BAR2 + 0x500 + 2 * index:#x} {value:#x}")
            machine.memory.write(BAR2 + 0x500 + 2 * index, 2, value)
        file = tmp_path / "screen.ppm"
        qemu.qmp(("screendump", {"filename": str(file)}))
        surface = Surface()
        device.console.scanout.update(surface, True)
        head = b"P6\n%d %d\n255\n" % (width, height)
        assert file.read_bytes() == head + bytes(surface.rgb())
