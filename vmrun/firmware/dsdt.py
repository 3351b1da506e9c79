"""The DSDT of an i440FX machine: the host bridge, interrupt routing, timers, sleep states, and the order of it all.

Processors (`dsdt_cpus`), slots (`dsdt_slots`) and what is behind the ISA bridge (`dsdt_isa`) have files of their own.
Names, ids and addresses are those of QEMU's PC, so that a guest finds the same devices at the same paths;
the methods behind them are vmrun's own. Ref: ACPI specification 6.4, chapters 5, 6, 8 and 9.
"""

from __future__ import annotations

from vmrun.firmware import aml, nvdimm, parts, tpm
from vmrun.firmware.aml import ARG0, LOCAL0, LOCAL1, LOCAL2, LOCAL3
from vmrun.firmware.dsdt_cpus import processors
from vmrun.firmware.dsdt_memory import memory_modules
from vmrun.firmware.dsdt_slots import PCI_HOTPLUG, PCI_HOTPLUG_SIZE, event, hotplug, registers, slots

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.config.sections import MachineData

Window = tuple[int, int]

GPE0 = 0xAFE0
LINKS = ("LNKA", "LNKB", "LNKC", "LNKD")
# PCI slot s, pin p is wired to PIRQ (s + p - 1) & 3: to these links in turn.
ROTATION = ("LNKD", "LNKA", "LNKB", "LNKC")


def dsdt(machine: MachineData, window: Window | None = None) -> bytes:
    """The body of the table, without its header. `window`: 64-bit PCI memory, (first, last) address."""
    body = [_debug(), _pci_root(machine)]
    if hotplug(machine):
        body.append(registers())
    events = [nvdimm.event()] if parts.has_nvdimms(machine) else []
    body += [_routing(), *_hpet(machine), aml.scope("_GPE", aml.name("_HID", aml.text("ACPI0006")), *events)]
    body += [processors(machine), *memory_modules(machine)]
    body += [_resources(machine, window), _sleep(machine), *_fw_cfg(machine), slots(machine), *tpm.crb(machine)]
    if hotplug(machine):
        body.append(event())
    return b"".join(body)


def _debug() -> bytes:
    """DBUG(text) writes to SeaBIOS's debug port."""
    step = (aml.store(aml.value_at(LOCAL0, LOCAL2), "DBGB"), aml.increment(LOCAL2))
    return aml.scope(
        "\\",
        aml.region("DBG", aml.SYSTEM_IO, 0x402, 1),
        aml.field("DBG", aml.BYTE_ACCESS, ("DBGB", 8)),
        aml.method(
            "DBUG",
            1,
            aml.to_hex(ARG0, LOCAL0),
            aml.to_buffer(LOCAL0, LOCAL0),
            aml.subtract(aml.size_of(LOCAL0), 1, LOCAL1),  # all but the final NUL
            aml.store(0, LOCAL2),
            aml.loop(aml.less(LOCAL2, LOCAL1), *step),
            aml.store(0x0A, "DBGB"),
        ),
    )


def _pci_root(machine: MachineData) -> bytes:
    uid = machine["firmware"].get("acpi-settings", {}).get("pci-root-uid", 1)
    root = aml.device(
        "PCI0", aml.name("_HID", aml.eisaid("PNP0A03")), aml.name("_ADR", 0), aml.name("_UID", uid)
    )
    return aml.scope("_SB", root)


# --- PCI interrupt routing ------------------------------------------------------


def _routing() -> bytes:
    current = aml.dword_field("PRRI", "PRR0", 5)
    template = aml.name("PRR0", aml.resources(aml.interrupts(0)))
    links = [_link(name, n) for n, name in enumerate(LINKS)]
    return aml.scope(
        "_SB",
        aml.scope("PCI0", aml.method("_PRT", 0, *_prt())),
        aml.method("IQST", 1, aml.when(aml.bit_and(0x80, ARG0), aml.give(0x09)), aml.give(0x0B)),
        aml.method(
            "IQCR",
            1,
            template,
            current,
            aml.when(aml.less(ARG0, 0x80), aml.store(ARG0, "PRRI")),
            aml.give("PRR0"),
            serialized=True,
        ),
        *links,
        _sci_link(),
    )


def _prt() -> list[bytes]:
    """The table is made when asked for: 128 rows of {slot << 16 | 0xffff, pin, link, 0} would not fit the
    old size.
    """
    rotation = aml.bit_and(aml.add(aml.shift_right(LOCAL1, 2), LOCAL1), 3, LOCAL2)
    choose = [
        aml.when(aml.equal(LOCAL2, n), aml.store(aml.package(0, 0, link, 0), LOCAL3))
        for n, link in enumerate(ROTATION)
    ]
    # The power management function sits on slot 1's pin A with an interrupt of its own.
    choose.append(aml.when(aml.equal(LOCAL1, 4), aml.store(aml.package(0, 0, "LNKS", 0), LOCAL3)))
    address = aml.bit_or(aml.shift_left(aml.shift_right(LOCAL1, 2), 16), 0xFFFF)
    fill = (
        aml.store(address, aml.element(LOCAL3, 0)),
        aml.store(aml.bit_and(LOCAL1, 3), aml.element(LOCAL3, 1)),
        aml.store(LOCAL3, aml.element(LOCAL0, LOCAL1)),
        aml.increment(LOCAL1),
    )
    return [
        aml.store(aml.package(count=128), LOCAL0),
        aml.store(0, LOCAL1),
        aml.loop(aml.less(LOCAL1, 128), rotation, *choose, *fill),
        aml.give(LOCAL0),
    ]


def _link(name: str, n: int) -> bytes:
    """A PIRQ router input: the PIIX3 register says which ISA interrupt it drives; bit 7 turns it off."""
    register = f"PRQ{n}"
    return aml.device(
        name,
        aml.name("_HID", aml.eisaid("PNP0C0F")),
        aml.name("_UID", n),
        aml.name("_PRS", aml.resources(aml.interrupts(5, 10, 11))),
        aml.method("_STA", 0, aml.give(aml.call("IQST", register))),
        aml.method("_DIS", 0, aml.bit_or(register, 0x80, register)),
        aml.method("_CRS", 0, aml.give(aml.call("IQCR", register))),
        aml.method("_SRS", 1, aml.dword_field("PRRI", ARG0, 5), aml.store("PRRI", register)),
    )


def _sci_link() -> bytes:
    return aml.device(
        "LNKS",
        aml.name("_HID", aml.eisaid("PNP0C0F")),
        aml.name("_UID", 4),
        aml.name("_PRS", aml.resources(aml.interrupts(9))),
        aml.method("_STA", 0, aml.give(0x0B)),
        aml.method("_DIS", 0),
        aml.method("_CRS", 0, aml.give("_PRS")),
        aml.method("_SRS", 1),
    )


# --- the board ------------------------------------------------------


def _hpet(machine: MachineData) -> list[bytes]:
    hpet = parts.first(machine, "hpet")
    if hpet is None:
        return []
    base = int(hpet["props"].get("base", 0xFED00000))
    vendor = aml.shift_right("VEND", 16, LOCAL0)
    absent = aml.either(aml.equal(LOCAL0, 0), aml.equal(LOCAL0, 0xFFFF))
    period = aml.either(aml.equal("PRD", 0), aml.greater("PRD", 100_000_000))  # femtoseconds
    return [
        aml.scope(
            "_SB",
            aml.device(
                "HPET",
                aml.name("_HID", aml.eisaid("PNP0103")),
                aml.name("_UID", 0),
                aml.region("HPTM", aml.SYSTEM_MEMORY, base, 0x400),
                aml.field("HPTM", aml.DWORD_ACCESS, ("VEND", 32), ("PRD", 32), lock=True),
                aml.method(
                    "_STA", 0, vendor, aml.when(aml.either(absent, period), aml.give(0)), aml.give(0x0F)
                ),
                aml.name("_CRS", aml.resources(aml.memory32(base, 0x400))),
            ),
        )
    ]


def _occupied(name: str, uid: str, port: int, count: int, hid: bytes) -> bytes:
    """Ports that an operating system must not give to others."""
    return aml.device(
        name,
        aml.name("_HID", hid),
        aml.name("_UID", aml.text(uid)),
        aml.name("_STA", 0x0B),
        aml.name("_CRS", aml.resources(aml.io(port, port, 1, count))),
    )


def _resources(machine: MachineData, window: Window | None) -> bytes:
    """What the host bridge hands on: all buses, ports but its own, the VGA window, the hole below the
    IOAPIC, and a window above 4 GiB.
    """
    below = parts.memory_below_4g(machine)
    windows = [
        aml.word_bus(0, 0xFF),
        aml.io(0xCF8, 0xCF8, 1, 8),
        aml.word_io(0, 0xCF7),
        aml.word_io(0xD00, 0xFFFF),
        aml.dword_memory(0xA0000, 0xBFFFF, cacheable=True),
        *([aml.dword_memory(below, 0xFEBFFFFF)] if below <= 0xFEBFFFFF else []),
    ]
    if window is not None:
        windows.append(aml.qword_memory(*window, cacheable=True))
    windows += tpm.window(machine)
    container = aml.text("PNP0A06")
    body = [_occupied("GPE0", "GPE0 resources", GPE0, 4, container)]
    if hotplug(machine):
        body.append(_occupied("PHPR", "PCI Hotplug resources", PCI_HOTPLUG, PCI_HOTPLUG_SIZE, container))
    return aml.scope("\\_SB.PCI0", aml.name("_CRS", aml.resources(*windows)), *body)


def _sleep(machine: MachineData) -> bytes:
    s3, s4, s4_type = parts.sleep_states(machine)
    states = [("_S3", 1)] * s3 + [("_S4", s4_type)] * s4 + [("_S5", 0)]
    return aml.scope("\\", *(aml.name(state, aml.package(kind, kind, 0, 0)) for state, kind in states))


def _fw_cfg(machine: MachineData) -> list[bytes]:
    device = parts.first(machine, "fw_cfg_io")
    if device is None:
        return []
    base = int(device["props"].get("iobase", 0x510))
    count = 12 if device["props"].get("dma_enabled", False) else 2
    found = aml.device(
        "FWCF",
        aml.name("_HID", aml.text("QEMU0002")),
        aml.name("_STA", 0x0B),
        aml.name("_CRS", aml.resources(aml.io(base, base, 1, count))),
    )
    return [aml.scope("\\_SB.PCI0", found)]
