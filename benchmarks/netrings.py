"""Frames through the rings of network cards, without a guest: e1000 and virtio-net, vmrun and QEMU in turn.

No guest runs: a processor that has halted, and a driver over qtest whose rings lie in memory that the machine shares,
so that waiting costs the machine nothing. Both machines live through all rounds; a round is FRAMES frames of each.

'out': bursts of 64, each rung for once; 'in': the other end sends 64, then waits until the card has them. To a user
network (UDP with a socket of the host's), a socket (`stream`), and a tap (in a namespace of its own, where it may be
made). `64 KiB`: frames that the tap gets uncut. Thousands of frames a second, of the clock and of the machine's
processor time: above 1 vmrun is faster. The clock has this program's work in it, which is the same for both, and
qtest's, which vmrun does in Python. The processor time is the machine's own, the kernel's work for its system calls
too, which is most of it and the same for both; what as many register writes without effect take is taken
off, since no guest comes over qtest.

'round trip': one ping at a time that the user network answers, thousands a second, by the clock alone. 'idle': a card
that is up and has nothing to do; its machine's wake-ups a second, and microseconds of processor time a second (there
less is better).

    python benchmarks/netrings.py [--runs N] [--only WORD] [--json]
"""

from __future__ import annotations

import mmap
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

sys.path.insert(0, str(beside.ROOT))

from beside import cards, wires

from vmrun.testing import QtestProgram

FRAMES, BURST, PINGS, KICKS = 8192, 64, 400, 200
LENGTHS = (60, 1514)
IDLE = 1.0  # seconds


class Side:
    """A machine with one card on one wire."""

    def __init__(self, words: list[str], kind: Any, make: Any, where: pathlib.Path, name: str) -> None:
        file = where / f"memory-{name}"
        with file.open("wb") as memory:
            memory.truncate(cards.MEMORY)
        self.net = make(f"bench-{name}"[:15])
        backend = f"memory-backend-file,id=m,size={cards.MEMORY},mem-path={file},share=on"
        words += ["-M", "pc-i440fx-2.0,memory-backend=m", "-nodefaults", "-display", "none", "-m", "64"]
        words += ["-object", backend, "-bios", str(where / "halt.bin"), "-accel", "tcg", "-netdev", self.net.netdev]
        words += ["-device", f"{kind.NAME},netdev=n,addr=5,romfile="]
        self.q = QtestProgram(words)
        try:
            self.net.open()
            with file.open("r+b") as memory:
                self.card = kind(self.q, mmap.mmap(memory.fileno(), cards.MEMORY))
            if make is wires.User:
                self.card.out(wires.question(), 1)
                cards.wait(self.card.take)
        except BaseException:
            self.close()
            raise
        file.unlink()

    def close(self) -> None:
        self.net.close()
        self.q.close()

    def spent(self) -> float:
        """Seconds that the machine's threads have run."""
        return sum(int(text[0]) for text in self._each("schedstat")) / 1e9

    def wakeups(self) -> int:
        return sum(int(text[text.index("voluntary_ctxt_switches:") + 1]) for text in self._each("status"))

    def _each(self, file: str) -> list[list[str]]:
        found = []
        for path in pathlib.Path(f"/proc/{self.q.process.pid}/task").iterdir():
            try:
                found.append((path / file).read_text().split())
            except OSError:
                pass  # it has ended
        return found

    def kick(self) -> float:
        """Seconds of processor time of a register's write over qtest."""
        before = self.spent()
        for _ in range(KICKS):
            self.card.nothing()
        return (self.spent() - before) / KICKS

    def work(self, before: float, kicks: int, kick: float) -> float:
        return max(self.spent() - before - (self.card.kicks - kicks) * kick, 1e-9)

    # --- what is measured: thousands of frames a second by the clock, and by the machine's processor time --------

    def out(self, length: int, header: bytes = b"", frames: int = FRAMES) -> tuple[float, float]:
        frame, more = self.net.frame(length), (header,) if header else ()
        kick, kicks = self.kick(), self.card.kicks
        start, before, began = self.net.frames(), self.spent(), time.perf_counter()
        for sent in range(BURST, frames + 1, BURST):
            self.card.out(frame, BURST, *more)
            cards.wait(lambda all=sent: self.net.frames() - start >= all - BURST, 1.0)  # a reader's buffers are small
        cards.wait(lambda: self.net.frames() - start >= frames, 2.0)
        took, came = time.perf_counter() - began, self.net.frames() - start
        worked = self.work(before, kicks, kick)
        if came < frames * 0.98:
            raise SystemExit(f"{came} of {frames} frames came out")
        return frames / took / 1000, frames / worked / 1000

    def come(self, length: int) -> tuple[float, float]:
        if isinstance(self.net, wires.User) and self.net.guest is None:
            self.card.out(self.net.frame(60), 1)
            cards.wait(lambda: self.net.frames() and self.net.guest is not None)
        while self.card.take():
            time.sleep(0.01)
        kick, kicks = self.kick(), self.card.kicks
        before, began = self.spent(), time.perf_counter()
        for _ in range(0, FRAMES, wires.WINDOW):
            self.net.send(wires.WINDOW, length)
            left = wires.WINDOW
            while left > 0:
                if not cards.wait(self.card.came, 5.0):
                    raise SystemExit(f"{left} of {wires.WINDOW} frames do not come in")
                left -= self.card.take()
        return FRAMES / (time.perf_counter() - began) / 1000, FRAMES / self.work(before, kicks, kick) / 1000

    def pings(self) -> tuple[float, float]:
        frame, took = wires.echo(), []
        for _ in range(PINGS):
            began = time.perf_counter()
            self.card.out(frame, 1)
            if not cards.wait(self.card.came, 5.0):
                raise SystemExit("a ping is not answered")
            took.append(time.perf_counter() - began)
            while self.card.take():
                pass
        return 1 / statistics.median(took) / 1000, 0.0

    def idle(self) -> tuple[float, float]:
        time.sleep(0.2)
        before, woke = self.spent(), self.wakeups()
        time.sleep(IDLE)
        return (self.wakeups() - woke) / IDLE, (self.spent() - before) / IDLE * 1e6


def tasks(kind: Any, make: Any) -> dict[str, Any]:
    found = {}
    for way in make.WAYS:
        for length in LENGTHS:
            found[f"{way}, {length}"] = lambda side, w=way, n=length: side.out(n) if w == "out" else side.come(n)
    if kind is cards.Virtio and make is wires.Tap:
        head = wires.packet(6, bytes(13 - 1) + b"\x50\x10" + bytes(6))  # TCP: 20 bytes
        header = b"\1\1" + (54).to_bytes(2, "little") + (1460).to_bytes(2, "little") + b"\x22\0\x10\0"
        found["out, 64 KiB"] = lambda side: _large(side, head, header)
    if make is wires.User:
        found["round trip"] = lambda side: side.pings()
    return found


def _large(side: Side, head: bytes, header: bytes) -> tuple[float, float]:
    plain = side.net.frame
    side.net.frame = lambda length: head[:16] + (length - 14).to_bytes(2, "big") + head[18:] + bytes(length - len(head))
    try:
        return side.out(65000, header, FRAMES // 8)
    finally:
        side.net.frame = plain


def main() -> int:
    parser = beside.parser(__doc__ or "", beside.BELIEVED)
    parser.add_argument("--only", default="", metavar="WORD", help="of the rows those that have it")
    options = parser.parse_args()
    nets: list[Any] = [wires.User, wires.Stream]
    if wires.own_namespace():
        nets.append(wires.Tap)
    names = ["vmrun"] + (["QEMU"] if beside.has_qemu() else [])
    clock = beside.Table("network cards, by the clock", "thousand frames a second; more is better")
    effort = beside.Table("… by processor time", "thousand frames a second of it; more is better")
    wakes = beside.Table("idle cards: wake-ups", "a second; less is better")
    idles = beside.Table("idle cards: work", "microseconds of processor time a second; less is better")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as name:
        where = pathlib.Path(name)
        (where / "halt.bin").write_bytes((b"\xf4" * 0xFFF0 + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\xf4"))
        for kind in (cards.E1000, cards.Virtio):
            for make in nets:
                title = f"{kind.NAME}, {make.__name__.lower()}"
                wanted = {what: do for what, do in tasks(kind, make).items() if options.only in f"{title}, {what}"}
                if not wanted and options.only not in f"{title}, idle":
                    continue
                sides: dict[str, Side] = {}
                try:
                    for n, side in enumerate(names):
                        program = [sys.executable, str(beside.ROOT / "bin" / "vmrun-qemu")] if n == 0 else [beside.QEMU]
                        sides[side] = Side(program, kind, make, where, side)
                    measure(options.runs, sides, title, wanted, clock, effort, 1.0 if kind is cards.E1000 else 1.5)
                    if options.only in f"{title}, idle":
                        rest(options.runs, sides, title, wakes, idles)
                finally:
                    for one in sides.values():
                        one.close()
    for table in (clock, effort, wakes, idles):
        if table.rows:
            table.show(options.json)
    return 0


def measure(
    runs: int, sides: dict[str, Side], title: str, wanted: dict[str, Any], clock: Any, effort: Any, aim: float
) -> None:
    for what, do in wanted.items():
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for side in sides.values():
            do(side)  # warm
        for n in range(runs):
            for name, side in beside.turned(sides.items(), n):
                found[name].append(do(side))
        for table, at in ((clock, 0), (effort, 1)):
            if not any(pair[at] for pair in found["vmrun"]):
                continue
            rows = {name: [pair[at] for pair in pairs] for name, pairs in found.items()}
            table.add(f"{title}, {what}", rows["vmrun"], rows.get("QEMU"), aim)


def rest(runs: int, sides: dict[str, Side], title: str, wakes: Any, idles: Any) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for n in range(runs // 2):
        for name, side in beside.turned(sides.items(), n):
            found[name].append(side.idle())
    for table, at in ((wakes, 0), (idles, 1)):
        rows = {name: [pair[at] + 0.01 for pair in pairs] for name, pairs in found.items()}
        table.add(title, rows["vmrun"], rows.get("QEMU"), 1.0)


if __name__ == "__main__":
    sys.exit(main())
