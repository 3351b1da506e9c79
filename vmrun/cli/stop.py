"""vmrun stop: press the power button of a machine that runs, or end it."""

from __future__ import annotations

FINE, HOST, GUEST = 0, 3, 4


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun stop", description="Press a machine's power button and wait until its guest has shut down."
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("--force", action="store_true", help="end it at once, whatever the guest does")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="wait so long; exit 4 if it still runs")
    args = parser.parse_args(argv)

    from vmrun.cli.out import write
    from vmrun.errors import MonitorError
    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    with QmpClient(find(args.name).path) as qmp:
        if args.force:
            qmp.execute("quit")
        else:
            if qmp.execute("query-status")["status"] != "running":
                import sys

                write(f"vmrun stop: {args.name} is paused; its guest can't see the button\n", sys.stderr)
                return GUEST
            qmp.execute("system_powerdown")
        qmp.socket.settimeout(args.timeout)
        try:
            while qmp.wait_for("SHUTDOWN") is not None:
                qmp.events.clear()
        except MonitorError:
            import sys

            write(f"vmrun stop: {args.name} still runs after {args.timeout:g} seconds\n", sys.stderr)
            return GUEST
    return FINE
