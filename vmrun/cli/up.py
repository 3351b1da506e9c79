"""vmrun up: the main job. Resolve, build, run; the console on the terminal."""

from __future__ import annotations

import sys

from vmrun.cli.up_monitors import open_monitors
from vmrun.cli.up_options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine, Outcome

FINE, HOST, GUEST, GAVE_UP = 0, 3, 4, 5


def run(argv: list[str]) -> int:
    options = parse(argv)
    if options is None:
        return 0
    if isinstance(options, int):
        return options

    import gc

    gc.disable()  # nothing that is made before the guest runs is garbage; _introduce turns it on again

    from vmrun.config.cache import resolve_cached
    from vmrun.machine.builder import build

    # The interpreter's default of 5 ms would let a busy Python thread hold up a device's callback that long.
    sys.setswitchinterval(1e-4)
    resolved = resolve_cached(options.file, options.sets)
    if resolved.warnings:
        from vmrun.cli.out import print_problems

        print_problems(resolved.warnings)
    config = dict(resolved.data)
    if options.locked:
        from vmrun.machine import lock

        lock.check(resolved.data, lock.lock_path(options.file))
    if options.paused:
        config["paused"] = True
    if options.snapshot:
        config["drives"] = {name: {**spec, "snapshot": True} for name, spec in config["drives"].items()}
    console = _console_kind(config, options.screen)
    holder: list[Machine] = []
    machine = build(config, accel=options.accel, mux=_mux_maker(holder, options.screen) if console else None)
    holder.append(machine)
    monitors = None
    try:
        if options.locked:
            lock.check_built(machine)
        _start_talking(machine, options, console)
        monitors = open_monitors(machine, lambda text: _note(machine, text))
        outcome = machine.run()
    finally:
        if monitors is not None:
            monitors.close()
        machine.close()
    return _conclude(outcome, options)


# --- the terminal ------------------------------------------------------------------------------------------


def _console_kind(config: dict[str, Any], screen: bool) -> bool:
    """True when something of the machine is on this terminal."""
    return screen or any(spec.get("type") == "stdio" for spec in config["chardevs"].values())


def _mux_maker(holder: list[Machine], screen: bool) -> Any:
    """Consoles of the machine share the terminal; Ctrl-A x ends it, s pauses and goes on."""
    if screen:
        from vmrun.cli.up_screen import ScreenConsole

        return lambda loop, lock: ScreenConsole(loop, lock, holder)
    from vmrun.backends.chardev.mux import Mux

    def command(letter: str) -> None:
        machine = holder[0]
        if letter == "x":
            machine.end("quit")
        elif machine.state == "running":
            machine.pause()
            machine.board.mux.say("\n[paused; Ctrl-A s goes on]\n")
        else:
            machine.resume()

    return lambda loop, lock: Mux("terminal", loop, lock, command)


def _start_talking(machine: Machine, options: Any, console: bool) -> None:
    """Signals, the time limit, and the first words, which wait until the guest is on its way."""
    import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum in: 3 ms

    presses = []

    def interrupt() -> None:
        presses.append(1)
        if len(presses) == 1 and machine.state == "running":
            _note(machine, "power button pressed; once more ends the machine at once")
            machine.powerdown()
        else:
            machine.end("quit")

    machine.loop.add_signal(signal.SIGINT, interrupt)
    machine.loop.add_signal(signal.SIGTERM, lambda: machine.end("quit"))
    machine.loop.add_signal(signal.SIGHUP, lambda: machine.end("quit"))
    if options.timeout is not None:
        machine.loop.call_later(options.timeout, lambda: machine.end("timeout"))
    if options.no_reboot:
        machine.policy["reboot"] = "shutdown"
    machine.loop.call_soon(lambda: _introduce(machine, console, options.quiet))
    _wait_for_peers(machine)


def _wait_for_peers(machine: Machine) -> None:
    for chardev in machine.board.awaited():
        _note(machine, f"waiting for a client on {chardev.address}")
        machine.wait_for(chardev, "peer")


def _introduce(machine: Machine, console: bool, quiet: bool) -> None:
    import gc

    gc.freeze()
    gc.enable()
    for name, why in machine.choice.refused:
        _note(machine, f"tried {name}, which was refused: {why}; {machine.accelerator.name} runs instead")
    if quiet:
        return
    import hashlib

    digest = hashlib.sha256(machine.bios.data).hexdigest()[:16]
    count = machine.config["cpus"]["count"]
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
        _note(
            machine,
            "this machine has no console: add `serial: stdio` to its file, or `display: std` and run with --screen",
        )
    if machine.state == "prelaunch":
        _note(machine, "paused before the first instruction; Ctrl-A s starts it")


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
