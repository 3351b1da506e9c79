"""RAM blocks and the records of who wrote where."""

from __future__ import annotations

import pytest
from accel.ram import DirtyLog, RamBlock
from hypothesis import given, settings
from hypothesis import strategies as st

PAGE = 4096


class Accelerator:
    """Notes what it is asked; `written` is what its processors wrote since."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.written: list[tuple[int, int]] = []

    def log_dirty(self, block: RamBlock, on: bool) -> None:
        self.calls.append(on)

    def sync_dirty(self, block: RamBlock) -> None:
        for offset, size in self.written:
            block.note_dirty(offset, size)
        self.written.clear()


@pytest.fixture
def block() -> RamBlock:
    return RamBlock("ram", 16 * PAGE)


@pytest.fixture
def log(block: RamBlock) -> DirtyLog:
    log = DirtyLog(block)
    log.take()
    return log


@pytest.mark.parametrize("size", [0, 1, PAGE + 1])
def test_a_size_that_is_no_number_of_pages_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4096"):
        RamBlock("ram", size)


def test_what_the_host_cannot_give_is_a_memory_error_with_the_size() -> None:
    with pytest.raises(MemoryError, match="MiB of memory for huge"):
        RamBlock("huge", 1 << 60)


@pytest.mark.parametrize(("offset", "count"), [(16 * PAGE, 1), (16 * PAGE - 1, 2), (1 << 63, 1), (1, (1 << 64) - 1)])
def test_access_outside_is_an_index_error(block: RamBlock, offset: int, count: int) -> None:
    with pytest.raises(IndexError):
        block.read(offset, count)


def test_a_view_is_the_memory_itself(block: RamBlock) -> None:
    memoryview(block)[5:8] = b"abc"
    assert block.read(4, 5) == b"\0abc\0"


def test_a_new_log_has_all_pages(block: RamBlock) -> None:
    assert DirtyLog(block).take() == [(0, 16 * PAGE)]


def test_a_write_is_found_once(block: RamBlock, log: DirtyLog) -> None:
    block.write(3 * PAGE - 1, b"ab")
    assert log.take() == [(2 * PAGE, 2 * PAGE)]
    assert log.take() == []


def test_fill_marks_all(block: RamBlock, log: DirtyLog) -> None:
    block.fill(7)
    assert log.take() == [(0, 16 * PAGE)]


def test_each_client_has_its_own_record(block: RamBlock, log: DirtyLog) -> None:
    other = DirtyLog(block)
    other.take()
    block.write(0, b"a")
    assert log.take() == [(0, PAGE)]
    block.write(PAGE, b"a")
    assert log.take() == [(PAGE, PAGE)]
    assert other.take() == [(0, 2 * PAGE)]


def test_a_range_is_cut_at_its_ends_and_leaves_the_others(block: RamBlock, log: DirtyLog) -> None:
    block.fill()
    assert log.take(PAGE + 10, PAGE) == [(PAGE + 10, PAGE)]
    assert log.take() == [(0, PAGE), (3 * PAGE, 13 * PAGE)]


def test_a_ninth_client_is_refused(block: RamBlock) -> None:
    logs = [DirtyLog(block) for _ in range(8)]
    with pytest.raises(ValueError, match="8 clients"):
        DirtyLog(block)
    logs.pop().stop()
    assert DirtyLog(block).take() == [(0, 16 * PAGE)]


def test_a_log_that_is_forgotten_makes_room(block: RamBlock) -> None:
    for _ in range(20):
        DirtyLog(block)
    assert not block.logged


def test_a_stopped_log_finds_nothing(block: RamBlock, log: DirtyLog) -> None:
    log.stop()
    log.stop()
    block.fill()
    assert not log.written(0, PAGE) and log.take() == []


def test_the_accelerator_learns_of_each_client(block: RamBlock) -> None:
    accelerator = Accelerator()
    first, second = DirtyLog(block, accelerator), DirtyLog(block, accelerator)
    first.stop()
    second.stop()
    assert accelerator.calls == [True, True, False, False]


def test_sync_brings_the_processors_writes_to_all_clients(block: RamBlock) -> None:
    accelerator = Accelerator()
    logs = [DirtyLog(block, accelerator) for _ in range(2)]
    for log in logs:
        log.take()
    accelerator.written.append((PAGE, 1))
    logs[0].sync()
    assert [log.take() for log in logs] == [[(PAGE, PAGE)]] * 2


def test_boxes_of_a_picture_wider_than_a_page(block: RamBlock, log: DirtyLog) -> None:
    block.write(2 * 8192 + 4096, b"a")
    assert log.take_boxes(0, 8192, 8000, 8) == [(4096, 2, 3904, 1)]


def test_boxes_of_a_picture_with_several_lines_a_page(block: RamBlock, log: DirtyLog) -> None:
    block.write(PAGE, b"a")  # lines 4 (its end) to 8 of 1000 bytes
    assert log.take_boxes(0, 1000, 800, 16) == [(0, 4, 800, 5)]


def test_what_lies_between_the_lines_is_no_box(block: RamBlock, log: DirtyLog) -> None:
    block.write(PAGE, b"a")
    assert log.take_boxes(0, 2 * PAGE, PAGE, 8) == []


@pytest.mark.parametrize("picture", [(0, 0, 0, 8), (0, 100, 101, 8), (16 * PAGE, 100, 100, 8), (1 << 63, 9, 9, 9)])
def test_a_picture_that_cannot_be_has_no_boxes(log: DirtyLog, picture: tuple[int, int, int, int]) -> None:
    assert log.take_boxes(*picture) == []


def test_a_picture_past_the_end_is_cut(block: RamBlock, log: DirtyLog) -> None:
    block.fill()
    assert log.take_boxes(15 * PAGE, PAGE, PAGE, 1 << 60) == [(0, 0, PAGE, 1)]


@settings(max_examples=200)
@given(
    writes=st.lists(st.tuples(st.integers(0, 16 * PAGE - 1), st.integers(1, 3 * PAGE)), max_size=6),
    base=st.integers(0, 3 * PAGE),
    pitch=st.integers(1, 3 * PAGE),
    short=st.integers(0, 200),
    height=st.integers(1, 40),
)
def test_boxes_cover_every_written_byte_and_do_not_overlap(
    writes: list[tuple[int, int]], base: int, pitch: int, short: int, height: int
) -> None:
    block = RamBlock("ram", 16 * PAGE)
    log = DirtyLog(block)
    log.take()
    width = max(1, pitch - short)
    dirty = set()
    for offset, size in writes:
        size = min(size, 16 * PAGE - offset)
        block.note_dirty(offset, size)
        dirty.update(range(offset, offset + size))
    boxes = log.take_boxes(base, pitch, width, height)
    seen: set[tuple[int, int]] = set()
    for x, y, w, h in boxes:
        assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
        rows = {(line, column) for line in range(y, y + h) for column in (x, x + w - 1)}
        assert not rows & seen
        seen |= rows
    for at in dirty:
        line, column = divmod(at - base, pitch)
        if at >= base and line < height and column < width:
            assert any(x <= column < x + w and y <= line < y + h for x, y, w, h in boxes)
