"""What leaves the guest: ports, memory, strings, HLT, death."""

from __future__ import annotations

import random

import pytest
from accel.api import PyIoRegion
from accel.ram import RamBlock
from accel.space import Region

from tests.unit.kvm.guests import PROTECTED
from tests.unit.kvm.pc import EXIT, FAILED, Pc

pytestmark = pytest.mark.kvm

TO_RAM = "31c0 8ed8"  # xor ax, ax; mov ds, ax
TO_D000 = "b800d0 8ed8"  # mov ax, d000h; mov ds, ax
DONE = "b05a e6f4 f4"  # mov al, 5ah; out f4h, al; hlt


def test_byte_written_to_a_port_reaches_its_region(pc: type[Pc]) -> None:
    guest = pc("b042 e680" + DONE)
    assert guest.run() == EXIT
    assert guest.logged == [0x42]
    assert guest.ended == [0x5A]


def test_byte_read_from_a_port_reaches_the_guest(pc: type[Pc]) -> None:
    guest = pc("e481 e680" + DONE)  # in al, 81h; out 80h, al
    guest.port(0x81, read=lambda offset, size: 0x77)
    guest.run()
    assert guest.logged == [0x77]


@pytest.mark.parametrize("prefix, size, value", [("", 2, 0x1234), ("66", 4, 0x12345678)])
def test_wide_port_write_arrives_whole(pc: type[Pc], prefix: str, size: int, value: int) -> None:
    seen: list[tuple[int, int]] = []
    guest = pc(f"{prefix}b8{value.to_bytes(size, 'little').hex()} {prefix}e790" + DONE)
    guest.port(0x90, 4, write=lambda offset, size, value: seen.append((size, value)))
    guest.run()
    assert seen == [(size, value)]


def test_port_nobody_owns_reads_all_ones(pc: type[Pc]) -> None:
    guest = pc("e499 e680" + DONE)
    guest.run()
    assert guest.logged == [0xFF]


@pytest.mark.parametrize("cheap", [True, False])
def test_device_can_answer_in_registers(pc: type[Pc], cheap: bool) -> None:
    # ebx = 11223344h; r = in eax, 90h; out 80h, bl; out 80h, cl; out 80h, al
    guest = pc("66bb44332211 66e590 88d8 e680 88c8 e680" + DONE)
    seen: list[int] = []

    def read(offset: int, size: int) -> int:
        seen.append(guest.control.register(3))
        guest.control.put_register(3, 0x77)
        guest.control.put_register(1, 0x88)
        return 0

    guest.port(0x90, 4, read=read)
    if cheap:
        guest.accel.want_registers()
    guest.run()
    assert seen == [0x11223344]
    assert guest.logged == [0x77, 0x88]


def test_rep_outsb_brings_every_byte_in_order(pc: type[Pc]) -> None:
    guest = pc(TO_RAM + "be0020 b90500 ba8000 fc f36e" + DONE)  # si=2000h cx=5 dx=80h rep outsb
    guest.ram.write(0x2000, b"hello")
    guest.run()
    assert bytes(guest.logged) == b"hello"


def test_rep_insw_fills_guest_memory(pc: type[Pc]) -> None:
    words = iter(range(0x100, 0x200))
    guest = pc("31c0 8ec0 bf0030 b92000 ba9000 fc f36d" + DONE)  # es:di=0:3000h cx=32 dx=90h rep insw
    guest.port(0x90, 2, read=lambda offset, size: next(words))
    guest.run()
    expected = b"".join(n.to_bytes(2, "little") for n in range(0x100, 0x120))
    assert guest.ram.read(0x3000, 64) == expected


def test_memory_mapped_write_and_read_reach_the_region(pc: type[Pc]) -> None:
    seen: list[tuple[int, int, int]] = []
    guest = pc(TO_D000 + "c70610003412 a02000 e680" + DONE)  # mov word [10h], 1234h; mov al, [20h]
    guest.mmio(0xD0000, read=lambda offset, size: offset + 1, write=lambda *access: seen.append(access))
    guest.run()
    assert seen == [(0x10, 2, 0x1234)]
    assert guest.logged == [0x21]


def test_memory_nobody_owns_reads_all_ones_and_takes_writes(pc: type[Pc]) -> None:
    guest = pc(TO_D000 + "c606000011 a00000 e680" + DONE)
    guest.run()
    assert guest.logged == [0xFF]


def test_write_to_rom_vanishes(pc: type[Pc]) -> None:
    guest = pc("b800f0 8ed8 c606008011 a00080 e680" + DONE, rom={0x8000: "a7"})
    guest.run()
    assert guest.logged == [0xA7]
    assert guest.rom.read(0x8000, 1) == b"\xa7"


def test_write_to_a_rom_device_is_a_call_and_a_read_is_memory(pc: type[Pc]) -> None:
    seen: list[int] = []
    guest = pc(TO_D000 + "c606000011 a00100 e680" + DONE)
    block = RamBlock("flash", 0x1000)
    block.write(1, b"\x99")
    device = PyIoRegion("flash", write=lambda offset, size, value: seen.append(value))
    guest.root.add(Region.rom_device("flash", block, device, 0x1000), 0xD0000)
    guest.run()
    assert seen == [0x11]
    assert guest.logged == [0x99]


def test_region_smaller_than_a_page_is_served_by_dispatch(pc: type[Pc]) -> None:
    guest = pc(TO_D000 + "c606050044 a00500 e680" + DONE)
    guest.root.add(Region.ram("small", RamBlock("small", 0x1000), size=0x100), 0xD0000)
    guest.run()
    assert guest.logged == [0x44]


def test_request_stops_the_processor_that_made_it(pc: type[Pc]) -> None:
    guest = pc("b001 e6f4 b002 e6f4 f4")
    assert guest.run() == EXIT
    assert guest.ended == [1]


def test_processor_goes_on_after_its_request_when_the_machine_starts_again(pc: type[Pc]) -> None:
    guest = pc("b001 e6f4 b002 e6f4 f4")
    guest.run()
    guest.go()
    assert guest.ended == [1, 2]


@pytest.mark.parametrize("irqchip", ["on", "split", "off"])
def test_guest_runs_with_any_interrupt_chip(pc: type[Pc], irqchip: str) -> None:
    guest = pc("b042 e680" + DONE, irqchip=irqchip)
    guest.run()
    assert guest.logged == [0x42]


def test_long_mode_guest_runs(pc: type[Pc]) -> None:
    # Page tables at 2000h, EFER.LME, then in 64-bit code: out 80h, 11223344h; mov [5000h], -1; end with 5ah.
    guest = pc(
        "fa31c08ed866bf002000000f22df6766c7070330000066c70600300340000066c70600408300000066b8a00000000f22"
        "e066b9800000c00f32660d000100000f302e660f01165c000f20c0660d010000800f22c066ea80000f00080017006800"
        "0f00660f1f4400000000000000000000ffff0000009baf00ffff00000093cf0048b8887766554433221148c1e820e780"
        "48c7c30050000048c703ffffffffb05ae6f4f4"
    )
    seen: list[int] = []
    guest.ports.remove(guest.ports.children[-1])
    guest.port(0x80, 4, write=lambda offset, size, value: seen.append(value))
    cpuid = guest.accel.supported_cpuid()
    assert guest.run(cpuid=cpuid) == EXIT
    assert seen == [0x11223344]
    assert guest.ram.read(0x5000, 8) == b"\xff" * 8


def test_triple_fault_is_reported_with_registers(pc: type[Pc]) -> None:
    guest = pc(PROTECTED + "0f011d00010000 66b83800 8ed8")  # lidt of nothing, bad selector
    assert guest.run() & FAILED
    (report,) = guest.control.take_reports()
    assert report["exit"] == "SHUTDOWN"
    assert report["mode"] == 32
    assert report["linear_rip"] == 0xF0053
    assert report["code"][:2] == b"\x8e\xd8"


def test_undefined_instruction_reaches_its_handler_or_is_reported_with_its_bytes(pc: type[Pc]) -> None:
    guest = pc("0f0b", rom={0x100: DONE})
    guest.ram.write(4 * 6, bytes.fromhex("000100f0"))
    if guest.run() == EXIT:
        assert guest.ended == [0x5A]
    else:  # a KVM that emulates real mode gives up here
        (report,) = guest.control.take_reports()
        assert (report["exit"], report["linear_rip"]) == ("INTERNAL_ERROR", 0xF0000)
        assert report["code"][:2] == b"\x0f\x0b"


def test_processor_can_be_reset_after_a_triple_fault(pc: type[Pc]) -> None:
    guest = pc(PROTECTED + "b042 e680 0f011d00010000 66b83800 8ed8")
    guest.run()
    guest.accel.reset_vcpus()
    assert guest.go() & FAILED
    assert guest.logged == [0x42, 0x42]


def test_fetch_from_nowhere_ends_in_a_report(pc: type[Pc]) -> None:
    guest = pc("ea 0000 00d0")  # jmp d000:0000, where nothing is
    assert guest.run() == FAILED
    (report,) = guest.control.take_reports()
    assert (report["exit"], report["linear_rip"]) == ("INTERNAL_ERROR", 0xD0000)


def test_guest_that_writes_everywhere_harms_nobody(pc: type[Pc]) -> None:
    # es from 0 up in steps of 64 KiB: rep stosw over the first megabyte, then out to all ports, then end.
    guest = pc("fc 31c0 8ec0 31ff b90080 f3ab 8cc0 050010 8ec0 75f031d2 88d0 83faf4 7401 ee 42 75f6" + DONE)
    assert guest.run(seconds=60) == EXIT
    assert len(guest.ended) == 1 and len(guest.logged) == 1  # it came by both ports, once
    words = [(segment << 12).to_bytes(2, "little") for segment in range(8)]
    assert guest.ram.read(0, 0x80000) == b"".join(word * 0x8000 for word in words)


@pytest.mark.parametrize("irqchip", ["on", "off"])
def test_random_code_ends_in_a_defined_outcome(pc: type[Pc], irqchip: str) -> None:
    for seed in range(25):
        dice = random.Random(seed)
        head = PROTECTED if seed % 2 else ""
        guest = pc(head + dice.randbytes(4096).hex(), irqchip=irqchip)
        guest.mmio(0xD0000, 0x2000, read=lambda offset, size: 0, write=lambda offset, size, value: None)
        guest.port(0, 0x80, read=lambda offset, size: 0, write=lambda offset, size, value: None)
        requests = guest.run(seconds=0.01)
        reports = guest.control.take_reports()
        assert bool(requests & FAILED) == bool(reports)
        assert all(report["exit"] in ("SHUTDOWN", "INTERNAL_ERROR", "FAIL_ENTRY") for report in reports)
        guest.accel.reset_vcpus()
        assert guest.accel.save_vcpu(0)["regs"]["rip"] == 0xFFF0
        guest.close()
