"""A QEMU command line as a machine file and as what the process shall do. Options may come in any order."""

from __future__ import annotations

import os

from vmrun.cli.qemu_options import Option, QemuError, boolean, number, pairs, settings, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DEFAULT_TYPE = "pc-i440fx-2.0"
ALIASES = {"pc": DEFAULT_TYPE, "rhel6": "rhel6.6.0"}
ACCELERATORS = {"kvm": "kvm", "tcg": "soft", "qtest": "qtest"}
# Accepted without effect: vmrun does so anyway, or there is nothing that it could change.
_IGNORED = (
    "no-user-config nodefconfig msg sandbox enable-fips k no-fd-bootchk overcommit only-migratable seed trace d "
    "D audio balloon mem-prealloc no-kvm-pit no-kvm-pit-reinjection win2k-hack rtc-td-hack clock action"
)
IGNORED = frozenset(_IGNORED.split())
CHAR_FLAGS = ("server", "wait", "nodelay", "telnet", "append", "signal")


class CommandLine:
    """`file` is the machine file's content; `monitors` are (kind, chardev id) in order; `texts` tells which option a
    device came from.
    """

    def __init__(self, options: Iterable[Option]) -> None:
        self.file: dict[str, Any] = {"schema": "vmrun/machine/1", "machine": DEFAULT_TYPE, "name": "qemu"}
        self.chardevs: dict[str, dict[str, Any]] = {}
        self.drives: dict[str, dict[str, Any]] = {}
        self.devices: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.char_texts: dict[str, str] = {}  # chardev id → the option that made it
        self.globals: dict[str, dict[str, Any]] = {}
        self.monitors: list[tuple[str, str]] = []
        self.accel: list[str] = []
        self.dirs: list[str] = []
        self.paused = self.no_reboot = self.no_shutdown = self.daemonize = self.nodefaults = self.nographic = False
        self.pidfile = self.qtest_log = self.vga = ""
        self.snapshot = False
        self._ports: dict[str, list[Option]] = {"serial": [], "parallel": [], "monitor": []}
        self._late: list[Option] = []
        for option in options:
            self._take(option)
        for option in self._late:  # these may name what stands behind them
            getattr(self, f"_{option.name}")(option)
        self._defaults()
        self._finish()

    # --- the options ------------------------------------------------------------------------------------------

    def _take(self, option: Option) -> None:
        name, value = option.name.replace("-", "_"), option.value
        flag = FLAGS.get(option.name)
        if flag is not None:
            setattr(self, flag, True)
        elif option.name in ("hda", "hdb", "hdc", "hdd"):
            self._disk(option, {"file": str(value).replace(",,", ",")}, "abcd".index(option.name[2]))
        elif option.name in ("device", "mon"):
            self._late.append(option)
        elif option.name in self._ports:
            self._ports[option.name].append(option)
        elif option.name in ("qmp", "qmp-pretty", "qtest"):
            kind = "qtest" if option.name == "qtest" else "control"
            self.monitors.append((kind, self._char(option, f"compat_{option.name}{len(self.monitors)}")))
        elif option.name in IGNORED:
            pass
        else:
            handler = getattr(self, f"_{name}", None)
            if handler is None:
                raise option.wrong("vmrun does not have this yet")
            handler(option)

    def _machine(self, option: Option) -> None:
        for key, value in settings(option, "type").items():
            if key == "type":
                self.file["machine"] = ALIASES.get(value, value)
            elif key == "accel":
                for name in value.split(":"):
                    self._accelerator(option, name)
            elif key == "kernel_irqchip":
                self.file["kernel_irqchip"] = value
            elif key in ("usb", "smm", "hpet", "acpi", "vmport", "dump-guest-core", "mem-merge", "graphics"):
                if key in ("usb",) and boolean(option, key, value):
                    raise option.wrong("vmrun has no USB controller yet")
            else:
                raise QemuError(f"Property '{self.file['machine']}-machine.{key}' not found")

    _M = _machine

    def _accel(self, option: Option) -> None:
        self._accelerator(option, settings(option, "accel").get("accel", ""))

    def _accelerator(self, option: Option, name: str) -> None:
        if name not in ACCELERATORS:
            raise option.wrong(f"invalid accelerator {name}")
        self.accel.append(ACCELERATORS[name])

    def _m(self, option: Option) -> None:
        for key, value in settings(option, "size").items():
            if key == "size":
                self.file["memory"] = size(option, key, value, 1 << 20)
            elif key not in ("slots", "maxmem"):
                raise option.wrong(f"Invalid parameter '{key}'")

    def _smp(self, option: Option) -> None:
        cpus = self.file.setdefault("cpus", {})
        for key, value in settings(option, "cpus").items():
            if key not in ("cpus", "sockets", "cores", "threads", "maxcpus", "dies", "clusters"):
                raise option.wrong(f"Invalid parameter '{key}'")
            if key not in ("dies", "clusters"):
                cpus["count" if key == "cpus" else key] = number(option, key, value)

    def _cpu(self, option: Option) -> None:
        model, *rest = (option.value or "").split(",")
        cpus = self.file.setdefault("cpus", {})
        cpus["model"] = model
        for word in rest:
            features = cpus.setdefault("features", {})
            if word[:1] in "+-":
                features[word[1:]] = word[0] == "+"
            elif "=" in word:
                key, _, value = word.partition("=")
                features[key] = boolean(option, key, value)
            elif word:
                features[word] = True

    def _name(self, option: Option) -> None:
        self.file["name"] = settings(option, "guest").get("guest") or "qemu"

    def _uuid(self, option: Option) -> None:
        import uuid

        try:
            self.file["uuid"] = str(uuid.UUID(option.value))
        except ValueError:
            raise option.wrong("failed to parse UUID string: wrong format") from None

    def _rtc(self, option: Option) -> None:
        given = settings(option)
        for key in given:
            if key not in ("base", "clock", "driftfix"):
                raise option.wrong(f"Invalid parameter '{key}'")
        self.file["rtc"] = {**self.file.get("rtc", {}), **given}

    def _localtime(self, option: Option) -> None:
        self.file["rtc"] = {"base": "localtime"}

    def _boot(self, option: Option) -> None:
        boot = self.file.setdefault("boot", {})
        for key, value in settings(option, "order").items():
            if key in ("menu", "strict"):
                boot[key] = boolean(option, key, value)
            elif key in ("order", "once"):
                for letter in value:
                    if letter not in "acdnp":
                        raise QemuError(f"Invalid boot device '{letter}'")
                boot[key] = value
            elif key == "reboot-timeout":
                boot[key] = number(option, key, value)
            elif key not in ("splash", "splash-time"):
                raise option.wrong(f"Invalid parameter '{key}'")

    def _bios(self, option: Option) -> None:
        self.file.setdefault("firmware", {})["bios"] = self._found(str(option.value))

    def _found(self, name: str) -> str:
        return os.path.abspath(name) if os.path.exists(name) else name

    def _L(self, option: Option) -> None:
        if option.value != "help":
            self.dirs.append(os.path.abspath(str(option.value)))

    def _kernel(self, option: Option) -> None:
        self.file["kernel"] = os.path.abspath(str(option.value))

    def _initrd(self, option: Option) -> None:
        self.file["initrd"] = os.path.abspath(str(option.value))

    def _append(self, option: Option) -> None:
        self.file["cmdline"] = option.value

    def _pidfile(self, option: Option) -> None:
        self.pidfile = os.path.abspath(str(option.value))

    def _qtest_log(self, option: Option) -> None:
        self.qtest_log = str(option.value)

    def _vga(self, option: Option) -> None:
        if option.value not in ("none", "std", "cirrus", "vmware", "qxl", "virtio"):
            raise QemuError(f"unknown vga type: {option.value}")
        self.vga = str(option.value)

    def _display(self, option: Option) -> None:
        kind = (option.value or "").partition(",")[0]
        if kind not in ("none", "gtk", "sdl", "curses", "egl-headless", "spice-app", "dbus"):
            raise option.wrong(f"Parameter 'type' does not accept value '{kind}'")

    def _enable_kvm(self, option: Option) -> None:
        self.accel.append("kvm")

    def _no_kvm(self, option: Option) -> None:
        self.accel.append("soft")

    def _no_kvm_irqchip(self, option: Option) -> None:
        self.file["kernel_irqchip"] = "off"

    def _net(self, option: Option) -> None:
        if option.value != "none":
            raise option.wrong("vmrun has no network card yet")

    _nic = _net

    def _global(self, option: Option) -> None:
        given = settings(option)
        if {"driver", "property", "value"} <= set(given):
            driver, key, value = given["driver"], given["property"], given["value"]
        else:
            name, _, value = (option.value or "").partition("=")
            driver, _, key = name.partition(".")
        if not key:
            raise option.wrong("Invalid parameter")
        self.globals.setdefault(driver, {})[key] = self._value(option, driver, key, value)

    # --- drives and devices -------------------------------------------------------------------------------------

    def _drive(self, option: Option) -> None:
        given = settings(option, "file")
        kind = given.pop("if", "ide")
        if kind not in ("none", "ide", "scsi", "floppy", "pflash", "virtio", "sd", "mtd", "xen"):
            raise option.wrong(f"unsupported bus type '{kind}'")
        if kind == "none":
            id = given.pop("id", f"drive{len(self.drives)}")
            if id in self.drives:
                raise option.wrong(f"Duplicate ID '{id}' for drive")
            self.drives[id] = self._drive_spec(option, given)
        elif kind == "ide" and given.get("media", "disk") == "disk":
            place = int(given.pop("index", -1))
            bus, unit = given.pop("bus", None), given.pop("unit", None)
            if bus is not None or unit is not None:
                place = 2 * int(bus or 0) + int(unit or 0)
            self._disk(option, given, place)
        else:
            raise option.wrong(f"vmrun has no drive for if={kind}, media={given.get('media', 'disk')} yet")

    def _drive_spec(self, option: Option, given: dict[str, str]) -> dict[str, Any]:
        spec: dict[str, Any] = {}
        for key, value in given.items():
            if key in ("readonly", "read-only"):
                spec["readonly"] = boolean(option, key, value)
            elif key == "snapshot":
                spec["snapshot"] = boolean(option, key, value)
            elif key == "file":
                path = value.removeprefix("file:")
                if path and not os.path.exists(path):
                    raise option.wrong(f"Could not open '{path}': No such file or directory")
                spec["file"] = os.path.abspath(path)
            elif key not in ("id", "index", "addr", "detect-zeroes"):
                spec[key] = value
        spec.setdefault("format", "raw")
        return spec

    def _disk(self, option: Option, given: dict[str, str], place: int) -> None:
        taken = {device["place"] for device in self.devices if "place" in device}
        if place < 0:
            place = next(n for n in range(5) if n not in taken)
        if place > 3 or place in taken:
            raise option.wrong(f"drive with bus={place // 2}, unit={place % 2} (index={place}) exists")
        id = given.pop("id", f"ide{place // 2}-hd{place % 2}")
        self.drives[id] = self._drive_spec(option, given)
        entry = {"driver": "ide-hd", "bus": f"ide.{place // 2}", "unit": place % 2, "drive": id, "place": place}
        self.devices.append(entry)
        self.texts.append(option.text)

    def _device(self, option: Option) -> None:
        given = settings(option, "driver")
        driver = given.pop("driver", "")
        if not driver:
            raise option.wrong("Parameter 'driver' is missing")
        row = catalogue().driver(driver)
        if row is None or driver not in creatable():
            text = f"'{driver}' is not a valid device model name"
            raise option.wrong(text if row is None or not row.planned else f"vmrun has no {driver} yet")
        if driver in ("ide-hd", "ide-drive") and "drive" not in given:
            raise option.wrong("No drive specified")
        entry: dict[str, Any] = {"driver": driver}
        for key, value in given.items():
            entry[key] = value if key in ("id", "bus", "addr") else self._value(option, driver, key, value)
        if "id" in entry and any(entry["id"] == other.get("id") for other in self.devices):
            raise option.wrong(f"Duplicate ID '{entry['id']}' for device")
        self.devices.append(entry)
        self.texts.append(option.text)

    def _value(self, option: Option, driver: str, key: str, word: str) -> Any:
        row = catalogue().driver(driver)
        prop = row.props.get(key) if row is not None else None
        if prop is None:
            if option.name == "global":
                return word
            raise option.wrong(f"Property '{driver}.{key}' not found")
        kind = prop["type"]
        if kind == "bool":
            return boolean(option, f"{driver}.{key}", word)
        if kind == "size":
            return size(option, f"{driver}.{key}", word)
        if kind.startswith(("uint", "int")):
            return number(option, f"{driver}.{key}", word)
        return word

    # --- character devices --------------------------------------------------------------------------------------

    def _chardev(self, option: Option) -> None:
        given = settings(option, "backend")
        kind, id = given.pop("backend", ""), given.pop("id", "")
        if not id:
            raise option.wrong("Parameter 'id' is missing")
        if id in self.chardevs:
            raise option.wrong(f"Duplicate ID '{id}' for chardev")
        if kind not in ("socket", "stdio", "pty", "file", "null", "pipe", "ringbuf", "vc"):
            known = catalogue().chardevs.get(kind)
            raise option.wrong(f"'{kind}' is not a valid char driver name" if not known else f"vmrun has no {kind} yet")
        self.chardevs[id] = self._char_spec(option, kind, given)
        self.char_texts[id] = option.text

    def _char_spec(self, option: Option, kind: str, given: dict[str, str]) -> dict[str, Any]:
        spec: dict[str, Any] = {"type": "null" if kind == "vc" else kind}
        for key, value in given.items():
            if key in CHAR_FLAGS:
                spec[key] = boolean(option, key, value)
            elif key in ("port", "reconnect", "size", "fd"):
                spec[key] = number(option, key, value)
            elif key == "path":
                spec[key] = os.path.abspath(value)
            elif key in ("host", "logfile"):
                spec[key] = value
            elif key not in ("mux", "ipv4", "ipv6", "to", "logappend", "cols", "rows", "width", "height", "abstract"):
                raise option.wrong(f"Invalid parameter '{key}'")
        if kind == "socket" and not {"path", "port", "fd"} & set(spec):
            raise option.wrong("needs a path, a host and a port, or an fd")
        if kind in ("file", "pipe") and "path" not in spec:
            raise option.wrong(f"chardev: {kind}: no filename given")
        spec.pop("logfile", None)
        return spec

    def _char(self, option: Option, id: str) -> str:
        """The chardev of -serial, -monitor, -qmp and their like, which have a notation of their own; '' for none."""
        text = option.value or ""
        text = text.removeprefix("mon:") if option.name in ("serial", "monitor") else text
        kind, colon, rest = text.partition(":")
        if kind == "chardev" and colon:
            if rest not in self.chardevs:
                self.chardevs.setdefault(rest, {"type": "?"})  # may come later; looked at in the end
            return rest
        if text == "none":
            return ""
        if kind in ("unix", "tcp", "telnet") and colon:
            where, comma, more = rest.partition(",")
            given = dict(pairs(more)) if comma else {}
            if kind == "unix":
                given["path"] = where
            else:
                host, _, port = where.rpartition(":")
                given |= {"host": host, "port": port} if host else {"port": port}
                given |= {"telnet": "on"} if kind == "telnet" else {}
            spec = self._char_spec(option, "socket", given)
        elif kind in ("file", "pipe") and colon:
            spec = self._char_spec(option, kind, {"path": rest})
        elif text.partition(",")[0] in ("stdio", "null", "pty", "vc") or kind == "vc":
            spec = {"type": "null" if kind.startswith("vc") else kind.partition(",")[0]}
        else:
            raise option.wrong(f"'{text}' is not a valid char driver")
        self.chardevs[id] = spec
        self.char_texts[id] = option.text
        return id

    def _mon(self, option: Option) -> None:
        given = settings(option, "chardev")
        if given.get("chardev") not in self.chardevs:
            raise option.wrong(f'chardev "{given.get("chardev")}" not found')
        mode = given.get("mode", "readline")
        if mode not in ("readline", "control"):
            raise option.wrong(f"Parameter 'mode' does not accept value '{mode}'")
        self.monitors.append((mode, given["chardev"]))

    def _debugcon(self, option: Option) -> None:
        id = self._char(option, "debugcon")
        if id:
            self.devices.append({"driver": "isa-debugcon", "chardev": id})
            self.texts.append(option.text)

    # --- what nobody asked for ----------------------------------------------------------------------------------

    def _defaults(self) -> None:
        """As QEMU: a serial and a parallel port, a monitor, a display, unless told otherwise."""
        default = "stdio" if self.nographic else "vc"
        given = {key: bool(options) for key, options in self._ports.items()}
        drivers = {device["driver"] for device in self.devices}
        for key, driver in (("serial", "isa-serial"), ("parallel", "isa-parallel"), ("monitor", "")):
            options = self._ports[key]
            if not given[key] and not self.nodefaults and driver not in drivers:
                if key == "monitor" and (any(kind == "readline" for kind, _ in self.monitors) or not self.nographic):
                    continue
                options = [Option(key, default if key != "parallel" else "vc", f"-{key} {default}")]
            for n, option in enumerate(options):
                id = self._char(option, f"{key}{n}" if key != "monitor" else f"compat_monitor{n}")
                if key == "monitor":
                    self.monitors += [("readline", id)] if id else []
                elif id:
                    self.devices.append({"driver": driver, "index": n, "chardev": id})
                    self.texts.append(option.text)
                if option.value and option.value.startswith("mon:") and key == "serial":
                    self._char(option, "compat_monitor0")
                    self.monitors.append(("readline", "compat_monitor0"))
        if not self.vga and not self.nodefaults and not drivers & {"VGA", "cirrus-vga", "qxl-vga", "vmware-svga"}:
            self.vga = "std"
        if self.vga not in ("", "none"):
            self.file["display"] = self.vga

    def _finish(self) -> None:
        for id, spec in self.chardevs.items():
            if spec["type"] == "?":
                raise QemuError(f'chardev "{id}" not found')
        used = {device.get("chardev") for device in self.devices}
        file = self.file
        file["devices"] = [{k: v for k, v in device.items() if k != "place"} for device in self.devices]
        file["drives"] = self.drives
        file["chardevs"] = {id: spec for id, spec in self.chardevs.items() if id in used}
        if self.globals:
            file["globals"] = self.globals
        if self.dirs:
            file.setdefault("firmware", {})["dirs"] = self.dirs
        if self.snapshot:
            for drive in self.drives.values():
                drive["snapshot"] = True
        file["accel"] = self.accel or ["soft", "kvm"]
        file["paused"] = self.paused
        for key in ("devices", "drives", "chardevs"):
            if not file[key]:
                del file[key]


FLAGS = {
    "S": "paused",
    "no-reboot": "no_reboot",
    "no-shutdown": "no_shutdown",
    "daemonize": "daemonize",
    "nodefaults": "nodefaults",
    "nographic": "nographic",
    "snapshot": "snapshot",
}
_catalogue: list[Any] = []


def catalogue() -> Any:
    if not _catalogue:
        from vmrun.config.catalogue import load_catalogue

        _catalogue.append(load_catalogue())
    return _catalogue[0]


def creatable() -> list[str]:
    """The drivers that -device takes."""
    from vmrun.monitor.commands.device import BOARD_ONLY

    return [name for name in catalogue().modelled_names() if name not in BOARD_ONLY and name != "piix3-ide"]
