"""Run control: stop, go on, reset, the power button, the end."""

from __future__ import annotations

from accel.api import Action

from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["RunState"] = (
    "debug",
    "inmigrate",
    "internal-error",
    "io-error",
    "paused",
    "postmigrate",
    "prelaunch",
    "finish-migrate",
    "restore-vm",
    "running",
    "save-vm",
    "shutdown",
    "suspended",
    "watchdog",
    "guest-panicked",
    "colo",
    "preconfig",
)
enums["RebootAction"] = ("reset", "shutdown")
enums["ShutdownAction"] = ("poweroff", "pause")
enums["PanicAction"] = ("pause", "shutdown", "exit-failure", "none")
enums["WatchdogAction"] = ("reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi")
struct("StatusInfo", running="bool", singlestep="bool", status="RunState")


@command("query-status", returns="StatusInfo")
def query_status(monitor: Any) -> dict[str, Any]:
    """Whether the machine runs, and if not, why."""
    state = monitor.machine.state
    return {"status": state, "singlestep": False, "running": state == "running"}


@command("stop")
def stop(monitor: Any) -> None:
    """Hold the processors and virtual time. Nothing happens when they stand still already."""
    monitor.machine.pause()


@command("cont")
def cont(monitor: Any) -> None:
    """Let the processors run."""
    machine = monitor.machine
    if machine.needs_reset:
        raise QmpError("Resetting the Virtual Machine is required")
    if machine.state == "finish-migrate":
        raise QmpError("Migration is not finalized yet")
    machine.resume()


@command("system_reset")
def system_reset(monitor: Any) -> None:
    """As the reset button: the answer first, RESET when it is done."""
    monitor.machine.press_reset("host-qmp-system-reset")


@command("system_wakeup")
def system_wakeup(monitor: Any) -> None:
    """Wake a guest that sleeps (S3)."""
    if not monitor.machine.asleep:
        raise QmpError("Unable to wake up: guest is not in suspended state")
    monitor.machine.ask(Action.WAKEUP, "other")


@command("set-action", {"reboot?": "RebootAction", "shutdown?": "ShutdownAction", "panic?": "PanicAction",
                        "watchdog?": "WatchdogAction"})
def set_action(monitor: Any, **policy: str) -> None:
    """What the machine does when the guest resets or ends it or crashes, and when a watchdog runs out."""
    monitor.machine.policy |= policy


@command("watchdog-set-action", {"action": "WatchdogAction"})
def watchdog_set_action(monitor: Any, action: str) -> None:
    """What the machine does when a watchdog runs out."""
    monitor.machine.policy["watchdog"] = action


@command("inject-nmi")
def inject_nmi(monitor: Any) -> None:
    """Press the NMI button."""
    monitor.machine.inject_nmi()


@command("system_powerdown")
def system_powerdown(monitor: Any) -> None:
    """Press the power button; what happens then is the guest's affair."""
    monitor.machine.loop.call_soon(monitor.machine.powerdown)


@command("quit")
def quit(monitor: Any) -> None:
    """End the machine at once: SHUTDOWN, the answer, and the end of the connection."""
    monitor.machine.finish("quit", "host-qmp-quit")
