"""XSAVE and the rules of VEX: control registers, CPUID, areas, exceptions. Intel SDM volume 1, 13; volume 2, 2.4."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from accel.api import DeviceLock
from accel.run import RunControl
from accel.space import AddressSpace, Region

from accel.soft.accelerator import SoftAccelerator
from accel.soft.features import supported_cpuid
from tests.soft.lab import TOOLS, SoftRun, assemble, words
from tests.soft.native import AVX
from tests.soft.test_hostile import END, FRAME

pytestmark = [
    pytest.mark.skipif(not TOOLS, reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.skipif(not AVX, reason="the host has no AVX"),
    pytest.mark.usefixtures("either_way"),
]
UD, NM, GP, PF = 6, 7, 13, 14
OSXSAVE = "movl $0x40620, %eax\nmovq %rax, %cr4\n"
ON = OSXSAVE + "movl $7, %eax\nxorl %ecx, %ecx\nxorl %edx, %edx\nxsetbv\n"
MASK = "movl $7, %eax\nxorl %edx, %edx\n"


def run(source: str, directory: pathlib.Path) -> list[int]:
    soft = SoftRun(assemble(FRAME + source + END, directory), supported_cpuid(), 60)
    assert soft.ended, (words(soft.log), soft.reports)
    found = words(soft.log)
    assert found[-1] == 0xE0D
    return found[:-1]


FAULTS = {
    "AVX without OSXSAVE": ("vxorps %xmm0, %xmm0, %xmm0", [UD, 0]),
    "AVX that XCR0 has not": (OSXSAVE + "movl $3, %eax\nxorl %ecx, %ecx\nxorl %edx, %edx\nxsetbv\nvzeroupper", [UD, 0]),
    "AVX with TS": (ON + "movq %cr0, %rax\norb $8, %al\nmovq %rax, %cr0\nvzeroupper", [NM, 0]),
    "xsave with TS": (ON + "movq %cr0, %rax\norb $8, %al\nmovq %rax, %cr0\nxsave 0x20000", [NM, 0]),
    "xsave without OSXSAVE": ("xsave 0x20000", [UD, 0]),
    "xgetbv without OSXSAVE": ("xorl %ecx, %ecx\nxgetbv", [UD, 0]),
    "an XCR that there is not": (ON + "movl $2, %ecx\nxgetbv", [GP, 0]),
    "XCR0 without x87": (OSXSAVE + "movl $6, %eax\nxorl %ecx, %ecx\nxorl %edx, %edx\nxsetbv", [GP, 0]),
    "XCR0 with AVX and no SSE": (OSXSAVE + "movl $5, %eax\nxorl %ecx, %ecx\nxorl %edx, %edx\nxsetbv", [GP, 0]),
    "XCR0's reserved bits": (OSXSAVE + "movl $0xf, %eax\nxorl %ecx, %ecx\nxorl %edx, %edx\nxsetbv", [GP, 0]),
    "xsave not aligned": (ON + MASK + "xsave 0x20020", [GP, 0]),
    "xrstor of states that there are not": (ON + MASK + "movq $0x10, 0x20200\nxrstor 0x20000", [GP, 0]),
    "xrstor of a header with reserved bytes": (ON + MASK + "movq $1, 0x20210\nxrstor 0x20000", [GP, 0]),
    "xrstor of MXCSR's reserved bits": (ON + MASK + "movl $0x80000000, 0x20018\nxrstor 0x20000", [GP, 0]),
    "xrstor of a compact area with more than it says": (
        ON + MASK + "movq $4, 0x20200\nbtsq $63, 0x20208\nmovb $3, 0x20208\nxrstor 0x20000", [GP, 0]),
    "xsave to no page": (ON + MASK + "xsave 0x300000", [PF, 2, 0x300000]),
    "vmovaps not aligned": (ON + "vmovaps 0x20010, %ymm0", [GP, 0]),
    "half of a load on no page": (ON + "vmovups 0x1ffff0, %ymm0", [PF, 0, 0x200000]),
    "half of a store on no page": (ON + "vmovups %ymm0, 0x1ffff0", [PF, 2, 0x200000]),
    "a masked load whose mask is on no page": (
        ON + "vpcmpeqd %ymm1, %ymm1, %ymm1\nvpmaskmovd 0x1ffff0, %ymm1, %ymm0", [PF, 0, 0x200000]),
    "VEX.L of an instruction on general registers": (".byte 0xc4, 0xe2, 0x7f, 0xf2, 0xc1", [UD, 0]),
    "XSS of states that there are not": ("movl $0xda0, %ecx\nmovl $1, %eax\nxorl %edx, %edx\nwrmsr", [GP, 0]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_the_manuals(name: str, tmp_path: pathlib.Path) -> None:
    source, expected = FAULTS[name]
    assert run(f"try\n{source}\ndone\n", tmp_path) == expected


def test_a_masked_load_does_not_access_what_is_masked(tmp_path: pathlib.Path) -> None:
    source = ON + """
        movl $0, table + 0x31 * 8
        invlpg 0x31000
        movl $0x1234567, 0x30ffc
        movl $0x80000000, 0x20000
        vmovd 0x20000, %xmm1
        vpmaskmovd 0x30ffc, %ymm1, %ymm0
        vmovd %xmm0, %ebx
        out %ebx
    """
    assert run(source, tmp_path) == [0x1234567]


def test_cpuid_says_what_is_on(tmp_path: pathlib.Path) -> None:
    size = "movl $0xd, %eax\nmovl {index}, %ecx\ncpuid\nout %ebx\n"
    source = "movl $1, %eax\ncpuid\nshrl $27, %ecx\nandl $1, %ecx\nout %ecx\n" + size.format(index="$0") + ON
    source += "movl $1, %eax\ncpuid\nshrl $27, %ecx\nandl $1, %ecx\nout %ecx\n"
    source += size.format(index="$0") + size.format(index="$1")
    assert run(source, tmp_path) == [0, 576, 1, 832, 832]


@pytest.mark.parametrize("save", ("xsave", "xsaveopt", "xsavec", "xsaves"))
def test_what_was_saved_comes_back(save: str, tmp_path: pathlib.Path) -> None:
    """Registers in use, and one state that is not."""
    restore = "xrstors" if save == "xsaves" else "xrstor"
    source = ON + f"""
        movl $0x1111, %eax
        vmovd %eax, %xmm3
        vinsertf128 $1, %xmm3, %ymm3, %ymm3
        {MASK}
        {save} 0x20000
        out 0x20200
        vpcmpeqd %ymm3, %ymm3, %ymm3
        fld1
        {MASK}
        {restore} 0x20000
        vmovd %xmm3, %ebx
        out %ebx
        vextractf128 $1, %ymm3, %xmm4
        vmovd %xmm4, %ebx
        out %ebx
        fnstsw %ax
        movzwl %ax, %ebx
        out %ebx
        movl $1, %ecx
        xgetbv
        movl %eax, %ebx
        out %ebx
    """
    assert run(source, tmp_path) == [6, 0x1111, 0x1111, 0, 6]


def test_states_that_are_not_asked_for_stay(tmp_path: pathlib.Path) -> None:
    source = ON + """
        vpcmpeqd %ymm3, %ymm3, %ymm3
        movl $2, %eax
        xorl %edx, %edx
        xrstor 0x20000
        vmovd %xmm3, %ebx
        out %ebx
        vextractf128 $1, %ymm3, %xmm4
        vmovd %xmm4, %ebx
        out %ebx
    """
    assert run(source, tmp_path) == [0, 0xFFFFFFFF]


def test_a_legacy_instruction_leaves_the_upper_half_and_vex_clears_it(tmp_path: pathlib.Path) -> None:
    upper = "vextractf128 $1, %ymm3, %xmm4\nvmovd %xmm4, %ebx\nout %ebx\n"
    source = ON + "vpcmpeqd %ymm3, %ymm3, %ymm3\npaddd %xmm3, %xmm3\n" + upper + "vpaddd %xmm3, %xmm3, %xmm3\n" + upper
    assert run(source, tmp_path) == [0xFFFFFFFF, 0]


def test_a_transaction_aborts_as_it_begins(tmp_path: pathlib.Path) -> None:
    source = "movl $5, %eax\nxbegin 1f\nout $1\n1: out %eax\nxabort $3\nxtest\nsetz %bl\nmovzbl %bl, %ebx\nout %ebx\n"
    assert run(source + "try\nxend\ndone\n", tmp_path) == [0, 1, GP, 0]


def test_mm_of_mxcsr_is_for_operands_of_computations(tmp_path: pathlib.Path) -> None:
    on = "movl $0x21f80, 0x20000\nldmxcsr 0x20000\nstmxcsr 0x20004\nout 0x20004\n"
    computes = "movl $7, 0x20008\npxor %xmm1, %xmm1\npor 0x20008, %xmm1\nmovd %xmm1, %ebx\nout %ebx\n"
    assert run(on + computes + "try\nmovaps 0x20008, %xmm2\ndone\n", tmp_path) == [0x21F80, 7, GP, 0]


@pytest.fixture
def accelerator() -> Iterator[Any]:
    root, ports = Region.container("memory", 0), Region.container("io", 65536)
    memory, io = AddressSpace("memory", root), AddressSpace("io", ports, ports=True)
    made: Any = SoftAccelerator(memory, io, DeviceLock(), RunControl(), {})
    made.create_vcpu(0, 0, supported_cpuid())
    yield made
    made.close()


def area(used: int, **parts: bytes) -> bytes:
    """An XSAVE area; parts by name and offset: `at576`."""
    made = bytearray(4096)
    struct.pack_into("<H", made, 0, 0x37F)
    struct.pack_into("<II", made, 24, 0x1F80, 0xFFFF)
    struct.pack_into("<Q", made, 512, used)
    for name, data in parts.items():
        made[int(name[2:]) : int(name[2:]) + len(data)] = data
    return bytes(made)


def test_a_saved_processor_keeps_its_ymm_registers(accelerator: Any) -> None:
    vectors = {"at160": bytes(range(256)), "at576": bytes(reversed(range(256)))}
    accelerator.load_vcpu(0, {"xsave": area(7, **vectors), "xcrs": {0: 7}})
    state = accelerator.save_vcpu(0)
    assert (state["xsave"][160:416], state["xsave"][576:832]) == (vectors["at160"], vectors["at576"])
    assert state["xcrs"] == {0: 7}


def test_states_that_are_not_in_use_are_in_their_initial_form(accelerator: Any) -> None:
    accelerator.load_vcpu(0, {"xsave": area(1, at160=b"\1" * 256, at576=b"\2" * 256)})
    state = accelerator.save_vcpu(0)
    assert not any(state["xsave"][160:416]) and not any(state["xsave"][576:832])


@pytest.mark.parametrize("wrong", ({"xcrs": {0: 2}}, {"xcrs": {0: 0xE7}}, {"xsave": area(0xE0, at1088=b"\1")}))
def test_states_that_there_are_not_are_refused(wrong: dict[str, Any], accelerator: Any) -> None:
    with pytest.raises(ValueError, match=r"XCR0|extended"):
        accelerator.load_vcpu(0, wrong)
