"""A serial port of the host, or any terminal of it, as it is: bytes both ways, raw. Its speed and form are what the
host has set.
"""

from __future__ import annotations

import os

from vmrun.backends.chardev.errors import refused
from vmrun.backends.chardev.file import open_path
from vmrun.backends.chardev.pty import make_raw
from vmrun.backends.chardev.stream import StreamChar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.core.loop import Loop


class TtyChar(StreamChar):
    """The settings that the port had come back at the end."""

    def __init__(self, name: str, path: str, loop: Loop, lock: DeviceLock) -> None:
        import termios

        self.fd = open_path(name, path, os.O_RDWR)
        try:
            self.saved: list[Any] = termios.tcgetattr(self.fd)
            settings = [*self.saved[:6], list(self.saved[6])]
            make_raw(settings)
            termios.tcsetattr(self.fd, termios.TCSANOW, settings)
        except termios.error:
            os.close(self.fd)
            raise refused(
                name, f"'{path}' is no serial port or terminal",
                remedy="name one, such as /dev/ttyS0, or use type `file` or `pipe`",
            ) from None
        super().__init__(name, loop, lock)
        self.address = path
        self.attach(self.fd, self.fd)

    def close(self) -> None:
        import termios

        super().close()
        if self.fd >= 0:
            try:
                termios.tcsetattr(self.fd, termios.TCSANOW, self.saved)
            except termios.error:
                pass  # unplugged
            os.close(self.fd)
            self.fd = -1
