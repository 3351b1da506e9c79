"""Memory modules in the DSDT: the slots' registers at 0xa00, a device for each slot, and the event that makes the guest
look at them again.

Names and ids are QEMU's. Ref: QEMU docs/specs/acpi_mem_hotplug.rst; ACPI specification 6.4, 9.11.
"""

from __future__ import annotations

from vmrun.firmware import aml, parts
from vmrun.firmware.aml import ARG0, ARG1, ARG2, LOCAL0

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.config.sections import MachineData

PORTS, SIZE = 0xA00, 0x18
CAME, EJECT_ASKED = 1, 3  # values of Notify
WHOLE = 0xFFFFFFFFFFFFFFFF


def memory_modules(machine: MachineData) -> list[bytes]:
    """Nothing for a machine without slots."""
    count = parts.memory_slots(machine)
    if not count:
        return []
    registers = aml.device(
        "\\_SB.PCI0.MHPD",
        aml.name("_HID", aml.text("PNP0A06")),
        aml.name("_UID", aml.text("Memory hotplug resources")),
        aml.name("_CRS", aml.resources(aml.io(PORTS, PORTS, 0, SIZE))),
        aml.region("HPMR", aml.SYSTEM_IO, PORTS, SIZE),
    )
    region = "\\_SB.PCI0.MHPD.HPMR"
    told = [aml.when(aml.equal(ARG0, n), aml.notify(_name(n), ARG1)) for n in range(count)]
    modules = aml.device(
        "\\_SB.MHPC",
        aml.name("_HID", aml.text("PNP0A06")),
        aml.name("_UID", aml.text("DIMM devices")),
        aml.name("MDNR", count),
        aml.field(region, aml.DWORD_ACCESS, *((name, 32) for name in ("MRBL", "MRBH", "MRLL", "MRLH", "MPX"))),
        aml.field(
            region,
            aml.BYTE_ACCESS,
            *(("", 8 * 0x14), ("MES", 1), ("MINS", 1), ("MRMV", 1), ("MEJ", 1)),
            update=aml.WRITE_AS_ZEROS,
        ),
        aml.field(region, aml.DWORD_ACCESS, ("MSEL", 32), ("MOEV", 32), ("MOSC", 32)),
        aml.method("_STA", 0, aml.give(0x0B)),
        aml.mutex("MLCK"),
        _scan(),
        _method("MRST", 1, aml.store(0, LOCAL0), aml.when("MES", aml.store(0x0F, LOCAL0)), answer=LOCAL0),
        _resources(),
        _method("MPXM", 1, aml.store("MPX", LOCAL0), answer=LOCAL0),
        _method("MOST", 4, aml.store(ARG1, "MOEV"), aml.store(ARG2, "MOSC")),
        _method("MEJ0", 2, aml.store(1, "MEJ")),
        *map(_module, range(count)),
        aml.method("MTFY", 2, *told),
    )
    return [registers, modules, aml.method("\\_GPE._E03", 0, aml.call("\\_SB.MHPC.MSCN"))]


def _name(number: int) -> str:
    return f"MP{number:02X}"


def _module(number: int) -> bytes:
    """A slot. Its _UID is text, which the methods take as a number."""

    def method(name: str, arguments: int, *body: bytes) -> bytes:
        return aml.method(name, arguments, *body)

    return aml.device(
        _name(number),
        aml.name("_UID", aml.text(f"0x{number:02X}")),
        aml.name("_HID", aml.eisaid("PNP0C80")),
        method("_CRS", 0, aml.give(aml.call("MCRS", "_UID"))),
        method("_STA", 0, aml.give(aml.call("MRST", "_UID"))),
        method("_PXM", 0, aml.give(aml.call("MPXM", "_UID"))),
        method("_OST", 3, aml.call("MOST", "_UID", ARG0, ARG1, ARG2)),
        method("_EJ0", 1, aml.call("MEJ0", "_UID", ARG0)),
    )


def _method(name: str, arguments: int, *body: bytes, answer: bytes | None = None) -> bytes:
    """With the registers to oneself, on the slot ARG0."""
    select = aml.store(aml.to_integer(ARG0), "MSEL")
    end = [aml.give(answer)] if answer is not None else []
    return aml.method(name, arguments, aml.acquire("MLCK"), select, *body, aml.release("MLCK"), *end)


def _scan() -> bytes:
    """Tell of every slot whose module came or is asked for, and clear that."""
    look = (
        aml.store(LOCAL0, "MSEL"),
        aml.when("MINS", aml.call("MTFY", LOCAL0, CAME), aml.store(1, "MINS")),
        aml.otherwise(aml.when("MRMV", aml.call("MTFY", LOCAL0, EJECT_ASKED), aml.store(1, "MRMV"))),
        aml.increment(LOCAL0),
    )
    every = aml.loop(aml.less(LOCAL0, "MDNR"), *look)
    return aml.method("MSCN", 0, aml.acquire("MLCK"), aml.store(0, LOCAL0), every, aml.release("MLCK"), aml.give(1))


def _resources() -> bytes:
    """MCRS(slot): the module's range as a 64-bit descriptor, which all systems with memory hot-plug read."""
    template = aml.resources(aml.qword_memory(0, WHOLE - 1, cacheable=True))
    fields = [aml.dword_field(name, "MR64", offset) for name, offset in _FIELDS.items()]
    base = (aml.store("MRBL", "MINL"), aml.store("MRBH", "MINH"), aml.store("MRLL", "LENL"), aml.store("MRLH", "LENH"))
    # last = first + length - 1, in halves of 32 bits: revision 1 tables know no longer numbers
    sums = (
        aml.add("MINL", "LENL", "MAXL"),
        aml.add("MINH", "LENH", "MAXH"),
        aml.when(aml.less("MAXL", "MINL"), aml.increment("MAXH")),
        aml.when(aml.equal("MAXL", 0), aml.subtract("MAXH", 1, "MAXH")),
        aml.subtract("MAXL", 1, "MAXL"),
    )
    select = aml.store(aml.to_integer(ARG0), "MSEL")
    body = (aml.name("MR64", template), *fields, *base, *sums)
    return aml.method(
        "MCRS", 1, aml.acquire("MLCK"), select, *body, aml.release("MLCK"), aml.give("MR64"), serialized=True
    )


# halves of the descriptor's first address, length and last address
_FIELDS = {"MINL": 0x0E, "MINH": 0x12, "LENL": 0x26, "LENH": 0x2A, "MAXL": 0x16, "MAXH": 0x1A}
