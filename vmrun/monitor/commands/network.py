"""Network cards and back ends: cables, filters, announcements, back ends that come and go, forwarded ports."""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine import network
from vmrun.monitor.errors import QmpError, identifier, no_device
from vmrun.monitor.table import command, enums, event, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["RxState"] = ("normal", "none", "all")
struct(
    "RxFilterInfo",
    {
        **{"name": "str", "promiscuous": "bool", "multicast": "RxState", "unicast": "RxState", "vlan": "RxState"},
        **{"broadcast-allowed": "bool", "multicast-overflow": "bool", "unicast-overflow": "bool", "main-mac": "str"},
        **{"vlan-table": "[int]", "unicast-table": "[str]", "multicast-table": "[str]"},
    },
)
event("NIC_RX_FILTER_CHANGED", "What a card receives is another now; told once until it is asked for.",
      {"name?": "str", "path": "str"})  # fmt: skip
event("NETDEV_STREAM_CONNECTED", "A stream's peer is there.", {"netdev-id": "str", "addr": "SocketAddress"})
event("NETDEV_STREAM_DISCONNECTED", "A stream's peer has gone.", {"netdev-id": "str"})
struct(
    "NetworkInfo",
    {
        **{"id": "str", "type": "str", "card?": "str", "link": "bool", "info": "str", "hostfwd": "[HostForward]"},
        **{"frames-sent": "int", "bytes-sent": "int", "frames-received": "int", "bytes-received": "int"},
        **{"dropped": "int", "waiting": "int"},
    },
)
struct(
    "HostForward", {"protocol": "str", "host": "str", "port": "int", "guest": "str", "guest-port": "int"}
)


@command("set_link", {"name": "str", "up": "bool"})
def set_link(monitor: Any, name: str, up: bool) -> None:
    """Plug a cable in, or pull it, at a card or at a netdev."""
    try:
        network.set_link(monitor.machine, name, up)
    except KeyError:
        raise no_device(name) from None


@command("query-rx-filter", {"name?": "str"}, "[RxFilterInfo]")
def query_rx_filter(monitor: Any, name: str | None = None) -> list[dict[str, Any]]:
    """What cards receive."""
    try:
        return network.filters(monitor.machine, name)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None


enums["NetClientType"] = (
    "none", "nic", "user", "tap", "l2tpv3", "socket", "stream", "dgram", "vde", "bridge", "hubport", "netmap",
    "vhost-user", "vhost-vdpa", "segment", "passt",
)  # fmt: skip


@command("netdev_add", {"id": "str", "type": "NetClientType"}, gen=False)
def netdev_add(monitor: Any, type: str, id: str, **options: Any) -> None:
    """A new back end. Its options are further arguments."""
    import json

    from vmrun.config.importers.line import parse_command_line
    from vmrun.config.importers.qemuopts import LineError

    line = ["-netdev", json.dumps({"type": type, "id": identifier(id), **options})]
    try:
        spec = parse_command_line(line, defaults=False).document["netdevs"][id]
        network.add(monitor.machine, id, spec)
    except (LineError, BuildError) as error:
        message = error.problems[0].message
        raise QmpError(message.rpartition(": ")[2] if isinstance(error, LineError) else message) from None


@command("netdev_del", {"id": "str"})
def netdev_del(monitor: Any, id: str) -> None:
    """A back end goes; the cable of its card is pulled."""
    try:
        network.remove(monitor.machine, id)
    except KeyError:
        raise no_device(id) from None


@command(
    "announce-self",
    {"initial": "int", "max": "int", "rounds": "int", "step": "int", "interfaces?": "[str]", "id?": "str"},
)
def announce_self(
    monitor: Any,
    initial: int,
    max: int,
    rounds: int,
    step: int,
    interfaces: list[str] | None = None,
    id: str | None = None,
) -> None:
    """Tell switches where the cards are: RARP frames, and a word to drivers that can do it themselves. A later command
    with the same `id` takes the earlier one's place; with `rounds` 0 it only ends it. Pauses in ms.
    """
    for name, value in {"initial": initial, "max": max, "rounds": rounds, "step": step}.items():
        if not 0 <= value < 1 << 31:
            raise QmpError(f"Parameter '{name}' expects a value from 0 to 2147483647")
    network.announce_often(monitor.machine, initial, max, rounds, step, interfaces, id or "")


@command("x-query-network", None, "[NetworkInfo]")
def query_network(monitor: Any) -> list[dict[str, Any]]:
    """Each back end: its card, the ports that it forwards, its counters."""
    return network.listing(monitor.machine)

