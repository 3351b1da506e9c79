"""The state table, and what becomes of requests, on a machine without a processor."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from accel.api import Action
from accel.clock import VirtualClock

from tests.board import Driven
from vmrun.errors import StateError
from vmrun.machine import runstate


class Told:
    """The events of a machine, by name, with what came along."""

    def __init__(self, machine: Any) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        machine.listen(lambda name, **data: self.events.append((name, data)))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@pytest.fixture
def pc(tmp_path: pathlib.Path):
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB") as pc:
        pc.told = Told(pc.machine)  # type: ignore[attr-defined]
        yield pc


def ask(pc: Driven, *actions: int) -> None:
    for action in actions:
        pc.board.control.ask(action)
    pc.machine.loop.run_once(0)


def test_every_state_that_follows_another_has_a_row() -> None:
    assert {state for row in runstate.FOLLOWS.values() for state in row} == set(runstate.FOLLOWS)


def test_a_step_that_the_table_has_not_is_refused(pc: Driven) -> None:
    with pytest.raises(StateError, match="'prelaunch' cannot become 'postmigrate'"):
        pc.machine.go("postmigrate")
    assert pc.machine.state == "prelaunch"


def test_pausing_and_resuming_are_told(pc: Driven) -> None:
    pc.machine.resume()
    pc.machine.pause()
    assert pc.told.names == ["RESUME", "STOP"]  # type: ignore[attr-defined]


def test_each_listener_hears_every_event(pc: Driven) -> None:
    second = Told(pc.machine)
    pc.machine.resume()
    assert pc.told.names == second.names == ["RESUME"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", ["io-error", "watchdog", "guest-panicked", "paused"])
def test_a_machine_that_stopped_of_its_own_accord_goes_on_with_cont(pc: Driven, first: str) -> None:
    pc.machine.resume()
    pc.machine.pause(first)
    assert pc.machine.state == first
    assert pc.machine.resume()


def test_a_machine_that_is_over_needs_a_reset(pc: Driven) -> None:
    pc.machine.resume()
    pc.machine.pause("shutdown")
    assert not pc.machine.resume()
    pc.machine.reset()
    assert pc.machine.state == "prelaunch"
    assert pc.machine.resume()


def test_cont_while_a_state_comes_in_starts_it_when_it_is_there(pc: Driven) -> None:
    pc.machine.autostart = False
    pc.machine.go("inmigrate")
    assert not pc.machine.resume()
    assert pc.machine.autostart


def test_a_panic_and_a_reset_at_once_both_happen(pc: Driven) -> None:
    pc.machine.policy["panic"] = "none"
    pc.machine.resume()
    ask(pc, Action.PANIC | Action.RESET)
    assert pc.told.names == ["RESUME", "GUEST_PANICKED", "RESET"]  # type: ignore[attr-defined]
    assert pc.machine.running


def test_a_sleep_and_a_reset_at_once_both_happen(pc: Driven) -> None:
    pc.machine.resume()
    ask(pc, Action.SUSPEND, Action.RESET)
    assert pc.told.names == ["RESUME", "SUSPEND", "RESET"]  # type: ignore[attr-defined]
    assert pc.machine.running


def test_two_that_ask_for_a_reset_get_one(pc: Driven) -> None:
    pc.machine.resume()
    ask(pc, Action.RESET, Action.INIT)
    assert pc.told.names == ["RESUME", "RESET"]  # type: ignore[attr-defined]


def test_a_request_keeps_its_cause(pc: Driven) -> None:
    pc.machine.policy["shutdown"] = "pause"
    pc.machine.ask(Action.RESET, "host-qmp-system-reset")
    pc.board.control.ask(Action.SHUTDOWN)
    pc.machine.loop.run_once(0)
    told = dict(pc.told.events)  # type: ignore[attr-defined]
    assert told["RESET"] == {"guest": False, "reason": "host-qmp-system-reset"}
    assert told["SHUTDOWN"] == {"guest": True, "reason": "guest-shutdown"}


def test_a_failed_disk_request_stops_the_machine(pc: Driven) -> None:
    pc.machine.resume()
    ask(pc, Action.IO_ERROR)
    assert pc.machine.state == "io-error"


@pytest.mark.parametrize(
    ("policy", "state", "events"),
    [
        ("reset", "running", ["WATCHDOG", "RESET"]),
        ("pause", "watchdog", ["WATCHDOG", "STOP"]),
        ("shutdown", "running", ["WATCHDOG", "POWERDOWN"]),
        ("none", "running", ["WATCHDOG"]),
        ("inject-nmi", "running", ["WATCHDOG"]),
        ("poweroff", "shutdown", ["WATCHDOG"]),
    ],
)
def test_what_a_watchdog_does_can_be_chosen(pc: Driven, policy: str, state: str, events: list[str]) -> None:
    pc.machine.policy["watchdog"] = policy
    pc.machine.resume()
    ask(pc, Action.WATCHDOG)
    assert pc.machine.state == state
    assert pc.told.names == ["RESUME", *events]  # type: ignore[attr-defined]


def test_virtual_time_stands_still_in_a_pause_and_goes_on_in_sleep(pc: Driven) -> None:
    pc.board.virtual = VirtualClock()
    pc.machine.resume()
    ask(pc, Action.SUSPEND)
    assert pc.machine.state == "suspended" and pc.board.virtual.running
    pc.machine.pause()
    assert pc.machine.state == "paused" and not pc.board.virtual.running
    assert not pc.machine.resume()
    assert pc.machine.state == "suspended" and pc.board.virtual.running


def test_cont_does_not_wake_a_guest(pc: Driven) -> None:
    pc.machine.resume()
    ask(pc, Action.SUSPEND)
    assert not pc.machine.resume()
    assert pc.machine.state == "suspended"


def test_a_guest_that_fell_asleep_while_the_machine_was_stopped_sleeps_when_it_goes_on(pc: Driven) -> None:
    pc.machine.resume()
    pc.machine.pause()
    ask(pc, Action.SUSPEND)
    assert pc.machine.state == "paused"
    pc.machine.resume()
    assert pc.machine.state == "suspended"


def test_a_reset_ends_a_sleep(pc: Driven) -> None:
    pc.machine.resume()
    ask(pc, Action.SUSPEND)
    ask(pc, Action.RESET)
    assert pc.machine.running and not pc.machine.asleep
