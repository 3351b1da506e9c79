"""Four processors on threads of their own beside one: how many times the work, on soft and on QEMU's TCG.

Each of four processors does what the one does, by a process of its own, so the throughput is four times the ratio of
the times: `by the clock`. That is at most the host's cores, and says something where these are idle. `by work` is what
the clock would say if they were: the cores that were wanted on average (four processors that never wait for each other
want all of them), by the processor time of the one's work to that of a quarter of the four's. Where the host's other
processes wait for cores too, only the second is to be believed. `native` is the second of the same processes on the
host: what its caches and its kernel leave. The aim is 1.7 of 2.

    python benchmarks/parallel.py [--runs N] [--only WORD] [--processors N] [--json]
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside
from beside import linux
from soft import CMDLINE, SIDES, Bench, Guest

MEMORY = 512
AIM = 1.7
COMPUTING = {"sha256": 2, "bytecode": 1, "dhrystone": 1, "nbody": 1}  # how often, so that one processor takes 0.2 s
SYSTEM = {"syscalls": 3, "faults": 1, "forks": 1}
ROWS = {**COMPUTING, **SYSTEM}
Figures = dict[str, list[float]]
Round = tuple[float, float, float]  # clock, processor time, time in which threads computed or wanted to
Found = dict[tuple[str, int, str], list[Round]]  # by side, processors and name


def wanted(pid: int) -> tuple[float, float]:
    """Seconds that all threads of the process ran, and that they ran or waited for a core (proc(5), schedstat)."""
    ran = waited = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            fields = (task / "schedstat").read_text().split()
            ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return ran / 1e9, (ran + waited) / 1e9


def command(bench: Bench, side: str, count: int, initrd: str) -> list[str]:
    if side == "TCG":
        words = ("-serial", "stdio", "-kernel", linux.kernel(), "-initrd", initrd, "-append", CMDLINE)
        return beside.qemu(MEMORY, "-smp", str(count), *words, accel="tcg,thread=multi")
    return beside.up(
        beside.machine(
            bench.where / f"parallel{count}.json", MEMORY, accel="soft", thread="multi", display="none",
            kernel=linux.kernel(), initrd=initrd, cmdline=CMDLINE, serial="stdio", cpus={"count": count},
        )
    )  # fmt: skip


def once(guest: Guest, count: int, name: str) -> tuple[Round, str]:
    """Figures of one round, and the sum that the guest tells."""
    began, before = time.monotonic(), wanted(guest.child.pid)
    guest.say(f"{count}x{ROWS[name]} {name}")
    guest.until(b"done ")
    after, ended = wanted(guest.child.pid), time.monotonic()
    sum_ = guest.until(b"\n").decode().strip()
    return (ended - began, after[0] - before[0], after[1] - before[1]), sum_


def native(program: str, count: int, name: str) -> Round:
    """The same processes on the host, whose own time is known alone."""
    words = [program, f"{count}x{ROWS[name]} {name}"]
    *_, seconds, _ = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return (math.nan, float(seconds), math.nan)


def times(one: list[Round], many: list[Round], count: int, cores: int) -> Figures:
    """Of each round: times the throughput, by the clock and by work."""
    pairs = list(zip(one, many, strict=True))
    return {
        "by the clock": [count * a[0] / b[0] for a, b in pairs],
        "by work": [min(cores, b[2] / b[0]) * count * a[1] / b[1] for a, b in pairs],
    }


def quartiles(values: list[float]) -> tuple[float, float, float]:
    return beside.compare(values, [1.0] * len(values))


def main() -> int:
    parser = beside.parser(__doc__ or "", beside.BELIEVED)
    parser.add_argument("--only", metavar="WORD", help=f"only what has WORD in its name: {', '.join(ROWS)}")
    parser.add_argument("--processors", type=int, default=4, metavar="N", help="of the larger machine (default 4)")
    options = parser.parse_args()
    names = [name for name in ROWS if not options.only or options.only in name]
    if not names:
        parser.error(f"nothing is called {options.only!r}: {', '.join(ROWS)}")
    why = beside.hindrance("soft")
    if not why and shutil.which("gcc") is None:
        why = "no gcc"
    try:
        linux.kernel()
    except linux.Missing as missing:
        why = why or str(missing)
    if why:
        return beside.nothing("parallel", why, options.json)
    cores, count = len(os.sched_getaffinity(0)), options.processors
    sides = SIDES if beside.has_qemu() else SIDES[:1]
    found = measure(sides, names, count, options.runs)
    rows = {name: columns(found, sides, name, count, cores) for name in names}
    heads = list(rows[names[0]])
    if options.json:
        medians = {name: {head: statistics.median(row[head]) for head in heads} for name, row in rows.items()}
        board = {"cores": cores, "processors": count}
        print(json.dumps({"benchmark": "parallel", **board, "rows": medians}))
        return 0
    print(f"{count} processors on {cores} cores, times the work of one")
    print(" " * 22 + "".join(f"{head:>24}" for head in heads))
    doubts = False
    for name, row in rows.items():
        cells = ""
        for values in row.values():
            middle, low, high = beside.compare(values, [1.0] * len(values))
            doubt = "" if beside.believed(len(values), middle, low, high) else " ?"
            doubts = doubts or bool(doubt)
            cells += f"{f'{middle:.2f}  {low:.2f} … {high:.2f}{doubt:<2}':>24}"
        print(f"{name:<22}{cells}")
    for title, group in (("mean, computing", COMPUTING), ("mean, the kernel's work", SYSTEM)):
        chosen = [name for name in group if name in rows]
        if chosen:
            means = [mean([rows[name][head] for name in chosen]) for head in heads]
            print(f"{title:<22}" + "".join(f"{value:>8.2f}{'':16}" for value in means))
    print(f"the aim is {AIM} on 2 cores")
    if doubts:
        print(f"? needs {beside.BELIEVED} rounds and a spread of at most {beside.SPREAD:.0%} (--runs, an idle host)")
    return 0


def measure(sides: tuple[str, ...], names: list[str], count: int, runs: int) -> Found:
    """All rounds, of one processor and of `count`, in guests that stay."""
    found: Found = {}
    with tempfile.TemporaryDirectory() as where, contextlib.ExitStack() as stack:
        bench = Bench(pathlib.Path(where))
        program, initrd = bench.compile()
        guests: dict[tuple[str, int], Guest] = {}
        for side in sides:
            for number in (1, count):
                guest = stack.enter_context(Guest(command(bench, side, number, initrd), bench.env))
                guest.until(b"ready")
                guests[side, number] = guest
        for n in range(runs + 1):  # the first translates, and does not count
            for name in names:
                for side, number in beside.turned(guests, n):
                    figures, checksum = once(guests[side, number], number, name)
                    bench.compare(f"{name} on {number}", side, checksum)
                    if n:
                        found.setdefault((side, number, name), []).append(figures)
                for number in (1, count) if n else ():
                    found.setdefault(("native", number, name), []).append(native(program, number, name))
    return found


def columns(found: Found, sides: tuple[str, ...], name: str, count: int, cores: int) -> Figures:
    """The cells of one row: what and by what, and the rounds' figures."""
    made = {}
    for side in ("native", *sides):
        for by, values in times(found[side, 1, name], found[side, count, name], count, cores).items():
            if not math.isnan(values[0]):
                made[f"{side}, {by}"] = values
    return made


def mean(of: list[list[float]]) -> float:
    """Geometric, of the rounds' medians."""
    return math.exp(statistics.mean(math.log(statistics.median(values)) for values in of))


if __name__ == "__main__":
    sys.exit(main())
