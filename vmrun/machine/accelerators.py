"""Choosing the accelerator: each of the machine's list is tried in order, by doing, and the trying is told."""

from __future__ import annotations

import os

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


def choose(names: list[str], board: Board, options: dict[str, Any], *, guests: bool = True) -> Choice:
    """AccelError with every refusal and its remedy when none of the list works here.

    One that runs, but ends guests at what stock kernels do, gives way to the next of the list; the last way out is it.
    guests: there will be some; a machine without processors is only asked what there is, and KVM is there.
    """
    refused: list[tuple[str, str]] = []
    remedies: list[str] = []
    last: list[tuple[str, type[Accelerator], str]] = []
    for position, name in enumerate(names):
        if name not in MODULES:
            raise AccelError(f"there is no accelerator '{name}'", remedy=f"one of: {', '.join(MODULES)}")
        try:
            cls = find(name)
        except ImportError:
            refused.append((name, "this build of vmrun does not have it"))
            continue
        if options.get("clock") == "instructions" and name == "kvm":
            refused.append((name, "its processors do not say how many instructions they execute"))
            remedies.append("`accel: soft`, or no `clock: {mode: instructions}`")
            continue
        ends = _dead_ends(name, cls) if guests and position + 1 < len(names) else ""
        if ends:
            last.append((name, cls, f"gives up on what stock kernels do: {ends}"))
            continue
        try:
            accelerator = cls(board.memory, board.io, board.lock, board.control, options)
        except AccelFailure as exc:
            refused.append((name, str(exc)))
            if exc.remedy:
                remedies.append(exc.remedy)
            continue
        return Choice(accelerator, [(name, why) for name, _, why in last] + refused)
    for name, cls, _ in last:
        try:
            return Choice(cls(board.memory, board.io, board.lock, board.control, options), refused)
        except AccelFailure as exc:
            refused.append((name, str(exc)))
    tried = "; ".join(f"{name}: {why}" for name, why in refused)
    raise AccelError(f"no accelerator of this machine works here ({tried})", remedy="; ".join(remedies))


def _dead_ends(name: str, cls: type[Accelerator]) -> str:
    """cls.dead_ends(), which takes KVM half a second: kept until the host boots again, if there is a place for it."""
    if name != "kvm":
        return cls.dead_ends()
    from vmrun import __version__
    from vmrun.config.kept import cache_dir

    path = os.path.join(os.path.dirname(cache_dir()), "kvm-dead-ends") if cache_dir() else ""
    key = ""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            key = f"{__version__} {os.uname().release} {file.read().strip()}"
        with open(path, encoding="utf-8") as file:
            known, _, ends = file.read(4096).partition("\n")
        if known == key:
            return ends.strip()
    except (OSError, ValueError):
        pass
    ends = cls.dead_ends()
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        own = f"{path}.{os.getpid()}"
        with open(own, "w", encoding="utf-8") as file:
            file.write(f"{key}\n{ends}\n")
        os.replace(own, path)
    except OSError:
        pass
    return ends
