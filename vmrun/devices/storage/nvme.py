"""nvme: an NVM Express controller on PCI. Its namespaces are on its bus (nvme_ns.py), or one is its own: a drive.

Ref: NVM Express 1.4; PCI Express Base Specification 3.0, 7.8, for the capability that it shows. Not modelled: see
nvme_chip.pyx, nvme_space.pyx and nvme_memory.pyx; SR-IOV.
"""

from __future__ import annotations

from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.nvme import NvmeBus, Subsystem
from vmrun.bus.pci import Msix, PciDevice
from vmrun.bus.pci.capability import Capability
from vmrun.core.blocksizes import check_block_sizes
from vmrun.core.filled import filled
from vmrun.core.interfaces import BusOwner
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.storage.ide_hd import ERRORS
from vmrun.devices.storage.nvme_chip import NvmeChip
from vmrun.devices.storage.nvme_memory import NvmeMemory
from vmrun.devices.storage.nvme_ns import NvmeSubsys, granularity
from vmrun.devices.storage.nvme_space import NvmeSpace
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

POWER, EXPRESS = 0x01, 0x10
RED_HAT, INTEL = (0x1B36, 0x0010), (0x8086, 0x5845)
PAGE = 4096
FIRMWARE = "7.2.0"
NAMESPACES = 256
ONLY = "there is no other value here"


class Express(Capability):
    """PCI Express capability of an endpoint: version 2, function-level reset."""

    def __init__(self) -> None:
        body = bytearray(0x3A)
        body[0:2] = b"\x02\x00"
        body[2:6] = b"\x00\x80\x00\x10"     # device: role-based errors, function-level reset
        body[10:14] = b"\x11\x04\x00\x00"   # link: x1, 2.5 GT/s, ASPM L0s
        body[16:18] = b"\x11\x00"           # link status: as it can
        body[34:38] = b"\x00\x00\x30\x00"   # device 2: end-to-end prefixes
        mask = bytearray(0x3A)
        mask[6:8] = b"\x0f\x80"
        mask[38:40] = b"\x00\x80"
        super().__init__(EXPRESS, bytes(body), bytes(mask))

    def written(self) -> None:
        config = self.device.config
        if config.get(self.offset + 9, 1) & 0x80:
            config.set_byte(self.offset + 9, 0)
            self.device.reset()


def identify(serial: str, vendor: int, subsystem: int, mdts: int, aerl: int, number: int, name: str) -> bytes:
    """Identify Controller, 4096 bytes. `number`, `name`: of the subsystem; '' is none."""
    data = bytearray(4096)

    def put(offset: int, value: int, size: int) -> None:
        data[offset : offset + size] = value.to_bytes(size, "little")

    put(0x000, vendor, 2)
    put(0x002, subsystem, 2)
    data[0x004:0x018] = serial.encode("ascii", "replace")[:20].ljust(20)
    data[0x018:0x040] = b"QEMU NVMe Ctrl".ljust(40)
    data[0x040:0x048] = FIRMWARE.encode().ljust(8)
    put(0x048, 6, 1)  # arbitration burst
    data[0x049:0x04C] = b"\x00\x54\x52"
    put(0x04C, 2 if name else 0, 1)  # other controllers may have its namespaces
    put(0x04D, mdts, 1)
    put(0x04E, number, 2)
    put(0x050, 0x00010400, 4)
    put(0x05C, 0x100, 4)  # events: namespace attributes
    put(0x060, 0x8000, 4)
    put(0x06F, 1, 1)  # an I/O controller
    put(0x100, 0x010A, 2)  # format, attachment, shadow doorbells
    put(0x102, 3, 1)  # aborts at once, less one
    put(0x103, aerl, 1)  # events waited for, less one
    put(0x104, 3, 1)
    put(0x105, 7, 1)
    put(0x10A, 0x157, 2)
    put(0x10C, 0x175, 2)
    put(0x200, 0x66, 1)
    put(0x201, 0x44, 1)
    put(0x204, NAMESPACES, 4)
    put(0x208, 0x015D, 2)  # compare, trim, zeroes, save, timestamp, copy
    put(0x20D, 7, 1)
    put(0x216, 3, 2)
    put(0x218, 1, 4)  # scatter-gather lists
    qualified = (name or f"nqn.2019-08.org.qemu:{serial}").encode("ascii", "replace")[:255]
    data[0x300 : 0x300 + len(qualified)] = qualified
    put(0x800, 0x09C4, 2)
    put(0x804, 0x10, 4)
    put(0x808, 4, 4)
    return bytes(data)


# what a state from before there was such memory says of it
NO_MEMORY = {
    **{"of": "nvme-memory", "version": 1, "told": False},
    **dict.fromkeys(("cmbmsc", "pmrmsc", "cmbsts", "pmrctl", "pmrsts"), 0),
}


def _apart(old: Any) -> Any:
    """A state of version 2: what its namespace has was the chip's."""
    chip = {**old["chip"], "version": 2, "attached": b"\2".ljust(33, b"\0"), "changed_spaces": bytes(NAMESPACES + 1)}
    names = ("reads", "writes", "blocks_read", "blocks_written", "block_exponent")
    space = {"of": "nvme-namespace", "version": 1, "recovery": 0, **{name: chip.pop(name) for name in names}}
    return {**old, "chip": chip, "space": space}


@register("nvme", description="NVM Express controller")
class Nvme(PciDevice, BusOwner):
    provides = ("nvme-bus",)
    vendor_id, device_id = RED_HAT
    class_code = 0x010802
    revision = 2
    interrupt_pin = 1

    state = PciDevice.state.extend(
        "nvme", 3, Part("chip"), Part("memory"), Part("space"),
        readers={1: lambda old: {**old, "memory": NO_MEMORY}, 2: _apart},
    )  # fmt: skip

    drive = Prop("drive", None, "a drive whose image is namespace 1; others are nvme-ns", visible=False)
    serial = Prop("str", None, "serial number, 20 characters; it must be given")
    bootindex = Prop("int32", None, "place in the boot order, 0 first")
    max_ioqpairs = Prop("uint32", 64, "pairs of queues for I/O", min=1, max=64)
    num_queues = Prop("uint32", 0, "as before 4.2: pairs of queues, the admin's too", max=65)
    msix_qsize = Prop("uint16", 65, "interrupt vectors", min=1, max=65)
    mdts = Prop("uint8", 7, "the most that one command moves: that power of two, in pages; 0: any", max=7)
    vsl = Prop("uint8", 7, "the most that a verify reads, as mdts", min=1)
    aerl = Prop("uint8", 3, "requests for events that wait, less one; at most 3", max=3)
    aer_max_queued = Prop("uint32", 64, "events that wait to be told; more than eight are eight")
    smart_critical_warning = Prop("uint8", 0, "critical warnings in the health log", max=0x3F)
    cmb_size_mb = Prop("uint32", 0, "MiB of a memory buffer of its own, a power of two", max=1 << 16)
    legacy_cmb = named("legacy-cmb", "bool", False, "its registers tell of it from the start, as before NVMe 1.4")
    pmrdev = Prop(
        "object", None, "a persistent memory region: a memory backend, a power of two long", of=("memory-backend",)
    )
    subsys = Prop("link", None, "the nvme-subsys that it belongs to")
    logical_block_size = Prop("size", 512, "bytes per block", min=512, max=2097152)
    physical_block_size = Prop("size", 512, "told to nobody; not less than a block", min=512, max=2097152)
    min_io_size = Prop("size", 0, "told to nobody", max=0xFFFFFFFF)
    opt_io_size = Prop("size", 0, "told to nobody", max=0xFFFFFFFF)
    discard_granularity = Prop(
        "size", None, "bytes that are given back at once; 4096 when it is not given", max=0xFFFFFFFF
    )
    rerror = Prop("enum", "auto", "what a read error does", choices=ERRORS, visible=False)
    werror = Prop("enum", "auto", "what a write error does", choices=ERRORS, visible=False)
    write_cache = named("write-cache", "enum", "auto", "volatile cache", choices=("auto", "on", "off"))
    share_rw = named("share-rw", "bool", False, "others may write the image", visible=False)
    use_intel_id = named("use-intel-id", "bool", False, "Intel's PCI ids, as before 5.2")
    exclusive_bar = named("msix-exclusive-bar", "bool", False, "the vectors have a BAR of their own, as before 6.0")
    for _name in ("max_vfs", "vq_flexible", "vi_flexible", "max_vi_per_vf", "max_vq_per_vf"):
        locals()[f"sriov_{_name}"] = Prop("uint16", 0, "virtual functions; only 0", max=0, visible=False, idle=ONLY)
    del _name
    zasl = named("zoned.zasl", "uint8", 0, "the most that a zone append moves; only 0", max=0, visible=False, idle=ONLY)
    auto_transition = named(
        "zoned.auto_transition", "bool", True, "zones open by themselves", visible=False, idle="no namespace has zones",
    )  # fmt: skip
    ioeventfd = Prop("bool", False, "kvm: shared doorbells of I/O queues are served by the I/O thread", visible=False)

    def pci_realize(self, platform: Platform) -> None:
        backend: Any = filled(platform, self.drive) if self.drive else None
        serial = self.serial if self.serial is not None or backend is None else backend.serial
        if serial is None:
            raise BuildError(f"{self.path}: serial property not set", remedy="add `serial: …`")
        self.subsystem, name = self._subsystem(platform)
        pairs = self.num_queues - 1 if self.num_queues else self.max_ioqpairs
        if pairs < 1:
            raise BuildError(f"{self.path}: max_ioqpairs must be between 1 and 64")
        check_block_sizes(self)
        if backend is not None:
            backend.set_errors(self.rerror, self.werror)
            if self.write_cache != "auto":
                backend.write_cache = self.write_cache == "on"
        vendor, device = INTEL if self.use_intel_id else RED_HAT
        self.config.set_word(0, vendor)
        self.config.set_word(2, device)
        number = self.subsystem.number()
        data = identify(serial, vendor, self.subsystem_vendor_id, self.mdts, self.aerl, number, name)
        limits = (self.mdts, self.vsl, self.aerl, self.aer_max_queued)
        self.chip = NvmeChip(
            self.dma, data, self.intx, platform.virtual, pairs + 1, self.msix_qsize, limits, self.smart_critical_warning
        )
        registers = 2 * PAGE
        table = 16 * self.msix_qsize
        if self.exclusive_bar:
            bar = Region.container("nvme", registers)
            messages = Region.container("nvme-msix", PAGE)
            self.msix = Msix(self.msix_qsize, 4, 0, 4, PAGE // 2)
            self.add_bar(4, messages, PAGE, "mem32")
        else:
            pending = registers + (table + PAGE - 1) // PAGE * PAGE
            bar = messages = Region.container("nvme", 4 * PAGE)
            self.msix = Msix(self.msix_qsize, 0, registers, 0, pending)
        self.registers = Region.device("nvme-registers", self.chip, registers)
        bar.add(self.registers, 0)
        doorbells = self.ioeventfd and platform.accelerator.doorbells
        self.chip.serve_on(platform.iothread, self._hang_doorbells if doorbells else None)
        self.add_bar(0, bar, bar.size, "mem64")
        self.add_capability(Capability(POWER, b"\x03\x00\x08\x00\x00\x00", b"\x00\x00\x03\x00\x00\x00"), 0x60)
        self.add_capability(Express(), 0x80)
        self.add_capability(self.msix, 0x40)
        self.chip.msix = self.msix.chip
        self.msix.show(messages)
        self._add_memory(platform)
        self.subsystem.join(self.chip, number)
        for bus in self.buses.values():
            bus.chip, bus.subsystem = self.chip, self.subsystem
        self.space = None
        if backend is not None:
            self.space = NvmeSpace(backend, 1, self.logical_block_size, granularity(self))
            self.subsystem.add(self.space, self.chip)

    def make_buses(self, names: list[str], platform: Platform) -> None:
        for name in names:
            self.buses[name] = NvmeBus(name)

    def _subsystem(self, platform: Platform) -> tuple[Subsystem, str]:
        """What it belongs to, and its qualified name: '' for a controller that is alone."""
        if not self.subsys:
            return Subsystem(), ""
        found = platform.device(self.subsys)
        if not isinstance(found, NvmeSubsys):
            raise BuildError(f"Device '{self.subsys}' is not an nvme-subsys")
        if self.drive:
            raise BuildError(
                "subsystem support is unavailable with legacy namespace ('drive' property)",
                remedy="give the drive to an nvme-ns on this controller's bus",
            )
        return found.subsystem, found.qualified_name

    def _add_memory(self, platform: Platform) -> None:
        """BAR 2 is a buffer, BAR 4 a persistent region."""
        size, self.backing = self.cmb_size_mb << 20, None
        if size & (size - 1):
            raise BuildError(f"{self.path}: cmb_size_mb must be a power of two", remedy="give it 1, 2, 4, …")
        if size:
            buffer = RamBlock(f"{self.name}.cmb", size)
            self.ram_blocks.append(buffer)
            self.add_bar(2, Region.ram("nvme-cmb", buffer), size, "mem64-pref")
        region, length = None, 0
        if self.pmrdev:
            memory: Any = platform.user_object(self.pmrdev)
            length = memory.size
            if not hasattr(memory, "own_block"):
                raise BuildError(f"{self.path}: object '{self.pmrdev}' is no memory backend")
            if memory.users:
                raise BuildError(f"can't use already busy memdev: {self.pmrdev}")
            if length & (length - 1):
                raise BuildError("pmr backend size needs to be power of 2 in size")
            if self.exclusive_bar:
                raise BuildError(f"{self.path}: BAR 4 has the vectors", remedy="leave msix-exclusive-bar or pmrdev out")
            block = memory.own_block()
            region = Region.ram("nvme-pmr", block)
            self.ram_blocks.append(block)
            whole = Region.container("nvme-pmr-bar", length)
            whole.add(region, 0)
            self.add_bar(4, whole, length, "mem64-pref")
            memory.users.append(self.path)
            self.backing = memory
        self.memory = self.chip.memory = NvmeMemory(self.config, size, length, region, self.legacy_cmb)

    def _hang_doorbells(self, bells: list[tuple[int, Any]]) -> None:
        with self.platform.memory.transaction():
            self.registers.remove_doorbells()
            for offset, notifier in bells:
                self.registers.add_doorbell(offset, 4, notifier)

    def resized(self) -> None:
        """The drive has another size now."""
        self.subsystem.resized(self.space)

    def before_save(self) -> None:
        """What the chip still owes may end in the vectors' pending bits, which are saved before it."""
        self.chip.before_save()

    def unrealize(self) -> None:
        self.chip.detach()
        self.subsystem.part(self.chip)
        super().unrealize()
        if self.backing is not None:
            self.backing.users.remove(self.path)
