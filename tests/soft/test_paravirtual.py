"""KVM's offers that the soft processor makes and nothing comes of: their MSRs keep what is written, if declared."""

from __future__ import annotations

import pathlib
import shutil

import pytest

from accel.soft.accelerator import SoftAccelerator
from accel.soft.features import supported_cpuid
from tests.soft.lab import SoftRun, assemble, words

pytestmark = [
    pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
]

# Real mode; a #GP ends in a log of 0xdeadbeef.
GUEST = """
.code16
gp:
    movl $0xdeadbeef, %eax
    call say
    movb $0, %al
    outb %al, $0xf4
    hlt
say:
    movw $4, %cx
1:  outb %al, $0xe9
    shrl $8, %eax
    loop 1b
    ret
start:
    xorw %ax, %ax
    movw %ax, %ss
    movw $0x7000, %sp
    movw %ax, %ds
    movw $(gp - 0xf0000), 13*4
    movw $0xf000, 13*4+2
    movl $MSR, %ecx
    movl $0x12340001, %eax
    xorl %edx, %edx
    wrmsr
    xorl %eax, %eax
    rdmsr
    call say
    movb $0, %al
    outb %al, $0xf4
    hlt
"""


def run(directory: pathlib.Path, msr: int, features: int) -> list[int]:
    leaves = supported_cpuid()
    for leaf in leaves:
        if leaf["function"] == 0x40000001:
            leaf["eax"] = features
    return words(SoftRun(assemble(GUEST.replace("MSR", hex(msr)), directory), leaves).log)


@pytest.mark.parametrize(("msr", "bit"), [(0x4B564D02, 4), (0x4B564D03, 5), (0x4B564D04, 6)])
def test_what_is_offered_is_kept_and_what_is_not_is_refused(tmp_path: pathlib.Path, msr: int, bit: int) -> None:
    assert run(tmp_path, msr, 1 << bit) == [0x12340001]
    assert run(tmp_path, msr, 0x70 & ~(1 << bit)) == [0xDEADBEEF]
