"""A dirty bitmap of a block node, and which a node has; what is done with them is vmrun.machine.bitmaps."""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.blocks import Blocks


class DirtyBitmap:
    def __init__(self, node: Any, name: str, bits: Any, persistent: bool) -> None:
        self.node, self.name, self.bits, self.persistent = node, name, bits, persistent
        self.busy = self.inconsistent = False

    def info(self) -> dict[str, Any]:
        """BlockDirtyInfo."""
        row = {
            "name": self.name, "recording": bool(self.bits.enabled) and not self.inconsistent, "busy": self.busy,
            "persistent": self.persistent, "granularity": self.bits.granularity, "count": self.bits.count,
        }  # fmt: skip
        return {**row, "inconsistent": True} if self.inconsistent else row


def of(table: Blocks, node: Any) -> dict[str, DirtyBitmap]:
    """Name → bitmap, with those that the node's image keeps."""
    found: dict[str, DirtyBitmap] = table.bitmaps.setdefault(id(node), {})
    header = getattr(node, "header", None)
    if header is not None and (header.bitmaps or node.bitmaps or found):
        from vmrun.backends.block.qcow2_bitmaps import known
        from vmrun.backends.block.qcow2_header import QcowError

        try:
            kept = known(node)
        except QcowError as error:
            raise BuildError(str(error)) from None
        there = {id(one.bits) for one in kept}
        for name, bitmap in list(found.items()):
            if bitmap.persistent and id(bitmap.bits) not in there:  # the image was another program's meanwhile
                del found[name]
        for one in kept:
            if one.name not in found:
                found[one.name] = DirtyBitmap(node, one.name, one.bits, True)
                found[one.name].inconsistent = one.inconsistent
    return found
