"""Debian's stock kernels on the soft processor: up to init and off again, without a complaint in the kernel's log.

Many boots in a row: `python -m tests.guest.boots --runs 20`.
"""

from __future__ import annotations

import pathlib

import pytest

from tests.guest.boots import boot, load

pytestmark = [pytest.mark.guest, pytest.mark.slow]
MACHINES = ("rhel6.3.0", "pc-i440fx-2.0")
PATIENCE = 400.0


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_cloud_kernel_boots_and_switches_off(machine: str, cpus: int, tmp_path: pathlib.Path) -> None:
    wrong, text = boot(tmp_path, machine, cpus, cloud=True, patience=PATIENCE)
    assert not wrong, text[-3000:]


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_cloud_kernel_boots_beside_two_busy_processes(machine: str, cpus: int, tmp_path: pathlib.Path) -> None:
    with load(2):
        wrong, text = boot(tmp_path, machine, cpus, cloud=True, patience=PATIENCE)
    assert not wrong, text[-3000:]


@pytest.mark.parametrize(("machine", "cpus"), [("rhel6.3.0", 4), ("pc-i440fx-2.0", 1)])
def test_the_generic_kernel_boots_and_switches_off(machine: str, cpus: int, tmp_path: pathlib.Path) -> None:
    wrong, text = boot(tmp_path, machine, cpus, cloud=False, patience=PATIENCE)
    assert not wrong, text[-3000:]
