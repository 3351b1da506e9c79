"""-drive node-name=: what monitors call the image, and devices may name."""

from __future__ import annotations

import pathlib

import pytest

import vmrun
from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import LineError

HEAD = "schema: vmrun/machine/1\nmachine: pc-i440fx-2.0\nname: m\n"


def test_a_device_may_name_the_node_of_a_drive() -> None:
    line = "-nodefaults -drive file=a,if=none,node-name=n -device ide-hd,drive=n"
    document = parse_command_line(line.split(), defaults=False).machine()
    assert document["drives"] == {"none0": {"file": "a", "node-name": "n"}}
    assert document["devices"][0]["drive"] == "none0"


def test_the_same_name_twice_is_refused() -> None:
    with pytest.raises(LineError, match="Duplicate nodes with node-name='n'"):
        parse_command_line(["-drive", "file=a,if=none,node-name=n", "-blockdev", "null-co,node-name=n"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("n", "n"), "Duplicate nodes with node-name='n'"),
        (("1n", "b"), "Invalid node-name: '1n'"),
        (("x" * 32, "b"), "Node name too long"),
        (("two", "b"), "node-name=two is conflicting with a device id"),
    ],
)
def test_names_that_cannot_be_are_errors(tmp_path: pathlib.Path, names: tuple[str, str], message: str) -> None:
    drives = (
        f"  {id}: {{file: {tmp_path / id}, node-name: {name}}}\n"
        for id, name in zip(("one", "two"), names, strict=True)
    )
    found = vmrun.validate(f"{HEAD}drives:\n{''.join(drives)}")
    assert [problem.code for problem in found if problem.severity == "error"] == ["VR0612"]
    assert any(message in problem.text() for problem in found)


def test_monitors_know_the_image_by_its_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "d").write_bytes(bytes(1 << 20))
    text = f"{HEAD}accel: qtest\ndisks: [{{file: {tmp_path / 'd'}, node-name: mine}}]\n"
    (tmp_path / "m.yaml").write_text(text + "paused: true\n")
    with vmrun.Machine.start(str(tmp_path / "m.yaml")) as vm:
        assert next(iter(vm.qmp("query-named-block-nodes")))["node-name"] == "mine"
        told = vm.qmp("human-monitor-command", command_line="info block mine")
        assert told.startswith("mine: ") and "(raw)" in told
        assert vm.qmp("human-monitor-command", command_line="info block theirs") == ""
