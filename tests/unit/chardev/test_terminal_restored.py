"""The terminal is found as it was after an exit, an exception, a stop: real processes on real terminals."""

import os
import signal
import subprocess
import sys
import termios
import time

import pytest

PROGRAM = """
import signal, sys
from accel.api import DeviceLock
from vmrun.backends.chardev.terminal import StdioChar
from vmrun.core.loop import Loop
lock = DeviceLock()
loop = Loop(lock)
backend = StdioChar("c", loop, lock, signal=True)
loop.add_signal(signal.SIGUSR1, loop.stop)
def crash():
    raise KeyboardInterrupt
loop.add_signal(signal.SIGUSR2, crash)
print("ready", flush=True)
loop.run()
"""


class OnTerminal:
    def __init__(self):
        self.master, self.slave = os.openpty()
        self.before = termios.tcgetattr(self.slave)[:4]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.until(lambda: b"ready" in os.read(self.master, 100))

    def until(self, condition, seconds=10.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    @property
    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def stopped(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "T"

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def program():
    made = OnTerminal()
    yield made
    made.close()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_after_the_end_whatever_the_reason(program, number):
    assert program.raw
    program.process.send_signal(number)
    program.process.wait(10)
    assert termios.tcgetattr(program.slave)[:4] == program.before


def test_while_stopped_and_raw_again_afterwards(program):
    program.process.send_signal(signal.SIGTSTP)
    program.until(program.stopped)
    assert termios.tcgetattr(program.slave)[:4] == program.before
    program.process.send_signal(signal.SIGCONT)
    program.until(lambda: program.raw)
