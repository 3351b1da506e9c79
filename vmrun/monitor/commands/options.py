"""The options that vmrun-qemu takes, and the members of each, as programs ask before they write a command line."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["CommandLineParameterType"] = ("string", "boolean", "number", "size")
struct(
    "CommandLineParameterInfo",
    {"name": "str", "type": "CommandLineParameterType", "help?": "str", "default?": "str"},
)
struct("CommandLineOptionInfo", {"option": "str", "parameters": "[CommandLineParameterInfo]"})

# option: members, each a string unless its type follows
_TEXT = """\
machine: usb/boolean mem-merge/boolean dump-guest-core/boolean append initrd kernel kernel_irqchip/boolean accel type
smbios:
acpi:
vnc: websocket share password/boolean password-secret reverse/boolean to/number key-delay-ms/number vnc tls-creds
action: watchdog panic reboot shutdown
numa:
name: debug-threads/boolean process guest
msg: guest-name/boolean timestamp/boolean
overcommit: cpu-pm/boolean mem-lock/boolean
object:
add-fd: opaque set/number fd/number
boot-opts: strict/boolean reboot-timeout/number splash-time/number splash menu/boolean once order
smp-opts: maxcpus/number threads/number cores/number sockets/number cpus/number
memory: maxmem/size slots/number size/size
accel:
mon: pretty/boolean chardev mode
global: value property driver
rtc: driftfix clock base
net:
nic:
netdev:
device:
chardev: abstract/boolean logappend/boolean logfile append/boolean chardev size/size signal/boolean mux/boolean \
rows/number cols/number height/number width/number websocket/boolean tls-authz tls-creds telnet/boolean \
reconnect/number nodelay/boolean delay/boolean server/boolean wait/boolean ipv6/boolean ipv4/boolean localport \
localaddr fd port host path backend
drive: werror rerror read-only/boolean file if media index/number unit/number bus/number detect-zeroes format \
cache.writeback/boolean aio snapshot/boolean discard cache.no-flush/boolean cache.direct/boolean driver node-name
fw_cfg: string file name
option-rom: romfile bootindex/number
"""


def _table() -> dict[str, list[dict[str, str]]]:
    found = {}
    for line in _TEXT.strip().splitlines():
        option, _, members = line.partition(":")
        rows = []
        for member in members.split():
            name, _, kind = member.partition("/")
            rows.append({"name": name, "type": kind or "string"})
        found[option] = rows
    return found


@command("query-command-line-options", {"option?": "str"}, "[CommandLineOptionInfo]")
def query_command_line_options(monitor: Any, option: str = "") -> list[dict[str, Any]]:
    """Options of vmrun-qemu with their members, or those of one."""
    table = _table()
    if option and option not in table:
        raise QmpError(f"invalid option name: {option}")
    return [
        {"option": name, "parameters": members} for name, members in table.items() if option in ("", name)
    ]
