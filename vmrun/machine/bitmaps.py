"""Dirty bitmaps of block nodes: what was written since they were made or cleared. BuildError in QEMU's words."""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine.blocks import blocks
from vmrun.machine.dirtybitmap import DirtyBitmap, of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.blocks import Blocks
    from vmrun.machine.machine import Machine


def find(machine: Machine, node: str, name: str, busy: bool = True) -> DirtyBitmap:
    """`busy`: whether one that a job works with is refused."""
    table = blocks(machine)
    found = _node(table, node)
    bitmap = of(table, found).get(name)
    if bitmap is None:
        raise BuildError(f"Dirty bitmap '{name}' not found")
    if busy and bitmap.busy:
        raise BuildError(f"Bitmap '{name}' is currently in use by another operation and cannot be used")
    return bitmap


def _node(table: Blocks, name: str) -> Any:
    """The node of that name, or a drive's."""
    try:
        return table.find(name)[0]
    except BuildError:
        raise BuildError(f"Node '{name}' not found") from None


def usable(bitmap: DirtyBitmap) -> DirtyBitmap:
    if bitmap.inconsistent:
        raise BuildError(f"Bitmap '{bitmap.name}' is inconsistent and cannot be used")
    return bitmap


def changeable(bitmap: DirtyBitmap) -> DirtyBitmap:
    if bitmap.persistent and bitmap.node.readonly:
        raise BuildError(f"Bitmap '{bitmap.name}' is readonly and cannot be modified")
    return usable(bitmap)


def add(
    machine: Machine, node: str, name: str, granularity: int = 0, persistent: bool = False, disabled: bool = False
) -> DirtyBitmap:
    table = blocks(machine)
    found, _ = table.find(node)
    if not name:
        raise BuildError("Bitmap name cannot be empty")
    if granularity and (granularity < 512 or granularity & (granularity - 1)):
        raise BuildError("Granularity must be power of 2 and at least 512")
    if len(name) > 1023:
        raise BuildError(f"Bitmap name is too long: {name}")
    if name in of(table, found):
        raise BuildError(f"Bitmap already exists: {name}")
    from vmrun.backends.block.bitmap import Bitmap

    grain = granularity or min(max(getattr(found, "cluster_size", 65536), 4096), 65536)
    bits = Bitmap(found.size, grain)
    bits.enabled = not disabled
    if persistent:
        keep(found, name, bits)
    return attach(table, DirtyBitmap(found, name, bits, persistent))


def keep(node: Any, name: str, bits: Any) -> None:
    """In the node's image, which notes in it what is written."""
    where = f"Can't make bitmap '{name}' persistent in '{node.name}'"
    if not hasattr(node, "bitmaps"):
        raise BuildError(f"Can't store persistent bitmaps to {node.name}: Operation not supported")
    if node.readonly:
        raise BuildError(f"{where}: the image is read-only")
    from vmrun.backends.block.qcow2_bitmaps import add as add_kept

    try:
        add_kept(node, name, bits)
    except ValueError as error:
        raise BuildError(f"{where}: {error}") from None


def attach(table: Blocks, bitmap: DirtyBitmap) -> DirtyBitmap:
    """Let it note what is written from now on."""
    node = bitmap.node
    if bitmap.persistent:
        table.bitmaps.setdefault(id(node), {})[bitmap.name] = bitmap
        return bitmap
    tap = table.tap(node)
    with table.quiet(node):
        tap.add_bitmap(bitmap.bits)
    table.bitmaps.setdefault(id(node), {})[bitmap.name] = bitmap
    return bitmap


def remove(machine: Machine, bitmap: DirtyBitmap) -> None:
    table, node = blocks(machine), bitmap.node
    if bitmap.persistent:
        from vmrun.backends.block.qcow2_bitmaps import drop

        if node.readonly:
            raise BuildError(f"Bitmap '{bitmap.name}' is readonly and cannot be modified")
        drop(node, bitmap.name)
        del table.bitmaps[id(node)][bitmap.name]
        return
    with table.quiet(node):
        table.tap(node).drop_bitmap(bitmap.bits)
    del table.bitmaps[id(node)][bitmap.name]
    table.untap(node)


def digest(machine: Machine, node: str, name: str) -> str:
    """SHA-256 of a bitmap, as whole 64-bit words, the lowest byte first."""
    import hashlib

    bits = find(machine, node, name, busy=False).bits.pack()
    return hashlib.sha256(bits.ljust(max(1, -(-len(bits) // 8)) * 8, b"\0")).hexdigest()


def merge(machine: Machine, target: DirtyBitmap, sources: list[Any], node: str) -> None:
    """`sources`: names of the same node's, or {node, name}."""
    found = []
    for source in sources:
        one = (node, source) if isinstance(source, str) else (source["node"], source["name"])
        found.append(usable(find(machine, *one)))
    for bitmap in found:
        if bitmap.bits.size != target.bits.size:
            raise BuildError("Bitmaps are of different sizes and can't be merged")
    for bitmap in found:
        target.bits.merge(bitmap.bits)
