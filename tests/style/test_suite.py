"""What tests/conftest.py watches: skips without a reason that is listed, files that a test leaves behind."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(directory: pathlib.Path, body: str, **env: str) -> tuple[int, str]:
    """Exit code and words of pytest for one test with this body."""
    path = directory / "test_it.py"
    path.write_text(f"import pathlib, pytest\n\ndef test_it():\n    {body}\n")
    (directory / "pytest.ini").write_text("[pytest]\n")  # none of this project's settings
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command.append(str(path))
    clean = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_XDIST_WORKER")}
    env = {**clean, "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout


def test_a_skip_is_listed_with_its_reason(tmp_path: pathlib.Path) -> None:
    code, said = run(tmp_path, "pytest.skip('the moon is full')")
    assert code == 0
    assert "   1 test_it.py: the moon is full" in said


def test_ci_fails_on_a_skip_that_is_not_in_the_list(tmp_path: pathlib.Path) -> None:
    code, said = run(tmp_path, "pytest.skip('the moon is full')", CI="1")
    assert code == 1
    assert "tests/skips.txt does not have: the moon is full" in said


def test_ci_takes_a_skip_that_is_in_the_list(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path, "pytest.skip('not a git checkout')", CI="1")[0] == 0


def test_a_file_left_in_the_tree_is_a_fault(tmp_path: pathlib.Path) -> None:
    left = ROOT / "tests" / "style" / f"left-{os.getpid()}"
    try:
        code, said = run(tmp_path, f"pathlib.Path({str(left)!r}).touch()")
    finally:
        left.unlink(missing_ok=True)
    assert code == 1
    assert f"the suite left tests/style/{left.name}" in said
