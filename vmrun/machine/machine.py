"""A machine that runs: its state, and what happens when something is asked of it.

States are QEMU's: prelaunch, running, paused, shutdown, guest-panicked, internal-error, suspended. Reset, shutdown
and powerdown are requests (accel.run.RunControl): whoever makes one wakes the main loop, which stops the processors,
acts, and lets them go on.
"""

from __future__ import annotations

from time import monotonic

from accel.api import Action
from accel.run import REQUEST_FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.object import Device, Object
    from vmrun.machine.accelerators import Choice
    from vmrun.machine.board import Board

# how long coalesced writes may wait for somebody to drain them, in seconds
DRAIN_INTERVAL = 0.005
# this many triple faults within so many seconds: the guest gets nowhere
MOST_FAULTS, FAULT_WINDOW = 10, 30.0


class Outcome:
    """How a run ended: `reason` (shutdown, quit, exit, panic, failed, reset, timeout), the guest's own code if any."""

    def __init__(self, reason: str, code: int | None = None, reports: list[dict[str, Any]] | None = None) -> None:
        self.reason, self.code, self.reports = reason, code, reports or []


class Machine:
    """Made by vmrun.machine.builder.build. Not thread-safe: everything here runs on the main thread."""

    def __init__(self, config: dict[str, Any], board: Board, root: Object, choice: Choice) -> None:
        self.config, self.board, self.root, self.choice = config, board, root, choice
        self.accelerator = choice.accelerator
        self.loop = board.loop
        self.state = "prelaunch"
        self.outcome: Outcome | None = None
        self.firmware: Any = None
        self.bios: Any = None
        self.direct: Any = None  # a kernel without a firmware: vmrun.machine.direct.DirectBoot
        self.missing_features: list[str] = []
        self.reset_ends = False  # -no-reboot
        self.shutdown_pauses = False  # -no-shutdown
        self.panic_action = "shutdown"  # -action panic=
        self.on_event: Callable[..., object] = lambda name, **data: None
        self.causes: dict[int, str] = {}  # requests that did not come from the guest: Action → QEMU's ShutdownCause
        self.resets = 0
        self.drains = False  # coalesced writes wait in the accelerator
        self.faults: list[float] = []
        self.closed = False

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def devices(self) -> dict[str, Device]:
        return self.board.devices

    # --- running ----------------------------------------------------------------------------------------

    def attach_loop(self) -> None:
        self.loop.add_fd(self.board.control.notifier.fileno(), self._on_requests)

    def run(self) -> Outcome:
        """Start (unless the machine is `paused`) and run the main loop until the machine ends."""
        if not self.config.get("paused"):
            self.resume()
        self.loop.run()
        return self.outcome or Outcome("quit")

    def wait_for(self, socket: Any, client: str) -> None:
        """Run the main loop until the attribute `client` of a socket is set, or the machine was ended. Signals and
        other clients are heard meanwhile.
        """
        while not getattr(socket, client) and self.outcome is None:
            self.loop.run_once(1.0)

    def resume(self) -> None:
        if self.state in ("prelaunch", "paused", "suspended"):
            self.board.virtual.start()
            self.loop.wake()
            self.state = "running"
            self.accelerator.start()
            self.on_event("RESUME")
            if self.drains:
                self.loop.call_later(DRAIN_INTERVAL, self._drain)

    def _drain(self) -> None:
        """Writes that the accelerator kept back reach their device within a few ms, whatever the guest does."""
        if self.state == "running":
            self.accelerator.drain()
            self.loop.call_later(DRAIN_INTERVAL, self._drain)

    def pause(self, state: str = "paused", told: bool = True) -> None:
        """Processors out of the guest, virtual time standing still."""
        if self.state == "running":
            self.accelerator.stop()
            self.board.virtual.stop()
            if told:
                self.on_event("STOP")
        self.state = state

    def ask(self, action: int, cause: str) -> None:
        """Request an Action from outside the guest; the main loop performs it. `cause`: QEMU's ShutdownCause."""
        self.causes[action] = cause
        self.board.control.ask(action)

    def reset(self, cause: str = "guest-reset") -> None:
        """System reset; a running machine goes on from the reset vector."""
        running = self.state == "running"
        if running:
            self.accelerator.stop()
        self.cold_reset()
        self.on_event("RESET", guest=cause.startswith("guest"), reason=cause)
        if running:
            self.accelerator.start()
        else:
            self.state = "prelaunch"

    def cold_reset(self) -> None:
        """Devices in the order of the board, then the processors."""
        with self.board.lock:
            with self.board.memory.transaction(), self.board.io.transaction():
                for device in self.board.devices.values():
                    device.reset()
            self.board.load_shadow()
            self._place_kernel()
        self.accelerator.reset_vcpus()
        if self.direct is not None:
            self.direct.start_processors(self.accelerator)
        self.resets += 1
        if self.resets == 3:  # power-on is the first; `boot.once` is over with the guest's own first reset
            self.firmware.second_boot()

    def _place_kernel(self) -> None:
        """What of a kernel lies in memory before anything runs."""
        if self.direct is not None:
            self.direct.fill_memory(self.board)
        elif self.firmware.boot is not None and self.firmware.boot.images:
            from vmrun.machine.direct import put

            put(self.board, self.firmware.boot.images)

    def powerdown(self) -> None:
        """Press the power button."""
        with self.board.lock:
            for device in self.board.devices.values():
                press = getattr(device, "powerdown", None)
                if press is not None:
                    press()
        self.on_event("POWERDOWN")

    def end(self, reason: str, code: int | None = None, reports: list[dict[str, Any]] | None = None) -> None:
        """Stop for good: the main loop returns."""
        if self.outcome is None:
            self.outcome = Outcome(reason, code, reports)
        self.pause("shutdown", told=False)
        self.loop.stop()

    def finish(self, reason: str, cause: str) -> None:
        """SHUTDOWN, told and done; with `shutdown_pauses` the machine stays and can be looked at."""
        self.on_event("SHUTDOWN", guest=cause.startswith("guest"), reason=cause)
        if self.shutdown_pauses and reason != "quit":
            self.pause("shutdown")
        else:
            self.end(reason)

    def _on_requests(self) -> None:
        asked = self.board.control.take()
        if asked & REQUEST_FAILED:
            self._on_failure(self.board.control.take_reports())
        elif asked & Action.EXIT:
            codes = [getattr(device, "exit_code", None) for device in self.devices.values()]
            self.end("exit", next((code for code in codes if code is not None), 0))
        elif asked & Action.PANIC:
            self._on_panic()
        elif asked & Action.SHUTDOWN:
            self.finish("shutdown", self.causes.pop(Action.SHUTDOWN, "guest-shutdown"))
        elif asked & (Action.RESET | Action.INIT):
            cause = self.causes.pop(Action.RESET, "guest-reset")
            if self.reset_ends:
                self.finish("reset", cause)
            else:
                self.reset(cause)
        elif asked & Action.SUSPEND:
            self.pause("suspended")
            self.on_event("SUSPEND")

    def _on_panic(self) -> None:
        """The guest says that it crashed: go on, wait for somebody to look, or the end."""
        if self.panic_action == "none":
            self.on_event("GUEST_PANICKED", action="run")
            return
        pause = self.panic_action == "pause" or (self.panic_action == "shutdown" and self.shutdown_pauses)
        self.on_event("GUEST_PANICKED", action="pause" if pause else "poweroff")
        self.pause("guest-panicked")
        if not pause:
            self.finish("panic", "guest-panic")

    def _on_failure(self, reports: list[dict[str, Any]]) -> None:
        """A processor gave up. A triple fault resets the machine, as the PC's board does; anything else is the end."""
        if all(report.get("exit") == "SHUTDOWN" for report in reports) and not self.reset_ends:
            now = monotonic()
            self.faults = [moment for moment in self.faults if now - moment < FAULT_WINDOW] + [now]
            if len(self.faults) < MOST_FAULTS:
                self.on_event("TRIPLE_FAULT")
                self.reset()
                return
        self.pause("internal-error")
        self.end("failed", reports=reports)

    # --- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Everything back: processors ended, images flushed, terminals restored. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        self.accelerator.close()
        self.board.control.close()
        for device in reversed(list(self.board.devices.values())):
            stop = getattr(device, "stop_io", None)
            if stop is not None:
                stop()
        self.board.close()
        if self.board.mux is not None:
            self.board.mux.close()
        self.loop.close()
