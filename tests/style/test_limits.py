"""A test that hangs fails."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

from tests import conftest

STUCK = """
import signal


def test_that_is_stuck():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    signal.pause()
"""


def test_a_test_that_takes_too_long_is_told_so(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "LIMIT", 1)
    with pytest.raises(conftest.TooLong, match="test_a_test_that_takes_too_long"), conftest.limited(request.node):
        time.sleep(60)


def test_every_test_has_a_limit(request: Any) -> None:
    import signal

    assert signal.getitimer(signal.ITIMER_REAL)[0] > 1


def test_one_that_is_stuck_is_ended_with_its_stack_shown(tmp_path: pathlib.Path) -> None:
    """Where no Python runs any more: what it shows went into the capture, and was lost with the process."""
    shutil.copy(conftest.__file__, tmp_path / "conftest.py")
    with (tmp_path / "conftest.py").open("a") as file:
        file.write("\nGUEST_LIMIT, LIMIT, GRACE = 1, 1, 1\n")
    (tmp_path / "test_one.py").write_text(STUCK)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode and "in test_that_is_stuck" in done.stderr, done.stdout + done.stderr
