"""Machine types: extends, user types beside the file, and what goes wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.config.api import validate
from vmrun.config.catalogue import Catalogue
from vmrun.config.machinetypes import load_type, type_names
from vmrun.config.resolve import check_file
from vmrun.errors import ConfigError, Problem

from .conftest import Resolve, device

TYPE = "schema: vmrun/machine-type/1\nname: mine\n"


def write_type(tmp_path: Path, body: str, name: str = "mine.yaml", head: str = TYPE) -> None:
    (tmp_path / name).write_text(head + body)


def faults(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text("schema: vmrun/machine/1\nmachine: mine\n")
    return check_file("m.yaml", catalogue=catalogue)[1]


def test_names_are_sorted_by_version() -> None:
    names = type_names()
    assert names[:10] == [*(f"pc-0.{n}" for n in range(10, 16)), *(f"pc-1.{n}" for n in range(4))]
    assert names[10:14] == ["pc-i440fx-1.4", "pc-i440fx-1.5", "pc-i440fx-1.6", "pc-i440fx-1.7"]
    assert names[22:27] == [f"pc-i440fx-2.{n}" for n in (8, 9, 10, 11, 12)]
    assert names[-8:] == ["pc-i440fx-7.2", *(f"rhel6.{n}.0" for n in range(7))]


def test_parts_are_no_types() -> None:
    with pytest.raises(ConfigError, match="there is no machine type 'i440fx-piix3'"):
        load_type("i440fx-piix3")


def test_type_of_ones_own_beside_the_file(resolve: Resolve, tmp_path: Path) -> None:
    write_type(tmp_path, "extends: rhel6.3.0\ncompat: {VGA: {vgamem_mb: 8}}\ndefaults: {memory: 1GiB}\n")
    machine = resolve("machine: mine\ndisplay: std\n", head="schema: vmrun/machine/1\n")
    assert machine["machine"] == "mine"
    assert machine["memory"] == 1 << 30
    assert device(machine, "video0")["props"]["vgamem_mb"] == 8
    assert machine["firmware"]["smbios"]["type1"]["version"] == "RHEL 6.3.0 PC"


def test_own_type_changes_a_board_device(resolve: Resolve, tmp_path: Path) -> None:
    write_type(tmp_path, "extends: rhel6.3.0\ndevices:\n  - {id: pm, smb_io_base: 0xb200}\n")
    machine = resolve("machine: mine\n", head="schema: vmrun/machine/1\n")
    assert device(machine, "pm")["props"]["smb_io_base"] == 0xB200
    assert device(machine, "pm")["addr"] == "01.3"


def test_own_type_adds_a_board_device_at_the_end(resolve: Resolve, tmp_path: Path) -> None:
    write_type(tmp_path, "extends: rhel6.3.0\ndevices:\n  - {id: panic, driver: pvpanic}\n")
    machine = resolve("machine: mine\nserial: pty\n", head="schema: vmrun/machine/1\n")
    assert [entry["id"] for entry in machine["devices"]][-2:] == ["panic", "serial0"]


def test_own_type_removes_a_board_device_with_its_wires(resolve: Resolve, tmp_path: Path) -> None:
    write_type(tmp_path, "extends: rhel6.3.0\nremove: [port92]\n")
    machine = resolve("machine: mine\n", head="schema: vmrun/machine/1\n")
    assert "port92" not in [entry["id"] for entry in machine["devices"]]
    assert [wire for wire in machine["wires"] if wire[0].startswith("port92")] == []
    assert ["i8042.a20", "cpus.a20"] in machine["wires"]


def test_own_type_may_extend_another_of_ones_own(resolve: Resolve, tmp_path: Path) -> None:
    write_type(tmp_path, "extends: other\n")
    write_type(
        tmp_path, "name = 'other'\nextends = 'rhel6.0.0'\n", "other.toml", 'schema = "vmrun/machine-type/1"\n'
    )
    machine = resolve("machine: mine\n", head="schema: vmrun/machine/1\n")
    assert machine["cpus"]["apic-ids"] == "contiguous"


def test_own_file_cannot_take_the_name_of_a_released_type(resolve: Resolve, tmp_path: Path) -> None:
    write_type(
        tmp_path, "extends: rhel6.0.0\n", "rhel6.6.0.yaml", "schema: vmrun/machine-type/1\nname: rhel6.6.0\n"
    )
    machine = resolve("machine: rhel6.6.0\n", head="schema: vmrun/machine/1\n")
    assert machine["firmware"]["smbios"]["type1"]["version"] == "RHEL 6.6.0 PC"


def test_alias_is_the_newest_type_by_its_own_name(resolve: Resolve) -> None:
    machine = resolve("machine: pc\n", head="schema: vmrun/machine/1\n")
    assert machine["machine"] == "pc-i440fx-7.2"
    assert "alias" not in load_type("pc-i440fx-7.1").root.value


def test_own_type_may_extend_an_alias(resolve: Resolve, tmp_path: Path) -> None:
    write_type(tmp_path, "extends: pc\n")
    assert load_type("mine", str(tmp_path)).chain[:2] == ("mine", "pc-i440fx-7.2")


def test_own_file_cannot_take_an_alias(resolve: Resolve, tmp_path: Path) -> None:
    write_type(tmp_path, "extends: rhel6.0.0\n", "pc.yaml", "schema: vmrun/machine-type/1\nname: pc\n")
    assert load_type("pc", str(tmp_path)).name == "pc-i440fx-7.2"


def test_tilde_takes_an_inherited_value_away(resolve: Resolve, tmp_path: Path) -> None:
    write_type(tmp_path, "extends: rhel6.3.0\ncompat: {VGA: {vgamem_mb: ~}, e1000: ~}\ndefaults: {nic: ~}\n")
    spec = load_type("mine", str(tmp_path)).to_dict()
    assert "vgamem_mb" not in spec["compat"]["VGA"]
    assert spec["compat"]["VGA"]["mmio"] is False
    assert "e1000" not in spec["compat"]
    assert "nic" not in spec["defaults"]
    machine = resolve("machine: mine\ndisplay: std\n", head="schema: vmrun/machine/1\n")
    assert device(machine, "video0")["props"]["vgamem_mb"] == 16  # the driver's own


@pytest.mark.parametrize("body", ["extends: ~\n", "extends: rhel6.3.0\nremove: ~\n", "extends: rhel6.3.0\nalias: ~\n"])
def test_tilde_where_nothing_is_inherited_is_a_fault(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    write_type(tmp_path, body)
    assert [problem.code for problem in faults(tmp_path, catalogue, monkeypatch)] != []


def test_type_that_extends_itself_is_told(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_type(tmp_path, "extends: mine\n")
    (problem,) = faults(tmp_path, catalogue, monkeypatch)
    assert (problem.code, problem.message) == ("VR0302", "the type extends itself: mine → mine")
    assert str(problem.place).endswith("mine.yaml:3:10")


def test_layers_of_vmruns_own_types_are_not_changed_by_those_who_extend_them(tmp_path: Path) -> None:
    before = load_type("rhel6.3.0").to_dict()
    write_type(
        tmp_path,
        "extends: rhel6.3.0\ncompat: {VGA: {edid: true}}\ndevices: [{id: pm, smb_io_base: 1}]\n"
        "firmware: {smbios: {type1: {product: Mine}}}\n",
    )
    load_type("mine", str(tmp_path))
    assert load_type("rhel6.3.0").to_dict() == before


def test_circle_is_told_with_its_steps(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_type(tmp_path, "extends: other\n")
    write_type(tmp_path, "extends: mine\n", "other.yaml", "schema: vmrun/machine-type/1\nname: other\n")
    (problem,) = faults(tmp_path, catalogue, monkeypatch)
    assert problem.code == "VR0302"
    assert problem.message == "the type extends itself: mine → other → mine"
    assert str(problem.place).endswith("other.yaml:3:10")


def test_extends_of_something_missing_stands_at_its_line(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_type(tmp_path, "extends: rhel6.7.0\n")
    (problem,) = faults(tmp_path, catalogue, monkeypatch)
    assert (problem.code, problem.nearest) == ("VR0301", "rhel6.0.0")
    assert str(problem.place).endswith("mine.yaml:3:10")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("extends: rhel6.3.0\ncompta: {}\n", "VR0201"),
        ("extends: rhel6.3.0\ncompat: {VGA: 5}\n", "VR0202"),
        ("compat: {VGA: {edid: true}}\n", "VR0303"),
        ("extends: rhel6.3.0\nname: yours\n", "VR0107"),
    ],
)
def test_faults_of_an_own_type_are_told(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, body: str, code: str
) -> None:
    write_type(tmp_path, body)
    assert code in [problem.code for problem in faults(tmp_path, catalogue, monkeypatch)]


def test_own_type_must_have_its_files_name(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_type(tmp_path, "extends: rhel6.3.0\n", head="schema: vmrun/machine-type/1\nname: yours\n")
    (problem,) = faults(tmp_path, catalogue, monkeypatch)
    assert (problem.code, problem.path) == ("VR0303", "name")


def test_faulty_board_device_of_an_own_type_is_told_at_its_line(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_type(tmp_path, "extends: rhel6.3.0\ndevices:\n  - {id: pm, smb_io_bse: 0xb200}\n")
    (problem,) = faults(tmp_path, catalogue, monkeypatch)
    assert (problem.code, problem.nearest) == ("VR0405", "smb_io_base")
    assert str(problem.place).endswith("mine.yaml:5:14")


@pytest.mark.parametrize("name", ["q35", "pc-q35-7.2", "microvm", "isapc"])
def test_another_board_of_qemus_is_told_apart_from_a_misspelt_name(name: str) -> None:
    (problem,) = validate(f"schema: vmrun/machine/1\nmachine: {name}\n")
    assert problem.code == "VR0301" and "another board" in problem.remedy
