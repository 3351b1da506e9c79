"""Disks of the machine for NBD clients."""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine import exports
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, event, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

enums["BlockExportRemoveMode"] = ("safe", "hard")
enums["BlockExportType"] = ("nbd",)
struct("BlockExportInfo", {"id": "str", "type": "BlockExportType", "node-name": "str", "shutting-down": "bool"})
event("BLOCK_EXPORT_DELETED", "An export is gone.", {"id": "str"})


def _told(act: Callable[..., Any], *arguments: Any) -> None:
    try:
        act(*arguments)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None


@command("nbd-server-start", {"addr": "SocketAddressLegacy", "tls-creds?": "str", "tls-authz?": "str",
                              "max-connections?": "int"})  # fmt: skip
def nbd_server_start(monitor: Any, addr: dict[str, Any], max_connections: int = 0, **tls: str) -> None:
    """Listen for NBD clients."""
    if tls:
        raise QmpError("NBD clients with TLS are not modelled; listen on a unix socket")
    _told(exports.server(monitor.machine).start, addr, max_connections)


@command("nbd-server-add", {"device": "str", "name?": "str", "writable?": "bool", "description?": "str",
                            "bitmap?": "str"})  # fmt: skip
def nbd_server_add(
    monitor: Any, device: str, name: str = "", writable: bool = False, description: str = "", bitmap: str = ""
) -> None:
    """Let clients have a disk."""
    if bitmap:
        raise QmpError("bitmaps are not shown to NBD clients")
    name = name or device
    _told(exports.server(monitor.machine).add, name, device, name, writable)


@command("nbd-server-remove", {"name": "str", "mode?": "BlockExportRemoveMode"})
def nbd_server_remove(monitor: Any, name: str, mode: str = "safe") -> None:
    """Let them have it no more."""
    _told(exports.server(monitor.machine).remove, name)


@command("nbd-server-stop")
def nbd_server_stop(monitor: Any) -> None:
    """Listen no more, and let go of all clients."""
    _told(exports.server(monitor.machine).stop)


@command(
    "block-export-add",
    {
        **{"type": "BlockExportType", "id": "str", "node-name": "str", "writable?": "bool", "writethrough?": "bool"},
        **{"name?": "str", "description?": "str", "iothread?": "str", "fixed-iothread?": "bool", "bitmaps?": "[str]"},
    },
)
def block_export_add(
    monitor: Any, type: str, id: str, node_name: str, writable: bool = False, name: str = "", **rest: Any
) -> None:
    """Let clients have a node."""
    if rest.get("bitmaps"):
        raise QmpError("bitmaps are not shown to NBD clients")
    _told(exports.server(monitor.machine).add, id, node_name, name or node_name, writable)


@command("block-export-del", {"id": "str", "mode?": "BlockExportRemoveMode"})
def block_export_del(monitor: Any, id: str, mode: str = "safe") -> None:
    """Let them have it no more."""
    _told(exports.server(monitor.machine).remove, id)


@command("query-block-exports", returns="[BlockExportInfo]")
def query_block_exports(monitor: Any) -> list[dict[str, Any]]:
    """What clients can have."""
    return [
        {"id": id, "type": "nbd", "node-name": node.name, "shutting-down": False}
        for id, (_, _, node) in exports.server(monitor.machine).ids.items()
    ]
