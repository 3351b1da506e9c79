"""The same test on two machines: vmrun's, in this process, and QEMU's beside it, of the same type and devices.

QEMU's processors stand still and its virtual clock with them, so a test that lets time pass is for vmrun alone: it
asks for `timed`. Everything else asks for `q`, or for both machines at once (`pair`). Where the two differ, and shall,
the test takes its value from differences.py.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestCommands, QtestProgram

SECTORS = 2048
SERIAL, PARALLEL, DEBUGCON, EXIT, PANIC = 0x3F8, 0x378, 0xE9, 0xF4, 0x505


def pattern(sector: int) -> bytes:
    """What a sector of the test disk holds."""
    return bytes((sector * 7 + n * 13) & 0xFF for n in range(512))


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(pattern(n) for n in range(SECTORS)))
    return path


def ours(disk: pathlib.Path) -> QTest:
    output = disk.with_suffix(".debugcon")
    return QTest(
        {
            "machine": "pc-i440fx-2.0",
            "memory": "64MiB",
            "rtc": {"clock": "vm"},
            "drives": {"d": {"file": str(disk), "format": "raw"}},
            "chardevs": {
                "com": {"type": "null"},
                "lpt": {"type": "null"},
                "con": {"type": "file", "path": str(output)},
            },
            "devices": [
                {"driver": "VGA", "id": "vga", "addr": "02.0"},
                {"driver": "isa-serial", "id": "serial", "chardev": "com"},
                {"driver": "isa-parallel", "id": "parallel", "chardev": "lpt"},
                {"driver": "isa-debugcon", "id": "debugcon", "iobase": DEBUGCON, "chardev": "con"},
                {"driver": "isa-debug-exit", "id": "exit", "iobase": EXIT},
                {"driver": "pvpanic", "id": "panic"},
                {"driver": "ide-hd", "id": "hd", "drive": "d", "bus": "ide.0", "unit": 0},
            ],
        }
    )


def theirs(disk: pathlib.Path) -> QtestProgram:
    output = disk.with_suffix(".debugcon")
    command = [QEMU or "qemu-system-x86_64", "-M", "pc-i440fx-2.0", "-m", "64", "-accel", "tcg", "-S", "-nodefaults"]
    command += ["-display", "none", "-device", "VGA,addr=02.0"]
    command += ["-chardev", "null,id=com", "-device", "isa-serial,chardev=com"]
    command += ["-chardev", "null,id=lpt", "-device", "isa-parallel,chardev=lpt"]
    command += ["-chardev", f"file,id=con,path={output}", "-device", f"isa-debugcon,iobase={DEBUGCON:#x},chardev=con"]
    command += ["-device", f"isa-debug-exit,iobase={EXIT:#x}", "-device", "pvpanic", "-no-reboot", "-no-shutdown"]
    command += ["-drive", f"if=none,id=d,format=raw,file={disk}", "-device", "ide-hd,drive=d,bus=ide.0,unit=0"]
    return QtestProgram(command)


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def side(request: pytest.FixtureRequest) -> str:
    if request.param == "qemu" and QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    return str(request.param)


@pytest.fixture
def q(side: str, disk: pathlib.Path) -> Iterator[QtestCommands]:
    with ours(disk) if side == "vmrun" else theirs(disk) as machine:
        yield machine


@pytest.fixture
def pair(disk: pathlib.Path) -> Iterator[tuple[QtestCommands, QtestCommands]]:
    """(vmrun, QEMU), to be given the same accesses."""
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    second = disk.with_name("second.img")
    second.write_bytes(disk.read_bytes())
    with ours(disk) as one, theirs(second) as other:
        yield one, other


@pytest.fixture
def timed(disk: pathlib.Path) -> Iterator[QTest]:
    """vmrun alone: its clock can be stepped."""
    with ours(disk) as machine:
        yield machine
