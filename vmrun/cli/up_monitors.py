"""The monitors of a machine that `vmrun up` runs: those of its file, and the one that ps, stop and monitor talk to."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.machine.machine import Machine
    from vmrun.monitor.server import Monitors


def open_monitors(machine: Machine, note: Callable[[str], object]) -> Monitors:
    """All open; BackendError when one of the file's can't be had. The machine runs without the user's own too."""
    from vmrun.errors import BackendError
    from vmrun.monitor.runtime import socket_path
    from vmrun.monitor.server import Monitors

    monitors = Monitors(machine)
    waiting = []
    for spec in machine.config["monitors"].values():
        id = spec["chardev"]
        chardev = machine.config["chardevs"][id]
        listener = monitors.open(id, spec.get("mode", "readline"), chardev)
        if listener is not None:
            waiting.append(listener)
    try:
        monitors.listen({"path": socket_path(machine.name)})
    except (OSError, BackendError) as error:
        why = error.problems[0].message if isinstance(error, BackendError) else error.strerror
        note(f"`vmrun ps` and `vmrun stop` will not find this machine: {why}")
    for listener in waiting:
        note(f"waiting for a client on {listener.address}")
        machine.wait_for(listener, "clients")
    return monitors
