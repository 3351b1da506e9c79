"""Disks of the machine for NBD clients."""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine import exports
from vmrun.machine.nodes import LETTERS
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import check, command, enums, event, struct, union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

enums["BlockExportRemoveMode"] = ("safe", "hard")
enums["BlockExportType"] = ("nbd",)
struct(
    "BlockExportOptionsNbd",
    {"name?": "str", "description?": "str", "bitmaps?": "[BlockDirtyBitmapOrStr]", "allocation-depth?": "bool"},
)
union(
    "BlockExportOptions",
    "type",
    {
        **{"type": "BlockExportType", "id": "str", "fixed-iothread?": "bool", "iothread?": "str", "node-name": "str"},
        **{"writable?": "bool", "writethrough?": "bool"},
    },
    {"nbd": "BlockExportOptionsNbd"},
)
struct("BlockExportInfo", {"id": "str", "type": "BlockExportType", "node-name": "str", "shutting-down": "bool"})
event("BLOCK_EXPORT_DELETED", "An export is gone.", {"id": "str"})


def _told(act: Callable[..., Any], *arguments: Any) -> None:
    try:
        act(*arguments)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None


@command("nbd-server-start", {"addr": "SocketAddressLegacy", "tls-creds?": "str", "tls-authz?": "str",
                              "max-connections?": "int"})  # fmt: skip
def nbd_server_start(
    monitor: Any, addr: dict[str, Any], max_connections: int = 0, tls_creds: str = "", tls_authz: str = ""
) -> None:
    """Listen for NBD clients, with `tls-creds` for such as speak TLS, whose names the object `tls-authz` lets in."""
    _told(exports.server(monitor.machine).start, addr, max_connections, tls_creds, tls_authz)


@command("nbd-server-add", {"device": "str", "name?": "str", "writable?": "bool", "description?": "str",
                            "bitmap?": "str"})  # fmt: skip
def nbd_server_add(
    monitor: Any, device: str, name: str = "", writable: bool = False, description: str = "", bitmap: str = ""
) -> None:
    """Let clients have a disk."""
    name = name or device
    bitmaps = [bitmap] if bitmap else []
    _told(exports.server(monitor.machine).add, name, device, name, writable, bitmaps, False, description)


@command("nbd-server-remove", {"name": "str", "mode?": "BlockExportRemoveMode"})
def nbd_server_remove(monitor: Any, name: str, mode: str = "safe") -> None:
    """Let them have it no more."""
    _told(exports.server(monitor.machine).remove, name, mode == "hard")


@command("nbd-server-stop")
def nbd_server_stop(monitor: Any) -> None:
    """Listen no more, and let go of all clients."""
    _told(exports.server(monitor.machine).stop)


@command(
    "block-export-add",
    {"type": "BlockExportType", "id": "str", "node-name": "str"},
    gen=False,
    shape="BlockExportOptions",
)
def block_export_add(monitor: Any, **options: Any) -> None:
    """Let clients have a node. Further arguments: writable, the export's name, which is the node's otherwise, its
    description, bitmaps that clients may ask of, allocation-depth, which they may ask of then, too, and writethrough:
    what is written is on the disk before it is answered.
    """
    options = {key.replace("_", "-"): value for key, value in options.items()}
    check(options, "BlockExportOptions", "")
    id = options["id"]
    if not id[:1].isalpha() or set(id) - LETTERS:
        raise QmpError("Invalid block export id")
    if options.get("iothread"):
        raise QmpError("'iothread' of an export is not modelled")
    node = options["node-name"]
    server = exports.server(monitor.machine)
    name, writable = options.get("name") or node, options.get("writable", False)
    through = bool(options.get("writethrough"))
    more = (options.get("description", ""), bool(options.get("allocation-depth")))
    _told(server.add, options["id"], node, name, writable, options.get("bitmaps", []), through, *more)


@command("block-export-del", {"id": "str", "mode?": "BlockExportRemoveMode"})
def block_export_del(monitor: Any, id: str, mode: str = "safe") -> None:
    """Let them have it no more."""
    _told(exports.server(monitor.machine).remove, id, mode == "hard")


@command("query-block-exports", returns="[BlockExportInfo]")
def query_block_exports(monitor: Any) -> list[dict[str, Any]]:
    """What clients can have."""
    return [
        {"id": id, "type": "nbd", "node-name": node.name, "shutting-down": False}
        for id, (_, _, node) in exports.server(monitor.machine).ids.items()
    ]
