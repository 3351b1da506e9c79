"""Network cards and their back ends while the machine exists: cables, back ends that come and go, announcements.

Errors are BuildError in QEMU's words. The main thread, without the device lock.
"""

from __future__ import annotations

from vmrun.core.interfaces import NetworkCard
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import DeviceRow
    from vmrun.machine.machine import Machine

RARP, REQUEST_REVERSE = b"\x80\x35", 3
SHORTEST = 60
ALL = b"\xff" * 6
FIRST_ADDRESS = 0x525400123456


def watch(machine: Machine) -> None:
    """Changes of filters and of streams' peers become events; of the main loop, whoever's thread makes them."""

    def changed(device: Any) -> None:
        machine.loop.call_soon(
            lambda: machine.tell(
                "NIC_RX_FILTER_CHANGED", **({"name": device.id} if device.id else {}), path=device.path
            )
        )

    def peer(netdev: str, address: dict[str, str] | None) -> None:
        if address is None:
            machine.loop.call_soon(lambda: machine.tell("NETDEV_STREAM_DISCONNECTED", **{"netdev-id": netdev}))
        else:
            machine.loop.call_soon(
                lambda: machine.tell("NETDEV_STREAM_CONNECTED", **{"netdev-id": netdev, "addr": address})
            )

    machine.board.on_filters, machine.board.on_stream = changed, peer


def cards(machine: Machine) -> list[Any]:
    return [device for device in machine.devices.values() if isinstance(device, NetworkCard)]


def _numbered(card: Any) -> str:
    """What QEMU calls a card that has no id: e1000.0 is ours of the id e1000-0."""
    kind, dash, number = str(card.id or "").rpartition("-")
    return f"{kind}.{number}" if dash and kind == card.driver else ""


def called(card: Any) -> str:
    """As monitors call it: by its id, or as QEMU does where it has none."""
    return _numbered(card) or card.id or card.path


def next_address(machine: Machine) -> str:
    """The first that QEMU would give a card, counting, and that no card has."""
    taken = {card.address for card in cards(machine)}
    number = FIRST_ADDRESS
    while number.to_bytes(6, "big") in taken:
        number += 1
    return number.to_bytes(6, "big").hex(":")


def set_link(machine: Machine, name: str, up: bool) -> None:
    """Pull or plug in a cable at the card or at the netdev of that id. KeyError: there is neither."""
    card = next((card for card in cards(machine) if name and name in (card.id, _numbered(card))), None)
    with machine.board.lock:
        if card is not None:
            card.set_link(up)
        else:
            machine.board.netdevs[name].set_link(up)


def add(machine: Machine, id: str, spec: dict[str, Any]) -> None:
    """A new back end, resolved as if it stood in the machine's file."""
    import json

    from vmrun.config.load import load_bytes
    from vmrun.config.machinetypes import newest_type
    from vmrun.config.qemuwords import said
    from vmrun.config.resolve import in_order, resolve
    from vmrun.errors import ERROR, ConfigError, Problem, VmrunError
    from vmrun.machine.hotplug import as_file

    if id in machine.config["netdevs"] or any(card.id == id for card in cards(machine)):
        raise BuildError(f"Duplicate ID '{id}'")
    document, kinds = as_file(machine)
    if "schema" not in document:  # an empty machine's: of a file that has its networks alone
        document = {"schema": "vmrun/machine/1", "machine": newest_type(), "netdevs": document["netdevs"]}
    document["netdevs"] = {**document.get("netdevs", {}), id: spec}
    problems: list[Problem] = []
    found = None
    try:
        root = load_bytes(json.dumps(document).encode(), "machine.json", problems)
        found = resolve(root, problems, "", machine.name, objects=kinds)
    except ConfigError as error:
        problems.extend(error.problems)
    for problem in in_order(problems):
        if problem.severity == ERROR:
            raise BuildError(said(problem, plugged=True))
    assert found is not None
    from vmrun.backends.net import open_netdev

    made = found.data["netdevs"][id]
    try:
        backend = machine.board.netdevs[id] = open_netdev(id, made, machine.board)
    except VmrunError as error:
        raise BuildError(error.problems[0].message) from None
    machine.config = machine.board.config = {**machine.config, "netdevs": {**machine.config["netdevs"], id: made}}
    with machine.board.lock:
        backend.set_running(machine.running)


def remove(machine: Machine, id: str) -> None:
    """The back end goes; a card that had it finds its cable pulled. KeyError: there is no such."""
    backend = machine.board.netdevs.get(id)
    if id not in machine.config["netdevs"]:
        raise KeyError(id)
    if backend is not None:
        with machine.board.lock:
            backend.set_link(False)
            backend.plug(None)
            del machine.board.netdevs[id]
            for card in cards(machine):
                card.netdev = None if card.netdev == id else card.netdev
        backend.close()
    left = {name: spec for name, spec in machine.config["netdevs"].items() if name != id}
    devices: list[DeviceRow] = [
        {**row, "props": {key: value for key, value in row["props"].items() if (key, value) != ("netdev", id)}}
        for row in machine.config["devices"]
    ]
    machine.config = machine.board.config = {**machine.config, "netdevs": left, "devices": devices}


def announce(machine: Machine, names: list[str] | None = None) -> None:
    """Tell the networks where the cards are: the guest does it when it can be asked, else a frame is sent for it."""
    with machine.board.lock:
        for card in cards(machine):
            if names is not None and card.id not in names:
                continue
            wire = machine.board.netdevs.get(card.netdev or "")
            if wire is None:
                continue
            mac = card.current_address()
            body = b"\0\1\x08\0\6\4" + REQUEST_REVERSE.to_bytes(2, "big") + mac + bytes(4) + mac + bytes(4)
            wire.transmit((ALL + mac + RARP + body).ljust(SHORTEST, b"\0"))
            card.announce()


def announce_often(
    machine: Machine, initial: int, most: int, rounds: int, step: int, names: list[str] | None, id: str = ""
) -> None:
    """Announce so many times, each pause longer than the one before; times in ms. What was going on under the same `id`
    ends; no rounds: that is all.
    """
    turn = machine.announcing[id] = object()

    def again(left: int, pause: int) -> None:
        if machine.closed or machine.announcing.get(id) is not turn:
            return
        if left:
            announce(machine, names)
        if left > 1:
            machine.loop.call_later(max(pause, 1) / 1000, lambda: again(left - 1, min(pause + step, most)))
        else:
            del machine.announcing[id]

    again(rounds, initial)


def filters(machine: Machine, name: str | None) -> list[dict[str, Any]]:
    """What cards receive, as query-rx-filter tells it. BuildError in QEMU's words."""
    if name is not None:
        card = next((card for card in cards(machine) if name in (card.id, called(card))), None)
        if card is None and name in machine.board.netdevs:
            raise BuildError(f"net client({name}) isn't a NIC")
        if card is None:
            raise BuildError(f"invalid net client name: {name}")
        if not card.tells_filters:
            raise BuildError(f"net client({name}) doesn't support rx-filter querying")
    with machine.board.lock:
        return [
            _row(one)
            for one in cards(machine)
            if one.tells_filters and (name is None or name in (one.id, called(one)))
        ]


def _row(card: Any) -> dict[str, Any]:
    found = card.filters()
    vlans = found["vlans"]
    return {
        "name": called(card),
        "promiscuous": found["promiscuous"],
        "multicast": found["multicast"],
        "unicast": found["unicast"],
        "vlan": "all" if vlans is None else "normal" if vlans else "none",
        "broadcast-allowed": found["broadcast"],
        "multicast-overflow": found["multicast-overflow"],
        "unicast-overflow": found["unicast-overflow"],
        "main-mac": card.current_address().hex(":"),
        "vlan-table": list(range(4095, -1, -1)) if vlans is None else vlans[::-1],
        "unicast-table": [one.hex(":") for one in found["unicasts"]],
        "multicast-table": [one.hex(":") for one in found["multicasts"]],
    }


def listing(machine: Machine) -> list[dict[str, Any]]:
    """Each back end with its card, forwarded ports and counters, for `ps` and `info network`."""
    by_netdev = {card.netdev: card for card in cards(machine)}
    rows = []
    for id, wire in machine.board.netdevs.items():
        card = by_netdev.get(id)
        rows.append(
            {
                "id": id,
                "type": wire.kind,
                **({"card": card.id or card.path} if card is not None else {}),
                "link": wire.link,
                "info": wire.describe(),
                "hostfwd": list(getattr(wire, "forwards", ())),
                **wire.statistics(),
            }
        )
    return rows


def text(machine: Machine) -> str:
    """`info network`."""
    lines, told = [], set()
    for card in cards(machine):
        mac = card.current_address().hex(":")
        lines.append(f"{called(card)}: index=0,type=nic,model={card.driver},macaddr={mac}")
        wire = machine.board.netdevs.get(card.netdev or "")
        if wire is not None:
            told.add(card.netdev)
            lines.append(f" \\ {card.netdev}: index=0,type={wire.kind},{wire.describe()}")
    for id, wire in machine.board.netdevs.items():
        if id not in told:
            lines.append(f"{id}: index=0,type={wire.kind},{wire.describe()}")
    return "".join(line + "\n" for line in lines)


def library() -> str:
    """The version of the library that user networks need; '' when vmrun was built without it."""
    try:
        from vmrun.backends.net import slirp
    except ImportError:
        return ""
    return str(slirp.version())


# --- ports of the host that lead to the guest --------------------------------------------------------------------


def user_network(machine: Machine, id: str) -> Any:
    """The user network of that id, of no id the only one. BuildError in QEMU's words."""
    found = {name: wire for name, wire in machine.board.netdevs.items() if wire.kind == "user"}
    if id and id not in machine.board.netdevs:
        raise BuildError(f"unrecognized netdev id '{id}'")
    if id and id not in found:
        raise BuildError(f"invalid slirp stack '{id}'")
    if not found:
        raise BuildError("user mode network stack not in use")
    return found[id] if id else next(iter(found.values()))


def forward(machine: Machine, id: str, rule: str) -> None:
    """A further port. BuildError, BackendError."""
    from vmrun.backends.net import user

    wire = user_network(machine, id)
    try:
        user.parse_forward(rule)
    except ValueError as error:
        raise BuildError(f"Invalid host forwarding rule '{rule}' ({error})") from None
    user.forward(wire, wire.name, rule)


def unforward(machine: Machine, id: str, rule: str) -> bool:
    """One port less; whether it was there. BuildError."""
    from vmrun.backends.net import user

    try:
        return user.unforward(user_network(machine, id), rule)
    except ValueError as error:
        raise BuildError(f"invalid format: {error}") from None
