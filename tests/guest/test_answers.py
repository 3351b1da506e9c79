"""vmrun up stays in charge of a guest that loops with interrupts off: Ctrl-A x, SIGINT twice, SIGTERM, QMP's quit."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.guest.machines import need, write_machine

pytestmark = pytest.mark.guest
ROOT = pathlib.Path(__file__).parents[2]
# mov dx, 3f8h; mov al, '!'; out dx, al; cli; then a jump to itself, or for ever through memory
LOOPS = {
    "jump": bytes.fromhex("baf803 b021 ee fa ebfe"),
    "strings": bytes.fromhex("baf803 b021 ee fa 31f6 31ff b9ffff f3a4 ebf5"),
}


class Terminal:
    """vmrun up on a pseudo terminal, with its QMP socket."""

    def __init__(self, directory: pathlib.Path, accel: str, code: bytes) -> None:
        (directory / "disk.img").write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes((1 << 20) - 512))
        self.qmp = directory / "qmp.sock"
        file = write_machine(
            directory, machine="rhel6.3.0", memory="16MiB", disks=["disk.img"], serial="stdio",
            chardevs={"qmp0": {"type": "socket", "path": str(self.qmp), "server": True, "wait": False}},
            monitors={"mon0": {"chardev": "qmp0", "mode": "control"}},
        )
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "vmrun", "up", "--accel", accel, str(file)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.child = subprocess.Popen(command, cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.text = b""

    def read_until(self, mark: bytes, patience: float = 60.0) -> bool:
        end = time.monotonic() + patience
        while mark not in self.text and time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.master, 65536)
                except OSError:
                    return False
        return mark in self.text

    def ended_after(self, act: Callable[[], None], patience: float = 20.0) -> float:
        """Seconds from `act` to the end of the process; `patience` when it does not end."""
        began = time.monotonic()
        act()
        while self.child.poll() is None and time.monotonic() - began < patience:
            self.read_until(b"\0never", 0.002)
        return time.monotonic() - began

    def quit(self) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.qmp))
            for name in ("qmp_capabilities", "quit"):
                client.sendall(json.dumps({"execute": name}).encode())
            while client.recv(4096):
                pass

    def interrupt_twice(self) -> None:
        self.child.send_signal(signal.SIGINT)
        self.read_until(b"once more")
        self.child.send_signal(signal.SIGINT)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.master)


ACTS: dict[str, Callable[[Terminal], None]] = {
    "Ctrl-A x": lambda terminal: (os.write(terminal.master, b"\x01x"), None)[1],
    "SIGINT twice": Terminal.interrupt_twice,
    "SIGTERM": lambda terminal: terminal.child.send_signal(signal.SIGTERM),
    "quit": Terminal.quit,
}


@pytest.fixture
def terminal(request: pytest.FixtureRequest, accel: str, tmp_path: pathlib.Path) -> Iterator[Terminal]:
    need(accel)
    terminal = Terminal(tmp_path, accel, LOOPS[request.param])
    yield terminal
    terminal.close()


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("terminal", LOOPS, indirect=True)
def test_a_guest_that_loops_with_interrupts_off_is_ended(terminal: Terminal, act: str) -> None:
    assert terminal.read_until(b"!"), terminal.text
    seconds = terminal.ended_after(lambda: ACTS[act](terminal))
    print(f"{act}: {1000 * seconds:.0f} ms")
    assert seconds < 10, terminal.text       # 30 ms on an idle host
