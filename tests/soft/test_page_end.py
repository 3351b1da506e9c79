"""An instruction over the end of a page: decoded once, as long as both pages hold the same bytes of it."""

from __future__ import annotations

import pathlib
import platform

import pytest

from accel.soft.accelerator import SoftAccelerator
from tests.soft.lab import PROTECTED, TOOLS, SoftRun, assemble
from tests.soft.native import cpuid

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not TOOLS, reason="needs an x86-64 host and an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.usefixtures("either_way"),
]

# At 0x10fff: movl $0x11223305, %edx, of which one byte lies in the first page
CODE = ".skip 0xff8\nfirst: .skip 7, 0x90\nacross:\n movl $0x11223305, %edx\n ret\n .skip 64\n"
CALL = "call first@\n log\n"
LOOP = "movl ${count}, %esi\n1: call first@\n decl %esi\n jnz 1b\n log\n"

# 4 MiB at their own addresses, but for 0x11000, there or at 0x12000; #PF logs the second byte of CR2, the lowest of EIP
PAGING = """
    movl $fault, %eax
    movw %ax, 0x3070
    movw $8, 0x3072
    movw $0x8e00, 0x3074
    shrl $16, %eax
    movw %ax, 0x3076
    movw $0x7f, 0x3800
    movl $0x3000, 0x3802
    lidt 0x3800
    movl $0x11000, %esi
    movl $0x12000, %edi
    movl $1024, %ecx
    rep movsl
    movl $3, %eax
    movl $0x5000, %edi
1:  stosl
    addl $0x1000, %eax
    cmpl $0x400003, %eax
    jne 1b
    movl $0x5003, 0x4000
    movl $0x4000, %eax
    movl %eax, %cr3
    movl $0x80000001, %eax
    movl %eax, %cr0
    jmp 2f
fault:
    popl %eax
    movl %cr2, %eax
    movb %ah, %dl
    log
    movb (%esp), %dl
    log
    movl $0x11003, 0x5044
    movl $0x11000, %eax
    invlpg (%eax)
    iret
2:
"""


def run(body: str, directory: pathlib.Path) -> SoftRun:
    source = PROTECTED.format(body=body, code=CODE).replace("@", " - copy + 0x10000")
    done = SoftRun(assemble(source, directory), cpuid())
    assert done.ended
    return done


def test_it_is_decoded_once(tmp_path: pathlib.Path) -> None:
    few, many = (run(LOOP.format(count=count), tmp_path) for count in (200, 5200))
    assert list(few.log) == list(many.log) == [5]
    assert many.builds - few.builds < 10
    assert many.misses - few.misses < 50


@pytest.mark.parametrize("at", [0, 1, 2])
def test_it_is_what_was_written_last(tmp_path: pathlib.Path, at: int) -> None:
    """Into its first bytes, its last ones, and with a store that covers both pages."""
    write = ("movb $0xb8, across@", "movb $9, 1 + across@", "movl $0x010203b8, across@")[at]
    again = "movl %eax, %edx\n" if at != 1 else ""
    call = f"call first@\n {again} log\n"
    body = CALL * 50 + f"{write}\n movl $7, %eax\n movl $3, %edx\n" + call * 2
    done = run(body, tmp_path)
    assert list(done.log) == [5] * 50 + [(5, 9, 3)[at]] * 2


def test_a_page_of_other_memory_behind_it_counts(tmp_path: pathlib.Path) -> None:
    """The second page becomes another one with other bytes, back again, and none, which faults with its address."""
    body = PAGING + CALL * 50 + "movb $9, 0x12000\n"
    remap = "movl ${entry:#x}, 0x5044\n movl $0x11000, %eax\n invlpg (%eax)\n"
    body += remap.format(entry=0x12003) + CALL * 2 + remap.format(entry=0x11003) + CALL * 2
    body += remap.format(entry=0) + CALL
    done = run(body, tmp_path)
    assert list(done.log) == [5] * 50 + [9, 9, 5, 5, 0x10, 0xFF, 5]
