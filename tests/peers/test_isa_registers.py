"""The same writes to QEMU's and to our 8259A, 8254, clock, HPET and I/O APIC: the registers read the same."""

import random

import pytest
from accel.clock import SteppedClock, TimerQueue
from accel.run import MsiSink
from accel.space import AddressSpace, Region
from vmrun.devices.intc.i8259 import I8259
from vmrun.devices.intc.ioapic_chip import Ioapic
from vmrun.devices.timer.hpet_chip import Hpet
from vmrun.devices.timer.i8254 import I8254

from tests.peers.oracle import Qemu, needs_qemu

pytestmark = needs_qemu


@pytest.fixture(scope="module")
def qemu():
    with Qemu("pc-i440fx-2.0") as q:
        yield q


def readl(qemu, addr):
    return int(qemu.ask(f"readl {addr:#x}").split()[-1], 0) & 0xFFFFFFFF


def writel(qemu, addr, value):
    qemu.ask(f"writel {addr:#x} {value:#x}")


def space(io, size, base=0):
    root = Region.container("all", 0)
    root.add(Region.device("chip", io, size), base)
    return AddressSpace("chip", root)


def test_8259a_takes_the_same_commands(qemu):
    chip = I8259()
    ours = space(chip, 2, 0x20)
    rng = random.Random(8259)
    for _ in range(300):
        port = rng.choice((0x20, 0x21))
        value = rng.randrange(256)
        if port == 0x20 and value & 0x18 == 0x18:
            value &= ~0x08
        ours.write(port, 1, value)
        qemu.outb(port, value)
        for read in (0x20, 0x21):
            assert ours.read(read, 1) == qemu.inb(read), f"after {value:#x} to {port:#x}"


def test_8254_reads_back_the_same_status_of_an_idle_counter(qemu):
    from accel.api import IrqLine

    clock = SteppedClock()
    pit = space(I8254(clock, TimerQueue(clock), IrqLine()), 4, 0x40)
    for mode in range(8):
        for rw in (1, 2, 3):
            for bcd in (0, 1):
                for port, value in ((0x43, 0x80 | rw << 4 | mode << 1 | bcd), (0x43, 0xE8)):
                    pit.write(port, 1, value)
                    qemu.outb(port, value)
                assert pit.read(0x42, 1) & 0x3F == qemu.inb(0x42) & 0x3F, (mode, rw, bcd)


def test_8254_counts_are_stored_the_same(qemu):
    from accel.api import IrqLine

    clock = SteppedClock()
    pit = space(I8254(clock, TimerQueue(clock), IrqLine()), 4, 0x40)
    for count in (0x1234, 0xFFFF, 0x0002):
        for port, value in ((0x43, 0xB4), (0x42, count & 0xFF), (0x42, count >> 8), (0x43, 0x80)):
            pit.write(port, 1, value)
            qemu.outb(port, value)
        assert [pit.read(0x42, 1) for _ in "12"] == [qemu.inb(0x42) for _ in "12"]


def test_hpet_registers_hold_the_same(qemu):
    clock = SteppedClock()
    base = 0xFED00000
    ours = space(Hpet(clock, TimerQueue(clock), 3, 4), 0x400, base)
    rng = random.Random(1)
    offsets = [0x10, 0x14, 0x20, 0xF0, 0xF4] + [0x100 + 0x20 * n + k for n in range(3) for k in (0, 4, 8, 12)]
    reads = [0x00, 0x04, *offsets]
    for offset in reads:
        assert ours.read(base + offset, 4) == readl(qemu, base + offset), hex(offset)
    for _ in range(200):
        offset = rng.choice(offsets)
        value = rng.getrandbits(32) & (0xFFFFFFFE if offset == 0x10 else 0xFFFFBFFF)
        if offset & 0x11F == 0x100:
            value &= ~0x100     # the upper half of a 32-bit timer's comparator: the specification has none
        ours.write(base + offset, 4, value)
        writel(qemu, base + offset, value)
        for read in reads:
            mine, theirs = ours.read(base + read, 4), readl(qemu, base + read)
            assert mine == theirs, f"{read:#x} after {value:#x} to {offset:#x}: {mine:#x} {theirs:#x}"


def test_ioapic_registers_hold_the_same(qemu):
    base = 0xFEC00000
    ours = space(Ioapic(MsiSink(), 0x11), 0x1000, base)
    rng = random.Random(2)
    for _ in range(300):
        index, value = rng.choice((0, 1, 2, *range(0x10, 0x40))), rng.getrandbits(32) | 0x10000
        for write in (lambda at, v: ours.write(at, 4, v), lambda at, v: writel(qemu, at, v)):
            write(base, index)
            write(base + 0x10, value)
        # QEMU keeps the reserved bits 17 to 31 of an entry's low word; the data sheet has none.
        mask = 0x1FFFF if index >= 0x10 and index % 2 == 0 else 0xFFFFFFFF
        mine, theirs = ours.read(base + 0x10, 4), readl(qemu, base + 0x10)
        assert mine & mask == theirs & mask, f"{index:#x} after {value:#x}: {mine:#x} {theirs:#x}"


def test_cmos_cells_hold_the_same(qemu):
    from accel.api import IrqLine
    from vmrun.devices.timer.mc146818 import Mc146818

    clock = SteppedClock()
    ours = space(Mc146818(clock, TimerQueue(clock), IrqLine()), 2, 0x70)
    stopped = ((11, 0x82), (10, 0x26))
    time = ((0, 0x11), (2, 0x22), (4, 0x13), (7, 0x05), (8, 0x06), (9, 0x27), (0x32, 0x20))
    cells = ((1, 0xC0), (3, 0x33), (5, 0x44), (0x40, 0x99), (13, 0), (0x37, 0x21))
    for index, value in (*stopped, *time, *cells):
        for write in (lambda at, v: ours.write(at, 1, v), qemu.outb):
            write(0x70, index)
            write(0x71, value)
    for index in (0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 0x32, 0x37, 0x40):
        ours.write(0x70, 1, index)
        qemu.outb(0x70, index)
        assert ours.read(0x71, 1) == qemu.inb(0x71), hex(index)
