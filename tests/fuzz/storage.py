"""Storage devices against guests out of their minds: registers, packets, rings and lists of chance, each kind in turn.

    python -m tests.fuzz.storage [--seconds 60] [--seed 1] [--kinds ide,fdc,…]

A round is a burst of nonsense; after some of them the device is reset as its driver does it and must work again. What
is looked for is a crash, a round that does not end, and memory that grows. Every round follows from seed and number:
`--kinds KIND --seed N --first ROUND` comes upon a fault again.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import pathlib
import random
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.devices.scsi import COMMON, CONFIG, HEAD, NOTIFY, RINGS, Adapter, machine
from tests.fuzz import adapters
from tests.fuzz.victim import Victim, place, size
from vmrun.testing import QTest

ROUNDS_TO_PROOF = 20
# --- IDE and ATAPI ------------------------------------------------------------------------------------------------

IDE, CONTROL, BUSMASTER = 0x1F0, 0x3F6, 0xC000


class Ide(Victim):
    """A disk and a CD-ROM drive on one channel: commands, packets, PRD tables."""

    def open(self) -> QTest:
        disc = self.directory / "disc.iso"
        disc.write_bytes(bytes(range(256)) * 8 * 64)
        q = QTest(
            {
                "machine": "pc-i440fx-2.0",
                "memory": "64MiB",
                "drives": {
                    **self.disk(),
                    "cd": {"file": str(disc), "media": "cdrom", "readonly": True, "format": "raw"},
                },
                "devices": [
                    {"driver": "ide-hd", "id": "hd", "drive": "d0", "bus": "ide.0", "unit": 0},
                    {"driver": "ide-cd", "id": "cdrom", "drive": "cd", "bus": "ide.0", "unit": 1},
                ],
            }
        )
        q.pci_write(1, 1, 0x20, BUSMASTER)
        q.pci_write(1, 1, 4, 5, 2)
        return q

    def burst(self, q: QTest, rng: random.Random) -> None:
        lines = []
        for _ in range(rng.randrange(4)):
            at = 0x100000 + 8 * rng.randrange(8)
            entry = struct.pack("<IHH", place(rng, False) & ~1, size(rng) & 0xFFFE, rng.choice((0, 0, 0x8000)))
            lines.append(f"write {at:#x} 8 0x{entry.hex()}")
        lines.append(f"outl {BUSMASTER + 4:#x} {rng.choice((0x100000, place(rng, False))):#x}")
        for register in range(1, 7):
            lines.append(f"outb {IDE + register:#x} {rng.choice((0, 1, 255, rng.randrange(256))):#x}")
        if rng.random() < 0.5:
            lines.append(f"outb {IDE + 6:#x} {rng.choice((0xA0, 0xB0, 0xE0, 0xF0)):#x}")
        known = (0xA0, 0xA1, 0xEC, 0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xEF, 0xB0,
                 0x06, 0x90, 0x08, 0xE7, 0xE0, 0xE5, 0x91, 0x40, 0xF8, 0x27, 0x37)  # fmt: skip
        lines.append(f"outb {IDE + 7:#x} {rng.choice((*known, rng.randrange(256))):#x}")
        if rng.random() < 0.4:
            packet = bytes((rng.choice((0xA0, 0x28, 0xA8, 0x43, 0x46, 0x4A, 0x51, 0x52, 0x5A, 0x55, 0xAD, 0xBE, 0x1B,
                                        rng.randrange(256))),))  # fmt: skip
            packet += bytes(rng.choice((0, 0, 1, 2, 255, rng.randrange(256))) for _ in range(11))
            lines += [f"outw {IDE:#x} {word:#x}" for word in struct.unpack("<6H", packet)]
        for _ in range(rng.randrange(4)):
            lines.append(f"outb {BUSMASTER:#x} {rng.choice((0, 1, 8, 9)):#x}")
        way = rng.choice((f"inw {IDE:#x}", f"inl {IDE:#x}", f"outw {IDE:#x} {rng.randrange(65536):#x}"))
        lines += [way] * rng.choice((0, 1, 6, 256, 300))
        lines += [f"inb {IDE + rng.randrange(8):#x}" for _ in range(4)]
        if rng.random() < 0.1:
            lines += [f"outb {CONTROL:#x} {rng.choice((0, 2, 4, 6)):#x}"]
        q.ask_all(lines)
        if rng.random() < 0.7:
            q.settle()

    def prove(self, q: QTest) -> None:
        q.outb(BUSMASTER, 0)
        q.outb(CONTROL, 4)
        q.outb(CONTROL, 0)
        q.settle()
        q.outb(IDE + 6, 0xE0)
        q.outb(IDE + 7, 0xEC)
        q.settle()
        for _ in range(1000):
            if not q.inb(IDE + 7) & 0x80:
                break
            q.settle()
        words = [int(answer, 16) for answer in q.ask_all([f"inw {IDE:#x}"] * 256)]
        assert words[60] == 2048, f"IDENTIFY DEVICE names {words[60]} sectors"


# --- the floppy controller ---------------------------------------------------------------------------------------

DOR, MSR, FIFO = 0x3F2, 0x3F4, 0x3F5


class Floppy(Victim):
    """Command bytes, DMA set up at random, the data rate and digital output registers."""

    def open(self) -> QTest:
        first = self.directory / "a.img"
        first.write_bytes(bytes(2880 * 512))
        return QTest(
            {"machine": "pc-i440fx-7.2", "memory": "64MiB", "rtc": {"clock": "vm"}, "floppies": [
                {"file": str(first), "format": "raw", "snapshot": True}]}
        )  # fmt: skip

    def burst(self, q: QTest, rng: random.Random) -> None:
        lines = []
        if rng.random() < 0.5:  # channel 2
            for port, value in (
                (0x0A, 6), (0x0C, 0), (0x04, rng.randrange(256)), (0x04, rng.randrange(256)),
                (0x81, rng.choice((0, 1, 9))),
                (0x05, rng.choice((0xFF, 0, rng.randrange(256)))), (0x05, rng.choice((1, 0, rng.randrange(256)))),
                (0x0B, rng.choice((0x42, 0x46, 0x4A, rng.randrange(256)))), (0x0A, 2),
            ):  # fmt: skip
                lines.append(f"outb {port:#x} {value:#x}")
        for _ in range(rng.randrange(1, 30)):
            what = rng.random()
            if what < 0.7:
                value = rng.choice((0xE6, 0xC5, 0x0F, 0x08, 0x07, 0x03, 0x4D, 0x4A, 0x12, 0x13, 0x18, 0x8E, 0, 1, 2,
                                    rng.randrange(256)))  # fmt: skip
                lines.append(f"outb {FIFO:#x} {value:#x}")
            elif what < 0.9:
                lines.append(f"inb {FIFO:#x}")
            else:
                value = rng.choice((0, 4, 8, 0x0C, 0x1C, rng.randrange(256)))
                lines.append(f"outb {rng.choice((0x3F0, DOR, 0x3F3, MSR, 0x3F7)):#x} {value:#x}")
        q.ask_all(lines)
        if rng.random() < 0.5:
            q.clock_step(rng.choice((1000, 1_000_000, 100_000_000)))
            q.settle()

    def prove(self, q: QTest) -> None:
        q.outb(DOR, 0)
        q.outb(DOR, 0x0C)
        q.clock_step(1_000_000_000)
        q.settle()
        for _ in range(4):
            q.outb(FIFO, 8)
            q.inb(FIFO), q.inb(FIFO)
        q.outb(FIFO, 0x10)
        version = q.inb(FIFO)
        assert version == 0x90, f"VERSION says {version:#x}"


# --- virtqueues ---------------------------------------------------------------------------------------------------


class Virtqueues(Victim):
    """Descriptors, rings, indices and registers of a virtio disk or SCSI adapter; split or packed rings."""

    def __init__(self, directory: pathlib.Path, driver: str, packed: bool) -> None:
        super().__init__(directory)
        self.driver, self.packed = driver, packed

    def open(self) -> QTest:
        card: dict[str, Any] = {"driver": self.driver, "id": "s", "addr": "05.0", "packed": self.packed}
        if self.driver == "virtio-blk-pci":
            devices = [{**card, "drive": "d0"}]
        else:
            devices = [card, {"driver": "scsi-hd", "id": "u", "drive": "d0", "scsi-id": 0, "lun": 0}]
        q = QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": self.disk(), "devices": devices})
        q.pci_write(5, 0, 0x20, COMMON)
        q.pci_write(5, 0, 0x24, 0)
        q.pci_write(5, 0, 4, 6, 2)
        return q

    def start(self, q: QTest) -> None:
        q.writeb(COMMON + 0x14, 0)
        q.settle()
        q.writeb(COMMON + 0x14, 3)
        for word, value in ((0, 1 << 28 | 1 << 29), (1, 1 | (4 if self.packed else 0))):
            q.writel(COMMON + 8, word)
            q.writel(COMMON + 0xC, value)
        q.writeb(COMMON + 0x14, 11)
        q.memset(RINGS, 0x10000)
        for queue in range(3):
            q.writew(COMMON + 0x16, queue)
            if not q.readw(COMMON + 0x18):
                break
            q.writew(COMMON + 0x18, 16)
            for n, offset in enumerate((0x20, 0x28, 0x30)):
                q.writel(COMMON + offset, RINGS + 0x4000 * queue + 0x1000 * n)
                q.writel(COMMON + offset + 4, 0)
            q.writew(COMMON + 0x1C, 1)
        q.writeb(COMMON + 0x14, 15)

    def burst(self, q: QTest, rng: random.Random) -> None:
        queue = rng.randrange(3)
        base = RINGS + 0x4000 * queue
        if rng.random() < 0.2 or q.readb(COMMON + 0x14) != 15:
            self.start(q)
        head = struct.pack(
            "<IIQ", rng.choice((0, 1, 4, 8, 11, 13, rng.randrange(1 << 32))), 0, rng.choice((0, 7, size(rng)))
        )
        q.write(HEAD, rng.choice((head, bytes((1, 0, 0, 0, 0, 0, 0, 0)) + rng.randbytes(43), rng.randbytes(64))))
        for n in range(16):
            if rng.random() < 0.6:
                addr = rng.choice((HEAD, base, place(rng)))
                length = rng.choice((1, 16, 51, 108, 512, 4096, size(rng)))
                flags, next = (
                    rng.choice((0, 1, 1, 2, 3, 4, 5, rng.randrange(65536))),
                    rng.choice((n + 1, n, rng.randrange(20))),
                )
                if self.packed:
                    flags = flags & 0x7F7F | rng.choice((0, 0x80, 0x8000, 0x8080))
                    row = struct.pack("<QIHH", addr, length & 0xFFFFFFFF, next, flags)
                else:
                    row = struct.pack("<QIHH", addr, length & 0xFFFFFFFF, flags, next)
                q.write(base + 16 * n, row)
        ring = struct.pack("<18H", rng.choice((0, 1, 2)), rng.choice((1, 3, 16, 17, rng.randrange(65536))),
                           *(rng.choice((0, 5, 15, 16, rng.randrange(65536))) for _ in range(16)))  # fmt: skip
        if not self.packed:
            q.write(base + 0x1000, ring)
        if rng.random() < 0.2:
            q.writel(COMMON + 4 * rng.randrange(14), rng.choice((0, 1, size(rng))))
        if rng.random() < 0.1:
            q.writel(CONFIG + 4 * rng.randrange(16), size(rng))
        q.writew(NOTIFY + 4 * rng.choice((queue, rng.randrange(80))), queue)
        if rng.random() < 0.8:
            q.settle()

    def prove(self, q: QTest) -> None:
        self.start(q)
        status = q.readb(COMMON + 0x14)
        assert status == 15, f"the driver's status is {status:#x}"
        if self.driver == "virtio-blk-pci" and not self.packed:
            q.write(HEAD, struct.pack("<IIQ", 0, 0, 9))
            q.writeb(HEAD + 16, 0xEE)
            rows = [(HEAD, 16, 1, 1), (0x200000, 512, 3, 2), (HEAD + 16, 1, 2, 0)]
            q.write(RINGS, b"".join(struct.pack("<QIHH", *row) for row in rows))
            q.write(RINGS + 0x1000, struct.pack("<HHH", 1, 1, 0))
            q.writew(NOTIFY, 0)
            for _ in range(1000):
                q.settle()
                if q.readw(RINGS + 0x2002) == 1:
                    break
            assert q.readb(HEAD + 16) == 0 and len(q.read(0x200000, 512)) == 512


# --- SCSI commands ------------------------------------------------------------------------------------------------


class Commands(Victim):
    """Command blocks to a disk and a CD-ROM drive; every one is answered."""

    def open(self) -> QTest:
        disc = self.directory / "disc.iso"
        disc.write_bytes(bytes(range(256)) * 8 * 64)
        drives = {**self.disk(), "cd": {"file": str(disc), "media": "cdrom", "readonly": True, "format": "raw"}}
        units = [
            {"driver": "scsi-hd", "id": "u", "drive": "d0", "scsi-id": 0, "lun": 0},
            {"driver": "scsi-cd", "id": "v", "drive": "cd", "scsi-id": 1, "lun": 0},
        ]
        q = machine("vmrun", drives, units)
        self.card = Adapter(q)
        return q  # type: ignore[no-any-return]

    def burst(self, q: QTest, rng: random.Random) -> None:
        known = (0, 3, 8, 0xA, 0x12, 0x15, 0x1A, 0x1B, 0x1E, 0x25, 0x28, 0x2A, 0x2E, 0x2F, 0x35, 0x41, 0x42, 0x43,
                 0x46, 0x4A, 0x51, 0x52, 0x55, 0x5A, 0x88, 0x8A, 0x8F, 0x91, 0x93, 0x9E, 0xA0, 0xA8, 0xAA,
                 0xAD, 0xBD, 0xBE)  # fmt: skip
        for _ in range(6):
            code = rng.choice((*known, rng.randrange(256)))
            cdb = bytes((code, *(rng.choice((0, 0, 1, 2, 0x3F, 0xFF, rng.randrange(256))) for _ in range(15))))
            data: int | bytes = rng.choice((0, 8, 36, 255, 512, 4096))
            if code in (0x0A, 0x15, 0x2A, 0x2E, 0x41, 0x42, 0x55, 0x8A, 0x93, 0xAA):
                data = rng.randbytes(int(data))
            where = bytes((1, rng.choice((0, 1, 1, 0, 2)), 0, rng.choice((0, 0, 0, 1)), 0, 0, 0, 0))
            self.card.command(cdb, data, where, cut=rng.choice((0, 0, 100, 512)))

    def prove(self, q: QTest) -> None:
        self.card.start()
        self.card.ready()
        found = self.card.command(bytes((0x12, 0, 0, 0, 36, 0)), 36)
        assert found[4][8:28] == b"QEMU    QEMU HARDDIS", found


# --- NVMe ---------------------------------------------------------------------------------------------------------


class Nvme(Victim):
    """Entries of both queues, doorbells and registers."""

    def open(self) -> QTest:
        cards: list[dict[str, Any]] = [
            {"driver": "nvme-subsys", "id": "s"},
            {"driver": "nvme", "id": "n", "serial": "1", "addr": "04.0", "subsys": "s"},
            {"driver": "nvme", "id": "o", "serial": "1", "addr": "05.0", "subsys": "s"},
            {"driver": "nvme-ns", "id": "a", "bus": "n", "drive": "d0", "nsid": 1},
            {"driver": "nvme-ns", "id": "b", "bus": "n", "drive": "none", "nsid": 2},
        ]
        drives = {**self.disk(), "none": {"file": "null-co://", "format": "null-co"}}
        q = QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": drives, "devices": cards})
        self.start(q)
        return q

    def start(self, q: QTest) -> None:
        from tests.devices.nvme import Driver

        self.driver = Driver(q)
        self.driver.enable()
        self.driver.make_io()

    def burst(self, q: QTest, rng: random.Random) -> None:
        from tests.devices.nvme import BAR, CSTS, QUEUES

        if not q.readl(BAR + CSTS) & 1:
            self.start(q)
        queue = rng.choice((0, 1, 1))
        for n in range(16):
            if rng.random() < 0.4:
                known = (
                    (0, 1, 2, 4, 5, 6, 8, 9, 0xA, 0xC, 0x15, 0x19, 0x7C, 0x80)
                    if not queue
                    else (0, 1, 2, 4, 5, 8, 9, 0xC, 0x19)
                )
                entry = struct.pack(
                    "<BBHIIIQQQ6I", rng.choice((*known, rng.randrange(256))),
                    rng.choice((0, 0, 0x40, rng.randrange(256))), n, rng.choice((1, 1, 0, 2, 0xFFFFFFFF)), 0, 0,
                    place(rng), rng.choice((0x200000, place(rng))), place(rng),
                    *(rng.choice((0, 1, 2, 0xFFFF, size(rng))) for _ in range(6)),
                )  # fmt: skip
                q.write(QUEUES[queue][0] + 64 * n, entry)
        q.writel(BAR + 0x1000 + 8 * queue, rng.choice((1, 5, 15, 16, rng.randrange(1 << 16))))
        q.writel(BAR + 0x1004 + 8 * rng.randrange(4), rng.choice((0, 3, rng.randrange(1 << 16))))
        if rng.random() < 0.1:
            q.writel(BAR + 4 * rng.randrange(16), size(rng))
        q.settle()

    def prove(self, q: QTest) -> None:
        self.start(q)
        assert self.driver.admin(6, prp1=0x200000, cdw10=1)[0] == 0
        assert q.read(0x200018, 14) == b"QEMU NVMe Ctrl"


# --- images -------------------------------------------------------------------------------------------------------


class Images(Victim):
    """qcow2 images whose tables lie."""

    def open(self) -> Any:
        from tests.unit.storage import test_hostile_images as hostile

        self.hostile, self.samples = hostile, []
        for n, options in enumerate(hostile.KINDS):
            found = hostile.sample(self.directory / f"{n}.qcow2", options)
            self.samples.append((found, hostile.tables(found)))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))  # a hostile offset must not fill the disk
        return Nothing(limits)

    def burst(self, q: QTest, rng: random.Random) -> None:
        path = self.directory / "hostile.qcow2"
        path.write_bytes(self.hostile.mutate(rng, *rng.choice(self.samples)))
        self.hostile.use(path)
        path.unlink()

    def prove(self, q: QTest) -> None:
        pass


class Nothing:
    def __init__(self, limits: tuple[int, int]) -> None:
        import signal

        self.limits, self.before = limits, signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def close(self) -> None:
        import signal

        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)
        signal.signal(signal.SIGXFSZ, self.before)


KINDS: dict[str, Callable[[pathlib.Path], Victim]] = {
    "ide": Ide,
    "floppy": Floppy,
    "virtio-blk": lambda directory: Virtqueues(directory, "virtio-blk-pci", False),
    "virtio-blk-packed": lambda directory: Virtqueues(directory, "virtio-blk-pci", True),
    "virtio-scsi": lambda directory: Virtqueues(directory, "virtio-scsi-pci", False),
    "scsi": Commands,
    "megasas": adapters.Megasas,
    "lsi": adapters.Lsi,
    "am53c974": adapters.Esp,
    "pvscsi": adapters.Pvscsi,
    "nvme": Nvme,
    "qcow2": Images,
}


@contextmanager
def victim(kind: str, directory: pathlib.Path) -> Iterator[tuple[Victim, Any]]:
    made = KINDS[kind](directory)
    q = made.open()
    try:
        yield made, q
    finally:
        q.close()


def rounds(kind: str, directory: pathlib.Path, seed: int, first: int, count: int) -> None:
    """`count` rounds on a new machine, and the proof after some and at the end."""
    with victim(kind, directory) as (made, q):
        for number in range(first, first + count):
            made.burst(q, random.Random(f"{kind} {seed} {number}"))
            if number % ROUNDS_TO_PROOF == ROUNDS_TO_PROOF - 1:
                made.prove(q)
        made.prove(q)


def resident() -> int:
    """KiB, without what is garbage, or free memory of the C library's."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for all kinds together (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the round to begin with")
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    done = dict.fromkeys(kinds, options.first)
    slowest, started = 0.0, time.monotonic()
    memory = 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        while time.monotonic() - started < options.seconds:
            for kind in kinds:
                began = time.monotonic()
                print(f"{kind}: rounds from {done[kind]}", end="\r", flush=True)
                rounds(kind, pathlib.Path(name), options.seed, done[kind], 5 * ROUNDS_TO_PROOF)
                done[kind] += 5 * ROUNDS_TO_PROOF
                slowest = max(slowest, time.monotonic() - began)
            memory = memory or resident()
    for kind in kinds:
        print(f"{kind:<20} {done[kind] - options.first:>8} rounds")
    print(f"seed {options.seed}; slowest hundred {slowest:.1f} s; memory {memory} KiB, at the end {resident()} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
