"""The line monitor: local APICs, virtio devices, and drives that come, go, are slowed or served."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError, of_fault
from vmrun.monitor.hmp_args import Given
from vmrun.monitor.hmp_line import Line, ask, by_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# --- local APICs ------------------------------------------------------------------------------------------

LOCAL_VECTORS = {"LVT0": 3, "LVT1": 4, "LVTPC": 2, "LVTERR": 5, "LVTTHMR": 1, "LVTT": 0}
TIMERS = ("one-shot", "periodic", "tsc-deadline", "?")
MODES = ("Fixed", "...", "SMI", "...", "NMI", "INIT", "...", "ExtINT")
SENT = ("Fixed", "LowestPri", "SMI", "...", "NMI", "INIT", "SIPI", "...")
SHORTHANDS = ("no-shorthand", "self", "all-self", "all")
X2APIC = 1 << 10  # of the base


def _lapic(machine: Any, words: Given, cpu: int) -> str:
    chips = [device.lapic for device in machine.devices.values() if hasattr(device, "lapic")]
    wanted = int(words[0]) if words else None
    if not chips:
        return "the local APICs are in KVM's kernel part: see kernel_irqchip\n"
    found = [chip for chip in chips if chip.id == wanted] if words else chips[cpu : cpu + 1]
    if not found:
        return "No CPU available\n"
    with machine.board.lock:
        return _dump(found[0])


def _dump(apic: Any) -> str:
    """All of one, in QEMU's columns."""
    out = [f"dumping local APIC state for CPU {apic.index} \n"]
    for name, n in LOCAL_VECTORS.items():
        out.append(_vector(name, apic.lvt[n], timer=n == 0))
    divisor = 1 << ((apic.divide & 3 | apic.divide >> 1 & 4) + 1 & 7)
    initial = apic.initial_count
    passed = max(apic.clock.time() - apic.start, 0) // divisor  # it counts nanoseconds
    periodic = apic.lvt[0] >> 17 & 3 == 1
    current = (initial - passed % initial if periodic else max(initial - passed, 0)) if initial else 0
    out.append(
        f"Timer\t DCR={apic.divide:#x} (divide by {divisor}) initial_count = {initial} current_count = {current}"
    )
    enabled, focus = "enabled" if apic.svr & 0x100 else "disabled", "on" if apic.svr & 0x200 else "off"
    out.append(f"SPIV\t 0x{apic.svr:08x} APIC {enabled}, focus={focus}, spurious vec {apic.svr & 0xFF}")
    out += _command(apic.icr & 0xFFFFFFFF, apic.icr >> 32, bool(apic.base & X2APIC))
    out.append(f"ESR\t 0x{apic.esr:08x}")
    out += [_vectors("ISR", apic.isr, apic.tmr), _vectors("IRR", apic.irr, apic.tmr)]
    serviced = max((n for n in range(256) if apic.isr[n >> 5] >> (n & 31) & 1), default=0)
    task = apic.tpr_value
    priority = task if task >> 4 >= serviced >> 4 else serviced & 0xF0
    place = f"DFR 0x{apic.dfr >> 28:02x} LDR 0x{apic.ldr >> 24:02x}"
    out.append(f"\nAPR 0x00 TPR 0x{task:02x} {place} PPR 0x{priority:02x}")
    return "\n".join(out) + "\n"


def _vector(name: str, value: int, timer: bool) -> str:
    level, low = value >> 15 & 1, value >> 13 & 1
    masked, pending = "masked" if value >> 16 & 1 else "", "pending" if value >> 12 & 1 else ""
    mode = MODES[value >> 8 & 7]
    text = f"{name}\t 0x{value:08x} active-{'lo' if low else 'hi'} {'level' if level else 'edge '} {masked:<6} "
    text += f"{pending:<7} {TIMERS[value >> 17 & 3] if timer else '':<12} {mode:<6}"
    return text + (f" (vec {value & 0xFF})" if mode == "Fixed" else "")


def _command(low: int, high: int, wide: bool) -> list[str]:
    """The interrupt command register; where it goes is told without a shorthand only."""
    shorthand, logical = SHORTHANDS[low >> 18 & 3], low >> 11 & 1
    kind, level = "logical" if logical else "physical", "level" if low >> 15 & 1 else "edge"
    text = f"ICR\t 0x{low:08x} {kind} {level} {'assert' if low >> 14 & 1 else 'de-assert'} {shorthand}"
    to = ""
    if shorthand == "no-shorthand":
        target = high if wide else high >> 24
        to = f" mask {target:#x}" if logical else f" cpu {target} ({'X2APIC' if wide else 'APIC'} ID)"
    return [text, f"ICR2\t 0x{high:08x}{to}"]


def _vectors(name: str, bits: Any, levels: Any) -> str:
    found = [
        f"{n}{'(level)' if levels[n >> 5] >> (n & 31) & 1 else ''}" for n in range(256) if bits[n >> 5] >> (n & 31) & 1
    ]
    return f"{name}\t {' '.join(found) or '(none)'}"


def _history(machine: Any, words: Given, cpu: int) -> str:
    """A line that a program gave has none before it; a person's session answers by itself (`readline.py`)."""
    return ""


# --- virtio -----------------------------------------------------------------------------------------------


def _virtio(machine: Any, words: Given, cpu: int) -> str:
    rows = ask(machine, "x-query-virtio")
    return "".join(f"{row['path']} [{row['name']}]\n" for row in rows) or "No VirtIO devices\n"


# --- drives -----------------------------------------------------------------------------------------------


def _throttle(machine: Any, words: Given, cpu: int) -> str:
    names = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")
    ask(machine, "block_set_io_throttle", device=words[0], **dict(zip(names, map(int, words[1:]), strict=True)))
    return ""


def _drive_add(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.config.importers.line import parse_command_line
    from vmrun.errors import VmrunError
    from vmrun.machine.blocks import blocks

    options = words[1]
    if "n" in words.flags:
        return _node_add(machine, options)
    kind = next((part.partition("=")[2] for part in options.split(",") if part.startswith("if=")), "ide")
    if kind != "none":
        return f"Can't hot-add drive to type '{kind}': give if=none, and device_add what shows it\n"
    if not any(part.startswith("id=") for part in options.split(",")):
        taken = machine.config["drives"]
        options += f",id={next(name for n in range(len(taken) + 1) if (name := f'none{n}') not in taken)}"
    try:
        parsed = parse_command_line(["-drive", options], defaults=False)
        drives = parsed.document.get("drives", {})
        for id, spec in drives.items():  # one without an image is empty
            blocks(machine).add_drive(id, spec if "file" in spec or "format" in spec else {**spec, "media": "cdrom"})
            blocks(machine).passing.add(id)
    except VmrunError as error:
        return f"{of_fault(error).desc.removeprefix(f'-drive {options}: ')}\n"
    return "OK\n" if drives else ""


def _node_add(machine: Any, options: str) -> str:
    """A node as -blockdev has it, without a drive."""
    from vmrun.config.importers.line import parse_command_line
    from vmrun.config.importers.nodes import nested
    from vmrun.errors import VmrunError

    if not any(part.startswith("node-name=") for part in options.split(",")):
        return "'node-name' needs to be specified\n"
    try:
        (node,) = parse_command_line(["-blockdev", options], defaults=False).run["blockdevs"]
        ask(machine, "blockdev-add", **nested(node))
    except VmrunError as error:
        return f"{of_fault(error).desc.removeprefix(f'-blockdev {options}: ')}\n"
    return ""


def _drive_del(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.errors import BuildError
    from vmrun.machine.blocks import blocks

    try:
        blocks(machine).delete_drive(words[0])
    except BuildError as error:
        return error.problems[0].message + "\n"
    return ""


def _calc_dirty_rate(machine: Any, words: Given, cpu: int) -> str:
    if {"r", "b"} <= words.flags.keys():
        raise QmpError("Either dirty ring or dirty bitmap can be specified!")
    mode = "dirty-ring" if "r" in words.flags else "dirty-bitmap" if "b" in words.flags else "page-sampling"
    samples = {"sample-pages": int(words[1])} if words[1:] and int(words[1]) else {}
    ask(machine, "calc-dirty-rate", calc_time=int(words[0]), mode=mode, **samples)
    return (
        f"Starting dirty rate measurement with period {words[0]} seconds\n"
        "[Please use 'info dirty_rate' to check results]\n"
    )


def _serve(machine: Any, words: Given, cpu: int) -> str:
    host, colon, port = words[0].rpartition(":")
    if host == "unix":
        address: dict[str, Any] = {"type": "unix", "data": {"path": port}}
    elif colon and port.isdecimal():
        address = {"type": "inet", "data": {"host": host, "port": port}}
    else:
        raise QmpError(f"error parsing address '{words[0]}'")
    ask(machine, "nbd-server-start", addr=address)
    if "a" in words.flags:
        for row in ask(machine, "query-block"):
            if "inserted" in row:
                ask(machine, "nbd-server-add", device=row["device"], writable="w" in words.flags)
    return ""


def _export(machine: Any, words: Given, cpu: int) -> str:
    named = {"name": words[1]} if len(words) > 1 else {}
    ask(machine, "nbd-server-add", device=words[0], writable="w" in words.flags, **named)
    return ""


def _unexport(machine: Any, words: Given, cpu: int) -> str:
    ask(machine, "nbd-server-remove", name=words[0], mode="hard" if "f" in words.flags else "safe")
    return ""


def _unserve(machine: Any, words: Given, cpu: int) -> str:
    ask(machine, "nbd-server-stop")
    return ""


LINES = (
    Line("block_set_io_throttle", "device bps bps_rd bps_wr iops iops_rd iops_wr",
         "change I/O throttle limits for a block drive", _throttle, "block long long long long long long"),
    Line("drive_add", "[-n] slot if=none[,id=name][,file=file][,format=f][,media=d][,snapshot=on|off]"
         "[,readonly=on|off]",
         "add a drive, which device_add can name", _drive_add, "-n str str"),
    Line("calc_dirty_rate", "[-r] [-b] second [sample_pages_per_GB]",
         "start a round of guest dirty rate measurement, by samples of its pages (-r and -b, by the processors' rings "
         "and by a bitmap, are refused)", _calc_dirty_rate, "-r -b int int?"),
    Line("drive_del", "device", "remove host block device", _drive_del, "block"),
    Line("nbd_server_start", "[-a] [-w] host:port", "serve block devices on the given host and port", _serve,
         "-a -w str"),
    Line("nbd_server_add", "[-w] device [name]", "export a block device via NBD", _export, "-w block str?"),
    Line("nbd_server_remove", "[-f] name", "remove an export previously exposed via NBD", _unexport, "-f str"),
    Line("nbd_server_stop", "", "stop serving block devices using the NBD protocol", _unserve),
)  # fmt: skip

VIEWS = by_name(
    Line("history", "", "show the command line history", _history),
    Line("lapic", "[apic-id]", "show local apic state (apic-id: local apic to read, default is which of current CPU)",
         _lapic, "int?"),
    Line("virtio", "", "List all available virtio devices", _virtio),
)
