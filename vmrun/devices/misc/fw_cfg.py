"""fw_cfg_io: QEMU's firmware configuration at its ports. vmrun.firmware puts the contents in."""

from __future__ import annotations

from accel.dma import Dma

from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.misc.fw_cfg_chip import FwCfg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.core.platform import Platform


@register("fw_cfg_io", description="firmware configuration: tables and settings that the firmware reads")
class FwCfgIo(Device):
    """`chip` holds the contents from realize on; add_bytes and add_file fill it."""

    user_creatable = False
    resources = {"ports": [["iobase", 2], ["iobase", 8, 4]], "irqs": [], "dmas": []}

    iobase = Prop("uint16", 0x510, doc="selector port; data is 1 above, the DMA register 4", max=0xFFF4)
    dma_enabled = Prop("bool", True, doc="the DMA interface exists (QEMU 2.5 and later)")
    file_slots = named(
        "x-file-slots", "uint16", 32, doc="files that the directory has room for", min=16, max=0x3FDF
    )
    acpi_mr_restore = named(
        "acpi-mr-restore", "bool", True, doc="how QEMU migrates table sizes; no effect", visible=False,
        idle="QEMU's saved state alone has it",
    )

    def realize(self, platform: Platform) -> None:
        self.chip = FwCfg(self.file_slots, Dma(platform.memory) if self.dma_enabled else None)
        self.map(platform.system_io, self.chip, self.iobase, 2, name="fwcfg")
        if self.dma_enabled:
            self.map(platform.system_io, self.chip.dma_port, self.iobase + 4, 8, name="fwcfg.dma")
            if platform.accelerator.doorbells:  # its processors run meanwhile
                self.chip.serve_on(platform.iothread)

    def unrealize(self) -> None:
        super().unrealize()
        if self.chip is not None:
            self.chip.detach()

    # --- contents: what vmrun.firmware calls ----------------------------------------------------------------

    def add_bytes(self, key: int, data: bytes, callback: Callable[[], bytes | None] | None = None) -> None:
        self.chip.add_bytes(key, data, callback)

    def add_file(
        self,
        name: str,
        data: bytes,
        callback: Callable[[], bytes | None] | None = None,
        order: int | None = None,
    ) -> None:
        self.chip.add_file(name, data, callback, order)

    def set_order(self, by_name: bool) -> None:
        """How the directory is sorted: by name (QEMU 2.6 and later) or by fixed priorities."""
        self.chip.set_order(by_name)
