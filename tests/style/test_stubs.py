"""What mypy is told of compiled modules is what they are."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pathlib
from types import ModuleType

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stubs", ROOT / "tools" / "stubs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stubs = tool()
SOURCES = [source for source in stubs.sources() if not source.with_suffix(".pyi").exists()]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_all_that_a_stub_names_is_there(source: pathlib.Path) -> None:
    made = stubs.Module(source)
    module = importlib.import_module(made.name)
    for node in ast.parse(made.stub()).body:
        if isinstance(node, ast.ClassDef):
            found = getattr(module, node.name)
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    assert hasattr(found, member.name) or member.name == "__buffer__", f"{node.name}.{member.name}"
                elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                    assert hasattr(found, member.target.id), f"{node.name}.{member.target.id}"
        elif isinstance(node, ast.FunctionDef):
            assert hasattr(module, node.name), node.name


@pytest.mark.parametrize("name", ["accel.api", "accel.space", "accel.ram", "accel.dma", "accel.clock", "accel.aio"])
def test_all_that_python_sees_is_in_the_stub(name: str) -> None:
    module = importlib.import_module(name)
    stub = stubs.Module(ROOT / f"{name.replace('.', '/')}.pyx").stub()
    classes = {node.name: node for node in ast.parse(stub).body if isinstance(node, ast.ClassDef)}
    for shown, found in vars(module).items():
        if isinstance(found, type) and found.__module__ == name and not shown.startswith("_"):
            listed = {
                member.name if isinstance(member, ast.FunctionDef) else getattr(member.target, "id", "")
                for member in classes[shown].body
                if isinstance(member, ast.FunctionDef | ast.AnnAssign)
            }
            assert {member for member in vars(found) if not member.startswith("_")} <= listed


def test_the_types_are_those_of_the_source(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stubs, "ROOT", tmp_path)
    source = tmp_path / "thing.pyx"
    source.write_text(
        "from accel.api cimport IrqLine, u32\n"
        "cdef class Thing:\n"
        "    cdef readonly u32 count, other\n"
        "    cdef public IrqLine line\n"
        "    cdef u32 hidden\n"
        "    def __cinit__(self, u32 count, IrqLine line or None, *, bint fast=False): pass\n"
        "    def quiet(self, data,\n"
        "              str name=None):\n"
        "        return\n"
        "    def told(self) -> bytes:\n"
        "        return b''\n"
        "    def some(self):\n"
        "        return 1\n"
    )
    assert stubs.Module(source).stub() == (
        "from typing import Any\n"
        "from accel.api import IrqLine\n"
        "\n"
        "class Thing:\n"
        "    count: int\n"
        "    other: int\n"
        "    line: IrqLine\n"
        "    def __init__(self, count: int, line: IrqLine | None, *, fast: bool = ...) -> None: ...\n"
        "    def quiet(self, data: Any, name: str | None = ...) -> None: ...\n"
        "    def told(self) -> bytes: ...\n"
        "    def some(self) -> Any: ...\n"
    )
