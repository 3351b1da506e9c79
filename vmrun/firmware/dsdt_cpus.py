"""Processors in the DSDT, with hot-plug, in the two forms that the machine's registers at 0xaf00 have.

`bitmap` (pc-i440fx-2.6 and older): a bit per APIC id; the tables remember who was there. `registers` (2.7 and
newer): one processor is selected, then asked about and told to; _INI switches the device over to them.
Ref: QEMU docs/specs/acpi_cpu_hotplug.rst; ACPI specification 6.4, 8.4.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError
from vmrun.firmware import aml, parts
from vmrun.firmware.aml import ARG0, ARG1, ARG2, LOCAL0, LOCAL1, LOCAL3

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.config.sections import MachineData

CPU_HOTPLUG, BITMAP_SIZE, REGISTERS_SIZE = 0xAF00, 32, 12
INSERTED, EJECT_ASKED = 1, 3  # values of Notify
NEXT_EVENT, OST_EVENT, OST_STATUS = 0, 1, 2  # commands: what CDAT means then
LOCAL_APIC_IDS = 255  # from here on ids only fit into x2APIC entries
UID_ANY = 0xFFFFFFFF


def processors(machine: MachineData) -> bytes:
    """The scope of the processors and the event that makes the guest look at them again."""
    if machine["firmware"].get("acpi-settings", {}).get("legacy-cpu-hotplug", True):
        return _bitmap(machine) + aml.method("\\_GPE._E02", 0, aml.call("\\_SB.PRSC"))
    return _registers(machine) + aml.method("\\_GPE._E02", 0, aml.call("\\_SB.CPUS.CSCN"))


def madt_entry(index: int, apic_id: int, enabled: bool) -> bytes:
    """How the MADT and _MAT name a processor: local APIC, or x2APIC where the id needs it."""
    if apic_id < LOCAL_APIC_IDS:
        return struct.pack("<BBBBI", 0, 8, index, apic_id, enabled)
    return struct.pack("<BBHIII", 9, 16, 0, apic_id, enabled, index)


def _ports(size: int) -> bytes:
    return aml.name("_CRS", aml.resources(aml.io(CPU_HOTPLUG, CPU_HOTPLUG, 1, size)))


# --- the bitmap ------------------------------------------------------


def _bitmap(machine: MachineData) -> bytes:
    """Processors by APIC id: CPON says who is there, PRS is the bitmap that the machine keeps."""
    ids = parts.apic_ids(machine)
    present = {ids[index] for index in parts.present(machine["cpus"])}
    limit = max(ids) + 1
    if limit > 8 * BITMAP_SIZE:
        raise BuildError(
            f"the highest APIC id is {limit - 1}, and processors of this machine type have ids below {8 * BITMAP_SIZE}",
            remedy="fewer processors, or cores and threads that are powers of two",
            path="cpus",
        )
    body = [
        aml.method(
            "CPMA",
            2,
            aml.store(aml.value_at("CPON", ARG0), LOCAL0),
            aml.store(aml.buffer(madt_entry(0, 0, False)), LOCAL1),
            aml.store(ARG1, aml.element(LOCAL1, 2)),
            aml.store(ARG0, aml.element(LOCAL1, 3)),
            aml.store(LOCAL0, aml.element(LOCAL1, 4)),
            aml.give(LOCAL1),
        ),
        aml.method("CPST", 1, aml.when(aml.value_at("CPON", ARG0), aml.give(0x0F)), aml.give(0)),
        aml.method("CPEJ", 2, aml.sleep(200)),
        _bitmap_scan(),
        aml.device(
            "PCI0.PRES",
            aml.name("_HID", aml.eisaid("PNP0A06")),
            aml.name("_UID", aml.text("CPU Hotplug resources")),
            aml.name("_STA", 0x0B),
            _ports(BITMAP_SIZE),
        ),
        aml.region("PRST", aml.SYSTEM_IO, CPU_HOTPLUG, BITMAP_SIZE),
        aml.field("PRST", aml.BYTE_ACCESS, ("PRS", 8 * BITMAP_SIZE)),
    ]
    for index, id in enumerate(ids):
        methods = (
            aml.method("_MAT", 0, aml.give(aml.call("CPMA", id, index))),
            aml.method("_STA", 0, aml.give(aml.call("CPST", id))),
            aml.method("_EJ0", 1, aml.call("CPEJ", id, ARG0)),
        )
        body.append(aml.processor(f"CP{id:02X}", index, *methods))
    asked = [aml.when(aml.equal(ARG0, id), aml.notify(f"CP{id:02X}", ARG1)) for id in ids]
    body.append(aml.method("NTFY", 2, *asked))
    body.append(aml.name("CPON", aml.package(*(int(id in present) for id in range(limit)))))
    return aml.scope("_SB", *body)


def _bitmap_scan() -> bytes:
    """PRSC: compare the bitmap with CPON and tell of every difference."""
    byte = aml.value_at(LOCAL3, aml.shift_right(LOCAL0, 3))
    there = aml.bit_and(aml.shift_right(byte, aml.bit_and(LOCAL0, 7)), 1, LOCAL1)
    told = (
        aml.store(LOCAL1, aml.element("CPON", LOCAL0)),
        aml.when(LOCAL1, aml.call("NTFY", LOCAL0, INSERTED)),
        aml.otherwise(aml.call("NTFY", LOCAL0, EJECT_ASKED)),
    )
    changed = aml.invert(aml.equal(aml.value_at("CPON", LOCAL0), LOCAL1))
    body = (there, aml.when(changed, *told), aml.increment(LOCAL0))
    bitmap = aml.store("PRS", LOCAL3)
    return aml.method(
        "PRSC", 0, bitmap, aml.store(0, LOCAL0), aml.loop(aml.less(LOCAL0, aml.size_of("CPON")), *body)
    )


# --- the registers ------------------------------------------------------

_REGISTERS = "\\_SB.PCI0.PRES"


def _register(name: str) -> str:
    return f"{_REGISTERS}.{name}"


def _registers(machine: MachineData) -> bytes:
    """Processors by index. CSEL selects one; CPEN, CINS and CRMV tell of it, CCMD and CDAT give orders."""
    ids = parts.apic_ids(machine)
    flags = (("", 32), ("CPEN", 1), ("CINS", 1), ("CRMV", 1), ("CEJ0", 1), ("CEJF", 1), ("", 3), ("CCMD", 8))
    resources = aml.device(
        _REGISTERS,
        aml.name("_HID", aml.eisaid("PNP0A06")),
        aml.name("_UID", aml.text("CPU Hotplug resources")),
        aml.mutex("CPLK"),
        _ports(REGISTERS_SIZE),
        aml.region("PRST", aml.SYSTEM_IO, CPU_HOTPLUG, REGISTERS_SIZE),
        aml.field("PRST", aml.BYTE_ACCESS, *flags, update=aml.WRITE_AS_ZEROS),
        aml.field("PRST", aml.DWORD_ACCESS, ("CSEL", 32), ("", 32), ("CDAT", 32)),
        aml.method("_INI", 0, aml.store(0, "CSEL"), serialized=True),
    )
    asked = [aml.when(aml.equal(ARG0, n), aml.notify(f"C{n:03X}", ARG1)) for n in range(len(ids))]
    nodes = parts.nodes_of_processors(machine)
    container = aml.device(
        "\\_SB.CPUS",
        aml.name("_HID", aml.text("ACPI0010")),
        aml.name("_CID", aml.eisaid("PNP0A05")),
        aml.method("CTFY", 2, *asked),
        *_register_methods(len(ids)),
        *(_selected_processor(index, id, nodes.get(index)) for index, id in enumerate(ids)),
    )
    return aml.scope("_SB", resources, container)


def _locked(*body: bytes) -> tuple[bytes, ...]:
    """With the registers to oneself, on the processor ARG0."""
    lock = _register("CPLK")
    return aml.acquire(lock), aml.store(ARG0, _register("CSEL")), *body, aml.release(lock)


def _register_methods(count: int) -> list[bytes]:
    enabled = aml.when(_register("CPEN"), aml.store(0x0F, LOCAL0))
    told = (
        aml.store(OST_EVENT, _register("CCMD")),
        aml.store(ARG1, _register("CDAT")),
        aml.store(OST_STATUS, _register("CCMD")),
        aml.store(ARG2, _register("CDAT")),
    )
    return [
        aml.method("CSTA", 1, *_locked(aml.store(0, LOCAL0), enabled), aml.give(LOCAL0), serialized=True),
        aml.method("CEJ0", 1, *_locked(aml.store(1, _register("CEJ0"))), serialized=True),
        _register_scan(count),
        aml.method("COST", 4, *_locked(*told), serialized=True),
    ]


def _register_scan(count: int) -> bytes:
    """CSCN: from the first processor on, ask for the next one with an event, tell of it and clear it. The
    search begins anew at the first when it has passed the last, which ends it.
    """
    lock, selected, found = _register("CPLK"), _register("CSEL"), _register("CDAT")
    inserted, removing = _register("CINS"), _register("CRMV")
    look = (
        aml.store(LOCAL0, selected),
        aml.store(NEXT_EVENT, _register("CCMD")),
        aml.store(found, LOCAL1),
        aml.when(aml.less(LOCAL1, LOCAL0), aml.leave()),
        aml.store(LOCAL1, LOCAL0),
    )
    tell = (
        aml.when(inserted, aml.call("CTFY", LOCAL0, INSERTED), aml.store(1, inserted)),
        aml.otherwise(
            aml.when(removing, aml.call("CTFY", LOCAL0, EJECT_ASKED), aml.store(1, removing)),
            aml.otherwise(aml.leave()),
        ),
    )
    every = aml.loop(aml.less(LOCAL0, count), *look, *tell, aml.increment(LOCAL0))
    return aml.method(
        "CSCN", 0, aml.acquire(lock), aml.store(0, LOCAL0), every, aml.release(lock), serialized=True
    )


def _selected_processor(index: int, apic_id: int, node: int | None) -> bytes:
    name = f"C{index:03X}"
    body = [
        aml.method("_STA", 0, aml.give(aml.call("CSTA", index)), serialized=True),
        aml.name("_MAT", aml.buffer(madt_entry(index, apic_id, True))),
    ]
    if index:  # the first one stays
        body.append(aml.method("_EJ0", 1, aml.call("CEJ0", index)))
    body.append(aml.method("_OST", 3, aml.call("COST", index, ARG0, ARG1, ARG2), serialized=True))
    if node is not None:
        body.append(aml.name("_PXM", node))
    if apic_id < LOCAL_APIC_IDS:
        return aml.processor(name, index, *body)
    return aml.device(name, aml.name("_HID", aml.text("ACPI0007")), aml.name("_UID", index), *body)
