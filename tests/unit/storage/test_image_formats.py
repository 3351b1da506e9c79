"""Images of other programs' formats: what is written comes back, here and in qemu-img; a file is not believed."""

from __future__ import annotations

import pathlib
import random
import shutil
import struct
import subprocess

import pytest

from vmrun.backends.block.create import create_image
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.images import Access, open_node

SIZE = 21 << 20
SPECS = (
    ("vmdk", {}), ("vmdk", {"subformat": "monolithicFlat"}), ("vmdk", {"zeroed_grain": True}), ("vdi", {}),
    ("vdi", {"static": True}), ("vpc", {"force_size": True}), ("vpc", {"force_size": True, "subformat": "fixed"}),
    ("vhdx", {}), ("vhdx", {"block_size": 1 << 20}), ("vhdx", {"subformat": "fixed"}),
)  # fmt: skip
WRITTEN = tuple(spec for spec in SPECS if "zeroed_grain" not in spec[1])  # qemu-img reads those only


def name_of(spec: tuple[str, dict[str, object]]) -> str:
    return "-".join([spec[0], *(f"{key}={value}" for key, value in spec[1].items())])


@pytest.mark.parametrize(("format", "options"), WRITTEN, ids=[name_of(spec) for spec in WRITTEN])
def test_what_is_written_comes_back(format: str, options: dict[str, object], tmp_path: pathlib.Path) -> None:
    path, draw, model = tmp_path / f"disk.{format}", random.Random(7), bytearray(SIZE)
    create_image(str(path), format, SIZE, dict(options))
    for _ in range(3):  # and again after it was closed
        node = open_node(str(path), format, Access())
        for _ in range(40):
            at, count = draw.randrange(SIZE // 512) * 512, draw.choice((512, 4096, 65536, 70144, 3 << 20))
            count = min(count, SIZE - at)
            if draw.random() < 0.2:
                node.write_zeroes(at, count)
                model[at : at + count] = bytes(count)
            else:
                data = draw.randbytes(512) * (count // 512)
                node.write(at, data)
                model[at : at + count] = data
        assert node.read(0, SIZE) == bytes(model)
        holes = [node.extent(at, 512)[1] for at in range(0, SIZE, 1 << 20)]
        node.sync()
        node.close()
    assert any(holes)
    node = open_node(str(path), format, Access(readonly=True))
    assert node.read(0, SIZE) == bytes(model)
    node.close()
    if shutil.which("qemu-img"):
        (tmp_path / "model").write_bytes(model)
        subprocess.run(["qemu-img", "compare", "-f", format, "-F", "raw", path, tmp_path / "model"], check=True)
        checked = subprocess.run(["qemu-img", "check", "-f", format, path], capture_output=True).returncode
        assert checked in (0, 63)


@pytest.mark.parametrize("spec", [*SPECS, ("vmdk", {"subformat": "streamOptimized"})], ids=name_of)
def test_what_a_file_says_is_not_believed(spec: tuple[str, dict[str, object]], tmp_path: pathlib.Path) -> None:
    format, options = spec
    path, draw = tmp_path / f"disk.{format}", random.Random(11)
    create_image(str(path), format, 3 << 20, dict(options))
    node = open_node(str(path), format, Access())
    node.write(0, draw.randbytes(65536))
    node.close()
    whole, refused = path.read_bytes(), 0
    places = [0, 64, 320, 512, 0x2A00, 0x10000, 0x20000, 0x30000, 0x200000, 0x210000, 0x300000, len(whole) - 512]
    for _ in range(80):
        spoilt = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            at = draw.choice(places) + draw.randrange(80)
            count = draw.choice((1, 4, 8))
            value = draw.choice((b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, draw.randbytes(8), b"\1" + bytes(7)))
            if at + count <= len(spoilt):
                spoilt[at : at + count] = value[:count]
        if draw.random() < 0.1:
            del spoilt[draw.randrange(len(spoilt)) :]
        path.write_bytes(spoilt)
        try:
            node = open_node(str(path), format, Access())
        except ImageError:
            refused += 1
            continue
        try:
            for at in (0, node.size // 2, max(0, node.size - 512)):
                node.extent(at, 1 << 20)
                node.read(at, 4096)
                if at + 512 <= node.size and not node.packs:
                    node.write(at // 512 * 512, bytes(512))
        except OSError:
            refused += 1
        finally:
            node.close()
    assert 5 < refused < 80


def test_a_descriptor_may_not_name_itself(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.vmdk"
    text = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="{}"\nRW 20480 {} "{}"{}\n'
    for kind, extent, name, tail, told in (
        ("twoGbMaxExtentSparse", "SPARSE", "a.vmdk", "", "header"),
        ("monolithicFlat", "FLAT", "missing", " 0", "No such file"),
        ("monolithicFlat", "FLAT", "a.vmdk", "", "Invalid extent"),
        ("what", "FLAT", "a.vmdk", " 0", "Unsupported image type"),
        ("custom", "SESPARSE", "a.vmdk", "", "Unsupported extent"),
    ):  # fmt: skip
        path.write_text(text.format(kind, extent, name, tail))
        with pytest.raises(ImageError, match=told):
            open_node(str(path), "vmdk", Access(readonly=True))
    path.write_text(text.format("custom", "ZERO", "", "").replace('""', ""))
    node = open_node(str(path), None, Access(readonly=True))
    assert (node.size, node.read(0, 512)) == (20480 * 512, bytes(512))
    node.close()


def test_a_block_is_packed_once(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a.vmdk")
    create_image(path, "vmdk", 1 << 20, {"subformat": "streamOptimized"})
    node = open_node(path, "vmdk", Access())
    node.write(65536, b"x" * 65536)
    for at, count in ((65536, 65536), (0, 512), (512, 65536)):
        with pytest.raises(OSError, match="Input/output"):
            node.write(at, b"y" * count)
    assert node.read(65535, 3) == b"\0xx"
    node.close()


def test_the_largest_disk_has_a_table_that_is_not_read_whole(tmp_path: pathlib.Path) -> None:
    """512 TiB less 128 MiB, whose table of 2 GiB is a hole here: all blocks lie in one place."""
    path, blocks = tmp_path / "a.vdi", 0x1FFFFF80
    create_image(str(path), "vdi", 1 << 20, {})
    with path.open("r+b") as file:
        for at, data in ((0x158, struct.pack("<I", 2 << 30)), (0x170, struct.pack("<Q", blocks << 20))):
            file.seek(at)
            file.write(data)
        file.seek(0x180)
        file.write(struct.pack("<I", blocks))
        file.seek(512)
        file.write(bytes(512))
        file.truncate((2 << 30) + (1 << 20))
        file.seek(2 << 30)
        file.write(b"here")
    node = open_node(str(path), "vdi", Access(readonly=True))
    assert (node.size, node.read(0, 4), node.read(node.size - (1 << 20), 5)) == (blocks << 20, b"here", b"here\0")
    assert len(node.layout.table.pieces) == 2
    node.close()
