"""The Cirrus cards on their buses: what appears where, memory that is memory only at times, state, hostile blits.

What the chip does is compared with QEMU's in tests/peers/test_cirrus_qemu.py.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from accel.clock import SteppedClock
from accel.ram import RamBlock
from vmrun.devices.display.cirrus import Cirrus
from vmrun.devices.display.cirrus_regions import CirrusFeed, CirrusRegisters
from vmrun.devices.display.vga_regions import VgaPorts

from tests.unit.display.test_vga_pci import Machine
from vmrun.devices.display.cirrus_vga import CirrusVga, IsaCirrus
from vmrun.errors import BuildError, StateError

BAR0, BAR1 = 0xE0000000, 0xE8000000


def plug(machine: Machine, **props: Any) -> CirrusVga:
    card = CirrusVga("video0")
    card.set_props({"addr": "02.0", **props})
    card.parent_bus = machine.bus
    card.realize(machine)  # type: ignore[arg-type]
    card.reset()
    card.config.poke(0x10, 4, BAR0)
    card.config.poke(0x14, 4, BAR1)
    card.config.poke(4, 2, 3)
    return card


@pytest.fixture
def machine() -> Machine:
    return Machine()


def register(machine: Machine, port: int, index: int, value: int) -> None:
    machine.io.write(port, 1, index)
    machine.io.write(port + 1, 1, value)


def test_configuration_space_says_what_it_is(machine: Machine) -> None:
    config = plug(machine).config
    assert (config.get(0, 4), config.get(8, 4), config.get(0x3D, 1)) == (0x00B81013, 0x03000000, 0)
    assert machine.asked == ["vgabios-cirrus.bin"]


def test_the_first_bar_is_memory_until_a_blit_waits(machine: Machine) -> None:
    card = plug(machine, vgamem_mb=8)
    machine.memory.write(BAR0 + 0x7FFFFC, 4, 0x12345678)
    assert card.vram.read(0x7FFFFC, 4) == bytes.fromhex("78563412")
    assert card.direct.enabled
    # eight bytes from the processor, one line
    for offset, value in ((0x08, 7), (0x0C, 8), (0x0E, 8), (0x10, 0x40), (0x18, 4), (0x1A, 0x0D), (0x40, 2)):
        machine.memory.write(BAR1 + 0x100 + offset, 1, value)
    assert not card.direct.enabled
    machine.memory.write(BAR0 + 0x1000, 4, 0x44434241)
    machine.memory.write(BAR0 + 0x1000000, 4, 0x48474645)
    assert card.direct.enabled
    assert card.vram.read(0x40, 8) == b"ABCDEFGH"


def test_the_ports_are_in_the_second_bar_too(machine: Machine) -> None:
    plug(machine)
    machine.memory.write(BAR1 + 4, 1, 0x1F)  # 3c4
    assert machine.memory.read(BAR1 + 5, 1) == 0x2D == machine.io.read(0x3C5, 1)


@pytest.mark.parametrize("size", [0, 1, 5, 32])
def test_other_sizes_of_memory_are_refused(machine: Machine, size: int) -> None:
    with pytest.raises(BuildError, match=f"no Cirrus adapter with {size} MiB"):
        plug(machine, vgamem_mb=size)


def test_the_isa_card_is_a_5430(machine: Machine) -> None:
    card = IsaCirrus("video0")
    card.realize(machine)  # type: ignore[arg-type]
    card.reset()
    machine.io.write(0x3C2, 1, 1)
    machine.io.write(0x3D4, 1, 0x27)
    assert machine.io.read(0x3D5, 1) == 0xA0
    card.unrealize()
    assert not machine.consoles
    assert machine.io.read(0x3D5, 1) == 0xFF


def test_without_a_blitter_nothing_is_drawn(machine: Machine) -> None:
    card = plug(machine, blitter=False)
    card.vram.fill(0x55)
    for offset, value in ((0x08, 7), (0x0C, 8), (0x04, 0xAA), (0x18, 0xC0), (0x1B, 4), (0x1A, 0x0D), (0x40, 2)):
        machine.memory.write(BAR1 + 0x100 + offset, 1, value)
    assert machine.memory.read(BAR1 + 0x140, 1) == 0
    assert card.vram.read(0, 8) == b"\x55" * 8


def chip(size: int = 4 << 20, pci: bool = True) -> Cirrus:
    return Cirrus(RamBlock("vram", size), SteppedClock(), pci)


def test_a_blit_goes_on_after_a_restore() -> None:
    first, second = chip(), chip()
    registers = CirrusRegisters(first)
    for offset, value in ((0x08, 7), (0x0A, 1), (0x0C, 8), (0x0E, 8), (0x18, 4), (0x1A, 0x0D), (0x40, 2)):
        registers.store(0x100 + offset, 1, value)
    CirrusFeed(first).store(0, 8, 0x4847464544434241)
    CirrusFeed(first).store(0, 2, 0x4A49)
    second.vram.write(0, first.vram.read(0, 64))
    second.load_state(first.save())
    CirrusFeed(second).store(0, 4, 0x4E4D4C4B)
    CirrusFeed(second).store(0, 2, 0x504F)
    assert second.vram.read(0, 16) == b"ABCDEFGHIJKLMNOP"
    assert CirrusRegisters(second).load(0x140, 1) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"wanted": 8, "expected": 0},
        {"filled": 9, "wanted": 8, "expected": 8},
        {"wanted": 8, "expected": 8, "pixel": 0},
    ],
)
def test_a_blit_that_makes_no_sense_is_refused(change: dict[str, int]) -> None:
    first = chip()
    with pytest.raises(StateError):
        first.load_state({**first.save(), **change})


@pytest.mark.parametrize("pci", [True, False])
def test_no_blit_leaves_video_memory(pci: bool) -> None:
    """Whatever the registers say: twice the chip's memory lies behind what it addresses, and stays as it is."""
    hostile = chip(8 << 20, pci)
    hostile.vram.write(hostile.memory, b"\xa5" * 65536)
    rng = random.Random(11)
    registers, feed = CirrusRegisters(hostile), CirrusFeed(hostile)
    ports = VgaPorts(hostile)
    for _ in range(3000):
        port = rng.choice((0x3C4, 0x3CE))
        ports.store(port - 0x3B0, 1, rng.randrange(64))
        ports.store(port - 0x3B0 + 1, 1, rng.randrange(256))
        for offset in rng.sample(range(0x40), 6):
            registers.store(0x100 + offset, 1, rng.choice((0, 1, 0x1F, 0x3F, 0xFF, rng.randrange(256))))
        registers.store(0x109, 1, rng.choice((0, 0, 1)))
        registers.store(0x10B, 1, rng.choice((0, 0, 0, 1)))
        registers.store(0x140, 1, 0)
        registers.store(0x140, 1, 2)
        for _ in range(rng.choice((0, 40))):
            feed.store(0, 8, rng.getrandbits(64))
        registers.store(0x140, 1, 4)
    assert hostile.vram.read(hostile.memory, 65536) == b"\xa5" * 65536
