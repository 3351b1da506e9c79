"""VMware's SCSI adapter: commands, rings and requests as its driver for Linux uses them, on vmrun's and on QEMU's."""

from __future__ import annotations

import pathlib
import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.devices.scsi import image
from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestProgram

BAR = 0xE0000000
COMMAND, DATA_WORD, STATUS, CAUSE, MASK, KICK_OTHER, KICK = 0, 4, 8, 0x100C, 0x2010, 0x3014, 0x4018
RESET, SETUP_RINGS, RESET_BUS, RESET_DEVICE, ABORT, CONFIG, SETUP_MESSAGES = 1, 3, 4, 5, 6, 7, 8
INDICES, REQUESTS, COMPLETIONS, MESSAGES = 0x10000, 0x20000, 0x30000, 0x40000
MEMORY, SENSE, LIST = 0x100000, 0x50000, 0x51000
FAILED, NOT_ENOUGH = 0xFFFFFFFF, 0xFFFFFFFE
AS_LIST, TO_HOST, TO_DEVICE, NO_DATA = 1, 8, 16, 4
NO_SELECTION = 0x11


def machine(side: str, path: pathlib.Path, **props: Any) -> Any:
    if side == "vmrun":
        devices = [
            {"driver": "pvscsi", "id": "s", "addr": "05.0", **props},
            {"driver": "scsi-hd", "id": "u", "drive": "d0", "scsi-id": 3, "lun": 0},
        ]
        drives = {"d0": {"file": str(path), "format": "raw"}}
        return QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": drives, "devices": devices})
    command = [QEMU or "", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]
    more = "".join(f",{key}={'on' if value is True else value}" for key, value in props.items())
    command += ["-drive", f"if=none,id=d0,file={path},format=raw", "-device", f"pvscsi,id=s,addr=5{more}"]
    return QtestProgram([*command, "-device", "scsi-hd,drive=d0,scsi-id=3,lun=0"])


class Card:
    def __init__(self, q: Any) -> None:
        self.q, self.sent, self.seen = q, 0, 0
        q.pci_write(5, 0, 0x10, BAR)
        q.pci_write(5, 0, 4, 6, 2)

    def command(self, code: int, words: bytes = b"") -> int:
        self.q.writel(BAR + COMMAND, code)
        for at in range(0, len(words), 4):
            self.q.writel(BAR + DATA_WORD, int.from_bytes(words[at : at + 4], "little"))
        return int(self.q.readl(BAR + STATUS))

    def start(self, pages: int = 1) -> int:
        self.q.memset(INDICES, 4096)
        self.q.memset(COMPLETIONS, 4096 * pages)
        self.sent = self.seen = 0
        assert self.command(RESET) == 0
        rows = [[(at >> 12) + n if n < pages else 0 for n in range(32)] for at in (REQUESTS, COMPLETIONS)]
        return self.command(SETUP_RINGS, struct.pack("<IIQ64Q", pages, pages, INDICES >> 12, *rows[0], *rows[1]))

    def put(
        self, cdb: bytes, address: int, size: int, flags: int, target: int = 3, lun: int = 0, context: int = 0x1234,
        bus: int = 0,
    ) -> None:  # fmt: skip
        row = struct.pack(
            "<QQQQII16sB8sBBB", context, address, size, SENSE, 96, flags, cdb.ljust(16, b"\0"), len(cdb),
            bytes((0, lun, 0, 0, 0, 0, 0, 0)), 0x20, bus, target,
        )  # fmt: skip
        self.q.write(REQUESTS + self.sent % 32 * 128, row.ljust(128, b"\0"))
        self.sent += 1
        self.q.writel(INDICES, self.sent)

    def answer(self) -> tuple[int, int, int, int, int] | None:
        """(context, bytes, sense bytes, host status, SCSI status) of the next completion."""
        for _ in range(3000):
            if self.q.readl(INDICES + 12) != self.seen:
                break
            if hasattr(self.q, "settle"):
                self.q.settle()
            else:
                time.sleep(0.001)
        else:
            return None
        row = struct.unpack("<QQIHH", self.q.read(COMPLETIONS + self.seen % 128 * 32, 24))
        self.seen += 1
        self.q.writel(INDICES + 16, self.seen)
        return row  # type: ignore[return-value]

    def run(self, cdb: bytes, size: int = 0, write: bytes = b"", **more: Any) -> Any:
        """(completion, data, sense)"""
        self.q.memset(MEMORY, max(size, 1), 0xDD)
        self.q.memset(SENSE, 96)
        if write:
            self.q.write(MEMORY, write)
        flags = TO_DEVICE if write else TO_HOST if size else NO_DATA
        self.put(cdb, MEMORY, len(write) or size, flags, **more)
        self.q.writel(BAR + KICK, 0)
        found = self.answer()
        return found, self.q.read(MEMORY, size) if size else b"", self.q.read(SENSE, 18)


def read_10(lba: int, count: int, write: bool = False) -> bytes:
    return struct.pack(">BBIBHB", 0x2A if write else 0x28, 0, lba, 0, count, 0)


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def card(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Card]:
    with machine(request.param, image(tmp_path / "d.img")) as q:
        yield Card(q)


@pytest.fixture
def ours(tmp_path: pathlib.Path) -> Iterator[Card]:
    with machine("vmrun", image(tmp_path / "d.img")) as q:
        yield Card(q)


@pytest.mark.peer
@pytest.mark.parametrize("props", [{}, {"x-old-pci-configuration": True}])
def test_configuration_and_idle_registers_are_qemus(props: dict[str, Any], tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, image(tmp_path / f"{side}.img"), **props) as q:
            words = [q.pci_read(5, 0, n) for n in range(0, 256, 4)]
            Card(q)
            found.append((words, [q.readl(BAR + n) for n in (0, 4, 8, 0x100, CAUSE, MASK, KICK_OTHER, KICK)]))
    assert found[0] == found[1]


@pytest.mark.peer
def test_answers_to_commands_are_qemus(tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, image(tmp_path / f"{side}.img")) as q:
            card, log = Card(q), []
            for code in (0, 2, 9, 11, 200, CONFIG, ABORT, RESET_DEVICE, SETUP_MESSAGES):
                log.append((code, card.command(code)))
            log.append(("config", card.command(CONFIG, bytes(24))))
            log.append(("messages early", card.command(SETUP_MESSAGES, bytes(136))))
            log.append(("no pages", card.command(SETUP_RINGS, bytes(528))))
            log.append(("rings", card.start()))
            log.append(
                ("messages", card.command(SETUP_MESSAGES, struct.pack("<II16Q", 1, 0, MESSAGES >> 12, *[0] * 15)))
            )
            log.append(("indices", card.q.read(INDICES, 140)))
            log.append(("bus", card.command(RESET_BUS)))
            log.append(("device", card.command(RESET_DEVICE, struct.pack("<I8s", 3, bytes(8)))))
            log.append(("abort", card.command(ABORT, struct.pack("<QII", 5, 3, 0))))
            found.append(log)
    assert found[0] == found[1]


@pytest.mark.peer
def test_completions_are_qemus(tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, image(tmp_path / f"{side}.img")) as q:
            card, log = Card(q), []
            card.start()
            q.writel(BAR + MASK, 0xF)
            log.append(card.run(bytes(6)))
            log.append((q.readl(BAR + CAUSE), q.pci_read(5, 0, 4) >> 19 & 1))
            q.writel(BAR + CAUSE, 0xF)
            log.append((q.readl(BAR + CAUSE), q.pci_read(5, 0, 4) >> 19 & 1))
            log.append(card.run(bytes(6)))
            log.append(card.run(bytes((0x12, 0, 0, 0, 36, 0)), 36))
            log.append(card.run(bytes((0x12, 0, 0, 0, 36, 0)), 96))
            log.append(card.run(bytes((0x25, *bytes(9))), 8))
            log.append(card.run(read_10(7, 2), 1024))
            log.append(card.run(bytes((0xD9, *bytes(5)))))
            log.append(card.run(read_10(9, 2, True), write=b"a" * 1024))
            log.append(card.run(read_10(9, 2), 1024))
            log.append(card.run(bytes(6), target=4))
            log.append(card.run(bytes(6), target=3, lun=2))
            log.append(card.run(bytes((0xA0, *bytes(5), 0, 0, 0, 64, 0, 0)), 64))
            log.append(q.read(INDICES, 24))
            found.append([((one[0][0], *one[0][2:]), *one[1:]) if len(one) == 3 else one for one in log])
    assert found[0] == found[1]  # all but the count of bytes, which QEMU leaves 0


def test_a_completion_counts_what_was_moved(ours: Card) -> None:
    ours.start()
    ours.run(bytes(6))
    assert ours.run(read_10(7, 2), 1024)[0] == (0x1234, 1024, 0, 0, 0)
    assert ours.run(bytes((0x12, 0, 0, 0, 36, 0)), 96)[0] == (0x1234, 36, 0, 0x12, 0)
    assert ours.run(read_10(1 << 20, 2), 1024)[0] == (0x1234, 0, 18, 0, 2)


def test_blocks_go_through_lists_of_pieces(card: Card) -> None:
    card.start()
    card.run(bytes(6))
    data = random.Random(3).randbytes(2048)
    card.q.write(MEMORY, data)
    pieces = [(MEMORY, 100, 0), (MEMORY + 100, 924, 0), (LIST + 0x100, 0, 1)]
    card.q.write(LIST, b"".join(struct.pack("<QII", *piece) for piece in pieces))
    card.q.write(LIST + 0x100, struct.pack("<QII", MEMORY + 1024, 1024, 0))
    card.put(read_10(20, 4, True), LIST, 2048, TO_DEVICE | AS_LIST)
    card.q.writel(BAR + KICK, 0)
    found = card.answer()
    assert found and found[0] == 0x1234 and found[2:] == (0, 0, 0)
    assert card.run(read_10(20, 4), 2048)[1] == data


def test_many_requests_at_a_time_are_all_answered_once(card: Card) -> None:
    card.start()
    card.run(bytes(6))
    for n in range(24):
        card.put(read_10(n, 1), MEMORY + 512 * n, 512, TO_HOST, context=n)
    card.q.writel(BAR + KICK, 0)
    answers = [card.answer() for _ in range(24)]
    assert sorted(answer[0] for answer in answers if answer) == list(range(24))
    for n in range(24):
        assert card.q.read(MEMORY + 512 * n, 512) == struct.pack("<I", n) * 128


def test_units_that_come_and_go_are_told(ours: Card) -> None:
    ours.start()
    ours.q.writel(BAR + MASK, 0xF)
    assert ours.command(SETUP_MESSAGES, struct.pack("<II16Q", 1, 0, MESSAGES >> 12, *[0] * 15)) == 34
    ours.q.machine.unplug(ours.q.machine.board.devices["u"])
    ours.q.settle()
    assert ours.q.readl(INDICES + 128) == 1
    assert struct.unpack("<III8s", ours.q.read(MESSAGES, 20)) == (1, 0, 3, bytes(8))
    assert ours.q.readl(BAR + CAUSE) == 4
    assert ours.run(bytes(6))[0][3] == NO_SELECTION


def test_nonsense_is_survived(ours: Card) -> None:
    rng = random.Random(11)
    ours.start()
    ours.run(bytes(6))
    for _ in range(300):
        what = rng.randrange(4)
        if what == 0:
            ours.q.writel(BAR + rng.choice((COMMAND, DATA_WORD, CAUSE, MASK, KICK, KICK_OTHER)), rng.getrandbits(32))
        elif what == 1:
            ours.q.write(REQUESTS + rng.randrange(4096 - 128), rng.randbytes(128))
        elif what == 2:
            ours.q.write(INDICES, rng.randbytes(24))
        else:
            ours.q.writel(INDICES, ours.sent + rng.randrange(40))
            ours.q.writel(BAR + KICK, 0)
    ours.q.settle()
    assert ours.start() == 0
    assert ours.run(bytes((0x12, 0, 0, 0, 36, 0)), 36)[1][8:28] == b"QEMU    QEMU HARDDIS"
