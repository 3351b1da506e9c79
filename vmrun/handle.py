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

Both are ways to wait for one core, `vmrun.conversation`.
"""

from __future__ import annotations

from time import monotonic

from vmrun.conversation import Core, Ended, readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import re
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, TypeVar

    from vmrun.asyncscreen import AsyncScreen
    from vmrun.conversation import Operation, Pattern
    from vmrun.screen import Screen

    T = TypeVar("T")

START, ANSWER, EXPECT = 60.0, 30.0, 30.0  # seconds


def _listed(patterns: Pattern | Sequence[Pattern]) -> Sequence[Pattern]:
    return patterns if isinstance(patterns, list | tuple) else [patterns]  # type: ignore[list-item]


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
        """A machine file, or what would be in one, whose relative paths begin here; or QEMU's command line, a list of
        words. `options`: of `vmrun up`. Its console is what is on standard input and output there: `serial: stdio`.
        It ends with this process, whatever ends that. VmrunError with what it said when it does not start.
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
            for fd in readable(core.fds(), seconds):
                core.ready(fd)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def qmp(self, command: str, *, timeout: float = ANSWER, **arguments: Any) -> Any:
        """What the command returns; MonitorError with its words, and QEMU's class of error as `kind`. _ in the names of
        arguments stands for -.
        """
        return self._drive(self.core.ask(command, _arguments(arguments), timeout))

    execute = qmp  # as clients of vmrun.screen call it

    @property
    def screen(self) -> Screen:
        """What its display shows, to be read, waited for and typed to. Files of waits in vain go to its `artifacts`."""
        if self._screen is None:
            from vmrun.screen import Screen

            self._screen = Screen(self, self.name)
        return self._screen

    def wait_event(self, *names: str, timeout: float | None = EXPECT) -> dict[str, Any]:
        """The first such event, one that came already too."""
        return self._drive(self.core.event(names, timeout))

    def expect(
        self,
        pattern: Pattern | Sequence[Pattern],
        *,
        timeout: float | None = EXPECT,
        silence: float | None = None,
    ) -> int:
        """Until the console has said it; which of the patterns it was, the earliest. `timeout`: seconds, None for ever;
        `silence`: seconds that it may say nothing.
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
            loop.remove_reader(fd)  # first: what is read may be the end, and the number somebody else's then
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

    async def wait_event(self, *names: str, timeout: float | None = EXPECT) -> dict[str, Any]:
        return await self._drive(self.core.event(names, timeout))

    async def expect(
        self,
        pattern: Pattern | Sequence[Pattern],
        *,
        timeout: float | None = EXPECT,
        silence: float | None = None,
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
