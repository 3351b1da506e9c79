"""vmrun pause, resume and reset: one wish to a machine that runs."""

from __future__ import annotations

FINE = 0


def pause(argv: list[str]) -> int:
    return _tell("pause", "Hold a machine's processors and its time.", "stop", argv)


def resume(argv: list[str]) -> int:
    return _tell("resume", "Let a machine that is paused go on; wake one that sleeps.", "cont", argv)


def reset(argv: list[str]) -> int:
    return _tell("reset", "Press a machine's reset button.", "system_reset", argv)


def _tell(name: str, what: str, command: str, argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(f"vmrun {name}", description=what)
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    args = parser.parse_args(argv)

    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    with QmpClient(find(args.name).path) as qmp:
        if command == "cont" and qmp.execute("query-status")["status"] == "suspended":
            command = "system_wakeup"
        qmp.execute(command)
    return FINE
