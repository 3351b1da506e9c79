"""A person's commands: a table of names, parameters, help and handlers. Output is text with CR LF, as QEMU's.

A handler gets the machine, its words, and the processor that is looked at.
"""

from __future__ import annotations

from accel.api import Action

from vmrun.monitor import hmp_block, hmp_look, hmp_machine, hmp_more, info, preconfig
from vmrun.monitor.errors import QmpError
from vmrun.monitor.expression import ExpressionError, signed
from vmrun.monitor.hmp_line import Asker, Line, ask, words_of
from vmrun.monitor.hmp_look import Format, number
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Handler = Callable[[Any, list[str], int], str | Work]


def _qmp(name: str, *params: str) -> Handler:
    """A handler that is a QMP command with its words as arguments; `key=value` words of device_add come along."""

    def handler(machine: Any, words: list[str], cpu: int) -> str:
        from vmrun.monitor import table

        command = table.load()[name]
        command.handler(Asker(machine), **command.arguments(dict(zip(params, words, strict=False))))
        return ""

    return handler


def _device_add(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.monitor import table

    driver, *rest = words[0].split(",")
    given = {"driver": driver.removeprefix("driver=")}
    for part in rest:
        key, _, value = part.partition("=")
        given[key] = value
    if "help" in given:
        from vmrun.monitor import qom

        return qom.help_of(given["driver"])
    command = table.load()["device_add"]
    command.handler(Asker(machine), **command.arguments(given))
    return ""


def _read_port(machine: Any, words: list[str], cpu: int) -> str:
    what = Format(machine, words)
    size, words = min(what.size if what.size > 0 else 1, 4), what.words
    if not words:
        raise QmpError("i: parameter 'addr' expected")
    port, _, index = words[0].partition(".")
    base, register = number(machine, cpu, port), number(machine, cpu, index) if index else 0
    with machine.board.lock:
        if index:
            machine.board.io.write(base & 0xFFFF, 1, register & 0xFF)
        where = (base + (1 if index else 0)) & 0xFFFF
        value = machine.board.io.read(where, size)
    return f"port{'bwl'[size.bit_length() - 1]}[0x{where:04x}] = 0x{value:0{2 * size}x}\n"


def _write_port(machine: Any, words: list[str], cpu: int) -> str:
    what = Format(machine, words)
    size, words = min(what.size if what.size > 0 else 1, 4), what.words
    if len(words) < 2:
        raise QmpError("o: parameters 'addr' and 'val' expected")
    port, value = (number(machine, cpu, word) for word in words[:2])
    with machine.board.lock:
        action = machine.board.io.write(port & 0xFFFF, size, value & ((1 << 8 * size) - 1))
    if action:
        machine.board.control.ask(action)
    return ""


def _save_memory(machine: Any, words: list[str], cpu: int) -> Work:
    from vmrun.monitor.commands.memory import save

    start, size = (number(machine, cpu, word) for word in words[:2])
    return save(machine, start, size, words[2]).map(lambda nothing: "")


def _screendump(machine: Any, words: list[str], cpu: int) -> Work:
    from vmrun.monitor import table

    names = [word for word in words if word != "-f"]
    given = dict(zip(("filename", "format"), names, strict=False))
    command = table.load()["screendump"]
    work: Work = command.handler(Asker(machine), **command.arguments(given))
    return work.map(lambda nothing: "")


def _info(machine: Any, words: list[str], cpu: int) -> str:
    if not words:
        shown = [name for name in sorted(info.VIEWS) if machine.whole or name in preconfig.VIEWS]
        return "".join(f"info {name:<15} -- {info.VIEWS[name][1]}\n" for name in shown)
    view = info.VIEWS.get(words[0])
    if view is None:
        raise QmpError(f"unknown command: 'info {words[0]}'")
    preconfig.check_line(machine, f"info {words[0]}")
    return view[0](machine, words[1:], cpu)


def _help(machine: Any, words: list[str], cpu: int) -> str:
    if words and words[0] == "info":
        return _info(machine, words[1:2] and [], cpu)
    lines = [line for line in LINES if not words or words[0] in line.names]
    lines = [line for line in lines if machine.whole or line.names[0] in preconfig.LINES]
    if not lines:
        raise QmpError(f"unknown command: '{words[0]}'")
    return "".join(
        f"{'|'.join(line.names)} {line.params} -- {line.help}\n" for line in lines
    )


def _qom_list(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.monitor.qom import Tree

    if not words:
        return "/\n"
    return "".join(f"{row['name']} ({row['type']})\n" for row in Tree(machine).properties(words[0]))


def _qom_get(machine: Any, words: list[str], cpu: int) -> str:
    import json

    from vmrun.monitor.qom import Tree

    return json.dumps(Tree(machine).get(words[0], words[1])) + "\n"


def _exit_preconfig(machine: Any, words: list[str], cpu: int) -> Work:
    work: Work = ask(machine, "x-exit-preconfig")
    return work.map(lambda nothing: "")


def _reset(machine: Any, words: list[str], cpu: int) -> str:
    machine.ask(Action.RESET, "host-qmp-system-reset")
    return ""


def _sendkey(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.monitor.commands.remote import HOLD_TIME, qcode_of, type_chords

    if len(words) > 1 and not words[1].isascii() or len(words) > 1 and not words[1].isdigit():
        raise QmpError(f"invalid hold time '{words[1]}'")
    chord: list[str] = []
    if len(words[0]) == 1 and not words[0].isalnum() or not words[0].isascii():
        # QEMU has no such key: a character of the layout
        strokes = machine.board.layout.chords(words[0])
        if strokes:
            hold = (int(words[1]) if len(words) > 1 else HOLD_TIME) / 1000
            type_chords(machine, strokes, hold)
            return ""
    for name in words[0].replace("--", "-minus").split("-"):
        name = "less" if name == "<" else name  # as QEMU has it
        try:
            number = int(name, 16) if name[:2] == "0x" and len(name) < 6 else None
            value = {"type": "qcode", "data": name} if number is None else {"type": "number", "data": number}
            chord.append(qcode_of(value))
        except (QmpError, ValueError):
            return f"invalid parameter: {name}\n"
    type_chords(machine, [chord], (int(words[1]) if len(words) > 1 else HOLD_TIME) / 1000)
    return ""


def _mouse_move(machine: Any, words: list[str], cpu: int) -> str:
    dx, dy, dz = (signed(number(machine, cpu, word)) for word in (*words[:3], *("0",) * (3 - len(words))))
    hands = machine.board.input
    far = 1 << 20
    hands.move(*(min(max(step, -far), far) for step in (dx, dy)))
    if dz:
        name = "wheel-up" if dz > 0 else "wheel-down"
        hands.button(name, True)
        hands.button(name, False)
    hands.sync()
    return ""


def _mouse_button(machine: Any, words: list[str], cpu: int) -> str:
    state, hands = number(machine, cpu, words[0]), machine.board.input
    for bit, name in ((1, "left"), (2, "middle"), (4, "right")):
        if bool(state & bit) != (name in hands.buttons):
            hands.button(name, bool(state & bit))
    hands.sync()
    return ""


def _change(machine: Any, words: list[str], cpu: int) -> str:
    if words[:1] == ["vnc"]:
        from vmrun.monitor.commands.remote import change_vnc_password

        if words[1] not in ("password", "passwd") or len(words) < 3:
            raise QmpError("say the password: change vnc password PASSWORD")
        change_vnc_password(Asker(machine), words[2])
        return ""
    from vmrun.monitor.commands.media import change_medium

    change_medium(Asker(machine), words[1], device=_named(machine, words[0]), format=(words[2:3] or ["raw"])[0])
    return ""


def _eject(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.monitor.commands.media import eject

    names = [word for word in words if word != "-f"]
    if len(names) != 1:
        raise QmpError("eject [-f] device expected")
    eject(Asker(machine), device=_named(machine, names[0]), force="-f" in words)
    return ""


def _named(machine: Any, name: str) -> str:
    """The line monitor takes a device's id too."""
    device = machine.devices.get(name)
    return str(getattr(device, "drive", None) or name)


def _set_link(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.monitor.commands.network import set_link

    if words[1] not in ("on", "off"):
        raise QmpError("Parameter 'up' expects 'on' or 'off'")
    set_link(Asker(machine), words[0], words[1] == "on")
    return ""


def _netdev_add(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.config.importers.line import parse_command_line
    from vmrun.config.importers.qemuopts import LineError
    from vmrun.errors import BuildError
    from vmrun.machine import network

    try:
        netdevs = parse_command_line(["-netdev", words[0]], defaults=False).document["netdevs"]
        for id, spec in netdevs.items():
            network.add(machine, id, spec)
    except (LineError, BuildError) as error:
        raise QmpError(error.problems[0].message) from None
    return ""


def _forward(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.errors import VmrunError
    from vmrun.machine import network

    try:
        network.forward(machine, words[0] if len(words) > 1 else "", words[-1])
    except VmrunError as error:
        raise QmpError(error.problems[0].message) from None
    return ""


def _unforward(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.errors import VmrunError
    from vmrun.machine import network

    try:
        found = network.unforward(machine, words[0] if len(words) > 1 else "", words[-1])
    except VmrunError as error:
        raise QmpError(error.problems[0].message) from None
    return f"host forwarding rule for {words[-1]} {'removed' if found else 'not found'}\n"


def _announce(machine: Any, words: list[str], cpu: int) -> str:
    from vmrun.machine import network

    names, id = (*words, "", "")[:2]
    network.announce_often(machine, 50, 550, 5, 100, names.split(",") if names else None, id)
    return ""


LINES = (
    Line("help|?", "[cmd]", "show the help", _help),
    Line("info", "[subcommand]", "show various information about the system state", _info),
    Line("stop|s", "", "stop emulation", _qmp("stop")),
    Line("cont|c", "", "resume emulation", _qmp("cont")),
    Line("system_reset", "", "reset the system", _reset),
    Line("system_powerdown", "", "send system power down event", _qmp("system_powerdown")),
    Line("exit_preconfig", "", "exit the preconfig state", _exit_preconfig),
    Line("quit|q", "", "quit the emulator", _qmp("quit")),
    Line("device_add", "driver[,prop=value][,...]", "add device, like -device on the command line", _device_add, 1),
    Line("set_link", "name on|off", "change the link status of a network adapter", _set_link, 2),
    Line("netdev_add", "[user|tap|socket|stream|dgram|vde|bridge|hubport],id=str[,prop=value][,...]",
         "add host network device", _netdev_add, 1),
    Line("netdev_del", "id", "remove host network device", _qmp("netdev_del", "id"), 1),
    Line("hostfwd_add", "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
         "redirect TCP or UDP connections from host to guest (requires -net user)", _forward, 1),
    Line("hostfwd_remove", "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
         "remove host-to-guest TCP or UDP redirection", _unforward, 1),
    Line("announce_self", "[interfaces] [id]", "Trigger GARP/RARP announcements", _announce),
    Line("device_del", "device", "remove device", _qmp("device_del", "id"), 1),
    Line("qom-list", "path", "list QOM properties", _qom_list),
    Line("qom-get", "path property", "print QOM property", _qom_get, 2),
    Line("i", "/fmt addr", "I/O port read", _read_port, 1),
    Line("o", "/fmt addr value", "I/O port write", _write_port, 2),
    Line("sendkey", "keys [hold_ms]", "send keys to the VM (e.g. 'sendkey ctrl-alt-f1')", _sendkey, 1),
    Line("mouse_move", "dx dy [dz]", "send mouse move events", _mouse_move, 2),
    Line("mouse_button", "state", "change mouse button state (1=L, 2=M, 4=R)", _mouse_button, 1),
    Line("change", "device filename [format] | vnc password PASSWORD", "change a removable medium, or the VNC password",
         _change, 2),
    Line("eject", "[-f] device", "eject a removable medium (use -f to force it)", _eject, 1),
    Line("set_password", "protocol password", "set spice/vnc password",
         _qmp("set_password", "protocol", "password"), 2),
    Line("expire_password", "protocol time", "set spice/vnc password expire-time",
         _qmp("expire_password", "protocol", "time"), 2),
    Line("screendump", "filename [-f format]", "save screen to a file, as PPM or PNG", _screendump, 1),
    Line("pmemsave", "addr size file", "save to disk physical memory dump", _save_memory, 3),
    *hmp_look.LINES,
    *hmp_block.LINES,
    *hmp_machine.LINES,
    *hmp_more.LINES,
)


def find(name: str) -> Line | None:
    return next((line for line in LINES if name in line.names), None)


def run(machine: Any, text: str, cpu: int = 0) -> str | Work:
    """What a line prints, or the Work that tells. Nothing that is typed raises."""
    words = words_of(text)
    if not words:
        return ""
    name, rest = words[0], words[1:]
    head, slash, shape = name.partition("/")  # x/4xw and x /4xw are the same
    if slash and head:
        name, rest = head, ["/" + shape, *rest]
    line = find(name)
    try:
        if line is None:
            raise QmpError(f"unknown command: '{name}'")
        preconfig.check_line(machine, line.names[0])
        if len(rest) < line.least or rest and not line.params:
            wrong = "extraneous characters at the end of line" if not line.params else f"{line.params} expected"
            title = "|".join(line.names)
            return f'{title}: {wrong}\r\nTry "help {line.names[0]}" for more information\r\n'
        out = line.handler(machine, rest, cpu)
        if isinstance(out, Work):
            out.told = lambda error: f"Error: {error.desc}\r\n"
            return out.map(lambda text: text.replace("\n", "\r\n"))
    except ExpressionError as error:
        out = f'{error.desc}\nTry "help {name}" for more information\n'
    except QmpError as error:
        # what is wrong with the line itself is said bare
        known = error.kind == "CommandNotFound" or error.desc.startswith(("unknown command", "Command '"))
        out = f"{error.desc}\n" if known else f"Error: {error.desc}\n"
    except (IndexError, OverflowError):
        out = f"Error: {name}: a parameter is missing or out of range\n"
    return out.replace("\n", "\r\n")
