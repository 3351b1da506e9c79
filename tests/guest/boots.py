"""Many boots of a stock kernel, one after the other: `python -m tests.guest.boots --runs 20 --cpus 4 --load 2`.

A boot is good when the guest reaches its init, sees all processors, switches itself off, and the kernel complained of
nothing. Prints a line for each kind of machine; the logs of boots that were not good are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

from tests.guest.linux import LinuxGuest, initramfs, kernel


def _burn(parent: int) -> None:
    while os.getppid() == parent:
        for _ in range(1000000):
            pass


@contextlib.contextmanager
def load(count: int) -> Iterator[None]:
    """`count` busy processes beside what happens inside."""
    context = multiprocessing.get_context("spawn")
    busy = [context.Process(target=_burn, args=(os.getpid(),), daemon=True) for _ in range(count)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.join()


def boot(directory: pathlib.Path, machine: str, cpus: int, cloud: bool, patience: float = 120.0,
         model: str = "") -> tuple[str, str]:
    """What was wrong with one boot ('' when nothing), and the console's text."""
    initrd = initramfs(directory)
    count = {"count": cpus, **({"model": model} if model else {})}
    with LinuxGuest(directory, "soft", machine=machine, cpus=count, kernel=kernel(cloud), initrd=initrd) as guest:
        reason = guest.run_to_end(patience)
        text = guest.console()
        wrong = guest.complaints()
    if f"GUEST-UP {cpus}\n" not in text:
        wrong.insert(0, f"not up with {cpus} processors")
    if reason != "shutdown":
        wrong.insert(0, f"ended by {reason}")
    return "; ".join(wrong), text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guest.boots", description="boots of Debian's kernel on soft")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--machine", action="append", help="rhel6.3.0 and pc-i440fx-2.0 unless given")
    parser.add_argument("--cpus", type=int, action="append", help="1 and 4 unless given")
    parser.add_argument("--model", default="", help="of the processors, instead of the machine type's")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside")
    parser.add_argument("--generic", action="store_true", help="the generic kernel instead of the cloud one")
    options = parser.parse_args()
    failed = 0
    with load(options.load):
        for machine in options.machine or ["rhel6.3.0", "pc-i440fx-2.0"]:
            for cpus in options.cpus or [1, 4]:
                good, seconds = 0, []
                for run in range(options.runs):
                    with tempfile.TemporaryDirectory() as directory:
                        began = time.monotonic()
                        path = pathlib.Path(directory)
                        wrong, text = boot(path, machine, cpus, not options.generic, model=options.model)
                        seconds.append(time.monotonic() - began)
                    good += not wrong
                    if wrong:
                        kept = tempfile.NamedTemporaryFile("w", prefix="boot-", suffix=".log", delete=False)
                        with kept:
                            kept.write(text)
                        print(f"{machine}, {cpus} processors, run {run}: {wrong}; {kept.name}", flush=True)
                failed += options.runs - good
                print(
                    f"{machine}, {cpus} processors, {options.load} busy processes: {good} of {options.runs}, median"
                    f" {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s",
                    flush=True,
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
