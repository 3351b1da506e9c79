"""Character back ends: what there is, and changing it while the machine runs."""

from __future__ import annotations

from vmrun.config.qemuwords import of_chardev
from vmrun.errors import BackendError, BuildError
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, struct, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

struct("ChardevInfo", label="str", filename="str", frontend_open="bool")
struct("ChardevBackendInfo", name="str")
struct("ChardevReturn", pty_="str")
_LOG = {"logfile?": "str", "logappend?": "bool"}
struct("ChardevCommon", _LOG)
struct("ChardevFile", {"in?": "str", "out": "str", "append?": "bool", **_LOG})
struct("ChardevHostdev", {"device": "str", **_LOG})
struct(
    "ChardevSocket",
    {
        **{"addr": "SocketAddressLegacy", "tls-creds?": "str", "tls-authz?": "str", "server?": "bool"},
        **{"wait?": "bool", "nodelay?": "bool", "telnet?": "bool", "websocket?": "bool", "reconnect?": "int"},
        **_LOG,
    },
)
struct("ChardevUdp", {"remote": "SocketAddressLegacy", "local?": "SocketAddressLegacy", **_LOG})
struct("ChardevMux", {"chardev": "str", **_LOG})
struct("ChardevStdio", {"signal?": "bool", **_LOG})
struct("ChardevVC", {"width?": "int", "height?": "int", "cols?": "int", "rows?": "int", **_LOG})
struct("ChardevRingbuf", {"size?": "int", **_LOG})
struct(
    "InetSocketAddress",
    {"host": "str", "port": "str", "numeric?": "bool", "to?": "int", "ipv4?": "bool", "ipv6?": "bool"},
)
struct("UnixSocketAddress", {"path": "str", "abstract?": "bool", "tight?": "bool"})
struct("String", {"str": "str"})
wrapped(
    "SocketAddressLegacy",
    "SocketAddressType",
    {"inet": "InetSocketAddress", "unix": "UnixSocketAddress", "fd": "String"},
)
wrapped(
    "ChardevBackend",
    "ChardevBackendKind",
    {
        **{"file": "ChardevFile", "serial": "ChardevHostdev", "parallel": "ChardevHostdev", "pipe": "ChardevHostdev"},
        **{"socket": "ChardevSocket", "udp": "ChardevUdp", "pty": "ChardevCommon", "null": "ChardevCommon"},
        **{"mux": "ChardevMux", "stdio": "ChardevStdio", "vc": "ChardevVC", "ringbuf": "ChardevRingbuf"},
        **{"memory": "ChardevRingbuf"},
    },
)
enums["DataFormat"] = ("utf8", "base64")

# QAPI's kinds, and the ones of -chardev
KINDS = {
    "file": "file", "serial": "tty", "parallel": "parport", "pipe": "pipe", "socket": "socket", "udp": "udp",
    "pty": "pty", "null": "null", "mux": "mux", "stdio": "stdio", "vc": "vc", "ringbuf": "ringbuf",
    "memory": "ringbuf",
}  # fmt: skip
_RENAMED = {"out": "path", "in": "input-path", "device": "path"}


@command("query-chardev", returns="[ChardevInfo]")
def query_chardev(monitor: Any) -> list[dict[str, Any]]:
    """The character back ends."""
    return chardevs(monitor.machine)


@command("query-chardev-backends", returns="[ChardevBackendInfo]")
def query_chardev_backends(monitor: Any) -> list[dict[str, str]]:
    """The kinds that there are."""
    return [{"name": name} for name in KINDS]


def chardevs(machine: Any) -> list[dict[str, Any]]:
    """ChardevInfo of all, those of the monitors too, which open their sockets themselves."""
    rows = []
    for name, spec in machine.config["chardevs"].items():
        backend = machine.board.chardevs.get(name)
        rows.append({"label": name, "filename": _filename(spec, backend), "frontend-open": _is_open(machine, name)})
    return rows


def _is_open(machine: Any, name: str) -> bool:
    """Whether somebody on this side listens: a device, a monitor."""
    if name in machine.board.listened:
        return True
    return any(device.get_props().get("chardev") == name for device in machine.devices.values())


def _filename(spec: dict[str, Any], backend: Any) -> str:
    """As QEMU tells where the other end is."""
    kind = spec["type"]
    if kind == "pty":
        return f"pty:{getattr(backend, 'address', '')}"
    if kind == "socket":
        return getattr(backend, "filename", "") or _address(spec)
    return {"tty": "serial", "parport": "parallel"}.get(kind, str(kind))


def _address(spec: dict[str, Any]) -> str:
    where = f"unix:{spec['path']}" if "path" in spec else f"tcp:{spec.get('host') or ''}:{spec.get('port')}"
    if spec.get("fd") is not None:
        where = "unix:"
    return where + (",server=on" if spec.get("server") else "")


def spec_of(backend: dict[str, Any]) -> dict[str, Any]:
    """A ChardevBackend as a machine file's chardev. QmpError for what is wrong with it."""
    kind = backend["type"]
    spec: dict[str, Any] = {"type": KINDS[kind]}
    for key, value in backend["data"].items():
        if key in ("addr", "remote", "local"):
            spec |= _socket_address(value, key == "local", kind == "udp")
        else:
            spec[_RENAMED.get(key, key)] = value
    if kind == "socket":
        spec.setdefault("server", True)
        spec.setdefault("wait", False)
    if "tls-authz" in spec and "tls-creds" not in spec:
        raise QmpError("'tls-authz' option requires 'tls-creds' option")
    size = spec.get("size", 65536)
    if spec["type"] == "ringbuf" and (size <= 0 or size & (size - 1)):
        raise QmpError("size of ringbuf chardev must be power of two")
    return spec


def _socket_address(value: dict[str, Any], local: bool = False, datagrams: bool = False) -> dict[str, Any]:
    kind, data = value["type"], value["data"]
    if kind == "unix":
        return {"path": data["path"], **({"abstract": True} if data.get("abstract") else {})}
    if kind == "fd":
        return {"fdname": data["str"]}
    host, port = data["host"], data["port"]
    if not port.isdecimal() or int(port) > 0xFFFF:
        raise QmpError("Parameter 'port' expects a number from 0 to 65535")
    if data.get("numeric") and host and not _is_numeric(host):
        raise QmpError(f"address resolution failed for {host}:{port}: Name or service not known")
    names = ("localaddr", "localport") if local else ("host", "port")
    kinds = {key: data[key] for key in ("ipv4", "ipv6") if key in data}
    kinds |= {"to": data["to"]} if "to" in data and not datagrams else {}
    return {names[0]: host, names[1]: int(port), **kinds}


def _is_numeric(host: str) -> bool:
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _exists(machine: Any, id: str) -> None:
    if id not in machine.config["chardevs"]:
        raise QmpError(f"Chardev '{id}' not found")


def _open(monitor: Any, id: str, spec: dict[str, Any]) -> Any:
    """A back end that is not there yet, opened. QmpError with nothing changed."""
    from vmrun.monitor.commands.fds import take

    machine, spec = monitor.machine, dict(spec)
    if "fdname" in spec:
        spec["fd"] = take(monitor, spec.pop("fdname"))
    before = machine.config["chardevs"].get(id)
    machine.config["chardevs"][id] = spec
    machine.board.config["chardevs"][id] = spec
    kept = machine.board.chardevs.pop(id, None)
    try:
        return machine.board.chardev(id)
    except (BackendError, BuildError) as error:
        for table in (machine.config["chardevs"], machine.board.config["chardevs"]):
            if before is None:
                table.pop(id, None)
            else:
                table[id] = before
        if kept is not None:
            machine.board.chardevs[id] = kept
        raise QmpError(f"Failed to add chardev '{id}': {of_chardev(error.problems[0])}") from None
    finally:
        if "fd" in spec and before is not spec:
            import os

            try:
                os.close(spec["fd"])
            except OSError:
                pass


@command("chardev-add", {"id": "str", "backend": "ChardevBackend"}, "ChardevReturn")
def chardev_add(monitor: Any, id: str, backend: dict[str, Any]) -> dict[str, str]:
    """A new back end, for a device that is plugged in later."""
    if id in monitor.machine.config["chardevs"]:
        raise QmpError(f"Chardev with id '{id}' already exists")
    made = _open(monitor, id, spec_of(backend))
    return {"pty": made.address} if backend["type"] == "pty" else {}


@command("chardev-remove", {"id": "str"})
def chardev_remove(monitor: Any, id: str) -> None:
    """Close a back end that nobody uses."""
    machine = monitor.machine
    _exists(machine, id)
    if _is_open(machine, id):
        raise QmpError(f"Chardev '{id}' is busy")
    backend = machine.board.chardevs.pop(id, None)
    if backend is not None:
        backend.close()
    for table in (machine.config["chardevs"], machine.board.config["chardevs"]):
        table.pop(id, None)


@command("chardev-change", {"id": "str", "backend": "ChardevBackend"}, "ChardevReturn")
def chardev_change(monitor: Any, id: str, backend: dict[str, Any]) -> dict[str, str]:
    """Another back end in the place of one: its device goes on with the new one."""
    machine = monitor.machine
    _exists(machine, id)
    old = machine.board.chardevs.get(id)
    chips = [device.chip for device in machine.devices.values() if device.get_props().get("chardev") == id]
    monitors = id in machine.board.shared or id in machine.board.listened
    if old is None or monitors or not all(hasattr(chip, "rewire") for chip in chips):
        raise QmpError("Chardev user does not support chardev hotswap")
    made = _open(monitor, id, spec_of(backend))
    with machine.board.lock:
        for chip in chips:
            chip.rewire(made)
    old.close()
    return {"pty": made.address} if backend["type"] == "pty" else {}


@command("chardev-send-break", {"id": "str"})
def chardev_send_break(monitor: Any, id: str) -> None:
    """A break on the line, as from the other end."""
    machine = monitor.machine
    _exists(machine, id)
    backend = machine.board.chardevs.get(id)
    if backend is not None and hasattr(backend, "send_break"):
        with machine.board.lock:
            backend.send_break()


def _ring(machine: Any, device: str) -> Any:
    from vmrun.backends.chardev.base import RingChar
    from vmrun.backends.chardev.ring import LoggedRing

    if device not in machine.config["chardevs"]:
        raise QmpError(f"Device '{device}' not found")
    backend = machine.board.chardevs.get(device)
    if not isinstance(backend, RingChar | LoggedRing):
        raise QmpError(f"{device} is not a ringbuf device")
    return backend


@command("ringbuf-write", {"device": "str", "data": "str", "format?": "DataFormat"})
def ringbuf_write(monitor: Any, device: str, data: str, format: str = "utf8") -> None:
    """Put bytes behind those that the buffer holds, as if the guest had written them."""
    ring = _ring(monitor.machine, device)
    if format == "base64":
        import binascii

        try:
            raw = binascii.a2b_base64(data, strict_mode=True)
        except binascii.Error:
            raise QmpError("base64 data is invalid") from None
    else:
        raw = data.encode()
    with monitor.machine.board.lock:
        ring.write(raw)


@command("ringbuf-read", {"device": "str", "size": "int", "format?": "DataFormat"}, "str")
def ringbuf_read(monitor: Any, device: str, size: int, format: str = "utf8") -> str:
    """Take bytes out of the buffer, the oldest first."""
    ring = _ring(monitor.machine, device)
    if size <= 0:
        raise QmpError("size must be greater than zero")
    with monitor.machine.board.lock:
        raw: bytes = ring.take(min(size, 1 << 30))
    if format == "base64":
        import binascii

        return binascii.b2a_base64(raw, newline=False).decode()
    return raw.decode("utf-8", "replace")

