"""What a machine's time runs by: clocks of instructions, the real-time clock on a clock that nobody sets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.api import examine_file
from vmrun.config.resolve import resolve_file
from vmrun.errors import ERROR
from vmrun.machine.builder import build
from vmrun.machine.examine import examine


def told(directory: Path, **keys: Any) -> list[str]:
    path = directory / "m.json"
    path.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "pc-i440fx-2.0", **keys}))
    resolved, problems = examine_file(str(path))
    found = [*problems, *(examine(resolved) if resolved is not None else [])]
    told = [problem for problem in found if problem.severity == ERROR or problem.code == "VR1010"]
    return [f"{problem.code} {problem.path}" for problem in told]


COUNTED = {"mode": "instructions"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clock": COUNTED}, []),
        ({"clock": {**COUNTED, "shift": 10, "sleep": False}, "accel": "soft"}, []),
        ({"clock": COUNTED, "accel": ["kvm", "soft"]}, []),
        ({"clock": COUNTED, "accel": "kvm"}, ["VR0721 accel"]),
        ({"clock": {**COUNTED, "shift": 11}}, ["VR0204 clock.shift"]),
        ({"clock": {"shift": 3}}, ["VR0721 clock.shift"]),
        ({"clock": {"mode": "host", "sleep": True}}, ["VR0721 clock.sleep"]),
        ({"clock": COUNTED, "thread": "multi"}, ["VR1010 thread"]),
        ({"rtc": {"clock": "rt"}}, []),
        ({"cpus": {"family": "qemu"}}, []),
        ({"cpus": {"family": "quemu"}}, ["VR0705 cpus.family"]),
        ({"cpus": {"family": "nix", "model": "host"}}, ["VR0705 cpus.family"]),
    ],
)
def test_what_is_said_of_a_clock_and_of_a_set_of_models(tmp_path: Path, keys: dict[str, Any], said: list[str]) -> None:
    assert told(tmp_path, **keys) == said


def test_the_real_time_clock_runs_on_time_that_nobody_sets(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    base = {"base": "2001-02-03T04:05:06"}
    for kind, reads in (("rt", time.monotonic_ns), ("host", time.time_ns)):
        path.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "pc", "rtc": {**base, "clock": kind}}))
        machine = build(resolve_file(str(path)).data, accel=["qtest"])
        rtc: Any = machine.board.devices["rtc"]
        before = reads()
        assert before <= rtc.clock.time() <= reads()
        assert 981173106 <= rtc.seconds() < 981173106 + 3600
        assert (machine.board.host_timers.clock is machine.board.host) == (kind == "host")
        machine.close()
