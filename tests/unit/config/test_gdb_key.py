"""gdb: and watchdog: of a machine file, -gdb and -s of a command line."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.unit.config.test_flash import found
from vmrun.config.importers.line import parse_command_line

SERVER = {"type": "socket", "server": True, "wait": False}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("true", {"host": "127.0.0.1", "port": 1234}),
        ("2345", {"host": "127.0.0.1", "port": 2345}),
        ("0.0.0.0:99", {"host": "0.0.0.0", "port": 99}),
        ("tcp:h:1", {"host": "h", "port": 1}),
        ("unix:/tmp/g", {"path": "/tmp/g"}),
    ],
)
def test_a_place_for_gdb_becomes_a_server_that_nobody_waits_for(
    value: str, place: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    codes, machine = found(tmp_path, f'gdb: "{value}"\n' if ":" in value else f"gdb: {value}\n")
    assert codes == []
    assert machine["monitors"] == {"gdb": {"chardev": "gdb", "mode": "gdb"}}
    chardev = {key: machine["chardevs"]["gdb"].get(key) for key in (*SERVER, *place)}
    assert chardev == {**SERVER, **place}


def test_gdb_on_a_chardev_of_the_file(tmp_path: pathlib.Path) -> None:
    codes, machine = found(tmp_path, "gdb: c\nchardevs: {c: {type: pty}}\n")
    assert codes == [] and machine["monitors"] == {"gdb": {"chardev": "c", "mode": "gdb"}}


def test_no_debugger_is_none(tmp_path: pathlib.Path) -> None:
    assert found(tmp_path, "gdb: false\n")[1]["monitors"] == {}
    assert found(tmp_path, "gdb: nowhere\n")[0] == ["VR0602"]


@pytest.mark.parametrize(
    ("line", "place"),
    [("-s", {"host": "0.0.0.0", "port": 1234}), ("-gdb tcp::77", {"port": 77}), ("-gdb unix:/x", {"path": "/x"})],
)
def test_qemus_options_mean_the_same(line: str, place: dict[str, Any]) -> None:
    document = parse_command_line(["-M", "pc-i440fx-2.0", *line.split()], defaults=False).document
    assert document["monitors"]["gdb"] == {"chardev": "gdb", "mode": "gdb"}
    assert {**SERVER, **place}.items() <= document["chardevs"]["gdb"].items()


def test_a_watchdog_is_a_device(tmp_path: pathlib.Path) -> None:
    codes, machine = found(tmp_path, "watchdog: ib700\n")
    assert codes == [] and [d["id"] for d in machine["devices"] if d["driver"] == "ib700"] == ["watchdog"]
