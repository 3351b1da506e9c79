"""How much memory a guest with a balloon has, told to clients: at once, then once a second at most, as QEMU does."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine

SECOND = 1.0


def watch(machine: Machine) -> None:
    """BALLOON_CHANGE, of the main loop: the guest gives memory on a processor's thread."""
    waiting: list[Any] = []  # the device that has changed since the last event, while that is less than a second old

    def changed(device: Any) -> None:
        machine.loop.call_soon(lambda: tell(device))

    def tell(device: Any) -> None:
        if waiting:
            waiting[0] = device
            return
        waiting.append(None)
        machine.tell("BALLOON_CHANGE", actual=device.actual)
        machine.loop.call_later(SECOND, again)

    def again() -> None:
        if (device := waiting.pop()) is not None:
            tell(device)

    machine.board.balloon_changed = changed
