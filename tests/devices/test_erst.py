"""The store of error records (ACPI 6.4, 18.5; UEFI 2.10, N.2), the same work on vmrun and on QEMU."""

from __future__ import annotations

import contextlib
import pathlib
import random
import struct
from collections.abc import Iterator

import pytest

from tests.peers.oracle import QEMU
from vmrun.errors import BuildError
from vmrun.testing import QTest, QtestCommands, QtestProgram

REGISTERS, EXCHANGE, RECORD, STORE = 0xFEBF0000, 0xFEBF2000, 0x2000, 0x10000
VALUE = REGISTERS + 8
WRITE, READ, CLEAR, END, SET_OFFSET, EXECUTE, _, STATUS, NEXT, SET_IDENTIFIER, COUNT = range(11)
SUCCESS, NO_SPACE, FAILED, EMPTY, NOT_FOUND = 0, 1, 3, 4, 5
NOBODY = 0xFFFFFFFFFFFFFFFF


def ours(store: pathlib.Path, **props: int) -> QTest:
    memory = {"type": "memory-backend-file", "mem-path": str(store), "size": STORE, "share": True}
    card = {"driver": "acpi-erst", "id": "erst", "memdev": "m", "addr": "04.0", **props}
    return QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "objects": {"m": memory}, "devices": [card]})


def theirs(store: pathlib.Path) -> QtestProgram:
    command = [QEMU or "qemu-system-x86_64", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults"]
    memory = f"memory-backend-file,id=m,mem-path={store},size={STORE},share=on"
    command += ["-display", "none", "-object", memory, "-device", "acpi-erst,memdev=m,addr=4"]
    return QtestProgram(command)


def start(q: QtestCommands) -> None:
    """As a firmware does."""
    for offset, value in ((0x10, REGISTERS), (0x14, EXCHANGE), (0x04, 2)):
        q.outl(0xCF8, 0x80000000 | 4 << 11 | offset)
        q.outl(0xCFC, value)


def act(q: QtestCommands, action: int, value: int | None = None) -> int:
    if value is not None:
        q.writeq(VALUE, value)
    q.writel(REGISTERS, action)
    return q.readq(VALUE)


def operate(q: QtestCommands, operation: int, identifier: int | None = None, offset: int = 0) -> int:
    """The status of a whole operation."""
    act(q, operation)
    act(q, SET_OFFSET, offset)
    if identifier is not None:
        act(q, SET_IDENTIFIER, identifier)
    act(q, EXECUTE, 0x9C)
    status = act(q, STATUS)
    act(q, END)
    return status


def record(identifier: int, length: int = 200, fill: int = 0xAB) -> bytes:
    data = bytearray([fill]) * max(length, 128)
    data[:4] = b"CPER"
    struct.pack_into("<I", data, 20, length)
    struct.pack_into("<Q", data, 96, identifier)
    return bytes(data)


@pytest.fixture
def store(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "store"


@pytest.fixture
def q(side: str, store: pathlib.Path) -> Iterator[QtestCommands]:
    with ours(store) if side == "vmrun" else theirs(store) as machine:
        start(machine)
        yield machine


def put(q: QtestCommands, data: bytes, offset: int = 0) -> int:
    q.write(EXCHANGE + offset, data)
    return operate(q, WRITE, offset=offset)


def test_a_record_is_kept_and_read_and_cleared(q: QtestCommands) -> None:
    assert put(q, record(0x11)) == SUCCESS
    assert put(q, record(0x22, 300), 0x100) == SUCCESS
    assert act(q, COUNT) == 2
    q.write(EXCHANGE, bytes(RECORD))
    assert operate(q, READ, 0x22, 0x40) == SUCCESS
    assert q.read(EXCHANGE, RECORD) == bytes(0x40) + record(0x22, 300) + bytes(RECORD - 0x40 - 300)
    assert operate(q, CLEAR, 0x11) == SUCCESS
    assert operate(q, CLEAR, 0x11) == NOT_FOUND
    assert act(q, COUNT) == 1
    assert operate(q, READ, 0) == SUCCESS  # any


@pytest.mark.parametrize(
    ("identifier", "length", "offset", "status"),
    [(0x33, RECORD + 1, 0, FAILED), (0, 200, 0, FAILED), (NOBODY, 200, 0, FAILED), (1, 127, 0, FAILED),
     (1, 128, RECORD - 128, SUCCESS), (1, 128, RECORD - 127, FAILED), (1, 0x1000, 0x1000, SUCCESS)],
)  # fmt: skip
def test_what_is_no_record_is_not_stored(
    q: QtestCommands, identifier: int, length: int, offset: int, status: int
) -> None:
    q.write(EXCHANGE + offset, record(identifier, length)[: RECORD - offset])
    assert operate(q, WRITE, offset=offset) == status
    assert act(q, COUNT) == (1 if status == SUCCESS else 0)


def test_a_full_store_takes_a_record_that_it_has(q: QtestCommands) -> None:
    slots = STORE // RECORD - 1
    assert [put(q, record(n + 1)) for n in range(slots)] == [SUCCESS] * slots
    assert put(q, record(100)) == NO_SPACE
    assert put(q, record(3, 400)) == SUCCESS
    assert [act(q, NEXT) for _ in range(slots + 2)] == [*range(1, slots + 1), NOBODY, 1]


def test_an_empty_store_says_so(q: QtestCommands) -> None:
    assert act(q, NEXT) == NOBODY
    assert operate(q, READ, 5) == EMPTY
    assert operate(q, CLEAR, 5) == NOT_FOUND


@pytest.mark.peer
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_operations_leave_the_same_store(seed: int, tmp_path: pathlib.Path) -> None:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    rng = random.Random(seed)
    stores = tmp_path / "own", tmp_path / "qemu"
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(ours(stores[0])), stack.enter_context(theirs(stores[1]))
        for q in pair:
            start(q)
        for _ in range(150):
            offset = rng.choice([0, 0, 0x100, 0x1F80, 0x1F81, 0x2000, 0xFFFFFFFF])
            identifier = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, NOBODY])
            data = record(identifier, rng.choice([0, 127, 128, 300, 0x1000, 0x2000, 0xFFFFFFF0]) & 0x3FFF)
            what = rng.randrange(6)
            answers = []
            for q in pair:
                if what == 0:
                    answers.append(act(q, NEXT))
                elif what <= 2:
                    q.write(EXCHANGE + offset % RECORD, data[: RECORD - offset % RECORD])
                    answers.append(operate(q, WRITE, offset=offset))
                elif what == 3:
                    answers.append(act(q, COUNT))
                else:
                    answers.append(operate(q, READ if what == 4 else CLEAR, identifier, offset))
            assert answers[0] == answers[1], (what, identifier, offset)
            assert pair[0].read(EXCHANGE, RECORD) == pair[1].read(EXCHANGE, RECORD)
    assert stores[0].read_bytes() == stores[1].read_bytes()


def test_a_store_of_another_form_is_refused(store: pathlib.Path) -> None:
    with ours(store) as q:
        start(q)
        assert put(q, record(7)) == SUCCESS
    with ours(store) as q:  # another run
        start(q)
        assert act(q, COUNT) == 1
    with pytest.raises(BuildError, match="holds no store with records of 4096 bytes"):
        ours(store, record_size=4096)
    with pytest.raises(BuildError, match="record_size 6144 is invalid"):
        ours(store, record_size=6144)
