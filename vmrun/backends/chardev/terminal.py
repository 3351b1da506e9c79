"""vmrun's own terminal as a chardev, and a mux that shares it between several.

The terminal is put into raw mode while vmrun has it, and put back at close, at exit whatever the reason, and
around Ctrl-Z. Ctrl-A is the escape:

    Ctrl-A x  stop     Ctrl-A c  next console     Ctrl-A b  send a break     Ctrl-A h  help
    Ctrl-A s  save     Ctrl-A t  time stamps      Ctrl-A Ctrl-A  a Ctrl-A
"""

from __future__ import annotations

import os
import stat
import time

from vmrun.backends.chardev.base import HostChar
from vmrun.backends.chardev.pty import make_raw
from vmrun.backends.chardev.stream import StreamChar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.core.loop import Loop

ESCAPE = 0x01  # Ctrl-A
KEPT_INPUT = 4096

HELP = """\
Ctrl-A h   this help
Ctrl-A x   stop the machine and leave
Ctrl-A c   switch between the consoles
Ctrl-A b   send a break
Ctrl-A s   write everything to the disk images
Ctrl-A t   time stamps on and off
Ctrl-A Ctrl-A   send Ctrl-A
"""


class Terminal:
    """Standard input and output: raw mode, and descriptors that never block."""

    def __init__(self, input_fd: int = 0, output_fd: int = 1, signals: bool = True) -> None:
        self.input_fd, self.output_fd = input_fd, output_fd
        self.signals = signals
        self.saved: list[Any] | None = None
        self.opened = -1
        self.unblocked = False
        self.write_fd = self._writable()

    def _writable(self) -> int:
        """Non-blocking output. A flag on the terminal itself would outlive us in the shell; a second opening
        has its own."""
        mode = os.fstat(self.output_fd).st_mode
        if stat.S_ISREG(mode):
            return self.output_fd
        if not stat.S_ISSOCK(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            try:
                self.opened = os.open(f"/proc/self/fd/{self.output_fd}", flags)
                return self.opened
            except OSError:
                pass
        if os.get_blocking(self.output_fd):
            os.set_blocking(self.output_fd, False)
            self.unblocked = True
        return self.output_fd

    def enter(self) -> None:
        """Raw mode, if standard input is a terminal."""
        if self.saved is not None or not os.isatty(self.input_fd):
            return
        import atexit
        import termios

        self.saved = termios.tcgetattr(self.input_fd)
        self.set_raw()
        atexit.register(self.leave)

    def set_raw(self) -> None:
        if self.saved is None:
            return
        import termios

        settings = [*self.saved[:6], list(self.saved[6])]
        # LF becomes CR LF: what vmrun itself says must not run down the screen in steps.
        make_raw(settings, signals=self.signals, output=True)
        termios.tcsetattr(self.input_fd, termios.TCSANOW, settings)

    def leave(self) -> None:
        """As it was found."""
        if self.saved is None:
            return
        import atexit
        import termios

        try:
            termios.tcsetattr(self.input_fd, termios.TCSADRAIN, self.saved)
        except (OSError, termios.error):
            pass
        self.saved = None
        atexit.unregister(self.leave)

    def suspend(self) -> None:
        """Ctrl-Z: back to the shell as it was; raw again when it lets us go on. From a handler of SIGTSTP."""
        import signal
        import termios

        if self.saved is not None:
            try:
                termios.tcsetattr(self.input_fd, termios.TCSADRAIN, self.saved)
            except termios.error:
                pass
        os.kill(os.getpid(), signal.SIGSTOP)
        self.set_raw()

    def close(self) -> None:
        self.leave()
        if self.opened >= 0:
            os.close(self.opened)
            self.opened = -1
        if self.unblocked:
            os.set_blocking(self.output_fd, True)
            self.unblocked = False


class StdioChar(StreamChar):
    """The terminal for one device, without escapes. `signal` False: Ctrl-C goes to the guest."""

    address = "stdio"

    def __init__(
        self,
        name: str,
        loop: Loop,
        lock: DeviceLock,
        *,
        signal: bool = True,
        input_fd: int = 0,
        output_fd: int = 1,
    ) -> None:
        self.terminal = Terminal(input_fd, output_fd, signal)
        super().__init__(name, loop, lock)
        self.terminal.enter()
        self._signals(True)
        self.attach(input_fd, self.terminal.write_fd)

    def _signals(self, on: bool) -> None:
        import signal

        if not os.isatty(self.terminal.input_fd):
            return
        try:
            if on:
                self.loop.add_signal(signal.SIGTSTP, self.terminal.suspend)
                self.loop.add_signal(signal.SIGCONT, self.terminal.set_raw)
            else:
                self.loop.remove_signal(signal.SIGTSTP)
                self.loop.remove_signal(signal.SIGCONT)
        except ValueError:
            pass  # not the main thread: then nobody stops us by Ctrl-Z either

    def on_end(self) -> None:
        """No more input; output goes on as long as it can."""
        if self.read_fd >= 0:
            if self.read_fd != self.write_fd:
                self.loop.remove_fd(self.read_fd)
            self.read_fd, self.reading = -1, False
            self._interest()
        else:
            self.detach()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._signals(False)
            self.terminal.close()


class MuxPort(HostChar):
    """One of the consoles behind a mux; a device uses it like any chardev."""

    address = "terminal"

    def __init__(self, mux: Mux, name: str) -> None:
        self.mux = mux
        self.name = name
        self.waiting = b""  # typed, and not yet taken by the device
        self.at_line_start = True

    def close(self) -> None:
        self.mux.remove(self)


class Mux(StdioChar):
    """The terminal shared: output of all ports, input for the one that has the focus.

    `on_command(letter)` is called for the escapes that concern the machine: x and s.
    """

    def __init__(
        self,
        name: str,
        loop: Loop,
        lock: DeviceLock,
        on_command: Callable[[str], object] | None = None,
        *,
        signal: bool = False,
        input_fd: int = 0,
        output_fd: int = 1,
        escape: int = ESCAPE,
    ) -> None:
        self.ports: list[MuxPort] = []
        self.focus: MuxPort | None = None
        self.on_command = on_command
        self.escape = escape
        self.escaped = False
        self.stamps: float | None = None
        super().__init__(name, loop, lock, signal=signal, input_fd=input_fd, output_fd=output_fd)

    def add_port(self, name: str, focus: bool = False) -> MuxPort:
        """A new console. The first one, or one that asks for it, gets the input."""
        port = MuxPort(self, name)
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

    def close(self) -> None:
        for port in list(self.ports):
            self.remove(port)
        super().close()

    def say(self, text: str) -> None:
        """A line of vmrun's own between the guest's."""
        self.pending += text.replace("\n", "\r\n").encode()
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
            self.pending += self._stamped(port, data) if self.stamps is not None else data

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
            self.say(f"\n[{self.focus.name}]\n")
        elif letter == "b" and self.focus is not None:
            with self.lock:
                self.focus.send_break()
        elif letter in ("h", "?"):
            self.say("\n" + HELP)
        elif letter == "t":
            self.stamps = time.monotonic() if self.stamps is None else None
        elif letter in ("x", "s") and self.on_command is not None:
            self.on_command(letter)
