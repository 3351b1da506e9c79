"""netdev type `passt`: a program that gives guests the host's own network without rights; started, or one that runs."""

from __future__ import annotations

import shutil
import socket
import subprocess

from vmrun.backends.net.packet import StreamNet
from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def open(name: str, spec: dict[str, Any], host: Any) -> StreamNet:
    net = StreamNet()
    if spec.get("socket"):
        one = socket.socket(socket.AF_UNIX)
        try:
            one.connect(str(spec["socket"]))
        except OSError as exc:
            one.close()
            raise BackendError(
                f"netdev '{name}': no passt answers at {spec['socket']}: {exc.strerror}",
                code="VR0640",
                path=f"netdevs.{name}.socket",
                remedy=f"start one: passt --socket {spec['socket']}",
            ) from None
        net.use(host.iothread, one.detach())
        net.info = str(spec["socket"])
        return net
    program = shutil.which(str(spec.get("path") or "passt"))
    if program is None:
        raise BackendError(
            f"netdev '{name}': there is no program {spec.get('path') or 'passt'}",
            code="VR0640",
            path=f"netdevs.{name}",
            remedy="install passt (Debian: apt install passt), or use a `user` network",
        )
    ours, theirs = socket.socketpair()
    words = [program, "--foreground", "--quiet", "--fd", str(theirs.fileno())]
    for option, key in (("-t", "tcp-ports"), ("-u", "udp-ports"), ("-a", "address"), ("-m", "mtu")):
        if spec.get(key) is not None:
            words += [option, str(spec[key])]
    process = subprocess.Popen(
        words, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    theirs.close()
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        pass
    else:
        said = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
        ours.close()
        raise BackendError(
            f"netdev '{name}': {program} ended at once: {said or process.returncode}",
            code="VR0640",
            path=f"netdevs.{name}",
            remedy="passt needs user namespaces of its own and does not run as root; try a `user` network",
        )

    def close() -> None:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stderr:
            process.stderr.close()

    net.use(host.iothread, ours.detach())
    net.on_close = close
    net.info = f"pid={process.pid}"
    return net


__all__ = ["open"]
