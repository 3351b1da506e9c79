"""PCI slots in the DSDT: the hot-plug registers and their methods, the labels of devices, and a node per slot.

On a bus with hot-plug every slot has a node, empty or not; without it only what is there has one.
Ref: PCI Firmware specification 3.1, 4.6.7 (device labels); QEMU docs/specs/acpi_pci_hotplug.rst.
"""

from __future__ import annotations

from vmrun.firmware import aml, parts
from vmrun.firmware.aml import ARG0, ARG1, ARG2, ARG3, ARG4, LOCAL0, LOCAL2
from vmrun.firmware.dsdt_isa import isa_bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import DeviceRow, MachineData

PCI_HOTPLUG, PCI_HOTPLUG_SIZE = 0xAE00, 0x18
# slots that cannot be unplugged
FIXED = ("i440FX", "PIIX3", "pci-bridge", "i82801b11-bridge", "acpi-erst", *parts.DISPLAYS)
LABELING = "e5c937d0-3553-4d7a-9117-ea4d19c3434d"  # _DSM of PCI device labelling


def root_hotplug(machine: MachineData) -> bool:
    """Cards can come and go on the root bus."""
    return bool(_setting(machine, "acpi-root-pci-hotplug"))


def hotplug(machine: MachineData) -> bool:
    """The hot-plug registers are there, be it for buses behind bridges only."""
    return root_hotplug(machine) or bool(_setting(machine, "acpi-pci-hotplug-with-bridge-support"))


def _setting(machine: MachineData, name: str) -> Any:
    pm = parts.first(machine, "PIIX4_PM")
    return pm is not None and pm["props"].get(name, True)


def registers() -> bytes:
    """In PCI0: the registers at 0xae00, PCEJ(bus, slot) ejects, AIDX(bus, slot) tells a device's own index."""
    return aml.scope(
        "_SB.PCI0",
        aml.region("PCST", aml.SYSTEM_IO, PCI_HOTPLUG, 8),
        aml.field("PCST", aml.DWORD_ACCESS, ("PCIU", 32), ("PCID", 32), update=aml.WRITE_AS_ZEROS),
        aml.region("SEJ", aml.SYSTEM_IO, PCI_HOTPLUG + 8, 4),
        aml.field("SEJ", aml.DWORD_ACCESS, ("B0EJ", 32), update=aml.WRITE_AS_ZEROS),
        aml.region("BNMR", aml.SYSTEM_IO, PCI_HOTPLUG + 0x10, 8),
        aml.field("BNMR", aml.DWORD_ACCESS, ("BNUM", 32), ("PIDX", 32), update=aml.WRITE_AS_ZEROS),
        aml.mutex("BLCK"),
        aml.method(
            "PCEJ",
            2,
            aml.acquire("BLCK"),
            aml.store(ARG0, "BNUM"),
            aml.shift_left(1, ARG1, "B0EJ"),
            aml.release("BLCK"),
            aml.give(0),
        ),
        aml.method(
            "AIDX",
            2,
            aml.acquire("BLCK"),
            aml.store(ARG0, "BNUM"),
            aml.shift_left(1, ARG1, "PIDX"),
            aml.store("PIDX", LOCAL0),
            aml.release("BLCK"),
            aml.give(LOCAL0),
        ),
        _labeling(),
    )


def _labeling() -> bytes:
    """PDSM(uuid, revision, function, arguments, {bus, slot}): the index that a device was given, if any."""
    index = aml.store(aml.call("AIDX", aml.value_at(ARG4, 0), aml.value_at(ARG4, 1)), LOCAL2)
    none = aml.either(aml.equal(LOCAL2, 0), aml.equal(LOCAL2, 0xFFFFFFFF))
    mismatch = aml.either(aml.invert(aml.equal(ARG0, aml.uuid(LABELING))), aml.less(ARG1, 2))
    offered = aml.when(
        aml.equal(ARG2, 0),
        aml.store(aml.buffer(b"\0"), LOCAL0),
        aml.when(mismatch, aml.give(LOCAL0)),
        index,
        aml.when(aml.invert(none), aml.store(0x81, aml.element(LOCAL0, 0))),
        aml.give(LOCAL0),
    )
    label = aml.when(
        aml.equal(ARG2, 7),
        index,
        aml.store(aml.package(count=2), LOCAL0),
        aml.when(
            aml.invert(none),
            aml.store(LOCAL2, aml.element(LOCAL0, 0)),
            aml.store(aml.text(""), aml.element(LOCAL0, 1)),
        ),
        aml.give(LOCAL0),
    )
    return aml.method("PDSM", 5, offered, label, aml.give(aml.buffer(b"\0")), serialized=True)


def event() -> bytes:
    """GPE 1: something was plugged or is to be unplugged."""
    scan = (aml.acquire("\\_SB.PCI0.BLCK"), aml.call("\\_SB.PCI0.PCNT"), aml.release("\\_SB.PCI0.BLCK"))
    return aml.scope("_GPE", aml.method("_E01", 0, *scan))


def slots(machine: MachineData) -> bytes:
    numbers = _numbers(machine)
    return aml.scope("\\_SB", aml.scope("PCI0", *_bus(machine, "pci.0", numbers)))


def _numbers(machine: MachineData) -> dict[str, int]:
    """bus → the number that the hot-plug registers know it by: the root, then those behind bridges, depth first and the
    youngest first, as the device counts them.
    """
    found: list[str] = []

    def visit(bus: str) -> None:
        found.append(bus)
        for device in reversed(machine["devices"]):
            if device.get("bus") == bus:
                for name, kind in (device.get("provides") or {}).items():
                    if kind == "PCI":
                        visit(name)

    if _setting(machine, "acpi-pci-hotplug-with-bridge-support"):
        visit("pci.0")
    else:
        found.append("pci.0")
    if not root_hotplug(machine):
        found.remove("pci.0")
    return {bus: number for number, bus in enumerate(found)}


def _bus(machine: MachineData, bus: str, numbers: dict[str, int]) -> list[bytes]:
    """What a bus has in its node: slots, and the methods that tell of cards which come and go."""
    on_bus = {
        parts.slot(device)[0]: device
        for device in reversed(machine["devices"])
        if device.get("bus") == bus and device.get("addr") and parts.slot(device)[1] == 0
    }
    pluggable = bus in numbers
    body = [aml.name("BSEL", numbers[bus])] if pluggable else []
    told, behind = [], []
    for number in range(32) if pluggable else sorted(on_bus):
        device = on_bus.get(number)
        inside = _label(number) if pluggable else []
        inside += _inside(machine, device["driver"]) if device is not None else []
        for name in _buses_behind(device):
            if device is not None and name in numbers:
                inside += _bus(machine, name, numbers)
                behind.append((machine["devices"].index(device), number))
        if pluggable and (device is None or device["driver"] not in FIXED):
            told.append(aml.when(aml.bit_and(ARG0, 1 << number), aml.notify(_name(number), ARG1)))
            eject = aml.method("_EJ0", 1, aml.call("PCEJ", "BSEL", "_SUN"))
            inside += [aml.name("_SUN", number), eject]
        body.append(aml.device(_name(number), aml.name("_ADR", number << 16), *inside))
    scan: list[bytes] = []
    if pluggable:
        body.append(aml.method("DVNT", 2, *told))
        scan = [aml.store(numbers[bus], "BNUM"), aml.call("DVNT", "PCIU", 1), aml.call("DVNT", "PCID", 3)]
    scan += [aml.call(f"^{_name(number)}.PCNT") for _, number in sorted(behind, reverse=True)]
    if hotplug(machine):
        body.append(aml.method("PCNT", 0, *scan))
    return body


def _buses_behind(device: DeviceRow | None) -> list[str]:
    provides = (device.get("provides") or {}) if device is not None else {}
    return [name for name, kind in provides.items() if kind == "PCI"]


def _name(number: int) -> str:
    return f"S{8 * number:02X}"


def _label(number: int) -> list[bytes]:
    place = aml.store(aml.package("BSEL", "ASUN"), LOCAL0)
    answer = aml.give(aml.call("PDSM", ARG0, ARG1, ARG2, ARG3, LOCAL0))
    return [aml.name("ASUN", number), aml.method("_DSM", 4, place, answer, serialized=True)]


def _inside(machine: MachineData, driver: str) -> list[bytes]:
    """What a function has in its node beside its place."""
    if driver == "PIIX3":
        return isa_bridge(machine)
    if driver in parts.DISPLAYS:
        # A display keeps working in every sleep state but qxl's, which must be set up again.
        states = {1: 0, 2: 0, 3: 3 if driver == "qxl-vga" else 0}
        return [aml.method(f"_S{n}D", 0, aml.give(state)) for n, state in states.items()]
    return []
