"""8237A pair, port 92h and port 61h through their ports on an ISA bus."""

import types

import pytest
from accel.api import Action, PyIrqSink
from accel.clock import SteppedClock, TimerQueue
from accel.ram import RamBlock
from accel.space import AddressSpace, Region

from vmrun.bus.isa import IsaBus
from vmrun.devices.misc.i8257 import I8257
from vmrun.devices.misc.pcspk import PcSpeaker
from vmrun.devices.misc.port92 import Port92
from vmrun.devices.timer.isa_pit import IsaPit
from vmrun.errors import StateError


class Board:
    def __init__(self):
        self.ram = RamBlock("ram", 1 << 20)
        system = Region.container("system", 0)
        system.add(Region.ram("ram", self.ram), 0)
        self.system_io = Region.container("io", 65536)
        self.memory = AddressSpace("memory", system)
        self.io = AddressSpace("io", self.system_io, True)
        self.virtual = SteppedClock()
        self.timers = TimerQueue(self.virtual)
        self.devices = {}
        self.isa = IsaBus("isa.0", self)

    def device(self, id):
        return self.devices[id]

    def plug(self, cls, **props):
        device = cls(props.pop("id", cls.driver))
        device.parent_bus = self.isa
        device.set_props({name.replace("_", "-"): value for name, value in props.items()})
        device.realize(self)
        device.reset()
        self.devices[device.name] = device
        return device

    def out(self, *writes):
        for port, value in writes:
            self.io.write(port, 1, value)

    def inb(self, port):
        return self.io.read(port, 1)


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def dma(board):
    return board.plug(I8257, base=0, page_base=0x80)


def program(board, mode, address=0x2000, count=0xFF, page=0x01):
    """Channel 2, as a floppy driver does."""
    board.out((0x0A, 6), (0x0C, 0), (0x04, address & 0xFF), (0x04, address >> 8))
    board.out((0x05, count & 0xFF), (0x05, count >> 8), (0x81, page), (0x0B, mode | 2), (0x0A, 2))


def test_transfer_to_memory_stops_at_terminal_count(board, dma):
    program(board, 0x44)
    dma.transfer(2, bytes(range(200)))
    assert board.inb(0x08) == 0
    dma.transfer(2, bytes(range(200)))
    assert board.ram.read(0x12000, 256) == bytes(range(200)) + bytes(range(56))
    assert board.inb(0x08) == 0x04
    assert board.inb(0x08) == 0
    assert not dma.ready(2)


def test_transfer_from_memory(board, dma):
    board.ram.write(0x12000, b"floppy sector!!!")
    program(board, 0x48, count=15)
    assert dma.transfer(2, 512) == b"floppy sector!!!"


def test_auto_initialise_starts_over(board, dma):
    program(board, 0x54, count=15)
    dma.transfer(2, b"a" * 16)
    dma.transfer(2, b"b" * 4)
    assert board.ram.read(0x12000, 16) == b"bbbb" + b"a" * 12
    assert dma.ready(2)


def test_verify_moves_nothing(board, dma):
    program(board, 0x40, count=15)
    dma.transfer(2, b"x" * 16)
    assert board.ram.read(0x12000, 16) == bytes(16)
    assert board.inb(0x08) == 0x04


def test_masked_channel_moves_nothing(board, dma):
    program(board, 0x44)
    board.out((0x0A, 6))
    assert dma.transfer(2, b"x" * 16) == b""
    assert board.ram.read(0x12000, 1) == b"\0"


def test_flip_flop_gives_low_then_high(board, dma):
    program(board, 0x44, address=0x1234)
    board.out((0x0C, 0))
    assert [board.inb(0x04), board.inb(0x04)] == [0x34, 0x12]


def test_second_controller_counts_words(board):
    dma = board.plug(I8257, base=0xC0, page_base=0x88, dshift=1)
    board.out((0xD8, 0), (0xC4, 0x00), (0xC4, 0x10), (0xC6, 7), (0xC6, 0))
    board.out((0x8B, 0x02), (0xD6, 0x45), (0xD4, 1))
    dma.transfer(1, b"0123456789abcdef")
    assert board.ram.read(0x22000, 16) == b"0123456789abcdef"


def test_master_clear_masks_all(board, dma):
    board.out((0x0E, 0), (0x0D, 0))
    assert board.inb(0x0F) & 0xF == 0xF


def test_dma_state_comes_back(board, dma):
    program(board, 0x44)
    state = dma.save()
    board.out((0x0D, 0), (0x81, 9))
    dma.load(state)
    assert dma.save() == state
    with pytest.raises(StateError):
        dma.load({**state, "mask": 256})


def test_port92_drives_a20_and_resets_on_a_rising_bit(board):
    port = board.plug(Port92)
    levels = []
    port.outputs["a20"][0].connect(PyIrqSink(lambda n, level: levels.append(level)), 0)
    assert board.io.write(0x92, 1, 2) == Action.NONE
    assert board.io.write(0x92, 1, 0) == Action.NONE
    assert levels == [1, 0]
    assert board.io.write(0x92, 1, 1) == Action.RESET
    assert board.io.write(0x92, 1, 1) == Action.NONE


def test_port92_ignores_fast_reset_when_told(board):
    port = board.plug(Port92)
    port.set_props({"fast-reset": False})
    assert board.io.write(0x92, 1, 1) == Action.NONE


def test_port_61_gates_channel_2_and_shows_its_output(board):
    board.plug(IsaPit, id="pit")
    board.plug(PcSpeaker)
    board.out((0x61, 0), (0x43, 0xB0), (0x42, 100), (0x42, 0), (0x61, 1))
    assert board.inb(0x61) & 0x21 == 0x01
    board.virtual.set_time(100_000)
    assert board.inb(0x61) & 0x21 == 0x21


def test_refresh_bit_toggles(board):
    board.plug(IsaPit, id="pit")
    board.plug(PcSpeaker)
    assert (board.inb(0x61) ^ board.inb(0x61)) & 0x10


def test_speaker_works_with_any_timer_of_its_link(board):
    gates = {2: 0}
    board.devices["pit"] = types.SimpleNamespace(
        get_out=lambda n: 1, get_gate=gates.get, set_gate=lambda n, level: gates.update({n: level})
    )
    board.plug(PcSpeaker)
    board.out((0x61, 3))
    assert gates[2] == 1
    assert board.inb(0x61) & 0x23 == 0x23
