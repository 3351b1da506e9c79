"""What guests ask of their machine, on each accelerator: small kernels that a machine without firmware starts."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.guest.machines import Guest
from tests.unit.firmware.kernels import elf

pytestmark = pytest.mark.guest

BASE = 0x200000
EXIT_FINE = "66ba0105 b000 ee f4"  # mov dx, 501h; mov al, 0; out dx, al; hlt


def kernel(directory: pathlib.Path, accel: str, code: str, **keys: Any) -> Guest:
    (directory / "kernel").write_bytes(elf([(BASE, bytes.fromhex(code), 4096)], bits=32, pvh=BASE))
    keys.setdefault("machine", "pc-i440fx-7.2")
    devices = [{"driver": "isa-debug-exit", "id": "exit"}, *keys.pop("devices", [])]
    return Guest(
        directory, accel, memory="32MiB", kernel=str(directory / "kernel"), firmware="none", devices=devices, **keys
    )


def test_vmport_answers_a_real_guest(accel: str, tmp_path: pathlib.Path) -> None:
    # eax = magic; ecx = 10 (version); in eax, 5658h; then eax and the low bytes of ebx and ecx to the debug console
    code = "b868584d56 b90a000000 66ba5856 ed 66ba0204 ee 88d8 ee 88c8 ee" + EXIT_FINE
    with kernel(tmp_path, accel, code) as guest:
        assert guest.run_to_end() == "exit"
        assert guest.output() == "\x06\x68\x02"


def test_vmport_leaves_a_guest_alone_that_does_not_say_the_magic_word(accel: str, tmp_path: pathlib.Path) -> None:
    code = "b811111111 b90a000000 bb22000000 66ba5856 ed 66ba0204 ee 88d8 ee 88c8 ee" + EXIT_FINE
    with kernel(tmp_path, accel, code) as guest:
        assert guest.run_to_end() == "exit"
        assert guest.output() == "\xff\x22\x0a"


def test_a_guest_whose_panic_is_passed_over_goes_on(accel: str, tmp_path: pathlib.Path) -> None:
    # mov dx, 505h; mov al, 1; out dx, al; then 'k' to the debug console
    code = "66ba0505 b001 ee 66ba0204 b06b ee" + EXIT_FINE
    with kernel(tmp_path, accel, code, devices=[{"driver": "pvpanic", "id": "panic"}]) as guest:
        guest.machine.policy["panic"] = "none"
        assert guest.run_to_end() == "exit"
        assert guest.output() == "k"
