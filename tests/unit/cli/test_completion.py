"""Completion and manual pages know what the commands know."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

from vmrun.cli import completion
from vmrun.cli.main import COMMANDS, main


@pytest.fixture(scope="module")
def rows() -> list[completion.Said]:
    return completion.commands()


def complete(script: str, *words: str) -> list[str]:
    """What bash would offer for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _vmrun; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.split()


def test_every_command_is_completed(rows: list[completion.Said]) -> None:
    assert complete(completion.bash(rows), "vmrun", "") == list(COMMANDS)
    assert complete(completion.bash(rows), "vmrun", "val") == ["validate"]


def test_options_are_those_of_the_command(rows: list[completion.Said]) -> None:
    script = completion.bash(rows)
    assert complete(script, "vmrun", "stop", "--") == ["--force", "--help", "--timeout"]
    assert "--detach" in complete(script, "vmrun", "up", "--de")


def test_files_are_completed_where_a_file_is_wanted(rows: list[completion.Said], tmp_path: pathlib.Path) -> None:
    (tmp_path / "machine.yaml").touch()
    assert complete(completion.bash(rows), "vmrun", "up", f"{tmp_path}/ma") == [f"{tmp_path}/machine.yaml"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("tree", "--view", ""), {"qom", "pci", "memory", "io", "irq"}),
        (("diff", "--format", "j"), {"json"}),
        (("export", ""), {"qemu", "libvirt"}),
        (("import", "l"), {"libvirt"}),
        (("import", "qemu", "--fi"), {"--file"}),
        (("completion", "f"), {"fish"}),
        (("img", "comp"), {"compare"}),
        (("init", "rhel6.3"), {"rhel6.3.0"}),
        (("devices", "e1000-82544"), {"e1000-82544gc"}),
        (("explain", "VR0109"), {"VR0109"}),
        (("schema", "machine-"), {"machine-type"}),
    ],
)  # fmt: skip
def test_what_is_one_of_a_list_is_offered(
    rows: list[completion.Said], words: tuple[str, ...], offered: set[str]
) -> None:
    assert set(complete(completion.bash(rows), "vmrun", *words)) == offered


@pytest.mark.parametrize("words", [("import", "libvirt"), ("img", "info"), ("lock", "--output"), ("init", "--output")])
def test_a_file_is_offered_behind_words_and_options_too(
    rows: list[completion.Said], tmp_path: pathlib.Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file.x").touch()
    assert complete(completion.bash(rows), "vmrun", *words, f"{tmp_path}/f") == [f"{tmp_path}/file.x"]


def test_fish_hears_of_every_option(rows: list[completion.Said]) -> None:
    text = completion.fish(rows)
    for row in rows:
        for flag in row.flags:
            assert re.search(f"__fish_seen_subcommand_from {row.name}' -l {flag[2:]}( -xa '.*'| -rF)?\n", text)


def test_each_command_has_a_page_that_troff_takes(tmp_path: pathlib.Path) -> None:
    assert main(["completion", "man", "--output", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"vmrun.1", *(f"vmrun-{name}.1" for name in COMMANDS)}
    assert "\\-\\-force" in (tmp_path / "vmrun-stop.1").read_text()
    if shutil.which("groff"):
        for path in tmp_path.iterdir():
            done = subprocess.run(["groff", "-man", "-ww", "-z", str(path)], capture_output=True, text=True, timeout=30)
            assert done.stderr == "", path.name
