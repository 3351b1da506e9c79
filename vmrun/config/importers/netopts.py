"""Options about networks: -netdev, -nic, and -net with its VLANs, which become a netdev and a card each."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import Option, number, settings, split
from vmrun.config.importers.state import Line, Opt, guess
from vmrun.core.values import PCI_NICS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TYPES = (
    "user",
    "tap",
    "bridge",
    "socket",
    "vde",
    "l2tpv3",
    "netmap",
    "vhost-user",
    "vhost-vdpa",
    "hubport",
    "stream",
    "dgram",
    "af-xdp",
    "dump",
)
_MODELS = {"virtio": "virtio-net-pci", "virtio-net": "virtio-net-pci"}
_KNOWN = (*PCI_NICS, "ne2k_isa", "tulip", "usb-net", "igb")
_NIC = {"macaddr": "mac", "mac": "mac", "addr": "addr", "vectors": "vectors"}


_LISTS = ("hostfwd", "guestfwd", "dnssearch")  # options that may come more than once
_ADDRESSES = ("addr", "local", "remote")  # of stream and dgram, whose parts QEMU writes with dots
_SWITCHES = {
    **dict.fromkeys(("on", "yes", "y", "true"), True), **dict.fromkeys(("off", "no", "n", "false"), False),
}  # fmt: skip
_FIRST_MAC = 0x525400123456


def _read(option: Option, json: bool = False) -> dict[str, Any]:
    """The settings, lists whole and addresses in one word."""
    given = settings(option, "type", json=json)
    text = option.value or ""
    for key in _LISTS:
        if text.startswith("{"):
            rows = [name for name in given if name.startswith(f"{key}.")]
            values = [str(given.pop(name)) for name in sorted(rows, key=lambda name: int(name.split(".")[1]))]
        else:
            values = [part[len(key) + 1 :] for part in split(text) if part.startswith(f"{key}=")]
        if values:
            given[key] = values[0] if len(values) == 1 else values
    for key in _ADDRESSES:
        parts = {name.partition(".")[2]: str(given.pop(name)) for name in list(given) if name.startswith(f"{key}.")}
        if parts:
            kind = parts.get("type", "")
            where = {"unix": "path", "fd": "str"}.get(kind)
            if kind == "inet":
                given[key] = f"inet:{parts.get('host', '')}:{parts.get('port', '')}"
            elif where is not None:
                given[key] = f"{kind}:{parts.get(where, '')}"
            else:
                raise option.wrong(f"Parameter '{key}.type' does not accept value '{kind}'", kind)
    return given


def count_macs(devices: list[dict[str, Any]], has_mac: Any) -> None:
    """Cards without an address get those that QEMU gives, counting from 52:54:00:12:34:56."""
    taken = {str(device.get("mac", "")).lower().replace("-", ":") for device in devices}
    number = _FIRST_MAC
    for device in devices:
        if "mac" in device or not has_mac(str(device["driver"])):
            continue
        while (mac := number.to_bytes(6, "big").hex(":")) in taken:
            number += 1
        device["mac"] = mac
        taken.add(mac)


def netdev(line: Line, option: Option) -> None:
    given = _read(option, json=True)
    kind, id = str(given.pop("type", "")), str(given.pop("id", ""))
    if kind not in _TYPES:
        raise option.wrong(f"Parameter 'type' does not accept value '{kind}'", kind)
    if not id:
        raise option.wrong("Parameter 'id' is missing")
    line.put(option, "netdevs", id, _spec(kind, given, line))


def _spec(kind: str, given: dict[str, Any], line: Line | None = None) -> dict[str, Any]:
    """The netdev as a machine file has it: what is text stays text, whatever it looks like."""
    rows = line.catalogue.netdevs.get(kind, {}).get("props", ()) if line is not None else ()
    types = {row["name"]: row["type"] for row in rows}
    made: dict[str, Any] = {"type": kind}
    for key, value in given.items():
        made[key] = value if types.get(key) in ("str", "strs", "path") else guess(value)
        if types.get(key) == "bool" and isinstance(value, str) and value in _SWITCHES:
            made[key] = _SWITCHES[value]
    return made


def net(line: Line, option: Option) -> None:
    """Gathered by VLAN, joined in finish()."""
    given = _read(option)
    kind = str(given.pop("type", ""))
    if kind == "none":
        return
    if kind not in (*_TYPES, "nic", "channel"):
        raise option.wrong(f"Parameter 'type' does not accept value '{kind}'", kind)
    if kind in ("dump", "channel"):
        line.no_equal(option, kind)
        return
    line.vlan(number(option, "vlan", given.pop("vlan", "0")), (option, kind, given))


def nic(line: Line, option: Option) -> None:
    given = _read(option)
    kind = str(given.pop("type", "user"))
    if kind == "none":
        return
    if kind not in _TYPES:
        raise option.wrong(f"Parameter 'type' does not accept value '{kind}'", kind)
    card = {key: given.pop(key) for key in ("model", *_NIC) if key in given}
    id = str(given.pop("id", "") or _fresh(line, kind))
    _card(line, option, card, line.put(option, "netdevs", id, _spec(kind, given, line)))


def _fresh(line: Line, kind: str) -> str:
    number = 0
    while f"{kind}{number}" in line.netdevs:
        number += 1
    return f"{kind}{number}"


def _card(line: Line, option: Option | None, given: dict[str, Any], netdev: str) -> None:
    model = str(given.pop("model", "") or line.default("nic") or "e1000")
    driver = _MODELS.get(model, model)
    if option is not None and driver not in _KNOWN:
        from vmrun.config.near import nearest

        raise option.wrong(f"Unsupported NIC model: {model}", model, nearest(model, (*_MODELS, *_KNOWN)))
    device: dict[str, Any] = {"driver": driver}
    if netdev:
        device["netdev"] = netdev
    for key, value in given.items():
        if key in _NIC:
            device[_NIC[key]] = line.value(option, driver, _NIC[key], value) if option is not None else value
        elif key not in ("name", "id") and option is not None:
            raise option.wrong(f"Invalid parameter '{key}'", key)
    if "mac" in device:
        device["mac"] = str(device["mac"]).replace("-", ":").lower()
    line.add(option, device)


def finish(line: Line) -> None:
    for members in line.run.pop("vlans", {}).values():
        cards = [member for member in members if member[1] in ("nic", "device")]
        backends = [member for member in members if member[1] not in ("nic", "device")]
        for place, (option, role, given) in enumerate(cards):
            peer = ""
            if "netdev" in given:
                peer = str(given.pop("netdev"))
            elif place < len(backends):
                source, kind, more = backends[place]
                id = str(more.pop("id", "") or more.pop("name", "") or _fresh(line, kind))
                peer = line.put(source, "netdevs", id, _spec(kind, more, line))
            if role == "nic":
                _card(line, option, given, peer)
            elif peer:
                given["netdev"] = peer
            if place and len(cards) != len(backends):
                line.warn(option, "cards that share a VLAN have no equal in a machine file; this one stands alone")
        for source, kind, _ in backends[len(cards) :]:
            line.warn(source, "no card is on its VLAN, or the VLAN joins several networks; left out", kind)
    if any(line.has(name) for name in ("net", "netdev", "nic", "nodefaults")):
        return
    if line.defaults:
        _card(
            line,
            None,
            {},
            line.put(Option("net", "user", 0, "-net user"), "netdevs", _fresh(line, "user"), {"type": "user"}),
        )
    else:
        line.skipped.append("a network card")


def redir(line: Line, option: Option) -> None:
    line.no_equal(option)


OPTIONS = (
    Opt("tftp", True, redir, "TFTP on the user network"),
    Opt("bootp", True, redir, "BOOTP on the user network"),
    Opt("smb", True, redir, "SMB on the user network"),
    Opt("redir", True, redir, "a port of the user network"),
    Opt("netdev", True, netdev, "the host's side of a network card: netdevs"),
    Opt("nic", True, nic, "a network card and the host's side: netdevs, devices"),
    Opt("net", True, net, "a network card or the host's side: netdevs, devices"),
)
