"""Translated 32-bit code: what differs from 64-bit code, and exceptions in the middle of it.

Each guest runs interpreted, translated at first execution, with room for a few blocks only, and on QEMU's processor
where that one checks what is at stake; all write the same log.
"""

from __future__ import annotations

import pathlib
import platform

import pytest

from accel.soft import accelerator
from accel.soft.accelerator import SoftAccelerator
from tests.soft.lab import QEMU, TOOLS, SoftRun, assemble, qemu_run, words
from tests.soft.test_hostile import plain_cpuid

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not TOOLS, reason="needs an x86-64 host and an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
]

# Flat 32-bit code at ring 0 with pages of 4 KiB below 4 MiB (the table is at 0x9000), its log on port 0xe9. Exceptions
# log vector, error code, EIP, flags, CR2, ESP and a sum of registers, then EBX is put on EIP. Selectors 0x18: base
# 0x20000, 4 GiB; 0x20: base 0x20000, 4 KiB; 0x28: read-only. The code lies at 0x10000, in RAM.
FRAME = """
        .code16
start:  cli
        lgdtl   %cs:(table - 0xf0000)
        movl    $1, %eax
        movl    %eax, %cr0
        ljmpl   $8, $wide
        .code32
wide:   movl    $16, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x7000, %esp
        cld
        movl    $0x9000, %edi
        movl    $7, %eax
1:      stosl
        addl    $0x1000, %eax
        cmpl    $0xa000, %edi
        jb      1b
        movl    $0x9007, 0x8000
        movl    $0x9007, 0x8ffc         # the last 4 MiB: the same pages, but the last
        movl    $0x50007, 0x9ffc
        movl    $0x8000, %eax
        movl    %eax, %cr3
        movl    $0x80000021, %eax
        movl    %eax, %cr0
        movl    $0x600, %eax
        movl    %eax, %cr4
        movl    $copy, %esi
        movl    $0x10000, %edi
        movl    $copied - copy, %ecx
        rep movsb
        .macro  gate n
        movl    $fault\\n, %eax
        movw    %ax, 0xa000 + 8 * \\n
        movw    $8, 0xa002 + 8 * \\n
        movw    $0x8e00, 0xa004 + 8 * \\n
        shrl    $16, %eax
        movw    %ax, 0xa006 + 8 * \\n
        .endm
        .irp    n, 0, 4, 5, 6, 12, 13, 14
        gate    \\n
        .endr
        lidtl   idt
        xorl    %eax, %eax
        movl    %eax, %ebx
        movl    %eax, %ecx
        movl    %eax, %edx
        movl    %eax, %esi
        movl    %eax, %edi
        movl    %eax, %ebp
        jmp     code - copy + 0x10000
log:    pushl   %ecx
        movl    $4, %ecx
1:      outb    %al, $0xe9
        rorl    $8, %eax
        loop    1b
        popl    %ecx
        ret
        .irp    n, 0, 4, 5, 6
fault\\n: pushl $0
        pushl   $\\n
        jmp     common
        .endr
        .irp    n, 12, 13, 14
fault\\n: pushl $\\n
        jmp     common
        .endr
common: pushal
        .irp    at, 32, 36, 40, 48
        movl    \\at(%esp), %eax
        andl    ${kept}, %eax
        call    log
        .endr
        movl    %cr2, %eax
        call    log
        movl    %esp, %eax
        call    log
        xorl    %eax, %eax
        .irp    at, 0, 4, 8, 16, 20, 24, 28
        roll    $3, %eax
        addl    \\at(%esp), %eax
        .endr
        call    log
        popal
        addl    %ebx, 8(%esp)
        addl    $8, %esp
        iretl
idt:    .word   0x7f
        .long   0xa000
table:  .word   0x2f
        .long   gdt
        .balign 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cf93020000ffff, 0x0040930200000fff, 0x00cf91000000ffff
copy:
code:
"""
END = """
        movl    $0xe0d, %eax
        movl    $log, %ecx
        call    *%ecx
        outb    %al, $0xf4
1:      hlt
        jmp     1b
copied:
"""
LOOP = """
        movl    $60, %edx
        movl    $0x20000, %esi
        movl    $0x21000, %edi
        {before}
9:      {body}
        decl    %edx
        jnz     9b
        movl    %edi, %eax
        movl    $log, %ecx
        call    *%ecx
"""
GONE = "cmpl $5, %edx; jne 8f; movl $0, 0x9000 + 4 * 0x20; invlpg 0x20000; 8: "
# Flags that nobody reads may be stale at an exception, QEMU does not set RF, and takes the first of two accesses for a
# load: all of it is in the way of a plain comparison, so what is logged there is cut to these bits.
KEPT = "0xfffef728"
# name: (before the loop; its body; does QEMU's processor check it too). EBX is the length of what faults
CASES = {
    "load": ("movl $3, %ebx", GONE + "addl $7, %ebp; movl 8(%esi), %ecx; addl %ecx, %edi; adcl $0, %ebp", True),
    "store": ("movl $3, %ebx", GONE + "subl %edx, %ebp; movl %edi, 8(%esi); sbbl $0, %edi", True),
    "read, modify, write": (
        "movl $3, %ebx", GONE + "cmpl $30, %edx; adcl %edx, 4(%esi); adcl $3, %edi; rcrl $1, %edi", True),
    "flags wanted behind": (
        "movl $2, %ebx", GONE + "cmpl $30, %edx; movl (%esi), %ecx; setc %cl; addb %cl, %ch; setp %cl; "
        "addl %ecx, %edi", True),
    "push of memory": (
        "movl $2, %ebx", GONE + "movl %edx, %ecx; testl %edx, %edx; jz 7f; pushl (%esi); 7: leal 4(%esp), %esp; "
        "addl -4(%esp), %edi; pushl 4(%edi,%edx,4); popl %eax; addl %eax, %edi; andl $0x21fff, %edi", True),
    "pop of what is not there": (
        "movl $1, %ebx; movl %esp, %ebp", "movl $0x3ffffc, %esp; cmpl $4, %edx; ja 8f; movl $0x400000, %esp; "
        "8: popl %ecx; movl %ebp, %esp; addl %ecx, %edi", True),
    "accumulator": (
        "movl $5, %ebx", GONE + ".byte 0xa1; .long 0x20010; addl %edx, %eax; .byte 0xa3; .long 0x20010; "
        ".byte 0xa0; .long 0x20011; addb %dl, %al; .byte 0xa2; .long 0x20012; xorl %eax, %edi; "
        ".byte 0x66, 0xa1; .long 0x21012; addl %eax, %edi; .byte 0x67, 0xa0; .word 0x3012; addl %eax, %edi", True),
    "addresses that wrap": (
        "", "movl $0xffff0000, %eax; leal 0x20000(%eax,%eax), %ecx; addl %ecx, %edi; movl %edx, 0x31000(%eax); "
        "addl 0x31000(%eax), %edi; movl $0x30000000, %ecx; addl -0xbffdf000(,%ecx,4), %edi; "
        "movl %edi, 0xfffffffc; addl 0xfffffffc, %edi; addl 0x50ffc, %edi", True),
    "an access over the end of the address space": (
        "", "movl $-2, %ecx; movl %edx, (%ecx); addl (%ecx), %edi; addl -4(%ecx), %edi", True),
    "inc and dec": (
        "xorl %ebp, %ebp", "incl %edi; cmpl $30, %edx; incl %eax; adcl $0, %edi; decw %ax; rcll $1, %edi; "
        "stc; incw %bp; "
        "sbbl %ecx, %ecx; subl %ecx, %edi; decl %esp; incl %esp; seto %al; addl %eax, %edi", True),
    "leave": (
        "movl $1, %ebx; movl %esp, %eax",
        GONE + "leal 8(%esi), %ebp; leave; movl %eax, %esp; leal 1(%edi,%ebp), %edi", True),
    "division": (
        "movl $2, %ebx", "leal -9(%edx), %ecx; movl %edi, %eax; pushl %edx; cltd; idivl %ecx; popl %edx; "
        "addl %eax, %edi; "
        "movb $7, %cl; movzbl %dl, %eax; divb %cl; movzbl %ah, %eax; addl %eax, %edi", True),
    "calls and returns": (
        "jmp 1f; 2: addl %edx, %edi; ret; 3: leal 2b - copy + 0x10000, %eax; call *%eax; ret $8; 1:",
        "pushl $3; call 3b - 0; subl $-4, %esp; call 7f; 7: popl %eax; addl %eax, %edi; subl $8, %esp", True),
    "jumps through tables": (
        "movl $0x22000, %ecx; movl $(5f - copy + 0x10000), (%ecx); movl $(6f - copy + 0x10000), 4(%ecx)",
        "movl %edx, %eax; andl $1, %eax; jmp *0x22000(,%eax,4); 5: addl $3, %edi; 6: addl %edx, %edi; "
        "pushl $(7f - copy + 0x10000); jmp *(%esp); 7: popl %eax; addl %eax, %edi", True),
    "a jump cut to 16 bits": (
        "movw $0xe9, 0x22000; movb $0x66, 0x22000; movb $0xe9, 0x22001; movw $-2, 0x22002; movb $0xc3, 0x2002; "
        "movl $0x22000, %eax", "call *%eax; addl %edx, %edi", True),
    "bytes of all kinds": (
        "", "movb %dl, %ah; addb %ah, %bl; addb %bl, %ch; adcb %ch, %dh; xchgb %al, %ah; rolb $3, %bh; "
        "movb %bh, (%esi); "
        "movzbl %ah, %ecx; movsbl (%esi), %eax; addl %ecx, %edi; xaddl %edi, %eax; movzbl %dl, %edx; "
        "cmpb $9, %ch; sbbl $0, %edi; movb 1(%esi), %dh; movb $0, %dh", True),
    "words": (
        "", "movw %dx, %ax; pushw %ax; addw $7, (%esp); popw %cx; addw %cx, %di; movw %di, %ds:2(%esi); bswap %ecx; "
        "addl %ecx, %edi; cbtw; cwtl; addl %eax, %edi; imull $77, %edi, %edi", True),
    "all registers at once": ("", "pushal; addl %edx, 28(%esp); popal; addl %eax, %edi; enter $8, $0; leave", True),
    "strings and counts": (
        "", "movl $5, %ecx; pushl %edi; movl $0x21000, %edi; movb %dl, (%esi); rep movsb; popl %edi; "
        "subl $5, %esi; addl 0x21000, %edi; movl $3, %ecx; 7: addl %ecx, %edi; loop 7b; jecxz 6f; incl %edi; "
        "6:", True),
    "vectors": (
        "movl $3, %ebx", GONE + "movd %edi, %xmm1; punpckldq %xmm1, %xmm1; movups 8(%esi), %xmm0; "
        "paddd %xmm1, %xmm0; "
        "movd %xmm0, %ecx; addl %ecx, %edi; cvtsi2sdl %edx, %xmm3; mulsd %xmm3, %xmm3; cvttsd2si %xmm3, %eax; "
        "addl %eax, %edi; ucomisd %xmm3, %xmm2; adcl $1, %edi", True),
    "a vector not aligned": (
        "movl $3, %ebx", "leal (%esi,%edx,8), %eax; movaps (%eax), %xmm0; movd %xmm0, %ecx; addl %ecx, %edi", True),
    "data through CS": (
        "movl $4, %ebx", "movl %edx, (%esi); addl %cs:(%esi), %edi; cmpl $4, %edx; ja 8f; "
        "movl %edi, %cs:4(%esi); 8:", False),
    "data through SS and ES": (
        "", "movl %edx, %es:(%esi); addl %ss:(%esi), %edi; movl %edi, %ebp; andl $0xfff, %ebp; "
        "addl %edi, %ds:0x22000(%ebp)", True),
    "FS with a base": (
        "movl $0x18, %eax; movl %eax, %fs",
        "movl %edx, %fs:4; addl %fs:(%edx), %edi; addl 4(%esi), %edi; addl %fs:0xfffff000, %edi; incl %fs:0x40; "
        "addl 0x20040, %edi", True),
    "FS whose base changes": (
        "movl $0x10, %ebp", "xorl $8, %ebp; movl %ebp, %gs; movl %edx, %gs:0x24000; addl 0x24000, %edi; "
        "addl 0x44000, %edi; "
        "movl %gs, %eax; addl %eax, %edi", True),
    "FS with a limit": (
        "movl $0x20, %eax; movl %eax, %fs; movl $4, %ebx",
        "leal 0xfe0(,%edx,4), %eax; movl $3, %ecx; cmpl $10, %edx; ja 8f; addl %ecx, %fs:(%eax); "
        "8: addl %ecx, %edi", False),
    "GS that may not be written": (
        "movl $0x28, %eax; movl %eax, %gs; movl $4, %ebx",
        "addl %gs:(%esi), %edi; cmpl $3, %edx; ja 8f; movl %edx, %gs:8(%esi); 8: addl 8(%esi), %edi", False),
    "GS that is null": (
        "xorl %eax, %eax; movl %eax, %gs; movl $3, %ebx",
        "cmpl $2, %edx; ja 8f; addl %gs:(%esi), %edi; 8: addl %edx, %edi", False),
    "a segment that stops being flat": (
        "movl $4, %ebx; movl $0x10, %ebp", "movl %ebp, %ds; movl %edx, 0xffc; movl %edi, 0xffd; addl 0xffc, %edi; "
        "cmpl $2, %edx; jne 8f; movl $0x20, %ebp; 8: movl $0x10, %eax; movl %eax, %ds; addl 0xffc, %edi", False),
    "code that it writes": (
        "", "movl $0x30000, %eax; movl $0xb0, (%eax); movb %dl, 1(%eax); movb $0xc3, 2(%eax); call *%eax; "
        "addl %eax, %edi", True),
}


@pytest.mark.parametrize("name", CASES)
def test_32_bit_code_does_what_the_interpreter_does(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, body, beside_qemu = CASES[name]
    rom = assemble(FRAME.replace("{kept}", KEPT) + LOOP.format(before=before, body=body) + END, tmp_path)

    def run(way: str, room: int) -> tuple[list[int], int]:
        monkeypatch.setattr(accelerator, "TRANSLATE", way)
        monkeypatch.setattr(accelerator, "ROOM", room)
        soft = SoftRun(rom, plain_cpuid(), 60)
        found = words(soft.log)
        assert soft.ended and found[-1] == 0xE0D, (list(map(hex, found)), soft.reports)
        return found, soft.pc.accel.machine.statistics["code"]

    expected, nothing = run("off", 1 << 20)
    assert nothing == 0
    found, code = run("always", 1 << 20)
    assert found == expected and code > 4096
    found, code = run("always", 20 << 10)
    assert found == expected and code
    if "ebx" in before:
        assert len(expected) > 2                # it did fault
    if beside_qemu and QEMU:
        log, _ = qemu_run(rom, tmp_path, "qemu64,-svm")
        assert list(map(hex, words(log))) == list(map(hex, expected))
