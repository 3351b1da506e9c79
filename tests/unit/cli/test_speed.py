"""How long commands take from a cold start: the best of several runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUNS = 7
STANDIN = (
    "import vmrun.config.data as d; d._found['schema'] = {!r}\n"
    "import sys\nfrom vmrun.cli.main import main\nsys.exit(main({!r}))"
)


def best(code: str, tmp_path: Path, expected: int = 0) -> float:
    """Processor time in ms of the fastest of some runs of this code, with bytecode as when installed.

    A command has one thread and waits for nothing, so this is its time on an idle host.
    """
    env = {
        **os.environ,
        "PYTHONPYCACHEPREFIX": str(tmp_path / "pycache"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    times = []
    for _ in range(RUNS):
        child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == expected
        times.append(used.ru_utime + used.ru_stime)
    return min(times) * 1000


@pytest.fixture
def schema(tmp_path: Path) -> str:
    import shutil

    from vmrun.config.data import data_dir

    shutil.copytree(data_dir("schema"), tmp_path / "schema")
    return str(tmp_path / "schema")


def machine(path: Path, devices: int) -> str:
    lines = ["schema: vmrun/machine/1", "machine: rhel6.0.0", "memory: 1GiB", "display: std", "devices:"]
    lines += [
        f"  - {{id: c{n}, driver: isa-debugcon, iobase: {0x1000 + 16 * n:#x}}}" for n in range(devices - 1)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_version_takes_little_more_than_the_interpreter(tmp_path: Path) -> None:
    """50 ms is the aim where `python -c pass` takes 13."""
    code = "import sys; from vmrun.cli.main import main; sys.exit(main(['--version']))"
    assert best(code, tmp_path) <= 3 * best("pass", tmp_path)


@pytest.mark.parametrize("devices", [60, 200])
def test_validate_takes_a_few_interpreter_starts(tmp_path: Path, schema: str, devices: int) -> None:
    path = machine(tmp_path / "m.yaml", devices)
    # 150 ms is the aim where `python -c pass` takes 13
    assert best(STANDIN.format(schema, ["validate", path]), tmp_path) <= 11 * best("pass", tmp_path)


def test_validate_in_process_takes_less_than_an_interpreter_start(tmp_path: Path, schema: str) -> None:
    """10 ms is the aim for 200 devices where `python -c pass` takes 13."""
    path = machine(tmp_path / "m.yaml", 200)
    code = (
        f"import vmrun.config.data as d; d._found['schema'] = {schema!r}\n"
        f"import time, vmrun\nassert vmrun.validate({path!r}) == []\ntimes = []\n"
        "for _ in range(9):\n"
        f"    began = time.process_time(); vmrun.validate({path!r}); times.append(time.process_time() - began)\n"
        "print(min(times) * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1.5 * best("pass", tmp_path)


def test_version_imports_next_to_nothing(tmp_path: Path) -> None:
    heavy = {"argparse", "yaml", "json", "re", "typing", "rich", "dataclasses"}
    code = (
        "import sys; before = set(sys.modules); from vmrun.cli.main import main; main(['--version'])\n"
        f"assert not {heavy!r} & (set(sys.modules) - before)"
    )
    best(code, tmp_path)


def test_cached_machine_is_had_without_yaml(tmp_path: Path, schema: str) -> None:
    path = machine(tmp_path / "m.yaml", 5)
    for entry in [tmp_path / "m.yaml", *Path(schema).iterdir()]:
        os.utime(entry, (time.time() - 100,) * 2)
    code = (
        f"import vmrun.config.data as d; d._found['schema'] = {schema!r}\nimport sys\n"
        f"from vmrun.config.cache import resolve_cached\nmachine = resolve_cached({path!r})\n"
        "assert len(machine['devices']) > 10\n"
    )
    best(code, tmp_path)
    heavy = {"yaml", "json", "re", "typing", "rich", "dataclasses", "hashlib"}
    best(code + f"assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules)", tmp_path)
