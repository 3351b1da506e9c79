"""8259A pair, wired as on a PC. Command words are those of Intel 231468."""

import pytest
from accel.clock import SteppedClock, TimerQueue
from accel.space import AddressSpace, Region
from vmrun.devices.intc.i8259 import I8259, I8259Ack, I8259Inputs
from vmrun.devices.intc.lapic import ApicBus, Lapic

from vmrun.errors import StateError


class Processor:
    """A local APIC that is off passes the 8259A's interrupt and acknowledge cycle through."""

    def __init__(self, chips):
        clock = SteppedClock()
        self.apic = Lapic(ApicBus(), clock, TimerQueue(clock), 0, True)
        self.apic.pic = I8259Ack(chips[0])
        self.apic.write_msr(0x1B, 0xFEE00100)
        self.apic.drive(0, 1)

    def ack(self):
        return self.apic.ack()


class Pair:
    def __init__(self, icw4=0x01):
        self.chips = [I8259(), I8259()]
        self.chips[0].slave = self.chips[1]
        for chip, mask in zip(self.chips, (0xF8, 0xDE), strict=True):
            chip.elcr_mask = mask
            chip.reset()
        self.inputs = [I8259Inputs(chip) for chip in self.chips]
        self.chips[1].output.connect(self.inputs[0], 2)
        self.ports = [AddressSpace("pic", Region.device("pic", chip, 2)) for chip in self.chips]
        self.cpu = Processor(self.chips)
        for n, base in ((0, 0x08), (1, 0x70)):
            for port, value in ((0, 0x11), (1, base), (1, 4 if n == 0 else 2), (1, icw4), (1, 0)):
                self.write(n, port, value)

    def write(self, n, port, value):
        self.ports[n].write(port, 1, value)

    def read(self, n, port=0):
        return self.ports[n].read(port, 1)

    def irq(self, n, level=1):
        self.inputs[n >> 3].drive(n & 7, level)

    def pulse(self, n):
        self.irq(n, 1)
        self.irq(n, 0)

    @property
    def int(self):
        return self.chips[0].output.level

    def ack(self):
        return self.cpu.ack()


@pytest.fixture
def pair():
    return Pair()


def test_interrupt_gives_its_vector_and_int_falls(pair):
    pair.pulse(1)
    assert pair.int == 1
    assert pair.ack() == 0x09
    assert pair.int == 0


def test_slave_vector_through_the_cascade(pair):
    pair.pulse(12)
    assert pair.ack() == 0x74
    pair.write(0, 0, 0x0B)
    assert pair.read(0) == 0x04


def test_lower_number_preempts(pair):
    pair.pulse(3)
    assert pair.ack() == 0x0B
    pair.pulse(4)
    assert pair.int == 0
    pair.pulse(0)
    assert pair.ack() == 0x08


def test_eoi_lets_the_next_in(pair):
    pair.pulse(3)
    pair.pulse(4)
    pair.ack()
    pair.write(0, 0, 0x20)
    assert pair.ack() == 0x0C


def test_specific_eoi(pair):
    pair.pulse(3)
    pair.ack()
    pair.write(0, 0, 0x63)
    pair.write(0, 0, 0x0B)
    assert pair.read(0) == 0


def test_mask_holds_interrupts(pair):
    pair.write(0, 1, 0x08)
    pair.pulse(3)
    assert pair.int == 0
    pair.write(0, 1, 0)
    assert pair.ack() == 0x0B


def test_edge_counts_once_while_the_line_is_high(pair):
    pair.irq(3)
    pair.ack()
    pair.write(0, 0, 0x20)
    assert pair.int == 0


def test_level_input_asks_again_after_eoi(pair):
    pair.chips[1].set_elcr(0xFF)
    assert pair.chips[1].get_elcr() == 0xDE
    pair.irq(11)
    assert pair.ack() == 0x73
    pair.write(1, 0, 0x20)
    pair.write(0, 0, 0x20)
    assert pair.ack() == 0x73
    pair.irq(11, 0)
    pair.write(1, 0, 0x20)
    pair.write(0, 0, 0x20)
    assert pair.int == 0


def test_spurious_interrupts_are_7_and_15(pair):
    assert pair.ack() == 0x0F
    pair.chips[1].set_elcr(0x08)
    pair.irq(11)
    pair.irq(11, 0)
    assert pair.ack() == 0x77


def test_automatic_eoi():
    pair = Pair(icw4=0x03)
    pair.pulse(3)
    assert pair.ack() == 0x0B
    pair.write(0, 0, 0x0B)
    assert pair.read(0) == 0


def test_rotation_on_eoi_puts_the_served_last(pair):
    pair.pulse(3)
    pair.ack()
    pair.write(0, 0, 0xA0)
    pair.pulse(3)
    pair.pulse(4)
    assert pair.ack() == 0x0C


def test_set_priority(pair):
    pair.write(0, 0, 0xC4)
    pair.pulse(4)
    pair.pulse(5)
    assert pair.ack() == 0x0D


def test_special_mask_mode_lets_lower_ones_in(pair):
    pair.pulse(3)
    pair.ack()
    pair.write(0, 0, 0x68)
    pair.write(0, 1, 0x08)
    pair.pulse(5)
    assert pair.ack() == 0x0D


def test_poll(pair):
    pair.pulse(5)
    pair.write(0, 0, 0x0C)
    assert pair.read(0) == 0x85
    pair.write(0, 0, 0x0C)
    assert pair.read(0) == 0


def test_special_fully_nested_lets_a_higher_slave_input_in():
    pair = Pair(icw4=0x11)
    pair.pulse(12)
    assert pair.ack() == 0x74
    pair.pulse(8)
    assert pair.ack() == 0x70


def test_irr_and_isr_are_read_by_choice(pair):
    pair.write(0, 1, 0xFF)
    pair.pulse(6)
    pair.write(0, 0, 0x0A)
    assert pair.read(0) == 0x40
    pair.write(0, 0, 0x0B)
    assert pair.read(0) == 0
    assert pair.read(0, 1) == 0xFF


def test_state_comes_back(pair):
    pair.pulse(3)
    other = Pair()
    other.chips[0].load_state(pair.chips[0].save())
    assert other.chips[0].save() == pair.chips[0].save()
    assert other.ack() == 0x0B


def test_impossible_state_is_refused(pair):
    with pytest.raises(StateError):
        pair.chips[0].load_state({**pair.chips[0].save(), "init_step": 9})
