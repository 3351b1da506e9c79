"""More of QEMU's qtest suites in our words, on both programs: pvpanic, pvpanic-pci, i440fx, rtc, readconfig; what is
said of a guest that hibernates. Processors stand still (-S).
"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.peers.oracle import needs_qemu
from tests.peers.test_suites_qemu import Side, both

pytestmark = [pytest.mark.peer, needs_qemu]
MACHINE = ("-machine", "pc-i440fx-7.2", "-nodefaults")
PVPANIC, PANICKED, CRASHLOADED = 0x505, 1, 2


def config(side: Side, device: int, function: int, offset: int, value: int) -> None:
    side.outl(0xCF8, 0x80000000 | device << 11 | function << 8 | offset)
    side.outl(0xCFC, value)


def kinds(side: Side) -> list[tuple[str, Any]]:
    """What happened so far, without times."""
    side.qmp("query-status")
    return [(message["event"], message.get("data")) for message in side.events]


# --- pvpanic-test, pvpanic-pci-test -----------------------------------------------------------------------------


@pytest.mark.parametrize("panic", ["pause", "none", "shutdown"])
@pytest.mark.parametrize("events", [1, 2, 3])
def test_pvpanic_says_that_the_guest_crashed(panic: str, events: int) -> None:
    def act(side: Side) -> Any:
        found = [side.inb(PVPANIC)]
        for event in (4, CRASHLOADED, PANICKED):
            side.outb(PVPANIC, event)
            found.append(side.qmp("query-status"))
        return found, kinds(side)

    words = (*MACHINE, "-no-shutdown", "-action", f"panic={panic}", "-device", f"pvpanic,events={events}")
    both(act, *words)


@pytest.mark.parametrize("events", [1, 2])
def test_pvpanic_on_pci(events: int) -> None:
    def act(side: Side) -> Any:
        config(side, 4, 0, 0x10, 0xE0000000)
        config(side, 4, 0, 0x04, 2)
        found = [side.readb(0xE0000000)]
        side.writeb(0xE0000000, events)
        side.until("GUEST_PANICKED" if events == PANICKED else "GUEST_CRASHLOADED")
        return found, kinds(side)

    both(act, *MACHINE, "-action", "panic=pause", "-device", f"pvpanic-pci,addr=04.0,events={events}")


# --- i440fx-test ------------------------------------------------------------------------------------------------


def test_the_programmable_attributes_of_each_area() -> None:
    """PAM0 to PAM6: F0000, then 16 KiB a half byte from C0000 on; read from RAM, written to RAM, both, neither."""

    def act(side: Side) -> Any:
        found = []
        for area in range(13):
            register, high = (0x59, True) if not area else (0x5A + (area - 1) // 2, not area % 2)
            address = 0xF0000 if not area else 0xC0000 + 0x4000 * (area - 1)
            for mode in (3, 1, 2, 0, 3):
                offset = register & ~3
                side.outl(0xCF8, 0x80000000 | offset)
                shift = 8 * (register & 3) + (4 if high else 0)
                side.outl(0xCFC, side.inl(0xCFC) & ~(3 << shift) | mode << shift)
                if mode != 1:  # QEMU's qtest writes to memory that its processors may only read
                    side.writeb(address + 0x40, 0x40 | mode)
                found.append((area, mode, side.readb(address + 0x40)))
        return found

    found = both(act, *MACHINE)
    assert len({value for _, _, value in found}) > 3


# --- rtc-test ---------------------------------------------------------------------------------------------------

BINARY, HOURS24, SET = 4, 2, 0x80


@pytest.mark.parametrize("form", [0, BINARY, HOURS24, BINARY | HOURS24])
def test_the_clock_in_each_form(form: int) -> None:
    def act(side: Side) -> Any:
        def put(cell: int, value: int) -> None:
            side.outb(0x70, cell)
            side.outb(0x71, value)

        found = []
        for hour in (0, 1, 11, 12, 13, 23):
            put(0x0B, SET | form)
            shown = hour if form & HOURS24 else (hour % 12 or 12)
            shown = shown if form & BINARY else shown // 10 << 4 | shown % 10
            put(4, shown | (0x80 if hour >= 12 and not form & HOURS24 else 0))
            for cell, value in ((0, 0), (2, 5), (6, 4), (7, 8), (8, 2), (9, 12), (0x32, 20)):
                put(cell, value if form & BINARY else value // 10 << 4 | value % 10)
            put(0x0B, form)
            found.append(side.cmos(0, 2, 4, 6, 7, 8, 9, 0x32, 0x0B))
        for cell in (1, 3, 5, 0x0A, 0x0F, 0x7F):  # alarms and what is memory
            for value in (0, 0x26, 0x80, 0xFF):
                put(cell, value)
                found.append(side.cmos(cell))
        return found, side.cmos(0x0D)

    both(act, *MACHINE, "-rtc", "base=2008-06-01T12:00:00")


# --- readconfig-test --------------------------------------------------------------------------------------------

WRITTEN = """
# comment
[machine]
  type = "pc-i440fx-7.2"

[smp-opts]
  cpus = "2"
  maxcpus = "4"

[memory]
  size = "200"

[chardev "ser0"]
  backend = "ringbuf"
  size = "128"

[device "com"]
  driver = "isa-serial"
  chardev = "ser0"

[object "obj0"]
  qom-type = "rng-random"
  filename = "/dev/urandom"

[device "disk0"]
  driver = "virtio-blk-pci"
  drive = "d0"
  addr = "7"

[drive "d0"]
  if = "none"
  file = "null-co://"
  format = "raw"
  cache = "none"
"""


def test_options_from_a_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "vm.cfg"
    file.write_text(WRITTEN)

    def act(side: Side) -> Any:
        side.outb(0x3F8, 0x41)
        return (
            side.qmp("query-memory-size-summary"),
            [row["props"] for row in side.qmp("query-hotpluggable-cpus")],
            side.qmp("ringbuf-read", device="ser0", size=8),
            "obj0" in [row["name"] for row in side.qmp("qom-list", path="/objects")],
            [row["device"] for row in side.qmp("query-block")],
            [row["slot"] for row in side.qmp("query-pci")[0]["devices"]],
        )

    both(act, "-nodefaults", "-vga", "none", "-readconfig", str(file))


@pytest.mark.parametrize(
    "text",
    ["[nonsense]\n", "[device]\nx\n", "no group\n", "[device]\n  driver = e1000\n", '[chardev "c"]\n  size = "1"\n'],
)
def test_files_that_are_wrong_are_refused_by_both(text: str, tmp_path: pathlib.Path) -> None:
    from vmrun.testing import QtestError

    file = tmp_path / "bad.cfg"
    file.write_text(text)
    from tests.peers.test_suites_qemu import QEMU, VMRUN

    for program in (VMRUN, [str(QEMU), "-accel", "tcg"]):
        with pytest.raises((QtestError, ConnectionError, AssertionError)):
            Side(program, "-nodefaults", "-readconfig", str(file)).close()


# --- sleep ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 2, 5])
def test_what_is_said_of_the_guests_end(kind: int) -> None:
    """SLP_TYP 0 is S5, 2 is S4."""

    def act(side: Side) -> Any:
        config(side, 1, 3, 0x40, 0xB001)
        config(side, 1, 3, 0x80, 1)
        side.outw(0xB004, 1 << 13 | kind << 10)
        if kind != 5:
            side.until("SHUTDOWN")
        return kinds(side)

    found = both(act, "-machine", "pc-i440fx-6.1", "-nodefaults", "-no-shutdown")
    assert ("SUSPEND_DISK" in dict(found)) == (kind == 2)
