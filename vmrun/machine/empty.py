"""A machine with nothing in it, for clients that only ask what there is (`-machine none`)."""

from __future__ import annotations

from accel.ram import RamBlock
from accel.space import Region

from vmrun.core.loop import Loop
from vmrun.machine.accelerators import choose
from vmrun.machine.assembly import Assembly
from vmrun.machine.board import Board
from vmrun.machine.machine import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

PAGE = 4096
NOTHING: dict[str, Any] = {
    "machine": "none",
    "memory": 0,
    "memory-map": {},
    "cpus": {
        **{"count": 0, "sockets": 1, "cores": 1, "threads": 1, "maxcpus": 1},
        **{"apic-ids": "contiguous", "family": "qemu", "versions": "v1"},
    },
    "firmware": {},
    "drives": {},
    "netdevs": {},
    "devices": [],
    "wires": [],
}


class EmptyMachine(Machine):
    def cold_reset(self) -> None:
        self.resets += 1


def build_empty(
    wanted: dict[str, Any],
    mux: Any = None,
    objects: Sequence[dict[str, Any]] = (),
    blockdevs: Sequence[dict[str, Any]] = (),
    accel: Sequence[str] = (),
    board: Board | None = None,
) -> Machine:
    """It runs, and answers; no processor. `wanted`: what there is besides of a machine's configuration, such as its
    name and memory. accel: those whose processors it is asked about, the first that works. The rest is as
    vmrun.machine.builder.build has it.
    """
    from accel.api import DeviceLock

    config: Any = {**NOTHING, **wanted}  # far from whole
    fresh = board is None
    if board is None:
        lock = DeviceLock()
        board = Board(config, Loop(lock), lock)
    choice = choose([*accel, "qtest"], board, {}, guests=False)
    board.accelerator = choice.accelerator
    machine = EmptyMachine(board.config, board, Assembly(board), choice)
    try:
        if config["memory"]:
            board.ram = RamBlock("ram", -(-config["memory"] // PAGE) * PAGE)
            with board.memory.transaction():
                board.system_memory.add(Region.ram("ram", board.ram), 0)
        if fresh:
            if mux is not None:
                board.mux = mux(board.loop, board.lock)
            for options in blockdevs:
                board.nodes.begin(options)
            for values in objects:
                board.add_object(values)
            for id in config["netdevs"]:
                board.netdev(id)
        machine.attach_loop()
    except BaseException:
        machine.close()
        raise
    return machine
