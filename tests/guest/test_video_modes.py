"""A guest sets every mode that the video BIOS has, of the VGA's and of VBE's, and fills its memory: the picture is
QEMU's, pixel by pixel.

Kept out of the guest's pattern, for they are drawn differently on purpose: the ninth dot of characters B0 to BF,
attributes that blink, the cursor. Different: VBE's modes of 4 bits on the standard VGA. Here the map mask and chain-4
are the sequencer's; in QEMU, once a VBE mode is on, what the last mode of more bits left of them.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.errors import MonitorError
from vmrun.monitor.client import QmpClient

pytestmark = [pytest.mark.guest, pytest.mark.long, needs_qemu]

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 300.0
# adapter → modes of VBE that are drawn on, at least
CARDS = {"VGA": 40, "cirrus-vga": 15, "vmware-svga": 40, "virtio-vga": 40, "isa-vga": 40}


class Side:
    def __init__(self, name: str, program: list[str], card: str, image: pathlib.Path, directory: pathlib.Path) -> None:
        self.out, self.shot = directory / f"{name}.out", directory / f"{name}.ppm"
        socket = directory / f"{name}.qmp"
        words = [
            *program, "-machine", "pc-i440fx-7.2", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none",
            "-device", card, "-drive", f"file={image},format=raw,snapshot=on",
            "-chardev", f"file,id=out,path={self.out}",
            "-device", "isa-debugcon,iobase=0xe9,chardev=out", "-qmp", f"unix:{socket},server=on,wait=off",
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        self.wait(lambda: self.connect(str(socket)))

    def wait(self, done: Any) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert self.process.poll() is None and time.monotonic() < end, self.lines()
            time.sleep(0.02)

    def connect(self, socket: str) -> bool:
        try:
            self.monitor = QmpClient(socket)
        except MonitorError:
            return False  # nobody listens yet
        return True

    def lines(self) -> list[str]:
        """Those that are whole."""
        return self.out.read_text().split("\n")[:-1] if self.out.exists() else []

    def line(self, number: int) -> str:
        self.wait(lambda: len(self.lines()) > number)
        return self.lines()[number]

    def picture(self) -> bytes:
        self.monitor.execute("screendump", filename=str(self.shot))
        return self.shot.read_bytes()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("modes")
    source = ROOT / "tests" / "guest" / "kernels" / "modes.S"
    subprocess.run(["as", "--32", "-o", directory / "modes.o", source], check=True)
    link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", directory / "modes.img"]
    subprocess.run([*link, directory / "modes.o"], check=True)
    path: pathlib.Path = directory / "modes.img"
    path.write_bytes(path.read_bytes().ljust(1 << 20, b"\0"))
    return path


@pytest.fixture(params=list(CARDS))
def sides(request: pytest.FixtureRequest, image: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[list[Side]]:
    programs = {"theirs": [str(QEMU)], "ours": [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]}
    made = [Side(name, program, request.param, image, tmp_path) for name, program in programs.items()]
    try:
        yield made
    finally:
        for side in made:
            side.close()


def differing(mine: bytes, theirs: bytes) -> str:
    """Words for how two PPM files differ; '' when they do not."""
    if mine == theirs:
        return ""
    heads = [data.split(b"\n", 3)[1].decode() for data in (mine, theirs)]
    if heads[0] != heads[1]:
        return f"{heads[0]} pixels for {heads[1]}"
    own, other = (data.split(b"\n", 3)[3] for data in (mine, theirs))
    width = int(heads[0].split()[0])
    wrong = [n // 3 for n in range(0, len(own), 3) if own[n : n + 3] != other[n : n + 3]]
    at = 3 * wrong[0]
    where, pair = f"{wrong[0] % width},{wrong[0] // width}", [data[at : at + 3].hex() for data in (own, other)]
    return f"{len(wrong)} pixels of {heads[0]}, first at {where}: {pair[0]} for {pair[1]}"


def test_every_mode_looks_as_in_qemu(request: pytest.FixtureRequest, sides: list[Side]) -> None:
    card = request.node.callspec.params["sides"]
    wrong, shown, drawn = [], 0, 0
    while True:
        said = [side.line(shown) for side in sides]
        assert said[0] == said[1]
        if said[0] == "END":
            break
        theirs, ours = (side.picture() for side in sides)
        mode, kind, *_ = said[0].split()
        drawn += kind in "lp" and int(mode, 16) >= 0x100
        why = differing(ours, theirs)
        if bool(why) != (kind == "p" and int(mode, 16) >= 0x100 and card != "cirrus-vga"):
            wrong.append((said[0], why))
        shown += 1
        for side in sides:
            side.monitor.execute("send-key", keys=[{"type": "qcode", "data": "spc"}])
    assert wrong == []
    assert drawn >= CARDS[card]
