"""One machine as a program has it: its process, its monitor, its console. `vmrun.handle` makes calls of it.

It knows no waiting: its operations are generators that say until when something may come, and are resumed when it did
or the time is over. Who gives one up leaves nothing half said.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
from time import monotonic

from vmrun.errors import MonitorError, VmrunError, refusal
from vmrun.monitor import runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")
    Operation = Generator[float | None, None, T]
    Pattern = str | bytes | re.Pattern[str] | re.Pattern[bytes]

GUESTS = (0, 4, 5)  # exit codes of `vmrun up` that are about the guest (docs/cli.md)
KEPT = 1 << 20  # bytes of the console that nobody has asked for
MOST_EVENTS = 1000
BROKEN = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, decoded
LAST_LINES = 10  # of the console, in messages


class WaitFailed(MonitorError):  # noqa: N818  # what happened, not what is wrong
    """`reason`: off, panic, triple-fault, silence or deadline. `seen`: what the console said and nobody has taken."""

    exit_code = 4

    def __init__(self, wanted: str, reason: str, words: str, seen: str) -> None:
        self.wanted, self.reason, self.seen = wanted, reason, seen
        lines = [f"waited in vain for {wanted}: {words}"]
        rows = seen.splitlines()[-LAST_LINES:]
        if rows:
            lines += ["the console says:", *(f"  | {row}" for row in rows)]
        super().__init__("\n".join(lines))


class Ended:
    """How a machine ended: `reason` (shutdown, quit, reset, panic, failed, killed), the program's exit `code` (None for
    one that somebody else started), what it wrote to standard error.
    """

    def __init__(self, reason: str, code: int | None, messages: str) -> None:
        self.reason, self.code, self.messages = reason, code, messages

    def __repr__(self) -> str:
        return f"Ended({self.reason!r}, {self.code!r})"


class Core:
    """One machine: its process, if it is ours, and its two sockets."""

    def __init__(self) -> None:
        self.name = ""
        self.pid = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.qmp: socket.socket | None = None
        self.console: socket.socket | None = None
        self.has_console = False
        self.messages: Any = None  # a file with its standard error
        self.directory: Any = None  # of our own files
        self.path = ""
        self.line = b""
        self.unsent = bytearray()  # of commands: what is begun is finished, or the next one would be read as its end
        self.answers: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.buffer = bytearray()
        self.heard = monotonic()  # when the console said something last
        self.number = 0
        self.over = False
        self.reason = ""  # of its end, as the events told
        self.faults = 0
        self.before: str | bytes = ""
        self.after: str | bytes = ""
        self.match: re.Match[Any] | None = None

    # --- beginnings ---------------------------------------------------------------------------------------------

    def launch(self, what: Any, command_line: Sequence[str] | None, options: Sequence[str]) -> None:
        """Begin the program; `connect` waits until it answers."""
        if command_line is None and what is None and "--restore" not in options:
            raise TypeError("a machine needs a file, a dict or a command line")
        if isinstance(command_line, str) or isinstance(options, str):
            raise TypeError("a command line is a list of words, not a string: shlex.split() makes one")
        if command_line is not None and (what is not None or options):
            raise TypeError("a machine is of a file or of a command line, not of both; `options` are of `vmrun up`")
        for word in {"-daemonize", "--daemonize", "--detach"}.intersection(command_line or options):
            raise VmrunError(f"{word} would leave its starter", remedy="start it yourself, and attach() to it")
        self.directory = tempfile.TemporaryDirectory(prefix="vmrun-")
        where = self.directory.name
        ours, theirs = socket.socketpair()
        self.console, self.has_console = ours, True
        ours.setblocking(False)
        messages = self.messages = open(os.path.join(where, "messages"), "w+b")
        if command_line is not None:
            self.path = os.path.join(where, "qmp")
            program = [sys.executable, "-c", "from vmrun.cli.bundle import run; run('vmrun.cli.qemu')"]
            words = [*program, *command_line, "-qmp", f"unix:{self.path},server=on,wait=off"]
            words += ["-run-with", "exit-with-parent=on"]
        else:
            words = [sys.executable, "-m", "vmrun", "up", "--quiet", "--with-parent", *options]
            if isinstance(what, dict):
                path = os.path.join(where, "machine.json")
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(what, file, default=os.fspath)
                words += ["--directory", os.getcwd(), path]
            elif what is not None:
                words.append(os.fspath(what))
        with theirs:
            self.process = subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=messages)
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def connect(self, timeout: float) -> Operation[None]:
        """Until its monitor answers."""
        deadline = monotonic() + timeout
        while self.qmp is None:
            if self.over and self.process is not None and self.process.returncode in GUESTS:
                return  # it ran, and is over before anybody could look
            if self.over:
                raise VmrunError(f"the machine did not start: {self.said() or 'it gave no reason'}")
            if monotonic() > deadline:
                raise VmrunError(f"the machine did not start in {timeout:g} seconds: {self.said()}")
            self._dial()
            if self.qmp is None:
                yield min(deadline, monotonic() + 0.02)
        yield from self._greet(deadline - monotonic())

    def _dial(self) -> None:
        path = self.path
        if not path:
            found = [one for one in runtime.running() if one.pid == self.pid]
            if not found:
                return
            path, self.name = found[0].path, found[0].name
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(path)
        except OSError:
            made.close()
            return
        made.setblocking(False)
        self.path, self.qmp = path, made

    def take(self, name: str) -> None:
        """One that runs, by its name or process number."""
        found = runtime.find(name)
        self.name, self.pid, self.path = found.name, found.pid, found.path
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            raise MonitorError(f"'{name}' has just ended") from None
        self._dial()
        if self.qmp is None:
            raise MonitorError(f"'{name}' does not answer on {self.path}")
        base = self.path.removesuffix(runtime.SUFFIX)
        where = os.path.dirname(base)
        for file in sorted(os.listdir(where)):
            path = os.path.join(where, file)
            if path.startswith(f"{base}.") and not path.endswith((runtime.SUFFIX, runtime.LOG)):
                console = socket.socket(socket.AF_UNIX)
                try:
                    console.connect(path)
                except OSError:
                    console.close()
                    continue
                console.setblocking(False)
                self.console, self.has_console = console, True
                return

    def _greet(self, seconds: float) -> Operation[None]:
        deadline = monotonic() + max(seconds, 1.0)
        while not self.answers:  # the greeting
            self._alive("the monitor's greeting", deadline)
            yield deadline
        self.answers.clear()
        yield from self.ask("qmp_capabilities", {}, max(seconds, 1.0))

    # --- what comes -----------------------------------------------------------------------------------------------

    def fds(self) -> list[int]:
        found = [one.fileno() for one in (self.qmp, self.console) if one is not None]
        return found + ([self.pidfd] if self.pidfd >= 0 and not self.over else [])

    def ready(self, fd: int) -> None:
        """Read what is there."""
        if self.qmp is not None and fd == self.qmp.fileno():
            self._read_qmp()
        elif self.console is not None and fd == self.console.fileno():
            self._read_console()
        elif fd == self.pidfd:
            self._end()

    def _receive(self, peer: socket.socket) -> bytes | None:
        try:
            return peer.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _read_qmp(self) -> None:
        assert self.qmp is not None
        data = self._receive(self.qmp)
        if data is None:
            return
        if not data:
            self.qmp.close()
            self.qmp = None
            return
        self.line += data
        *lines, self.line = self.line.split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if "event" in message:
                self._event(message)
            else:
                self.answers.append(message)

    def _event(self, message: dict[str, Any]) -> None:
        name, data = message["event"], message.get("data", {})
        self.events = [*self.events, message][-MOST_EVENTS:]
        if name == "GUEST_PANICKED":
            self.reason = "panic"
        elif name == "TRIPLE_FAULT":
            self.faults += 1
        elif name == "SHUTDOWN" and self.reason != "panic":
            self.reason = {"guest-shutdown": "shutdown", "guest-reset": "reset"}.get(data.get("reason"), "quit")

    def _read_console(self) -> None:
        assert self.console is not None
        data = self._receive(self.console)
        if data is None:
            return
        if not data:
            self.console.close()
            self.console = None
            return
        self.heard = monotonic()
        self.buffer += data
        if len(self.buffer) > KEPT:
            del self.buffer[: len(self.buffer) - KEPT]

    def _end(self) -> None:
        """The process has gone; what it said before is still to be read."""
        self.over = True
        if self.process is not None:
            self.process.wait()
        while self.qmp is not None and readable([self.qmp.fileno()], 0):
            self._read_qmp()
        while self.console is not None and readable([self.console.fileno()], 0):
            self._read_console()

    # --- operations -----------------------------------------------------------------------------------------------

    def said(self) -> str:
        """What the program wrote to standard error."""
        if self.messages is None:
            return ""
        self.messages.flush()
        self.messages.seek(0)
        return str(self.messages.read().decode(errors="replace").strip())

    def seen(self) -> str:
        return self.buffer.decode(errors="replace").replace("\r\n", "\n")

    def _alive(self, wanted: str, deadline: float | None, silence: float | None = None) -> None:
        """WaitFailed when there is nothing to wait for any more."""
        if self.reason == "panic":
            raise WaitFailed(wanted, "panic", "the guest crashed", self.seen())
        if self.over:
            words = "the guest is off"
            code = self.process.returncode if self.process is not None else None
            if code and (self.faults or "triple fault" in self.said()):
                raise WaitFailed(wanted, "triple-fault", "the guest ended in triple faults", self.seen())
            if code:
                words += f"; the machine ended with {code}: {self.said()}"
            raise WaitFailed(wanted, "off", words, self.seen())
        if silence is not None and monotonic() - self.heard > silence:
            raise WaitFailed(wanted, "silence", f"nothing for {silence:g} seconds", self.seen())
        if deadline is not None and monotonic() > deadline:
            more = f"; {self.faults} triple faults meanwhile" if self.faults else ""
            raise WaitFailed(wanted, "deadline", f"it did not come in time{more}", self.seen())

    def ask(self, command: str, arguments: dict[str, Any], timeout: float) -> Operation[Any]:
        if self.qmp is None:
            self._alive(f"the answer to {command}", None)
            raise MonitorError(f"{self.name or 'the machine'} does not answer any more")
        self.number += 1
        request: dict[str, Any] = {"execute": command, "id": self.number}
        if arguments:
            request["arguments"] = arguments
        self.unsent += json.dumps(request).encode() + b"\n"
        deadline = monotonic() + timeout
        yield from self._write(self.qmp, self.unsent, deadline, f"the answer to {command}")
        while True:
            for answer in self.answers:
                if answer.get("id") == self.number:
                    self.answers.clear()
                    if "error" in answer:
                        raise refusal(answer["error"])
                    return answer["return"]
            if self.qmp is None and command in ("quit", "qmp_capabilities"):
                return {}
            reason, self.reason = self.reason, ""  # a machine that crashed still answers
            try:
                self._alive(f"the answer to {command}", deadline)
            finally:
                self.reason = self.reason or reason
            if self.qmp is None:
                raise MonitorError(f"the machine closed its monitor instead of answering {command}")
            yield deadline

    def _write(self, peer: socket.socket, data: bytearray, deadline: float, wanted: str) -> Operation[None]:
        while data:
            try:
                del data[: peer.send(data)]
            except BlockingIOError:
                if monotonic() > deadline:
                    raise WaitFailed(wanted, "deadline", "the machine takes nothing", self.seen()) from None
                yield min(deadline, monotonic() + 0.02)
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                    raise
                raise MonitorError("the machine has closed this connection") from None

    def send(self, data: str | bytes, timeout: float) -> Operation[None]:
        if self.console is None:
            self._alive("room to type", None)
            raise self._speechless()
        raw = data.encode() if isinstance(data, str) else data
        if self.process is not None:
            raw = raw.replace(b"\x01", b"\x01\x01")  # the terminal's escape
        yield from self._write(self.console, bytearray(raw), monotonic() + timeout, "room to type")

    def _speechless(self) -> MonitorError:
        if self.has_console:
            return MonitorError("the machine has closed its console")
        return MonitorError("this machine has no serial console here", remedy="give it `serial: stdio`")

    def expect(self, patterns: Sequence[Pattern], timeout: float | None, silence: float | None) -> Operation[int]:
        compiled = [re.compile(pattern) for pattern in patterns]
        wanted = " or ".join(repr(one.pattern) for one in compiled)
        deadline = None if timeout is None else monotonic() + timeout
        if not self.has_console:
            raise self._speechless()
        self.heard = max(self.heard, monotonic()) if silence is not None else self.heard
        while True:
            first: tuple[int, int, re.Match[Any], Any] | None = None
            # What is no UTF-8 is one character for a byte in both, so that the text's places are the bytes'.
            exact = self.buffer.decode(errors="surrogateescape")
            text = BROKEN.sub("\N{REPLACEMENT CHARACTER}", exact)
            for n, one in enumerate(compiled):
                source: Any = bytes(self.buffer) if isinstance(one.pattern, bytes) else text
                found = one.search(source)
                if found is not None and (first is None or found.start() < first[0]):
                    first = (found.start(), n, found, source)
            if first is not None:
                _, n, self.match, source = first
                self.before, self.after = source[: self.match.start()], self.match.group()
                end = self.match.end()
                if isinstance(source, str):
                    end = len(exact[:end].encode(errors="surrogateescape"))
                del self.buffer[:end]
                return n
            self._alive(wanted, deadline, silence)
            marks = [] if deadline is None else [deadline]
            if silence is not None:
                marks.append(self.heard + silence + 0.001)
            yield min(marks, default=None)

    def event(self, names: tuple[str, ...], timeout: float | None) -> Operation[dict[str, Any]]:
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            for message in self.events:
                if message["event"] in names:
                    self.events.remove(message)
                    return message
            if self.over or (deadline is not None and monotonic() > deadline):
                self._alive(" or ".join(names), deadline)
            yield deadline

    def ended(self, timeout: float | None) -> Operation[Ended]:
        deadline = None if timeout is None else monotonic() + timeout
        while not self.over:
            if deadline is not None and monotonic() > deadline:
                raise WaitFailed("the end of the machine", "deadline", "it still runs", self.seen())
            yield deadline
        code = self.process.returncode if self.process is not None else None
        killed = code < 0 if code is not None else True  # a stranger's end has no code; a clean one told its reason
        reason = self.reason or ("killed" if killed else "failed" if code else "quit")
        if reason == "quit" and code:
            reason = "failed"
        return Ended(reason, code, self.said())

    def close(self) -> None:
        """Everything back; a machine that this began is ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for one in (self.qmp, self.console, self.messages):
            if one is not None:
                one.close()
        self.qmp = self.console = self.messages = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.over = True
        if self.directory is not None:
            self.directory.cleanup()
            self.directory = None


def readable(fds: list[int], seconds: float | None) -> list[int]:
    """Those of the descriptors, whatever their numbers, that have something or are at their end."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if seconds is None else math.ceil(seconds * 1000))]
