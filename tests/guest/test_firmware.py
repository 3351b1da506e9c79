"""SeaBIOS on every machine type, with processors counted by the firmware itself."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.guest.machines import Guest

pytestmark = pytest.mark.guest


# One of each firmware image, kind of table and age; what sets the types between them apart is compared with QEMU's.
SPREAD = ["pc-0.10", "pc-1.3", "pc-i440fx-1.4", "pc-i440fx-2.0", "pc-i440fx-2.6", "pc-i440fx-5.1", "pc-i440fx-7.2"]


@pytest.mark.parametrize("name", [*SPREAD, "rhel6.0.0", "rhel6.6.0"])
def test_firmware_reaches_no_bootable_device(accel: str, name: str, tmp_path: pathlib.Path) -> None:
    with Guest(tmp_path, accel, machine=name, memory="128MiB", display="std") as guest:
        assert guest.run_until(lambda: "No bootable device" in guest.output()), guest.output()[-400:]
        assert guest.run_until(lambda: "No bootable device" in guest.screen(), 20), guest.screen()


@pytest.mark.parametrize("count", [1, 2, 8, 64, 255])
def test_firmware_counts_the_processors(accel: str, count: int, tmp_path: pathlib.Path) -> None:
    with Guest(tmp_path, accel, machine="rhel6.3.0", memory="128MiB", cpus={"count": count}) as guest:
        assert guest.run_until(lambda: "max supported" in guest.output()), guest.output()[-400:]
        found = re.search(r"Found (\d+) cpu", guest.output())
        assert found is not None
        assert int(found[1]) == count


@pytest.mark.parametrize("mode", ["split", "off"])
@pytest.mark.parametrize("name", ["rhel6.3.0", "pc-i440fx-2.0"])
def test_firmware_runs_with_vmruns_own_interrupt_controllers(
    accel: str, mode: str, name: str, tmp_path: pathlib.Path
) -> None:
    with Guest(tmp_path, accel, machine=name, memory="64MiB", kernel_irqchip=mode) as guest:
        assert guest.run_until(lambda: "No bootable device" in guest.output()), guest.output()[-400:]


def test_firmware_finds_the_memory_that_is_declared(accel: str, tmp_path: pathlib.Path) -> None:
    with Guest(tmp_path, accel, machine="rhel6.3.0", memory="1111MiB") as guest:
        reserved = f"- {1111 << 20:016x} = 2 RESERVED"
        assert guest.run_until(lambda: reserved in guest.output()), guest.output()[-400:]


def test_a_reset_by_the_guest_starts_the_firmware_again(accel: str, tmp_path: pathlib.Path) -> None:
    with Guest(tmp_path, accel, machine="pc-i440fx-2.0", memory="64MiB") as guest:
        assert guest.run_until(lambda: "No bootable device" in guest.output())
        guest.keep()
        guest.machine.board.io.write(0xCF9, 1, 2)
        action = guest.machine.board.io.write(0xCF9, 1, 6)
        guest.machine.board.control.ask(action)
        assert guest.run_until(lambda: guest.output().count("No bootable device") == 2)
