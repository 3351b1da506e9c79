"""What is asked of a disk's block sizes, whichever controller it hangs on, in QEMU's words, which people look for."""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_BLOCKS = 0xFFFF  # of min_io_size: the field that guests read is 16 bits wide


def check_block_sizes(device: Any, ide: bool = False) -> None:
    """device: one with the properties of a block device. ide: TRIM goes by single sectors. BuildError."""
    block = int(device.logical_block_size)
    for name in ("logical_block_size", "physical_block_size"):
        value = int(getattr(device, name))
        if value & (value - 1):
            raise BuildError(f"{device.path}: {name} {value} is not a power of 2")
    if block > device.physical_block_size:
        raise BuildError(f"{device.path}: logical_block_size > physical_block_size not supported")
    for name in ("min_io_size", "opt_io_size", "discard_granularity"):
        value = getattr(device, name)
        if value is None:
            continue
        if ide and name == "discard_granularity" and value not in (0, 512):
            raise BuildError(f"{device.path}: discard_granularity must be 512 for ide")
        if value % block:
            raise BuildError(f"{device.path}: {name} must be a multiple of logical_block_size")
        if name == "min_io_size" and value // block > MOST_BLOCKS:
            raise BuildError(f"{device.path}: min_io_size must not exceed {MOST_BLOCKS} logical blocks")
