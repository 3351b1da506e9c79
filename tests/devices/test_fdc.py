"""The floppy disk controller (Intel 82077AA, 82078): vmrun's beside QEMU's, through the FIFO and by DMA."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import pytest

from tests.devices.differences import DIFFERENCES
from tests.peers.oracle import QEMU
from vmrun.machine import media
from vmrun.testing import QTest, QtestCommands, QtestProgram

SRA, DOR, TDR, MSR, FIFO, DIR = 0x3F0, 0x3F2, 0x3F3, 0x3F4, 0x3F5, 0x3F7
RQM, DIO, BUSY = 0x80, 0x40, 0x10
SECTORS = 2880
READ, WRITE, SEEK, SENSE, RECALIBRATE, SPECIFY = 0xE6, 0xC5, 0x0F, 0x08, 0x07, 0x03
# commands → bytes of parameters; those that QEMU and vmrun answer differently stand in the tests of their own
PARAMETERS = {
    0x06: 8, 0x46: 8, 0xE6: 8, 0x0F: 2, 0x08: 0, 0x07: 1, 0x02: 8, 0x42: 8, 0x2E: 0, 0x0C: 8,
    0x09: 8, 0x04: 1, 0x12: 1, 0x13: 3, 0x17: 2, 0x33: 1, 0x8F: 2, 0xCF: 2, 0x14: 0, 0x94: 0, 0x0E: 0, 0x10: 0, 0x18: 0,
    0xCD: 10, 0x1F: 0, 0x00: 0, 0x01: 0, 0x15: 0, 0x3E: 0,
}  # fmt: skip


def images(directory: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    rng = random.Random(9)
    first, second = directory / "a.img", directory / "b.img"
    first.write_bytes(rng.randbytes(SECTORS * 512))
    second.write_bytes(rng.randbytes(1440 * 512))
    return first, second


def ours(directory: pathlib.Path, machine: str = "pc-i440fx-7.2") -> QTest:
    first, second = images(directory)
    keys = {"machine": machine, "memory": "64MiB", "rtc": {"clock": "vm"}}
    return QTest({**keys, "floppies": [str(first), {"file": str(second), "format": "raw"}]})


def theirs(directory: pathlib.Path) -> QtestProgram:
    first, second = images(directory)
    command = [QEMU or "qemu-system-x86_64", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults"]
    command += ["-display", "none", "-drive", f"if=floppy,format=raw,file={first}"]
    return QtestProgram([*command, "-drive", f"if=floppy,index=1,format=raw,file={second}"])


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def q(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[QtestCommands]:
    if request.param == "qemu" and QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with ours(tmp_path) if request.param == "vmrun" else theirs(tmp_path) as machine:
        yield machine


def command(q: QtestCommands, *data: int) -> None:
    for byte in data:
        q.outb(FIFO, byte)


def results(q: QtestCommands, patience: int = 5000) -> list[int]:
    """The bytes of the result phase, when it comes."""
    for _ in range(patience):
        if q.inb(MSR) & (RQM | DIO) == RQM | DIO:
            break
        if isinstance(q, QTest):
            q.settle()
    found = []
    while q.inb(MSR) & (RQM | DIO) == RQM | DIO:
        found.append(q.inb(FIFO))
    return found


def start(q: QtestCommands, unit: int = 0, pio: bool = False) -> None:
    """Out of reset, motor on; the four drives' interrupts are taken."""
    q.outb(DOR, 0)
    q.outb(DOR, 0x0C | 0x10 << unit | unit)
    for _ in range(4):
        command(q, SENSE)
        results(q)
    command(q, SPECIFY, 0xAF, 0x03 if pio else 0x02)


def dma(q: QtestCommands, address: int, count: int, mode: int) -> None:
    """Channel 2: mode 0x46 into memory, 0x4A from it."""
    q.outb(0x0A, 6)
    q.outb(0x0C, 0)
    for byte in (address & 0xFF, address >> 8 & 0xFF):
        q.outb(0x04, byte)
    for byte in (count - 1 & 0xFF, count - 1 >> 8):
        q.outb(0x05, byte)
    q.outb(0x81, address >> 16)
    q.outb(0x0B, mode)
    q.outb(0x0A, 2)


def test_four_drives_report_after_reset(q: QtestCommands) -> None:
    q.outb(DOR, 0)
    q.outb(DOR, 0x0C)
    found = []
    for _ in range(5):
        command(q, SENSE)
        found.append(results(q))
    assert found == [[0xC0, 0], [0xC1, 0], [0xC2, 0], [0xC3, 0], [0x80]]


def test_the_chip_is_an_82078(q: QtestCommands) -> None:
    start(q)
    command(q, 0x10)
    assert results(q) == [0x90]
    command(q, 0x18)
    assert results(q) == [0x41]


def test_a_seek_interrupts_and_leaves_its_track(q: QtestCommands) -> None:
    start(q)
    command(q, SEEK, 0, 42)
    assert q.inb(SRA + 1) is not None
    command(q, SENSE)
    assert results(q) == [0x20, 42]
    command(q, RECALIBRATE, 0)
    command(q, SENSE)
    assert results(q) == [0x20, 0]


def test_a_changed_disk_is_told_until_the_head_moves(q: QtestCommands) -> None:
    start(q)
    assert q.inb(DIR) & 0x80
    command(q, SEEK, 0, 1)
    assert not q.inb(DIR) & 0x80


def test_sectors_are_read_by_dma(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    start(q)
    dma(q, 0x10000, 4 * 512, 0x46)
    command(q, READ, 0x04, 3, 1, 5, 2, 18, 0x1B, 0xFF)
    assert results(q) == [0x24, 0, 0, 3, 1, 9, 2]
    at = (2 * 3 + 1) * 18 + 4
    assert q.read(0x10000, 2048) == (tmp_path / "a.img").read_bytes()[at * 512 : (at + 4) * 512]


def test_a_transfer_goes_over_the_end_of_a_side(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    start(q)
    dma(q, 0x10000, 6 * 512, 0x46)
    command(q, READ, 0x00, 0, 0, 16, 2, 18, 0x1B, 0xFF)
    assert results(q) == [0x04, 0, 0, 0, 1, 4, 2]
    assert q.read(0x10000, 6 * 512) == (tmp_path / "a.img").read_bytes()[15 * 512 : 21 * 512]


def test_sectors_are_written_by_dma(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    start(q)
    data = random.Random(4).randbytes(1024)
    q.write(0x20000, data)
    dma(q, 0x20000, 1024, 0x4A)
    command(q, WRITE, 0x00, 7, 0, 1, 2, 18, 0x1B, 0xFF)
    assert results(q)[0] & 0xC0 == 0
    dma(q, 0x30000, 1024, 0x46)
    command(q, READ, 0x00, 7, 0, 1, 2, 18, 0x1B, 0xFF)
    assert results(q)[0] & 0xC0 == 0
    assert q.read(0x30000, 1024) == data


def test_a_masked_channel_holds_the_transfer_up(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    start(q)
    dma(q, 0x10000, 512, 0x46)
    q.outb(0x0A, 6)
    command(q, READ, 0x00, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    assert q.inb(MSR) & (RQM | BUSY) == BUSY
    q.outb(0x0A, 2)
    assert results(q)[0] & 0xC0 == 0
    assert q.read(0x10000, 512) == (tmp_path / "a.img").read_bytes()[:512]


def test_sectors_are_read_through_the_fifo(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    start(q, unit=1, pio=True)
    q.outb(DIR, 2)  # 250 kbit/s
    command(q, 0x46, 0x01, 2, 0, 3, 2, 4, 0x1B, 0xFF)
    data = bytes(q.inb(FIFO) for _ in range(1024))
    at = 2 * 2 * 9 + 2
    assert data == (tmp_path / "b.img").read_bytes()[at * 512 : (at + 2) * 512]
    assert results(q)[0] & 0xC0 == 0


def test_a_wrong_data_rate_finds_no_mark(q: QtestCommands) -> None:
    start(q, unit=1)
    q.outb(DIR, 0)
    dma(q, 0x10000, 512, 0x46)
    command(q, READ, 0x01, 0, 0, 1, 2, 9, 0x1B, 0xFF)
    assert results(q) == [0x41, 0x01, 0, 0, 0, 1, 2]


def test_no_sector_behind_the_last(q: QtestCommands) -> None:
    start(q)
    dma(q, 0x10000, 512, 0x46)
    command(q, READ, 0x00, 0, 0, 19, 2, 19, 0x1B, 0xFF)
    assert results(q) == [0x40, 0x80, 0, 0, 0, 19, 2]


def test_registers_are_saved_and_restored(q: QtestCommands) -> None:
    start(q)
    command(q, 0x13, 0, 0x57, 12)
    command(q, 0x94)
    assert results(q) == [0x10]
    command(q, 0x2E)
    saved = results(q)
    assert len(saved) == 15
    command(q, 0x0E)
    dumped = results(q)
    assert dumped[8:] == [0x57, 12] and dumped[7] == 0x80
    command(q, 0x4E, *saved, 0, 0)
    command(q, 0x0E)
    assert results(q)[4:] == dumped[4:]


def test_a_scan_finds_a_sector(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    start(q)
    q.write(0x10000, (tmp_path / "a.img").read_bytes()[512:1024])
    dma(q, 0x10000, 512, 0x4A)
    command(q, 0xD1, 0x00, 0, 0, 2, 2, 18, 0x1B, 0x01)
    assert results(q)[:3] == [0, 0, 0x08]


def test_the_boot_drive_can_be_the_second(q: QtestCommands) -> None:
    start(q)
    q.outb(TDR, 4)
    command(q, SEEK, 0, 5)
    q.outb(TDR, 0)
    command(q, 0x0E)
    assert results(q)[:2] == [0, 5]


@pytest.mark.peer
@pytest.mark.parametrize("seed", range(3))
def test_any_commands_are_answered_alike(tmp_path: pathlib.Path, seed: int) -> None:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    lines = program(random.Random(seed))
    answers, contents = [], []
    for make in (ours, theirs):
        with make(tmp_path) as machine:
            answers.append(asked(machine, lines))
        contents.append([(tmp_path / name).read_bytes() for name in ("a.img", "b.img")])
    mine, his = ([int(answer, 16) & 0xFF if answer else 0 for answer in side] for side in answers)
    wrong = [n for n in range(len(lines)) if mine[n] != his[n]]
    assert not wrong, (wrong[0], lines[wrong[0] - 30 : wrong[0] + 1], mine[wrong[0]], his[wrong[0]])
    assert contents[0] == contents[1]


def asked(machine: QtestCommands, lines: list[str]) -> list[str]:
    """The answers; of vmrun's once its image is done with what came before."""
    if not isinstance(machine, QTest):
        return [answer for n in range(0, len(lines), 400) for answer in machine.ask_all(lines[n : n + 400])]
    answers = []
    for line in lines:
        answers.append(machine.ask(line))
        machine.settle()
    return answers


def program(rng: random.Random) -> list[str]:
    """Register accesses and whole commands, their data through the FIFO."""
    lines = [f"outb {DOR:#x} 0", f"outb {DOR:#x} 0x14"]
    for _ in range(220):
        chance = rng.random()
        if chance < 0.14:
            lines.append(f"outb {DOR:#x} 0")  # whatever is under way ends here
        if chance < 0.06:
            lines.append(f"outb {DOR:#x} {rng.choice([0x04, 0x14, 0x25, 0x05, 0x00, 0x10]):#x}")
        elif chance < 0.10:
            lines.append(f"outb {DIR:#x} {rng.choice([0, 0, 0, 2, 3, 1]):#x}")
        elif chance < 0.12:
            lines.append(f"outb {MSR:#x} {rng.choice([0, 2, 0x80, 0x40]):#x}")
        elif chance < 0.14:
            lines += [f"outb {DOR:#x} 4", f"outb {TDR:#x} {rng.getrandbits(8):#x}"]
        else:
            code = rng.choice(list(PARAMETERS))
            sector = rng.choice([1, 2, 5, 9])
            data = [
                rng.choice([0, 1, 4, 5, rng.getrandbits(8)]),
                rng.choice([0, 1, 2, 79, 80, 81, rng.getrandbits(8)]),
                rng.choice([0, 1, 0, 1, 2]),
                sector,
                rng.choice([2, 2, 0]),
                rng.choice([sector, 9]),
                rng.getrandbits(8),
                rng.randrange(1, 256),
                rng.getrandbits(8),
                rng.getrandbits(8),
            ]
            lines += [f"outb {FIFO:#x} {byte:#x}" for byte in (code, *data[: PARAMETERS[code]])]
        lines += [f"inb {port:#x}" for port in (MSR, SRA + 1, DOR, TDR, DIR)]
        for _ in range(rng.choice([0, 1, 7, 10, 20, 530])):
            lines += [f"inb {FIFO:#x}", f"inb {MSR:#x}"]
    return lines


# --- what QEMU does otherwise, or cannot show ------------------------------------------------------------------


@pytest.fixture
def timed(tmp_path: pathlib.Path) -> Iterator[QTest]:
    with ours(tmp_path) as machine:
        yield machine


def test_read_id_takes_a_fiftieth_of_a_second(timed: QTest) -> None:
    start(timed)
    command(timed, 0x4A, 0)
    timed.clock_step(19_000_000)
    assert not timed.inb(MSR) & RQM
    timed.clock_step(1_000_000)
    assert results(timed) == [0, 0, 0, 0, 0, 2, 2]


def test_what_formatting_does(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    start(q)
    q.write(0x10000, bytes((0, 0, 1, 2)))
    dma(q, 0x10000, 4, 0x4A)
    command(q, 0x4D, 0x00, 2, 1, 0x6C, 0xF6)
    assert results(q)[0] & 0xC0 == 0
    done = "writes" if (tmp_path / "a.img").read_bytes()[:512] == b"\xf6" * 512 else "nothing"
    assert done == DIFFERENCES["fdc-format"].of("vmrun" if isinstance(q, QTest) else "qemu")


def test_what_the_end_of_a_track_does(q: QtestCommands) -> None:
    start(q, pio=True)
    command(q, 0x46, 0x00, 0, 0, 18, 3, 18, 0x1B, 0xFF)
    for _ in range(520):
        q.inb(FIFO)
    waits = q.inb(MSR) & 0x20
    expected = DIFFERENCES["fdc-end"].of("vmrun" if isinstance(q, QTest) else "qemu")
    assert bool(waits) == (expected == "waits for ever")


def test_a_track_is_formatted(timed: QTest, tmp_path: pathlib.Path) -> None:
    start(timed)
    command(timed, SEEK, 4, 10)
    command(timed, SENSE)
    results(timed)
    timed.write(0x10000, b"".join(bytes((10, 1, sector, 2)) for sector in range(1, 19)))
    dma(timed, 0x10000, 72, 0x4A)
    command(timed, 0x4D, 0x04, 2, 18, 0x6C, 0xF6)
    assert results(timed)[0] & 0xC0 == 0
    data = (tmp_path / "a.img").read_bytes()
    first = (2 * 10 + 1) * 18 * 512
    assert data[first : first + 18 * 512] == b"\xf6" * 18 * 512
    assert data[first - 16 : first] != b"\xf6" * 16 and data[first + 18 * 512 :][:16] != b"\xf6" * 16


def test_a_sector_that_the_disk_has_not_is_not_formatted(timed: QTest) -> None:
    start(timed)
    timed.write(0x10000, bytes((0, 0, 19, 2)))
    dma(timed, 0x10000, 4, 0x4A)
    command(timed, 0x4D, 0x00, 2, 1, 0x6C, 0xF6)
    assert results(timed)[:2] == [0x40, 0x01]


def test_an_end_of_track_ends_what_would_go_on(timed: QTest) -> None:
    start(timed, pio=True)
    command(timed, 0x46, 0x00, 0, 0, 18, 3, 18, 0x1B, 0xFF)
    for _ in range(512):
        timed.inb(FIFO)
    assert results(timed)[:2] == [0x60, 0x80]


def test_a_write_protected_disk(tmp_path: pathlib.Path) -> None:
    first, _ = images(tmp_path)
    keys = {"machine": "pc-i440fx-7.2", "memory": "64MiB"}
    with QTest({**keys, "floppies": [{"file": str(first), "readonly": True}]}) as q:
        start(q)
        command(q, 0x04, 0)
        assert results(q) == [0x78]
        dma(q, 0x10000, 512, 0x4A)
        command(q, WRITE, 0x00, 0, 0, 1, 2, 18, 0x1B, 0xFF)
        assert results(q)[:2] == [0x60, 0x02]


@pytest.mark.parametrize(
    ("size", "machine", "cells"),
    [
        (2880, "pc-i440fx-7.2", (0x40, 0x01)),
        (5760, "pc-i440fx-7.2", (0x50, 0x01)),
        (2400, "pc-i440fx-7.2", (0x20, 0x01)),
        (0, "pc-i440fx-7.2", (0x50, 0x01)),
        (0, "pc-i440fx-2.5", (0x40, 0x01)),
        (0, "rhel6.3.0", (0x40, 0x01)),
        (None, "pc-i440fx-7.2", (0, 0)),
    ],
)
def test_the_cmos_tells_the_drive_s_type(
    tmp_path: pathlib.Path, size: int | None, machine: str, cells: tuple[int, int]
) -> None:
    image = tmp_path / "disk.img"
    if size:
        image.write_bytes(bytes(size * 512))
    floppies = {} if size is None else {"floppies": [str(image) if size else "empty"]}
    with QTest({"machine": machine, "memory": "64MiB", **floppies}) as q:
        found = []
        for index in (0x10, 0x14):
            q.outb(0x70, index)
            found.append(q.inb(0x71))
    assert (found[0], found[1] & 0xC1) == cells


def test_disks_are_changed_while_the_machine_runs(timed: QTest, tmp_path: pathlib.Path) -> None:
    start(timed)
    command(timed, SEEK, 0, 1)
    assert not timed.inb(DIR) & 0x80
    (tmp_path / "other.img").write_bytes(b"\x77" * 737280)
    unit = media.find(timed.machine, "", "fd0")
    told: list[str] = []
    timed.machine.listen(lambda name, **data: told.append(name))
    media.change(timed.machine, unit, str(tmp_path / "other.img"), "raw")
    assert timed.inb(DIR) & 0x80 and told == []
    timed.outb(DIR, 2)
    dma(timed, 0x10000, 512, 0x46)
    command(timed, READ, 0x00, 2, 0, 9, 2, 9, 0x1B, 0xFF)
    assert results(timed)[0] & 0xC0 == 0
    assert timed.read(0x10000, 512) == b"\x77" * 512
    timed.write(0x10000, b"\x55" * 512)
    dma(timed, 0x10000, 512, 0x4A)
    command(timed, WRITE, 0x00, 2, 0, 9, 2, 9, 0x1B, 0xFF)
    assert results(timed)[0] & 0xC0 == 0


def test_an_empty_drive_finds_nothing(timed: QTest) -> None:
    start(timed)
    unit = media.find(timed.machine, "", "fd0")
    media.open_tray(timed.machine, unit)
    media.remove(timed.machine, unit)
    command(timed, SEEK, 0, 3)
    assert timed.inb(DIR) & 0x80
    dma(timed, 0x10000, 512, 0x46)
    command(timed, READ, 0x00, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    assert results(timed)[0] & 0xC0 == 0x40
