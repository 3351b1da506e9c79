"""Code of 16 bits: the same bytes run at another place in their 64 KiB, where a jump is cut to 16 bits."""

from __future__ import annotations

import pathlib
import platform

import pytest

from accel.soft.accelerator import SoftAccelerator
from tests.soft.lab import TOOLS, SoftRun, assemble
from tests.soft.native import cpuid

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not TOOLS, reason="needs an x86-64 host and an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.usefixtures("either_way"),
]

# At 0x20000 a branch over 0x30 bytes; what it leads to says 1. As 1001:fff0 it leads to 1001:0020, where 2 is said
GUEST = """
.code16
start:
    cli
    movw $0x7000, %ax
    movw %ax, %ss
    movw $0x1000, %sp
    movw $0x2000, %ax
    movw %ax, %ds
    movl ${branch}, 0
    movl $0xcb01b2, 0x30
    movw $0x1000, %ax
    movw %ax, %ds
    movl $0xcb02b2, 0x30
    movw $60, %bx
1:  movw $5, %cx
    xorw %ax, %ax
    lcall $0x2000, $0
    decw %bx
    jnz 1b
    call say
    movw $5, %cx
    xorw %ax, %ax
    lcall $0x1001, $0xfff0
    call say
    movw $5, %cx
    xorw %ax, %ax
    lcall $0x2000, $0
    call say
    movb $1, %al
    outb %al, $0xf4
say:
    movb %dl, %al
    outb %al, $0xe9
    ret
"""
BRANCHES = {"jmp": 0x2EEB, "jz": 0x2E74, "loop": 0x2EE2, "jmp with 16 bits": 0x002DE9, "call": 0x002DE8}


@pytest.mark.parametrize("kind", BRANCHES)
def test_a_jump_is_cut_where_it_leaves_its_64_kib(kind: str, tmp_path: pathlib.Path) -> None:
    source = GUEST.replace("{branch}", hex(BRANCHES[kind]))
    if kind == "call":                      # its return address is dropped
        source = source.replace("0xcb01b2", "0xcb01b258").replace("0xcb02b2", "0xcb02b258")
    else:
        source = source.replace("xorw %ax, %ax", "cmpw %ax, %ax")
    done = SoftRun(assemble(source, tmp_path), cpuid())
    assert done.ended and list(done.log) == [1, 2, 1]
