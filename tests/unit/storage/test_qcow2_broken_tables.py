"""qcow2 images whose tables of snapshots and bitmaps are wrong: who opens one is told what QEMU 7.2 tells, and a check
mends what can be mended. The sentences were taken from qemu-img's output for the same bytes.
"""

from __future__ import annotations

import pathlib
import struct
from typing import Any

import pytest
from vmrun.backends.block.bitmap import Bitmap
from vmrun.backends.block.qcow2_bitmaps import add

from vmrun.backends.block import images, qcow2_check, qcow2_snapshots, reopening
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.images import Access, open_node
from vmrun.backends.block.qcow2_header import HeaderFull, QcowError, Snapshot
from vmrun.backends.block.sizes import digits
from vmrun.cli.img import main

MIB = 1 << 20
CLUSTER = 65536


def made(path: pathlib.Path, **options: Any) -> Any:
    new_file(str(path), 0)
    create_qcow2(str(path), 2 * MIB, options)
    node: Any = open_node(str(path), "qcow2", Access())
    node.write(0, b"d" * CLUSTER)
    return node


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("samples")
    node = made(directory / "bitmaps")
    for name in ("bm1", "bm2"):
        add(node, name, Bitmap(2 * MIB, CLUSTER))
    node.close()
    node = made(directory / "snapshots")
    for name in ("1", "2"):
        qcow2_snapshots.create_snapshot(node, Snapshot(id=name, name=f"sn{name}", date_sec=1))
        node.write(0, name.encode() * 512)
    node.close()
    node = made(directory / "extended", extended_l2=True)
    node.write_zeroes(CLUSTER, 2048)
    node.close()
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def number(data: bytes, offset: int, size: int = 8) -> int:
    return int.from_bytes(data[offset : offset + size], "big")


def poked(path: pathlib.Path, data: bytes, offset: int, size: int, value: int) -> str:
    path.write_bytes(data[:offset] + value.to_bytes(size, "big") + data[offset + size :])
    return str(path)


def places(data: bytes) -> dict[str, int]:
    """Where fields of the bitmaps are: of the header's extension, the directory, both entries, the first table."""
    at = number(data, 100, 4)
    while number(data, at, 4) != 0x23852875:
        at += 8 + (number(data, at + 4, 4) + 7 & ~7)
    directory = number(data, at + 24)
    return {"ext": at + 8, "row": directory, "row2": directory + 32, "table": number(data, directory)}


CONSTRAINTS = "Bitmap '{}' doesn't satisfy the constraints"
TABLE = "Could not read bitmap_table table from image for bitmap 'bm1': {}"


@pytest.mark.parametrize(
    ("where", "offset", "size", "value", "told"),
    [
        ("ext", 0, 4, 0, "found bitmaps extension with zero bitmaps"),
        ("ext", 0, 4, 65536, "bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum of 65535"),
        ("ext", 0, 4, 1, "More bitmaps found than specified in header extension"),
        ("ext", 0, 4, 3, "Less bitmaps found than specified in header extension"),
        ("ext", 4, 4, 1, "bitmaps_ext: Reserved field is not zero"),
        ("ext", 8, 8, 0, "Requested bitmap directory size is zero"),
        ("ext", 8, 8, 63, "Broken bitmap directory"),
        ("ext", 8, 8, 65, "Broken bitmap directory"),
        ("ext", 8, 8, 1 << 40,
         "bitmaps_ext: bitmap directory size (1099511627776) exceeds the maximum supported size (67107840)"),
        ("ext", 16, 8, 1, "bitmaps_ext: invalid bitmap directory offset"),
        ("ext", 16, 8, 1 << 63, "Failed to read bitmap directory: Input/output error"),
        ("ext", 16, 8, 1 << 40, CONSTRAINTS.format("")),
        ("row", 0, 8, 0, CONSTRAINTS.format("bm1")),
        ("row", 0, 8, 0x7FFFFFFFFFFF0000, TABLE.format("Input/output error")),
        ("row2", 8, 4, 0, CONSTRAINTS.format("bm2")),
        ("row2", 8, 4, 2, "Could not read bitmap 'bm2' from image: Invalid argument"),
        ("row2", 8, 4, 65536, CONSTRAINTS.format("bm2")),
        ("row2", 12, 4, 9, CONSTRAINTS.format("bm2")),
        ("row2", 16, 1, 2, CONSTRAINTS.format("bm2")),
        ("row2", 17, 1, 8, CONSTRAINTS.format("bm2")),
        ("row2", 17, 1, 140, CONSTRAINTS.format("bm2")),
        ("row2", 18, 2, 65535, "Broken bitmap directory"),
        ("row2", 20, 4, 1, "Bitmap extra data is not supported"),
        ("row2", 20, 4, 0xFFFFFFFF, "Bitmap extra data is not supported"),
        ("row2", 20, 4, 64, "Broken bitmap directory"),
        ("table", 0, 8, 512, TABLE.format("Invalid argument")),
        ("table", 0, 8, 1 << 62, TABLE.format("Invalid argument")),
        ("table", 0, 8, CLUSTER | 1, TABLE.format("Invalid argument")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("readonly", [True, False])
def test_bitmaps_that_are_none(
    tmp_path: pathlib.Path, samples: dict[str, bytes], where: str, offset: int, size: int, value: int, told: str,
    readonly: bool,
) -> None:  # fmt: skip
    data = samples["bitmaps"]
    name = poked(tmp_path / "i.q", data, places(data)[where] + offset, size, value)
    before = pathlib.Path(name).read_bytes()
    with pytest.raises(ImageError) as error:
        open_node(name, "qcow2", Access(readonly=readonly))
    assert error.value.text == f"Could not open '{name}': {told}"
    assert pathlib.Path(name).read_bytes() == before


@pytest.mark.parametrize("value", [0, 2])  # two clusters of zeros, or of ones, are fine
def test_bitmaps_that_are_some(tmp_path: pathlib.Path, samples: dict[str, bytes], value: int) -> None:
    data = samples["bitmaps"]
    open_node(poked(tmp_path / "i.q", data, places(data)["table"], 8, value // 2), "qcow2", Access()).close()


def checked(name: str, repair: str | None) -> tuple[list[str], Any]:
    lines: list[str] = []
    with images.to_check():
        node = open_node(name, "qcow2", Access(readonly=repair is None))
    try:
        return lines, qcow2_check.check(node, repair, lines.append)
    finally:
        node.close()


def rows(data: bytes) -> tuple[int, int]:
    first = number(data, 64)
    return first, first + (40 + 24 + 1 + 3 + 7 & ~7)


EXTRA = "Too much extra metadata in snapshot table entry 1"
FORCE = "You can force-remove this extra metadata with qemu-img check -r all"


def test_too_much_of_a_snapshot_can_be_discarded(tmp_path: pathlib.Path, samples: dict[str, bytes]) -> None:
    data = samples["snapshots"]
    name = poked(tmp_path / "i.q", data, rows(data)[1] + 36, 4, 65536)
    with pytest.raises(ImageError) as told:
        open_node(name, "qcow2", Access(readonly=True))
    assert (told.value.text, told.value.remedy) == (f"Could not open '{name}': {EXTRA}", FORCE)
    for repair in (None, "leaks"):
        with pytest.raises(QcowError) as failed:
            checked(name, repair)
        assert str(failed.value) == (
            f"ERROR failed to read the snapshot table: {EXTRA}\n{FORCE}\nCheck failed: File too large"
        )
    lines, result = checked(name, "all")
    assert lines[0] == "Discarding too much extra metadata in snapshot table entry 1 (65536 > 1024)\n"
    assert result.corruptions == result.corruptions_fixed > 0 and result.leaks == result.leaks_fixed
    assert checked(name, None)[0] == []
    node: Any = open_node(name, "qcow2", Access())
    assert len(node.snapshots) == 2 and node.snapshots[0].name == "sn1"
    node.close()


def test_snapshots_that_are_too_many_can_be_discarded(tmp_path: pathlib.Path, samples: dict[str, bytes]) -> None:
    name = poked(tmp_path / "i.q", samples["snapshots"], 60, 4, 0xFFFFFFFF)
    with pytest.raises(ImageError, match="Snapshot table too large"):
        open_node(name, "qcow2", Access(readonly=True))
    with pytest.raises(QcowError) as failed:
        checked(name, None)
    assert str(failed.value).splitlines() == [
        "ERROR snapshot table too large",
        "You can force-remove all 4294901759 overhanging snapshots with qemu-img check -r all",
        "Check failed: File too large",
    ]


def test_a_snapshot_that_lacks_what_version_3_has_is_completed(
    tmp_path: pathlib.Path, samples: dict[str, bytes]
) -> None:
    name = poked(tmp_path / "i.q", samples["snapshots"], 60, 4, 3)  # behind them is nothing
    lines, result = checked(name, None)
    assert lines[0] == "ERROR snapshot table entry 2 is incomplete\n" and result.corruptions == 1
    lines, result = checked(name, "all")
    assert lines[0] == "Repairing snapshot table entry 2 is incomplete\n"
    assert result.corruptions == result.corruptions_fixed == 1
    assert checked(name, None)[0] == []


def test_a_table_of_snapshots_that_lies_nowhere(tmp_path: pathlib.Path, samples: dict[str, bytes]) -> None:
    name = poked(tmp_path / "i.q", samples["snapshots"], 64, 8, 1)
    with pytest.raises(QcowError, match="ERROR snapshot table offset invalid\nCheck failed: Invalid argument"):
        checked(name, "all")


def test_the_program_ends_with_one_and_its_name(
    tmp_path: pathlib.Path, samples: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    data = samples["snapshots"]
    name = poked(tmp_path / "i.q", data, rows(data)[1] + 36, 4, 65536)
    assert main(["check", name], "vmrun-img") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"vmrun-img: ERROR failed to read the snapshot table: {EXTRA}", FORCE, "vmrun-img: Check failed: File too large"
    ]  # fmt: skip
    assert main(["info", name], "vmrun-img") == 1
    assert capsys.readouterr().err == f"vmrun-img: Could not open '{name}': {EXTRA}\n{FORCE}\n"


@pytest.mark.parametrize(
    ("place", "change", "told"),
    [
        ("L1", 1, "ERROR found L1 entry with reserved bits set: 8000000000040001\n"),
        ("L2", 2, "ERROR found l2 entry with reserved bits set: 8000000000050002\n"),
        ("L2", 512, "ERROR offset=50200: Data cluster is not properly aligned; L2 entry corrupted.\n"),
        ("reftable", 1, "ERROR refcount table entry 0 has reserved bits set\n"),
    ],
)
def test_bits_that_have_no_meaning(
    tmp_path: pathlib.Path, samples: dict[str, bytes], place: str, change: int, told: str
) -> None:
    data = samples["bitmaps"]
    l1 = number(data, 40)
    at = {"L1": l1, "L2": number(data, l1) & ~(1 << 63), "reftable": number(data, 48)}[place]
    lines, result = checked(poked(tmp_path / "i.q", data, at, 8, number(data, at) ^ change), None)
    said = [line.split(":")[0].split("=")[0] for line in lines]
    assert told.split(":")[0].split("=")[0] in said and result.corruptions


@pytest.mark.parametrize(
    ("index", "bitmap", "told"),
    [
        (0, (1 << 32) | 1, "Allocated cluster has corrupted subcluster allocation bitmap\n"),
        (5, 1, "ERROR: Unallocated cluster has non-zero subcluster allocation map\n"),
    ],
)
def test_bitmaps_of_subclusters(
    tmp_path: pathlib.Path, samples: dict[str, bytes], index: int, bitmap: int, told: str
) -> None:
    data = samples["extended"]
    at = (number(data, number(data, 40)) & ~(1 << 63)) + index * 16 + 8
    lines, result = checked(poked(tmp_path / "i.q", data, at, 8, bitmap), None)
    assert [line for line in lines if line.endswith(told)] and result.corruptions == 1


@pytest.mark.parametrize(("kind", "words"), [("snapshots", "inactive L1 table"), ("bitmaps", "bitmap directory")])
def test_what_snapshots_and_bitmaps_have_is_not_written_over(
    tmp_path: pathlib.Path, samples: dict[str, bytes], kind: str, words: str
) -> None:
    data = samples[kind]
    place = number(data, number(data, 64)) if kind == "snapshots" else places(data)["row"]
    block = number(data, number(data, 48))
    image = tmp_path / "i.q"
    image.write_bytes(data[: block + place // CLUSTER * 2] + bytes(2) + data[block + place // CLUSTER * 2 + 2 :])
    node: Any = open_node(str(image), "qcow2", Access())
    with pytest.raises(OSError):
        for n in range(1, 20):
            node.write(n * CLUSTER, b"x")
    assert node.take_fault()[0] == f"Preventing invalid write on metadata (overlaps with {words})"
    with pytest.raises(OSError):
        node.close()
    assert struct.unpack_from(">Q", image.read_bytes(), 72)[0] & 2
    assert image.read_bytes()[place : place + 8] == data[place : place + 8]


def test_a_table_that_breaks_while_an_image_is_open_is_an_error_of_the_disk(
    tmp_path: pathlib.Path, samples: dict[str, bytes]
) -> None:
    data = samples["snapshots"]
    image = tmp_path / "i.q"
    image.write_bytes(data)
    node: Any = open_node(str(image), "qcow2", Access(readonly=True))
    poked(image, data, rows(data)[1] + 36, 4, 65536)
    with pytest.raises(OSError, match=EXTRA):
        qcow2_check.check(node, None, lambda line: None)
    node.close()


def test_a_header_that_is_full_is_told_without_a_hint() -> None:
    assert (HeaderFull("full").hint, HeaderFull("full").errno, str(HeaderFull("full"))) == ("", 28, "full")


def test_what_another_program_left_broken_is_not_read(tmp_path: pathlib.Path) -> None:
    """An image that a machine is to take over: tables that cannot be loaded are nobody's, not those that were freed."""
    path = tmp_path / "a.qcow2"
    made(path).close()
    with images.waiting():
        node: Any = open_node(str(path), "qcow2", Access())
    reopening.take(node.file)
    whole = path.read_bytes()
    for at, value, told in (
        (40, (1 << 63) - CLUSTER, "Could not read L1 table: Input/output error"),
        (72, 2, "qcow2: Image is corrupt; cannot be opened read/write"),
    ):  # fmt: skip
        path.write_bytes(whole[:at] + struct.pack(">Q", value) + whole[at + 8 :])
        with pytest.raises(ImageError, match=told):
            reopening.take(node)
        with pytest.raises(OSError, match="No medium"):
            node.read(0, 4)
        assert node.extent(0, 512)[0] == 512
    path.write_bytes(whole)
    reopening.take(node)
    node.write(0, b"mine")
    assert node.read(0, 5) == b"mined"
    node.close()


def test_the_ids_of_snapshots_need_be_no_numbers(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.qcow2"
    node = made(path)
    for id in ("\N{SUPERSCRIPT TWO}", "9" * 5000):
        qcow2_snapshots.create_snapshot(node, Snapshot(id=id, name="a", date_sec=0, date_nsec=0, icount=0))
    node.close()
    assert main(["snapshot", "-c", "one", str(path)], "vmrun-img") == 0
    node = open_node(str(path), "qcow2", Access(readonly=True))
    assert node.snapshots[-1].id == "1"
    node.close()


def test_what_a_number_is() -> None:
    assert [digits(text) for text in ("0", "007", str((1 << 64) - 1))] == [0, 7, (1 << 64) - 1]
    for text in (str(1 << 64), "9" * 5000, "", "-1", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT ONE}"):
        assert digits(text) is None
