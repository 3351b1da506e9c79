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
    assert set(re.findall(r"`(--[\w-]+)`", ROWS[command])) == options


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_machine_files_on_the_pages_are_right(page: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S):
        file = tmp_path / "first.yaml"
        file.write_text(block)
        machine, problems = check_file(str(file))
        assert problems == []
        assert machine is not None
