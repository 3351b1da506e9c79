"""The monitors of a machine that `vmrun up` runs: those of its file, and the one that ps, stop and monitor talk to."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.machine.machine import Machine
    from vmrun.monitor.server import Monitors


def open_monitors(machine: Machine, monitors: Monitors, note: Callable[[str], object]) -> None:
    """BackendError when one of the file's can't be had; the machine runs without the user's own too."""
    from vmrun.errors import BackendError
    from vmrun.monitor.runtime import socket_path

    for spec in machine.config["monitors"].values():
        monitors.open(spec["chardev"], spec.get("mode", "readline"))
    try:
        monitors.listen({"path": socket_path(machine.name)})
    except BackendError as error:
        note(f"`vmrun ps` and `vmrun stop` will not find this machine: {error.problems[0].message}")
