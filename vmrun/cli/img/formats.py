"""The options with which an image of each format is made, and what is said of them."""

from __future__ import annotations

from vmrun.backends.block.formats import module
from vmrun.backends.block.images import FILTERS, MAPPED, PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CREATE: dict[str, dict[str, Any]] = {
    "raw": {"size": "size", "preallocation": "str", "nocow": "bool", "extent_size_hint": "size"},
    "qcow2": {
        "cluster_size": "size", "extended_l2": "bool", "preallocation": "str", "compression_type": "str",
        "size": "size", "compat": "str", "data_file": "str", "data_file_raw": "bool", "backing_file": "str",
        "backing_fmt": "str", "lazy_refcounts": "bool", "refcount_bits": "int", "nocow": "bool",
    },
}  # fmt: skip
_SHOWN: dict[str, tuple[tuple[str, Any], ...]] = {
    "raw": (("size", None), ("nocow", None), ("preallocation", None), ("extent_size_hint", None)),
    "qcow2": (
        ("encryption", None),
        ("cluster_size", 65536), ("extended_l2", False), ("preallocation", None), ("compression_type", "zlib"),
        ("size", None), ("compat", None), ("data_file", None), ("data_file_raw", None), ("backing_file", None),
        ("backing_fmt", None), ("lazy_refcounts", False), ("refcount_bits", 16), ("nocow", None),
    ),
}  # fmt: skip
_HELP = {
    "raw": {"size=<size>": "Virtual disk size"},
    "qcow2": {
        "backing_file=<str>": "File name of a base image", "backing_fmt=<str>": "Image format of the base image",
        "cluster_size=<size>": "qcow2 cluster size", "compat=<str>": "Compatibility level (v2 [0.10] or v3 [1.1])",
        "compression_type=<str>": "Compression method used for image cluster compression",
        "data_file=<str>": "File name of an external data file",
        "data_file_raw=<bool (on/off)>": "The external data file must stay valid as a raw image",
        "extended_l2=<bool (on/off)>": "Extended L2 tables",
        "lazy_refcounts=<bool (on/off)>": "Postpone refcount updates",
        "preallocation=<str>": "Preallocation mode (allowed values: off, metadata, falloc, full)",
        "refcount_bits=<num>": "Width of a reference count entry in bits", "size=<size>": "Virtual disk size",
    },
}  # fmt: skip
_OF_FILES = {
    "extent_size_hint=<size>": "Extent size hint for the image file, 0 to disable",
    "nocow=<bool (on/off)>": "Turn off copy-on-write (valid only on btrfs)",
    "preallocation=<str>": "Preallocation mode (allowed values: off, falloc, full)",
}

UNMADE = ("bochs", "cloop", "dmg")  # they are only read, by others


def known(format: str) -> bool:
    """Whether images of it can be made."""
    return format in _CREATE or format in MAPPED


def not_made(format: str) -> str:
    """Why images of it are not made."""
    if format in PROTOCOLS or format in FILTERS or format in UNMADE:
        return f"Format driver '{format}' does not support image creation"
    return f"Unknown file format '{format}'"


def create_options(format: str) -> dict[str, Any]:
    """-o's names and their kinds; none of a format that is not known."""
    if format in MAPPED:
        return dict(module(format).OPTIONS)
    return _CREATE.get(format, {})


def shown_options(format: str) -> tuple[tuple[str, Any], ...]:
    """What `Formatting` shows, in QEMU's order; those with a value here are told when nobody gave them."""
    return tuple(module(format).SHOWN) if format in MAPPED else _SHOWN[format]


def option_help(format: str, named: bool = False) -> str:
    """`named`: a file was given, whose own options are meant, too."""
    found = module(format).HELP if format in MAPPED else _HELP[format]
    if named:
        found = dict(sorted((_OF_FILES | found).items()))
    lines = ["Supported options:" if named else f"Supported {format} options:"]
    lines += [f"  {name:<22} - {what}" for name, what in found.items()]
    if named:
        return "\n".join([*lines, ""])
    lines += ["", "The protocol level may support further options."]
    return "\n".join(lines) + "\nSpecify the target filename to include those options.\n"


def amend_help() -> str:
    names = (
        "backing_file", "backing_fmt", "compat", "data_file", "data_file_raw", "lazy_refcounts", "refcount_bits",
        "size",
    )  # fmt: skip
    lines = [f"  {name:<22} - {what}" for name, what in _HELP["qcow2"].items() if name.partition("=")[0] in names]
    return "\n".join(["Amend options for 'qcow2':", *lines, ""])
