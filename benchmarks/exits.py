"""Port and memory exits per second: a compiled device, a Python device, and QEMU with KVM, in one run.

The guest is a ROM that times 20,000 accesses of each kind with its time-stamp counter and says the ticks at
port 402h. Medians of the rounds; a ratio is the median of theirs, and above 1 means that vmrun is faster.

    python benchmarks/exits.py [--runs N] [--json]
"""

from __future__ import annotations

import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside
from accel.api import DeviceLock, IoRegion, PyIoRegion
from accel.ram import RamBlock
from accel.run import RunControl
from accel.space import AddressSpace, Region

from accel.errors import AccelFailure
from accel.kvm.accelerator import KvmAccelerator

COUNT = 20000
KINDS = ("empty loop", "port write", "port read", "memory write", "memory read")

# Protected mode; five times: rdtsc; ecx = 20000; the access; dec ecx; jnz; rdtsc; the ticks to port 402h.
# The accesses: nop; out 80h, al; in al, 80h; mov [e0000000h], al; mov al, [e0000000h]. Then out f4h.
GUEST = (
    "fa2e660f011618000f20c00c010f22c066ea38000f000800170020000f0066900000000000000000"
    "ffff0000009bcf00ffff00000093cf00b8100000008ed88ec08ed0bc007000000f3189c6b9204e00"
    "00904975fc0f3129f0e8680000000f3189c6b9204e0000e6804975fb0f3129f0e8510000000f3189"
    "c6b9204e0000e4804975fb0f3129f0e83a0000000f3189c6b9204e0000a2000000e04975f80f3129"
    "f0e8200000000f3189c6b9204e0000a0000000e04975f80f3129f0e80600000066baf400eef466ba"
    "0204b904000000eec1e8084975f9c3"
)


def rom() -> bytes:
    code = bytes.fromhex(GUEST)
    image = bytearray(code.ljust(0x10000, b"\xf4"))
    image[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")
    return bytes(image)


def ticks(data: bytes) -> list[int]:
    return [int.from_bytes(data[4 * n : 4 * n + 4], "little") for n in range(len(KINDS))]


def in_vmrun(device: Any, coalesced: bool = False) -> tuple[list[int], int]:
    """(ticks by kind, kHz of the counter) with `device` at port 80h and at e0000000h."""
    root, ports = Region.container("memory", 0), Region.container("io", 65536)
    memory, io = AddressSpace("memory", root), AddressSpace("io", ports, ports=True)
    block, ram, out, control = RamBlock("rom", 0x10000), RamBlock("ram", 0x100000), bytearray(), RunControl()
    block.write(0, rom())
    accel = KvmAccelerator(memory, io, DeviceLock(), control, {})
    try:
        root.add(Region.ram("ram", ram, size=0xA0000), 0)
        high = root.add(Region.rom("rom", block), 0xFFFF0000)
        root.add(Region.alias("rom-low", high, 0, 0x10000), 0xF0000)
        root.add(Region.device("memory", device, 0x1000), 0xE0000000)
        ports.add(Region.device("port", device, 1), 0x80)
        said = PyIoRegion("said", write=lambda offset, size, value: out.append(value))
        ports.add(Region.device("said", said, 1), 0x402)
        ports.add(Region.device("end", PyIoRegion("end", write=lambda offset, size, value: 32), 1), 0xF4)
        cpu: Any = accel.create_vcpu(0, 0, accel.supported_cpuid())
        if coalesced:
            accel.add_coalesced(io, 0x80, 1)
            accel.add_coalesced(memory, 0xE0000000, 0x1000)
        accel.start()
        while not control.take():
            wait(control.notifier.fileno())
        accel.stop()
        reports = control.take_reports()
        if reports:
            raise AccelFailure("the guest died", reports[0]["exit"])
        return ticks(bytes(out)), cpu.tsc_khz()
    finally:
        accel.close()


def wait(fd: int) -> None:
    import select

    select.select([fd], [], [], 10)


def in_qemu(directory: pathlib.Path) -> list[int]:
    said = directory / "said"
    (directory / "rom.bin").write_bytes(rom())
    subprocess.run(
        [
            "qemu-system-x86_64",
            "-M",
            "pc-i440fx-2.0",
            "-accel",
            "kvm",
            "-m",
            "16",
            "-nodefaults",
            "-display",
            "none",
        ]
        + ["-bios", str(directory / "rom.bin"), "-device", "isa-debug-exit,iobase=0xf4"]
        + ["-debugcon", f"file:{said}", "-global", "isa-debugcon.iobase=0x402"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return ticks(said.read_bytes())


def main() -> int:
    options = beside.options(__doc__ or "", 8)
    why = beside.hindrance()
    if why:
        return beside.nothing("exits", why, options.json)
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        print("exits: QEMU is not installed; vmrun alone", file=sys.stderr)
    found: dict[str, list[list[int]]] = {"compiled": [], "python": [], "queued": [], "QEMU": []}
    khz = 0
    with tempfile.TemporaryDirectory() as name:
        sides = {
            "compiled": lambda: in_vmrun(IoRegion()),
            "python": lambda: in_vmrun(PyIoRegion("python", lambda offset, size: 0, lambda offset, size, value: None)),
            "queued": lambda: in_vmrun(IoRegion(), coalesced=True),
        }
        if qemu:
            sides["QEMU"] = lambda: (in_qemu(pathlib.Path(name)), khz)
        for n in range(options.runs):
            # whoever follows QEMU finds a processor that has slept, so nobody always does
            for who in beside.turned(sides, n):
                row, khz = sides[who]()
                found[who].append(row)
    best = {
        who: [statistics.median(row[n] for row in rows) for n in range(len(KINDS))]
        for who, rows in found.items()
        if rows
    }

    def ratio(n: int, who: str) -> str:
        """The median of the rounds' ratios, with a ? where it is not to be believed."""
        middle, low, high = beside.compare([row[n] for row in found["QEMU"]], [row[n] for row in found[who]])
        return f"{middle:.2f}x" + ("" if beside.believed(options.runs, middle, low, high) else "?")

    if options.json:
        rates = {
            who: {kind: round(COUNT * khz * 1000 / row[n]) for n, kind in enumerate(KINDS) if row[n]}
            for who, row in best.items()
        }
        print(json.dumps({"benchmark": "exits", "unit": "per second", "rows": rates}))
        return 0
    heads = "".join(f"{who:>16}" for who in found)
    print(f"{'':14}{heads}   compiled/QEMU  Python/QEMU")
    for n, kind in enumerate(KINDS):
        line = f"{kind:14}"
        for who in found:
            if who not in best or not best[who][n]:
                line += f"{'-':>16}"
                continue
            rate = COUNT * khz * 1000 / best[who][n] if khz else 0
            line += f"{rate:>12,.0f} /s "
        if "QEMU" in best:
            line += f"{ratio(n, 'compiled'):>14}{ratio(n, 'python'):>13}"
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
