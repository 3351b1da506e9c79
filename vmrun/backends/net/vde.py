"""netdev type `vde`: a port of a VDE switch, which is a process of its own. No library is needed.

Ref: the control protocol of vde_switch, version 3: a request through the stream socket `ctl` of the switch's directory
names our datagram socket; the answer names the switch's. The stream stays open as long as the port is wanted. Options
are QEMU's; a VDE URL (vxlan://…) is not understood.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import struct

from vmrun.backends.net.packet import PacketNet
from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACES = ("/run/vde.ctl", "/var/run/vde.ctl", "/tmp/vde.ctl")  # noqa: S108  # where a switch is when nothing is said
MAGIC, VERSION = 0xFEEDFACE, 3
REQUEST = struct.Struct("=IIiH108s")  # magic, version, port in bits 8 and up, our address (sockaddr_un)
ANSWER = struct.Struct("=H108s")
MOST_PORT = 0xFFFF
SECONDS = 5
_numbers = itertools.count()


def open(name: str, spec: dict[str, Any], host: Any) -> PacketNet:
    where = str(spec.get("sock") or next((place for place in PLACES if os.path.isdir(place)), PLACES[0]))
    port = int(spec.get("port") or 0)

    def wrong(text: str, remedy: str, key: str = "sock") -> BackendError:
        path = f"netdevs.{name}.{key}"
        return BackendError(f"netdev '{name}': {text}", code="VR0640", path=path, remedy=remedy)

    if port > MOST_PORT:
        raise wrong(f"a VDE switch has no port {port}", f"1 to {MOST_PORT}, or none for a free one", "port")
    control = socket.socket(socket.AF_UNIX)
    data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    own = os.path.join(where, f".vmrun-{os.getpid()}-{next(_numbers)}")
    try:
        control.settimeout(SECONDS)
        control.connect(os.path.join(where, "ctl"))
        data.bind(own)
        if spec.get("mode") is not None:
            os.chmod(own, int(spec["mode"]))
        if spec.get("group"):
            shutil.chown(own, group=str(spec["group"]))
        request = REQUEST.pack(MAGIC, VERSION, port << 8, socket.AF_UNIX, own.encode())
        control.sendall(request + f"vmrun {name}".encode())
        answer = control.recv(ANSWER.size)
        if len(answer) < 3:
            raise ConnectionRefusedError(0, f"it has no port {port} to give" if port else "it gives no port")
        data.connect(answer[2:].split(b"\0")[0])
    except (OSError, LookupError) as exc:
        control.close()
        data.close()
        if os.path.exists(own):
            os.unlink(own)
        why = getattr(exc, "strerror", None) or exc
        raise wrong(
            f"no VDE switch lets us in at {where}: {why}",
            f"start one: vde_switch -s {where} (Debian: vde-switch), and let this user write there; or use a `segment`",
        ) from None
    net = PacketNet()

    def close() -> None:
        control.close()
        if os.path.exists(own):
            os.unlink(own)

    net.send_to(b"")
    net.use(host.iothread, data.detach())
    net.on_close = close
    net.info = f"sock={where}"
    return net


__all__ = ["open"]
