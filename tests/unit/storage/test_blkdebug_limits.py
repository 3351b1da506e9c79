"""blkdebug's blocks and limits: what is written reads back, whatever the pieces; errors are met by the
piece they are about.
"""

from __future__ import annotations

import pathlib
import random
import threading
from typing import Any

import pytest

from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.images import Access, open_options

KIB = 1 << 10
SIZE = 256 * KIB


def node(directory: pathlib.Path, raw: bool = False, **options: Any) -> Any:
    path = directory / "disk.img"
    if not path.exists():
        path.write_bytes(bytes(SIZE))
    inner = {"driver": "blkdebug", "image": {"driver": "file", "filename": str(path), "discard": "unmap"}, **options}
    return open_options({"driver": "raw", "file": inner} if raw else inner, Access())


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"align": 512},
        {"align": 4096, "max-transfer": 8192},
        {"align": 512, "opt-write-zero": 15 * KIB, "max-write-zero": 30 * KIB, "opt-discard": 16 * KIB},
        {"align": 65536, "max-discard": 65536, "max-write-zero": 65536},
    ],
    ids=str,
)
def test_pieces_of_any_size_come_to_the_same(tmp_path: pathlib.Path, limits: dict[str, int]) -> None:
    disk, rng, want = node(tmp_path, **limits), random.Random(str(limits)), bytearray(SIZE)
    for n in range(300):
        offset = rng.randrange(SIZE)
        count = min(rng.choice((1, 100, 512, 4096, 5000, 40000)) + rng.randrange(3), SIZE - offset)
        what = rng.randrange(4)
        if what == 0:
            want[offset : offset + count] = bytes([n % 255 + 1]) * count
            disk.write(offset, bytes([n % 255 + 1]) * count)
        elif what == 1:
            want[offset : offset + count] = bytes(count)
            disk.write_zeroes(offset, count)
        else:
            assert disk.read(offset, count) == want[offset : offset + count]
    assert disk.read(0, SIZE) == want
    disk.close()
    assert (tmp_path / "disk.img").read_bytes() == want


def failing(disk: Any, what: str, *arguments: Any) -> bool:
    try:
        getattr(disk, what)(*arguments)
    except OSError as error:
        assert error.errno == 5
        return True
    return False


@pytest.mark.parametrize(
    ("kind", "what", "arguments", "fails"),
    [
        ("write-zeroes", "write_zeroes", (0, 64 * KIB), True),
        ("write", "write_zeroes", (0, 64 * KIB), False),
        ("write", "write_zeroes", (4 * KIB, 64 * KIB), True),  # both ends are less than what is best
        ("write-zeroes", "write_zeroes", (4 * KIB, 4 * KIB), False),
        ("write", "write_zeroes", (4 * KIB, 4 * KIB), True),
        ("read", "write", (600, b"x" * 512), True),  # what is around it is read
        ("read", "write", (1024, b"x" * 512), False),
        ("discard", "trim", (100, 200), False),  # no whole block
        ("discard", "trim", (100, 64 * KIB), True),
        ("discard", "trim", (4 * KIB, 4 * KIB), True),
    ],
)
def test_what_a_request_is_made_of(
    tmp_path: pathlib.Path, kind: str, what: str, arguments: tuple[Any, ...], fails: bool
) -> None:
    rule = {"event": "none", "iotype": kind}
    limits = {"align": 512, "opt-write-zero": 16 * KIB, "opt-discard": 16 * KIB}
    disk = node(tmp_path, **limits, **{"inject-error": [rule]})
    assert failing(disk, what, *arguments) == fails
    disk.close()


def test_a_discard_gives_up_whole_blocks_only(tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * SIZE)
    disk = node(tmp_path, align=4096, **{"max-discard": 8192})
    disk.trim(100, 20000)
    assert disk.read(0, SIZE).count(b"\0") == 12288 and disk.read(4096, 12288) == bytes(12288)
    disk.close()


def heard(disk: Any, events: tuple[str, ...], what: str, *arguments: Any) -> list[str]:
    """In which order a request comes to them."""
    below = disk if disk.driver == "blkdebug" else disk.children()[0][1]
    found: list[str] = []

    def hear(text: str) -> None:
        if text.startswith("blkdebug: Suspended"):
            found.append(text.split("'")[1])
            below.resume_tag(found[-1])

    below.listen(hear)
    for event in events:
        below.add_break(event, event)
    getattr(disk, what)(*arguments)
    return found


HEAD = ("pwritev_rmw_head", "pwritev_rmw_after_head")
TAIL = ("pwritev_rmw_tail", "pwritev_rmw_after_tail")
EVENTS = (*HEAD, *TAIL, "pwritev", "pwritev_zero", "pwritev_done", "write_aio", "read_aio")


@pytest.mark.parametrize(
    ("what", "arguments", "events"),
    [
        ("write", (0, b"x" * 4096), ("pwritev", "pwritev_done")),
        ("write", (512, b"x" * 512), (HEAD[0], TAIL[0], HEAD[1], TAIL[1], "pwritev", "pwritev_done")),
        ("write", (512, b"x" * 8192), (*HEAD, *TAIL, "pwritev", "pwritev_done")),
        ("write", (0, b"x" * 6144), (*TAIL, "pwritev", "pwritev_done")),
        ("write_zeroes", (0, 4096), ("pwritev_zero", "pwritev_done")),
        ("write_zeroes", (512, 12288), (*HEAD, *TAIL, "pwritev", "pwritev_done", "pwritev_zero")),
        ("write_zeroes", (0, 6144), (*TAIL, "pwritev_zero", "pwritev_done", "pwritev")),
        ("read", (512, 512), ()),
    ],
)
def test_the_order_of_events(tmp_path: pathlib.Path, what: str, arguments: Any, events: tuple[str, ...]) -> None:
    disk = node(tmp_path, align=4096)
    assert heard(disk, EVENTS, what, *arguments) == list(events)
    disk.close()


def test_the_raw_format_says_what_it_does(tmp_path: pathlib.Path) -> None:
    disk = node(tmp_path, raw=True)
    assert heard(disk, EVENTS, "write", 0, b"x") == ["write_aio", "pwritev", "pwritev_done"]
    assert heard(disk, EVENTS[-1:], "read", 0, 1) == ["read_aio"]
    disk.close()


def test_writes_to_a_part_of_a_block_do_not_undo_each_other(tmp_path: pathlib.Path) -> None:
    disk = node(tmp_path, align=65536)

    def fill(n: int) -> None:
        for turn in range(40):
            disk.write(n * 100 + turn, bytes([n + 1]))

    threads = [threading.Thread(target=fill, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert disk.read(0, 800) == b"".join(bytes([n + 1]) * 40 + bytes(60) for n in range(8))
    disk.close()


def test_who_waits_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    """A is held in one block, B waits for it and wants the next as well; C, of the next, goes first."""
    disk = node(tmp_path, align=4096)
    disk.add_break("pwritev_rmw_after_tail", "A")
    order: list[str] = []

    def write(name: str, offset: int, count: int) -> None:
        disk.write(offset, b"x" * count)
        order.append(name)

    def begun(name: str, offset: int, count: int) -> threading.Thread:
        thread = threading.Thread(target=write, args=(name, offset, count), daemon=True)
        thread.start()
        return thread

    a = begun("A", 0, 512)
    while not disk.waits("A"):
        pass
    b = begun("B", 2048, 4096)
    b.join(0.05)
    c = begun("C", 7680, 512)
    c.join(30)
    assert order == ["C"]
    assert disk.resume_tag("A")
    a.join(30)
    b.join(30)
    assert sorted(order) == ["A", "B", "C"]
    disk.close()


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"align": 3}, "align 3"),
        ({"align": 1 << 31}, "align 2147483648"),
        ({"max-transfer": 1 << 31}, "max-transfer 2147483648"),
        ({"align": 4096, "max-transfer": 6144}, "max-transfer 6144"),
        ({"opt-write-zero": 2048, "max-write-zero": 3072}, "max-write-zero 3072"),
        ({"opt-discard": 3072, "max-discard": 2048}, "max-discard 2048"),
        ({"max-discard": 1 << 63}, "max-discard 9223372036854775808"),
    ],
)
def test_limits_that_cannot_be(tmp_path: pathlib.Path, limits: dict[str, int], told: str) -> None:
    with pytest.raises(ImageError, match=f"Cannot meet constraints with {told}"):
        node(tmp_path, **limits)


def test_a_disk_that_ends_within_a_block_is_not_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(5000))
    for raw in (False, True):
        with pytest.raises(ImageError, match="not a multiple of request alignment"):
            node(tmp_path, raw, align=4096)
    disk = node(tmp_path, align=4096, **{"read-only": True})
    assert disk.read(4990, 10) == bytes(10)
    disk.close()
