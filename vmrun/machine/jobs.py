"""Jobs: work on a machine's disks that goes on beside the guest, as QMP's job-* commands and their events know it.

    created → running → (ready →) waiting → pending → concluded → null;  any of them → aborting → concluded

A job works on a thread of its own (`work`), which looks at what is asked of it in `check`. All else, states and events
too, is done on the main loop: `prepare` (may fail, then all of a transaction's jobs are undone), `commit`, `abort`,
`clean`. The names are QEMU's.
"""

from __future__ import annotations

import _thread
from time import monotonic

from vmrun.errors import BuildError, VmrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine

PAUSE, RESUME, SPEED, CANCEL, COMPLETE, FINALIZE, DISMISS, CHANGE = (
    "pause", "resume", "set-speed", "cancel", "complete", "finalize", "dismiss", "change",
)  # fmt: skip
STATES = (
    "undefined", "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting", "concluded",
    "null",
)  # fmt: skip
# verb → states in which it can be asked for
ALLOWED = {
    CANCEL: ("created", "running", "paused", "ready", "standby", "waiting", "pending"),
    PAUSE: ("created", "running", "paused", "ready", "standby"),
    RESUME: ("created", "running", "paused", "ready", "standby"),
    SPEED: ("created", "running", "paused", "ready", "standby"),
    COMPLETE: ("ready",),
    FINALIZE: ("pending",),
    DISMISS: ("concluded",),
}  # fmt: skip


class Cancelled(Exception):
    """The job is to end."""


class Jobs:
    """Those of a machine, in order."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.all: dict[str, Job] = {}

    def find(self, id: str, block: bool = False) -> Job:
        job = self.all.get(id)
        if job is None or block and not job.block:
            raise BuildError(f"Block job '{id}' not found" if block else "Job not found")
        return job

    def add(self, job: Job) -> None:
        """BuildError for an id that is none, or is taken."""
        id = job.id
        if not id or not id[0].isalpha() or set(id) - _LETTERS:
            raise BuildError(f"Invalid job ID '{id}'")
        if id in self.all:
            raise BuildError(f"Job ID '{id}' already in use")
        self.all[id] = job

    def check_id(self, id: str) -> None:
        if not id or not id[0].isalpha() or set(id) - _LETTERS:
            raise BuildError(f"Invalid job ID '{id}'")
        if id in self.all:
            raise BuildError(f"Job ID '{id}' already in use")


_LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def jobs(machine: Machine) -> Jobs:
    found: Jobs | None = machine.board.jobs
    if found is None:
        found = machine.board.jobs = Jobs(machine)
    return found


class Transaction:
    """Jobs that end together: none is finished before all can be, and when one fails the others are cancelled."""

    def __init__(self) -> None:
        self.members: list[Job] = []

    def settled(self, job: Job) -> None:
        """One has done its work, or failed."""
        if any(member.failed for member in self.members):
            for member in self.members:
                if member.status not in ("aborting", "concluded", "null"):
                    member.cancel(True)
            for member in self.members:
                if member.done and member.status not in ("concluded", "null"):
                    member.undo()
            return
        if not all(member.done for member in self.members):
            return
        for member in self.members:
            member.go("pending")
        for member in self.members:
            if not member.auto_finalize and member.block:
                member.machine.tell("BLOCK_JOB_PENDING", id=member.id, type=member.kind)
        if all(member.auto_finalize for member in self.members):
            self.members[0].finalize()

    def finalize(self) -> None:
        for member in self.members:
            try:
                member.prepare()
            except (OSError, VmrunError) as error:
                member.fail(error)
                self.settled(member)
                return
        for member in self.members:
            member.commit()
            member.conclude()


class Job:
    kind = "backup"
    block = True  # query-block-jobs tells of it, and BLOCK_JOB_… events

    def __init__(
        self, machine: Machine, id: str, *, speed: int = 0, auto_finalize: bool = True, auto_dismiss: bool = True,
        transaction: Transaction | None = None,
    ) -> None:  # fmt: skip
        self.machine, self.id = machine, id
        self.speed, self.auto_finalize, self.auto_dismiss = speed, auto_finalize, auto_dismiss
        self.status = "created"
        self.current = self.total = 0
        self.error = ""
        self.number = 0  # errno of a failure
        self.io_status = "ok"
        self.pauses = 0  # how many want it to stand still
        self.user_paused = False
        self.still = False  # it stands, and has nothing under way
        self.cancelled = self.forced = self.completing = self.done = self.is_ready = False
        self.transaction = transaction or Transaction()
        self.transaction.members.append(self)
        self.over = _thread.allocate_lock()
        self.hurried = False
        self._allowance = 0.0
        self._window = 0.0
        self.on_end: Callable[[Job], object] | None = None

    # --- to be overridden ----------------------------------------------------------------------------------------

    def work(self) -> None:
        """On the thread; raises Cancelled, OSError."""

    def prepare(self) -> None:
        """The last steps, on the main loop; may fail."""

    def commit(self) -> None:
        """They are done."""

    def abort(self) -> None:
        """The job failed, or was cancelled."""

    def clean(self) -> None:
        """In either case, at last."""

    def hurry(self, begin: bool) -> None:
        """What it has under way waits for no limits any more, from `begin` until it is over."""

    # --- states ------------------------------------------------------------------------------------------------

    def go(self, status: str) -> None:
        if status != self.status:
            self.status = status
            self.machine.tell("JOB_STATUS_CHANGE", status=status, id=self.id)

    @property
    def failed(self) -> bool:
        return bool(self.error) or self.cancelled and (self.forced or not self.is_ready)

    def start(self) -> None:
        """Begin; the job is among the machine's from here on."""
        jobs(self.machine).add(self)
        self.machine.tell("JOB_STATUS_CHANGE", status="created", id=self.id)
        self.go("running")
        self.over.acquire()
        self.machine.works.append(self)
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        fault: BaseException | None = None
        try:
            self.work()
        except (Cancelled, OSError, VmrunError) as error:
            fault = error
        except Exception as error:  # a fault of ours must not end the guest
            fault = BuildError(f"internal error: {type(error).__name__}: {error}")
        finally:
            self.over.release()
            self.machine.loop.call_soon(lambda: self._worked(fault))

    def _worked(self, fault: BaseException | None) -> None:
        if self in self.machine.works:
            self.machine.works.remove(self)
        self._hurry(False)
        if self.machine.closed:
            return
        self.done = True
        given_up = self.cancelled and self.forced and isinstance(fault, OSError)  # what it had under way was, for that
        if isinstance(fault, Cancelled) or given_up:
            self.cancelled = self.forced = True
        elif fault is not None:
            self.fail(fault)
        if self.failed:
            self.go("aborting")
        else:
            self.go("waiting")
        self.transaction.settled(self)

    def fail(self, error: BaseException) -> None:
        import os

        if isinstance(error, VmrunError):
            self.error = error.problems[0].message
        elif isinstance(error, OSError) and error.errno:
            self.number, self.error = error.errno, os.strerror(error.errno)
        else:
            self.error = str(error) or "Input/output error"
        self.go("aborting")

    def undo(self) -> None:
        self.go("aborting")
        self._abort()
        self.conclude()

    def _abort(self) -> None:
        """What failed the job may fail once more: it is over all the same."""
        try:
            self.abort()
        except (OSError, VmrunError) as error:
            if not self.error:
                self.fail(error)

    def finalize(self) -> None:
        self.transaction.finalize()

    def conclude(self) -> None:
        self.clean()
        self._tell_end()
        self.go("concluded")
        if self.on_end is not None:
            self.on_end(self)
        if self.auto_dismiss:
            self.dismiss()

    def _tell_end(self) -> None:
        if not self.block:
            return
        if self.failed and not self.error:
            self.machine.tell("BLOCK_JOB_CANCELLED", **self._where())
        else:
            error = {"error": self.error} if self.error else {}
            self.machine.tell("BLOCK_JOB_COMPLETED", **self._where(), **error)

    def _where(self) -> dict[str, Any]:
        return {
            "device": self.id, "len": self.total, "offset": self.current, "speed": self.speed, "type": self.kind,
        }  # fmt: skip

    def dismiss(self) -> None:
        self.go("null")
        jobs(self.machine).all.pop(self.id, None)

    # --- what is asked of it --------------------------------------------------------------------------------------

    def ask(self, verb: str) -> None:
        """BuildError when the job's state does not let it be asked for."""
        if self.status not in ALLOWED[verb]:
            raise BuildError(f"Job '{self.id}' in state '{self.status}' cannot accept command verb '{verb}'")

    def cancel(self, force: bool) -> None:
        if self.status in ("aborting", "concluded", "null"):
            return
        self.cancelled = True
        self.forced = self.forced or force or not self.is_ready
        if self.status in ("waiting", "pending"):
            self.forced = True
            self.transaction.settled(self)
        if self.forced and not self.done:
            self._hurry(True)

    def _hurry(self, begin: bool) -> None:
        if begin != self.hurried:
            self.hurried = begin
            self.hurry(begin)

    def pause(self) -> None:
        if self.user_paused:
            raise BuildError("Job is already paused")
        self.user_paused = True
        self.pauses += 1
        self.settle()

    def resume(self) -> None:
        if not self.user_paused:
            raise BuildError("Can't resume a job that was not paused")
        self.user_paused = False
        self.io_status = "ok"
        self.pauses -= 1
        if not self.pauses and not self.done and self.status in ("paused", "standby"):
            self.go("ready" if self.is_ready else "running")  # who asks next sees it, whenever the thread wakes

    def complete(self) -> None:
        self.completing = True

    def end(self) -> None:
        """The machine ends: wait until the thread has noticed."""
        self.cancelled = self.forced = True
        self._hurry(True)
        with self.over:
            pass
        self._hurry(False)
        self._abort()
        self.clean()

    def settle(self) -> None:
        """What waits for a limit alone stands still at once: who asks next sees it."""
        from time import sleep

        for _ in range(30):
            if self.still or self.done or self.status not in ("running", "ready"):
                return
            sleep(0.001)

    # --- on the thread ----------------------------------------------------------------------------------------

    def check(self, moved: int = 0) -> None:
        """Between two pieces of work, of which the last moved so many bytes: stand still where somebody wants it, keep
        to the speed. Cancelled when the job is to end.
        """
        from time import sleep

        if self.cancelled and self.forced:
            raise Cancelled
        if self.pauses:
            calm = "standby" if self.is_ready else "paused"
            self.machine.loop.call_soon(lambda: self.go(calm) if self.pauses and not self.done else None)
            self.still = True
            while self.pauses:
                if self.cancelled and self.forced:
                    raise Cancelled
                sleep(0.005)
            self.still = False
            before = "ready" if self.is_ready else "running"
            self.machine.loop.call_soon(lambda: None if self.done or self.pauses else self.go(before))
        if self.speed and moved:
            now = monotonic()
            self._window = max(self._window, now - 0.1) + moved / self.speed
            while (wait := self._window - monotonic()) > 0 and self.speed:
                if self.pauses:
                    return self.check()
                if self.cancelled and self.forced:
                    break
                sleep(min(wait, 0.02))
        if self.cancelled and self.forced:
            raise Cancelled

    def ready(self) -> None:
        """From the thread: all is copied, and kept so until somebody completes the job."""

        def tell() -> None:
            self.go("standby" if self.pauses else "ready")
            self.machine.tell("BLOCK_JOB_READY", **self._where())

        self.is_ready = True
        self.machine.loop.call_soon(tell)

    # --- what it is ----------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """JobInfo."""
        row = {
            "id": self.id, "type": self.kind, "status": self.status, "current-progress": self.current,
            "total-progress": self.total,
        }  # fmt: skip
        return {**row, "error": self.error} if self.error else row

    def block_info(self) -> dict[str, Any]:
        """BlockJobInfo."""
        busy = not (self.done or (self.still if self.pauses else self.is_ready))
        row = {
            "type": self.kind, "device": self.id, "len": self.total, "offset": self.current, "busy": busy,
            "paused": self.pauses > 0, "speed": self.speed, "io-status": self.io_status, "ready": self.is_ready,
            "status": self.status, "auto-finalize": self.auto_finalize, "auto-dismiss": self.auto_dismiss,
        }  # fmt: skip
        return {**row, "error": self.error} if self.error else row
