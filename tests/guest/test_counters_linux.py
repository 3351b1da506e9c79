"""Performance counters under Linux, on the soft processor: what perf_event_open counts, and its signals."""

from __future__ import annotations

import pathlib
import shutil
import stat
import subprocess

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc"),
]
SOURCE = pathlib.Path(__file__).with_name("userland") / "counters.c"
SAID = ["user: as many", "kernel: so many", "cycles: 1", "signals: as many"]


def test_linux_counts_instructions_and_is_interrupted_for_so_many(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "counters"
    subprocess.run(["gcc", "-static", "-O1", "-o", str(program), str(SOURCE)], check=True, timeout=60)
    initrd = initramfs(tmp_path, "/counters", {"counters": (stat.S_IFREG | 0o755, program.read_bytes())})
    cpus = {"model": "Haswell", "count": 2, "features": {"pmu": True}}
    with LinuxGuest(tmp_path, "soft", machine="pc-i440fx-7.2", kernel=kernel(), initrd=initrd, cpus=cpus) as guest:
        assert guest.run_to_end(200) == "shutdown"
        text = guest.console()
    lines = text.replace("\r", "").splitlines()
    assert [line for line in lines if line in SAID] == SAID, text[-3000:]
    assert "unknown reason" not in text     # an interrupt that came to another processor
