"""Port 92h, DMA controllers (Intel 8237A, 231466), VMware's port."""

from __future__ import annotations

import pytest


def test_port_92_keeps_a20_and_reads_back(q):
    q.outb(0x92, 0x02)
    assert q.inb(0x92) & 0x02
    q.outb(0x92, 0x00)
    assert q.inb(0x92) & 0x02 == 0


DMA1 = {
    "address": lambda n: 2 * n,
    "count": lambda n: 2 * n + 1,
    "command": 8,
    "flip": 0x0C,
    "mask": 0x0A,
    "clear": 0x0D,
}
DMA2 = {
    "address": lambda n: 0xC0 + 4 * n,
    "count": lambda n: 0xC2 + 4 * n,
    "command": 0xD0,
    "flip": 0xD8,
    "mask": 0xD4,
    "clear": 0xDA,
}


@pytest.mark.parametrize("chip", [DMA1, DMA2], ids=["dma1", "dma2"])
@pytest.mark.parametrize("channel", range(4))
@pytest.mark.parametrize("register", ["address", "count"])
def test_a_register_is_written_and_read_low_byte_first(q, chip, channel, register):
    port = chip[register](channel)
    q.outb(chip["flip"], 0)
    q.outb(port, 0x34)
    q.outb(port, 0x12)
    q.outb(chip["flip"], 0)
    assert q.inb(port) | q.inb(port) << 8 == 0x1234


@pytest.mark.parametrize("chip", [DMA1, DMA2], ids=["dma1", "dma2"])
def test_clear_resets_the_byte_pointer(q, chip):
    port = chip["address"](1)
    q.outb(port, 0x77)
    q.outb(chip["clear"], 0)
    q.outb(port, 0x34)
    q.outb(port, 0x12)
    q.outb(chip["flip"], 0)
    assert q.inb(port) == 0x34


@pytest.mark.parametrize("chip", [DMA1, DMA2], ids=["dma1", "dma2"])
def test_no_channel_has_asked_or_finished_after_clear(q, chip):
    q.outb(chip["clear"], 0)
    assert q.inb(chip["command"]) & 0x0F == 0


@pytest.mark.parametrize("port", [0x81, 0x82, 0x83, 0x87, 0x89, 0x8A, 0x8B, 0x8F])
def test_page_registers_keep_what_is_written(q, port):
    q.outb(port, 0xA5)
    assert q.inb(port) == 0xA5


def test_ports_of_nobody_read_all_ones(q):
    for port in (0x0300, 0x1234, 0xFFFE):
        assert q.inb(port) == 0xFF
        assert q.inw(port) == 0xFFFF
    assert q.inl(0x0300) == 0xFFFFFFFF


def test_memory_of_nobody_reads_as_nothing_written(q):
    before = q.readl(0xE0000000)
    q.writel(0xE0000000, 0x12345678)
    assert q.readl(0xE0000000) == before
