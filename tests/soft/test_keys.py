"""Protection keys on the soft processor: what PKRU forbids, for whom, and how it is saved.

Ref: Intel SDM volume 3, 4.6.2 (protection keys), 4.7 (error codes); volume 1, 13.5.7 (PKRU state).
"""

from __future__ import annotations

import pathlib

import pytest

from accel.soft.accelerator import SoftAccelerator
from tests.guest.machines import Guest
from tests.soft.lab import TOOLS
from tests.soft.test_manual import GP, NOTHING, UD, run, tried

pytestmark = [
    pytest.mark.skipif(not TOOLS, reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.usefixtures("either_way"),
]
PF = 14
ON = "movq %cr4, %rax; orl $0x400000, %eax; movq %rax, %cr4\n"
KEY_1 = "movl $0x08000000, table + 4 + 0x20 * 8; invlpg 0x20000\n"      # for the page at 0x20000
ASK = "xorl %ecx, %ecx; rdpkru; call log\n"


def rights(value: int) -> str:
    return f"xorl %ecx, %ecx; xorl %edx, %edx; movl ${value:#x}, %eax; wrpkru\n"


def write_protected(on: bool) -> str:
    return f"movq %cr0, %rax; {'orl $0x10000' if on else 'andl $~0x10000'}, %eax; movq %rax, %cr0\n"


LOAD, STORE = "movl 0x20008, %eax\n", "movl %eax, 0x20008\n"
CASES = {
    "no access: load": (rights(4) + LOAD, [PF, 0x21, 0x20008]),
    "no access: store": (rights(4) + STORE, [PF, 0x23, 0x20008]),
    "no access: read, modify, write": (rights(4) + "incl 0x20008", [PF, 0x23, 0x20008]),
    "no access: fetch": ("movb $0xc3, 0x20000\n" + rights(4) + "movl $0x20000, %eax; call *%rax\n" + LOAD,
                         [PF, 0x21, 0x20008]),
    "no writes: load": (write_protected(True) + rights(8) + LOAD, [NOTHING]),
    "no writes: store": (write_protected(True) + rights(8) + STORE, [PF, 0x23, 0x20008]),
    "no writes for a supervisor who may": (write_protected(False) + rights(8) + STORE, [NOTHING]),
    "no access for him either": (write_protected(False) + rights(4) + STORE, [PF, 0x23, 0x20008]),
    "of another key": (rights(0x30) + LOAD + STORE, [NOTHING]),
    "a page of the supervisor": ("andb $0xfb, table + 0x20 * 8; invlpg 0x20000\n" + rights(0xC) + LOAD + STORE,
                                 [NOTHING]),
    "changes at once": (STORE + LOAD + rights(4) + rights(0) + LOAD + STORE + rights(8) + LOAD + rights(4) + LOAD,
                        [PF, 0x21, 0x20008]),
    "in a loop": ("movl $60, %esi\n5: movl %esi, 0x20008; addl 0x20008, %edi; cmpl $5, %esi; jne 6f\n" + rights(8)
                  + write_protected(True) + "6: decl %esi; jnz 5b", [PF, 0x23, 0x20008]),
    "read back": (rights(0x55555554) + ASK, [0x55555554, NOTHING]),
    "ECX of rdpkru": ("movl $1, %ecx; rdpkru", [GP, 0]),
    "EDX of wrpkru": ("xorl %ecx, %ecx; movl $1, %edx; wrpkru", [GP, 0]),
    "a prefix": (".byte 0x66, 0x0f, 0x01, 0xee", [UD, 0]),
    "told when on": ("movl $7, %eax; xorl %ecx, %ecx; cpuid; movl %ecx, %eax; andl $0x18, %eax; call log",
                     [0x18, NOTHING]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_protection_key_forbids_what_the_manual_says(name: str, tmp_path: pathlib.Path) -> None:
    source, expected = CASES[name]
    assert run(KEY_1 + ON + tried(source), tmp_path) == expected


def test_keys_that_are_off_or_not_declared_forbid_nothing(tmp_path: pathlib.Path) -> None:
    off = "movl $7, %eax; xorl %ecx, %ecx; cpuid; movl %ecx, %eax; andl $0x18, %eax; call log\n"
    assert run(KEY_1 + tried(off + LOAD + STORE + "xorl %ecx, %ecx; rdpkru"), tmp_path) == [8, UD, 0]
    assert run(tried(ON), tmp_path, l7={"ecx": 0}) == [GP, 0]


XSTATE = "movq %cr4, %rax; btsl $18, %eax; movq %rax, %cr4; xorl %ecx, %ecx; xorl %edx, %edx; movl $0x203, %eax; "
XSTATE += "xsetbv\n"
MASK = "xorl %edx, %edx; movl $0x200, %eax; "
WAYS = {
    "xsave": ("xsave 0x20000", "xrstor 0x20000", "movl 0x20a80, %eax; call log; movl 0x20200, %eax; call log\n"),
    "xsavec": ("xsavec 0x20000", "xrstor 0x20000", "movl 0x20240, %eax; call log; movl 0x20208, %eax; call log\n"),
}


@pytest.mark.parametrize("way", WAYS)
def test_rights_are_saved_and_come_back(way: str, tmp_path: pathlib.Path) -> None:
    save, restore, look = WAYS[way]
    wipe = "movl $0x20000, %edi; movl $0x300, %ecx; xorl %eax, %eax; rep stosl\n"
    source = wipe + ON + XSTATE + rights(0x1230) + MASK + save + "\n" + look + rights(0) + MASK + restore + "\n" + ASK
    source += "movl $0, 0x20200\n" + MASK + restore + "\n" + ASK        # in its initial form
    size = "movl $0xd, %eax; xorl %ecx, %ecx; cpuid; movl %ebx, %eax; call log\n"
    assert run(tried(source + size), tmp_path) == [0x1230, 0x200, 0x1230, 0, 2696, NOTHING]


def test_a_milan_lacks_nothing(tmp_path: pathlib.Path) -> None:
    with Guest(tmp_path, "soft", machine="pc-i440fx-7.2", memory="64MiB", cpus={"model": "EPYC-Milan"}) as guest:
        assert not guest.machine.missing_features
