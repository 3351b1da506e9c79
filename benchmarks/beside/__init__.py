"""What the benchmarks share: vmrun's and QEMU's command lines, rounds that alternate, medians and their spread.

Figures are wall-clock milliseconds of whole processes unless a benchmark says otherwise. A round has each side once,
and the order turns from round to round (A B, B A, …), so that a host whose speed drifts slows down both. A ratio is the
median of the rounds' own ratios, not the ratio of two medians, which such a drift moves; below 1 vmrun needs less.
Beside it stands the spread, from the first quartile to the third. A row is to be believed when it has BELIEVED rounds
and its spread is no more than SPREAD of the ratio; else a ? stands behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import select
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
QEMU = "qemu-system-x86_64"
EXIT_PORT = 0x501
PATIENCE = 120
BELIEVED, SPREAD = 8, 0.10  # rounds; from the first quartile to the third, of the median


def parser(doc: str, runs: int) -> argparse.ArgumentParser:
    """With what every benchmark understands."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--runs", type=int, default=runs, metavar="N", help=f"runs of each side (default {runs})")
    made.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return made


def options(doc: str, runs: int) -> argparse.Namespace:
    return parser(doc, runs).parse_args()


def hindrance(accel: str = "kvm") -> str:
    """Why the accelerator cannot be measured here, or ''."""
    sys.path.insert(0, str(ROOT))
    from accel.accelerator import find

    works, why, remedy = find(accel).probe()
    return "" if works else f"{accel} does not run a processor here: {why}; {remedy}"


def has_qemu() -> bool:
    return shutil.which(QEMU) is not None


def environment(directory: pathlib.Path) -> dict[str, str]:
    """A user's, with a cache of resolved machines of its own, and byte code kept as an installation keeps it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["XDG_CACHE_HOME"] = str(directory / "cache")
    return env


def vmrun(*words: str) -> list[str]:
    """The command's script, as an installation has it, with the interpreter that runs the benchmark."""
    return [os.path.join(sys.prefix, "bin", "vmrun"), *words]


def up(file: pathlib.Path, *words: str) -> list[str]:
    return vmrun("up", "--quiet", *words, str(file))


def qemu(memory: int, *words: str, accel: str = "kvm") -> list[str]:
    """QEMU, the same board, no devices but the board's own."""
    return [
        QEMU, "-accel", accel, "-M", "pc-i440fx-2.0", "-nodefaults", "-display", "none", "-m", str(memory), *words
    ]  # fmt: skip


def machine(path: pathlib.Path, memory: int, **keys: Any) -> pathlib.Path:
    """A machine file (in JSON, which is a machine file too) of the same board."""
    text = {"schema": "vmrun/machine/1", "machine": "pc-i440fx-2.0", "accel": "kvm", "memory": f"{memory}MiB", **keys}
    path.write_text(json.dumps(text))
    past = time.time() - 60  # files that are just being written are not cached
    os.utime(path, (past, past))
    return path


def exit_device() -> dict[str, Any]:
    return {"driver": "isa-debug-exit", "iobase": EXIT_PORT}


def timed(command: Sequence[str], env: dict[str, str], expect: Sequence[int] | None = None) -> float:
    """Milliseconds from before fork to after the end of the process."""
    began = time.perf_counter_ns()
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
    )
    took = (time.perf_counter_ns() - began) / 1e6
    if expect is not None and done.returncode not in expect:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {words}")
    return took


def until_byte(command: Sequence[str], env: dict[str, str], fifo: pathlib.Path) -> float:
    """Milliseconds until the guest's '!' comes out of `fifo`; the guest ends the process by itself."""
    with Watched(command, env, fifo) as watched:
        took = watched.wait_for(b"!")
        watched.child.wait(PATIENCE)
    return took


class Watched:
    """A process whose guest writes to `fifo`."""

    def __init__(self, command: Sequence[str], env: dict[str, str], fifo: pathlib.Path) -> None:
        self.command = " ".join(command)
        self.reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.seen = b""
        self.began = time.perf_counter_ns()
        self.child = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait_for(self, words: bytes) -> float:
        """Milliseconds from the start of the process to the guest's `words`."""
        poll = select.poll()
        poll.register(self.reader, select.POLLIN)
        while poll.poll(PATIENCE * 1000):
            try:
                data = os.read(self.reader, 4096)
            except BlockingIOError:
                continue
            self.seen = self.seen[-4096:] + data
            if words in self.seen:
                return (time.perf_counter_ns() - self.began) / 1e6
            if not data and self.child.poll() is not None:
                raise SystemExit(f"{self.command}\nended with {self.child.returncode} before the guest's words")
        raise SystemExit(f"{self.command}\nthe guest does not say {words.decode()!r}")

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        os.close(self.reader)


def alternate(sides: dict[str, Callable[[], float]], runs: int, warm: int = 2) -> dict[str, list[float]]:
    """Rounds of each side once, the order turned around each time, after `warm` rounds that do not count."""
    for _ in range(warm):
        for side in sides.values():
            side()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for n in range(runs):
        for name, side in turned(sides.items(), n):
            found[name].append(side())
    return found


def turned(sides: Iterable[Any], n: int) -> list[Any]:
    """The sides in the order of round n: A B, B A, …"""
    listed = list(sides)
    return listed[::-1] if n % 2 else listed


def compare(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """(median, first and third quartile) of the rounds' ratios."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True) if b)
    if len(ratios) < 2:
        return (ratios * 3)[0], *(ratios * 3)[1:3]  # type: ignore[return-value]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, low, high


def believed(rounds: int, middle: float, low: float, high: float) -> bool:
    return rounds >= BELIEVED and high - low <= SPREAD * middle


class Table:
    """Rows of (what, vmrun, QEMU), their ratio beside a target."""

    def __init__(self, title: str, unit: str, other: str = "QEMU") -> None:
        self.title, self.unit, self.other = title, unit, other
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, ours: Sequence[float], theirs: Sequence[float] | None, target: float | None) -> None:
        mine = statistics.median(ours)
        their = statistics.median(theirs) if theirs else None
        middle, low, high = compare(ours, theirs) if theirs else (None, None, None)
        self.rows.append(
            {
                "what": what,
                "vmrun": round(mine, 2),
                "best": round(min(ours), 2),
                self.other: round(their, 2) if their is not None else None,
                "ratio": round(middle, 3) if middle is not None else None,
                "spread": [round(low, 3), round(high, 3)] if low is not None and high is not None else None,
                "believed": None if middle is None else believed(len(ours), middle, low or 0.0, high or 0.0),
                "target": target,
                "runs": len(ours),
            }
        )

    def show(self, as_json: bool) -> None:
        if as_json:
            print(json.dumps({"benchmark": self.title, "unit": self.unit, "rows": self.rows}))
            return
        width = max([len(row["what"]) for row in self.rows] + [len(self.title)])
        heads = f"{'vmrun':>10}{self.other:>10}{'ratio':>9}{'spread':>14}{'target':>9}"
        print(f"{self.title:<{width}}{heads}   ({self.unit}; medians of rounds)")
        for row in self.rows:
            their = f"{row[self.other]:>10.1f}" if row[self.other] is not None else f"{'-':>10}"
            ratio = f"{row['ratio']:>8.2f}x" if row["ratio"] is not None else f"{'-':>9}"
            target = f"{row['target']:>8.2f}x" if row["target"] is not None else f"{'-':>9}"
            spread = "-" if row["spread"] is None else f"{row['spread'][0]:.2f} … {row['spread'][1]:.2f}"
            doubt = "  ?" if row["believed"] is False else ""
            print(f"{row['what']:<{width}}{row['vmrun']:>10.1f}{their}{ratio}{spread:>14}{target}{doubt}")
        if any(row["believed"] is False for row in self.rows):
            print(f"? needs {BELIEVED} rounds and a spread of at most {SPREAD:.0%} of the ratio (--runs, an idle host)")


def nothing(name: str, why: str, as_json: bool) -> int:
    """There is nothing to measure here, which is no failure."""
    print(json.dumps({"benchmark": name, "skipped": why}) if as_json else f"{name}: {why}")
    return 0
