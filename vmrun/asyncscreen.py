"""A machine's screen for asyncio: vmrun.screen's calls, to be awaited.

    async with await vmrun.AsyncMachine.start("lab.yaml") as lab:
        await lab.screen.wait_for("login:")
        await lab.screen.type("root\\n")

Looking at pictures takes time, and waits lie between two looks: both happen in a thread, whose questions to the
machine are asked by the loop, one at a time with everybody else's.
"""

from __future__ import annotations

import asyncio
import threading

from vmrun.errors import MonitorError
from vmrun.screen import Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from typing import Any, TypeVar

    from vmrun.handle import AsyncMachine
    from vmrun.screen import Picture, Text

    T = TypeVar("T")


class Asker:
    """What Screen asks: from a thread, through the loop."""

    def __init__(self, machine: AsyncMachine, loop: asyncio.AbstractEventLoop) -> None:
        self.machine, self.loop = machine, loop
        self.given_up = threading.Event()

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.machine.events

    def execute(self, command: str, **arguments: Any) -> Any:
        if self.given_up.is_set():
            raise MonitorError("nobody waits for it any more")
        return asyncio.run_coroutine_threadsafe(self.machine.qmp(command, **arguments), self.loop).result()


class AsyncScreen:
    """As vmrun.screen.Screen; `text` is a call here. Files of waits in vain go to `artifacts`, "" for none of it."""

    def __init__(self, machine: AsyncMachine, artifacts: str = "") -> None:
        self.machine, self.artifacts = machine, artifacts

    async def _do(self, work: Callable[[Screen], T]) -> T:
        """In a thread; who is cancelled ends it at its next question."""
        asker = Asker(self.machine, asyncio.get_running_loop())
        screen = Screen(asker, self.machine.name, self.artifacts)
        try:
            return await asyncio.to_thread(work, screen)
        finally:
            asker.given_up.set()

    async def read(self) -> Text:
        return await self._do(Screen.read)

    async def text(self) -> str:
        return (await self.read()).text

    async def picture(self) -> Picture:
        return await self._do(Screen.picture)

    async def save(self, path: str) -> None:
        await self._do(lambda screen: screen.save(path))

    async def type(self, text: str, layout: str = "") -> None:
        await self._do(lambda screen: screen.type(text, layout))

    async def wait_for(
        self, wanted: str | re.Pattern[str], timeout: float = 60.0, *, stalled: float | None = None
    ) -> re.Match[str]:
        return await self._do(lambda screen: screen.wait_for(wanted, timeout, stalled=stalled))

    async def wait_gone(self, wanted: str | re.Pattern[str], timeout: float = 60.0) -> None:
        await self._do(lambda screen: screen.wait_gone(wanted, timeout))

    async def wait_for_image(
        self,
        image: str | Picture,
        region: tuple[int, int, int, int] | None = None,
        tolerance: float = 0.0,
        timeout: float = 60.0,
        *,
        stalled: float | None = None,
    ) -> None:
        await self._do(lambda screen: screen.wait_for_image(image, region, tolerance, timeout, stalled=stalled))

    async def wait_still(self, seconds: float = 2.0, timeout: float = 60.0) -> Text:
        return await self._do(lambda screen: screen.wait_still(seconds, timeout))
