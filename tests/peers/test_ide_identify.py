"""A disk's IDENTIFY data and its task file beside QEMU's, on the same image."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator

import pytest

from tests.board import Driven
from tests.peers.oracle import Qemu, needs_qemu

pytestmark = [needs_qemu, pytest.mark.peer]

SIZE = 20 << 20


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> Iterator[tuple[Driven, Qemu]]:
    for name in ("ours.img", "theirs.img"):
        (tmp_path / name).write_bytes(bytes(range(256)) * (SIZE // 256))
    drive = f"file={tmp_path / 'theirs.img'},format=raw,if=none,id=d"
    with (
        Driven(
            tmp_path,
            machine="pc-i440fx-2.0",
            memory="64MiB",
            drives={"d": {"file": "ours.img", "format": "raw"}},
            devices=[{"id": "disk", "driver": "ide-hd", "bus": "ide.0", "unit": 0, "drive": "d"}],
        ) as ours,
        Qemu("pc-i440fx-2.0", "-m", "64", "-drive", drive, "-device", "ide-hd,drive=d,bus=ide.0,unit=0") as theirs,
    ):
        yield ours, theirs


class Task:
    """The same accesses to both; every read is compared."""

    def __init__(self, pair: tuple[Driven, Qemu]) -> None:
        self.ours, self.theirs = pair
        self.wrong: list[str] = []

    def out(self, port: int, value: int) -> None:
        self.ours.outb(port, value)
        self.theirs.ask(f"outb {port:#x} {value:#x}")

    def same(self, port: int) -> int:
        mine, other = self.ours.inb(port), int(self.theirs.ask(f"inb {port:#x}"), 0) & 0xFF
        if mine != other:
            self.wrong.append(f"{port:x}: ours {mine:02x}, QEMU's {other:02x}")
        return other

    def command(self, code: int, *registers: int) -> None:
        """Registers 1 to 6, then the command; both are given the time to finish."""
        for n, value in enumerate(registers, 1):
            self.out(0x1F0 + n, value)
        self.out(0x1F7, code)
        self.settle()

    def settle(self) -> None:
        """Until neither is busy: both read the next sector on their own time."""
        for _ in range(2000):
            self.ours.settle()
            if not (int(self.theirs.ask("inb 0x3f6"), 0) & 0x80 or self.ours.inb(0x3F6) & 0x80):
                return
        raise AssertionError("a disk stays busy")

    def registers(self) -> None:
        for n in range(1, 8):
            self.same(0x1F0 + n)


def words(read: object) -> bytes:
    return b"".join(struct.pack("<H", read()) for _ in range(256))  # type: ignore[operator]


def identify_differences(pair: tuple[Driven, Qemu]) -> list[str]:
    """The words of the first disk's IDENTIFY data that are not QEMU's."""
    task = Task(pair)
    task.command(0xEC, 0, 0, 0, 0, 0, 0xA0)
    mine = words(lambda: task.ours.inw(0x1F0))
    other = words(lambda: int(task.theirs.ask("inw 0x1f0"), 0) & 0xFFFF)
    return [
        f"word {n}: ours {struct.unpack_from('<H', mine, 2 * n)[0]:04x}, "
        f"QEMU's {struct.unpack_from('<H', other, 2 * n)[0]:04x}"
        for n in range(256)
        if mine[2 * n : 2 * n + 2] != other[2 * n : 2 * n + 2]
    ]


def test_identify_data_is_qemus(pair: tuple[Driven, Qemu]) -> None:
    assert identify_differences(pair) == []


def test_task_file_after_reset_is_qemus(pair: tuple[Driven, Qemu]) -> None:
    task = Task(pair)
    task.registers()
    task.out(0x1F6, 0xB0)  # the absent slave
    task.same(0x1F7)
    task.out(0x1F6, 0xA0)
    for port in (0x177, 0x376, 0x171, 0x172):
        task.same(port)
    assert task.wrong == []


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        (0x90, (0, 0, 0, 0, 0, 0xA0)),  # EXECUTE DEVICE DIAGNOSTIC
        (0x91, (0, 63, 0, 0, 0, 0xAF)),  # INITIALIZE DEVICE PARAMETERS
        (0xC6, (0, 8, 0, 0, 0, 0xA0)),  # SET MULTIPLE MODE
        (0xC6, (0, 3, 0, 0, 0, 0xA0)),
        (0xC6, (0, 32, 0, 0, 0, 0xA0)),
        (0xEF, (3, 0x22, 0, 0, 0, 0xA0)),  # SET FEATURES, multiword DMA 2
        (0xEF, (3, 0x45, 0, 0, 0, 0xA0)),
        (0xEF, (0x77, 0, 0, 0, 0, 0xA0)),
        (0x40, (0, 1, 9, 0, 0, 0xE0)),  # READ VERIFY
        (0xF8, (0, 0, 0, 0, 0, 0xE0)),  # READ NATIVE MAX
        (0x27, (0, 0, 0, 0, 0, 0xE0)),
        (0x10, (0, 0, 0, 0, 0, 0xA0)),
        (0xE5, (0, 0, 0, 0, 0, 0xA0)),
        (0xE1, (0, 0, 0, 0, 0, 0xA0)),
        (0xE7, (0, 0, 0, 0, 0, 0xA0)),
        (0xEA, (0, 0, 0, 0, 0, 0xA0)),
        (0xA1, (0, 0, 0, 0, 0, 0xA0)),  # IDENTIFY PACKET DEVICE on a disk
        (0xFF, (0, 0, 0, 0, 0, 0xA0)),
        (0x20, (0, 1, 0xFF, 0xFF, 0xFF, 0xEF)),  # past the end
        (0x00, (0, 0, 0, 0, 0, 0xA0)),
    ],
)
def test_a_command_without_data_leaves_qemus_task_file(
    pair: tuple[Driven, Qemu], code: int, registers: tuple[int, ...]
) -> None:
    task = Task(pair)
    task.command(code, *registers)
    task.registers()
    assert task.wrong == []


def test_reads_and_writes_leave_qemus_data_and_task_file(pair: tuple[Driven, Qemu], tmp_path: pathlib.Path) -> None:
    task = Task(pair)
    task.command(0x20, 0, 2, 5, 0, 0, 0xE0)
    for _ in range(2):
        task.settle()
        task.registers()
        assert words(lambda: task.ours.inw(0x1F0)) == words(lambda: int(task.theirs.ask("inw 0x1f0"), 0) & 0xFFFF)
    task.registers()
    task.command(0x30, 0, 1, 9, 0, 0, 0xE0)
    task.registers()
    for n in range(256):
        task.ours.outw(0x1F0, n ^ 0x5AA5)
        task.theirs.ask(f"outw 0x1f0 {n ^ 0x5AA5:#x}")
    task.settle()
    task.registers()
    task.command(0xE7, 0, 0, 0, 0, 0, 0xA0)
    assert task.wrong == []
    assert (tmp_path / "ours.img").read_bytes() == (tmp_path / "theirs.img").read_bytes()
