"""Clients that a manager hands over, connected already: viewers of VNC, peers of character devices."""

from __future__ import annotations

import os
import stat

from vmrun.monitor.commands.fds import take
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@command("add_client", {"protocol": "str", "fdname": "str", "skipauth?": "bool", "tls?": "bool"})
def add_client(monitor: Any, protocol: str, fdname: str, skipauth: bool = False, tls: bool = False) -> None:
    """Give a socket that getfd kept to the first VNC server ("vnc"; `skipauth`: the viewer need not say who it is), or
    to the character device of that name.
    """
    board = monitor.machine.board
    fd = take(monitor, fdname)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise QmpError("parameter @fdname must name a socket")
        if protocol in ("spice", "@dbus-display"):
            raise QmpError(f"{'spice' if protocol == 'spice' else 'D-Bus'} is not in use", kind="DeviceNotActive")
        server = next((one for name, one in board.viewers.items() if name.startswith("vnc:")), None)
        if protocol == "vnc":
            if server is None:
                raise QmpError("no VNC server is there to take it")
            server.adopt(fd, skipauth)
            return
        if protocol not in board.chardevs:
            raise QmpError(f"protocol '{protocol}' is invalid")
        adopt = getattr(board.chardevs[protocol], "adopt", None)
        if adopt is None or not adopt(fd):
            raise QmpError("failed to add client")
    except OSError as error:
        os.close(fd)
        raise QmpError(f"descriptor '{fdname}': {error.strerror}") from None
    except QmpError:
        os.close(fd)
        raise
