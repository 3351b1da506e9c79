"""`vmrun-nbd --list`: what a server exports, as `qemu-nbd --list` prints it."""

from __future__ import annotations

import sys

from vmrun.cli.img.options import Given, ImgError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.nbd_client import Offer

# transmission flags, from bit 1 on
FLAGS = (
    "readonly", "flush", "fua", "rotational", "trim", "zeroes", "df", "multi", "resize", "cache", "fast-zero",
)  # fmt: skip


def tell(given: Given, tls: Any) -> int:
    """ImgError."""
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.nbd_client import Place, offers

    try:
        address = given["k"] or (given["b"] or "0.0.0.0", given["p"] or "10809")
        found = offers(Place(address, "", tls=tls, hostname=given["tls-hostname"]))
    except ImageError as error:
        raise ImgError(error.text) from None
    sys.stdout.write(f"exports available: {len(found)}\n")
    for one in found:
        sys.stdout.write(_told(one))
    return 0


def _told(one: Offer) -> str:
    lines = [f" export: '{one.name}'"]
    if one.description:
        lines.append(f"  description: {one.description}")
    if one.flags:
        words = "".join(f"{word} " for bit, word in enumerate(FLAGS, 1) if one.flags & 1 << bit)
        lines += [f"  size:  {one.size}", f"  flags: {one.flags:#x} ( {words})"]
    if one.blocks is not None:
        lines += [f"  {name} block: {size}" for name, size in zip(("min", "opt", "max"), one.blocks, strict=True)]
    if one.contexts:
        lines.append(f"  available meta contexts: {len(one.contexts)}")
        lines += [f"   {name}" for name in one.contexts]
    return "\n".join(lines) + "\n"
