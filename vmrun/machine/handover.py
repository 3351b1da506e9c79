"""Whose the images are when a machine moves: two programs have them open, and only one of them may use them.

Where the machine is awaited (`waiting`) they are opened without locks, and where it has gone (`let_go`) they are let
alone, written to the last byte; both leave them asleep. Who has the machine then takes them (`take`): the locks, and
what an image's tables say now.
"""

from __future__ import annotations

import contextlib

from vmrun.backends.block import images, reopening
from vmrun.backends.block.errors import ImageError
from vmrun.errors import BackendError, StateError
from vmrun.machine.blocks import blocks, graph, tell_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine


waiting = images.waiting


def _nodes(machine: Machine) -> list[Any]:
    """All of them, what lies below before what is above."""
    return [node for node, _ in blocks(machine).nodes()][::-1]


def check(machine: Machine) -> None:
    """StateError when somebody writes images while the machine stands still."""
    for kind in blocks(machine).busy.values():
        raise StateError(f"a block job ({kind}) works on an image of the machine", remedy="wait for it, or cancel it")


def let_go(machine: Machine) -> None:
    """The machine stands still: write what is kept back, and give up the locks. BackendError: it has them still."""
    done: list[Any] = []
    machine.left = True
    try:
        for node in reversed(_nodes(machine)):
            if not node.asleep:
                node.rest()  # one that cannot has what it keeps back still
                done.append(node)
                reopening.give_up(node)
    except OSError as error:
        machine.left = False
        _take(done[::-1])
        raise BackendError(f"the images cannot be written: {error.strerror}") from None


def take(machine: Machine) -> None:
    """The images are this machine's. BackendError when another has them; it has none then."""
    _take([node for node in _nodes(machine) if node.asleep])
    machine.left = False
    for _, drive, user in blocks(machine).drives():
        if drive.node is not None and drive.size != (drive.node.size + 511) & ~511:  # since it was looked at here
            tell_size(machine, drive, user)


def take_one(node: Any) -> None:
    """A node that is written from here before the machine comes, as when its disks are copied: it and what is below
    are this program's. BackendError when another has them.
    """
    _take([each for each in graph(node) if each.asleep][::-1])


def _take(nodes: list[Any]) -> None:
    taken: list[Any] = []
    try:
        for node in nodes:
            reopening.take(node)
            taken.append(node)
    except (ImageError, OSError) as error:
        for node in reversed(taken):
            with contextlib.suppress(OSError):
                node.rest()
            reopening.give_up(node)
            node.asleep = True
        text = error.text if isinstance(error, ImageError) else str(error.strerror)
        raise BackendError(text, remedy=getattr(error, "remedy", "") or "") from None
