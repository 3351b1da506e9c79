"""A machine with nothing in it, for clients that only ask what there is (`-machine none`)."""

from __future__ import annotations

from vmrun.core.loop import Loop
from vmrun.machine.accelerators import choose
from vmrun.machine.assembly import Assembly
from vmrun.machine.board import Board
from vmrun.machine.machine import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NOTHING: dict[str, Any] = {
    "machine": "none",
    "memory": 0,
    "memory-map": {},
    "cpus": {
        **{"count": 0, "sockets": 1, "cores": 1, "threads": 1, "maxcpus": 1},
        **{"apic-ids": "contiguous", "family": "qemu"},
    },
    "drives": {},
    "netdevs": {},
    "devices": [],
    "wires": [],
}


class EmptyMachine(Machine):
    def cold_reset(self) -> None:
        self.resets += 1


def build_empty(
    name: str,
    chardevs: dict[str, Any],
    mux: Any = None,
    objects: Sequence[dict[str, Any]] = (),
    accel: Sequence[str] = (),
) -> Machine:
    """It runs, and answers; no memory, no processor. accel: those whose processors it is asked about, the first that
    works.
    """
    from accel.api import DeviceLock

    lock = DeviceLock()
    loop = Loop(lock)
    config: Any = {**NOTHING, "name": name, "chardevs": chardevs}  # far from whole
    board = Board(config, loop, lock)
    choice = choose([*accel, "qtest"], board, {}, guests=False)
    board.accelerator = choice.accelerator
    machine = EmptyMachine(board.config, board, Assembly(board), choice)
    if mux is not None:
        board.mux = mux(loop, lock)
    machine.attach_loop()
    for wanted in objects:
        board.add_object(wanted)
    return machine
