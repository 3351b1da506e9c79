"""The geometry that firmware shall use for a disk, whatever the disk itself tells: properties of all that can be booted
from. The firmware has it in the fw_cfg file `bios-geometry` (vmrun.firmware.bootorder).
"""

from __future__ import annotations

from vmrun.core.props import Prop


class BiosGeometry:
    """Mixed into disks. All 0: the firmware works it out."""

    lcyls = Prop("uint32", 0, "cylinders that the firmware shall use")
    lheads = Prop("uint32", 0, "heads that the firmware shall use")
    lsecs = Prop("uint32", 0, "sectors per track that the firmware shall use")
