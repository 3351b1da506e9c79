"""Pages made of tables are as the tables say, and every example can be completed in an editor."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from vmrun.config import reference
from vmrun.config.codes import CODES
from vmrun.devices import catalogue

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".yaml", ".toml"))


@pytest.mark.parametrize("name", reference.PAGES)
def test_page_made_of_tables_is_what_they_say(name: str) -> None:
    stale = f"docs/{name} is stale: `python -m vmrun.config.reference` writes it anew"
    assert (ROOT / "docs" / name).read_text() == reference.PAGES[name](), stale


def test_schema_of_the_examples_is_what_the_drivers_say() -> None:
    stale = "examples/machine.schema.json is stale: `python -m vmrun.config.reference` writes it anew"
    assert (ROOT / "examples/machine.schema.json").read_text() == reference.example_schema(), stale


def test_page_of_the_devices_is_what_the_classes_say() -> None:
    stale = "docs/devices/properties.md is stale: `python -m vmrun.devices.catalogue` writes it anew"
    assert (ROOT / "docs/devices/properties.md").read_text() == catalogue.page(), stale


def test_every_code_has_its_paragraph() -> None:
    text = (ROOT / "docs/errors.md").read_text()
    assert re.findall(r"^### (VR\d{4}): ", text, re.M) == sorted(CODES)
    assert all(len(explanation) > 15 for _, explanation in CODES.values())


def test_every_key_of_the_schema_is_on_the_page() -> None:
    text = (ROOT / "docs/machine-file.md").read_text()
    schema = json.loads((ROOT / "schema/machine.schema.json").read_text())
    assert [key for key in schema["properties"] if f"\n| `{key}` | " not in text] == []
    assert "\n## cpus\n" in text and "\n## devices[]\n" in text and "\n## monitors.ID\n" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_names_the_schema_for_editors(path: pathlib.Path) -> None:
    first = path.read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(.+)|#:schema (.+)", first)
    assert found is not None
    schema = path.parent / (found[1] or found[2])
    assert json.loads(schema.read_text())["$schema"] == "https://json-schema.org/draft/2020-12/schema"
