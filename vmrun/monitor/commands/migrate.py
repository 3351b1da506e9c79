"""The machine's state out to a file, and in from one: QEMU's migration as far as a file is its other end."""

from __future__ import annotations

from vmrun.errors import StateError
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, event, struct
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.machine.machine import Machine

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
struct("MigrationInfo", {"status?": "MigrationStatus", "error-desc?": "str"})
event("MIGRATION", "The status of a migration changed.", {"status": "MigrationStatus"})

ONLY = "vmrun migrates to files: file:PATH"


def path_of(uri: str) -> str:
    """QmpError for a URI that is none of a file."""
    scheme, colon, path = uri.partition(":")
    if not colon or scheme not in ("file", "exec", "fd", "tcp", "unix", "rdma", "vsock"):
        raise QmpError(f"unknown migration protocol: {uri}")
    if scheme != "file":
        raise QmpError(f"'{scheme}:' is not there; {ONLY}")
    if ",offset=" in path:
        raise QmpError("file: takes no offset; the state has a file of its own")
    if not path:
        raise QmpError("file: needs a path")
    return path


def tell(machine: Machine, status: str, error: str = "") -> None:
    machine.migration = {"status": status, **({"error-desc": error} if error else {})}
    machine.tell("MIGRATION", status=status)


@command("migrate", {"uri": "str", "blk?": "bool", "inc?": "bool", "detach?": "bool", "resume?": "bool"})
def migrate(monitor: Any, uri: str, **flags: bool) -> None:
    """Hold the machine and write its state to a file; query-migrate tells how far it is. Then it is 'postmigrate', or
    goes on as before when the file could not be written.
    """
    from vmrun.machine import runstate
    from vmrun.machine.snapshot import Outgoing

    machine = monitor.machine
    path = path_of(uri)
    if any(flags.get(name) for name in ("blk", "inc", "resume")):
        raise QmpError("a file takes the state alone: no blk, inc or resume")
    if machine.migration.get("status") in ("active", "setup"):
        raise QmpError("There's a migration process in progress")
    if machine.state == runstate.INMIGRATE:
        raise QmpError("Guest is waiting for an incoming migration")
    before = machine.state
    try:
        machine.go(runstate.FINISH_MIGRATE)
        outgoing = Outgoing(machine, before if before != runstate.POSTMIGRATE else runstate.PAUSED)
    except StateError as error:
        if machine.state == runstate.FINISH_MIGRATE:
            machine.go(before)
        raise QmpError(error.problems[0].message) from None
    tell(machine, "setup")
    tell(machine, "active")

    def write(work: Work) -> None:
        try:
            outgoing.write(path, lambda: work.ended or machine.migration["status"] == "cancelling")
        except StateError as error:
            raise QmpError(error.problems[0].message) from None

    def done(answer: Any, error: QmpError | None) -> None:
        if error is None:
            machine.go(runstate.POSTMIGRATE)
            tell(machine, "completed")
            return
        machine.go(before)
        if machine.migration["status"] == "cancelling":
            tell(machine, "cancelled")
        else:
            tell(machine, "failed", str(error))

    Work(machine, write).start(done)


@command("migrate_cancel")
def migrate_cancel(monitor: Any) -> None:
    """Give up a migration that is under way; the machine goes on."""
    if monitor.machine.migration.get("status") == "active":
        tell(monitor.machine, "cancelling")


@command("query-migrate", returns="MigrationInfo")
def query_migrate(monitor: Any) -> dict[str, Any]:
    """How the last migration stands."""
    return dict(monitor.machine.migration)


@command("migrate-incoming", {"uri": "str"})
def migrate_incoming(monitor: Any, uri: str) -> None:
    """Take the state out of a file, on a machine that was started with -incoming defer."""
    from vmrun.machine import runstate

    machine = monitor.machine
    if machine.state != runstate.INMIGRATE or machine.restored:
        raise QmpError("'-incoming' was not specified on the command line")
    incoming(machine, uri)


def incoming(machine: Machine, uri: str) -> None:
    """QmpError when the state is not taken; the machine waits on then."""
    from vmrun.machine.snapfile import Reader
    from vmrun.machine.snapshot import go_on, load

    path = path_of(uri)
    tell(machine, "active")
    try:
        with Reader(path) as reader:
            load(machine, reader)
    except StateError as error:
        tell(machine, "failed", error.problems[0].message)
        raise QmpError(f"load of migration failed: {error.problems[0].message}") from None
    tell(machine, "completed")
    go_on(machine, paused=not machine.autostart)
