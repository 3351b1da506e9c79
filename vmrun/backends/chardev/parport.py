"""A parallel port of the host (Linux's ppdev): bytes go to whatever is plugged in there, with a printer's handshake.

Ref: Linux, include/uapi/linux/ppdev.h.
Not modelled: status and control lines, which the host's driver has to itself; modes other than compatibility.
"""

from __future__ import annotations

import os

from vmrun.backends.chardev.errors import refused
from vmrun.backends.chardev.file import open_path
from vmrun.backends.chardev.stream import StreamChar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.api import DeviceLock

    from vmrun.core.loop import Loop

PPCLAIM, PPRELEASE = 0x708B, 0x708C


class ParportChar(StreamChar):
    """The port is claimed for as long as the machine runs."""

    def __init__(self, name: str, path: str, loop: Loop, lock: DeviceLock) -> None:
        import fcntl

        self.fd = open_path(name, path, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(self.fd, PPCLAIM)
        except OSError as error:
            os.close(self.fd)
            raise refused(
                name, f"not a parallel port: {error.strerror}", remedy="name one, such as /dev/parport0"
            ) from None
        super().__init__(name, loop, lock)
        self.address = path
        self.attach(-1, self.fd)

    def close(self) -> None:
        import fcntl

        if not self.closed:
            super().close()
            try:
                fcntl.ioctl(self.fd, PPRELEASE)
            except OSError:
                pass  # it is gone
            os.close(self.fd)
