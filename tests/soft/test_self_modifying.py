"""Code that is written to after it has run: what was decoded of it, linked to it or concluded from it is gone."""

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
]

# In 32-bit mode, the code between `copy` and `copied` runs at 0x10000; `label@` is where a label of it is there.
GUEST = """
.macro log
    movb %dl, %al
    outb %al, $0xe9
.endm
.code16
start:
    cli
    lgdtl %cs:(table - 0xf0000)
    movl $1, %eax
    movl %eax, %cr0
    ljmpl $8, $wide
.code32
wide:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x8000, %esp
    movl $copy, %esi
    movl $0x10000, %edi
    movl $(copied - copy), %ecx
    cld
    rep movsb
    {body}
    outb %al, $0xf4
table: .word 23
    .long gdt
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
copy:
    {code}
copied:
"""


def log_of(body: str, code: str, directory: pathlib.Path) -> list[int]:
    source = GUEST.format(body=body, code=code).replace("@", " - copy + 0x10000")
    run = SoftRun(assemble(source, directory), cpuid())
    assert run.ended
    return list(run.log)


CALL = "testl %esp, %esp\n call first@\n log\n"


def test_an_instruction_that_ignored_the_flags_of_the_block_before_reads_them_once_written(
    tmp_path: pathlib.Path,
) -> None:
    body = f"movl $1, %eax\n movl $2, %ebx\n {CALL} movw $0x9090, second@\n movl $1, %eax\n {CALL}"
    body += f"movw $0xc931, second@\n movl $1, %eax\n {CALL}"
    code = """
first:
    cmpl %ebx, %eax
    jmp second
    .skip 16
second:
    xorl %ecx, %ecx         # becomes two nops
    setc %dl
    ret
"""
    assert log_of(body, code, tmp_path) == [0, 1, 0]


def test_a_block_linked_to_from_elsewhere_in_its_page_is_replaced_when_written(tmp_path: pathlib.Path) -> None:
    body = CALL * 3 + "movb $6, immediate + 1@\n" + CALL + "movb $7, immediate + 1@\n" + CALL
    code = """
first:
    jmp second
    .skip 16
second:
    xorl %ecx, %ecx
immediate:
    movb $5, %dl
    ret
"""
    assert log_of(body, code, tmp_path) == [5, 5, 5, 6, 7]


def test_a_block_that_writes_behind_itself_runs_what_it_wrote(tmp_path: pathlib.Path) -> None:
    body = CALL * 2
    code = """
first:
    movb $9, immediate + 1@
    xorl %ecx, %ecx
immediate:
    movb $5, %dl
    movb $5, immediate + 1@
    ret
"""
    assert log_of(body, code, tmp_path) == [9, 9]
