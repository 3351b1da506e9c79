"""What a qcow2 image keeps, refuses and mends: explicit zeros, places that are not the disk's, options of its node."""

from __future__ import annotations

import pathlib
import struct
from typing import Any

import pytest
from vmrun.backends.block.node import EXTENT_ALLOCATED, EXTENT_DATA, EXTENT_ZERO
from vmrun.backends.block.qcow2_check import check
from vmrun.backends.block.qcow2_snapshots import create_snapshot, delete_snapshot

from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.images import Access, open_node, open_options
from vmrun.backends.block.qcow2_header import Snapshot
from vmrun.cli.img import main, run

CLUSTER = 65536


def an_image(path: pathlib.Path, size: int = 1 << 20, **options: Any) -> pathlib.Path:
    new_file(str(path), 0)
    create_qcow2(str(path), size, options)
    return path


def opened(path: pathlib.Path, **options: Any) -> Any:
    return open_options({"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}, **options}, Access())


@pytest.mark.parametrize(
    ("at", "count", "hollow"), [(1, 2, True), (0, 3, True), (2, 2, True), (1, 5, True), (3, 1, False), (0, 2, False)]
)
def test_zeros_on_a_piece_take_no_place_where_the_rest_reads_as_zeros(
    tmp_path: pathlib.Path, at: int, count: int, hollow: bool
) -> None:
    """Sectors of a cluster's eight; the backing image has data in the third alone."""
    base, path = str(an_image(tmp_path / "base.qcow2", 8192, cluster_size=512)), str(tmp_path / "a.qcow2")
    node: Any = open_node(base, "qcow2", Access(readonly=False))
    node.write(1024, b"x" * 512)
    node.close()
    assert run(["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", base, "-F", "qcow2", path]) == 0
    node = open_node(path, "qcow2", Access(readonly=False))
    node.write_zeroes(at * 512, count * 512)
    gone = range(at, at + count)
    assert node.read(0, 4096) == b"".join(b"x" * 512 if n == 2 and n not in gone else bytes(512) for n in range(8))
    length, flags, _ = node.extent(0, 4096)
    node.close()
    assert (length, bool(flags & EXTENT_ZERO), bool(flags & EXTENT_DATA)) == (4096, hollow, not hollow)
    assert run(["check", "-q", path]) == 0


def test_zeros_in_an_image_of_version_2_give_clusters_back(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a.qcow2")
    assert run(["create", "-q", "-f", "qcow2", "-o", "compat=0.10", path, "1M"]) == 0
    node: Any = open_node(path, "qcow2", Access(readonly=False))
    node.write(0, b"x" * (256 << 10))
    node.write_zeroes(100000, 100000)
    node.write_zeroes(600000, 100)
    assert node.read(0, 1 << 20) == (b"x" * 100000 + bytes(100000)).ljust(256 << 10, b"x").ljust(1 << 20, b"\0")
    mapped = [node.extent(at, 65536)[1] & EXTENT_DATA for at in (0, 65536, 131072, 196608, 589824)]
    node.close()
    assert [bool(one) for one in mapped] == [True, True, False, True, False]
    assert run(["check", "-q", path]) == 0


@pytest.mark.parametrize(("at", "count"), [(0, 1 << 20), (CLUSTER, 2 * CLUSTER), (4096, 8192), (1000, CLUSTER)])
def test_zeros_hold_when_the_image_gets_a_backing_image(tmp_path: pathlib.Path, at: int, count: int) -> None:
    """A mirror writes them into an image whose backing image is put below it afterwards."""
    below = an_image(tmp_path / "below.qcow2")
    node = opened(below)
    node.write(0, b"x" * (1 << 20))
    node.close()
    top = an_image(tmp_path / "top.qcow2")
    node = opened(top)
    node.write_zeroes(at, count)
    flags = node.extent(at, 1)[1]
    assert flags & EXTENT_ZERO and flags & EXTENT_ALLOCATED
    node.close()
    assert main(["rebase", "-u", "-b", str(below), "-F", "qcow2", str(top)], "qemu-img") == 0
    node = open_node(str(top), "qcow2", Access(readonly=True))
    assert node.read(at, count) == bytes(count)
    node.close()


@pytest.mark.parametrize(
    ("template", "told"), [("all", "inactive L2 table"), ("cached", None), ("none", None)]
)  # fmt: skip
def test_overlap_check_says_what_writes_are_checked_against(tmp_path: pathlib.Path, template: str, told: str) -> None:
    path = an_image(tmp_path / "a.qcow2")
    node = opened(path)
    node.write(0, b"a" * CLUSTER)
    create_snapshot(node, Snapshot(id="1", name="s"))
    node.write(0, b"b" * CLUSTER)
    node.close()
    data = bytearray(path.read_bytes())
    snapshots = struct.unpack_from(">Q", data, 64)[0]
    l1 = struct.unpack_from(">Q", data, snapshots)[0]
    old = struct.unpack_from(">Q", data, l1)[0] & 0xFFFFFFFFFFFE00  # the L2 table that only the snapshot has
    active = struct.unpack_from(">Q", data, struct.unpack_from(">Q", data, 40)[0])[0] & 0xFFFFFFFFFFFE00
    assert old != active
    struct.pack_into(">Q", data, active, old | 1 << 63)
    path.write_bytes(data)
    node = opened(path, **{"overlap-check": template})
    if told is None:
        node.write(0, b"c" * 512)
        assert node.take_fault() is None
        node.close()
    else:
        with pytest.raises(OSError, match="Input/output"):
            node.write(0, b"c" * 512)
        assert told in node.take_fault()[0]
        with pytest.raises(OSError):
            node.close()


def test_places_are_free_again_when_snapshots_are_gone(tmp_path: pathlib.Path) -> None:
    """What is known of a snapshot's tables goes with it: their clusters hold data then."""
    node = opened(an_image(tmp_path / "a.qcow2", cluster_size=512))
    for round in range(4):
        node.write(0, bytes([round + 1]) * 20000)
        create_snapshot(node, Snapshot(id=str(round), name="s"))
        node.write(0, bytes([round + 101]) * 20000)
        delete_snapshot(node, node.snapshots[0])
        node.write(100000, bytes([round]) * 60000)
    assert node.take_fault() is None and check(node, None, print).corruptions == 0
    node.close()


def test_a_cluster_that_is_none_is_not_given_back(tmp_path: pathlib.Path) -> None:
    path = an_image(tmp_path / "a.qcow2")
    node = opened(path)
    node.write(0, b"a" * 2 * CLUSTER)
    node.close()
    data = bytearray(path.read_bytes())
    table = struct.unpack_from(">Q", data, struct.unpack_from(">Q", data, 40)[0])[0] & 0xFFFFFFFFFFFE00
    second = struct.unpack_from(">Q", data, table + 8)[0]
    struct.pack_into(">Q", data, table, second + 512)  # within the cluster of the next
    path.write_bytes(data)
    node = opened(path)
    node.trim(0, CLUSTER)
    text, _, _, fatal = node.take_fault()
    assert text.startswith("Cannot free unaligned cluster") and not fatal
    node.write(4 * CLUSTER, b"n" * 4 * CLUSTER)
    assert node.read(CLUSTER, CLUSTER) == b"a" * CLUSTER
    node.close()


@pytest.mark.parametrize("harm", ["no table of counts", "corrupt", "counts of zero"])
def test_check_mends_what_nobody_else_opens(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], harm: str
) -> None:
    path = an_image(tmp_path / "a.qcow2")
    node = opened(path)
    node.write(0, b"a" * 3 * CLUSTER)
    node.close()
    data = bytearray(path.read_bytes())
    if harm == "no table of counts":
        struct.pack_into(">QI", data, 48, 0, 0)
    elif harm == "corrupt":
        data[79] |= 2
    else:
        block = struct.unpack_from(">Q", data, struct.unpack_from(">Q", data, 48)[0])[0]
        data[block + 8 : block + 14] = bytes(6)
    path.write_bytes(data)
    assert main(["check", "-r", "all", str(path)], "qemu-img") == 0
    assert main(["check", str(path)], "qemu-img") == 0
    told = capfd.readouterr().out
    assert told.endswith("\n") and "No errors were found on the image." in told
    node = opened(path)
    assert node.read(0, 3 * CLUSTER) == b"a" * 3 * CLUSTER
    node.write(3 * CLUSTER, b"b" * CLUSTER)
    assert check(node, None, print).corruptions == 0
    node.close()


def test_the_data_file_is_the_one_of_the_options(tmp_path: pathlib.Path) -> None:
    path = an_image(tmp_path / "a.qcow2", data_file=str(tmp_path / "said"), size=1 << 20)
    other = tmp_path / "other"
    other.write_bytes(bytes(1 << 20))
    node = opened(path, **{"data-file": {"driver": "file", "filename": str(other)}})
    node.write(0, b"a" * 512)
    node.close()
    assert other.read_bytes()[:512] == b"a" * 512
    assert not any((tmp_path / "said").read_bytes()[:512])


def test_what_is_preallocated_has_no_old_contents(tmp_path: pathlib.Path) -> None:
    node = opened(an_image(tmp_path / "a.qcow2"))
    node.write(0, b"secret!!" * (4 * CLUSTER // 8))
    node.trim(0, 4 * CLUSTER)
    node.truncate((1 << 20) + 4 * CLUSTER, "metadata")
    assert node.read(1 << 20, 4 * CLUSTER) == bytes(4 * CLUSTER)
    node.close()
