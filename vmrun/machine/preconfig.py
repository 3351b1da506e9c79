"""A machine before it is built (`-preconfig`): its board and back ends are there, and monitors may say more of it.

What they say ends up as if it stood on the command line: `said` are its further words. `x-exit-preconfig` ends it.
"""

from __future__ import annotations

from vmrun.machine.accelerators import choose
from vmrun.machine.assembly import Assembly
from vmrun.machine.board import Board
from vmrun.machine.empty import NOTHING, EmptyMachine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from vmrun.core.userobject import UserObject
    from vmrun.machine.machine import Machine

    Words = list[str]


class PreconfigMachine(EmptyMachine):
    """`nodes_of(words)`: the NUMA nodes, as of a resolved machine, with further words on the line; it raises
    ConfigError. `left` is set when nothing more is to be said.
    """

    whole = False

    def __init__(self, board: Board, nodes_of: Callable[[Words], list[dict[str, Any]]]) -> None:
        super().__init__(board.config, board, Assembly(board), choose(["qtest"], board, {}, guests=False))
        board.accelerator = self.choice.accelerator
        self.nodes_of = nodes_of
        self.said: Words = []
        self.left: Any = None  # the answer that x-exit-preconfig gets: vmrun.monitor.work.Promise

    def say(self, *words: str) -> None:
        """ConfigError, and nothing is changed, for what the line could not say."""
        nodes = self.nodes_of([*self.said, *words])
        self.said += words
        self.config["numa"] = nodes

    def forget(self, made: UserObject) -> None:
        """An object that was made meanwhile is gone."""
        import json

        pairs = zip(self.said[::2], self.said[1::2], strict=True)
        gone = [pair for pair in pairs if pair[0] == "-object" and json.loads(pair[1])["id"] == made.name]
        for pair in gone:
            at = self.said.index(pair[1]) - 1
            del self.said[at : at + 2]

    def hand_over(self, machine: Machine) -> None:
        """The machine that was built on this one's board is it from now on."""
        machine.works, machine.policy, machine.listeners = self.works, self.policy, self.listeners
        for held in (machine.board.blocks, machine.board.nbd, machine.board.jobs):
            if held is not None:
                held.machine = machine
        if self.monitors is not None:
            self.monitors.turn_to(machine)
        machine.loop.call_soon(self.left.keep)


class PreconfigBoard(Board):
    """It tells the machine of objects that are made: `-numa node,memdev=` may name them."""

    machine: PreconfigMachine | None = None

    def add_object(self, values: dict[str, Any], typed: bool = False) -> UserObject:
        made = super().add_object(values, typed)
        if self.machine is not None:
            import json

            self.machine.say("-object", json.dumps(values))
        return made

    def delete_object(self, id: str) -> None:
        made = self.user_object(id)
        super().delete_object(id)
        if self.machine is not None:
            self.machine.forget(made)


def prepare(
    config: Any,
    mux: Any,
    objects: Sequence[dict[str, Any]],
    blockdevs: Sequence[dict[str, Any]],
    nodes_of: Callable[[Words], list[dict[str, Any]]],
) -> PreconfigMachine:
    """`config` of the machine to come, whose back ends are opened; the rest as vmrun.machine.builder.build has it."""
    from accel.errands import ErrandLock

    from vmrun.core.loop import Loop

    lock = ErrandLock()
    config = {**config, **{key: NOTHING[key] for key in ("drives", "devices", "wires")}, "vnc": None}
    board = PreconfigBoard(config, Loop(lock), lock)
    machine = PreconfigMachine(board, nodes_of)
    try:
        if mux is not None:
            board.mux = mux(board.loop, lock)
        for options in blockdevs:
            board.nodes.begin(options)
        for wanted in objects:
            board.add_object(wanted)
    except BaseException:
        machine.close()
        raise
    board.machine = machine
    machine.attach_loop()
    return machine
