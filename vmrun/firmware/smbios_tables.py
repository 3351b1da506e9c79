"""SMBIOS tables made by the machine (`form: tables`), for the firmware to put into memory as they are.

Two fw_cfg files: the structures one after another, and the entry point, whose address and checksums the firmware
fills in. Ref: DMTF DSP0134 (System Management BIOS) 2.8; sections 5.2.1 and 7.1 to 7.33.
Structures of the user's own files (`user_tables`) come first, and there are no others of their types.
Not modelled: slots (9).
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError
from vmrun.firmware import parts
from vmrun.firmware.smbios import uuid, uuid_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from vmrun.config.sections import MachineData
    from vmrun.firmware.parts import Processor

Value = int | str | bytes

TABLES, ANCHOR = "etc/smbios/smbios-tables", "etc/smbios/smbios-anchor"
MEBIBYTE, DIMM = 1 << 20, 16 << 30
ARRAY, NO_ERROR_RECORD = 0x1000, 0xFFFE  # handles: of the memory array; "no error information"
UNKNOWN_WIDTH, NO_CACHE = 0xFFFF, 0xFFFF
BIG_ARRAY = 0x80000000  # KiB: from here on the size stands in the extended field
BIG_DIMM = 0x7FFF  # MiB, likewise
POWER_SWITCH = 6  # what woke the system up
SPEED = 2000  # MHz of every processor
IPMI = {"isa-ipmi-kcs": (1, 0xCA2), "isa-ipmi-bt": (3, 0xE4)}  # kind of interface, its usual port
KINDS = ("other", "unknown", "video", "scsi", "ethernet", "tokenring", "sound", "pata", "sata", "sas")
ENABLED = 0x80  # beside the kind of an onboard device
HTT = 1 << 28  # of the feature word: follows from the topology, not from the model


class _Table:
    """Structures while they grow. Strings are numbered from 1 in each structure."""

    def __init__(self, ready: list[bytes]) -> None:
        self.data = b""
        self.count = self.longest = 0
        self.taken: set[int] = set()  # types that `ready` has
        for data in ready:
            self._append(data)
        self.taken = {data[0] for data in ready}

    def add(self, kind: int, form: str, *values: Value, number: int = 0, texts: tuple[str, ...] = ()) -> None:
        """A structure of the fields `form` names (struct's letters): texts become their number. `texts` are
        strings that no field names. Its handle is 0x100 * type + `number`.
        """
        if kind in self.taken:
            return
        strings = list(texts)
        fields: list[int | bytes] = []
        for value in values:
            if isinstance(value, str):
                if value:
                    strings.append(value)
                fields.append(len(strings) if value else 0)
            else:
                fields.append(value)
        body = struct.pack(f"<{form}", *fields)
        data = struct.pack("<BBH", kind, 4 + len(body), (kind << 8) + number) + body
        data += b"".join(text.encode("utf-8", "replace") + b"\0" for text in strings) or b"\0"
        self._append(data + b"\0")

    def _append(self, data: bytes) -> None:
        self.data += data
        self.longest = max(self.longest, len(data))
        self.count += 1

    def entry_point(self) -> bytes:
        if len(self.data) > 0xFFFF:
            raise BuildError(
                f"the SMBIOS tables have {len(self.data)} bytes; at most 65535 are possible",
                code="VR0716",
                path="smbios",
                remedy="shorten the texts, or give the machine fewer processors or less memory",
            )
        head = struct.pack("<4sBBBBHB5x", b"_SM_", 0, 31, 2, 8, self.longest, 0)
        return head + struct.pack("<5sBHIHB", b"_DMI_", 0, len(self.data), 0, self.count, 0x28)


def files(machine: MachineData, processor: Processor) -> dict[str, bytes]:
    """The two files."""
    own, given = machine["firmware"]["smbios"], machine.get("smbios") or {}
    texts = _Texts(own, given)
    table = _Table(_ready(machine))
    if "type0" in given:
        _bios(table, given["type0"])
    _system(table, texts.of(1), uuid(machine), bool(own.get("uuid-encoded", True)))
    if "type2" in given:
        _board(table, texts.of(2))
    _chassis(table, texts.of(3))
    _processors(table, texts.of(4), machine["cpus"], processor)
    for number, port in enumerate((given.get("type8") or {}).get("ports") or ()):
        inside, outside = _named(port, "internal_reference", "external_reference")
        ends = int(port.get("connector_type", 0)), int(port.get("port_type", 0))
        # which connector is inside nobody says; handle 0 and on, as QEMU numbers it
        table.add(8, "BBBBB", inside, 0, outside, *ends, number=number - 0x800)
    if "type11" in given:
        strings = tuple(str(text) for text in given["type11"].get("values") or ())
        some = tuple(text for text in strings if text)
        table.add(11, "B", len(strings), number=0x300, texts=some)  # handle 0xe00, as QEMU numbers it
    _memory(table, texts.of(17), machine)
    table.add(32, "6xB", 0)  # no boot errors detected
    _management(table, machine)
    _onboard(table, (given.get("type41") or {}).get("devices") or (), machine)
    table.add(127, "")
    return {TABLES: table.data, ANCHOR: table.entry_point()}


def _ready(machine: MachineData) -> list[bytes]:
    if not (machine.get("smbios") or {}).get("files"):
        return []
    from vmrun.firmware.user_tables import smbios_structures

    return smbios_structures(machine)


class _Texts:
    """What is said of each structure: the user's words, else those that follow from the type's own."""

    def __init__(self, own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self.given = given
        system = own.get("type1") or {}
        maker = {name: system[name] for name in ("manufacturer", "version") if name in system}
        self.own: dict[int, dict[str, Any]] = {
            1: system,
            2: {**maker, "product": system.get("product", "")},
            3: maker,
            4: {"sock_pfx": "CPU", **maker},
            17: {"loc_pfx": "DIMM", "manufacturer": maker.get("manufacturer", "")},
        }

    def of(self, kind: int) -> dict[str, Any]:
        return {**self.own[kind], **(self.given.get(f"type{kind}") or {})}


def _named(given: Mapping[str, Any], *names: str) -> list[str]:
    return [str(given.get(name, "")) for name in names]


def _values(*values: Value) -> tuple[Value, ...]:
    return values


def _bios(table: _Table, given: Mapping[str, Any]) -> None:
    major, _, minor = str(given.get("release") or "0.0").partition(".")
    vendor, version, date = _named(given, "vendor", "version", "date")
    extension = 0x14 | 0x08 * (str(given.get("uefi", "")).lower() in ("on", "true", "yes"))  # a VM, with this table
    released = (int(major) & 0xFF, int(minor or "0") & 0xFF, 0xFF, 0xFF)
    table.add(0, "BBHBBQBBBBBB", vendor, version, 0xE800, date, 0, 0x08, 0, extension, *released)


def _system(table: _Table, given: Mapping[str, Any], system_id: str | None, encoded: bool) -> None:
    maker, product, version, serial = _named(given, "manufacturer", "product", "version", "serial")
    id = uuid_bytes(system_id)
    if encoded:
        id = id[3::-1] + id[5:3:-1] + id[7:5:-1] + id[8:]
    table.add(1, "BBBB16sBBB", maker, product, version, serial, id, POWER_SWITCH, *_named(given, "sku", "family"))


def _board(table: _Table, given: Mapping[str, Any]) -> None:
    names = _named(given, "manufacturer", "product", "version", "serial", "asset")
    table.add(2, "BBBBBBBHBB", *names, 1, *_named(given, "location"), 0x300, 10, 0)  # a motherboard that hosts


def _chassis(table: _Table, given: Mapping[str, Any]) -> None:
    maker, version, serial, asset, sku = _named(given, "manufacturer", "version", "serial", "asset", "sku")
    table.add(3, "BBBBBBBBBIBBBBB", maker, 1, version, serial, asset, 3, 3, 3, 2, 0, 0, 0, 0, 0, sku)  # all is safe


def _processors(table: _Table, given: Mapping[str, Any], cpus: Mapping[str, Any], processor: Processor) -> None:
    """One for each socket, present or not."""
    cores = int(cpus.get("cores", 1))
    threads = cores * int(cpus.get("threads", 1))
    most = int(cpus.get("maxcpus") or cpus["count"])
    if max(cores, threads) > 0xFF:
        raise BuildError("SMBIOS counts at most 255 cores and threads in a socket", code="VR0704", path="cpus")
    id = int(str(given.get("processor-id") or 0), 0)
    if not id:
        id = processor.version | (processor.features & ~HTT) << 32
    speeds = [int(str(given.get(name) or SPEED), 0) for name in ("max-speed", "current-speed")]
    if not all(0 <= speed <= 0xFFFF for speed in speeds):
        raise BuildError(
            "SMBIOS says a processor's speed in MHz, at most 65535", code="VR0716", path="smbios.type4"
        )
    maker, version = _named(given, "manufacturer", "version")
    for socket in range(-(-most // threads)):
        place = f"{given.get('sock_pfx', 'CPU')}{socket:2x}"
        table.add(
            4,
            "BBBBQBBHHHBBHHHBBBBBBHH",
            *_values(place, 3, 1, maker, id, version, 0, 0, *speeds, 0x41, 1),  # of an unnamed family, enabled
            *_values(NO_CACHE, NO_CACHE, NO_CACHE, *_named(given, "serial", "asset", "part")),
            *_values(cores, cores, threads, 0x02, 1),
            number=socket,
        )


def _management(table: _Table, machine: MachineData) -> None:
    """The interfaces of management controllers, the last first."""
    controllers = {row["id"]: row["props"] for row in parts.with_driver(machine, "ipmi-bmc-sim")}
    for row in reversed(list(parts.with_driver(machine, *IPMI))):
        kind, usual = IPMI[row["driver"]]
        props = row["props"]
        address = int(controllers.get(props.get("bmc"), {}).get("slave_addr", 0x20))
        port, irq = int(props.get("ioport") or usual), max(int(props.get("irq", 5)), 0)
        # IPMI 2.0; no other storage; in I/O space, a byte apart; level-triggered (as QEMU has it)
        table.add(38, "BBBBQBB", kind, 0x20, address, 0, port | 1, 0x01, irq, number=0xA00)  # handle 0x3000


def _onboard(table: _Table, rows: Sequence[Mapping[str, Any]], machine: MachineData) -> None:
    """Devices on the board; those with `pcidev` say where they are on the root bus."""
    devices = {device["id"]: device for device in machine["devices"]}
    for number, row in enumerate(rows):
        kind, device = KINDS.index(str(row.get("kind", "other"))) + 1, devices.get(str(row.get("pcidev")))
        if device is None:
            place = 0
        elif device.get("addr") is None or device["bus"] != "pci.0":
            message = f"SMBIOS type 41: device '{row['pcidev']}' is not on the root bus"
            raise BuildError(message, code="VR0712", path=f"smbios.type41.devices.{number}")
        else:
            slot, function = parts.slot(device)
            place = slot << 3 | function
        name = str(row.get("designation", ""))
        table.add(41, "BBBHBB", name, kind | ENABLED, int(row.get("instance", 1)), 0, 0, place, number=number)


def _memory(table: _Table, given: Mapping[str, Any], machine: MachineData) -> None:
    """The array, its modules of at most 16 GiB, and where they appear."""
    total = int(machine["memory"])
    modules = -(-total // DIMM)
    kib = total >> 10
    big = kib >= BIG_ARRAY
    table.add(16, "BBBIHHQ", 1, 3, 6, BIG_ARRAY if big else kib, NO_ERROR_RECORD, modules, total if big else 0)
    speed = int(str(given.get("speed") or 0), 0) & 0xFFFF
    maker, *names = _named(given, "manufacturer", "serial", "asset", "part")
    for n in range(modules):
        size = -(-min(total - n * DIMM, DIMM) // MEBIBYTE)
        place, bank = f"{given.get('loc_pfx', 'DIMM')} {n}", str(given.get("bank", ""))
        table.add(
            17,
            "HHHHHBBBBBHHBBBBBIHHHH",
            *_values(ARRAY, NO_ERROR_RECORD, UNKNOWN_WIDTH, UNKNOWN_WIDTH, min(size, BIG_DIMM), 9, 0, place, bank),
            *_values(7, 2, speed, maker, *names, 0, size if size >= BIG_DIMM else 0, speed, 0, 0, 0),  # RAM
            number=n,
        )
    for n, (first, last) in enumerate(parts.memory_ranges(machine)):
        if last >> 10 < 0xFFFFFFFF:
            table.add(19, "IIHBQQ", first >> 10, last >> 10, ARRAY, 1, 0, 0, number=n)
        else:
            table.add(19, "IIHBQQ", 0xFFFFFFFF, 0xFFFFFFFF, ARRAY, 1, first, last, number=n)
