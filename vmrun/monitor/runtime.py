"""Where the monitors of running machines are found: sockets NAME.PID.qmp in a directory that is the user's alone.

The directory is $XDG_RUNTIME_DIR/vmrun; without that variable vmrun-UID in the directory for temporary files, and only
if it is ours and nobody else may enter it.
"""

from __future__ import annotations

import os
import stat
from time import time

from vmrun.errors import BackendError

SUFFIX, LOG = ".qmp", ".log"
LONGEST = 107  # bytes of a unix socket's path
STARTED = 19  # the word of /proc/PID/stat, behind the name, that says when it began
SLACK = 2.0  # seconds between two ways to tell the time


def directory(create: bool = False) -> str:
    """BackendError when somebody else could put his sockets there."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base) and os.path.isdir(base):
        path = os.path.join(base, "vmrun")
    else:
        path = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"vmrun-{os.getuid()}")
    if create:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise BackendError(
                f"cannot make the directory of the monitors, {path}: {error.strerror}",
                remedy="point XDG_RUNTIME_DIR to a directory of your own",
            ) from None
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return path
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise BackendError(
            f"{path} is not a directory that only this user may enter",
            remedy="remove it, chmod 700 it, or point XDG_RUNTIME_DIR elsewhere",
        )
    return path


def socket_path(name: str) -> str:
    """The path for a machine of this process."""
    tail = f".{os.getpid()}{SUFFIX}"
    where = directory(create=True)
    word = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".")
    room = LONGEST - len(os.fsencode(where)) - 1 - len(tail)
    if room < 1:
        raise BackendError(f"the path {where} is too long for a socket", remedy="set XDG_RUNTIME_DIR to a shorter one")
    return f"{where}/{os.fsencode(word)[:room].decode(errors='ignore') or 'machine'}{tail}"


class Running:
    """A machine that somebody runs: its name as in the socket's, process and socket."""

    def __init__(self, name: str, pid: int, path: str) -> None:
        self.name, self.pid, self.path = name, pid, path


def running() -> list[Running]:
    """All that answer or might; sockets whose process is gone are cleared away."""
    where, found = directory(), []
    try:
        names = sorted(os.listdir(where))
    except OSError:
        return []
    for file in names:
        name, _, pid = file.removesuffix(SUFFIX).rpartition(".")
        if not file.endswith(SUFFIX) or not pid.isdigit():
            continue
        path = os.path.join(where, file)
        if not _is_left(int(pid), path) or _answers(path):
            found.append(Running(name, int(pid), path))
        else:
            try:
                os.unlink(path)
            except OSError:
                pass
    return found


def _is_left(pid: int, path: str) -> bool:
    """Whether `path` was left by a process that is gone. Its number may be another's by now, who began after it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            words = file.read().rpartition(")")[2].split()
        written = os.lstat(path).st_mtime
    except (OSError, ValueError):
        return True
    with open("/proc/uptime", encoding="ascii") as file:
        up = float(file.read().split()[0])
    began = time() - up + int(words[STARTED]) / os.sysconf("SC_CLK_TCK")
    return words[0] in "ZX" or began > written + SLACK


def _answers(path: str) -> bool:
    """Whether somebody listens at a socket; the host's clock may have been set since it was made."""
    import socket

    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except BlockingIOError:  # so many wait that there is no room for us
        return True
    except OSError:
        return False
    return True


def clear() -> list[str]:
    """Remove what processes left here that are gone: sockets, consoles, logs. The paths that were removed."""
    where, removed = directory(), []
    every = sorted(os.listdir(where) if os.path.isdir(where) else ())
    lives = {str(one.pid) for one in running()}
    for file in every:
        pids = [part for part in file.split(".")[1:] if part.isdecimal()]
        path = os.path.join(where, file)
        if not pids or lives.intersection(pids) or not all(_is_left(int(pid), path) for pid in pids):
            continue
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # a socket: the listing has cleared it away
        except OSError:
            continue
        removed.append(path)
    return removed


def log_path(name: str) -> str:
    """Where a machine of this process keeps what it says in the background."""
    return socket_path(name).removesuffix(SUFFIX) + LOG


def console_path(name: str, id: str) -> str:
    """The socket of a console of this process's machine in the background."""
    return socket_path(name).removesuffix(SUFFIX) + f".{id}"[:16]


def log_of(name: str) -> Running:
    """The newest log of a machine, by its name or process number, whether it runs or not. BackendError for none."""
    where, found = directory(), []
    for file in sorted(os.listdir(where) if os.path.isdir(where) else ()):
        base, _, pid = file.removesuffix(LOG).rpartition(".")
        if file.endswith(LOG) and pid.isdecimal() and name in (base, pid):
            path = os.path.join(where, file)
            found.append((os.stat(path).st_mtime_ns, Running(base, int(pid), path)))
    if not found:
        raise BackendError(
            f"there is no log of '{name}'", remedy="machines that `vmrun up --detach` starts keep one; `vmrun ps` lists"
        )
    return max(found, key=lambda row: row[0])[1]


def forget_logs(name: str) -> None:
    """Of machines of this name that have ended."""
    where = directory()
    for file in os.listdir(where):
        base, _, pid = file.removesuffix(LOG).rpartition(".")
        if file.endswith(LOG) and base == name and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            try:
                os.unlink(os.path.join(where, file))
            except OSError:
                pass


def find(name: str) -> Running:
    """By name or process number. BackendError when there is none, or more than one of the name."""
    every = running()
    hits = [one for one in every if name in (one.name, str(one.pid))]
    if len(hits) == 1:
        return hits[0]
    if hits:
        numbers = ", ".join(str(one.pid) for one in hits)
        raise BackendError(f"{len(hits)} machines are called '{name}'", remedy=f"give the number of one: {numbers}")
    from vmrun.config.near import nearest

    near = nearest(name, [one.name for one in every])
    raise BackendError(
        f"no machine '{name}' runs", remedy=f"did you mean '{near}'?" if near else "`vmrun ps` lists those that run"
    )
