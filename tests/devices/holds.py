"""For how long each device has the device lock at most: its largest command, as a guest can give it, is driven once.

    python -m tests.devices.holds [ROW …]

Each row runs in a process of its own, over qtest, with the lock watched (accel.errands.watch). What is printed is the
longest hold of the row: the processor time of whoever had the lock, and how long he waited for something with it. Work
is the same on a loaded host, waiting is not. What the guest makes long is cut into turns:
docs/decisions/dma-and-the-io-thread.md.
"""

from __future__ import annotations

import json
import pathlib
import struct
import subprocess
import sys
import tempfile
from typing import Any

from accel import errands
from tests.devices import holds_cards, scsi, test_cdrom, test_esp, test_fdc, test_lsi, test_megasas, test_pvscsi
from tests.devices.fromline import ours
from tests.devices.rows import DATA, MIB, RINGS, ROWS, Ring, image, row, watch
from tests.unit.virtio.driver import Disk
from vmrun.testing import QTest

# --- storage ----------------------------------------------------------------------------------------------------------


@row
def floppy_reads_a_cylinder(directory: pathlib.Path) -> None:
    with test_fdc.ours(directory) as q:
        test_fdc.start(q)
        test_fdc.dma(q, 0x10000, 36 * 512, 0x46)
        watch(q)
        test_fdc.command(q, test_fdc.READ | 0x80, 0, 3, 0, 1, 2, 18, 0x1B, 0xFF)
        q.clock_step(1_000_000_000)
        assert test_fdc.results(q)


@row
def cdrom_reads_8_MiB_by_DMA(directory: pathlib.Path) -> None:
    with test_cdrom.machine("vmrun", image(directory)) as q:
        assert isinstance(q, QTest)
        test_cdrom.settled(q)
        watch(q)
        test_cdrom.bus_master(q, struct.pack(">BBIBHxxx", 0x28, 0, 0, 0, 4096), [0x10000] * 128)
        q.settle()


@row
def virtio_blk_64_reads_of_1_MiB(directory: pathlib.Path) -> None:
    with Disk(image(directory), size=256) as disk:
        watch(disk.q)
        for n in range(64):
            disk.q.write(0x300000 + 16 * n, struct.pack("<IIQ", 0, 0, 2048 * (n % 16)))
            disk.put([(0x300000 + 16 * n, 16, 0), (0x400000, MIB, 2), (0x310000 + n, 1, 2)])
        disk.kick()


@row
def virtio_scsi_20_reads_of_256_KiB(directory: pathlib.Path) -> None:
    drives = {"d0": {"file": str(image(directory)), "format": "raw"}}
    with scsi.machine("vmrun", drives, [{"id": "u", "driver": "scsi-hd", "drive": "d0"}]) as q:
        adapter = scsi.Adapter(q).ready()
        for n in range(20):
            cdb = struct.pack(">BxIxHx", 0x28, 512 * n, 512).ljust(32, b"\0")
            q.write(scsi.HEAD + 64 * n, scsi.UNIT + bytes(11) + cdb)
            where = (scsi.HEAD + 64 * n, 51, 0), (scsi.ANSWER + 128 * n, 108, 2), (scsi.DATA, 262144, 2)
            adapter.put(scsi.COMMANDS, list(where), first=3 * n)
        watch(q)
        adapter.kick(scsi.COMMANDS)
        q.settle()


@row
def pvscsi_32_reads_of_256_KiB(directory: pathlib.Path) -> None:
    with test_pvscsi.machine("vmrun", image(directory)) as q:
        card = test_pvscsi.Card(q)
        card.start()
        card.run(bytes(6))
        for n in range(31):
            card.put(test_pvscsi.read_10(512 * n, 512), test_pvscsi.MEMORY, 262144, test_pvscsi.TO_HOST)
        watch(q)
        q.writel(test_pvscsi.BAR + test_pvscsi.KICK, 0)
        q.settle()
        for _ in range(31):
            assert card.answer() is not None


@row
def megasas_reads_256_KiB(directory: pathlib.Path) -> None:
    with test_megasas.machine("vmrun", image(directory)) as q:
        card = test_megasas.Card(q)
        card.start()
        card.scsi(bytes(6), 0)
        watch(q)
        assert card.blocks(test_megasas.LD_READ, 0, 512, [(test_megasas.DATA, 262144)])[0] == 0


@row
def am53c974_reads_16_MiB(directory: pathlib.Path) -> None:
    with test_esp.machine("vmrun", image(directory)) as q:
        chip = test_esp.Chip(q).ready()
        chip.begin(struct.pack(">BxIxHx", 0x28, 0, 0x7FFF))
        watch(q)
        chip.move(0x7FFF * 512)


@row
def lsi53c895a_reads_15_MiB(directory: pathlib.Path) -> None:
    with test_lsi.machine("vmrun", image(directory)) as q:
        chip = test_lsi.Chip(q)
        chip.command(bytes(6))
        chip.command(bytes((3, 0, 0, 0, 18, 0)), 18)
        watch(q)
        q.read = lambda at, size: b""  # type: ignore[method-assign]  # what was read need not be seen
        q.memset = lambda at, size, value=0: None  # type: ignore[method-assign]
        chip.command(struct.pack(">BxIxHx", 0x28, 0, 0x7000), 0x7000 * 512)


@row
def lsi53c895a_runs_a_loop(directory: pathlib.Path) -> None:
    with test_lsi.machine("vmrun", image(directory)) as q:
        chip = test_lsi.Chip(q)
        watch(q)
        chip.run((0xC0FFFFFF, DATA, DATA + 0x1000000), (0x80880000, 0xFFFFFFEC))


# --- memory and screens -----------------------------------------------------------------------------------------------


@row
def virtio_balloon_takes_65536_pages(directory: pathlib.Path) -> None:
    device = {"id": "b", "driver": "virtio-balloon-pci", "addr": "05.0"}
    with QTest({"machine": "pc-i440fx-7.2", "memory": "512MiB", "devices": [device]}) as q:
        ring = Ring(q, 0)
        numbers = struct.pack("<65536I", *(0x10000 + (n * 7) % 65536 for n in range(65536)))
        for at in range(0, len(numbers), 65536):
            q.write(DATA + at, numbers[at : at + 65536])
        ring.put((DATA, len(numbers), 0))
        q.machine.board.ram.write(256 * MIB, bytes(256 * MIB))
        watch(q)
        ring.kick()
        ring.wait(1)


@row
def virtio_balloon_is_told_of_256_MiB(directory: pathlib.Path) -> None:
    device = {"id": "b", "driver": "virtio-balloon-pci", "addr": "05.0", "free-page-reporting": True}
    with QTest({"machine": "pc-i440fx-7.2", "memory": "512MiB", "devices": [device]}) as q:
        ring = Ring(q, 3, 1 << 5 | 1 << 1)
        ring.put((256 * MIB, 256 * MIB, 2))
        q.machine.board.ram.write(256 * MIB, bytes(256 * MIB))
        watch(q)
        ring.kick()
        ring.wait(1)


def gpu(*requests: bytes) -> None:
    """The last of them is what is watched."""
    device = {"id": "g", "driver": "virtio-gpu-pci", "addr": "05.0", "max_hostmem": 512 * MIB}
    with QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "devices": [device]}) as q:
        ring = Ring(q, 0)
        for n, request in enumerate(requests):
            for at in range(0, len(request), 65536):
                q.write(DATA + at, request[at : at + 65536])
            if n == len(requests) - 1:
                watch(q)
            ring.put((DATA, len(request), 0), (RINGS + 0xC000, 64, 2))
            ring.kick()
            assert q.readl(RINGS + 0xC000) == 0x1100


def request(code: int, form: str, *values: int) -> bytes:
    return struct.pack("<IIQII" + form, code, 0, 0, 0, 0, *values)


CREATE = request(0x101, "4I", 1, 1, 8192, 4096)
ENTRIES = b"".join(struct.pack("<QII", 0x1000000 + 4096 * (n % 4096), 4096, 0) for n in range(16384))
ATTACH = request(0x106, "2I", 1, 16384) + ENTRIES


@row
def virtio_gpu_attaches_16384_pages(directory: pathlib.Path) -> None:
    gpu(CREATE, ATTACH)


@row
def virtio_gpu_transfers_64_MiB(directory: pathlib.Path) -> None:
    gpu(CREATE, ATTACH, request(0x105, "4IQII", 0, 0, 8192, 2048, 0, 1, 0))


@row
def virtio_gpu_gives_up_128_MiB(directory: pathlib.Path) -> None:
    gpu(CREATE, ATTACH, request(0x105, "4IQII", 0, 0, 8192, 4096, 0, 1, 0), request(0x102, "2I", 1, 0))


def svga(words: tuple[int, ...], times: int) -> None:
    """Commands of VMware's ring, on a picture of 2368 x 1770."""
    ports, ring = 0xC000, 0xE8000000
    device = {"id": "g", "driver": "vmware-svga", "addr": "05.0", "vgamem_mb": 32}
    with QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "devices": [device]}) as q:
        for offset, value in ((0x10, ports), (0x14, 0xE0000000), (0x18, ring), (4, 7)):
            q.pci_write(5, 0, offset, value)
        data = struct.pack(f"<{len(words)}I", *words) * times
        q.write(ring, struct.pack("<4I", 16, 0x10000, 16 + len(data), 16) + data)
        for register, value in ((2, 2368), (3, 1770), (7, 32), (1, 1), (20, 1)):
            q.outl(ports, register)
            q.outl(ports + 1, value)
        card: Any = q.machine.devices["g"]
        card.vram.write(0, bytes(32 * MIB))  # memory that the host has given already
        watch(q)
        q.outl(ports, 21)
        q.outl(ports + 1, 1)
        q.outl(ports, 22)
        while q.inl(ports + 1):
            pass
        assert q.readl(ring + 12) == 16 + len(data)


@row
def vmware_svga_copies_its_picture_50_times(directory: pathlib.Path) -> None:
    svga((3, 0, 0, 0, 1, 2368, 1769), 50)


@row
def vmware_svga_fills_2700_columns(directory: pathlib.Path) -> None:
    svga((2, 7, 5, 0, 1, 1770), 2700)


@row
def vmware_svga_takes_pointers_of_256_lines(directory: pathlib.Path) -> None:
    svga((19, 1, 0, 0, 256, 256, 1, 1, *(0x55555555,) * 4096), 3)


@row
def a_BAR_moves(directory: pathlib.Path) -> None:
    with ours("-machine", "pc-i440fx-7.2", "-m", "64", "-device", "VGA,addr=5", "-device", "e1000,addr=6") as q:
        q.pci_write(5, 0, 4, 3, 2)
        watch(q)
        for n in range(16):
            q.pci_write(5, 0, 0x10, 0xE0000000 + n * 0x1000000)


@row
def the_machine_is_reset(directory: pathlib.Path) -> None:
    with ours("-machine", "pc-i440fx-7.2", "-m", "64", "-device", "VGA", "-device", "e1000", "-device", "lsi") as q:
        watch(q)
        q.machine.cold_reset()


assert holds_cards.ROWS is ROWS  # its rows are among them


def measure(name: str) -> dict[str, list[float]]:
    """{who: [holds, µs of work, µs of waiting]}"""
    with tempfile.TemporaryDirectory() as directory:
        ROWS[name](pathlib.Path(directory))
        found = errands.watched()["holders"]
        return {
            who: [count, work / 1e3, waiting / 1e3]
            for who, (count, work, waiting, *_) in found.items()
            if "/monitor/qtest.py" not in who  # the program that stands in for a guest
        }


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(sys.argv[2])))
        return 0
    for name in sys.argv[1:] or ROWS:
        command = [sys.executable, "-m", "tests.devices.holds", "--child", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name:<36} failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        holders = json.loads(done.stdout.splitlines()[-1])
        if not holders:
            print(f"{name:<36} no hold above 20 µs", flush=True)
            continue
        who, (count, work, waiting) = max(holders.items(), key=lambda item: item[1][1])
        print(
            f"{name:<36} {work:9.0f} µs work, {waiting:7.0f} waiting, {count:5} holds above 20 µs  {who}", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
