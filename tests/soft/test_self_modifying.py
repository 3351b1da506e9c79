"""Code that is written to after it has run: what was decoded of it, linked to it or concluded from it is gone."""

from __future__ import annotations

import pathlib
import platform

import pytest

from accel.soft.accelerator import SoftAccelerator
from tests.soft.lab import TOOLS, log_of

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not TOOLS, reason="needs an x86-64 host and an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.usefixtures("either_way"),
]

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
