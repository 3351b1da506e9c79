"""`vnc:` of a machine file: one server for remote viewers, or a list of them."""

from __future__ import annotations

from vmrun.config.node import plain
from vmrun.config.work import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmrun.config.node import Node
    from vmrun.config.spec import MachineSpec
    from vmrun.config.work import Work

MOST_DISPLAY, MOST_PORT = 59635, 65535
SCREENS = "vmrun.devices.display."  # where drivers with a screen are


def servers(spec: MachineSpec) -> Iterator[tuple[Node, str]]:
    """Each server's section and its path in the file."""
    node = spec.get("vnc")
    if node is None:
        return
    if type(node.value) is list:
        for number, each in enumerate(node.value):
            yield each, f"vnc[{number}]"
    else:
        yield node, "vnc"


def viewers(work: Work) -> dict[str, Any]:
    """The servers for remote viewers: `vnc`, when the file has one that listens or calls somewhere."""
    found: list[dict[str, Any]] = []
    names: dict[str, Node] = {}
    for node, path in servers(work.spec):
        table: dict[str, Any] = dict(plain(node))
        if str(table.setdefault("listen", ":0")) == "none":
            continue
        _listen(work, node, table, path)
        _objects(work, node, path)
        _screen(work, node, table, path)
        _families(work, node, table, path)
        _websocket(work, node, path)
        given = node.get("id")
        name = str(given.value) if given is not None else f"vnc{len(found) + 1}" if found else "default"
        if found or given is not None:
            table["id"] = name
        if name in names:
            other = names[name]
            work.wrong(
                "VR0607", f"two VNC servers are called '{name}'", (given or node).place, f"{path}.id",
                remedy="give each another `id`", also=[(other.place, "the other one")],
            )  # fmt: skip
        names[name] = node
        found.append(table)
    if not found:
        return {}
    return {"vnc": found[0] if len(found) == 1 else found}


def _listen(work: Work, node: Node, table: dict[str, Any], path: str) -> None:
    listen, reverse = str(table["listen"]), bool(table.get("reverse"))
    most = MOST_PORT if reverse else MOST_DISPLAY
    if listen.startswith("unix:"):
        if listen[5:]:
            table["listen"] = "unix:" + absolute(work, listen[5:])
            return
    else:
        display = listen.rpartition(":")[2]
        if display.isascii() and display.isdigit() and int(display) <= most:
            return
    work.wrong(
        "VR0607",
        f"'{listen}' is no display that a VNC server can listen on",
        (node.get("listen") or node).place,
        f"{path}.listen",
        remedy="write HOST:PORT of a viewer that listens, or unix:PATH" if reverse else
        "write HOST:DISPLAY, like 127.0.0.1:0 (port 5900), or unix:PATH",
    )


def _objects(work: Work, node: Node, path: str) -> None:
    """Credentials and passwords that it names are there."""
    from vmrun.config.objects import check_named

    kinds = {
        "tls-creds": "tls-creds", "password-secret": "secret",
        "tls-authz": "authz-backend", "sasl-authz": "authz-backend",
    }  # fmt: skip
    for key, what in (("tls-authz", "tls-creds"), ("sasl-authz", "sasl")):
        if node.get(key) is not None and (node.get(what) is None or not node.value[what].value):
            work.wrong(
                "VR0607", f"'{key}' goes with '{what}': nobody says who he is without", node.value[key].place,
                f"{path}.{key}", remedy=f"add `{what}:`, or leave `{key}` out",
            )  # fmt: skip
    for key, kind in kinds.items():
        named = node.get(key)
        if named is not None:
            check_named(work, named, {"name": key, "of": (kind,)}, "vnc", f"{path}.{key}")


def _screen(work: Work, node: Node, table: dict[str, Any], path: str) -> None:
    """`display` is an adapter of the machine; `head` is one of its screens."""
    if "display" not in table:
        if "head" in table:
            work.wrong(
                "VR0607", "'head' goes with 'display'", node.value["head"].place, f"{path}.head",
                remedy="say whose screen it is: `display:` with the id of the adapter",
            )  # fmt: skip
        return
    place, wanted = node.value["display"].place, str(table["display"])
    adapters = {}
    for dev in work.devices:
        entry = work.catalogue.driver(dev.driver)
        if entry is not None and str(entry.data.get("module", "")).startswith(SCREENS):
            adapters[dev.id] = dev
    if wanted not in adapters:
        work.wrong(
            "VR0607", f"vnc shows display adapter '{wanted}', which does not exist", place, f"{path}.display",
            nearest=work.near(wanted, adapters),
            remedy=f"adapters here: {', '.join(adapters)}" if adapters else "the machine has no display adapter",
        )  # fmt: skip
        return
    given = adapters[wanted].spec.props.get("max_outputs")  # values are put into `props` later
    screens = given.value if given is not None else 1
    if type(screens) is int and int(table.get("head") or 0) >= screens:
        has = "one screen, head 0" if screens == 1 else f"{screens} screens, heads 0 to {screens - 1}"
        more = "leave `head` out" if screens == 1 else "`max_outputs` of the adapter says how many it has"
        work.wrong("VR0607", f"'{wanted}' has {has}", node.value["head"].place, f"{path}.head", remedy=more)


def _websocket(work: Work, node: Node, path: str) -> None:
    """true, a port, or host:port."""
    given = node.get("websocket")
    if given is None or type(given.value) is not str or given.value == "on":
        return
    port = given.value.rpartition(":")[2]
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= MOST_PORT):
        work.wrong(
            "VR0607", f"'{given.value}' is no place that a WebSocket can be listened for at", given.place,
            f"{path}.websocket", remedy="write true (port 5700 + display), a port, or host:port",
        )  # fmt: skip


def _families(work: Work, node: Node, table: dict[str, Any], path: str) -> None:
    if table.get("ipv4") is False and table.get("ipv6") is False:
        work.wrong(
            "VR0607", "Cannot disable IPv4 and IPv6 at same time", node.value["ipv6"].place, f"{path}.ipv6",
            remedy="leave one of them on",
        )  # fmt: skip
