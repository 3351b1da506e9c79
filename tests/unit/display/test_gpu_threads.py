"""virtio-gpu's control queue on the I/O thread: a large transfer lets the device lock go, and nothing overtakes it."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator

import pytest
from accel.aio import IoThread
from accel.api import DeviceLock
from accel.dma import Dma
from accel.ram import RamBlock
from accel.space import AddressSpace, Region
from vmrun.devices.display.virtio_gpu_chip import GpuChip

CREATE, FLUSH, TRANSFER, ATTACH, OK = 0x101, 0x104, 0x105, 0x106, 0x1100
BGRX, MIB = 2, 1 << 20
DESC, AVAIL, USED, REQUESTS, PIXELS = 0x1000, 0x2000, 0x3000, 0x10000, 0x400000
STATUS, SELECT, ENABLE = 0x14, 0x16, 0x1C


class Card:
    def __init__(self) -> None:
        self.ram = RamBlock("ram", 16 * MIB)
        root = Region.container("system", 0)
        root.add(Region.ram("ram", self.ram), 0)
        self.chip = GpuChip(Dma(AddressSpace("memory", root), True), [64, 16], 256 * MIB)
        self.chip.offered = 1 << 32
        self.lock = DeviceLock()
        self.thread = IoThread(self.lock)
        self.chip.serve_on(self.thread, True)
        self.thread.start()
        self.start()
        self.count = 0

    def start(self) -> None:
        with self.lock:
            for status in (0, 3):
                self.chip.access(STATUS, 1, status)
            self.chip.access(0x08, 4, 1)
            self.chip.access(0x0C, 4, 1)  # VERSION_1
            self.chip.access(STATUS, 1, 11)
            self.chip.access(SELECT, 2, 0)
            for offset, value in ((0x20, DESC), (0x28, AVAIL), (0x30, USED)):
                self.chip.access(offset, 4, value)
            self.chip.access(ENABLE, 2, 1)
            self.chip.access(STATUS, 1, 15)

    def close(self) -> None:
        with self.lock:
            self.chip.reset()
            self.chip.quit()
        self.thread.close()

    def put(self, kind: int, form: str, *values: int, more: bytes = b"") -> None:
        """A request, with room for its answer; the thread is told."""
        n, data = self.count, struct.pack("<IIQII", kind, 1, self.count, 0, 0) + struct.pack(form, *values) + more
        at = REQUESTS + n * 0x10000
        self.ram.write(at, data)
        self.ram.write(DESC + 32 * n, struct.pack("<QIHH", at, len(data), 1, 2 * n + 1))
        self.ram.write(DESC + 32 * n + 16, struct.pack("<QIHH", at + 0xF000, 24, 2, 0))
        self.ram.write(AVAIL + 4 + 2 * n, struct.pack("<H", 2 * n))
        self.count += 1
        self.ram.write(AVAIL + 2, struct.pack("<H", self.count))

    def kick(self) -> None:
        self.chip.kicks[0].notifier.notify()

    def picture(self, width: int, height: int, pieces: int = 1) -> None:
        self.put(CREATE, "<4I", 1, BGRX, width, height)
        size = width * height * 4 // pieces
        self.put(ATTACH, "<II", 1, pieces, more=b"".join(
            struct.pack("<QII", PIXELS + n * size, size, 0) for n in range(pieces)
        ))  # fmt: skip
        self.put(TRANSFER, "<4IQII", 0, 0, width, height, 0, 1, 0)
        self.put(FLUSH, "<6I", 0, 0, width, height, 1, 0)

    def answers(self) -> list[int]:
        """Codes of the answers so far, in the order in which they came."""
        (count,) = struct.unpack("<H", self.ram.read(USED + 2, 2))
        heads = [struct.unpack("<I", self.ram.read(USED + 4 + 8 * n, 4))[0] // 2 for n in range(count)]
        assert heads == list(range(count))
        return [struct.unpack("<I", self.ram.read(REQUESTS + n * 0x10000 + 0xF000, 4))[0] for n in heads]


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card()
    yield made
    made.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_large_transfer_goes_in_turns_and_nothing_overtakes_it(card: Card) -> None:
    card.ram.write(PIXELS, b"\x12\x34\x56\0" * (2 * MIB))
    card.picture(2048, 1024)
    before = card.chip.served
    card.kick()
    until(lambda: len(card.answers()) == 4)
    assert card.answers() == [OK] * 4 and card.chip.served - before >= 8
    with card.lock:
        assert card.chip.content.endswith(b"\x12\x34\x56\0" * (2 * MIB))


def test_lines_of_a_pixel_are_not_cheap(card: Card) -> None:
    card.put(CREATE, "<4I", 1, BGRX, 2, 1 << 18)
    card.put(ATTACH, "<II", 1, 1, more=struct.pack("<QII", PIXELS, 2 * MIB, 0))
    card.put(TRANSFER, "<4IQII", 0, 0, 1, 1 << 18, 0, 1, 0)
    before = card.chip.served
    card.kick()
    until(lambda: len(card.answers()) == 3)
    assert card.chip.served - before >= 64


def test_a_save_finds_it_over(card: Card) -> None:
    card.ram.write(PIXELS, b"\x12\x34\x56\0" * (2 * MIB))
    card.picture(2048, 1024)
    card.kick()
    card.thread.pause()
    with card.lock:
        card.chip.save()
        if len(card.answers()) == 3:  # the transfer was begun
            assert card.chip.content.endswith(b"\x12\x34\x56\0" * (2 * MIB))
    card.thread.resume()
    until(lambda: len(card.answers()) == 4)


def test_a_reset_forgets_it(card: Card) -> None:
    for _ in range(20):
        card.picture(2048, 1024)
        card.kick()
        with card.lock:
            card.chip.reset()
        card.ram.write(USED, bytes(4))
        card.ram.write(AVAIL, bytes(4))
        card.count = 0
        card.start()
    card.picture(64, 64)
    card.kick()
    until(lambda: len(card.answers()) == 4)
    assert card.answers() == [OK] * 4
