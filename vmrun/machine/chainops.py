"""Along a chain of backing images: stream, commit, the name of a backing file. BuildError in QEMU's words; the main
thread, without the device lock.
"""

from __future__ import annotations

import os

from vmrun.errors import BuildError
from vmrun.machine.blockjobs import (
    ActiveCommit,
    BlockJob,
    Commit,
    Stream,
    all_free,
    backing_of,
    between,
    chain_of,
    file_of,
    format_of,
    free,
    id_of,
    overlay_of,
    set_backing,
    started,
)  # fmt: skip
from vmrun.machine.blockops import How, root_alone, writable
from vmrun.machine.blocks import blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine


def _below(top: Any, name: str) -> Any:
    """The image of a chain by its file, as it is or as the image above it would say it; None."""
    from vmrun.backends.block.images import beside

    above = ""
    for one in chain_of(top):
        path = file_of(one)
        if name in (path, one.name) or above and os.path.realpath(beside(above, name)) == os.path.realpath(path):
            return one
        above = path
    wanted = os.path.abspath(name)
    return next((one for one in chain_of(top) if os.path.abspath(file_of(one)) == wanted), None)


def _base(machine: Machine, top: Any, base: str, base_node: str, what: str) -> Any:
    """The image of the chain below `top` that a command names; None when it names none."""
    table = blocks(machine)
    if base and base_node:
        raise BuildError("'base' and 'base-node' cannot be specified at the same time")
    if base_node:
        node = table.node(base_node)
        if node is None:
            raise BuildError(f"Cannot find device='' nor node-name='{base_node}'")
        if not any(one is node for one in chain_of(top)):
            raise BuildError(f"Node '{base_node}' is not a backing image of '{what}'")
        return node
    if base:
        found = _below(top, base)
        if found is None:
            raise BuildError(f"Can't find '{base}' in the backing chain")
        return found
    return None


def block_stream(
    machine: Machine, device: str, *, base: str = "", base_node: str = "", backing_file: str = "", bottom: str = "",
    **given: Any,
) -> BlockJob:  # fmt: skip
    from vmrun.backends.block.reopening import reopen

    how, table = How(given), blocks(machine)
    source, _ = table.find(device)
    if bottom and (base or base_node):
        other = "base" if base else "base-node"
        raise BuildError(f"'bottom' and '{other}' cannot be specified at the same time")
    if bottom:
        lowest = table.node(bottom)
        if lowest is None:
            raise BuildError(f"Cannot find device='' nor node-name='{bottom}'")
        if not any(one is lowest for one in chain_of(source)):
            raise BuildError(f"Node '{bottom}' is not in a chain starting from '{device}'")
        below = backing_of(lowest)
    else:
        below = _base(machine, source, base, base_node, device)
        if below is source:
            if base:
                raise BuildError(f"Can't find '{base}' in the backing chain")
            raise BuildError(f"Node '{base_node}' is not a backing image of '{device}'")
    if backing_file and below is None:
        raise BuildError("backing file specified, but streaming the entire chain")
    all_free(machine, between(source, below))
    above_base, filter = table.filters.get(id_of(below), ("", ""))
    if filter == "commit_top" and base_node != above_base:
        raise BuildError(f"Cannot freeze 'backing' link to '{above_base}'")
    id = how.name(device, source, machine)
    # an image below others is only read otherwise
    was = bool(source.readonly) and not table.is_shown(source) and table.is_below(source)
    if was:
        _open_for_writing(source)
    else:
        writable(source)
    try:
        return started(
            machine,
            lambda: Stream(
                machine, id, source, None, base=below, backing_file=backing_file, was_readonly=was, **how.keywords
            ),
            id,
        )
    except BaseException:
        if was:
            reopen(source, True)
        raise


def _told(error: Exception) -> str:
    """An ImageError or an OSError in words alone."""
    return str(getattr(error, "text", "") or getattr(error, "strerror", "") or error)


def _open_for_writing(node: Any) -> None:
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.reopening import reopen

    try:
        reopen(node, False)
    except ImageError as error:
        raise BuildError(error.text) from None


def _of_chain(machine: Machine, top: Any, name: str) -> Any:
    node = blocks(machine).node(name)
    if node is None:
        raise BuildError(f"Cannot find device='' nor node-name='{name}'")
    if not any(one is node for one in chain_of(top)):
        raise BuildError(f"'{name}' is not in this backing file chain")
    return node


def block_commit(
    machine: Machine, device: str, *, base: str = "", base_node: str = "", top: str = "", top_node: str = "",
    backing_file: str = "", **given: Any,
) -> BlockJob:  # fmt: skip
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.reopening import reopen

    how, table = How(given), blocks(machine)
    active, _ = table.find(device)
    root_alone(table, active)
    if top and top_node:
        raise BuildError("'top-node' and 'top' are mutually exclusive")
    if base and base_node:
        raise BuildError("'base-node' and 'base' are mutually exclusive")
    upper = active
    if top and (upper := _below(active, top)) is None:
        raise BuildError(f"Top image file {top} not found")
    if top_node:
        upper = _of_chain(machine, active, top_node)
    if base_node:
        lower = _of_chain(machine, upper, base_node)
    else:
        lower = _base(machine, upper, base, "", device) if base else chain_of(upper)[-1]
    if lower is upper and base:
        raise BuildError(f"Can't find '{base}' in the backing chain")
    if lower is upper:
        raise BuildError("cannot commit an image into itself")
    if lower is None:
        raise BuildError("There is no backing image")
    free(machine, active, table.shown_name(active))
    chain = chain_of(active)
    above = overlay_of(active, upper)
    touched = chain[chain.index(upper) : chain.index(lower) + 1]
    all_free(machine, [*touched, above] if above is not None and upper is not active else touched)
    id = how.name(device, active, machine)
    was = bool(lower.readonly)
    try:
        with table.quiet(lower):
            reopen(lower, False)
        if lower.size < upper.size:
            lower.truncate(upper.size)
    except (ImageError, OSError) as error:
        if was and not lower.readonly:
            reopen(lower, True)
        raise BuildError(_told(error)) from None
    keywords = dict(how.keywords)
    try:
        if upper is active and not active.readonly:
            if backing_file:
                raise BuildError("'backing-file' specified, but 'top' is the active layer")
            grain = max(4096, min(65536, getattr(lower, "cluster_size", 65536)))
            return started(
                machine,
                lambda: ActiveCommit(
                    machine, id, active, lower, sync="top", base=lower, granularity=grain, was_readonly=was, **keywords
                ),
                id,
            )
        if above is None:
            raise BuildError(f"Could not find overlay image for {file_of(upper)}")
        name = backing_file or os.path.abspath(file_of(lower))
        return started(
            machine,
            lambda: Commit(
                machine, id, upper, lower, active=active, backing_file=name, was_readonly=was, **keywords
            ),
            id,
        )
    except BaseException:
        if was and not lower.readonly:
            reopen(lower, True)
        raise


def change_backing_file(machine: Machine, device: str, node: str, file: str) -> None:
    table = blocks(machine)
    top, _ = table.find(device)
    image = table.node(node)
    if image is None:
        raise BuildError(f"Cannot find device='' nor node-name='{node}'")
    if not any(one is image for one in chain_of(top)):
        raise BuildError(f"'{node}' not found in the backing chain of '{device}'")
    below = backing_of(image)
    if below is None:
        raise BuildError("not allowing backing file change on an image without a backing file")
    with table.quiet(image):
        set_backing(image, file, format_of(below))


def commit_now(machine: Machine, device: str) -> None:
    """HMP's commit: what lies above a drive's backing image goes into it, while the guest's requests wait."""
    from vmrun.backends.block.chain import pieces
    from vmrun.backends.block.copy import Lane
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.qcow2_snapshots import make_empty
    from vmrun.backends.block.reopening import reopen

    table, lane = blocks(machine), Lane()
    if device == "all":
        names = [id for id, drive, _ in table.drives() if drive.node is not None and backing_of(drive.node) is not None]
    else:
        names = [device]
    for name in names:
        top, _ = table.find(name)
        below = backing_of(top)
        if below is None:
            raise BuildError(f"'commit' error for '{name}': No medium found" if device != "all" else "")
        free(machine, top, name)
        was = bool(below.readonly)
        with table.quiet(top):
            try:
                reopen(below, False)
                if below.size < top.size:
                    below.truncate(top.size)
                for piece in pieces(top, 0, None, below):
                    if piece.data:
                        lane.copy(top, below, piece.start, piece.start, piece.length, 0)
                    elif piece.zero:
                        below.write_zeroes(piece.start, piece.length, True)
                below.sync()
                if hasattr(top, "cluster_size"):
                    make_empty(top)
            except (ImageError, OSError) as error:
                raise BuildError(f"'commit' error for '{name}': {_told(error)}") from None
            finally:
                if was and not below.readonly:
                    reopen(below, True)


# --- new images, other options --------------------------------------------------------------------------------------
