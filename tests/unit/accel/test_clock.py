"""Clocks and timer queues."""

from __future__ import annotations

import time

import pytest
from accel.api import Notifier
from accel.clock import HostClock, PyTimer, SteppedClock, TimerQueue, VirtualClock
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


def test_virtual_time_begins_at_0_and_stands_still_until_started() -> None:
    clock = VirtualClock()
    assert clock.time() == clock.time() == 0


def test_virtual_time_stands_still_while_stopped_and_goes_on_from_there() -> None:
    clock = VirtualClock()
    clock.start()
    clock.start()
    time.sleep(0.001)
    clock.stop()
    clock.stop()
    stopped = clock.time()
    time.sleep(0.001)
    assert clock.time() == stopped > 0
    clock.start()
    assert stopped <= clock.time()


@pytest.mark.parametrize("running", [False, True])
def test_a_clock_can_be_set(running: bool) -> None:
    clock = VirtualClock()
    if running:
        clock.start()
    clock.set_time(1 << 40)
    assert 0 <= clock.time() - (1 << 40) < 1 << 33
    clock.stop()
    assert clock.time() >= 1 << 40


def test_the_host_clock_is_wall_time() -> None:
    before = time.time_ns()
    assert before <= HostClock().time() <= time.time_ns()


def test_timers_run_in_the_order_of_their_deadlines(clock: SteppedClock) -> None:
    queue = TimerQueue(clock)
    ran: list[int] = []
    timers = [PyTimer(queue, lambda n=n: ran.append(n)) for n in range(4)]  # type: ignore[misc]
    for n in (2, 0, 3, 1):
        timers[n].schedule(10 * n)
    assert queue.deadline() == 0
    clock.set_time(20)
    assert queue.run() == 3
    assert ran == [0, 1, 2]
    assert queue.deadline() == 30


def test_a_timer_runs_once_an_arming(clock: SteppedClock) -> None:
    queue = TimerQueue(clock)
    ran: list[int] = []
    timer = PyTimer(queue, lambda: ran.append(1))
    timer.schedule(5)
    timer.schedule(7)
    clock.set_time(100)
    queue.run()
    queue.run()
    assert ran == [1]
    assert timer.deadline == queue.deadline() == -1


def test_a_timer_in_the_past_is_due_at_once(clock: SteppedClock) -> None:
    queue = TimerQueue(clock)
    timer = PyTimer(queue, lambda: None)
    timer.schedule(-5)
    assert timer.deadline == 0
    assert queue.run() == 1


def test_a_timer_that_arms_itself_for_now_ends(clock: SteppedClock) -> None:
    queue = TimerQueue(clock)
    timer = PyTimer(queue, lambda: timer.schedule(0))
    timer.schedule(0)
    assert queue.run() > 0


def test_a_timer_that_is_dropped_is_not_in_the_queue(clock: SteppedClock) -> None:
    queue = TimerQueue(clock)
    timers = [PyTimer(queue, lambda: None) for _ in range(100)]
    for n, timer in enumerate(timers):
        timer.schedule(n)
    del timers[::2]
    del timer
    assert queue.deadline() == 1
    clock.set_time(1000)
    assert queue.run() == 50


def signalled(notifier: Notifier) -> bool:
    import os

    try:
        return bool(os.read(notifier.fileno(), 8))
    except BlockingIOError:
        return False


def test_a_new_first_timer_tells_whoever_runs_them(clock: SteppedClock) -> None:
    notifier = Notifier()
    queue = TimerQueue(clock, notifier)
    first, second, third = (PyTimer(queue, lambda: None) for _ in range(3))
    first.schedule(50)
    assert signalled(notifier)
    second.schedule(60)
    assert not signalled(notifier)
    third.schedule(40)
    assert signalled(notifier)


def test_a_clock_that_starts_tells_whoever_runs_its_timers() -> None:
    clock, notifier = VirtualClock(), Notifier()
    TimerQueue(clock).drive(notifier)
    clock.start()
    assert signalled(notifier)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 50)), max_size=60))
def test_any_arming_and_stopping_is_what_a_sorted_list_would_give(steps: list[tuple[int, int]]) -> None:
    clock = SteppedClock()
    queue = TimerQueue(clock)
    ran: list[int] = []
    timers = [PyTimer(queue, lambda n=n: ran.append(n)) for n in range(10)]  # type: ignore[misc]
    model: dict[int, int] = {}
    for n, deadline in steps:
        if deadline < 0:
            timers[n].stop()
            model.pop(n, None)
        else:
            timers[n].schedule(deadline)
            model[n] = deadline
        assert queue.deadline() == min(model.values(), default=-1)
    clock.set_time(25)
    queue.run()
    assert [model[n] for n in ran] == sorted(deadline for deadline in model.values() if deadline <= 25)
    assert {n for n in range(10) if timers[n].deadline >= 0} == {n for n, deadline in model.items() if deadline > 25}
