"""For every test a time limit, so that a lost wake-up is a failure and not a run that hangs.

The end of every run: what was skipped and why, whether that is in the list (a fault where CI is set), and whether the
suite left the tree as it found it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import pathlib
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "skips.txt"

# Seconds of wall time, far beyond what a loaded host needs; for tests with real guests, and for the others.
GUEST_LIMIT, LIMIT = 1500, 300
# Whoever is so stuck that no Python runs any more is ended, with all its stacks shown.
GRACE = 30

# How fast examples are made and run, and how large chance has them, says something of the host and the seed alone.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("suite")

_before = pytest.StashKey[set[str]]()
_faults = pytest.StashKey[list[str]]()
_stderr = pytest.StashKey[int]()


class TooLong(Exception):
    """The time of a test is over."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_stderr] = os.dup(2)  # what a test writes there is captured, and lost with a process that is ended


@contextlib.contextmanager
def limited(item: pytest.Item) -> Iterator[None]:
    """TooLong, raised wherever the test is. SIGALRM is ours meanwhile."""
    slow = any(item.get_closest_marker(name) for name in ("guest", "slow", "long"))
    seconds = GUEST_LIMIT if slow else LIMIT

    def over(number: int, frame: object) -> None:
        raise TooLong(f"{item.nodeid}: not over after {seconds} s")

    old = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=item.config.stash[_stderr])
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with limited(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with limited(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with limited(item):
        yield
        sweep()


DESCRIPTORS = 200  # so many more than after the last sweep, and it is time for the next
swept_at = [0]


def sweep() -> None:
    """Closed machines refer to themselves and keep their descriptors until they are collected. A full collection is
    rare in a process with the objects of 7,000 tests, and 1,000 descriptors later select(2) fails in whoever comes.
    """
    free = lowest_free()
    if free > swept_at[0] + DESCRIPTORS:
        gc.collect()
        free = lowest_free()
    else:
        free = min(free, swept_at[0])  # what was in use then, and is not any more, makes no room for others
    swept_at[0] = free


def lowest_free() -> int:
    """The descriptor that would be given away next."""
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    return fd


def foreign_files() -> set[str]:
    """Files of the tree that git neither has nor ignores; empty outside of a checkout."""
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return set(done.stdout.splitlines()) if done.returncode == 0 else set()


def allowed_skips(path: pathlib.Path = LIST) -> list[re.Pattern[str]]:
    """The reasons that are fine, each a regular expression on a line of its own; # begins a comment."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def reason_of(report: pytest.TestReport) -> str:
    """Why a test was skipped; an expected failure's reason is none of ours."""
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ")


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_before] = foreign_files()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput"):
        return
    faults = [f"the suite left {name}" for name in sorted(foreign_files() - config.stash[_before])]
    if os.environ.get("CI"):
        known = allowed_skips()
        reasons = {reason_of(report) for report in _skipped(config)}
        odd = sorted(reason for reason in reasons if not any(row.search(reason) for row in known))
        faults += [f"a skip that tests/skips.txt does not have: {reason}" for reason in odd]
    config.stash[_faults] = faults
    if faults and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = Counter((report.nodeid.partition("::")[0], reason_of(report)) for report in _skipped(config))
    if rows:
        terminalreporter.section("skipped")
        for (file, reason), count in sorted(rows.items()):
            terminalreporter.line(f"{count:4} {file}: {reason}")
    for fault in config.stash.get(_faults, []):
        terminalreporter.line(f"FAULT: {fault}", red=True)


def _skipped(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return list(reporter.stats.get("skipped", ())) if reporter is not None else []
