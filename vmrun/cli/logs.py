"""vmrun logs: what a machine in the background said, its consoles and vmrun itself."""

from __future__ import annotations

import os
import sys

FINE, HOST = 0, 3
PAUSE = 0.1  # seconds between looks at a log that grows


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun logs", description="Show what a machine that `vmrun up --detach` started has said, also after its end."
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the machine ends")
    args = parser.parse_args(argv)

    from vmrun.monitor.runtime import log_of

    log = log_of(args.name)
    with open(log.path, "rb") as file:
        while True:
            alive = os.path.exists(f"/proc/{log.pid}")
            data = file.read(65536)
            while data:
                sys.stdout.buffer.write(data)
                data = file.read(65536)
            sys.stdout.flush()
            if not args.follow or not alive:
                return FINE
            _wait()


def _wait() -> None:
    import time

    time.sleep(PAUSE)
