"""A kernel's items as QEMU lays them out for the same file and command line."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.peers.oracle import Qemu, needs_qemu
from tests.peers.test_fw_cfg_qemu import prepared
from vmrun.firmware import linux

pytestmark = [pytest.mark.peer, needs_qemu]


def bzimage(version: int, *, sectors: int = 3, limit: int = 0x37FFFFFF, xload: int = 0) -> bytes:
    """A setup header with a little of everything behind it."""
    image = bytearray((sectors + 1) * 512 if sectors else 5 * 512)
    image[0x1F1] = sectors
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<HB", image, 0x206, version, 0)
    image[0x211] = 0x01
    struct.pack_into("<I", image, 0x22C, limit)
    struct.pack_into("<H", image, 0x236, xload)
    return bytes(image) + bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("version", "limit", "xload", "memory"),
    [
        (0x20D, 0x7FFFFFFF, 0, 256),
        (0x20D, 0x7FFFFFFF, 2, 3072),
        (0x20A, 0x37FFFFFF, 0, 2048),
        (0x202, 0, 0, 2048),
        (0x201, 0, 0, 64),
    ],
)
def test_items_of_a_kernel_equal_qemus(
    tmp_path: Path, version: int, limit: int, xload: int, memory: int
) -> None:
    kernel, initrd = tmp_path / "bzImage", tmp_path / "initrd"
    kernel.write_bytes(bzimage(version, sectors=0 if version == 0x20A else 3, limit=limit, xload=xload))
    initrd.write_bytes(b"070701" * 999)
    line = "console=ttyS0 vga=0x317 root=/dev/sda"
    own = prepared({"memory": memory << 20, "kernel": str(kernel), "initrd": str(initrd), "cmdline": line})
    args = ["-m", str(memory), "-kernel", str(kernel), "-initrd", str(initrd), "-append", line]
    with Qemu("pc-i440fx-2.0", *args) as qemu:
        for key in range(0x07, 0x19):
            if key in own.items:
                theirs = qemu.fw_cfg(key, len(own.items[key]) + 4)
                assert own.items[key] + bytes(4) == theirs, hex(key)
        assert own.files["bootorder"] == qemu.file("bootorder")
        assert list(own.files) == list(qemu.files())
    assert linux.INITRD_DATA in own.items
