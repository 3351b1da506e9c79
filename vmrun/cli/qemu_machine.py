"""What a QEMU command line asks for, as a machine that can be built: the reading is vmrun.config.importers'.

What vmrun does not model yet is refused by the option that asks for it; of the devices that QEMU adds by itself those
are left out.
"""

from __future__ import annotations

import os

from vmrun.cli.qemu_start import QemuError, Start
from vmrun.config import files, modules
from vmrun.config.importers.qemuopts import CPU_TYPE
from vmrun.config.importers.screenopts import ADAPTERS
from vmrun.config.scalar import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.line import Parsed
    from vmrun.config.importers.qemuopts import Option

# Parts of the board, which no user plugs at any time.
_DISKS = ("ide-hd", "ide-drive")
_CONSOLES = {"isa-debugcon": "debugcon", "isa-parallel": "parallel"}
# Devices that QEMU adds though nobody named them.
_BY_ITSELF = ("sga",)
# options that the process itself looks at
_KEPT = (
    "name", "memory", "incoming", "loadvm", "D", "log", "msg",
    "paused", "preconfig", "daemonize", "pidfile", "echr", "curses", "display", "qtest-log", "objects", "accel",
    "blockdevs", "fdsets", "memdevs", "mem-lock", "sandbox", "process", "runas",
    "chroot", "exit-with-parent", "around",
)  # fmt: skip
AROUND = ("chardevs", "netdevs", "vnc")  # what an empty machine can have beside it
_SECTIONS = {"drive": "drives", "chardev": "chardevs", "netdev": "netdevs"}


class Wanted:
    """`file`: the machine file's content. `texts`: the option of each of its devices. `left_out`: drivers of the
    default devices that are not there. `chardevs` are also those that only the process itself uses.
    """

    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed
        self.run: dict[str, Any] = parsed.run
        self.file = dict(parsed.document)
        self.left_out: list[str] = []
        self.texts: list[str] = []
        if any(option.name == "enable-kvm" for option in parsed.options) and self.file.get("accel") == ["kvm", "soft"]:
            self.file["accel"] = ["kvm"]  # a machine file goes on without KVM; QEMU does not
        self._refuse_lost()
        self._actions()
        self._display()
        self._devices()
        self.chardevs: dict[str, dict[str, Any]] = {
            id: dict(spec) for id, spec in self.file.get("chardevs", {}).items()
        }
        for id, spec in self.chardevs.items():
            if spec["type"] == "spiceport":
                raise QemuError(f"{self.option(f'chardevs.{id}')}: spice not enabled")
        self.monitors: list[tuple[str, str, bool]] = []  # kind, chardev, pretty
        self._monitors()
        first = [chardev for _, chardev, _ in self.monitors]  # and so are their screens, where they have some
        self.chardevs = dict(sorted(self.chardevs.items(), key=lambda entry: entry[0] not in first))
        self._files()
        self.file["chardevs"] = {id: spec for id, spec in self.chardevs.items() if id not in self._unused()}
        for key in ("chardevs", "drives", "netdevs", "devices"):
            if not self.file.get(key):
                self.file.pop(key, None)

    def option(self, key: str) -> str:
        """The option that made 'drives.ID' and its like, as text; '' for none."""
        found = self.parsed.sources.get(key)
        return found.shown() if found is not None else ""

    def warnings(self) -> list[str]:
        found = [problem.message for problem in self.parsed.warnings if problem.message.find("no equal") < 0]
        if self.left_out and self.file["machine"] != "none":
            found.append(f"QEMU's default devices that vmrun does not have yet: {', '.join(self.left_out)}")
        if self.file["machine"] == "none":
            unused = [f"drives.{id}" for id in self.file.get("drives", ())]
            asked = [key for key in unused if self.parsed.sources.get(key) in self.parsed.options]  # no default ones
            found += [f"{self.option(key)}: no effect on -machine none" for key in asked]
        return found

    def start(self, complete: bool = False) -> tuple[Start, tuple[str, ...], tuple[str, ...]]:
        """(all that the run needs, files that were read, files that were looked for in vain). Of a line with -preconfig
        the NUMA nodes are looked at when they are `complete`.
        """
        if self.run.get("preconfig") and not complete:
            self.file.pop("numa", None)
        warnings = self.warnings()
        config: Any = None
        files: tuple[str, ...] = ()
        missing: tuple[str, ...] = ()
        if self.file["machine"] == "none":
            self.run["accel"] = self.file.get("accel") or ["soft"]
            self.run["memory"] = parse_size(self.file.get("memory") or 0)
            self.run["around"] = self._around()
        else:
            machine, more = self.resolved()
            warnings += more
            # as it was given, blanks and all
            config = {**machine.data, "name": self.run.get("name", "")}
            files, missing = machine.files, machine.missing
        sources = {key: self.option(key) for key in self.parsed.sources}
        sources |= self._device_sources()
        return (
            Start(
                config=config,
                run={key: value for key, value in self.run.items() if key in _KEPT},
                chardevs=self.chardevs,
                monitors=self.monitors,
                users=[device.get("chardev") for device in self.file.get("devices", ())],
                actions=self.actions,
                sources=sources,
                warnings=warnings,
            ),
            files,
            missing,
        )

    def _around(self) -> dict[str, Any]:
        """Of an empty machine: its networks and viewers, as those of any other are read."""
        from vmrun.config.machinetypes import newest_type

        kept = {key: self.file[key] for key in AROUND if key in self.file}
        if not kept.keys() - {"chardevs"}:
            return {}
        machine, _ = self.resolved({**kept, "schema": self.file["schema"], "machine": newest_type()})
        return {key: machine.data[key] for key in AROUND if key in kept and key != "chardevs"}

    def _device_sources(self) -> dict[str, str]:
        """'devices.ID' → its option, of those with an id and of those that are the only one of their driver."""
        devices = self.file.get("devices", ())
        count: dict[str, int] = {}
        for device in devices:
            count[device["driver"]] = count.get(device["driver"], 0) + 1
        return {
            f"devices.{device.get('id') or device['driver'] + '-0'}": text
            for device, text in zip(devices, self.texts, strict=True)
            if text and ("id" in device or count[device["driver"]] == 1)
        }

    # --- what can't be had --------------------------------------------------------------------------------------

    def _refuse_lost(self) -> None:
        for option, part in self.parsed.lost:
            raise _refusal(option, f"vmrun does not have {part or 'this'} yet")

    def _actions(self) -> None:
        """-action: what the machine does at events; for -no-reboot and -no-shutdown too."""
        self.actions = {"reboot": "reset", "shutdown": "poweroff", "panic": "shutdown"}
        if self.run.get("no-reboot"):
            self.actions["reboot"] = "shutdown"
        if self.run.get("no-shutdown"):
            self.actions["shutdown"] = "pause"
        self.actions |= self.run.get("action", {})

    def _display(self) -> None:
        asked = any(option.name == "vga" for option in self.parsed.options)
        name = ADAPTERS.get(self.file.get("display", ""))
        if name and _driver(name).planned:
            if asked:
                option = next(o for o in self.parsed.options if o.name == "vga")
                raise _refusal(option, f"vmrun has no {name} yet")
            self.left_out.append(name)
            del self.file["display"]

    # --- devices ------------------------------------------------------------------------------------------------

    def _devices(self) -> None:
        kept: list[dict[str, Any]] = []
        for device, text in zip(self.file.get("devices", []), self.parsed.texts, strict=True):
            name = device["driver"]
            driver = _driver(name)
            by_itself = not text or name in _BY_ITSELF
            if driver is not None and by_itself and driver.planned:
                self.left_out.append(name)
                for key, section in _SECTIONS.items():
                    self.file.get(section, {}).pop(device.get(key), None)
                continue
            self._check(device, text)
            kept.append(device)
            self.texts.append(text)
        self.file["devices"] = kept
        there = {device["driver"] for device in kept}
        self.file["globals"] = {
            name: table
            for name, table in self.file.get("globals", {}).items()
            if name in there or not _driver(name).planned
        }

    def _check(self, device: dict[str, Any], text: str) -> None:
        name = device["driver"]
        driver = _driver(name)
        if driver is None:
            raise QemuError(f"{text}: '{name}' is not a valid device model name")
        if driver.planned:
            raise QemuError(f"{text}: vmrun has no {name} yet")
        if name not in creatable() and text.startswith("-device"):  # flash comes by options of its own
            raise QemuError(f"{text}: Parameter 'driver' expects a pluggable device type")
        if name in _CONSOLES and "chardev" not in device:
            raise QemuError(f"{text}: Can't create {_CONSOLES[name]} device, empty char device")
        if name in _DISKS and "drive" not in device:
            raise QemuError(f"{text}: No drive specified")
        spec = self.file.get("drives", {}).get(device.get("drive"), {})
        if name == "ide-hd" and spec.get("readonly") and not spec.get("snapshot") and spec.get("media") != "cdrom":
            raise QemuError(f"{text}: Block node is read-only")
        for key in device:
            named = key == "provides" and isinstance(device[key], dict)  # by the reader: QEMU's names of its buses
            if key not in ("id", "driver", "bus", "addr") and key not in driver.props and not named:
                raise QemuError(f"{text}: Property '{name}.{key}' not found")

    # --- the host's side ------------------------------------------------------------------------------------------

    def _monitors(self) -> None:
        pretty = self.run.get("pretty", ())
        for id, monitor in self.file.pop("monitors", {}).items():
            chardev = monitor["chardev"]
            if chardev not in self.chardevs:
                raise QemuError(f'{self.option(f"monitors.{id}")}: chardev "{chardev}" not found'.removeprefix(": "))
            self.monitors.append((monitor["mode"], chardev, id in pretty))
        qtest = self.run.get("qtest")
        if qtest is not None and qtest[0]:
            id, spec = qtest
            if spec is not None:
                self.chardevs[id] = spec
            self.monitors.append(("qtest", id, False))

    def _unused(self) -> set[str]:
        """Chardevs that no device has: the resolver need not know them."""
        used = {device.get("chardev") for device in self.file["devices"]}
        return {id for id in self.chardevs if id not in used}

    def _files(self) -> None:
        """Paths as the process sees them, whatever directory it changes to later."""
        for id, spec in self.chardevs.items():
            if "path" in spec:
                self.chardevs[id] = {**spec, "path": os.path.abspath(spec["path"])}
        for id, drive in self.file.get("drives", {}).items():
            path = drive.get("file")
            if path and not files.is_address(path) and not os.path.exists(path):
                text = self.option(f"drives.{id}")
                raise QemuError(f"{text}: Could not open '{path}': No such file or directory")
        kernel, initrd = self.file.get("kernel"), self.file.get("initrd") or ""
        if kernel and not os.path.exists(kernel):
            raise QemuError(f"could not open kernel file '{kernel}': No such file or directory")
        if not os.path.exists(initrd):
            for path in modules.paths(initrd):
                if not os.path.exists(path):
                    raise QemuError(f"could not load initrd '{path}'")
        bios = self.file.get("firmware", {}).get("bios")
        if bios and os.path.exists(bios):
            self.file["firmware"] = {**self.file["firmware"], "bios": os.path.abspath(bios)}

    # --- the machine ----------------------------------------------------------------------------------------------

    def resolved(self, file: dict[str, Any] | None = None) -> tuple[Any, list[str]]:
        """(what the builder reads, warnings), of the command line's file or another. QemuError for the first thing that
        is wrong, with its option.
        """
        from vmrun.config.node import nodes
        from vmrun.config.resolve import in_order, resolve
        from vmrun.errors import ERROR, ConfigError, Problem

        problems: list[Problem] = []
        machine = None
        try:
            given = [values for _, values in self.run.get("objects", ())]
            kinds = {str(values.get("id")): str(values["qom-type"]) for values in given}
            root = nodes(self.file if file is None else file, "the command line")
            machine = resolve(root, problems, os.getcwd(), "qemu", objects=kinds)
        except ConfigError as error:
            problems.extend(error.problems)
        problems = in_order(problems)
        for problem in problems:
            if problem.severity == ERROR:
                raise self._error(problem)
        assert machine is not None
        idle = [problem for problem in problems if problem.code == "VR0611" and problem.path.startswith("drives.")]
        # a drive may wait for a device that comes later
        return machine, [problem.message for problem in problems if problem not in idle]

    def _error(self, problem: Any) -> QemuError:
        from vmrun.config.qemuwords import said

        path = problem.path
        if path == "machine":
            return QemuError("unsupported machine type\nUse -machine help to list supported machines")
        if path.startswith("cpus.features"):
            feature = path.removeprefix("cpus.features.")
            if problem.code.startswith("VR08"):
                return QemuError(f"-cpu {self.file['cpus']['model']}: vmrun does not have '{feature}' yet")
            if problem.code != "VR0708":
                return QemuError(problem.message)
            return QemuError(f"Property '{self.file['cpus']['model']}-x86_64-cpu.{feature}' not found")
        if path.startswith("cpus.plugged["):
            devices = (option for option in self.parsed.options if option.name == "device")
            given = [option for option in devices if CPU_TYPE in str(option.value)]
            return QemuError(f"{given[int(path[13:].partition(']')[0])].shown()}: {problem.message}")
        if path.startswith("cpus.model"):
            return QemuError(f"unable to find CPU model '{self.file['cpus']['model']}'")
        text = ""
        section, _, rest = path.partition(".")
        if section.startswith("devices["):
            text = self.texts[int(section[8:].partition("]")[0])]
        elif section in ("drives", "chardevs", "netdevs") and rest:
            text = self.option(f"{section}.{rest.partition('.')[0]}")
        else:
            words = {"memory": "m", "cpus": "smp", "rtc": "rtc", "boot": "boot", "firmware": "bios"}
            words |= {name: name for name in ("spice", "vnc", "smbios", "global")} | {"display": "vga"}
            words["globals"] = "global"
            name = words.get(section.partition("[")[0], "")
            text = next((option.shown() for option in reversed(self.parsed.options) if option.name == name), "")
        message = said(problem)
        if problem.code.startswith("VR08"):
            message = "vmrun does not have this yet" if text else message
        return QemuError(f"{text}: {message}" if text else message)


def _refusal(option: Option, message: str) -> QemuError:
    return QemuError(f"{option.shown()}: {message}")


_catalogue: list[Any] = []


def catalogue() -> Any:
    if not _catalogue:
        from vmrun.config.catalogue import load_catalogue

        _catalogue.append(load_catalogue())
    return _catalogue[0]


def _driver(name: str) -> Any:
    return catalogue().driver(name)


def creatable() -> list[str]:
    """The drivers that -device takes."""
    rows = catalogue()
    return [name for name in rows.modelled_names() if rows.driver(name).user_creatable]
