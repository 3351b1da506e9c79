"""Buses behind bridges: pins, and what a secondary reset reaches. Windows: tests/peers/test_pci_devices_qemu.py."""

from __future__ import annotations

from typing import Any

import pytest
from accel.api import PyIrqSink
from vmrun.devices.intc.lapic import ApicBus

from tests.unit.pci.card import Board
from vmrun.bus.pci.bridge import PciBridge


class Bridge(PciBridge):
    vendor_id, device_id = 0x1234, 0x9999


@pytest.fixture
def board() -> Board:
    return Board(ApicBus())


def bridge(board: Board, addr: str, bus: Any = None) -> Bridge:
    made = Bridge(f"bridge-{addr}")
    made.set_props({"addr": addr})
    made.parent_bus = bus or board.bus
    made.make_buses([f"bus-{addr}"], board)  # type: ignore[arg-type]
    made.realize(board)  # type: ignore[arg-type]
    made.reset()
    return made


@pytest.mark.parametrize("slot", range(5))
@pytest.mark.parametrize("outer", [3, 4])
def test_a_pin_turns_with_each_slot_on_its_way(board: Board, slot: int, outer: int) -> None:
    heard: list[int] = []
    for n, line in enumerate(board.bus.pirq):
        line.connect(PyIrqSink(lambda _, level, n=n: heard.append(n) if level else None), 0)
    first = bridge(board, f"{outer:02x}.0")
    second = bridge(board, "02.0", first.secondary)
    card = board.plug(addr=f"{slot:02x}.0", bus=second.secondary)
    card.intx.drive(1)
    # INTA of the slot, swizzled by the slots of both bridges, then the root's own rule
    assert heard == [(slot + 2 + outer - 1) & 3]


def test_two_cards_on_one_line_release_it_together(board: Board) -> None:
    levels: list[int] = []
    outer = bridge(board, "04.0")
    cards = [board.plug(addr=addr, bus=outer.secondary) for addr in ("01.0", "05.0")]
    board.bus.pirq[0].connect(PyIrqSink(lambda _, level: levels.append(level)), 0)
    for card in cards:
        card.intx.drive(1)
    cards[0].intx.drive(0)
    assert levels == [1]
    cards[1].intx.drive(0)
    assert levels == [1, 0]


def test_a_secondary_reset_reaches_what_is_behind_the_bridge(board: Board) -> None:
    outer = bridge(board, "04.0")
    inner = bridge(board, "02.0", outer.secondary)
    card = board.plug(addr="01.0", bus=inner.secondary)
    beside = board.plug(addr="06.0")
    outer.config.poke(0x3E, 2, 0x40)
    assert card.config.get(4, 2) & 7 == 0 and beside.config.get(4, 2) & 7 == 7


def test_a_bridge_in_reset_hides_its_bus(board: Board) -> None:
    outer = bridge(board, "04.0")
    inner = bridge(board, "02.0", outer.secondary)
    outer.config.poke(0x18, 4, 0x020100)
    inner.config.poke(0x18, 4, 0x020201)
    assert inner.secondary.number == 2
    outer.config.poke(0x3E, 2, 0x40)
    assert inner.secondary.number == 0
