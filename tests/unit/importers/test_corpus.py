"""Command lines found in the wild import, and what they import to goes out and in again unchanged."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.unit.importers.corpus_lines import EVERY, NEW, OLD
from vmrun.config.check import check_schema
from vmrun.config.importers.export import command_line
from vmrun.config.importers.libvirt import export_domain, import_domain
from vmrun.config.importers.line import parse_command_line
from vmrun.config.load import load_bytes
from vmrun.config.resolve import sketch_file
from vmrun.config.write import file_text
from vmrun.errors import ConfigError, Problem

IDS = [f"{index}" for index in range(len(EVERY))]


def test_the_corpus_is_large_enough() -> None:
    assert len(EVERY) >= 60
    assert len(OLD) >= 20
    assert len({tuple(words) for words in EVERY}) == len(EVERY)
    assert len(NEW) >= 20


@pytest.mark.parametrize("words", EVERY, ids=IDS)
@pytest.mark.parametrize("defaults", [False, True])
def test_it_imports_to_a_file_that_fits_the_schema(words: list[str], defaults: bool) -> None:
    parsed = parse_command_line(words, defaults)
    problems: list[Problem] = []
    check_schema(load_bytes(file_text(parsed.document).encode(), "x.yaml"), "machine", problems)
    assert problems == []


@pytest.mark.parametrize("words", EVERY, ids=IDS)
def test_what_is_exported_imports_to_the_same(words: list[str]) -> None:
    document = parse_command_line(words, defaults=False).document
    exported, lost = command_line(document)
    assert lost == []
    assert settled(parse_command_line(exported, defaults=False).document) == settled(document)


@pytest.mark.parametrize("words", EVERY, ids=IDS)
def test_what_is_exported_to_libvirt_imports_to_the_same(words: list[str]) -> None:
    document = parse_command_line(words, defaults=False).document
    text = export_domain(document, command_line(document)[0])
    again, _ = import_domain(text.encode(), "x.xml")
    assert settled(again, named=False) == settled(document, named=False)


@pytest.mark.parametrize("words", [w for w in OLD if any("rhel6" in word for word in w)])
def test_a_rhel_6_machine_goes_out_and_in_and_resolves_to_the_same(words: list[str], tmp_path: pathlib.Path) -> None:
    document = parse_command_line(words, defaults=False).document
    again = parse_command_line(command_line(document)[0], defaults=False).document
    assert outcome(document, tmp_path) == outcome(again, tmp_path)


def outcome(document: dict[str, Any], directory: pathlib.Path) -> Any:
    """The resolved machine, or the codes of what is wrong with it."""
    path = directory / "m.yaml"
    path.write_text(file_text(document))
    try:
        return sketch_file(str(path)).to_dict()
    except ConfigError as error:
        return sorted((problem.code, problem.message) for problem in error.problems)


def settled(document: dict[str, Any], named: bool = True) -> dict[str, Any]:
    """A document without what is only the order of keys; a domain always has a name and an accelerator."""
    skip = () if named else ("name", "accel")
    return {key: value for key, value in document.items() if key not in skip}
