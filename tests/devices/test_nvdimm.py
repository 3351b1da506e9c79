"""Non-volatile modules: their tables and the answers to their methods, on vmrun and on QEMU.

Ref: NVDIMM DSM interface 1.3, of Intel; QEMU docs/specs/acpi_nvdimm.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
import struct
from collections.abc import Iterator

import pytest

from tests.devices.fromline import made, ours, tables, theirs
from tests.peers.asl import Source, disassemble, needs_iasl, recompile
from tests.peers.oracle import QEMU
from vmrun.errors import BuildError
from vmrun.testing import QTest, QtestCommands

MIB = 1 << 20
SIZE, LABEL = 32 * MIB, 128 << 10
QUESTION, PORT = 0x10000, 0xA18
TABLE = 0x10000


def words(directory: pathlib.Path, *more: str, machine: str = "nvdimm=on") -> list[str]:
    """A module with labels in a file, one without in memory, a slot apart."""
    return [
        *("-M", f"pc-i440fx-7.2,smm=off,{machine}", "-m", "64,slots=4,maxmem=1G"),
        *("-object", f"memory-backend-file,id=m0,mem-path={directory / 'kept'},size={SIZE},share=on"),
        *("-object", f"memory-backend-ram,id=m1,size={SIZE}", "-object", f"memory-backend-ram,id=m2,size={SIZE}"),
        *("-device", f"nvdimm,id=n0,memdev=m0,label-size={LABEL}"),
        *("-device", "nvdimm,id=n1,memdev=m1,slot=2,unarmed=on"),
        *more,
    ]


@pytest.fixture
def q(side: str, tmp_path: pathlib.Path) -> Iterator[QtestCommands]:
    with made(side, *words(tmp_path)) as machine:
        yield machine


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> Iterator[tuple[QtestCommands, QtestCommands]]:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    for name in ("own", "qemu"):
        (tmp_path / name).mkdir()
    with contextlib.ExitStack() as stack:
        yield (
            stack.enter_context(ours(*words(tmp_path / "own"))),
            stack.enter_context(theirs(*words(tmp_path / "qemu"))),
        )


def ask(q: QtestCommands, handle: int, function: int, arguments: bytes = b"", revision: int = 1) -> bytes:
    """The answer as it stands in the page, its length before it."""
    q.write(QUESTION, struct.pack("<III", handle, revision, function) + arguments.ljust(4084, b"\0"))
    q.outl(PORT, QUESTION)
    (length,) = struct.unpack("<I", q.read(QUESTION, 4))
    assert 4 <= length <= 4096
    return q.read(QUESTION, length)[4:]


def status(answer: bytes) -> int:
    return int.from_bytes(answer[:4], "little")


def test_a_label_is_written_and_read_and_kept(q: QtestCommands, tmp_path: pathlib.Path) -> None:
    assert ask(q, 1, 0) == struct.pack("<I", 0x71)
    assert ask(q, 1, 4) == struct.pack("<III", 0, LABEL, 4076)
    assert ask(q, 1, 6, struct.pack("<II", LABEL - 5, 5) + b"label") == bytes(4)
    assert ask(q, 1, 5, struct.pack("<II", LABEL - 6, 6)) == bytes(5) + b"label"
    assert ask(q, 3, 0) == bytes(4)  # one without
    q.write(1 << 32, b"pmem")
    content = (tmp_path / "kept").read_bytes()
    assert content[:4] == b"pmem" and content.endswith(b"label")


@pytest.mark.peer
def test_all_questions_have_qemus_answers(pair: tuple[QtestCommands, QtestCommands]) -> None:
    rng = random.Random(7)
    edges = [0, 1, 4075, 4076, 4077, LABEL - 4076, LABEL - 1, LABEL, LABEL + 1, 0xFFFFFFFF]
    questions = [(handle, function, b"", revision)
                 for handle in (0, 1, 2, 3, 4, 5, TABLE, TABLE + 1, 0xFFFFFFFF)
                 for function in (0, 1, 2, 3, 4, 7, 0xFFFFFFFF) for revision in (0, 1, 2)]  # fmt: skip
    for _ in range(80):
        where = struct.pack("<II", rng.choice(edges), rng.choice(edges[1:]))  # QEMU dies of a piece without bytes
        questions.append((rng.choice([1, 1, 1, 3]), rng.choice([5, 6]), where + rng.randbytes(64), 1))
    questions += [(TABLE, 1, struct.pack("<I", offset), 1) for offset in (5, 0, 1, 367, 368, 369, 4096, 1 << 31)]
    for question in questions:
        one, other = (ask(q, *question) for q in pair)
        assert one == other, question


@pytest.mark.peer
@needs_iasl
@pytest.mark.parametrize("more", ["", ",nvdimm-persistence=cpu", ",nvdimm-persistence=mem-ctrl"])
def test_the_tables_are_qemus(more: str, tmp_path: pathlib.Path) -> None:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    found = []
    for make in (ours, theirs):
        with make(*words(tmp_path, machine=f"nvdimm=on{more}")) as q:
            found.append(list(tables(q)))
    assert [name for name, _ in found[0]] == [name for name, _ in found[1]]
    for n, ((name, own), (_, qemus)) in enumerate(zip(*found, strict=True)):
        if name in ("DSDT", "SSDT"):
            texts = [disassemble(table, tmp_path, f"{name}{n}{m}") for m, table in enumerate((own, qemus))]
            said = recompile(tmp_path, f"{name}{n}0")
            assert any(line.startswith("Compilation successful. 0 Errors") for line in said), said
            a, b = (Source(text).names for text in texts)
            assert {key: (a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)} == {}
        elif name not in ("RSDT", "FACP"):
            assert own == qemus, name


def test_a_module_that_comes_is_in_the_table(tmp_path: pathlib.Path) -> None:
    with ours(*words(tmp_path)) as q:
        first = ask(q, TABLE, 1, bytes(4))
        module = q.machine.plug({"driver": "nvdimm", "id": "n2", "memdev": "m2"})
        assert q.inw(0xAFE0) & 0x10
        assert status(ask(q, TABLE, 1, struct.pack("<I", 8))) == 0x100  # it changed while it was read
        assert len(ask(q, TABLE, 1, bytes(4))) == len(first) + 184
        q.outl(0xA00, module.slot_number)
        assert q.inb(0xA14) == 0  # the slots' registers tell of ordinary modules
        with pytest.raises(BuildError, match="nvdimm device hot unplug is not supported yet"):
            q.machine.unplug(module)
        row = module.memory_info()
        assert row["type"] == "nvdimm" and row["data"]["size"] == SIZE


def test_labels_outlive_a_saved_machine(tmp_path: pathlib.Path) -> None:
    from vmrun.machine import snapshot

    with ours(*words(tmp_path)) as q:
        ask(q, 1, 6, struct.pack("<II", 0, 4) + b"kept")
        q.machine.pause()
        snapshot.save(q.machine, str(tmp_path / "saved"))
    again = snapshot.restore(str(tmp_path / "saved"), accel=["qtest"])
    try:
        assert again.devices["n0"].read_label(0, 4) == b"kept"
    finally:
        again.close()


@pytest.mark.parametrize(("more", "why"), [
    (["-device", "nvdimm,memdev=m2,label-size=64K"], "is required at least 0x20000"),
    (["-device", f"nvdimm,memdev=m2,label-size={SIZE}"], r"memdev m2 \(0x2000000\) is too small to contain"),
    (["-device", "nvdimm,memdev=m0"], "can't use already busy memdev: m0"),
])  # fmt: skip
def test_a_module_that_cannot_be_is_refused(more: list[str], why: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(BuildError, match=why):
        ours(*words(tmp_path, *more))


def test_without_the_switch_there_are_none(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BuildError, match="nvdimm is not enabled: missing 'nvdimm' in '-M'"):
        ours(*words(tmp_path, machine="nvdimm=off"))


def test_what_cannot_be_written_is_not(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fixed"
    path.write_bytes(b"fixed".ljust(SIZE, b"\0"))
    path.chmod(0o444)
    backend = ["-object", f"memory-backend-file,id=r,mem-path={path},size={SIZE},readonly=on,share=on"]
    with pytest.raises(BuildError, match="'unarmed' property must be 'on' since memdev r is read-only"):
        ours(*words(tmp_path, *backend, "-device", "nvdimm,id=r,memdev=r"))
    with ours(*words(tmp_path, *backend, "-device", f"nvdimm,id=r,memdev=r,unarmed=on,label-size={LABEL}")) as q:
        at = q.machine.devices["r"].address
        q.write(at, b"other")
        ask(q, 2, 6, struct.pack("<II", 0, 5) + b"other")
        assert q.read(at, 5) == b"fixed"
    assert path.read_bytes().startswith(b"fixed") and b"other" not in path.read_bytes()


def test_a_file_that_is_not_there_cannot_be_read_alone(tmp_path: pathlib.Path) -> None:
    backend = ["-object", f"memory-backend-file,id=r,mem-path={tmp_path / 'none'},size={SIZE},readonly=on"]
    with pytest.raises(BuildError, match="No such file"):
        ours(*words(tmp_path, *backend, "-device", "nvdimm,id=r,memdev=r,unarmed=on"))


def test_questions_outside_memory_are_not_answered() -> None:
    with QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB",
                "memory-slots": {"count": 1, "maxmem": "128MiB", "nvdimm": True}}) as q:  # fmt: skip
        for address in (64 * MIB - 100, 0xFFFFFFFF, 0xFEE00000, 0):
            q.outl(PORT, address)
        assert q.inl(PORT) == 0
