"""Network back ends: where the frames of network cards go on the host.

    backend = open_netdev("net0", {"type": "user"}, board)

What a card sends and gets runs on processors' threads, the I/O thread, or a thread of the back end's; Python opens,
closes and answers questions. A back end's module says which options it knows.
"""

from __future__ import annotations

from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from accel.aio import IoThread
    from accel.api import DeviceLock

    class Host(Protocol):
        """What a back end is handed: the machine's board, or a test's."""

        lock: DeviceLock
        iothread: IoThread
        loop: Any
        hubs: dict[int, Any]
        config: Any

        def netdev(self, id: str) -> Any: ...


# type → the module with its `open(name, spec, host)`
TYPES = {
    "user": "user",
    "socket": "sockets",
    "stream": "sockets",
    "dgram": "sockets",
    "tap": "tap",
    "bridge": "tap",
    "hubport": "hub",
    "segment": "segments",
    "passt": "passt",
    "vde": "vde",
    "blank": "blank",
}


def open_netdev(name: str, spec: dict[str, Any], host: Host) -> Any:
    """The back end that `spec` (one entry of a machine's netdevs) describes. BackendError says what is in the way."""
    kind = str(spec.get("type"))
    if kind not in TYPES:
        known = ", ".join(list(TYPES)[:-1])
        raise BackendError(f"netdev '{name}': there is no netdev type '{kind}'", remedy=f"one of: {known}")
    module = __import__(f"vmrun.backends.net.{TYPES[kind]}", fromlist=["open"])
    backend: Any = module.open(name, spec, host)
    backend.name, backend.kind = name, kind
    backend.rest_on(host.iothread)
    path = spec.get("capture")
    if path:
        try:
            backend.capture(path)
        except OSError as exc:
            backend.close()
            raise BackendError(
                f"netdev '{name}': the capture '{path}' cannot be written: {exc.strerror}",
                path=f"netdevs.{name}.capture",
                remedy="name a file in a directory that you may write to",
            ) from None
    return backend
