"""The machine's text screen on this terminal, and the terminal's keys on the machine's keyboard."""

from __future__ import annotations

import os
import sys

from vmrun.backends.chardev.base import RingChar
from vmrun.backends.chardev.terminal import Terminal
from vmrun.core.keys import keys_for
from vmrun.ui.screen import Differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.cli.runner import Runner

INTERVAL = 0.05  # seconds between looks at the screen
ESCAPE = 1  # Ctrl-A
MOST_WAITING = 4096  # keys typed ahead of a busy guest
SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left", b"\x1b[H": "home",
    b"\x1b[F": "end", b"\x1b[2~": "insert", b"\x1b[3~": "delete", b"\x1b[5~": "pgup", b"\x1b[6~": "pgdn",
    b"\x1bOP": "f1", b"\x1bOQ": "f2", b"\x1bOR": "f3", b"\x1bOS": "f4", b"\x1b[15~": "f5", b"\x1b[17~": "f6",
    b"\x1b[18~": "f7", b"\x1b[19~": "f8", b"\x1b[20~": "f9", b"\x1b[21~": "f10", b"\x1b[23~": "f11",
    b"\x1b[24~": "f12",
}  # fmt: skip


class ScreenConsole:
    """Takes the place of the shared terminal: stdio consoles of the machine keep their last output to themselves."""

    def __init__(self, loop: Any, lock: Any, runner: Runner) -> None:
        self.loop, self.lock, self.runner = loop, lock, runner
        self.differ = Differ()
        self.escaped = False
        self.waiting: list[list[str]] = []
        self.terminal = Terminal(signals=True)
        self.live = sys.stdin.isatty()
        if self.live:
            self.terminal.enter()
            self.loop.add_fd(0, self._typed)
        self.loop.call_later(INTERVAL, self._look)

    def add_port(self, name: str, focus: bool = False) -> Any:
        port = RingChar(capacity=65536)
        port.name = name
        return port

    def say(self, text: str) -> None:
        """vmrun's own words have no place on the guest's screen."""

    def _look(self) -> None:
        self._draw()
        if self.runner.machine is not None:
            self._feed()
        self.loop.call_later(INTERVAL, self._look)

    def _draw(self) -> None:
        if self.runner.machine is None:
            return
        for console in self.runner.machine.board.consoles:
            screen = console.characters()
            if screen is not None:
                sys.stdout.write(self.differ.update(screen))
                sys.stdout.flush()
                return

    def _typed(self) -> None:
        data = os.read(0, 4096)
        if not data:
            self.loop.remove_fd(0)
            return
        while data:
            if self.escaped:
                self.escaped = False
                if data[:1] == b"x":
                    self.runner.machine.end("quit")
                    return
                if data[0] != ESCAPE:
                    data = data[1:]
                    continue
            elif data[0] == ESCAPE:
                self.escaped = True
                data = data[1:]
                continue
            sequence = next((s for s in SEQUENCES if data.startswith(s)), None)
            if sequence is not None:
                self._press([SEQUENCES[sequence]])
                data = data[len(sequence) :]
            else:
                self._press(keys_for(chr(data[0])))
                data = data[1:]

    def _press(self, keys: list[str]) -> None:
        """A PS/2 keyboard holds 16 bytes: keys wait here until the guest has read what came before."""
        if keys and len(self.waiting) < MOST_WAITING:
            self.waiting.append(keys)
            self._feed()

    def _feed(self) -> None:
        hands = self.runner.machine.board.input
        while self.waiting and hands.hungry():
            keys = self.waiting.pop(0)
            for key in keys:
                hands.key(key, True)
            for key in reversed(keys):
                hands.key(key, False)
            hands.sync()

    def close(self) -> None:
        self._draw()
        sys.stdout.write("\x1b[0m\n")
        sys.stdout.flush()
        if self.live:
            self.loop.remove_fd(0)
        self.terminal.close()
