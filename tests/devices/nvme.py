"""An NVMe driver on qtest, as small as can be: queues of 16 entries, polling."""

from __future__ import annotations

import struct
import time

from vmrun.testing import QTest, QtestCommands

BAR, SLOT = 0xFE000000, 4
CAP, VS, INTMS, INTMC, CC, CSTS, AQA, ASQ, ACQ = 0x00, 0x08, 0x0C, 0x10, 0x14, 0x1C, 0x24, 0x28, 0x30
ENTRIES = 16
ADMIN, IO = 0, 1
QUEUES = {ADMIN: (0x100000, 0x101000), IO: (0x102000, 0x103000)}
DATA = 0x200000


class Driver:
    """`which`: of several controllers, 0 at SLOT and BAR, the next behind it; each has queues of its own."""

    def __init__(self, q: QtestCommands, which: int = 0) -> None:
        self.q, self.bar, slot = q, BAR + 0x10000 * which, SLOT + which
        self.queues = {number: (at + 0x10000 * which, to + 0x10000 * which) for number, (at, to) in QUEUES.items()}
        q.pci_write(slot, 0, 0x10, self.bar)
        q.pci_write(slot, 0, 0x14, 0)
        q.pci_write(slot, 0, 4, 0x406, 2)
        self.tail: dict[int, int] = {}
        self.head: dict[int, int] = {}
        self.phase: dict[int, int] = {}
        self.number = 0

    def begin(self, number: int) -> None:
        self.tail[number] = self.head[number] = 0
        self.phase[number] = 1
        for address in self.queues[number]:
            self.q.memset(address, 4096)

    def enable(self) -> None:
        self.q.writel(self.bar + CC, 0)
        self.begin(ADMIN)
        self.q.writel(self.bar + AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1))
        self.q.writeq(self.bar + ASQ, self.queues[ADMIN][0])
        self.q.writeq(self.bar + ACQ, self.queues[ADMIN][1])
        self.q.writel(self.bar + CC, 0x00460001)
        assert self.q.readl(self.bar + CSTS) & 1

    def make_io(self) -> None:
        """I/O queue pair 1, interrupt vector 0."""
        self.begin(IO)
        assert self.admin(0x05, prp1=self.queues[IO][1], cdw10=(ENTRIES - 1) << 16 | IO, cdw11=3)[0] == 0
        assert self.admin(0x01, prp1=self.queues[IO][0], cdw10=(ENTRIES - 1) << 16 | IO, cdw11=IO << 16 | 1)[0] == 0

    def post(self, queue: int, opcode: int, nsid: int = 0, flags: int = 0, **words: int) -> int:
        """Put a command into the queue and ring; its identifier."""
        self.number += 1
        entry = bytearray(64)
        struct.pack_into("<BBHI", entry, 0, opcode, flags, self.number, nsid)
        struct.pack_into("<QQ", entry, 24, words.get("prp1", 0), words.get("prp2", 0))
        struct.pack_into("<Q", entry, 16, words.get("mptr", 0))
        for n in range(10, 16):
            struct.pack_into("<I", entry, 4 * n, words.get(f"cdw{n}", 0))
        self.q.write(self.queues[queue][0] + 64 * self.tail[queue], bytes(entry))
        self.tail[queue] = (self.tail[queue] + 1) % ENTRIES
        self.q.writel(self.bar + 0x1000 + 8 * queue, self.tail[queue])
        return self.number

    def reap(self, queue: int, patience: float = 10.0) -> tuple[int, int, int]:
        """(status without phase, dword 0, command identifier) of the next completion."""
        deadline = time.monotonic() + patience
        while True:
            entry = self.q.read(self.queues[queue][1] + 16 * self.head[queue], 16)
            result, _, _, _, number, status = struct.unpack("<IIHHHH", entry)
            if status & 1 == self.phase[queue]:
                break
            if isinstance(self.q, QTest):
                self.q.settle()
            assert time.monotonic() < deadline, "no completion"
        self.head[queue] = (self.head[queue] + 1) % ENTRIES
        if not self.head[queue]:
            self.phase[queue] ^= 1
        self.q.writel(self.bar + 0x1000 + 8 * queue + 4, self.head[queue])
        return status >> 1, result, number

    def do(self, queue: int, opcode: int, nsid: int = 0, **words: int) -> tuple[int, int]:
        number = self.post(queue, opcode, nsid, **words)
        status, result, told = self.reap(queue)
        assert told == number
        return status, result

    def admin(self, opcode: int, nsid: int = 0, **words: int) -> tuple[int, int]:
        return self.do(ADMIN, opcode, nsid, **words)

    def io(self, opcode: int, nsid: int = 1, **words: int) -> tuple[int, int]:
        return self.do(IO, opcode, nsid, **words)

    def identify(self, cns: int, nsid: int = 0, cdw11: int = 0) -> tuple[int, bytes]:
        self.q.memset(DATA, 4096)
        status, _ = self.admin(0x06, nsid, prp1=DATA, cdw10=cns, cdw11=cdw11)
        return status, self.q.read(DATA, 4096)
