"""A person's commands, asked by a program."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@command("human-monitor-command", {"command-line": "str", "cpu-index?": "int"}, "str")
def human_monitor_command(monitor: Any, command_line: str, cpu_index: int = 0) -> Any:
    """What the line monitor prints for this line."""
    from vmrun.monitor.hmp import run

    if cpu_index and cpu_index not in monitor.machine.board.processors:
        raise QmpError("Parameter 'cpu-index' expects a CPU number")
    return run(monitor.machine, command_line, cpu_index)
