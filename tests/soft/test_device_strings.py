"""String instructions on devices: every item arrives, alone, in order, whatever happens in between."""

from __future__ import annotations

import pathlib
import platform
from typing import Any

import pytest
from accel.api import PyIoRegion
from accel.ram import RamBlock
from accel.space import Region

from accel.soft.accelerator import SoftAccelerator
from tests.soft.lab import PROTECTED, TOOLS, assemble
from tests.soft.native import cpuid
from tests.unit.kvm.pc import Pc

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not TOOLS, reason="needs an x86-64 host and an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
]

PAGE, NEXT = 0x1000000, 0x1001000


class Log:
    """A device that notes its writes; `then(count)` is called at each."""

    def __init__(self, pc: Pc, base: int, size: int, then: Any = None) -> None:
        self.heard: list[tuple[int, int, int]] = []
        self.base, self.then = base, then
        self.region = Region.device(f"log {base:#x}", PyIoRegion("log", None, self.write, 1, 4), size)
        pc.root.add(self.region, base, 1)

    def write(self, offset: int, size: int, value: int) -> None:
        self.heard.append((self.base + offset, size, value))
        if self.then is not None:
            self.then(len(self.heard))


def run(pc: Pc, body: str, directory: pathlib.Path) -> None:
    source = PROTECTED.format(body=body, code="nop").replace("@", " - copy + 0x10000")
    pc.rom.write(0, assemble(source, directory))
    pc.run(1, 30.0, cpuid())
    assert pc.ended


@pytest.fixture
def pc() -> Any:
    made = Pc("f4", accel=SoftAccelerator)
    yield made
    made.close()


def test_a_fill_goes_over_the_end_of_a_page_and_of_a_device(pc: Pc, tmp_path: pathlib.Path) -> None:
    first, second = Log(pc, PAGE, 0x1000), Log(pc, NEXT, 0x82)
    run(pc, f"movl ${NEXT - 400:#x}, %edi\n movl $0x11223344, %eax\n movl $200, %ecx\n rep stosl\n", tmp_path)
    assert first.heard == [(NEXT - 400 + 4 * n, 4, 0x11223344) for n in range(100)]
    # the last dword has its lower half here, the upper one nowhere
    assert second.heard[:32] == [(NEXT + 4 * n, 4, 0x11223344) for n in range(32)]
    assert sum(size for _, size, _ in second.heard[32:]) == 2


@pytest.mark.parametrize(("size", "name"), [(1, "b"), (2, "w"), (4, "l")])
def test_a_copy_from_memory_gives_the_device_item_after_item(
    pc: Pc, tmp_path: pathlib.Path, size: int, name: str
) -> None:
    log = Log(pc, PAGE, 0x1000)
    data = bytes(n * 7 & 0xFF for n in range(600))
    pc.ram.write(0x9000, data)
    run(pc, f"movl $0x9000, %esi\n movl ${PAGE + 2:#x}, %edi\n movl $150, %ecx\n rep movs{name}\n", tmp_path)
    items = [int.from_bytes(data[n : n + size], "little") for n in range(0, 150 * size, size)]
    assert log.heard == [(PAGE + 2 + size * n, size, value) for n, value in enumerate(items)]


def test_a_device_that_goes_in_the_middle_gets_no_more(pc: Pc, tmp_path: pathlib.Path) -> None:
    """What is below is memory: the rest is there."""
    block = RamBlock("below", 0x1000)
    pc.root.add(Region.ram("below", block), PAGE, 0)

    def then(count: int) -> None:
        if count == 10:
            with pc.memory.transaction():
                log.region.set_enabled(False)

    log = Log(pc, PAGE, 0x1000, then)
    run(pc, f"movl ${PAGE:#x}, %edi\n movl $0x55667788, %eax\n movl $300, %ecx\n rep stosl\n", tmp_path)
    assert len(log.heard) == 10
    assert block.read(0, 0x1000) == bytes(40) + bytes.fromhex("88776655") * 290 + bytes(0x1000 - 1200)


def test_backwards_and_single_stores_arrive_too(pc: Pc, tmp_path: pathlib.Path) -> None:
    log = Log(pc, PAGE, 0x1000)
    body = f"movl ${PAGE + 0x10:#x}, %edi\n movl $0x99AA, %eax\n movl $3, %ecx\n std\n rep stosw\n cld\n stosb\n"
    run(pc, body, tmp_path)
    assert log.heard == [(PAGE + at, 2, 0x99AA) for at in (16, 14, 12)] + [(PAGE + 10, 1, 0xAA)]
