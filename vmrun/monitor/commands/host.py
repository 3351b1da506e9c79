"""What clients ask of every machine, about things that most have not: the answers of a machine without them."""

from __future__ import annotations

from vmrun.core.interfaces import Generation, Waker
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import check, command, enums, event, struct, union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

struct("CurrentMachineParams", {"wakeup-suspend-support": "bool"})
enums["SpiceQueryMouseMode"] = ("client", "server", "unknown")
struct("SpiceInfo", {"enabled": "bool", "migrated": "bool", "mouse-mode": "SpiceQueryMouseMode"})
struct("BalloonInfo", actual="int")
enums["ACPISlotType"] = ("DIMM", "CPU")
struct(
    "ACPIOSTInfo", {"device?": "str", "slot": "str", "slot-type": "ACPISlotType", "source": "int", "status": "int"}
)
enums["StatsTarget"] = ("vm", "vcpu")
enums["StatsProvider"] = ("kvm",)
enums["StatsType"] = ("cumulative", "instant", "peak", "linear-histogram", "log2-histogram")
struct("Stats", name="str", value="any")
struct("StatsResult", {"provider": "StatsProvider", "qom-path?": "str", "stats": "[Stats]"})
struct("StatsRequest", {"provider": "StatsProvider", "names?": "[str]"})
struct("StatsVCPUFilter", {"vcpus?": "[str]"})
struct("StatsSchemaValue", {"name": "str", "type": "StatsType"})
struct("StatsSchema", {"provider": "StatsProvider", "target": "StatsTarget", "stats": "[StatsSchemaValue]"})
enums["DisplayType"] = ("none", "curses")
struct("DisplayOptions", type="DisplayType")
struct("GuidInfo", guid="str")


@command("query-current-machine", returns="CurrentMachineParams")
def query_current_machine(monitor: Any) -> dict[str, bool]:
    """Whether a guest that sleeps can be woken."""
    return {"wakeup-suspend-support": bool(monitor.machine.all(Waker))}


@command("query-spice", returns="SpiceInfo")
def query_spice(monitor: Any) -> dict[str, Any]:
    """There is no SPICE server."""
    return {"enabled": False, "migrated": False, "mouse-mode": "client"}


def _balloon(machine: Any) -> Any:
    found = next((device for device in machine.devices.values() if hasattr(device, "set_target")), None)
    if found is None:
        raise QmpError("No balloon device has been activated", "DeviceNotActive")
    return found


event("BALLOON_CHANGE", "The guest gave memory back, or took it again.", {"actual": "int"})


@command("query-balloon", returns="BalloonInfo")
def query_balloon(monitor: Any) -> dict[str, int]:
    """How much memory a guest with a balloon has."""
    device = _balloon(monitor.machine)
    return {"actual": int(device.actual)}


@command("balloon", {"value": "int"})
def balloon(monitor: Any, value: int) -> None:
    """Ask a guest with a balloon to have that many bytes of memory."""
    device = _balloon(monitor.machine)
    if value <= 0:
        raise QmpError("Parameter 'target' expects a size")
    with monitor.machine.board.lock:
        device.set_target(value)


event("ACPI_DEVICE_OST", "The guest said what became of something that it was told of.", {"info": "ACPIOSTInfo"})


@command("query-acpi-ospm-status", returns="[ACPIOSTInfo]")
def query_acpi_ospm_status(monitor: Any) -> list[dict[str, Any]]:
    """What the guest said of devices that it was told of through ACPI."""
    devices = monitor.machine.devices.values()
    if all(device.driver != "PIIX4_PM" for device in devices):
        raise QmpError("command is not supported, missing ACPI device")
    return [row for device in devices for row in getattr(device, "ospm_status", list)()]


union(
    "StatsFilter",
    "target",
    {"target": "StatsTarget", "providers?": "[StatsRequest]"},
    {"vcpu": "StatsVCPUFilter"},
)


@command("query-stats", {"target": "StatsTarget"}, "[StatsResult]", gen=False, shape="StatsFilter")
def query_stats(monitor: Any, **wanted: Any) -> list[dict[str, Any]]:
    """Counters of the accelerator. None of vmrun's tells any."""
    check(wanted, "StatsFilter", "")
    return []


@command("query-stats-schemas", {"provider?": "StatsProvider"}, "[StatsSchema]")
def query_stats_schemas(monitor: Any, provider: str = "") -> list[dict[str, Any]]:
    """The counters that query-stats has: none."""
    return []


@command("query-display-options", returns="DisplayOptions")
def query_display_options(monitor: Any) -> dict[str, str]:
    """How the screen is shown on this host: on the terminal, or not."""
    return {"type": "none"}


@command("query-vm-generation-id", returns="GuidInfo")
def query_vm_generation_id(monitor: Any) -> dict[str, str]:
    """The number that tells a guest that it was copied."""
    found = monitor.machine.all(Generation)
    if not found:
        raise QmpError("VM Generation ID device not found")
    return {"guid": found[0].generation}
