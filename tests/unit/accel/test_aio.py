"""The I/O thread: descriptors, timers, completions, and taking them away while they are busy."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from accel.aio import IO_HANGUP, IO_READ, IO_WRITE, EventHandler, IoThread, PyCompletion, PyIoHandler
from accel.api import DeviceLock, IrqLine, set_callback_error_handler
from accel.clock import HostClock, PyTimer, TimerQueue, VirtualClock
from vmrun.devices.timer.i8254 import I8254

MS = 1_000_000


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


class Pipe:
    def __init__(self) -> None:
        self.out, self.into = os.pipe2(os.O_NONBLOCK)

    def put(self, data: bytes = b"x") -> None:
        os.write(self.into, data)

    def get(self, events: int = 0) -> None:
        os.read(self.out, 100)

    def close(self) -> None:
        os.close(self.out)
        os.close(self.into)


@pytest.fixture
def lock() -> DeviceLock:
    return DeviceLock()


@pytest.fixture
def io(lock: DeviceLock) -> Iterator[IoThread]:
    made = IoThread(lock)
    made.start()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def free_elsewhere(lock: DeviceLock) -> bool:
    """Whether another thread gets the lock now."""
    got = threading.Event()

    def take() -> None:
        with lock:
            got.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return got.wait(0.05)


# --- descriptors -----------------------------------------------------------------------------------------------------


def test_a_ready_descriptor_calls_its_handler(io: IoThread, pipe: Pipe) -> None:
    got: list[int] = []
    io.add(PyIoHandler(pipe.out, lambda events: (got.append(events), pipe.get())))
    pipe.put()
    until(lambda: got)
    assert got == [IO_READ]


@pytest.mark.parametrize("locked", [True, False])
def test_a_handler_has_the_device_lock_unless_it_says_otherwise(
    io: IoThread, lock: DeviceLock, pipe: Pipe, locked: bool
) -> None:
    got: list[bool] = []
    io.add(PyIoHandler(pipe.out, lambda events: (pipe.get(), got.append(free_elsewhere(lock))), IO_READ, locked))
    pipe.put()
    until(lambda: got)
    assert got[0] is not locked


def test_a_locked_handler_waits_for_the_lock(io: IoThread, lock: DeviceLock, pipe: Pipe) -> None:
    got: list[int] = []
    io.add(PyIoHandler(pipe.out, lambda events: (got.append(1), pipe.get())))
    with lock:
        pipe.put()
        time.sleep(0.02)
        assert got == []
    until(lambda: got)


@pytest.mark.parametrize("locked", [True, False])
def test_after_remove_no_call_comes(io: IoThread, pipe: Pipe, locked: bool) -> None:
    got: list[int] = []
    handler = PyIoHandler(pipe.out, lambda events: got.append(1), IO_READ, locked)  # it stays ready
    for _ in range(50):
        io.add(handler)
        pipe.put()
        until(lambda: got)
        io.remove(handler)
        got.clear()
        time.sleep(0.0005)
        assert got == []
        pipe.get()


def test_remove_waits_for_an_unlocked_call_that_is_under_way(io: IoThread, pipe: Pipe) -> None:
    steps: list[str] = []
    inside = threading.Event()

    def ready(events: int) -> None:
        inside.set()
        time.sleep(0.05)
        steps.append("called")

    handler = PyIoHandler(pipe.out, ready, IO_READ, False)
    io.add(handler)
    pipe.put()
    assert inside.wait(20)
    io.remove(handler)
    steps.append("removed")
    assert steps[:2] == ["called", "removed"]


def test_remove_with_the_device_lock_held_does_not_wait_for_who_wants_it(
    io: IoThread, lock: DeviceLock, pipe: Pipe
) -> None:
    got: list[int] = []
    handler = PyIoHandler(pipe.out, lambda events: got.append(1))
    io.add(handler)
    with lock:
        pipe.put()
        time.sleep(0.02)  # the thread waits for the lock by now
        io.remove(handler)
    time.sleep(0.02)
    assert got == []


@pytest.mark.parametrize("locked", [True, False])
def test_a_handler_may_remove_itself(io: IoThread, pipe: Pipe, locked: bool) -> None:
    got: list[int] = []
    handlers: list[PyIoHandler] = []

    def ready(events: int) -> None:
        got.append(1)
        io.remove(handlers.pop())

    handlers.append(PyIoHandler(pipe.out, ready, IO_READ, locked))
    io.add(handlers[0])
    pipe.put()
    until(lambda: not handlers)
    time.sleep(0.01)
    assert got == [1]


def test_a_slot_that_is_used_again_gets_no_stale_event(io: IoThread, lock: DeviceLock, pipe: Pipe) -> None:
    got: list[str] = []
    other = Pipe()
    first = PyIoHandler(pipe.out, lambda events: got.append("first"))
    io.add(first)
    with lock:
        pipe.put()
        time.sleep(0.02)
        io.remove(first)
        io.add(PyIoHandler(other.out, lambda events: got.append("second")))
    time.sleep(0.02)
    assert got == []
    other.close()


def test_back_pressure_stops_the_calls_and_the_wake_ups(io: IoThread, pipe: Pipe) -> None:
    got: list[int] = []
    handler = PyIoHandler(pipe.out, lambda events: (got.append(1), handler.set_events(0)))
    io.add(handler)
    pipe.put()
    until(lambda: got)
    time.sleep(0.01)
    before = io.wakeups
    time.sleep(0.02)
    assert (got, io.wakeups) == ([1], before)
    handler.set_events(IO_READ)
    until(lambda: len(got) == 2)


def test_a_peer_that_went_away_is_told_unasked(io: IoThread) -> None:
    out, into = os.pipe()
    got: list[int] = []
    handler = PyIoHandler(out, lambda events: (got.append(events), handler.set_events(0)))
    io.add(handler)
    os.close(into)
    until(lambda: got)
    assert got[0] & IO_HANGUP
    io.remove(handler)
    os.close(out)


def test_room_to_write_calls_the_handler(io: IoThread, pipe: Pipe) -> None:
    got: list[int] = []
    handler = PyIoHandler(pipe.into, lambda events: (got.append(events), handler.set_events(0)), IO_WRITE)
    io.add(handler)
    until(lambda: got)
    assert got == [IO_WRITE]


def test_a_regular_file_is_refused(io: IoThread, tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "file"), "w") as file, pytest.raises(PermissionError):
        io.add(PyIoHandler(file.fileno(), print))


def test_a_handler_can_be_added_once(io: IoThread, pipe: Pipe) -> None:
    handler = PyIoHandler(pipe.out, print)
    io.add(handler)
    with pytest.raises(ValueError, match="watched already"):
        io.add(handler)
    io.remove(handler)
    io.remove(handler)


def test_a_handler_that_raises_is_reported_and_the_thread_goes_on(io: IoThread, pipe: Pipe) -> None:
    told: list[str] = []
    set_callback_error_handler(lambda where, exc: told.append(str(exc)))
    calls: list[int] = []

    def ready(events: int) -> None:
        pipe.get()
        calls.append(1)
        raise RuntimeError("oops")

    io.add(PyIoHandler(pipe.out, ready))
    for n in range(3):
        pipe.put()
        until(lambda n=n: len(calls) > n)  # type: ignore[misc]
    until(lambda: told)
    set_callback_error_handler(None)
    assert told[0] == "oops"


def test_many_descriptors_come_and_go_while_all_are_busy(io: IoThread) -> None:
    pipes = [Pipe() for _ in range(40)]
    counts = [0] * 40

    def counter(n: int) -> Callable[[int], None]:
        def ready(events: int) -> None:
            counts[n] += 1

        return ready

    handlers = [PyIoHandler(pipe.out, counter(n), IO_READ, n % 2 == 0) for n, pipe in enumerate(pipes)]
    for pipe in pipes:
        pipe.put()
    for _ in range(10):
        for handler in handlers:
            io.add(handler)
        for handler in handlers[::3] + handlers[1::3] + handlers[2::3]:
            io.remove(handler)
    stopped = list(counts)
    time.sleep(0.01)
    assert counts == stopped
    for pipe in pipes:
        pipe.close()


def test_an_event_handler_clears_its_notifier(io: IoThread) -> None:
    handler = EventHandler()
    io.add(handler)
    before = io.wakeups
    handler.notifier.notify()
    until(lambda: io.wakeups > before)
    time.sleep(0.01)
    before = io.wakeups
    time.sleep(0.02)
    assert io.wakeups == before


# --- pause and close -------------------------------------------------------------------------------------------------


def test_a_paused_thread_calls_no_handler_and_forgets_none(io: IoThread, pipe: Pipe) -> None:
    got: list[int] = []
    io.add(PyIoHandler(pipe.out, lambda events: (got.append(1), pipe.get())))
    io.pause()
    pipe.put()
    time.sleep(0.01)
    before = io.wakeups
    time.sleep(0.02)
    assert (got, io.wakeups) == ([], before)
    io.resume()
    until(lambda: got)


def test_pause_waits_for_a_call_that_is_under_way(io: IoThread, pipe: Pipe) -> None:
    steps: list[str] = []
    inside = threading.Event()

    def ready(events: int) -> None:
        pipe.get()
        inside.set()
        time.sleep(0.05)
        steps.append("called")

    io.add(PyIoHandler(pipe.out, ready))
    pipe.put()
    assert inside.wait(20)
    io.pause()
    steps.append("paused")
    assert steps == ["called", "paused"]


def test_completions_go_on_while_handlers_are_held(io: IoThread) -> None:
    got: list[int] = []
    io.pause()
    completion = PyCompletion(lambda: got.append(1))  # the thread borrows it: who submits keeps it
    io.submit(completion)
    until(lambda: got)


def test_close_leaves_no_descriptor_and_no_thread(lock: DeviceLock) -> None:
    before = set(os.listdir("/proc/self/fd"))
    threads = len(os.listdir("/proc/self/task"))
    made = IoThread(lock)
    pipe = Pipe()
    made.add(PyIoHandler(pipe.out, print))
    made.start()
    made.close()
    made.close()
    pipe.close()
    del made
    until(lambda: len(os.listdir("/proc/self/task")) <= threads)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_thread_with_nothing_to_do_does_not_wake_up(io: IoThread) -> None:
    time.sleep(0.01)
    before = io.wakeups
    time.sleep(0.05)
    assert io.wakeups == before


# --- completions -----------------------------------------------------------------------------------------------------


def test_completions_run_in_order_with_the_lock_held(io: IoThread, lock: DeviceLock) -> None:
    got: list[object] = []
    done = [PyCompletion(lambda n=n: got.append(n)) for n in range(200)]  # type: ignore[misc]
    last = PyCompletion(lambda: got.append(free_elsewhere(lock)))
    with lock:
        for completion in [*done, last]:
            io.submit(completion)
        assert got == []
    until(lambda: len(got) > 200)
    assert got == [*range(200), False]


def test_one_that_is_posted_twice_completes_once(io: IoThread, lock: DeviceLock) -> None:
    got: list[int] = []
    completion = PyCompletion(lambda: got.append(1))
    with lock:
        io.submit(completion)
        io.submit(completion)
    until(lambda: got)
    time.sleep(0.01)
    assert got == [1]
    io.submit(completion)
    until(lambda: got == [1, 1])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_one_that_is_withdrawn_does_not_complete(io: IoThread, lock: DeviceLock, n: int) -> None:
    got: list[int] = []
    done = [PyCompletion(lambda n=n: got.append(n)) for n in range(3)]  # type: ignore[misc]
    with lock:
        for completion in done:
            io.submit(completion)
        io.withdraw(done[n])
        io.withdraw(done[n])
        io.submit(done[n])  # at the end of the line again
    until(lambda: len(got) == 3)
    assert got == [*[m for m in range(3) if m != n], n]


# --- timers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def timers(io: IoThread, clock: VirtualClock) -> TimerQueue:
    queue = TimerQueue(clock)
    io.add_timers(queue)
    return queue


def test_timers_run_with_the_lock_held(lock: DeviceLock, clock: VirtualClock, timers: TimerQueue) -> None:
    got: list[bool] = []
    timer = PyTimer(timers, lambda: got.append(free_elsewhere(lock)))
    clock.start()
    with lock:
        timer.schedule(clock.time() + MS)
    until(lambda: got)
    assert got == [False]


def test_a_timer_that_is_armed_before_the_others_wakes_the_thread(
    lock: DeviceLock, clock: VirtualClock, timers: TimerQueue
) -> None:
    got: list[str] = []
    late, soon = PyTimer(timers, lambda: got.append("late")), PyTimer(timers, lambda: got.append("soon"))
    clock.start()
    with lock:
        late.schedule(clock.time() + 3600_000 * MS)
    time.sleep(0.01)
    with lock:
        soon.schedule(clock.time() + MS)
    until(lambda: got)
    assert got == ["soon"]


def test_a_timer_that_is_armed_behind_the_first_wakes_nobody(
    io: IoThread, lock: DeviceLock, clock: VirtualClock, timers: TimerQueue
) -> None:
    first, other = PyTimer(timers, print), PyTimer(timers, print)
    clock.start()
    with lock:
        first.schedule(clock.time() + 3600_000 * MS)
    time.sleep(0.01)
    before = io.wakeups
    with lock:
        other.schedule(clock.time() + 7200_000 * MS)
    time.sleep(0.01)
    assert io.wakeups == before


def test_timers_of_a_clock_that_stands_still_wait_for_it(
    io: IoThread, lock: DeviceLock, clock: VirtualClock, timers: TimerQueue
) -> None:
    got: list[int] = []
    timer = PyTimer(timers, lambda: got.append(clock.time()))
    with lock:
        timer.schedule(2 * MS)
    time.sleep(0.01)
    before = io.wakeups
    time.sleep(0.02)
    assert (got, io.wakeups) == ([], before)
    with lock:
        clock.start()
    until(lambda: got)
    assert got[0] >= 2 * MS


def test_a_clock_that_is_set_forward_runs_what_is_due(
    lock: DeviceLock, clock: VirtualClock, timers: TimerQueue
) -> None:
    got: list[int] = []
    timer = PyTimer(timers, lambda: got.append(1))
    clock.start()
    with lock:
        timer.schedule(3600_000 * MS)
    time.sleep(0.01)
    with lock:
        clock.set_time(3600_000 * MS)
    until(lambda: got)


def test_no_tick_of_a_periodic_timer_is_lost_while_the_lock_is_held(
    lock: DeviceLock, clock: VirtualClock, timers: TimerQueue
) -> None:
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) < 40:
            timer.schedule(len(ticks) * MS)

    timer = PyTimer(timers, tick)
    with lock:
        timer.schedule(0)
        clock.start()
        time.sleep(0.05)
        now = clock.time()
    until(lambda: len(ticks) == 40)
    assert now > 40 * MS


def test_timers_keep_microseconds(lock: DeviceLock, clock: VirtualClock, timers: TimerQueue) -> None:
    """Each is late by less than the millisecond that a rounded time-out would cost, at least sometimes."""
    late: list[int] = []

    def fire() -> None:
        late.append(clock.time() - due[0])
        if len(late) < 50:
            due[0] = clock.time() + 200_000
            timer.schedule(due[0])

    timer = PyTimer(timers, fire)
    clock.start()
    with lock:
        due = [clock.time() + 200_000]
        timer.schedule(due[0])
    until(lambda: len(late) == 50)
    assert min(late) < MS // 2


def test_timers_of_the_wall_clock_run(io: IoThread, lock: DeviceLock) -> None:
    queue = TimerQueue(HostClock())
    io.add_timers(queue)
    got: list[int] = []
    timer = PyTimer(queue, lambda: got.append(1))
    with lock:
        timer.schedule(time.time_ns() + MS)
    until(lambda: got)


def test_timers_taken_away_do_not_run(io: IoThread, lock: DeviceLock, clock: VirtualClock, timers: TimerQueue) -> None:
    got: list[int] = []
    timer = PyTimer(timers, lambda: got.append(1))
    clock.start()
    with lock:
        timer.schedule(clock.time() + 5 * MS)
    io.remove_timers(timers)
    time.sleep(0.02)
    assert got == []


def test_timers_of_chips_run_while_python_is_busy(
    io: IoThread, lock: DeviceLock, clock: VirtualClock, timers: TimerQueue
) -> None:
    pit = I8254(clock, timers, IrqLine())
    with lock:
        for port, value in ((3, 0x34), (0, 0xA9), (0, 4)):  # counter 0 by 1193: 1 kHz
            pit.store(port, 1, value)
        clock.start()
    before, ran = io.wakeups, 0
    for _ in range(100):
        _ = 3**200_000  # holds Python's own lock to its end
        ran = io.wakeups - before
        if ran > 10:
            break
    assert ran > 10


def test_what_a_handler_submits_completes(io: IoThread, pipe: Pipe) -> None:
    got: list[str] = []
    completion = PyCompletion(lambda: got.append("completed"))

    def ready(events: int) -> None:
        pipe.get()
        io.submit(completion)
        got.append("ready")

    io.add(PyIoHandler(pipe.out, ready))
    for n in range(1, 4):
        pipe.put()
        until(lambda n=n: got == ["ready", "completed"] * n)  # type: ignore[misc]


def test_what_a_timer_submits_completes(
    io: IoThread, lock: DeviceLock, clock: VirtualClock, timers: TimerQueue
) -> None:
    got: list[int] = []
    completion = PyCompletion(lambda: got.append(1))
    timer = PyTimer(timers, lambda: io.submit(completion))
    with lock:
        clock.start()
        timer.schedule(clock.time() + MS)
    until(lambda: got == [1])


def test_threads_that_add_and_remove_at_once_have_each_their_own_place(lock: DeviceLock, io: IoThread) -> None:
    """Two that found the same free slot lost one descriptor's events for ever: a socket that nobody read."""
    missed: list[int] = []
    over = threading.Event()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def crowd() -> None:
        """Somebody has the mutex whenever it is wanted: the GIL goes to others meanwhile."""
        completion = PyCompletion(lambda: None)
        while not over.is_set():
            for _ in range(100):
                io.submit(completion)
        with lock:
            io.withdraw(completion)

    def work() -> None:
        for n in range(30):
            pipes = [Pipe() for _ in range(3)]
            seen = [threading.Event() for _ in pipes]
            handlers = [
                PyIoHandler(one.out, lambda events, one=one, event=event: (one.get(), event.set()))
                for one, event in zip(pipes, seen, strict=True)
            ]
            for handler in handlers:
                io.add(handler)
            for one in pipes:
                one.put()
            missed.extend(n for event in seen if not event.wait(20))
            for handler, one in zip(handlers, pipes, strict=True):
                io.remove(handler)
                one.close()
            if missed:
                return

    try:
        crowded = threading.Thread(target=crowd)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in (crowded, *threads):
            thread.start()
        for thread in threads:
            thread.join(60)
        over.set()
        crowded.join(60)
        assert not missed and not any(thread.is_alive() for thread in threads)
    finally:
        over.set()
        sys.setswitchinterval(before)


def test_what_wants_nothing_while_it_is_added_is_no_error(lock: DeviceLock, io: IoThread) -> None:
    """What comes at once and makes its handler want nothing more was taken for a descriptor that cannot be watched."""
    for _ in range(200):
        pipe = Pipe()
        pipe.put()
        handler = PyIoHandler(pipe.out, lambda events: handler.set_events(0))  # noqa: B023  it is this turn's
        io.add(handler)
        io.remove(handler)
        pipe.close()


def test_a_handler_that_removes_itself_and_others_lives_until_its_call_is_over(
    lock: DeviceLock, io: IoThread, pipe: Pipe
) -> None:
    """The last that was removed alone was kept: the one that was being called was freed in mid-call."""
    order: list[str] = []
    held: list[PyIoHandler] = []

    class Told(PyIoHandler):
        def __del__(self) -> None:
            order.append("freed")

    def ready(events: int) -> None:
        for handler in [*held]:
            io.remove(handler)
        held.clear()
        del handler
        order.append("over")

    other = Pipe()
    held[:] = Told(pipe.out, ready), PyIoHandler(other.out, other.get)
    for handler in held:
        io.add(handler)
    del handler
    pipe.put()
    until(lambda: "over" in order)
    assert order == ["over"]
    other.close()
