"""What happens to the machine, told to every client: the names, data and order are QEMU's."""

from __future__ import annotations

import json
from time import time_ns

from vmrun.monitor.table import enums, event, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["ShutdownCause"] = (
    "none",
    "host-error",
    "host-qmp-quit",
    "host-qmp-system-reset",
    "host-signal",
    "host-ui",
    "guest-shutdown",
    "guest-reset",
    "guest-panic",
    "subsystem-reset",
    "snapshot-load",
)
enums["GuestPanicAction"] = ("pause", "poweroff", "run")
enums["GuestPanicInformationType"] = ("hyper-v", "s390")
# A union by type; pvpanic, the only device that reports here, has no such details to tell.
struct("GuestPanicInformation", type="GuestPanicInformationType")

_CAUSE = {"guest": "bool", "reason": "ShutdownCause"}
event("STOP", "The processors stand still.")
event("RESUME", "The processors run.")
event("RESET", "The machine was reset; `guest` tells who asked for it.", _CAUSE)
event("SHUTDOWN", "The machine is over; `guest` tells who asked for it.", _CAUSE)
event("TRIPLE_FAULT", "A processor gave up, and the machine was reset for it. vmrun's own.")
event("POWERDOWN", "The power button was pressed.")
event("SUSPEND", "The guest sleeps.")
event("SUSPEND_DISK", "The guest has written itself to a disk (S4), and powers off.")
event("WAKEUP", "The guest was woken.")
_PANIC = {"action": "GuestPanicAction", "info?": "GuestPanicInformation"}
event("GUEST_PANICKED", "The guest says that it crashed.", _PANIC)
event("GUEST_CRASHLOADED", "The guest crashed, and a kernel for that case runs.", _PANIC)
_MOVED = {"offset": "int", "qom-path": "str"}
event("RTC_CHANGE", "The guest has set its clock: seconds from where it would be.", _MOVED)
event("WATCHDOG", "A watchdog timer ran out.", {"action": "WatchdogAction"})
enums["IoOperationType"] = ("read", "write")
enums["BlockErrorAction"] = ("ignore", "report", "stop")
event(
    "BLOCK_IMAGE_CORRUPTED",
    "A qcow2 image contradicts itself. `fatal`: it is marked corrupt, and nothing is read or written any more.",
    {"device": "str", "node-name?": "str", "msg": "str", "offset?": "int", "size?": "int", "fatal": "bool"},
)
event(
    "BLOCK_IO_ERROR",
    "A transfer of the host's disk failed; `stop`: the machine waits for `cont`, which tries again.",
    {
        "device": "str",
        "node-name?": "str",
        "operation": "IoOperationType",
        "action": "BlockErrorAction",
        "nospace?": "bool",
        "reason": "str",
    },
)
event("DEVICE_DELETED", "A device was unplugged.", {"device?": "str", "path": "str"})


def encode(name: str, data: dict[str, Any]) -> bytes:
    """The line of an event that happens now."""
    seconds, rest = divmod(time_ns(), 1_000_000_000)
    message: dict[str, Any] = {
        "timestamp": {"seconds": seconds, "microseconds": rest // 1000},
        "event": name,
    }
    if data:
        message["data"] = data
    return json.dumps(message).encode() + b"\r\n"
