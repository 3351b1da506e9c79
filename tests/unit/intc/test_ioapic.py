"""82093AA. Entry bits are those of Intel 290566; messages leave for real local APICs."""

import pytest
from accel.clock import SteppedClock, TimerQueue
from accel.space import AddressSpace, Region
from vmrun.devices.intc.ioapic_chip import Ioapic, IoapicEoi, IoapicInputs
from vmrun.devices.intc.lapic import ApicBus, Lapic

from vmrun.errors import StateError

SVR, EOI, LDR = 0xF0, 0xB0, 0xD0
MASKED, LEVEL, REMOTE_IRR, LOGICAL = 1 << 16, 1 << 15, 1 << 14, 1 << 11


class Board:
    def __init__(self, count=2):
        clock = SteppedClock()
        self.bus = ApicBus()
        self.apics = [Lapic(self.bus, clock, TimerQueue(clock), n, n == 0) for n in range(count)]
        for n, apic in enumerate(self.apics):
            apic.write_register(SVR, 0x1FF)
            apic.write_register(LDR, 1 << (24 + n))
        self.chip = Ioapic(self.bus, 0x11)
        self.bus.set_eoi_handler(IoapicEoi(self.chip))
        self.pins = IoapicInputs(self.chip)
        self.space = AddressSpace("ioapic", Region.device("ioapic", self.chip, 0x1000))

    def entry(self, n, low, dest=0):
        self.write(0x11 + 2 * n, dest << 24)
        self.write(0x10 + 2 * n, low)

    def write(self, index, value):
        self.space.write(0, 4, index)
        self.space.write(0x10, 4, value)

    def read(self, index):
        self.space.write(0, 4, index)
        return self.space.read(0x10, 4)


@pytest.fixture
def board():
    return Board()


def test_reset_masks_all_pins(board):
    assert [board.read(0x10 + 2 * n) for n in range(24)] == [MASKED] * 24
    assert board.read(1) == 0x00170011


def test_edge_goes_to_its_destination_once(board):
    board.entry(4, 0x54, dest=1)
    board.pins.drive(4, 1)
    assert [a.ack() for a in board.apics] == [-1, 0x54]
    board.apics[1].write_register(EOI, 0)
    assert board.apics[1].ack() == -1


def test_logical_destination(board):
    board.entry(4, 0x54 | LOGICAL, dest=3)
    board.pins.drive(4, 1)
    assert [a.ack() for a in board.apics] == [0x54, 0x54]


def test_level_waits_for_eoi_and_comes_again_while_high(board):
    board.entry(11, 0x5B | LEVEL)
    board.pins.drive(11, 1)
    assert board.apics[0].ack() == 0x5B
    assert board.read(0x10 + 22) & REMOTE_IRR
    assert board.apics[0].ack() == -1
    board.apics[0].write_register(EOI, 0)
    assert board.apics[0].ack() == 0x5B
    board.pins.drive(11, 0)
    board.apics[0].write_register(EOI, 0)
    assert board.apics[0].ack() == -1
    assert not board.read(0x10 + 22) & REMOTE_IRR


def test_masked_level_is_delivered_when_unmasked_and_still_high(board):
    board.entry(11, 0x5B | LEVEL | MASKED)
    board.pins.drive(11, 1)
    assert board.apics[0].ack() == -1
    board.entry(11, 0x5B | LEVEL)
    assert board.apics[0].ack() == 0x5B


def test_nmi_entry_needs_no_vector(board):
    board.entry(2, 0x400)
    board.pins.drive(2, 1)
    assert board.apics[0].ack() == -1


def test_state_comes_back(board):
    board.entry(11, 0x5B | LEVEL)
    board.pins.drive(11, 1)
    other = Board()
    other.chip.load_state(board.chip.save())
    assert other.chip.save() == board.chip.save()


@pytest.mark.parametrize("change", [{"table": [None] * 24}, {"table": ["0"] * 24}, {"id": 1.0}, {"irr": 1 << 24}])
def test_a_state_with_what_is_no_number_is_refused(board, change):
    before = board.chip.save()
    with pytest.raises(StateError):
        board.chip.load_state({**before, **change})
    assert board.chip.save() == before
