"""Function 3: the PIIX4's power management as qemu-kvm's PC has it beside the PIIX3.

Ref: Intel 82371AB PIIX4 (290562) chapter 7; ACPI 1.0b. The hot-plug registers at 0xae00 and 0xaf00 are qemu-kvm's
own (QEMU docs/specs/acpi_pci_hotplug.txt, acpi_cpu_hotplug.txt).
Not modelled: device monitors, throttling, thermal events.
"""

from __future__ import annotations

from accel.api import PyIoRegion, PyIrqSink
from accel.space import ALONE

from vmrun.bus.i2c import I2cBus, SmbusTarget
from vmrun.bus.pci import PciDevice
from vmrun.core.interfaces import AcpiEvents, BusOwner, PowerButton, ProcessorSlots, Waker
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import U8, Part, Parts
from vmrun.devices.chipset.acpi_pm import AcpiPm
from vmrun.devices.chipset.cpu_hotplug import CpuHotplug
from vmrun.devices.chipset.gpe import Gpe
from vmrun.devices.chipset.smbus import SmbusHost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import IoRegion
    from accel.space import Region

    from vmrun.core.platform import Platform
    from vmrun.devices.chipset.memory_hotplug import MemoryHotplug
    from vmrun.devices.chipset.nvdimm_methods import NvdimmMethods

PMBA, PMREGMISC, SMBBA, SMBHSTCFG, DEVACTB, DEVRESD = 0x40, 0x80, 0x90, 0xD2, 0x58, 0x5F
APMC, APM_SIZE = 0xB2, 2
ACPI_ENABLE, ACPI_DISABLE = 0xF1, 0xF0
APMC_EN = 0x02  # of byte 0x5b: a write to APMC raises an SMI


@register("PIIX4_PM", description="82371AB power management: ACPI registers, SMBus, hot-plug")
class Piix4Pm(PciDevice, AcpiEvents, BusOwner, PowerButton, ProcessorSlots, Waker):
    user_creatable = False
    vendor_id = 0x8086
    device_id = 0x7113
    revision = 3
    class_code = 0x068000
    hotpluggable = False
    interrupt_pin = 1
    provides = ("I2C",)
    resources = {"ports": [[0xB2, 2], [0xAE00, 24], [0xAF00, 32], [0xAFE0, 4]]}

    state = PciDevice.state.extend(
        "PIIX4_PM",
        1,
        *map(Part, ("pm", "smbus", "gpe", "cpus")),
        Parts("eeproms"),
        U8("apmc"),
        U8("apms"),
    )

    smb_io_base = Prop("uint32", 0, "SMBus ports after reset")
    disable_s3 = Prop("uint8", 0, "1: no suspend to RAM", max=1)
    disable_s4 = Prop("uint8", 0, "1: no suspend to disk", max=1)
    s4_val = Prop("uint8", 2, "SLP_TYP that means S4", max=7)
    smm_enabled = named("smm-enabled", "bool", False, "processors have system-management mode")
    smm_compat = named("smm-compat", "bool", False, "a legacy mode, left by the SMI command port, even without SMM")
    memory_hotplug = named("memory-hotplug-support", "bool", True, "memory slots at 0xa00, where the machine has any")
    pci_hotplug = named(
        "acpi-pci-hotplug-with-bridge-support", "bool", True, "hot-plug registers with bus selection"
    )
    root_hotplug = named("acpi-root-pci-hotplug", "bool", True, "slots of the root bus can be ejected")
    no_acpi_index = named(
        "x-not-migrate-acpi-index", "bool", False, "naming of saved state", visible=False,
        idle="QEMU's saved state alone has it",
    )

    def make_buses(self, names: list[str], platform: Platform) -> None:
        bus = I2cBus(names[0])
        # Eight EEPROMs, as qemu-kvm's PC puts them there, empty.
        bus.targets = {0x50 + n: SmbusTarget() for n in range(8)}
        self.buses[names[0]] = bus

    def pci_realize(self, platform: Platform) -> None:
        self.pm = AcpiPm(platform.virtual, platform.timers)
        self.pm.s4_value, self.pm.s3_disabled, self.pm.s4_disabled = (
            self.s4_val,
            bool(self.disable_s3),
            bool(self.disable_s4),
        )
        bus = next(iter(self.buses.values()))
        self.smbus = SmbusHost(bus)
        self.eeproms = {f"{address:#x}": target for address, target in sorted(bus.targets.items())}
        self.gpe = Gpe(
            self.parent_bus, self.root_hotplug, self.pci_hotplug, self.pm.set_gpe, lambda card: platform.let_go(card)
        )
        self.cpus = CpuHotplug(
            platform.possible_apic_ids,
            platform.processors,
            self.gpe.processor_event,
            lambda index: platform.processor_let_go(index),
        )
        slots = platform.memory_slots
        self.memory: MemoryHotplug | None = None
        if slots.count and self.memory_hotplug:
            from vmrun.devices.chipset.memory_hotplug import MemoryHotplug

            self.memory = slots.controller = MemoryHotplug(
                slots.count, self.gpe.event, lambda module: platform.let_go(module), lambda row: platform.ospm_told(row)
            )
            self.state = self.state.extend("PIIX4_PM", 1, Part("memory"))
        self.methods: NvdimmMethods | None = None
        if slots.nvdimm:
            from vmrun.devices.chipset.nvdimm_methods import NvdimmMethods

            self.methods = slots.methods = NvdimmMethods(
                platform.memory, lambda: slots.persistent, slots.persistence, self.gpe.event
            )
            self.state = self.state.extend("PIIX4_PM", 1, Part("methods"))
        self.pm.always_acpi = not (self.smm_enabled or self.smm_compat)
        self.outputs["sci"] = [self.pm.sci]
        self.pm.wake.connect(PyIrqSink(lambda n, level: platform.wakeup("pmtimer") if level else None), 0)
        self.pm.hibernated.connect(PyIrqSink(lambda n, level: platform.tell("SUSPEND_DISK") if level else None), 0)
        self.smi = self.add_output("smi")[0]
        self.apmc = self.apms = 0
        apm = PyIoRegion("piix4-apm", self._read_apm, self._write_apm, 1, 1, widest=ALONE)
        self._port(apm, APMC, APM_SIZE)
        memory = [chip.region() for chip in (self.memory, self.methods) if chip is not None]
        for io, base, size in (*self.gpe.regions(), self.cpus.region(), *memory):
            self._port(io, base, size)
        self.pm_region = self._port(self.pm, 0, 64)
        smb = PyIoRegion("piix4-smbus", self.smbus.read, self.smbus.write, 1, 1)
        self.smb_region = self._port(smb, 0, 64)
        for offset, size in ((PMBA, 4), (PMREGMISC, 1), (SMBBA, 4), (SMBHSTCFG, 1)):
            self.config.watch(offset, size)
        self.add_input("power-button", PyIrqSink(lambda n, level: self.powerdown() if level else None))

    def _port(self, io: IoRegion, base: int, size: int) -> Region:
        return self.map(self.platform.system_io, io, base, size, name=io.name, priority=1 if base == 0 else 0)

    def _resources(self) -> dict[int, int]:
        """DEVRESD, DEVRESE and DEVRESG tell which ports of the legacy devices exist."""
        present = {port: self.platform.io.owner_at(port) is not None for port in (0x378, 0x3F8, 0x2F8)}
        return {
            0x5F: 0x10 | (0x80 if present[0x378] else 0),
            0x63: 0x60,
            0x67: (0x08 if present[0x3F8] else 0) | (0x90 if present[0x2F8] else 0),
        }

    def pci_reset(self) -> None:
        config = self.config
        for offset in range(0x40, 0x100):
            config.set_byte(offset, 0)
        config.set_word(6, 0x0280)
        config.set_dword(PMBA, 1)
        config.set_byte(DEVACTB + 3, 0 if self.smm_enabled else APMC_EN)
        config.set_dword(SMBBA, self.smb_io_base | 1)
        config.set_byte(SMBHSTCFG, 0x09)
        for offset, value in self._resources().items():
            config.set_byte(offset, value)

    def settle(self) -> None:
        super().settle()
        self._map()

    def config_written(self, offset: int, size: int) -> None:
        self._map()

    def _map(self) -> None:
        """The two relocatable blocks, where their base and enable bits say."""
        config = self.config
        with self.platform.io.transaction():
            self.pm_region.set_address(config.get(PMBA, 4) & 0xFFC0)
            self.pm_region.set_enabled(bool(config.get(PMREGMISC, 1) & 1))
            self.smb_region.set_address(config.get(SMBBA, 4) & 0xFFC0)
            self.smb_region.set_enabled(bool(config.get(SMBHSTCFG, 1) & 1))

    # --- the SMI command port ------------------------------------------------------------------------------

    def _read_apm(self, offset: int, size: int) -> int:
        return self.apms if offset & 1 else self.apmc

    def _write_apm(self, offset: int, size: int, value: int) -> None:
        if offset & 1:
            self.apms = value & 0xFF
            return
        self.apmc = value & 0xFF
        if self.apmc in (ACPI_ENABLE, ACPI_DISABLE):
            self.pm.set_sci_enable(self.apmc == ACPI_ENABLE)
        elif self.config.get(DEVACTB + 3, 1) & APMC_EN and self.smm_enabled:
            self.smi.pulse()

    def sleep(self) -> None:
        self.pm.asleep = True

    def wakes(self, reason: str) -> bool:
        return bool(self.pm.wakes(reason))

    def woken(self, reason: str) -> None:
        self.pm.woken(reason)

    def ospm_status(self) -> list[dict[str, Any]]:
        """Rows of query-acpi-ospm-status."""
        return self.memory.ospm_status() if self.memory is not None else []

    def processor_plugged(self, index: int) -> None:
        self.cpus.plugged(index)

    def processor_gone(self, index: int) -> None:
        self.cpus.present.discard(index)

    def acpi_event(self, bits: int) -> None:
        self.gpe.event(bits)

    def ask_processor(self, index: int) -> bool:
        return self.cpus.ask(index)

    def powerdown(self) -> None:
        """Somebody pressed the power button."""
        self.pm.press_power_button()
