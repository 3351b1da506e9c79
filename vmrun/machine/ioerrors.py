"""Errors of the host's disks on their way to the run state: BLOCK_IO_ERROR is told, and `stop` pauses the machine.

The requests that failed wait in their drives; when the machine goes on they are started again.
"""

from __future__ import annotations

import errno
import os

from vmrun.machine import runstate
from vmrun.machine.blocks import blocks, graph

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine

READ, OWN = 0, 4
ACTIONS = ("report", "ignore", "stop")


class IoErrors:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.board.on_drive_error = self.heard

    def heard(self, drive: Any, op: int, error: int, policy: int) -> None:
        """From a worker of the drive."""
        self.machine.loop.call_soon(lambda: self.act(drive, op, error, policy))

    def act(self, drive: Any, op: int, error: int, policy: int) -> None:
        if drive.node is not None:
            tell_faults(self.machine, drive.node, blocks(self.machine).public_name(drive.name))
        if policy == OWN:
            return
        details = {"node-name": drive.node.name} if drive.node is not None and drive.node.name else {}
        self.machine.tell(
            "BLOCK_IO_ERROR",
            device=blocks(self.machine).public_name(drive.name),
            **details,
            operation="read" if op == READ else "write",
            action=ACTIONS[policy],
            nospace=error == errno.ENOSPC,
            reason=os.strerror(error),
        )
        if ACTIONS[policy] == "stop":
            self.machine.pause(runstate.IO_ERROR)

    def retry(self) -> None:
        """The machine goes on."""
        for drive in self.machine.board.drives.values():
            drive.retry()


def tell_faults(machine: Machine, top: Any, device: str = "") -> None:
    """BLOCK_IMAGE_CORRUPTED, once for each image of a graph that was found to be wrong."""
    for node in graph(top):
        fault = node.take_fault() if hasattr(node, "take_fault") else None
        if fault is not None:
            text, place, size, fatal = fault
            machine.tell(
                "BLOCK_IMAGE_CORRUPTED",
                device=device if node is top else "",
                **{"node-name": blocks(machine).node_name(node)},
                msg=text,
                **({} if place is None else {"offset": place, "size": size}),
                fatal=bool(fatal),
            )
