"""vmware-svga: the ring and its commands, what a hostile one can do, the pointer, state."""

from __future__ import annotations

import random
import struct

import pytest
from accel.ram import RamBlock
from vmrun.devices.display.svga_fifo import SvgaFifo

from tests.unit.display.test_vga_pci import Machine
from vmrun.core.surface import Surface
from vmrun.devices.display.vmware_svga import VmwareSvga
from vmrun.errors import StateError

RECT_FILL, RECT_COPY, DEFINE_CURSOR = 2, 3, 19
FIRST, BEHIND = 16, 0x10000


class Ring:
    def __init__(self, width: int = 320, height: int = 200) -> None:
        self.vram, self.block = RamBlock("vram", 1 << 20), RamBlock("ring", BEHIND)
        self.fifo = SvgaFifo(self.vram, self.block)
        self.fifo.width, self.fifo.height, self.fifo.pitch = width, height, 4 * width
        self.place(FIRST)

    def place(self, at: int, first: int = FIRST, behind: int = BEHIND) -> None:
        self.block.write(0, struct.pack("<4I", first, behind, at, at))

    def send(self, *words: int) -> bool:
        first, behind, next, _ = struct.unpack("<4I", self.block.read(0, 16))
        for word in words:
            self.block.write(next, struct.pack("<I", word))
            next = next + 4 if next + 4 < behind else first
        self.block.write(8, struct.pack("<I", next))
        return bool(self.fifo.run())

    @property
    def read(self) -> int:
        return int.from_bytes(self.block.read(12, 4), "little")

    def pixel(self, x: int, y: int) -> int:
        return int.from_bytes(self.vram.read(y * self.fifo.pitch + 4 * x, 4), "little")


@pytest.fixture
def ring() -> Ring:
    return Ring()


def test_a_command_is_done_when_all_of_it_is_there(ring: Ring) -> None:
    assert ring.send(RECT_FILL, 0x123456, 2, 3, 4) and ring.read == FIRST
    assert ring.send(5) and ring.read == FIRST + 24
    assert [ring.pixel(*at) for at in ((1, 3), (2, 3), (5, 7), (6, 7), (5, 8))] == [0, 0x123456, 0x123456, 0, 0]


def test_a_command_goes_on_at_the_rings_beginning(ring: Ring) -> None:
    ring.place(BEHIND - 8)
    assert ring.send(RECT_FILL, 7, 0, 0, 1, 1) and ring.read == FIRST + 16
    assert ring.pixel(0, 0) == 7


@pytest.mark.parametrize(
    "rectangle",
    [(0, 0, 321, 1), (320, 0, 1, 1), (0, 0, 1, 201), (0xFFFFFFFF, 0, 2, 1), (1, 0, 0xFFFFFFFF, 1), (0, 199, 1, 2)],
)
def test_what_leaves_the_picture_is_not_drawn(ring: Ring, rectangle: tuple[int, ...]) -> None:
    ring.send(RECT_FILL, 1, *rectangle)
    ring.send(RECT_COPY, 0, 0, *rectangle)
    ring.send(RECT_COPY, *rectangle[:2], 0, 0, *rectangle[2:])
    assert ring.read == FIRST + 80
    assert not any(ring.vram.read(0, ring.vram.size))


def test_a_picture_beyond_the_memory_is_not_drawn_on() -> None:
    ring = Ring(2000, 1000)
    ring.send(RECT_FILL, 1, 0, 131, 1, 1)
    assert not any(ring.vram.read(0, ring.vram.size))
    ring.send(RECT_FILL, 1, 0, 130, 1, 1)
    assert ring.pixel(0, 130) == 1


def test_much_work_is_cut_and_goes_on(ring: Ring) -> None:
    fill = (RECT_FILL, 9, 0, 0, 320, 200)
    assert not ring.send(*fill * 1000)  # 256 MB of pixels
    runs = 1
    while not ring.fifo.run():
        runs += 1
    assert ring.read == FIRST + 24000 and 200 < runs < 400


def test_a_rectangle_is_cut_and_comes_out_whole() -> None:
    ring = Ring(1024, 1024)
    ring.vram, before = RamBlock("vram", 4 << 20), random.Random(7).randbytes(4 << 20)
    ring.fifo = SvgaFifo(ring.vram, ring.block)
    ring.fifo.width, ring.fifo.height, ring.fifo.pitch = 1024, 1024, 4096
    for down in (True, False):
        ring.vram.write(0, before)
        ring.place(FIRST)
        assert not ring.send(RECT_COPY, 0, not down, 0, down, 1024, 1023)
        assert ring.read == FIRST  # what is not done is not behind the reader
        ring.fifo.width = ring.fifo.height = ring.fifo.pitch = 0  # another mode: the rectangle goes on in its own
        runs = 1
        while not ring.fifo.run():
            runs += 1
        assert runs == 3 and ring.read == FIRST + 28
        ring.fifo.width, ring.fifo.height, ring.fifo.pitch = 1024, 1024, 4096
        kept = before[4096:] if not down else before[:-4096]
        assert ring.vram.read(4096 if down else 0, 1023 * 4096) == kept


def test_a_saved_card_has_its_rectangle_whole() -> None:
    device = card()
    device.fifo.ring.write(0, struct.pack("<4I", FIRST, BEHIND, FIRST + 12 * 24, FIRST))
    device.fifo.ring.write(FIRST, struct.pack("<6I", RECT_FILL, 5, 0, 0, 500, 400) * 12)
    for register, value in ((2, 500), (3, 400), (1, 1), (20, 1), (21, 1)):
        device._set(register, value)
    assert device.busy and device.fifo.vram.read(399 * 2000, 4) == struct.pack("<I", 5)
    device.fifo.vram.write(0, bytes(1 << 20))
    stop = struct.unpack("<4I", device.fifo.ring.read(0, 16))[3]
    saved = device.save()
    assert struct.unpack("<4I", device.fifo.ring.read(0, 16))[3] == stop + 24
    assert device.fifo.vram.read(399 * 2000, 4) == struct.pack("<I", 5)
    device.reset()
    device.load(saved)
    while device._register(22):
        pass
    assert struct.unpack("<4I", device.fifo.ring.read(0, 16))[3] == FIRST + 12 * 24


@pytest.mark.parametrize("off", [(1, 0), (20, 0), (7, 16)], ids=["disabled", "without a ring", "another depth"])
def test_a_driver_that_lays_its_ring_anew_has_the_last_rectangle_behind_it(off: tuple[int, int]) -> None:
    device = card()
    device.fifo.ring.write(0, struct.pack("<4I", FIRST, BEHIND, FIRST + 12 * 24, FIRST))
    device.fifo.ring.write(FIRST, struct.pack("<6I", RECT_FILL, 5, 0, 0, 500, 400) * 12)
    for register, value in ((2, 500), (3, 400), (1, 1), (20, 1), (21, 1), off):
        device._set(register, value)
    assert not device.running
    device.fifo.ring.write(0, struct.pack("<4I", FIRST, BEHIND, FIRST + 24, FIRST))
    device.fifo.ring.write(FIRST, struct.pack("<6I", RECT_FILL, 6, 0, 0, 1, 1))
    for register, value in ((1, 1), (20, 1), (21, 1)):
        device._set(register, value)
    assert not device.busy and struct.unpack("<4I", device.fifo.ring.read(0, 16))[3] == FIRST + 24
    assert device.fifo.vram.read(0, 8) == struct.pack("<II", 6, 5)


def test_a_ring_of_nonsense_ends(ring: Ring) -> None:
    rng = random.Random(5)
    for _ in range(300):
        words = [rng.choice([rng.getrandbits(32), rng.randrange(40), rng.randrange(300)]) for _ in range(400)]
        ring.place(rng.choice([FIRST, BEHIND - 4, rng.getrandbits(32), 4 * rng.randrange(BEHIND // 4)]))
        ring.block.write(16, struct.pack("<400I", *words))
        ring.block.write(8, struct.pack("<I", rng.choice([0, BEHIND - 4, 1600, rng.getrandbits(32)])))
        for _ in range(50):
            if ring.fifo.run():
                break
        ring.fifo.pointer()


def test_a_pointer_has_a_picture(ring: Ring) -> None:
    # 1 bit: what is covered, and by which colour; the second row would be inverted
    ring.send(DEFINE_CURSOR, 1, 9, 1, 2, 2, 1, 1, 0x40, 0x40, 0x80, 0x40)
    picture = ring.fifo.pointer()
    assert ring.fifo.defined and picture is not None and picture[:4] == (2, 2, 1, 1)
    assert struct.unpack("<4I", picture[4]) == (0xFFFFFFFF, 0, 0xFF000000, 0xFF000000)
    ring.send(DEFINE_CURSOR, 1, 0, 0, 2, 1, 1, 32, 0x40, 0x112233, 0x445566)
    picture = ring.fifo.pointer()
    assert picture is not None and struct.unpack("<2I", picture[4]) == (0xFF112233, 0)
    before = ring.read
    ring.send(DEFINE_CURSOR, 1, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 1, 32)  # words without end: nothing of it is taken
    ring.send(DEFINE_CURSOR, 1, 0, 0, 257, 1, 1, 1, *[0] * 18)
    assert ring.fifo.pointer() == picture and ring.read >= before


def card() -> VmwareSvga:
    machine = Machine()
    machine.call_soon = lambda function: function()  # type: ignore[attr-defined]
    device = VmwareSvga("video0")
    device.set_props({"addr": "02.0", "vgamem_mb": 1})
    device.parent_bus = machine.bus
    device.realize(machine)  # type: ignore[arg-type]
    device.reset()
    return device


def test_a_picture_larger_than_the_memory_shows_nothing_and_breaks_nothing() -> None:
    device = card()
    for register, value in ((2, 2000), (3, 1000), (1, 1), (20, 1), (21, 1)):
        device._set(register, value)
    surface = Surface()
    device.console.scanout.update(surface, True)
    assert not surface.pixel(0, 0)


def test_a_saved_card_has_its_pointer_and_scratch_registers() -> None:
    device = card()
    device._set(1792 + 5, 77)
    device.fifo.ring.write(0, struct.pack("<4I", FIRST, BEHIND, FIRST + 40, FIRST))
    device.fifo.ring.write(FIRST, struct.pack("<10I", DEFINE_CURSOR, 1, 0, 0, 1, 1, 1, 1, 0, 0))
    for register, value in ((1, 1), (20, 1), (21, 1), (25, 3), (27, 1)):
        device._set(register, value)
    assert device.console.cursor is not None and device.console.cursor_at == (3, 0)
    saved = device.save()
    device.reset()
    assert device._register(1792 + 5) == 0 and device.fifo.pointer() is None
    device.load(saved)
    assert device._register(1792 + 5) == 77 and device.fifo.pointer() is not None
    with pytest.raises(StateError):
        device.load({**saved, "shape": b"x"})
