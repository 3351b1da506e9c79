"""What the tests of config share: a stand-in catalogue, and machine files made from a few lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import pytest

from vmrun.config.catalogue import Catalogue, load_catalogue
from vmrun.config.resolve import check_file
from vmrun.config.spec import ResolvedMachine
from vmrun.errors import Problem

HERE = Path(__file__).parent
HEAD = "schema: vmrun/machine/1\nmachine: rhel6.3.0\n"


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Drivers as they were when these tests were written, so that the generated catalogue may grow."""
    return load_catalogue(str(HERE / "devices.json"))


class Check(Protocol):
    def __call__(self, body: str, *sets: str, name: str = "m.yaml", head: str = HEAD) -> list[Problem]: ...


class Resolve(Protocol):
    def __call__(self, body: str, *sets: str, name: str = "m.yaml", head: str = HEAD) -> ResolvedMachine: ...


@pytest.fixture
def check(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Problems of a file with this text below a head of two lines, named m.yaml in messages."""
    monkeypatch.chdir(tmp_path)

    def run(body: str, *sets: str, name: str = "m.yaml", head: str = HEAD) -> list[Problem]:
        (tmp_path / name).write_text(head + body, encoding="utf-8")
        return check_file(name, sets, catalogue=catalogue)[1]

    return run


@pytest.fixture
def resolve(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """The resolved machine of a file with this text below a head of two lines; fails the test if it has
    errors.
    """
    monkeypatch.chdir(tmp_path)

    def run(body: str, *sets: str, name: str = "m.yaml", head: str = HEAD) -> ResolvedMachine:
        (tmp_path / name).write_text(head + body, encoding="utf-8")
        machine, problems = check_file(name, sets, catalogue=catalogue)
        assert machine is not None, "\n".join(map(str, problems))
        return machine

    return run


def device(machine: ResolvedMachine, id: str) -> dict[str, Any]:
    """The resolved device of that id."""
    found = [entry for entry in machine["devices"] if entry["id"] == id]
    assert len(found) == 1, f"{len(found)} devices called {id}"
    return dict(found[0])


@pytest.fixture
def standin_schema(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """vmrun's schema directory with the stand-in catalogue in it, for what finds its catalogue itself."""
    import vmrun.config.data as data

    directory = tmp_path_factory.mktemp("schema")
    for path in Path(data.data_dir("schema")).glob("*.json"):
        shutil.copy(path, directory / path.name)
    shutil.copy(HERE / "devices.json", directory / "devices.json")
    json.loads((directory / "devices.json").read_text())
    monkeypatch.setitem(data._found, "schema", str(directory))
    return directory
