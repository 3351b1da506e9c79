"""A machine's screen for tests and scripts: read it, wait for it, type.

    with QmpClient(path) as qmp:
        screen = Screen(qmp, "lab")
        screen.wait_for("login:", timeout=60)
        screen.type("root\\n")
        screen.wait_for(re.compile(r"up \\d+ days"))
        screen.wait_for_image("desktop.png", region=(0, 0, 64, 64), tolerance=0.01)
        screen.wait_still(2)

A wait that ends in vain raises ScreenTimeout or ScreenLost, which say why, show what is on the screen, and have saved
it as a picture, with a strip of how it came to that (an animated PNG).
"""

from __future__ import annotations

import os
import re
import tempfile
import time

from vmrun.core.png import animate, decode, encode, pack
from vmrun.errors import MonitorError, VmrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Monitor(Protocol):
        """What is asked: vmrun.monitor.client.QmpClient, or what behaves like it."""

        @property
        def events(self) -> list[dict[str, Any]]: ...

        def execute(self, command: str, **arguments: Any) -> Any: ...


INTERVAL = 0.1  # seconds between looks
MOST_TYPED = 256  # characters in one command
MOST_FRAMES = 32  # of the strip
GONE = "the guest is off"


def type_all(monitor: Monitor, text: str, **more: str) -> None:
    """All of a text, as the machine has room for it."""
    while text:
        taken = monitor.execute("x-type-text", text=text[:MOST_TYPED], **more)
        text = text[taken:]
        if not taken:
            time.sleep(INTERVAL)


class ScreenError(MonitorError):
    """A wait that ended in vain. `why` in a few words; `screen` is what was seen last (None: nothing ever); `picture`
    and `strip` are files, "" where none could be saved.
    """

    exit_code = 1

    def __init__(self, wanted: str, why: str, screen: Text | None, picture: str, strip: str) -> None:
        self.wanted, self.why, self.screen, self.picture, self.strip = wanted, why, screen, picture, strip
        lines = [f"waited in vain for {wanted}: {why}"]
        if screen is not None and screen.text.strip():
            lines += ["the screen shows:", *(f"  | {row}" for row in screen.text.splitlines())]
        elif screen is not None:
            lines.append(f"the screen shows {screen.words}")
        lines += [f"{what}: {path}" for what, path in (("picture", picture), ("strip", strip)) if path]
        super().__init__("\n".join(lines))


class ScreenTimeout(ScreenError):
    """The time was over, or nothing had changed for too long."""


class ScreenLost(ScreenError):
    """The guest cannot get there any more: it is off, has crashed, or started anew after a triple fault."""


class Text:
    """A moment of the screen. `mode`: text, graphics, blank or none; `rows` of characters, of a picture too if it
    holds text in a known font (`font`); `cursor` is (row, column) or None.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self.mode: str = found["mode"]
        self.width: int = found["width"]
        self.height: int = found["height"]
        self.rows: list[str] = found["rows"]
        self.font: str = found.get("font", "")
        self.cursor: tuple[int, int] | None = tuple(found["cursor"]) if "cursor" in found else None
        self.seen = (self.mode, self.width, self.height, tuple(self.rows), tuple(found["attributes"]))
        self.print = (*self.seen, found.get("print"))

    @property
    def text(self) -> str:
        """Rows without trailing blanks, and without empty ones at the end."""
        return "\n".join(row.rstrip() for row in self.rows).rstrip("\n")

    @property
    def words(self) -> str:
        if self.mode == "text":
            return "nothing but blanks"
        return f"a picture of {self.width} x {self.height} pixels" if self.mode == "graphics" else "nothing"

    def find(self, wanted: str | re.Pattern[str]) -> re.Match[str] | None:
        """A string may be broken where a row ends."""
        if isinstance(wanted, re.Pattern):
            return wanted.search(self.text)
        pattern = re.compile(re.escape(wanted))
        return pattern.search(self.text) or pattern.search("".join(self.rows))


class Picture:
    """Pixels: red, green, blue, a byte each, line by line."""

    def __init__(self, width: int, height: int, pixels: bytes) -> None:
        self.width, self.height, self.pixels = width, height, pixels

    def part(self, x: int, y: int, width: int, height: int) -> Picture:
        """ValueError when it is not inside."""
        if min(x, y) < 0 or min(width, height) < 1 or x + width > self.width or y + height > self.height:
            raise ValueError(f"{width} x {height} pixels at {x},{y} are not inside {self.width} x {self.height}")
        lines = [self.pixels[3 * (line * self.width + x) :][: 3 * width] for line in range(y, y + height)]
        return Picture(width, height, b"".join(lines))

    def difference(self, other: Picture) -> float:
        """The share of pixels that are not the same: 0.0 to 1.0. Of another size: 1.0."""
        if (self.width, self.height) != (other.width, other.height):
            return 1.0
        wrong, size = 0, 3 * self.width
        for at in range(0, len(self.pixels), size):
            mine, theirs = self.pixels[at : at + size], other.pixels[at : at + size]
            if mine != theirs:
                wrong += sum(mine[n : n + 3] != theirs[n : n + 3] for n in range(0, size, 3))
        return wrong / (self.width * self.height)

    def png(self) -> bytes:
        return encode(self.width, self.height, self.pixels)


class Screen:
    """`monitor` talks to the machine `name`; what a wait in vain saves goes to `artifacts`, "" for none of it."""

    def __init__(self, monitor: Monitor, name: str = "machine", artifacts: str = "") -> None:
        self.monitor, self.name, self.artifacts = monitor, name, artifacts

    # --- looking ----------------------------------------------------------------------------------------------

    def read(self) -> Text:
        return Text(self.monitor.execute("x-query-screen"))

    @property
    def text(self) -> str:
        return self.read().text

    def picture(self) -> Picture:
        with tempfile.TemporaryDirectory(prefix="vmrun-") as directory:
            path = os.path.join(directory, "screen.ppm")
            self.monitor.execute("screendump", filename=path)
            with open(path, "rb") as file:
                _, size, _, pixels = file.read().split(b"\n", 3)
        width, height = map(int, size.split())
        return Picture(width, height, pixels)

    def save(self, path: str) -> None:
        """As a PNG."""
        picture = self.picture()
        with open(path, "wb") as file:
            file.write(picture.png())

    def type(self, text: str, layout: str = "") -> None:
        """On the keyboard, no faster than the guest reads it; `layout` is the guest's, when its file does not say."""
        more = {"layout": layout} if layout else {}
        type_all(self.monitor, text, **more)

    # --- waiting ----------------------------------------------------------------------------------------------

    def wait_for(
        self, wanted: str | re.Pattern[str], timeout: float = 60.0, *, stalled: float | None = None
    ) -> re.Match[str]:
        """Until the text is there. `stalled`: give up after so many seconds without any change, too."""
        shown = repr(wanted) if isinstance(wanted, str) else f"/{wanted.pattern}/"
        found: re.Match[str] = self._wait(shown, timeout, stalled, lambda text, since: text.find(wanted))
        return found

    def wait_gone(self, wanted: str | re.Pattern[str], timeout: float = 60.0) -> None:
        """Until the text is there no more."""
        self._wait(f"the end of {wanted!r}", timeout, None, lambda text, since: not text.find(wanted))

    def wait_for_image(
        self,
        image: str | Picture,
        region: tuple[int, int, int, int] | None = None,
        tolerance: float = 0.0,
        timeout: float = 60.0,
        *,
        stalled: float | None = None,
    ) -> None:
        """Until the screen looks like a PNG file: in `region` (x, y, width, height), or the whole of it. The file
        shows the region alone, or a whole screen. `tolerance`: the share of pixels that may differ.
        """
        shown = "a picture" if isinstance(image, Picture) else image
        if not isinstance(image, Picture):
            with open(image, "rb") as file:
                image = Picture(*decode(file.read()))
        target = image
        if region is not None and (image.width, image.height) != region[2:]:
            target = image.part(*region)
        seen: list[Any] = [None, 1.0]

        def look(text: Text, since: float) -> bool:
            if seen[0] != text.print:
                seen[0] = text.print
                picture = self.picture()
                try:
                    seen[1] = target.difference(picture.part(*region) if region is not None else picture)
                except ValueError:
                    seen[1] = 1.0  # a screen that the region is not inside of
            return bool(seen[1] <= tolerance)

        self._wait(shown, timeout, stalled, look, lambda: f"; {seen[1]:.1%} of the pixels differ")

    def wait_still(self, seconds: float = 2.0, timeout: float = 60.0) -> Text:
        """Until nothing has changed for so long: no character of a screen that holds text, no pixel of another. A
        cursor may blink.
        """
        last: list[Text] = []

        def look(text: Text, since: float) -> bool:
            last[:] = [text]
            return since >= seconds

        self._wait(f"{seconds:g} s without a change", timeout, None, look)
        return last[0]

    def _wait(
        self,
        wanted: str,
        timeout: float,
        stalled: float | None,
        look: Callable[[Text, float], Any],
        more: Callable[[], str] = lambda: "",
    ) -> Any:
        """`look(text, seconds since the last change)` until it is true."""
        began = changed = time.monotonic()
        strip = Strip()
        text: Text | None = None
        heard = len(self.monitor.events)
        while True:
            try:
                now_shown = self.read()
                moment = time.monotonic()
                if text is None or now_shown.print != text.print:
                    strip.add(self.picture(), moment)
                if text is None or _moved(text, now_shown):
                    changed = moment
                text = now_shown
                found = look(text, moment - changed)
            except VmrunError as error:
                lost = _lost(self.monitor.events[heard:]) or (GONE if "closed" in str(error) else str(error))
                raise ScreenLost(wanted, lost, text, *strip.save(self.artifacts, self.name)) from None
            if found:
                return found
            lost = _lost(self.monitor.events[heard:])
            if lost:
                raise ScreenLost(wanted, lost, text, *strip.save(self.artifacts, self.name))
            why = ""
            if moment - began >= timeout:
                why = f"{timeout:g} s are over, {moment - changed:.0f} of them without a change{more()}"
            elif stalled is not None and moment - changed >= stalled:
                why = f"nothing has changed for {stalled:g} s{more()}"
            if why:
                raise ScreenTimeout(wanted, why, text, *strip.save(self.artifacts, self.name))
            time.sleep(INTERVAL)


class Strip:
    """The last pictures that were different, as they followed one another."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes, float]] = []
        self.last: Picture | None = None

    def add(self, picture: Picture, moment: float) -> None:
        self.last = picture
        self.frames.append((picture.width, picture.height, pack(picture.width, picture.pixels), moment))
        del self.frames[:-MOST_FRAMES]

    def save(self, directory: str, name: str) -> tuple[str, str]:
        """Paths of the last picture and of the strip; "" where there is nothing to save, or no way to."""
        if self.last is None or not directory:
            return "", ""
        times = [*(frame[3] for frame in self.frames[1:]), self.frames[-1][3] + 1]
        frames = [(*frame[:3], end - frame[3]) for frame, end in zip(self.frames, times, strict=True)]
        base = os.path.join(directory, re.sub(r"[^\w.-]", "_", name))
        picture = _write(f"{base}-screen.png", self.last.png())
        return picture, _write(f"{base}-strip.png", animate(frames)) if len(frames) > 1 else ""


def _write(path: str, data: bytes) -> str:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError:
        return ""  # the wait's own error says more
    return path


def _moved(before: Text, now: Text) -> bool:
    """Whether the screen counts as changed: a cursor's blinking does not."""
    return before.seen != now.seen if before.rows and now.rows else before.print != now.print


def _lost(events: list[dict[str, Any]]) -> str:
    """Why the guest will not show what is waited for, by what its monitor told since; '' when it still may."""
    for event in events:
        name, data = event.get("event"), event.get("data", {})
        if name == "GUEST_PANICKED":
            return "the guest says that it crashed (panic)"
        if name == "TRIPLE_FAULT":
            return "the guest started anew after a triple fault"
        if name == "SHUTDOWN":
            return f"{GONE} ({data.get('reason', 'shutdown')})"
    return ""
