"""Firmware configuration (QEMU's specs/fw_cfg): selector, data, directory, and DMA where the type has it."""

from __future__ import annotations

import struct

import pytest

from vmrun.testing import QTest

SELECTOR, DATA, DMA = 0x510, 0x511, 0x514


def item(q, key, count):
    q.outw(SELECTOR, key)
    return bytes(int(answer, 16) for answer in q.ask_all([f"inb {DATA:#x}"] * count))


def directory(q):
    (count,) = struct.unpack(">I", item(q, 0x19, 4))
    data = item(q, 0x19, 4 + 64 * count)
    found = {}
    for n in range(count):
        size, key, _, name = struct.unpack_from(">IHH56s", data, 4 + 64 * n)
        found[name.split(b"\0")[0].decode()] = key, size
    return found


def test_the_signature_is_item_0(q):
    assert item(q, 0, 4) == b"QEMU"


def test_a_selector_begins_its_item_anew(q):
    assert item(q, 0, 2) == item(q, 0, 2) == b"QE"


def test_past_its_end_an_item_reads_0(q):
    assert item(q, 0, 8) == b"QEMU\0\0\0\0"


def test_an_unknown_item_reads_0(q):
    assert item(q, 0x3FFF, 4) == bytes(4)


def test_the_selector_port_does_not_read_as_an_item(q):
    q.outw(SELECTOR, 0)
    q.inb(DATA)
    assert q.inb(DATA) == ord("E")


@pytest.mark.parametrize("key, count", [(0x03, 8), (0x05, 2), (0x0E, 2), (0x0F, 2)])
def test_items_of_the_machine(q, key, count):
    expected = {0x03: 64 << 20, 0x05: 1, 0x0E: 0, 0x0F: 1}[key]
    assert int.from_bytes(item(q, key, count), "little") == expected


def test_writes_through_the_data_port_are_ignored(q):
    q.outw(SELECTOR, 0)
    for byte in b"XXXX":
        q.outb(DATA, byte)
    assert item(q, 0, 4) == b"QEMU"


def test_files_of_the_directory_have_keys_from_20h_on_and_no_name_twice(q):
    files = directory(q)
    keys = [key for key, _ in files.values()]
    assert len(set(keys)) == len(keys)
    assert min(keys) >= 0x20


@pytest.mark.parametrize("name", ["etc/e820", "etc/pvpanic-port", "etc/system-states"])
def test_files_that_firmware_reads_are_there(q, name):
    key, size = directory(q)[name]
    assert any(item(q, key, size))


def test_pvpanic_s_port_is_told(q):
    key, size = directory(q)["etc/pvpanic-port"]
    assert struct.unpack("<H", item(q, key, size)) == (0x505,)


def test_dma_is_what_the_id_says(q):
    """Bit 1 of item 1. Types before 2.5 have none, and their DMA port is nobody's."""
    assert int.from_bytes(item(q, 1, 4), "little") == 1
    assert q.inl(DMA) == 0xFFFFFFFF


@pytest.fixture
def dma():
    with QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB"}) as q:
        yield q


def test_a_type_with_dma_says_so(dma):
    assert int.from_bytes(item(dma, 1, 4), "little") == 3
    assert dma.inl(DMA) == int.from_bytes(b"QEMU", "little")


def test_dma_reads_an_item_into_memory(dma):
    dma.write(0x1000, struct.pack(">IIQ", 0x000A, 4, 0x2000))
    dma.outl(DMA, 0)
    dma.outl(DMA + 4, int.from_bytes(struct.pack(">I", 0x1000), "little"))
    assert dma.read(0x2000, 4) == b"QEMU"
    assert dma.read(0x1000, 4) == bytes(4)
