"""A machine file's content as a QEMU command line: the way back of line.py."""

from __future__ import annotations

import os

from vmrun.config.backends import IN_FLASH
from vmrun.config.catalogue import load_catalogue
from vmrun.config.files import is_address
from vmrun.config.importers import backing, buses
from vmrun.config.importers.machineopts import REMOVABLE
from vmrun.config.importers.qemuopts import CPU_TYPE, join
from vmrun.config.importers.screenopts import ADAPTERS
from vmrun.config.machinetypes import load_type
from vmrun.config.node import Node, plain
from vmrun.config.scalar import parse_pci_addr, parse_size
from vmrun.config.spec import MachineSpec
from vmrun.config.sugar import expand
from vmrun.config.work import Work, absolute
from vmrun.core.iolimits import NAMES, to_qemu
from vmrun.errors import WARNING, ConfigError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SETTINGS = {
    "schema",
    "name",
    "description",
    "machine",
    "accel",
    "thread",
    "kernel_irqchip",
    "paused",
    "memory",
    "cpus",
    "rtc",
    "clock",
    "boot",
    "firmware",
    "kernel",
    "kernel-names",
    "initrd",
    "cmdline",
    "globals",
    "drives",
    "chardevs",
    "netdevs",
    "monitors",
    "spice",
    "vnc",
    "display",
    "keyboard",
    "devices",
    "remove",
    "include",
    "uuid",
    "memory-slots",
    "memory-map",
    "objects",
    "numa",
    "smbios",
    "memory-backing",
    "on",
    "disks",
    "serial",
    "parallel",
    "debugcon",
    "pflash",
    "floppies",
    "watchdog",
    "gdb",
}
# of some sections, the keys that options have; the rest is the machine type's own in QEMU
_PARTS = {
    "cpus": ("model", "features", "count", "sockets", "cores", "threads", "maxcpus", "plugged"),
    "firmware": ("bios", "dirs", "files", "roms", "acpi-tables", "nographic"),
    "memory-map": ("low-ram-limit", "low-ram-split"),  # together QEMU's max-ram-below-4g
}
FLASH = "cfi.pflash01"
# a drive's limits → QEMU's names of them
LIMITS = {name: f"throttling.{to_qemu(name)}" for name in NAMES}
LIMITS["throttle-group"] = "throttling.group"
_BACK = {"kvm": "kvm", "soft": "tcg", "qtest": "qtest"}


def long_form(root: Node, directory: str) -> tuple[dict[str, Any], list[Problem]]:
    """(content of the file with its short forms written out, what that found wrong). root has passed the schema."""
    problems: list[Problem] = []
    display = root.value.get("display")
    content = {key: node for key, node in root.value.items() if key != "display"}
    spec = MachineSpec(root.at(content))
    machine_type = load_type(str(spec.type_name.value), directory, spec.type_name)
    work = Work(spec, machine_type, load_catalogue(), directory, problems)
    made = [plain(device.node) for device in expand(work)]
    short = ("disks", "serial", "parallel", "debugcon", "pflash", "floppies", "nics", "watchdog", "gdb")
    document = {key: plain(node) for key, node in content.items() if key not in short}
    document.setdefault("accel", machine_type.default("accel") or ["kvm", "soft"])  # QEMU's own default is another
    for section in ("drives", "chardevs", "netdevs", "monitors"):
        table: dict[str, Node] = getattr(spec, section)
        if table:
            document[section] = {id: plain(node) for id, node in table.items()}
    for drive in document.get("drives", {}).values():
        if "file" in drive:
            if not is_address(str(drive["file"])):
                drive["file"] = absolute(work, str(drive["file"]))
            # QEMU would look into the image, and not write its first block
            suffix = os.path.splitext(drive["file"])[1].lower()
            drive.setdefault("format", work.catalogue.drives["suffixes"].get(suffix, "raw"))
            if drive["format"] == "auto":
                drive["format"] = "raw"
    board = {str(node.value["id"].value): str(node.value["driver"].value) for node in machine_type.items("devices")}
    devices: list[dict[str, Any]] = []
    for device in (*document.get("devices", []), *made):
        if device.get("id") in board:
            props = {
                key: value for key, value in device.items() if key not in ("id", "driver", "bus", "addr", "provides")
            }
            document.setdefault("globals", {}).setdefault(board[device["id"]], {}).update(props)
        else:
            devices.append(device)
    document["devices"] = devices
    if display is not None and display.value != "none":
        kind = str(display.value)
        document["display"] = str(machine_type.default("display")) if kind == "default" else kind
    if any(problem.severity != WARNING for problem in problems):
        raise ConfigError(problems=problems)
    return document, problems


def command_line(document: dict[str, Any], directory: str = ".") -> tuple[list[str], list[Problem]]:
    """(arguments without the program's name, what QEMU has no option for). document in long form."""
    words: list[str] = ["-nodefaults", "-no-user-config"]
    for key in document:
        if key == "smbios":
            for kind, table in document["smbios"].items():
                if kind == "files":
                    words += [word for name in table for word in ("-smbios", join([("file", name)]))]
                    continue
                several = table.get("ports") or table.get("devices")
                rows = [row.items() for row in several] if several else [table.items()]
                if "values" in table:
                    rows = [[("value", text) for text in table["values"]]]
                for pairs in rows:
                    words += ["-smbios", join([("type", kind.removeprefix("type")), *pairs])]
    words += _machine(document)
    words += backing.objects(document)[0]
    words += _settings(document, directory)
    for driver, table in document.get("globals", {}).items():
        entry = load_catalogue().driver(driver)
        for key, value in table.items():
            if entry is not None and entry.props.get(key, {}).get("type") == "size":
                value = _bytes(value)
            words += ["-global", join([("driver", driver), ("property", key), ("value", value)])]
    for id, given in document.get("objects", {}).items():
        pairs = [(key, _bytes(value) if key == "size" else value) for key, value in given.items() if key != "type"]
        words += ["-object", join([("id", id), *pairs], str(given["type"]))]
    flash = {str(d.get("drive")): int("below" in d) for d in document.get("devices", []) if d["driver"] == FLASH}
    for id, drive in document.get("drives", {}).items():
        place = [("if", "pflash"), ("unit", flash[id])] if id in flash else [("if", "none")]
        options = [
            (LIMITS.get(key, key), _bytes(value) if key in NAMES else value)
            for key, value in drive.items()
            if (key, value) != ("media", "floppy")
        ]
        words += ["-drive", join([*place, ("id", id), *options])]
    for id, chardev in document.get("chardevs", {}).items():
        rest = {key: _bytes(value) if key == "size" else value for key, value in chardev.items() if key != "type"}
        words += ["-chardev", join([("id", id), *rest.items()], str(chardev["type"]))]
    for id, netdev in document.get("netdevs", {}).items():
        words += ["-netdev", join([("id", id), *_netdev(netdev)], str(netdev["type"]))]
    for device in buses.written(document.get("devices", []), load_catalogue()):
        if device["driver"] != FLASH:
            words += ["-device", _device(device)]
    for name in document.get("include", []):
        words += ["-readconfig", name]
    for id, monitor in document.get("monitors", {}).items():
        if monitor.get("mode") == "gdb":
            words += ["-gdb", f"chardev:{monitor['chardev']}"]
        else:
            words += ["-mon", join([*monitor.items(), ("id", id)])]
    words += _numa(document)
    lost = [key for key in document if key not in _SETTINGS]
    lost += [f"remove: {id}" for id in document.get("remove", []) if id not in _switched_off(document)[1]]
    lost += ["memory-map.low-ram-split"] if _odd_split(document) else []
    lost += ["firmware: none"] if _without_firmware(document) else []
    for section, known in _PARTS.items():
        given = document.get(section)
        lost += [f"{section}.{key}" for key in given if key not in known] if isinstance(given, dict) else []
    lost += [f"memory-backing.{key}" for key in backing.lost(document)]
    problems = [
        Problem("VR0121", f"'{key}' has no equal on QEMU's command line", path=key, severity=WARNING) for key in lost
    ]
    return words, problems


def _netdev(netdev: dict[str, Any]) -> list[tuple[str, Any]]:
    """The options as QEMU writes them: each entry of a list by itself, the parts of an address with dots."""
    pairs: list[tuple[str, Any]] = []
    for key, value in netdev.items():
        if key in ("type", "capture"):
            continue
        kind, colon, rest = str(value).partition(":")
        if key in ("addr", "local", "remote") and colon:
            pairs.append((f"{key}.type", kind))
            host, _, port = rest.rpartition(":")
            named = {"inet": [("host", host), ("port", port)], "unix": [("path", rest)]}.get(kind, [("str", rest)])
            pairs += [(f"{key}.{name}", text) for name, text in named]
        else:
            pairs += [(key, one) for one in (value if isinstance(value, list) else [value])]
    return pairs


def _numa(document: dict[str, Any]) -> list[str]:
    """A node and the memory that it is made of, for RHEL 6 by its size alone; then the distances that are said."""
    words: list[str] = []
    nodes = document.get("numa", [])
    for n, node in enumerate(nodes):
        amount = parse_size(node["memory"]) or 0
        pairs = [("nodeid", n), *(("cpus", cpu) for cpu in node.get("cpus", []))]
        if str(document["machine"]).startswith("rhel6"):
            pairs.append(("mem", f"{amount}B"))
        else:
            words += backing.node(document, f"numa{n}", amount)
            pairs.append(("memdev", f"numa{n}"))
        pairs += [("initiator", node["initiator"])] if "initiator" in node else []
        words += ["-numa", join(pairs, "node")]
    for src, node in enumerate(nodes):
        for dst, distance in enumerate(node.get("distances", [])):
            words += ["-numa", join([("src", src), ("dst", dst), ("val", distance)], "dist")]
    for n, node in enumerate(nodes):
        for row in node.get("access", ()):
            whole = {"target": n, "hierarchy": "memory", **row}
            if "bandwidth" in row:
                whole["bandwidth"] = f"{parse_size(row['bandwidth'])}B"
            words += ["-numa", join(whole.items(), "hmat-lb")]
        for row in node.get("caches", ()):
            whole = {"node-id": n, "associativity": "none", "policy": "none", "line": 0, **row}
            words += ["-numa", join({**whole, "size": f"{parse_size(row['size'])}B"}.items(), "hmat-cache")]
    return words


def _odd_split(document: dict[str, Any]) -> bool:
    """Whether RAM is cut where max-ram-below-4g would not."""
    layout = {key: parse_size(value) or 0 for key, value in document.get("memory-map", {}).items() if "low-ram" in key}
    limit, split = layout.get("low-ram-limit"), layout.get("low-ram-split")
    return bool(layout) and (limit is None or split not in (limit, min(limit, 3 << 30)))


def _without_firmware(document: dict[str, Any]) -> bool:
    """vmrun starts the kernel itself, which QEMU's PC does not."""
    firmware = document.get("firmware")
    return firmware == "none" or (isinstance(firmware, dict) and firmware.get("bios") == "none")


def _machine(document: dict[str, Any]) -> list[str]:
    accel = document.get("accel")
    names = [accel] if isinstance(accel, str) else accel or []
    pairs = [("accel", ":".join(_BACK[name] for name in names))] if names else []
    if "kernel_irqchip" in document:
        pairs.append(("kernel_irqchip", str(document["kernel_irqchip"])))
    switches, _ = _switched_off(document)
    pairs += [(key, "off") for key in switches if key not in _OLD_SWITCHES]
    memory = document.get("memory-backing", {})
    shared = (("merge", "mem-merge"), ("dump", "dump-guest-core"))
    pairs += [(name, memory[key]) for key, name in shared if key in memory]
    pairs += backing.objects(document)[1]
    if "low-ram-limit" in document.get("memory-map", {}):
        pairs.append(("max-ram-below-4g", f"{parse_size(document['memory-map']['low-ram-limit'])}B"))
    slots = document.get("memory-slots", {})
    pairs += [("nvdimm", "on")] if slots.get("nvdimm") else []
    hmat = any(key in node for node in document.get("numa", ()) for key in ("initiator", "access", "caches"))
    pairs += [("hmat", "on")] if hmat else []
    pairs += [(key, slots[key]) for key in ("nvdimm-persistence",) if key in slots]
    firmware = document.get("firmware")
    pairs += [("graphics", "off")] if isinstance(firmware, dict) and firmware.get("nographic") else []
    old = [_OLD_SWITCHES[key] for key in switches if key in _OLD_SWITCHES]
    return ["-machine", join(pairs, str(document["machine"])), *old]


# QEMU has had these for longer, and `hpet=off` since it lost them
_OLD_SWITCHES = {"hpet": "-no-hpet", "acpi": "-no-acpi"}


def _switched_off(document: dict[str, Any]) -> tuple[list[str], set[str]]:
    """(the switches that keep away what a machine removes, the devices that they keep away)."""
    left = set(document.get("remove", ()))
    switches: list[str] = []
    away: set[str] = set()
    for key, ids in sorted(REMOVABLE.items(), key=lambda entry: -len(entry[1])):
        if left.issuperset(ids):
            switches.append(key)
            away.update(ids)
            left -= set(ids)
    return switches, away


def _settings(document: dict[str, Any], directory: str) -> list[str]:
    words = ["-name", document["name"]] if "name" in document else []
    words += ["-S"] if document.get("paused") else []
    if "memory" in document:
        slots = document.get("memory-slots")
        room = f",slots={slots['count']},maxmem={parse_size(slots['maxmem']) or 0}B" if slots else ""
        words += ["-m", f"{parse_size(document['memory']) or 0}B{room}"]
    cpus = dict(document.get("cpus", {}))
    model, features = cpus.pop("model", None), cpus.pop("features", {})
    if model is not None:
        words += ["-cpu", join(features.items(), model)]
    count = cpus.pop("count", None)
    plugged = cpus.pop("plugged", [])
    if cpus or count:
        pairs = [(key, value) for key, value in cpus.items() if key in ("sockets", "cores", "threads", "maxcpus")]
        words += ["-smp", join(pairs, str(count) if count else "")]
    for key in ("rtc", "boot", "spice"):
        if document.get(key):
            words += [f"-{key}", join(document[key].items())]
    clock = document.get("clock", {})
    if clock.get("mode") == "instructions":
        words += ["-icount", f"shift={clock.get('shift', 0)}" + ("" if clock.get("sleep", True) else ",sleep=off")]
    firmware = {} if _without_firmware(document) else document.get("firmware", {})
    words += ["-bios", firmware["bios"]] if firmware.get("bios", IN_FLASH) != IN_FLASH else []
    for directory in firmware.get("dirs", []):
        words += ["-L", directory]
    for name, given in firmware.get("files", {}).items():
        words += ["-fw_cfg", join([("name", name), *given.items()])]
    for rom in firmware.get("roms", []):
        words += ["-option-rom", join([("romfile", rom["file"]), *(pair for pair in rom.items() if pair[0] != "file")])]
    for table in firmware.get("acpi-tables", []):
        values = {key: ":".join(value) if isinstance(value, list) else value for key, value in table.items()}
        words += ["-acpitable", join(values.items())]
    words += backing.options(document)
    events = {"poweroff": "shutdown", "crash": "panic"}
    actions = [(events.get(key, key), action) for key, action in document.get("on", {}).items()]
    words += ["-action", join(actions)] if actions else []
    for key, option in (("kernel", "-kernel"), ("initrd", "-initrd"), ("cmdline", "-append"), ("uuid", "-uuid")):
        words += [option, document[key]] if key in document else []
    servers = document.get("vnc", [])
    for server in [servers] if isinstance(servers, dict) else servers:
        rest = {key: value for key, value in server.items() if key != "listen"}
        words += ["-vnc", join(rest.items(), str(server.get("listen", ":0")))]
    words += ["-k", document["keyboard"]] if "keyboard" in document else []
    for row in plugged:
        model = model or load_type(str(document["machine"]), directory).default("cpu") or "qemu64"
        kind = f"{model}{CPU_TYPE}"
        words += ["-device", join(row.items(), kind)]
    display = document.get("display", "none")
    return [*words, "-vga", display if display in ADAPTERS else "none"]


def _bytes(value: Any) -> Any:
    """A size of a machine file in bytes: QEMU knows no KiB."""
    found = parse_size(value)
    return value if found is None else found


def _device(device: dict[str, Any]) -> str:
    pairs = []
    driver = load_catalogue().driver(str(device["driver"]))
    sizes = [name for name, prop in driver.props.items() if prop["type"] == "size"] if driver is not None else []
    for key, value in device.items():
        if key in sizes:
            value = _bytes(value)
        if key == "addr" and isinstance(value, str):
            place = parse_pci_addr(value)
            value = f"{place[0]:#x}.{place[1]:#x}" if place is not None else value
        if key != "driver":
            pairs.append((key, value))
    return join(pairs, str(device["driver"]))
