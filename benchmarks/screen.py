"""The screen beside QEMU's, with one guest (beside/screen.c) and one client program: fills of the guest's; full-screen
updates and their bytes, what a scrolling console and a moving window cost, how long a key takes to its echo, what an
idle screen costs with a client and without, screenshots.

A client asks for ZRLE and CopyRect, and for the next update when it has the last one. CPU is that of all threads but
the busiest, which is the guest's own processor, in hundredths of a core; of an idle guest it is that of all. Everything
waits LIMIT seconds at most; a run that is interrupted shows what it has. Sides take turns in each run, and a ratio is
the median of the runs' ratios.

    python benchmarks/screen.py [--runs N] [--seconds N] [--accel kvm|soft] [--only fills,full,…] [--json]
"""

from __future__ import annotations

import json
import pathlib
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import beside
from latency import compiled

from vmrun.monitor.client import QmpClient

SOURCE = pathlib.Path(__file__).parent / "beside" / "screen.c"
LIMIT = 60.0  # seconds that anything may take
FILLS = ("text", "13h", "planar", "frame buffer")
COPY_RECT, ZRLE, DESKTOP_SIZE = 1, 16, -223


class Stuck(Exception):
    """Something did not come within LIMIT."""


class Client:
    """A viewer that counts updates and bytes and looks at nothing."""

    def __init__(self, path: pathlib.Path) -> None:
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.settimeout(LIMIT)
        self.peer.connect(str(path))
        self.bytes = 0
        self.buffer = b""
        self.read(12)
        self.peer.sendall(b"RFB 003.008\n")
        self.read(self.read(1)[0])
        self.peer.sendall(b"\1")
        self.read(4)
        self.peer.sendall(b"\1")
        self.size = struct.unpack(">HH", self.read(4))
        self.read(16)
        self.read(int.from_bytes(self.read(4), "big"))
        self.peer.sendall(struct.pack(">BxHiii", 2, 3, COPY_RECT, ZRLE, DESKTOP_SIZE))
        self.bytes = 0

    def read(self, count: int) -> bytes:
        end = time.monotonic() + LIMIT
        while len(self.buffer) < count:
            if time.monotonic() > end:
                raise Stuck("the server sends no whole message")
            try:
                more = self.peer.recv(1 << 20)
            except TimeoutError:
                raise Stuck("the server sends nothing") from None
            if not more:
                raise Stuck("the server has gone")
            self.buffer += more
            self.bytes += len(more)
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def ask(self, incremental: bool = True) -> None:
        self.peer.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, *self.size))

    def update(self) -> None:
        """Reads until one has come."""
        while True:
            kind = self.read(1)[0]
            if kind == 2:
                continue
            if kind == 3:
                self.read(3)
                self.read(int.from_bytes(self.read(4), "big"))
                continue
            _, count = struct.unpack(">BH", self.read(3))
            for _ in range(count):
                _, _, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
                if encoding == ZRLE:
                    self.read(int.from_bytes(self.read(4), "big"))
                elif encoding == COPY_RECT:
                    self.read(4)
                elif encoding == DESKTOP_SIZE:
                    self.size = (width, height)
                else:
                    raise Stuck(f"encoding {encoding}, which nobody asked for")
            return

    def quiet(self) -> bool:
        """Nothing comes for a fifth of a second."""
        return not self.buffer and not select.select((self.peer,), (), (), 0.2)[0]

    def key(self, keysym: int) -> None:
        self.peer.sendall(struct.pack(">BBxxI", 4, 1, keysym) + struct.pack(">BBxxI", 4, 0, keysym))


class Guest:
    """One machine in its own process; a context manager that ends it."""

    def __init__(self, side: str, kernel: pathlib.Path, work: str, accel: str) -> None:
        self.where = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.where.name)
        ours = [sys.executable, str(beside.ROOT / "bin" / "vmrun-qemu")]
        program = [beside.QEMU] if side == "QEMU" else ours
        accel = {"soft": "tcg"}.get(accel, accel)  # as vmrun-qemu calls it too
        words = [
            *program, "-nodefaults", "-machine", "pc-i440fx-7.2", "-accel", accel, "-m", "64", "-vga", "std",
            "-kernel", str(kernel), "-append", work, "-vnc", f"unix:{self.path / 'vnc'}",
            "-chardev", f"file,id=out,path={self.path / 'out'}", "-device", "isa-debugcon,iobase=0xe9,chardev=out",
            "-device", "isa-debug-exit,iobase=0xf4", "-qmp", f"unix:{self.path / 'qmp'},server=on,wait=off",
        ]  # fmt: skip
        self.log = (self.path / "log").open("w+")
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def __enter__(self) -> Guest:
        try:
            self.wait(lambda: "up\n" in self.said())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(LIMIT)
        self.log.close()
        self.where.cleanup()

    def said(self) -> str:
        out = self.path / "out"
        return out.read_text() if out.exists() else ""

    def wait(self, done: Callable[[], bool], dead: bool = False) -> None:
        end = time.monotonic() + LIMIT
        while not done():
            if time.monotonic() > end or not dead and self.process.poll() is not None:
                self.log.seek(0)
                raise Stuck(f"the guest said {self.said()!r}; {self.log.read()[-500:]}")
            time.sleep(0.02)

    def cpu(self) -> dict[str, int]:
        """Nanoseconds of each thread."""
        found = {}
        for thread in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                found[thread.name] = int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue
        return found

    def used(self, before: dict[str, int], seconds: float, all_threads: bool = False) -> float:
        """Hundredths of a core since then."""
        rows = sorted(spent - before.get(thread, 0) for thread, spent in self.cpu().items())
        return sum(rows if all_threads else rows[:-1]) / 1e7 / seconds

    def wakeups(self) -> int:
        """Times that its threads went to sleep of their own accord."""
        count = 0
        for thread in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            for line in (thread / "status").read_text().splitlines():
                if line.startswith("voluntary"):
                    count += int(line.split()[1])
        return count


def fills(guest: Guest, seconds: float) -> dict[str, float]:
    guest.wait(lambda: guest.said().count("\n") >= 6, dead=True)
    rows = [[int(word) for word in line.split()] for line in guest.said().splitlines()[1:6]]
    return {f"fill, {kind}": statistics.median(row[n] for row in rows) / 1e3 for n, kind in enumerate(FILLS)}


def updates(guest: Guest, seconds: float) -> tuple[float, float, float]:
    """(updates a second, KiB a second, CPU) of a client that is as fast as it can be."""
    client = Client(guest.path / "vnc")
    client.ask(False)
    client.update()
    client.ask()
    client.update()
    client.bytes, count, before, began = 0, 0, guest.cpu(), time.monotonic()
    while time.monotonic() - began < seconds:
        client.ask()
        client.update()
        count += 1
    took = time.monotonic() - began
    return count / took, client.bytes / took / 1024, guest.used(before, took)


def full(guest: Guest, seconds: float) -> dict[str, float]:
    rate, size, cpu = updates(guest, seconds)
    return {
        "full-screen update": 1000 / rate, "full-screen update, size": size / rate,
        "full-screen update, CPU": cpu, "… an update  ": cpu / rate,
    }  # fmt: skip


def scroll(guest: Guest, seconds: float) -> dict[str, float]:
    rate, size, cpu = updates(guest, seconds)
    return {"scrolling console, size of a second": size, "scrolling console, CPU": cpu, "… an update": cpu / rate}


def window(guest: Guest, seconds: float) -> dict[str, float]:
    rate, size, cpu = updates(guest, seconds)
    return {"moving window, size of a second": size, "moving window, CPU": cpu, "… an update ": cpu / rate}


def echo(guest: Guest, seconds: float) -> dict[str, float]:
    client = Client(guest.path / "vnc")
    client.ask(False)
    client.update()
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.ask()
        while not client.quiet():
            client.update()
            client.ask()
        began = time.monotonic()
        client.key(ord("a") + len(times) % 26)
        client.update()
        times.append((time.monotonic() - began) * 1000)
    return {"key to echo": statistics.median(times)}


def idle(guest: Guest, seconds: float) -> dict[str, float]:
    time.sleep(1)
    before, woken = guest.cpu(), guest.wakeups()
    time.sleep(seconds)
    alone, woken = guest.used(before, seconds, True), guest.wakeups() - woken
    client = Client(guest.path / "vnc")
    client.ask(False)
    client.update()
    client.ask()
    time.sleep(2)
    before = guest.cpu()
    time.sleep(seconds)
    return {"idle, no client, CPU": alone, "idle, no client, wake-ups": woken / seconds,
            "idle, a client, CPU": guest.used(before, seconds, True)}  # fmt: skip


def tick(guest: Guest, seconds: float) -> dict[str, float]:
    time.sleep(1)
    before, woken = guest.cpu(), guest.wakeups()
    time.sleep(seconds)
    return {"idle with a tick, CPU": guest.used(before, seconds, True),
            "idle with a tick, wake-ups": (guest.wakeups() - woken) / seconds}  # fmt: skip


def dump(guest: Guest, seconds: float) -> dict[str, float]:
    with QmpClient(str(guest.path / "qmp")) as qmp:
        times = []
        for _ in range(20):
            began = time.monotonic()
            qmp.execute("screendump", filename=str(guest.path / "shot.ppm"))
            times.append((time.monotonic() - began) * 1000)
    return {"screendump": statistics.median(times)}


WORK: dict[str, tuple[str, Callable[[Guest, float], dict[str, float]]]] = {
    "fills": ("fill", fills), "full": ("full", full), "scroll": ("scroll", scroll), "window": ("window", window),
    "echo": ("echo", echo), "idle": ("idle", idle), "tick": ("tick", tick), "dump": ("full", dump),
}  # fmt: skip
UNITS = {"fill": "µs", "CPU": "% of a core", "size": "KiB", "wake-ups": "a second", "…": "10 ms"}


def unit(row: str) -> str:
    return next((name for word, name in UNITS.items() if word in row), "ms")


def main() -> int:
    parser = beside.parser(__doc__ or "", 3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--accel", default="", choices=("kvm", "soft"), help="QEMU's tcg stands beside soft")
    parser.add_argument("--only", default=",".join(WORK), help="some of " + ",".join(WORK))
    args = parser.parse_args()
    accel = args.accel or ("soft" if beside.hindrance() else "kvm")
    sides = ["vmrun", "QEMU"] if beside.has_qemu() else ["vmrun"]
    found: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
    with tempfile.TemporaryDirectory() as name:
        kernel = compiled(pathlib.Path(name), SOURCE)
        try:
            for run in range(args.runs):
                for what in args.only.split(","):
                    words, measure = WORK[what]
                    words += " 2" if accel == "kvm" else " 200"  # fills
                    for side in beside.turned(sides, run):
                        _measure(found[side], what, measure, Guest(side, kernel, words, accel), args.seconds)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
    show(found, accel, args.json)
    return 0


def _measure(
    found: dict[str, list[float]], what: str, measure: Callable[[Guest, float], dict[str, float]], made: Guest,
    seconds: float,
) -> None:  # fmt: skip
    try:
        with made as guest:
            rows = measure(guest, seconds)
    except Stuck as error:
        print(f"{what}: {error}", file=sys.stderr)
        return
    for row, value in rows.items():
        found.setdefault(row, []).append(value)


def show(found: dict[str, dict[str, list[float]]], accel: str, as_json: bool) -> None:
    table: dict[str, Any] = {}
    for row, ours in found["vmrun"].items():
        theirs = found.get("QEMU", {}).get(row, [])
        pairs = [mine / other for mine, other in zip(ours, theirs, strict=False) if other]
        table[row] = {
            "unit": unit(row), "vmrun": statistics.median(ours), "QEMU": statistics.median(theirs) if theirs else None,
            "ratio": statistics.median(pairs) if pairs else None,
        }  # fmt: skip
    if as_json:
        print(json.dumps({"accel": accel, "rows": table}))
        return
    print(f"{'screen, ' + accel:<40}{'vmrun':>10}{'QEMU':>10}  ratio  unit")
    for row, entry in table.items():
        other = f"{entry['QEMU']:10.2f}" if entry["QEMU"] is not None else f"{'-':>10}"
        ratio = f"{entry['ratio']:7.2f}" if entry["ratio"] is not None else f"{'-':>7}"
        print(f"{row:<40}{entry['vmrun']:10.2f}{other}{ratio}  {entry['unit']}")


if __name__ == "__main__":
    sys.exit(main())
