"""A floppy disk that boots, and the one that a stock Linux reads and writes."""

from __future__ import annotations

import pathlib
import random

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.machines import Guest

pytestmark = pytest.mark.guest
SIZE = 2880 * 512
# mov ax,0x0201; mov cx,2; xor dx,dx; mov bx,0x7e00; xor bp,bp; mov es,bp; int 13h; jc; jmp 0x7e00
LOADER = bytes.fromhex("b80102 b90200 31d2 bb007e 31ed 8ec5 cd13 72fe e9e901")
# print what follows through int 10h, then halt
PRINTER = bytes.fromhex("be147e 31c0 8ed8 ac 84c0 7406 b40e cd10 ebf5 f4 ebfd")


def bootable(path: pathlib.Path, text: str) -> None:
    loader = LOADER.ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes((loader + PRINTER.ljust(20, b"\0") + text.encode() + b"\0").ljust(SIZE, b"\0"))


def test_seabios_boots_a_floppy_and_reads_its_sectors(tmp_path: pathlib.Path) -> None:
    bootable(tmp_path / "boot.img", "second sector of a floppy")
    keys = {"machine": "pc-i440fx-2.0", "memory": "64MiB", "display": "std"}
    with Guest(tmp_path, "soft", floppies=["boot.img"], boot={"order": "a"}, **keys) as guest:
        assert guest.run_until(lambda: "second sector of a floppy" in guest.screen(), 60), guest.screen()


SCRIPT = """
busybox insmod /floppy.ko || echo NO-MODULE
busybox dmesg | busybox grep -i -e floppy -e FDC
echo READ $(busybox dd if=/dev/fd0 bs=512 skip=2000 count=40 2>/dev/null | busybox md5sum)
busybox dd if=/dev/zero bs=1k count=20 of=/dev/fd0 seek=700 2>&1
busybox sync
echo WHOLE $(busybox md5sum < /dev/fd0)
busybox dd if=/dev/fd1 bs=512 count=1 2>&1 | busybox tail -n 1
"""


@pytest.mark.slow
def test_linux_reads_and_writes_it(tmp_path: pathlib.Path) -> None:
    import hashlib

    image = tmp_path / "disk.img"
    data = bytearray(random.Random(2).randbytes(SIZE))
    image.write_bytes(data)
    chosen = kernel(cloud=False)
    version = pathlib.Path(chosen).name.removeprefix("vmlinuz-")
    module = pathlib.Path(f"/lib/modules/{version}/kernel/drivers/block/floppy.ko")
    initrd = initramfs(tmp_path, SCRIPT, {"floppy.ko": (0o100644, module.read_bytes())})
    keys = {"machine": "pc-i440fx-7.2", "kernel": chosen, "initrd": initrd, "floppies": [str(image), "empty"]}
    with LinuxGuest(tmp_path, "soft", "quiet", **keys) as guest:
        guest.run_to_end(400)
        said = guest.console()
    assert f"READ {hashlib.md5(data[2000 * 512 : 2040 * 512]).hexdigest()}" in said, said[-2000:]
    data[700 * 1024 : 720 * 1024] = bytes(20480)
    assert image.read_bytes() == data, said[-2000:]
    assert f"WHOLE {hashlib.md5(data).hexdigest()}" in said, said[-2000:]
