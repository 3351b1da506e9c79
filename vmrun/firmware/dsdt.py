"""The DSDT of an i440FX machine: its devices, interrupt routing, sleep states and hot-plug, as AML.

Names, ids and addresses are those of QEMU's PC, so that a guest finds the same devices at the same paths;
the methods behind them are vmrun's own. Ref: ACPI specification 6.4, chapters 5, 6, 8 and 9.
"""

from __future__ import annotations

from vmrun.firmware import aml, parts
from vmrun.firmware.aml import ARG0, ARG1, ARG2, ARG3, ARG4, LOCAL0, LOCAL1, LOCAL2, LOCAL3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PCI_HOTPLUG, CPU_PRESENT, GPE0 = 0xAE00, 0xAF00, 0xAFE0
LINKS = ("LNKA", "LNKB", "LNKC", "LNKD")
# PCI slot s, pin p is wired to PIRQ (s + p - 1) & 3: to these links in turn.
ROTATION = ("LNKD", "LNKA", "LNKB", "LNKC")
FIXED = ("i440FX", "PIIX3", "pci-bridge", *parts.DISPLAYS)  # slots that cannot be unplugged
LABELING = "e5c937d0-3553-4d7a-9117-ea4d19c3434d"  # _DSM of PCI device labelling


def dsdt(machine: dict[str, Any]) -> bytes:
    """The body of the table, without its header."""
    events = aml.scope("_GPE", aml.name("_HID", aml.text("ACPI0006")))
    body = [_debug(), _pci_root(machine), _routing(), *_hpet(machine), events]
    body += [_processors(machine), aml.method("\\_GPE._E02", 0, aml.call("\\_SB.PRSC"))]
    body += [_resources(machine), _sleep(machine), *_fw_cfg(machine), _slots(machine)]
    scan = (aml.acquire("\\_SB.PCI0.BLCK"), aml.call("\\_SB.PCI0.PCNT"), aml.release("\\_SB.PCI0.BLCK"))
    body.append(aml.scope("_GPE", aml.method("_E01", 0, *scan)))
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


# --- PCI root, hot-plug registers ------------------------------------------------------


def _pci_root(machine: dict[str, Any]) -> bytes:
    uid = machine["firmware"].get("acpi-settings", {}).get("pci-root-uid", 1)
    root = aml.device(
        "PCI0", aml.name("_HID", aml.eisaid("PNP0A03")), aml.name("_ADR", 0), aml.name("_UID", uid)
    )
    return aml.scope("_SB", root) + aml.scope(
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


def _hpet(machine: dict[str, Any]) -> list[bytes]:
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


def _processors(machine: dict[str, Any]) -> bytes:
    """Processors by APIC id, with hot-plug: CPON says who is there, PRS is the bitmap that the machine
    keeps.
    """
    ids = parts.apic_ids(machine)
    present = set(ids[: int(machine["cpus"]["count"])])
    limit = max(ids) + 1
    madt_entry = aml.buffer(bytes([0, 8, 0, 0, 0, 0, 0, 0]))
    body = [
        aml.method(
            "CPMA",
            2,
            aml.store(aml.value_at("CPON", ARG0), LOCAL0),
            aml.store(madt_entry, LOCAL1),
            aml.store(ARG1, aml.element(LOCAL1, 2)),
            aml.store(ARG0, aml.element(LOCAL1, 3)),
            aml.store(LOCAL0, aml.element(LOCAL1, 4)),
            aml.give(LOCAL1),
        ),
        aml.method("CPST", 1, aml.when(aml.value_at("CPON", ARG0), aml.give(0x0F)), aml.give(0)),
        aml.method("CPEJ", 2, aml.sleep(200)),
        _processor_scan(),
        _occupied("PCI0.PRES", "CPU Hotplug resources", CPU_PRESENT, 32, aml.eisaid("PNP0A06")),
        aml.region("PRST", aml.SYSTEM_IO, CPU_PRESENT, 32),
        aml.field("PRST", aml.BYTE_ACCESS, ("PRS", 256)),
    ]
    body += [_processor(index, id) for index, id in enumerate(ids)]
    asked = [aml.when(aml.equal(ARG0, id), aml.notify(f"CP{id:02X}", ARG1)) for id in ids]
    body.append(aml.method("NTFY", 2, *asked))
    body.append(aml.name("CPON", aml.package(*(int(id in present) for id in range(limit)))))
    return aml.scope("_SB", *body)


def _processor(index: int, id: int) -> bytes:
    return aml.processor(
        f"CP{id:02X}",
        index,
        aml.method("_MAT", 0, aml.give(aml.call("CPMA", id, index))),
        aml.method("_STA", 0, aml.give(aml.call("CPST", id))),
        aml.method("_EJ0", 1, aml.call("CPEJ", id, ARG0)),
    )


def _processor_scan() -> bytes:
    """PRSC: compare the bitmap with CPON and tell of every difference."""
    byte = aml.value_at(LOCAL3, aml.shift_right(LOCAL0, 3))
    there = aml.bit_and(aml.shift_right(byte, aml.bit_and(LOCAL0, 7)), 1, LOCAL1)
    told = (
        aml.store(LOCAL1, aml.element("CPON", LOCAL0)),
        aml.when(LOCAL1, aml.call("NTFY", LOCAL0, 1)),
        aml.otherwise(aml.call("NTFY", LOCAL0, 3)),
    )
    changed = aml.invert(aml.equal(aml.value_at("CPON", LOCAL0), LOCAL1))
    body = (there, aml.when(changed, *told), aml.increment(LOCAL0))
    bitmap = aml.store("PRS", LOCAL3)
    return aml.method(
        "PRSC", 0, bitmap, aml.store(0, LOCAL0), aml.loop(aml.less(LOCAL0, aml.size_of("CPON")), *body)
    )


def _occupied(name: str, uid: str, port: int, count: int, hid: bytes) -> bytes:
    """Ports that an operating system must not give to others."""
    return aml.device(
        name,
        aml.name("_HID", hid),
        aml.name("_UID", aml.text(uid)),
        aml.name("_STA", 0x0B),
        aml.name("_CRS", aml.resources(aml.io(port, port, 1, count))),
    )


def _resources(machine: dict[str, Any]) -> bytes:
    """What the host bridge hands on: all buses, ports but its own, the VGA window, the hole below the
    IOAPIC.
    """
    windows = aml.resources(
        aml.word_bus(0, 0xFF),
        aml.io(0xCF8, 0xCF8, 1, 8),
        aml.word_io(0, 0xCF7),
        aml.word_io(0xD00, 0xFFFF),
        aml.dword_memory(0xA0000, 0xBFFFF, cacheable=True),
        aml.dword_memory(parts.memory_below_4g(machine), 0xFEBFFFFF),
    )
    container = aml.text("PNP0A06")
    return aml.scope(
        "\\_SB.PCI0",
        aml.name("_CRS", windows),
        _occupied("GPE0", "GPE0 resources", GPE0, 4, container),
        _occupied("PHPR", "PCI Hotplug resources", PCI_HOTPLUG, 0x18, container),
    )


def _sleep(machine: dict[str, Any]) -> bytes:
    s3, s4, s4_type = parts.sleep_states(machine)
    states = [("_S3", 1)] * s3 + [("_S4", s4_type)] * s4 + [("_S5", 0)]
    return aml.scope("\\", *(aml.name(state, aml.package(kind, kind, 0, 0)) for state, kind in states))


def _fw_cfg(machine: dict[str, Any]) -> list[bytes]:
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


# --- PCI slots and what is on ISA -----------------------------------------------------------------


def _slots(machine: dict[str, Any]) -> bytes:
    on_bus = {
        parts.slot(device)[0]: device
        for device in reversed(machine["devices"])
        if device.get("bus") == "pci.0" and device.get("addr") and parts.slot(device)[1] == 0
    }
    body = [aml.name("BSEL", 0)]
    pluggable = []
    for number in range(32):
        device = on_bus.get(number)
        driver = device["driver"] if device is not None else ""
        inside = _isa_bridge(machine) if driver == "PIIX3" else []
        if driver in parts.DISPLAYS:
            # A display keeps working in every sleep state but qxl's, which must be set up again.
            inside += [
                aml.method(f"_S{n}D", 0, aml.give(3 if n == 3 and driver == "qxl-vga" else 0))
                for n in (1, 2, 3)
            ]
        if driver not in FIXED:
            pluggable.append(number)
            inside += [
                aml.name("_SUN", number),
                aml.method("_EJ0", 1, aml.call("PCEJ", "BSEL", "_SUN")),
            ]
        body.append(_slot(number, inside))
    told = [aml.when(aml.bit_and(ARG0, 1 << n), aml.notify(f"S{8 * n:02X}", ARG1)) for n in pluggable]
    body.append(aml.method("DVNT", 2, *told))
    scan = (aml.store(0, "BNUM"), aml.call("DVNT", "PCIU", 1), aml.call("DVNT", "PCID", 3))
    body.append(aml.method("PCNT", 0, *scan))
    return aml.scope("\\_SB", aml.scope("PCI0", *body))


def _slot(number: int, inside: list[bytes]) -> bytes:
    place = aml.store(aml.package("BSEL", "ASUN"), LOCAL0)
    label = aml.method(
        "_DSM", 4, place, aml.give(aml.call("PDSM", ARG0, ARG1, ARG2, ARG3, LOCAL0)), serialized=True
    )
    return aml.device(
        f"S{8 * number:02X}", aml.name("_ADR", number << 16), aml.name("ASUN", number), label, *inside
    )


def _isa_bridge(machine: dict[str, Any]) -> list[bytes]:
    """The PIRQ registers, and what is behind the bridge: by kind, the last of a kind first."""
    registers = aml.field("PCI0.S08.P40C", aml.BYTE_ACCESS, *((f"PRQ{n}", 8) for n in range(4)))
    found = [aml.region("P40C", aml.PCI_CONFIG, 0x60, 4), aml.scope("\\_SB", registers)]
    for driver, describe in ISA.items():
        devices = [device for device in parts.with_driver(machine, driver) if device.get("bus") == "isa.0"]
        for number in range(len(devices), 0, -1):
            found += describe(devices[number - 1]["props"], number)
    return found


def _present(name: str, hid: str, *crs: bytes, uid: int | None = None) -> bytes:
    body = [aml.name("_HID", aml.eisaid(hid))]
    if uid is not None:
        body.append(aml.name("_UID", uid))
    return aml.device(name, *body, aml.name("_STA", 0x0F), aml.name("_CRS", aml.resources(*crs)))


def _rtc(props: dict[str, Any], n: int) -> list[bytes]:
    base = int(props.get("iobase", 0x70))
    crs = aml.resources(aml.io(base, base, 1, 8), aml.irq(int(props.get("irq", 8))))
    return [aml.device("RTC", aml.name("_HID", aml.eisaid("PNP0B00")), aml.name("_CRS", crs))]


def _keyboard(props: dict[str, Any], n: int) -> list[bytes]:
    ports = (aml.io(0x60, 0x60, 1, 1), aml.io(0x64, 0x64, 1, 1))
    return [
        _present("KBD", "PNP0303", *ports, aml.irq(int(props.get("kbd-irq", 1)))),
        _present("MOU", "PNP0F13", aml.irq(int(props.get("mouse-irq", 12)))),
    ]


def _serial(props: dict[str, Any], n: int) -> list[bytes]:
    base = int(props.get("iobase") or 0x3F8)
    number = {0x3F8: 1, 0x2F8: 2, 0x3E8: 3, 0x2E8: 4}.get(base, n)
    crs = (aml.io(base, base, 0, 8), aml.irq(int(props.get("irq") or 4)))
    return [_present(f"COM{number}", "PNP0501", *crs, uid=number)]


def _parallel(props: dict[str, Any], n: int) -> list[bytes]:
    base = int(props.get("iobase") or 0x378)
    crs = (aml.io(base, base, 8, 8), aml.irq(int(props.get("irq") or 7)))
    return [_present(f"LPT{n}", "PNP0400", *crs, uid=n)]


def _floppy(props: dict[str, Any], n: int) -> list[bytes]:
    ports = (aml.io(0x3F2, 0x3F2, 0, 4), aml.io(0x3F7, 0x3F7, 0, 1))
    crs = aml.resources(*ports, aml.irq(int(props.get("irq", 6))), aml.dma(int(props.get("dma", 2))))
    drives = bytes(16) + bytes([2, 0, 0, 0])  # no drive; a tape drive is never there
    body = (
        aml.name("_HID", aml.eisaid("PNP0700")),
        aml.name("_CRS", crs),
        aml.name("_FDE", aml.buffer(drives)),
    )
    return [aml.device("FDC0", *body)]


def _pvpanic(props: dict[str, Any], n: int) -> list[bytes]:
    port = int(props.get("ioport", 0x505))
    return [
        aml.device(
            "PEVT",
            aml.name("_HID", aml.text("QEMU0001")),
            aml.name("_CRS", aml.resources(aml.io(port, port, 1, 1))),
            aml.region("PEOR", aml.SYSTEM_IO, port, 1),
            aml.field("PEOR", aml.BYTE_ACCESS, ("PEPT", 8)),
            aml.name("_STA", 0x0F),
            aml.method("RDPT", 0, aml.give("PEPT")),
            aml.method("WRPT", 1, aml.store(ARG0, "PEPT")),
        )
    ]


ISA = {
    "pvpanic": _pvpanic,
    "i8042": _keyboard,
    "isa-fdc": _floppy,
    "isa-parallel": _parallel,
    "isa-serial": _serial,
    "mc146818rtc": _rtc,
}
