"""What monitors may say while there is no machine yet (`-preconfig`); the rest is refused in QEMU's words."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError

_BITMAPS = ("add", "clear", "disable", "enable", "merge", "remove")
_SERVER = ("add", "remove", "start", "stop")
COMMANDS = frozenset((
    *(f"block-dirty-bitmap-{what}" for what in _BITMAPS),
    *("block-export-add", "block-export-del", *(f"nbd-server-{what}" for what in _SERVER)),
    *(f"block-job-{what}" for what in ("cancel", "complete", "dismiss", "finalize", "pause", "resume", "set-speed")),
    *(f"blockdev-{what}" for what in ("add", "backup", "create", "del", "mirror", "reopen", "snapshot")),
    *(f"blockdev-snapshot-{what}" for what in ("delete-internal-sync", "internal-sync", "sync")),
    "block-latency-histogram-set",
    *("block-commit", "block-set-write-threshold", "block-stream", "block_resize", "block_set_io_throttle"),
    *("change-backing-file", "drive-backup", "drive-mirror", "netdev_add", "netdev_del", "object-add", "object-del"),
    *("qmp_capabilities", "qom-get", "qom-list", "qom-list-properties", "qom-list-types", "qom-set", "quit"),
    *("set-action", "set-numa-node", "x-debug-block-dirty-bitmap-sha256", "x-exit-preconfig"),
    *(f"query-{what}" for what in (
        "block", "block-exports", "block-jobs", "blockstats", "chardev", "command-line-options", "commands",
        "hotpluggable-cpus", "iothreads", "memdev", "name", "named-block-nodes", "qmp-schema", "status", "uuid",
        "version",
    )),
))  # fmt: skip
LINES = frozenset((
    *("block_job_cancel", "block_job_complete", "block_job_pause", "block_job_resume", "block_job_set_speed"),
    *("block_resize", "block_set_io_throttle", "block_stream", "closefd", "exit_preconfig", "getfd", "help", "info"),
    *("nbd_server_add", "nbd_server_remove", "nbd_server_start", "nbd_server_stop", "netdev_add", "netdev_del"),
    *("object_add", "object_del", "qom-get", "qom-list", "qom-set", "quit"),
))  # fmt: skip
VIEWS = frozenset((
    *("chardev", "history", "hotpluggable-cpus", "iothreads", "memdev", "name", "qom-tree", "status", "uuid"),
    *("version", "virtio"),
))  # fmt: skip


def check_command(machine: object, name: str) -> None:
    if not machine.whole and name not in COMMANDS:  # type: ignore[attr-defined]
        raise QmpError(f"The command '{name}' is permitted only after machine initialization has completed")


def is_shown(machine: object, name: str) -> bool:
    """Whether help tells of that command or view (`info VIEW`) now."""
    view = name.removeprefix("info ")
    return machine.whole or view in (LINES if view == name else VIEWS)  # type: ignore[attr-defined]


def check_line(machine: object, name: str) -> None:
    """`name`: a command of the monitor for people, or `info VIEW`."""
    if not is_shown(machine, name):
        raise QmpError(f"Command '{name}' not available until machine initialization has completed.")
