"""File names that say more than a file, and options with one: `json:{…}`, `blkdebug:CONFIG:FILE`, dotted keys."""

from __future__ import annotations

from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.nodeoptions import PROTOCOLS, from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.node import Node

# what may stand in an image as the format of its backing file, whether it can be opened here or not
NAMED = (
    "blkdebug", "blklogwrites", "blkverify", "bochs", "cloop", "compress", "copy-before-write",
    "copy-on-read", "dmg", "file", "ftp", "ftps", "gluster", "host_cdrom",
    "host_device", "http", "https", "iscsi", "iser", "luks", "nbd",
    "nfs", "null-aio", "null-co", "nvme", "parallels", "preallocate", "qcow",
    "qcow2", "qed", "quorum", "raw", "rbd", "replication", "snapshot-access",
    "ssh", "throttle", "vdi", "vhdx", "vmdk", "vpc", "vvfat",
)  # fmt: skip


def from_name(name: str) -> dict[str, Any]:
    """The options in a name with `json:`. ImageError."""
    try:
        return nested(from_json(name[5:]))
    except ImageError as error:
        raise ImageError(f"Could not open '{name}': {error.text}") from None


def nested(options: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as dictionaries: {"file.driver": …} as {"file": {"driver": …}}."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            value = nested(value)
        at = found
        *path, last = key.split(".")
        for part in path:
            inner = at.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ImageError(f"Cannot mix '{part}' and '{key}'")
            at = inner
        at[last] = value
    return found


def of_name(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a file name says without a driver, as options, with others that go before."""
    found: dict[str, Any] = {"driver": "file", "filename": name.removeprefix("file:")}
    if name.startswith("json:"):
        found = from_name(name)
    elif name.startswith("blkdebug:"):
        config, mark, inner = name.removeprefix("blkdebug:").partition(":")
        if not mark:
            raise ImageError(f"Could not open '{name}': blkdebug requires a file and an image")
        found = {"driver": "blkdebug", "image": {"filename": inner}} | ({"config": config} if config else {})
        if isinstance(below := options.get("image"), dict):
            options = {**options, "image": named(inner, below) if "driver" in below else of_name(inner, below)}
    elif name.startswith(("null-co:", "null-aio:")):
        found = {"driver": name.split(":")[0]}
    elif name.startswith(("nbd:", "nbd+")):
        found = {"driver": "nbd", "filename": name}
    elif name.startswith(("http:", "https:", "fat:")):
        found = {"filename": name}
    return {**found, **options}


def says_file(options: dict[str, Any]) -> bool:
    """Whether the options of an image (nested) say which file it is."""
    below = options.get("file", {})
    return "filename" in options or not isinstance(below, dict) or bool({"driver", "file", "filename"} & below.keys())


def named(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A file name and options of the image in it (nested), as -drive has them: a format's driver has it below."""
    driver = options.get("driver")
    below = options.get("file", {})
    if driver == "blkdebug" and not name.startswith("blkdebug:"):
        image = options.get("image", {})  # a file's contents as they are, where no driver is named
        return {**options, "image": named(name, image) if "driver" in image else of_name(name, image)}
    bottom = driver in PROTOCOLS and "file" not in PROTOCOLS[driver]
    if bottom or driver is None and name.startswith("json:") and "file" not in options:
        return of_name(name, options)
    if not isinstance(below, dict) or "filename" in below:
        raise ImageError("Can't specify 'file' and 'filename' options at the same time")
    return {**options, "file": named(name, below) if "driver" in below else of_name(name, below)}


def node_name(node: Node) -> str:
    """What a node is called in messages: its file's name."""
    while node is not None:
        path = getattr(node, "path", "")
        if path:
            return str(path)
        inner = [child for role, child in node.children() if role == "file"]
        if not inner:
            return f"{node.driver}://" if node.driver in ("null-co", "null-aio") else str(node.name or node.driver)
        node = inner[0]
    return ""
