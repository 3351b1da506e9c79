"""Who gives a disk more room as it fills wants to know in time: BLOCK_WRITE_THRESHOLD tells, once, that a node was
written beyond an offset. For a thin volume these are offsets in the file: those of the node below the format.
"""

from __future__ import annotations

import os

from vmrun.errors import BuildError
from vmrun.machine.blocks import blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine


class Thresholds:
    """`waiting`: name → (node, its limit)."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.waiting: dict[str, tuple[Any, int]] = {}
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        machine.loop.add_fd(self.bell, self._rung)

    def set(self, name: str, limit: int) -> None:
        """0: nowhere. BuildError."""
        table = blocks(self.machine)
        node = table.node(name)
        if node is None:
            raise BuildError(f"Device '{name}' not found")
        if limit < 0:
            raise BuildError("Parameter 'write-threshold' expects uint64")
        with table.quiet(node):
            node.watch(limit, self.bell)
        self.waiting.pop(name, None)
        if limit:
            self.waiting[name] = node, limit
        if not _counts(node):
            (table.tap if limit else table.untap)(node)

    def _rung(self) -> None:
        os.eventfd_read(self.bell)
        for name, (node, limit) in list(self.waiting.items()):
            end = node.take_passed()
            if end:
                del self.waiting[name]
                if not _counts(node):
                    blocks(self.machine).untap(node)
                self.machine.tell(
                    "BLOCK_WRITE_THRESHOLD",
                    **{"node-name": name, "amount-exceeded": end - limit, "write-threshold": limit},
                )

    def close(self) -> None:
        """The machine's end, when nobody writes any more."""
        self.machine.loop.remove_fd(self.bell)
        os.close(self.bell)


def _counts(node: Any) -> bool:
    """Whether it notices by itself what is written to it; others are watched from above."""
    from vmrun.backends.block.file import FileNode
    from vmrun.backends.block.null import NullNode

    return isinstance(node, FileNode | NullNode)


def thresholds(machine: Machine) -> Thresholds:
    found: Thresholds | None = machine.board.thresholds
    if found is None:
        found = machine.board.thresholds = Thresholds(machine)
    return found
