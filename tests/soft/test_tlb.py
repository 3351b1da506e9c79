"""Translations that are kept, and when they are gone."""

from __future__ import annotations

import pathlib
import platform

import pytest

from accel.soft.accelerator import SoftAccelerator
from tests.soft.lab import TOOLS, log_of

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
