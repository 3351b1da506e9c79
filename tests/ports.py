"""Who listens where: the kernel's tables, since a port that one gave up may be another program's a moment later."""

from __future__ import annotations

import os
import random
import socket

LISTEN = "0A"
ACCEPTS = 0x10000  # __SO_ACCEPTCON


def listens(port: int, process: int | None = None) -> bool:
    """Whether the process (None: this one) listens on that port of TCP."""
    where = f"/proc/{process or os.getpid()}"
    sockets = set()
    for fd in os.listdir(f"{where}/fd"):
        try:
            sockets.add(os.readlink(f"{where}/fd/{fd}"))
        except FileNotFoundError:  # closed meanwhile
            continue
    for table in ("tcp", "tcp6"):
        with open(f"{where}/net/{table}", encoding="ascii") as rows:
            next(rows)
            for row in map(str.split, rows):
                if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port and f"socket:[{row[9]}]" in sockets:
                    return True
    return False


def listens_at(path: str | os.PathLike[str]) -> bool:
    """Whether somebody listens on that unix socket: there is a moment when its path is there, and nobody does."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as rows:
        next(rows)
        for row in (row.rstrip("\n").split(maxsplit=7) for row in rows):
            if row[7:] == [os.fspath(path)] and int(row[3], 16) & ACCEPTS:
                return True
    return False


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """One that nobody has, below those that the kernel gives away: nobody gets it by chance before it is used."""
    for port in random.Random().sample(range(20000, 32000), 100):
        with socket.socket(socket.AF_INET, kind) as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
