"""MSI and MSI-X: when a message leaves, what is in it, and what waits."""

from __future__ import annotations

from typing import Any

import pytest
from vmrun.devices.intc.lapic import ApicBus

from tests.unit.pci.card import Board, Card
from vmrun.bus.pci import Msi, Msix
from vmrun.errors import BuildError, StateError

TARGET = 0x8000  # messages to plain memory can be read back
BAR = 0xE0000000


@pytest.fixture
def board() -> Board:
    return Board(ApicBus())


def word(board: Board, addr: int = TARGET) -> int:
    return int.from_bytes(board.ram.read(addr, 4), "little")


def program_msi(card: Card, msi: Msi, data: int = 0x41, allowed: int = 0, addr: int = TARGET) -> None:
    poke = card.config.poke
    poke(msi.offset + 4, 4, addr)
    poke(msi.offset + (12 if msi.wide else 8), 2, data)
    poke(msi.offset + 2, 2, 1 | allowed << 4)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_an_msi_is_a_write_of_its_data(board: Board, wide: bool, masks: bool) -> None:
    msi = Msi(4, wide, masks)
    card = board.plug(msi)
    program_msi(card, msi, 0x40, 2)
    msi.chip.raise_vector(3)
    assert word(board) == 0x43


def test_vectors_that_were_not_allowed_share(board: Board) -> None:
    msi = Msi(8)
    card = board.plug(msi)
    program_msi(card, msi, 0x40, 1)
    msi.chip.raise_vector(7)
    assert word(board) == 0x41


def test_more_vectors_than_there_are_become_all_of_them(board: Board) -> None:
    msi = Msi(2)
    card = board.plug(msi)
    program_msi(card, msi, 0x40, 5)
    assert card.config.get(msi.offset + 2, 2) >> 4 & 7 == 1


def test_nothing_leaves_while_msi_is_off_or_the_card_is_no_bus_master(board: Board) -> None:
    msi = Msi()
    card = board.plug(msi)
    program_msi(card, msi)
    card.config.poke(4, 2, 3)
    msi.chip.raise_vector(0)
    card.config.poke(4, 2, 7)
    card.config.poke(msi.offset + 2, 2, 0)
    msi.chip.raise_vector(0)
    assert word(board) == 0


def test_a_masked_msi_waits_and_comes_when_unmasked(board: Board) -> None:
    msi = Msi(2, True, True)
    card = board.plug(msi)
    program_msi(card, msi, 0x40, 1)
    card.config.poke(msi.offset + 0x10, 4, 2)
    msi.chip.raise_vector(1)
    assert word(board) == 0 and card.config.get(msi.offset + 0x14, 4) == 2
    card.config.poke(msi.offset + 0x10, 4, 0)
    assert word(board) == 0x41 and card.config.get(msi.offset + 0x14, 4) == 0


def test_enabling_msi_lowers_the_pin(board: Board) -> None:
    msi = Msi()
    card = board.plug(msi)
    card.intx.drive(1)
    program_msi(card, msi)
    assert card.intx.level == 0


def msix_card(board: Board, vectors: int = 4) -> tuple[Card, Msix]:
    msix = Msix(vectors, 1, 0, 1, 0x800)
    card = board.plug(msix)
    card.config.poke(0x14, 4, BAR)
    return card, msix


def entry(board: Board, n: int, data: int, control: int = 0, addr: int = TARGET) -> None:
    for offset, value in ((0, addr), (4, 0), (8, data), (12, control)):
        board.memory.write(BAR + 16 * n + offset, 4, value)


def enable(card: Card, msix: Msix, bits: int = 0x8000) -> None:
    card.config.poke(msix.offset + 2, 2, bits)


def test_an_msix_vector_writes_its_own_entry(board: Board) -> None:
    card, msix = msix_card(board)
    entry(board, 2, 0x1234)
    enable(card, msix)
    msix.chip.raise_vector(2)
    assert word(board) == 0x1234


def test_all_vectors_are_masked_after_reset(board: Board) -> None:
    card, msix = msix_card(board)
    entry(board, 0, 1)
    card.reset()
    card.config.poke(4, 2, 7)
    card.config.poke(0x14, 4, BAR)
    assert [board.memory.read(BAR + 16 * n + 12, 4) for n in range(4)] == [1, 1, 1, 1]
    assert board.memory.read(BAR, 4) == 0


def test_a_masked_vector_waits_in_the_pending_bits(board: Board) -> None:
    card, msix = msix_card(board)
    entry(board, 3, 7, 1)
    enable(card, msix)
    msix.chip.raise_vector(3)
    assert word(board) == 0 and board.memory.read(BAR + 0x800, 4) == 8
    board.memory.write(BAR + 16 * 3 + 12, 4, 0)
    assert word(board) == 7 and board.memory.read(BAR + 0x800, 4) == 0


def test_the_function_mask_holds_every_vector(board: Board) -> None:
    card, msix = msix_card(board)
    entry(board, 0, 5)
    entry(board, 1, 6, addr=TARGET + 4)
    enable(card, msix, 0xC000)
    msix.chip.raise_vector(0)
    msix.chip.raise_vector(1)
    assert (word(board), word(board, TARGET + 4)) == (0, 0)
    enable(card, msix)
    assert (word(board), word(board, TARGET + 4)) == (5, 6)


def test_the_table_takes_dwords_and_pairs_of_them_only(board: Board) -> None:
    _, _ = msix_card(board)
    board.memory.write(BAR, 8, 0x1122334455667788)
    assert board.memory.read(BAR, 8) == 0x1122334455667788
    board.memory.write(BAR, 1, 0)
    board.memory.write(BAR + 2, 2, 0)
    assert board.memory.read(BAR, 4) == 0x55667788
    assert board.memory.read(BAR + 2, 2) == 0


def test_a_vector_beyond_the_table_is_nobodys(board: Board) -> None:
    card, msix = msix_card(board)
    enable(card, msix)
    msix.chip.raise_vector(4)
    msix.chip.raise_vector(0xFFFFFFFF)
    assert board.memory.read(BAR + 0x800, 4) == 0


def test_state_goes_round(board: Board) -> None:
    card, msix = msix_card(board)
    entry(board, 1, 9, 1)
    enable(card, msix)
    msix.chip.raise_vector(1)
    state = card.save()
    card.reset()
    card.load(state)
    board.memory.write(BAR + 16 + 12, 4, 0)
    assert word(board) == 9


@pytest.mark.parametrize(
    "broken", [None, {}, {"table": b"", "pending": b"\0"}, {"table": bytes(64), "pending": 0}, {"table": bytes(64)}]
)
def test_a_state_of_another_shape_is_refused_with_nothing_changed(board: Board, broken: Any) -> None:
    card, msix = msix_card(board)
    entry(board, 1, 9)
    before = card.save()
    with pytest.raises(StateError):
        card.load({**before, "capabilities": {"11": broken}})
    assert card.save() == before


@pytest.mark.parametrize("vectors", [0, 3, 64])
def test_msi_has_a_power_of_two_of_vectors(vectors: int) -> None:
    with pytest.raises(BuildError):
        Msi(vectors)
