"""docs/machine-types.md says what the types say. `python -m tests.machines.test_page` writes its table anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.data import data_dir
from vmrun.config.load import load_file
from vmrun.config.machinetypes import type_names
from vmrun.config.node import plain
from vmrun.config.resolve import check_file, check_type_file

PATH = Path(__file__).parents[2] / "docs" / "machine-types.md"
PAGE = PATH.read_text()
COLUMNS = "| type | settings | drivers with frozen values | CPU models |"
NO_DIFFERENCES = ("schema", "name", "extends", "alias", "description", "family", "hw-version", "gaps")


def settings(value: Any, path: str = "") -> list[str]:
    """What a type's own file sets, as path: value; that a type names itself in SMBIOS goes without saying."""
    if isinstance(value, dict):
        return [found for key, child in value.items() for found in settings(child, f"{path}.{key}")]
    if path.endswith("type1.version"):
        return []
    text = "~" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return [f"{path.removeprefix('.')}: {text}"]


def row(name: str) -> str:
    own: dict[str, Any] = plain(load_file(f"{data_dir('machines')}/{name}.yaml"))
    if own["extends"] not in type_names():
        return f"| `{name}` | all that it is | | |"
    drivers, models = sorted(own.get("compat", {}), key=str.lower), sorted(own.get("cpu-compat", {}), key=str.lower)
    rest = {key: value for key, value in own.items() if key not in (*NO_DIFFERENCES, "compat", "cpu-compat")}
    cells = ", ".join(settings(rest)), ", ".join(drivers), ", ".join(models).replace("*", "all")
    return f"| `{name}` | " + " | ".join(cells) + " |"


def table() -> str:
    families = ("pc-i440fx", "pc-", "rhel6")
    order = sorted(
        reversed(type_names()), key=lambda name: next(n for n, start in enumerate(families) if name.startswith(start))
    )
    return "\n".join((COLUMNS, "|---|---|---|---|", *map(row, order)))


def test_the_table_says_what_each_type_changed() -> None:
    assert table() in PAGE, "python -m tests.machines.test_page writes the table anew"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The page's examples, each under the name in its first line."""
    written = []
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S):
        path = tmp_path / block.split("\n", 1)[0].removeprefix("# ")
        path.write_text(block)
        written.append(path)
    return written


def test_examples_of_the_page_are_right(files: list[Path]) -> None:
    assert len(files) == 3
    for path in files:
        problems = check_type_file(str(path)) if "machine-type" in path.read_text() else check_file(str(path))[1]
        assert problems == [], path.name


def test_every_command_of_the_page_is_one() -> None:
    from vmrun.cli.main import COMMANDS

    assert set(re.findall(r"vmrun (\w+) ", PAGE)) - {"does"} <= set(COMMANDS)


if __name__ == "__main__":
    before, _, rest = PAGE.partition(COLUMNS)
    PATH.write_text(before + table() + "\n\n" + rest.partition("\n\n")[2])
