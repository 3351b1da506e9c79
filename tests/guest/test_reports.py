"""Guests that die: the command says where and why, with the registers, and ends with the documented code."""

from __future__ import annotations

import pathlib
import struct
import subprocess
import sys

import pytest

from tests.guest.machines import need, write_machine
from tests.unit.firmware.kernels import elf

pytestmark = pytest.mark.guest
BASE = 0x200000
TRIPLE_FAULT = "b8efbeadde 0f0b"  # mov eax, deadbeef; ud2, with no IDT
INTO_A_DEVICE = "ea 0000c0fe 1000"  # jmp 10h:fec00000, the I/O APIC


def run(tmp_path: pathlib.Path, accel: str, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    need(accel)
    (tmp_path / "kernel").write_bytes(elf([(BASE, bytes.fromhex(code), 4096)], bits=32, pvh=BASE))
    path = write_machine(tmp_path, machine="pc-i440fx-2.0", memory="32MiB", kernel="kernel", firmware="none")
    command = [sys.executable, "-m", "vmrun", "up", "--accel", accel, "--timeout", "60", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False)


def test_triple_fault_is_reported_with_registers_and_bytes(accel: str, tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, accel, TRIPLE_FAULT, "--no-reboot")
    assert done.returncode == 4
    assert "processor 0 gave up: SHUTDOWN (triple fault)" in done.stderr
    assert "rax 00000000deadbeef" in done.stderr
    assert "32-bit code at 200005: 0f 0b" in done.stderr
    assert "the guest ended up in an exception" in done.stderr


def test_triple_fault_that_comes_back_after_each_reset_ends_the_machine(accel: str, tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, accel, TRIPLE_FAULT)
    assert done.returncode == 4
    assert done.stderr.count("gave up: SHUTDOWN") == 1


@pytest.mark.kvm
def test_internal_error_of_kvm_has_its_own_code_and_names_the_soft_accelerator(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "kvm", INTO_A_DEVICE)
    assert done.returncode == 5, done.stderr
    assert "processor 0 gave up: INTERNAL_ERROR (emulation)" in done.stderr
    assert "rip 00000000fec00000" in done.stderr
    assert "there is no memory at this address" in done.stderr
    assert "--accel soft" in done.stderr


def test_guest_that_runs_into_a_device_ends_on_soft(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "soft", INTO_A_DEVICE, "--no-reboot")
    assert done.returncode == 4
    assert "gave up: SHUTDOWN" in done.stderr


def test_every_processor_of_the_soft_accelerator_can_fault(tmp_path: pathlib.Path) -> None:
    """The second processor, started by INIT and SIPI, has no IDT either."""
    trampoline = bytes.fromhex("0f01 1e 0080 0f0b")  # lidt [8000h] (zeros); ud2
    code = (
        b"\xbe" + struct.pack("<I", BASE + 0x100) + b"\xbf\x00\x90\x00\x00\xb9\x10\x00\x00\x00\xf3\xa4"  # to 9000h
        # the local APIC on; INIT, then SIPI with vector 9 to all others; hlt
        + bytes.fromhex("bb0000e0fe c783f0000000ff010000 c7830003000000c50c00 b900000100e2fe")
        + bytes.fromhex("c7830003000009c60c00 f4 ebfd")
    )
    image = code.ljust(0x100, b"\x90") + trampoline
    need("soft")
    (tmp_path / "kernel").write_bytes(elf([(BASE, image, 4096)], bits=32, pvh=BASE))
    path = write_machine(
        tmp_path, machine="pc-i440fx-2.0", memory="32MiB", kernel="kernel", firmware="none", cpus={"count": 2}
    )
    command = [sys.executable, "-m", "vmrun", "up", "--accel", "soft", "--timeout", "60", "--no-reboot", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False)
    assert done.returncode == 4, done.stderr[-2000:]
    assert "processor 1 gave up: SHUTDOWN" in done.stderr
    assert "16-bit code at 9005: 0f 0b" in done.stderr
