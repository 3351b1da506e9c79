"""Watchdogs, pvpanic-pci and PCI serial cards beside QEMU's: configuration space, registers, and what time does."""

from __future__ import annotations

import functools
import pathlib
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.testing import QtestProgram

pytestmark = [needs_qemu, pytest.mark.peer]

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"
OPTIONS = ["-M", "pc-i440fx-7.2", "-m", "64", "-display", "none", "-nodefaults", "-vga", "none"]
SIDES = ["qemu", "vmrun"]
SECOND = 1_000_000_000
BAR = 0xF0000000
MARK = 0x80000000 | 0x3C  # the host bridge's interrupt line: a byte that a reset clears


HALT: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def halt(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A firmware that does nothing: 64 KiB of hlt and back."""
    path = tmp_path_factory.mktemp("watchdogs") / "halt.rom"
    path.write_bytes(b"\xf4\xeb\xfd" * 0x5555 + b"\xf4")
    HALT[:] = [str(path)]


def machine(side: str, *options: str) -> QtestProgram:
    """QEMU's time is the host's, its processor halts at once; vmrun's goes by steps."""
    if side == "vmrun":
        return QtestProgram([sys.executable, str(PROGRAM), "-accel", "qtest", *OPTIONS, *options])
    return QtestProgram([str(QEMU), "-accel", "tcg", "-bios", HALT[0], *OPTIONS, *options])


def step(q: QtestProgram, side: str, ms: int) -> None:
    if side == "vmrun":
        q.clock_step(ms * 1_000_000)
    else:
        time.sleep(ms / 1000)


def in_time(test: Callable[..., None]) -> Callable[..., None]:
    """QEMU's side again when it fails: its time is the host's, which may have let it or the test wait."""

    @functools.wraps(test)
    def tried(*args: Any, **kwargs: Any) -> None:
        for _ in range(4 if kwargs["side"] == "qemu" else 0):
            try:
                return test(*args, **kwargs)
            except AssertionError:
                continue
        return test(*args, **kwargs)

    return tried


def config(q: QtestProgram, offset: int, value: int, width: str = "l") -> None:
    q.outl(0xCF8, 0x80002800 | offset & 0xFC)
    getattr(q, f"out{width}")(0xCFC + (offset & 3), value)


def read_config(q: QtestProgram, offset: int, width: str = "l") -> int:
    q.outl(0xCF8, 0x80002800 | offset & 0xFC)
    found: int = getattr(q, f"in{width}")(0xCFC + (offset & 3))
    return found


def mark(q: QtestProgram) -> None:
    q.outl(0xCF8, MARK)
    q.outb(0xCFC, 0x55)


def marked(q: QtestProgram) -> bool:
    """Still, after anything that was asked of the main loop had its turn."""
    for _ in range(20):
        q.outl(0xCF8, MARK)
        if q.inb(0xCFC) != 0x55:
            return False
        time.sleep(0.01)
    return True


CARDS = ["i6300esb", "pvpanic-pci", "pvpanic-pci,events=1", "pci-serial", "pci-serial,prog_if=6", "pci-serial-2x",
         "pci-serial-4x"]  # fmt: skip
# registers of their own, and pvpanic's BAR, which QEMU declares two bytes wide
IVSHMEM = ["-object", "memory-backend-memfd,id=m,size=1M", "-device", "ivshmem-plain,memdev=m,addr=5"]
OWN = {"i6300esb": (0x60, 0x68), "pvpanic-pci": (0x10,)}


@pytest.mark.parametrize("card", CARDS)
def test_configuration_space_is_qemus_after_any_write(card: str) -> None:
    lines = []
    for value in (None, 0xFFFFFFFF, 0, 0x5A5A5A5A):
        for offset in range(0, 256, 4):
            if value is not None and offset in OWN.get(card.partition(",")[0], ()):
                continue
            lines.append(f"outl 0xcf8 {0x80002800 | offset:#x}")
            if value is not None:
                lines.append(f"outl 0xcfc {value:#x}")
            lines.append("inl 0xcfc")
    answers = []
    for side in SIDES:
        with machine(side, "-device", f"{card},addr=5") as q:
            answers.append(q.ask_all(lines))
    assert [row for row in zip(lines, *answers, strict=True) if row[1] != row[2]] == []


@pytest.mark.parametrize(("card", "ports"), [("pci-serial", 1), ("pci-serial-2x", 2), ("pci-serial-4x", 4)])
def test_ports_of_a_serial_card_answer_as_qemus(card: str, ports: int) -> None:
    chosen = random.Random(4)
    lines = ["outl 0xcf8 0x80002810", "outl 0xcfc 0xc000", "outl 0xcf8 0x80002804", "outw 0xcfc 1"]
    for _ in range(600):
        port = 0xC000 + 8 * chosen.randrange(ports) + chosen.choice((1, 2, 3, 5, 6, 7))
        lines.append(f"inb {port:#x}" if chosen.random() < 0.6 else f"outb {port:#x} {chosen.randrange(256) & 0x7F:#x}")
        lines += ["outl 0xcf8 0x80002804", "inl 0xcfc"]  # interrupt status, that of any port
    answers = []
    for side in SIDES:
        with machine(side, "-device", f"{card},addr=5") as q:
            answers.append(q.ask_all(lines))
    assert [row for row in zip(lines, *answers, strict=True) if row[1] != row[2]] == []


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("events", [1, 3])
def test_pvpanic_pci_tells_its_events_and_pauses(side: str, events: int) -> None:
    with machine(side, "-device", f"pvpanic-pci,addr=5,events={events}") as q:
        config(q, 0x10, BAR)
        config(q, 4, 2, "w")
        assert q.readb(BAR) == events
        q.writeb(BAR, 2)  # a crash kernel takes over: nothing happens
        assert q.readb(BAR) == events


def test_ivshmem_plain_is_qemus() -> None:
    lines = []
    for value in (None, 0xFFFFFFFF, 0, 0x5A5A5A5A):
        for offset in range(0, 256, 4):
            lines.append(f"outl 0xcf8 {0x80002800 | offset:#x}")
            if value is not None:
                lines.append(f"outl 0xcfc {value:#x}")
            lines.append("inl 0xcfc")
    for offset, value in ((0x10, BAR), (0x18, BAR + 0x1000000), (0x1C, 0), (4, 2)):
        lines += [f"outl 0xcf8 {0x80002800 | offset:#x}", f"outl 0xcfc {value:#x}"]
    for offset in (0, 4, 8, 12, 0x10, 0xFC):
        lines += [f"readl {BAR + offset:#x}", f"writel {BAR + offset:#x} 0x12345678", f"readl {BAR + offset:#x}"]
    lines += [f"readl {BAR + 4:#x}", f"writeq {BAR + 0x10FFFF8:#x} 0x1122334455667788", f"readq {BAR + 0x10FFFF8:#x}"]
    answers = []
    for side in SIDES:
        with machine(side, *IVSHMEM) as q:
            answers.append(q.ask_all(lines))
    assert [row for row in zip(lines, *answers, strict=True) if row[1] != row[2]] == []


def test_two_machines_share_a_file(tmp_path: pathlib.Path) -> None:
    shared = ["-object", f"memory-backend-file,id=m,size=1M,share=on,mem-path={tmp_path / 'm'}", *IVSHMEM[2:]]
    with machine("qemu", *shared) as theirs, machine("vmrun", *shared) as ours:
        for q in (theirs, ours):
            config(q, 0x18, BAR)
            config(q, 0x1C, 0)
            config(q, 4, 2, "w")
        theirs.writel(BAR + 0x100, 0xCAFE)
        assert ours.readl(BAR + 0x100) == 0xCAFE
        ours.writel(BAR + 0x200, 0xF00D)
        assert theirs.readl(BAR + 0x200) == 0xF00D


class Esb:
    def __init__(self, q: QtestProgram) -> None:
        self.q = q
        config(q, 0x10, BAR)
        config(q, 4, 2, "w")

    def unlock(self) -> None:
        self.q.writeb(BAR + 12, 0x80)
        self.q.writeb(BAR + 12, 0x86)

    def preload(self, stage: int, ticks: int) -> None:
        self.unlock()
        self.q.writel(BAR + 4 * (stage - 1), ticks)

    def enable(self, lock: int = 2) -> None:
        config(self.q, 0x68, lock, "b")

    def ping(self) -> None:
        self.unlock()
        self.q.writew(BAR + 12, 0x100)

    def timed_out(self) -> int:
        return self.q.readw(BAR + 12)


TICK = 30 << 15  # ns


@pytest.mark.parametrize("side", SIDES)
@in_time
def test_i6300esb_runs_out_after_both_stages(side: str) -> None:
    with machine(side, "-device", "i6300esb,addr=5", "-watchdog-action", "none") as q:
        esb = Esb(q)
        esb.preload(1, 300)
        esb.preload(2, 500)
        esb.enable()
        step(q, side, 400)
        assert esb.timed_out() == 0
        step(q, side, 500)
        assert esb.timed_out() == 0x1200
        esb.unlock()
        q.writew(BAR + 12, 0x1000)
        assert esb.timed_out() == 0


def test_i6300esb_runs_out_at_its_tick() -> None:
    with machine("vmrun", "-device", "i6300esb,addr=5", "-watchdog-action", "none") as q:
        esb = Esb(q)
        esb.preload(1, 100)
        esb.preload(2, 50)
        esb.enable()
        q.clock_step(150 * TICK - 1000)
        assert esb.timed_out() == 0
        q.clock_step(2000)
        assert esb.timed_out() == 0x1200


@pytest.mark.parametrize("side", SIDES)
@in_time
def test_i6300esb_that_is_pinged_does_not(side: str) -> None:
    with machine(side, "-device", "i6300esb,addr=5", "-watchdog-action", "none") as q:
        esb = Esb(q)
        esb.preload(1, 300)
        esb.preload(2, 700)
        esb.enable()
        for _ in range(3):
            step(q, side, 500)
            esb.ping()
        assert esb.timed_out() == 0
        step(q, side, 500)
        q.writew(BAR + 12, 0x100)  # locked: no ping
        step(q, side, 600)
        assert esb.timed_out() == 0x1200


@pytest.mark.parametrize("side", SIDES)
@in_time
def test_i6300esb_in_microseconds_stopped_and_without_output(side: str) -> None:
    with machine(side, "-device", "i6300esb,addr=5", "-watchdog-action", "none") as q:
        esb = Esb(q)
        config(q, 0x60, 4, "w")
        assert read_config(q, 0x60, "w") == 4
        esb.preload(1, 0x80000)
        esb.preload(2, 1000)
        esb.enable()
        step(q, side, 100)
        esb.enable(0)
        step(q, side, 1000)
        assert esb.timed_out() == 0
        config(q, 0x60, 0x24, "w")  # no output
        esb.enable(6)
        step(q, side, 1000)
        assert esb.timed_out() == 0
        config(q, 0x60, 0x04, "w")
        step(q, side, 1000)
        assert esb.timed_out() == 0x1200


@pytest.mark.parametrize("side", SIDES)
@in_time
def test_i6300esb_locked_cannot_be_stopped(side: str) -> None:
    with machine(side, "-device", "i6300esb,addr=5", "-watchdog-action", "none") as q:
        esb = Esb(q)
        esb.preload(1, 100)
        esb.preload(2, 100)
        esb.enable(3)
        esb.enable(0)
        assert read_config(q, 0x68, "b") == 3
        step(q, side, 300)
        assert esb.timed_out() == 0x1200


@pytest.mark.parametrize("side", SIDES)
@in_time
def test_i6300esb_resets_the_machine_and_remembers(side: str) -> None:
    with machine(side, "-device", "i6300esb,addr=5") as q:
        esb = Esb(q)
        esb.preload(1, 300)
        esb.preload(2, 700)
        esb.enable()
        mark(q)
        step(q, side, 400)
        assert marked(q)
        step(q, side, 800)
        assert not marked(q)
        assert Esb(q).timed_out() == 0x1200


@pytest.mark.parametrize(("value", "seconds"), [(0, 30), (0xE, 2), (0x1D, 4), (0xF, 0)])
def test_ib700_runs_out_at_its_second(value: int, seconds: int) -> None:
    with machine("vmrun", "-device", "ib700") as q:
        mark(q)
        q.outb(0x443, value)
        if seconds:
            q.clock_step(seconds * SECOND - 1000)
            assert marked(q)
        q.clock_step(2000)
        assert not marked(q)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("start", "stop"), [(0x443, None), (0x444, 0x441), (0x443, 0x442), (0x441, None)])
@in_time
def test_ib700_runs_out_unless_it_is_stopped(side: str, start: int, stop: int | None) -> None:
    with machine(side, "-device", "ib700") as q:
        mark(q)
        q.outb(start, 0xE)
        step(q, side, 500)
        if stop is not None:
            q.outb(stop, 0)
        step(q, side, 1900)
        assert marked(q) == (stop is not None or start == 0x441)
