"""What every device of every board must keep: saving, loading, resetting, and answering any access at all."""

from __future__ import annotations

import gc
import os
import pathlib
import random

import pytest

from tests.board import Driven
from vmrun.errors import BackendError, StateError

TYPES = ["rhel6.3.0", "pc-i440fx-2.0"]
EXTRA = [
    {"id": "lpt", "driver": "isa-parallel", "chardev": "c1"},
    {"id": "dbg", "driver": "isa-debugcon", "iobase": 0x402, "chardev": "c2"},
    {"id": "exit", "driver": "isa-debug-exit"},
    {"id": "panic", "driver": "pvpanic"},
]
CHARDEVS = {"c1": {"type": "null"}, "c2": {"type": "null"}}


def still(state: dict[str, object]) -> dict[str, object]:
    """Without what goes on by itself."""
    return {name: value for name, value in state.items() if name not in ("time", "phase")}


def board(directory: pathlib.Path, machine: str) -> Driven:
    (directory / "disk.img").write_bytes(bytes(1 << 20))
    return Driven(
        directory,
        machine=machine,
        memory="64MiB",
        display="std",
        disks=["disk.img"],
        serial="null",
        devices=EXTRA,
        chardevs=CHARDEVS,
    )


@pytest.mark.parametrize("machine", TYPES)
def test_save_load_save_gives_the_same_state(machine: str, tmp_path: pathlib.Path) -> None:
    with board(tmp_path, machine) as pc:
        wrong = []
        for device in pc.machine.devices.values():
            state = device.save()
            if state:
                device.load(state)
                if still(device.save()) != still(state):
                    wrong.append(device.driver)
        assert wrong == []


@pytest.mark.parametrize("machine", TYPES)
def test_reset_gives_the_state_of_power_on(machine: str, tmp_path: pathlib.Path) -> None:
    # The clock and CMOS are on the battery; a master clear leaves a DMA channel's address and count (data sheet).
    kept = {"mc146818rtc", "i8257"}
    with board(tmp_path, machine) as pc:
        fresh = {name: device.save() for name, device in pc.machine.devices.items()}
        rng = random.Random(3)
        for _ in range(3000):
            port = rng.randrange(0x1000)
            if port not in (0xCF9, 0x92, 0x64):
                pc.port(port, rng.choice([1, 2, 4]), rng.getrandbits(32))
        pc.machine.cold_reset()
        wrong = [
            device.driver
            for name, device in pc.machine.devices.items()
            if device.save() != fresh[name] and device.driver not in kept
        ]
        assert wrong == []


@pytest.mark.parametrize("machine", TYPES)
def test_any_access_of_any_size_to_any_port_returns(machine: str, tmp_path: pathlib.Path) -> None:
    with board(tmp_path, machine) as pc:
        rng = random.Random(5)
        for port in range(0x10000):
            for size in (1, 2, 4):
                value = pc.port(port, size)
                assert 0 <= value < 1 << (8 * size)
            pc.port(port, rng.choice([1, 2, 4]), rng.getrandbits(32))


@pytest.mark.parametrize("machine", TYPES)
def test_any_access_to_device_memory_returns(machine: str, tmp_path: pathlib.Path) -> None:
    with board(tmp_path, machine) as pc:
        rng = random.Random(6)
        for base in (0xA0000, 0xC0000, 0xFEC00000, 0xFED00000, 0xFEE00000, 0xFFFFFF00, 0xFFFFFFFFFFFFFFF0):
            for _ in range(500):
                addr = base + rng.randrange(0x1000 if base < 0xFFFFFF00 else 8)
                size = rng.choice([1, 2, 4, 8])
                with pc.board.lock:
                    assert 0 <= pc.board.memory.read(addr, size) < 1 << (8 * size)
                    pc.board.memory.write(addr, size, rng.getrandbits(8 * size))


@pytest.mark.parametrize("machine", TYPES)
def test_bad_state_is_refused_and_changes_nothing(machine: str, tmp_path: pathlib.Path) -> None:
    with board(tmp_path, machine) as pc:
        for device in pc.machine.devices.values():
            before = device.save()
            for name in before:
                broken = {**before, name: object()}
                with pytest.raises(StateError):
                    device.load(broken)
                assert still(device.save()) == still(before), f"{device.driver}.{name}"


def test_a_build_that_fails_leaves_nothing_open(tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"")
    gc.collect()
    opened = set(os.listdir("/proc/self/fd"))
    with pytest.raises(BackendError):
        Driven(
            tmp_path,
            machine="rhel6.3.0",
            memory="64MiB",
            drives={"d": {"file": "disk.img", "format": "raw"}},
            devices=[{"id": "disk", "driver": "ide-drive", "bus": "ide.0", "drive": "d"}],
        )
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == opened
