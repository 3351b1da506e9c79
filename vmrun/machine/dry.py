"""A machine built without a processor and without touching the host: for views and for tests of the hardware alone."""

from __future__ import annotations

from vmrun.backends.protocols import BlockBackend
from vmrun.machine.builder import build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine


class BlankDrive(BlockBackend):  # type: ignore[misc]
    """Stands for an image that nobody opened: as large as it says, all zeros."""

    def __init__(self, size: int) -> None:
        self.set_size(size)

    def read_bytes(self, offset: int, count: int) -> bytes:
        return bytes(count)


def build_dry(config: dict[str, Any]) -> Machine:
    """The machine on no accelerator; chardevs lead nowhere, images are not opened, memory is not filled."""
    plain = {**config, "chardevs": {name: {"type": "null"} for name in config["chardevs"]}}
    drives = {name: BlankDrive(_size(spec)) for name, spec in config["drives"].items()}
    return build(plain, accel=["qtest"], drives=drives)


def _size(spec: dict[str, Any]) -> int:
    import os

    try:
        return (os.stat(spec["file"]).st_size + 511) & ~511
    except (OSError, KeyError, TypeError):
        return 1 << 30
