"""Machines for programs: start one, or take one that runs; talk to its serial console, its monitor, its power button.

    with vmrun.Machine.start("lab.yaml") as lab:
        lab.expect("login:", timeout=60)
        lab.sendline("root")
        lab.expect(r"# $")
        lab.powerdown()
        assert lab.wait(30).reason == "shutdown"

vmrun.AsyncMachine has the same methods, to be awaited. What is waited for is in the pexpect ways: `expect` takes a
pattern or several, returns which it was, and leaves `before`, `match` and `after`. A wait that ends in vain raises
WaitFailed, which says why: the guest is off, it crashed, a triple fault, silence, the deadline.

All of it is one core, Core, which knows no waiting: its operations are generators that say until when something may
come, and are resumed when it did or the time is over.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
from time import monotonic

from vmrun.errors import MonitorError, VmrunError
from vmrun.monitor import runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType
    from typing import Any, TypeVar

    from vmrun.asyncscreen import AsyncScreen
    from vmrun.screen import Screen

    T = TypeVar("T")
    Operation = Generator[float | None, None, T]
    Pattern = str | bytes | re.Pattern[str] | re.Pattern[bytes]

START, ANSWER, EXPECT = 60.0, 30.0, 30.0  # seconds
GUESTS = (0, 4, 5)  # exit codes of `vmrun up` that are about the guest (docs/cli.md)
KEPT = 1 << 20  # bytes of the console that nobody has asked for
MOST_EVENTS = 1000
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
        self.messages: Any = None  # a file with its standard error
        self.directory: Any = None  # of our own files
        self.path = ""
        self.line = b""
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
        self.directory = tempfile.TemporaryDirectory(prefix="vmrun-")
        where = self.directory.name
        ours, theirs = socket.socketpair()
        self.console = ours
        ours.setblocking(False)
        messages = self.messages = open(os.path.join(where, "messages"), "w+b")
        if command_line is not None:
            self.path = os.path.join(where, "qmp")
            program = [sys.executable, "-c", "import sys; from vmrun.cli.qemu import console; console()"]
            words = [*program, *command_line, "-qmp", f"unix:{self.path},server=on,wait=off"]
        else:
            if isinstance(what, dict):
                path = os.path.join(where, f"{what.get('name') or 'machine'}.json")
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(what, file)
                what = path
            words = [sys.executable, "-m", "vmrun", "up", "--quiet", *options, str(what)]
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
                self.console = console
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
        while self.qmp is not None and select.select((self.qmp,), (), (), 0)[0]:
            self._read_qmp()
        while self.console is not None and select.select((self.console,), (), (), 0)[0]:
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
            raise MonitorError(f"{self.name or 'the machine'} does not answer any more")
        self.number += 1
        request: dict[str, Any] = {"execute": command, "id": self.number}
        if arguments:
            request["arguments"] = arguments
        data = json.dumps(request).encode() + b"\n"
        deadline = monotonic() + timeout
        yield from self._write(self.qmp, data, deadline, f"the answer to {command}")
        while True:
            for answer in self.answers:
                if answer.get("id") == self.number:
                    self.answers.clear()
                    if "error" in answer:
                        raise MonitorError(str(answer["error"].get("desc", answer["error"])))
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

    def _write(self, peer: socket.socket, data: bytes, deadline: float, wanted: str) -> Operation[None]:
        while data:
            try:
                data = data[peer.send(data) :]
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
            raise MonitorError("this machine has no serial console here: give it `serial: stdio`")
        raw = data.encode() if isinstance(data, str) else data
        if self.process is not None:
            raw = raw.replace(b"\x01", b"\x01\x01")  # the terminal's escape
        yield from self._write(self.console, raw, monotonic() + timeout, "room to type")

    def expect(self, patterns: list[Pattern], timeout: float, silence: float | None) -> Operation[int]:
        compiled = [_compiled(pattern) for pattern in patterns]
        wanted = " or ".join(repr(one.pattern) for one in compiled)
        deadline = monotonic() + timeout
        self.heard = max(self.heard, monotonic()) if silence is not None else self.heard
        while True:
            first: tuple[int, int, re.Match[Any], Any] | None = None
            text = self.buffer.decode(errors="replace")
            for n, one in enumerate(compiled):
                source: Any = bytes(self.buffer) if isinstance(one.pattern, bytes) else text
                found = one.search(source)
                if found is not None and (first is None or found.start() < first[0]):
                    first = (found.start(), n, found, source)
            if first is not None:
                _, n, self.match, source = first
                self.before, self.after = source[: self.match.start()], self.match.group()
                end = source[: self.match.end()]
                del self.buffer[: len(end if isinstance(end, bytes) else end.encode(errors="replace"))]
                return n
            self._alive(wanted, deadline, silence)
            marks = [deadline] + ([self.heard + silence + 0.001] if silence is not None else [])
            yield min(marks)

    def event(self, names: tuple[str, ...], timeout: float) -> Operation[dict[str, Any]]:
        deadline = monotonic() + timeout
        while True:
            for message in self.events:
                if message["event"] in names:
                    self.events.remove(message)
                    return message
            if self.over or monotonic() > deadline:
                self._alive(" or ".join(names), deadline)
            yield deadline

    def ended(self, timeout: float | None) -> Operation[Ended]:
        deadline = None if timeout is None else monotonic() + timeout
        while not self.over:
            if deadline is not None and monotonic() > deadline:
                raise WaitFailed("the end of the machine", "deadline", "it still runs", self.seen())
            yield deadline
        code = self.process.returncode if self.process is not None else None
        reason = self.reason or ("killed" if code is not None and code < 0 else "failed" if code else "quit")
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


def _compiled(pattern: Pattern) -> re.Pattern[Any]:
    return re.compile(pattern) if isinstance(pattern, str | bytes) else pattern


def _listed(patterns: Pattern | list[Pattern]) -> list[Pattern]:
    return patterns if isinstance(patterns, list) else [patterns]


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in given.items()}


class _Looks:
    """What both kinds of machine show at once."""

    core: Core

    @property
    def name(self) -> str:
        """As the runtime directory calls it."""
        return self.core.name

    @property
    def pid(self) -> int:
        return self.core.pid

    @property
    def before(self) -> str | bytes:
        """What the console said before the last match of `expect`."""
        return self.core.before

    @property
    def after(self) -> str | bytes:
        """What matched."""
        return self.core.after

    @property
    def match(self) -> re.Match[Any] | None:
        return self.core.match

    @property
    def events(self) -> list[dict[str, Any]]:
        """Those that came and nobody waited for, the newest thousand."""
        return self.core.events


class Machine(_Looks):
    """A machine, and calls that wait. A context manager: it ends the machine that it began, and lets go of one that it
    took.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._screen: Screen | None = None

    @classmethod
    def start(
        cls,
        what: str | os.PathLike[str] | dict[str, Any] | None = None,
        *,
        command_line: Sequence[str] | None = None,
        options: Sequence[str] = (),
        timeout: float = START,
    ) -> Machine:
        """A machine file, or what would be in one; or QEMU's command line, a list of words. `options`: of `vmrun up`.
        Its console is what is on standard input and output there: `serial: stdio`. VmrunError with what it said when
        it does not start.
        """
        machine = cls(Core())
        try:
            machine.core.launch(what, command_line, options)
            machine._drive(machine.core.connect(timeout))
        except BaseException:
            machine.close()
            raise
        return machine

    @classmethod
    def attach(cls, name: str, timeout: float = ANSWER) -> Machine:
        """One that runs, of `vmrun up`: by its name or process number. MonitorError or BackendError."""
        machine = cls(Core())
        try:
            machine.core.take(name)
            machine._drive(machine.core._greet(timeout))
        except BaseException:
            machine.close()
            raise
        return machine

    def _drive(self, operation: Operation[T]) -> T:
        core = self.core
        while True:
            try:
                deadline = next(operation)
            except StopIteration as end:
                value: T = end.value
                return value
            seconds = None if deadline is None else max(0.0, deadline - monotonic())
            for fd in select.select(core.fds(), (), (), seconds)[0]:
                core.ready(fd)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def qmp(self, command: str, *, timeout: float = ANSWER, **arguments: Any) -> Any:
        """What the command returns; MonitorError with its words. _ in the names of arguments stands for -."""
        return self._drive(self.core.ask(command, _arguments(arguments), timeout))

    execute = qmp  # as clients of vmrun.screen call it

    @property
    def screen(self) -> Screen:
        """What its display shows, to be read, waited for and typed to. Files of waits in vain go to its `artifacts`."""
        if self._screen is None:
            from vmrun.screen import Screen

            self._screen = Screen(self, self.name)
        return self._screen

    def wait_event(self, *names: str, timeout: float = EXPECT) -> dict[str, Any]:
        """The first such event, one that came already too."""
        return self._drive(self.core.event(names, timeout))

    def expect(self, pattern: Pattern | list[Pattern], *, timeout: float = EXPECT, silence: float | None = None) -> int:
        """Until the console has said it; which of the patterns it was, the earliest. `silence`: seconds that it may say
        nothing.
        """
        return self._drive(self.core.expect(_listed(pattern), timeout, silence))

    def send(self, text: str | bytes, *, timeout: float = ANSWER) -> None:
        """Type on the console."""
        self._drive(self.core.send(text, timeout))

    def sendline(self, text: str = "", *, timeout: float = ANSWER) -> None:
        self.send(text + "\r", timeout=timeout)

    def status(self) -> str:
        """The run state: running, paused, suspended, …"""
        return str(self.qmp("query-status")["status"])

    def pause(self) -> None:
        """Hold processors and time."""
        self.qmp("stop")

    def resume(self) -> None:
        """Let it go on; wake a guest that sleeps."""
        self.qmp("system_wakeup" if self.status() == "suspended" else "cont")

    def reset(self) -> None:
        """The reset button."""
        self.qmp("system_reset")

    def powerdown(self) -> None:
        """The power button; what follows is the guest's affair."""
        self.qmp("system_powerdown")

    def quit(self, timeout: float = ANSWER) -> Ended:
        """End it at once, and wait until it has."""
        self.qmp("quit")
        return self.wait(timeout)

    def wait(self, timeout: float | None = None) -> Ended:
        """Until the machine has ended."""
        return self._drive(self.core.ended(timeout))

    def close(self) -> None:
        self.core.close()


class AsyncMachine(_Looks):
    """As Machine, for asyncio: `async with await AsyncMachine.start("lab.yaml") as lab: await lab.expect("login:")`.
    One call at a time.
    """

    def __init__(self, core: Core) -> None:
        import asyncio

        self.core = core
        self._turn = asyncio.Lock()
        self._screen: AsyncScreen | None = None

    @classmethod
    async def start(
        cls,
        what: str | os.PathLike[str] | dict[str, Any] | None = None,
        *,
        command_line: Sequence[str] | None = None,
        options: Sequence[str] = (),
        timeout: float = START,
    ) -> AsyncMachine:
        machine = cls(Core())
        try:
            machine.core.launch(what, command_line, options)
            await machine._drive(machine.core.connect(timeout))
        except BaseException:
            machine.core.close()
            raise
        return machine

    @classmethod
    async def attach(cls, name: str, timeout: float = ANSWER) -> AsyncMachine:
        machine = cls(Core())
        try:
            machine.core.take(name)
            await machine._drive(machine.core._greet(timeout))
        except BaseException:
            machine.core.close()
            raise
        return machine

    async def _drive(self, operation: Operation[T]) -> T:
        async with self._turn:
            while True:
                try:
                    deadline = next(operation)
                except StopIteration as end:
                    value: T = end.value
                    return value
                await self._something(deadline)

    async def _something(self, deadline: float | None) -> None:
        """Until something has come, or the time is over."""
        import asyncio

        loop, core = asyncio.get_running_loop(), self.core
        came: asyncio.Future[None] = loop.create_future()

        def ready(fd: int) -> None:
            core.ready(fd)
            if not came.done():
                came.set_result(None)

        fds = core.fds()
        for fd in fds:
            loop.add_reader(fd, ready, fd)
        try:
            await asyncio.wait_for(came, None if deadline is None else max(0.0, deadline - monotonic()))
        except TimeoutError:
            pass
        finally:
            for fd in fds:
                loop.remove_reader(fd)

    async def __aenter__(self) -> AsyncMachine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def qmp(self, command: str, *, timeout: float = ANSWER, **arguments: Any) -> Any:
        return await self._drive(self.core.ask(command, _arguments(arguments), timeout))

    @property
    def screen(self) -> AsyncScreen:
        """What its display shows, as Machine.screen; its calls are to be awaited."""
        if self._screen is None:
            from vmrun.asyncscreen import AsyncScreen

            self._screen = AsyncScreen(self)
        return self._screen

    async def wait_event(self, *names: str, timeout: float = EXPECT) -> dict[str, Any]:
        return await self._drive(self.core.event(names, timeout))

    async def expect(
        self, pattern: Pattern | list[Pattern], *, timeout: float = EXPECT, silence: float | None = None
    ) -> int:
        return await self._drive(self.core.expect(_listed(pattern), timeout, silence))

    async def send(self, text: str | bytes, *, timeout: float = ANSWER) -> None:
        await self._drive(self.core.send(text, timeout))

    async def sendline(self, text: str = "", *, timeout: float = ANSWER) -> None:
        await self.send(text + "\r", timeout=timeout)

    async def status(self) -> str:
        return str((await self.qmp("query-status"))["status"])

    async def pause(self) -> None:
        await self.qmp("stop")

    async def resume(self) -> None:
        await self.qmp("system_wakeup" if await self.status() == "suspended" else "cont")

    async def reset(self) -> None:
        await self.qmp("system_reset")

    async def powerdown(self) -> None:
        await self.qmp("system_powerdown")

    async def quit(self, timeout: float = ANSWER) -> Ended:
        await self.qmp("quit")
        return await self.wait(timeout)

    async def wait(self, timeout: float | None = None) -> Ended:
        return await self._drive(self.core.ended(timeout))

    async def close(self) -> None:
        """Ends the machine that it began: some seconds at most, without holding up other tasks."""
        import asyncio

        await asyncio.to_thread(self.core.close)
