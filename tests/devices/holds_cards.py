"""Rows of tests/devices/holds.py: network cards, and what else has a list, a file or a program of the guest's to do."""

from __future__ import annotations

import pathlib
import struct
from typing import Any

from tests.devices import test_erst, test_tpm
from tests.devices.fromline import ours
from tests.devices.rows import DATA, MIB, ROWS, Ring, image, row, watch
from tests.devices.senders import TCP, start_pcnet, start_sending_vmxnet3
from tests.devices.test_network_cards import RING, TDLEN, TDT, e1000, start_8255x
from tests.devices.test_nvme_threads import until
from tests.peers.nics import BAR, MACHINE, PORTS, Ours, pci_enable
from vmrun.testing import QTest


class Card(Ours):
    """A card whose cable leads into a user network."""

    def __init__(self, driver: str, **props: Any) -> None:
        isa = driver == "ne2k_isa"
        device = {"driver": driver, "id": "nic", "netdev": "n", "mac": "52:54:00:12:34:57", **props}
        if not isa:
            device["addr"] = "05.0"
        spec = {"type": "user"}
        self.machine = QTest(
            {"machine": MACHINE, "memory": "64MiB", "rtc": {"clock": "vm"}, "netdevs": {"n": spec}, "devices": [device]}
        )
        self.q = self.machine
        self.card = self.machine.machine.devices["nic"]


def once(q: Any, space: str, at: int, size: int, value: int) -> None:
    """One access of a processor. The commands of qtest run timers before they let the lock go."""
    board = q.machine.board
    with board.lock:
        getattr(board, space).write(at, size, value)


def virtio_net(frames: int, header: bytes, size: int) -> None:
    device = {"id": "n", "driver": "virtio-net-pci", "addr": "05.0", "netdev": "n"}
    machine = {"machine": MACHINE, "memory": "64MiB", "netdevs": {"n": {"type": "user"}}, "devices": [device]}
    with QTest(machine) as q:
        ring = Ring(q, 1, 0x801)
        q.write(DATA, header + TCP + bytes(size - len(TCP)))
        for n in range(frames):
            ring.put((DATA, len(header) + size, 0), first=n)
        watch(q)
        ring.kick()
        ring.wait(frames)


@row
def virtio_net_sends_256_frames_of_64_KiB(directory: pathlib.Path) -> None:
    virtio_net(256, struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 0), 65514)


@row
def virtio_net_sends_segments_of_a_byte(directory: pathlib.Path) -> None:
    virtio_net(2, struct.pack("<BBHHHHH", 1, 1, 54, 1, 34, 16, 0), 65514)


def intel(driver: str, mss: int, descriptors: int, command: int, length: int) -> None:
    with Card(driver) as card:
        e1000(card)
        card.q.writel(BAR + TDLEN, 16 * 4096)
        card.q.write(DATA, TCP + bytes(65500 - len(TCP)))
        card.q.write(RING, struct.pack("<BBHBBHIBBH", 14, 24, 33, 34, 50, 0, 0x27 << 24 | 0xFFFF, 0, 54, mss))
        for n in range(1, descriptors):
            card.q.write(RING + 16 * n, struct.pack("<QII", DATA, command | length, 0x300))
        watch(card.q)
        once(card.q, "memory", BAR + TDT, 4, descriptors)


@row
def e1000_sends_segments_of_a_byte(directory: pathlib.Path) -> None:
    intel("e1000", 1, 60, 0x25100000, 65500)


@row
def e1000e_sends_segments_of_a_byte(directory: pathlib.Path) -> None:
    intel("e1000e", 1, 60, 0x25100000, 65500)


@row
def e1000_sends_frames_of_64_KiB(directory: pathlib.Path) -> None:
    intel("e1000", 1448, 4000, 0x21100000, 65500)


@row
def e1000_has_4000_descriptors_of_nothing(directory: pathlib.Path) -> None:
    intel("e1000", 1448, 4000, 0x28100000, 0)


@row
def rtl8139_sends_segments_of_a_byte(directory: pathlib.Path) -> None:
    with Card("rtl8139") as card:
        pci_enable(card.q, 0, 1)
        card.q.write(DATA, TCP + bytes(65514 - len(TCP)))
        for n in range(64):
            last = 0xF8000000 if n == 63 else 0xB8000000
            card.q.write(RING + 16 * n, struct.pack("<IIQ", last | 1 << 16 | 65514, 0, DATA))
        for at, value in ((0x20, RING), (0x24, 0)):
            card.q.outl(PORTS + at, value)
        card.q.outw(PORTS + 0xE0, 3)
        card.q.outb(PORTS + 0x37, 12)
        watch(card.q)
        once(card.q, "io", PORTS + 0xD9, 1, 0x40)


@row
def pcnet_sends_a_ring_of_65535(directory: pathlib.Path) -> None:
    with Card("pcnet") as card:
        start_pcnet(card, 65535, 0x8300, -4096)
        card.q.outw(PORTS + 0x12, 0)
        watch(card.q)
        once(card.q, "io", PORTS + 0x10, 2, 0x4A)


@row
def i82551_runs_a_chain_of_flexible_blocks(directory: pathlib.Path) -> None:
    """Each with 255 buffers of nothing, then one that computes a hash of 2,730 addresses, in a circle."""
    with Card("i82551") as card:
        start_8255x(card)
        for n in range(64):
            at, following = RING + 0x10000 + 0x5000 * n, RING + 0x10000 + 0x5000 * ((n + 1) % 64)
            if n % 2:
                card.q.write(at, struct.pack("<HHIH", 0, 3, following, 16380))
            else:
                card.q.write(at, struct.pack("<HHIIHBB", 0, 0x000C, following, DATA, 0, 0, 255))
        card.q.writel(BAR + 4, RING + 0x10000)
        watch(card.q)
        once(card.q, "memory", BAR + 2, 1, 0x10)


@row
def vmxnet3_sends_segments_of_a_byte(directory: pathlib.Path) -> None:
    with Card("vmxnet3") as card:
        start_sending_vmxnet3(card, 256, 65514, 1)
        watch(card.q)
        once(card.q, "memory", BAR + 0x600, 4, 256)


@row
def ne2k_isa_sends_its_whole_buffer(directory: pathlib.Path) -> None:
    with Card("ne2k_isa", iobase=0x300) as card:
        card.q.outb(0x300, 0x22)
        watch(card.q)
        for at, value in ((4, 0x40), (5, 0xFF), (6, 0x3F), (0, 0x26)):
            card.q.outb(0x300 + at, value)


# --- the others -------------------------------------------------------------------------------------------------------


@row
def fw_cfg_DMA_reads_16_MiB(directory: pathlib.Path) -> None:
    image(directory, 16 * MIB)
    item = f"name=opt/large,file={directory / 'disk.img'}"
    with ours("-machine", MACHINE, "-m", "128", "-fw_cfg", item) as q:
        q.outw(0x510, 0x19)
        count = int.from_bytes(bytes(q.inb(0x511) for _ in range(4)), "big")
        names = [bytes(q.inb(0x511) for _ in range(64)) for _ in range(count)]
        key = next(int.from_bytes(one[4:6], "big") for one in names if one[8:].startswith(b"opt/large\0"))
        q.write(DATA, struct.pack(">IIQ", key << 16 | 0x0A, 16 * MIB, 32 * MIB))
        board = q.machine.board
        chip = next(device.chip for device in board.devices.values() if device.driver == "fw_cfg_io")
        chip.serve_on(board.iothread)  # qtest's machines do without; those whose processors run meanwhile do not
        board.iothread.start()
        watch(q)
        q.outl(0x514, 0)
        once(q, "io", 0x518, 4, int.from_bytes(struct.pack(">I", DATA), "little"))
        until(lambda: not any(q.read(DATA, 4)))  # the control word


@row
def erst_writes_a_record_of_8_KiB(directory: pathlib.Path) -> None:
    with test_erst.ours(directory / "store") as q:
        test_erst.start(q)
        watch(q)
        assert test_erst.put(q, test_erst.record(5, 8000)) == 0


@row
def tpm_takes_a_command(directory: pathlib.Path) -> None:
    path = str(directory / "tpm")
    test_tpm.Program(path)
    with test_tpm.machine(path, "tpm-tis") as q:
        watch(q)
        test_tpm.give_command(q)
        assert test_tpm.response(q)


@row
def ivshmem_shows_64_MiB(directory: pathlib.Path) -> None:
    path = directory / "shared"
    path.write_bytes(bytes(64 * MIB))
    device = {"id": "i", "driver": "ivshmem-plain", "memdev": "m", "addr": "05.0"}
    memory = {"type": "memory-backend-file", "mem-path": str(path), "size": "64MiB", "share": True}
    with QTest({"machine": MACHINE, "memory": "64MiB", "objects": {"m": memory}, "devices": [device]}) as q:
        watch(q)
        for n in range(8):
            q.pci_write(5, 0, 0x18, 0xE0000000 + n * 64 * MIB)
            q.pci_write(5, 0, 4, 7, 2)


@row
def parallel_and_serial_print(directory: pathlib.Path) -> None:
    chardevs = {n: {"type": "file", "path": str(directory / n)} for n in ("p", "s")}
    devices = [{"driver": "isa-parallel", "chardev": "p"}, {"driver": "isa-serial", "chardev": "s"}]
    with QTest({"machine": MACHINE, "memory": "64MiB", "chardevs": chardevs, "devices": devices}) as q:
        watch(q)
        for n in range(64):
            q.outb(0x378, n)
            q.outb(0x37A, 1)
            q.outb(0x37A, 0)
            q.outb(0x3F8, n)


@row
def watchdogs_are_fed(directory: pathlib.Path) -> None:
    devices = [{"driver": "i6300esb", "addr": "05.0"}, {"driver": "ib700"}]
    with QTest({"machine": MACHINE, "memory": "64MiB", "devices": devices}) as q:
        q.pci_write(5, 0, 0x10, BAR)
        q.pci_write(5, 0, 4, 2, 2)
        watch(q)
        for value in (0x80, 0x86):
            q.writew(BAR + 0x0C, value)
        q.writew(BAR + 0x0C, 0x100)
        q.outb(0x443, 0)
        q.outb(0x441, 0)


__all__ = ["ROWS"]
