"""Translated code: exceptions in the middle of it are exact, and what it is made of may change or run out of room.

Each guest runs interpreted, translated at first execution, and with room for a few blocks only; all write the same log.
"""

from __future__ import annotations

import pathlib
import platform

import pytest

from accel.soft import accelerator
from accel.soft.accelerator import SoftAccelerator
from accel.soft.features import supported_cpuid
from tests.soft.lab import TOOLS, SoftRun, assemble, words
from tests.soft.native import AVX
from tests.soft.test_hostile import END, FRAME, plain_cpuid

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not TOOLS, reason="needs an x86-64 host and an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
]

# Exceptions 0, 6, 12, 13, 14 log vector, error code, RIP, flags, RSP, CR2 and a sum of registers; RIP is put on by RBX.
HANDLERS = """
        .macro  gate n
        leaq    fault\\n(%rip), %rax
        movw    %ax, 0x9000 + 16 * \\n
        shrq    $16, %rax
        movw    %ax, 0x9006 + 16 * \\n
        .endm
        gate 0
        gate 6
        gate 12
        gate 13
        gate 14
        jmp     ready
fault0: pushq   $0
        pushq   $0
        jmp     common
fault6: pushq   $0
        pushq   $6
        jmp     common
fault12: pushq  $12
        jmp     common
fault13: pushq  $13
        jmp     common
fault14: pushq  $14
common: pushq   %rax
        pushq   %rcx
        .irp at, 16, 24, 32, 48, 56
        movq    \\at(%rsp), %rax
        call    log
        .endr
        movq    %cr2, %rax
        call    log
        movq    (%rsp), %rax
        addq    8(%rsp), %rax
        addq    %rdx, %rax
        addq    %rsi, %rax
        addq    %rdi, %rax
        addq    %rbp, %rax
        addq    %r8, %rax
        addq    %r10, %rax
        addq    %r11, %rax
        addq    %r15, %rax
        call    log
        popq    %rcx
        popq    %rax
        addq    %rbx, 16(%rsp)
        addq    $16, %rsp
        iretq
ready:
"""
SETTLE = "movl $0x5a5a5a, %eax\nmovq %rax, %r8\nmovq %rax, %r10\nmovq %rax, %r11\nmovq %rax, %r15\nmovq %rax, %rbp\n"
LOOP = """
        movl    $60, %edx
        movl    $0x20000, %esi
        movl    $0x21000, %edi
9:      {body}
        decl    %edx
        jnz     9b
        movq    %rdi, %rax
        call    log
"""
# A page is taken away for the last rounds; RBX is the length of what faults
GONE = "cmpl $5, %edx; jne 8f; movl $0, table + 8 * 0x20; invlpg 0x20000; 8: "
CASES = {
    "load": (
        "movl $4, %ebx",
        GONE + "addl $7, %r10d; movq 8(%rsi), %rcx; addq %rcx, %rdi; adcq $0, %r11",
    ),
    "store": (
        "movl $4, %ebx",
        GONE + "subq %rdx, %r15; movq %rdi, 8(%rsi); sbbq $0, %rdi",
    ),
    "read, modify, write": (
        "movl $4, %ebx",
        GONE + "cmpl $30, %edx; adcl %edx, 4(%rsi); adcq $3, %rdi; rcrq $1, %rdi; nop",
    ),
    "flags wanted behind": (
        "movl $3, %ebx",
        GONE + "cmpl $30, %edx; movq (%rsi), %rcx; setc %cl; addb %cl, %dil; setp %cl; addb %cl, %dil",
    ),
    "leave": (
        "movl $1, %ebx; movq %rsp, %r8",
        GONE + "leaq 8(%rsi), %rbp; leave; movq %r8, %rsp; leaq 1(%rdi,%rbp), %rdi",
    ),
    "division by zero": (
        "movl $2, %ebx",
        "movl %edx, %ecx; subl $3, %ecx; movl %edi, %eax; pushq %rdx; xorl %edx, %edx; divl %ecx; "
        "popq %rdx; addl %eax, %edi",
    ),
    "signed division": (
        "movl $3, %ebx",
        "leaq -9(%rdx), %rcx; movq %rdi, %rax; pushq %rdx; cqto; idivq %rcx; popq %rdx; addq %rax, %rdi",
    ),
    "overflow of a quotient": (
        "movl $2, %ebx",
        "movl $1, %ecx; movl %edi, %eax; pushq %rdx; shrl $4, %edx; divl %ecx; popq %rdx; addl %eax, %edi",
    ),
    "address that is not canonical": (
        "movl $3, %ebx",
        "movl $0x20000, %esi; cmpl $4, %edx; ja 8f; movabsq $0x9000000000020000, %rsi; "
        "8: movq (%rsi), %rcx; addq %rcx, %rdi",
    ),
    "vector not aligned": (
        "movl $3, %ebx",
        "leaq (%rsi,%rdx,8), %rax; movq %rdi, %xmm1; movaps (%rax), %xmm0; paddq %xmm1, %xmm0; "
        "movq %xmm0, %rcx; addq %rcx, %rdi",
    ),
    "undefined instruction": (
        "movl $2, %ebx",
        "addq $3, %rdi; subl $1, %r10d; ud2; adcq $0, %rdi",
    ),
    "vectors of sixteen registers": (
        "",
        "movq %rdi, %xmm15; punpcklqdq %xmm15, %xmm15; paddd %xmm15, %xmm7; movups %xmm7, 0x20100; "
        "cvtsi2sdq %rdx, %xmm3; mulsd %xmm3, %xmm3; cvttsd2si %xmm3, %rax; addq %rax, %rdi; "
        "ucomisd %xmm3, %xmm15; adcq 0x20100, %rdi",
    ),
    "bits and counts": (
        "", "movq %rdi, %r10; bsfq %r10, %r11; tzcntq %r10, %r15; adcq %r15, %rdi; lzcntl %r10d, %r11d; "
        "adcq %r11, %rdi; "
        "popcntq %r10, %r15; leaq 1(%rdi,%r15), %rdi; movbeq (%rsi), %rcx; addq %rcx, %rdi; movbel %edi, 4(%rsi); "
        "crc32l %edx, %r11d; crc32b %dl, %r15d; leaq (%r11,%r15), %rcx; addq %rcx, %rdi",
    ),
    "SSSE3 and SSE4": (
        "movl $6, %ebx", GONE + "movq %rdi, %xmm9; pinsrd $2, %edx, %xmm9; pinsrb $1, %r15d, %xmm9; "
        "pabsb %xmm9, %xmm10; "
        "movups (%rsi), %xmm11; pshufb %xmm9, %xmm11; pmovzxbw 8(%rsi), %xmm8; ptest %xmm10, %xmm11; adcq $1, %rdi; "
        "pextrq $1, %xmm11, %r15; addq %r15, %rdi; roundsd $1, %xmm9, %xmm10; movddup %xmm10, %xmm10; "
        "phaddd %xmm8, %xmm10; "
        "pextrw $3, %xmm10, 6(%rdi,%rdx); palignr $5, %xmm10, %xmm11; movl $9, %eax; pcmpestri $0, %xmm11, %xmm10; "
        "addq %rcx, %rdi; andl $0x21fff, %edi; orl $0x21000, %edi",
    ),
    "calls and returns": (
        "jmp 1f; 2: addq %rdx, %rdi; ret; 3: leaq 2b(%rip), %r11; call *%r11; ret $8; 1:",
        "pushq $3; call 3b; pushq %rdi; xorq %r15, (%rsp); popq %r15; addq %r15, %rdi",
    ),
    "bytes of all kinds": (
        "",
        "movb %dl, %ah; addb %ah, %bl; addb %bl, %dil; adcb %r10b, %r11b; xchgb %al, %ah; rolb $3, %r15b; "
        "movzbl %ah, %ecx; movsbq %r11b, %r8; addq %rcx, %rdi; xaddq %rdi, %r8",
    ),
    "code that it writes": (
        "",
        "leaq 0x30000, %r11; movl $0xb0, (%r11); movb %dl, 1(%r11); movb $0xc3, 2(%r11); call *%r11; "
        "addq %rax, %rdi",
    ),
}

# Of a host with AVX2: YMM registers over look-ups, exceptions and instructions that are interpreted
AVX_CASES = {
    "YMM registers": (
        "movl $6, %ebx", GONE + "vmovq %rdi, %xmm9; vpbroadcastb %xmm9, %ymm10; vpaddd %ymm10, %ymm10, %ymm1; "
        "vpaddb 8(%rsi), %ymm1, %ymm2; vpxor %ymm1, %ymm2, %ymm15; cld; vpmovmskb %ymm15, %r11d; addq %r11, %rdi; "
        "vextracti128 $1, %ymm15, %xmm4; vpextrq $1, %xmm4, %r15; addq %r15, %rdi",
    ),
    "vectors of both kinds": (
        "", "vmovq %rdi, %xmm3; vpbroadcastq %xmm3, %ymm3; paddd %xmm3, %xmm3; vmovdqu %ymm3, 0x20100; "
        "vpaddd %xmm3, %xmm3, %xmm3; "
        "vmovdqu %ymm3, 0x20120; addq 0x20110, %rdi; addq 0x20130, %rdi; xorq 0x20120, %rdi; vzeroupper; "
        "vextractf128 $1, %ymm3, 0x20140; addq 0x20140, %rdi; vzeroall; vmovq %xmm9, %rcx; subq %rcx, %rdi",
    ),
    "a vector not aligned, of 32 bytes": (
        "movl $4, %ebx", "leaq (%rsi,%rdx,8), %rax; vmovq %rdi, %xmm1; vmovdqa (%rax), %ymm0; "
        "vpaddq %ymm1, %ymm0, %ymm0; "
        "vmovq %xmm0, %rcx; addq %rcx, %rdi",
    ),
    "fused, converted, compared": (
        "", "vcvtsi2sdq %rdx, %xmm2, %xmm2; vcvtsi2sdl %edi, %xmm3, %xmm3; vfmadd231sd %xmm2, %xmm3, %xmm2; "
        "vcomisd %xmm2, %xmm3; "
        "adcq $0, %rdi; vcvttsd2si %xmm2, %r11; addq %r11, %rdi; vptest %ymm2, %ymm3; adcq $0, %rdi; "
        "vblendvpd %ymm2, %ymm3, %ymm2, %ymm4; vmovmskpd %ymm4, %ecx; addq %rcx, %rdi",
    ),
    "BMI on all registers": (
        "", GONE + "addq $3, %rdi; bextrq %r10, 0x21000, %r11; "
        "andnq %rdi, %r11, %r15; mulxq %r15, %r10, %r11; addq %r10, %rdi; mulxq %rdi, %r11, %r11; addq %r11, %rdi; "
        "shlxq %rdx, %rdi, %r10; stc; rorxq $7, %r10, %r15; sarxl %r15d, %edi, %r11d; adcq %r11, %rdi; "
        "blsrq %rdi, %r10; "
        "blsmskl %r10d, %r11d; adcq %r11, %rdi; pdepq %rdi, %r10, %r15; pextq %r15, %rdi, %r8; addq %r8, %rdi; "
        "bzhiq %rdx, 0x21008, %r10; adcxq %r10, %rdi; adoxq %r15, %r11; seto %cl; adcq $0, %rdi; addb %cl, %dil",
    ),
}
XSTATE = "movq %cr4, %rax; btsl $18, %eax; movq %rax, %cr4; xorl %ecx, %ecx; xorl %edx, %edx; movl $7, %eax; xsetbv\n"


def run(source: str, directory: pathlib.Path, patch: pytest.MonkeyPatch, way: str, room: int) -> tuple[list[int], int]:
    """The log as dwords, and how many bytes of code were made."""
    patch.setattr(accelerator, "TRANSLATE", way)
    patch.setattr(accelerator, "ROOM", room)
    soft = SoftRun(assemble(FRAME + HANDLERS + source + END, directory), supported_cpuid(), 60)
    found = words(soft.log)
    assert soft.ended and found[-1] == 0xE0D, (found, soft.reports)
    return found, soft.pc.accel.machine.statistics["code"]


@pytest.mark.parametrize("name", CASES)
def test_translated_code_does_what_the_interpreter_does(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, body = CASES[name]
    source = SETTLE + before + "\n" + LOOP.format(body=body)
    expected, nothing = run(source, tmp_path, monkeypatch, "off", 1 << 20)
    assert nothing == 0
    found, code = run(source, tmp_path, monkeypatch, "always", 1 << 20)
    assert code > 1024 and found == expected
    found, code = run(source, tmp_path, monkeypatch, "always", 20 << 10)
    assert code and found == expected
    if "ebx" in before:
        assert len(expected) > 7                # it did fault


@pytest.mark.skipif(not AVX, reason="the host has no AVX")
@pytest.mark.parametrize("name", AVX_CASES)
def test_vectors_of_32_bytes_are_the_interpreter_s(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, body = AVX_CASES[name]
    source = XSTATE + SETTLE + before + "\n" + LOOP.format(body=body)
    expected, _ = run(source, tmp_path, monkeypatch, "off", 1 << 20)
    assert run(source, tmp_path, monkeypatch, "always", 1 << 20)[0] == expected
    assert run(source, tmp_path, monkeypatch, "always", 20 << 10)[0] == expected
    assert len(expected) > 7 or "ebx" not in before


def test_what_is_not_declared_is_not_translated(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = "pabsd %xmm1, %xmm2; nop; nop; nop; .byte 0xf3; bsfl %edx, %ecx; addl %ecx, %edi; "
    body = "movl $8, %ebx\n" + LOOP.format(body=lacking + ".byte 0xf3; bsrl %edx, %ecx; addl %ecx, %edi")
    monkeypatch.setattr("tests.soft.test_translate.supported_cpuid", plain_cpuid)
    expected, _ = run(SETTLE + body, tmp_path, monkeypatch, "off", 1 << 20)
    assert len(expected) > 7 * 60 and run(SETTLE + body, tmp_path, monkeypatch, "always", 1 << 20)[0] == expected


# Blocks of a page that lead to each other are written in turn, and between that more is translated than the room holds
DROPPED = """
        leaq    0x30000, %r8
        movl    $0x0001c083, (%r8)              # addl $1, %eax; jmp to 0x30010
        movl    $0x0beb + 0x90900000, 3(%r8)
        movl    $0xc302c083, 0x10(%r8)          # addl $2, %eax; ret
        movl    $40, %edx
9:      movl    $200, %ecx
8:      call    *%r8
        decl    %ecx
        jnz     8b
        movb    %dl, 2(%r8)
        call    *%r8
        .rept   400
        addl    $3, %edi
        jmp     1f
1:
        .endr
        movb    %dl, 0x12(%r8)
        call    *%r8
        addl    %eax, %edi
        decl    %edx
        jnz     9b
        movl    %edi, %eax
        call    log
"""


def test_code_that_was_dropped_is_not_written_to(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = run(SETTLE + DROPPED, tmp_path, monkeypatch, "off", 1 << 20)
    for kibibytes in (16, 20, 24, 32, 64, 128):
        found, code = run(SETTLE + DROPPED, tmp_path, monkeypatch, "always", kibibytes << 10)
        assert found == expected and (code or kibibytes == 16)


def test_nothing_is_translated_until_it_has_run_often(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SETTLE + "movl ${count}, %edx\n9: decl %edx\njnz 9b\n"
    few = run(source.replace("{count}", "5"), tmp_path, monkeypatch, "on", 1 << 20)[1]
    many = run(source.replace("{count}", "5000"), tmp_path, monkeypatch, "on", 1 << 20)[1]
    assert few < many
