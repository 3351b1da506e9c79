"""netdev types `tap` and `bridge`: an interface of the host's kernel. Names and options are QEMU's.

An own interface needs the right to make one (CAP_NET_ADMIN); a descriptor that libvirt or a helper opened needs none.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

from vmrun.backends.net.packet import PacketNet
from vmrun.backends.protocols import NET_CAN_CSUM, NET_CAN_ECN, NET_CAN_TSO4, NET_CAN_TSO6, NET_CAN_UFO
from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TUNSETIFF, TUNGETFEATURES, TUNSETOFFLOAD, TUNGETIFF, TUNSETVNETHDRSZ, TUNSETSNDBUF = (
    0x400454CA, 0x800454CF, 0x400454D0, 0x800454D2, 0x400454D8, 0x400454D4,
)  # fmt: skip
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_UFO = 1, 2, 4, 8, 16
VNET = 12
ALL = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6 | NET_CAN_ECN
HELPERS = ("/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper")
NO_RIGHT = (
    "run as root, or let somebody make one for you: `ip tuntap add dev NAME mode tap user USER` and `ifname: NAME`; "
    "a `segment`, `user` or `passt` network needs no rights"
)


class TapNet(PacketNet):
    """A tap whose kernel side is told what the card takes."""

    def card_changed(self) -> None:
        super().card_changed()
        if self.header and not self.closed:  # a card outlives the netdev that it had
            takes = self.frontend.takes if self.frontend is not None else 0
            wanted = 0
            for can, flag in (
                (NET_CAN_CSUM, TUN_F_CSUM), (NET_CAN_TSO4, TUN_F_TSO4), (NET_CAN_TSO6, TUN_F_TSO6),
                (NET_CAN_ECN, TUN_F_TSO_ECN), (NET_CAN_UFO, TUN_F_UFO),
            ):  # fmt: skip
                wanted |= flag if takes & can else 0
            for mask in (wanted, wanted & ~TUN_F_UFO):
                try:
                    fcntl.ioctl(self.fd, TUNSETOFFLOAD, mask)
                    return
                except OSError:
                    continue

    header = False


def open(name: str, spec: dict[str, Any], host: Any) -> TapNet:
    def wrong(text: str, remedy: str = "", key: str = "") -> BackendError:
        path = f"netdevs.{name}.{key}" if key else f"netdevs.{name}"
        return BackendError(f"netdev '{name}': {text}", code="VR0640", path=path, remedy=remedy)

    given = [key for key in ("fd", "fds", "helper", "ifname") if spec.get(key) is not None]
    if len(given) > 1 and ("fd" in given or "fds" in given):
        raise wrong(f"{' and '.join(given)} do not go together", key=given[1])
    queues, made = int(spec.get("queues") or 1), ""
    fds: list[int] = []
    try:
        if "fd" in given or "fds" in given:
            fds = [int(word) for word in str(spec.get("fds", spec.get("fd"))).split(":")]
            for fd in fds:
                _check(fd)
        elif spec["type"] == "bridge" or "helper" in given or spec.get("br"):
            fds = [_by_helper(spec.get("helper"), str(spec.get("br") or "br0"), wrong)]
        else:
            made = str(spec.get("ifname") or "tap%d")
            fds, made = _make(made, queues, spec.get("vnet_hdr") is not False)
    except (OSError, ValueError) as exc:
        for fd in fds if made else ():
            os.close(fd)
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        if isinstance(exc, FileNotFoundError):
            raise wrong("this host has no /dev/net/tun", "modprobe tun") from None
        remedy = NO_RIGHT if isinstance(exc, PermissionError) else "docs/network.md"
        what = made or spec.get("fd", spec.get("fds"))
        raise wrong(f"the interface {what} cannot be had: {reason}", remedy) from None
    net = TapNet()
    if spec.get("vnet_hdr") is not False and _vnet(fds):
        net.header = True
        net.vnet(ALL)
    for fd in fds:
        if spec.get("sndbuf"):
            fcntl.ioctl(fd, TUNSETSNDBUF, struct.pack("i", int(spec["sndbuf"])))
    net.use(host.iothread, fds[0])
    net.write_together()
    for fd in fds[1:]:
        net.add_queue(fd)
    net.info = f"ifname={made or _name(fds[0])}"
    if made:
        down = spec.get("downscript")
        net.on_close = (lambda: _farewell(str(down), made)) if down not in (None, "no", "") else None
        script = spec.get("script")
        if script not in (None, "no", ""):
            try:
                status = _run(str(script), made)
            except BackendError:
                net.on_close = None
                net.close()
                raise
            if status:
                net.close()
                raise wrong(f"the script {script} ended with {status}", "`script: no` for none", "script")
    return net


def _check(fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError:
        raise ValueError(f"{fd} is no open descriptor") from None


def _make(name: str, queues: int, vnet: bool) -> tuple[list[int], str]:
    fds: list[int] = []
    for _ in range(queues):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        fds.append(fd)
        flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet else 0) | (IFF_MULTI_QUEUE if queues > 1 else 0)
        if len(name.encode()) > 15:
            raise ValueError(f"'{name}' is longer than an interface's name, 15 bytes")
        row = fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        name = row[:16].rstrip(b"\0").decode()
    return fds, name


def _vnet(fds: list[int]) -> bool:
    """Whether frames have virtio's header; of 12 bytes from now on."""
    for fd in fds:
        try:
            row = fcntl.ioctl(fd, TUNGETIFF, bytes(40))
        except OSError:
            return False
        if not struct.unpack_from("H", row, 16)[0] & IFF_VNET_HDR:
            return False
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET))
    return True


def _name(fd: int) -> str:
    try:
        return bytes(fcntl.ioctl(fd, TUNGETIFF, bytes(40))[:16]).rstrip(b"\0").decode()
    except OSError:
        return f"fd {fd}"


def _run(script: str, interface: str) -> int:
    import subprocess

    try:
        return subprocess.run([script, interface], stdin=subprocess.DEVNULL, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BackendError(f"the script {script} cannot be run: {exc}", code="VR0640", remedy="`script: no`") from None


def _farewell(script: str, interface: str) -> None:
    """A machine that ends says what is wrong with its script, and goes on ending."""
    import sys

    try:
        _run(script, interface)
    except BackendError as error:
        sys.stderr.write(f"vmrun: {error}\n")


def _by_helper(helper: str | None, bridge: str, wrong: Any) -> int:
    """QEMU's bridge helper makes the interface, joins it to the bridge and sends the descriptor."""
    import subprocess

    program = helper or next((one for one in HELPERS if os.path.exists(one)), None)
    if program is None or not os.path.exists(program.split()[0]):
        raise wrong(
            f"there is no bridge helper {program or HELPERS[0]}",
            "install qemu-system-common, or name another program: `helper: PATH`",
            "helper",
        )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [*program.split(), "--use-vnet", f"--fd={theirs.fileno()}", f"--br={bridge}"]
        done = subprocess.run(words, pass_fds=(theirs.fileno(),), capture_output=True, text=True, timeout=60)
        theirs.close()
        if done.returncode:
            said = (done.stderr or "").strip().splitlines()
            raise wrong(
                f"the bridge helper {program} refuses bridge '{bridge}': {said[-1] if said else done.returncode}",
                f"allow it in /etc/qemu/bridge.conf (`allow {bridge}`), the helper needs its setuid bit",
                "br",
            )
        fds = array.array("i")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_LEN(fds.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: fds.itemsize])
        if not fds:
            raise wrong(f"the bridge helper {program} sent no descriptor")
        return int(fds[0])
