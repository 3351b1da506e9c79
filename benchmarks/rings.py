"""Reads of 4 KiB through queues in memory, driven over qtest: virtio-blk and NVMe, vmrun and QEMU in turn.

No guest runs (a processor that has halted, as QEMU's NVMe works on its time). 'QD 1' puts one request into the queue,
rings, and polls until it is answered; 'QD 32' puts 32 at once. The client and its socket are the same for both sides
and in both figures: a request costs less than what is shown. The raw image is in the host's page cache.

    python benchmarks/rings.py [--runs N] [--json]
"""

from __future__ import annotations

import pathlib
import random
import struct
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

sys.path.insert(0, str(beside.ROOT))

from vmrun.testing import QtestProgram

REQUESTS, IMAGE, BLOCK = 256, 64 << 20, 4096
DATA = 0x200000


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
        q.outl(self.IO + 4, 0)
        q.outw(self.IO + 14, 0)
        self.size = q.inw(self.IO + 12)
        q.memset(self.RING, 0x8000)
        q.outl(self.IO + 8, self.RING >> 12)
        q.outb(self.IO + 18, 7)
        self.avail = self.RING + 16 * self.size
        self.used = (self.avail + 6 + 2 * self.size + 4095) & ~4095
        rows = b""
        for n in range(32):
            at = self.HEADS + 64 * n
            rows += struct.pack("<QIHH", at, 16, 1, 3 * n + 1)
            rows += struct.pack("<QIHH", DATA + BLOCK * n, BLOCK, 3, 3 * n + 2)
            rows += struct.pack("<QIHH", at + 16, 1, 2, 0)
        q.write(self.RING, rows)
        q.write(self.avail, struct.pack("<H", 1))  # no interrupts
        self.count = 0

    def read(self, blocks: list[int]) -> None:
        lines = []
        for n, block in enumerate(blocks):
            head = struct.pack("<IIQ", 0, 0, block * (BLOCK // 512))
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
    SIZE = 64

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

    def read(self, blocks: list[int]) -> None:
        lines = []
        for n, block in enumerate(blocks):
            entry = struct.pack("<II16xQQIIII", 2 | n << 16, 1, DATA + BLOCK * n, 0, block * 8, 0, 7, 0)
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


def spent(driver: Virtio | Nvme, depth: int) -> float:
    """Microseconds a request."""
    rng = random.Random(1)
    began = time.perf_counter()
    for _ in range(REQUESTS // depth):
        driver.read([rng.randrange(IMAGE // BLOCK) for _ in range(depth)])
    return (time.perf_counter() - began) / REQUESTS * 1e6


def main() -> int:
    options = beside.options(__doc__ or "", 9)
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        image, firmware = where / "disk.img", where / "halt.bin"
        image.write_bytes(random.Random(2).randbytes(IMAGE))
        firmware.write_bytes((b"\xf4" * 0xFFF0 + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\xf4"))
        common = ["-M", "pc-i440fx-2.0", "-nodefaults", "-display", "none", "-m", "64", "-bios", str(firmware)]
        common += ["-accel", "tcg", "-drive", f"if=none,id=d,format=raw,file={image},file.locking=off"]
        table = beside.Table("rings", "microseconds a request; less is better")
        for kind in (Virtio, Nvme):
            sides = {"vmrun": [sys.executable, str(beside.ROOT / "bin" / "vmrun-qemu")]}
            if beside.has_qemu():
                sides["QEMU"] = [beside.QEMU]
            peers = {side: QtestProgram([*words, *common, *kind.OPTIONS]) for side, words in sides.items()}
            drivers = {side: kind(q) for side, q in peers.items()}
            try:
                for depth in (1, 32):
                    found = beside.alternate(
                        {side: lambda d=driver, n=depth: spent(d, n) for side, driver in drivers.items()}, options.runs
                    )
                    table.add(
                        f"{kind.__name__.lower()}, QD {depth}",
                        found["vmrun"],
                        found.get("QEMU"),
                        0.5 if depth == 1 else 0.8,
                    )
            finally:
                for q in peers.values():
                    q.close()
        table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
