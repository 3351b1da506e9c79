"""A virtio device on a PCI card: legacy, transitional or modern, as the machine type has it.

Ref: Virtual I/O Device (VIRTIO) 1.1, 4.1; Virtio PCI Card Specification 0.9.5.

    BAR 0  legacy registers (ports)          BAR 4  modern: common 0, ISR 0x1000, device 0x2000, notify 0x3000
    BAR 1  MSI-X: table at 0, pending bits at 0x800 or behind the table
    BAR 2  with modern-pio-notify a port: the number of a queue, written there, kicks it

With page-per-vq each of 1024 queues has a page of its own to be kicked at, and BAR 4 is 8 MiB.

Not modelled: AER and ATS, which are of PCI Express.
"""

from __future__ import annotations

from accel.space import Region

from vmrun.bus.pci import Msix, PciDevice
from vmrun.bus.pci.capability import Vendor
from vmrun.bus.pci.device import NO_EXPRESS
from vmrun.bus.virtio.device import CommonRegion, ConfigRegion, IsrRegion, LegacyRegion, NotifyPort, NotifyRegion
from vmrun.core.interfaces import ThreadOwner
from vmrun.core.props import Prop, named, unused
from vmrun.core.state import Part
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.bus.virtio.device import VirtioChip
    from vmrun.core.platform import Platform

PART = 0x1000
NOTIFY_MULTIPLIER, MOST_QUEUES = 4, 1024
COMMON_TYPE, NOTIFY_TYPE, ISR_TYPE, CONFIG_TYPE, WINDOW_TYPE = 1, 2, 3, 4, 5
WINDOW_DATA = 16  # of the capability
MSIX_PENDING = 0x800
LEGACY_HEADER, LEGACY_VECTORS, LEGACY_NOTIFY = 20, 4, 16
# feature bits that all devices share
NOTIFY_ON_EMPTY, ANY_LAYOUT, INDIRECT_DESC, EVENT_IDX, BAD_FEATURE = (1 << n for n in (24, 27, 28, 29, 30))
VERSION_1, ACCESS_PLATFORM, RING_PACKED, RING_RESET = 1 << 32, 1 << 33, 1 << 34, 1 << 40
PORT_SIZE = 4
UNSET = 0xFFFFFFFF
OWN_STATE, ANY_MAY = "QEMU's saved state alone has it", "any device may have legacy registers here"


class VirtioPci(PciDevice):
    """Subclasses give `virtio_id`, `legacy_device_id`, `default_vectors`, and make their chip in `make_chip`."""

    state = PciDevice.state.extend("virtio-pci", 1, Part("chip"))
    parents: tuple[str, ...] = ("virtio-pci", "virtio-device")
    vendor_id = 0x1AF4
    interrupt_pin = 1
    virtio_id = 0
    legacy_device_id = 0

    any_layout = Prop("bool", True, "offer: requests may be cut into pieces anywhere")
    event_idx = Prop("bool", True, "offer: interrupts and kicks are asked for by index")
    indirect_desc = Prop("bool", True, "offer: a descriptor may point to a table of others")
    notify_on_empty = Prop("bool", True, "offer: an interrupt when a queue runs empty, wanted or not")
    packed = Prop("bool", False, "offer: packed rings")
    disable_legacy = named(
        "disable-legacy", "enum", "auto", "no legacy registers: a modern device only", choices=("auto", "on", "off")
    )
    disable_modern = named("disable-modern", "bool", False, "no modern registers: a legacy device only")
    queue_reset = Prop("bool", True, "offer: one queue may be reset")
    ioeventfd = Prop("bool", True, "kicks are served by the I/O thread where no exit is needed for it", visible=False)
    page_per_vq = named("page-per-vq", "bool", False, "each queue has a page of its own to be kicked at")
    iommu_platform = Prop("bool", False, "offer: addresses are those of a bus, which may not be the processor's")
    modern_pio_notify = named("modern-pio-notify", "bool", False, "a port, too, where queues are kicked")
    vectors = Prop("uint32", UNSET, "MSI-X vectors, 0 for none")
    ats = unused("ats", "bool", False, "addresses may be asked for beforehand", NO_EXPRESS)
    aer = unused("aer", "bool", False, "errors are reported by messages", NO_EXPRESS)
    ats_page_aligned = unused("x-ats-page-aligned", "bool", True, "of `ats`", NO_EXPRESS)
    disable_pcie = unused("x-disable-pcie", "bool", False, "no PCI Express capability", NO_EXPRESS)
    flr_init = unused("x-pcie-flr-init", "bool", True, "function level reset", NO_EXPRESS)
    lnkctl_init = unused("x-pcie-lnkctl-init", "bool", True, "link control", NO_EXPRESS)
    deverr_init = unused("x-pcie-deverr-init", "bool", True, "device errors", NO_EXPRESS)
    pm_init = unused("x-pcie-pm-init", "bool", True, "power management", NO_EXPRESS)
    bus_master_bug = unused("virtio-pci-bus-master-bug-migration", "bool", False, "of saved states", OWN_STATE)
    migrate_extra = unused("migrate-extra", "bool", True, "of saved states", OWN_STATE)
    use_started = unused("use-started", "bool", True, "of saved states", OWN_STATE)
    use_disabled = unused("use-disabled-flag", "bool", True, "of saved states", OWN_STATE)
    ignore_backend = unused("x-ignore-backend-features", "bool", False, "of vhost", "no back end has features")
    legacy_check = unused("x-disable-legacy-check", "bool", False, "modern devices may be legacy ones", ANY_MAY)

    modern_bar, msix_bar, port_bar = 4, 1, 2
    own_locks = False  # whether its queues can be served without the device lock
    iothread: str | None = None

    def make_chip(self, platform: Platform) -> VirtioChip:
        """The device itself, its own features in `offered`, its configuration set."""
        raise NotImplementedError

    def default_vectors(self) -> int:
        return 2

    def modern_parts(self, kicks: int) -> dict[int, tuple[int, int]]:
        """Where the parts of the modern BAR are, by type: (offset, size), in the order of their capabilities. `kicks`
        is the size of the last.
        """
        parts = {type: (n * PART, PART) for n, type in enumerate((COMMON_TYPE, ISR_TYPE, CONFIG_TYPE))}
        return {**parts, NOTIFY_TYPE: (len(parts) * PART, kicks)}

    def pci_realize(self, platform: Platform) -> None:
        modern, legacy = not self.disable_modern, self.disable_legacy != "on"
        if not modern and not legacy:
            raise BuildError(f"{self.path}: device cannot work as neither modern nor legacy mode is enabled")
        if legacy and self.iommu_platform:
            raise BuildError(
                f"{self.path}: VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device",
                remedy="add `disable-legacy: on`, or leave `iommu_platform` out",
            )
        self.ports: Region | None = None
        self.notify: Region | None = None
        self.port: Region | None = None
        self.chip = self.make_chip(platform)
        self.chip.offered |= self._features(modern)
        self.chip.modern_only = ~0xFFFFFFFF & (1 << 64) - 1
        self.chip.legacy_only |= NOTIFY_ON_EMPTY | ANY_LAYOUT | BAD_FEATURE
        self._identify(legacy)
        if modern:
            self._add_modern()
        self.msix = self._add_msix(self.default_vectors() if self.vectors == UNSET else self.vectors)
        if legacy:
            used = LEGACY_HEADER + (LEGACY_VECTORS if self.msix else 0) + self.chip.config_size
            size = 1 << (used - 1).bit_length()
            self.ports = Region.device(f"{self.name}.legacy", LegacyRegion(self.chip), size)
            self.add_bar(0, self.ports, size, "io")
        self.chip.connect(self.intx, self.msix.chip if self.msix else None)
        self._serve_kicks(platform)

    def _serve_kicks(self, platform: Platform) -> None:
        """By whom: an `iothread`, which has all of them; or the machine's I/O thread, where the accelerator lets a kick
        signal it; or else whoever makes them. The rest of a long queue is always the thread's.
        """
        doorbells = self.ioeventfd and platform.accelerator.doorbells
        self.thread_object: Any = None
        thread = platform.iothread
        if self.iothread:
            self.thread_object = platform.user_object(self.iothread)
            if not isinstance(self.thread_object, ThreadOwner):
                raise BuildError(f"{self.path}: object '{self.iothread}' is no iothread")
            thread = self.thread_object.thread
            self.thread_object.users.append(self.path)
        apart = self.iothread is not None or doorbells
        self.chip.serve_on(thread, self.iothread is not None, apart and self.own_locks)
        if doorbells:
            self.chip.on_running = self._hang_doorbells

    def _hang_doorbells(self, on: bool) -> None:
        """While the driver runs, a write to a queue's notify register need only signal."""
        chip, platform = self.chip, self.platform
        with platform.memory.transaction(), platform.io.transaction():
            for region in (self.notify, self.port, self.ports):
                if region is not None:
                    region.remove_doorbells()
            if not on:
                return
            for n, kick in enumerate(chip.kicks):
                if chip.legacy and self.ports is not None:
                    self.ports.add_doorbell(LEGACY_NOTIFY, 2, kick.notifier, n)
                elif self.notify is not None:
                    self.notify.add_doorbell(n * self.multiplier, 2, kick.notifier)
                    if self.port is not None:
                        self.port.add_doorbell(0, 2, kick.notifier, n)

    def _features(self, modern: bool) -> int:
        """Those that every device has."""
        features = BAD_FEATURE
        for wanted, bit in (
            (self.notify_on_empty, NOTIFY_ON_EMPTY),
            (self.any_layout, ANY_LAYOUT),
            (self.indirect_desc, INDIRECT_DESC),
            (self.event_idx, EVENT_IDX),
            (modern, VERSION_1),
            (self.iommu_platform, ACCESS_PLATFORM),
            (modern and self.packed, RING_PACKED),
            (modern and self.queue_reset, RING_RESET),
        ):
            features |= bit if wanted else 0
        return features

    def _identify(self, legacy: bool) -> None:
        if legacy:
            self.config.set_word(2, self.legacy_device_id)
            self.config.set_word(0x2E, self.virtio_id)
        else:
            self.config.set_word(2, 0x1040 + self.virtio_id)
            self.revision = 1

    def _add_modern(self) -> None:
        multiplier = self.multiplier = PART if self.page_per_vq else NOTIFY_MULTIPLIER
        places = self.modern_parts(multiplier * MOST_QUEUES)
        bar_size = 1 << (sum(places[NOTIFY_TYPE]) - 1).bit_length()
        bar = self.modern = Region.container(f"{self.name}.modern", bar_size)
        self.parts: list[tuple[int, int, Any]] = []  # offset, size, registers
        for type, (offset, size) in places.items():
            io: Any
            if type == NOTIFY_TYPE:
                io = NotifyRegion(self.chip, multiplier)
            else:
                io = {COMMON_TYPE: CommonRegion, ISR_TYPE: IsrRegion, CONFIG_TYPE: ConfigRegion}[type](self.chip)
            self.parts.append((offset, size, io))
            region = Region.device(f"virtio-{offset:x}", io, size)
            bar.add(region, offset)
            body = _where(type, self.modern_bar, offset, size)
            if type == NOTIFY_TYPE:
                self.notify = region
                body += multiplier.to_bytes(4, "little")
            self.add_capability(Vendor(body))
        if self.modern_pio_notify:
            self.port = Region.device(f"{self.name}.port", NotifyPort(self.chip), PORT_SIZE)
            self.add_bar(self.port_bar, self.port, PORT_SIZE, "io")
            self.add_capability(Vendor(_where(NOTIFY_TYPE, self.port_bar, 0, PORT_SIZE) + bytes(4)))
        window = b"\0\xff\0\0\0" + b"\xff" * 12
        self.window = Vendor(_where(WINDOW_TYPE, 0, 0, 0) + bytes(4), window)
        self.add_capability(self.window)
        self.config.watch_reads(self.window.offset + WINDOW_DATA, 4)
        self.config.on_read = lambda offset, size: self._through_window(False)
        self.add_bar(self.modern_bar, bar, bar_size, "mem64-pref")

    def _add_msix(self, vectors: int) -> Msix | None:
        if not vectors:
            return None
        pending = max(MSIX_PENDING, 16 * vectors)
        size = max(0x1000, 1 << (pending + (vectors + 63) // 64 * 8 - 1).bit_length())
        msix = Msix(vectors, self.msix_bar, 0, self.msix_bar, pending)
        self.add_capability(msix)
        bar = Region.container(f"{self.name}.msix", size)
        msix.show(bar)
        self.add_bar(self.msix_bar, bar, size, "mem32")
        return msix

    def config_written(self, offset: int, size: int) -> None:
        super().config_written(offset, size)
        if not self.disable_modern:
            data = self.window.offset + WINDOW_DATA
            if offset < data + 4 and offset + size > data:
                self._through_window(True)

    def _through_window(self, write: bool) -> None:
        """The access to the modern registers that the capability describes: 1, 2 or 4 bytes, aligned."""
        at, config = self.window.offset, self.config
        offset, length = config.get(at + 8, 4), config.get(at + 12, 4)
        if length not in (1, 2, 4):
            return
        offset &= ~(length - 1)
        start, _, io = next(
            (part for part in self.parts if part[0] <= offset < part[0] + part[1]), (0, 0, None)
        )  # fmt: skip
        if io is None:
            return
        offset -= start
        if write:
            data = bytes(config.space[at + WINDOW_DATA : at + WINDOW_DATA + length])
            io.store(offset, length, int.from_bytes(data, "little"))
        else:
            value = io.load(offset, length)
            for n in range(length):
                config.set_byte(at + WINDOW_DATA + n, value >> 8 * n & 0xFF)

    def before_save(self) -> None:
        """What the chip still owes may end in the vectors' pending bits, which are saved before it."""
        self.chip.before_save()

    def unrealize(self) -> None:
        self.chip.reset()
        self.chip.quit()
        if self.thread_object is not None:
            self.thread_object.users.remove(self.path)
        super().unrealize()


class Transitional(VirtioPci):
    """Mixed into a card that has legacy and modern registers whatever the machine type says."""

    without: tuple[str, ...] = ("disable-legacy", "disable-modern")
    disable_legacy, disable_modern = "off", False


class NonTransitional(VirtioPci):
    """Mixed into a card that has modern registers alone."""

    without: tuple[str, ...] = ("disable-legacy", "disable-modern")
    disable_legacy, disable_modern = "on", False


def _where(type: int, bar: int, offset: int, size: int) -> bytes:
    """What follows the length byte of a virtio capability."""
    return bytes((type, bar, 0, 0, 0)) + offset.to_bytes(4, "little") + size.to_bytes(4, "little")
