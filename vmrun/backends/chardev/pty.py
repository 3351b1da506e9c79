"""A pseudo-terminal of the host. Its path is `address`; a link or a message shows it to the user.

While nobody has it open, output vanishes and the guest does not wait. The kernel tells of an opening only
when asked, so that is looked at a few times a second; of a closing it tells at once.
"""

from __future__ import annotations

import os

from vmrun.backends.chardev.errors import refused
from vmrun.backends.chardev.stream import StreamChar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.api import DeviceLock

    from vmrun.core.loop import Delay, Loop

LOOK_EVERY = 0.25


class PtyChar(StreamChar):
    def __init__(self, name: str, loop: Loop, lock: DeviceLock) -> None:
        import select
        import termios

        try:
            self.master, slave = os.openpty()
        except OSError as error:
            raise refused(
                name, f"the host has no pseudo-terminal left: {error.strerror}",
                remedy="close some terminals, or raise /proc/sys/kernel/pty/max",
            ) from None
        self.address = os.ttyname(slave)
        settings = termios.tcgetattr(slave)
        make_raw(settings)
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        os.close(slave)
        os.set_blocking(self.master, False)
        super().__init__(name, loop, lock)
        self.poll = select.poll()
        self.poll.register(self.master, select.POLLIN)
        self.hung_up = select.POLLHUP
        self.timer: Delay | None = None
        with lock:
            self.set_connected(False)
        self._look()

    def on_end(self) -> None:
        self.detach()
        if not self.closed:
            self.timer = self.loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self.timer = None
        events = self.poll.poll(0)
        if events and events[0][1] & self.hung_up:
            self.timer = self.loop.call_later(LOOK_EVERY, self._look)
        else:
            self.attach(self.master, self.master)

    def close(self) -> None:
        super().close()
        if self.timer is not None:
            self.timer.cancel()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def make_raw(settings: list[object], signals: bool = False, output: bool = False) -> None:
    """Turn a termios list into that of a line: bytes as they are. signals: keep Ctrl-C; output: keep LF → CR
    LF."""
    import termios as t

    iflag, oflag, cflag, lflag = (int(str(x)) for x in settings[:4])
    settings[0] = iflag & ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
    settings[1] = oflag if output else oflag & ~t.OPOST
    settings[2] = (cflag & ~(t.CSIZE | t.PARENB)) | t.CS8
    keep = t.ISIG if signals else 0
    settings[3] = lflag & ~((t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN) & ~keep)
    control = settings[6]
    assert isinstance(control, list)
    control[t.VMIN], control[t.VTIME] = 1, 0
