"""Corners of the manuals that test suites of processors look into: traps, debug registers, MSRs, the APIC's base."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from accel.clock import SteppedClock, TimerQueue
from accel.space import Region
from vmrun.devices.intc.lapic import ApicBus, ApicWindow, Lapic, LapicPins

from accel.soft.accelerator import SoftAccelerator
from accel.soft.features import supported_cpuid
from tests.soft.lab import LOG_PORT, TOOLS, SoftRun, assemble, words
from tests.soft.test_hostile import END, FRAME
from tests.unit.kvm.pc import Pc

pytestmark = [
    pytest.mark.skipif(not TOOLS, reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.usefixtures("either_way"),
]
DB, GP, SS, UD, NOTHING = 1, 13, 12, 6, 0x600D
AMD = {"ebx": 0x68747541, "ecx": 0x444D4163, "edx": 0x69746E65}


def run(source: str, directory: pathlib.Path, **changes: dict[str, int]) -> list[int]:
    """The log; `changes`: registers of CPUID leaves by number (`l7`)."""
    leaves = [{**leaf, **changes.get(f"l{leaf['function']:x}", {})} for leaf in supported_cpuid()]
    soft = SoftRun(assemble(FRAME + source + END, directory), leaves, 60)
    found = words(soft.log)
    assert soft.ended and found[-1] == 0xE0D, (found, soft.reports)
    return found[:-1]


def tried(source: str) -> str:
    return f"try\n{source}\ndone\n"


TRAP = "pushfq\norl $0x100, (%rsp)\n"
SAY_DR6 = "movq %dr6, %rax\ncall log\n"
SYSCALL = """
        movl    $0xc0000081, %ecx       # STAR
        xorl    %eax, %eax
        movl    $0x18, %edx
        wrmsr
        movl    $0xc0000082, %ecx       # LSTAR
        leaq    1f(%rip), %rax
        xorl    %edx, %edx
        wrmsr
        movl    $0xc0000084, %ecx       # FMASK
        movl    $MASK, %eax
        wrmsr
"""


def test_syscall_that_masks_tf_is_followed_by_no_trap(tmp_path: pathlib.Path) -> None:
    source = SYSCALL.replace("MASK", "0x100") + TRAP + "popfq\nsyscall\n1: nop\nout $0x51"
    assert run(tried(source), tmp_path) == [0x51, NOTHING]


def test_syscall_that_leaves_tf_is_followed_by_the_trap(tmp_path: pathlib.Path) -> None:
    source = SYSCALL.replace("MASK", "0") + TRAP + "popfq\nsyscall\n1: nop\nout $0x51"
    assert run(tried(source), tmp_path) == [DB, 0]


# In compatibility mode; CSTAR is what LSTAR is in SYSCALL.
COMPATIBLE = SYSCALL.replace("MASK", "0").replace("0xc0000082", "0xc0000083") + """
        pushq   $8
        leaq    2f(%rip), %rax
        pushq   %rax
        lretq
        .code32
2:      """
SYSENTER = """
        movl    $0x174, %ecx            # SYSENTER_CS, ESP, EIP
        movl    $0x18, %eax
        xorl    %edx, %edx
        wrmsr
        incl    %ecx
        movl    $0x7000, %eax
        wrmsr
        incl    %ecx
        leaq    1f(%rip), %rax
        wrmsr
"""
REACHED = "\n.code64\n1: out $0x51"
ONE_VENDORS = {
    "syscall of 32-bit code": (COMPATIBLE + "syscall" + REACHED, [UD, 0], [0x51, NOTHING]),
    "sysret of 32-bit code": (COMPATIBLE + "sysretl" + REACHED, [UD, 0], None),
    "sysenter in long mode": (SYSENTER + "sysenter" + REACHED, [0x51, NOTHING], [UD, 0]),
    "sysexit in long mode": (SYSENTER + "sysexitl" + REACHED, None, [UD, 0]),
}


# Linux with a processor of Intel's leaves CSTAR at 0: a program's syscall there would end the kernel.
@pytest.mark.parametrize("name", ONE_VENDORS)
def test_a_fast_call_outside_of_the_modes_that_its_vendor_has_it_in(name: str, tmp_path: pathlib.Path) -> None:
    source, on_intels, on_amds = ONE_VENDORS[name]
    if on_intels:
        assert run(tried(source), tmp_path) == on_intels
    if on_amds:
        assert run(tried(source), tmp_path, l0=AMD) == on_amds


@pytest.mark.parametrize(("vendor", "outcome"), [({}, [GP, 0]), (AMD, [0, NOTHING])])
def test_amds_performance_counters_are_amds(
    vendor: dict[str, int], outcome: list[int], tmp_path: pathlib.Path
) -> None:
    source = "movl $0xc0010000, %ecx\nmovl $0x430076, %eax\nxorl %edx, %edx\nwrmsr\nrdmsr\ncall log"
    assert run(tried(source), tmp_path, l0=vendor) == outcome


FAR = "movabsq $0x8000000000001000, %rax\n"
# A TSS, and its first stack for #SS and #GP
STACKS = """
        leaq    gdt(%rip), %rsi
        movl    $0x8200, %edi
        movl    $6, %ecx
        rep movsq
        movabsq $0x0000890083000067, %rax
        movq    %rax, 0x8230
        movq    $0, 0x8238
        movq    $0x6800, 0x8324
        movw    $0x3f, 0x82f0
        movq    $0x8200, 0x82f2
        lgdt    0x82f0
        movw    $0x30, %ax
        ltr     %ax
        movb    $1, 0x90c4
        movb    $1, 0x90d4
"""
STACK = {
    "load by RBP": "movq %rax, %rbp\nmovq (%rbp), %rcx",
    "store by RSP": "movq %rax, %rsp\nmovq %rcx, 8(%rsp)",
    "push": "movq %rax, %rsp\npushq %rcx",
    "pop": "movq %rax, %rsp\npopq %rcx",
    "call": "movq %rax, %rsp\ncall 1f\n1:",
    "ret": "movq %rax, %rsp\nret",
}


@pytest.mark.parametrize("name", STACK)
def test_a_stack_address_that_is_not_canonical_is_a_stack_fault(name: str, tmp_path: pathlib.Path) -> None:
    assert run(STACKS + tried(FAR + STACK[name]), tmp_path) == [SS, 0]


@pytest.mark.parametrize("name", ["movq (%rax), %rcx", "pushq (%rax)", "xorl %ebp, %ebp\nmovq (%rax,%rbp), %rcx"])
def test_any_other_address_that_is_not_canonical_is_a_general_fault(name: str, tmp_path: pathlib.Path) -> None:
    assert run(tried(FAR + name), tmp_path) == [GP, 0]


BREAK = "leaq 2f(%rip), %rax\nmovq %rax, %dr0\nmovl $0x401, %eax\nmovq %rax, %dr7\n"
CLEAR = "\nxorl %eax, %eax\nmovq %rax, %dr7\n"


def test_a_code_breakpoint_behind_mov_ss_waits_on_intels(tmp_path: pathlib.Path) -> None:
    source = BREAK + "movl %ss, %eax\nmovl %eax, %ss\n2: nop" + CLEAR
    assert run(tried(source), tmp_path) == [NOTHING]
    assert run(tried(source), tmp_path, l0=AMD) == [DB, 0]


def test_a_watchpoint_of_mov_ss_comes_with_the_exception_of_icebp(tmp_path: pathlib.Path) -> None:
    source = "movl $0x8100, %eax\nmovq %rax, %dr1\nmovl $0xf00404, %eax\nmovq %rax, %dr7\n"
    found = run("movl $0x10, 0x8100\n" + tried(source + "movw 0x8100, %ss\n.byte 0xf1") + SAY_DR6, tmp_path)
    assert found == [DB, 0, 0xFFFF0FF2]


def test_a_step_of_mov_ss_comes_with_the_exception_of_a_guarded_debug_register(tmp_path: pathlib.Path) -> None:
    source = f"movl $0x2400, %eax\nmovq %rax, %dr7\nmovl %ss, %eax\n{TRAP}popfq\nmovl %eax, %ss\nmovq %dr0, %rcx"
    assert run(tried(source) + SAY_DR6, tmp_path) == [DB, 0, 0xFFFF6FF0]


def test_machine_check_controls_keep_what_is_written(tmp_path: pathlib.Path) -> None:
    ask = "movl $0x400, %ecx\nrdmsr\ncall log\n"
    source = ask + "movl $0x400, %ecx\nmovl $5, %eax\nxorl %edx, %edx\nwrmsr\n" + ask
    assert run(tried(source), tmp_path) == [0xFFFFFFFF, 5, NOTHING]


FLUSHES = {"clflushopt": (23, "clflushopt 0x8100"), "clwb": (24, "clwb 0x8100")}


@pytest.mark.parametrize("name", FLUSHES)
def test_cache_line_instructions_exist_when_declared(name: str, tmp_path: pathlib.Path) -> None:
    bit, source = FLUSHES[name]
    assert run(tried(source), tmp_path, l7={"ebx": 1 << bit}) == [NOTHING]
    assert run(tried(source), tmp_path, l7={"ebx": 0}) == [UD, 0]


def test_umip_can_be_turned_on_when_declared(tmp_path: pathlib.Path) -> None:
    source = "movq %cr4, %rax\norl $0x800, %eax\nmovq %rax, %cr4\nsgdt 0x8100"
    assert run(tried(source), tmp_path) == [NOTHING]
    assert run(tried(source), tmp_path, l7={"ecx": 0}) == [GP, 0]


# --- with a local APIC -------------------------------------------------------------------------------------------


def with_apic(source: str, directory: pathlib.Path) -> list[int]:
    pc = Pc("f4", accel=SoftAccelerator)
    try:
        pc.rom.write(0, assemble(FRAME + source + END, directory))
        log = bytearray()
        pc.port(LOG_PORT, write=lambda offset, size, value: log.append(value & 0xFF))
        pc.cpus(1, supported_cpuid())
        clock: Any = SteppedClock()
        bus = ApicBus()
        apic = Lapic(bus, clock, TimerQueue(clock), 0, True)
        apic.x2apic_allowed = True
        pc.accel.attach_apic(0, apic, LapicPins(apic))
        pc.root.add(Region.device("apics", ApicWindow(bus, apic), 0x100000), 0xFEE00000)
        pc.go(30)
        assert pc.ended, log
        return words(bytes(log))[:-1]
    finally:
        pc.close()


BASE = "movl $0x1b, %ecx\nrdmsr\n"


def test_cpuid_says_that_the_apic_is_off(tmp_path: pathlib.Path) -> None:
    ask = "movl $1, %eax\ncpuid\nmovl %edx, %eax\nandl $0x200, %eax\ncall log\n"
    assert with_apic(ask + BASE + "andl $~0x800, %eax\nwrmsr\n" + ask, tmp_path) == [0x200, 0]


def test_the_apics_base_is_no_wider_than_physical_addresses(tmp_path: pathlib.Path) -> None:
    assert with_apic(tried(BASE + "orl $0x100, %edx\nwrmsr"), tmp_path) == [GP, 0]


def test_in_x2apic_mode_a_store_where_the_registers_were_is_no_message(tmp_path: pathlib.Path) -> None:
    on = BASE + "orl $0xc00, %eax\nwrmsr\nmovl $0x80f, %ecx\nmovl $0x1ff, %eax\nxorl %edx, %edx\nwrmsr\n"
    window = "movl $0xfee0001f, table + 0x70 * 8\ninvlpg 0x70000\nmovl $0x41, 0x70000\n"
    ask = "movl $0x822, %ecx\nrdmsr\ncall log\n"            # vectors 40 to 5f that wait
    assert with_apic(on + window + ask, tmp_path) == [0]


# --- instructions that come with a bit of CPUID -----------------------------------------------------------------

TOLD = {
    "adcx": ((0x7, "ebx", 19), "movl $-1, %eax; movl $5, %ecx; stc; adcx %ecx, %eax; setc %dl; movzbl %dl, %edx; "
             "leal (%rax,%rdx,8), %eax; call log", [5 + 8]),
    "adox": ((0x7, "ebx", 19), "movq $-1, %rax; movl $3, %ecx; xorl %edx, %edx; adoxq %rcx, %rax; seto %dl; setc %cl; "
             "shll $4, %edx; orl %edx, %eax; orb %cl, %al; call log", [2 + 16]),
    "rdrand": ((0x1, "ecx", 30), "rdrand %rax; setc %cl; rdrand %rdx; cmpq %rax, %rdx; setne %al; andb %cl, %al; "
               "movzbl %al, %eax; call log", [1]),
    "rdseed": ((0x7, "ebx", 18), "rdseed %eax; setc %al; movzbl %al, %eax; call log", [1]),
    "invpcid": ((0x7, "ebx", 10), "movq $0, 0x8100; movq $0, 0x8108; movl $2, %eax; invpcid 0x8100, %rax", []),
    "wrfsbase": ((0x7, "ebx", 0), "movq %cr4, %rax; orl $0x10000, %eax; movq %rax, %cr4; movl $0x12345, %eax; "
                 "wrfsbase %rax; rdfsbase %rax; call log", [0x12345]),
}


@pytest.mark.parametrize("name", TOLD)
def test_an_instruction_works_when_it_is_declared(name: str, tmp_path: pathlib.Path) -> None:
    (leaf, register, bit), source, expected = TOLD[name]
    assert run(tried(source), tmp_path) == [*expected, NOTHING]
    without = {entry["function"]: entry[register] & ~(1 << bit) for entry in supported_cpuid()}[leaf]
    assert run(tried(source), tmp_path, **{f"l{leaf:x}": {register: without}}) == [GP if name == "wrfsbase" else UD, 0]


def test_no_random_number_comes_twice(tmp_path: pathlib.Path) -> None:
    """They are asked for 32 at a time."""
    found = run("movl $70, %ebx\n1: rdrand %eax\njnc 1b\ncall log\ndecl %ebx\njnz 1b\n", tmp_path)
    assert len(found) == len(set(found)) == 70


def test_invpcid_of_a_kind_that_does_not_exist_is_refused(tmp_path: pathlib.Path) -> None:
    assert run(tried("movl $4, %eax; invpcid 0x8100, %rax"), tmp_path) == [GP, 0]
