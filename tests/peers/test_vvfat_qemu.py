"""A directory as a FAT disk: the same sectors as QEMU's vvfat before the files, and what mtools and fsck say of it."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.images import Access, open_node

pytestmark = pytest.mark.peer

NAMES = {
    "A.TXT": b"hello\n",
    "lower.txt": b"y" * 8192,
    "a long name.data": b"0123456789abcdef" * 6250,
    "a long name two.data": b"z",
    ".hidden": b"h",
    "two.dots.txt": b"d" * 40000,
    "thirteen.char": b"",
    "sub/inner/f": b"x",
    "sub/again a long name.x": b"q" * 70000,
}


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, data in NAMES.items():
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "d"


@pytest.mark.parametrize("kind", ("", "12:", "floppy:"))
def test_the_sectors_are_qemu_s(directory: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    node = open_node(f"fat:{kind}{directory}", "raw", Access(readonly=True))
    command = ["qemu-img", "convert", "-O", "raw", f"fat:{kind}{directory}", tmp_path / "theirs.raw"]
    subprocess.run(command, check=True, capture_output=True)
    with open(tmp_path / "theirs.raw", "rb") as file:
        assert node.size == file.seek(0, 2)
        file.seek(0)
        start = int(node.children()[0][1].source.data_at)
        assert node.read(0, start) == file.read(start)
    node.close()


def test_mtools_and_fsck_find_the_files(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    node = open_node(f"fat:{directory}", "raw", Access(readonly=True))
    disk = tmp_path / "disk.raw"
    with open(disk, "wb") as file:
        file.truncate(node.size)
        for at in range(0, 2 << 20, 1 << 20):
            file.seek(at)
            file.write(node.read(at, 1 << 20))
    node.close()
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["mcopy", "-s", "-n", "-i", f"{disk}@@{63 * 512}", "::/", out], check=True, capture_output=True)
    found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == NAMES
    volume = tmp_path / "volume.raw"
    with open(disk, "rb") as source, open(volume, "wb") as target:
        source.seek(63 * 512)
        shutil.copyfileobj(source, target, 1 << 20)
    told = subprocess.run(["fsck.vfat", "-n", volume], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout


def test_what_it_is_not_is_said(directory: pathlib.Path) -> None:
    for name, words in (("fat:rw:", "rw"), ("fat:32:", "FAT32")):
        with pytest.raises(ImageError, match=words):
            open_node(f"{name}{directory}", "raw", Access(readonly=True))
    with pytest.raises(ImageError):
        open_node("fat:/nowhere/at/all", "raw", Access(readonly=True))
