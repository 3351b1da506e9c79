"""Protection keys on the soft processor: what PKRU forbids, for whom, and how it is saved.

Ref: Intel SDM volume 3, 4.6.2 (protection keys), 4.7 (error codes); volume 1, 13.5.7 (PKRU state).
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
from tests.guest.machines import Guest
from tests.soft.lab import TOOLS, SoftRun, assemble, words
from tests.soft.test_extended import area
from tests.soft.test_hostile import END, FRAME
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


# Keys of supervisor pages: the page at 0x20000 becomes one, and its key 1
SUPERVISOR = "andb $0xfb, table + 0x20 * 8\n" + KEY_1 + "movq %cr4, %rax; btsl $24, %eax; movq %rax, %cr4\n"
ASK_PKRS = "movl $0x6e1, %ecx; rdmsr; call log; movl %edx, %eax; call log\n"


def pkrs(value: int) -> str:
    return f"movl $0x6e1, %ecx; xorl %edx, %edx; movl ${value:#x}, %eax; wrmsr\n"


KEPT = {
    "no access: load": (pkrs(4) + LOAD, [PF, 0x21, 0x20008]),
    "no access: store": (pkrs(4) + STORE, [PF, 0x23, 0x20008]),
    "no access: fetch": ("movb $0xc3, 0x20000\n" + pkrs(4) + "movl $0x20000, %eax; call *%rax\n" + LOAD,
                         [PF, 0x21, 0x20008]),
    "no writes: load": (write_protected(True) + pkrs(8) + LOAD, [NOTHING]),
    "no writes: store": (write_protected(True) + pkrs(8) + STORE, [PF, 0x23, 0x20008]),
    "no writes for a supervisor who may": (write_protected(False) + pkrs(8) + STORE, [NOTHING]),
    "of another key": (pkrs(0x30) + LOAD + STORE, [NOTHING]),
    "a page of a user": ("orb $4, table + 0x20 * 8; invlpg 0x20000\n" + pkrs(0xC) + LOAD + STORE, [NOTHING]),
    "PKRU is not theirs": (ON + rights(0xC) + LOAD + STORE, [NOTHING]),
    "changes at once": (STORE + LOAD + pkrs(4) + pkrs(0) + LOAD + STORE + pkrs(8) + LOAD + pkrs(4) + LOAD,
                        [PF, 0x21, 0x20008]),
    "turned off": (pkrs(4) + "movq %cr4, %rax; btrl $24, %eax; movq %rax, %cr4\n" + LOAD + STORE, [NOTHING]),
    "read back": (pkrs(0x55555554) + ASK_PKRS, [0x55555554, 0, NOTHING]),
    "more than 32 bits": ("movl $0x6e1, %ecx; xorl %eax, %eax; movl $1, %edx; wrmsr", [GP, 0]),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_supervisors_key_forbids_what_the_manual_says(name: str, tmp_path: pathlib.Path) -> None:
    source, expected = KEPT[name]
    assert run(SUPERVISOR + tried(source), tmp_path) == expected


def test_a_supervisors_keys_are_there_when_declared(tmp_path: pathlib.Path) -> None:
    assert run(tried(SUPERVISOR), tmp_path, l7={"ecx": 8}) == [GP, 0]
    assert run(tried(ASK_PKRS), tmp_path, l7={"ecx": 8}) == [GP, 0]


XSTATE = "movq %cr4, %rax; btsl $18, %eax; movq %rax, %cr4; xorl %ecx, %ecx; xorl %edx, %edx; movl $0x203, %eax; "
XSTATE += "xsetbv\n"
AMDS = 2432      # where AMD's processors keep PKRU in an area
AMD_LEAVES = supported_cpuid()
next(leaf for leaf in AMD_LEAVES if (leaf["function"], leaf["index"]) == (0xD, 9))["ebx"] = AMDS
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


def test_rights_lie_where_cpuid_says(tmp_path: pathlib.Path) -> None:
    wipe = "movl $0x20000, %edi; movl $0x300, %ecx; xorl %eax, %eax; rep stosl\n"
    source = wipe + ON + XSTATE + rights(0x1230) + MASK + f"xsave 0x20000; movl {0x20000 + AMDS:#x}, %eax; call log\n"
    source += rights(0) + MASK + "xrstor 0x20000\n" + ASK
    source += "movl $0xd, %eax; xorl %ecx, %ecx; cpuid; movl %ebx, %eax; call log\n"
    done = SoftRun(assemble(FRAME + tried(source) + END, tmp_path), AMD_LEAVES)
    assert words(done.log) == [0x1230, 0x1230, AMDS + 8, NOTHING, 0xE0D]


def test_a_saved_processor_has_its_rights_where_cpuid_says() -> None:
    root, ports = Region.container("memory", 0), Region.container("io", 65536)
    memory, io = AddressSpace("memory", root), AddressSpace("io", ports, ports=True)
    made: Any = SoftAccelerator(memory, io, DeviceLock(), RunControl(), {})
    made.create_vcpu(0, 0, AMD_LEAVES)
    made.load_vcpu(0, {"xsave": area(0x203, **{f"at{AMDS}": b"PKRU"})})
    saved = made.save_vcpu(0)["xsave"]
    made.close()
    assert saved[AMDS : AMDS + 4] == b"PKRU" and not any(saved[2688:2692])


def test_a_milan_lacks_nothing(tmp_path: pathlib.Path) -> None:
    with Guest(tmp_path, "soft", machine="pc-i440fx-7.2", memory="64MiB", cpus={"model": "EPYC-Milan"}) as guest:
        assert not guest.machine.missing_features
