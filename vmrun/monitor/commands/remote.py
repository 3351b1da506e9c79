"""The user's hands and remote viewers: keys, pointer, VNC."""

from __future__ import annotations

from vmrun.config import keymaps
from vmrun.core.input import AXIS_END, BUTTONS
from vmrun.core.keys import QCODES, SCANCODES, Typist
from vmrun.errors import VmrunError
from vmrun.machine import keyboards
from vmrun.monitor.commands.screen import console_of
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, event, struct, union, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_KEYS = 1024  # that may wait to be typed
HOLD_TIME = 100  # ms, QEMU's
FAR = 1 << 20

enums["NetworkAddressFamily"] = ("ipv4", "ipv6", "unix", "vsock", "unknown")
enums["VncPrimaryAuth"] = ("none", "vnc", "ra2", "ra2ne", "tight", "ultra", "tls", "vencrypt", "sasl")
enums["DisplayProtocol"] = ("vnc", "spice")
enums["SetPasswordAction"] = ("keep", "fail", "disconnect")
enums["QKeyCode"] = tuple(sorted(QCODES))
wrapped("KeyValue", "KeyValueKind", {"number": "int", "qcode": "QKeyCode"})
enums["InputButton"] = (
    "left", "middle", "right", "wheel-up", "wheel-down", "side", "extra", "wheel-left", "wheel-right",
)  # fmt: skip
enums["InputAxis"] = ("x", "y")
struct("InputKeyEvent", key="KeyValue", down="bool")
struct("InputBtnEvent", button="InputButton", down="bool")
struct("InputMoveEvent", axis="InputAxis", value="int")
wrapped(
    "InputEvent",
    "InputEventKind",
    {"key": "InputKeyEvent", "btn": "InputBtnEvent", "rel": "InputMoveEvent", "abs": "InputMoveEvent"},
)
struct("MouseInfo", name="str", index="int", current="bool", absolute="bool")
struct("X-Page", url="str")
_ADDRESS = {"host": "str", "service": "str", "family": "NetworkAddressFamily", "websocket": "bool"}
struct("VncClientInfo", {**_ADDRESS, "x509_dname?": "str", "sasl_username?": "str"})
struct("VncServerInfo", {**_ADDRESS, "auth?": "str"})
enums["VncVencryptSubAuth"] = (
    "plain", "tls-none", "x509-none", "tls-vnc", "x509-vnc", "tls-plain", "x509-plain", "tls-sasl", "x509-sasl",
)  # fmt: skip
struct("VncServerInfo2", {**_ADDRESS, "auth": "VncPrimaryAuth", "vencrypt?": "VncVencryptSubAuth"})
struct(
    "VncInfo",
    enabled="bool",
    host_="str",
    family_="NetworkAddressFamily",
    service_="str",
    auth_="str",
    clients_="[VncClientInfo]",
)
struct(
    "VncInfo2",
    id="str",
    server="[VncServerInfo2]",
    clients="[VncClientInfo]",
    auth="VncPrimaryAuth",
    vencrypt_="VncVencryptSubAuth",
    display_="str",
)
enums["DisplayUpdateType"] = ("vnc",)
struct("DisplayUpdateOptionsVNC", {"addresses?": "[SocketAddress]"})
struct("SetPasswordOptionsVnc", {"display?": "str"})
union(
    "SetPasswordOptions",
    "protocol",
    {"protocol": "DisplayProtocol", "password": "str", "connected?": "SetPasswordAction"},
    {"vnc": "SetPasswordOptionsVnc"},
)
struct("ExpirePasswordOptionsVnc", {"display?": "str"})
union(
    "ExpirePasswordOptions",
    "protocol",
    {"protocol": "DisplayProtocol", "time": "str"},
    {"vnc": "ExpirePasswordOptionsVnc"},
)
union("DisplayUpdateOptions", "type", {"type": "DisplayUpdateType"}, {"vnc": "DisplayUpdateOptionsVNC"})
_PEERS = {"server": "VncServerInfo", "client": "VncClientInfo"}
event("VNC_CONNECTED", "A viewer connected.", _PEERS)
event("VNC_INITIALIZED", "A viewer got in.", _PEERS)
event("VNC_DISCONNECTED", "A viewer left.", _PEERS)


def qcode_of(value: dict[str, Any]) -> str:
    """The key that a KeyValue names. QmpError for one that no keyboard here has."""
    data = value["data"]
    if value["type"] == "qcode":
        if not isinstance(data, str) or data not in QCODES:
            raise QmpError(f"Parameter 'data' does not accept value '{data}'")
        return data
    found = SCANCODES.get(data & 0xFF) if isinstance(data, int) and not isinstance(data, bool) else None
    if found is None:
        raise QmpError(f"Parameter 'data' does not accept value '{data}'")
    return found


@command("send-key", {"keys": "[KeyValue]", "hold-time?": "int"})
def send_key(monitor: Any, keys: list[dict[str, Any]], hold_time: int = HOLD_TIME) -> None:
    """Press keys one after the other, hold them together for `hold-time` ms, let go of them."""
    names = [qcode_of(key) for key in keys]
    if not 0 <= hold_time <= 60_000:
        raise QmpError("Parameter 'hold-time' expects a number of milliseconds from 0 to 60000")
    if names:
        type_chords(monitor.machine, [names], hold_time / 1000)


def type_chords(machine: Any, chords: list[list[str]], hold: float = 0.0) -> None:
    """Behind what is being typed already."""
    board = machine.board
    waiting = board.typing
    if len(waiting) + len(chords) > MOST_KEYS:
        raise QmpError("too many keys wait to be typed")
    waiting += [(chord, hold) for chord in chords]
    if len(waiting) == len(chords):
        _type_next(board)


def _type_next(board: Any) -> None:
    def done(error: str) -> None:
        if error:
            board.typing.clear()
        else:
            board.typing.pop(0)
        _type_next(board)

    if board.typing:
        chord, hold = board.typing[0]
        Typist(board.input, board.loop, [chord], done, hold)


@command("x-type-text", {"text": "str", "layout?": "str"}, "int")
def type_text(monitor: Any, text: str, layout: str = "") -> int:
    """Type text as fast as the guest reads it; how many characters there was room for. vmrun's own."""
    try:
        keyboard = keyboards.load(layout) if layout else monitor.machine.board.layout
    except KeyError:
        raise QmpError(f"no keyboard layout is called '{layout}': {', '.join(keymaps.names())}") from None
    found = [keyboard.chords(character) for character in text]
    wrong = [character for character, chords in zip(text, found, strict=True) if not chords]
    if wrong:
        raise QmpError(f"a keyboard of the layout {keyboard.name} has no key for {wrong[0]!r}")
    room, taken = MOST_KEYS - len(monitor.machine.board.typing), 0
    typed: list[list[str]] = []
    for chords in found:
        if len(typed) + len(chords) > room:
            break
        typed += chords
        taken += 1
    if typed:
        type_chords(monitor.machine, typed)
    return taken


@command("input-send-event", {"device?": "str", "head?": "int", "events": "[InputEvent]"})
def input_send_event(monitor: Any, events: list[dict[str, Any]], device: str = "", head: int = 0) -> None:
    """Keys, buttons, movement and positions that belong together; `device` has to have a screen."""
    if device:
        console_of(monitor.machine, device, head)
    if monitor.machine.state not in ("running", "suspended"):
        raise QmpError("VM not running")
    hands = monitor.machine.board.input
    steps = [_step(hands, entry["type"], entry["data"]) for entry in events]
    for call, values in steps:
        call(*values)
    hands.sync()


def _step(hands: Any, kind: str, data: Any) -> tuple[Any, tuple[Any, ...]]:
    """What one InputEvent does; checked before any of them is done."""
    if not isinstance(data, dict):
        raise QmpError("Invalid parameter type for 'data', expected: object")
    if kind == "key":
        key = data.get("key")
        if not isinstance(key, dict) or set(key) != {"type", "data"}:
            raise QmpError("Parameter 'key' is missing")
        return hands.key, (qcode_of(key), _down(data))
    if kind == "btn":
        button = data.get("button")
        if button not in BUTTONS:
            raise QmpError(f"Parameter 'button' does not accept value '{button}'")
        return hands.button, (button, _down(data))
    axis, value = data.get("axis"), data.get("value")
    if axis not in ("x", "y"):
        raise QmpError(f"Parameter 'axis' does not accept value '{axis}'")
    if not isinstance(value, int) or isinstance(value, bool):
        raise QmpError("Invalid parameter type for 'value', expected: integer")
    if kind == "rel":
        value = min(max(value, -FAR), FAR)
        return hands.move, ((value, 0) if axis == "x" else (0, value))
    value = min(max(value, 0), AXIS_END)
    return hands.place, (axis, value)


def _down(data: dict[str, Any]) -> bool:
    down = data.get("down")
    if not isinstance(down, bool):
        raise QmpError("Invalid parameter type for 'down', expected: boolean")
    return down


@command("query-mice", returns="[MouseInfo]")
def query_mice(monitor: Any) -> list[dict[str, Any]]:
    """The pointing devices; the current one gets what the user does."""
    found = []
    pointers = [sink for sink in monitor.machine.board.input.sinks if sink.kinds & {"rel", "abs"}]
    for index, sink in enumerate(pointers):
        found.append({"name": sink.title, "index": index, "current": index == 0, "absolute": "abs" in sink.kinds})
    return found


# --- VNC ----------------------------------------------------------------------------------------------------------


def _servers(monitor: Any) -> list[Any]:
    """All that run, in their order."""
    viewers = monitor.machine.board.viewers
    return [viewers[name] for name in viewers if name.startswith("vnc:")]


def _server(monitor: Any, what: str, name: str) -> Any:
    """The server called `name`, or the first one."""
    found = [server for server in _servers(monitor) if not name or server.id == name]
    if not found:
        raise QmpError(f"Could not set {what}", kind="GenericError")
    return found[0]


@command("query-vnc", returns="VncInfo")
def query_vnc(monitor: Any) -> dict[str, Any]:
    """The first VNC server and its viewers."""
    for server in _servers(monitor):
        found: dict[str, Any] = server.info()
        return found
    return {"enabled": False}


@command("query-vnc-servers", returns="[VncInfo2]")
def query_vnc_servers(monitor: Any) -> list[dict[str, Any]]:
    """Each VNC server."""
    return [server.info2() for server in _servers(monitor)]


@command("x-open-page", returns="X-Page")
def open_page(monitor: Any) -> dict[str, str]:
    """A page for a browser on this host that shows the screen, once, to whom knows its address. vmrun's own."""
    board = monitor.machine.board
    if board.open_page is None:
        raise QmpError("nobody serves pages here")
    try:
        return {"url": board.open_page()}
    except VmrunError as error:
        problem = error.problems[0]
        raise QmpError(f"{problem.message}: {problem.remedy}" if problem.remedy else problem.message) from None


@command("change-vnc-password", {"password": "str"})
def change_vnc_password(monitor: Any, password: str) -> None:
    """The password that viewers must know; an empty one lets nobody in."""
    _change_password(monitor, password, "")


@command(
    "set_password",
    {"protocol": "DisplayProtocol", "password": "str", "connected?": "SetPasswordAction", "display?": "str"},
    shape="SetPasswordOptions",
)
def set_password(monitor: Any, protocol: str, password: str, connected: str = "keep", display: str = "") -> None:
    """The password of a remote display: `display` is the id of a VNC server, else it is the first one."""
    if protocol != "vnc":
        raise QmpError("SPICE is not in use", kind="DeviceNotActive")
    if connected not in ("keep",):
        raise QmpError("Invalid parameter 'connected'")
    _change_password(monitor, password, display)


@command(
    "display-update",
    {"type": "DisplayUpdateType", "addresses?": "[SocketAddress]"},
    shape="DisplayUpdateOptions",
)
def display_update(monitor: Any, type: str, addresses: list[dict[str, Any]] | None = None) -> None:
    """Let viewers come to other addresses than before; who is connected stays."""
    from vmrun.errors import BackendError

    servers = _servers(monitor)
    if not servers:
        raise QmpError("Can not find vnc display")
    server = servers[0]
    wanted: list[tuple[str, int]] = []
    for address in addresses or ():
        if address["type"] == "unix":
            wanted.append((f"unix:{address['path']}", 0))
        elif address["type"] == "inet" and address["port"].isascii() and address["port"].isdecimal():
            wanted.append((address["host"], int(address["port"])))
        else:
            raise QmpError("VNC listens at a host and the number of a port, or at the path of a unix socket")
    if wanted:
        try:
            server.move(wanted)
        except BackendError as error:
            raise QmpError(error.problems[0].message) from None


def _change_password(monitor: Any, password: str, name: str) -> None:
    """Of a server that asks for one; whether it does is said when it is set up."""
    server = _server(monitor, "password", name)
    if not server.needs_password:
        raise QmpError("Could not set password")
    server.set_password(password)


@command(
    "expire_password",
    {"protocol": "DisplayProtocol", "time": "str", "display?": "str"},
    shape="ExpirePasswordOptions",
)
def expire_password(monitor: Any, protocol: str, time: str, display: str = "") -> None:
    """Until when the password holds: `now`, `never`, +SECONDS, or seconds since 1970."""
    from time import time as clock

    if protocol != "vnc":
        raise QmpError("SPICE is not in use", kind="DeviceNotActive")
    server = _server(monitor, "password expire time", display)
    text = time.strip()
    digits = text.removeprefix("+")
    if text == "now":
        server.expires = 0.0
    elif text == "never":
        server.expires = None
    elif digits.isascii() and digits.isdigit() and len(digits) < 16:
        server.expires = float(digits) + (clock() if text.startswith("+") else 0.0)
    else:
        raise QmpError(f"Parameter 'time' doesn't take value '{time}'")
