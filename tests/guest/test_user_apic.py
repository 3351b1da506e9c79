"""Local APICs: the kernel's and vmrun's own do the same for a guest, with more than one processor."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.guest import kernels
from tests.guest.machines import Guest
from tests.guest.test_direct_boot import EXIT, SERIAL

pytestmark = pytest.mark.guest
KVM = pytest.mark.kvm


@pytest.mark.parametrize(
    ("accel", "irqchip"),
    [
        pytest.param("kvm", "on", marks=KVM),
        pytest.param("kvm", "split", marks=KVM),
        pytest.param("kvm", "off", marks=KVM),
        ("soft", "on"),
    ],
)
def test_timers_start_up_interrupts_and_task_priority_work(accel: str, irqchip: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "kernel").write_bytes(kernels.apics())
    keys = {"machine": "pc-i440fx-2.0", "memory": "32MiB", "kernel": "kernel", "firmware": "none"}
    devices = SERIAL["devices"] + EXIT
    with Guest(
        tmp_path, accel, chardevs=SERIAL["chardevs"], devices=devices, kernel_irqchip=irqchip, cpus={"count": 2}, **keys
    ) as guest:
        assert guest.run_to_end() == "exit", guest.output("serial")
        assert guest.output("serial") == "TPAIBMR"


@KVM
@pytest.mark.parametrize("count", [2, 9])
def test_firmware_counts_processors_with_apics_of_vmruns_own(count: int, tmp_path: pathlib.Path) -> None:
    keys = {"machine": "pc-i440fx-2.0", "memory": "64MiB", "kernel_irqchip": "off", "cpus": {"count": count}}
    with Guest(tmp_path, "kvm", **keys) as guest:
        assert guest.run_until(lambda: "max supported" in guest.output()), guest.output()[-400:]
        found = re.search(r"Found (\d+) cpu", guest.output())
        assert found is not None and int(found[1]) == count


@KVM
def test_reset_with_apics_of_vmruns_own_starts_all_over(tmp_path: pathlib.Path) -> None:
    (tmp_path / "kernel").write_bytes(kernels.apics())
    keys = {"machine": "pc-i440fx-2.0", "memory": "32MiB", "kernel": "kernel", "firmware": "none", **SERIAL}
    with Guest(tmp_path, "kvm", kernel_irqchip="off", cpus={"count": 2}, **keys) as guest:
        assert guest.run_until(lambda: guest.output("serial").endswith("R")), guest.output("serial")
        guest.keep()
        guest.machine.ask(1, "host-qmp-system-reset")
        assert guest.run_until(lambda: guest.output("serial") == "TPAIBMR" * 2), guest.output("serial")
