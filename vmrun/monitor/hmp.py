"""A person's commands: a table of names, parameters, help and handlers. Output is text with CR LF, as QEMU's.

A handler gets the machine, its words, and the processor that is looked at.
"""

from __future__ import annotations

import re

from accel.api import Action

from vmrun.errors import VmrunError
from vmrun.monitor import hmp_block, hmp_look, hmp_machine, hmp_more, info, preconfig
from vmrun.monitor.errors import QmpError, of_fault
from vmrun.monitor.expression import ExpressionError
from vmrun.monitor.hmp_args import ArgumentError, Given, read
from vmrun.monitor.hmp_line import Asker, Line, ask, one_of
from vmrun.monitor.hmp_look import Format, register_of
from vmrun.monitor.work import Work

NAME = re.compile(r"\s*([^\s/]*)")
LEADING = re.compile(r"[+-]?(?:0x[0-9a-f]+|[0-9]+)", re.IGNORECASE)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from vmrun.monitor.hmp_line import Handler


def _qmp(name: str, *params: str) -> Handler:
    """A handler that is a QMP command with its words as arguments; `key=value` words of device_add come along."""

    def handler(machine: Any, words: Given, cpu: int) -> str:
        from vmrun.monitor import table

        command = table.load()[name]
        command.handler(Asker(machine), **command.arguments(dict(zip(params, words, strict=False))))
        return ""

    return handler


def _device_add(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor import table

    driver, *rest = words[0].split(",")
    if not driver:
        raise QmpError("Parameter 'driver' is missing")
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


def _read_port(machine: Any, words: Given, cpu: int) -> str:
    size = Format(machine, words[0]).ports
    base, *index = (int(word) for word in words[1:])
    with machine.board.lock:
        if index:
            machine.board.io.write(base & 0xFFFF, 1, index[0] & 0xFF)
        where = (base + len(index)) & 0xFFFF
        value = machine.board.io.read(where, size)
    return f"port{'bwl'[size.bit_length() - 1]}[0x{where:04x}] = 0x{value:0{2 * size}x}\n"


def _write_port(machine: Any, words: Given, cpu: int) -> str:
    size = Format(machine, words[0]).ports
    port, value = (int(word) for word in words[1:])
    with machine.board.lock:
        action = machine.board.io.write(port & 0xFFFF, size, value & ((1 << 8 * size) - 1))
    if action:
        machine.board.control.ask(action)
    return ""


def _save_memory(machine: Any, words: Given, cpu: int) -> Work:
    from vmrun.monitor.commands.memory import save

    return save(machine, int(words[0]), int(words[1]), words[2]).map(lambda nothing: "")


def _screendump(machine: Any, words: Given, cpu: int) -> Work:
    from vmrun.monitor import table

    given: dict[str, Any] = dict(zip(("filename", "device"), words, strict=False))
    given |= {"head": int(words[2])} if words[2:] else {}
    given |= {"format": words.flags["f"]} if "f" in words.flags else {}
    command = table.load()["screendump"]
    work: Work = command.handler(Asker(machine), **command.arguments(given))
    return work.map(lambda nothing: "")


def _info(machine: Any, words: Given, cpu: int) -> str:
    """Without a view; `run` finds the others."""
    return _helped(machine, "info ", info.VIEWS.values(), "")


def _help(machine: Any, words: Given, cpu: int) -> str:
    name, _, view = (words[0] if words else "").partition(" ")
    if name == "info":
        return _helped(machine, "info ", info.VIEWS.values(), view.strip().partition(" ")[0])
    return _helped(machine, "", LINES, name)


def _helped(machine: Any, prefix: str, lines: Iterable[Line], name: str) -> str:
    """What is told of each of the lines, or of the one with that name."""
    found = sorted((line for line in lines if not name or name in line.names), key=lambda line: line.names[0])
    if not found:
        raise QmpError(f"unknown command: '{prefix}{name}'")
    shown = (line for line in found if preconfig.is_shown(machine, prefix + line.names[0]))
    return "".join(f"{prefix}{line.title} {line.params} -- {line.help}\n" for line in shown)


def _qom_list(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.qom import Tree

    if not words:
        return "/\n"
    return "".join(f"{row['name']} ({row['type']})\n" for row in Tree(machine).properties(words[0]))


def _qom_get(machine: Any, words: Given, cpu: int) -> str:
    import json

    from vmrun.monitor.qom import Tree

    return json.dumps(Tree(machine).get(words[0], words[1])) + "\n"


def _exit_preconfig(machine: Any, words: Given, cpu: int) -> Work:
    work: Work = ask(machine, "x-exit-preconfig")
    return work.map(lambda nothing: "")


def _reset(machine: Any, words: Given, cpu: int) -> str:
    machine.ask(Action.RESET, "host-qmp-system-reset")
    return ""


def _sendkey(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.commands.remote import HOLD_TIME, qcode_of, type_chords

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


def _leading(text: str) -> int:
    """The number that a word begins with, as C's strtol has it; 0 without one."""
    match = LEADING.match(text)
    digits = match[0].lower() if match else "0"
    return int(digits, 16 if "x" in digits else 10) if len(digits) < 20 else 0


def _mouse_move(machine: Any, words: Given, cpu: int) -> str:
    dx, dy, dz = (_leading(word) for word in (*words, *("0",) * (3 - len(words))))
    hands = machine.board.input
    far = 1 << 20
    hands.move(*(min(max(step, -far), far) for step in (dx, dy)))
    if dz:
        name = "wheel-up" if dz > 0 else "wheel-down"
        hands.button(name, True)
        hands.button(name, False)
    hands.sync()
    return ""


def _mouse_button(machine: Any, words: Given, cpu: int) -> str:
    state, hands = int(words[0]), machine.board.input
    for bit, name in ((1, "left"), (2, "middle"), (4, "right")):
        if bool(state & bit) != (name in hands.buttons):
            hands.button(name, bool(state & bit))
    hands.sync()
    return ""


def _change(machine: Any, words: Given, cpu: int) -> str:
    force, mode = "f" in words.flags, words[3:]
    if words[:1] == ["vnc"]:
        from vmrun.monitor.commands.remote import change_vnc_password

        if mode:
            raise QmpError("Parameter 'read-only-mode' is invalid for VNC")
        if words[1] not in ("password", "passwd"):
            raise QmpError("Expected 'password' after 'vnc'")
        if not words[2:]:
            return "terminal does not support password prompting\n"
        change_vnc_password(Asker(machine), words[2])
        return ""
    from vmrun.machine.media import MODES
    from vmrun.monitor.commands.media import change_medium

    more = {"read_only_mode": one_of(mode[0], MODES)} if mode else {}
    more |= {"format": words[2]} if words[2:] else {}
    change_medium(Asker(machine), words[1], device=_named(machine, words[0]), force=force, **more)
    return ""


def _eject(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.commands.media import eject

    eject(Asker(machine), device=_named(machine, words[0]), force="f" in words.flags)
    return ""


def _named(machine: Any, name: str) -> str:
    """The line monitor takes a device's id too."""
    device = machine.devices.get(name)
    return str(getattr(device, "drive", None) or name)


def _set_link(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.commands.network import set_link

    set_link(Asker(machine), words[0], words[1] == "on")
    return ""


def _netdev_add(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.config.importers.line import parse_command_line
    from vmrun.config.importers.qemuopts import LineError
    from vmrun.machine import network

    if not any(part.startswith("id=") for part in words[0].split(",")):
        raise QmpError("Parameter 'id' is missing")
    try:
        netdevs = parse_command_line(["-netdev", words[0]], defaults=False).document["netdevs"]
        for id, spec in netdevs.items():
            network.add(machine, id, spec)
    except LineError as error:
        raise QmpError(error.problems[0].message.removeprefix(f"-netdev {words[0]}: ")) from None
    return ""


def _forward(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.errors import VmrunError
    from vmrun.machine import network

    try:
        network.forward(machine, words[0] if len(words) > 1 else "", words[-1])
    except VmrunError as error:
        return f"{error.problems[0].message}\n"
    return ""


def _unforward(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.errors import VmrunError
    from vmrun.machine import network

    try:
        found = network.unforward(machine, words[0] if len(words) > 1 else "", words[-1])
    except VmrunError as error:
        return f"{error.problems[0].message}\n"
    return f"host forwarding rule for {words[-1]} {'removed' if found else 'not found'}\n"


PROTOCOLS = ("vnc", "spice")


def _password(machine: Any, words: Given, cpu: int) -> str:
    given = {"protocol": one_of(words[0], PROTOCOLS), "password": words[1]}
    given |= {"connected": one_of(words[2], ("fail", "disconnect", "keep"))} if words[2:] else {}
    given |= {"display": words.flags["d"]} if "d" in words.flags else {}
    ask(machine, "set_password", **given)
    return ""


def _expire(machine: Any, words: Given, cpu: int) -> str:
    given = {"protocol": one_of(words[0], PROTOCOLS), "time": words[1]}
    ask(machine, "expire_password", **given, **({"display": words.flags["d"]} if "d" in words.flags else {}))
    return ""


def _announce(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.machine import network

    names, id = (*words, "", "")[:2]
    network.announce_often(machine, 50, 550, 5, 100, names.split(",") if names else None, id)
    return ""


LINES = (
    Line("help|?", "[cmd]", "show the help", _help, "rest?"),
    Line("info", "[subcommand]", "show various information about the system state", _info),
    Line("stop|s", "", "stop emulation", _qmp("stop")),
    Line("cont|c", "", "resume emulation", _qmp("cont")),
    Line("system_reset", "", "reset the system", _reset),
    Line("system_powerdown", "", "send system power down event", _qmp("system_powerdown")),
    Line("exit_preconfig", "", "exit the preconfig state", _exit_preconfig),
    Line("quit|q", "", "quit the emulator", _qmp("quit")),
    Line("device_add", "driver[,prop=value][,...]", "add device, like -device on the command line", _device_add,
         "options"),
    Line("set_link", "name on|off", "change the link status of a network adapter", _set_link, "str bool"),
    Line("netdev_add", "[user|tap|socket|stream|dgram|vde|bridge|hubport],id=str[,prop=value][,...]",
         "add host network device", _netdev_add, "options"),
    Line("netdev_del", "id", "remove host network device", _qmp("netdev_del", "id"), "str"),
    Line("hostfwd_add", "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
         "redirect TCP or UDP connections from host to guest (requires -net user)", _forward, "str str?"),
    Line("hostfwd_remove", "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
         "remove host-to-guest TCP or UDP redirection", _unforward, "str str?"),
    Line("announce_self", "[interfaces] [id]", "Trigger GARP/RARP announcements", _announce, "str? str?"),
    Line("device_del", "device", "remove device", _qmp("device_del", "id"), "str"),
    Line("qom-list", "path", "list QOM properties", _qom_list, "str?"),
    Line("qom-get", "path property", "print QOM property", _qom_get, "str str"),
    Line("i", "/fmt addr", "I/O port read", _read_port, "fmt int index?"),
    Line("o", "/fmt addr value", "I/O port write", _write_port, "fmt int int"),
    Line("sendkey", "keys [hold_ms]", "send keys to the VM (e.g. 'sendkey ctrl-alt-f1')", _sendkey, "str int?"),
    Line("mouse_move", "dx dy [dz]", "send mouse move events", _mouse_move, "str str str?"),
    Line("mouse_button", "state", "change mouse button state (1=L, 2=M, 4=R)", _mouse_button, "int"),
    Line("change", "device [-f] filename [format [read-only-mode]]", "change a removable medium, or the VNC password",
         _change, "block -f file str? str?"),
    Line("eject", "[-f] device", "eject a removable medium (use -f to force it)", _eject, "-f block"),
    Line("set_password", "protocol password [-d display] [action-if-connected]", "set spice/vnc password",
         _password, "str str -d= str?"),
    Line("expire_password", "protocol time [-d display]", "set spice/vnc password expire-time",
         _expire, "str str -d="),
    Line("screendump", "filename [-f format] [device [head]]", "save screen to a file, as PPM or PNG", _screendump,
         "file -f= str? int?"),
    Line("pmemsave", "addr size file", "save to disk physical memory dump", _save_memory, "long int str"),
    *hmp_look.LINES,
    *hmp_block.LINES,
    *hmp_machine.LINES,
    *hmp_more.LINES,
)


def find(name: str) -> Line | None:
    return next((line for line in LINES if name in line.names), None)


def _split(text: str) -> tuple[str, str]:
    """A command's name, which ends at a blank or a slash (x/4xw), and the rest."""
    match = NAME.match(text)
    assert match is not None
    return match[1], text[match.end() :]


def run(machine: Any, text: str, cpu: int = 0) -> str | Work:
    """What a line prints, or the Work that tells. Nothing that is typed raises."""
    text = text.partition("\0")[0]  # as C's texts end
    if not text.strip():
        return ""
    name, rest = _split(text)
    line, prefix = find(name), ""
    try:
        if name == "info" and rest.strip():
            name, rest = _split(rest)
            line, prefix = info.VIEWS.get(name), "info "
        if line is None:
            raise QmpError(f"unknown command: '{(prefix + name).strip()}'")
        preconfig.check_line(machine, prefix + line.names[0])
        given = read(rest, line.takes, line.title, register_of(machine, cpu))
        out = line.handler(machine, given, cpu)
        if isinstance(out, Work):
            out.told = lambda error: f"Error: {error.desc}\r\n"
            return out.map(lambda text: text.replace("\n", "\r\n"))
    except (ExpressionError, ArgumentError) as error:
        told = f"{error.desc}\n" if error.desc else ""
        out = f'{told}Try "help {prefix}{name}" for more information\n'
    except QmpError as error:
        # what is wrong with the line itself is said bare
        known = error.kind == "CommandNotFound" or error.desc.startswith(("unknown command", "Command '"))
        out = f"{error.desc}\n" if known else f"Error: {error.desc}\n"
    except VmrunError as error:
        out = f"Error: {of_fault(error).desc}\n"
    except (IndexError, OverflowError):
        out = f"Error: {name}: a parameter is missing or out of range\n"
    return out.replace("\n", "\r\n")
