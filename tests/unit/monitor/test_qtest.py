"""The qtest protocol: answers, refusals, time, pins, its log."""

from __future__ import annotations

import base64
import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.board import Driven
from vmrun.monitor.qtest import QtestSession
from vmrun.testing import QTest, QtestError


@pytest.fixture(scope="module")
def q():
    with QTest({"machine": "pc-i440fx-2.0", "memory": "16MiB"}) as q:
        yield q


@pytest.mark.parametrize(
    "line, answer",
    [
        ("endianness", "little"),
        ("writeq 0x1000 0x1122334455667788", ""),
        ("readb 0x1000", "0x0000000000000088"),
        ("readw 4096", "0x0000000000007788"),
        ("readl 0x1004", "0x0000000011223344"),
        ("readq 010000", "0x1122334455667788"),
        ("read 0x1000 4", "0x88776655"),
        ("b64read 0x1000 3", "iHdm"),
        ("write 0x2000 4 0x0102", ""),
        ("readl 0x2000", "0x0000000000000201"),
        ("b64write 0x2000 2 /w==", ""),
        ("readw 0x2000", "0x00000000000000ff"),
        ("memset 0x2000 3 0x5a", ""),
        ("memset 0x2000 0 0", ""),
        ("readl 0x2000", "0x00000000005a5a5a"),
        ("outb 0x80 0x1ff", ""),
        ("inb 0x92", "0x0000"),
        ("module_load hw- foo", ""),
    ],
)
def test_answers(q: QTest, line: str, answer: str) -> None:
    assert q.ask(line) == answer


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            "nonsense",
            "inb",
            "inb x",
            "inb 0x10000",
            "inb 1 2",
            "inq 0x70",
            "outb 1",
            "outb 1 2 3",
            "outb 0x10000 0",
        ),
        *("readb", "readb -1", "readb 0x1g", "readw 0xffffffffffffffff", "readb 0x10000000000000000", "writeb 0"),
        *(
            "read 0 0",
            "read 0 1048577",
            "read 0",
            "read 0xffffffffffffffff 2",
            "write 0 1",
            "write 0 1 zz",
            "write 0 1 0x1",
        ),
        *("write 0 1 01", "b64read 0 0", "b64write 0 1 !", "memset 0 1 256", "memset 0 1", "memset 0 99999999999999 0"),
        *(
            "clock_step -1",
            "clock_step x",
            "clock_step 9223372036854775808",
            "clock_step 1 2",
            "clock_set",
            "clock_set x",
        ),
        *("irq_intercept_in", "irq_intercept_in nobody", "irq_intercept_in /machine", "set_irq_in ioapic in 1"),
        *("set_irq_in ioapic out 1 1", "set_irq_in ioapic in -1 1", "set_irq_in ioapic in 1 x", "endianness x"),
        *("module_load", "read 0_0 1", "readb 1_0"),
    ],
)
def test_what_is_malformed_or_out_of_range_fails_and_the_next_command_works(q: QTest, line: str) -> None:
    with pytest.raises(QtestError, match="FAIL"):
        q.ask(line)
    assert q.ask("endianness") == "little"


@given(st.binary(max_size=200))
@settings(suppress_health_check=list(HealthCheck))
def test_no_bytes_raise(q: QTest, data: bytes) -> None:
    q._session.feed(data + b"\n")
    q._sent.clear()
    assert q.ask("endianness") == "little"


def test_a_line_may_come_in_pieces(q: QTest) -> None:
    for piece in (b"rea", b"dl 0x", b"1000\r", b"\nendian"):
        q._session.feed(piece)
    assert b"".join(q._sent).startswith(b"OK 0x")
    q._sent.clear()
    assert q.ask("ness") == "little"


def test_a_line_without_an_end_is_dropped(q: QTest) -> None:
    for _ in range(6):
        q._session.feed(b"x" * (1 << 20))
    q._session.feed(b"x\n")
    assert b"".join(q._sent) == b"FAIL the line is too long\n"
    q._sent.clear()
    assert q.ask("endianness") == "little"


def test_a_mebibyte_goes_in_and_out(q: QTest) -> None:
    data = bytes(n * 7 & 0xFF for n in range(1 << 20))
    q.write(0x100000, data)
    assert q.read(0x100000, 1 << 20) == data
    assert base64.b64decode(q.ask(f"b64read 0x100000 {1 << 20}")) == data


def test_time_moves_when_it_is_told_to_and_never_back() -> None:
    with QTest({"machine": "pc-i440fx-2.0", "memory": "16MiB"}) as q:
        assert q.clock_step(0) == 0
        assert q.clock_step(1000) == 1000
        assert q.ask("clock_set 5000") == "5000"
        assert q.ask("clock_set 10") == "5000"


def test_each_timer_runs_at_its_own_moment() -> None:
    with QTest({"machine": "pc-i440fx-2.0", "memory": "16MiB"}) as q:
        times = []
        from accel.clock import PyTimer

        board = q.machine.board
        timers = [PyTimer(board.timers, lambda: times.append(board.virtual.time())) for _ in range(3)]
        for timer, when in zip(timers, (300, 100, 200), strict=True):
            timer.schedule(when)
        assert q.clock_step() == 100
        q.clock_step(1000)
        assert times == [100, 200, 300]


def test_a_pin_is_told_before_the_answer_of_its_cause_and_only_when_it_changes() -> None:
    with QTest({"machine": "pc-i440fx-2.0", "memory": "16MiB"}) as q:
        q.intercept_in("ioapic")
        q.intercept_in("ioapic")  # again is no error
        with pytest.raises(QtestError, match="already"):
            q.intercept_in("pic0")
        before = len(q.irq_log)
        q._session.feed(b"outb 0x60 0xff\n")
        lines = b"".join(q._sent).splitlines()
        q._sent.clear()
        assert lines[-1] == b"OK" and set(lines[:-1]) <= {b"IRQ raise 1", b"IRQ lower 1"}
        assert before == len(q.irq_log)


def test_the_log_has_both_directions(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB") as pc:
        lines: list[str] = []
        session = QtestSession(pc.machine, lambda data: None, lines.append)
        session.feed(b"inb 0x92\n")
        session.close()
    assert lines[0].startswith("[I ") and lines[0].endswith("OPENED\n")
    assert lines[1].startswith("[R +") and lines[1].endswith("] inb 0x92\n")
    assert lines[2].startswith("[S +") and lines[2].endswith("] OK 0x0000\n")


def test_a_write_that_asks_for_a_reset_has_it() -> None:
    with QTest({"machine": "pc-i440fx-2.0", "memory": "16MiB"}) as q:
        q.outb(0x21, 0x5A)
        q.outb(0xCF9, 0x06)
        assert q.inb(0x21) == 0
