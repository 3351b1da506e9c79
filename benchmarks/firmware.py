"""SeaBIOS from process start to a disk's boot sector, vmrun and QEMU with KVM in turn.

The boot sector writes a byte to a debug console, a pipe to this script, and ends the machine. Both have the same
firmware, memory and display; the disk is a raw IDE disk of 1 MiB.

    python benchmarks/firmware.py [--runs N] [--json]
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

MEMORY = 256
CONSOLE = 0xE9
# mov al, '!'; out e9h, al; mov dx, 501h; out dx, al; hlt
SECTOR = "b021 e6e9 ba0105 ee f4"


def disk() -> bytes:
    sector = bytes.fromhex(SECTOR).ljust(510, b"\0") + b"\x55\xaa"
    return sector.ljust(1 << 20, b"\0")


def main() -> int:
    options = beside.options(__doc__ or "", 5)
    why = beside.hindrance()
    if why:
        return beside.nothing("firmware", why, options.json)
    if not beside.has_qemu():
        print("firmware: QEMU is not installed; vmrun alone", file=sys.stderr)
    table = beside.Table("firmware to boot sector", "ms")
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        image, fifo = where / "disk.img", where / "fifo"
        image.write_bytes(disk())
        os.mkfifo(fifo)
        env = beside.environment(where)
        for display, vga in (("none", "none"), ("std", "std")):
            file = beside.machine(
                where / f"{display}.json",
                MEMORY,
                display=display,
                disks=[str(image)],
                chardevs={"out": {"type": "file", "path": str(fifo)}},
                devices=[beside.exit_device(), {"driver": "isa-debugcon", "iobase": CONSOLE, "chardev": "out"}],
            )
            qemu = beside.qemu(
                MEMORY,
                *("-vga", vga, "-drive", f"file={image},format=raw,if=ide"),
                *("-device", f"isa-debug-exit,iobase={beside.EXIT_PORT:#x}"),
                *("-chardev", f"file,id=out,path={fifo}", "-device", f"isa-debugcon,iobase={CONSOLE:#x},chardev=out"),
            )
            sides = {"vmrun": lambda file=file: beside.until_byte(beside.up(file), env, fifo)}
            if beside.has_qemu():
                sides["QEMU"] = lambda qemu=qemu: beside.until_byte(qemu, env, fifo)
            found = beside.alternate(sides, options.runs, 1)
            what = "no display" if display == "none" else "standard VGA"
            table.add(what, found["vmrun"], found.get("QEMU"), 1.0)
    table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
