"""`bitmap`: the dirty bitmaps that a qcow2 image keeps; how they come along when it is copied, and what they take."""

from __future__ import annotations

import sys

from vmrun.cli.img.options import Given, ImgError, image_size, open_image, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNUSABLE = (
    "Bitmap '{}' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk"
)
LONG = {"source-file": "b", "source-format": "F", "granularity": "g"}
ACTIONS = ("add", "remove", "clear", "enable", "disable")


def bitmap(argv: list[str]) -> int:
    given = Given(argv, "b:f:F:g:", ("merge=", *ACTIONS), LONG)
    asked = [(name, value) for name, values in given.all.items() if name in (*ACTIONS, "merge") for value in values]
    if len(given.args) != 2:
        raise ImgError("Expecting filename and bitmap name")
    if not asked:
        raise ImgError("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge")
    grain = 0
    if "g" in given:
        if "add" not in given:
            raise ImgError("granularity only supported with --add")
        grain = image_size(str(given["g"]), "granularity")
    if "F" in given and "b" not in given:
        raise ImgError("-F only supported with -b")
    if "b" in given and "merge" not in given:
        raise ImgError("Merge bitmap source file only supported with --merge")
    name, which = given.args
    node: Any = open_image(name, given["f"], write=True, options="image-opts" in given)
    source: Any = None
    try:
        if "b" in given:
            source = open_image(str(given["b"]), given["F"], backing=False)  # the image may be below it
        for action, value in asked:
            try:
                _act(node, action, which, grain, source or node, value)
            except ValueError as error:
                raise ImgError(f"Operation {action} on bitmap {which} failed: {error}") from None
    finally:
        if source is not None:
            source.close()
        node.close()
    return 0


def _act(node: Any, action: str, name: str, grain: int, source: Any, other: str) -> None:
    """ValueError in QEMU's words."""
    from vmrun.backends.block import qcow2_bitmaps as kept

    if action == "add":
        if any(one.name == name for one in of(node)):
            raise ValueError(f"Bitmap already exists: {name}")
        add(node, name, grain, True)
        return
    found = find(node, name)
    if action == "remove":
        kept.drop(node, name)
    elif found.inconsistent:
        raise ValueError(UNUSABLE.format(name))
    elif action == "clear":
        found.bits.clear()
    elif action == "merge":
        from_ = find(source, other)
        if from_.inconsistent:
            raise ValueError(UNUSABLE.format(other))
        if from_.bits.size != found.bits.size:
            raise ValueError("Bitmaps are of different sizes and can't be merged")
        found.bits.merge(from_.bits)
    else:
        found.bits.enabled = action == "enable"


def of(node: Any) -> list[Any]:
    """A node's bitmaps: vmrun.backends.block.qcow2_bitmaps.Kept."""
    from vmrun.backends.block.qcow2_bitmaps import known
    from vmrun.backends.block.qcow2_header import QcowError

    if not hasattr(node, "bitmaps"):
        return []
    try:
        return list(known(node))
    except QcowError as error:
        raise ImgError(str(error)) from None


def find(node: Any, name: str) -> Any:
    for one in of(node):
        if one.name == name:
            return one
    raise ValueError(f"Dirty bitmap '{name}' not found")


def add(node: Any, name: str, grain: int, enabled: bool) -> Any:
    """A new one, empty. ValueError."""
    from vmrun.backends.block import qcow2_bitmaps as kept
    from vmrun.backends.block.bitmap import Bitmap

    if not name:
        raise ValueError("Bitmap name cannot be empty")
    if not hasattr(node, "bitmaps"):
        raise ValueError(f"Can't store persistent bitmaps to {node.name or '#block000'}: Operation not supported")
    if grain and (grain < 512 or grain & (grain - 1) or grain >> 32):
        raise ValueError("Granularity must be power of 2 and at least 512")
    bits = Bitmap(node.size, grain or min(max(node.cluster_size, 4096), 65536))
    bits.enabled = enabled
    try:
        kept.add(node, name, bits)
    except ValueError as error:
        raise ValueError(f"Can't make bitmap '{name}' persistent in '{node.name or '#block000'}': {error}") from None
    return bits


def copy(source: Any, target: Any, skip: bool) -> None:
    """convert's --bitmaps, after the data."""
    for one in reversed(of(source)) if skip else of(source):
        if one.inconsistent:
            sys.stderr.write(f"{program()}: warning: Skipping inconsistent bitmap '{one.name}'\n")
            continue
        try:
            add(target, one.name, one.bits.granularity, bool(one.bits.enabled)).merge(one.bits)
        except ValueError as error:
            raise ImgError(f"Failed to populate bitmap {one.name}: {error}") from None


def check(source: Any, format: str, skip: bool) -> None:
    """Before anything is copied."""
    if not getattr(source, "version", 0) >= 3:
        raise ImgError("Source lacks bitmap support")
    if format != "qcow2":
        raise ImgError(f"Format driver '{format}' does not support bitmaps")
    for one in reversed(of(source)):
        if one.inconsistent and not skip:
            raise ImgError(
                f"Cannot copy inconsistent bitmap '{one.name}'\n"
                "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it"
            )


def needed(node: Any, cluster: int) -> int:
    """Bytes that the bitmaps of an image take in one with clusters of `cluster` bytes."""
    total = directory = 0
    for one in of(node):
        if one.inconsistent:
            continue
        pieces = -(-node.size // one.bits.granularity)
        length = -(-pieces // 8)
        places = -(-length // cluster)
        total += (places + -(-places * 8 // cluster)) * cluster
        directory += (24 + len(one.name.encode()) + 7) & ~7
    return total + -(-directory // cluster) * cluster
