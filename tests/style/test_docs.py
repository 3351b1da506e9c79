"""What the pages say of the command is so: options, exit codes, machine files."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from vmrun.cli.main import COMMANDS
from vmrun.config.resolve import check_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLI = (ROOT / "docs" / "cli.md").read_text()
ROWS = dict(re.findall(r"^\| `vmrun (\w+)[^|]*\|(.*)\|$", CLI, re.M))


def test_every_command_has_its_row() -> None:
    assert set(ROWS) == set(COMMANDS)


@pytest.mark.parametrize("command", sorted(ROWS))
def test_the_row_of_a_command_names_the_options_of_its_help(command: str) -> None:
    asked = [sys.executable, "-m", "vmrun", command, "--help"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    options = set(re.findall(r"^ +(?:-\w[ \w]*, )?(--[\w-]+)", done.stdout, re.M)) - {"--help"}
    # --json is short for --format json, which the page tells once for all commands
    assert set(re.findall(r"`(--[\w-]+)`", ROWS[command])) - {"--json"} == options - {"--json"}


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_machine_files_on_the_pages_are_right(page: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S):
        file = tmp_path / "first.yaml"
        file.write_text(block)
        machine, problems = check_file(str(file))
        assert problems == []
        assert machine is not None


def test_the_page_of_validation_shows_what_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vmrun.cli.main import main

    page = (ROOT / "docs" / "validate.md").read_text()
    pattern = r"\$ cat broken.yaml\n(.*?)\$ vmrun validate broken.yaml\n(.*?)broken.yaml: 2 errors\n"
    shown = re.search(pattern, page, re.S)
    assert shown is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text(shown[1])
    assert main(["validate", "broken.yaml"]) == 1
    assert capsys.readouterr().out == f"{shown[2]}broken.yaml: 2 errors\n"


def test_the_machine_on_the_page_of_locks_can_be_locked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmrun.cli.main import main

    page = (ROOT / "docs" / "lock.md").read_text()
    shown = re.search(r"```yaml\n(.*?)```", page, re.S)
    assert shown is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yaml").write_text(shown[1])
    (tmp_path / "disk.img").write_bytes(bytes(64 << 20))
    assert main(["lock", "lab.yaml"]) == 0
    assert main(["lock", "--check", "lab.yaml"]) == 0
    assert main(["diff", "lab.lock", "lab.yaml", "--json"]) == 0
