"""A chardev of datagrams: what is written goes out as one, what one brings is the device's input, as fast as it takes
it.
"""

from __future__ import annotations

import socket

from vmrun.backends.chardev.errors import refused
from vmrun.backends.chardev.stream import StreamChar
from vmrun.core.inet import families, host_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.core.loop import Loop

LONGEST = 65507  # bytes of a datagram over IPv4


class UdpChar(StreamChar):
    """`host` and `port` are where output goes; `localaddr` and `localport` where input is taken."""

    def __init__(self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock) -> None:
        host, port = spec.get("host") or "localhost", int(spec["port"])
        local, local_port = spec.get("localaddr") or "", int(spec.get("localport") or 0)
        try:
            found = socket.getaddrinfo(host_name(host), port, type=socket.SOCK_DGRAM)
        except socket.gaierror as error:
            raise refused(
                name, f"the host name '{host}' is not known: {error.strerror}",
                remedy="give an address instead",
            ) from None
        found = [entry for entry in found if entry[0] in families(spec)]
        if not found:
            remedy = "change `ipv4:` and `ipv6:`"
            raise refused(name, f"'{host}' has no address of the kind that is asked for", remedy=remedy)
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        family, _, _, _, address = found[0]
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if local or local_port:
                self.socket.bind((host_name(local or ("::" if family == socket.AF_INET6 else "0.0.0.0")), local_port))
            self.socket.connect(address)
        except OSError as error:
            self.socket.close()
            raise refused(
                name, f"cannot send to udp:{host}:{port}: {error.strerror or error}",
                remedy="choose another address or port",
            ) from None
        self.socket.setblocking(False)
        self.address = f"udp:{host}:{port}"
        super().__init__(name, loop, lock)
        self.attach(self.socket.fileno(), self.socket.fileno())

    def read(self, count: int) -> bytes:
        try:
            data = self.socket.recv(65535)
        except ConnectionRefusedError:  # nobody listens there yet
            data = b""
        if not data:
            raise InterruptedError
        self.backlog += data[count:]
        return data[:count]

    def write_some(self, data: bytes) -> int:
        part = data[:LONGEST]
        try:
            self.socket.send(part)
        except BlockingIOError:
            raise
        except OSError:
            pass  # a datagram may be lost
        return len(part)

    def _on_hangup(self) -> None:
        """Datagrams have no end: what comes back is that nobody listens there now."""
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self) -> None:
        super().close()
        self.socket.close()
