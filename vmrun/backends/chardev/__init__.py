"""Character back ends: where the bytes of serial ports, debug consoles and monitors go on the host.

    backend = open_chardev("charserial0", {"type": "pty"}, loop, lock)

The device's half is compiled (base.pyx) and runs on a vCPU's thread; everything else runs on the main loop.
"""

from __future__ import annotations

import os

from vmrun.backends.chardev.errors import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.backends.chardev.mux import Mux
    from vmrun.backends.chardev.socket import Given
    from vmrun.backends.protocols import CharBackend
    from vmrun.core.loop import Loop

TYPES = (
    *("stdio", "file", "null", "pty", "socket", "pipe", "ringbuf", "udp", "tty", "serial", "parallel", "vc"),
    "spicevmc",
)


def open_chardev(
    name: str,
    spec: dict[str, Any],
    loop: Loop,
    lock: DeviceLock,
    mux: Mux | None = None,
    tls: Any = None,
    *,
    many: bool = False,
    given: Given | None = None,
) -> CharBackend:
    """The back end that `spec` (one entry of a machine's chardevs) describes. BackendError says what is in
    the way.

    Backends that something must happen to first have `wait()`; call it before the machine starts (a server
    socket waits for its client). `backend.address` says in words where the other end is; `close()` gives
    everything back. `mux`: the terminal is shared; a stdio chardev becomes one of its consoles. `tls`: the context of
    a socket's TLS. many, given: of a monitor's socket (vmrun.backends.chardev.socket.open_socket).
    """
    kind = spec.get("type")
    backend: Any
    if kind == "null":
        from vmrun.backends.chardev.base import NullChar
        from vmrun.backends.chardev.stream import StreamChar

        backend = StreamChar(name, loop, lock) if spec.get("logfile") else NullChar()
    elif kind == "ringbuf":
        from vmrun.backends.chardev.base import RingChar
        from vmrun.backends.chardev.ring import LoggedRing

        size = int(spec.get("size", 65536))
        try:
            backend = LoggedRing(name, size, loop, lock) if spec.get("logfile") else RingChar(capacity=size)
        except MemoryError:
            raise refused(
                name, f"the host has no {size} bytes for it", code="VR0633"
            ) from None
    elif kind == "file":
        from vmrun.backends.chardev.file import FileChar

        backend = FileChar(name, spec["path"], bool(spec.get("append")), loop, lock, spec.get("input-path"))
    elif kind == "pipe":
        from vmrun.backends.chardev.file import PipeChar

        backend = PipeChar(name, spec["path"], loop, lock)
    elif kind == "pty":
        from vmrun.backends.chardev.pty import PtyChar

        backend = PtyChar(name, loop, lock)
    elif kind == "stdio" and mux is not None:
        backend = mux.add_port(name)
    elif kind == "stdio":
        from vmrun.backends.chardev.terminal import StdioChar

        backend = StdioChar(name, loop, lock, signal=spec.get("signal", True))
    elif kind == "socket":
        from vmrun.backends.chardev.socket import open_socket

        backend = open_socket(name, spec, loop, lock, tls, many=many, given=given)
    elif kind == "udp":
        from vmrun.backends.chardev.udp import UdpChar

        backend = UdpChar(name, spec, loop, lock)
    elif kind == "spicevmc":
        from vmrun.backends.chardev.stream import StreamChar

        backend = StreamChar(name, loop, lock)
        with lock:
            backend.set_connected(False)
    elif kind == "vc":
        from vmrun.backends.chardev.vc import VcChar

        backend = VcChar(name, spec, loop, lock)
    elif kind in ("parallel", "parport"):
        from vmrun.backends.chardev.parport import ParportChar

        backend = ParportChar(name, spec["path"], loop, lock)
    elif kind in ("tty", "serial"):
        from vmrun.backends.chardev.tty import TtyChar

        backend = TtyChar(name, spec["path"], loop, lock)
    else:
        raise refused(
            name, f"there is no chardev type '{kind}'", remedy=f"one of: {', '.join(TYPES)}"
        )
    backend.name = name
    if spec.get("logfile"):
        log(backend, spec["logfile"], bool(spec.get("logappend")))
    made: CharBackend = backend
    return made


def log(backend: Any, path: str, append: bool) -> None:
    """Copy all output of a chardev to a file, from the first byte on."""
    from vmrun.backends.chardev.file import open_path

    fd = open_path(backend.name, path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC))

    def write(data: bytes) -> None:
        try:
            os.write(fd, data)
        except OSError:
            pass  # a full disk loses the copy, not the guest

    backend.log_to(write)
