"""A conversion says how far it is when it is asked by a signal, as qemu-img does, and goes on."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_usr1_asks_how_far_it_is(tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / "source.raw", tmp_path / "target.qcow2"
    source.write_bytes(os.urandom(1 << 20) * 64)  # a minute: it does not end meanwhile
    tool = ROOT / "bin" / "vmrun-img"
    argv = [sys.executable, tool, "convert", "-r", "1M", "-f", "raw", "-O", "qcow2", source, target]
    running = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        while not target.exists() or target.stat().st_size < 500_000:  # it has begun to copy
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(signal.SIGUSR1)
        assert running.stderr is not None
        assert re.fullmatch(r"    \(\d+\.\d\d/100%\)\n", running.stderr.readline())
        assert running.poll() is None
    finally:
        running.kill()
        running.communicate()
