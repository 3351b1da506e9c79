"""Places in a qcow2 file: what is never written over, and what another program has written meanwhile."""

from __future__ import annotations

import pathlib
import random
import struct
from typing import Any

import pytest
from vmrun.backends.block.qcow2_check import check

from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.images import Access, ImageError, open_node, open_options

COPIED = 1 << 63
TABLE = 32 << 10  # bytes of the disk that a table is for, with clusters of 512 bytes


def an_image(path: pathlib.Path, size: int = 4 << 20) -> Any:
    new_file(str(path), 0)
    create_qcow2(str(path), size, {"cluster_size": 512})
    return opened(path)


def opened(path: pathlib.Path) -> Any:
    return open_node(str(path), "qcow2", Access(lock=False))


def l1_of(data: bytes) -> tuple[int, int]:
    """Entries, place."""
    entries, place = struct.unpack_from(">IQ", data, 36)
    return entries, place


def point(path: pathlib.Path, place: int) -> None:
    """The disk's first cluster is said to be at `place`."""
    data = bytearray(path.read_bytes())
    table = struct.unpack_from(">Q", data, l1_of(data)[1])[0] & ~COPIED
    struct.pack_into(">Q", data, table, place | COPIED)
    path.write_bytes(data)


@pytest.mark.parametrize("after", [False, True], ids=["of-before", "made-meanwhile"])
def test_no_write_goes_over_any_of_many_tables(tmp_path: pathlib.Path, after: bool) -> None:
    """Of 128 tables and the blocks that count, each is kept from a cluster that is said to be there."""
    path = tmp_path / "a.qcow2"
    node = an_image(path)
    node.write(0, b"a" * 512)
    node.sync()
    blank = path.read_bytes()
    for at in range(TABLE, 4 << 20, TABLE):
        node.write(at, b"b" * 512)
    node.close()
    data = path.read_bytes()
    entries, l1 = l1_of(data)
    reftable = struct.unpack_from(">Q", data, 48)[0]
    places = [entry & ~COPIED for (entry,) in struct.iter_unpack(">Q", data[l1 : l1 + entries * 8])]
    blocks = [entry for (entry,) in struct.iter_unpack(">Q", data[reftable : reftable + 512]) if entry]
    assert len(places) == 128 and len(blocks) > 1
    for place in (*places[1::9], places[-1], blocks[-1]):
        path.write_bytes(blank if after else data)
        point(path, place)
        node = opened(path)
        if after:  # the same writes lead to the same places
            for at in range(TABLE, 4 << 20, TABLE):
                node.write(at, b"b" * 512)
        with pytest.raises(OSError, match="Input/output"):
            node.write(0, b"c" * 512)
        assert node.broken and "overlaps with" in node.take_fault()[0]
        with pytest.raises(OSError):
            node.close()


@pytest.mark.parametrize("rounds", [1, 2])
def test_an_image_that_was_anothers_is_not_known_any_more(tmp_path: pathlib.Path, rounds: int) -> None:
    """What another program wrote is read, be it where we had something else, and not written over: compressed clusters
    share one of the file, in which we would go on.
    """
    path = tmp_path / "a.qcow2"
    new_file(str(path), 0)
    create_qcow2(str(path), 4 << 20, {"cluster_size": 65536})
    ours = opened(path)
    ours.write_compressed(0, b"a" * 65536)
    assert ours.read(0, 512) == b"a" * 512
    ours.rest()
    ours.file.rest()
    letter = b"a"
    for at in range(rounds):  # in a new place; the second time in the one that we know
        letter = b"AB"[at : at + 1]
        theirs = opened(path)
        theirs.write_compressed(0, letter * 65536)
        theirs.close()
    theirs = opened(path)
    theirs.write(65536, b"b" * 65536)
    theirs.close()
    ours.file.wake()
    ours.wake()
    assert ours.read(0, 512) == letter * 512
    ours.write_compressed(131072, b"c" * 65536)
    ours.close()
    node = opened(path)
    assert [node.read(at * 65536, 65536) for at in range(3)] == [each * 65536 for each in (letter, b"b", b"c")]
    node.close()


def test_as_much_of_the_tables_is_kept_as_is_said(tmp_path: pathlib.Path) -> None:
    """Eight pieces of 512 bytes at least, of 128 tables and more of counts: what is written comes back."""
    path = tmp_path / "a.qcow2"
    an_image(path).close()
    said = {"l2-cache-size": 8192, "l2-cache-entry-size": 512, "refcount-cache-size": 512}
    options = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}, **said}
    node: Any = open_options(options, Access(lock=False))
    assert (node.kept[0], node.kept[2]) == (8192, 4096)
    chance, disk = random.Random(5), bytearray(4 << 20)
    for n in range(3000):
        at, data = chance.randrange(0, 4 << 20, 512), bytes([chance.randrange(256)]) * 512
        if n % 5 == 4:
            node.trim(at, 512)
            data = bytes(512)
        else:
            node.write(at, data)
        disk[at : at + 512] = data
        if n == 2000:
            node.bound(4096, 65536, 0)  # while there is something that the file has not got
            assert (node.kept[0], node.kept[2]) == (4096, 65536)
    assert node.kept[1] <= 4096 and node.kept[3] <= 65536
    assert node.read(0, 4 << 20) == disk
    node.close()
    node = opened(path)
    assert node.read(0, 4 << 20) == disk
    found = check(node, None, lambda line: None)
    assert not found.corruptions and not found.errors and not found.leaks
    node.close()
    with pytest.raises(ImageError, match="at the same time"):
        open_options({**options, "cache-size": 4096}, Access(lock=False))
