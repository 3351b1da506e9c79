"""SCSI adapters with programs, frames, rings and registers of chance: see storage.py, which runs them."""

from __future__ import annotations

import random
import struct
from types import ModuleType
from typing import Any

from tests.devices import test_esp as esp
from tests.devices import test_lsi as lsi
from tests.devices import test_megasas as megasas
from tests.devices import test_pvscsi as pvscsi
from tests.devices.scsi import image
from tests.fuzz.victim import Victim, place, size
from vmrun.testing import QTest

CODES = (0, 3, 8, 0xA, 0x12, 0x15, 0x1A, 0x25, 0x28, 0x2A, 0x2E, 0x2F, 0x35, 0x41, 0x42, 0x55, 0x88, 0x8A, 0x93, 0xA0)


def cdb(rng: random.Random) -> bytes:
    head = rng.choice((*CODES, rng.randrange(256)))
    return bytes((head, *(rng.choice((0, 0, 1, 2, 0xFF, rng.randrange(256))) for _ in range(15))))


class Adapter(Victim):
    """A card of a device's own test with a disk at id 3."""

    tests: ModuleType

    def open(self) -> QTest:
        q: QTest = self.tests.machine("vmrun", image(self.directory / "card.img"))
        self.start(q)
        return q

    def start(self, q: QTest) -> None:
        raise NotImplementedError


class Megasas(Adapter):
    """Frames: their codes, flags, targets, opcodes and scatter lists."""

    tests = megasas

    def start(self, q: QTest) -> None:
        q.pci_write(5, 0, 4, 7, 2)
        self.card = megasas.Card(q)
        self.card.start()

    def burst(self, q: QTest, rng: random.Random) -> None:
        known = (megasas.LD_LIST, megasas.LD_TARGETS, megasas.PD_LIST, megasas.CONTROLLER, megasas.EVENTS,
                 megasas.WAIT, 0x02020000, 0x03020000, 0x01020200, 0x04010000, 0x01010000, 0x01040300)  # fmt: skip
        for n in range(16):
            frame = bytearray(rng.randbytes(256) if rng.random() < 0.3 else bytes(256))
            frame[0] = rng.choice((0, 1, 2, 3, 3, 4, 5, 5, 6, rng.randrange(256)))
            if rng.random() < 0.9:
                kinds = ((3, 3, 5, 255), (0, 0, 1), (0, 6, 10, 12, 16, 32), (0, 1, 1, 3, 255))
                frame[4:8] = bytes(rng.choice(kind) for kind in kinds)  # target, LUN, length of the CDB, pieces
                struct.pack_into("<HHI", frame, 16, rng.getrandbits(6), 0, size(rng))
                code = rng.choice((*known, rng.getrandbits(32))) if frame[0] == megasas.DCMD else megasas.SENSE
                struct.pack_into("<I", frame, 24, code)
                if frame[0] in (megasas.LD_SCSI, megasas.PD_SCSI):
                    frame[32:48] = cdb(rng)
                for at in range(40, 200, rng.choice((8, 12, 16))):
                    struct.pack_into("<II", frame, at, place(rng, False), size(rng))
            self.card.send(bytes(frame), wait=False, at=megasas.FRAME + 256 * n)
        if rng.random() < 0.3:
            q.outl(megasas.PORTS + 4 * rng.randrange(64), rng.choice((0, 1, 2, 4, 0xFFFFFFFF, rng.getrandbits(32))))
        if rng.random() < 0.1:
            q.outl(megasas.PORTS + megasas.IDB, 2)
            self.card.start(rng.choice((1, 2, 16, 1000)))
        q.settle()

    def prove(self, q: QTest) -> None:
        self.start(q)
        for _ in range(3):
            found = self.card.scsi(bytes((0x12, 0, 0, 0, 36, 0)), 36)
        assert found[3][8:28] == b"QEMU    QEMU HARDDIS", found


class Lsi(Adapter):
    """SCRIPTS programs, the messages and commands that they send, registers meanwhile."""

    tests = lsi

    def start(self, q: QTest) -> None:
        for value in (0, 0x40, 0):  # it is the edge that resets
            q.outb(lsi.PORTS + lsi.ISTAT, value)
        self.chip = lsi.Chip(q)

    def burst(self, q: QTest, rng: random.Random) -> None:
        heads = (
            lsi.SELECT | 3 << 16, 0x42000000, lsi.WAIT_RESELECT, lsi.WAIT_DISCONNECT, 0x06000001, 0x02000006,
            0x0200000A, 0x01000200, 0x00000200, 0x03000001, 0x07000001, 0x80080000, 0x80880000, 0x98080000, 0x78340000,
            0xC0000010, 0xE1340004, 0x11000000, 0x21000100, 0x60000040, 0x0E000001, 0x0A00000A, 0x09000200,
        )  # fmt: skip
        rows = []
        for _ in range(16):
            head = rng.choice(heads) if rng.random() < 0.8 else rng.getrandbits(32)
            if rng.random() < 0.2:
                head ^= 1 << rng.randrange(32)
            where = rng.choice((lsi.SCRIPT, lsi.MESSAGE, lsi.CDB, lsi.DATA, lsi.MEMORY, place(rng, False)))
            rows.append(struct.pack("<II", head, where))
        if rng.random() < 0.5:  # begins as drivers do
            rows[:3] = (struct.pack("<II", *row) for row in (
                (lsi.SELECT | 3 << 16, lsi.SCRIPT), lsi.move(lsi.MESSAGE_OUT, 1, lsi.MESSAGE),
                lsi.move(lsi.COMMAND, rng.choice((6, 10, 12, 16)), lsi.CDB)))  # fmt: skip
        q.write(lsi.SCRIPT, b"".join(rows))
        q.write(lsi.MESSAGE, bytes((rng.choice((0x80, 0xC0, 1, 6, 12, 13, 0x20, 7)), *rng.randbytes(4))))
        q.write(lsi.CDB, cdb(rng))
        q.outl(lsi.PORTS + lsi.DSP, lsi.SCRIPT)
        for _ in range(rng.randrange(6)):
            q.outb(lsi.PORTS + rng.randrange(256), rng.getrandbits(8))
        if rng.random() < 0.5:
            q.settle()
        if rng.random() < 0.1:
            self.start(q)

    def prove(self, q: QTest) -> None:
        q.settle()
        self.start(q)
        for _ in range(3):
            found = self.chip.command(bytes((0x12, 0, 0, 0, 36, 0)), 36)
        assert found[2][8:28] == b"QEMU    QEMU HARDDIS", found


class Esp(Adapter):
    """Commands, FIFO bytes and the DMA engine of an AM53C974."""

    tests = esp

    def start(self, q: QTest) -> None:
        self.chip = esp.Chip(q)
        q.outb(esp.DMA_CMD, 0)
        q.outl(esp.PORTS + 0x70, 0)

    def burst(self, q: QTest, rng: random.Random) -> None:
        codes = (esp.NOP, esp.FLUSH, esp.TRANSFER, esp.COMPLETE, esp.ACCEPT, esp.SELECT, esp.SELECT_ATN, 0x43, 0x46,
                 0x18, 0x1A, 0x1B, 0x44, 0x45)  # fmt: skip
        lines = []
        if rng.random() < 0.5:
            lines += [f"outb {esp.STAT:#x} 3", f"outb {esp.FIFO:#x} 0x80"]
            lines += [f"outb {esp.FIFO:#x} {byte:#x}" for byte in cdb(rng)[: rng.choice((6, 10, 12))]]
            lines += [f"outb {esp.CMD:#x} {esp.SELECT_ATN:#x}"]
        for _ in range(40):
            what = rng.random()
            if what < 0.35:
                lines.append(f"outb {esp.CMD:#x} {rng.choice(codes) | rng.choice((0, esp.DMA)):#x}")
            elif what < 0.6:
                byte = rng.choice((0x80, 0x12, 0x28, 0x2A, 0, 1, 0x20, 0xC0, 0x0C, rng.getrandbits(8)))
                lines.append(f"outb {esp.FIFO:#x} {byte:#x}")
            elif what < 0.75:
                value = rng.choice((0x83, 3, 0, 512, esp.DATA, place(rng, False)))
                lines.append(f"outl {esp.PORTS + rng.randrange(0x40, 0x80, 4):#x} {value:#x}")
            elif what < 0.9:
                lines.append(f"outb {esp.PORTS + rng.randrange(128):#x} {rng.getrandbits(8):#x}")
            else:
                lines.append(f"inb {esp.PORTS + rng.randrange(128):#x}")
        q.ask_all(lines)
        if rng.random() < 0.7:
            q.settle()

    def prove(self, q: QTest) -> None:
        q.settle()
        self.start(q)
        assert self.chip.ready().command(bytes((0x12, 0, 0, 0, 36, 0)), 36)[1][8:28] == b"QEMU    QEMU HARDDIS"


class Pvscsi(Adapter):
    """Rings, their indices, requests and commands of VMware's adapter."""

    tests = pvscsi

    def start(self, q: QTest) -> None:
        self.card: Any = pvscsi.Card(q)
        self.card.start()

    def burst(self, q: QTest, rng: random.Random) -> None:
        for _ in range(8):
            what = rng.randrange(5)
            if what == 0:
                register = rng.choice((pvscsi.COMMAND, pvscsi.DATA_WORD, pvscsi.CAUSE, pvscsi.MASK, pvscsi.KICK))
                q.writel(pvscsi.BAR + register, rng.choice((0, 1, 4, 7, size(rng))))
            elif what == 1:
                q.write(pvscsi.REQUESTS + rng.randrange(4096 - 128), rng.randbytes(128))
            elif what == 2:
                q.write(pvscsi.INDICES, rng.randbytes(24))
            elif what == 3:
                q.writel(pvscsi.INDICES, self.card.sent + rng.randrange(40))
                q.writel(pvscsi.BAR + pvscsi.KICK, 0)
            else:
                known = (pvscsi.AS_LIST, pvscsi.TO_HOST, pvscsi.TO_DEVICE, pvscsi.NO_DATA)
                flags = rng.choice((*known, rng.getrandbits(5)))
                q.write(pvscsi.LIST, struct.pack("<QII", place(rng), size(rng), rng.choice((0, 1))) * 4)
                where = rng.choice((pvscsi.MEMORY, pvscsi.LIST, place(rng)))
                self.card.put(cdb(rng), where, size(rng), flags, target=rng.choice((3, 3, 4)))
                q.writel(pvscsi.BAR + pvscsi.KICK, 0)
        if rng.random() < 0.2:
            self.card.start(rng.choice((1, 2, 32)))
        q.settle()

    def prove(self, q: QTest) -> None:
        self.start(q)
        for _ in range(3):
            found = self.card.run(bytes((0x12, 0, 0, 0, 36, 0)), 36)
        assert found[1][8:28] == b"QEMU    QEMU HARDDIS", found
