"""Runs by the clock of instructions: equal memory and registers at equal counts of instructions."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import pytest

from accel.errors import AccelFailure
from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.machines import Guest, write_machine
from vmrun.config.resolve import resolve_file
from vmrun.errors import AccelError
from vmrun.machine.builder import build
from vmrun.machine.snapshot import blocks

CLOCK: dict[str, Any] = {"clock": {"mode": "instructions"}, "rtc": {"base": "2026-01-02T03:04:05"}}


def digest(guest: Guest, count: int) -> tuple[str, int]:
    """Of memory and processors after `count` instructions of the first processor, and how many it has executed."""
    accelerator: Any = guest.machine.accelerator
    guest.machine.resume()
    guest.machine.pause()
    done = accelerator.vcpus[0].advance(count)
    hashed = hashlib.sha256()
    for block in blocks(guest.machine).values():
        hashed.update(bytes(block.read(0, block.size)))
    for n in range(len(accelerator.vcpus)):
        state = accelerator.save_vcpu(n)
        hashed.update(repr(sorted(state.items())).encode())
    return hashed.hexdigest(), done


def firmware(directory: pathlib.Path, translate: str, count: int) -> tuple[str, int]:
    with Guest(directory, "soft", machine="pc-i440fx-2.0", memory="32MiB", translate=translate, **CLOCK) as guest:
        return digest(guest, count)


def test_the_firmware_does_the_same_twice(tmp_path: pathlib.Path) -> None:
    assert firmware(tmp_path, "on", 6_000_000) == firmware(tmp_path, "on", 6_000_000)


@pytest.mark.parametrize("shift", [0, 3, 10])
def test_an_instruction_takes_two_to_the_shift_nanoseconds(shift: int, tmp_path: pathlib.Path) -> None:
    keys = {**CLOCK, "clock": {"mode": "instructions", "shift": shift}}
    with Guest(tmp_path, "soft", machine="pc-i440fx-2.0", memory="32MiB", **keys) as guest:
        accelerator: Any = guest.machine.accelerator
        for count in (50_000, 150_000):  # where the firmware does not rest yet: it never ran on its own
            done = accelerator.vcpus[0].advance(count)
            assert guest.machine.board.virtual.time() == done << shift


def test_without_sleep_the_next_timer_is_there_at_once(tmp_path: pathlib.Path) -> None:
    keys = {**CLOCK, "clock": {"mode": "instructions", "sleep": False}}
    boot = {"menu": True, "splash-time": 65535, "reboot-timeout": 65535}  # what the firmware waits for, in ms
    with Guest(tmp_path, "soft", machine="pc-i440fx-2.0", boot=boot, on={"reboot": "shutdown"}, **keys) as guest:
        assert guest.run_to_end() == "reset"
        assert guest.machine.board.virtual.time() > 131_000_000_000


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.parametrize(("cpus", "translate"), [(1, "on"), (1, "always"), (2, "on"), (2, "off")])
def test_a_kernel_does_the_same_twice(cpus: int, translate: str, tmp_path: pathlib.Path) -> None:
    initrd = initramfs(tmp_path)
    found = []
    for _ in range(2):
        with LinuxGuest(
            tmp_path, "soft", machine="pc-i440fx-2.0", cpus={"count": cpus}, kernel=kernel(), initrd=initrd,
            translate=translate, **CLOCK,
        ) as guest:
            found.append(digest(guest, 400_000_000))
            assert len(guest.console()) > 1000
    assert found[0] == found[1]


@pytest.mark.guest
@pytest.mark.slow
def test_a_kernel_boots_and_switches_off_by_it(tmp_path: pathlib.Path) -> None:
    with LinuxGuest(
        tmp_path, "soft", machine="pc-i440fx-2.0", cpus={"count": 2}, kernel=kernel(),
        initrd=initramfs(tmp_path, "busybox sleep 1; echo AFTER $(busybox date +%Y-%m-%d)"), **CLOCK,
    ) as guest:
        assert guest.run_to_end() == "shutdown"
        assert "AFTER 2026-01-02" in guest.console()
        assert not guest.complaints()


def test_only_soft_counts_instructions(tmp_path: pathlib.Path) -> None:
    path = write_machine(tmp_path, machine="pc-i440fx-2.0", accel="soft", **CLOCK)
    with pytest.raises((AccelError, AccelFailure), match="instructions"):
        build(resolve_file(str(path)).data, accel=["kvm"])
