"""Images of other programs' formats: what is written comes back, here and in qemu-img; a file is not believed."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import struct
import subprocess

import pytest

from vmrun.backends.block import images, reopening
from vmrun.backends.block.create import create_image
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.formats import vmdk
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


DESCRIPTOR = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="custom"\n'


@pytest.mark.parametrize(
    "lines", ["RW " + "9" * 5000 + " ZERO\n", 'RW 8 FLAT "f" ' + "9" * 5000 + "\n", f"RW {1 << 52} ZERO\n" * 4096]
)
def test_numbers_that_no_disk_has(lines: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_bytes(bytes(4096))
    (tmp_path / "a.vmdk").write_text(DESCRIPTOR + lines)
    with pytest.raises(ImageError, match="Invalid extent line"):
        open_node(str(tmp_path / "a.vmdk"), "vmdk", Access(readonly=True))


@pytest.mark.parametrize("format", ["vmdk", "qcow2"])
def test_an_image_that_names_itself_by_options(format: str, tmp_path: pathlib.Path) -> None:
    """A cycle of files is found by the files; options in a name are nested only so deep."""
    path = tmp_path / "a"
    name = f"json:{{'driver':'{format}','file':{{'driver':'file','filename':'{path}'}}}}"
    if format == "vmdk":
        path.write_text(f'{DESCRIPTOR}RW 8 FLAT "{name}" 0\n')
    else:
        create_image(str(path), "qcow2", 1 << 20, {"backing_file": name, "backing_fmt": "qcow2"})
    with pytest.raises(ImageError, match="too many nodes: an image names itself"):
        open_node(str(path), format, Access(readonly=True))


def test_what_is_only_read_is_so_whenever_it_is_to_be_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    create_image(str(path), "vmdk", 1 << 20, {})
    with path.open("r+b") as file:
        file.seek(4)
        file.write(b"\3")
    with pytest.raises(ImageError, match="version 3 must be read only"):
        open_node(str(path), "vmdk", Access())
    node = open_node(str(path), "vmdk", Access(readonly=True))
    with pytest.raises(ImageError, match="version 3 must be read only"):
        reopening.reopen(node, False)
    assert node.file.readonly  # nor is what lies below open for writing now
    node.close()
    with images.waiting():
        node = open_node(str(path), "vmdk", Access())
    reopening.take(node.file)
    with pytest.raises(ImageError, match="version 3 must be read only"):
        reopening.take(node)
    with pytest.raises(OSError, match="not permitted"):
        node.write(0, bytes(512))
    node.close()


def test_names_of_names_end(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_bytes(bytes(512))
    open_node("blkdebug::" * 3 + str(tmp_path / "f"), "raw", Access(readonly=True)).close()
    with pytest.raises(ImageError, match="too many nodes"):
        open_node("blkdebug::" * 2000 + str(tmp_path / "f"), "raw", Access(readonly=True))


@pytest.mark.parametrize(
    ("format", "at", "entry"),
    [
        ("vmdk", (21 + 1 + 12 + 1) * 512, (1).to_bytes(4, "little")),  # the first grain at the descriptor
        ("vmdk", (21 + 1 + 12 + 1) * 512, (21).to_bytes(4, "little")),  # and at the redundant directory
        ("vdi", 512, (0).to_bytes(4, "little")),
        ("vpc", 1536, (0).to_bytes(4, "big")), ("vpc", 1536, (2).to_bytes(4, "big")),
        ("vhdx", 3 << 20, (3 << 20 | 6).to_bytes(8, "little")),
    ],
)  # fmt: skip
def test_data_does_not_go_where_tables_are(format: str, at: int, entry: bytes, tmp_path: pathlib.Path) -> None:
    """A wrong table gives a block its place over a header or a table: a write is refused, and the image stays."""
    path = tmp_path / "a"
    create_image(str(path), format, 96 << 20, {})
    whole = bytearray(path.read_bytes())
    whole[at : at + len(entry)] = entry
    if format == "vdi":
        whole[0x158:0x15C] = bytes(4)  # data lies at the file's beginning
    path.write_bytes(whole)
    node = open_node(str(path), format, Access())
    for change in (lambda: node.write(0, b"x" * 1024), lambda: node.write_zeroes(0, 1024)):
        with pytest.raises(OSError, match="Input/output"):
            change()
    node.close()
    node = open_node(str(path), format, Access(readonly=True))
    assert node.size >= 96 << 20
    node.close()


def test_vdi_counts_that_cannot_be(tmp_path: pathlib.Path) -> None:
    """A write that would take a place by a wrong count is refused before anything is changed."""
    path = tmp_path / "a"
    create_image(str(path), "vdi", 4 << 20, {})
    whole = bytearray(path.read_bytes())
    whole[0x184:0x188] = b"\xf0\xff\xff\xff"
    path.write_bytes(whole)
    node = open_node(str(path), "vdi", Access())
    with pytest.raises(OSError, match="Input/output"):
        node.write(0, b"x" * 512)
    node.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("format", "size", "options"),
    [
        ("vdi", 600 << 40, {}), ("vhdx", 60 << 40, {"block_size": 1 << 20}), ("vmdk", 300 << 40, {}),
        ("vmdk", 1 << 62, {}),
        ("vmdk", 9 << 40, {"subformat": "twoGbMaxExtentSparse"}), ("vmdk", 1 << 20, {"toolsversion": "1" * 20000}),
    ],
)  # fmt: skip
def test_what_could_not_be_read_is_not_made(
    format: str, size: int, options: dict[str, object], tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ImageError):
        create_image(str(tmp_path / "a"), format, size, dict(options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("subformat", ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse"])
@pytest.mark.parametrize("size", [0, 1 << 20])
def test_names_are_bytes(subformat: str, size: int, tmp_path: pathlib.Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.vmdk")
    create_image(path, "vmdk", size, {"subformat": subformat})
    node = open_node(path, "vmdk", Access())
    assert node.size == size
    node.close()


def test_a_directory_of_nothing_costs_nothing(tmp_path: pathlib.Path) -> None:
    """2 TiB without a table: neither a map nor a check goes through all grains; a table named twice is read once."""
    path = tmp_path / "a"
    capacity, grain, tables = (2 << 40) // 512, 128, 1 << 16
    header = vmdk.HEADER.pack(b"KDMV", 1, 1, capacity, grain, 0, 0, 512, 0, 1, 128, 0, b"\n \r\n", 0)
    with path.open("wb") as file:
        file.write(header.ljust(512, b"\0"))
        file.truncate(512 + tables * 4 + 65536)
    node = open_node(str(path), "vmdk", Access(readonly=True))
    reads: list[int] = []
    part = node.layout.parts[0]
    sector = part._sector
    part._sector = lambda grain: reads.append(grain) or sector(grain)
    assert node.extent(0, node.size)[0] == node.size
    assert len(reads) < 3 * tables
    assert node.layout.check(False) == 0
    node.close()
