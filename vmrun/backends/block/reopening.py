"""What an image that is open is here for: for reading alone or for writing too, this program's or another's.

Ref: QEMU docs/interop/qcow2.txt, on the bits that who writes an image must know; the locks are locks.py's.
"""

from __future__ import annotations

import contextlib
import os

from vmrun.backends.block import qcow2_header as headers
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.filenames import node_name
from vmrun.backends.block.locks import lock_file, unlock_file
from vmrun.core import fdsets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.node import Node

CORRUPT = "qcow2: Image is corrupt; cannot be opened read/write"


def reopen(node: Node, readonly: bool) -> None:
    """Let what only reads an image write it, or the other way; backing images stay as they are. ImageError."""
    if bool(node.readonly) == readonly:
        return
    below = [child for role, child in node.children() if role in ("file", "data-file") or role.startswith("extents.")]
    if readonly:
        if hasattr(node, "adopt"):
            _reopen_file(node, True)
        else:
            node.turn(True)
        for child in below:
            reopen(child, True)
        return
    header = getattr(node, "header", None)
    if header is not None and header.incompatible & headers.CORRUPT:
        raise ImageError(f"Could not open '{node_name(node)}': {CORRUPT}")
    turned: list[Node] = []
    try:
        for child in below:
            if child.readonly:
                reopen(child, False)
                turned.append(child)
        if hasattr(node, "adopt"):
            _reopen_file(node, False)
        else:
            node.turn(False)
    except ImageError:
        for child in turned:  # nobody writes what is below an image that may not be written
            with contextlib.suppress(ImageError):
                reopen(child, True)
        raise
    if header is not None and not node.asleep:
        prepare(node, header, node_name(node))


def _reopen_file(node: Any, readonly: bool) -> None:
    flags = os.O_CLOEXEC | (os.O_RDONLY if readonly else os.O_RDWR) | (os.O_DIRECT if node.align > 1 else 0)
    try:
        if node.path.startswith("/dev/fdset/"):
            fd = fdsets.open_file(node.path, flags)
        else:
            fd = os.open(f"/proc/self/fd/{node.fd}", flags)
    except (OSError, ValueError) as error:
        raise ImageError(f"Could not reopen '{node.path}': {getattr(error, 'strerror', error)}") from None
    try:
        if not node.unlocked and not node.asleep:
            unlock_file(node.fd)  # what it holds would keep us out, too
            lock_file(node.path, fd, readonly)
    except BaseException:
        os.close(fd)
        lock_file(node.path, node.fd, bool(node.readonly))
        raise
    node.adopt(fd, readonly)


def give_up(node: Any) -> None:
    """Another program may have a node's image: no locks."""
    if hasattr(node, "adopt") and not node.unlocked:
        unlock_file(node.fd)


def take(node: Any) -> None:
    """A node that is asleep, and all below it is not: it is this program's now. ImageError, OSError; it sleeps on."""
    if hasattr(node, "adopt") and not node.unlocked:
        lock_file(node.path, node.fd, bool(node.readonly))
    try:
        node.wake()
        header = getattr(node, "header", None)
        if header is not None and not node.readonly:
            if header.incompatible & headers.CORRUPT:
                raise ImageError(f"Could not open '{node_name(node)}': {CORRUPT}")
            prepare(node, header, node_name(node))
    except BaseException as error:
        give_up(node)
        node.asleep = True
        if isinstance(error, headers.QcowError):
            raise ImageError(f"Could not open '{node_name(node)}': {error}") from None
        raise


def prepare(node: Any, header: Any, name: str) -> None:
    """Before the first write: counts made anew after a crash, and what only those who know it may keep said."""
    if header.incompatible & headers.DIRTY:
        from vmrun.backends.block.qcow2_check import check

        found = check(node, "all", lambda line: None)
        if found.corruptions - found.corruptions_fixed > 0 or found.errors:
            raise ImageError(f"Could not open '{name}': Could not repair dirty image: Input/output error")
        node.clean()
    forget_unknown(node)
    if header.bitmaps:
        from vmrun.backends.block.qcow2_bitmaps import take

        try:
            take(node)
        except headers.QcowError as error:
            raise ImageError(f"Could not open '{name}': {error}") from None


def forget_unknown(node: Any) -> None:
    """Who writes an image says of it no more what only those know who are not here."""
    header = node.header
    keep = (headers.RAW_EXTERNAL if node.external else 0) | headers.BITMAPS
    if header.stale or header.version >= 3 and header.autoclear & ~keep:
        header.autoclear &= keep
        node.update_header()
