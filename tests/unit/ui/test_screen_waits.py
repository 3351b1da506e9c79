"""Waiting for what a screen shows, with a monitor that is made up and a clock that is stepped."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from vmrun import screen as module
from vmrun.core.png import decode, encode
from vmrun.errors import MonitorError
from vmrun.screen import GONE, Picture, Screen, ScreenLost, ScreenTimeout

ROWS, COLUMNS = 4, 20


class Machine:
    """Shows one screen after the other, a step of the clock each; the last one stays. An entry is text, a picture, an
    event (a dict), or an error to raise.
    """

    def __init__(self, *shows: Any) -> None:
        self.shows = list(shows)
        self.events: list[dict[str, Any]] = []
        self.now: Any = ""
        self.typed = ""

    def execute(self, command: str, **arguments: Any) -> Any:
        if command == "x-type-text":
            self.typed += arguments["text"]
            return len(arguments["text"])
        if command == "screendump":
            width, height, pixels = self.now if isinstance(self.now, tuple) else (2, 1, bytes(6))
            pathlib.Path(arguments["filename"]).write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels)
            return {}
        assert command == "x-query-screen"
        if self.shows:
            self.now = self.shows.pop(0)
        while isinstance(self.now, dict):
            self.events.append(self.now)
            self.now = self.shows.pop(0) if self.shows else ""
        if isinstance(self.now, Exception):
            raise self.now
        if isinstance(self.now, tuple):
            width, height, pixels = self.now
            found = {"mode": "graphics", "width": width, "height": height, "rows": [], "attributes": []}
            return {**found, "print": hash(pixels)}
        lines = [line.ljust(COLUMNS) for line in self.now.split("\n")]
        lines += [" " * COLUMNS] * (ROWS - len(lines))
        return {"mode": "text", "width": COLUMNS, "height": ROWS, "rows": lines, "attributes": ["07" * COLUMNS] * ROWS}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", sleep)
    yield now


def event(name: str, **data: Any) -> dict[str, Any]:
    return {"event": name, "data": data}


def test_a_wait_ends_when_the_text_is_there(clock: list[float]) -> None:
    found = Screen(Machine("", "booting", "booting\nlogin: ")).wait_for("login:")
    assert found[0] == "login:"
    assert clock[0] < 101


def test_an_expression_gives_its_groups() -> None:
    found = Screen(Machine("", "Linux 6.1.0\nkvm")).wait_for(re.compile(r"Linux (\d+)\.(\d+)"))
    assert found.groups() == ("6", "1")


def test_a_text_that_is_broken_at_the_edge_is_found() -> None:
    Screen(Machine("0123456789abcdefghij\nklmno")).wait_for("hijkl", timeout=1)


def test_a_wait_for_nothing_more_ends() -> None:
    Screen(Machine("loading", "loading", "done")).wait_gone("loading", timeout=5)


def test_the_time_that_is_over_is_told_with_the_screen(tmp_path: pathlib.Path) -> None:
    screen = Screen(Machine("one", "two", "two\n three"), "my lab", str(tmp_path))
    with pytest.raises(ScreenTimeout) as caught:
        screen.wait_for("login:", timeout=3)
    error = caught.value
    assert error.why == "3 s are over, 3 of them without a change"
    assert str(error).splitlines()[:4] == [
        "error VR0950: waited in vain for 'login:': 3 s are over, 3 of them without a change",
        "the screen shows:",
        "  | two",
        "  |  three",
    ]
    assert error.exit_code == 1
    assert decode(pathlib.Path(error.picture).read_bytes()) == (2, 1, bytes(6))
    assert b"acTL\0\0\0\3" in pathlib.Path(error.strip).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"my_lab-screen.png", "my_lab-strip.png"}


def test_nothing_is_saved_unless_there_is_a_place_for_it(tmp_path: pathlib.Path) -> None:
    for place in ("", str(tmp_path / "missing")):
        with pytest.raises(ScreenTimeout) as caught:
            Screen(Machine("one"), artifacts=place).wait_for("two", timeout=1)
        assert (caught.value.picture, caught.value.strip) == ("", "")


def test_a_strip_keeps_the_last_pictures_alone(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ScreenTimeout) as caught:
        Screen(Machine(*map(str, range(100))), artifacts=str(tmp_path)).wait_for("login", timeout=20)
    assert b"acTL" + module.MOST_FRAMES.to_bytes(4, "big") in pathlib.Path(caught.value.strip).read_bytes()


def test_a_screen_that_stands_still_ends_a_wait_when_told_to(clock: list[float]) -> None:
    with pytest.raises(ScreenTimeout, match="nothing has changed for 5 s"):
        Screen(Machine("a", "b", "c")).wait_for("login", timeout=60, stalled=5)
    assert clock[0] < 107


@pytest.mark.parametrize(
    ("news", "why"),
    [
        (event("GUEST_PANICKED", action="run"), "the guest says that it crashed (panic)"),
        (event("TRIPLE_FAULT"), "the guest started anew after a triple fault"),
        (event("SHUTDOWN", guest=True, reason="guest-shutdown"), f"{GONE} (guest-shutdown)"),
        (MonitorError("/x: the machine closed the connection"), GONE),
    ],
)
def test_a_guest_that_cannot_get_there_ends_a_wait_at_once(news: Any, why: str, clock: list[float]) -> None:
    with pytest.raises(ScreenLost) as caught:
        Screen(Machine("Kernel panic", news, "Kernel panic")).wait_for("login:", timeout=60)
    assert caught.value.why == why
    assert caught.value.screen is not None
    assert caught.value.screen.text == "Kernel panic"
    assert clock[0] < 101


def test_what_happened_before_the_wait_does_not_end_it() -> None:
    machine = Machine("login:")
    machine.events.append(event("TRIPLE_FAULT"))
    Screen(machine).wait_for("login:", timeout=1)


def test_the_text_counts_even_when_the_guest_goes_at_the_same_time() -> None:
    Screen(Machine(event("SHUTDOWN"), "reboot: Power down")).wait_for("Power down", timeout=1)


def test_a_screen_that_stands_still_is_waited_for(clock: list[float]) -> None:
    text = Screen(Machine("a", "b", "c")).wait_still(2, timeout=60)
    assert text.text == "c"
    assert 102 <= clock[0] < 103


def test_a_screen_that_never_stands_still_is_told() -> None:
    with pytest.raises(ScreenTimeout, match="2 s without a change: 5 s are over"):
        Screen(Machine(*map(str, range(100)))).wait_still(2, timeout=5)


WHITE, GREY = b"\xff\xff\xff", b"\x80\x80\x80"
PICTURE = (4, 2, GREY * 3 + WHITE + GREY * 3 + WHITE)


def test_a_picture_is_waited_for(tmp_path: pathlib.Path, clock: list[float]) -> None:
    file = tmp_path / "wanted.png"
    file.write_bytes(encode(*PICTURE))
    Screen(Machine("text", (4, 2, GREY * 8), PICTURE)).wait_for_image(str(file))
    assert clock[0] < 101


def test_a_part_of_the_screen_is_enough(tmp_path: pathlib.Path) -> None:
    machine = Machine((4, 2, WHITE * 3 + WHITE + GREY * 3 + WHITE))
    Screen(machine).wait_for_image(Picture(*PICTURE), region=(3, 0, 1, 2), timeout=1)
    Screen(machine).wait_for_image(Picture(1, 2, WHITE * 2), region=(3, 0, 1, 2), timeout=1)
    with pytest.raises(ScreenTimeout):
        Screen(machine).wait_for_image(Picture(*PICTURE), region=(0, 0, 4, 2), timeout=1)


def test_some_pixels_may_differ() -> None:
    machine = Machine((4, 2, GREY * 8))
    Screen(machine).wait_for_image(Picture(*PICTURE), tolerance=0.25, timeout=1)
    with pytest.raises(ScreenTimeout, match=r"25\.0% of the pixels differ"):
        Screen(machine).wait_for_image(Picture(*PICTURE), tolerance=0.2, timeout=1)


def test_a_screen_of_another_size_is_another_picture() -> None:
    machine = Machine((2, 4, PICTURE[2]))
    with pytest.raises(ScreenTimeout, match=r"100\.0% of the pixels differ"):
        Screen(machine).wait_for_image(Picture(*PICTURE), timeout=1)
    with pytest.raises(ScreenTimeout, match=r"100\.0% of the pixels differ"):
        Screen(machine).wait_for_image(Picture(*PICTURE), region=(0, 0, 4, 2), timeout=1)


def test_a_region_outside_the_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not inside"):
        Screen(Machine(PICTURE)).wait_for_image(Picture(*PICTURE), region=(3, 0, 2, 1))


def test_text_is_typed_in_parts_that_a_monitor_takes() -> None:
    machine = Machine("")
    Screen(machine).type("x" * 600)
    assert machine.typed == "x" * 600


def test_a_screen_is_saved_as_a_picture(tmp_path: pathlib.Path) -> None:
    machine = Machine(PICTURE)
    Screen(machine).read()
    Screen(machine).save(str(tmp_path / "x.png"))
    assert decode((tmp_path / "x.png").read_bytes()) == PICTURE
