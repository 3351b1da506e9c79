"""Kernels that cannot be started are refused with the reason."""

from __future__ import annotations

import struct

import pytest

from vmrun.errors import BuildError
from vmrun.firmware import linux


def image(setup_sectors: int = 1) -> bytearray:
    data = bytearray(2048)
    data[0x1F1] = setup_sectors
    data[0x202:0x206] = b"HdrS"
    data[0x206:0x208] = b"\x0d\x02"
    data[0x211] = 1
    struct.pack_into("<I", data, 0x22C, 0x7FFFFFFF)
    return data


def test_a_kernel_cut_off_in_its_setup_is_refused() -> None:
    with pytest.raises(BuildError, match="cut off"):
        linux.load(bytes(image(30)), b"", b"\0", 1 << 28)


def test_an_initrd_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BuildError, match="does not fit"):
        linux.load(bytes(image()), bytes(1 << 20), b"\0", 0x180000)


def test_initrd_ends_below_the_top_on_a_page() -> None:
    found = linux.load(bytes(image()), bytes(5000), b"\0", 1 << 28)
    (where,) = struct.unpack("<I", found[linux.INITRD_ADDR])
    assert where % 4096 == 0 and where + 5000 <= 1 << 28
