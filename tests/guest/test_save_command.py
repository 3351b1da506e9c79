"""`vmrun save` and `vmrun up --restore` as commands."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.guest.machines import write_machine

pytestmark = pytest.mark.guest
VMRUN = [sys.executable, "-c", "import sys; from vmrun.cli.main import main; sys.exit(main())"]


def vmrun(directory: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    place = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    return subprocess.run([*VMRUN, *words], capture_output=True, text=True, timeout=100, env=place)


def test_a_machine_is_saved_ends_and_goes_on(tmp_path: pathlib.Path) -> None:
    path = write_machine(tmp_path, machine="pc-i440fx-2.0", memory="32MiB", accel=["soft"])
    saved = tmp_path / "guest.vm"
    place = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen([*VMRUN, "up", "--quiet", str(path)], env=place, stdin=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 60
            while (done := vmrun(tmp_path, "save", "guest", str(saved))).returncode and time.monotonic() < end:
                time.sleep(0.2)
            assert done.returncode == 0, done.stderr
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert saved.exists() and [entry.name for entry in tmp_path.glob("*.part")] == []
    assert vmrun(tmp_path, "up", "--quiet", "--restore", str(saved), "--timeout", "1").returncode == 4
    saved.write_bytes(saved.read_bytes()[:-1])
    refused = vmrun(tmp_path, "up", "--restore", str(saved))
    assert refused.returncode == 3 and "is not whole" in refused.stderr
