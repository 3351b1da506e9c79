"""vmrun stop: press the power button of a machine that runs, or end it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.handle import Machine
    from vmrun.monitor.runtime import Running

FINE, HOST, GUEST = 0, 3, 4
PATIENCE = 5.0  # seconds that a guest may take before somebody wonders
QUIT, TERM, KILL = 3.0, 2.0, 10.0  # seconds for each step of --force


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun stop", description="Press a machine's power button and wait until its guest has shut down."
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("--force", action="store_true", help="end it at once, whatever the guest, or the process, does")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="wait so long; exit 4 if it still runs")
    args = parser.parse_args(argv)

    from vmrun.handle import Machine
    from vmrun.monitor.runtime import find

    if args.force:
        return _force(find(args.name))
    with Machine.attach(args.name) as machine:
        if machine.status() not in ("running", "suspended"):
            _say(f"{args.name} is paused; its guest can't see the button")
            return GUEST
        machine.powerdown()
        rest = args.timeout
        if rest is None or rest > PATIENCE:
            if _ended(machine, PATIENCE):
                return FINE
            _say(f"{args.name} has not shut down yet; `vmrun stop --force {args.name}` ends it at once")
            rest = rest - PATIENCE if rest is not None else None
        if not _ended(machine, rest):
            _say(f"{args.name} still runs after {args.timeout:g} seconds")
            return GUEST
    return FINE


def kill(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun kill", description="End a machine at once, whatever its guest or its process does: `vmrun stop --force`."
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    args = parser.parse_args(argv)

    from vmrun.monitor.runtime import find

    return _force(find(args.name))


def _force(machine: Running) -> int:
    """The monitor's quit, then SIGTERM, then SIGKILL: each has its time."""
    import os
    import select
    import signal

    from vmrun.errors import MonitorError
    from vmrun.monitor.client import QmpClient

    def ask() -> None:
        try:
            with QmpClient(machine.path, timeout=QUIT) as qmp:
                qmp.execute("quit")
        except MonitorError:
            pass  # it does not listen; the next step is harder

    try:
        handle = os.pidfd_open(machine.pid)
    except ProcessLookupError:
        return FINE
    steps = (
        ("", QUIT, ask),
        ("does not answer; SIGTERM", TERM, lambda: signal.pidfd_send_signal(handle, signal.SIGTERM)),
        ("does not heed SIGTERM; SIGKILL", KILL, lambda: signal.pidfd_send_signal(handle, signal.SIGKILL)),
    )
    try:
        for words, seconds, step in steps:
            if words:
                _say(f"{machine.name} {words}")
            try:
                step()
            except ProcessLookupError:
                return FINE
            if select.select([handle], (), (), seconds)[0]:
                return FINE
    finally:
        os.close(handle)
    _say(f"{machine.name} still runs: process {machine.pid} does not die")
    return GUEST


def _ended(machine: Machine, seconds: float | None) -> bool:
    """Wait for the end of the machine."""
    from vmrun.conversation import WaitFailed

    try:
        machine.wait(seconds)
    except WaitFailed:
        return False
    return True


def _say(text: str) -> None:
    import sys

    from vmrun.cli.out import write

    write(f"vmrun stop: {text}\n", sys.stderr)
