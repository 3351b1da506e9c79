"""Performance counters of the soft processor: what they count, for whom, and what an overflow does.

Ref: Intel SDM volume 3, 20.2 (architectural performance monitoring), version 2.
"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from accel.api import DeviceLock
from accel.run import RunControl
from accel.space import AddressSpace, Region

from accel.soft.accelerator import SoftAccelerator
from accel.soft.features import supported_cpuid
from tests.soft.lab import TOOLS
from tests.soft.test_manual import GP, NOTHING, run, tried, with_apic

pytestmark = [
    pytest.mark.skipif(not TOOLS, reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.usefixtures("either_way"),
]
COUNTER, SELECT, FIXED, FIXED_CONTROL, STATUS, CONTROL, CLEAR = 0xC1, 0x186, 0x309, 0x38D, 0x38E, 0x38F, 0x390
KERNEL, USER, INTERRUPT, ENABLE = 1 << 17, 1 << 16, 1 << 20, 1 << 22
INSTRUCTIONS, CYCLES, BRANCHES = 0xC0, 0x3C, 0xC4
LOOP = "movl $10000, %esi\n5: addl %esi, %edi\n decl %esi\n jnz 5b\n"      # 30,001 instructions
SLACK = 200     # what is executed beside the loop, and the rest of a block


def put(msr: int, value: int) -> str:
    low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    return f"movl ${msr:#x}, %ecx; movl ${low:#x}, %eax; movl ${high:#x}, %edx; wrmsr\n"


def ask(msr: int) -> str:
    """The lower half."""
    return f"movl ${msr:#x}, %ecx; rdmsr; call log\n"


def general(n: int, event: int, flags: int) -> str:
    return put(COUNTER + n, 0) + put(SELECT + n, event | flags | ENABLE)


def test_the_leaf_says_what_there_is(tmp_path: pathlib.Path) -> None:
    source = "movl $10, %eax; xorl %ecx, %ecx; cpuid; pushq %rdx; pushq %rbx; call log; popq %rax; call log\n"
    source += "popq %rax; call log\n"
    assert run(source, tmp_path) == [0x07300402, 0x78, 0x603]


@pytest.mark.parametrize("way", ["fixed", "general"])
def test_instructions_are_counted(way: str, tmp_path: pathlib.Path) -> None:
    begin = put(FIXED_CONTROL, 3) + put(CONTROL, 1 << 32) if way == "fixed" else general(0, INSTRUCTIONS, KERNEL)
    number = "1 << 30" if way == "fixed" else "0"
    source = begin + LOOP + f"movl ${number}, %ecx; rdpmc; call log\n"
    (count,) = run(source, tmp_path)
    assert 30001 <= count < 30001 + SLACK


def test_what_is_not_for_this_ring_is_not_counted(tmp_path: pathlib.Path) -> None:
    source = general(0, INSTRUCTIONS, USER) + general(1, BRANCHES, KERNEL) + put(FIXED_CONTROL, 2)
    source += put(CONTROL, 3 | 1 << 32) + LOOP + ask(COUNTER) + ask(COUNTER + 1) + ask(FIXED)
    assert run(source, tmp_path) == [0, 0, 0]


def test_cycles_go_on_and_stop_with_the_control(tmp_path: pathlib.Path) -> None:
    source = general(2, CYCLES, KERNEL) + "8:" + LOOP + "movl $2, %ecx; rdpmc; testl %eax, %eax; jz 8b; call log\n"
    source += put(CONTROL, 0) + ask(COUNTER + 2) + LOOP * 4 + ask(COUNTER + 2)
    first, second, third = run(source, tmp_path)
    assert 0 < first <= second == third


def test_an_overflow_is_told_once_and_the_counter_goes_on(tmp_path: pathlib.Path) -> None:
    source = put(COUNTER + 1, -20000) + put(SELECT + 1, INSTRUCTIONS | KERNEL | ENABLE) + ask(STATUS) + LOOP
    source += ask(STATUS) + ask(COUNTER + 1) + put(CLEAR, 2) + ask(STATUS)
    before, after, count, cleared = run(source, tmp_path)
    assert (before, after, cleared) == (0, 2, 0)
    assert 10001 <= count < 10001 + SLACK


ON = "movl $0xfee0001f, table + 0x70 * 8; invlpg 0x70000; movl $0x1ff, 0x700f0\n"
ENTRY = "movl 0x70340, %eax; call log\n"


def test_its_interrupt_comes_where_it_overflows_and_masks_itself(tmp_path: pathlib.Path) -> None:
    source = ON + "movl $0x400, 0x70340\n" + put(COUNTER, -20000) + "try\n"
    source += put(SELECT, INSTRUCTIONS | KERNEL | INTERRUPT | ENABLE) + LOOP
    source += "out $0xbad\n9: movl %esi, %eax\n call log\n"
    nmi, error, left, entry = with_apic(source + ENTRY, tmp_path)
    assert (nmi, error, entry) == (2, 0, 0x10400)
    assert 10000 - 20000 / 3 - SLACK < left < 10000 - 20000 / 3 + SLACK


REFUSED = {
    "status": put(STATUS, 0), "a reserved bit of a control": put(CONTROL, 16),
    "of the fixed ones": put(FIXED_CONTROL, 4), "of a select register": put(SELECT, 1 << 21),
    "a fifth counter": "movl $4, %ecx; rdpmc",
    "a fourth fixed one": "movl $0x40000003, %ecx; rdpmc", "more bits than there are": put(FIXED, 1 << 48),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_there_is_not_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    assert run(tried(REFUSED[name]), tmp_path) == [GP, 0]


def test_without_the_leaf_there_are_none(tmp_path: pathlib.Path) -> None:
    for source in (ask(COUNTER), put(SELECT, 0), ask(STATUS), "xorl %ecx, %ecx; rdpmc"):
        assert run(tried(source), tmp_path, la={"eax": 0}) == [GP, 0]
    assert run(tried(put(COUNTER, 5) + ask(COUNTER)), tmp_path) == [5, NOTHING]


def test_a_saved_processor_goes_on_counting() -> None:
    root, ports = Region.container("memory", 0), Region.container("io", 65536)
    memory, io = AddressSpace("memory", root), AddressSpace("io", ports, ports=True)
    made: Any = SoftAccelerator(memory, io, DeviceLock(), RunControl(), {})
    try:
        made.create_vcpu(0, 0, supported_cpuid())
        values = {COUNTER: 0x8123456789AB, SELECT: INSTRUCTIONS | ENABLE | USER, FIXED + 1: 0x123456789ABC}
        values |= {FIXED_CONTROL: 0xB, STATUS: 1, CONTROL: 3}
        assert made.load_vcpu(0, {"msrs": values}) == []
        saved = made.save_vcpu(0)["msrs"]
        assert {msr: saved[msr] for msr in values} == values
    finally:
        made.close()
