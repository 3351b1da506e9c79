"""benchmarks/soft.py runs a guest on both sides, compares what it computes and prints figures that make sense."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.guest import linux

pytestmark = [pytest.mark.guest, pytest.mark.slow]

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "soft.py"


def test_a_kernel_takes_longer_in_the_guest_and_computes_the_same() -> None:
    linux.kernel()
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt-get install gcc")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--runs", "1", "--only", "sha256", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    row = found["rows"]["sha256"]
    assert 1 < row["soft"] / row["native"] < 1000
