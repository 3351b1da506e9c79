"""virtio-gpu's chip: requests as bytes, pictures that come out, what is refused, state."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from accel.api import DeviceLock
from accel.dma import Dma
from accel.ram import RamBlock
from accel.space import AddressSpace, Region
from vmrun.devices.display.virtio_gpu_chip import GpuChip, GpuScanout

from vmrun.core.surface import Scanout, Surface
from vmrun.devices.display.either import EitherScanout
from vmrun.errors import StateError

OK, UNSPECIFIED, NO_MEMORY, NO_SCANOUT, NO_RESOURCE, WRONG = 0x1100, 0x1200, 0x1201, 0x1202, 0x1203, 0x1205
BGRX, RGBA = 2, 67


class Card:
    def __init__(self, room: int = 16 << 20, outputs: int = 1) -> None:
        self.ram = RamBlock("ram", 4 << 20)
        root = Region.container("system", 0)
        root.add(Region.ram("ram", self.ram), 0)
        self.chip = GpuChip(Dma(AddressSpace("memory", root), True), [64, 16], room, (1280, 800), outputs)
        self.scanout, self.surface = GpuScanout(self.chip, DeviceLock()), Surface()

    def ask(self, kind: int, form: str = "", *values: int, more: bytes = b"") -> int:
        body = struct.pack(form, *values) if form else b""
        code: int = struct.unpack_from("<I", self.answer(kind, body + more))[0]
        return code

    def answer(self, kind: int, body: bytes = b"", flags: int = 0, fence: int = 0) -> bytes:
        answer: bytes = self.chip.answer(struct.pack("<IIQII", kind, flags, fence, 7, 0) + body)
        return answer

    def picture(self, number: int = 1, width: int = 64, height: int = 32, format: int = BGRX, at: int = 0x1000) -> None:
        assert self.ask(0x101, "<4I", number, format, width, height) == OK
        entry = struct.pack("<QII", at, width * height * 4, 0)
        assert self.ask(0x106, "<II", number, 1, more=entry) == OK

    def transfer(self, x: int, y: int, width: int, height: int, offset: int = 0, number: int = 1) -> int:
        return self.ask(0x105, "<4IQII", x, y, width, height, offset, number, 0)

    def show(self, width: int = 64, height: int = 32, number: int = 1) -> int:
        return self.ask(0x103, "<6I", 0, 0, width, height, 0, number)

    def look(self) -> Surface:
        self.scanout.update(self.surface, False)
        self.surface.publish()
        return self.surface


@pytest.fixture
def card() -> Card:
    return Card()


def test_a_picture_of_the_guests_is_shown(card: Card) -> None:
    card.picture()
    card.ram.write(0x1000, b"\x30\x20\x10\xff" * (64 * 32))
    assert card.transfer(0, 0, 64, 32) == OK
    assert card.show() == OK
    surface = card.look()
    assert (surface.width, surface.height) == (64, 32)
    assert surface.pixel(63, 31) == 0x102030


def test_only_what_was_flushed_is_drawn_anew(card: Card) -> None:
    card.picture()
    card.show()
    card.look()
    card.ram.write(0x1000, b"\xff" * (64 * 32 * 4))
    card.transfer(0, 0, 64, 32)
    assert card.ask(0x104, "<6I", 0, 4, 64, 2, 1, 0) == OK
    surface = card.look()
    assert [surface.pixel(0, y) for y in (3, 4, 5, 6)] == [0, 0xFFFFFF, 0xFFFFFF, 0]


def test_a_part_is_transferred_line_by_line(card: Card) -> None:
    card.picture(format=RGBA)
    for line in range(3):
        card.ram.write(0x1000 + 0x100 + line * 256, b"\x11\x22\x33\x44" * 2)
    assert card.transfer(10, 5, 2, 3, offset=0x100) == OK
    card.show()
    surface = card.look()
    assert [surface.pixel(x, 6) for x in (9, 10, 11, 12)] == [0, 0x112233, 0x112233, 0]
    assert [surface.pixel(10, y) for y in (4, 5, 7, 8)] == [0, 0x112233, 0x112233, 0]


def test_guest_memory_in_pieces_is_one_picture(card: Card) -> None:
    card.ask(0x101, "<4I", 1, BGRX, 64, 32)
    pieces = b"".join(struct.pack("<QII", 0x10000 + n * 0x3000, 1024, 0) for n in range(8))
    assert card.ask(0x106, "<II", 1, 8, more=pieces) == OK
    for n in range(8):
        card.ram.write(0x10000 + n * 0x3000, bytes((n, 0, 0, 0)) * 256)
    card.transfer(0, 0, 64, 32)
    card.show()
    surface = card.look()
    assert [surface.pixel(5, 4 * n) for n in range(8)] == list(range(8))


def test_a_screen_without_a_picture_is_black(card: Card) -> None:
    card.picture()
    card.ram.write(0x1000, b"\xff" * (64 * 32 * 4))
    card.transfer(0, 0, 64, 32)
    card.show()
    assert card.look().pixel(0, 0) == 0xFFFFFF
    assert card.show(number=0) == OK
    assert card.look().pixel(0, 0) == 0
    card.show()
    assert card.look().pixel(0, 0) == 0xFFFFFF
    assert card.ask(0x102, "<II", 1, 0) == OK
    assert card.look().pixel(0, 0) == 0


def test_the_driver_is_told_the_screen_and_the_monitor(card: Card) -> None:
    card.chip.set_screen(1024, 600)
    answer = card.answer(0x100)
    assert len(answer) == 24 + 16 * 24
    assert struct.unpack_from("<6I", answer, 24) == (0, 0, 1024, 600, 1, 0)
    assert card.chip.get_config()[:4] == b"\1\0\0\0"
    answer = card.answer(0x10A, bytes(8))
    assert struct.unpack_from("<IIQII", answer)[0] == 0x1104
    assert answer[32:40] == bytes.fromhex("00ffffffffffff00")


def test_a_fence_comes_back(card: Card) -> None:
    assert struct.unpack_from("<IIQI", card.answer(0x100, flags=1, fence=99)) == (0x1101, 1, 99, 7)
    assert struct.unpack_from("<IIQI", card.answer(0x100, flags=0, fence=99)) == (0x1101, 0, 0, 7)


@pytest.mark.parametrize(
    ("kind", "form", "values", "code"),
    [
        (0x101, "<4I", (0, BGRX, 8, 8), NO_RESOURCE),
        (0x101, "<4I", (1, BGRX, 8, 8), NO_RESOURCE),
        (0x101, "<4I", (2, 5, 8, 8), WRONG),
        (0x101, "<4I", (2, BGRX, 0, 8), WRONG),
        (0x101, "<4I", (2, BGRX, 0xFFFFFFFF, 0xFFFFFFFF), NO_MEMORY),
        (0x101, "<4I", (2, BGRX, 4096, 4096), NO_MEMORY),
        (0x101, "<I", (2,), WRONG),
        (0x102, "<II", (9, 0), NO_RESOURCE),
        (0x103, "<6I", (0, 0, 64, 32, 1, 1), NO_SCANOUT),
        (0x103, "<6I", (0, 0, 65, 32, 0, 1), WRONG),
        (0x103, "<6I", (0xFFFFFFFF, 0, 64, 32, 0, 1), WRONG),
        (0x103, "<6I", (0, 0, 64, 32, 0, 9), NO_RESOURCE),
        (0x104, "<6I", (0, 0xFFFFFFFF, 64, 32, 1, 0), WRONG),
        (0x105, "<4IQII", (0, 0, 64, 33, 0, 1, 0), WRONG),
        (0x105, "<4IQII", (0, 0, 64, 32, 1 << 63, 1, 0), WRONG),
        (0x106, "<II", (1, 1), UNSPECIFIED),
        (0x106, "<II", (1, 0xFFFFFFFF), UNSPECIFIED),
        (0x107, "<II", (9, 0), NO_RESOURCE),
        (0x108, "", (), UNSPECIFIED),
        (0xFFFFFFFF, "", (), UNSPECIFIED),
    ],
)
def test_what_makes_no_sense_is_refused(card: Card, kind: int, form: str, values: tuple[int, ...], code: int) -> None:
    card.picture()
    assert card.ask(kind, form, *values) == code


def test_a_request_that_is_cut_short_is_refused(card: Card) -> None:
    for size in range(24):
        assert struct.unpack_from("<I", card.chip.answer(bytes(size)))[0] == UNSPECIFIED


def test_memory_that_is_not_there_is_no_fault(card: Card) -> None:
    card.picture(at=1 << 40)
    assert card.transfer(0, 0, 64, 32) == OK
    card.show()
    assert card.look().width == 64


def test_resources_take_no_more_than_the_room(card: Card) -> None:
    made = 0
    while card.ask(0x101, "<4I", made + 1, BGRX, 1, 1) == OK:
        made += 1
    assert made == (16 << 20) // 4096
    assert card.ask(0x102, "<II", 1, 0) == OK
    assert card.ask(0x101, "<4I", 1, BGRX, 1, 1) == OK


def test_any_request_leaves_the_rest_alone(card: Card) -> None:
    rng = random.Random(5)
    numbers = [0, 1, 2, 3, 16, 64, 4096, 0x7FFFFFFF, 0xFFFFFFFF]
    for _ in range(5000):
        kind = rng.choice([*range(0x100, 0x10C), 0x300, 0x301])
        card.answer(kind, struct.pack("<12I", *(rng.choice(numbers) for _ in range(12)))[: rng.choice([48, 48, 8, 3])])
        if rng.random() < 0.05:
            card.look()
    assert 0 <= card.chip.used <= 16 << 20


def test_pictures_come_back_after_a_restore(card: Card) -> None:
    card.picture()
    card.ram.write(0x1000, b"\x30\x20\x10\xff" * (64 * 32))
    card.transfer(0, 0, 64, 32)
    card.show()
    other = Card()
    other.chip.content = card.chip.content
    assert other.look().pixel(0, 0) == 0x102030
    other.ram.write(0x1000, b"\xff" * (64 * 32 * 4))
    assert other.transfer(0, 0, 64, 32) == OK


def test_a_state_that_cannot_be_is_refused(card: Card) -> None:
    card.picture()
    card.show()
    content = card.chip.content
    for wrong in (content[:-40], content[:30], content[:36] + bytes(20) + content[56:], _with(content, 4, 99)):
        with pytest.raises(StateError):
            card.chip.content = wrong
        assert card.chip.content == content


def _with(content: bytes, at: int, value: Any) -> bytes:
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


class OneColour(Scanout):
    def __init__(self, colour: int) -> None:
        self.colour = colour

    def update(self, surface: Surface, full: bool, log: object = None) -> None:
        if full:
            surface.fill(0, 0, surface.width, surface.height, self.colour)


def test_the_vga_has_the_screen_until_the_driver_takes_it_and_after_its_reset(card: Card) -> None:
    gpu, surface = GpuScanout(card.chip, DeviceLock()), Surface(64, 32)
    either = EitherScanout(OneColour(0x112233), gpu)
    either.update(surface, True)
    assert surface.pixel(0, 0) == 0x112233
    card.picture()
    assert not gpu.active
    card.ram.write(0x1000, b"\x66\x55\x44\0" * 64 * 32)
    card.transfer(0, 0, 64, 32)
    card.show()
    either.update(surface, False)
    assert surface.pixel(0, 0) == 0x445566
    assert card.ask(0x103, "<6I", 0, 0, 0, 0, 0, 0) == OK  # it shows nothing, and keeps the screen
    saved = card.chip.content
    either.update(surface, False)
    assert surface.pixel(0, 0) == 0 and gpu.active
    card.chip.forget()
    either.update(surface, False)
    assert surface.pixel(0, 0) == 0x112233
    card.chip.content = saved
    assert gpu.active


def test_the_memory_of_pictures_is_given_back_by_the_main_loop(card: Card) -> None:
    """One such at a time: a guest that makes and forgets pictures faster than that does not pile them up."""
    soon: list[Any] = []
    card.chip.call_soon = soon.append
    for number in (1, 2, 3):
        card.picture(number)
    assert card.ask(0x102, "<II", 1, 0) == OK and len(soon) == 1
    assert card.ask(0x102, "<II", 2, 0) == OK and len(soon) == 1
    soon.pop()()
    card.chip.forget()
    assert len(soon) == 1 and card.chip.used == 0
    soon.pop()()
    card.chip.forget()
    assert not soon


def test_outputs_are_saved_each_with_what_it_shows() -> None:
    cards = Card(outputs=3), Card(outputs=3)
    one, other = cards
    one.picture(1)
    one.picture(2, 80, 40)
    one.chip.set_screen(1024, 600, 2)
    assert one.ask(0x103, "<6I", 0, 0, 64, 32, 0, 1) == OK
    assert one.ask(0x103, "<6I", 8, 4, 32, 16, 2, 2) == OK
    other.chip.content = content = one.chip.content
    assert [(row.enabled, row.shown, row.part, row.screen) for row in other.chip.outputs] == [
        (True, 1, (0, 0, 64, 32), (1280, 800)), (False, 0, (0, 0, 0, 0), (0, 0)),
        (True, 2, (8, 4, 32, 16), (1024, 600)),
    ]  # fmt: skip
    assert other.chip.content == content and other.answer(0x100) == one.answer(0x100)
    for wrong in (content[:-4], content + bytes(4), content[:-28] + struct.pack("<7I", 3, 0, 0, 32, 16, 0, 0)):
        with pytest.raises(StateError):
            other.chip.read_content(wrong)
    for outputs in (1, 4):
        with pytest.raises(StateError):
            Card(outputs=outputs).chip.read_content(content)


def test_each_output_has_a_pointer() -> None:
    card, heard = Card(outputs=2), []
    for number, output in enumerate(card.chip.outputs):
        output.on_pointer = lambda move, picture, at, number=number: heard.append((number, move, at))
    for number in (1, 0, 2):
        assert card.ask(0x301, "<8I", number, 5, 6, 0, 0, 0, 0, 0) == OK
    assert heard == [(1, True, (5, 6)), (0, True, (5, 6))]
