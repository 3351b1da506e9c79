"""The beginning of Debian's kernel on the soft processor and on QEMU's, instruction by instruction (lockstep.py)."""

from __future__ import annotations

import pathlib
import platform
from collections.abc import Iterator

import pytest

from accel.soft.accelerator import SoftAccelerator
from benchmarks.beside import linux
from tests.soft.gdbqemu import QEMU, GdbQemu
from tests.soft.lockstep import ENTRY, Different, Lockstep, boot_options

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peer,
    pytest.mark.skipif(not QEMU, reason="needs QEMU"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 host"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
]


@pytest.fixture
def qemu(tmp_path: pathlib.Path) -> Iterator[GdbQemu]:
    try:
        options = boot_options(linux.kernel(True), linux.initramfs(tmp_path))
    except linux.Missing as why:
        pytest.skip(str(why))
    qemu = GdbQemu(tmp_path, options)
    qemu.go_to(ENTRY)
    yield qemu
    qemu.close()


def test_the_kernels_first_instructions_do_what_they_do_on_qemus_processor(qemu: GdbQemu, either_way: str) -> None:
    both = Lockstep(qemu)
    both.run(20000)
    assert both.compared >= 20000
    assert both.blocks > 2000
    assert both.excused == 0
    both.close()


def test_a_wrong_register_is_seen(qemu: GdbQemu) -> None:
    both = Lockstep(qemu)
    both.run(100)
    state = both.soft.accel.save_vcpu(0)
    both.soft.accel.load_vcpu(0, {"regs": {**state["regs"], "r15": state["regs"]["r15"] ^ 1}})
    with pytest.raises(Different, match="r15"):
        both.run(100)
    both.close()


def test_wrong_memory_is_seen(qemu: GdbQemu) -> None:
    both = Lockstep(qemu)
    both.soft.ram.write(0x7000123, b"\x5a")
    with pytest.raises(Different, match="1 pages of memory differ: 0x7000000"):
        both.run(100)
    both.close()
