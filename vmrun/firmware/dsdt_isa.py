"""What is behind the ISA bridge, as the DSDT describes it: a function for each kind of device.

A device that comes new to vmrun gets a function here and a row in `ISA`; its node follows from its properties.
Ref: ACPI specification 6.4, chapters 6 and 9; the names and the order are those of QEMU's PC.
"""

from __future__ import annotations

from vmrun.core.floppies import CODES, limits
from vmrun.firmware import aml, parts, tpm
from vmrun.firmware.aml import ARG0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData


def isa_bridge(machine: MachineData) -> list[bytes]:
    """The PIRQ registers, and what is behind the bridge: by kind, the last of a kind first."""
    registers = aml.field("PCI0.S08.P40C", aml.BYTE_ACCESS, *((f"PRQ{n}", 8) for n in range(4)))
    found = [aml.region("P40C", aml.PCI_CONFIG, 0x60, 4), aml.scope("\\_SB", registers)]
    for drivers, describe in ISA.items():
        devices = [device for device in parts.with_driver(machine, *drivers) if device.get("bus") == "isa.0"]
        for number in range(len(devices), 0, -1):
            driver, props = devices[number - 1]["driver"], devices[number - 1]["props"]
            if driver in IPMI:
                props = {**props, "driver": driver}
            elif driver == "isa-fdc":
                drives = machine.get("floppy-drives")
                props = {**props, "drives": parts.floppy_drives(machine, None).items() if drives is None else drives}
            elif driver == "tpm-tis":
                props = {**props, "version": machine.get("tpm-version", 2)}
            found += describe(props, number)
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
    present = bytearray(16) + b"\2\0\0\0"  # a dword for each drive; the tape drive is never there
    drives = []
    for unit, kind in props["drives"]:
        present[4 * unit] = 1
        tracks, heads, sectors = limits(kind)
        # as INT 13h, function 8 gives them: times, sizes, gaps
        rest = (0xAF, 2, 0x25, 2, 0x12, 0x1B, 0xFF, 0x6C, 0xF6, 0x0F, 8)
        info = aml.package(unit, CODES[kind], tracks, sectors, heads, *rest)
        drives.append(aml.device(f"FLP{'AB'[unit]}", aml.name("_ADR", unit), aml.name("_FDI", info)))
    body = (aml.name("_HID", aml.eisaid("PNP0700")), aml.name("_CRS", crs))
    return [aml.device("FDC0", *body, *drives, aml.name("_FDE", aml.buffer(bytes(present))))]


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


IPMI = {"isa-ipmi-kcs": ("ipmi_kcs", 1, 0xCA2, 2), "isa-ipmi-bt": ("ipmi_bt", 3, 0xE4, 3)}


def _ipmi(props: dict[str, Any], n: int) -> list[bytes]:
    """Ref: IPMI v2.0 rev. 1.1, Appendix C3. The interface's type, and the version of the specification, 2.0."""
    text, kind, usual, count = IPMI[props["driver"]]
    base, irq = int(props.get("ioport") or usual), int(props.get("irq", 5))
    crs = [aml.io(base, base + count - 1, 1, count)] + ([aml.irq(irq)] if irq > 0 else [])
    return [
        aml.device(
            f"MI{n}",
            aml.name("_HID", aml.eisaid("IPI0001")),
            aml.name("_STR", aml.text(text)),
            aml.name("_UID", n),
            aml.name("_CRS", aml.resources(*crs)),
            aml.name("_IFT", kind),
            aml.name("_SRV", 0x0200),
        )
    ]


ISA = {
    tuple(IPMI): _ipmi,
    ("pvpanic",): _pvpanic,
    ("i8042",): _keyboard,
    ("isa-fdc",): _floppy,
    ("isa-parallel",): _parallel,
    ("isa-serial",): _serial,
    ("mc146818rtc",): _rtc,
    ("tpm-tis",): tpm.fifo,
}
