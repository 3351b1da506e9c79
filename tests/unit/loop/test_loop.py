"""vmrun.core.loop: descriptors, calls, delays, device timers, signals, and that nothing a callback does ends
it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from accel.api import DeviceLock

from vmrun.core.loop import Loop

MS = 1_000_000


@pytest.fixture
def loop():
    made = Loop(DeviceLock())
    yield made
    made.close()


@pytest.fixture
def pipe():
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


def finish(loop, seconds=5.0):
    """Run until somebody stops the loop; a loop that is not stopped fails the test."""
    late = []
    delay = loop.call_later(seconds, lambda: (late.append(1), loop.stop()))
    loop.run()
    delay.cancel()
    assert not late, "nothing stopped the loop"


def test_a_readable_descriptor_calls_back(loop, pipe):
    got = []
    loop.add_fd(pipe[0], lambda: (got.append(os.read(pipe[0], 10)), loop.stop()))
    os.write(pipe[1], b"x")
    finish(loop)
    assert got == [b"x"]


def test_a_writable_descriptor_calls_back(loop, pipe):
    loop.add_fd(pipe[1], None, loop.stop)
    finish(loop)


def test_adding_again_replaces_the_callbacks(loop, pipe):
    got = []
    loop.add_fd(pipe[0], lambda: got.append("old"))
    loop.add_fd(pipe[0], lambda: (got.append("new"), loop.stop()))
    os.write(pipe[1], b"x")
    finish(loop)
    assert got == ["new"]


def test_a_removed_descriptor_is_silent(loop, pipe):
    got = []
    loop.add_fd(pipe[0], lambda: got.append(1))
    os.write(pipe[1], b"x")
    loop.remove_fd(pipe[0])
    loop.run_once(0)
    assert got == []


def test_a_descriptor_removed_by_an_earlier_callback_of_the_turn_is_silent(loop):
    pairs = [os.pipe() for _ in range(2)]
    got = []

    def only_me(mine, other):
        got.append(mine)
        loop.remove_fd(pairs[mine][0])
        loop.remove_fd(pairs[other][0])

    for n in range(2):
        loop.add_fd(pairs[n][0], lambda n=n: only_me(n, 1 - n))
        os.write(pairs[n][1], b"x")
    loop.run_once(0)
    assert len(got) == 1
    for pair in pairs:
        os.close(pair[0])
        os.close(pair[1])


def test_a_peer_that_goes_is_told_to_who_does_not_read(loop):
    import socket

    a, b = socket.socketpair()
    got = []
    loop.add_fd(a.fileno(), None, None, lambda: (got.append("gone"), loop.remove_fd(a.fileno()), loop.stop()))
    b.close()
    finish(loop)
    a.close()
    assert got == ["gone"]


def test_a_regular_file_counts_as_always_readable(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    fd = os.open(path, os.O_RDONLY)
    got = []

    def read():
        data = os.read(fd, 2)
        got.append(data)
        if not data:
            loop.remove_fd(fd)
            loop.stop()

    loop.add_fd(fd, read)
    finish(loop)
    os.close(fd)
    assert got == [b"ab", b"c", b""]


def test_call_soon_from_another_thread_wakes_the_loop(loop):
    threading.Timer(0.05, lambda: loop.call_soon(loop.stop)).start()
    finish(loop)


def test_calls_keep_their_order(loop):
    got = []
    for n in range(5):
        loop.call_soon(lambda n=n: got.append(n))
    loop.call_soon(loop.stop)
    finish(loop)
    assert got == [0, 1, 2, 3, 4]


def test_a_callback_that_calls_itself_again_does_not_starve_descriptors(loop, pipe):
    def again():
        loop.call_soon(again)

    again()
    loop.add_fd(pipe[0], loop.stop)
    os.write(pipe[1], b"x")
    finish(loop)


def test_delays_run_in_the_order_of_their_time(loop):
    got = []
    loop.call_later(0.03, lambda: (got.append(3), loop.stop()))
    loop.call_later(0.01, lambda: got.append(1))
    loop.call_later(0.02, lambda: got.append(2))
    finish(loop)
    assert got == [1, 2, 3]


def test_a_delay_never_runs_early(loop):
    start = time.monotonic_ns()
    loop.call_later(0.02, loop.stop)
    finish(loop)
    assert time.monotonic_ns() - start >= 20 * MS


def test_a_cancelled_delay_does_not_run(loop):
    got = []
    loop.call_later(0.001, lambda: got.append(1)).cancel()
    loop.call_later(0.01, loop.stop)
    finish(loop)
    assert got == []


def test_a_callback_that_raises_is_reported_and_the_loop_goes_on(loop):
    told = []
    loop.on_error = lambda where, exc: told.append((where, str(exc)))

    def bad():
        raise ValueError("oops")

    loop.call_soon(bad)
    loop.call_soon(loop.stop)
    finish(loop)
    assert told == [("callback", "oops")]


def test_stop_before_run_returns_at_once(loop):
    loop.stop()
    finish(loop)


def test_a_signal_calls_back_on_the_loop(loop):
    loop.add_signal(signal.SIGUSR1, loop.stop)
    os.kill(os.getpid(), signal.SIGUSR1)
    finish(loop)


def test_close_puts_the_old_signal_handler_back():
    before = signal.getsignal(signal.SIGUSR1)
    made = Loop()
    made.add_signal(signal.SIGUSR1, lambda: None)
    made.close()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_close_leaves_no_descriptor_open():
    import gc

    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    made = Loop(DeviceLock())
    made.add_signal(signal.SIGUSR1, lambda: None)
    made.close()
    del made
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def test_importing_it_brings_none_of_the_slow_modules():
    code = (
        "import sys; before = set(sys.modules); import vmrun.core.loop, vmrun.backends.chardev.terminal;"
        "slow = {'re', 'typing', 'asyncio', 'logging', 'threading', 'socket', 'subprocess', 'dataclasses'};"
        "print(*sorted(slow & (set(sys.modules) - before)))"
    )
    out = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_a_failure_is_told_without_a_descriptor_left_and_nothing_else_fails() -> None:
    """traceback is not there yet, and cannot be imported: the loop goes on all the same."""
    script = (
        "import os, resource, sys\n"
        "from vmrun.core.loop import Loop\n"
        "loop = Loop()\n"
        "for name in ('traceback', 'contextlib', 'linecache', 'textwrap', 'tokenize'): sys.modules.pop(name, None)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "loop.call_soon(lambda: os.open('/dev/null', 0))\n"
        "loop.call_soon(lambda: print('goes on'))\n"
        "loop.run_once(0.1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
    assert "internal error" in done.stderr and "Too many open files" in done.stderr
