"""What a warm `vmrun up` imports before the guest's first instruction: nothing that takes milliseconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
SLOW = ("typing", "re", "enum", "json", "collections", "importlib", "signal", "hashlib", "threading", "yaml")
SCRIPT = (
    "import sys\n"
    "from vmrun.cli.main import main\n"
    "code = main(['up', '--quiet', '--paused', '--accel', 'qtest', '--timeout', '0.01', {!r}])\n"
    "print(code, *sys.modules)\n"
)


def test_warm_start_imports_nothing_slow(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "rhel6.3.0", "memory": "64MiB"}))
    past = time.time() - 100
    os.utime(file, (past, past))
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    for options in ([], ["-S"]):  # the second run is the warm one; site imports what it likes
        command = [sys.executable, *options, "-c", SCRIPT.format(str(file))]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, check=True)
        code, *modules = done.stdout.split()
    assert code == "4", done.stderr  # timed out, as it was asked to
    assert [name for name in SLOW if name in modules] == []
