"""Requests through queues in memory, driven over qtest: IDE DMA, virtio-blk and NVMe, vmrun and QEMU in turn.

No guest runs (a processor that has halted, as QEMU's NVMe works on its time). 'QD 1' puts one request into the queue,
rings, and polls until it is answered; 'QD 32' puts 32 at once. Random ones are of 4 KiB, sequential ones of 64 KiB. The
client and its socket are the same for both sides and in all figures: a request costs less than what is shown. Images
are in the host's page cache. 'cold': the first requests of a machine that has just started, each for another part of
the tables of a qcow2 image with clusters of 4 KiB; 'warm': those tables are known. With `--processor` it is the
machines' own processor time instead of the clock's, without the client's share and without other programs' noise.

    python benchmarks/rings.py [--runs N] [--processor] [--json]
"""

from __future__ import annotations

import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

sys.path.insert(0, str(beside.ROOT))

from vmrun.testing import QtestProgram

REQUESTS, IMAGE, BLOCK = 256, 64 << 20, 4096
LARGE = 65536
DATA = 0x200000
TABLE = 2 << 20  # bytes of the disk that a table of a qcow2 image with clusters of 4 KiB is for


class Ide:
    """The primary channel's first disk by the PIIX3's bus master, one command at a time."""

    OPTIONS = ("-device", "ide-hd,drive=d,bus=ide.0,unit=0")
    IO, MASTER, TABLE = 0x1F0, 0xC000, 0x100000

    def __init__(self, q: QtestProgram) -> None:
        self.q = q
        q.pci_write(1, 1, 0x20, self.MASTER)
        q.pci_write(1, 1, 4, 5, 2)

    def run(self, blocks: list[int], write: bool = False, size: int = BLOCK) -> None:
        for block in blocks:
            lba = block * (BLOCK // 512)
            entry = struct.pack("<IHH", DATA, size & 0xFFFF, 0x8000)
            lines = [f"write {self.TABLE:#x} 8 0x{entry.hex()}", f"outl {self.MASTER + 4:#x} {self.TABLE:#x}"]
            command = (
                size // 512,
                lba & 255,
                lba >> 8 & 255,
                lba >> 16 & 255,
                0xE0 | lba >> 24,
                0xCA if write else 0xC8,
            )
            lines += [f"outb {self.IO + 2 + n:#x} {value:#x}" for n, value in enumerate(command)]
            lines += [f"outb {self.MASTER:#x} {1 if write else 9}", f"inb {self.MASTER + 2:#x}"]
            status = int(self.q.ask_all(lines)[-1], 16)
            while not status & 4:
                status = self.q.inb(self.MASTER + 2)
            ends = [f"inb {self.IO + 7:#x}", f"outb {self.MASTER:#x} 0", f"outb {self.MASTER + 2:#x} 0x64"]
            if int(self.q.ask_all(ends)[0], 16) & 1:
                raise SystemExit("the disk reports an error")


class Virtio:
    """A legacy virtio-blk: queue 0 at 0x100000, the requests' headers and status behind it."""

    OPTIONS = ("-device", "virtio-blk-pci,drive=d,addr=4")
    IO, RING, HEADS = 0xC000, 0x100000, 0x180000

    def __init__(self, q: QtestProgram) -> None:
        self.q = q
        q.pci_write(4, 0, 0x10, self.IO)
        q.pci_write(4, 0, 4, 0x405, 2)
        for status in (1, 3):
            q.outb(self.IO + 18, status)
        q.outl(self.IO + 4, 1 << 9)  # flushes: else each write waits for the host's disk
        q.outw(self.IO + 14, 0)
        self.size = q.inw(self.IO + 12)
        q.memset(self.RING, 0x8000)
        q.outl(self.IO + 8, self.RING >> 12)
        q.outb(self.IO + 18, 7)
        self.avail = self.RING + 16 * self.size
        self.used = (self.avail + 6 + 2 * self.size + 4095) & ~4095
        self.how: tuple[bool, int] | None = None
        q.write(self.avail, struct.pack("<H", 1))  # no interrupts
        self.count = 0

    def prepare(self, write: bool, size: int) -> None:
        rows = b""
        for n in range(32):
            at = self.HEADS + 64 * n
            rows += struct.pack("<QIHH", at, 16, 1, 3 * n + 1)
            rows += struct.pack("<QIHH", DATA + size * n, size, 1 if write else 3, 3 * n + 2)
            rows += struct.pack("<QIHH", at + 16, 1, 2, 0)
        self.q.write(self.RING, rows)
        self.how = write, size

    def run(self, blocks: list[int], write: bool = False, size: int = BLOCK) -> None:
        if self.how != (write, size):
            self.prepare(write, size)
        lines = []
        for n, block in enumerate(blocks):
            head = struct.pack("<IIQ", write, 0, block * (BLOCK // 512))
            lines.append(f"write {self.HEADS + 64 * n:#x} 16 0x{head.hex()}")
            lines.append(f"writew {self.avail + 4 + 2 * ((self.count + n) % self.size):#x} {3 * n:#x}")
        self.count = (self.count + len(blocks)) & 0xFFFF
        lines.append(f"writew {self.avail + 2:#x} {self.count:#x}")
        lines.append(f"outw {self.IO + 16:#x} 0")
        lines.append(f"readw {self.used + 2:#x}")
        done = int(self.q.ask_all(lines)[-1], 16) & 0xFFFF
        while done != self.count:
            done = self.q.readw(self.used + 2) & 0xFFFF


class Nvme:
    """One queue pair of 64 entries for I/O."""

    OPTIONS = ("-device", "nvme,drive=d,serial=1,addr=4")
    BAR, ADMIN, IO = 0xFE000000, (0x100000, 0x101000), (0x102000, 0x104000)
    SIZE, PAGES = 64, 0x110000
    listed = False

    def __init__(self, q: QtestProgram) -> None:
        self.q = q
        q.pci_write(4, 0, 0x10, self.BAR)
        q.pci_write(4, 0, 0x14, 0)
        q.pci_write(4, 0, 4, 0x406, 2)
        q.memset(self.ADMIN[0], 0x8000)
        q.writel(self.BAR + 0x24, 0x000F000F)
        q.writeq(self.BAR + 0x28, self.ADMIN[0])
        q.writeq(self.BAR + 0x30, self.ADMIN[1])
        q.writel(self.BAR + 0x14, 0x00460001)
        for number, (opcode, at, word) in enumerate(((5, self.IO[1], 1), (1, self.IO[0], 0x10001))):
            entry = struct.pack("<II16xQQII", opcode | number << 16, 0, at, 0, (self.SIZE - 1) << 16 | 1, word)
            q.write(self.ADMIN[0] + 64 * number, entry.ljust(64, b"\0"))
            q.writel(self.BAR + 0x1000, number + 1)
            while not q.readw(self.ADMIN[1] + 16 * number + 14) & 1:
                pass
        self.tail = self.head = 0
        self.phase = 1

    def run(self, blocks: list[int], write: bool = False, size: int = BLOCK) -> None:
        lines = []
        if size > 2 * BLOCK and not self.listed:  # pages of a long one
            pages = b"".join(struct.pack("<Q", DATA + BLOCK * n) for n in range(1, LARGE // BLOCK))
            self.q.write(self.PAGES, pages)
            self.listed = True
        for n, block in enumerate(blocks):
            second, at = (self.PAGES, DATA) if size > 2 * BLOCK else (0, DATA + BLOCK * n)
            last = size // 512 - 1
            entry = struct.pack("<II16xQQIIII", (1 if write else 2) | n << 16, 1, at, second, block * 8, 0, last, 0)
            lines.append(f"write {self.IO[0] + 64 * self.tail:#x} 64 0x{entry.ljust(64, bytes(1)).hex()}")
            self.tail = (self.tail + 1) % self.SIZE
        lines.append(f"writel {self.BAR + 0x1008:#x} {self.tail:#x}")
        last = self.head + len(blocks) - 1
        phase = self.phase ^ (last >= self.SIZE)
        place = self.IO[1] + 16 * (last % self.SIZE) + 14
        lines.append(f"readw {place:#x}")
        done = int(self.q.ask_all(lines)[-1], 16) & 1
        while done != phase:
            done = self.q.readw(place) & 1
        self.head, self.phase = (last + 1) % self.SIZE, self.phase ^ (last + 1 >= self.SIZE)
        self.q.writel(self.BAR + 0x100C, self.head)


Driver = Ide | Virtio | Nvme
# name, (depth, writing, sequential), the ratio aimed at; of raw images
WORK = (
    ("random read, QD 1", (1, False, False), 0.5),
    ("random read, QD 32", (32, False, False), 0.8),
    ("random write, QD 1", (1, True, False), 0.5),
    ("random write, QD 32", (32, True, False), 0.8),
    ("sequential read", (1, False, True), 0.8),
    ("sequential write", (1, True, True), 0.8),
)


def processor(q: QtestProgram) -> float:
    """Seconds of processor time that the machine's threads have had."""
    threads = pathlib.Path(f"/proc/{q.process.pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in threads) / 1e9


def spent(driver: Driver, depth: int, write: bool, sequential: bool, clock: Callable[[], float]) -> float:
    """Microseconds a request, by a clock that tells seconds."""
    rng = random.Random(1)
    size = LARGE if sequential else BLOCK
    count = REQUESTS // 4 if sequential else REQUESTS
    began = clock()
    for n in range(0, count, depth):
        if sequential:
            driver.run([n * (LARGE // BLOCK)], write, size)
        else:
            driver.run([rng.randrange(IMAGE // BLOCK) for _ in range(depth)], write, size)
    return (clock() - began) / count * 1e6


def fill(path: pathlib.Path) -> None:
    """An image of IMAGE bytes, a page at a time: pages that come together stay together in the host's cache, and a
    write into one of them costs it (ext4: 10 us) more than what is measured here.
    """
    rng = random.Random(2)
    with path.open("wb", buffering=0) as file:
        for _ in range(IMAGE // BLOCK):
            file.write(rng.randbytes(BLOCK))


def cold(command: list[str], kind: type[Driver]) -> float:
    """Microseconds a request of a new machine, a table of the image for each."""
    q = QtestProgram(command)
    try:
        driver = kind(q)
        driver.run([0])
        blocks = [at // BLOCK for at in range(TABLE, IMAGE, TABLE)]
        random.Random(3).shuffle(blocks)
        began = time.perf_counter()
        for block in blocks:
            driver.run([block])
        return (time.perf_counter() - began) / len(blocks) * 1e6
    finally:
        q.close()


def main() -> int:
    parser = beside.parser(__doc__ or "", 9)
    parser.add_argument("--processor", action="store_true", help="the machines' processor time, not the clock's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        where = pathlib.Path(name)
        firmware = where / "halt.bin"
        firmware.write_bytes((b"\xf4" * 0xFFF0 + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\xf4"))
        sides = {"vmrun": [sys.executable, str(beside.ROOT / "bin" / "vmrun-qemu")]}
        if beside.has_qemu():
            sides["QEMU"] = [beside.QEMU]
        commands: dict[tuple[str, str], list[str]] = {}
        for side, words in sides.items():
            raw, qcow2 = where / f"{side}.raw", where / f"{side}.qcow2"
            fill(raw)
            make = [sys.executable, str(beside.ROOT / "bin" / "vmrun-img"), "convert", "-f", "raw", "-O", "qcow2"]
            subprocess.run([*make, "-o", "cluster_size=4k", raw, qcow2], check=True)
            for format, path in (("raw", raw), ("qcow2", qcow2)):
                common = ["-M", "pc-i440fx-2.0", "-nodefaults", "-display", "none", "-m", "64", "-bios", str(firmware)]
                common += ["-accel", "tcg", "-drive", f"if=none,id=d,format={format},file={path}"]
                commands[side, format] = [*words, *common]
        table = beside.Table("rings", "microseconds a request; less is better")
        for kind in (Ide, Virtio, Nvme):
            for format in ("raw", "qcow2"):
                peers = {side: QtestProgram([*commands[side, format], *kind.OPTIONS]) for side in sides}
                drivers = {side: kind(q) for side, q in peers.items()}
                clocks = {
                    side: (lambda q=q: processor(q)) if options.processor else time.perf_counter
                    for side, q in peers.items()
                }
                try:
                    for what, work, target in WORK:
                        if kind is Ide and work[0] > 1 or format == "qcow2" and work[2]:
                            continue
                        found = beside.alternate(
                            {
                                side: lambda d=driver, w=work, c=clocks[side]: spent(d, *w, c)
                                for side, driver in drivers.items()
                            },
                            options.runs,
                        )
                        name = f"{kind.__name__.lower()}, {format}, {what}" + (", warm" if format == "qcow2" else "")
                        aim = 1.0 if format == "qcow2" else target
                        table.add(name, found["vmrun"], found.get("QEMU"), aim)
                finally:
                    for q in peers.values():
                        q.close()
            if options.processor:
                continue  # a start of a machine has its own
            found = beside.alternate(
                {side: lambda s=side, k=kind: cold([*commands[s, "qcow2"], *k.OPTIONS], k) for side in sides},
                options.runs,
            )
            table.add(f"{kind.__name__.lower()}, qcow2, random read, cold", found["vmrun"], found.get("QEMU"), 1.0)
        table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
