"""vmrun types: the list with its alias, differences with a type of one's own, gaps, and types that were changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vmrun.config import data
from vmrun.config.machinetypes import type_names

from .conftest import Run

MINE = "schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.3.0\ncompat: {VGA: {vgamem_mb: 8}}\n"


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of vmrun's own types, to be spoilt."""
    copy = tmp_path / "machines"
    shutil.copytree(data.data_dir("machines"), copy)
    monkeypatch.setitem(data._found, "machines", str(copy))
    return copy


def test_the_alias_stands_beside_its_type(vmrun: Run) -> None:
    (line,) = [line for line in vmrun("types")[1].splitlines() if "alias" in line]
    assert line.startswith("pc-i440fx-7.2 ")
    assert "(alias pc)" in line


def test_difference_to_a_type_of_ones_own(vmrun: Run) -> None:
    Path("mine.yaml").write_text(MINE)
    code, out, _ = vmrun("types", "--diff", "rhel6.3.0", "mine")
    assert code == 1
    assert [line.split() for line in out.splitlines()] == [["compat.VGA.vgamem_mb", "16", "8"]]


def test_difference_of_an_unknown_type(vmrun: Run) -> None:
    code, out, err = vmrun("types", "--diff", "rhel6.3.0", "rhel6.3")
    assert (code, out) == (1, "")
    assert "VR0301" in err
    assert "did you mean 'rhel6.3.0'?" in err


def test_gaps_of_all_types_come_once_with_the_types_that_have_them(vmrun: Run) -> None:
    rows = [line for line in vmrun("types", "--gaps")[1].splitlines() if line.startswith("USB.msos-desc ")]
    assert len(rows) == 1
    assert rows[0].endswith("rhel6.0.0 … rhel6.5.0")


def test_gaps_of_a_type_of_ones_own(vmrun: Run) -> None:
    Path("mine.yaml").write_text(MINE + "gaps: [{driver: warp-drive}]\n")
    assert any(line.split()[:2] == ["mine", "warp-drive"] for line in vmrun("types", "--gaps", "mine")[1].splitlines())


def test_types_as_they_were_released_are_said_to_be(vmrun: Run) -> None:
    assert vmrun("types", "--check") == (0, f"{len(type_names())} machine types: as released\n", "")


def test_a_released_type_that_was_changed_is_named_with_all_that_inherit_from_it(vmrun: Run, machines: Path) -> None:
    path = machines / "rhel6.1.0.yaml"
    path.write_text(path.read_text().replace("disable_s3: 0", "disable_s3: 1"))
    code, _, err = vmrun("types", "--check")
    assert code == 1
    assert err.splitlines()[0].startswith("machines/rhel6.0.0.yaml: error VR0304: the meaning of the released")
    assert [line.split(":")[0] for line in err.splitlines() if "VR0304" in line] == [
        "machines/rhel6.0.0.yaml",
        "machines/rhel6.1.0.yaml",
    ]


def test_a_comment_in_a_released_type_is_no_change(vmrun: Run, machines: Path) -> None:
    path = machines / "rhel6.1.0.yaml"
    path.write_text("# a remark\n" + path.read_text())
    assert vmrun("types", "--check")[0] == 0


def test_types_that_came_or_went_are_named(vmrun: Run, machines: Path) -> None:
    (machines / "pc-0.10.yaml").unlink()
    (machines / "rhel6.7.0.yaml").write_text("schema: vmrun/machine-type/1\nname: rhel6.7.0\nextends: rhel6.6.0\n")
    err = vmrun("types", "--check")[2]
    assert "the released machine type pc-0.10 is gone" in err
    assert "rhel6.7.0 is none of those that were released" in err
