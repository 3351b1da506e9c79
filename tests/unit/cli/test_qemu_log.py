"""-d, -D and -trace of vmrun-qemu: what is logged, what is refused by its name, and what is told."""

from __future__ import annotations

import pathlib

import pytest

from vmrun.cli import qemu

QUIET = ["-S", "-nodefaults", "-display", "none", "-accel", "qtest"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-d", "nonsense"], "'nonsense' is no log item; there is cpu_reset"),
        (["-d", "cpu_reset", "-D", "/nowhere/log"], "-D /nowhere/log: No such file or directory"),
    ],
)
def test_what_cannot_be_logged_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert qemu.main([*QUIET, *words], "vmrun-qemu") == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-d", "int"], "-d int: 'int' is of QEMU's own log: nothing is written of it here"),
        (["-d", "cpu_reset,guest_errors"], "'guest_errors' is of QEMU's own log"),
        (["-trace", "enable=ide*"], "-trace enable=ide*: vmrun has none of QEMU's trace events"),
        (["-dfilter", "0x100+8"], "-dfilter 0x100+8: vmrun has none of QEMU's log of instructions"),
    ],
)
def test_what_only_qemu_logs_is_told_and_hinders_nothing(
    words: list[str], said: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = ["-pidfile", str(tmp_path / "no" / "where")]  # the first thing that is done after the line is read
    assert qemu.main([*QUIET, *words, *stop], "vmrun-qemu") == 1
    told = capsys.readouterr().err
    assert f"warning: {said}" in told or f"warning: -d cpu_reset,guest_errors: {said}" in told
    assert "cannot create PID file" in told


def test_help_lists_the_items(capsys: pytest.CaptureFixture[str]) -> None:
    assert qemu.main(["-d", "help"], "vmrun-qemu") == 0
    assert "cpu_reset       show CPU state before CPU resets" in capsys.readouterr().out


def test_the_processors_are_logged_before_a_reset(tmp_path: pathlib.Path) -> None:
    from vmrun.testing import QTest

    with QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB"}) as q:
        seen: list[int] = []
        q.machine.before_reset.append(lambda: seen.append(q.machine.resets))
        q.machine.cold_reset()
        assert seen == [1]


def test_messages_begin_with_the_time_and_the_name(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    words = ["-msg", "timestamp=on,guest-name=on", "-name", "box", "-pidfile", str(tmp_path / "no" / "where")]
    assert qemu.main([*QUIET, *words], "vmrun-qemu") == 1
    said = capsys.readouterr().err
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z box vmrun-qemu: cannot create PID file", said), said
