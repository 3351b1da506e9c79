"""virtio-rng-pci: the host's random numbers.

Not modelled: a back end other than the host's own generator; `rng` may name one, it makes no difference.
"""

from __future__ import annotations

from accel.clock import PyTimer

from vmrun.bus.virtio.pci import NonTransitional, Transitional, VirtioPci
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Deadline
from vmrun.devices.virtio.rng import RngChip
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

QUEUE_SIZE = 8
NO_LIMIT = 0x7FFFFFFFFFFFFFFF
MILLISECOND = 1_000_000


@register("virtio-rng-pci", "virtio-rng", description="virtio random numbers")
class VirtioRng(VirtioPci):
    parents = (*VirtioPci.parents, "virtio-rng-device")
    class_code = 0x00FF00
    state = VirtioPci.state.extend("virtio-rng", 1, Deadline("timer"))
    virtio_id, legacy_device_id = 4, 0x1005
    own_locks = True

    rng = Prop("object", None, "the back end; all are the host's generator", visible=False, of=("rng-backend",))
    max_bytes = named("max-bytes", "uint64", NO_LIMIT, "bytes that a period gives at most", visible=False)
    period = Prop("uint32", 65536, "of max-bytes", unit="ms", visible=False)

    def make_chip(self, platform: Platform) -> RngChip:
        if not self.max_bytes or not self.period:
            raise BuildError(f"{self.path}: max-bytes and period are at least 1")
        chip = RngChip(self.dma, [QUEUE_SIZE])
        chip.set_config(b"")
        self.timer = PyTimer(platform.timers, self._next_period)
        if self.max_bytes < NO_LIMIT:
            chip.limited, chip.quota = True, self.max_bytes
        return chip

    def settle(self) -> None:
        super().settle()
        if self.chip.limited and self.timer.deadline < 0:
            self._next_period()

    def unrealize(self) -> None:
        self.timer.stop()
        super().unrealize()

    def _next_period(self) -> None:
        self.chip.refill(self.max_bytes)
        self.timer.schedule(self.platform.virtual.time() + self.period * MILLISECOND)


@register("virtio-rng-pci-transitional", description="virtio random numbers, legacy and modern")
class VirtioRngTransitional(Transitional, VirtioRng):
    """The same; registers of both kinds."""


@register("virtio-rng-pci-non-transitional", description="virtio random numbers, modern")
class VirtioRngNonTransitional(NonTransitional, VirtioRng):
    """The same, without legacy registers."""
