"""virtio-balloon-pci: memory that the guest gives back when it is asked to, and what it says of its memory.

Not modelled: free page hints (of migrations to another host, which there are none of).
"""

from __future__ import annotations

import time

from accel.clock import PyTimer

from vmrun.bus.virtio.pci import NonTransitional, Transitional, VirtioPci
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import U32, Deadline
from vmrun.devices.virtio.balloon import BalloonChip
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.platform import Platform

STATS_VQ, DEFLATE_ON_OOM, FREE_PAGE_HINT, PAGE_POISON, REPORTING = (1 << n for n in (1, 2, 3, 4, 5))
QUEUE_SIZE, HINT_SIZE, REPORTING_SIZE = 128, 1024, 32
PAGE = 4096
SECOND = 1_000_000_000
MOST_SECONDS = 0xFFFFFFFF
PLAIN, HINTED, WHOLE = 8, 12, 16  # bytes of the configuration
NAMES = (
    *("stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults", "stat-free-memory"),
    *("stat-total-memory", "stat-available-memory", "stat-disk-caches", "stat-htlb-pgalloc", "stat-htlb-pgfail"),
)


@register("virtio-balloon-pci", "virtio-balloon", description="virtio memory balloon")
class VirtioBalloon(VirtioPci):
    parents = (*VirtioPci.parents, "virtio-balloon-device")
    class_code = 0x00FF00
    state = VirtioPci.state.extend("virtio-balloon", 1, Deadline("timer"), U32("interval"))
    virtio_id, legacy_device_id = 5, 0x1002

    without: tuple[str, ...] = ("vectors",)  # it has pins alone

    deflate_on_oom = named("deflate-on-oom", "bool", False, "offer: a guest short of memory may take its pages back")
    reporting = named("free-page-reporting", "bool", False, "offer: the guest tells which of its pages are free")
    hint = named("free-page-hint", "bool", False, "offer: the guest tells free pages when asked; wants `iothread`")
    page_poison = named("page-poison", "bool", True, "offer: the guest tells the pattern that it fills free pages with")
    old_config = named("qemu-4-0-config-size", "bool", False, "a configuration of 16 bytes, whatever is offered")
    class_ = named("class", "uint32", 0, "PCI class and sub-class, 0 for others")
    iothread = Prop("object", None, "the iothread that serves its queues", visible=False, of=("iothread",))

    def make_chip(self, platform: Platform) -> BalloonChip:
        if self.class_:
            self.config.set_word(10, self.class_)
        if self.hint and not self.iothread:
            raise BuildError(f"{self.path}: 'free-page-hint' requires 'iothread' to be set")
        sizes = [QUEUE_SIZE] * 3 + [HINT_SIZE] * self.hint + [REPORTING_SIZE] * self.reporting
        chip = BalloonChip(self.dma, sizes, len(sizes) - 1 if self.reporting else -1)
        chip.offered = STATS_VQ
        for wanted, bit in (
            (self.deflate_on_oom, DEFLATE_ON_OOM),
            (self.hint, FREE_PAGE_HINT),
            (self.page_poison, PAGE_POISON),
            (self.reporting, REPORTING),
        ):
            chip.offered |= bit if wanted else 0
        chip.set_config(bytes(WHOLE if self.old_config or self.page_poison else HINTED if self.hint else PLAIN))
        chip.on_actual, chip.on_stats = self._changed, self._told
        self.interval, self.last_update = 0, 0
        self.timer = PyTimer(platform.timers, self._poll)
        return chip

    def default_vectors(self) -> int:
        return 0

    def unrealize(self) -> None:
        self.timer.stop()
        super().unrealize()

    # --- how much memory the guest has --------------------------------------------------------------------

    @property
    def actual(self) -> int:
        """Bytes of memory that the guest keeps."""
        return self._memory() - int(self.chip.actual) * PAGE

    def set_target(self, size: int) -> None:
        """Ask the guest to keep that many bytes; all, when it is more than it has. The device lock is held."""
        memory = self._memory()
        self.chip.wanted = (memory - min(size, memory)) // PAGE

    def _memory(self) -> int:
        return int(self.platform.ram_size + self.platform.memory_slots.plugged)

    def _changed(self) -> None:
        self.platform.balloon_changed(self)

    # --- what it says of it -------------------------------------------------------------------------------

    def qom_values(self) -> dict[str, Any]:
        return {
            "guest-stats-polling-interval": self.interval,
            "guest-stats": {"stats": dict(zip(NAMES, self.chip.stats, strict=True)), "last-update": self.last_update},
        }

    def qom_changes(self) -> dict[str, Callable[[Any], None]]:
        return {"guest-stats-polling-interval": self.set_interval}

    def set_interval(self, seconds: int) -> None:
        """How often the guest is asked, 0 for never. BuildError in QEMU's words."""
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise BuildError("Invalid parameter type for 'guest-stats-polling-interval', expected: integer")
        if seconds < 0:
            raise BuildError("timer value must be greater than zero")
        if seconds > MOST_SECONDS:
            raise BuildError("timer value is too big")
        with self.platform.lock:
            self.interval = seconds
            if seconds:
                self._poll()
            else:
                self.timer.stop()

    def _poll(self) -> None:
        """Now, and again in a while."""
        self.chip.ask()
        self.timer.schedule(self.platform.virtual.time() + self.interval * SECOND)

    def _told(self) -> None:
        self.last_update = int(time.time())


@register("virtio-balloon-pci-transitional", description="virtio memory balloon, legacy and modern")
class VirtioBalloonTransitional(Transitional, VirtioBalloon):
    """The same; registers of both kinds."""


@register("virtio-balloon-pci-non-transitional", description="virtio memory balloon, modern")
class VirtioBalloonNonTransitional(NonTransitional, VirtioBalloon):
    """The same, without legacy registers."""
