"""SMAP: the kernel's accesses to a user's pages, before STAC, between STAC and CLAC, and after; and what they cost."""

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
]

USER, KERNEL, RIVAL = 0x800000, 0x801000, 0x1000000     # pages; the last has the user's place in a TLB of 2,048

# 4 MiB at their own address; a user's page, a kernel's, and one 8 MiB above; #PF logs its error code and goes on at EBP
BODY = """
.macro stac
    .byte 0x0f, 0x01, 0xcb
.endm
.macro clac
    .byte 0x0f, 0x01, 0xca
.endm
.macro try resume
    movl $\\resume, %ebp
.endm
    movl $handler, %eax
    movw %ax, 0x3070
    movw $8, 0x3072
    movw $0x8e00, 0x3074
    shrl $16, %eax
    movw %ax, 0x3076
    movw $0x7f, 0x3800
    movl $0x3000, 0x3802
    lidt 0x3800
    movl $0x83, 0x4000
    movl $0x5007, 0x4008
    movl $0x6007, 0x5000
    movl $0x7003, 0x5004
    movl $0x1a003, 0x4010
    movl $0x8003, 0x1a000
    movl $0x4000, %eax
    movl %eax, %cr3
    movl $0x200010, %eax
    movl %eax, %cr4
    movl $0x80010001, %eax
    movl %eax, %cr0
    movb $0x55, %dl
{body}
    jmp end
handler:
    popl %edx
    log
    movl %ebp, (%esp)
    iret
end:
"""


def run(body: str, directory: pathlib.Path) -> SoftRun:
    source = PROTECTED.replace("{body}", BODY.replace("{body}", body)).replace("{code}", "nop")
    done = SoftRun(assemble(source, directory), cpuid())
    assert done.ended
    return done


def access(n: int, instruction: str) -> str:
    return f"try t{n}\n {instruction}\n log\nt{n}:\n"


def test_a_users_page_is_open_between_stac_and_clac_alone(tmp_path: pathlib.Path) -> None:
    body = f"stac\n movb $6, {USER:#x}\n clac\n" + access(1, f"movb {USER:#x}, %dl")
    body += "stac\n" + access(2, f"movb {USER:#x}, %dl") + "clac\n" + access(3, f"movb {USER:#x}, %dl")
    body += access(4, f"movb $7, {USER:#x}")
    body += "stac\n" + access(5, f"addb $1, {USER:#x}\n movb {USER:#x}, %dl") + "clac\n"
    body += access(6, f"addb $1, {USER:#x}") + access(7, f"movb {KERNEL:#x}, %dl")
    assert list(run(body, tmp_path).log) == [1, 6, 1, 3, 7, 3, 0]


@pytest.mark.parametrize("there", [KERNEL, RIVAL])
@pytest.mark.parametrize("way", ["in", "out"])
def test_repeated_moves_obey_it_and_walk_the_tables_a_few_times(tmp_path: pathlib.Path, there: int, way: str) -> None:
    source, target = (USER, there) if way == "in" else (there, USER)
    move = f"movl ${source:#x}, %esi\n movl ${target:#x}, %edi\n movl $4096, %ecx\n"
    body = f"stac\n movl ${source:#x}, %edi\n movl $4096, %ecx\n movb $9, %al\n rep stosb\n clac\n"
    body += move + access(1, "rep movsb")
    plain = run(body, tmp_path)
    body += "stac\n" + move + f"rep movsb\n movb {target + 0xabc:#x}, %dl\n clac\n log\n" + move
    body += access(2, "rep movsb")
    full = run(body, tmp_path)
    error = 1 if way == "in" else 3
    assert list(plain.log) == [error]
    assert list(full.log) == [error, 9, error]
    assert full.fills - plain.fills < 16
    assert full.slow - plain.slow < 64


# An LDT in a user's page, with one descriptor of data; the GDT is copied to 0x3900 for its own descriptor, selector 24
TABLE = f"""
    stac
    movl $0x0000ffff, {USER:#x}
    movl $0x00cf9200, {USER + 4:#x}
    clac
    movl $gdt, %esi
    movl $0x3900, %edi
    movl $6, %ecx
    rep movsl
    movl ${(USER & 0xFFFF) << 16 | 7:#x}, 0x3918
    movl ${USER & 0xFF000000 | 0x8200 | USER >> 16 & 0xFF:#x}, 0x391c
    movw $31, 0x3810
    movl $0x3900, 0x3812
    lgdt 0x3810
    movw $24, %ax
    lldt %ax
"""


def test_the_processors_own_accesses_are_never_allowed_a_users_page(tmp_path: pathlib.Path) -> None:
    """SDM volume 3, 4.6.1: implicit accesses are as if AC was 0."""
    load = "movl $4, %eax\n movw %ax, %fs\n movb $0x66, %dl"
    body = TABLE + access(1, load) + "stac\n" + access(2, load) + f"movb {USER:#x}, %dl\n log\n clac\n"
    assert list(run(body, tmp_path).log) == [1, 1, 0xFF]
