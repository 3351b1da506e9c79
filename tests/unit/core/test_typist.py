"""The typist: one chord after the other, no faster than the guest reads, and never a key that repeats by accident."""

from __future__ import annotations

from typing import Any

from vmrun.core.keys import PATIENCE, Typist


class Time:
    """A loop whose time stands still until `run`."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Any]] = []
        self.now = 0.0

    def call_later(self, delay: float, call: Any) -> None:
        self.calls.append((self.now + delay, call))

    def run(self) -> None:
        while self.calls:
            self.now, call = self.calls.pop(0)
            call()


class Hands:
    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.deaf = False

    def key(self, name: str, down: bool) -> None:
        self.heard.append(name if down else f"-{name}")

    def sync(self) -> None:
        self.heard.append("sync")

    def unrepeated(self) -> None:
        self.heard.append("once")

    def hungry(self) -> bool:
        return not self.deaf


def typed(chords: list[list[str]], hold: float = 0.0) -> list[Any]:
    hands, time, ends = Hands(), Time(), []
    loop: Any = time
    Typist(hands, loop, chords, ends.append, hold)  # type: ignore[arg-type]
    time.run()
    assert ends == [""]
    return hands.heard


def test_a_key_that_is_not_held_is_let_go_before_anything_else_can_happen() -> None:
    assert typed([["shift", "a"], ["b"]]) == ["shift", "a", "-a", "-shift", "sync", "b", "-b", "sync"]


def test_a_key_that_is_held_for_a_moment_does_not_repeat() -> None:
    assert typed([["a"]], 0.1) == ["a", "once", "sync", "-a", "sync"]


def test_a_key_that_is_held_long_may_repeat() -> None:
    assert typed([["a"]], 2.0) == ["a", "sync", "-a", "sync"]


def test_a_guest_that_never_reads_ends_it() -> None:
    hands, time, ends = Hands(), Time(), []
    hands.deaf = True
    loop: Any = time
    Typist(hands, loop, [["a"]], ends.append)  # type: ignore[arg-type]
    time.run()
    assert ends == ["the guest does not read its keyboard"] and hands.heard == []
    assert abs(time.now - PATIENCE) < 1
