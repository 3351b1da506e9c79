"""vmrun stop: press the power button of a machine that runs, or end it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.monitor.client import QmpClient

FINE, HOST, GUEST = 0, 3, 4
PATIENCE = 5.0  # seconds that a guest may take before somebody wonders


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun stop", description="Press a machine's power button and wait until its guest has shut down."
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("--force", action="store_true", help="end it at once, whatever the guest does")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="wait so long; exit 4 if it still runs")
    args = parser.parse_args(argv)

    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    with QmpClient(find(args.name).path) as qmp:
        if args.force:
            qmp.execute("quit")
        else:
            if qmp.execute("query-status")["status"] != "running":
                _say(f"{args.name} is paused; its guest can't see the button")
                return GUEST
            qmp.execute("system_powerdown")
        rest = args.timeout
        if rest is None or rest > PATIENCE:
            if _ended(qmp, PATIENCE):
                return FINE
            _say(f"{args.name} has not shut down yet; `vmrun stop --force {args.name}` ends it at once")
            rest = rest - PATIENCE if rest is not None else None
        if not _ended(qmp, rest):
            _say(f"{args.name} still runs after {args.timeout:g} seconds")
            return GUEST
    return FINE


def _ended(qmp: QmpClient, seconds: float | None) -> bool:
    """Wait for the end of the machine."""
    from vmrun.errors import MonitorError

    qmp.socket.settimeout(seconds)
    try:
        while qmp.wait_for("SHUTDOWN") is not None:
            qmp.events.clear()
    except MonitorError:
        return False
    return True


def _say(text: str) -> None:
    import sys

    from vmrun.cli.out import write

    write(f"vmrun stop: {text}\n", sys.stderr)
