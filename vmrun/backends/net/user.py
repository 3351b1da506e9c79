"""netdev type `user`: a private network inside vmrun by libslirp; no rights needed. Names and defaults are QEMU's.

Guests get 10.0.2.15 by DHCP, the host is 10.0.2.2, a name server 10.0.2.3; only `hostfwd` leads to the guest.
"""

from __future__ import annotations

import ipaddress
import os

from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.net import Host
    from vmrun.backends.net.slirp import StackNet

LIBRARY = "install libslirp-dev (Debian) and build vmrun again, or use another type of netdev: tap, passt, segment"


def open(name: str, spec: dict[str, Any], host: Host) -> StackNet:
    try:
        from vmrun.backends.net.slirp import StackNet
    except ImportError as exc:
        raise BackendError(
            f"netdev '{name}': this build of vmrun has no libslirp ({exc})", code="VR0640", remedy=LIBRARY
        ) from None
    given = Settings(name, spec)
    try:
        net = StackNet(host.lock, given.settings)
    except ValueError as exc:
        raise given.wrong("net", str(exc)) from None
    try:
        for text in many(spec.get("hostfwd")):
            forward(net, name, text)
        for text in many(spec.get("guestfwd")):
            _serve(net, given, text, host)
    except BaseException:
        net.close()
        raise
    net.start()
    return net


def many(value: Any) -> list[str]:
    """The values of an option that can be given more than once."""
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


class Settings:
    """What the stack is told, worked out of the options; `settings` has addresses as bytes."""

    def __init__(self, name: str, spec: dict[str, Any]) -> None:
        self.name, self.spec = name, spec
        net = self._network("net", "10.0.2.0/24", ipaddress.IPv4Network)
        six = self._network("ipv6-net", self._prefix(), ipaddress.IPv6Network)
        only4, only6 = spec.get("ipv4"), spec.get("ipv6")
        four = only4 if only4 is not None else only6 is not True or "net" in spec
        self.settings: dict[str, Any] = {
            "restrict": bool(spec.get("restrict")),
            "ipv4": bool(four),
            "ipv6": bool(only6 if only6 is not None else True),
            "net": net.network_address.packed,
            "mask": net.netmask.packed,
            "host": self._inside("host", net, 2),
            "dhcpstart": self._inside("dhcpstart", net, 15),
            "dns": self._inside("dns", net, 3),
            "prefix": six.network_address.packed,
            "prefix-length": six.prefixlen,
            "host6": self._inside("ipv6-host", six, 2),
            "dns6": self._inside("ipv6-dns", six, 3),
            "dnssearch": many(spec.get("dnssearch")),
        }
        if not self.settings["ipv4"] and not self.settings["ipv6"]:
            raise self.wrong("ipv6", "it has neither IPv4 nor IPv6")
        if self.settings["host"] == self.settings["dns"]:
            raise self.wrong("dns", "the host and the name server have the same address")
        for key, most in (("hostname", 255), ("domainname", 255), ("tftp-server-name", 255), ("bootfile", 127)):
            text = spec.get(key)
            if text is not None and len(str(text).encode()) > most:
                raise self.wrong(key, f"it is longer than {most} bytes")
            self.settings[key] = text
        self.settings["tftp"] = self._directory()
        if spec.get("smb"):
            raise self.wrong("smb", "sharing a directory by SMB is not there", "share it by sshfs or 9p over hostfwd")

    def wrong(self, key: str, text: str, remedy: str = "") -> BackendError:
        return BackendError(
            f"netdev '{self.name}': {key}: {text}", code="VR0641", path=f"netdevs.{self.name}.{key}", remedy=remedy
        )

    def _prefix(self) -> str:
        address = str(self.spec.get("ipv6-prefix") or "fec0::")
        return f"{address}/{self.spec.get('ipv6-prefixlen') or 64}"

    def _network(self, key: str, default: str, kind: Any) -> Any:
        text = str(self.spec.get(key) or default)
        address, _, mask = text.partition("/")
        if not mask and kind is ipaddress.IPv4Network:
            first = int(address.partition(".")[0]) if address.partition(".")[0].isdecimal() else 10
            mask = "8" if first < 128 else "16" if first < 192 else "24"
        try:
            found = kind(f"{address}/{mask}" if mask else address, strict=False)
        except ValueError as exc:
            raise self.wrong(key, f"'{text}' is no network ({exc})", f"like {default}") from None
        if found.prefixlen > found.max_prefixlen - 3:
            raise self.wrong(key, f"'{text}' has no room for a host, a name server and a guest")
        return found

    def _inside(self, key: str, net: Any, default: int) -> bytes:
        text = self.spec.get(key)
        if text is None:
            return bytes((net.network_address + default).packed)
        try:
            address = ipaddress.ip_address(str(text))
        except ValueError:
            raise self.wrong(key, f"'{text}' is no address") from None
        if address.version != net.version or address not in net:
            raise self.wrong(key, f"{text} is not inside {net}")
        return address.packed

    def _directory(self) -> str | None:
        path = self.spec.get("tftp")
        if path is not None and not os.path.isdir(str(path)):
            raise self.wrong("tftp", f"'{path}' is no directory", "name the directory that guests may read from")
        return None if path is None else str(path)


# --- ports ------------------------------------------------------------------------------------------------------------


def parse_forward(text: str) -> tuple[bool, bytes, int, bytes, int]:
    """(udp, host address, port, guest address, port) of `[tcp|udp]:[HOST]:PORT-[GUEST]:PORT`. ValueError.

    A guest of 0.0.0.0 is the first that DHCP serves.
    """
    host, dash, guest = text.partition("-")
    parts = host.split(":")
    if not dash or len(parts) != 3:
        raise ValueError("written as tcp:ADDRESS:PORT-GUEST:PORT; the addresses may be left out")
    if parts[0] not in ("", "tcp", "udp"):
        raise ValueError(f"'{parts[0]}' is neither tcp nor udp")
    where, colon, port = guest.rpartition(":")
    if not colon:
        raise ValueError("the guest's side is written as GUEST:PORT")
    return parts[0] == "udp", _address(parts[1]), _port(parts[2], 0), _address(where), _port(port, 1)


def _address(text: str) -> bytes:
    try:
        return ipaddress.IPv4Address(text or "0.0.0.0").packed
    except ValueError:
        raise ValueError(f"'{text}' is no IPv4 address") from None


def _port(text: str, least: int) -> int:
    if not (text.isdecimal() and text.isascii()) or not least <= int(text) <= 65535:
        raise ValueError(f"'{text}' is no port from {least} to 65535")
    return int(text)


def _text(address: bytes) -> str:
    return ".".join(str(byte) for byte in address)


def forward(net: StackNet, name: str, text: str) -> dict[str, Any]:
    """Listen for the guest as `text` says; port 0 takes a free one. The row that tells which it is. BackendError."""
    path = f"netdevs.{name}.hostfwd"
    try:
        udp, host, port, guest, guest_port = parse_forward(text)
    except ValueError as exc:
        raise BackendError(f"netdev '{name}': hostfwd '{text}': {exc}", code="VR0641", path=path) from None
    before = ports(net) if not port else set()
    if not net.forward(udp, host, port, guest, guest_port):
        where = f"{_text(host)}:{port}" if any(host) else f"port {port}"
        raise BackendError(
            f"netdev '{name}' cannot listen at {'udp' if udp else 'tcp'} {where} for the guest's port {guest_port}",
            code="VR0642",
            path=path,
            remedy="write port 0 for a free one, which `vmrun ps --json` tells, or find who has it with `ss -lntup`"
            + ("; ports below 1024 are for root" if 0 < port < 1024 else ""),
        )
    if not port:
        new = ports(net) - before
        port = next((found for kind, found in new if kind == ("UDP" if udp else "TCP")), 0)
    row = {
        "protocol": "udp" if udp else "tcp",
        "host": _text(host),
        "port": port,
        "guest": _text(guest if any(guest) else net.settings["dhcpstart"]),
        "guest-port": guest_port,
    }
    net.forwards.append(row)
    return row


def ports(net: StackNet) -> set[tuple[str, int]]:
    """(protocol, host port) of everything that is forwarded, as the stack tells."""
    found = set()
    for line in net.connections().splitlines():
        kind, bracket, rest = line.strip().partition("[HOST_FORWARD]")
        words = rest.split()
        if bracket and len(words) > 2 and words[2].isdecimal():
            found.add((kind, int(words[2])))
    return found


def unforward(net: StackNet, text: str) -> bool:
    """Stop listening at `[tcp|udp]:[HOST]:PORT`. False: there is no such. ValueError."""
    parts = text.split(":")
    if len(parts) != 3 or parts[0] not in ("", "tcp", "udp"):
        raise ValueError("written as tcp:ADDRESS:PORT")
    udp, host, port = parts[0] == "udp", _address(parts[1]), _port(parts[2], 1)
    if not net.unforward(udp, host, port):
        return False
    kind = "udp" if udp else "tcp"
    net.forwards = [row for row in net.forwards if (row["protocol"], row["port"]) != (kind, port)]
    return True


def _serve(net: StackNet, given: Settings, text: str, host: Host) -> None:
    """guestfwd `tcp:ADDRESS:PORT-cmd:COMMAND` or `…-unix:PATH`."""
    where, dash, target = text.partition("-")
    parts = where.split(":")
    example = "like tcp:10.0.2.100:1234-cmd:netcat 10.10.1.1 4321"
    if not dash or len(parts) != 3 or parts[0] not in ("", "tcp"):
        raise given.wrong("guestfwd", f"'{text}' is not written as tcp:ADDRESS:PORT-TARGET", example)
    try:
        address, port = _address(parts[1]), _port(parts[2], 1)
    except ValueError as exc:
        raise given.wrong("guestfwd", f"'{text}': {exc}", example) from None
    kind, colon, what = target.partition(":")
    if kind == "cmd" and colon and what:
        done = net.serve(address, port, command=what.encode())
    elif kind == "unix" and colon and what:
        done = net.serve(address, port, unix=what.encode())
    else:
        raise given.wrong("guestfwd", f"'{target}' is no target", "cmd:COMMAND, or unix:PATH of a socket")
    if not done:
        raise given.wrong("guestfwd", f"{_text(address)}:{port} is not free inside the network, or not in it")
