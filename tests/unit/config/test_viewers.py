"""What a machine file may say of its servers for remote viewers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.api import examine_file

DEVICES = [
    {"id": "second", "driver": "secondary-vga"}, {"id": "two", "driver": "virtio-gpu-pci", "max_outputs": 2},
]  # fmt: skip


def examine(directory: Path, vnc: Any, **more: Any) -> tuple[Any, list[str]]:
    file = directory / "m.json"
    document = {"schema": "vmrun/machine/1", "machine": "pc-i440fx-7.2", "display": "std", **more, "vnc": vnc}
    file.write_text(json.dumps(document, indent=1))
    machine, found = examine_file(str(file))[:2]
    return machine, [f"{problem.path}: {problem.message}" for problem in found if problem.severity == "error"]


@pytest.mark.parametrize(
    ("vnc", "wrong"),
    [
        ([{"listen": ":1", "id": "a"}, {"listen": ":2", "id": "a"}], "vnc[1].id: two VNC servers are called 'a'"),
        ([{"listen": ":1"}, {"listen": ":1"}], "vnc[1].listen"),
        ({"listen": ":1", "head": 1}, "vnc.head: 'head' goes with 'display'"),
        ({"listen": ":1", "display": "secnd"}, "vnc.display: vnc shows display adapter 'secnd', which does not exist"),
        ({"listen": ":1", "display": "second", "head": 1}, "vnc.head: 'second' has one screen, head 0"),
        ({"listen": ":1", "display": "two", "head": 2}, "vnc.head: 'two' has 2 screens, heads 0 to 1"),
        ({"listen": ":1", "ipv4": False, "ipv6": False}, "vnc.ipv6: Cannot disable IPv4 and IPv6"),
        ({"listen": ":1", "websocket": "here"}, "vnc.websocket: 'here' is no place"),
        ({"listen": ":1", "websocket": 70000}, "vnc.websocket"),
        ({"listen": ":1", "password-secret": "no"}, "vnc.password-secret: vnc names object 'no'"),
        ({"listen": "host:70000", "reverse": True}, "vnc.listen: 'host:70000' is no display"),
        ({"listen": ":1", "connections": 0}, "vnc.connections"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(tmp_path: Path, vnc: Any, wrong: str) -> None:
    _, found = examine(tmp_path, vnc, devices=DEVICES)
    assert len(found) == 1 and found[0].startswith(wrong), found


def test_servers_get_names_as_qemu_gives_them(tmp_path: Path) -> None:
    machine, found = examine(
        tmp_path, [{"listen": ":1"}, {"listen": "none"}, {"listen": ":2"}, {"listen": ":3", "id": "x"}]
    )
    assert not found
    assert [server.get("id") for server in machine.data["vnc"]] == [None, "vnc2", "x"]


def test_one_of_a_list_is_as_if_it_stood_alone(tmp_path: Path) -> None:
    machine, found = examine(tmp_path, [{"listen": "127.0.0.1:1", "reverse": True}])
    assert not found and machine.data["vnc"] == {"listen": "127.0.0.1:1", "reverse": True}
