"""The commands without a guest: `vmrun --version`, and `vmrun validate` of machines of 60 and 200 devices.

Whole processes, beside `python -c pass` of the same interpreter, which is the least they can take; and
`vmrun.validate` within a process. Targets are in milliseconds, for `validate` with nothing kept from an earlier run.

    python benchmarks/cli.py [--runs N] [--json]
"""

from __future__ import annotations

import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

import vmrun

IN_PROCESS = "vmrun.validate, 200 devices"
TARGETS = {"--version": 50.0, "validate, 60 devices": 300.0, "validate, 200 devices": 150.0, IN_PROCESS: 10.0}


def text(devices: int) -> str:
    """YAML with four serial ports, four disks, three exits, and debug consoles up to so many devices."""
    lines = ["schema: vmrun/machine/1", "machine: pc-i440fx-2.0", "memory: 1GiB", "cpus: {count: 4}", "display: std"]
    lines += ["serial: [pty, pty, pty, pty]", "chardevs:"]
    consoles = devices - 11
    lines += [f"  console{n}: {{type: ringbuf, size: 65536}}" for n in range(consoles)]
    lines.append("drives:")
    lines += [f"  disk{n}: {{file: disk{n}.img, format: raw}}" for n in range(4)]
    lines.append("devices:")
    lines += [f"  - {{id: ide{n}, driver: ide-hd, bus: ide.{n // 2}, unit: {n % 2}, drive: disk{n}}}" for n in range(4)]
    lines += [
        f"  - {{id: dbg{n}, driver: isa-debugcon, iobase: {0x1000 + 8 * n:#x}, chardev: console{n}}}"
        for n in range(consoles)
    ]
    lines += [f"  - {{driver: isa-debug-exit, iobase: {0x2000 + 8 * n:#x}}}" for n in range(3)]
    return "\n".join(lines) + "\n"


def main() -> int:
    options = beside.options(__doc__ or "", 15)
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        env = beside.environment(where)
        files = {count: where / f"{count}.yaml" for count in (60, 200)}
        for count, file in files.items():
            file.write_text(text(count))
        for n in range(4):
            (where / f"disk{n}.img").write_bytes(bytes(1 << 16))

        def cold(count: int) -> float:
            shutil.rmtree(where / "cache", ignore_errors=True)
            return beside.timed(beside.vmrun("validate", str(files[count])), env, [0])

        def in_process() -> float:
            began = time.perf_counter()
            vmrun.validate(str(files[200]))
            return (time.perf_counter() - began) * 1000

        sides = {
            "python": lambda: beside.timed([sys.executable, "-c", "pass"], env, [0]),
            "--version": lambda: beside.timed(beside.vmrun("--version"), env, [0]),
            "validate, 60 devices": lambda: cold(60),
            "validate, 200 devices": lambda: cold(200),
            IN_PROCESS: in_process,
        }
        found = beside.alternate(sides, options.runs)
    least = statistics.median(found["python"])
    rows = [
        {
            "what": what,
            "ms": round(statistics.median(found[what]), 1),
            "target": target,
            "ratio to python -c pass": round(beside.compare(found[what], found["python"])[0], 2),
        }
        for what, target in TARGETS.items()
    ]
    if options.json:
        print(json.dumps({"benchmark": "cli", "unit": "ms", "python": round(least, 1), "rows": rows}))
        return 0
    print(f"{'command':<28}{'ms':>8}{'target':>9}{'to `python -c pass`':>22}")
    print(f"{'python -c pass':<28}{least:>8.1f}{'-':>9}{1:>21.2f}x")
    for row in rows:
        print(f"{row['what']:<28}{row['ms']:>8.1f}{row['target']:>9.0f}{row['ratio to python -c pass']:>21.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
