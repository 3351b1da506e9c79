"""Media for drives that were given none, as libvirt puts them in; and who waits for writes beyond an offset."""

from __future__ import annotations

import json
import pathlib
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.board import Driven
from tests.unit.monitor.test_qmp import Talk
from vmrun.machine import snapshot

DEVICES = [
    {"driver": "isa-fdc", "id": "fdc"},
    {"driver": "floppy", "id": "fd", "bus": "floppy-bus.0"},
    {"driver": "virtio-scsi-pci", "id": "scsi"},
    {"driver": "scsi-cd", "id": "sr", "bus": "scsi.0"},
]


@pytest.fixture
def pc(tmp_path: pathlib.Path):
    devices = [{"driver": "ide-cd", "id": "cd", "bus": "ide.0", "unit": 0}, *DEVICES[2:]]
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", devices=devices) as pc:
        yield pc


@pytest.fixture
def talk(pc: Driven) -> Talk:
    talk = Talk(pc)
    talk.ask("qmp_capabilities")
    return talk


def add(talk: Talk, path: pathlib.Path, name: str, size: int = 1 << 20, **options: Any) -> None:
    path.write_bytes(bytes(size))
    node = {"driver": "raw", "node_name": name, "file": {"driver": "file", "filename": str(path)}, **options}
    talk.result("blockdev-add", **node)


def row(talk: Talk, qdev: str) -> dict[str, Any]:
    return next(row for row in talk.result("query-block") if row.get("qdev") == qdev)


@pytest.mark.parametrize(("mode", "readonly"), [(None, True), ("retain", True), ("read-write", False)])
def test_a_floppy_put_into_a_drive_that_began_empty_is_written_only_when_that_is_asked_for(
    mode: str | None, readonly: bool, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "a.img").write_bytes(bytes(1440 << 10))
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", devices=DEVICES[1:2]) as pc:
        talk = Talk(pc)
        talk.ask("qmp_capabilities")
        asked = {"read_only_mode": mode} if mode else {}
        talk.result("blockdev-change-medium", id="fd", filename=str(tmp_path / "a.img"), format="raw", **asked)
        assert row(talk, "fd")["inserted"]["ro"] is readonly


@pytest.mark.parametrize("unit", ["cd", "sr"])
def test_an_empty_drive_is_shown_and_takes_a_node(talk: Talk, pc: Driven, unit: str, tmp_path: pathlib.Path) -> None:
    empty = row(talk, unit)
    assert empty["device"] == "" and empty["removable"] and not empty["tray_open"] and "inserted" not in empty
    add(talk, tmp_path / "disc.iso", "disc", read_only=True)
    refused = talk.ask("blockdev-insert-medium", id=unit, node_name="disc")
    assert refused["error"]["desc"] == f"Tray of device '{unit}' is not open"
    talk.result("blockdev-open-tray", id=unit)
    talk.result("blockdev-insert-medium", id=unit, node_name="disc")
    assert row(talk, unit)["tray_open"]
    again = talk.ask("blockdev-insert-medium", id=unit, node_name="disc")
    assert again["error"]["desc"] == "Node 'disc' is already in use"
    talk.result("blockdev-close-tray", id=unit)
    assert row(talk, unit)["inserted"]["node-name"] == "disc"
    assert talk.ask("blockdev-del", node_name="disc")["error"]["desc"] == "Node disc is in use"
    talk.result("blockdev-open-tray", id=unit)
    talk.result("blockdev-remove-medium", id=unit)
    talk.result("blockdev-del", node_name="disc")
    assert "inserted" not in row(talk, unit)
    talk.result("device_add", driver="virtio-rng-pci")  # the machine can still be checked as a whole
    moved = [event["data"] for event in talk.events() if event["event"] == "DEVICE_TRAY_MOVED"]
    assert moved == [{"device": "", "id": unit, "tray-open": opened} for opened in (True, False, True)]


def test_the_same_node_in_two_drives_and_two_nodes_in_one_are_refused(talk: Talk, tmp_path: pathlib.Path) -> None:
    add(talk, tmp_path / "a", "a", read_only=True)
    add(talk, tmp_path / "b", "b", read_only=True)
    for unit in ("cd", "sr"):
        talk.result("blockdev-open-tray", id=unit)
    talk.result("blockdev-insert-medium", id="cd", node_name="a")
    assert "in use" in talk.ask("blockdev-insert-medium", id="sr", node_name="a")["error"]["desc"]
    there = talk.ask("blockdev-insert-medium", id="cd", node_name="b")["error"]["desc"]
    assert there == "There already is a medium in device 'cd'"
    assert talk.ask("blockdev-insert-medium", id="sr", node_name="c")["error"]["desc"] == "Node 'c' not found"


def test_an_image_by_its_name_goes_into_an_empty_drive(talk: Talk, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.iso").write_bytes(bytes(4096))
    talk.result("blockdev-change-medium", id="cd", filename=str(tmp_path / "x.iso"), format="raw")
    assert row(talk, "cd")["inserted"]["image"]["filename"] == str(tmp_path / "x.iso")


def test_a_saved_machine_has_the_medium(pc: Driven, talk: Talk, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.iso").write_bytes(bytes(range(256)) * 16)
    talk.result("blockdev-change-medium", id="sr", filename=str(tmp_path / "x.iso"), format="raw")
    pc.machine.pause()
    snapshot.save(pc.machine, str(tmp_path / "saved"))
    machine = snapshot.restore(str(tmp_path / "saved"), accel=["qtest"])
    try:
        drives = {id: bytes(drive.read_bytes(0, 4)) for id, drive in machine.board.drives.items() if drive.node}
        assert list(drives.values()) == [b"\0\1\2\3"]
    finally:
        machine.close()


def test_a_drive_that_leaves_takes_its_bay_along(talk: Talk, pc: Driven, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.iso").write_bytes(bytes(4096))
    talk.result("device_add", driver="scsi-cd", id="late", bus="scsi.0")
    talk.result("blockdev-change-medium", id="late", filename=str(tmp_path / "x.iso"), format="raw")
    talk.result("device_del", id="late")
    until(pc, lambda: any(event["event"] == "DEVICE_DELETED" for event in talk.events()))
    talk.result("device_add", driver="scsi-cd", id="late", bus="scsi.0")
    assert "inserted" not in row(talk, "late")


def until(pc: Driven, happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if happened():
            return
        pc.machine.loop.run_once(0.01)
    raise AssertionError("it did not happen")


def test_a_disk_without_a_tray_is_shown_at_once(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", devices=DEVICES[:2]) as pc:
        talk = Talk(pc)
        talk.ask("qmp_capabilities")
        add(talk, tmp_path / "disk", "disk", 1440 * 1024)
        talk.result("blockdev-insert-medium", id="fd", node_name="disk")
        assert row(talk, "fd")["inserted"]["ro"] is False
        assert not pc.machine.devices["fd"].opened
        talk.result("blockdev-remove-medium", id="fd")
        talk.result("blockdev-del", node_name="disk")
        assert not [event for event in talk.events() if event["event"] == "DEVICE_TRAY_MOVED"]


# --- thresholds ---------------------------------------------------------------------------------------------


def work(pc: Driven, talk: Talk, line: str) -> None:
    """A line of the line monitor that takes its time."""
    before = len(talk.sent)
    request = {"execute": "human-monitor-command", "arguments": {"command-line": line}}
    talk.session.feed(json.dumps(request).encode() + b"\n")
    until(pc, lambda: any("return" in message for message in talk.sent[before:]))


def finished(talk: Talk, job: str) -> bool:
    return any(row["id"] == job and row["status"] == "concluded" for row in talk.result("query-jobs"))


def told(pc: Driven, talk: Talk) -> list[dict[str, Any]]:
    for _ in range(3):
        pc.machine.loop.run_once(0.01)
    return [event["data"] for event in talk.events() if event["event"] == "BLOCK_WRITE_THRESHOLD"]


@pytest.mark.parametrize("layer", ["raw", "file", "qcow2", "null"])
def test_a_write_beyond_a_threshold_is_told_once(talk: Talk, pc: Driven, layer: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "disk"
    if layer == "null":
        talk.result("blockdev-add", driver="null-co", node_name="top", size=1 << 20)
    elif layer == "qcow2":
        talk.result("blockdev-create", job_id="c", options={"driver": "file", "filename": str(path), "size": 0})
        made = {"driver": "file", "filename": str(path), "node_name": "low"}
        until(pc, lambda: path.exists() and finished(talk, "c"))
        talk.result("blockdev-add", **made)
        talk.result("blockdev-create", job_id="f", options={"driver": "qcow2", "file": "low", "size": 1 << 20})
        until(pc, lambda: finished(talk, "f"))
        talk.result("blockdev-add", driver="qcow2", node_name="top", file="low")
    else:
        path.write_bytes(bytes(1 << 20))
        talk.result("blockdev-add", driver="file", filename=str(path), node_name="low")
        talk.result("blockdev-add", driver="raw", file="low", node_name="top")
    talk.result("device_add", driver="virtio-blk-pci", id="d", drive="top")
    node = "low" if layer == "file" else "top"
    talk.result("block-set-write-threshold", node_name=node, write_threshold=8192)
    rows = {row["node-name"]: row for row in talk.result("query-named-block-nodes")}
    assert rows[node]["write_threshold"] == 8192
    work(pc, talk, 'qemu-io -d d/virtio-backend "write 4096 4096"')
    assert told(pc, talk) == []
    for _ in range(2):
        work(pc, talk, 'qemu-io -d d/virtio-backend "write 4096 8192"')
        assert told(pc, talk) == [{"node-name": node, "amount-exceeded": 4096, "write-threshold": 8192}]
    rows = {row["node-name"]: row for row in talk.result("query-named-block-nodes")}
    assert rows[node]["write_threshold"] == 0


def test_a_threshold_of_nothing_and_of_nobody(talk: Talk, pc: Driven) -> None:
    talk.result("blockdev-add", driver="null-co", node_name="n", size=1 << 20)
    talk.result("block-set-write-threshold", node_name="n", write_threshold=4096)
    talk.result("block-set-write-threshold", node_name="n", write_threshold=0)
    work(pc, talk, 'qemu-io n "write 0 8192"')
    assert told(pc, talk) == []
    assert talk.ask("block-set-write-threshold", node_name="x", write_threshold=1)["error"]["desc"] == (
        "Device 'x' not found"
    )


def test_a_node_goes_while_somebody_waits(talk: Talk, pc: Driven) -> None:
    talk.result("blockdev-add", driver="null-co", node_name="n", size=1 << 20)
    talk.result("block-set-write-threshold", node_name="n", write_threshold=4096)
    talk.result("blockdev-del", node_name="n")
    talk.result("blockdev-add", driver="null-co", node_name="n", size=1 << 20)
    work(pc, talk, 'qemu-io n "write 0 8192"')
    assert told(pc, talk) == []
    json.dumps(talk.result("query-named-block-nodes"))


# --- images on servers --------------------------------------------------------------------------------------------


def test_a_server_that_says_nothing_holds_up_who_asked_and_nobody_else(talk: Talk, pc: Driven) -> None:
    """Another client is answered meanwhile, and the machine ends without it."""
    other: list[dict[str, Any]] = []
    session = talk.monitors.session("control", lambda data: other.append(json.loads(data)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = {"type": "inet", "host": "127.0.0.1", "port": str(server.getsockname()[1])}
        asked = {"driver": "raw", "node-name": "far", "file": {"driver": "nbd", "server": address}}
        before = len(talk.sent)
        talk.session.feed(json.dumps({"execute": "blockdev-add", "arguments": asked}).encode() + b"\n")
        peer, _ = server.accept()
        with peer:
            session.feed(b'{"execute": "qmp_capabilities"}\n{"execute": "query-status"}\n')
            assert other[-1]["return"]["status"] == "prelaunch"
            assert len(talk.sent) == before
            pc.machine.close()


def test_an_image_on_a_server_has_its_names_when_it_is_there(talk: Talk, pc: Driven, tmp_path: pathlib.Path) -> None:
    add(talk, tmp_path / "x.img", "here")
    path = str(tmp_path / "nbd")
    talk.result("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    talk.result("nbd-server-add", device="here")
    below = {"driver": "nbd", "export": "here", "node-name": "low", "server": {"type": "unix", "path": path}}

    def answer(**options: Any) -> dict[str, Any]:
        before = len(talk.sent)
        talk.session.feed(json.dumps({"execute": "blockdev-add", "arguments": options}).encode() + b"\n")
        until(pc, lambda: len(talk.sent) > before)
        return talk.sent[before]

    top = {"driver": "raw", "node-name": "top", "read-only": True, "file": below}
    assert answer(**top)["return"] == {}
    names = {row["node-name"] for row in talk.result("query-named-block-nodes")}
    assert {"top", "low", "here"} <= names
    assert answer(**top)["error"]["desc"] == "Duplicate nodes with node-name='top'"
    wrong = answer(**{**below, "export": "nix", "node-name": "other"})["error"]["desc"]
    assert "nix" in wrong
