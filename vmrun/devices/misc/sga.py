"""sga: a ROM that shows the screen of firmware and boot loaders on the first serial port.

Nothing but the ROM (Google's serial graphics adapter): the firmware runs sgabios.bin, which fw_cfg holds.
"""

from __future__ import annotations

from vmrun.bus.isa import IsaDevice
from vmrun.core.registry import register
from vmrun.core.state import Table


@register("sga", description="serial graphics adapter: a ROM")
class Sga(IsaDevice):
    """`firmware` puts the ROM in (parts.ISA_DISPLAYS)."""

    hotpluggable = False

    state = Table("sga", 1)
