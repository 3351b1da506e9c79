"""Running commands in this process, with data files of their own, which a test may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import pytest

import vmrun.config.data as data
from vmrun.cli.main import main

HEAD = "schema: vmrun/machine/1\nmachine: rhel6.3.0\n"


class Run(Protocol):
    def __call__(self, *argv: str) -> tuple[int, str, str]: ...


@pytest.fixture
def vmrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """(exit code, stdout, stderr) of a command line, run in an empty directory."""
    schema = tmp_path / ".schema"
    shutil.copytree(data.data_dir("schema"), schema)
    monkeypatch.setitem(data._found, "schema", str(schema))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
