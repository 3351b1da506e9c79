"""Jobs that go on beside the guest: how they stand, and what can be asked of them."""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.machine import jobs
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, event, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["JobType"] = (
    "commit", "stream", "mirror", "backup", "create", "amend", "snapshot-load", "snapshot-save", "snapshot-delete",
)  # fmt: skip
enums["JobStatus"] = jobs.STATES
enums["BlockDeviceIoStatus"] = ("ok", "failed", "nospace")
struct(
    "JobInfo",
    {
        **{"id": "str", "type": "JobType", "status": "JobStatus", "current-progress": "int"},
        **{"total-progress": "int", "error?": "str"},
    },
)
struct(
    "BlockJobInfo",
    {
        **{"type": "JobType", "device": "str", "len": "int", "offset": "int", "busy": "bool", "paused": "bool"},
        **{"speed": "int", "io-status": "BlockDeviceIoStatus", "ready": "bool", "status": "JobStatus"},
        **{"auto-finalize": "bool", "auto-dismiss": "bool", "error?": "str"},
    },
)
event("JOB_STATUS_CHANGE", "A job is in another state.", {"id": "str", "status": "JobStatus"})
_END = {"type": "JobType", "device": "str", "len": "int", "offset": "int", "speed": "int"}
event("BLOCK_JOB_COMPLETED", "A block job is over; `error` tells why it failed.", {**_END, "error?": "str"})
event("BLOCK_JOB_CANCELLED", "A block job was cancelled.", _END)
event("BLOCK_JOB_READY", "A block job has copied all, and waits for block-job-complete.", _END)
event("BLOCK_JOB_PENDING", "A block job waits for block-job-finalize.", {"type": "JobType", "id": "str"})
event(
    "BLOCK_JOB_ERROR",
    "A transfer of a block job failed; `stop`: it is paused.",
    {"device": "str", "operation": "IoOperationType", "action": "BlockErrorAction"},
)


def _job(monitor: Any, id: str, verb: str, block: bool = False) -> jobs.Job:
    try:
        job = jobs.jobs(monitor.machine).find(id, block)
        job.ask(verb)
        return job
    except BuildError as error:
        text = error.problems[0].message
        raise QmpError(text, "DeviceNotActive" if block and "not found" in text else "GenericError") from None


def _do(act: Any, *given: Any) -> None:
    try:
        act(*given)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None


@command("query-jobs", returns="[JobInfo]")
def query_jobs(monitor: Any) -> list[dict[str, Any]]:
    """The jobs there are, those that are over and not dismissed too."""
    return [job.info() for job in jobs.jobs(monitor.machine).all.values()]


@command("query-block-jobs", returns="[BlockJobInfo]")
def query_block_jobs(monitor: Any) -> list[dict[str, Any]]:
    """The jobs that work on disks."""
    return [job.block_info() for job in jobs.jobs(monitor.machine).all.values() if job.block]


@command("job-pause", {"id": "str"})
def job_pause(monitor: Any, id: str) -> None:
    """Let a job stand still."""
    _do(_job(monitor, id, jobs.PAUSE).pause)


@command("job-resume", {"id": "str"})
def job_resume(monitor: Any, id: str) -> None:
    """Let it go on."""
    _do(_job(monitor, id, jobs.RESUME).resume)


@command("job-cancel", {"id": "str"})
def job_cancel(monitor: Any, id: str) -> None:
    """End a job at once, whatever it has done."""
    _job(monitor, id, jobs.CANCEL).cancel(True)


def _complete(job: jobs.Job) -> None:
    if not hasattr(job, "dirty"):
        raise BuildError(f"The active block job '{job.id}' cannot be completed")
    job.complete()


@command("job-complete", {"id": "str"})
def job_complete(monitor: Any, id: str) -> None:
    """A job that is ready: the guest uses the copy from now on."""
    _do(_complete, _job(monitor, id, jobs.COMPLETE))


@command("job-finalize", {"id": "str"})
def job_finalize(monitor: Any, id: str) -> None:
    """The last step of a job that waits for it."""
    _do(_job(monitor, id, jobs.FINALIZE).finalize)


@command("job-dismiss", {"id": "str"})
def job_dismiss(monitor: Any, id: str) -> None:
    """Forget a job that is over."""
    _do(_job(monitor, id, jobs.DISMISS).dismiss)


@command("block-job-set-speed", {"device": "str", "speed": "int"})
def set_speed(monitor: Any, device: str, speed: int) -> None:
    """Bytes per second at most; 0: any."""
    job = _job(monitor, device, jobs.SPEED, True)
    if speed < 0:
        raise QmpError("Parameter 'speed' expects a non-negative value")
    job.speed = speed


@command("block-job-pause", {"device": "str"})
def block_job_pause(monitor: Any, device: str) -> None:
    """job-pause, by the names of before."""
    _do(_job(monitor, device, jobs.PAUSE, True).pause)


@command("block-job-resume", {"device": "str"})
def block_job_resume(monitor: Any, device: str) -> None:
    """job-resume."""
    _do(_job(monitor, device, jobs.RESUME, True).resume)


@command("block-job-cancel", {"device": "str", "force?": "bool"})
def block_job_cancel(monitor: Any, device: str, force: bool = False) -> None:
    """End a job; one that is ready leaves a copy of this moment behind, unless `force`."""
    job = _job(monitor, device, jobs.CANCEL, True)
    if job.user_paused and not force:
        raise QmpError(f"The block job for device '{device}' is currently paused")
    job.cancel(force)


@command("block-job-complete", {"device": "str"})
def block_job_complete(monitor: Any, device: str) -> None:
    """job-complete."""
    _do(_complete, _job(monitor, device, jobs.COMPLETE, True))


@command("block-job-finalize", {"id": "str"})
def block_job_finalize(monitor: Any, id: str) -> None:
    """job-finalize."""
    _do(_job(monitor, id, jobs.FINALIZE, True).finalize)


@command("block-job-dismiss", {"id": "str"})
def block_job_dismiss(monitor: Any, id: str) -> None:
    """job-dismiss."""
    _do(_job(monitor, id, jobs.DISMISS, True).dismiss)
