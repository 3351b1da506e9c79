"""A machine that runs: its state, and what happens when something is asked of it.

The states, and which may follow which, are a table (vmrun.machine.runstate). Whatever the guest, a timer, a signal or a
monitor asks for (reset, shutdown, sleep, …) is a request (accel.run.RunControl): it wakes the main loop, which performs
all that wait, in one order, and then lets the processors that asked go on.
"""

from __future__ import annotations

from time import monotonic

from accel.api import Action
from accel.run import REQUEST_DEBUG, REQUEST_FAILED

from vmrun.core.interfaces import GuestExit, PowerButton, Sleeper, Waker
from vmrun.errors import BuildError, StateError
from vmrun.machine import balloon, network, runstate
from vmrun.machine.ioerrors import IoErrors
from vmrun.machine.runstate import CAUSES, SLEEP, STILL, mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from vmrun.config.sections import MachineData

    Kind = TypeVar("Kind")

    from vmrun.core.object import Device
    from vmrun.machine.accelerators import Choice
    from vmrun.machine.assembly import Assembly
    from vmrun.machine.board import Board
    from vmrun.machine.processor import Processor

# this many triple faults within so many seconds: the guest gets nowhere
MOST_FAULTS, FAULT_WINDOW = 10, 30.0
# events of a machine file's `on:`, in the words of set-action
EVENTS = {"poweroff": "shutdown", "reboot": "reboot", "crash": "panic", "watchdog": "watchdog"}
# one after the other when several are asked for at once
ORDER = (
    REQUEST_FAILED, REQUEST_DEBUG, Action.EXIT, Action.PANIC, Action.WATCHDOG, Action.IO_ERROR, Action.SUSPEND,
    Action.SHUTDOWN, Action.RESET | Action.INIT, Action.WAKEUP, Action.POWERDOWN,
)  # fmt: skip


class Outcome:
    """How a run ended: `reason` (shutdown, quit, exit, panic, failed, reset, timeout), the guest's own code if any."""

    def __init__(self, reason: str, code: int | None = None, reports: list[dict[str, Any]] | None = None) -> None:
        self.reason, self.code, self.reports = reason, code, reports or []


def _hotplug() -> Any:
    """Imported when something comes or goes: a start needs it not."""
    from vmrun.machine import hotplug

    return hotplug


def _media() -> Any:
    from vmrun.machine import media

    return media


class Machine:
    """Made by vmrun.machine.builder.build. Not thread-safe: everything here runs on the main thread, but `ask`."""

    whole = True  # False before `-preconfig` is over: vmrun.machine.preconfig

    def __init__(self, config: MachineData, board: Board, assembly: Assembly, choice: Choice) -> None:
        self.config, self.board, self.assembly, self.choice = config, board, assembly, choice
        self.built = config  # as it was before anything came or went
        self.root = assembly.root
        board.let_go = lambda device: _hotplug().let_go(self, device)
        board.ospm_told = lambda row: self.loop.call_soon(lambda: self.tell("ACPI_DEVICE_OST", info=row))
        board.processor_let_go = lambda index: self.loop.call_soon(lambda: _hotplug().processor_gone(self, index))
        board.tell = lambda event, /, **data: self.loop.call_soon(lambda: self.tell(event, **data))
        network.watch(self)
        balloon.watch(self)
        board.tray_moved = lambda device, opened: _media().moved(self, device, opened)
        self.accelerator = choice.accelerator
        self.loop = board.loop
        self.state = runstate.PRELAUNCH
        self.autostart = not config.get("paused")
        self.outcome: Outcome | None = None
        self.firmware: Any = None
        self.bios: Any = None
        self.direct: Any = None  # a kernel without a firmware: vmrun.machine.direct.DirectBoot
        self.missing_features: list[str] = []
        self.cpuid: dict[int, list[dict[str, int]]] = {}  # entries of each processor that is there
        self.restored = ""  # the run state of the saved machine that this one goes on from
        self.left = False  # to where its images are used now: handover.py
        self.migration: dict[str, str] = {}  # how the last one stands, as query-migrate tells it
        self.awaited: dict[str, str] = {}  # where one that comes is waited for: its socket's address
        self.progress: Callable[[], dict[str, Any]] | None = None  # of that one, in numbers
        self.migrate_capabilities: set[str] = set()
        self.migrate_parameters: dict[str, Any] = {}
        self.dirty_rate: dict[str, Any] = {}  # how a measurement of it stands, as query-dirty-rate tells it
        self.dump: dict[str, Any] = {}  # how the last dump of memory stands, as query-dump tells it
        # what is done at an event, in the words of QEMU's set-action
        self.policy = {"reboot": "reset", "shutdown": "poweroff", "panic": "shutdown", "watchdog": "reset"}
        for event, action in config.get("on", {}).items():
            self.policy[EVENTS[event]] = action
        self.listeners: list[Callable[..., object]] = []
        self.debugger: Any = None  # vmrun.machine.debugger, while somebody debugs the guest
        self.monitors: Any = None  # vmrun.monitor.server, once there is one
        self.before_reset: list[Callable[[], object]] = []  # who looks at it before it is gone
        self.announcing: dict[str, object] = {}  # vmrun.machine.network: the latest announcement of each name
        self.works: list[Any] = []  # vmrun.monitor.work: what uses the machine on threads of its own
        self.io_errors = IoErrors(self)
        self.aloud: Callable[[str], object] | None = None  # where HMP's qemu-io prints, when not into its answer
        self.drives_pass = False  # they go with the device that shows them, as those of QEMU's -drive do
        self.counts_addresses = False  # cards that are plugged in without one have QEMU's next, not one of their own
        self.asleep = False  # in S3, whatever the state: a paused sleeper goes on sleeping
        self.resets = 0
        self.faults: list[float] = []
        self.closed = False

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def devices(self) -> dict[str, Device]:
        return self.board.devices

    def all(self, kind: type[Kind]) -> list[Kind]:
        """The devices that are this as well (vmrun.core.interfaces), in the order of the board."""
        return [device for device in self.board.devices.values() if isinstance(device, kind)]

    # --- who wants to hear ------------------------------------------------------------------------------

    def listen(self, listener: Callable[..., object]) -> None:
        """Call listener(event, **data) at each event, from now on; the names and data are QMP's."""
        self.listeners.append(listener)

    def tell(self, event: str, /, **data: Any) -> None:
        for listener in list(self.listeners):
            listener(event, **data)

    # --- devices that come and go -----------------------------------------------------------------------

    def plug(self, wanted: dict[str, Any]) -> Device:
        """Put in a device, given as in a machine file's `devices`, and tell the guest. BuildError in QEMU's words."""
        self._stays("device_add")
        hotplug = _hotplug()
        device: Device = hotplug.plug(self, hotplug.plan(self, wanted))
        return device

    def unplug(self, device: Device) -> None:
        """Ask the guest to let go of a device; DEVICE_DELETED tells when it is gone. BuildError: its bus cannot."""
        self._stays("device_del")
        _hotplug().ask(self, device)

    def unplug_processor(self, node: Processor) -> None:
        """Ask the guest to let go of a processor. BuildError: it is the first, or the guest cannot."""
        self._stays("device_del")
        _hotplug().ask_processor(self, node)

    def plug_processor(self, id: str, index: int) -> None:
        """Put in processor `index` of those that there can be and are not there yet. BuildError while a state goes
        out.
        """
        self._stays("device_add")
        _hotplug().plug_processor(self, id, index)

    def _stays(self, asked: str) -> None:
        """What has been taken of the machine for who gets it has all its devices, and no others."""
        if self.state == runstate.FINISH_MIGRATE:
            raise BuildError(f"{asked} not allowed while migrating", remedy="wait until it is over, or cancel it")

    # --- running ----------------------------------------------------------------------------------------

    def attach_loop(self) -> None:
        self.loop.add_fd(self.board.control.notifier.fileno(), self._on_requests)

    def run(self) -> Outcome:
        """Start (unless the machine is `paused`) and run the main loop until the machine ends."""
        if self.autostart and self.state == runstate.PRELAUNCH and self.outcome is None:
            self.resume()
        if self.outcome is None:
            self.loop.run()
        return self.outcome or Outcome("quit")

    def wait_for(self, socket: Any, client: str) -> None:
        """Run the main loop until the attribute `client` of a socket is set, or the machine was ended. Signals and
        other clients are heard meanwhile.
        """
        while not getattr(socket, client) and self.outcome is None:
            self.loop.run_once(1.0)

    @property
    def running(self) -> bool:
        return self.state == runstate.RUNNING

    @property
    def needs_reset(self) -> bool:
        return self.state in runstate.NEED_RESET

    def go(self, state: str, told: bool = True) -> None:
        """Into another state: processors and time are let go or held as it says. StateError when the table has no
        such step, BackendError when it has gone elsewhere and its images with it. `told` False: without STOP and
        RESUME.
        """
        if state == self.state:
            return
        if state not in runstate.FOLLOWS[self.state]:
            raise StateError(f"a machine that is '{self.state}' cannot become '{state}'")
        if self.left and mode(state) != STILL:
            from vmrun.machine import handover

            handover.take(self)
        ran = self.running
        self._switch(state)
        if told and (ran or self.running):
            self.tell("STOP" if ran else "RESUME")

    def _switch(self, state: str) -> None:
        before, after = mode(self.state), mode(state)
        if before != STILL:
            self.accelerator.stop()
            if after == STILL:
                for thread in self.board.iothreads:
                    thread.pause()
                with self.board.lock:
                    self.board.virtual.stop()
                    self._wires(False)
        self.state = state
        if after == STILL:
            return
        if before == STILL:
            with self.board.lock:
                self.board.virtual.start()
                self._wires(True)
            for thread in self.board.iothreads:
                thread.resume()
            self.io_errors.retry()
        if after == SLEEP:
            self.accelerator.sleep()
            return
        self.accelerator.start()

    def _wires(self, running: bool) -> None:
        """Frames go to the network cards, or wait."""
        for netdev in self.board.netdevs.values():
            netdev.set_running(running)

    def resume(self) -> bool:
        """`cont`: True when it runs now. A guest that sleeps has to be woken, one that is over to be reset."""
        if self.state == runstate.INMIGRATE:
            self.autostart = True
        elif self.state == runstate.FINISH_MIGRATE:
            return False  # what is being written must not change
        elif not self.needs_reset:
            self.go(runstate.SUSPENDED if self.asleep else runstate.RUNNING)
        return self.running

    def pause(self, state: str = runstate.PAUSED) -> None:
        """A machine that runs, or sleeps, stops for the reason that `state` is; one that does not stays as it is."""
        if mode(self.state) != STILL:
            self.go(state)
        elif self.state == runstate.INMIGRATE:
            self.autostart = False

    def ask(self, action: int, cause: str) -> None:
        """Request an Action from outside the guest; the main loop performs it. `cause`: of CAUSES. From any thread."""
        self.board.control.ask(action, CAUSES.index(cause))

    # --- what is asked for ------------------------------------------------------------------------------

    def _on_requests(self) -> None:
        """Each is done, one kind after the other, and each processor that asked is answered: it goes on if the machine
        does.
        """
        control = self.board.control
        requests = control.requests()
        for action in ORDER:
            cause = next((cause for asked, _, cause in requests if asked & action), None)
            if cause is not None and self.outcome is None:
                self._perform(action, CAUSES[cause])
        for _, cpu, _ in requests:
            control.answer(cpu)

    def _perform(self, action: int, cause: str) -> None:
        if self.state == runstate.FINISH_MIGRATE and not action & REQUEST_FAILED:
            self.loop.call_later(0.05, lambda: self.board.control.ask(action, CAUSES.index(cause)))
            return
        if action & REQUEST_FAILED:
            reports = self.board.control.take_reports()
            if self.debugger is None or not self.debugger.gave_up(reports):
                self._on_failure(reports)
        elif action & REQUEST_DEBUG:
            if self.debugger is not None:
                self.debugger.stopped()
        elif action & Action.EXIT:
            codes = [device.exit_code for device in self.all(GuestExit)]
            self.end("exit", next((code for code in codes if code is not None), 0))
        elif action & Action.PANIC:
            self._on_panic()
        elif action & Action.WATCHDOG:
            self._on_watchdog()
        elif action & Action.IO_ERROR:
            self.pause(runstate.IO_ERROR)
        elif action & Action.SUSPEND:
            self._suspend()
        elif action & Action.SHUTDOWN:
            self.finish("shutdown", "guest-shutdown" if cause == "guest" else cause)
        elif action & Action.RESET:
            self._on_reset("guest-reset" if cause == "guest" else cause)
        elif action & Action.WAKEUP:
            self.wake(cause)
        else:
            self.powerdown()

    def _on_reset(self, cause: str) -> None:
        if self.policy["reboot"] == "shutdown":
            self.finish("reset", cause)
        else:
            self.reset(cause)

    def reset(self, cause: str = "guest-reset") -> None:
        """System reset; a machine that runs or sleeps goes on from the reset vector."""
        goes_on = mode(self.state) != STILL
        if goes_on:
            self.accelerator.stop()
        self.cold_reset()
        self.tell("RESET", guest=cause.startswith("guest"), reason=cause)
        if goes_on:
            self._switch(runstate.RUNNING)
        elif self.state not in (runstate.INMIGRATE, runstate.FINISH_MIGRATE):
            self._switch(runstate.PRELAUNCH)

    def cold_reset(self) -> None:
        """As after power-on: devices in the order of the board, then the processors. Disk transfers end before."""
        for told in self.before_reset:
            told()
        for drive in self.board.drives.values():
            drive.drain()
        with self.board.lock:
            self._reset_devices()
            self.board.load_shadow()
            self._place_kernel()
        self._reset_processors()
        self.asleep = False
        self.resets += 1
        if self.resets > 1:  # a device that this reset took out is still in the list
            there = [row for row in self.config["devices"] if self.board.devices[row["id"]].realized]
            self.firmware.look_again({**self.config, "devices": there})
        if self.resets == 2:  # power-on is the first; the guest's own first reset ends `boot.once`
            self.firmware.second_boot()

    def _reset_devices(self, waking: bool = False) -> None:
        with self.board.memory.transaction(), self.board.io.transaction():
            for device in list(self.board.devices.values()):
                if not device.realized:
                    continue
                if waking and isinstance(device, Sleeper):
                    device.awaken(device.reset)
                else:
                    device.reset()

    def _reset_processors(self, waking: bool = False) -> None:
        self.accelerator.reset_vcpus()
        if self.direct is not None:
            vector = self.direct.waking_vector(self.board) if waking else 0
            self.direct.start_processors(self.accelerator, vector)

    def _place_kernel(self) -> None:
        """What of a kernel lies in memory before anything runs."""
        if self.direct is not None:
            self.direct.fill_memory(self.board)
        elif self.firmware.boot is not None and self.firmware.boot.images:
            from vmrun.machine.direct import put

            put(self.board, self.firmware.boot.images)

    # --- sleep --------------------------------------------------------------------------------------------

    def _suspend(self) -> None:
        """ACPI S3: processors without power, memory and virtual time with it."""
        self.asleep = True
        if self.running:
            self.go(runstate.SUSPENDED, told=False)
        with self.board.lock:
            for device in self.all(Sleeper):
                device.sleep()
        self.tell("SUSPEND")

    def wake(self, reason: str = "other") -> bool:
        """Out of S3, through the reset vector with memory as it was; False when the machine does not sleep, or the
        guest does not want to be woken by that. `reason`: rtc, pmtimer, other (a button, somebody's wish).
        """
        if self.state != runstate.SUSPENDED:
            return False
        wakers = self.all(Waker)
        if not all(device.wakes(reason) for device in wakers):
            return False
        self.accelerator.stop()
        with self.board.lock:
            self._reset_devices(waking=True)
            for device in wakers:
                device.woken(reason)
            if self.direct is not None:
                self.direct.set_up_bus(self.board)
        self._reset_processors(waking=True)
        self.asleep = False
        self._switch(runstate.RUNNING)
        self.tell("WAKEUP")
        return True

    def press_reset(self, cause: str = "host-ui") -> None:
        """The reset button; the main loop does it."""
        self.ask(Action.RESET, cause)

    def powerdown(self) -> None:
        """Press the power button; it also ends a sleep."""
        if self.wake("other"):
            return
        with self.board.lock:
            for button in self.all(PowerButton):
                button.powerdown()
        self.tell("POWERDOWN")

    # --- the end of a run -----------------------------------------------------------------------------------

    def end(self, reason: str, code: int | None = None, reports: list[dict[str, Any]] | None = None) -> None:
        """Stop for good: the main loop returns."""
        if self.outcome is None:
            self.outcome = Outcome(reason, code, reports)
            if self.debugger is not None:
                self.debugger.on_end(code or 0)
        self._switch(runstate.SHUTDOWN)
        self.loop.stop()

    def finish(self, reason: str, cause: str) -> None:
        """SHUTDOWN, told and done; where the policy is to pause the machine stays and can be looked at."""
        self.tell("SHUTDOWN", guest=cause.startswith("guest"), reason=cause)
        if self.policy["shutdown"] == "pause" and reason != "quit":
            self.pause(runstate.SHUTDOWN)
        else:
            self.end(reason)

    def _on_panic(self) -> None:
        """The guest says that it crashed: go on, wait for somebody to look, or the end."""
        policy = self.policy["panic"]
        if policy == "none":
            self.tell("GUEST_PANICKED", action="run")
            return
        pause = policy == "pause" or policy == "shutdown" and self.policy["shutdown"] == "pause"
        self.tell("GUEST_PANICKED", action="pause" if pause else "poweroff")
        self.pause(runstate.PANICKED)
        if not pause:
            self.finish("panic", "guest-panic")

    def _on_watchdog(self) -> None:
        """A watchdog timer ran out: what the policy says."""
        policy = self.policy["watchdog"]
        self.tell("WATCHDOG", action=policy)
        if policy == "reset":
            self._on_reset("guest-reset")
        elif policy == "shutdown":
            self.powerdown()
        elif policy == "poweroff":
            self.end("watchdog")
        elif policy == "pause":
            self.pause(runstate.WATCHDOG)
        elif policy == "inject-nmi":
            self.inject_nmi()

    def inject_nmi(self) -> None:
        """The NMI button: pin NMI of the first processor."""
        with self.board.lock:
            self.board.inject_nmi()

    def _on_failure(self, reports: list[dict[str, Any]]) -> None:
        """A processor gave up. A triple fault resets the machine, as the PC's board does; anything else is the end."""
        reports = list({report.get("cpu", 0): report for report in reports}.values())  # the last word of each
        if all(report.get("exit") == "SHUTDOWN" for report in reports) and self.policy["reboot"] != "shutdown":
            now = monotonic()
            self.faults = [moment for moment in self.faults if now - moment < FAULT_WINDOW] + [now]
            if len(self.faults) < MOST_FAULTS:
                self.tell("TRIPLE_FAULT")
                self.reset()
                return
        self.pause(runstate.INTERNAL_ERROR)
        self.end("failed", reports=reports)

    # --- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Everything back: processors ended, images flushed, terminals restored. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        for work in list(self.works):
            work.end()
        self.accelerator.close()
        self.board.control.close()
        for thread in self.board.iothreads:
            thread.close()
        try:
            self.board.close()
        finally:
            if self.board.mux is not None:
                self.board.mux.close()
            self.loop.close()
