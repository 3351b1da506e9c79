"""The machine's text screen on this terminal, and the terminal's keys on the machine's keyboard.

The screen is one of the consoles that share the terminal: Ctrl-A c goes on to those on stdio, and back.
"""

from __future__ import annotations

import os
import sys

from vmrun.backends.chardev.base import RingChar
from vmrun.backends.chardev.mux import Mux
from vmrun.ui.screen import RESET, Differ, plain
from vmrun.ui.terminal import MOUSE_OFF, MOUSE_ON, Char, Chord, Keys, position
from vmrun.ui.viewport import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.chardev.mux import MuxPort
    from vmrun.cli.runner import Runner
    from vmrun.ui.terminal import Mouse

SIGWINCH = 28
INTERVAL = 0.05  # seconds between looks at the screen
WORDS_STAY = 5.0  # seconds that a line of vmrun's own stands on the screen
MOST_WAITING = 4096  # keys typed ahead of a busy guest
KEPT = 65536  # bytes of a console that is not shown
CLEAR = f"{RESET}\x1b[2J\x1b[1;1H"
CELL = (8, 16)  # pixels of a character, for the way that a mouse went


class PlainScreen:
    """In the terminal's place when there is none: what stands on the screen in the end is printed as text."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.closed = False

    def add_port(self, name: str, focus: bool = False) -> Any:
        port = RingChar(capacity=KEPT)
        port.name = name
        return port

    def say(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    def close(self) -> None:
        if self.closed or self.runner.machine is None:
            return
        self.closed = True
        for console in self.runner.machine.board.consoles:
            screen = console.characters()
            if screen is not None:
                text = plain(screen.rows) if screen.mode == "text" else f"[{screen.mode}]"
                sys.stdout.write(f"{text.rstrip()}\n")
                sys.stdout.flush()
                return


class ScreenConsole(Mux):
    """Takes the place of the shared terminal. `focus` None: the screen."""

    def __init__(self, loop: Any, lock: Any, runner: Runner, input_fd: int = 0, output_fd: int = 1) -> None:
        self.runner = runner
        self.differ = Differ()
        self.place = (0, 0)  # of what is shown on the whole screen
        self.waiting: list[list[str]] = []
        self.kept: dict[MuxPort, bytes] = {}
        self.keys = Keys()
        self.fresh = False  # what it holds back came since the last look
        self.pointer = (0, 0)
        self.cells = (80, 25)
        self.words: list[str] = []  # vmrun's own, and whether they stand on the screen
        self.over: Any = None
        own: dict[str, Any] = {"escape": runner.escape, "announce": False, "input_fd": input_fd, "output_fd": output_fd}
        super().__init__("terminal", loop, lock, runner.commands(), **own)
        loop.add_signal(SIGWINCH, self._again)
        self._write(MOUSE_ON)
        loop.call_later(INTERVAL, self._look)

    # --- consoles ---------------------------------------------------------------------------------------------

    def add_port(self, name: str, focus: bool = False) -> MuxPort:
        port = super().add_port(name, focus)
        self.focus = None
        self.kept[port] = b""
        return port

    def remove(self, port: MuxPort) -> None:
        super().remove(port)
        self.kept.pop(port, None)
        if self.focus is not port and self.focus in self.ports:
            return
        self.focus = None

    def _take_output(self) -> None:
        for port in self.ports:
            if not len(port.output):
                continue
            with self.lock:
                data = port.drain()
            self.kept[port] = (self.kept[port] + data)[-KEPT:]
            if port is self.focus:
                self.pending += self._stamped(port, data) if self.stamps is not None else data

    def _command(self, letter: str) -> None:
        if letter != "c":
            super()._command(letter)
            return
        every = [None, *self.ports]
        self.focus = every[(every.index(self.focus) + 1) % len(every)]
        if self.focus is None:
            self._write(MOUSE_ON)
            self._again()
        else:
            self.pending += f"{MOUSE_OFF}{CLEAR}\x1b[?25h[{self.focus.name}]\r\n".encode() + self.kept[self.focus]
            self._pump()

    def say(self, text: str) -> None:
        """On the screen the line stands at the bottom for a while; help takes the whole of it."""
        if self.focus is not None:
            super().say(text)
            return
        self.words = text.strip("\n").split("\n")
        if self.over is not None:
            self.over.cancel()
        self.over = self.loop.call_later(WORDS_STAY, self._unsay)
        self._write(self._said())

    def _unsay(self) -> None:
        self.words = []
        self._again()

    def _said(self) -> str:
        if not self.words:
            return ""
        columns, rows = self._size()
        shown = self.words[-rows:]
        first = rows - len(shown)
        return "".join(
            f"\x1b[{first + n + 1};1H\x1b[0;7m{line[:columns]:<{columns}}{RESET}" for n, line in enumerate(shown)
        )

    # --- the screen -------------------------------------------------------------------------------------------

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self.terminal.output_fd)
        except OSError:
            return 80, 25
        return max(1, size.columns), max(1, size.lines)

    def _again(self) -> None:
        """Everything anew: the terminal has another size, or showed something else."""
        self.differ = Differ()
        if self.focus is None:
            self._draw()

    def _look(self) -> None:
        if self.focus is None:
            self._draw()
        if self.keys.held and not self.fresh:
            self._do(self.keys.flush())
        self.fresh = False
        if self.runner.machine is not None:
            self._feed()
        if not self.closed:
            self.loop.call_later(INTERVAL, self._look)

    def _draw(self) -> None:
        if self.runner.machine is None or self.pending:
            return  # a terminal that does not keep up gets the newest screen later
        for console in self.runner.machine.board.consoles:
            screen = console.characters()
            if screen is None:
                continue
            columns, rows = self._size()
            self.cells = max(screen.columns, 1), max(len(screen.rows), 1)
            part = Part(screen, columns, rows, self.place)
            if part.at != self.place:
                self.differ, self.place = Differ(), part.at
            text = self.differ.update(part)
            if text and part.cut:
                cut = f"[{screen.columns}x{len(screen.rows)} on {columns}x{rows}: cut; from {part.at[1]},{part.at[0]}]"
                text = f"{text}\x1b7\x1b[{rows};1H\x1b[0;7m{cut[:columns]:<{columns}}{RESET}\x1b8"
            if text:
                self._write(text + self._said())
            return

    def _write(self, text: str) -> None:
        self.pending += text.encode()
        self._pump()

    # --- keys -------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if self.focus is not None:
            super()._send(data)
            return
        if self.words and data:
            self._unsay()
        self._do(self.keys.feed(data))
        self.fresh = bool(self.keys.held)

    def _do(self, events: list[Any]) -> None:
        if self.runner.machine is None:
            return
        layout = self.runner.machine.board.layout
        for event in events:
            if isinstance(event, Chord):
                self._press(list(event.keys))
            elif isinstance(event, Char):
                for chord in layout.chords(event.text):
                    self._press(["alt", *chord] if event.alt else chord)
            else:
                self._point(event)

    def _point(self, event: Mouse) -> None:
        """To the place for a tablet, for a mouse by the way from the last cell."""
        hands = self.runner.machine.board.input
        column, row = event.column + self.place[1], event.row + self.place[0]
        if hands.absolute:
            hands.position(*position(column, row, self.cells))
        elif (column, row) != self.pointer:
            hands.move((column - self.pointer[0]) * CELL[0], (row - self.pointer[1]) * CELL[1])
        self.pointer = column, row
        if event.button is not None:
            hands.button(event.button, event.down)
            if event.button.startswith("wheel"):
                hands.button(event.button, False)
        hands.sync()

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
        if self.closed:
            return
        self.loop.remove_signal(SIGWINCH)
        if self.focus is None:
            self._draw()
        self._write(f"{MOUSE_OFF}{RESET}\x1b[?25h\r\n")
        super().close()
