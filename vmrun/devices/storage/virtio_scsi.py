"""virtio-scsi-pci: a SCSI bus behind virtio.

Not modelled: commands that move data both ways, protection information.
"""

from __future__ import annotations

import struct

from vmrun.bus.scsi import ScsiBus
from vmrun.bus.virtio.pci import UNSET, NonTransitional, Transitional, VirtioPci
from vmrun.core.interfaces import BusOwner
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.storage.scsi import ScsiUnits
from vmrun.devices.storage.virtio_scsi_chip import ScsiChip
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

HOTPLUG, CHANGE = 1 << 1, 1 << 2
FIXED_QUEUES, MOST_QUEUES = 2, 62
OLD_SEG_MAX = 126
EVENT_SIZE, SENSE_SIZE, CDB_SIZE = 16, 96, 32
MOST_CHANNEL, MOST_TARGET, MOST_LUN = 0, 255, 16383


@register("virtio-scsi-pci", "virtio-scsi", description="virtio SCSI adapter")
class VirtioScsi(VirtioPci, BusOwner):
    parents = (*VirtioPci.parents, "virtio-scsi-device")
    class_code = 0x010000
    virtio_id, legacy_device_id = 8, 0x1004
    provides = ("SCSI",)
    own_locks = True

    iothread = Prop("object", None, "the iothread that serves its queues", visible=False, of=("iothread",))
    num_queues = Prop("uint32", UNSET, "queues for commands; as many as processors when it is not given")
    virtqueue_size = Prop("uint32", 256, "entries of a queue", min=4, max=1024)
    max_sectors = Prop("uint32", 0xFFFF, "of one command, as a hint")
    cmd_per_lun = Prop("uint32", 128, "commands in flight, as a hint")
    seg_max_adjust = Prop("bool", True, "pieces of a request follow from virtqueue_size")
    hotplug = Prop("bool", True, "tell the guest of disks that come and go")
    param_change = Prop("bool", True, "tell the guest of disks that have another size")
    data_plane = named(
        "x-data-plane", "bool", False, "a thread of its own; makes no difference", visible=False,
        idle="queues have a thread anyway; `iothread` gives one of their own",
    )

    def make_buses(self, names: list[str], platform: Platform) -> None:
        self.units = ScsiUnits(True, platform.hw_version.encode()[:3].ljust(4, b"\0"))
        for name in names:
            self.buses[name] = ScsiBus(
                name, platform, self.units, channels=MOST_CHANNEL, targets=MOST_TARGET, luns=MOST_LUN
            )

    def make_chip(self, platform: Platform) -> ScsiChip:
        size = self.virtqueue_size
        if size & (size - 1):
            raise BuildError(f"{self.path}: virtqueue_size {size} is no power of two")
        self.queues = len(platform.processors) if self.num_queues == UNSET else self.num_queues
        if not 1 <= self.queues <= MOST_QUEUES:
            raise BuildError(f"{self.path}: there are 1 to {MOST_QUEUES} command queues, not {self.queues}")
        chip = ScsiChip(self.dma, [size] * (FIXED_QUEUES + self.queues), self.units)
        chip.offered = (HOTPLUG if self.hotplug else 0) | (CHANGE if self.param_change else 0)
        chip.tells_units, chip.tells_changes = bool(self.hotplug), bool(self.param_change)
        chip.set_config(
            struct.pack(
                "<IIIIIIIHHI",
                self.queues,
                size - 2 if self.seg_max_adjust else OLD_SEG_MAX,
                self.max_sectors,
                self.cmd_per_lun,
                EVENT_SIZE,
                SENSE_SIZE,
                CDB_SIZE,
                MOST_CHANNEL,
                MOST_TARGET,
                MOST_LUN,
            )
        )
        for bus in self.buses.values():
            bus.appeared, bus.leaving, bus.changed = chip.unit_appeared, chip.unit_leaving, chip.unit_changed
        return chip

    def default_vectors(self) -> int:
        return self.queues + FIXED_QUEUES + 1


@register("virtio-scsi-pci-transitional", description="virtio SCSI adapter, legacy and modern")
class VirtioScsiTransitional(Transitional, VirtioScsi):
    """The same; registers of both kinds."""


@register("virtio-scsi-pci-non-transitional", description="virtio SCSI adapter, modern")
class VirtioScsiNonTransitional(NonTransitional, VirtioScsi):
    """The same, without legacy registers."""
