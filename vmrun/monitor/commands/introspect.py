"""What the monitor itself can do."""

from __future__ import annotations

from vmrun.monitor import schema
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, load, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["QMPCapability"] = ("oob",)
struct("CommandInfo", name="str")
struct("VersionTriple", major="int", minor="int", micro="int")
struct("VersionInfo", qemu="VersionTriple", package="str")

# The QEMU whose QMP this speaks; clients decide by it what they may ask.
QEMU_VERSION = {"major": 7, "minor": 2, "micro": 0}


@command("qmp_capabilities", {"enable?": "[QMPCapability]"})
def qmp_capabilities(monitor: Any, enable: list[str] | None = None) -> dict[str, Any]:
    """Leave the greeting behind; only then are the other commands there."""
    if monitor.negotiated:
        raise QmpError("Capabilities negotiation is already complete, command ignored", "CommandNotFound")
    monitor.negotiated = True
    monitor.oob = bool(enable)
    return {}


@command("query-commands", returns="[CommandInfo]")
def query_commands(monitor: Any) -> list[dict[str, str]]:
    """The names of all commands."""
    return [{"name": name} for name in load()]


@command("query-qmp-schema", returns="[SchemaInfo]")
def query_qmp_schema(monitor: Any) -> list[dict[str, Any]]:
    """Every command and event with its types, as QEMU describes its own."""
    return schema.describe()


@command("query-version", returns="VersionInfo")
def query_version(monitor: Any) -> dict[str, Any]:
    """The version of QEMU whose interface this is, and vmrun's own in `package`."""
    return version()


def version() -> dict[str, Any]:
    from vmrun import __version__

    return {"qemu": QEMU_VERSION, "package": f"vmrun-{__version__}"}
