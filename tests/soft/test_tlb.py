"""Translations that are kept, and when they are gone."""

from __future__ import annotations

import pathlib
import platform

import pytest

from accel.soft.accelerator import SoftAccelerator
from tests.soft.lab import PROTECTED, TOOLS, SoftRun, assemble, log_of
from tests.soft.native import cpuid

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not TOOLS, reason="needs an x86-64 host and an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
]

# A page directory at 0x4000: 4 MiB at their own address, once more at 0x400000; a page table at 0x5000 for 0x800000.
PAGING = """
    movl $0x83, 0x4000
    movl $0x83, 0x4004
    movl $0x5003, 0x4008
    movl $0x6003, 0x5000
    movl $0x7003, 0x5004
    movb $6, 0x6000
    movb $7, 0x7000
    movl $0x4000, %eax
    movl %eax, %cr3
    movl $0x10, %eax
    movl %eax, %cr4
    movl $0x80000001, %eax
    movl %eax, %cr0
"""


def read(address: int) -> str:
    return f"movb {address:#x}, %dl\n log\n"


def test_invlpg_drops_all_of_a_great_page(tmp_path: pathlib.Path) -> None:
    # There is nothing at 4 MiB, which reads as ones.
    body = PAGING + read(0x406000) + read(0x407000)
    body += "movl $0x400083, 0x4004\n invlpg 0x400000\n" + read(0x406000) + read(0x407000)
    assert log_of(body, "nop", tmp_path) == [6, 7, 0xFF, 0xFF]


def test_invlpg_drops_a_page_and_what_is_known_of_its_table(tmp_path: pathlib.Path) -> None:
    body = PAGING + read(0x800000) + read(0x801000)
    body += "movl $0x7003, 0x5000\n invlpg 0x800000\n" + read(0x800000) + read(0x801000)
    assert log_of(body, "nop", tmp_path) == [6, 7, 7, 7]


def test_a_new_cr3_drops_every_page_that_is_not_global(tmp_path: pathlib.Path) -> None:
    reload = "movl %cr3, %eax\n movl %eax, %cr3\n"
    body = PAGING + "movl $0x90, %eax\n movl %eax, %cr4\n movl $0x6103, 0x5000\n" + reload
    body += read(0x800000) + read(0x801000) + "movl $0x7103, 0x5000\n movl $0x6003, 0x5004\n" + reload
    body += read(0x800000) + read(0x801000)
    assert log_of(body, "nop", tmp_path) == [6, 7, 6, 6]


# Pages with one place in a TLB of 2,048: 8 MiB apart. The first is at 0x800000
RIVALS = [0x800000 + n * 0x800000 for n in range(4)]
TABLES = PAGING + """
    movl $0x9003, 0x4010
    movl $0xa003, 0x4018
    movl $0xb003, 0x4020
    movl $0x6003, 0x9000
    movl $0x6003, 0xa000
    movl $0x6003, 0xb000
"""
DROPS = {"invlpg": "invlpg 0x800000\n", "CR3": "movl %cr3, %eax\n movl %eax, %cr3\n",
         "CR4": "movl %cr4, %eax\n xorl $0x80, %eax\n movl %eax, %cr4\n"}


@pytest.mark.parametrize("way", DROPS)
def test_a_page_that_lost_its_place_is_dropped_all_the_same(way: str, tmp_path: pathlib.Path) -> None:
    body = TABLES + "".join(read(page) for page in RIVALS)
    body += "movl $0x7003, 0x5000\n" + DROPS[way] + read(RIVALS[0]) + read(RIVALS[1])
    assert log_of(body, "nop", tmp_path) == [6, 6, 6, 6, 7, 6]


def test_code_is_seen_when_it_is_written_through_a_page_that_lost_its_place(tmp_path: pathlib.Path) -> None:
    """The page at 0x10000 is 0x1000000 too: it may be written there, then holds code, is pushed out and comes back."""
    there, code = RIVALS[1], "first:\n movb $5, %dl\n ret\n"
    body = TABLES + f"movl $0x10003, 0x9000\n movb $0xb2, {there:#x}\n" + read(RIVALS[2]) + "call first@\n log\n"
    body += read(there + 1) + f"movb $6, {there + 1:#x}\n call first@\n log\n"
    assert log_of(body, code, tmp_path) == [6, 5, 5, 6]


def test_a_few_rivals_are_walked_for_once(tmp_path: pathlib.Path) -> None:
    loop = "movl ${count}, %esi\n1:\n" + "".join(f"addl $1, {page:#x}\n" for page in RIVALS) + "decl %esi\n jnz 1b\n"
    fills = []
    for count in (100, 2100):
        source = PROTECTED.format(body=TABLES + loop.format(count=count), code="nop")
        fills.append(SoftRun(assemble(source, tmp_path), cpuid()).fills)
    assert fills[1] - fills[0] < 100
