"""Reads of an IDE disk by a guest without an operating system, vmrun and QEMU with KVM in turn.

The guest is a firmware image that times 500 commands of each kind with its time-stamp counter: READ SECTORS of one
sector and READ MULTIPLE of sixteen, both with `rep insw`; READ DMA of 4 KiB and of 64 KiB through the PIIX3's bus
master, waiting by polling. The raw image is in the host's page cache.

    python benchmarks/disk.py [--runs N] [--json]
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

COMMANDS, CONSOLE, MEMORY = 500, 0xE9, 32
KINDS = ("PIO, 1 sector", "PIO, 16 sectors", "DMA, 4 KiB", "DMA, 64 KiB")

# Real mode. IDETIM, PCICMD and BMIBA of the IDE function by its configuration space (BMIBA = c000h). Then four times:
# rdtsc; 500 commands at 1f0h; rdtsc; the ticks to port e9h, low byte first. SET MULTIPLE 16 before the second; PRD at
# 1000h, data at 8000h (PIO) and 10000h (DMA). Each command: device, count, LBA 0, command; PIO polls status for DRQ,
# DMA starts the bus master, polls its status for the interrupt, reads status, stops it. Then the last
# dwords of what PIO and DMA read (9ffch, 1fffch), and a byte to port 501h.
GUEST = (
    "fa31c08ed88ec08ed0bc0070fc66b840090080e8f60066b80080008066ef66b804090080e8e500b8"
    "0500ef66b820090080e8d80066b801c0000066efbdf401e80401b301b720e8cc00e8e400b90001bf"
    "0080baf001f36d4d75e8e8f000b310b7c6e8b100e8d600bdf401e8d900b310b7c4e8a100e8b900b9"
    "0010bf0080baf001f36d4d75e8e8c50066c70600100000010066c706041000100080c606101008e8"
    "2b0066c706041000000080c606101080e81a0066a1fc9fe89a00b800108ed866a1fcffe88e00ba01"
    "0530c0eef4bdf401e87300ba04c066b80010000066efba02c0b006ee8a1e1010b7c8e82800ba00c0"
    "b009eeba02c0eca80474fbbaf701ecba00c030c0ee4d75cbe84200c3baf80c66efbafc0cc3baf601"
    "b0e0eebaf20188d8ee4230c0ee42ee42eebaf70188f8eec3baf701eca88075fba80874f7c3baf701"
    "eca88075fbc30f3166a32010c30f31662b062010bae900b90400ee66c1e808e2f9c3"
)


def rom() -> bytes:
    image = bytearray(bytes.fromhex(GUEST).ljust(0x10000, b"\xf4"))
    image[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")
    return bytes(image)


def khz() -> float:
    """The rate of the guest's counter, which is the host's."""
    from accel.api import DeviceLock
    from accel.run import RunControl
    from accel.space import AddressSpace, Region

    from accel.kvm.accelerator import KvmAccelerator

    memory = AddressSpace("memory", Region.container("memory", 0))
    io = AddressSpace("io", Region.container("io", 65536), ports=True)
    accel = KvmAccelerator(memory, io, DeviceLock(), RunControl(), {})
    try:
        cpu = accel.create_vcpu(0, 0, accel.supported_cpuid())
        return float(cpu.tsc_khz())
    finally:
        accel.close()


def main() -> int:
    options = beside.options(__doc__ or "", 5)
    why = beside.hindrance()
    if why:
        return beside.nothing("disk", why, options.json)
    if not beside.has_qemu():
        print("disk: QEMU is not installed; vmrun alone", file=sys.stderr)
    rate = khz()
    table = beside.Table("IDE reads", "µs a command")
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        bios, image, said = where / "bios.bin", where / "disk.img", where / "said"
        bios.write_bytes(rom())
        image.write_bytes(os.urandom(1 << 20))
        env = beside.environment(where)
        file = beside.machine(
            where / "disk.json",
            MEMORY,
            firmware={"bios": str(bios)},
            disks=[str(image)],
            chardevs={"out": {"type": "file", "path": str(said)}},
            devices=[beside.exit_device(), {"driver": "isa-debugcon", "iobase": CONSOLE, "chardev": "out"}],
        )
        commands = {"vmrun": beside.up(file)}
        if beside.has_qemu():
            commands["QEMU"] = beside.qemu(
                MEMORY,
                *("-bios", str(bios), "-drive", f"file={image},format=raw,if=ide"),
                *("-device", f"isa-debug-exit,iobase={beside.EXIT_PORT:#x}"),
                *("-chardev", f"file,id=out,path={said}", "-device", f"isa-debugcon,iobase={CONSOLE:#x},chardev=out"),
            )
        found: dict[str, list[list[float]]] = {who: [] for who in commands}
        for run in range(options.runs):
            for who, command in beside.turned(commands.items(), run):
                said.write_bytes(b"")
                beside.timed(command, env, [0, 1])
                data = said.read_bytes()
                disk = image.read_bytes()
                if len(data) != 4 * len(KINDS) + 8 or data[-8:] != disk[0x1FFC:0x2000] + disk[0xFFFC:0x10000]:
                    raise SystemExit(f"{' '.join(command)}\nthe guest said {data.hex()}")
                ticks = [int.from_bytes(data[4 * n : 4 * n + 4], "little") for n in range(len(KINDS))]
                found[who].append([tick / rate * 1000 / COMMANDS for tick in ticks])
    for n, kind in enumerate(KINDS):
        rows = {who: [run[n] for run in runs] for who, runs in found.items()}
        table.add(kind, rows["vmrun"], rows.get("QEMU"), 1.0)
    table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
