"""What a machine claims of its host, where two claims cannot both be had: addresses to listen on, files to write,
descriptors handed over.

Sections that are not acted on yet (SPICE, VNC, user networks) count too: their ports are in the file.
"""

from __future__ import annotations

import os

from vmrun.config.node import Node
from vmrun.config.viewers import servers
from vmrun.config.work import Work
from vmrun.errors import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ANY = ("", "0.0.0.0", "::", "*")
LOCAL = ("localhost", "127.0.0.1", "::1")
VNC_BASE, VNC_MOST = 5900, 65535 - 5900

# (kind, what is claimed, who claims it, where, path in the file)
_Claim = tuple[str, "tuple[Any, ...]", str, Place, str]


def check(work: Work) -> None:
    """Say which two things want the same address, file or descriptor."""
    claims = [*_chardevs(work), *_spice(work), *_vnc(work), *_netdevs(work)]
    images = {drive["file"]: id for id, drive in work.drives.items() if "file" in drive}
    held: dict[tuple[Any, ...], dict[str, _Claim]] = {}  # kind and number or name → host → the first claim
    for claim in sorted(claims, key=lambda claim: claim[3].key()):
        kind, value, who, place, path = claim
        others = held.setdefault((kind, value[-1]), {})
        host = _host(str(value[0])) if kind in ("tcp", "udp") else ""
        other = others.get(host) or others.get("") or (next(iter(others.values()), None) if not host else None)
        if other is not None:
            work.wrong(
                "VR0610",
                f"{who} and {other[2]} both {_VERBS[kind]} {_shown(work, kind, value)}",
                place,
                path,
                also=[(other[3], f"{other[2]} is here")],
                remedy=_remedy(kind, held, value),
            )
        elif kind == "file" and value[0] in images:
            id = images[value[0]]
            work.wrong(
                "VR0610",
                f"{who} writes {_shown(work, kind, value)}, which is the image of drive '{id}'",
                place,
                path,
                also=[(Place(*work.places[f"drives.{id}"]), f"drive '{id}' is here")],
                remedy="name another file",
            )
        else:
            others[host] = claim


_VERBS = {"tcp": "listen on", "udp": "receive on", "unix": "listen on", "file": "write", "fd": "take"}


def _host(host: str) -> str:
    """Names of one address as one; '' for all addresses."""
    return "" if host in ANY else "localhost" if host in LOCAL else host


def _shown(work: Work, kind: str, value: tuple[Any, ...]) -> str:
    if kind in ("tcp", "udp"):
        return f"{kind.upper()} port {value[1]}"
    if kind == "fd":
        return f"descriptor {value[0]}"
    return f"'{str(value[0]).removeprefix(os.path.join(work.directory, ''))}'"


def _remedy(kind: str, held: dict[tuple[Any, ...], dict[str, _Claim]], value: tuple[Any, ...]) -> str:
    if kind not in ("tcp", "udp"):
        return "give each its own"
    free = next((port for port in range(value[1] + 1, 65536) if (kind, port) not in held), None)
    return f"port {free} is not used in this file" if free is not None else "give each its own"


def _chardevs(work: Work) -> Iterator[_Claim]:
    for id, chardev in work.chardevs.items():
        who, path = f"chardev '{id}'", f"chardevs.{id}"
        if chardev["type"] == "file":
            if str(chardev.get("path")).startswith("/dev/"):
                continue  # /dev/null has room for everybody
            yield "file", (chardev.get("path"),), who, _at(work, path, "path"), f"{path}.path"
        elif chardev["type"] == "udp" and chardev.get("localport"):
            value = (chardev.get("localaddr") or "", chardev["localport"])
            yield "udp", value, who, _at(work, path, "localport"), f"{path}.localport"
        elif chardev.get("server") and chardev.get("path") is not None:
            yield "unix", (chardev["path"],), who, _at(work, path, "path"), f"{path}.path"
        elif chardev.get("server") and chardev.get("port"):
            value = (chardev.get("host") or "", chardev["port"])
            yield "tcp", value, who, _at(work, path, "port"), f"{path}.port"


def _spice(work: Work) -> Iterator[_Claim]:
    host = str(work.spec.value("spice", "addr") or "")
    for key in ("port", "tls-port"):
        node = work.spec.get("spice", key)
        if node is not None and type(node.value) is int:
            yield "tcp", (host, node.value), f"spice ({key})", node.place, f"spice.{key}"


def _vnc(work: Work) -> Iterator[_Claim]:
    for section, path in servers(work.spec):
        node = section.get("listen")
        reverse, to = section.get("reverse"), section.get("to")
        if node is None or reverse is not None and reverse.value:
            continue
        who, path = path, f"{path}.listen"
        text = str(node.value)
        if text.startswith("unix:"):
            yield "unix", (_absolute(work, text[5:]),), who, node.place, path
            continue
        host, colon, display = text.rpartition(":")
        number = _number(display)
        if colon and number is not None and number <= VNC_MOST and to is None:
            yield "tcp", (host, VNC_BASE + number), who, node.place, path


def _netdevs(work: Work) -> Iterator[_Claim]:
    for id, netdev in work.netdevs.items():
        who, path = f"netdev '{id}'", f"netdevs.{id}"
        for key in ("fd", "vhostfd"):
            if netdev.get(key) is not None:
                yield "fd", (netdev[key],), who, _at(work, path, key), f"{path}.{key}"
        for key in ("listen", "hostfwd"):
            node = work.spec.netdevs[id].get(key)
            for one in () if node is None else node.value if type(node.value) is list else (node,):
                claim = _forward(one, key)
                if claim is not None:
                    yield *claim, who, one.place, f"{path}.{key}"


def _forward(node: Node, key: str) -> tuple[str, tuple[Any, ...]] | None:
    """'HOST:PORT', or a user network's '[tcp|udp]:HOST:PORT-GUEST:PORT'."""
    text, kind = str(node.value), "tcp"
    if key == "hostfwd":
        protocol, _, text = text.partition(":")
        kind, text = protocol or "tcp", text.partition("-")[0]
    host, colon, port = text.rpartition(":")
    number = _number(port)
    return (kind, (host, number)) if kind in ("tcp", "udp") and colon and number else None


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= 5 and int(text) < 65536 else None


def _absolute(work: Work, path: str) -> str:
    return os.path.normpath(os.path.join(work.directory, os.path.expanduser(path)))


def _at(work: Work, path: str, key: str) -> Place:
    return Place(*work.places.get(f"{path}.{key}", work.places[path]))
