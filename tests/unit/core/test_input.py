"""The user's hands: which device gets an event, and when it is sent."""

from __future__ import annotations

import pytest
from accel.api import DeviceLock

from vmrun.core.input import InputRouter, InputSink


class Sink(InputSink):
    def __init__(self, *kinds: str) -> None:
        self.kinds = frozenset(kinds)
        self.heard: list[tuple[object, ...]] = []
        self.ready = True

    def key(self, qcode: str, down: bool) -> None:
        self.heard.append(("key", qcode, down))

    def move(self, dx: int, dy: int) -> None:
        self.heard.append(("move", dx, dy))

    def position(self, x: int, y: int) -> None:
        self.heard.append(("position", x, y))

    def button(self, name: str, down: bool) -> None:
        self.heard.append(("button", name, down))

    def sync(self) -> None:
        self.heard.append(("sync",))

    def hungry(self) -> bool:
        return self.ready


@pytest.fixture
def router() -> InputRouter:
    return InputRouter(DeviceLock())


def test_an_event_goes_to_the_first_device_that_takes_its_kind(router: InputRouter) -> None:
    keyboard, mouse = Sink("key"), Sink("rel")
    router.add(keyboard)
    router.add(mouse)
    router.key("a", True)
    router.move(1, 2)
    assert keyboard.heard == [("key", "a", True)]
    assert mouse.heard == [("move", 1, 2)]


def test_a_device_that_is_activated_takes_over(router: InputRouter) -> None:
    mouse, tablet = Sink("rel"), Sink("abs")
    router.add(mouse)
    router.add(tablet)
    assert not router.absolute
    router.activate(tablet)
    assert router.absolute
    router.button("left", True)
    assert tablet.heard == [("button", "left", True)] and mouse.heard == []


def test_sync_reaches_those_that_got_something_once(router: InputRouter) -> None:
    keyboard, mouse = Sink("key"), Sink("rel")
    router.add(keyboard)
    router.add(mouse)
    router.move(1, 0)
    router.move(1, 0)
    router.sync()
    router.sync()
    assert mouse.heard.count(("sync",)) == 1 and keyboard.heard == []


def test_a_viewer_that_leaves_lets_go_of_everything(router: InputRouter) -> None:
    both = Sink("key", "rel")
    router.add(both)
    router.key("shift", True)
    router.key("a", True)
    router.button("left", True)
    both.heard.clear()
    router.release_all()
    assert both.heard == [("key", "a", False), ("key", "shift", False), ("button", "left", False), ("sync",)]


def test_positions_stay_on_the_screen(router: InputRouter) -> None:
    tablet = Sink("abs")
    router.add(tablet)
    router.position(-5, 1 << 20)
    assert tablet.heard == [("position", 0, 0x7FFF)]


def test_events_for_nobody_vanish(router: InputRouter) -> None:
    router.key("a", True)
    router.position(1, 1)
    router.sync()
    assert router.hungry()


def test_an_unknown_button_is_an_error(router: InputRouter) -> None:
    with pytest.raises(ValueError, match="no button"):
        router.button("middel", True)


def test_hungry_is_the_keyboards_word(router: InputRouter) -> None:
    keyboard = Sink("key")
    router.add(keyboard)
    keyboard.ready = False
    assert not router.hungry()


def test_a_removed_device_hears_nothing(router: InputRouter) -> None:
    keyboard = Sink("key")
    router.add(keyboard)
    router.remove(keyboard)
    router.key("a", True)
    assert keyboard.heard == []
