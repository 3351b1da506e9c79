"""What guests do that they should not, on the soft processor: exceptions as QEMU's, and never more than that."""

from __future__ import annotations

import pathlib
import time

import pytest

from accel.soft.accelerator import SoftAccelerator
from accel.soft.features import supported_cpuid
from tests.soft.lab import QEMU, TOOLS, SoftRun, assemble, qemu_run, words

pytestmark = [
    pytest.mark.skipif(not TOOLS, reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.usefixtures("either_way"),
]
FRAME = pathlib.Path(__file__).with_name("hostile.s").read_text()
END = "\nout $0xe0d\nmovb $1, %al\noutb %al, $0xf4\n1: hlt\njmp 1b\n"
GP, PF, UD, DE, SS, NP, TS, DF = 13, 14, 6, 0, 12, 11, 10, 8


def plain_cpuid() -> list[dict[str, int]]:
    """What QEMU's qemu64 has and the soft processor too: no SSSE3, SSE4, POPCNT, MOVBE."""
    leaves = supported_cpuid()
    for leaf in leaves:
        if leaf["function"] == 1:
            leaf["ecx"] &= 1 | 1 << 13
        elif leaf["function"] == 7:
            leaf["ebx"] = 0
        elif leaf["function"] == 0x80000001:
            leaf["edx"] &= ~(1 << 27)
    return leaves


def run(source: str, directory: pathlib.Path, beside_qemu: bool = True) -> list[int]:
    """The log of `source` as dwords, without the mark at its end; the same as QEMU's."""
    rom = assemble(FRAME + source + END, directory)
    soft = SoftRun(rom, plain_cpuid(), 60)
    assert soft.ended, (words(soft.log), soft.reports)
    found = words(soft.log)
    if beside_qemu and QEMU:
        log, _ = qemu_run(rom, directory, "qemu64,-svm")
        assert [hex(word) for word in words(log)] == [hex(word) for word in found]
    assert found[-1] == 0xE0D
    return found[:-1]


FAULTS = {
    "ud2": ("ud2", [UD, 0]),
    "division by zero": ("xorl %ecx, %ecx\ndivl %ecx", [DE, 0]),
    "quotient too big": ("movl $1, %ecx\nmovl $2, %edx\ndivl %ecx", [DE, 0]),
    "load from no page": ("movq 0x300000, %rax", [PF, 0, 0x300000]),
    "store to no page": ("movq %rax, 0x3ffffc", [PF, 2, 0x3FFFFC]),
    "store over the end of memory": ("movq %rax, 0x1ffffc", [PF, 2, 0x200000]),
    "store to a read-only page": (
        "movl $0x20005, table + 0x20 * 8\ninvlpg 0x20000\nmovl %eax, 0x20010", [PF, 3, 0x20010]),
    "reserved bit in a page table": (
        "movl $0x80000, table + 4 + 0x21 * 8\ninvlpg 0x21000\nmovl 0x21008, %eax", [PF, 9, 0x21008]),
    "jump to no page": ("movl $0x345678, %eax\njmp *%rax", [PF, 0x10, 0x345678]),
    "jump to a page without execute": (
        "movl $0x80000000, table + 4 + 0x22 * 8\ninvlpg 0x22000\nmovl $0x22004, %eax\njmp *%rax", [PF, 0x11, 0x22004]),
    "code that ends at a page that is not there": (
        "movw $0x808b, 0x1ffffe - 0x180000\nmovl $0, table + 0x80 * 8\ninvlpg 0x80000\nmovl $0x7fffe, %eax\njmp *%rax",
        [PF, 0x10, 0x80000]),
    "address that is not canonical": ("movabsq $0x8000000000000000, %rax\nmovq (%rax), %rcx", [GP, 0]),
    "jump to where no address is": ("movabsq $0x1234000000000000, %rax\njmp *%rax", [GP, 0]),
    "return to where no address is": (
        "movabsq $0x1234000000000000, %rax\npushq $0x10\npushq $0x7000\npushq $2\npushq $0x18\npushq %rax\niretq",
        [GP, 0]),
    "paging without protection": ("movl $0x80010032, %eax\nmovq %rax, %cr0", [GP, 0]),
    "NW without CD": ("movq %cr0, %rax\norl $0x20000000, %eax\nmovq %rax, %cr0", [GP, 0]),
    "paging off in long mode": ("movl $0x33, %eax\nmovq %rax, %cr0\nmovq %cr0, %rax\nud2", [GP, 0]),
    "reserved bits of CR4": ("movl $0x80000620, %eax\nmovq %rax, %cr4", [GP, 0]),
    "CR4 without PAE": ("movl $0x600, %eax\nmovq %rax, %cr4", [GP, 0]),
    "CR8 above 15": ("movl $16, %eax\nmovq %rax, %cr8", [GP, 0]),
    "CR1": (".byte 0x0f, 0x20, 0xc8", [UD, 0]),
    "DR4 with DE": ("movq %cr4, %rax\norb $8, %al\nmovq %rax, %cr4\nmovq %dr4, %rcx", [UD, 0]),
    "EFER's reserved bits": ("movl $0xc0000080, %ecx\nmovl $0xf0000d01, %eax\nxorl %edx, %edx\nwrmsr", [GP, 0]),
    "selector beyond the GDT": ("movw $0x1234, %ax\nmovw %ax, %ds", [GP, 0x1234]),
    "segment that is not present": ("movw $0x20, %ax\nmovw %ax, %ds", [NP, 0x20]),
    "stack segment that is code": ("movw $0x18, %ax\nmovw %ax, %ss", [GP, 0x18]),
    "far return to data": ("pushq $0x10\nleaq 9f(%rip), %rax\npushq %rax\nlretq", [GP, 0x10]),
    "interrupt beyond the IDT": ("int $0x80", [GP, 0x402]),
    "TR from a segment of data": ("movw $0x10, %ax\nltr %ax", [GP, 0x10]),
    "movaps not aligned": ("movl $0x8108, %eax\nmovaps (%rax), %xmm0", [GP, 0]),
    "fxsave not aligned": ("movl $0x8108, %eax\nfxsave (%rax)", [GP, 0]),
    "ldmxcsr of reserved bits": ("movl $0xffff0000, 0x8100\nldmxcsr 0x8100", [GP, 0]),
    "lock on a register": (".byte 0xf0, 0x01, 0xc0", [UD, 0]),
    "16 bytes": (".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90",
                 [GP, 0]),
    "TS and x87": ("movq %cr0, %rax\norb $8, %al\nmovq %rax, %cr0\nfld1", [7, 0]),
    "SSE without OSFXSR": ("movl $0x20, %eax\nmovq %rax, %cr4\nxorps %xmm0, %xmm0", [UD, 0]),
    "breakpoint": ("int3", [3, 0]),
    "cmpxchg16b not aligned": ("movl $0x8108, %edi\ncmpxchg16b (%rdi)", [GP, 0]),
    "popa in long mode": (".byte 0x61", [UD, 0]),
}
# Of a processor that is not declared to have them
LACKING = {
    "popcnt": "popcnt %rax, %rcx", "crc32": "crc32b %al, %ecx", "pshufb": "pshufb %xmm0, %xmm1",
    "aesenc": "aesenc %xmm0, %xmm1", "pclmulqdq": "pclmulqdq $0, %xmm0, %xmm1", "vaddps": "vaddps %ymm0, %ymm1, %ymm2",
    "rdrand": "rdrand %eax", "xgetbv": "xorl %ecx, %ecx\nxgetbv", "xsave": "xsave 0x8100",
    "movbe": "movbe 0x8100, %eax",
    "vmrun": "vmrun", "rdfsbase": "rdfsbase %rax", "monitor": "monitor", "invpcid":
    "invpcid 0x8100, %rax", "clac": "clac", "adcx": "adcx %eax, %ecx", "andn": "andn %eax, %ecx, %edx",
    "rdtscp": "rdtscp", "femms": "femms",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_the_vector_and_the_error_code_of_the_manual(name: str, tmp_path: pathlib.Path) -> None:
    source, expected = FAULTS[name]
    assert run(f"try\n{source}\ndone\n", tmp_path, beside_qemu=False) == expected


@pytest.mark.skipif(not QEMU, reason="needs QEMU")
@pytest.mark.peer
def test_the_faults_are_qemus(tmp_path: pathlib.Path) -> None:
    """But for those where QEMU 7.2 is laxer than the manual, or gives another error code."""
    lax = {
        "reserved bit in a page table", "paging without protection", "NW without CD", "paging off in long mode",
        "reserved bits of CR4", "CR4 without PAE", "CR8 above 15", "EFER's reserved bits", "interrupt beyond the IDT",
        "ldmxcsr of reserved bits",
    }
    run("".join(f"try\n{source}\ndone\n" for name, (source, _) in FAULTS.items() if name not in lax), tmp_path)


@pytest.mark.parametrize("name", LACKING)
def test_an_instruction_that_the_model_lacks_is_undefined(name: str, tmp_path: pathlib.Path) -> None:
    assert run(f"try\n{LACKING[name]}\ndone\n", tmp_path, beside_qemu=False) == [UD, 0]


def test_code_where_no_memory_is_reads_ones_which_are_no_instruction(tmp_path: pathlib.Path) -> None:
    source = "try\nmovl $0xfed00007, table + 0x50 * 8\ninvlpg 0x50000\nmovl $0x50010, %eax\njmp *%rax\ndone\n"
    assert run(source, tmp_path, beside_qemu=False) == [UD, 0]


# --- code that changes itself; each logs numbers that come of it ----------------------------------------------------

COPY = """
        leaq    1f(%rip), %rsi          # to RAM
        movl    $0x30000, %edi
        movl    $2f - 1f, %ecx
        rep movsb
        movl    $0x30000, %eax
        jmp     *%rax
1:
"""
CHANGING = {
    "the instruction behind": """
        movl    $0x11111111, 3f + 1 - 1b + 0x30000
        movb    $0x22, 3f + 1 - 1b + 0x30000
3:      movl    $0, %eax
        call    *logger - 1b + 0x30000
""",
    "a number in a loop": """
        xorl    %ebx, %ebx
        movl    $1000, %ecx
4:      incl    3f + 2 - 1b + 0x30000
3:      addl    $0, %ebx
        loop    4b
        movl    %ebx, %eax
        call    *logger - 1b + 0x30000
""",
    "an opcode in a loop": """
        xorl    %ebx, %ebx
        movl    $1000, %ecx
4:      xorb    $0x28, 3f + 1 - 1b + 0x30000    # add and sub of EBX, 3
3:      addl    $3, %ebx
        addl    $2, %ebx
        loop    4b
        movl    %ebx, %eax
        call    *logger - 1b + 0x30000
""",
    "itself by a string instruction": """
        movl    $3f - 1b + 0x30000, %edi
        movb    $0x43, %al                      # a REX prefix
        movl    $4, %ecx
        xorl    %ebx, %ebx
        rep stosb
3:      nop
        nop
        nop
        nop
        incl    %ebx                            # of R11 by then
        movl    %ebx, %eax
        call    *logger - 1b + 0x30000
""",
    "a page through another address": """
        movl    $0x30007, table + 0x40 * 8      # page 40h is page 30h too
        invlpg  0x40000
        xorl    %ebx, %ebx
        movl    $300, %ecx
4:      incl    3f + 2 - 1b + 0x40000
3:      addl    $0, %ebx
        loop    4b
        movl    %ebx, %eax
        call    *logger - 1b + 0x30000
""",
    "over the end of a page": """
        movl    $0x05b8, 0x31ffe                # mov eax, imm32 with its number in the next page
        movb    $0xc3, 0x32003
        movl    $200, %ebp
        xorl    %ebx, %ebx
4:      incl    0x32000
        movl    $0x31ffe, %eax
        call    *%rax
        addl    %eax, %ebx
        decl    %ebp
        jnz     4b
        movl    %ebx, %eax
        call    *logger - 1b + 0x30000
""",
    "the target of a call that was just taken": """
        movl    $50, %ebp
        xorl    %ebx, %ebx
4:      movb    %bpl, 3f + 2 - 1b + 0x30000
        call    3f
        decl    %ebp
        jnz     4b
        movl    %ebx, %eax
        call    *logger - 1b + 0x30000
        jmp     5f
3:      addl    $0x7f, %ebx
        ret
5:
""",
}
BACK = """
        movl    $2f, %eax
        jmp     *%rax
        .balign 8
logger: .quad   log
2:
"""


@pytest.mark.parametrize("name", CHANGING)
def test_code_that_changes_itself_does_what_it_became(name: str, tmp_path: pathlib.Path) -> None:
    found = run(COPY + CHANGING[name] + BACK, tmp_path)
    assert len(found) == 1


def test_an_instruction_in_two_pages_is_read_anew_each_time(tmp_path: pathlib.Path) -> None:
    source = COPY + CHANGING["over the end of a page"] + BACK
    assert run(source, tmp_path, beside_qemu=False) == [sum((n << 8) + 5 for n in range(1, 201))]


# --- the end of it -----------------------------------------------------------------------------------------------

ENDS = {
    "no IDT": "lidt 0x8100\nud2",                  # ten zero bytes
    "no stack": "movabsq $0x8000000000000000, %rsp\nlidt 0x8100\nint3",
    "no page tables": "movl $0x70000, %eax\nmovq %rax, %cr3\njmp .",
    "page tables where nothing is": "movl $0xf0000000, %eax\nmovq %rax, %cr3\njmp .",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_triple_fault_is_reported_once_with_registers(name: str, tmp_path: pathlib.Path) -> None:
    soft = SoftRun(assemble(FRAME + ENDS[name] + END, tmp_path), plain_cpuid(), 60)
    assert not soft.ended
    (report,) = soft.reports
    assert report["exit"] == "SHUTDOWN"
    assert report["regs"]["rip"] >= 0xF0000


ENDLESS = {
    "a jump to itself": "jmp .",
    "halted for ever": "1: hlt\njmp 1b",
    "interrupts of every kind": "movq $9f, %rax\nmovq %rax, resume\nmovq %rsp, kept\n9: int3\njmp 9b",
    "long strings": "1: movl $0x40000, %esi\nmovl $0x40000, %edi\nmovl $0x40000, %ecx\nrep movsb\njmp 1b",
    "a division that faults": "movq $9f, %rax\nmovq %rax, resume\nmovq %rsp, kept\n9: xorl %ecx, %ecx\ndivl %ecx",
    "page tables in a loop": "movl $0x10007, 0x10000\nmovq %cr3, %rax\nmovq %rax, %cr3\njmp .",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_guest_that_never_ends_is_stopped_when_asked(name: str, tmp_path: pathlib.Path) -> None:
    """accel.stop() returns only when no guest code runs any more."""
    began = time.monotonic()
    soft = SoftRun(assemble(FRAME + ENDLESS[name] + END, tmp_path), plain_cpuid(), 0.3)
    assert time.monotonic() - began < 20
    assert not soft.ended
