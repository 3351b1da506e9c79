"""Looking at memory and registers, and the rest of the commands that are QMP's in a person's words."""

from __future__ import annotations

from vmrun.core.values import read_value
from vmrun.machine.paging import Standing, is_there, walk
from vmrun.monitor import expression
from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp_args import Given
from vmrun.monitor.hmp_line import Line, ask, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.monitor.expression import Register
    from vmrun.monitor.work import Work

MOST_SHOWN = 4096  # values of one x or xp
LONGEST = 15  # bytes of an instruction
REAL = {"cr0": 0, "cr3": 0, "cr4": 0, "efer": 0}  # a machine without processors: addresses are physical
SIZES = {"b": 1, "h": 2, "w": 4, "g": 8, "L": 8}


def registers(machine: Any, cpu: int) -> dict[str, Any]:
    """Of a processor that stands still for a moment; those of a machine without any."""
    try:
        with Standing(machine) as cpus:
            return cpus.registers(cpu)
    except NotImplementedError:
        return dict(REAL)


def register_of(machine: Any, cpu: int) -> Register:
    """What `$rip` and the others are worth in an expression."""

    def register(name: str) -> int:
        found = registers(machine, cpu)
        aliases = {"pc": "rip", "eflags": "rflags", "sp": "rsp", "fp": "rbp"}
        word = aliases.get(name, name)
        if word in found and isinstance(found[word], int):
            return int(found[word])
        wide = f"r{word[1:]}"
        if word[:1] == "e" and isinstance(found.get(wide), int):
            return int(found[wide]) & 0xFFFFFFFF
        if isinstance(found.get(word), dict):
            return int(found[word].get("selector", 0))
        raise expression.ExpressionError("unknown register")

    return register


class Format:
    """`/4xw` and what was said last: count, letter, bytes."""

    def __init__(self, machine: Any, text: str) -> None:
        kept = getattr(machine, "shown_as", ("x", 4))
        self.count, self.letter, self.size = 1, kept[0], kept[1]
        letters = text[1:].lstrip("0123456789")
        digits = text[1 : len(text) - len(letters)]
        self.count = int(digits or 1) if len(digits) < 8 else 1 << 24
        for char in letters:
            if char in SIZES:
                self.size = SIZES[char]
            else:
                self.letter = char
        if len(text) > 1:
            machine.shown_as = (self.letter, self.size)

    @property
    def ports(self) -> int:
        """Bytes of a port."""
        return min(self.size, 4)


def character(code: int) -> str:
    """As C writes it."""
    named = {0x27: "\\'", 0x5C: "\\\\", 10: "\\n", 13: "\\r", 9: "\\t"}
    if code in named:
        return f"'{named[code]}'"
    return f"'{chr(code)}'" if 32 <= code <= 126 else f"'\\x{code & 0xFFFFFFFF:02x}'"


def shown(found: int, letter: str, size: int) -> str:
    bits = 8 * size
    if letter == "c":
        return character(found & 0xFF)
    if letter == "x":
        return f"0x{found:0{2 * size}x}"
    if letter == "o":
        return f"{'0' + format(found, 'o') if found else '0':>{(bits + 2) // 3}}"
    if letter == "d" and found >> (bits - 1):
        found -= 1 << bits
    return f"{found:>{(bits * 10 + 32) // 33}}"


def _dump(machine: Any, words: Given, cpu: int, virtual: bool) -> str:
    what, at = Format(machine, words[0]), int(words[1])
    state = registers(machine, cpu) if virtual or what.letter == "i" else REAL
    look = Standing(machine)

    def read(addr: int, size: int) -> bytes | None:
        data, memory = b"", machine.board.memory
        while len(data) < size:
            here = (addr + len(data)) & expression.MASK
            part = min(size - len(data), 4096 - (here & 4095))
            where = walk(look.physical, state, here) if virtual else here
            with machine.board.lock:
                if where is None or not is_there(memory, where, part):
                    return None
                data += memory.read_bytes(where, part)
        return data

    if what.letter == "i":
        return _instructions(read, at, min(what.count, MOST_SHOWN), state)
    lines: list[str] = []
    size = what.size
    per_line = 8 if size == 1 else 16 // size
    for first in range(0, min(what.count, MOST_SHOWN), per_line):
        last = min(first + per_line, what.count, MOST_SHOWN)
        data = read(at + first * size, (last - first) * size)
        title = f"{(at + first * size) & expression.MASK:016x}:"
        if data is None:
            return "".join(lines) + f"{title} Cannot access memory\n"
        values = (int.from_bytes(data[n : n + size], "little") for n in range(0, len(data), size))
        lines.append(f"{title} {' '.join(shown(value, what.letter, size) for value in values)}\n")
    if what.count > MOST_SHOWN:
        lines.append(f"{MOST_SHOWN} of {what.count} are shown; the next begins at {at + MOST_SHOWN * size:#x}\n")
    return "".join(lines)


def _instructions(read: Any, at: int, count: int, state: dict[str, Any]) -> str:
    try:
        capstone: Any = __import__("capstone")
    except ImportError:
        raise QmpError("disassembly needs the Python package capstone (vmrun's extra `disassembly`)") from None
    code = state.get("cs", {})
    wide = state.get("efer", 0) & 0x400 and code.get("l")
    mode = capstone.CS_MODE_64 if wide else capstone.CS_MODE_32 if code.get("db") else capstone.CS_MODE_16
    engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
    engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    lines = []
    for _ in range(count):
        data = b""
        while len(data) < LONGEST:
            more = read(at + len(data), 1)
            if more is None:
                break
            data += more
        found = next(engine.disasm(data, at & expression.MASK, 1), None)
        if found is None:
            lines.append(f"0x{at & expression.MASK:08x}: unable to read memory\n" if not data else
                         f"0x{at & expression.MASK:08x}:  {data[0]:02x}{'   ' * 7}  (bad)\n")  # fmt: skip
            if not data:
                break
            at += 1
            continue
        raw, text = bytes(found.bytes), f"{found.mnemonic:<8} {found.op_str}".rstrip()
        first = " ".join(f"{byte:02x}" for byte in raw[:8])
        lines.append(f"0x{at & expression.MASK:08x}:  {first:<23}  {text}\n")
        if len(raw) > 8:
            lines.append(f"0x{(at + 8) & expression.MASK:08x}:  {' '.join(f'{byte:02x}' for byte in raw[8:])}\n")
        at += len(raw)
    return "".join(lines)


def _virtual(machine: Any, words: Given, cpu: int) -> str:
    return _dump(machine, words, cpu, True)


def _physical(machine: Any, words: Given, cpu: int) -> str:
    return _dump(machine, words, cpu, False)


def _print(machine: Any, words: Given, cpu: int) -> str:
    what, found = Format(machine, words[0]), int(words[1])
    if what.letter == "c":
        return f"{character(found)}\n"
    if what.letter in "xo":
        text = format(found, what.letter)
        return f"{'0x' if what.letter == 'x' else '0'}{text}\n" if found else "0\n"
    return f"{found if what.letter == 'u' else expression.signed(found)}\n"


def _gva2gpa(machine: Any, words: Given, cpu: int) -> str:
    found = walk(Standing(machine).physical, registers(machine, cpu), int(words[0]))
    return "Unmapped\n" if found is None else f"gpa: {found:#x}\n"


def _cpu(machine: Any, words: Given, cpu: int) -> str:
    """The line monitor itself keeps which one it is."""
    if int(words[0]) not in machine.board.processors:
        raise QmpError("invalid CPU index", "CommandNotFound")
    return ""


def _pairs(text: str, first: str) -> dict[str, Any]:
    """`kind,key=value,…` as arguments; the first word's key is `first`."""
    found: dict[str, Any] = {}
    for place, part in enumerate(text.split(",")):
        key, equals, given = part.partition("=")
        if place == 0 and not equals:
            found[first] = part
        else:
            found[key] = given if equals else "on"
    return found


def _object_add(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.errors import BuildError

    try:
        machine.board.add_object(_pairs(words[0], "qom-type"))
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None
    return ""


_DATA = {
    "file": {"path": "out", "append": "append"},
    "tty": {"path": "device"},
    "serial": {"path": "device"},
    "pipe": {"path": "device"},
    "ringbuf": {"size": "size"},
    "stdio": {"signal": "signal"},
}


def _backend(text: str) -> tuple[str, dict[str, Any]]:
    """(id, ChardevBackend) of what -chardev takes."""
    given = _pairs(text, "backend")
    kind, id = given.pop("backend", ""), given.pop("id", "")
    if not kind:
        raise QmpError(f'chardev: "{id}" missing backend')
    data: dict[str, Any] = {}
    for key, word in list(given.items()):
        if key in ("server", "wait", "nodelay", "telnet", "websocket", "append", "signal", "logappend"):
            data[_DATA.get(kind, {}).get(key, key)] = read_value("bool", word)
        elif key in ("size", "reconnect"):
            data[key] = read_value("size", word)
        elif key not in ("path", "host", "port", "abstract") or kind != "socket":
            data[_DATA.get(kind, {}).get(key, key)] = word
    if kind == "socket" and "path" in given:
        data["addr"] = {"type": "unix", "data": {"path": given["path"]}}
        if "abstract" in given:
            data["addr"]["data"]["abstract"] = given["abstract"] == "on"
    elif kind == "socket":
        data["addr"] = {"type": "inet", "data": {"host": given.get("host", ""), "port": given.get("port", "")}}
    return id, {"type": {"tty": "serial"}.get(kind, kind), "data": data}


def _chardev_add(machine: Any, words: Given, cpu: int) -> str:
    id, backend = _backend(words[0])
    if not id:
        raise QmpError("chardev: no id specified")
    ask(machine, "chardev-add", id=id, backend=backend)
    return ""


def _chardev_change(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.table import enums

    _, backend = _backend(words[1])
    if backend["type"] not in enums["ChardevBackendKind"]:
        raise QmpError(f"'{backend['type']}' is not a valid char driver name")
    ask(machine, "chardev-change", id=words[0], backend=backend)
    return ""


def _qom_set(machine: Any, words: Given, cpu: int) -> str:
    import json

    given: Any = words[2]
    try:
        given = json.loads(given)
    except ValueError as error:
        if "j" in words.flags:
            raise QmpError(f"JSON parse error, {error}") from None
    ask(machine, "qom-set", path=words[0], property=words[1], value=given)
    return ""


def _block_resize(machine: Any, words: Given, cpu: int) -> str:
    ask(machine, "block_resize", device=words[0], size=int(words[1]))
    return ""


def _memsave(machine: Any, words: Given, cpu: int) -> Work:
    given = {"val": int(words[0]), "size": int(words[1]), "filename": words[2]}
    work: Work = ask(machine, "memsave", cpu_index=cpu, **given)
    return work.map(lambda nothing: "")


DUMPS = {"z": "kdump-zlib", "l": "kdump-lzo", "s": "kdump-snappy", "w": "win-dmp"}


def _dump_memory(machine: Any, words: Given, cpu: int) -> str | Work:
    flags = words.flags
    formats = [DUMPS[letter] for letter in flags if letter in DUMPS]
    if len(formats) > 1:
        raise QmpError("only one of '-z|-l|-s|-w' can be set")
    given: dict[str, Any] = {"paging": "p" in flags, "protocol": f"file:{words[0]}", "detach": "d" in flags}
    given |= {"format": formats[0]} if formats else {}
    given |= dict(zip(("begin", "length"), map(int, words[1:]), strict=False))
    work: Work | None = ask(machine, "dump-guest-memory", **given)
    return "" if work is None else work.map(lambda nothing: "")


def _watchdog_action(machine: Any, words: Given, cpu: int) -> str:
    try:
        ask(machine, "watchdog-set-action", action=words[0])
    except QmpError:
        raise QmpError(f"invalid parameter value: {words[0]}") from None
    return ""


def _migrate(machine: Any, words: Given, cpu: int) -> str:
    flags = {name: True for letter, name in (("b", "blk"), ("i", "inc"), ("r", "resume")) if letter in words.flags}
    ask(machine, "migrate", uri=words[0], **flags)
    return ""


def _set_capability(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.table import enums

    row = {"capability": one_of(words[0], enums["MigrationCapability"]), "state": words[1] == "on"}
    ask(machine, "migrate-set-capabilities", capabilities=[row])
    return ""


def _set_parameter(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.commands.migrate import PARAMETERS

    known = PARAMETERS[one_of(words[0], PARAMETERS)]
    given: Any = words[1]
    if isinstance(known, bool):
        given = read_value("bool", given)
    elif isinstance(known, int):
        unit = "M" if words[0] in ("max-bandwidth", "max-postcopy-bandwidth") and given.isdecimal() else ""
        given = read_value("size", given + unit)
    ask(machine, "migrate-set-parameters", **{words[0]: given})
    return ""


def _ringbuf_read(machine: Any, words: Given, cpu: int) -> str:
    """Printable, as QEMU has it: other bytes as their octal number, a backslash twice."""
    data = ask(machine, "ringbuf-read", device=words[0], size=int(words[1]))
    out = ""
    for char in data:
        code = ord(char)
        if char == "\\":
            out += "\\\\"
        elif (code < 32 and char not in "\n\t") or code == 127:
            out += f"\\u{code:04X}"
        else:
            out += char
    return f"{out}\n"


def _simple(name: str, *params: str, numbers: tuple[str, ...] = ()) -> Any:
    """A QMP command with the words as its arguments."""

    def handler(machine: Any, words: Given, cpu: int) -> str:
        given: dict[str, Any] = dict(zip(params, words, strict=False))
        for key in numbers:
            if key in given:
                given[key] = int(given[key])
        answer = ask(machine, name, **given)
        return f"{answer}\n" if isinstance(answer, str) and answer else ""

    return handler


def _balloon(machine: Any, words: Given, cpu: int) -> str:
    ask(machine, "balloon", value=int(words[0]))
    return ""


LINES = (
    Line("x", "/fmt addr", "virtual memory dump starting at 'addr'", _virtual, "fmt long"),
    Line("xp", "/fmt addr", "physical memory dump starting at 'addr'", _physical, "fmt long"),
    Line("print|p", "/fmt expr", "print expression value (use $reg for CPU register access)", _print, "fmt long"),
    Line("gva2gpa", "addr", "print the guest physical address corresponding to a guest virtual address", _gva2gpa,
         "long"),
    Line("cpu", "index", "set the default CPU", _cpu, "int"),
    Line("nmi", "", "inject an NMI", _simple("inject-nmi")),
    Line("system_wakeup", "", "wakeup guest from suspend", _simple("system_wakeup")),
    Line("watchdog_action", "action", "change watchdog action", _watchdog_action, "str"),
    Line("object_add", "[qom-type=]type,id=str[,prop=value][,...]", "create QOM object", _object_add, "rest"),
    Line("object_del", "id", "destroy QOM object", _simple("object-del", "id"), "str"),
    Line("qom-set", "[-j] path property value", "set QOM property", _qom_set, "-j str str rest"),
    Line("chardev-add", "args", "add chardev", _chardev_add, "str"),
    Line("chardev-change", "id args", "change chardev", _chardev_change, "str str"),
    Line("chardev-remove", "id", "remove chardev", _simple("chardev-remove", "id"), "str"),
    Line("chardev-send-break", "id", "send a break on chardev", _simple("chardev-send-break", "id"), "str"),
    Line("ringbuf_write", "device data", "Write to a ring buffer character device",
         _simple("ringbuf-write", "device", "data"), "str str"),
    Line("ringbuf_read", "device size", "Read from a ring buffer character device",
         _ringbuf_read, "str int"),
    Line("block_resize", "device size", "resize a block image", _block_resize, "block size"),
    Line("balloon", "target", "request VM to change its memory allocation (in MB)", _balloon, "mega"),
    Line("memsave", "addr size file", "save to disk virtual memory dump starting at 'addr' of size 'size'",
         _memsave, "long int str"),
    Line("dump-guest-memory", "[-p] [-d] [-z|-l|-s|-w] filename [begin length]",
         "dump guest memory into file 'filename'", _dump_memory, "-p -d -z -l -s -w file long? long?"),
    Line("migrate", "[-d] [-b] [-i] [-r] uri", "migrate to URI (a file: file:PATH)", _migrate, "-d -b -i -r str"),
    Line("migrate_cancel", "", "cancel the current VM migration", _simple("migrate_cancel")),
    Line("migrate_continue", "state", "Continue migration from the given paused state",
         _simple("migrate-continue", "state"), "str"),
    Line("migrate_incoming", "uri", "Continue an incoming migration from an -incoming defer",
         _simple("migrate-incoming", "uri"), "str"),
    Line("migrate_set_capability", "capability state", "Enable/Disable the usage of a capability for migration",
         _set_capability, "str bool"),
    Line("migrate_set_parameter", "parameter value", "Set the parameter for migration", _set_parameter, "str str"),
    Line("getfd", "getfd name", "receive a file descriptor via SCM rights and assign it a name",
         _simple("getfd", "fdname"), "str"),
    Line("closefd", "closefd name", "close a file descriptor previously passed via SCM rights",
         _simple("closefd", "fdname"), "str"),
)
