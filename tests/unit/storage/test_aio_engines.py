"""Transfers by the kernel: aio=native and aio=io_uring."""

from __future__ import annotations

import os
import pathlib
import random
import sys

import pytest
from accel.api import DeviceLock
from vmrun.backends.block.caller import Caller
from vmrun.backends.block.engine import KINDS, engine

from vmrun.backends.block import open_drive
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.images import Access, open_node, open_options
from vmrun.errors import BackendError

READ, WRITE, FLUSH = 0, 1, 2
SIZE = 4 << 20


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(SIZE))
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError:
        pytest.skip("no O_DIRECT in the temporary directory")
    return path


WAYS = [("native", "none"), ("io_uring", "none"), ("io_uring", "writeback")]


@pytest.mark.parametrize(("aio", "cache"), WAYS)
def test_what_is_written_is_read(image: pathlib.Path, aio: str, cache: str) -> None:
    drive = open_drive("d", {"file": str(image), "format": "raw", "cache": cache, "aio": aio}, DeviceLock())
    caller, rng, want = Caller(drive), random.Random(1), bytearray(SIZE)
    for _ in range(4):
        for block in rng.sample(range(SIZE // 4096), 100):
            want[block * 4096 : block * 4096 + 4096] = data = rng.randbytes(4096)
            caller.submit(WRITE, block * 4096, data=data)
        while caller.in_flight:
            assert caller.wait()[1] == 0
    large = rng.randbytes(1 << 20)
    want[: 1 << 20] = large
    caller.submit(WRITE, 0, data=large)
    assert caller.wait()[1] == 0
    # What is not aligned as the host asks, a worker does, and with its neighbours under way.
    for n in range(64):
        want[(2 << 20) + n * 512 : (2 << 20) + n * 512 + 512] = data = rng.randbytes(512)
        caller.submit(WRITE, (2 << 20) + n * 512, data=data)
    caller.submit(FLUSH)
    while caller.in_flight:
        assert caller.wait()[1] == 0
    numbers = {caller.submit(READ, n << 20, 1 << 20): n for n in range(SIZE >> 20)}
    for _ in range(SIZE >> 20):
        number, error, data = caller.wait()
        assert error == 0
        assert data == want[numbers[number] << 20 : (numbers[number] + 1) << 20]
    drive.close()
    assert image.read_bytes() == want


@pytest.mark.parametrize("aio", list(KINDS))
def test_the_kernel_moves_the_data(image: pathlib.Path, aio: str) -> None:
    drive = open_drive("d", {"file": str(image), "format": "raw", "cache": "none", "aio": aio}, DeviceLock())
    caller = Caller(drive)
    before = engine(aio).transfers
    for n in range(8):
        caller.submit(WRITE, n * 4096, data=bytes(4096))
        assert caller.wait()[1] == 0
    names = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    assert "block-aio" in names
    assert engine(aio).transfers == before + 8
    drive.close()


def test_an_end_within_a_sector_and_errors_are_the_threads_work(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(b"x" * 1000)
    drive = open_drive("d", {"file": str(path), "format": "raw", "aio": "io_uring"}, DeviceLock())
    caller = Caller(drive)
    os.posix_fadvise(os.open(path, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    caller.submit(READ, 0, 1024)
    assert caller.wait()[1:] == (0, b"x" * 1000 + bytes(24))
    drive.close()


def test_native_wants_no_cache_and_says_so_as_qemu_does(image: pathlib.Path) -> None:
    said = "aio=native was specified, but it requires cache.direct=on, which was not specified."
    with pytest.raises(BackendError, match=said):
        open_drive("d", {"file": str(image), "format": "raw", "aio": "native"}, DeviceLock())
    with pytest.raises(ImageError, match=said):
        open_options({"driver": "file", "filename": str(image), "aio": "native"}, Access())
    with pytest.raises(ImageError, match="invalid parameter value: fast"):
        open_options({"driver": "file", "filename": str(image), "aio": "fast"}, Access())


def test_a_kernel_that_refuses_is_said_plainly(image: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setitem(KINDS, "io_uring", refuse)
    monkeypatch.setattr("vmrun.backends.block.engine.made", {})
    with pytest.raises(ImageError, match="Unable to use io_uring: Operation not permitted") as found:
        open_node(str(image), "raw", Access(aio="io_uring"))
    assert found.value.remedy == "take `aio: threads`"


def test_an_engine_outlives_whoever_made_it() -> None:
    """Its thread waits for the kernel until the process is over, and the interpreter ends before that."""
    for name in KINDS:
        try:
            made = KINDS[name]()
        except OSError:
            continue  # the kernel does not offer it
        assert sys.getrefcount(made) > 2  # this name and the call's argument; the thread has the third
