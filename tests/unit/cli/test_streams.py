"""Closed and full standard streams, and what else the host does not give: a message of its own, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILE = "schema: vmrun/machine/1\nmachine: rhel6.3.0\nmemory: 16MiB\ndisks: [disk.img]\n"
COMMANDS = ["validate m.yaml", "resolve m.yaml", "tree m.yaml", "lock m.yaml", "types", "devices", "doctor", "--help",
            "validate bad.yaml", "up --accel qtest --timeout 0.1 m.yaml", "ps", "explain VR0512", "nonsense", "schema",
            "import qemu -- -m 64", "export qemu m.yaml", "init -o new.yaml rhel6.3.0"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "m.yaml").write_text(FILE)
    (tmp_path / "bad.yaml").write_text("schema: vmrun/machine/1\nmachine: rhel\nx: 1\n")
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    return tmp_path


def shell(here: Path, text: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "VMRUN": f"{sys.executable} {ROOT / 'bin/vmrun'}", "PYTHONPATH": str(ROOT)}
    env |= {"XDG_CACHE_HOME": str(here / ".cache"), "XDG_RUNTIME_DIR": str(here)}
    return subprocess.run(["sh", "-c", text], cwd=here, env=env, capture_output=True, text=True, timeout=60)


def sound(done: subprocess.CompletedProcess[str]) -> None:
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "fault of vmrun's own" not in said and "Exception ignored" not in said, said


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_a_command_ends_soundly_whatever_its_streams_are(here: Path, command: str, streams: str) -> None:
    done = shell(here, f"$VMRUN {command} {streams}")
    sound(done)
    assert done.returncode in (0, 1, 2, 3, 4)


@pytest.mark.parametrize("command", ["resolve m.yaml", "types", "schema"])
def test_output_that_cannot_be_written_is_told(here: Path, command: str) -> None:
    full, closed = shell(here, f"$VMRUN {command} >/dev/full"), shell(here, f"$VMRUN {command} >&-")
    assert (full.returncode, closed.returncode) == (3, 3)
    assert full.stderr.startswith("vmrun: standard output: No space left on device\n")
    assert closed.stderr.startswith("vmrun: standard output is closed")


def test_a_reader_that_has_had_enough_is_no_fault(here: Path) -> None:
    done = shell(here, "$VMRUN schema | head -c 10; echo; $VMRUN devices --all | true")
    sound(done)
    assert done.stderr == ""


@pytest.mark.parametrize("number", [3, 4, 5, 6, 8, 10, 12])
def test_few_descriptors_are_told(here: Path, number: int) -> None:
    done = shell(here, "$VMRUN up --accel qtest --timeout 0.1 m.yaml; code=$?; echo code $code")
    assert "code 4" in done.stdout
    done = shell(here, f"ulimit -n {number}; exec $VMRUN up --accel qtest --timeout 0.1 m.yaml")
    if "Fatal Python error" in done.stderr or "can't open file" in done.stderr or done.returncode in (126, 127):
        return  # the interpreter itself cannot start
    sound(done)
    assert done.returncode in (3, 4)


@pytest.mark.parametrize("number", [6, 8, 10])
def test_few_descriptors_are_told_by_a_command_line_too(here: Path, number: int) -> None:
    line = "$VMRUN qemu -accel qtest -m 16 -display none -nodefaults -monitor null -S"
    done = shell(here, f"ulimit -n {number}; exec timeout 40 {line}")
    if "Fatal Python error" in done.stderr or "can't open file" in done.stderr or done.returncode in (126, 127):
        return
    sound(done)
    assert done.returncode == 1 and "file" in done.stderr, done.stderr


@pytest.mark.parametrize("command", ["lock m.yaml", "init -o new.yaml rhel6.3.0", "import qemu -o x.yaml -- -m 64"])
def test_a_file_that_may_not_grow_is_told(here: Path, command: str) -> None:
    done = shell(here, f"ulimit -f 0; exec $VMRUN {command}")
    sound(done)
    assert done.returncode == 3
    assert "File too large" in done.stderr


def test_too_little_address_space_is_told(here: Path) -> None:
    done = shell(here, "ulimit -v 400000; exec $VMRUN validate --set memory=2GiB m.yaml")
    sound(done)
    assert done.returncode == 3
    assert "memory" in done.stdout + done.stderr
