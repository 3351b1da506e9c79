"""Lint, types, generated files, and what the pages say."""

from __future__ import annotations

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

from vmrun.backends.objects import catalogue as objects_catalogue
from vmrun.cli.main import COMMANDS
from vmrun.devices import catalogue

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_catalogue_of_devices_is_what_the_classes_say() -> None:
    assert (ROOT / "schema" / "devices.json").read_text() == catalogue.text()
    assert (ROOT / "schema" / "objects.json").read_text() == objects_catalogue.text()


def test_ruff_finds_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_mypy_finds_nothing() -> None:
    done = subprocess.run([sys.executable, "tools/stubs.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_named_on_the_front_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:accel|vmrun|machines|schema|tests|docs|tools|benchmarks)/[\w./-]*)`", text))
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_links_of_the_pages_lead_somewhere() -> None:
    wrong = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            if not (page.parent / target).exists():
                wrong.append(f"{page.relative_to(ROOT)}: {target}")
    assert wrong == []


def test_commands_named_in_the_readme_exist() -> None:
    named = set(re.findall(r"`vmrun (\w+)", (ROOT / "README.md").read_text()))
    assert named <= set(COMMANDS)
    assert set(COMMANDS) <= named


def test_no_committed_file_names_a_path_of_somebodys_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.])/(?:work|home|root)/\w")
    wrong = []
    for name in listed.stdout.split():
        path = ROOT / name
        if path.is_file() and path.suffix in (".py", ".pyx", ".pxd", ".md", ".yaml", ".toml", ".sh", ".json", ""):
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if pattern.search(line) and "pattern = " not in line:
                    wrong.append(f"{name}:{number}")
    assert wrong == []


def test_the_root_holds_what_it_is_known_to_hold() -> None:
    """A file that a test or a command has dropped there is seen, an ignored or committed one too."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = {name for name in listed.stdout.split() if "/" not in name}
    assert files == {
        ".gitignore", ".pre-commit-config.yaml", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE",
        "Makefile", "README.md", "pyproject.toml", "setup.py",
    }  # fmt: skip


def test_what_make_test_installs_is_imported_and_not_skipped() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if path != pathlib.Path(__file__) and "importorskip" in path.read_text()
    ]
    assert wrong == []


def test_no_module_of_the_tests_hides_an_installed_package() -> None:
    """pytest puts a test's folder first on the path: tests/peers/qemu.py once hid the package qemu."""
    installed = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    hidden = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if path.stem in installed and not (path.parent / "__init__.py").exists()
    ]
    assert hidden == []


@pytest.mark.parametrize("path", sorted((ROOT / "vmrun").rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_every_room_says_what_it_is_for(path: pathlib.Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert said is not None and len(said) > 15
