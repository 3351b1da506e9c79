"""Compiles the Cython modules in place, two at a time, with one line of progress per module."""

from __future__ import annotations

import os
import subprocess
import sys

jobs = str(os.cpu_count() or 1)
process = subprocess.Popen(
    [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", jobs],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
)
assert process.stdout is not None
tail: list[str] = []
count = 0
for line in process.stdout:
    tail = [*tail[-60:], line]
    if "Cythonizing" in line:
        count += 1
        print(f"\r  {line.strip():<72}", end="", flush=True)
print(f"\r  {count} modules translated{'':<60}")
if process.wait() != 0:
    sys.exit("".join(tail) + "\ncompiling failed; the lines above say where")
