"""The line monitor about the machine's parts: page tables, memory, boot order."""

from __future__ import annotations

import struct
import types
from collections.abc import Iterator
from typing import Any

import pytest

from vmrun.monitor import hmp, hmp_machine
from vmrun.monitor.work import Work
from vmrun.testing import QTest


@pytest.fixture
def q() -> Iterator[QTest]:
    with QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB"}) as made:
        yield made


def said(q: QTest, line: str) -> str:
    out = hmp.run(q.machine, line)
    assert isinstance(out, str)
    return out.replace("\r\n", "\n")


def pages(q: QTest, **registers: int) -> list[tuple[int, int, int]]:
    standing: Any = types.SimpleNamespace(machine=q.machine)
    return list(hmp_machine._tables(standing, {"cr0": 1 << 31, "cr3": 0x1000, "cr4": 0, "efer": 0, **registers}))


def test_pages_of_32_bits(q: QTest) -> None:
    q.write(0x1000, struct.pack("<I", 0x2000 | 7))
    q.write(0x1000 + 4 * 0x300, struct.pack("<I", 0x400000 | 0x83))
    q.write(0x2000 + 4, struct.pack("<I", 0x5000 | 5))
    assert pages(q) == [(0x1000, 4096, 0x5005), (0xC0000000, 1 << 22, 0x400081 | 2)]


def test_pages_of_64_bits_are_canonical_and_have_the_rights_of_all_levels(q: QTest) -> None:
    for table, n, entry in ((0x1000, 511, 0x2003), (0x2000, 510, 0x3003), (0x3000, 8, 0x200000 | 0xE7)):
        q.write(table + 8 * n, struct.pack("<Q", entry))
    assert pages(q, cr4=0x20, efer=0x400) == [(0xFFFFFFFF81000000, 1 << 21, 0x2000E3)]


def test_pages_of_pae(q: QTest) -> None:
    q.write(0x1000 + 8 * 3, struct.pack("<Q", 0x2001))
    q.write(0x2000, struct.pack("<Q", 0x600000 | 0x83))
    assert pages(q, cr4=0x20) == [(0xC0000000, 1 << 21, 0x600083)]


def test_without_paging_there_is_none(q: QTest) -> None:
    assert said(q, "info mem") == said(q, "info tlb") == "PG disabled\n"


def test_a_checksum_of_memory(q: QTest) -> None:
    """On a thread of its own, which ends with the machine: a GiB takes a minute."""
    q.write(0x100, b"abc")
    work = hmp.run(q.machine, "sum 0x100 3")
    assert isinstance(work, Work)
    assert work.then(work.function(work)) == "16556\r\n"  # sum(1), BSD
    long = hmp.run(q.machine, "sum 0 0x40000000")
    assert isinstance(long, Work)
    long.ended = True
    assert long.function(long) == "00000\n"
    assert said(q, "sum 0 0x40000001") == "Error: sum: at most 1 GiB at a time\n"


def test_the_boot_order_of_the_next_reset(q: QTest) -> None:
    assert said(q, "boot_set dn") == "boot device list now set to dn\n"
    q.outb(0x70, 0x3D)
    assert q.inb(0x71) == 0x43
    assert said(q, "boot_set zz") == "Invalid boot device 'z'\n"
    assert said(q, "boot_set cc") == "Boot device 'c' was given twice\n"
    assert said(q, "boot_set abcd") == "Too many boot devices for PC\n"


def test_what_is_in_memory(q: QTest) -> None:
    assert "0x0000000000000000 0x0000000004000000 0x0000000004000000" in said(q, "info ramblock")
    assert 'addr=00000000fffc0000 size=0x040000 mem=rom name="bios-256k.bin"' in said(q, "info roms")


def test_interrupt_controllers_are_shown(q: QTest) -> None:
    text = said(q, "info pic")
    assert "  pin 23 0x0000000000010000 dest=0 vec=0   active-hi edge  masked fixed  physical\n" in text
    assert "pic1: irr=00 imr=00 isr=00 hprio=0 irq_base=00 rr_sel=0 elcr=00 fnm=0\n" in text


@pytest.mark.parametrize("line", [line for line in hmp.LINES if "q" not in line.names], ids=lambda line: line.names[0])
def test_every_command_answers_without_arguments_and_with_nonsense(q: QTest, line: Any) -> None:
    for text in (line.names[0], f"{line.names[0]} -x nonsense 7 8"):
        if line.names[0] not in ("stop", "cont", "system_reset", "system_powerdown"):
            hmp.run(q.machine, text)
