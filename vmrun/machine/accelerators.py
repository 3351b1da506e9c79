"""Choosing the accelerator: each of the machine's list is tried in order, by doing, and the trying is told."""

from __future__ import annotations

from accel.accelerator import MODULES, find
from accel.errors import AccelFailure
from vmrun.errors import AccelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.accelerator import Accelerator
    from vmrun.machine.board import Board


class Choice:
    """What runs, and what was tried before it: [(name, why not)]."""

    def __init__(self, accelerator: Accelerator, refused: list[tuple[str, str]]) -> None:
        self.accelerator, self.refused = accelerator, refused


def choose(names: list[str], board: Board, options: dict[str, Any]) -> Choice:
    """AccelError with every refusal and its remedy when none of the list works here."""
    refused: list[tuple[str, str]] = []
    remedies: list[str] = []
    for name in names:
        if name not in MODULES:
            raise AccelError(f"there is no accelerator '{name}'", remedy=f"one of: {', '.join(MODULES)}")
        try:
            cls = find(name)
        except ImportError:
            refused.append((name, "this build of vmrun does not have it"))
            continue
        try:
            accelerator = cls(board.memory, board.io, board.lock, board.control, options)
        except AccelFailure as exc:
            refused.append((name, str(exc)))
            if exc.remedy:
                remedies.append(exc.remedy)
            continue
        return Choice(accelerator, refused)
    tried = "; ".join(f"{name}: {why}" for name, why in refused)
    raise AccelError(f"no accelerator of this machine works here ({tried})", remedy="; ".join(remedies))
