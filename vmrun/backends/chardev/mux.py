"""A chardev shared between several users: output of all, input for the one that has the focus.

The terminal is shared by whoever is on it (Mux); any other chardev of two sides is with `mux: true` (shared). An
escape, Ctrl-A when nothing else is said, begins a command: h help, c next console, b send a break, t time stamps, the
escape again itself; and those of the program whose terminal it is (x, the end, and others).
"""

from __future__ import annotations

import time

from vmrun.backends.chardev.base import HostChar
from vmrun.backends.chardev.stream import StreamChar
from vmrun.backends.chardev.terminal import StdioChar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.core.loop import Loop

    Commands = dict[str, tuple[str, Callable[[], object]]]

ESCAPE = 0x01  # Ctrl-A
KEPT_INPUT = 4096


class MuxPort(HostChar):
    """One of the consoles behind a mux; a device uses it like any chardev."""

    def __init__(self, mux: Shared, name: str) -> None:
        self.mux = mux
        self.name = name
        self.waiting = b""  # typed, and not yet taken by the device
        self.at_line_start = True
        self.on_focus: Callable[[], object] | None = None  # for users that greet whoever turns to them

    @property
    def address(self) -> str:
        return "terminal" if isinstance(self.mux, Mux) else str(self.mux.address)

    @property
    def focused(self) -> bool:
        return self.mux.focus is self

    def close(self) -> None:
        self.mux.remove(self)


class Shared(StreamChar):
    """What a chardev becomes when ports are put on it. `commands`: escapes of the program's own, letter → (what it does
    in words, function).
    """

    escape = ESCAPE  # of all that are told no other

    def begin(self, commands: Commands | None = None, escape: int | None = None, announce: bool = True) -> None:
        """Before the chardev itself is made. announce: say which console has the focus now."""
        self.ports: list[MuxPort] = []
        self.focus: MuxPort | None = None
        self.commands = commands or {}
        if escape is not None:
            self.escape = escape
        self.announce = announce
        self.escaped = False
        self.stamps: float | None = None
        self.closes_itself = False
        self.copy: Callable[[bytes], object] | None = None

    def log_to(self, write: Callable[[bytes], object]) -> None:
        self.copy = write
        for port in self.ports:
            port.log_to(write)

    def add_port(self, name: str, focus: bool = False) -> MuxPort:
        """A new console. The first one, or one that asks for it, gets the input."""
        port = MuxPort(self, name)
        if self.copy is not None:
            port.log_to(self.copy)
        with self.lock:
            port.set_connected(self.connected)
        self.ports.append(port)
        if focus or self.focus is None:
            self.focus = port
        self.loop.add_fd(port.output.notifier.fileno(), lambda: self._on_port(port))
        return port

    def remove(self, port: MuxPort) -> None:
        if port in self.ports:
            self._take_output()
            self.ports.remove(port)
            self.loop.remove_fd(port.output.notifier.fileno())
            if self.focus is port:
                self.focus = self.ports[0] if self.ports else None
            if self.closes_itself and not self.ports:
                super().close()

    def set_connected(self, connected: bool) -> None:
        super().set_connected(connected)
        for port in self.ports:
            port.set_connected(connected)

    def close(self) -> None:
        for port in list(self.ports):
            self.remove(port)
        super().close()

    def say(self, text: str) -> None:
        """A line of vmrun's own between the guest's."""
        self.pending += self.encode(text.replace("\n", "\r\n").encode())
        self._pump()

    # --- output: ports → pending → terminal -----------------------------------------------------------------

    def _on_port(self, port: MuxPort) -> None:
        port.output.notifier.drain()
        if port.stalled:
            self._offer(port)
        self._gather()

    def _take_output(self) -> None:
        for port in self.ports:
            if not len(port.output):
                continue
            with self.lock:
                data = port.drain()
            self.pending += self.encode(self._stamped(port, data) if self.stamps is not None else data)

    def _pump(self) -> None:
        for _ in range(16):
            if not self.pending:
                self._take_output()
            super()._pump()
            if self.pending or not any(len(port.output) for port in self.ports):
                return
        self.output.notifier.notify()

    def _stamped(self, port: MuxPort, data: bytes) -> bytes:
        assert self.stamps is not None
        out = bytearray()
        stamp = b"[%12.6f] " % (time.monotonic() - self.stamps)
        for line in data.splitlines(keepends=True):
            if port.at_line_start:
                out += stamp
            out += line
            port.at_line_start = line.endswith(b"\n")
        return bytes(out)

    # --- input ----------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        pass

    def _on_readable(self) -> None:
        # Always read, whatever the guest does: Ctrl-A x must work.
        try:
            data = self.read(256)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.on_end()
            return
        data = self.filter_input(data) + self.backlog
        self.backlog = b""
        typed = bytearray()
        for byte in data:
            if self.escaped:
                self.escaped = False
                if byte == self.escape:
                    typed.append(byte)
                else:
                    self._send(bytes(typed))
                    typed.clear()
                    self._command(chr(byte).lower())
            elif byte == self.escape:
                self.escaped = True
            else:
                typed.append(byte)
        self._send(bytes(typed))

    def _send(self, data: bytes) -> None:
        port = self.focus
        if port is None or not data:
            return
        port.waiting = (port.waiting + data)[:KEPT_INPUT]
        self._offer(port)

    def _offer(self, port: MuxPort) -> None:
        while port.waiting:
            with self.lock:
                count = min(port.room(), len(port.waiting))
                if count:
                    port.deliver(port.waiting[:count])
            if not count:
                return
            port.waiting = port.waiting[count:]

    def _command(self, letter: str) -> None:
        if letter == "c" and self.ports:
            index = self.ports.index(self.focus) if self.focus in self.ports else -1
            self.focus = self.ports[(index + 1) % len(self.ports)]
            if self.announce:
                self.say(f"\n[{self.focus.name}]\n")
            if self.focus.on_focus is not None:
                self.focus.on_focus()
        elif letter == "b" and self.focus is not None:
            with self.lock:
                self.focus.send_break()
        elif letter in ("h", "?"):
            self.say("\n" + self.help())
        elif letter == "t":
            self.stamps = time.monotonic() if self.stamps is None else None
        elif letter in self.commands:
            self.commands[letter][1]()

    def help(self) -> str:
        """The escapes that there are, a line each."""
        escape = f"Ctrl-{chr(self.escape + 0x40)}" if self.escape < 0x20 else chr(self.escape)
        rows = {"h": "this help", **{letter: words for letter, (words, _) in self.commands.items()}}
        rows |= {"c": "to the next console", "b": "send a break", "t": "time stamps on and off"}
        rows[escape] = f"send {escape} itself"
        return "".join(f"{escape} {letter:<6} {words}\n" for letter, words in rows.items())


class Mux(Shared, StdioChar):
    """The terminal shared."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        lock: DeviceLock,
        commands: Commands | None = None,
        *,
        signal: bool = False,
        input_fd: int = 0,
        output_fd: int = 1,
        escape: int = ESCAPE,
        announce: bool = True,
    ) -> None:
        self.begin(commands, escape, announce)
        super().__init__(name, loop, lock, signal=signal, input_fd=input_fd, output_fd=output_fd)


def shared(
    name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, like: Any = None, tls: Any = None
) -> Shared:
    """A chardev with `mux: true`; add_port makes its users, and it is closed with the last of them. like: the
    terminal's mux, whose escape and commands it takes.
    """
    kind = spec["type"]
    base: Any
    more: tuple[Any, ...]
    if kind == "stdio":
        terminal = Mux(name, loop, lock)
        terminal.closes_itself = True
        return terminal
    if kind == "socket":
        from vmrun.backends.chardev.socket import ClientChar, ServerChar

        base, more = (ServerChar if spec.get("server") else ClientChar), (spec,)
    elif kind == "pty":
        from vmrun.backends.chardev.pty import PtyChar

        base, more = PtyChar, ()
    elif kind == "udp":
        from vmrun.backends.chardev.udp import UdpChar

        base, more = UdpChar, (spec,)
    elif kind in ("null", "spicevmc"):
        base, more = StreamChar, ()
    elif kind in ("ringbuf", "memory"):
        from vmrun.backends.chardev.ring import LoggedRing

        base, more = LoggedRing, (int(spec.get("size", 65536)),)
    elif kind == "file":
        from vmrun.backends.chardev.file import FileChar

        base, more = FileChar, (spec["path"], bool(spec.get("append")))
    elif kind == "pipe":
        from vmrun.backends.chardev.file import PipeChar

        base, more = PipeChar, (spec["path"],)
    elif kind == "vc":
        from vmrun.backends.chardev.vc import VcChar

        base, more = VcChar, (spec,)
    elif kind in ("tty", "serial"):
        from vmrun.backends.chardev.tty import TtyChar

        base, more = TtyChar, (spec["path"],)
    else:
        from vmrun.backends.chardev.errors import refused

        raise refused(name, f"a {kind} can't be shared", remedy="remove `mux`, or use a socket or pty")
    made: Any = type("Shared" + base.__name__, (Shared, base), {})
    found: Shared = made.__new__(made, name)
    if like is not None:
        found.begin(like.commands, like.escape, like.announce)
    else:
        found.begin(announce=False)
    found.closes_itself = True
    made.__init__(found, name, *more, loop, lock, *((tls,) if kind == "socket" else ()))
    return found
