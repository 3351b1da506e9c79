"""The same registers, accesses and blits given to QEMU's cirrus-vga and to vmrun's: registers, video memory and
pictures must agree.

Not compared: the contents of the retrace register, and bits to be expanded that lie where the blit draws.
"""

from __future__ import annotations

import base64
import pathlib
import random
from collections.abc import Iterator

import pytest
from accel.api import DeviceLock
from accel.clock import SteppedClock
from accel.ram import RamBlock
from vmrun.devices.display.cirrus import Cirrus
from vmrun.devices.display.cirrus_regions import CirrusFeed, CirrusLinear, CirrusRegisters
from vmrun.devices.display.cirrus_scanout import CirrusScanout
from vmrun.devices.display.vga_regions import VgaPorts, VgaWindow

from tests.peers.oracle import Qemu, needs_qemu
from tests.peers.test_screen_qemu import MODES, ports_of
from vmrun.core.surface import Surface

pytestmark = [pytest.mark.peer, needs_qemu]

VRAM, BAR0, BAR1 = 4 << 20, 0xE0000000, 0xE8000000
CARD = 2 << 11
WATCHED = 0x20000  # bytes of video memory that tests look at
OPERATIONS = [
    0x00, 0x05, 0x06, 0x09, 0x0B, 0x0D, 0x0E, 0x50, 0x59, 0x6D, 0x90, 0x95, 0xAD, 0xD0, 0xD6, 0xDA,
]  # fmt: skip
BLIT = 0x100  # of BAR 1


class Both:
    """A card of each. `run` gives both the same accesses: (kind, address, value); kind is outb, inb, or read and write
    in "window", "linear", "feed", "registers" with a size.
    """

    def __init__(self, qemu: Qemu, directory: pathlib.Path) -> None:
        self.qemu, self.file = qemu, directory / "screen.ppm"
        self.block = RamBlock("vram", VRAM)
        self.chip = Cirrus(self.block, SteppedClock())
        self.ports, self.window = VgaPorts(self.chip), VgaWindow(self.chip)
        self.linear, self.registers = CirrusLinear(self.chip), CirrusRegisters(self.chip)
        self.feed = CirrusFeed(self.chip)
        self.scanout, self.surface = CirrusScanout(self.chip, DeviceLock()), Surface()
        for offset, value in ((0x10, BAR0), (0x14, BAR1), (0x04, 3)):
            qemu.outl(0xCF8, 0x80000000 | CARD | offset)
            qemu.outl(0xCFC, value)

    def run(self, steps: list[tuple[str, int, int]]) -> None:
        """QEMU's answers must be ours."""
        lines, own = [], []
        for kind, address, value in steps:
            name, _, where = kind.partition(" ")
            if name == "outb":
                self.ports.store(address - 0x3B0, 1, value)
                lines.append(f"outb {address:#x} {value:#x}")
                own.append(None)
                continue
            if name == "inb":
                own.append(self.ports.load(address - 0x3B0, 1))
                lines.append(f"inb {address:#x}")
                continue
            region, base = {
                "window": (self.window, 0xA0000), "linear": (self.linear, BAR0), "feed": (self.feed, BAR0 + 0x1000000),
                "registers": (self.registers, BAR1),
            }[where]  # fmt: skip
            size = {"b": 1, "w": 2, "l": 4}[name[-1]]
            parts = range(0, size, region.max_access) if region.max_access < size else [0]
            step = min(size, region.max_access)
            if name.startswith("write"):
                for part in parts:
                    region.store(address + part, step, value >> 8 * part & ((1 << 8 * step) - 1))
                lines.append(f"{name} {base + address:#x} {value:#x}")
                own.append(None)
            else:
                own.append(sum(region.load(address + part, step) << 8 * part for part in parts))
                lines.append(f"{name} {base + address:#x}")
        for step, mine, answer in zip(steps, own, self.qemu.ask_all(lines), strict=True):
            if mine is not None and step[1] != 0x3DA:
                theirs = int(answer, 0)
                assert mine == theirs, (step, hex(mine), hex(theirs))

    def pairs(self, port: int, values: dict[int, int]) -> list[tuple[str, int, int]]:
        return [
            step for index, value in values.items() for step in (("outb", port, index), ("outb", port + 1, value))
        ]

    def fill(self, offset: int, data: bytes) -> None:
        self.block.write(offset, data)
        for at in range(0, len(data), 65536):
            part = base64.b64encode(data[at : at + 65536]).decode()
            self.qemu.ask(f"b64write {BAR0 + offset + at:#x} {len(data[at : at + 65536]):#x} {part}")

    def compare(self, what: object) -> None:
        theirs = base64.b64decode(self.qemu.ask(f"b64read {BAR0:#x} {WATCHED:#x}"))
        mine = self.block.read(0, WATCHED)
        if mine != theirs:
            wrong = [n for n in range(WATCHED) if mine[n] != theirs[n]]
            first = wrong[0]
            mine_at, theirs_at = mine[first : first + 8].hex(), theirs[first : first + 8].hex()
            raise AssertionError(f"{what}: {len(wrong)} bytes, first {first:#x}: {mine_at} for {theirs_at}")

    def blit(self, **keys: int) -> list[tuple[str, int, int]]:
        """Registers by the blitter's memory: width and height in bytes and lines."""
        width, height = keys["width"] - 1, keys["height"] - 1
        rows = {
            0x08: width, 0x09: width >> 8, 0x0A: height, 0x0B: height >> 8, 0x0C: keys["pitch"],
            0x0D: keys["pitch"] >> 8,
            0x0E: keys["source_pitch"], 0x0F: keys["source_pitch"] >> 8, 0x10: keys["to"], 0x11: keys["to"] >> 8,
            0x12: keys["to"] >> 16, 0x14: keys["start"], 0x15: keys["start"] >> 8, 0x16: keys["start"] >> 16,
            0x17: keys.get("skip", 0), 0x18: keys["mode"], 0x1A: keys["operation"], 0x1B: keys.get("extension", 0),
            0x1C: keys.get("key", 0), 0x1D: keys.get("key", 0) >> 8,
        }  # fmt: skip
        for n in range(4):
            rows[n] = keys.get("back", 0) >> 8 * n
            rows[4 + n] = keys.get("front", 0) >> 8 * n
        steps = [("writeb registers", BLIT + at, value & 0xFF) for at, value in rows.items()]
        return [*steps, ("writeb registers", BLIT + 0x40, 0), ("writeb registers", BLIT + 0x40, 2)]

    def done(self) -> list[tuple[str, int, int]]:
        return [("readb registers", BLIT + 0x40, 0)]

    def stop(self) -> list[tuple[str, int, int]]:
        return [("writeb registers", BLIT + 0x40, 4), ("writeb registers", BLIT + 0x40, 0)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with Qemu("pc", "-device", "cirrus-vga,addr=2,romfile=,vgamem_mb=4") as qemu:
        pair = Both(qemu, tmp_path_factory.mktemp("cirrus"))
        pair.run([("outb", 0x3C2, 0x67), *pair.pairs(0x3C4, {6: 0x12, 7: 0x01})])
        yield pair


def begin(both: Both, seed: int, depth: int = 0x01) -> random.Random:
    rng = random.Random(seed)
    both.run([*both.stop(), *both.pairs(0x3C4, {6: 0x12, 7: depth, 0x17: 0}), *both.pairs(0x3CE, {5: 0, 0x0B: 0})])
    both.fill(0, rng.randbytes(WATCHED))
    return rng


def some(rng: random.Random, mode: int, operation: int) -> dict[str, int]:
    """A blit inside what is watched; only copies overlap."""
    pixel = (mode >> 4 & 3) + 1
    width, height = rng.randrange(1, 60) * pixel, rng.randrange(1, 20)
    pitch, source_pitch = rng.randrange(width, 256), rng.randrange(width, 256)
    to, start = rng.randrange(0x2000, 0xE000), rng.randrange(0x2000, 0xE000)
    if mode & 0xC0:
        start += 0x10000
    return {
        "width": width, "height": height, "pitch": pitch, "source_pitch": source_pitch, "to": to, "start": start,
        "mode": mode, "operation": operation, "front": rng.getrandbits(32), "back": rng.getrandbits(32),
        "key": rng.getrandbits(16), "extension": rng.choice([0, 0, 2]),
    }  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
def test_copies_by_each_raster_operation(both: Both, operation: int) -> None:
    rng = begin(both, operation)
    for mode in (0x00, 0x01, 0x10, 0x21, 0x30, 0x08, 0x09, 0x18, 0x19):
        for _ in range(3):
            values = some(rng, mode, operation)
            both.run([*both.blit(**values), *both.done()])
            both.compare(values)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_colour_expansion_by_each_raster_operation(both: Both, operation: int) -> None:
    rng = begin(both, operation + 1000)
    for mode in (0x80, 0x90, 0xA0, 0xB0, 0x88, 0x98, 0xA8, 0xB8):
        for _ in range(3):
            values = {**some(rng, mode, operation), "skip": rng.randrange(32)}
            both.run([*both.blit(**values), *both.done()])
            both.compare(values)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("depth", [0x01, 0x05, 0x07, 0x09])
def test_patterns_by_each_raster_operation(both: Both, operation: int, depth: int) -> None:
    rng = begin(both, operation + 2000, depth)
    for mode in (0x40, 0x50, 0x60, 0x70, 0xC0, 0xD0, 0xE0, 0xF0, 0xC8, 0xD8, 0xE8, 0xF8):
        values = {**some(rng, mode, operation), "skip": rng.choice([0, 0, 1, 3, 7, 30])}
        both.run([*both.blit(**values), *both.done()])
        both.compare(values)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_solid_fills_by_each_raster_operation(both: Both, operation: int) -> None:
    rng = begin(both, operation + 3000)
    for mode in (0xC0, 0xD0, 0xE0, 0xF0):
        for _ in range(3):
            values = {**some(rng, mode, operation), "extension": 4}
            both.run([*both.blit(**values), *both.done()])
            both.compare(values)


@pytest.mark.parametrize("where", ["window", "linear", "feed"])
def test_bytes_that_the_processor_sends(both: Both, where: str) -> None:
    rng = begin(both, 4000)
    for mode in (
        0x04,
        0x14,
        0x24,
        0x34,
        0x84,
        0x94,
        0xA4,
        0xB4,
        0x8C,
        0xBC,
        0x0C,
        0x1C,
        0x44,
        0x74,
        0xC4,
        0xF4,
        0xCC,
    ):
        values = {**some(rng, mode, rng.choice(OPERATIONS)), "skip": rng.randrange(4)}
        both.run([*both.blit(**values), *both.done()])
        lines = rng.randrange(values["height"] * 70)
        both.run([(f"writel {where}", 4 * rng.randrange(64), rng.getrandbits(32)) for _ in range(lines)])
        both.run([*both.done(), *both.stop()])
        both.compare(values)


def test_blits_that_lead_outside_are_refused_alike(both: Both) -> None:
    rng = begin(both, 5000)
    for _ in range(60):
        values = {
            **some(
                rng, rng.choice([0x00, 0x01, 0x08, 0x40, 0x80, 0xC0, 0x02, 0x06, 0x28, 0x38]), rng.choice(OPERATIONS)
            ),
            "extension": rng.choice([0, 4]),
            rng.choice(["width", "height", "pitch", "source_pitch", "to", "start"]): rng.choice(
                [1, 0x2000, 0x3FFFFF, 0]
            )
            or 1,
        }
        both.run([*both.blit(**values), *both.done(), *both.stop()])
        both.compare(values)


def test_a_blit_starts_by_itself_when_it_is_told_to(both: Both) -> None:
    rng = begin(both, 6000)
    values = some(rng, 0, 0x0D)
    both.run([*both.blit(**values), ("writeb registers", BLIT + 0x40, 0x80)])
    both.run(
        [("writeb registers", BLIT + 0x10, 0x77), ("writeb registers", BLIT + 0x12, 0), *both.done(), *both.stop()]
    )
    both.compare(values)


def test_registers_read_back_the_same(both: Both) -> None:
    rng = random.Random(7000)
    begin(both, 7000)
    steps: list[tuple[str, int, int]] = []
    for _ in range(3000):
        port, index = rng.choice(
            [(0x3C4, rng.randrange(256)), (0x3CE, rng.randrange(0x40)), (0x3D4, rng.randrange(64))]
        )
        if (port, index) in {(0x3CE, 0x31), (0x3CE, 0x2A), (0x3D4, 0x11)}:
            continue
        steps += [
            ("outb", port, index),
            ("outb", port + 1, rng.randrange(256)),
            ("inb", port + 1, 0),
            ("inb", port, 0),
        ]
    for port in (0x3C4, 0x3CE, 0x3D4):
        for index in range(256):
            steps += [("outb", port, index), ("inb", port + 1, 0)]
    steps += [("inb", port, 0) for port in (*range(0x3B0, 0x3C6), *range(0x3C7, 0x3DA))]
    both.run(steps)


def test_the_hidden_registers_of_the_dac(both: Both) -> None:
    rng = begin(both, 8000)
    steps: list[tuple[str, int, int]] = []
    for _ in range(2000):
        steps.append(rng.choice([
            ("inb", 0x3C6, 0), ("inb", 0x3C6, 0), ("inb", 0x3C6, 0), ("outb", 0x3C6, rng.randrange(256)),
            ("inb", 0x3C8, 0),
            ("outb", 0x3C8, rng.randrange(256)), ("outb", 0x3C7, rng.randrange(256)), ("outb", 0x3C9,
            rng.randrange(64)),
            ("inb", 0x3C9, 0), ("outb", 0x3C4, 0x12), ("outb", 0x3C5, rng.choice([0, 2])),
        ]))  # fmt: skip
    both.run(steps)


@pytest.mark.parametrize("seven", [0x00, 0x01])
def test_the_window_and_its_banks(both: Both, seven: int) -> None:
    rng = begin(both, 9000)
    for _ in range(40):
        settings = {
            5: rng.choice([0, 0, 1, 4, 5, 2]),
            9: rng.randrange(8),
            10: rng.randrange(8),
            0x0B: rng.choice([0, 1, 2, 4, 5, 0x14, 0x21, 0x15]),
        }
        steps = both.pairs(0x3C4, {7: seven, 2: rng.randrange(16), 4: rng.choice([2, 6, 14])})
        steps += both.pairs(
            0x3CE, {**settings, 6: 5, 1: rng.randrange(256), 0: rng.randrange(256), 0x11: rng.randrange(256)}
        )
        for _ in range(20):
            address = rng.choice([rng.randrange(0x10000), rng.randrange(0x200), rng.randrange(0x20000)])
            steps.append((f"write{rng.choice('bwl')} window", address & ~3, rng.getrandbits(32)))
            steps[-1] = (*steps[-1][:2], steps[-1][2] & {"b": 0xFF, "w": 0xFFFF, "l": 0xFFFFFFFF}[steps[-1][0][5]])
            steps.append((f"read{rng.choice('bwl')} window", address & ~3, 0))
        both.run(steps)
        both.run(both.pairs(0x3CE, {5: 0, 0x0B: 0}))
        both.compare(settings)


def test_the_linear_memory_in_its_modes(both: Both) -> None:
    rng = begin(both, 10000)
    for _ in range(40):
        settings = {
            5: rng.choice([0, 4, 5]),
            0x0B: rng.choice([0, 2, 4, 0x14]),
            0: rng.randrange(256),
            1: rng.randrange(256),
        }
        steps = [*both.pairs(0x3C4, {0x17: rng.choice([0, 0x44])}), *both.pairs(0x3CE, settings)]
        for _ in range(20):
            address = rng.choice([rng.randrange(0x4000), rng.randrange(0x4000), VRAM - 0x80]) & ~3
            if address < 0x4000:
                steps.append(("writel linear", address, rng.getrandbits(32)))
            steps.append(("readl linear", address, 0))
        both.run(steps)
        both.run([*both.pairs(0x3C4, {0x17: 0}), *both.pairs(0x3CE, {5: 0, 0x0B: 0})])
        both.compare(settings)


# --- pictures -------------------------------------------------------------------------------------------------------


def picture(both: Both) -> None:
    both.qemu.qmp(("screendump", {"filename": str(both.file)}))
    kind, size, most, pixels = both.file.read_bytes().split(b"\n", 3)
    both.scanout.update(both.surface, False)
    assert size.decode() == f"{both.surface.width} {both.surface.height}"
    own = bytes(both.surface.rgb())
    if own != pixels:
        wrong = [n // 3 for n in range(0, len(own), 3) if own[n : n + 3] != pixels[n : n + 3]]
        y, x = divmod(wrong[0], both.surface.width)
        mine, theirs = (data[3 * wrong[0] :][:3].hex() for data in (own, pixels))
        raise AssertionError(f"{len(wrong)} pixels differ, first at {x},{y}: {mine} for {theirs}")


def show(both: Both, seven: int, dac: int, pitch: int, width: int = 640, height: int = 480) -> None:
    """A packed mode on top of the VGA's 640 x 480."""
    steps = [("outb", port, value) for port, value in ports_of(MODES["12h"], random.Random(9).randbytes(768))]
    both.run([("inb", 0x3DA, 0), *steps])
    both.run([("inb", 0x3C8, 0), *[("inb", 0x3C6, 0)] * 4, ("outb", 0x3C6, dac)])
    over = (height - 1) >> 7 & 2 | (height - 1) >> 3 & 0x40
    cr = {
        1: width // 8 - 1,
        7: over | 0x10,
        0x12: (height - 1) & 0xFF,
        0x13: pitch // 8 & 0xFF,
        0x1B: (pitch // 8 >> 4 & 0x10) | 0x22,
    }
    both.run(
        [
            *both.pairs(0x3C4, {6: 0x12, 7: seven, 4: 0x0E}),
            *both.pairs(0x3D4, {0x11: 0, **cr}),
            *both.pairs(0x3CE, {5: 0x40, 6: 5}),
        ]
    )


DEPTHS = [(0x01, 0, 1), (0x07, 0xC0, 2), (0x07, 0xC1, 2), (0x05, 0xC5, 3), (0x09, 0xC5, 4)]


@pytest.mark.parametrize("name", ["03h", "04h", "0dh", "12h", "13h"])
def test_the_vgas_own_modes_look_the_same(both: Both, name: str) -> None:
    rng = begin(both, 13000)
    cells = [(rng.choice([*range(0xB0), *range(0xC0, 256)]), rng.randrange(128)) for _ in range(8192)]
    font = rng.randbytes(8192)
    both.fill(0, b"".join(bytes((*cell, font[n], 0)) for n, cell in enumerate(cells)) + rng.randbytes(0x20000))
    both.run([*both.pairs(0x3C4, {6: 0x12, 7: 0}), *both.pairs(0x3D4, {0x1A: 0, 0x1B: 0, 0x1D: 0})])
    steps = [("outb", port, value) for port, value in ports_of(MODES[name], random.Random(9).randbytes(768))]
    both.run([("inb", 0x3DA, 0), *steps])
    picture(both)


@pytest.mark.parametrize(("seven", "dac", "size"), DEPTHS)
def test_packed_modes_look_the_same(both: Both, seven: int, dac: int, size: int) -> None:
    rng = begin(both, 11000)
    both.fill(0, rng.randbytes(0x140000))
    show(both, seven, dac, 640 * size)
    picture(both)
    # panned into the memory, by all bits of the start address
    both.run(both.pairs(0x3D4, {0x0C: 0x12, 0x0D: 0x34, 0x1B: 0x23 | (640 * size // 8 >> 4 & 0x10), 0x1D: 0}))
    picture(both)
    both.run(both.pairs(0x3D4, {0x0C: 0, 0x0D: 0, 0x1B: 0x22 | (640 * size // 8 >> 4 & 0x10)}))


def test_interlaced_modes_are_twice_as_high(both: Both) -> None:
    rng = begin(both, 12000)
    both.fill(0, rng.randbytes(0x140000))
    show(both, 0x01, 0, 640, height=240)
    both.run(both.pairs(0x3D4, {0x1A: 1}))
    picture(both)
    both.run(both.pairs(0x3D4, {0x1A: 0}))


@pytest.mark.parametrize("large", [False, True])
def test_the_pointer_is_drawn_the_same(both: Both, large: bool) -> None:
    rng = begin(both, 13000)
    both.fill(0, rng.randbytes(640 * 480))
    both.fill(VRAM - 16384, rng.randbytes(16384))
    show(both, 0x01, 0, 640)
    both.run([*both.pairs(0x3C4, {0x12: 2}), ("outb", 0x3C8, 0), *[("outb", 0x3C9, n) for n in (1, 20, 63)]])
    both.run([("outb", 0x3C8, 15), *[("outb", 0x3C9, n) for n in (40, 62, 3)]])
    for x, y, pattern in ((100, 50, 0), (3, 470, 5), (630, 1, 63), (700, 20, 3), (50, 600, 9), (101, 52, 7)):
        steps = both.pairs(0x3C4, {0x12: 5 if large else 1, 0x13: pattern})
        both.run([*steps, *both.pairs(0x3C4, {0x10 | (x & 7) << 5: x >> 3, 0x11 | (y & 7) << 5: y >> 3})])
        picture(both)
    both.run(both.pairs(0x3C4, {0x12: 0}))
    picture(both)
