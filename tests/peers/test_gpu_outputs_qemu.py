"""virtio-gpu with several outputs beside QEMU's: what a driver is told of them, what each shows, a viewer's size."""

from __future__ import annotations

import pathlib
import socket
import struct
import sys

import pytest

from tests.devices.holds import Ring
from tests.peers.oracle import QEMU, needs_qemu
from vmrun.monitor.client import QmpClient
from vmrun.testing import QtestProgram

pytestmark = [pytest.mark.peer, needs_qemu]

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"
REQUEST, ANSWER, PIXELS = 0x200000, 0x210000, 0x300000
VIRTIO = 0xE0000000


class Driver:
    """Control queue of one of both."""

    def __init__(self, q: QtestProgram) -> None:
        self.q = q
        q.settle = lambda: None  # type: ignore[attr-defined]
        self.ring = Ring(q, 0)  # type: ignore[arg-type]

    def ask(self, kind: int, form: str = "", *values: int, more: bytes = b"") -> bytes:
        data = struct.pack("<IIQII", kind, 0, 0, 0, 0) + struct.pack("<" + form, *values) + more
        self.q.write(REQUEST, data)
        self.q.memset(ANSWER, 1056)
        self.ring.put((REQUEST, len(data), 0), (ANSWER, 1056, 2))
        self.ring.kick()
        self.ring.wait(self.ring.index)
        return self.q.read(ANSWER, 1056)

    def picture(self, number: int, width: int, height: int, colour: int) -> list[bytes]:
        self.q.write(PIXELS, struct.pack("<I", colour) * (width * height))
        return [
            self.ask(0x101, "4I", number, 2, width, height)[:4],
            self.ask(0x106, "2I", number, 1, more=struct.pack("<QII", PIXELS, width * height * 4, 0))[:4],
            self.ask(0x105, "4IQII", 0, 0, width, height, 0, number, 0)[:4],
        ]

    def told(self, outputs: int) -> list[object]:
        """Of the outputs and their monitors."""
        q = self.q
        found: list[object] = [q.readl(VIRTIO + 0x2000), q.readl(VIRTIO + 0x2008), self.ask(0x100)[24:]]
        return found + [self.ask(0x10A, "2I", n, 0) for n in range(outputs + 1)]


def scene(driver: Driver, qmp: QmpClient, directory: pathlib.Path) -> list[object]:
    found = driver.told(3)
    found += driver.picture(1, 64, 32, 0x112233) + driver.picture(2, 80, 40, 0x445566)
    for output, number, width, height in ((0, 1, 64, 32), (2, 2, 80, 40), (1, 1, 32, 32), (3, 1, 64, 32)):
        found.append(driver.ask(0x103, "6I", 0, 0, width, height, output, number)[:4])
    found.append(driver.ask(0x104, "6I", 0, 0, 64, 32, 1, 0)[:4])
    found.append(driver.ask(0x104, "6I", 0, 0, 80, 40, 2, 0)[:4])

    def pictures() -> None:
        for head in range(3):
            file = directory / "head.ppm"
            qmp.execute("screendump", filename=str(file), device="g", head=head)
            found.append(file.read_bytes())

    pictures()
    found.append(driver.ask(0x102, "2I", 2, 0)[:4])
    found.append(driver.ask(0x103, "6I", 0, 0, 0, 0, 1, 0)[:4])
    return found


def viewer(path: pathlib.Path, width: int, height: int) -> None:
    """One that asks for a size, and waits until it is told what has become of that."""
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(20)
        end.connect(str(path))
        file = end.makefile("rb")
        end.sendall(file.read(12))
        end.sendall(bytes(file.read(ord(file.read(1)))[:1]))
        assert file.read(4) == bytes(4)
        end.sendall(b"\1")
        name = struct.unpack(">2H16xI", file.read(24))[2]
        file.read(name)
        end.sendall(struct.pack(">BxH2i", 2, 2, 0, -308))
        end.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 16, 16))
        while True:
            assert file.read(2) == b"\0\0"
            reasons = []
            for _ in range(struct.unpack(">H", file.read(2))[0]):
                reason, _, w, h, kind = struct.unpack(">4Hi", file.read(12))
                if kind == -308:
                    file.read(4 + 16)
                    reasons.append(reason)
                else:
                    file.read(4 * w * h)
            if 1 in reasons:
                return
            end.sendall(struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 0, 0, 0, width, height, 0))
            end.sendall(struct.pack(">BBHHHH", 3, 1, 0, 0, 16, 16))


def test_three_outputs(tmp_path: pathlib.Path) -> None:
    looks = []
    for name, command in (
        ("theirs", [str(QEMU), "-M", "pc-i440fx-7.2,smm=off", "-accel", "tcg", "-S"]),
        ("ours", [sys.executable, str(PROGRAM), "-M", "pc-i440fx-7.2", "-accel", "qtest"]),
    ):
        monitor, screen = str(tmp_path / f"{name}.qmp"), tmp_path / f"{name}.vnc"
        options = [
            "-m", "64", "-nodefaults", "-qmp", f"unix:{monitor},server=on,wait=off",
            "-vnc", f"unix:{screen},display=g,head=1",
            "-device", "virtio-gpu-pci,id=g,addr=5,max_outputs=3,xres=800,yres=600",
        ]  # fmt: skip
        with QtestProgram([*command, *options]) as q, QmpClient(monitor) as qmp:
            driver = Driver(q)
            found = scene(driver, qmp, tmp_path)
            viewer(screen, 1000, 700)
            found += driver.told(3)
        looks.append(found)
    assert [n for n, pair in enumerate(zip(*looks, strict=True)) if pair[0] != pair[1]] == []
    told = looks[1][2]
    assert isinstance(told, bytes) and struct.unpack_from("<6I", told) == (0, 0, 800, 600, 1, 0)
