"""vmrun up: the main job. Resolve, build, run; the console on the terminal."""

from __future__ import annotations

import os
import sys

from vmrun.cli.runner import Runner
from vmrun.cli.up_options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.cli.runner import Commands
    from vmrun.config.sections import MachineData
    from vmrun.machine.machine import Machine, Outcome

FINE, HOST, GUEST, GAVE_UP = 0, 3, 4, 5


def run(argv: list[str]) -> int:
    options = parse(argv)
    if options is None:
        return 0
    if isinstance(options, int):
        return options
    return Up(options).run()


class Up(Runner):
    """A machine file, its console on the terminal."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        if options.with_parent:
            self.end_with_parent()
        self.console = False  # something of the machine is on this terminal
        self.presses = 0

    def build(self) -> Machine:
        from vmrun.errors import BackendError

        options = self.options
        machine = self._restore() if options.restore else self._build()
        if options.screen and not machine.board.consoles:
            machine.close()
            raise BackendError(f"{machine.name} has no display for --screen", remedy="add `display: std` to its file")
        if options.no_reboot:
            machine.policy["reboot"] = "shutdown"
        if options.timeout is not None:
            machine.loop.call_later(options.timeout, lambda: machine.end("timeout"))
        machine.loop.call_soon(lambda: _introduce(machine, self.console, options))
        return machine

    def _varied(self, resolved: MachineData) -> MachineData:
        """The machine as the command's options have it."""
        options = self.options
        config: MachineData = {**resolved}
        if options.paused:
            config["paused"] = True
        if options.snapshot:
            config["drives"] = {name: {**spec, "snapshot": True} for name, spec in config["drives"].items()}
        if options.detach:
            from vmrun.monitor.runtime import console_path, log_path

            log = {"logfile": log_path(config["name"]), "logappend": True}
            config["chardevs"] = {
                id: {"type": "socket", "server": True, "wait": False, "path": console_path(config["name"], id), **log}
                if spec.get("type") == "stdio"
                else spec
                for id, spec in config["chardevs"].items()
            }
        return config

    def _mux(self, config: MachineData) -> Any:
        options = self.options
        self.console = options.screen or any(spec.get("type") == "stdio" for spec in config["chardevs"].values())
        return self._screen if options.screen else self.mux if self.console else None

    def _restore(self) -> Machine:
        from vmrun.machine.snapshot import restore

        machine = restore(self.options.restore, accel=self.options.accel, mux=self._mux, vary=self._varied)
        machine.autostart = False  # go_on() decides
        return machine

    def run(self) -> int:
        if self.options.detach:
            code = self.into_background()
            if code is not None:
                return code
        return super().run()

    def ready(self) -> None:
        if self.options.restore:
            from vmrun.machine.snapshot import go_on

            go_on(self.machine, self.options.paused)
        if self.options.detach:
            self._detach()

    def _detach(self) -> None:
        """What is said from now on, and the consoles, are in the log."""
        from vmrun.monitor.runtime import forget_logs, log_path

        name = self.machine.name
        forget_logs(name)
        sys.stdout.write(
            f"vmrun: {name} runs in the background, process {os.getpid()}; "
            f"`vmrun attach {name}`, `vmrun logs {name}`, `vmrun stop {name}`\n"
        )
        sys.stdout.flush()
        log = os.open(log_path(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.leave_terminal(log)
        os.close(log)

    def _build(self) -> Machine:
        from vmrun.config.cache import resolve_cached
        from vmrun.errors import VmrunError
        from vmrun.machine.builder import build

        options = self.options
        if options.directory:
            from vmrun.config.resolve import resolve_file

            resolved = resolve_file(options.file, options.sets, directory=options.directory)
        else:
            resolved = resolve_cached(options.file, options.sets)
        if resolved.warnings:
            from vmrun.cli.out import print_problems

            print_problems(resolved.warnings)
        config = self._varied(resolved.data)
        if options.locked:
            from vmrun.machine import lock

            lock.check(resolved.data, lock.lock_path(options.file))
        try:
            machine = build(config, accel=options.accel, mux=self._mux(config))
        except VmrunError as error:
            from vmrun.machine.examine import explained

            raise explained(error, resolved) from None
        try:
            if options.locked:
                lock.check_built(machine)
        except BaseException:
            machine.close()
            raise
        return machine

    def _screen(self, loop: Any, lock: Any) -> Any:
        from vmrun.cli.up_screen import PlainScreen, ScreenConsole

        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return PlainScreen(self)
        return ScreenConsole(loop, lock, self)

    def commands(self) -> Commands:
        return {**super().commands(), "s": ("pause the machine, or let it go on", self._pause)}

    def _pause(self) -> None:
        machine = self.machine
        if machine.running:
            machine.pause()
            machine.board.mux.say("\n[paused; Ctrl-A s goes on]\n")
        elif machine.state == "suspended":
            machine.board.mux.say("\n[the guest sleeps; `vmrun monitor` with system_wakeup, or SIGINT, wakes it]\n")
        elif not machine.resume():
            machine.board.mux.say(f"\n[the machine stays as it is: {machine.state}]\n")

    def open_monitors(self, monitors: Any) -> None:
        from vmrun.cli.up_monitors import open_monitors

        open_monitors(self.machine, monitors, lambda text: _note(self.machine, text))

    def waiting_for(self, peer: Any) -> None:
        _note(self.machine, f"waiting for a client on {peer.address}")

    def on_signal(self, number: int) -> None:
        """The first SIGINT presses the power button, which a machine that stands still cannot see."""
        import _signal as signal  # type: ignore[import-not-found]

        machine = self.machine
        if number == signal.SIGINT and not self.presses and machine.state in ("running", "suspended"):
            self.presses += 1
            _note(machine, "power button pressed; once more ends the machine at once")
            machine.powerdown()
        else:
            machine.finish("quit", "host-signal")

    def conclude(self, outcome: Outcome) -> int:
        return _conclude(outcome, self.options)


# --- what is said --------------------------------------------------------------------------------------------


def _introduce(machine: Machine, console: bool, options: Any) -> None:
    if options.quiet:
        return
    for name, why in machine.choice.refused:
        if options.verbose:
            _note(machine, f"tried {name}, which was refused: {why}; {machine.accelerator.name} runs instead")
        else:
            _note(machine, f"{name} was refused, {machine.accelerator.name} runs instead; --verbose tells why")
    import hashlib

    digest = hashlib.sha256(machine.bios.data).hexdigest()[:16]
    count = len(machine.board.processors)
    _note(
        machine,
        f"{machine.name}: {machine.config['machine']}, {count} processor{'s' if count > 1 else ''}, "
        f"{machine.config['memory'] >> 20} MiB, on {machine.accelerator.name}",
    )
    if machine.direct is not None:
        _note(machine, f"no firmware; {machine.direct.kernel.path} starts as {machine.direct.plan.what}")
        for warning in machine.direct.warnings:
            _note(machine, warning)
    else:
        _note(machine, f"firmware {machine.bios.path} sha256:{digest}…")
    for name, image in machine.board.option_roms.items():
        _note(
            machine, f"option ROM {name}: {image.path} sha256:{hashlib.sha256(image.data).hexdigest()[:16]}…"
        )
    if machine.missing_features:
        lost = ", ".join(machine.missing_features)
        _note(machine, f"{machine.accelerator.name} here lacks CPU features of the model: {lost}")
    for chardev in machine.board.chardevs.values():
        address = getattr(chardev, "address", None)
        if address and machine.config["chardevs"][chardev.name]["type"] in ("pty", "socket"):
            _note(machine, f"{chardev.name} is on {address}")
    if not console and not machine.board.chardevs:
        add = "--screen shows its display" if machine.board.consoles else "`display: std` and --screen show one"
        _note(machine, f"this machine has no console here: add `serial: stdio` to its file; {add}")
    if console and sys.stdin.isatty():
        _note(machine, "Ctrl-A x ends it, Ctrl-A h lists what else there is")
    if machine.state == "prelaunch" and not machine.autostart:
        go_on = "Ctrl-A s" if console and sys.stdin.isatty() else f"`vmrun resume {machine.name}`"
        _note(machine, f"paused before the first instruction; {go_on} starts it")


def _note(machine: Machine, text: str) -> None:
    """A line of vmrun's own: on the shared terminal between the guest's, else on standard error."""
    mux = machine.board.mux
    if mux is not None and sys.stdout.isatty():
        mux.say(f"vmrun: {text}\n")
    else:
        sys.stderr.write(f"vmrun: {text}\n")
        sys.stderr.flush()


# --- the end -----------------------------------------------------------------------------------------------


def _conclude(outcome: Outcome, options: Any) -> int:
    if outcome.reason == "exit" and options.pass_exit_code:
        return outcome.code or 0
    if outcome.reason == "timeout":
        sys.stderr.write(f"vmrun: stopped after {options.timeout:g} seconds (--timeout)\n")
        return GUEST
    if outcome.reason == "panic":
        sys.stderr.write("vmrun: the guest says that it crashed (pvpanic)\n")
        return GUEST
    if outcome.reason == "failed":
        from vmrun.cli.report import of_kvm, print_report

        for report in outcome.reports:
            print_report(report)
        return GAVE_UP if any(of_kvm(report) for report in outcome.reports) else GUEST
    return FINE
