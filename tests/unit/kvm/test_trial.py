"""What doctor's trial of KVM finds is what happens."""

from __future__ import annotations

import pytest

from accel.kvm import trial
from accel.kvm.accelerator import KvmAccelerator

pytestmark = pytest.mark.kvm


def step(code: str, ecx: int = 0) -> tuple[tuple[str, str, int, int], ...]:
    return (("a nop", "90", 0, 0), ("this", code, ecx, 0))


def test_steps_that_work_leave_nothing_to_say() -> None:
    assert trial.take(KvmAccelerator, step("0fa2")) == ""


def test_a_step_that_raises_an_exception_is_named() -> None:
    assert trial.take(KvmAccelerator, step("31c0 f7f0")) == "this raises an exception that it should not"  # div by 0


def test_a_step_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE", 0.3)
    assert trial.take(KvmAccelerator, step("ebfe")) == "this never comes to an end"


def test_a_step_that_ends_the_guest_is_named_with_the_exit() -> None:
    # an empty IDT, then an invalid opcode: triple fault
    assert (
        trial.take(KvmAccelerator, step("4831c0 50 50 0f011c24 0f0b"))
        == "this ends the guest with SHUTDOWN (triple fault)"
    )


def test_a_step_that_the_processor_does_not_have_is_left_out() -> None:
    assert trial.take(KvmAccelerator, step("0f0b" * 3 + "cd05", ecx=0xFFFFFFFF)) == ""


def test_what_this_host_gives_up_on_is_the_same_each_time() -> None:
    names = [name for name, *_ in trial.STEPS]
    found = [trial.kernel_steps(KvmAccelerator).split("; ") for _ in range(2)]
    steps = [[part for part in parts if part.startswith(tuple(names))] for parts in found]
    assert steps[0] == steps[1]
    assert all(part.startswith((*names, "kernel code runs at")) for part in found[0] if part)


def test_a_slow_kvm_is_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "speed", lambda make: 500000.0)
    assert "kernel code runs at 0.5 million instructions a second" in trial.kernel_steps(KvmAccelerator)
    monkeypatch.setattr(trial, "speed", lambda make: 5e7)
    assert "kernel code" not in trial.kernel_steps(KvmAccelerator)


def test_the_speed_is_that_of_a_loop_that_ended() -> None:
    assert 1000 < trial.speed(KvmAccelerator) < 1e12
