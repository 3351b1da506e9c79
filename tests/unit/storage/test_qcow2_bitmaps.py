"""Bitmaps that a qcow2 image keeps: what is written is in them, a killed process leaves them in use; hostile ones."""

from __future__ import annotations

import pathlib
import signal
import struct
import subprocess
import sys
from typing import Any

import pytest
from vmrun.backends.block.bitmap import Bitmap
from vmrun.backends.block.qcow2_bitmaps import known

from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.images import Access, open_node
from vmrun.cli.img import run

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: pathlib.Path) -> str:
    path = str(tmp_path / "a.qcow2")
    assert run(["create", "-q", "-f", "qcow2", path, "8M"]) == 0
    for options in (["--add"], ["--add", "-g", "4k"], ["--add", "--disable"]):
        assert run(["bitmap", *options, path, f"b{len(bitmaps(path))}"]) == 0
    return path


def bitmaps(path: str) -> list[Any]:
    node: Any = open_node(path, "qcow2", Access(readonly=True))
    try:
        return list(known(node))
    finally:
        node.close()


def counts(path: str) -> dict[str, int]:
    return {one.name: -1 if one.inconsistent else one.bits.count for one in bitmaps(path)}


def test_every_way_of_writing_is_in_those_that_record(image: str) -> None:
    node: Any = open_node(image, "qcow2", Access(readonly=False))
    node.write(5 * 65536 + 100, b"x" * 1000)
    node.write_zeroes(MIB, 65536)
    node.write_compressed(2 * MIB, b"y" * 65536)
    node.close()
    assert counts(image) == {"b0": 3 * 65536, "b1": 4096 + 2 * 65536, "b2": 0}
    node = open_node(image, "qcow2", Access(readonly=False, discard=True))
    node.trim(6 * MIB, 65536)
    node.close()
    assert counts(image)["b0"] == 4 * 65536
    assert run(["check", "-q", image]) == 0


def test_a_larger_disk_has_larger_bitmaps(image: str) -> None:
    assert run(["resize", "-q", image, "64M"]) == 0
    node: Any = open_node(image, "qcow2", Access(readonly=False))
    node.write(60 * MIB, b"x")
    node.close()
    assert counts(image) == {"b0": 65536, "b1": 4096, "b2": 0}
    assert run(["check", "-q", image]) == 0


KILLED = """
import os, sys
from vmrun.backends.block.images import Access, open_node
node = open_node(sys.argv[1], "qcow2", Access(readonly=False))
node.write(0, b"x" * 65536)
os.kill(os.getpid(), 9)
"""


def test_one_who_is_killed_leaves_them_inconsistent_and_they_can_be_removed(image: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, image])
    assert done.returncode == -signal.SIGKILL
    assert counts(image) == {"b0": -1, "b1": -1, "b2": -1}
    node: Any = open_node(image, "qcow2", Access(readonly=False))  # and stay so, whoever writes
    node.write(MIB, b"y")
    node.close()
    assert counts(image) == {"b0": -1, "b1": -1, "b2": -1}
    for name in ("b0", "b1", "b2"):
        assert run(["bitmap", "--remove", image, name]) == 0
    assert counts(image) == {}
    assert run(["check", "-q", image]) in (0, 3)
    assert run(["check", "-q", "-r", "leaks", image]) == 0


def directory(path: str) -> tuple[int, int]:
    node: Any = open_node(path, "qcow2", Access(readonly=True))
    try:
        _, size, offset = node.header.bitmaps
        return offset, size
    finally:
        node.close()


HOSTILE = [
    (8, struct.pack(">I", 0xFFFFFFFF), "Bitmap 'b0' doesn't satisfy the constraints"),  # entries of its table
    (0, struct.pack(">Q", 12345), "Bitmap 'b0' doesn't satisfy the constraints"),  # a table that is not aligned
    (16, b"\x02", "Bitmap 'b0' doesn't satisfy the constraints"),  # another type
    (17, b"\x20", "Bitmap 'b0' doesn't satisfy the constraints"),  # granularity
    (18, b"\xff\xff", "Broken bitmap directory"),  # a name beyond the directory
    (12, struct.pack(">I", 0x80000002), "Bitmap 'b0' doesn't satisfy the constraints"),  # a flag that nobody knows
]


@pytest.mark.parametrize(("at", "data", "said"), HOSTILE)
def test_a_directory_of_nonsense_is_refused(image: str, at: int, data: bytes, said: str) -> None:
    offset, _ = directory(image)
    with open(image, "r+b") as file:
        file.seek(offset + at)
        file.write(data)
    for readonly in (True, False):
        with pytest.raises(ImageError, match=f"Could not open .*: {said}"):
            open_node(image, "qcow2", Access(readonly=readonly)).close()


def test_inconsistent_ones_with_a_huge_table_are_removed_without_reading_it(image: str) -> None:
    offset, _ = directory(image)
    with open(image, "r+b") as file:
        file.seek(offset + 8)
        file.write(struct.pack(">II", 8192, 3))
    assert counts(image)["b0"] == -1
    assert run(["bitmap", "--remove", image, "b0"]) == 0
    assert list(counts(image)) == ["b1", "b2"]


def test_a_program_that_knew_none_has_written_the_image(image: str) -> None:
    with open(image, "r+b") as file:
        file.seek(88)
        file.write(bytes(8))
    assert counts(image) == {}
    assert run(["bitmap", "--add", image, "new"]) == 0
    assert counts(image) == {"new": 0}


def test_one_that_is_merged_into_itself_is_as_it_was() -> None:
    bits: Any = Bitmap(1 << 20, 65536)
    bits.merge(bits)  # waited for itself for ever
    bits.swap(bits)
    assert bits.count == 0


def test_an_overlays_bitmap_is_merged_into_the_image_below_it(image: str) -> None:
    top = str(pathlib.Path(image).with_name("top.qcow2"))
    assert run(["create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", top]) == 0
    assert run(["bitmap", "--add", top, "t"]) == 0
    node: Any = open_node(top, "qcow2", Access(readonly=False))
    node.write(MIB, b"x")
    node.close()
    assert run(["bitmap", "--merge", "t", "-b", top, "-F", "qcow2", image, "b0"]) == 0
    assert counts(image)["b0"] == 65536
