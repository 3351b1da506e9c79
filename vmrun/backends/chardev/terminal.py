"""vmrun's own terminal as a chardev.

The terminal is put into raw mode while vmrun has it, and put back at close, at exit whatever the reason, and
around Ctrl-Z.
"""

from __future__ import annotations

import os
import stat

from vmrun.backends.chardev.pty import make_raw
from vmrun.backends.chardev.stream import StreamChar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.core.loop import Loop


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

    def set_echo(self, on: bool) -> None:
        if on:
            self.terminal.leave()
        else:
            self.terminal.enter()

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
