"""vmmouse by the commands that VMware's driver gives: names and numbers of open-vm-tools."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest
from accel.api import DeviceLock

from vmrun.bus.isa import IsaBus
from vmrun.core.input import InputRouter
from vmrun.devices.input.vmmouse import VmMouse
from vmrun.errors import BuildError, StateError

DATA, STATUS, COMMAND = 39, 40, 41
READ_ID, ABSOLUTE, RELATIVE, DISABLE = 0x45414552, 0x53424152, 0x4C455252, 0xF5


class Setup:
    def __init__(self) -> None:
        self.commands: dict[int, Any] = {}
        self.packets: list[Any] = []
        self.input = InputRouter(DeviceLock())
        mouse = types.SimpleNamespace(move=lambda *what: self.packets.append(what))
        devices = {
            "i8042": types.SimpleNamespace(chip=types.SimpleNamespace(mouse=mouse)),
            "vmport": types.SimpleNamespace(commands=self.commands),
        }
        platform: Any = types.SimpleNamespace(input=self.input, device=devices.__getitem__)
        self.device = VmMouse()
        self.device.parent_bus = IsaBus("isa.0", platform)
        self.device.realize(platform)
        self.device.reset()

    def ask(self, command: int, ebx: int = 0) -> tuple[int, ...]:
        registers = {"eax": 0x564D5868, "ebx": ebx, "ecx": command, "edx": 0x5658, "esi": 0, "edi": 0}
        eax = self.commands[command](registers)
        return (eax, *(registers[name] for name in ("ebx", "ecx", "edx")))

    def enable(self, how: int = ABSOLUTE) -> None:
        self.ask(COMMAND, READ_ID)
        assert self.ask(STATUS)[0] == 1
        assert self.ask(DATA, 1)[0] == 0x3442554A
        self.ask(COMMAND, how)


@pytest.fixture
def setup() -> Iterator[Setup]:
    yield Setup()


def test_a_mouse_that_nobody_enabled_says_so(setup: Setup) -> None:
    assert setup.ask(STATUS)[0] == 0xFFFF0000
    assert setup.input.taker("abs") is None


def test_a_driver_that_asks_for_positions_gets_them(setup: Setup) -> None:
    setup.enable()
    assert setup.input.absolute
    setup.input.position(0x7FFF, 0x1234)
    setup.input.button("left", True)
    setup.input.button("wheel-up", True)
    setup.input.sync()
    assert setup.packets == [(1, 0, 0, 0)]
    assert setup.ask(STATUS)[0] == 4
    assert setup.ask(DATA, 4) == (0x20, 0xFFFE, 0x2468, 0xFFFFFFFF)
    assert setup.ask(STATUS)[0] == 0


def test_a_driver_that_asks_for_movement_gets_it(setup: Setup) -> None:
    setup.enable(RELATIVE)
    assert not setup.input.absolute
    setup.input.move(-3, 5)
    setup.input.sync()
    assert setup.ask(DATA, 4) == (0x10000, 0xFFFFFFFD, 5, 0)


def test_a_driver_that_takes_too_much_is_out_of_step(setup: Setup) -> None:
    setup.enable()
    setup.ask(DATA, 4)
    assert setup.ask(STATUS)[0] >> 16 == 0xFFFF
    assert setup.input.taker("abs") is None


@pytest.mark.parametrize("end", [lambda setup: setup.ask(COMMAND, DISABLE), lambda setup: setup.device.reset()])
def test_a_disabled_mouse_leaves_the_pointer_to_others(setup: Setup, end: Any) -> None:
    setup.enable()
    end(setup)
    assert setup.input.sinks == []


def test_the_queue_does_not_grow_for_ever(setup: Setup) -> None:
    setup.enable()
    for n in range(1000):
        setup.input.position(n, n)
        setup.input.sync()
        setup.ask(COMMAND, READ_ID)
    assert setup.ask(STATUS)[0] == 1024


def test_a_saved_mouse_goes_on(setup: Setup) -> None:
    setup.enable()
    setup.input.position(1, 1)
    setup.input.sync()
    saved = setup.device.save()
    other = Setup()
    other.device.load(saved)
    assert other.input.absolute and other.ask(DATA, 4)[:3] == (0, 2, 2)
    with pytest.raises(StateError):
        other.device.load({**saved, "queue": bytes(5000)})


def test_without_the_port_it_is_not_there() -> None:
    def device(id: str) -> Any:
        if id == "vmport":
            raise BuildError("there is no device")
        return types.SimpleNamespace(chip=None)

    platform: Any = types.SimpleNamespace(input=InputRouter(DeviceLock()), device=device)
    mouse = VmMouse()
    mouse.parent_bus = IsaBus("isa.0", platform)
    mouse.realize(platform)
    assert platform.input.sinks == []
