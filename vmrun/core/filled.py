"""The drive of a disk: one without a medium is none."""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform


def filled(platform: Platform, drive: str) -> Any:
    """The back end. BuildError, in QEMU's words, when nothing is in it."""
    backend = platform.drive(drive)
    if getattr(backend, "node", backend) is None:
        raise BuildError("Device needs media, but drive is empty", remedy=f"give drive '{drive}' a file")
    return backend
