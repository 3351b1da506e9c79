"""A QEMU command line that was run before is not read again; whatever could make it mean something else is noticed."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.unit.cli.conftest import Run
from vmrun.cli import qemu_start
from vmrun.cli.qemu_machine import Wanted
from vmrun.config.importers.line import parse_options, read_options

LINE = "-M pc-i440fx-2.0 -accel qtest -nodefaults -display none"
SLOW = ("typing", "re", "enum", "json", "collections", "importlib", "signal", "hashlib", "threading", "yaml")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Reader:
    """Reads lines as vmrun-qemu does, and counts how often it had to."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, line: str) -> qemu_start.Start:
        argv = line.split()

        def read() -> Any:
            self.count += 1
            return Wanted(parse_options(read_options(argv), defaults=True)).start()

        return qemu_start.started(argv, read)


def fresh(line: str) -> dict[str, Any]:
    return Wanted(parse_options(read_options(line.split()), defaults=True)).start()[0].parts()


def plain(parts: Any) -> Any:
    """Lists and tuples alike."""
    if isinstance(parts, dict):
        return {key: plain(value) for key, value in parts.items()}
    return [plain(item) for item in parts] if isinstance(parts, list | tuple) else parts


def test_what_is_kept_is_what_was_read() -> None:
    reader = Reader()
    line = f"{LINE} -name lab -serial null -qmp unix:/tmp/q,server=on,wait=off -device isa-debug-exit -no-reboot"
    assert plain(reader(line).parts()) == plain(reader(line).parts()) == plain(fresh(line))
    assert reader.count == 1


def test_a_line_that_differs_in_file_names_alone_is_the_same(tmp_path: pathlib.Path) -> None:
    reader = Reader()
    lines = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.img").write_bytes(bytes(1 << 20))
        place = tmp_path / name
        lines.append(
            f"{LINE} -drive file={place}.img,format=raw,if=ide -qmp unix:{place}.q,server=on,wait=off"
            f" -chardev file,id=c,path={place}.log -device isa-debugcon,chardev=c -pidfile {place}.pid"
        )
    for line in lines:
        assert plain(reader(line).parts()) == plain(fresh(line))
    assert reader.count == 1


@pytest.mark.parametrize("more", ["-m 64", "-smp 2", "-device isa-debug-exit", "-snapshot", "-S"])
def test_a_line_that_means_something_else_is_read(more: str) -> None:
    reader = Reader()
    reader(LINE)
    assert plain(reader(f"{LINE} {more}").parts()) == plain(fresh(f"{LINE} {more}"))
    assert reader.count == 2


def test_an_image_that_is_gone_is_told_by_its_option(tmp_path: pathlib.Path) -> None:
    reader = Reader()
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    line = f"{LINE} -drive file={image},format=raw,if=ide"
    reader(line)
    image.unlink()
    with pytest.raises(qemu_start.QemuError, match="Could not open"):
        reader(line)


def test_another_directory_is_another_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "disk.img").write_bytes(bytes(1 << 20))
        monkeypatch.chdir(tmp_path / name)
        reader(f"{LINE} -hda disk.img")
    assert reader.count == 2


def test_a_path_in_another_place_is_not_mistaken(tmp_path: pathlib.Path) -> None:
    reader = Reader()
    for name in ("a", "b"):
        line = f"{LINE} -incoming file:{tmp_path}/{name} -name /{tmp_path.name}"
        assert plain(reader(line).parts()) == plain(fresh(line))


def test_a_broken_entry_is_passed_over(tmp_path: pathlib.Path) -> None:
    reader = Reader()
    reader(LINE)
    for file in (tmp_path / "cache" / "vmrun" / "resolved").iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    reader(LINE)
    assert reader.count == 2


def test_a_warm_start_imports_nothing_slow(tmp_path: pathlib.Path) -> None:
    root = pathlib.Path(__file__).parents[3]
    script = (
        "import sys\nfrom vmrun.cli import qemu\nloaded = []\n"
        "qemu._Run.ready = lambda self: (loaded.extend(sys.modules), self.machine.end('quit'))\n"
        f"code = qemu.main({LINE.split()!r}, 'x')\nprint(code, *loaded)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(root)}
    for options in ([], ["-S"]):  # the second run is the warm one; site imports what it likes
        command = [sys.executable, *options, "-c", script]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60)
        code, *modules = done.stdout.split()
    assert code == "0", done.stderr
    assert [name for name in SLOW if name in modules] == []


def test_who_calls_the_program_as_a_function_has_his_signals_back(vmrun: Run) -> None:
    def mine(number: int, frame: object) -> None:
        pass

    before = {number: signal.signal(number, mine) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        code, _, _ = vmrun("qemu", "-machine", "none", "-display", "none", "-qmp", "unix:/no/such/place")
        assert code == 1
        assert {signal.getsignal(number) for number in before} == {mine}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
