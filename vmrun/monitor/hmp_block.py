"""The line monitor's commands about disks in use: jobs, snapshots, qemu-io."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp_args import Given
from vmrun.monitor.hmp_line import Line, ask, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.monitor.work import Work


def _qemu_io(machine: Any, words: Given, cpu: int) -> str | Work:
    from vmrun.errors import BuildError
    from vmrun.machine.qemuio import command
    from vmrun.monitor.work import Work

    try:
        found = command(machine, words[0], words_of(words[1]), "d" in words.flags)
    except BuildError as error:
        text = error.problems[0].message
        raise QmpError(text.replace(f"device='{words[0]}'", "device=''")) from None
    aloud = machine.aloud
    if aloud is None:
        return found if isinstance(found, str) else Work(machine, found)
    if isinstance(found, str):
        aloud(found)
        return ""

    def say(work: Any) -> str:
        aloud(found(work))
        return ""

    return Work(machine, say)


def _mirror(machine: Any, words: Given, cpu: int) -> str:
    ask(
        machine, "drive-mirror", device=words[0], target=words[1], sync="full" if "f" in words.flags else "top",
        mode="existing" if "n" in words.flags else "absolute-paths", **({"format": words[2]} if words[2:] else {}),
    )  # fmt: skip
    return ""


def _backup(machine: Any, words: Given, cpu: int) -> str:
    ask(
        machine, "drive-backup", device=words[0], target=words[1], sync="full" if "f" in words.flags else "top",
        mode="existing" if "n" in words.flags else "absolute-paths",
        **({"compress": True} if "c" in words.flags else {}), **({"format": words[2]} if words[2:] else {}),
    )  # fmt: skip
    return ""


def _stream(machine: Any, words: Given, cpu: int) -> str:
    ask(
        machine, "block-stream", device=words[0], **({"speed": int(words[1])} if words[1:] else {}),
        **({"base": words[2]} if words[2:] else {}),
    )  # fmt: skip
    return ""


def _snapshot(machine: Any, words: Given, cpu: int) -> str:
    if len(words) < 2:
        raise QmpError("Parameter 'snapshot-file' is missing")
    ask(
        machine, "blockdev-snapshot-sync", device=words[0], snapshot_file=words[1],
        mode="existing" if "n" in words.flags else "absolute-paths", **({"format": words[2]} if words[2:] else {}),
    )  # fmt: skip
    return ""


def _job(name: str, *more: str) -> Callable[[Any, Given, int], str]:
    def handler(machine: Any, words: Given, cpu: int) -> str:
        given: dict[str, Any] = {"device": words[0]}
        if "speed" in more:
            given["speed"] = int(words[1])
        if "force" in more and "f" in words.flags:
            given["force"] = True
        ask(machine, name, **given)
        return ""

    return handler


def _commit(machine: Any, words: Given, cpu: int) -> str | Work:
    from vmrun.errors import BuildError
    from vmrun.machine import chainops
    from vmrun.monitor.work import Work

    def run(work: Any) -> str:
        try:
            chainops.commit_now(machine, words[0])
        except BuildError as error:
            raise QmpError(error.problems[0].message) from None
        return ""

    if words[0] != "all" and words[0] not in machine.board.drives:
        return f"Device '{words[0]}' not found\n"
    return Work(machine, run)


def _told(act: Callable[..., Any], *given: Any) -> Any:
    from vmrun.errors import BuildError

    try:
        return act(*given)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None


def _savevm(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.machine import internal

    _told(internal.save, machine, words[0] if words else "")
    return ""


def _loadvm(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.machine import internal

    _told(internal.load, machine, words[0])
    return ""


def _delvm(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.machine import internal

    _told(internal.delete, machine, words[0])
    return ""


def snapshots(machine: Any, words: Given, cpu: int) -> str:
    """info snapshots"""
    from vmrun.errors import BuildError
    from vmrun.machine import internal

    try:
        return internal.table(machine)
    except BuildError as error:
        return f"{error.problems[0].message}\n"


def _internal(machine: Any, words: Given, cpu: int) -> str:
    ask(machine, "blockdev-snapshot-internal-sync", device=words[0], name=words[1])
    return ""


def _drop_internal(machine: Any, words: Given, cpu: int) -> str:
    given = {"id": words[2]} if words[2:] else {}
    ask(machine, "blockdev-snapshot-delete-internal-sync", device=words[0], name=words[1], **given)
    return ""


def block_jobs(machine: Any, words: Given, cpu: int) -> str:
    """info block-jobs"""
    rows = ask(machine, "query-block-jobs")
    text = ""
    for row in rows:
        done = f"Completed {row['offset']} of {row['len']} bytes, speed limit {row['speed']} bytes/s\n"
        if row["type"] == "stream":
            text += f"Streaming device {row['device']}: {done}"
        else:
            text += f"Type {row['type']}, device {row['device']}: {done}"
    return text or "No active jobs\n"


LINES = (
    Line("savevm", "tag", "save a VM snapshot. If no tag is provided, a new snapshot is created", _savevm, "str?"),
    Line("loadvm", "tag", "restore a VM snapshot from its tag", _loadvm, "str"),
    Line("delvm", "tag", "delete a VM snapshot from its tag", _delvm, "str"),
    Line("snapshot_blkdev_internal", "device name", "take an internal snapshot of device", _internal, "block str"),
    Line("snapshot_delete_blkdev_internal", "device name [id]", "delete an internal snapshot of device",
         _drop_internal, "block str str?"),
    Line("commit", "device|all",
         "commit changes to the disk images (if -snapshot is used) or backing files", _commit, "block"),
    Line("qemu-io", "[-d] [device] \"[command]\"", "run a qemu-io command on a block device", _qemu_io, "-d block str"),
    Line("block_stream", "device [speed [base]]", "copy data from a backing file into a block device", _stream,
         "block size? str?"),
    Line("block_job_set_speed", "device speed", "set maximum speed for a background block operation",
         _job("block-job-set-speed", "speed"), "block size"),
    Line("block_job_cancel", "[-f] device",
         "stop an active background block operation (use -f if you want to abort the operation immediately instead of "
         "keep running until data is in sync)", _job("block-job-cancel", "force"), "-f block"),
    Line("block_job_complete", "device", "stop an active background block operation", _job("block-job-complete"),
         "block"),
    Line("block_job_pause", "device", "pause an active background block operation", _job("block-job-pause"), "block"),
    Line("block_job_resume", "device", "resume a paused background block operation", _job("block-job-resume"), "block"),
    Line("snapshot_blkdev", "[-n] device [new-image-file] [format]",
         "initiates a live snapshot of device", _snapshot, "-n block str? str?"),
    Line("drive_mirror", "[-n] [-f] device target [format]",
         "initiates live storage migration for a device", _mirror, "-n -f block str str?"),
    Line("drive_backup", "[-n] [-f] [-c] device target [format]",
         "initiates a point-in-time copy for a device", _backup, "-n -f -c block str str?"),
)  # fmt: skip
