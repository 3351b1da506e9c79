"""Flash with Intel's command set (CFI, JEDEC JESD68.01), as a PC has it below 4 GiB: vmrun's beside QEMU's."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import pytest

from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestCommands, QtestProgram

CODE, VARS = 0x40000, 0x20000
TOP = 1 << 32
FLASH = TOP - CODE - VARS  # the second one
COMMANDS = (0x00, 0x10, 0x20, 0x28, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xD0, 0xE8, 0xF0, 0xFF, 0x01, 0x55)


def images(directory: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    rng = random.Random(1)
    code, variables = directory / "code.fd", directory / "vars.fd"
    code.write_bytes(rng.randbytes(CODE))
    variables.write_bytes(rng.randbytes(VARS))
    return code, variables


def ours(directory: pathlib.Path) -> QTest:
    code, variables = images(directory)
    return QTest(
        {
            "machine": "pc-i440fx-7.2",
            "memory": "64MiB",
            "pflash": [{"file": str(code), "readonly": True}, str(variables)],
        }
    )


def theirs(directory: pathlib.Path) -> QtestProgram:
    code, variables = images(directory)
    command = [QEMU or "qemu-system-x86_64", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults"]
    command += ["-display", "none", "-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
    return QtestProgram([*command, "-drive", f"if=pflash,format=raw,file={variables}"])


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def q(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[QtestCommands]:
    if request.param == "qemu" and QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with ours(tmp_path) if request.param == "vmrun" else theirs(tmp_path) as machine:
        yield machine


def test_both_images_lie_below_4_gib(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    assert q.read(TOP - CODE, 64) == (tmp_path / "code.fd").read_bytes()[:64]
    assert q.read(FLASH, 64) == (tmp_path / "vars.fd").read_bytes()[:64]


def test_the_end_of_the_firmware_is_there_below_1_mib(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    assert q.read(0xE0000, 0x20000) == (tmp_path / "code.fd").read_bytes()[-0x20000:]


def test_a_program_stores_a_byte(q: QtestCommands) -> None:
    q.writeb(FLASH + 5, 0x10)
    q.writeb(FLASH + 5, 0xA5)
    assert q.readb(FLASH) == 0x80
    q.writeb(FLASH, 0xFF)
    assert q.readb(FLASH + 5) == 0xA5


def test_an_erase_sets_a_block(q: QtestCommands) -> None:
    before = q.read(FLASH + 0x2000, 16)
    q.writeb(FLASH + 0x1234, 0x20)
    q.writeb(FLASH + 0x1234, 0xD0)
    q.writeb(FLASH, 0xFF)
    assert q.read(FLASH + 0x1000, 0x1000) == b"\xff" * 0x1000
    assert q.read(FLASH + 0x2000, 16) == before


def test_a_buffered_write_takes_count_and_confirmation(q: QtestCommands) -> None:
    q.writeb(FLASH + 0x100, 0xE8)
    q.writeb(FLASH + 0x100, 3)
    for n in range(4):
        q.writeb(FLASH + 0x100 + n, n + 1)
    q.writeb(FLASH + 0x100, 0xD0)
    q.writeb(FLASH, 0xFF)
    assert q.read(FLASH + 0x100, 4) == b"\1\2\3\4"


def test_a_read_only_image_is_not_changed(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    base = TOP - CODE
    before = q.readb(base)
    q.writeb(base, 0x40)
    q.writeb(base, ~before & 0xFF)
    assert q.readb(base) == 0x90  # ready, programming error
    q.writeb(base, 0x50)
    q.writeb(base, 0xFF)
    assert q.readb(base) == before


def test_the_query_structure_tells_size_and_blocks(q: QtestCommands) -> None:
    q.writeb(FLASH + 0x55, 0x98)
    table = bytes(q.readb(FLASH + n) for n in range(0x60))
    assert table[0x10:0x15] == b"QRY\1\0"
    assert 1 << table[0x27] == VARS
    assert (table[0x2D] | table[0x2E] << 8) + 1 == VARS // 0x1000
    assert (table[0x2F] | table[0x30] << 8) << 8 == 0x1000


def test_what_is_programmed_is_in_the_image(tmp_path: pathlib.Path) -> None:
    with ours(tmp_path) as machine:
        for n in range(3000):
            machine.writeb(FLASH + 7 * n, 0x40)
            machine.writeb(FLASH + 7 * n, n & 0xFF)
        machine.writeb(FLASH, 0xFF)
        contents = machine.read(FLASH, VARS)
    assert (tmp_path / "vars.fd").read_bytes() == contents


def test_what_is_programmed_survives_reset(q: QtestCommands) -> None:
    q.writeb(FLASH, 0x10)
    q.writeb(FLASH, 0x77)
    if isinstance(q, QTest):
        q.machine.reset()
        assert q.readb(FLASH) == 0x77


@pytest.mark.peer
@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_commands_is_answered_alike(tmp_path: pathlib.Path, seed: int) -> None:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    rng = random.Random(seed)
    lines = []
    for _ in range(4000):
        base, size = rng.choice([(FLASH, VARS), (TOP - CODE, CODE)])
        addr = base + rng.choice([rng.randrange(0x100), rng.randrange(size - 8)])
        letter, width = rng.choice([("b", 1), ("b", 1), ("b", 1), ("w", 2), ("l", 4), ("q", 8)])
        addr &= ~(width - 1)
        value = rng.choice([rng.choice(COMMANDS), rng.choice(COMMANDS), rng.getrandbits(8 * width)])
        lines.append(f"write{letter} {addr:#x} {value:#x}")
        lines.append(f"read{rng.choice('bwl')} {addr & ~3:#x}")
    lines += [f"writeb {FLASH:#x} 0xff", f"writeb {FLASH:#x} 0xff", f"writeb {FLASH:#x} 0xff"]
    lines.append(f"read {FLASH:#x} {VARS}")
    answers = []
    for make in (ours, theirs):
        with make(tmp_path) as machine:
            answers.append([int(a, 16) if a else 0 for a in machine.ask_all(lines)])
    mine, his = answers
    wrong = [(n, lines[max(0, n - 7) : n + 1], mine[n], his[n]) for n in range(len(lines)) if mine[n] != his[n]]
    assert not wrong, wrong[0] if wrong else ""
