"""The image tool beside qemu-img, the same commands in turn: whole processes, images in the host's page cache.

`info` of one file; `check` of an image with many tables; `convert` raw to qcow2 and back, and compressed; `bench`,
reads of 4 KiB, one at a time and 32.

    python benchmarks/img.py [--runs N] [--json]
"""

from __future__ import annotations

import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

MIB = 1 << 20
SIZE = 256  # MiB
ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    options = beside.options(__doc__ or "", 5)
    if shutil.which("qemu-img") is None:
        return beside.nothing("img", "qemu-img is not installed", options.json)
    table = beside.Table("disk images", "ms a command", "qemu-img")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        where = pathlib.Path(name)
        env = beside.environment(where)
        raw, qcow2, small = where / "disk.raw", where / "disk.qcow2", where / "small.qcow2"
        rng = random.Random(1)
        with raw.open("wb") as file:
            for n in range(SIZE):
                file.write(bytes(MIB) if n % 4 == 3 else rng.randbytes(MIB // 2) + b"text" * (MIB // 8))
        raw.write_bytes(raw.read_bytes()[: SIZE * MIB].ljust(SIZE * MIB, b"\0"))
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True)
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", raw, small], check=True
        )
        out = where / "out"
        work = {
            "info": (["info", str(qcow2)], 1.0),
            "check, 4 KiB clusters": (["check", str(small)], 1.0),
            "convert raw to qcow2": (["convert", "-f", "raw", "-O", "qcow2", str(raw), str(out)], 0.8),
            "convert qcow2 to raw": (["convert", "-f", "qcow2", "-O", "raw", str(qcow2), str(out)], 0.8),
            "convert, compressed": (["convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(out)], 0.8),
            "compare": (["compare", "-f", "raw", "-F", "qcow2", str(raw), str(qcow2)], 1.0),
            "bench raw, 4 KiB, 1": (["bench", "-f", "raw", "-c", "20000", "-d", "1", str(raw)], 1.0),
            "bench qcow2, 4 KiB, 32": (["bench", "-f", "qcow2", "-c", "20000", "-d", "32", str(qcow2)], 1.0),
        }
        for what, (args, target) in work.items():
            sides = {
                "ours": lambda a=args: beside.timed([sys.executable, str(ROOT / "bin/vmrun-img"), *a], env, [0]),
                "theirs": lambda a=args: beside.timed(["qemu-img", *a], env, [0]),
            }
            found = beside.alternate(sides, options.runs, 1)
            table.add(what, found["ours"], found["theirs"], target)
    table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
