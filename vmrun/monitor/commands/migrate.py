"""The machine's state out to a file, a socket or a command, and in from one: QEMU's migration of a machine that stands
still.
"""

from __future__ import annotations

import os
import re
import stat
from time import monotonic, sleep

from vmrun.errors import BackendError, StateError
from vmrun.machine import handover, otherend, runstate
from vmrun.monitor.errors import QmpError, of_fault
from vmrun.monitor.table import alternates, command, enums, event, struct
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine
    from vmrun.machine.snapfile import Reader

enums["MigrationStatus"] = (
    "none",
    "setup",
    "cancelling",
    "cancelled",
    "active",
    "postcopy-active",
    "postcopy-paused",
    "postcopy-recover",
    "completed",
    "failed",
    "colo",
    "pre-switchover",
    "device",
    "wait-unplug",
)
CAPABILITIES = (
    "xbzrle", "rdma-pin-all", "auto-converge", "zero-blocks", "compress", "events", "postcopy-ram", "x-colo",
    "release-ram", "block", "return-path", "pause-before-switchover", "multifd", "dirty-bitmaps",
    "postcopy-blocktime", "late-block-activate", "x-ignore-shared", "validate-uuid", "background-snapshot",
    "zero-copy-send", "postcopy-preempt",
)  # fmt: skip
# those that a file as the other end can have: events are always told, it is always compressed, the rest changes nothing
# of what is written
ACCEPTED = (
    *("events", "compress", "xbzrle", "auto-converge"),
    *("late-block-activate", "return-path", "zero-blocks", "release-ram", "validate-uuid", "pause-before-switchover"),
)
enums["MigrationCapability"] = CAPABILITIES
struct("MigrationCapabilityStatus", capability="MigrationCapability", state="bool")
# as QEMU's defaults; what has no meaning for a file is kept and told
PARAMETERS: dict[str, Any] = {
    **{"announce-initial": 50, "announce-max": 550, "announce-rounds": 5, "announce-step": 100},
    **{"compress-level": 1, "compress-threads": 8, "compress-wait-thread": True, "decompress-threads": 2},
    **{"throttle-trigger-threshold": 50, "cpu-throttle-initial": 20, "cpu-throttle-increment": 10},
    **{"cpu-throttle-tailslow": False, "tls-creds": "", "tls-hostname": "", "max-bandwidth": 128 << 20},
    **{"downtime-limit": 300, "x-checkpoint-delay": 20000, "block-incremental": False, "multifd-channels": 2},
    **{"xbzrle-cache-size": 64 << 20, "max-postcopy-bandwidth": 0, "max-cpu-throttle": 99, "tls-authz": ""},
    **{"multifd-compression": "none", "multifd-zlib-level": 1, "multifd-zstd-level": 1},
}
_KINDS = {bool: "bool", int: "int", str: "str"}
_MIGRATION_PARAMETERS = {f"{name}?": _KINDS[type(value)] for name, value in PARAMETERS.items()}
struct("MigrationParameters", _MIGRATION_PARAMETERS)
enums["MultiFDCompression"] = ("none", "zlib", "zstd")
alternates["StrOrNull"] = ("str", "null")
_TEXTS = dict.fromkeys(("tls-creds?", "tls-hostname?", "tls-authz?"), "StrOrNull")
_MIGRATION_PARAMETERS["multifd-compression?"] = "MultiFDCompression"
_COUNTS = (
    *("transferred", "remaining", "total", "duplicate", "skipped", "normal", "normal-bytes", "dirty-pages-rate"),
    *("dirty-sync-count", "postcopy-requests", "page-size", "multifd-bytes", "pages-per-second", "precopy-bytes"),
    *("downtime-bytes", "postcopy-bytes", "dirty-sync-missed-zero-copy"),
)
struct("MigrationStats", {**dict.fromkeys(_COUNTS, "int"), "mbps": "number"})
struct(
    "MigrationInfo",
    {
        **{"status?": "MigrationStatus", "error-desc?": "str", "ram?": "MigrationStats", "total-time?": "int"},
        **{"downtime?": "int", "setup-time?": "int", "socket-address?": "[SocketAddress]"},
    },
)
event("MIGRATION", "The status of a migration changed.", {"status": "MigrationStatus"})

UNDER_WAY = ("setup", "active", "pre-switchover", "device")
RUNNING = (*UNDER_WAY, "cancelling")
ONLY = "vmrun migrates to file:PATH, fd:NAME, tcp:HOST:PORT, unix:PATH or exec:COMMAND"


def target(monitor: Any, uri: str, out: bool) -> tuple[str, int]:
    """(the name in messages, a descriptor or -1 for a file of that name or one of otherend's). QmpError for what is
    none. `out`: the state goes there.
    """
    scheme, _, name = uri.partition(":")
    if scheme != "fd" or not name:
        return path_of(uri, out), -1
    from vmrun.monitor.commands.fds import take

    if name.isdecimal():
        try:
            return uri, os.dup(int(name))
        except (OSError, OverflowError):
            raise QmpError(f"File descriptor named '{name}' has not been found") from None
    return uri, take(monitor, name)


def path_of(uri: str, out: bool) -> str:
    """The path of a URI that means a file, or a URI of otherend's as it is. QmpError for others."""
    scheme, colon, path = uri.partition(":")
    if not colon or scheme not in ("file", "exec", "fd", "tcp", "unix", "rdma", "vsock"):
        raise QmpError("Parameter 'uri' expects a valid migration protocol")
    if scheme == "exec" and (copied := _copied(path, out)):
        return copied
    if scheme in otherend.SCHEMES:
        try:
            otherend.check(uri)
        except BackendError as error:
            raise of_fault(error) from None
        return uri
    if scheme != "file":
        raise QmpError(f"'{scheme}:' is not there; {ONLY}")
    if ",offset=" in path:
        raise QmpError("file: takes no offset; the state has a file of its own")
    if not path:
        raise QmpError("file: needs a path")
    return path


def _copied(command: str, out: bool) -> str:
    """The file of `cat > FILE` (out) and `cat FILE` (in), which say in a shell's words what file: says; "" of other
    commands.
    """
    from shlex import split

    try:
        words = split(command.replace("<", " < ").replace(">", " > "))
    except ValueError:
        return ""
    if words[:1] not in (["cat"], ["/bin/cat"], ["/usr/bin/cat"]):
        return ""
    if out and words[1:2] != [">"]:
        return ""
    names = words[2:] if words[1:2] == [">" if out else "<"] else words[1:]
    return names[0] if len(names) == 1 and not re.search(r"[$`*?|;&<>~]|^-", names[0]) else ""


def tell(machine: Machine, status: str, error: str = "") -> None:
    machine.migration = {"status": status, **({"error-desc": error} if error else {})}
    machine.tell("MIGRATION", status=status)


@command("migrate", {"uri": "str", "blk?": "bool", "inc?": "bool", "detach?": "bool", "resume?": "bool"})
def migrate(monitor: Any, uri: str, **flags: bool) -> None:
    """Hold the machine and send its state out; query-migrate tells how far it is. Then it is 'postmigrate', or goes on
    as before when the state could not be sent.
    """
    from vmrun.machine.snapshot import Outgoing

    machine = monitor.machine
    if any(flags.get(name) for name in ("blk", "inc", "resume")):
        raise QmpError("a file takes the state alone: no blk, inc or resume")
    if machine.migration.get("status") in RUNNING:
        raise QmpError("There's a migration process in progress")
    if machine.state == runstate.INMIGRATE:
        raise QmpError("Guest is waiting for an incoming migration")
    path, fd = target(monitor, uri, out=True)
    before, began, left = machine.state, monotonic(), machine.left
    pauses = "pause-before-switchover" in machine.migrate_capabilities
    try:
        if not pauses:  # else those that work have until migrate-continue to end
            handover.check(machine)
        machine.go(runstate.FINISH_MIGRATE)
        outgoing = Outgoing(machine, before if before != runstate.POSTMIGRATE else runstate.PAUSED)
    except StateError as error:
        if machine.state == runstate.FINISH_MIGRATE:
            machine.go(before)
        if fd >= 0:
            os.close(fd)
        raise QmpError(error.problems[0].message) from None
    progress = {"done": 0, "written": 0}
    machine.progress = lambda: _ram(outgoing.total, monotonic() - began, **progress)
    tell(machine, "setup")

    def reached() -> None:
        if machine.migration["status"] == "setup":
            tell(machine, "active")
            if pauses:
                tell(machine, "pre-switchover")

    def write(work: Work) -> None:
        def told(done: int, written: int) -> None:
            progress.update(done=done, written=written)

        def ended() -> bool:
            return work.ended or bool(machine.migration["status"] == "cancelling")

        def switch_over() -> None:
            machine.loop.call_soon(reached)
            while pauses and not ended() and machine.migration["status"] != "device":
                sleep(0.01)
            if not ended():
                handover.let_go(machine)  # before who awaits the machine can have all of it

        end, over = otherend.send(path, ended) if fd < 0 and otherend.is_one(path) else (fd, lambda whole: None)
        try:
            try:
                switch_over()
            except BaseException:
                if end >= 0:
                    os.close(end)
                raise
            outgoing.write(path, ended, end, told)
        except BaseException:
            over(False)
            raise
        over(True)

    def done(answer: Any, error: QmpError | None) -> None:
        took = int((monotonic() - began) * 1000)
        machine.progress = lambda: {**_ram(outgoing.total, took / 1000, **progress), "downtime": took}
        if error is None:
            machine.go(runstate.POSTMIGRATE)
            tell(machine, "completed")
            return
        status, text = machine.migration["status"], error.problems[0].message
        try:
            if not left:
                handover.take(machine)
            machine.go(before)
        except BackendError as wrong:
            machine.go(runstate.POSTMIGRATE)
            status, text = "failed", wrong.problems[0].message
        if status == "cancelling":
            tell(machine, "cancelled")
        else:
            tell(machine, "failed", text)

    Work(machine, write).start(done)


@command("migrate_cancel")
def migrate_cancel(monitor: Any) -> None:
    """Give up a migration that is under way; the machine goes on."""
    machine = monitor.machine
    if machine.migration.get("status") in UNDER_WAY and machine.state != runstate.INMIGRATE:
        tell(machine, "cancelling")


@command("query-migrate", returns="MigrationInfo")
def query_migrate(monitor: Any) -> dict[str, Any]:
    """How the last migration stands."""
    machine = monitor.machine
    found: dict[str, Any] = dict(machine.migration)
    if machine.awaited:
        found["socket-address"] = [machine.awaited]
    if found.get("status") in (*RUNNING, "completed") and machine.progress is not None:
        found |= machine.progress()
    return found


def _ram(total: int, seconds: float, done: int, written: int) -> dict[str, Any]:
    """MigrationStats: all memory goes once, what is zero takes no room."""
    rate = written * 8 / 1e6 / seconds if seconds > 0 else 0.0
    counts = dict.fromkeys(("duplicate", "skipped", "dirty-pages-rate", "postcopy-requests", "multifd-bytes"), 0)
    counts |= dict.fromkeys(("precopy-bytes", "postcopy-bytes", "dirty-sync-missed-zero-copy"), 0)
    ram = {
        **counts,
        **{"transferred": written, "remaining": total - done, "total": total, "normal": done // 4096},
        **{"normal-bytes": done, "mbps": rate, "dirty-sync-count": 1, "page-size": 4096},
        **{"pages-per-second": int(done / 4096 / seconds) if seconds > 0 else 0, "downtime-bytes": written},
    }
    return {"ram": ram, "total-time": int(seconds * 1000), "setup-time": 0}


@command("migrate-incoming", {"uri": "str"})
def migrate_incoming(monitor: Any, uri: str) -> None:
    """Take a state in, on a machine that was started with -incoming defer."""
    machine = monitor.machine
    if machine.state != runstate.INMIGRATE or machine.restored:
        raise QmpError("'-incoming' was not specified on the command line")
    incoming(machine, uri, monitor)


def incoming(machine: Machine, uri: str, monitor: Any = None) -> None:
    """A file's state is taken at once: QmpError when it is not; the machine waits on then. One that a pipe, a socket or
    a command brings is waited for, and query-migrate tells what became of it.
    """
    from vmrun.machine.snapfile import Reader

    if machine.migration.get("status") in RUNNING:
        raise QmpError("The incoming migration has already been started")
    path, fd = target(monitor, uri, out=False)
    if fd < 0 and otherend.is_one(path):
        _await(machine, path)
        return
    if fd < 0 and os.path.exists(path) and not os.path.isfile(path):
        fd = _opened(path)
    if fd >= 0 and not stat.S_ISREG(os.fstat(fd).st_mode):  # a pipe or a socket: who writes to it may take his time
        tell(machine, "setup")
        _come(machine, uri, fd)
        return
    tell(machine, "setup")
    tell(machine, "active")
    try:
        with Reader(path, fd) as reader:
            _take_in(machine, reader)
    except StateError as error:
        tell(machine, "failed", error.problems[0].message)
        raise QmpError(f"load of migration failed: {error.problems[0].message}") from None


def _take_in(machine: Machine, reader: Reader) -> None:
    from vmrun.machine.snapshot import go_on, load

    load(machine, reader)
    try:
        handover.take(machine)
    except BackendError as error:
        machine.restored = ""  # it may be tried again
        raise StateError(error.problems[0].message) from None
    tell(machine, "completed")
    go_on(machine, paused=not machine.autostart)


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise QmpError(f"{path} cannot be read: {error.strerror}") from None


def _come(machine: Machine, uri: str, fd: int, over: Callable[[], None] = lambda: None) -> None:
    """Read all that comes on a thread of its own, then take it in. `over`: called on the thread when all is read."""
    from vmrun.machine.snapfile import Reader

    tell(machine, "active")

    def read(work: Work) -> Reader:
        try:
            return Reader(uri, otherend.spool(fd, lambda: work.ended))
        finally:
            over()

    def done(reader: Any, error: QmpError | None) -> None:
        try:
            if error is not None:
                raise error
            with reader:
                _take_in(machine, reader)
        except (StateError, QmpError) as wrong:
            tell(machine, "failed", wrong.problems[0].message)

    Work(machine, read).start(done)


def _await(machine: Machine, uri: str) -> None:
    """Start the command, or listen for who brings the state."""
    if uri.startswith("exec:"):
        try:
            ends = otherend.receive(uri.partition(":")[2])
        except BackendError as error:
            raise of_fault(error) from None
        tell(machine, "setup")
        _come(machine, uri, *ends)
        return

    def found(fd: int) -> None:
        machine.works.remove(listener)
        machine.awaited = {}
        _come(machine, uri, fd)

    try:
        listener = otherend.Listener(machine.loop, uri, found)
    except BackendError as error:
        raise of_fault(error) from None
    machine.works.append(listener)
    machine.awaited = listener.address
    tell(machine, "setup")


@command("query-migrate-capabilities", returns="[MigrationCapabilityStatus]")
def query_migrate_capabilities(monitor: Any) -> list[dict[str, Any]]:
    """What of migration is on."""
    on = monitor.machine.migrate_capabilities
    return [{"capability": name, "state": name in on} for name in CAPABILITIES]


@command("migrate-set-capabilities", {"capabilities": "[MigrationCapabilityStatus]"})
def migrate_set_capabilities(monitor: Any, capabilities: list[dict[str, Any]]) -> None:
    """Turn parts of migration on or off; those that a file cannot have are refused."""
    if monitor.machine.migration.get("status") in RUNNING and monitor.machine.state != runstate.INMIGRATE:
        raise QmpError("There's a migration process in progress")
    for row in capabilities:
        if row["state"] and row["capability"] not in ACCEPTED:
            raise QmpError(f"'{row['capability']}' is not there; {ONLY}")
    on = monitor.machine.migrate_capabilities
    for row in capabilities:
        (on.add if row["state"] else on.discard)(row["capability"])


@command("query-migrate-parameters", returns="MigrationParameters")
def query_migrate_parameters(monitor: Any) -> dict[str, Any]:
    """Numbers of migration."""
    return {**PARAMETERS, **monitor.machine.migrate_parameters}


struct("BitmapMigrationBitmapAliasTransform", {"persistent?": "bool"})
struct(
    "BitmapMigrationBitmapAlias",
    {"name": "str", "alias": "str", "transform?": "BitmapMigrationBitmapAliasTransform"},
)
struct(
    "BitmapMigrationNodeAlias", {"node-name": "str", "alias": "str", "bitmaps": "[BitmapMigrationBitmapAlias]"}
)


@command(
    "migrate-set-parameters",
    {**_MIGRATION_PARAMETERS, **_TEXTS, "block-bitmap-mapping?": "[BitmapMigrationNodeAlias]"},
)
def migrate_set_parameters(monitor: Any, **values: Any) -> None:
    """Set some of them. A file is written as fast as it goes, whatever they say."""
    named = {name.replace("_", "-"): "" if value is None else value for name, value in values.items()}
    if named.pop("block-bitmap-mapping", None):
        raise QmpError("a file takes no bitmaps of images")
    for name, value in named.items():
        if isinstance(value, int) and value < 0:
            raise QmpError(f"Parameter '{name}' expects a number that is not negative")
    monitor.machine.migrate_parameters |= named


@command("migrate-pause", oob=True)
def migrate_pause(monitor: Any) -> None:
    """Of a migration after which memory follows; there is none such."""
    raise QmpError("migrate-pause is currently only supported during postcopy-active state")


@command("migrate-recover", {"uri": "str"}, oob=True)
def migrate_recover(monitor: Any, uri: str) -> None:
    """Likewise."""
    raise QmpError("Migrate recover can only be run when postcopy is paused.")


@command("migrate-continue", {"state": "MigrationStatus"})
def migrate_continue(monitor: Any, state: str) -> None:
    """Go on with a migration that waits before the switch-over: nothing is sent until then."""
    machine = monitor.machine
    status = machine.migration.get("status", "none")
    if status != state or state != "pre-switchover":
        raise QmpError(f"Migration not in expected state: {status}")
    try:
        handover.check(machine)
    except StateError as error:
        raise of_fault(error) from None
    tell(machine, "device")


@command(
    "client_migrate_info",
    {"protocol": "str", "hostname": "str", "port?": "int", "tls-port?": "int", "cert-subject?": "str"},
)
def client_migrate_info(monitor: Any, protocol: str, **where: Any) -> None:
    """Tell viewers where the machine goes; only SPICE could be told."""
    if protocol != "spice":
        raise QmpError("Parameter 'protocol' expects 'spice'")
    raise QmpError("SPICE is not in use", "DeviceNotActive")
