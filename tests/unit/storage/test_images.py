"""What a drive's file is, and what is refused."""

from __future__ import annotations

import fcntl
import gc
import os
import pathlib

import pytest
from accel.api import DeviceLock

from vmrun.backends.block import open_drive
from vmrun.backends.block.create import create_image, create_qcow2, new_file
from vmrun.backends.block.images import Access, open_node, open_options
from vmrun.errors import BackendError

MIB = 1 << 20


def qcow2(path: pathlib.Path, size: int = MIB, **options: object) -> str:
    new_file(str(path), 0)
    create_qcow2(str(path), size, options)
    return str(path)


def test_a_file_with_another_formats_magic_is_not_raw_by_itself(tmp_path: pathlib.Path) -> None:
    path = qcow2(tmp_path / "disk.img")
    with pytest.raises(BackendError, match="looks like an image of format qcow2") as caught:
        open_drive("d", {"file": path}, DeviceLock())
    assert "format: qcow2" in caught.value.remedy
    drive = open_drive("d", {"file": path, "format": "raw"}, DeviceLock())
    assert drive.read_bytes(0, 4) == b"QFI\xfb"
    drive.close()
    drive = open_drive("d", {"file": path, "format": "qcow2"}, DeviceLock())
    assert drive.size == MIB
    drive.close()


def test_an_image_that_is_not_of_its_format_says_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.qcow2").write_bytes(bytes(MIB))
    with pytest.raises(BackendError, match="Image is not in qcow2 format"):
        open_drive("d", {"file": str(tmp_path / "a.qcow2"), "format": "qcow2"}, DeviceLock())


def descriptors() -> int:
    """Open ones of this process, without those that other tests' garbage holds."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_a_backing_chain_with_a_cycle_ends(tmp_path: pathlib.Path) -> None:
    a = qcow2(tmp_path / "a", backing_file="b", backing_fmt="qcow2")
    qcow2(tmp_path / "b", backing_file="a", backing_fmt="qcow2")
    before = descriptors()
    with pytest.raises(BackendError, match="has no end"):
        open_node(a, "qcow2", Access(readonly=True))
    assert descriptors() == before


def test_a_missing_backing_file_leaves_nothing_open(tmp_path: pathlib.Path) -> None:
    a = qcow2(tmp_path / "a", backing_file="gone", backing_fmt="raw")
    before = descriptors()
    with pytest.raises(BackendError, match="Could not open backing file: Could not open '.*gone': No such file"):
        open_node(a, "qcow2", Access())
    assert descriptors() == before


def test_two_writers_of_an_image_keep_out_of_each_others_way(tmp_path: pathlib.Path) -> None:
    path = qcow2(tmp_path / "a.qcow2")
    drive = open_drive("d", {"file": path, "format": "qcow2"}, DeviceLock())
    with pytest.raises(BackendError, match="in use by another process"):
        open_drive("e", {"file": path, "format": "qcow2"}, DeviceLock())
    open_drive("f", {"file": path, "format": "qcow2", "locking": "off", "readonly": True}, DeviceLock()).close()
    drive.close()


def test_the_same_image_twice_as_snapshots(tmp_path: pathlib.Path) -> None:
    path = qcow2(tmp_path / "a.qcow2")
    spec = {"file": path, "format": "qcow2", "snapshot": True}
    one, two = open_drive("d", spec, DeviceLock()), open_drive("e", spec, DeviceLock())
    one.node.write(0, b"1" * 512)
    two.node.write(0, b"2" * 512)
    assert (one.read_bytes(0, 512), two.read_bytes(0, 512)) == (b"1" * 512, b"2" * 512)
    one.close()
    two.close()


def test_nodes_by_options(tmp_path: pathlib.Path) -> None:
    path = qcow2(tmp_path / "a.qcow2")
    file, below = {"driver": "file", "filename": path}, {"driver": "null-co", "size": MIB}
    node = open_options({"driver": "qcow2", "file": file, "backing": below}, Access())
    assert node.driver == "qcow2"
    node.close()
    (tmp_path / "r").write_bytes(b"x" * 512 + b"y" * 512 + b"z" * 512)
    part = open_options(
        {"driver": "raw", "offset": 512, "size": 512, "file": {"driver": "file", "filename": str(tmp_path / "r")}},
        Access(readonly=True),
    )
    assert part.read(0, 512) == b"y" * 512
    part.close()


@pytest.mark.parametrize("lax", [False, True])
@pytest.mark.parametrize("past", [False, True])
def test_what_a_node_s_cache_says_holds(tmp_path: pathlib.Path, past: bool, lax: bool) -> None:
    """Each by itself; a file below has what the one above says."""
    (tmp_path / "a").write_bytes(bytes(MIB))
    file = {"driver": "file", "filename": str(tmp_path / "a")}
    try:
        node = open_options({"driver": "raw", "file": file, "cache": {"direct": past, "no-flush": lax}}, Access())
    except BackendError as error:
        assert past and "O_DIRECT" in str(error)  # not on every file system
        return
    (inner,) = (child for _, child in node.children())
    assert bool(fcntl.fcntl(inner.fd, fcntl.F_GETFL) & os.O_DIRECT) == past  # type: ignore[attr-defined]
    assert bool(inner.unsafe) == lax  # type: ignore[attr-defined]
    node.close()


def test_a_disk_that_forgets(tmp_path: pathlib.Path) -> None:
    drive = open_drive("d", {"format": "null-co"}, DeviceLock())
    assert drive.size == 1 << 30
    assert drive.read_bytes(5, 7) == bytes(7)
    drive.close()


def test_the_last_cluster_of_a_file_is_whole(tmp_path: pathlib.Path) -> None:
    """libqcow and others read no further than the file goes. Who changes nothing leaves the file as long as it was."""
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", 1 << 20, {})
    for written, size in ((b"x" * 512, 6 << 16), (b"", 6 << 16), (b"", 5 * 65536 + 512)):
        if not written:
            os.truncate(path, size)
        node = open_node(str(path), "qcow2", Access())
        if written:
            node.write(0, written)
        node.close()
        assert path.stat().st_size == size


def test_a_set_of_descriptors_is_a_file(tmp_path: pathlib.Path) -> None:
    """Nothing has its name on the host."""
    from vmrun.config.files import is_address
    from vmrun.core import fdsets

    (tmp_path / "disk").write_bytes(b"set" * 1024)
    number, _ = fdsets.add(None, os.open(tmp_path / "disk", os.O_RDWR))
    try:
        drive = open_drive("d", {"file": f"/dev/fdset/{number}", "format": "raw"}, DeviceLock())
        assert drive.read_bytes(0, 3) == b"set"
        drive.close()
        assert is_address(f"/dev/fdset/{number}")
    finally:
        fdsets.remove(number, None)


def test_the_first_block_of_a_new_image_is_there(tmp_path: pathlib.Path) -> None:
    """As QEMU makes it: what direct transfers are to be aligned to can be tried."""
    new_file(str(tmp_path / "new"), 8 * MIB, hint=1 << 20)  # XFS takes what the hint says, and more
    assert 0 < (tmp_path / "new").stat().st_blocks * 512 < 8 * MIB
    assert (tmp_path / "new").read_bytes() == bytes(8 * MIB)
