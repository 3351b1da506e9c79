"""vmrun console: this terminal on a serial console of a machine that runs."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEAVE = 0x1D  # Ctrl-]
ATTACH = "Come back to the console of a machine that `vmrun up --detach` started. Ctrl-] leaves it."


def attach(argv: list[str]) -> int:
    return _talk(argv, "attach", ATTACH)


def run(argv: list[str]) -> int:
    return _talk(argv, "console", "Talk to a serial console of a machine that runs. Ctrl-] leaves it.")


def _talk(argv: list[str], name: str, what: str) -> int:
    import argparse

    parser = argparse.ArgumentParser(f"vmrun {name}", description=what)
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("--chardev", metavar="ID", help="which one, when there are several on ptys or sockets")
    args = parser.parse_args(argv)

    from vmrun.cli.out import write
    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    with QmpClient(find(args.name).path) as qmp:
        where = _choose(args, qmp.execute("query-chardev"))
    fd = _open(where)
    write(f"vmrun: on {where}; Ctrl-] leaves\n", sys.stderr)
    try:
        _pump(fd)
    finally:
        os.close(fd)
    return 0


def _choose(args: Any, rows: list[dict[str, Any]]) -> str:
    """The address of the console. BackendError when there is none, or more than one."""
    from vmrun.errors import BackendError

    # a monitor's own socket is told with server=on
    usable = {
        row["label"]: row["filename"].removeprefix("disconnected:").removesuffix(",server=on")
        for row in rows
        # a monitor's server, or one that has a client already, is no console
        if row["filename"].startswith(("pty:", "disconnected:unix:", "disconnected:tcp:"))
    }
    if args.chardev is not None:
        if args.chardev not in usable:
            known = ", ".join(usable) or "none"
            raise BackendError(f"'{args.name}' has no console '{args.chardev}'", remedy=f"those that it has: {known}")
        return str(usable[args.chardev])
    if len(usable) == 1:
        return str(*usable.values())
    if usable:
        raise BackendError(f"'{args.name}' has several consoles", remedy=f"--chardev with one of: {', '.join(usable)}")
    remedy = "give its file `serial: pty`; what is on stdio is on the terminal that `vmrun up` has"
    raise BackendError(f"'{args.name}' has no console on a pty or a socket", remedy=remedy)


def _open(where: str) -> int:
    from vmrun.backends.chardev.sockets import connect
    from vmrun.errors import BackendError

    try:
        kind, _, rest = where.partition(":")
        if kind == "pty":
            return os.open(rest, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if kind == "unix":
            return int(connect({"path": rest}).detach())
        host, _, port = rest.rpartition(":")
        return int(connect({"host": host, "port": port}).detach())
    except OSError as error:
        raise BackendError(f"cannot open {where}: {error.strerror}") from None


def _pump(fd: int) -> None:
    """Both ways until Ctrl-], the end of standard input, or of the machine."""
    import select

    from vmrun.backends.chardev.terminal import Terminal

    terminal = Terminal(signals=False)
    terminal.enter()
    reading = [0, fd]
    try:
        while True:
            ready = select.select(reading, (), (), None if 0 in reading else 0.5)[0]
            if 0 in ready:
                data = os.read(0, 4096)
                at = data.find(LEAVE) if sys.stdin.isatty() else -1
                if data:
                    _all(fd, data if at < 0 else data[:at])
                if at >= 0:
                    return
                if not data:
                    reading.remove(0)
            if fd in ready:
                data = os.read(fd, 4096)
                if not data:
                    return
                _all(1, data)
            elif 0 not in reading:
                return
    except OSError:
        return  # the machine's end of a pty is gone
    finally:
        terminal.leave()


def _all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
