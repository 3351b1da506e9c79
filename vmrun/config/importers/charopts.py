"""Options about characters: chardevs, serial and parallel ports, monitors, debug console."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import Option, boolean, number, settings
from vmrun.config.importers.state import Line, Opt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = (
    "server",
    "wait",
    "nodelay",
    "telnet",
    "websocket",
    "ipv4",
    "ipv6",
    "append",
    "signal",
    "mux",
    "abstract",
    "tight",
    "delay",
    "logappend",
)
_NUMBERS = ("reconnect", "size", "fd", "debug", "cols", "rows", "width", "height", "to")
_TEXT = (
    "path",
    "host",
    "port",
    "name",
    "localaddr",
    "localport",
    "logfile",
    "tls-creds",
    "tls-authz",
    "input-path",
    "clipboard",
    "mouse",
)
_TYPES = (
    "null",
    "socket",
    "udp",
    "msmouse",
    "vc",
    "ringbuf",
    "file",
    "pipe",
    "pty",
    "stdio",
    "serial",
    "tty",
    "parallel",
    "parport",
    "spicevmc",
    "spiceport",
    "braille",
    "wctablet",
    "testdev",
    "memory",
    "dbus",
    "qemu-vdagent",
)


def chardev(line: Line, option: Option) -> None:
    given = settings(option, "backend", flags=_FLAGS)
    kind, id = str(given.pop("backend", "")), str(given.pop("id", ""))
    if not id:
        raise option.wrong("Parameter 'id' is missing")
    if kind not in _TYPES:
        raise option.wrong(f"'{kind}' is not a valid char driver name", kind)
    line.put(option, "chardevs", id, spec(line, option, kind, given))


def spec(line: Line, option: Option, kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """A chardev as a machine file has it."""
    result: dict[str, Any] = {"type": {"serial": "tty", "parallel": "parport"}.get(kind, kind)}
    for key, value in given.items():
        if key in ("ipv4", "ipv6", "delay", "logfile", "logappend", "cols", "rows", "width", "height", "to"):
            line.no_equal(option, key)
        elif key == "mux":
            if boolean(option, key, value):
                line.no_equal(option, key)
        elif key in _FLAGS:
            result[key] = boolean(option, key, value)
        elif key in _NUMBERS or key == "port" and str(value).isdecimal():
            result[key] = number(option, key, value)
        elif key in _TEXT:
            result[key] = str(value)
        else:
            raise option.wrong(f"Invalid parameter '{key}'", key)
    if kind == "socket" and not {"path", "port", "fd"} & set(result):
        raise option.wrong("chardev: socket: no host, path or fd given")
    if kind in ("file", "pipe", "serial", "tty") and "path" not in result:
        raise option.wrong(f"chardev: {kind}: no filename given")
    return result


def legacy(line: Line, option: Option, id: str) -> str:
    """The chardev of -serial, -monitor and their like, in a notation of their own; '' for none."""
    text = str(option.value)
    text = text.removeprefix("mon:")
    kind, colon, rest = text.partition(":")
    if text == "none":
        return ""
    if kind == "chardev" and colon:
        if rest not in line.chardevs and not any(
            o.value and f"id={rest}" in o.value for o in line.given.get("chardev", ())
        ):
            raise option.wrong(f'chardev "{rest}" not found', rest)
        return rest
    where, _, more = rest.partition(",")
    if kind in ("unix", "tcp", "telnet", "udp") and colon:
        given = settings(Option(option.name, f"{kind},{more}", option.index, option.text), "kind", flags=_FLAGS)
        given.pop("kind")
        given.pop("", None)
        if kind == "unix":
            given["path"] = where
        elif kind == "udp":
            line.no_equal(option, "udp")
            return line.put(option, "chardevs", id, {"type": "null"})
        else:
            host, colon, port = where.rpartition(":")
            if not colon or not port.isdecimal():
                raise option.wrong("address must be HOST:PORT", where)
            given |= {"host": host} if host else {}
            given |= {"port": port}
            given |= {"telnet": "on"} if kind == "telnet" else {}
        return line.put(option, "chardevs", id, spec(line, option, "socket", given))
    head = text.partition(",")[0]
    if kind in ("file", "pipe") and colon:
        found = {"type": kind, "path": rest}
    elif head in ("stdio", "null", "pty", "msmouse", "braille") or kind == "vc":
        found = {"type": head if kind != "vc" else "vc"}
    elif text.startswith("/dev/"):
        found = {"type": "tty", "path": text}
    else:
        raise option.wrong(f"'{text}' is not a valid char driver", text)
    return line.put(option, "chardevs", id, found)


def port(line: Line, option: Option) -> None:
    """-serial and -parallel: numbered by their order."""
    index = line.given[option.name].index(option)
    id = legacy(line, option, f"{option.name}{index}")
    if id:
        line.add(option, {"driver": f"isa-{option.name}", "index": index, "chardev": id})
    if str(option.value).startswith("mon:"):
        shared = line.put(option, "chardevs", "compat_monitor0", dict(line.chardevs[id]))
        line.monitors["compat_monitor0"] = {"chardev": shared, "mode": "readline"}


def monitor(line: Line, option: Option) -> None:
    line.run.setdefault("monitor" if option.name == "monitor" else "qmp", []).append(option.value)
    id = legacy(line, option, f"compat_monitor{len(line.monitors)}")
    if id:
        mode = "readline" if option.name == "monitor" else "control"
        line.monitors[f"compat_monitor{len(line.monitors)}"] = {"chardev": id, "mode": mode}


def mon(line: Line, option: Option) -> None:
    given = settings(option, "chardev")
    for key in given:
        if key not in ("chardev", "mode", "id", "pretty", "default"):
            raise option.wrong(f"Invalid parameter '{key}'", key)
    mode = given.get("mode", "readline")
    if mode not in ("readline", "control"):
        raise option.wrong(f"Parameter 'mode' does not accept value '{mode}'", mode)
    if "chardev" not in given:
        raise option.wrong("Parameter 'chardev' is missing")
    id = given.get("id") or f"monitor{len(line.monitors)}"
    line.put(option, "monitors", id, {"chardev": given["chardev"], "mode": mode})


def debugcon(line: Line, option: Option) -> None:
    id = legacy(line, option, "debugcon")
    if id:
        line.add(option, {"driver": "isa-debugcon", "iobase": 0xE9, "chardev": id})


def virtioconsole(line: Line, option: Option) -> None:
    index = line.given[option.name].index(option)
    id = legacy(line, option, f"virtcon{index}")
    if "virtio-serial-pci" not in line.drivers():
        line.add(option, {"driver": "virtio-serial-pci"})
    if id:
        line.add(option, {"driver": "virtconsole", "chardev": id})


def nographic(line: Line, option: Option) -> None:
    line.run["nographic"] = True
    if line.old:
        line.add(option, {"driver": "sga"})


def finish(line: Line) -> None:
    """The serial and parallel port and the monitor that QEMU has unless told otherwise."""
    if line.has("nodefaults"):
        return
    drivers, screen = line.spoken_for(), not line.run.get("nographic")
    for name, what in (("serial", "a serial port"), ("parallel", "a parallel port")):
        if line.has(name) or f"isa-{name}" in drivers or (name == "serial" and line.has("virtioconsole")):
            continue
        kind = "stdio" if name == "serial" and not screen else "vc" if screen or name == "serial" else "null"
        if line.defaults or kind == "stdio":
            line.chardevs.setdefault(f"{name}0", {"type": kind})
            line.add(None, {"driver": f"isa-{name}", "index": 0, "chardev": f"{name}0"})
        else:
            line.skipped.append(what)
    if not screen and not line.monitors and not line.has("monitor"):
        line.chardevs.setdefault("compat_monitor0", {"type": "stdio"})
        line.monitors["compat_monitor0"] = {"chardev": "compat_monitor0", "mode": "readline"}


OPTIONS = (
    Opt("chardev", True, chardev, "a character device: chardevs"),
    Opt("serial", True, port, "a serial port: chardevs, devices"),
    Opt("parallel", True, port, "a parallel port: chardevs, devices"),
    Opt("monitor", True, monitor, "a monitor for people: chardevs, monitors"),
    Opt("qmp", True, monitor, "a monitor for programs: chardevs, monitors"),
    Opt("qmp-pretty", True, monitor, "a monitor for programs: chardevs, monitors"),
    Opt("mon", True, mon, "a monitor on a chardev: monitors"),
    Opt("debugcon", True, debugcon, "debug console at port 0xe9: chardevs, devices"),
    Opt("virtioconsole", True, virtioconsole, "a virtio console: chardevs, devices"),
    Opt("nographic", False, nographic, "serial port and monitor on the terminal"),
    Opt("echr", True, None, "the terminal's escape character"),
)
