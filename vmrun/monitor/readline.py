"""The line monitor: a prompt, editing as in a shell, a history, and Tab to complete a command.

Keys are those of a VT100 and readline's: arrows, Home, End, Backspace, Delete, Ctrl-A/E/B/F/K/U/W, Ctrl-P/N. A line has
at most MAX_LINE characters, the history MAX_HISTORY lines.
"""

from __future__ import annotations

from vmrun.monitor import hmp, info
from vmrun.monitor.commands.introspect import QEMU_VERSION
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROMPT = "(qemu) "
MAX_LINE = 4095
MAX_HISTORY = 64
CTRL = {c: ord(c) - 64 for c in "ABCDEFHKLNPUW"}
# what follows ESC [ or ESC O
KEYS = {"A": "P", "B": "N", "C": "F", "D": "B", "H": "A", "F": "E", "1~": "A", "3~": "D", "4~": "E"}
QUIT = ("quit", "q")  # what is not followed by a prompt


class LineMonitor:
    """`feed` what was typed; `send(bytes)` shows. `echo` False: no prompt and no editing, for a pipe."""

    def __init__(
        self, machine: Any, send: Callable[[bytes], object], owner: Any = None, client: Any = None, echo: bool = True
    ) -> None:
        self.machine, self._send, self.client, self.echo = machine, send, client, echo
        self.cpu = 0
        self.busy = False  # with a long command: what is typed meanwhile waits
        self.waiting = b""
        self.on_idle: Callable[[], object] = lambda: None
        self.full: Callable[[], bool] = lambda: False  # whether the client has much to read first
        self.line = ""
        self.cursor = 0
        self.history: list[str] = []
        self.place = 0  # in the history; its length: the new line
        self.kept = ""  # the new line, while older ones are looked at
        self.escape = ""
        self.was_return = False
        version = "{major}.{minor}.{micro}".format(**QEMU_VERSION)
        self.show(f"QEMU {version} monitor - type 'help' for more information\r\n")
        self._prompt()

    def show(self, text: str) -> None:
        self._send(text.encode("utf-8", "replace"))

    def _prompt(self) -> None:
        if self.echo:
            self.show(PROMPT)

    def prompt(self) -> None:
        """Somebody turned to the monitor again: what he had typed so far stands behind a new prompt."""
        self.show("\r\n")
        self._prompt()
        self._edit(self.line, self.cursor, again=True)

    def feed(self, data: bytes) -> None:
        for n, byte in enumerate(data):
            if self.busy or self.full():
                self.waiting += data[n:]
                return
            char = chr(byte)
            if self.escape:
                self._escaped(char)
            elif char == "\x1b":
                self.escape = char
            elif char in "\r\n":
                if not (char == "\n" and self.was_return):
                    self._enter()
            elif byte >= 0x20 and byte != 0x7F:
                if len(self.line) < MAX_LINE:
                    self._edit(self.line[: self.cursor] + char + self.line[self.cursor :], self.cursor + 1)
            else:
                self._control(byte)
            self.was_return = char == "\r"

    def resume(self) -> None:
        """The client has read."""
        if not self.busy:
            waiting, self.waiting = self.waiting, b""
            self.feed(waiting)

    # --- keys -----------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        line, self.line, self.cursor = self.line, "", 0
        if self.echo:
            self.show("\r\n")
        if line.strip():
            if not self.history or self.history[-1] != line:
                self.history = [*self.history, line][-MAX_HISTORY:]
            self.place = len(self.history)
            shown = self._run(line)
            if isinstance(shown, Work):
                self.busy = True
                shown.start(self._finish)
                return
            self.show(shown)
        self.place = len(self.history)
        if line.strip() not in QUIT:
            self._prompt()

    def _finish(self, shown: str, error: object) -> None:
        """A long command is over; what went wrong is in its words already."""
        self.busy = False
        self.show(shown)
        self._prompt()
        waiting, self.waiting = self.waiting, b""
        self.feed(waiting)
        if not self.busy:
            self.on_idle()

    def _run(self, line: str) -> str | Work:
        words = line.split()
        if words[0] == "cpu" and len(words) == 2 and words[1].isascii() and words[1].isdecimal():
            if int(words[1]) in self.machine.board.processors:
                self.cpu = int(words[1])
                return ""
            return "Error: invalid CPU index\r\n"
        if words == ["info", "history"]:
            return "".join(f"{n}: '{old}'\n" for n, old in enumerate(self.history))
        return hmp.run(self.machine, line, self.cpu)

    def _control(self, byte: int) -> None:
        line, at = self.line, self.cursor
        if byte == CTRL["A"]:
            self._edit(line, 0)
        elif byte == CTRL["E"]:
            self._edit(line, len(line))
        elif byte == CTRL["B"]:
            self._edit(line, max(0, at - 1))
        elif byte == CTRL["F"]:
            self._edit(line, min(len(line), at + 1))
        elif byte in (CTRL["H"], 0x7F):
            if at:
                self._edit(line[: at - 1] + line[at:], at - 1)
        elif byte == CTRL["D"]:
            self._edit(line[:at] + line[at + 1 :], at)
        elif byte == CTRL["K"]:
            self._edit(line[:at], at)
        elif byte == CTRL["U"]:
            self._edit(line[at:], 0)
        elif byte == CTRL["W"]:
            kept = line[:at].rstrip()
            kept = kept[: kept.rfind(" ") + 1]
            self._edit(kept + line[at:], len(kept))
        elif byte == CTRL["P"]:
            self._older(-1)
        elif byte == CTRL["N"]:
            self._older(1)
        elif byte == 9:
            self._complete()
        elif byte == CTRL["C"]:
            self.line, self.cursor = "", 0
            self.show("^C\r\n" if self.echo else "")
            self._prompt()

    def _escaped(self, char: str) -> None:
        """ESC [ A, ESC O A, ESC [ 3 ~ and their like."""
        self.escape += char
        if len(self.escape) < 3 and char in "[O" or char.isdigit() and len(self.escape) < 6:
            return
        sequence, self.escape = self.escape[1:].lstrip("[O"), ""
        key = KEYS.get(sequence)
        if key is not None:
            self._control(CTRL[key])

    def _older(self, step: int) -> None:
        place = self.place + step
        if not 0 <= place <= len(self.history):
            return
        if self.place == len(self.history):
            self.kept = self.line
        self.place = place
        line = self.kept if place == len(self.history) else self.history[place]
        self._edit(line, len(line))

    def _complete(self) -> None:
        head = self.line[: self.cursor]
        words = head.split(" ")
        known = [name for line in hmp.LINES for name in line.names]
        if words[0] in ("info", "help", "?") and len(words) == 2:
            known = list(info.VIEWS) if words[0] == "info" else known
        elif len(words) == 2:
            known = self._names_for(words[0])
        elif len(words) != 1:
            return
        fits = sorted(name for name in known if name.startswith(words[-1]))
        if not fits:
            return
        common = fits[0]
        while not all(name.startswith(common) for name in fits):
            common = common[:-1]
        added = common[len(words[-1]) :] + (" " if len(fits) == 1 else "")
        if added:
            self._edit(head + added + self.line[self.cursor :], self.cursor + len(added))
        elif self.echo:
            self.show("\r\n" + "  ".join(fits) + "\r\n" + PROMPT)
            self._edit(self.line, self.cursor, again=True)

    def _names_for(self, command: str) -> list[str]:
        """What a command is about, of what there is."""
        board = self.machine.board
        if command in ("device_del", "qom-list"):
            plugged = self.machine.root.children.get("peripheral")
            return list(plugged.children) if plugged is not None else []
        if command == "object_del":
            return list(board.objects.children)
        if command in ("chardev-remove", "chardev-change", "chardev-send-break", "ringbuf_read", "ringbuf_write"):
            return list(self.machine.config["chardevs"])
        if command in ("eject", "change", "block_resize"):
            return list(board.drives)
        if command == "device_add":
            from vmrun.monitor.typetree import drivers

            return [name for name, row in drivers().items() if row.get("user_creatable", True)]
        if command == "object_add":
            from vmrun.backends.objects import KINDS

            return list(KINDS)
        return []

    # --- the screen -------------------------------------------------------------------------------------------

    def _edit(self, line: str, cursor: int, again: bool = False) -> None:
        """Make the line that is shown the one that is meant."""
        old, was = ("", 0) if again else (self.line, self.cursor)
        self.line, self.cursor = line, cursor
        if not self.echo:
            return
        if old[:was] == line[: was] and cursor == len(line) and was == len(old) and len(line) > was:
            self.show(line[was:])  # the common case: typed at the end
            return
        out = f"\x1b[{was}D" if was else ""
        out += line + "\x1b[K"
        out += f"\x1b[{len(line) - cursor}D" if cursor < len(line) else ""
        self.show(out)
