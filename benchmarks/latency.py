"""How long an exit of a processor waits for the machine, while a client takes screenshots as fast as it can and
the disk reads 32 MiB by one DMA command after the other; and whether ticks of the clock are lost. QEMU beside it.

The guest (beside/latency.c) times single port accesses itself. What is printed is for each kind how many there
were, the share below 10 and 100 µs and 1 ms, and the longest. An exit is also long when the host has no core for the
processor's thread: how often that was, and for how long in all, the kernel tells (schedstat).

Of vmrun, in runs of their own (it costs 2 µs each time), the device lock itself is measured (accel.errands.watch): how
long a processor waited between wanting and having it while somebody had it, less the time for which the host had no
core for either; and who had it for longer than 100 µs: the longest work, the longest that he waited for something
with the lock held, the longest that he was without a core, and how many pages of memory the host had to give him (its
time for that counts as his work). Of each wait above 1 ms all that it waited for is told. Work is the same on a loaded
host. Waiting is not: a mutex of some instructions is long held by who loses his core with it. `--first` runs the
programs before all else that the host does (real-time priority; as root), which is as good as an idle host, for those
seconds.

    python benchmarks/latency.py [--seconds N] [--accel kvm] [--locks] [--first] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from vmrun.monitor.client import QmpClient

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCE = pathlib.Path(__file__).parent / "beside" / "latency.c"
KINDS = ("status", "start of a DMA", "clock")
PM_TIMER = 3_579_545
MIB = 1 << 20


def compiled(directory: pathlib.Path, source: pathlib.Path = SOURCE) -> pathlib.Path:
    """The guest, as a multiboot kernel."""
    kernel = directory / "latency.elf"
    script = directory / "latency.ld"
    script.write_text(
        "ENTRY(_start) SECTIONS { . = 1M; .text : { *(.multiboot) *(.text*) *(.rodata*) *(.data*) *(.bss*) } "
        "/DISCARD/ : { *(.note*) *(.eh_frame*) *(.comment*) } }"
    )
    options = "-m32 -O2 -ffreestanding -nostdlib -static -fno-pie -no-pie -fno-stack-protector -mno-sse -mno-mmx"
    linker = ["-Wl,-melf_i386", "-Wl,--build-id=none", f"-Wl,-T,{script}"]
    subprocess.run(["gcc", *options.split(), *linker, "-o", str(kernel), str(source)], check=True)
    return kernel


def command(program: list[str], directory: pathlib.Path, kernel: pathlib.Path, accel: str, units: int) -> list[str]:
    return [
        *program, "-nodefaults", "-machine", "pc-i440fx-7.2", "-accel", accel, "-m", "128", "-vga", "std",
        "-display", "none", "-kernel", str(kernel), "-append", f"latency {units}",
        "-drive", f"file={directory / 'disk.img'},if=ide,format=raw,snapshot=on",
        "-chardev", f"file,id=out,path={directory / 'out'}", "-device", "isa-debugcon,iobase=0x402,chardev=out",
        "-device", "isa-debug-exit", "-qmp", f"unix:{directory / 'qmp'},server=on,wait=off",
    ]  # fmt: skip


# vmrun-qemu with its device lock watched between the guest's first and its next line.
WATCHED = """
import json, os, sys, threading, time
from accel import errands
from vmrun.cli.qemu import main

def watch():
    began = False
    while not found:
        time.sleep(0.01)
        text = open(os.environ["VMRUN_OUT"]).read() if os.path.exists(os.environ["VMRUN_OUT"]) else ""
        if "begin\\n" in text and not began:
            began = True
            errands.watch(100_000)
        elif began and text.count("\\n", text.index("begin")) > 1:
            found.update(errands.watched())

found = {}
threading.Thread(target=watch, daemon=True).start()
try:
    main(sys.argv[1:])
finally:
    with open(os.environ["VMRUN_LOCKS"], "w") as file:
        json.dump(found or errands.watched(), file)
"""


def measure(program: list[str], accel: str, seconds: int, screens: bool, first: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        (directory / "disk.img").write_bytes(bytes(range(256)) * (33 * MIB // 256))
        # The counter's pace is not known before: a unit is some 0.3 to 0.5 ms.
        units = seconds * 2900
        line = command(program, directory, compiled(directory), accel, units)
        locks = directory / "locks"
        process = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "VMRUN_LOCKS": str(locks), "VMRUN_OUT": str(directory / "out")},
        )  # fmt: skip
        if first:
            os.sched_setscheduler(process.pid, os.SCHED_RR, os.sched_param(1))  # its threads to come, too
        shots, cores = [0], [0, 0]
        threading.Thread(target=look, args=(directory, process, screens, shots, cores), daemon=True).start()
        try:
            said = process.communicate(timeout=60 + 10 * seconds)[1]
        finally:
            process.kill()
        text = (directory / "out").read_text() if (directory / "out").exists() else ""
        if text.count("\n") < 5:
            raise RuntimeError(f"{program[0]}: the guest said {text!r}; {said}")
        found = {**understood(text, shots[0]), "waits for a core": cores[0], "waited ms": round(cores[1] / 1e6, 1)}
        return {**found, "lock": json.loads(locks.read_text())} if locks.exists() else found


def look(directory: pathlib.Path, process: Any, screens: bool, shots: list[int], cores: list[int]) -> None:
    """Screenshots, one after the other; and how often the processor's thread waited for a core, for how many ns."""
    while not (directory / "qmp").exists():
        time.sleep(0.01)
    try:
        with QmpClient(str(directory / "qmp")) as qmp:
            thread = qmp.execute("query-cpus-fast")[0]["thread-id"]
            schedstat = pathlib.Path(f"/proc/{process.pid}/task/{thread}/schedstat")
            while process.poll() is None:
                _, cores[1], cores[0] = map(int, schedstat.read_text().split())
                if screens:
                    qmp.execute("screendump", filename=str(directory / "shot.ppm"))
                    shots[0] += 1
                else:
                    time.sleep(0.1)
    except Exception:
        return  # the machine is gone


def understood(text: str, shots: int) -> dict[str, Any]:
    head, *lines = [[int(word) for word in line.split()] for line in text.splitlines()[-4:]]
    calibrated, seen, units, transfers = head
    hertz = calibrated * PM_TIMER / (1 << 19)
    seconds = units * (1 << 20) / hertz
    found: dict[str, Any] = {
        "seconds": round(seconds, 1), "screenshots": shots, "transfers": transfers,
        "ticks": seen, "ticks expected": round(seconds * 1024),
    }  # fmt: skip
    for kind, (count, most, *less) in zip(KINDS, lines, strict=True):
        shares = {}
        for limit, label in ((10e-6, "10 µs"), (100e-6, "100 µs"), (1e-3, "1 ms")):
            under = sum(number for n, number in enumerate(less) if (2 << n) / hertz <= limit)
            shares[label] = under / count
        found[kind] = {"count": count, "longest µs": round(most / hertz * 1e6, 1), **shares}
    return found


def show(name: str, found: dict[str, Any]) -> None:
    print(
        f"{name}: {found['seconds']} s, {found['screenshots']} screenshots, {found['transfers']} transfers of 32 MiB, "
        f"{found['ticks']} of {found['ticks expected']} ticks seen; the host had no core for its processor "
        f"{found['waits for a core']} times, {found['waited ms']} ms in all"
    )
    for kind in KINDS:
        row = found[kind]
        shares = ", ".join(f"{row[label]:9.4%} < {label}" for label in ("10 µs", "100 µs", "1 ms"))
        print(f"    {kind:<15} {row['count']:>9}: {shares}, longest {row['longest µs']} µs")


def show_lock(lock: dict[str, Any]) -> None:
    """The device lock itself."""
    buckets = lock["buckets"]
    shares = []
    for label, n in (("16 µs", 4), ("128 µs", 7), ("1 ms", 10)):
        shares.append(f"{sum(buckets[:n]) / max(lock['takes'], 1):9.4%} < {label}")
    print(
        f"    device lock: taken {lock['takes']} times by processors, {lock['waits']} after waiting; "
        f"{', '.join(shares)}, "
        f"longest {lock['longest-net'] / 1e3:.1f} µs ({lock['longest'] / 1e3:.1f} with what the host had no core for)"
    )
    rows = sorted(lock["holders"].items(), key=lambda row: -row[1][1] - row[1][2])
    for who, (count, work, waiting, no_core, pages) in rows:
        print(
            f"        {who:<60} {count:>6} holds, longest work {work / 1e3:8.1f} µs, waiting {waiting / 1e3:8.1f}, "
            f"no core {no_core / 1e3:8.1f}; at most {pages} pages of the host"
        )
    for wait, net, holds in lock["long-waits"]:
        print(f"        a wait of {wait / 1e6:.1f} ms ({net / 1e6:.1f} while somebody had the lock and a core) for")
        for who, work, waiting, no_core, pages in holds:
            print(
                f"            {who:<56} work {work / 1e6:5.2f} ms, waiting {waiting / 1e6:5.2f}, "
                f"no core {no_core / 1e6:5.2f}, {pages} pages of the host"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--accel", default="kvm")
    parser.add_argument("--locks", action="store_true", help="only vmrun's device lock")
    parser.add_argument("--first", action="store_true", help="before all else that the host does")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    vmrun = [sys.executable, "-c", "from vmrun.cli.bundle import run; run('vmrun.cli.qemu')"]
    programs = {"vmrun": vmrun, "QEMU": ["qemu-system-x86_64"]} if not args.locks else {}
    programs["vmrun, its lock watched"] = [sys.executable, "-c", WATCHED]
    found = {}
    for name, program in programs.items():
        if shutil.which(program[0]) is None:
            continue
        for screens in (False, True):
            label = f"{name}, {'with' if screens else 'without'} a client"
            try:
                found[label] = measure(program, args.accel, args.seconds, screens, args.first)
            except (RuntimeError, subprocess.SubprocessError) as exc:
                print(f"{label}: {exc}", file=sys.stderr)
                continue
            if not args.json:
                show(label, found[label])
                if "lock" in found[label]:
                    show_lock(found[label]["lock"])
    if args.json:
        print(json.dumps(found, indent=2))
    return 0 if any(name.startswith("vmrun") for name in found) else 1


if __name__ == "__main__":
    sys.exit(main())
