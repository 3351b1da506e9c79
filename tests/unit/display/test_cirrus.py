"""The Cirrus cards on their buses: what appears where, memory that is memory only at times, state, hostile blits.

What the chip does is compared with QEMU's in tests/peers/test_cirrus_qemu.py.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from accel.api import DeviceLock
from accel.clock import SteppedClock
from accel.errands import ErrandLock
from accel.ram import RamBlock
from vmrun.devices.display.cirrus import Cirrus
from vmrun.devices.display.cirrus_regions import CirrusFeed, CirrusRegisters
from vmrun.devices.display.vga_regions import VgaPorts

from tests.unit.display.test_vga_pci import Machine, use
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


# --- the window as memory -------------------------------------------------------------------------------


def kind(machine: Machine, address: int) -> str:
    return str(machine.memory.owner_at(address).kind_name)


def extended(machine: Machine, **graphics: int) -> None:
    """256 packed colours; `graphics`: r9, rA, rB."""
    register(machine, 0x3C4, 6, 0x12)
    register(machine, 0x3C4, 7, 1)
    for name, value in graphics.items():
        register(machine, 0x3CE, int(name[1:], 16), value)


def test_two_banks_that_are_used_a_lot_are_memory(machine: Machine) -> None:
    card = plug(machine)
    extended(machine, rB=0x21, r9=3, rA=0x40)  # two banks of 16 KiB steps
    assert kind(machine, 0xA0000) == "i/o"
    use(machine)
    assert kind(machine, 0xA0000) == kind(machine, 0xA8000) == "ram"
    assert kind(machine, 0xB0000) == "i/o"
    machine.memory.write(0xA0010, 1, 0x5A)
    machine.memory.write(0xA8010, 1, 0xA5)
    assert (card.vram.read(0xC010, 1), card.vram.read(0x100010, 1)) == (b"\x5a", b"\xa5")
    register(machine, 0x3CE, 0x0A, 0x41)
    assert kind(machine, 0xA0000) == kind(machine, 0xA8000) == "i/o"
    use(machine)
    machine.memory.write(0xA8010, 1, 0xB6)
    assert card.vram.read(0x104010, 1) == b"\xb6"


def test_one_bank_is_sixty_four_kibibytes_of_memory(machine: Machine) -> None:
    card = plug(machine)
    extended(machine, r9=0x10)  # steps of 4 KiB
    use(machine)
    machine.memory.write(0xAFFFF, 1, 0x77)
    assert kind(machine, 0xA8000) == "ram" and card.vram.read(0x1FFFF, 1) == b"\x77"


@pytest.mark.parametrize("bank", [0xFF, 0xFD])
def test_a_bank_that_reaches_beyond_the_memory_stays_a_device(machine: Machine, bank: int) -> None:
    plug(machine)
    extended(machine, rB=0x20, r9=bank)
    use(machine)
    assert kind(machine, 0xA0000) == "i/o"


@pytest.mark.parametrize("extensions", [0x02, 0x14])
def test_bytes_that_are_spread_are_no_memory(machine: Machine, extensions: int) -> None:
    plug(machine)
    extended(machine, rB=extensions)
    use(machine)
    assert kind(machine, 0xA0000) == "i/o"


def test_a_blit_that_waits_takes_the_window_back(machine: Machine) -> None:
    card = plug(machine)
    extended(machine)
    use(machine)
    assert kind(machine, 0xA0000) == "ram"
    for offset, value in ((0x08, 7), (0x0C, 8), (0x0E, 8), (0x10, 0x40), (0x18, 4), (0x1A, 0x0D), (0x40, 2)):
        machine.memory.write(BAR1 + 0x100 + offset, 1, value)
    assert kind(machine, 0xA0000) == "i/o"
    machine.memory.write(0xA1000, 4, 0x44434241)
    machine.memory.write(0xA0000, 4, 0x48474645)
    assert card.vram.read(0x40, 8) == b"ABCDEFGH"


def test_mode_13h_is_memory_as_on_any_vga(machine: Machine) -> None:
    card = plug(machine)
    for port, value in ((0x3C4, 0x0F02), (0x3C4, 0x0E04), (0x3CE, 0x0506)):
        machine.io.write(port, 2, value)
    use(machine)
    machine.memory.write(0xA0123, 1, 0x66)
    assert kind(machine, 0xA0000) == "ram" and card.vram.read(0x123, 1) == b"\x66"


# --- turns ----------------------------------------------------------------------------------------------

SIZE = 4 << 20
BLITS = {
    "copy": {0x18: 0x00},
    "backwards": {0x18: 0x01, 0x12: 0x3F, 0x11: 0xFF, 0x10: 0xFF, 0x16: 0x3E, 0x15: 0xFF, 0x14: 0xFF},
    "seen through": {0x18: 0x08, 0x1C: 7}, "pattern": {0x18: 0x40}, "expanded pattern": {0x18: 0xC0},
    "expanded": {0x18: 0x80}, "expanded through": {0x18: 0x88}, "solid": {0x18: 0xC0, 0x1B: 0x04},
}  # fmt: skip


def blitted(lock: DeviceLock | None, change: dict[int, int]) -> tuple[Cirrus, CirrusRegisters, RamBlock]:
    """A blit of 1023 lines of 2048 bytes, started by this thread with the lock held."""
    block = RamBlock("vram", SIZE)
    block.write(0, random.Random(5).randbytes(SIZE))
    chip = Cirrus(block, SteppedClock(), lock=lock)
    registers = CirrusRegisters(chip)
    rows = {
        0x08: 0xFF, 0x09: 0x07, 0x0A: 0xFE, 0x0B: 0x03, 0x0C: 0, 0x0D: 8, 0x0E: 0, 0x0F: 8, 0x12: 0x10, 0x16: 0,
        0x1A: 0x59, 1: 0x12, 4: 0x34, **change,
    }  # fmt: skip
    for at, value in rows.items():
        registers.store(0x100 + at, 1, value)
    registers.store(0x140, 1, 2)
    return chip, registers, block


@pytest.mark.parametrize("name", BLITS)
def test_a_blit_in_turns_draws_what_one_go_draws(name: str) -> None:
    whole = blitted(None, BLITS[name])[2].read(0, SIZE)
    lock = ErrandLock()
    with lock:
        chip, registers, block = blitted(lock, BLITS[name])
        assert registers.load(0x140, 1) & 1 and chip.left  # busy: the lock is held
        assert block.read(0, SIZE) != whole
    assert block.read(0, SIZE) == whole
    assert not registers.load(0x140, 1) & 1 and not chip.left


def test_a_blit_lets_others_have_the_lock() -> None:
    """Another processor ends it, which it could not if the whole were one hold; nobody draws on after that."""
    lock, ended = ErrandLock(), threading.Event()

    def end() -> None:
        with lock:
            registers.store(0x140, 1, 4)
            registers.store(0x140, 1, 0)
            ended.set()

    with lock:
        chip, registers, block = blitted(lock, BLITS["copy"])
        other = threading.Thread(target=end)
        other.start()
        left = chip.left
    other.join()
    assert ended.is_set() and 0 < left < 1023 and not chip.left
    before = block.read(0, SIZE)
    with lock:
        pass
    assert block.read(0, SIZE) == before


def test_a_second_blit_waits_for_the_first() -> None:
    lock = ErrandLock()
    with lock:
        chip, registers, block = blitted(lock, BLITS["copy"])
        half = chip.left
        registers.store(0x140, 1, 0)
        for at, value in ((0x08, 7), (0x09, 0), (0x0A, 0), (0x0B, 0), (0x12, 0x3F), (0x1A, 0x0E)):
            registers.store(0x100 + at, 1, value)
        registers.store(0x140, 1, 2)  # eight bytes of ones
        assert half and not chip.left and not registers.load(0x140, 1) & 1
    whole = bytearray(blitted(None, BLITS["copy"])[2].read(0, SIZE))
    whole[0x3F0000:0x3F0008] = b"\xff" * 8
    assert block.read(0, SIZE) == bytes(whole)


# --- the wires to the monitor -----------------------------------------------------------------------------


class Wires:
    """A driver that moves them by SR08, as X's does: what is not a wire is written as ones."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def put(self, clock: int, data: int) -> int:
        """How the data wire is then."""
        register(self.machine, 0x3C4, 8, 0xFC | clock | data << 1)
        found: int = self.machine.io.read(0x3C5, 1)
        assert found >> 2 & 1 == clock
        return found >> 7

    def start(self) -> None:
        for clock, data in ((0, 1), (1, 1), (1, 0), (0, 0)):
            self.put(clock, data)

    def stop(self) -> None:
        for clock, data in ((0, 0), (1, 0), (1, 1)):
            self.put(clock, data)

    def bit(self, value: int) -> int:
        self.put(0, value)
        found = self.put(1, value)
        self.put(0, value)
        return found

    def send(self, byte: int) -> bool:
        """Whether somebody acknowledges it."""
        for n in range(7, -1, -1):
            self.bit(byte >> n & 1)
        return not self.bit(1)

    def take(self, last: bool) -> int:
        byte = 0
        for _ in range(8):
            byte = byte << 1 | self.bit(1)
        self.bit(int(last))
        return byte

    def read(self, offset: int, count: int) -> bytes:
        self.start()
        assert self.send(0xA0) and self.send(offset)
        self.start()
        assert self.send(0xA1)
        found = bytes(self.take(n == count - 1) for n in range(count))
        self.stop()
        return found


def test_the_monitor_tells_its_edid(machine: Machine) -> None:
    plug(machine, edid=True)
    wires = Wires(machine)
    block = wires.read(0, 128)
    assert block[:8] == bytes.fromhex("00ffffffffffff00") and sum(block) & 0xFF == 0
    assert (block[56] + (block[58] >> 4 << 8), block[59] + (block[61] >> 4 << 8)) == (1024, 768)
    assert wires.read(126, 1)[0] == 1 and sum(wires.read(128, 128)) & 0xFF == 0  # one more block
    assert wires.read(0x36, 18) == block[0x36:0x48]


def test_nobody_else_is_on_the_wires(machine: Machine) -> None:
    plug(machine, edid=True)
    wires = Wires(machine)
    for address in range(128):
        wires.start()
        assert wires.send(address << 1) == (address == 0x50), hex(address)
        wires.stop()
    assert wires.put(1, 1) == 1


def test_a_restore_in_the_middle_of_a_byte_goes_on(machine: Machine) -> None:
    card = plug(machine, edid=True)
    wires = Wires(machine)
    wires.start()
    assert wires.send(0xA0) and wires.send(8)
    wires.start()
    assert wires.send(0xA1)
    first = [wires.bit(1) for _ in range(4)]
    state = card.save()
    card.reset()
    card.load(state)
    rest = [wires.bit(1) for _ in range(4)]
    assert int("".join(map(str, first + rest)), 2) == Wires(machine).read(8, 1)[0]


def test_any_noise_on_the_wires_is_survived(machine: Machine) -> None:
    plug(machine, edid=True)
    wires, rng = Wires(machine), random.Random(3)
    for _ in range(3000):
        wires.put(rng.getrandbits(1), rng.getrandbits(1))
    wires.stop()
    assert wires.read(0, 8) == bytes.fromhex("00ffffffffffff00")


def test_without_a_monitor_the_register_is_what_was_written(machine: Machine) -> None:
    plug(machine)
    for value in (0x03, 0xFF, 0x84, 0):
        register(machine, 0x3C4, 8, value)
        assert machine.io.read(0x3C5, 1) == value


def test_a_state_from_before_there_was_one_is_taken(machine: Machine) -> None:
    card = plug(machine)
    state = card.save()
    del state["ddc"]
    card.load({**state, "version": 1})
