"""Configuration space, mechanism #1 and INTx, compiled (vmrun/bus/pci/config.pyx); constants from PCI Local Bus 3.0."""

from __future__ import annotations

import random

import pytest
from accel.api import IrqSink, PyIrqSink
from accel.space import Region
from vmrun.bus.pci.config import (
    ConfigAddress,
    ConfigData,
    IntxBehind,
    IntxPin,
    IntxRouter,
    PciConfig,
    PciFunctions,
)  # fmt: skip

from tests.unit.pci.card import Board, Card
from vmrun.errors import StateError

COMMAND, STATUS, BAR1, LINE = 4, 6, 0x14, 0x3C


class Sink:
    """Notes levels by input."""

    def __init__(self) -> None:
        self.levels: dict[int, int] = {}
        self.sink: IrqSink = PyIrqSink(self._set)

    def _set(self, n: int, level: int) -> None:
        self.levels[n] = level


def test_only_allowed_bits_are_written() -> None:
    config = PciConfig()
    config.set_dword(0x40, 0x12345678)
    config.allow(0x40, 4, 0x0F0F0F0F)
    config.poke(0x40, 4, 0xFFFFFFFF)
    assert config.get(0x40, 4) == 0x1F3F5F7F
    config.poke(0x41, 1, 0)
    assert config.get(0x40, 4) == 0x1F3F507F


def test_a_one_clears_and_a_zero_leaves() -> None:
    config = PciConfig()
    config.set_word(STATUS, 0xF9B0)
    config.allow_clear(STATUS, 2, 0xF900)
    config.poke(STATUS, 2, 0)
    assert config.get(STATUS, 2) == 0xF9B0
    config.poke(STATUS, 2, 0x4000)
    assert config.get(STATUS, 2) == 0xB9B0
    config.poke(STATUS + 1, 1, 0xFF)
    assert config.get(STATUS, 2) == 0x00B0


@pytest.mark.parametrize(("offset", "size"), [(0xFE, 4), (0xFF, 2), (0x100, 4), (0xFFFFFFFF, 4)])
def test_nothing_is_beyond_the_last_byte(offset: int, size: int) -> None:
    config = PciConfig()
    config.allow(0xFC, 4, 0xFFFFFFFF)
    config.poke(0xFC, 4, 0xAABBCCDD)
    config.poke(offset, size, 0)
    want = bytes.fromhex("ddccbbaa").ljust(8, b"\0")
    kept = want[: max(0, offset - 0xFC)] + bytes(8)
    assert config.get(0xFC, 4) == int.from_bytes(kept[:4], "little")
    assert config.get(offset, size) == 0


def test_the_hook_hears_of_changes_or_of_every_write() -> None:
    heard: list[tuple[int, int]] = []
    config = PciConfig(lambda offset, size: heard.append((offset, size)))
    config.allow(0x40, 4, 0xFFFFFFFF)
    config.allow(0x44, 4, 0xFFFFFFFF)
    config.watch(0x40, 4)
    config.watch(0x44, 4, True)
    for value in (5, 5, 6):
        config.poke(0x40, 4, value)
    config.poke(0x44, 1, 0)
    config.poke(0x48, 4, 1)
    assert heard == [(0x40, 4), (0x40, 4), (0x44, 1)]
    config.poke(0x42, 4, 0xFFFF0000)  # across both: bytes 0 and 0 of the first do not change, the second is always told
    assert heard[3:] == [(0x42, 4)]


def test_a_hook_that_raises_is_reported_and_the_write_stands(capfd: pytest.CaptureFixture[str]) -> None:
    def hook(offset: int, size: int) -> None:
        raise RuntimeError("broken hook")

    config = PciConfig(hook)
    config.allow(0x40, 4, 0xFF)
    config.watch(0x40, 4)
    config.poke(0x40, 1, 7)
    assert config.get(0x40, 1) == 7


def test_reads_that_are_watched_show_what_the_hook_makes() -> None:
    config = PciConfig()
    config.on_read = lambda offset, size: config.set_byte(offset, 0x5A)
    config.watch_reads(0x50, 1)
    assert config.get(0x50, 1) == 0x5A
    assert config.get(0x51, 1) == 0


def test_the_state_of_another_device_is_refused_unchanged() -> None:
    one, other = PciConfig(), PciConfig()
    one.set_dword(0, 0x00011AF4)
    other.set_dword(0, 0x100E8086)
    other.set_byte(LINE, 11)
    saved = PciConfig.state.save(one)
    with pytest.raises(StateError):
        PciConfig.state.load(other, saved)
    assert other.get(0, 4) == 0x100E8086 and other.get(LINE, 1) == 11


# --- mechanism #1 ----------------------------------------------------------------------------------------------


class Ports:
    def __init__(self) -> None:
        self.functions = PciFunctions()
        self.address = ConfigAddress()
        self.data = ConfigData(self.address, self.functions)

    def put(self, devfn: int, id: int, behind: PciFunctions | None = None, on: PciFunctions | None = None) -> PciConfig:
        config = PciConfig()
        config.set_dword(0, id)
        config.allow(0x18, 4, 0xFFFFFF)
        config.allow(0x3C, 4, 0xFFFFFFFF)
        (on or self.functions).put(devfn, config, behind)
        return config

    def select(self, bus: int, devfn: int, offset: int = 0, on: bool = True) -> None:
        self.address.store(0, 4, on << 31 | bus << 16 | devfn << 8 | offset)

    def at(self, bus: int, devfn: int) -> int:
        self.select(bus, devfn)
        return int(self.data.load(0, 4)) & 0xFFFFFFFF


@pytest.fixture
def ports() -> Ports:
    return Ports()


def test_nobody_answers_all_ones(ports: Ports) -> None:
    ports.put(8, 0x70008086)
    assert ports.at(0, 8) == 0x70008086
    assert ports.at(0, 9) == 0xFFFFFFFF
    assert ports.at(1, 8) == 0xFFFFFFFF
    ports.select(0, 8, on=False)
    assert ports.data.load(0, 4) & 0xFFFFFFFF == 0xFFFFFFFF
    ports.data.store(0, 4, 0x12345678)
    assert ports.at(0, 8) == 0x70008086
    ports.functions.put(8, None)
    assert ports.at(0, 8) == 0xFFFFFFFF


def test_the_address_is_latched_by_dwords_only(ports: Ports) -> None:
    ports.select(0, 8, 0x3C)
    before = ports.address.load(0, 4)
    for offset, size in ((0, 1), (0, 2), (1, 1), (2, 2), (3, 1)):
        ports.address.store(offset, size, 0)
    assert ports.address.load(0, 4) == before == 0x8000083C


def test_data_is_read_and_written_in_each_size_at_each_offset(ports: Ports) -> None:
    config = ports.put(8, 0x70008086)
    ports.select(0, 8, 0x3C)
    ports.data.store(0, 4, 0x44332211)
    for offset in range(4):
        for size in (1, 2, 4):
            if offset + size <= 4:
                want = int.from_bytes(b"\x11\x22\x33\x44"[offset : offset + size], "little")
                assert ports.data.load(offset, size) == want, (offset, size)
    ports.data.store(3, 1, 0x99)
    assert config.get(0x3C, 4) == 0x99332211


def test_bridges_lead_to_their_buses(ports: Ports) -> None:
    far, near = PciFunctions(), PciFunctions()
    bridge = ports.put(0x20, 0x00011B36, near)
    inner = ports.put(0x08, 0x00021B36, far, on=near)
    ports.put(0x10, 0xAAAA1234, on=near)
    ports.put(0x18, 0xBBBB1234, on=far)
    assert ports.at(1, 0x10) == 0xFFFFFFFF  # not numbered yet
    bridge.poke(0x18, 4, 0x020100)
    inner.poke(0x18, 4, 0x020201)
    assert ports.at(1, 0x10) == 0xAAAA1234
    assert ports.at(2, 0x18) == 0xBBBB1234
    assert ports.at(3, 0x18) == 0xFFFFFFFF
    bridge.poke(0x3E, 1, 0x40)  # secondary bus reset: nothing goes through
    assert ports.at(2, 0x18) == 0xFFFFFFFF


def test_bridges_that_lead_to_each_other_end(ports: Ports) -> None:
    """Any numbers in any bridge: a configuration cycle ends."""
    rng = random.Random(1)
    buses = [ports.functions, *(PciFunctions() for _ in range(4))]
    bridges = [ports.put(8 * n, n << 16 | 0x1B36, buses[n + 1], on=buses[n]) for n in range(4)]
    for _ in range(500):
        for bridge in bridges:
            bridge.poke(0x18, 4, rng.getrandbits(24))
        assert 0 <= ports.at(rng.randrange(256), rng.randrange(256)) <= 0xFFFFFFFF


# --- INTx ------------------------------------------------------------------------------------------------------


def test_interrupt_status_follows_the_pin_and_disable_holds_it_back() -> None:
    sink, config = Sink(), PciConfig()
    config.allow(COMMAND, 2, 0x0407)
    pin = IntxPin(config, sink.sink, 3)
    pin.drive(0, 1)
    assert sink.levels[3] == 1 and config.get(STATUS, 1) & 8
    config.poke(COMMAND, 2, 0x0400)
    pin.refresh()
    assert sink.levels[3] == 0 and config.get(STATUS, 1) & 8
    config.poke(COMMAND, 2, 0)
    pin.refresh()
    assert sink.levels[3] == 1
    pin.drive(0, 0)
    assert sink.levels[3] == 0 and not config.get(STATUS, 1) & 8


@pytest.mark.parametrize(("slot", "pin", "line"), [(1, 0, 0), (1, 3, 3), (2, 0, 1), (5, 1, 1), (0, 0, 3), (31, 0, 2)])
def test_pins_are_swizzled_by_slot(slot: int, pin: int, line: int) -> None:
    router = IntxRouter(1)
    router.drive(slot * 4 + pin, 1)
    assert [int(each.level) for each in router.pirq] == [int(n == line) for n in range(4)]


def test_a_shared_line_is_low_when_the_last_has_let_go() -> None:
    router = IntxRouter(1)
    router.drive(1 * 4, 1)
    router.drive(5 * 4, 1)
    router.drive(1 * 4, 0)
    assert router.pirq[0].level
    router.drive(5 * 4, 0)
    router.drive(5 * 4, 0)  # once more changes nothing
    assert not router.pirq[0].level
    router.drive(1 * 4, 1)
    assert router.pirq[0].level


@pytest.mark.parametrize(("slot", "pin"), [(0, 0), (1, 0), (3, 2), (7, 3)])
def test_behind_a_bridge_the_slot_moves_the_pin(slot: int, pin: int) -> None:
    sink = Sink()
    IntxBehind(sink.sink, 4).drive(slot * 4 + pin, 1)
    assert sink.levels == {4 * 4 + (slot + pin) % 4: 1}


# --- a function's BARs, through its header ---------------------------------------------------------------------------


def test_a_bar_says_its_size_and_moves_its_memory() -> None:
    board = Board(None)
    card: Card = board.plug()
    card.config.poke(BAR1, 4, 0xFFFFFFFF)
    assert card.config.get(BAR1, 4) == 0xFFFFF000  # 4 KiB
    card.config.poke(BAR1, 4, 0xE0000000)
    with board.lock:
        board.memory.write(0xE0000010, 4, 0x99)
    assert card.writes == [(0x10, 0x99)]
    card.config.poke(COMMAND, 2, 5)  # no memory: nobody is there
    with board.lock:
        board.memory.write(0xE0000014, 4, 0x77)
    assert card.writes == [(0x10, 0x99)]


def test_of_two_bars_at_one_address_the_later_written_answers() -> None:
    board = Board(None)
    one, two = board.plug(addr="05.0"), board.plug(addr="06.0")
    for card in (one, two):
        card.config.poke(BAR1, 4, 0xE0000000)
    with board.lock:
        board.memory.write(0xE0000000, 1, 1)
    one.config.poke(BAR1, 4, 0xF0000000)
    one.config.poke(BAR1, 4, 0xE0000000)
    with board.lock:
        board.memory.write(0xE0000000, 1, 2)
    assert (one.writes, two.writes) == ([(0, 2)], [(0, 1)])
    assert isinstance(one.container, Region)
