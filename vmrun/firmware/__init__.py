"""What the firmware of a machine finds: its image, fw_cfg items and files, CMOS cells, ACPI tables, SMBIOS
fields.

All of it follows from the resolved machine and the types' data; `prepare` hands it to the two devices
concerned.
"""

from __future__ import annotations

from vmrun.errors import BuildError, about
from vmrun.firmware import bootorder, cmos, fwcfg, images, parts
from vmrun.firmware.erst import NOWHERE
from vmrun.firmware.images import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from vmrun.config.sections import MachineData
    from vmrun.firmware.kernel import Boot
    from vmrun.firmware.parts import Processor

NO_FIRMWARE = "none"  # firmware.bios of a machine whose kernel vmrun puts in place itself
PM_BASE = 0x600  # where SeaBIOS since 1.7.5 puts the power management registers when it is given tables


class Prepared:
    """What a machine's firmware was given: for messages, the lock file, and the second boot.

    roms: the option ROM images, by fw_cfg name. warnings: what an image's absence takes away, one sentence
    each. boot: how the firmware starts the machine's kernel.
    """

    def __init__(self, machine: MachineData, fw_cfg: Any, rtc: Any) -> None:
        self.machine, self.fw_cfg, self.rtc = machine, fw_cfg, rtc
        self.items: dict[int, bytes] = {}
        self.files: list[tuple[str, bytes]] = []
        self.cells: dict[int, int] = {}
        self.roms: dict[str, Image] = {}
        self.warnings: list[str] = []
        self.boot: Boot | None = None
        self.processor = parts.Processor()

    def set_boot(self, order: str) -> None:
        """Boot letters, from the next reset on."""
        for index, value in cmos.boot(order, self.machine["boot"].get("floppy-check", True)).items():
            self.cells[index] = value
            self.rtc.set_cmos(index, value)

    def look_again(self, machine: MachineData) -> None:
        """The machine is reset: its boot order is that of the devices that are there now."""
        for name, data in self.of_devices(machine).items():
            self.fw_cfg.add_file(name, data, None, fwcfg.priority(name))

    def of_devices(self, machine: MachineData) -> dict[str, bytes]:
        """The files that tell of what may be booted."""
        kernel_rom = [(0, f"genroms/{self.boot.rom}")] if self.boot is not None else []
        own_roms = [(int(rom.get("bootindex", -1)), fwcfg.rom_name(rom)) for rom in machine["firmware"].get("roms", ())]
        found = {"bootorder": bootorder.bootorder(machine, [*kernel_rom, *own_roms])}
        if machine["firmware"].get("fw_cfg", {}).get("bios-geometry"):
            found["bios-geometry"] = bootorder.geometries(machine)
        return found

    def second_boot(self) -> None:
        """The machine is reset for the second time: `boot.once` has had its turn."""
        boot = self.machine.get("boot", {})
        if boot.get("once"):
            self.set_boot(str(boot.get("order") or "cad"))


def load_bios(machine: MachineData) -> bytes:
    """The firmware image; BuildError when it is missing or cannot be one. `images.load_bios_image` tells
    its digest.
    """
    return images.load_bios_image(machine).data


def prepare(
    platform: Any,
    fw_cfg: Any,
    rtc: Any,
    machine: MachineData,
    *,
    kvm: bool = False,
    files: Mapping[str, bytes] | None = None,
    disk_size: Callable[[str], int] | None = None,
    processor: Processor | None = None,
    kept: Callable[[Any, Callable[[], Any]], Any] = lambda of, make: make(),
) -> Prepared:
    """Fill the fw_cfg device and the CMOS memory. Called once, after all devices are realized.

    fw_cfg: add_bytes(key, data), set_order(by_name), add_file(name, data, callback, order); files come in the
    directory's order, and a callback gives the contents as they are when the guest selects the file.
    rtc: set_cmos(index, value). kvm: KVM runs the machine and has its pages below 4 GiB. files: what devices
    and the user add. disk_size: bytes of a drive by id. processor: what the tables say of the processors.
    kept: kept(of, make) is what make() makes of `of`, perhaps from an earlier run.
    """
    done = Prepared(machine, fw_cfg, rtc)
    done.processor = processor or done.processor
    done.items = fwcfg.items(machine)
    own_tables = _own_tables(machine)
    if own_tables:
        from vmrun.firmware.user_tables import fw_cfg_item

        done.items[fwcfg.ACPI_TABLES] = fw_cfg_item(own_tables)
    if machine.get("kernel") and machine["firmware"]["bios"] != NO_FIRMWARE:
        from vmrun.firmware import kernel

        done.boot = kernel.through_firmware(machine, kernel.read(machine))
        done.items |= done.boot.items
    found = {**fwcfg.files(machine, kvm, done.processor), **_roms(machine, done), **(files or {})}
    own = fwcfg.own_files(machine)
    callbacks: dict[str, Callable[[], bytes]] = {}
    if machine["firmware"].get("acpi") == "tables" and parts.first(machine, "PIIX4_PM") is not None:
        drives = [[unit, kind] for unit, kind in parts.floppy_drives(machine, disk_size).items()]
        more = {"floppy-drives": drives, "own-tables": own_tables, **_tpm(platform, machine)}
        described: Any = {**_described(machine), **more}
        tables = _Tables(platform, described, kept)
        found |= tables.now()
        callbacks = {name: tables.file(name) for name in tables.now()}
        # listed by these types; empty without a TPM
        if parts.has_nvdimms(machine):
            found[parts.NVDIMM_FILE] = bytes(parts.NVDIMM_PAGE)
        found["etc/tpm/log"] = bytes(parts.TPM_LOG) if "tpm-version" in more else b""
    own_roms = [fwcfg.rom_name(rom) for rom in machine["firmware"].get("roms", ())]
    places = {**dict.fromkeys(own, fwcfg.USER_FILE), **dict.fromkeys(own_roms, fwcfg.USER_ROM)}
    found |= done.of_devices(machine)
    for name in own:
        if name in found:
            raise BuildError(f"duplicate fw_cfg file name: {name}", code="VR0720", path=f"firmware.files.{name}")
    order = machine["firmware"].get("fw_cfg", {}).get("order", "priority")
    done.files = fwcfg.in_order({**found, **own}, order, places)
    for key, data in done.items.items():
        fw_cfg.add_bytes(key, data)
    fw_cfg.set_order(order == "name")
    for name, data in done.files:
        fw_cfg.add_file(name, data, callbacks.get(name), fwcfg.priority(name, places))
    done.cells = cmos.cells(machine, disk_size)
    for index, value in sorted(done.cells.items()):
        rtc.set_cmos(index, value)
    return done


def _own_tables(machine: MachineData) -> list[bytes]:
    if not machine["firmware"].get("acpi-tables"):
        return []
    from vmrun.firmware.user_tables import acpi_tables

    return acpi_tables(machine)


def _tpm(platform: Any, machine: MachineData) -> dict[str, int]:
    """Which TPM there is: what its program says."""
    found = parts.first(machine, *parts.TPMS)
    if found is None:
        return {}
    return {"tpm-version": int(platform.device(found["id"]).version) if platform is not None else 2}


def pm_base(platform: Any, machine: MachineData) -> int:
    """Where the guest has put the power management registers; where SeaBIOS will put them before it has."""
    described = parts.first(machine, "PIIX4_PM")
    if described is None or platform is None:
        return PM_BASE
    base = int(platform.device(described["id"]).config.get(0x40, 4)) & 0xFFC0
    return base or PM_BASE


def _there(platform: Any, id: str) -> Any:
    """A device of the machine's start; None when it was taken out since."""
    try:
        return platform.device(id)
    except BuildError:
        return None


def placed_above_4g(platform: Any, machine: MachineData) -> tuple[int, int] | None:
    """First and last address above 4 GiB that the guest has given to PCI devices; None when there is none."""
    found: list[tuple[int, int]] = []
    for entry in machine["devices"] if platform is not None else ():
        if entry.get("addr") is None:
            continue
        for bar in getattr(_there(platform, entry["id"]), "bars", {}).values():
            if bar.mapped is not None and bar.mapped >= 1 << 32:
                found.append((bar.mapped, bar.mapped + bar.size - 1))
    return (min(first for first, _ in found), max(last for _, last in found)) if found else None


def record_registers(platform: Any, machine: MachineData) -> int:
    """Where the guest has put the registers of the error records' store."""
    described = parts.first(machine, "acpi-erst") if platform is not None else None
    card = _there(platform, described["id"]) if described is not None else None
    mapped = card.bars[0].mapped if card is not None else None
    return NOWHERE if mapped is None else int(mapped)


def persistent(platform: Any, machine: MachineData) -> Any:
    """What the NFIT says of the non-volatile modules; address, bytes and node of each."""
    if platform is None or not parts.has_nvdimms(machine):
        return b"", ()
    slots = platform.memory_slots
    places = tuple((each.address, each.size, each.node) for each in slots.persistent)
    return slots.methods.fit() if slots.methods is not None else b"", places


_TOLD = ("firmware", "cpus", "memory-map", "memory-slots", "numa")


def _described(machine: MachineData) -> dict[str, Any]:
    """The part of a machine that its tables tell of: machines that differ in names, files and addresses have the same.

    Devices without their texts, which name back ends and the like; ports, interrupts and switches are numbers.
    """
    told: dict[str, Any] = {key: value for key, value in machine.items() if key in _TOLD}
    told["firmware"] = {key: value for key, value in told["firmware"].items() if key not in ("bios", "dirs")}
    told["devices"] = [
        {**device, "props": {name: value for name, value in device["props"].items() if not isinstance(value, str)}}
        for device in machine["devices"]
    ]
    return told


class _Tables:
    """The ACPI files, made anew when the guest has moved what they tell of since: the power management registers,
    PCI memory above 4 GiB, the registers of the error records' store, and non-volatile modules.
    """

    def __init__(self, platform: Any, machine: MachineData, kept: Callable[..., Any]) -> None:
        self.platform, self.machine, self.kept = platform, machine, kept
        self.of: Any = None
        self.files: dict[str, bytes] = {}

    def now(self) -> dict[str, bytes]:
        told = self._moved()
        if told != self.of:
            # what a guest makes it move to is no machine that comes again
            self.files = self.kept((self.machine, told), self._make) if self.of is None else self._build(told)
            self.of = told
        return self.files

    def _make(self) -> dict[str, bytes]:
        return self._build(self._moved())

    def _moved(self) -> tuple[Any, ...]:
        where = self.platform, self.machine
        return pm_base(*where), placed_above_4g(*where), record_registers(*where), persistent(*where)

    def _build(self, told: Any) -> dict[str, bytes]:
        from vmrun.firmware import acpi

        return acpi.build(self.machine, *told).files()

    def file(self, name: str) -> Callable[[], bytes]:
        return lambda: self.now()[name]


def _roms(machine: MachineData, done: Prepared) -> dict[str, bytes]:
    """Option ROMs by file: those of the type, then those of PCI cards that have no ROM BAR."""
    firmware = machine["firmware"]
    dirs = firmware.get("dirs", ())
    for name in firmware.get("option-roms", ()):
        try:
            done.roms[f"genroms/{name}"] = images.load_rom(str(name), dirs)
        except BuildError as error:
            # The board's ROMs serve devices that vmrun does not have; without them a guest boots all the
            # same.
            done.warnings.append(f"{error.problems[0].message}; the guest does without it")
    for n, rom in enumerate(firmware.get("roms", ())):
        with about(f"firmware.roms.{n}"):
            name = fwcfg.rom_name(rom)
            if name in done.roms:
                raise BuildError(f"duplicate fw_cfg file name: {name}", code="VR0720")
            done.roms[name] = images.load_rom(str(rom["file"]), dirs)
    if done.boot is not None:
        with about("kernel"):
            done.roms[f"genroms/{done.boot.rom}"] = images.load_rom(done.boot.rom, dirs)
    for device in machine["devices"]:
        props = device["props"]
        bios = parts.ISA_DISPLAYS.get(device["driver"])
        if bios is not None:
            done.roms[f"vgaroms/{bios}"] = images.load_rom(bios, dirs)
        if props.get("rombar") == 0 and props.get("romfile"):
            kind = "vgaroms" if device["driver"] in parts.DISPLAYS else "genroms"
            with about(f"devices.{device['id']}"):
                done.roms[f"{kind}/{props['romfile']}"] = images.load_rom(str(props["romfile"]), dirs)
    return {name: image.data for name, image in done.roms.items()}
