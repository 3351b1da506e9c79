"""Plugging and unplugging, with QEMU's answers."""

from __future__ import annotations

from vmrun.config.importers.buses import CHOSEN
from vmrun.config.importers.qemuopts import CPU_TYPE
from vmrun.errors import BuildError
from vmrun.machine import network
from vmrun.monitor import qom, typetree
from vmrun.monitor.errors import QmpError, identifier, no_device
from vmrun.monitor.table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACE = ("socket-id", "core-id", "thread-id")


@command(
    "device_add", {"driver": "str", "bus?": "str", "id?": "str"}, gen=False, features=("json-cli", "json-cli-hotplug")
)
def device_add(monitor: Any, driver: str, bus: str = "", id: str | None = None, **props: Any) -> None:
    """Plug a device in. Its properties are further arguments."""
    machine, id = monitor.machine, identifier(id) if id is not None else ""
    if driver.endswith(CPU_TYPE):
        _plug_processor(machine, driver, id, props)
        return
    row = typetree.drivers().get(driver)
    if row is None:
        raise QmpError(f"'{driver}' is not a valid device model name")
    if not row.get("user_creatable", True) or not row.get("hotpluggable", True):
        raise QmpError("Parameter 'driver' expects a pluggable device type")
    buses = {name: found for device in machine.devices.values() for name, found in device.buses.items()}
    if bus and bus not in buses:
        raise QmpError(f"Bus '{bus}' not found")
    if bus and buses[bus].kind != row["bus"]:
        raise QmpError(f"Device '{driver}' can't go on {buses[bus].kind} bus")
    if row["bus"] is None:
        if id and id in machine.root.children["peripheral"].children:
            raise QmpError(f"Duplicate device ID '{id}'")
        _plug(machine, _entry(driver, {**({"id": id} if id else {}), **props}))
        return
    if not bus:
        fits = [name for name, found in buses.items() if found.kind == row["bus"]]
        if row["bus"] in CHOSEN:
            fits.reverse()  # the youngest, as on a command line
        if not fits:
            raise QmpError(f"No '{row['bus']}' bus found for device '{driver}'")
        bus = fits[0]
    if id and id in machine.root.children["peripheral"].children:
        raise QmpError(f"Duplicate device ID '{id}'")
    if getattr(buses[bus], "hotplug", None) is None:
        raise QmpError(f"Bus '{bus}' does not support hotplugging")
    entry = _entry(driver, {**({"id": id} if id else {}), "bus": bus, **props})
    if "mac" in entry and "mac" not in props:  # counted as if it were alone
        del entry["mac"]
        if machine.counts_addresses:
            entry["mac"] = network.next_address(machine)
    _plug(machine, entry)


def _plug(machine: Any, entry: dict[str, Any]) -> None:
    try:
        machine.plug(entry)
    except BuildError as error:
        message = error.problems[0].message
        if message.startswith("object '") and message.endswith("' not found"):
            raise no_device(message.split("'")[1]) from None
        raise QmpError(message) from None


def _entry(driver: str, given: dict[str, Any]) -> dict[str, Any]:
    """As `-device` reads it: text becomes what the property's type says."""
    import json

    from vmrun.config.importers.line import parse_command_line
    from vmrun.config.importers.qemuopts import LineError

    addr = given.get("addr")
    if isinstance(addr, int) and typetree.drivers()[driver]["bus"] == "PCI":
        given = {**given, "addr": f"{addr >> 3:x}.{addr & 7}"}
    try:
        parsed = parse_command_line(["-device", json.dumps({"driver": driver, **given})], defaults=False)
    except LineError as error:
        message = error.problems[0].message.rpartition(": ")[2]
        raise QmpError(message.replace("expects a number", "expects integer")) from None
    if "devices" not in parsed.document:  # `help` among them, which a line of options asks with
        raise QmpError(f"Property '{driver}.help' not found")
    entry: dict[str, Any] = parsed.document["devices"][0]
    return entry


def _plug_processor(machine: Any, driver: str, id: str, props: dict[str, Any]) -> None:
    from vmrun.machine.processor import place

    cpus, board = machine.config["cpus"], machine.board
    wanted = f"{cpus['model']}{CPU_TYPE}"
    if driver != wanted:
        raise QmpError(f"Invalid CPU type, expected cpu type: '{wanted}'")
    if id and id in machine.root.children["peripheral"].children:
        raise QmpError(f"Duplicate device ID '{id}'")
    last = place(len(board.possible_apic_ids) - 1, cpus)
    asked = {}
    for name in PLACE:
        if name not in props:
            raise QmpError(f"CPU {name} is not set")
        asked[name] = int(props[name])
        most = int(cpus.get({"socket-id": "sockets", "core-id": "cores", "thread-id": "threads"}[name]) or 1) - 1
        most = max(most, last[name])
        if not 0 <= asked[name] <= most:
            raise QmpError(f"Invalid CPU {name}: {asked[name]} must be in range 0:{most}")
    places = [place(index, cpus) for index in range(len(board.possible_apic_ids))]
    index = places.index(asked)
    if index in board.processors:
        raise QmpError(f"CPU[{index}] with APIC ID {board.possible_apic_ids[index]} exists")
    try:
        machine.plug_processor(id or f"cpu-{index}", index)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None


@command("device_del", {"id": "str"})
def device_del(monitor: Any, id: str) -> None:
    """Ask for a device to be unplugged, by its id or path; DEVICE_DELETED tells when it is gone."""
    tree = qom.Tree(monitor.machine)
    node = monitor.machine.root.children["peripheral"].children.get(id)
    if id.startswith("/"):
        node = tree.resolve(id)
    if node is None:
        raise no_device(id)
    bus = getattr(node, "parent_bus", None)
    if bus is not None and getattr(bus, "hotplug", None) is None:
        raise QmpError(f"Bus '{bus.name}' does not support hotplugging")
    if not getattr(node, "hotpluggable", False):
        raise QmpError(f"Device '{tree.type_of(node)}' does not support hotplugging")
    if getattr(node, "leaving", False):
        raise QmpError(f"Device {id} is already in the process of unplug")
    from vmrun.machine.processor import Processor

    try:
        if isinstance(node, Processor):
            monitor.machine.unplug_processor(node)
        else:
            monitor.machine.unplug(node)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None
