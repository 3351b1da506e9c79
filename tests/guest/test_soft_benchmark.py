"""benchmarks/soft.py and parallel.py run guests on both sides, compare what they compute; their figures make sense."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.guest import linux

pytestmark = [pytest.mark.guest, pytest.mark.slow]

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def figures(script: str, only: str) -> Any:
    """What the script prints of one row, skipped where it says that there is nothing to measure."""
    linux.kernel()
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt-get install gcc")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--runs", "1", "--only", only, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    return found


def test_a_kernel_takes_longer_in_the_guest_and_computes_the_same() -> None:
    row = figures("soft.py", "sha256")["rows"]["sha256"]
    assert 1 < row["soft"] / row["native"] < 1000


def test_processors_on_threads_of_their_own_do_more_than_one_at_most_the_cores_times() -> None:
    found = figures("parallel.py", "sha256")
    cores = min(found["cores"], found["processors"])
    assert found["processors"] == 4
    for side in ("soft", "native"):
        # By processor time, as the host's cores are not this test's alone; their caches may be.
        assert 0.25 * cores < found["rows"]["sha256"][f"{side}, by work"] < 1.75 * cores
