"""Devices that come and go while the machine exists.

A new device is resolved as if it stood in the machine's file: same defaults, compat values, checks and addresses. Then
it is made by the steps that the builder uses, and its bus's hot-plug controller tells the guest. Taking one out is the
guest's decision: `ask` asks, the controller hears the answer (or a reset gives it) and calls `let_go`.
"""

from __future__ import annotations

from vmrun.core.interfaces import MemoryModule
from vmrun.errors import ERROR, BuildError, ConfigError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import DeviceRow
    from vmrun.core.object import Device
    from vmrun.machine.machine import Machine
    from vmrun.machine.processor import Processor

CMOS_CPUS = 0x5F  # how many more than one processor there are, for the firmware


def as_file(machine: Machine) -> tuple[dict[str, Any], dict[str, str]]:
    """The machine as a file has it, and the kinds of its objects by id. An object that was deleted while a device has
    it, as a random number generator's may be, is named no more.
    """
    from vmrun.config.catalogue import load_catalogue
    from vmrun.config.write import flat

    objects: dict[str, Any] = machine.board.objects.children
    kinds = {id: str(made.driver) for id, made in objects.items() if made.driver}
    document = flat({**machine.config})
    document.pop("objects", None)
    catalogue = load_catalogue()
    for row in document.get("devices", ()):
        entry = catalogue.driver(row["driver"])
        for name, prop in entry.props.items() if entry is not None else ():
            if prop["type"] == "object" and row.get(name) not in kinds:
                row.pop(name, None)
    return document, kinds


def plan(machine: Machine, wanted: dict[str, Any]) -> DeviceRow:
    """The entry of a device (`driver`, `id`, `bus`, `addr` and properties, as a machine file has them) with all filled
    in. BuildError in QEMU's words.
    """
    import json

    from vmrun.config.load import load_bytes
    from vmrun.config.qemuwords import said
    from vmrun.config.resolve import in_order, resolve

    document, kinds = as_file(machine)
    document["devices"] = [*document["devices"], wanted]
    problems: list[Problem] = []
    found = None
    try:
        root = load_bytes(json.dumps(document).encode(), "machine.json", problems)
        found = resolve(root, problems, "", machine.name, objects=kinds)
    except ConfigError as error:
        problems.extend(error.problems)
    for problem in in_order(problems):
        if problem.severity == ERROR:
            if problem.code == "VR0508" and "addr" in wanted:
                raise BuildError(f"Property '{wanted['driver']}.addr' doesn't take value '{wanted['addr']}'")
            raise BuildError(said(problem, plugged=True))
    assert found is not None
    known = {entry["id"] for entry in machine.config["devices"]}
    (entry,) = (entry for entry in found.data["devices"] if entry["id"] not in known)
    made: DeviceRow = {**entry}
    return made


def plug(machine: Machine, entry: DeviceRow) -> Device:
    """Make the device and tell the guest. BuildError, with nothing changed."""
    board = machine.board
    with board.lock:
        with board.memory.transaction(), board.io.transaction():
            device = machine.assembly.create(entry)
            device.hotplugged = True
            try:
                controller = controller_of(device)
                if controller is not None:
                    controller.check(device)
                device.reset()
            except BaseException:
                machine.assembly.discard(device)
                raise
        if controller is not None:
            controller.plugged(device)
    if isinstance(device, MemoryModule):  # where it is, whatever comes and goes before it
        entry = {**entry, "props": {**entry["props"], "addr": device.address, "slot": device.slot_number}}
    _record(machine, [*machine.config["devices"], entry])
    return device


def ask(machine: Machine, device: Device) -> None:
    """Ask the guest to let go of a device. BuildError when its bus has nobody who could ask."""
    controller = controller_of(device)
    if controller is None:
        raise BuildError(f"Bus '{device.parent_bus.name}' does not support hotplugging")
    with machine.board.lock:
        controller.ask_unplug(device)
        device.leaving = not isinstance(device, MemoryModule)  # the guest may keep a module, and be asked again


def controller_of(device: Device) -> Any:
    """Who tells the guest of a device that comes, and asks for it; None where nobody does."""
    return device.hotplug if isinstance(device, MemoryModule) else getattr(device.parent_bus, "hotplug", None)


def let_go(machine: Machine, device: Device) -> None:
    """The guest let go of it: out of its sight at once; the rest, and who is told, on the main thread. Runs on any
    thread, with the device lock held.
    """
    if not device.realized:
        return
    with machine.board.memory.transaction(), machine.board.io.transaction():
        for each in _with_children(device):
            machine.assembly.withdraw(each)
    machine.loop.call_soon(lambda: _gone(machine, device))


def _with_children(device: Device) -> list[Device]:
    """A device and all that sits on its buses, the last first. Cards behind a bridge have slots of their own."""
    found: list[Device] = []
    for bus in device.buses.values():
        if bus.kind != "PCI":
            for child in list(bus.devices):
                found += _with_children(child)
    return [*found, device]


def _gone(machine: Machine, device: Device) -> None:
    for each in _with_children(device):
        path, name, parent = each.path, each.name, each.parent
        drive = each.get_props().get("drive")
        with machine.board.lock:
            machine.assembly.discard(each)
        machine.board.close_bay(each)
        if drive:
            from vmrun.machine.blocks import blocks

            blocks(machine).released(str(drive))
        _record(machine, [entry for entry in machine.config["devices"] if entry["id"] != each.id])
        named = parent is not None and parent.name == "peripheral"
        if "virtio-pci" in getattr(each, "parents", ()):
            machine.tell("DEVICE_DELETED", path=f"{path}/virtio-backend")  # QEMU's are two objects
        machine.tell("DEVICE_DELETED", **({"device": name} if named else {}), path=path)


def _record(machine: Machine, devices: list[DeviceRow]) -> None:
    """The machine as it is now: what is saved, locked or shown is this."""
    machine.config = machine.board.config = {**machine.config, "devices": devices}


# --- saved machines ---------------------------------------------------------------------------------------------


def what_became(machine: Machine) -> dict[str, Any]:
    """What came since the machine was built, as `become` takes it; plain values."""
    from vmrun.machine.processor import Processor

    devices, plugged = machine.board.devices, machine.assembly.peripheral.children
    return {
        "devices": machine.config["devices"],
        "cpus": machine.config["cpus"],
        "processors": {name: node.index for name, node in plugged.items() if isinstance(node, Processor)},
        "hotplugged": [id for id, device in devices.items() if device.hotplugged],
        "leaving": [id for id, device in devices.items() if device.leaving],
    }


def lasting(machine: Machine) -> list[DeviceRow]:
    """The devices that are there since the machine was built."""
    devices = machine.board.devices
    return [entry for entry in machine.config["devices"] if not devices[entry["id"]].hotplugged]


def become(machine: Machine, now: dict[str, Any]) -> None:
    """Put in, unseen by the guest, what had come to the saved machine. BuildError."""
    from vmrun.firmware.parts import present
    from vmrun.machine import processor

    board, wanted = machine.board, now["devices"]
    with board.lock, board.memory.transaction(), board.io.transaction():
        for entry in wanted:
            if entry["id"] not in board.devices:
                machine.assembly.create(entry).hotplugged = True
    _record(machine, wanted)
    for index in set(board.processors) - set(present(now["cpus"])) - {0} if "present" in now["cpus"] else ():
        _take_out(machine, processor.find(machine, index))
    for id, index in _processors(machine, now).items():
        if index not in board.processors:
            plug_processor(machine, id, index)
    if present(machine.config["cpus"]) != present(now["cpus"]):
        raise BuildError("its processors were others")


def _processors(machine: Machine, now: dict[str, Any]) -> dict[str, int]:
    """Those of a saved machine that have an id. Before they could come in any order, only their ids were saved."""
    found = now["processors"]
    if isinstance(found, list):
        found = {id: len(machine.board.processors) + n for n, id in enumerate(found)}
    possible = len(machine.board.possible_apic_ids)
    if not all(isinstance(id, str) and type(index) is int and 0 < index < possible for id, index in found.items()):
        raise BuildError("a processor that there cannot be")
    return dict(found)


# --- processors -----------------------------------------------------------------------------------------------


def plug_processor(machine: Machine, id: str, index: int) -> None:
    """Processor `index` of those that there can be, waiting for the guest to start it."""
    from vmrun.core.interfaces import ProcessorSlots
    from vmrun.machine import processor
    from vmrun.machine.cpuid import make_cpuid

    board, cpus = machine.board, machine.config["cpus"]
    accelerator = machine.accelerator
    apic_id = board.possible_apic_ids[index]
    entries = make_cpuid(
        cpus, cpus["model-data"], apic_id, accelerator.supported_cpuid(), kernel_apic=accelerator.has_local_apic
    ).entries
    goes_on = machine.running
    if goes_on:
        accelerator.stop()
    try:
        system = machine.assembly.apic_system
        processor.create(board, machine.assembly, index, entries, id=id, system=system, hotplugged=True)
        for cpu in accelerator.vcpus:  # qtest has none
            if cpu.index == index:
                cpu.reset()
        machine.cpuid[index] = entries
        _count(machine, sorted({*board.processors, index}))
        with board.lock:
            for slots in machine.all(ProcessorSlots):
                slots.processor_plugged(index)
    finally:
        if goes_on:
            accelerator.start()


def _count(machine: Machine, present: list[int]) -> None:
    """Which processors there are from now on: in the machine's description and where the firmware counts them."""
    from vmrun.firmware.fwcfg import CPUS

    board, cpus = machine.board, machine.config["cpus"]
    board.processors = present
    machine.config = board.config = {**machine.config, "cpus": {**cpus, "present": present}}
    with board.lock:
        by_driver: dict[str, Any] = {device.driver: device for device in board.devices.values()}
        by_driver["fw_cfg_io"].add_bytes(CPUS, len(present).to_bytes(2, "little"))
        by_driver["mc146818rtc"].set_cmos(CMOS_CPUS, len(present) - 1 & 0xFF)


def ask_processor(machine: Machine, node: Processor) -> None:
    """Ask the guest to let go of a processor. BuildError."""
    from vmrun.core.interfaces import ProcessorSlots

    if not node.index:
        raise BuildError("Boot CPU is unpluggable")
    with machine.board.lock:
        if not all(slots.ask_processor(node.index) for slots in machine.all(ProcessorSlots)):
            raise BuildError(f"acpi: device unplug request for not supported device type: {node.driver}")


def processor_gone(machine: Machine, index: int) -> None:
    """The guest let go of a processor. On the main thread."""
    from vmrun.machine import processor

    node = processor.find(machine, index)
    path, named = node.path, node.parent is not None and node.parent.name == "peripheral"
    _take_out(machine, node)
    machine.tell("DEVICE_DELETED", **({"device": node.name} if named else {}), path=path)


def _take_out(machine: Machine, node: Processor) -> None:
    from vmrun.core.interfaces import ProcessorSlots
    from vmrun.machine import apics

    board, accelerator, index = machine.board, machine.accelerator, node.index
    goes_on = machine.running
    if goes_on:
        accelerator.stop()
    try:
        accelerator.park_vcpu(index)
        del machine.cpuid[index]
        _count(machine, [other for other in board.processors if other != index])
        with board.lock, board.memory.transaction():
            apics.remove_apic(board, machine.assembly.board_parts, index)
            for slots in machine.all(ProcessorSlots):
                slots.processor_gone(index)
    finally:
        if goes_on:
            accelerator.start()
    if node.parent is not None:
        node.parent.children.pop(node.name)
