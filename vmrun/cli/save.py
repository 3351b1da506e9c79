"""vmrun save: a machine that runs, into a file; `vmrun up --restore` goes on with it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.monitor.client import QmpClient

FINE, HOST = 0, 3


def run(argv: list[str]) -> int:
    import argparse
    import os

    parser = argparse.ArgumentParser(
        "vmrun save",
        description="Hold a machine, write all that it is to a file, and end it. `vmrun up --restore FILE` goes on.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("file", metavar="FILE", help="where to; it appears when all of it is on disk")
    parser.add_argument(
        "--keep", action="store_true", help="let the machine go on: for a copy, whose disks change from now on"
    )
    args = parser.parse_args(argv)

    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    path = os.path.abspath(args.file)
    with QmpClient(find(args.name).path) as qmp:
        ran = qmp.execute("query-status")["status"] in ("running", "suspended")
        qmp.execute("migrate", uri=f"file:{path}")
        why = _finished(qmp)
        if why:
            from vmrun.errors import StateError

            raise StateError(why)
        if not args.keep:
            qmp.execute("quit")
        elif ran:
            qmp.execute("cont")
    return FINE


def _finished(qmp: QmpClient) -> str:
    """Why it failed, '' when it did not."""
    from time import sleep

    while True:
        told = qmp.execute("query-migrate")
        if told.get("status") == "completed":
            return ""
        if told.get("status") not in ("setup", "active"):
            return str(told.get("error-desc", "the machine was not saved"))
        sleep(0.05)
