"""Virtual-8086 mode with VME: the program's interrupt flag is VIF, and its int instructions go to its own handlers."""

from __future__ import annotations

import pathlib

import pytest

from accel.soft.accelerator import SoftAccelerator
from accel.soft.features import supported_cpuid
from tests.soft.lab import TOOLS, SoftRun, assemble

pytestmark = [
    pytest.mark.skipif(not TOOLS, reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
]
# The program is copied to 0x10000 and entered with CS 0x1000, IOPL 0. An exception logs its vector and ends all.
SOURCE = """
.macro  log16                           # AX
        outb    %al, $0xe9
        movb    %ah, %al
        outb    %al, $0xe9
.endm
.code16
start:  cli
        lgdtl   %cs:(table - 0xf0000)
        lidtl   %cs:(idtr - 0xf0000)
        movl    $1, %eax
        movl    %eax, %cr0
        ljmpl   $8, $wide
.code32
wide:   movl    $16, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x8000, %esp
        movl    $gdt, %esi              # the GDT to RAM, for the busy bit
        movl    $0x2000, %edi
        movl    $32, %ecx
        cld
        rep movsb
        lgdtl   table2
        movl    $program, %esi
        movl    $0x10000, %edi
        movl    $(programmed - program), %ecx
        rep movsb
        movl    $0x2800, %edi           # IDT: GP at 13
        movl    $gp, %eax
        movw    %ax, 13 * 8(%edi)
        movw    $8, 13 * 8 + 2(%edi)
        movw    $0x8e00, 13 * 8 + 4(%edi)
        shrl    $16, %eax
        movw    %ax, 13 * 8 + 6(%edi)
        movl    $0x8000, 0x3004         # the TSS: ESP0, SS0, the map of ports behind that of interrupts
        movl    $16, 0x3008
        movw    $136, 0x3066
        movb    ${kept}, 0x3000 + 104 + 0x21 / 8
        movl    $(0x10000000 + handler - program), 0x21 * 4
        movl    $24, %eax
        ltr     %ax
        movl    $%(cr4)s, %eax
        movl    %eax, %cr4
        pushl   $0
        pushl   $0
        pushl   $0x1000
        pushl   $0x1000
        pushl   $0x1000                 # SS
        pushl   $0xfff0
        pushl   $0x%(flags)x
        pushl   $0x1000
        pushl   $0
        iretl
gp:     movb    $0x0d, %al
        outb    %al, $0xe9
        outb    %al, $0xf4
1:      jmp     1b
.code16
program:
        %(code)s
        outb    %al, $0xf4
1:      jmp     1b
handler:
        movw    %sp, %bp
        movw    4(%bp), %ax             # the flags that int has pushed
        log16
        pushfw
        popw    %ax
        log16
        iretw
programmed:
        .balign 8
table:  .word   31
        .long   gdt
table2: .word   31
        .long   0x2000
idtr:   .word   0x7ff
        .long   0x2800
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x0000890030000100
"""
VM, VIP, IF, IOPL = 1 << 17, 1 << 20, 0x200, 0x3000
SAY = "pushfw\npopw %ax\nlog16\n"


def run(code: str, directory: pathlib.Path, cr4: int = 1, flags: int = VM | 2, kept: int = 0) -> list[int]:
    """The log as words (an odd byte at its end is the vector of an exception)."""
    source = SOURCE.replace("${kept}", f"${kept}").replace("%(cr4)s", str(cr4)).replace("%(flags)x", f"{flags:x}")
    soft = SoftRun(assemble(source.replace("%(code)s", code), directory), supported_cpuid(), 20)
    assert soft.ended, (soft.log, soft.reports)
    log = soft.log
    return [int.from_bytes(log[n : n + 2], "little") for n in range(0, len(log), 2)]


def test_the_interrupt_flag_is_virtual(tmp_path: pathlib.Path) -> None:
    found = run(SAY + "sti\n" + SAY + "cli\n" + SAY + "pushw $0x202\npopfw\n" + SAY, tmp_path)
    assert [value & (IF | IOPL) for value in found] == [IOPL, IOPL | IF, IOPL, IOPL | IF]


def test_an_int_goes_to_the_programs_handler(tmp_path: pathlib.Path) -> None:
    found = run("sti\nint $0x21\n" + SAY, tmp_path)
    assert [value & (IF | IOPL) for value in found] == [IOPL | IF, IOPL, IOPL | IF]


@pytest.mark.parametrize("code", ("cli", "sti", "pushfw", "popfw", "iretw", "int $0x21"))
def test_without_vme_it_is_a_general_protection_fault(code: str, tmp_path: pathlib.Path) -> None:
    assert run(code, tmp_path, cr4=0) == [13]


def test_an_int_that_the_system_keeps_is_a_general_protection_fault(tmp_path: pathlib.Path) -> None:
    assert run("int $0x21", tmp_path, kept=2) == [13]


@pytest.mark.parametrize("code", ("sti", "pushw $0x202\npopfw", "pushw $0x102\npopfw", "pushfl", "popfl", "iretl"))
def test_what_the_system_must_see_to(code: str, tmp_path: pathlib.Path) -> None:
    """An interrupt that waits for the flag, a trap, 32-bit forms."""
    assert run(code, tmp_path, flags=VM | VIP | 2) == [13]
