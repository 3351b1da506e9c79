"""Options about characters: chardevs, serial and parallel ports, monitors, debug console."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import Option, boolean, number, settings, size
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
_NUMBERS = ("reconnect", "fd", "debug", "cols", "rows", "width", "height", "to")
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
_DEFAULT_VC = {"type": "vc", "cols": 80, "rows": 24}
_PORTS = {"tty": "serial", "parport": "parallel"}  # of the host
SERIAL_PORTS, PARALLEL_PORTS = 4, 3  # that a PC has


def chardev(line: Line, option: Option) -> None:
    given = settings(option, "backend", flags=_FLAGS)
    kind, id = str(given.pop("backend", "")), str(given.pop("id", ""))
    if not id:
        raise option.wrong("Parameter 'id' is missing")
    if kind == "mux":
        below = str(given.get("chardev", ""))
        if not below:
            raise option.wrong("chardev: mux: no chardev given")
        if below not in line.chardevs:
            raise option.wrong(f"mux: base chardev {below} not found", below)
        line.chardevs[below]["mux"] = True
        line.muxes[id] = below
        return
    if kind not in _TYPES:
        raise option.wrong(f"'{kind}' is not a valid char driver name", kind)
    line.put(option, "chardevs", id, spec(line, option, kind, given))


def spec(line: Line, option: Option, kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """A chardev as a machine file has it."""
    result: dict[str, Any] = {"type": {"serial": "tty", "parallel": "parport"}.get(kind, kind)}
    for key, value in given.items():
        if key == "delay":
            result["nodelay"] = not boolean(option, key, value)
        elif key == "to" and kind != "socket" or key in ("ipv4", "ipv6") and kind not in ("socket", "udp"):
            line.no_equal(option, key)
        elif key == "signal" and kind != "stdio":
            if not boolean(option, key, value):
                line.no_equal(option, key)
        elif key == "mux" and kind in ("parallel", "parport"):
            if boolean(option, key, value):
                line.no_equal(option, key)
        elif kind == "udp" and (key, value) in (("localaddr", ""), ("localport", "0")):
            continue  # any
        elif key in _FLAGS:
            result[key] = boolean(option, key, value)
        elif key == "size":
            result[key] = size(option, key, value)
            if kind in ("ringbuf", "memory") and result[key] & (result[key] - 1):
                raise option.wrong("size of ringbuf chardev must be power of two", key)
        elif key in _NUMBERS or key in ("port", "localport") and str(value).isdecimal():
            result[key] = number(option, key, value)
        elif key in _TEXT:
            result[key] = str(value)
        else:
            raise option.wrong(f"Invalid parameter '{key}'", key)
    if "tls-authz" in result and "tls-creds" not in result:
        raise option.wrong("'tls_authz' option requires 'tls_creds' option", "tls-authz")
    if kind == "socket" and not {"path", "port", "fd"} & set(result):
        raise option.wrong("chardev: socket: no host, path or fd given")
    if kind in ("file", "pipe") and "path" not in result:
        raise option.wrong(f"chardev: {kind}: no filename given")
    if result["type"] in _PORTS and "path" not in result:
        raise option.wrong(f"chardev: {_PORTS[result['type']]}: no device path given")
    if kind in ("spicevmc", "spiceport") and not result.get("name"):
        raise option.wrong(f"chardev: spice {'channel' if kind == 'spicevmc' else 'port'}: no name given")
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
            given["path"] = where.removeprefix("path=")
        elif kind == "udp":
            return line.put(option, "chardevs", id, {"type": "udp", **_udp(option, rest)})
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
    elif kind == "vc":
        found = {"type": "vc", **_size(option, rest)}
    elif head in ("stdio", "null", "pty", "msmouse", "braille"):
        found = {"type": head}
    elif text.startswith("/dev/parport"):
        found = {"type": "parport", "path": text}
    elif text.startswith("/dev/"):
        found = {"type": "tty", "path": text}
    else:
        raise option.wrong(f"'{text}' is not a valid char driver", text)
    return line.put(option, "chardevs", id, found)


def _size(option: Option, text: str) -> dict[str, Any]:
    """vc's WIDTHxHEIGHT in pixels, or COLUMNSCxROWSC in characters; '' for neither."""
    if not text:
        return {}
    found: dict[str, Any] = {}
    for part, names in zip(text.split("x", 1), (("width", "cols"), ("height", "rows")), strict=False):
        digits = part.removesuffix("C")
        if not digits.isdecimal():
            break
        found[names[part != digits]] = int(digits)
    if len(found) != 2:
        raise option.wrong(f"'{option.value}' is not a valid char driver", text)
    return found


def _udp(option: Option, text: str) -> dict[str, Any]:
    """[HOST]:PORT[@[ADDRESS]:[PORT]]"""
    where, _, local = text.partition("@")
    found: dict[str, Any] = {}
    for part, host, port in ((where, "host", "port"), (local, "localaddr", "localport")):
        if part:
            name, colon, number = part.rpartition(":")
            if not colon or not (number.isdecimal() or (part is local and not number)):
                raise option.wrong("address must be HOST:PORT", part)
            found |= ({host: name} if name else {}) | ({port: int(number)} if number else {})
    return found


def port(line: Line, option: Option) -> None:
    """-serial and -parallel: numbered by their order. `mon:` puts a monitor on the same chardev."""
    index = line.given[option.name].index(option)
    if option.name == "parallel" and index >= PARALLEL_PORTS:
        raise option.wrong("too many parallel ports")
    id = legacy(line, option, f"{option.name}{index}")
    if option.name == "serial" and index >= SERIAL_PORTS:
        line.warn(option, f"a PC has {SERIAL_PORTS} serial ports; this one is nobody's")
    elif id:
        line.add(option, {"driver": f"isa-{option.name}", "index": index, "chardev": id})
    if str(option.value).startswith("mon:") and id:
        line.chardevs[id]["mux"] = True
        line.monitors[fresh(line)] = {"chardev": id, "mode": "readline"}


def fresh(line: Line) -> str:
    """A name for a monitor that was given none."""
    number = 0
    while f"compat_monitor{number}" in line.monitors or f"compat_monitor{number}" in line.chardevs:
        number += 1
    return f"compat_monitor{number}"


def monitor(line: Line, option: Option) -> None:
    name = fresh(line)
    id = legacy(line, option, name)
    if id:
        line.monitors[name] = {"chardev": id, "mode": "readline" if option.name == "monitor" else "control"}
        if option.name == "qmp-pretty":
            line.run.setdefault("pretty", []).append(name)


def qtest(line: Line, option: Option) -> None:
    """A chardev of the process: no machine file has the protocol."""
    id = legacy(line, option, "qtest")
    line.run["qtest"] = (id, line.chardevs[id] if not str(option.value).startswith("chardev:") else None)
    if not str(option.value).startswith("chardev:"):
        del line.chardevs[id]


def gdb(line: Line, option: Option) -> None:
    """-gdb DEV: a monitor that speaks gdb's protocol. A socket is a server that nobody waits for."""
    if option.value == "none":
        return
    id = legacy(line, option, "gdb")
    if id:
        spec = line.chardevs[id]
        if spec["type"] == "socket":
            spec |= {"server": True, "wait": False}
        line.monitors["gdb"] = {"chardev": id, "mode": "gdb"}


def gdb_port(line: Line, option: Option) -> None:
    line.chardevs["gdb"] = {"type": "socket", "host": "0.0.0.0", "port": 1234, "server": True, "wait": False}
    line.monitors["gdb"] = {"chardev": "gdb", "mode": "gdb"}


def mon(line: Line, option: Option) -> None:
    given = settings(option, "chardev")
    for key in given:
        if key not in ("chardev", "mode", "id", "pretty", "default") or (key == "default" and not line.old):
            raise option.wrong(f"Invalid parameter '{key}'", key)
    mode = given.get("mode", "readline")
    if mode not in ("readline", "control"):
        raise option.wrong(f"Parameter 'mode' does not accept value '{mode}'", mode)
    if "chardev" not in given:
        raise option.wrong("Parameter 'chardev' is missing")
    id = given.get("id") or f"monitor{len(line.monitors)}"
    line.put(option, "monitors", id, {"chardev": given["chardev"], "mode": mode})
    if "pretty" in given and boolean(option, "pretty", given["pretty"]):
        line.run.setdefault("pretty", []).append(id)


def debugcon(line: Line, option: Option) -> None:
    id = legacy(line, option, "debugcon")
    if id:
        line.add(option, {"driver": "isa-debugcon", "chardev": id})


def virtioconsole(line: Line, option: Option) -> None:
    index = line.given[option.name].index(option)
    id = legacy(line, option, f"virtcon{index}")
    if "virtio-serial-pci" not in line.drivers():
        line.add(option, {"driver": "virtio-serial-pci"})
    if id:
        line.add(option, {"driver": "virtconsole", "chardev": id})


def nographic(line: Line, option: Option) -> None:
    line.run["nographic"] = True
    line.file.setdefault("firmware", {})["nographic"] = True
    if line.old:
        line.add(option, {"driver": "sga"})


def echr(line: Line, option: Option) -> None:
    line.run["echr"] = number(option, "echr", option.value) & 0xFF


def finish(line: Line) -> None:
    """The serial and parallel port and the monitor that QEMU has unless told otherwise."""
    for user in (*line.devices, *line.monitors.values()):
        if user.get("chardev") in line.muxes:
            user["chardev"] = line.muxes[str(user["chardev"])]
    if line.has("nodefaults"):
        return
    drivers, screen = line.spoken_for(), not line.run.get("nographic")
    for name, what in (("serial", "a serial port"), ("parallel", "a parallel port")):
        if line.has(name) or f"isa-{name}" in drivers or (name == "serial" and line.has("virtioconsole")):
            continue
        kind = "stdio" if name == "serial" and not screen else "vc" if screen or name == "serial" else "null"
        if line.defaults or kind == "stdio":
            line.chardevs.setdefault(f"{name}0", dict(_DEFAULT_VC) if kind == "vc" else {"type": kind})
            line.add(None, {"driver": f"isa-{name}", "index": 0, "chardev": f"{name}0"})
        else:
            line.skipped.append(what)
    if not screen and not line.has("monitor") and not any(m["mode"] == "readline" for m in line.monitors.values()):
        # beside the serial port, which is on the terminal too
        shared = line.chardevs.get("serial0") if not line.has("serial") else None
        if shared is not None and shared["type"] == "stdio" and "isa-serial" in line.drivers():
            shared["mux"] = True
            line.monitors[fresh(line)] = {"chardev": "serial0", "mode": "readline"}
        else:
            name = fresh(line)
            line.chardevs[name] = {"type": "stdio"}
            line.monitors[name] = {"chardev": name, "mode": "readline"}
    elif line.defaults and not any(map(line.has, ("monitor", "mon", "qmp", "qmp-pretty"))):
        name = fresh(line)
        line.chardevs[name] = dict(_DEFAULT_VC)
        line.monitors[name] = {"chardev": name, "mode": "readline"}


OPTIONS = (
    Opt("chardev", True, chardev, "a character device: chardevs"),
    Opt("serial", True, port, "a serial port: chardevs, devices"),
    Opt("parallel", True, port, "a parallel port: chardevs, devices"),
    Opt("monitor", True, monitor, "a monitor for people: chardevs, monitors"),
    Opt("qmp", True, monitor, "a monitor for programs: chardevs, monitors"),
    Opt("qmp-pretty", True, monitor, "a monitor for programs: chardevs, monitors"),
    Opt("mon", True, mon, "a monitor on a chardev: monitors"),
    Opt("gdb", True, gdb, "a debugger's port: gdb"),
    Opt("s", False, gdb_port, "a debugger's port: gdb"),
    Opt("qtest", True, qtest, "the qtest protocol on a chardev"),
    Opt("debugcon", True, debugcon, "debug console at port 0xe9: chardevs, devices"),
    Opt("virtioconsole", True, virtioconsole, "a virtio console: chardevs, devices"),
    Opt("nographic", False, nographic, "serial port and monitor on the terminal"),
    Opt("echr", True, echr, "the terminal's escape character"),
)
