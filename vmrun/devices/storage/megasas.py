"""megasas and megasas-gen2: MegaRAID SAS controllers, each unit of whose bus is a logical disk; with `use_jbod` each is
shown as the disk that it is.

Ref: LSI's MegaRAID Firmware Interface, as the drivers of Linux, FreeBSD and OpenBSD publish its structures.

Not modelled: arrays that are made and changed (configurations are told as they are), the battery, patrol reads, logs
beyond the number of the last event.
"""

from __future__ import annotations

import struct

from vmrun.bus.pci import Msi, Msix, PciDevice
from vmrun.bus.pci.capability import Capability
from vmrun.bus.scsi import ScsiBus
from vmrun.core.interfaces import BusOwner
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.storage.megasas_chip import MegasasChip, MegasasRegisters
from vmrun.devices.storage.scsi import ScsiUnits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.space import Region as _Region

    from vmrun.core.platform import Platform

OK, INVALID_DCMD, INVALID_PARAMETER, NO_DEVICE = 0x00, 0x02, 0x03, 0x0C
MOST_LOGICAL, MOST_TARGET = 64, 127
MOST_SECTORS = 0xFFFF
VECTORS = 15
REGISTERS, PORTS, QUEUE = 0x4000, 0x100, 0x40000
MSI_AT, MSIX_AT, EXPRESS_AT = 0x50, 0x68, 0xA0
TABLE, PENDING = 0x2000, 0x3800
LD_CREATED, LD_DELETED, PD_INSERTED, PD_REMOVED = 0x008A, 0x008B, 0x005B, 0x0070
OPTIMAL, ONLINE, SYSTEM = 3, 0x18, 0x40
TO_HOST = 5
WWN = 0x1221 << 48  # of a controller that was given no address
ON_OFF = ("auto", "on", "off")


class Express(Capability):
    """The PCI Express capability of a legacy endpoint that sits on a conventional bus."""

    def __init__(self) -> None:
        body = bytearray(0x3A)
        for at, word in ((0, 0x0002), (2, 0x8000), (10, 0x0411), (0x10, 0x0011), (0x24, 0x0030)):
            struct.pack_into("<H", body, at, word)
        super().__init__(0x10, bytes(body))


@register("megasas", description="LSI MegaRAID SAS 1078")
class Megasas(PciDevice, BusOwner):
    vendor_id, device_id, class_code = 0x1000, 0x0060, 0x010400
    subsystem_vendor_id, subsystem_id = 0x1000, 0x1013
    interrupt_pin = 1
    provides = ("SCSI",)
    interrupt = 0x80000001  # OSTS while one is pending
    product, product_version = "MegaRAID SAS 8708EM2", "20.10-1-0001"
    bars_at = (0, 2)  # registers, ports

    state = PciDevice.state.extend("megasas", 1, Part("chip"))

    max_sge = Prop("uint32", 80, "pieces of memory of one command", min=1)
    max_cmds = Prop("uint32", 1000, "commands at a time", min=1, max=2048)
    hba_serial = Prop("str", None, "serial number of the controller")
    sas_address = Prop("uint64", 0, "of the controller's port, 0 for one by its place on the bus")
    msi = Prop("enum", "auto", "message-signalled interrupts", choices=ON_OFF)
    msix = Prop("enum", "auto", "interrupts by MSI-X", choices=ON_OFF)
    use_jbod = Prop("bool", False, "disks are shown as they are, not as logical disks")

    def make_buses(self, names: list[str], platform: Platform) -> None:
        self.units = ScsiUnits(True, platform.hw_version.encode()[:3].ljust(4, b"\0"))
        for name in names:
            self.buses[name] = ScsiBus(name, platform, self.units, targets=MOST_TARGET, luns=255)

    def pci_realize(self, platform: Platform) -> None:
        from accel.space import Region

        self.config.set_word(0x2C, self.subsystem_vendor_id)
        pieces = 80 if self.max_sge >= 80 else 16
        self.chip = MegasasChip(self.dma, self.intx, self.units, self.max_cmds, pieces, self.interrupt)
        self.chip.jbod, self.chip.manage = bool(self.use_jbod), self._manage
        bar = Region.container(f"{self.name}.registers", REGISTERS)
        bar.add(Region.device("megasas", MegasasRegisters(self.chip), REGISTERS), 0)
        if self.msi != "off":
            made = Msi(1, True, False)
            self.add_capability(made, MSI_AT)
            self.chip.msi = made.chip
        self._add_more(bar)
        if self.msix != "off":
            table = Msix(VECTORS, self.bars_at[0], TABLE, self.bars_at[0], PENDING)
            self.add_capability(table, MSIX_AT)
            table.show(bar)
            self.chip.msix = table.chip
        self._add_last()
        self.add_bar(self.bars_at[0], bar, REGISTERS, "mem64")
        self.add_bar(self.bars_at[1], MegasasRegisters(self.chip), PORTS, "io")
        self.add_bar(3, Region.container(f"{self.name}.queue", QUEUE), QUEUE, "mem64")
        for bus in self.buses.values():
            bus.appeared, bus.leaving = self._appeared, self._left

    def _add_more(self, bar: _Region) -> None:
        """Capabilities between MSI and MSI-X."""

    def _add_last(self) -> None:
        """And behind."""

    def unrealize(self) -> None:
        self.chip.reset()
        super().unrealize()

    # --- units ------------------------------------------------------------------------------------------------

    def _disks(self) -> list[Any]:
        """Units that are shown, in the order of their targets."""
        return sorted((unit for unit in self.units.members if not unit.lun), key=lambda unit: unit.target)

    def _address(self, unit: Any = None) -> int:
        base = self.sas_address or WWN | self.devfn << 16
        return base if unit is None else base | (unit.target + 1) << 8

    def _appeared(self, unit: Any) -> None:
        self._tell(unit, PD_INSERTED if self.use_jbod else LD_CREATED)

    def _left(self, unit: Any) -> None:
        """Told when it is no longer on the list of disks."""
        self.platform.call_soon(lambda: self._tell_locked(unit))

    def _tell_locked(self, unit: Any) -> None:
        with self.platform.lock:
            self._tell(unit, PD_REMOVED if self.use_jbod else LD_DELETED)

    def _tell(self, unit: Any, code: int) -> None:
        """An event: sequence number, time, code, class and locale, then which disk."""
        locale = 0x0002 if self.use_jbod else 0x0001
        head = struct.pack("<IIIHBbB15x", 0, 0, code, locale, 0, 0, 0)
        self.chip.event((head + bytes(96) + f"disk {unit.target}".encode()).ljust(256, b"\0"))

    # --- management -------------------------------------------------------------------------------------------

    def _manage(self, opcode: int, mailbox: bytes, data: bytes, room: int) -> tuple[int, bytes] | None:
        """The answer to a DCMD: (status, data); None: when something happens. The device lock is held."""
        chip = self.chip
        if opcode == 0x01040500:  # wait for an event
            return None
        answer = {
            0x01010000: self._controller,
            0x01020100: self._properties,
            0x01040100: lambda: struct.pack("<5I", chip.events, 0, 0, 0, chip.boot_event),
            0x01080101: lambda: bytes(8),
            0x010E0201: lambda: bytes(128),
            0x02010000: self._disk_list,
            0x03010000: self._logical_list,
        }.get(opcode)
        if answer is not None:
            return OK, answer()
        if opcode == 0x02010100:  # disks, by a question
            wanted = self.use_jbod or not int.from_bytes(mailbox[:2], "little")
            return OK, self._disk_list() if wanted else struct.pack("<II", 8, 0)
        if opcode == 0x03010100:  # logical disks, by a question
            return OK, self._logical_targets()
        if opcode == 0x02020000:
            return self._about_disk(int.from_bytes(mailbox[:2], "little"))
        if opcode in (0x03020000, 0x03030000):
            return self._about_logical(mailbox[0], opcode == 0x03030000)
        if opcode in (0x01020200, 0x01050000, 0x01060000, 0x01080102, 0x010D0000, 0x01101000, 0x03040000, 0x08000000,
                      0x08010100, 0x08010200):  # fmt: skip
            return OK, b""  # settings, shutdown, caches, clusters: taken
        return INVALID_DCMD, b""

    def _properties(self) -> bytes:
        return struct.pack(
            "<4H14BH8BI28x",
            *(0, 300, 16, 50, 30, 30, 30, 30, 30, 4, 2, 6, 0, 0, 0, 0, 0, 15, 1440, 0, 1, 0, 0, 0, 0, 0, 0, 0),
        ).ljust(64, b"\0")

    def _controller(self) -> bytes:
        data = bytearray(2048)

        def put(at: int, form: str, *values: Any) -> None:
            struct.pack_into("<" + form, data, at, *values)

        disks = self._disks()
        put(0, "4H", self.vendor_id, self.device_id, self.subsystem_vendor_id, self.subsystem_id)
        put(32, "B6xBQ", 0x02, 1, self._address())  # PCI Express
        ports = [self._address(unit) for unit in disks[:8]]
        put(104, "B6xB8Q", 0x02, len(ports), *ports, *[0] * (8 - len(ports)))
        put(176, "II8s32s16s16s", 1, 1, b"APP", self.product_version.encode(), b"Apr 01 2010", b"12:00:00")
        logical = 0 if self.use_jbod else len(disks)
        serial = (self.hba_serial or "QEMU123456").encode("ascii", "replace")
        put(1340, "4B80s32s", 32, 8, 128, MOST_LOGICAL, self.product.encode(), serial)
        put(1456, "IIHHI", 0x16, 0, self.max_cmds, self.chip.pieces, MOST_SECTORS)
        put(1472, "7H", logical, 0, 0, len(disks) + 1, len(disks), 0, 0)
        put(1486, "5HBBH", 32, 512, 16, 0, 0, 0, 0, 42)
        put(1500, "III2B2xIIB", 1, 0x1F, 0x7, 3, 16, 0x7, 0, 0)
        data[1536:1600] = self._properties()
        put(1600, "96s", f"{self.product_version}-vmrun".encode())
        return bytes(data)

    def _disk_list(self) -> bytes:
        rows = b"".join(
            struct.pack("<HHBBBBQQ", unit.target, 0xFFFF, 0, unit.target & 0xFF, 0, 1, self._address(unit), 0)
            for unit in self._disks()
        )
        return struct.pack("<II", 8 + len(rows), len(rows) // 24) + rows

    def _logical(self) -> list[Any]:
        return [] if self.use_jbod else [unit for unit in self._disks() if unit.target < MOST_LOGICAL]

    def _logical_list(self) -> bytes:
        rows = [struct.pack("<BBHB3xQ", unit.target, 0, 0, OPTIMAL, _sectors(unit)) for unit in self._logical()]
        return struct.pack("<II", len(rows), 0) + b"".join(rows).ljust(16 * MOST_LOGICAL, b"\0")

    def _logical_targets(self) -> bytes:
        targets = bytes(unit.target for unit in self._logical())
        return struct.pack("<II3x", 11 + len(targets), len(targets)) + targets.ljust(MOST_LOGICAL, b"\0")

    def _about_disk(self, number: int) -> tuple[int, bytes]:
        unit = next((unit for unit in self._disks() if unit.target == number), None)
        if unit is None:
            return NO_DEVICE, b""
        data = bytearray(512)
        inquiry, page = unit.standard_inquiry(), unit.vital_page(0x83)[:64]
        data[4 : 4 + len(inquiry)], data[100 : 100 + len(page)] = inquiry, page
        sectors = _sectors(unit)
        struct.pack_into("<HH", data, 0, number, 0)
        struct.pack_into("<H", data, 184, SYSTEM if self.use_jbod else ONLINE)
        struct.pack_into("<B7xQ", data, 192, 1, self._address(unit))
        struct.pack_into("<QQQHBB", data, 232, sectors, sectors, sectors, 0xFFFF, 0, number & 0xFF)
        return OK, bytes(data)

    def _about_logical(self, target: int, properties: bool) -> tuple[int, bytes]:
        unit = next((unit for unit in self._logical() if unit.target == target), None)
        if unit is None:
            return NO_DEVICE, b""
        data = bytearray(384)
        data[0] = target
        struct.pack_into("<BBBBBBBBB", data, 32, 0, 0, 0, 3, 1, 1, OPTIMAL, 0, 1)
        struct.pack_into("<QQH", data, 64, 0, _sectors(unit), target)
        struct.pack_into("<Q", data, 256, _sectors(unit))
        return OK, bytes(data[:32]) if properties else bytes(data)


def _sectors(unit: Any) -> int:
    return int(unit.drive.size) // 512


@register("megasas-gen2", description="LSI MegaRAID SAS 2108")
class MegasasGen2(Megasas):
    device_id, subsystem_id = 0x0079, 0x9261
    interrupt = 0x00000001
    product, product_version = "LSI MegaRAID SAS 9260-8i", "12.12.0-0045"
    bars_at = (1, 0)

    max_cmds = Prop("uint32", 1008, "commands at a time", min=1, max=2048)

    def _add_last(self) -> None:
        self.add_capability(Express(), EXPRESS_AT)
