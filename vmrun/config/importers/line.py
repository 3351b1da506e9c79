"""A QEMU command line → a machine file's content, and what the process shall do beside it."""

from __future__ import annotations

from vmrun.config.importers import (
    backing,
    buses,
    charopts,
    deviceopts,
    driveopts,
    firmwareopts,
    machineopts,
    netopts,
    numaopts,
    order,
    runopts,
    screenopts,
)
from vmrun.config.importers.qemuopts import LineError, Option
from vmrun.config.importers.state import Line, Opt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from vmrun.errors import Problem

AREAS = (machineopts, firmwareopts, runopts, numaopts, driveopts, charopts, netopts, screenopts, deviceopts)
OPTIONS: dict[str, Opt] = {opt.name: opt for area in AREAS for opt in area.OPTIONS}
OPTIONS["readconfig"] = Opt("readconfig", True, None, "options from a file: include, or what it says")
MOST_WORDS, LONGEST_WORD = 4096, 1 << 20
# The meaning of the others depends on these.
_FIRST = ("M", "machine", "nographic", "hdachs")
_MERGED = frozenset(
    (
        "m",
        "smp",
        "rtc",
        "boot",
        "name",
        "spice",
        "cpu",
        "vga",
        "uuid",
        "k",
        "kernel",
        "initrd",
        "append",
        "bios",
        "pidfile",
    )
)


_USUAL = {"reboot": "reset", "poweroff": "poweroff", "watchdog": "reset"}


class Parsed:
    """options in order with positions; document is a machine file's content; run holds qmp, monitor, qtest, name,
    paused, daemonize, pidfile, display, no-reboot, no-shutdown and the like by option name; texts the option of
    each of document's devices ('' for a default one); sources that of each backend ('drives.ID'); lost the options
    and their parts that a guest or a client could miss; skipped the default devices that were left out.
    """

    __slots__ = ("document", "lost", "options", "run", "skipped", "sources", "texts", "warnings")

    def __init__(self, options: list[Option], document: dict[str, Any], line: Line) -> None:
        self.options = options
        self.document = document
        self.run = line.run
        self.texts = line.texts
        self.sources = line.sources
        self.lost = line.lost
        self.skipped = tuple(line.skipped)
        self.warnings: tuple[Problem, ...] = tuple(line.warnings)

    def unsaid(self) -> list[Problem]:
        """What a machine file has no word for, though the program that runs the line does it."""
        return backing.untold(self.run, self.options)

    def machine(self) -> dict[str, Any]:
        """document with the objects that something in it names, or that name something in it; the I/O threads; and what
        is done when the guest ends.
        """
        used = set(_texts(self.document))
        ids = {id for section in ("drives", "netdevs", "chardevs") for id in self.document.get(section, ())}
        found: dict[str, dict[str, Any]] = {}
        for _, given in self.run.get("objects", ()):
            kind, id = str(given["qom-type"]), str(given.get("id"))
            filters = kind.startswith("filter-") and str(given.get("netdev")) in ids
            if kind == "iothread" or id in used or filters:
                found[id] = {"type": kind, **object_values(given)}
        document = {**self.document, "objects": found} if found else self.document
        memory = {**backing.told(self.run), **document.get("memory-backing", {})}
        if memory:
            document = {**document, "memory-backing": memory}
        events = {"shutdown": "poweroff", "panic": "crash"}
        on = {"reboot": "shutdown"} if self.run.get("no-reboot") else {}
        on |= {"poweroff": "pause"} if self.run.get("no-shutdown") else {}
        on |= {events.get(key, key): value for key, value in self.run.get("action", {}).items()}
        on = {key: value for key, value in on.items() if value != _USUAL.get(key)}
        return {**document, "on": on} if on else document


def read_options(argv: Sequence[str]) -> list[Option]:
    """The options of argv (without the program). LineError for what is none, or lacks its value."""
    found: list[Option] = []
    if len(argv) > MOST_WORDS:
        raise LineError(f"more than {MOST_WORDS} arguments")
    index = 0
    while index < len(argv):
        word = argv[index]
        if len(word) > LONGEST_WORD:
            raise LineError("an argument is longer than 1 MiB", index)
        if not word.startswith("-") or word == "-":
            found.append(Option("hda", word, index, word))
            index += 1
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        opt = OPTIONS.get(name)
        option = Option(name, None, index, word)
        if opt is None:
            from vmrun.config.near import nearest

            raise option.wrong("invalid option", nearest=nearest(name, OPTIONS))
        if opt.has_arg:
            if index + 1 >= len(argv):
                raise option.wrong("requires an argument")
            option = Option(name, argv[index + 1], index, f"{word} {argv[index + 1]}")
            if len(argv[index + 1]) > LONGEST_WORD:
                raise LineError(f"{word}: its argument is longer than 1 MiB", index)
        found.append(option)
        index += 2 if opt.has_arg else 1
    for option in found:
        if any(ord(char) < 32 and char not in "\t\n\r" or "\udc80" <= char <= "\udcff" for char in option.value or ""):
            raise option.wrong("is not text")
    return found


def apply(line: Line, option: Option) -> None:
    """Do what one option says."""
    earlier = line.given.setdefault(option.name, [])
    if earlier and option.name in _MERGED and earlier[-1].value != option.value:
        line.warn(option, f"-{option.name} is given more than once; for each setting the last counts")
    earlier.append(option)
    if option.name == "readconfig":
        for found in deviceopts.config_file(line, option):
            apply(line, found)
        return
    handler = OPTIONS[option.name].handler
    if handler is not None:
        handler(line, option)


def object_values(given: dict[str, Any]) -> dict[str, Any]:
    """An -object's properties as a machine file has them: numbers and switches are no text there."""
    from vmrun.config.catalogue import load_catalogue
    from vmrun.core.values import read_value

    kinds = {prop["name"]: prop["type"] for prop in load_catalogue().objects.get(str(given["qom-type"]), ())}
    rest = {key: value for key, value in given.items() if key not in ("id", "qom-type")}
    return {key: read_value(kinds.get(key, "str"), value) for key, value in rest.items()}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def parse_command_line(argv: Sequence[str], defaults: bool = True) -> Parsed:
    """Read argv (without the program). defaults: with the devices that QEMU adds by itself, as vmrun-qemu wants
    them; without, what a person asked for. Raises LineError.
    """
    return parse_options(read_options(argv), defaults)


def gather(options: list[Option], defaults: bool) -> Line:
    """What the options say, one by one."""
    line = Line(defaults)
    for option in sorted(options, key=lambda option: option.name not in _FIRST):
        apply(line, option)
    return line


def parse_options(options: list[Option], defaults: bool) -> Parsed:
    line = gather(options, defaults)
    for area in AREAS:
        area.finish(line)
    return Parsed(options, _document(line), line)


def _document(line: Line) -> dict[str, Any]:
    texts = [text for _, text in line.early]
    early = [device for device, _ in line.early]
    devices = early + line.devices
    buses.place(devices, line.catalogue)
    netopts.count_macs(devices, line.has_mac)
    line.texts = texts + line.texts
    line.run.pop("places", None)
    keys = (
        "name",
        "machine",
        "remove",
        "accel",
        "thread",
        "kernel_irqchip",
        "paused",
        "uuid",
        "memory",
        "memory-backing",
        "memory-slots",
        "memory-map",
        "cpus",
        "numa",
        "rtc",
        "clock",
        "boot",
        "firmware",
        "kernel",
        "initrd",
        "cmdline",
        "smbios",
    )
    document: dict[str, Any] = {"schema": "vmrun/machine/1"}
    document |= {key: line.file[key] for key in keys if key in line.file}
    sections: dict[str, Any] = {
        "globals": line.globals,
        "drives": line.drives,
        "netdevs": line.netdevs,
        "chardevs": line.chardevs,
    }
    sections |= {key: line.file.get(key) for key in ("spice", "vnc", "display", "keyboard")}
    sections |= {"devices": devices, "include": line.file.get("include"), "monitors": line.monitors}
    document |= {key: value for key, value in sections.items() if value}
    order.settle(document, order.as_made(early, line.devices, line.catalogue), line.catalogue)
    return document


def options_table() -> str:
    """The options as Markdown: python -c 'from vmrun.config.importers.line import *; print(options_table())'."""
    rows = []
    for opt in sorted(OPTIONS.values(), key=lambda opt: opt.name.lower()):
        lost = opt.handler is not None and opt.handler.__name__ in ("no_equal", "special", "redir")
        effect = "named, left out" if lost else "taken"
        if opt.handler is not None and opt.handler.__name__ in ("host_only", "log", "proxmox"):
            effect = "taken with a note: no guest sees it"
        rows.append(f"| `-{opt.name}{' …' if opt.has_arg else ''}` | {opt.help} | {effect} |")
    return "\n".join(["| option | what, and where it goes | |", "|---|---|---|", *rows])
