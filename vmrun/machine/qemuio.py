"""HMP's qemu-io: reads, writes and more of a disk from the monitor, in that program's words. What it prints comes back
as the command's answer.

    qemu-io d0 "write -P 5 0 64k"
"""

from __future__ import annotations

import errno
import os
from time import monotonic, sleep

from vmrun.errors import BuildError
from vmrun.machine.blocks import blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

READ, WRITE, FLUSH, DISCARD, ZERO = range(5)
UNITS = {"b": 512, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50, "e": 1 << 60}
MOST = (1 << 31) - 512  # bytes that one command moves
PIECE = 8 << 20


class Refused(Exception):
    """What the command prints instead: it was not said rightly, or cannot be. `error`: where errors are printed."""

    def __init__(self, text: str, error: bool = False) -> None:
        super().__init__(text)
        self.error = error


class BadOption(Refused):
    """A letter that a command does not take; how it is used is told with it."""

    def __init__(self, command: str, letter: str, why: str = "invalid option") -> None:
        super().__init__(f"{command}: {why} -- '{letter}'", True)
        self.command = command


def number(text: str) -> int:
    tail = text[-1:].lower()
    try:
        if tail in UNITS and not text.lower().startswith("0x"):
            return int(float(text[:-1]) * UNITS[tail]) if "." in text else int(text[:-1], 0) * UNITS[tail]
        return int(text, 0)
    except (ValueError, OverflowError):
        raise Refused(f"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}") from None


def amount(value: float) -> str:
    """Bytes for people: three digits and their unit, as qemu-io has it."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1024 or unit == "EiB":
            return f"{f'{value:.3f}'.removesuffix('.000')} {unit}"
        value /= 1024
    return ""


# letters of the commands that take more than others; -p of old scripts means nothing
_READS = {"read": "Cbpqv", "aio_read": "Ciqv"}
_WHOLE = {"r": "read", "rv": "readv", "w": "write", "wv": "writev", "d": "discard", "t": "truncate"}
_WRITES = {"write": "Cbcfnpquz", "aio_write": "Cfiquz"}


def _options(words: list[str], flags: str, with_value: str, name: str) -> tuple[dict[str, str], list[str]]:
    """getopt's way: letters before the rest, among it or after it, up to `--`."""
    found: dict[str, str] = {}
    rest, others = list(words), []
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in with_value:
                if not letters and not rest:
                    raise BadOption(name, letter, "option requires an argument")
                found[letter] = letters or rest.pop(0)
                letters = ""
            elif letter in flags:
                found[letter] = ""
            else:
                raise BadOption(name, letter)
    return found, others + rest


class Io:
    """One node, through the drive that shows it, or one of its own. `failed`: so has a command."""

    failed = False
    program = ""  # who says it, before messages

    def __init__(self, machine: Any, name: str, drive: Any = None) -> None:
        self.machine = machine
        table = blocks(machine)
        self.drive: Any = drive
        if drive is None:
            self.node, self.drive = table.find(name)
        elif drive.node is None:
            raise BuildError(f"Device '{name}' has no medium")
        else:
            self.node = drive.node
        if self.drive is None:
            from vmrun.backends.block import queue

            self.drive = queue(self.node)
            self.drive.replace(self.node, table.taps.get(id(self.node)))

    def quiet(self) -> AbstractContextManager[object]:
        """Nothing that uses the node is under way within."""
        return blocks(self.machine).quiet(self.node)

    def complain(self, text: str) -> str:
        """What is printed where errors are."""
        return text

    def aside(self, run: Callable[[Any], str]) -> None:
        """It goes on by itself; who wants to know says aio_flush."""
        import _thread

        _thread.start_new_thread(run, (None,))

    def flush(self) -> str:
        """Until all that goes on by itself is over."""
        self.drive.drain()
        return ""

    def state(self, offset: int, count: int, data: bytes | None = None) -> bytes:
        """Read, or write, what lies behind the disk's end. OSError."""
        node = self.node
        if not hasattr(node, "snapshots") or data is not None and node.readonly:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        from vmrun.backends.block.qcow2_snapshots import get_state, put_state

        with self.quiet():
            if data is None:
                return bytes(get_state(node, offset, count))
            put_state(node, offset, data)
        return b""

    def compressed(self, offset: int, data: bytes) -> None:
        """Write whole clusters so; where there is one already that is not compressed, it is an error. OSError."""
        from vmrun.backends.block.node import EXTENT_DATA

        node = self.node
        if not hasattr(node, "write_compressed"):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        if node.readonly or offset + len(data) > node.size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        cluster = node.cluster_size
        if offset % cluster or len(data) % cluster and offset + len(data) != node.size:
            raise Refused("write failed: Invalid argument")
        with self.quiet():
            for at in range(0, len(data), cluster):
                if node.extent(offset + at, 1)[1] & EXTENT_DATA:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                node.write_compressed(offset + at, data[at : at + cluster])

    def request(self, op: int, offset: int = 0, count: int = 0, data: bytes | None = None, flags: int = 0) -> bytes:
        """OSError."""
        from vmrun.backends.block.caller import Caller
        from vmrun.backends.block.drive import REQUEST_OWN

        caller = Caller(self.drive)
        caller.submit(op, offset, count, data, flags | REQUEST_OWN)
        _, error, found = caller.wait()
        if error:
            raise OSError(error, os.strerror(error))
        return bytes(found)


def _span(words: list[str], name: str, long: bool = False) -> tuple[int, int]:
    if len(words) != 2:
        raise Refused(usage(name))
    offset, count = number(words[0]), number(words[1])
    if count > MOST and name in ("readv", "rv", "writev", "wv", "aio_read", "aio_write"):
        raise Refused(f"Argument '{words[1]}' exceeds maximum size {MOST}")
    if offset < 0 or count < 0:
        which = words[0] if offset < 0 else words[1]
        raise Refused(f"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {which}")
    if count > MOST and not long:
        told = " without -n" if name in ("write", "w") else ""
        raise Refused(f"length cannot exceed {MOST}{told}, given {words[1]}")
    return offset, count


def _sectors(offset: int, count: int) -> None:
    for value, name in ((offset, "offset"), (count, "count")):
        if value % 512:
            raise Refused(f"{value} is not a sector-aligned value for '{name}'")


def _report(what: str, done: int, asked: int, offset: int, seconds: float, given: dict[str, str]) -> str:
    """What a transfer's end is told as: -q not at all, -C for programs."""
    if "q" in given:
        return ""
    seconds = max(seconds, 1e-9)
    if "C" in given:
        told = f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{seconds % 60:05.2f}"
        return f"{done},1,{told},{done / seconds:.3f},{1 / seconds:.3f}\n"
    rates = f"{amount(done / seconds)}/sec and {1 / seconds:.4f} ops/sec"
    first = f"{what} {done}/{asked} bytes at offset {offset}\n"
    return first + f"{amount(done)}, 1 ops; {seconds:05.2f} sec ({rates})\n"


def _pattern(text: str) -> int:
    try:
        value = int(text, 8 if text.startswith("0") and text.isdecimal() else 0)  # as C reads numbers
    except ValueError:
        value = -1
    if not 0 <= value <= 255:
        raise Refused(f"{text} is not a valid pattern byte")
    return value


def _read(io: Io, words: list[str], name: str) -> str:
    given, rest = _options(words, _READS.get(_WHOLE.get(name, name), "Cqv"), "Psl", name)
    if name in ("readv", "rv", "aio_read") and len(rest) > 2:
        rest = [rest[0], str(sum(number(word) for word in rest[1:]))]
    if "P" not in given and ("s" in given or "l" in given):
        raise Refused(usage(name))
    offset, count = _span(rest, name)
    if "b" in given:
        _sectors(offset, count)
    began, out = monotonic(), ""
    data = io.state(offset, count) if "b" in given else b"".join(_pieces(io, offset, count))
    spent = monotonic() - began
    if "P" in given:
        start = number(given.get("s") or "0")
        length = number(given["l"]) if "l" in given else count - start
        if start < 0 or length < 0 or start + length > count:
            raise Refused("pattern verification range exceeds end of read data")
        want = bytes([_pattern(given["P"])]) * length
        if data[start : start + length] != want:
            out += f"Pattern verification failed at offset {offset + start}, {length} bytes\n"
            io.failed = True
    if "v" in given:
        for at in range(0, count, 16):
            row = data[at : at + 16]
            text = "".join(chr(byte) if byte < 128 and chr(byte).isalnum() else "." for byte in row)
            out += f"{offset + at:08x}:  {' '.join(f'{byte:02x}' for byte in row)}  {text}\n"
    return out + _report("read", count, count, offset, spent, given)


def _pieces(io: Io, offset: int, count: int) -> list[bytes]:
    return [
        io.request(READ, at, min(PIECE, offset + count - at)) for at in range(offset, offset + count, PIECE)
    ]


def _write(io: Io, words: list[str], name: str) -> str:
    given, rest = _options(words, _WRITES.get(_WHOLE.get(name, name), "Cfq"), "Ps", name)
    if name in ("writev", "wv", "aio_write") and len(rest) > 2:
        rest = [rest[0], str(sum(number(word) for word in rest[1:]))]
    if "b" in given and "z" in given:
        raise Refused("-b and -z cannot be specified at the same time")
    if "f" in given and ("b" in given or "c" in given):
        raise Refused("-f and -b or -c cannot be specified at the same time")
    if "n" in given and "z" not in given:
        raise Refused("-n requires -z to be specified")
    offset, count = _span(rest, name, "n" in given)
    if "b" in given or "c" in given:
        _sectors(offset, count)
    if "z" in given and "P" in given:
        raise Refused("Only one of -z, -P, and -s can be specified at the same time")
    if "u" in given and "z" not in given:
        raise Refused("-u requires -z to be specified")
    if "s" in given and ("z" in given or "P" in given):
        raise Refused("Only one of -z, -P, and -s can be specified at the same time")
    data = _contents(given["s"], count) if "s" in given else bytes([_pattern(given["P"]) if "P" in given else 0xCD])
    fua = 1 if "f" in given else 0
    began = monotonic()
    if "b" in given:
        io.state(offset, count, _repeated(data, 0, count))
    elif "c" in given and "z" not in given:
        io.compressed(offset, _repeated(data, 0, count))
    elif "z" in given:
        io.request(ZERO, offset, count, None, fua | (2 if "u" in given else 0))
    else:
        for at in range(offset, offset + count, PIECE):
            io.request(WRITE, at, 0, _repeated(data, at - offset, min(PIECE, offset + count - at)), fua)
    return _report("wrote", count, count, offset, monotonic() - began, given)


def _repeated(data: bytes, at: int, size: int) -> bytes:
    """`size` bytes from `at` on of what is the same over and over."""
    first = at % len(data)
    piece = data[first : first + size]
    return piece if len(piece) == size else (piece + data * (size // len(data) + 1))[:size]


def _contents(path: str, count: int) -> bytes:
    """What is written over and over: so much of the file as there is room for, it may have no end."""
    try:
        with open(path, "rb") as file:
            found = file.read(max(min(count, MOST), 1))
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}", True) from None
    if not found:
        raise Refused(f"{path}: file is empty")
    return found


def _discard(io: Io, words: list[str], name: str) -> str:
    given, rest = _options(words, "Cq", "", name)
    offset, count = _span(rest, name)
    began = monotonic()
    io.request(DISCARD, offset, count)
    return _report("discard", count, count, offset, monotonic() - began, given)


def _flush(io: Io, words: list[str], name: str) -> str:
    io.request(FLUSH)
    return ""


def _length(io: Io, words: list[str], name: str) -> str:
    return f"{amount(io.node.size)}\n"


def _truncate(io: Io, words: list[str], name: str) -> str:
    given, rest = _options(words, "", "m", name)
    if len(rest) != 1:
        raise Refused(usage(name))
    if io.node.driver == "qcow2" and number(rest[0]) % 512:
        raise Refused("The new size must be a multiple of 512", True)
    with io.quiet():
        io.node.truncate(number(rest[0]), given.get("m") or "off")
        io.drive.resized()
    return ""


def _extents(io: Io, offset: int, end: int) -> Any:
    """(start, length, whether the node has it) of each run."""
    pending = None
    while offset < end:
        length, flags, _ = io.node.extent(offset, end - offset)
        length = min(length, end - offset)
        here = bool(flags & 7)
        if pending is not None and pending[2] == here:
            pending = (pending[0], pending[1] + length, here)
        else:
            if pending is not None:
                yield pending
            pending = (offset, length, here)
        offset += length
    if pending is not None:
        yield pending


def _map(io: Io, words: list[str], name: str) -> str:
    return "".join(
        f"{amount(length)} (0x{length:x}) bytes {'    ' if here else 'not '}allocated at offset "
        f"{amount(start)} (0x{start:x})\n"
        for start, length, here in _extents(io, 0, io.node.size)
    )


def _alloc(io: Io, words: list[str], name: str) -> str:
    offset, count = number(words[0]), number(words[1]) if len(words) > 1 else 512
    count = max(0, min(count, io.node.size - offset))
    there = sum(length for _, length, here in _extents(io, offset, min(offset + count, io.node.size)) if here)
    return f"{there}/{count} bytes allocated at offset {amount(offset)}\n"


def _sleep(io: Io, words: list[str], name: str) -> str:
    sleep(min(number(words[0]), 60000) / 1000)
    return ""


def _debugged(io: Io) -> Any:
    """The blkdebug node at or below."""
    from vmrun.machine.blocks import graph

    return next((node for node in graph(io.node) if str(node.driver) == "blkdebug"), None)


def _break(io: Io, words: list[str], name: str) -> str:
    node = _debugged(io)
    if node is None:
        raise Refused("Could not set breakpoint: Operation not supported")
    try:
        node.add_break(words[0], words[1])
    except ValueError:
        raise Refused("Could not set breakpoint: No such file or directory") from None
    return ""


def _resume(io: Io, words: list[str], name: str) -> str:
    node = _debugged(io)
    if node is None:
        raise Refused("Could not resume request: Operation not supported")
    if not node.resume_tag(words[0] if words else ""):
        raise Refused("Could not resume request: No such file or directory")
    return ""


def _remove_break(io: Io, words: list[str], name: str) -> str:
    node = _debugged(io)
    if node is None:
        raise Refused(f"Could not remove breakpoint {words[0] if words else ''}: Operation not supported")
    if not node.resume_tag(words[0] if words else "", True):
        raise Refused(f"Could not remove breakpoint {words[0]}: No such file or directory")
    return ""


def _wait_break(io: Io, words: list[str], name: str, work: Any = None) -> str:
    node = _debugged(io)
    while node is not None and not node.waits(words[0] if words else "") and not (work is not None and work.ended):
        sleep(0.005)
    return ""


def _info(io: Io, words: list[str], name: str) -> str:
    out = f"format name: {io.node.driver}\n"
    node, below = io.node, io.node
    while below is not None and not hasattr(below, "snapshots"):
        node, below = below, next((child for role, child in below.children() if role == "file"), None)
    if below is not None:
        size = below.cluster_size
        span = size * (size // (16 if below.header.extended_l2 else 8))  # what a table is for
        out += f"cluster size: {amount(size)}\nvm state offset: {amount(-(-below.size // span) * span)}\n"
    elif str(node.driver) == "file":
        out += "cluster size: 0 bytes\nvm state offset: 0 bytes\n"
    return out


def usage(name: str) -> str:
    """How a command is said, for one that was not."""
    full = _WHOLE.get(name, name)
    return next(f"{row} -- {text}" for row, text in HELP if row.split()[0] == full)


def _help(io: Io, words: list[str], name: str) -> str:
    if not words:
        return "".join(f"{row} -- {text}\n" for row, text in HELP)
    if not any(row.split()[0] == words[0] for row, _ in HELP):
        raise Refused(f"command {words[0]} not found")
    return usage(words[0]) + "\n"


def _is(node: Any, way: list[str], key: str, value: str) -> bool:
    """Whether a node's child, by its roles, has that driver or name already."""
    for role in way:
        node = next((child for found, child in node.children() if found == role), None)
        if node is None:
            return False
    return value == str(node.driver if key == "driver" else node.name)


def _changes(io: Io, text: str) -> dict[str, Any]:
    """What of a node's options can be another than before, typed; hints on memory are among it."""
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.nodeoptions import COMMON, FORMATS, typed

    found = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        *way, last = key.split(".")
        if last in ("driver", "node-name") and _is(io.node, way, last, value):
            continue
        of = FORMATS.get(str(io.node.driver), {})
        kind = COMMON[key] if key == "read-only" else of.get(key.partition(".")[0])
        changes = "cache-" in key or key.partition(".")[0] in ("read-only", "lazy-refcounts", "overlap-check")
        if not changes and not key.startswith("pass-discard-") or kind is None:
            raise Refused(f"{io.program}Cannot change the option '{last}'", True)
        try:
            found[key] = typed(key, kind, value or "on")
        except ImageError as error:
            raise Refused(f"{io.program}{error.text}", True) from None
    return found


def _reopen(io: Io, words: list[str], name: str) -> str:
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.images import be_lazy, bound
    from vmrun.backends.block.nodeoptions import overlap_checks
    from vmrun.backends.block.reopening import reopen

    given, _ = _options(words, "rw", "co", name)
    options = _changes(io, given.get("o", ""))
    if "r" in given and "w" in given:
        raise Refused(f"{io.program}Only one -r/-w option may be given", True)
    if "read-only" in options:
        if "r" in given or "w" in given:
            raise Refused(f"{io.program}Cannot set both -r/-w and 'read-only'", True)
        given["r" if options["read-only"] else "w"] = ""
    if options.keys() - {"read-only"} and io.node.driver == "qcow2":
        with io.quiet():
            try:
                bound(io.node, options)
                io.node.overlap_checks = overlap_checks(options, io.node.overlap_checks)
                if "lazy-refcounts" in options:
                    be_lazy(io.node, options)
            except ImageError as error:
                raise Refused(f"{io.program}{error.text}", True) from None
    if "r" in given or "w" in given:
        with io.quiet():
            try:
                reopen(io.node, "r" in given)
            except ImageError as error:
                raise Refused(error.text) from None
            io.drive.resized()
    return ""


COMMANDS = {
    "aio_read": _read, "aio_write": _write, "alloc": _alloc, "break": _break, "discard": _discard, "d": _discard,
    "flush": _flush, "f": _flush, "help": _help, "info": _info, "i": _info, "length": _length, "l": _length,
    "map": _map, "read": _read, "r": _read, "readv": _read, "rv": _read, "remove_break": _remove_break,
    "reopen": _reopen, "resume": _resume, "sleep": _sleep, "truncate": _truncate, "t": _truncate,
    "wait_break": _wait_break, "write": _write, "w": _write, "writev": _write, "wv": _write,
}  # fmt: skip
# how many arguments there may be, options and all
_COUNTS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("read", "r", "readv", "rv", "write", "w", "writev", "wv", "discard", "d"), (2, None)),
    **dict.fromkeys(("aio_read", "aio_write"), (2, None)), **dict.fromkeys(("truncate", "t"), (1, 3)),
    **dict.fromkeys(("flush", "f", "info", "i", "length", "l", "map"), (0, 0)), "alloc": (1, 2), "break": (2, 2),
    **dict.fromkeys(("resume", "remove_break", "sleep", "wait_break"), (1, 1)),
}  # fmt: skip
HELP = (
    ("aio_flush", "completes all outstanding aio requests"),
    ("aio_read [-Ciqv] [-P pattern] off len [len..]", "asynchronously reads a number of bytes"),
    ("aio_write [-Cfiquz] [-P pattern] off len [len..]", "asynchronously writes a number of bytes"),
    ("alloc offset [count]", "checks if offset is allocated in the file"),
    ("break event tag", "sets a breakpoint on event and tags the stopped request as tag"),
    ("discard [-Cq] off len", "discards a number of bytes at a specified offset"),
    ("flush", "flush all in-core file state to disk"),
    ("help", "this list"),
    ("info", "prints information about the current file"),
    ("length", "gets the length of the current file"),
    ("map", "prints the allocated areas of a file"),
    ("open [-rsCnkU] [-t cache] [-d discard] [-o options] [path]", "open the file specified by path"),
    ("read [-abCqv] [-P pattern [-s off] [-l len]] off len", "reads a number of bytes at a specified offset"),
    ("readv [-Cqv] [-P pattern] off len [len..]", "reads a number of bytes at a specified offset"),
    ("remove_break tag", "remove a breakpoint by tag"),
    ("reopen [(-r|-w)] [-c cache] [-o options]", "reopens an image with new options"),
    ("resume tag", "resumes the request tagged as tag"),
    ("sleep", "waits for the given value in milliseconds"),
    ("truncate [-m prealloc_mode] off", "truncates the current file at the given offset"),
    ("wait_break tag", "waits for the suspension of a request"),
    ("write [-bcCfnquz] [-P pattern | -s source_file] off len", "writes a number of bytes at a specified offset"),
    ("writev [-Cfq] [-P pattern] off len [len..]", "writes a number of bytes at a specified offset"),
)


def command(machine: Any, name: str, line: list[str], by_device: bool = False) -> str | Callable[[Any], str]:
    """What one line does: its text, or what tells it, which may wait and wants a thread of its own and something that
    has `ended`. `by_device`: the name is a device's.
    """
    if by_device:
        device = next((machine.devices[part] for part in name.split("/") if part in machine.devices), None)
        drive = str(device.get_props().get("drive")) if device is not None else name
        if drive not in machine.board.drives:
            raise BuildError(f"Device '{name}' not found")
        io = Io(machine, drive, machine.board.drives[drive])
    else:
        io = Io(machine, name)
    if not line:
        return ""
    return work(io, line)


def work(io: Io, line: list[str]) -> str | Callable[[Any], str]:
    """One command on a node: its text, or what tells it. `io.failed` says whether it went wrong."""
    verb, rest = line[0], line[1:]
    if verb == "aio_flush":
        return lambda work: io.flush()
    act: Any = COMMANDS.get(verb)
    if act is None:
        io.failed = True
        return io.complain(f'command "{verb}" not found\n')

    def run(work: Any) -> Any:
        try:
            _counted(verb, len(rest))
            if act is _wait_break:
                return _wait_break(io, rest, verb, work)
            return act(io, rest, verb)
        except BadOption as error:
            io.failed = True
            return io.complain(f"{error}\n") + f"{usage(error.command)}\n"
        except Refused as error:
            io.failed = True
            return io.complain(f"{error}\n") if error.error else f"{error}\n"
        except OSError as error:
            io.failed = True
            code = errno.EIO if error.errno == errno.EINVAL else error.errno
            what = {"r": "read", "w": "write", "d": "discard", "aio_read": "readv"}.get(verb, verb)
            return f"{what} failed: {os.strerror(code or errno.EIO)}\n"

    if verb.startswith("aio_"):
        io.aside(run)
        return ""
    return run


def _counted(verb: str, count: int) -> None:
    least, most = _COUNTS.get(verb, (0, None))
    if least <= count and (most is None or count <= most):
        return
    wanted = f"at least {least}" if most is None else str(least) if least == most else f"between {least} and {most}"
    raise Refused(f"bad argument count {count} to {verb}, expected {wanted} arguments", True)
