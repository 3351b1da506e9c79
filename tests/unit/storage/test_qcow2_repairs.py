"""What `check -r` makes of damaged images: what is in use stays, and what cannot be sure is not touched."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from vmrun.backends.block.qcow2_snapshots import create_snapshot

from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.images import Access, open_node
from vmrun.backends.block.qcow2_header import QcowError, Snapshot, parse
from vmrun.cli.img import main

CLUSTER = 4096
PLACE = 0x00FFFFFFFFFFFE00
L1, TABLE, NUMBER, SNAPSHOTS, AUTOCLEAR = 40, 48, 60, 64, 88  # of the header


def an_image(path: pathlib.Path, snapshot: bool = False, **options: Any) -> pathlib.Path:
    new_file(str(path), 0)
    create_qcow2(str(path), 1 << 20, {"cluster_size": CLUSTER, **options})
    node: Any = open_node(str(path), "qcow2", Access())
    node.write(0, b"a" * 5 * CLUSTER)
    if snapshot:
        create_snapshot(node, Snapshot(id="1", name="s"))
        node.write(0, b"b" * CLUSTER)
    node.close()
    return path


class Damage:
    """The file's bytes, to be changed; written at the end."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.data = path, bytearray(path.read_bytes())

    def __enter__(self) -> Damage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.path.write_bytes(self.data)

    def get(self, at: int, size: int = 8) -> int:
        return int.from_bytes(self.data[at : at + size], "big")

    def put(self, at: int, value: int, size: int = 8) -> None:
        self.data[at : at + size] = value.to_bytes(size, "big")

    @property
    def l2(self) -> int:
        return self.get(self.get(L1)) & PLACE

    def count_at(self, offset: int) -> int:
        """Where the count of a cluster is."""
        return self.get(self.get(TABLE)) + offset // CLUSTER * 2


def check(path: pathlib.Path, *words: str) -> int:
    return main(["check", *words, str(path)], "vmrun-img")


def content(path: pathlib.Path) -> bytes:
    node = open_node(str(path), "qcow2", Access(readonly=True))
    try:
        return bytes(node.read(0, 1 << 20))
    finally:
        node.close()


def test_leaks_mend_flags_where_all_else_is_sound(tmp_path: pathlib.Path, capfd: Any) -> None:
    path = an_image(tmp_path / "a.q")
    with Damage(path) as image:
        image.put(image.l2, image.get(image.l2) & PLACE)
    assert check(path) == 2
    assert check(path, "-r", "leaks") == 0
    assert "Repairing OFLAG_COPIED data cluster" in capfd.readouterr().err
    assert check(path) == 0


def test_leaks_are_let_alone_where_what_is_in_use_counts_as_free(tmp_path: pathlib.Path, capfd: Any) -> None:
    path = an_image(tmp_path / "a.q")
    with Damage(path) as image:
        image.put(image.count_at(image.get(image.l2) & PLACE), 0, 2)
    before = path.read_bytes()
    assert check(path, "-r", "leaks") == 1
    told = capfd.readouterr().err
    assert "ERROR need to rebuild refcount structures" in told and "Check failed: Input/output error" in told
    assert path.read_bytes() == before
    assert check(path, "-r", "all") == 0 and check(path) == 0


def test_a_block_out_of_any_file_is_mended_without_an_error_left(tmp_path: pathlib.Path) -> None:
    path = an_image(tmp_path / "a.q")
    held = content(path)
    with Damage(path) as image:
        image.put(image.get(TABLE), ((1 << 64) - 1) & ~(CLUSTER - 1))
    assert check(path) != 0
    assert check(path, "-r", "all") == 0
    assert check(path) == 0 and content(path) == held


@pytest.mark.parametrize("field", [12, 14])  # how long a snapshot's id and name are
def test_a_longer_snapshot_table_than_there_is_goes_elsewhere(tmp_path: pathlib.Path, field: int) -> None:
    path = an_image(tmp_path / "a.q", snapshot=True)
    held = content(path)
    with Damage(path) as image:
        image.put(image.get(SNAPSHOTS) + field, 0xFFFE, 2)
        image.put(NUMBER, 2, 4)
    assert check(path) != 0
    assert check(path, "-r", "all") == 0
    assert check(path) == 0 and content(path) == held


def test_a_snapshot_table_where_the_header_is_leaves_the_header(tmp_path: pathlib.Path) -> None:
    path = an_image(tmp_path / "a.q", refcount_bits=1)
    head = path.read_bytes()[:8]
    with Damage(path) as image:
        image.put(NUMBER, 65536, 4)
    check(path, "-r", "all")
    assert path.read_bytes()[:8] == head
    assert content(path)[:CLUSTER] == b"a" * CLUSTER


def test_a_table_that_lies_in_another_is_not_mended(tmp_path: pathlib.Path, capfd: Any) -> None:
    path = an_image(tmp_path / "a.q")
    with Damage(path) as image:
        image.put(image.get(L1), image.get(L1) | 1 << 63)  # the L1 table is its own L2 table
    assert check(path, "-r", "all") == 1
    told = capfd.readouterr().err
    assert "overlaps with active L2 table" in told and "Check failed: Input/output error" in told


def test_entries_of_an_l1_table_that_leaves_the_file_are_in_use(tmp_path: pathlib.Path) -> None:
    path = an_image(tmp_path / "a.q")
    held = content(path)
    with Damage(path) as image:
        image.put(36, 1 << 17, 4)
    check(path, "-r", "leaks")
    with Damage(path) as image:
        assert image.get(image.count_at(image.get(image.l2) & PLACE), 2) == 1
    assert content(path) == held


def test_headers_that_contradict_themselves(tmp_path: pathlib.Path) -> None:
    path = an_image(tmp_path / "a.q")
    with Damage(path) as image:
        image.put(AUTOCLEAR, 2)
    with pytest.raises(QcowError, match="data-file-raw requires a data file"):
        parse(lambda at, size: path.read_bytes()[at : at + size])
    old = an_image(tmp_path / "b.q", compat="0.10")
    with Damage(old) as image:
        image.put(72, 0x12345678, 4)
        image.put(76, 1 << 20, 4)
    with pytest.raises(QcowError, match="Header extension too large"):
        parse(lambda at, size: old.read_bytes()[at : at + size])
    assert check(an_image(tmp_path / "c.q")) == 0


def test_snapshots_at_no_cluster_are_told_even_when_there_are_none(tmp_path: pathlib.Path, capfd: Any) -> None:
    path = an_image(tmp_path / "a.q")
    with Damage(path) as image:
        image.put(SNAPSHOTS, 0x100040)
    assert check(path) == 1
    assert "snapshot table offset invalid" in capfd.readouterr().err
