"""Steps that QEMU's stub answers without having taken them."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from tests.soft.gdbqemu import Registers
from tests.soft.lockstep import Lockstep


def registers(rip: int, rcx: int = 5) -> Registers:
    return Registers((0, rcx, *[0] * 14, rip), 2, (0,) * 6, (0,) * 9, bytes(260))


class Stub:
    """A stub whose answers are given."""

    def __init__(self, code: bytes, answers: list[Registers]) -> None:
        self.bytes, self.answers, self.steps = code, answers, 0

    def code(self, rip: int) -> bytes:
        return self.bytes

    def step(self) -> None:
        self.steps += 1

    def registers(self) -> Registers:
        return self.answers[self.steps - 1]


def stepped(code: bytes, answers: list[Registers]) -> Any:
    both: Any = Lockstep.__new__(Lockstep)
    both.qemu, both.ahead, both.last = Stub(code, answers), deque(), registers(0x1000)
    both.step()
    return both


def test_a_step_that_was_not_taken_is_asked_for_again() -> None:
    both = stepped(b"\x90", [registers(0x1000), registers(0x1000), registers(0x1001)])
    assert (both.qemu.steps, both.ahead[0].after.rip) == (3, 0x1001)


@pytest.mark.parametrize(
    "code", [b"\xeb\xf0", b"\xe9\x00\xf0\xff\xff", b"\xff\xe0", b"\xff\x20", b"\xff\x00", b"\xff\xc9"]
)
def test_a_jump_that_was_not_taken_is_asked_for_again(code: bytes) -> None:
    both = stepped(code, [registers(0x1000), registers(0x2000)])
    assert (both.qemu.steps, both.ahead[0].after.rip) == (2, 0x2000)


@pytest.mark.parametrize("code", [b"\x74\xfe", b"\xe9\xfb\xff\xff\xff", b"\x0f\x84\xfa\xff\xff\xff", b"\xe3\xfe"])
def test_a_branch_to_itself_is_a_step(code: bytes) -> None:
    assert stepped(code, [registers(0x1000)]).qemu.steps == 1


def test_an_iteration_that_was_not_made_is_asked_for_again() -> None:
    answers = [registers(0x1000), registers(0x1000, 4), registers(0x1000, 4), registers(0x1002, 0)]
    both = stepped(b"\xf3\xa4", answers)
    assert (both.qemu.steps, both.last.general[1]) == (4, 0)


def test_a_jump_to_itself_is_a_step() -> None:
    assert stepped(b"\xeb\xfe", [registers(0x1000)]).qemu.steps == 1


def test_a_loop_to_itself_is_a_step() -> None:
    assert stepped(b"\xe2\xfe", [registers(0x1000, 4)]).qemu.steps == 1
