"""A balloon by QMP, and disks' limits by the names that clients use."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest

from tests.board import Driven
from tests.unit.monitor.test_qmp import Talk

DEVICES = [
    {"driver": "virtio-balloon-pci", "id": "balloon0"},
    {"driver": "virtio-blk-pci", "id": "disk0", "drive": "d0"},
]


@pytest.fixture
def talk(tmp_path: pathlib.Path) -> Iterator[Talk]:
    image = tmp_path / "a.img"
    image.write_bytes(bytes(1 << 20))
    drives = {"d0": {"file": str(image), "format": "raw"}}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", drives=drives, devices=DEVICES) as pc:
        talk = Talk(pc)
        talk.ask("qmp_capabilities")
        yield talk


def test_a_balloon_is_asked_and_tells(talk: Talk) -> None:
    device = talk.machine.devices["balloon0"]
    assert talk.result("query-balloon") == {"actual": 16 << 20}
    talk.result("balloon", value=12 << 20)
    assert device.chip.wanted == 1024
    for pages in (256, 512, 1024):  # as the driver writes it, several times within a second
        device.chip.set_config(bytes(4) + pages.to_bytes(4, "little") + bytes(8))
        talk.machine.board.balloon_changed(device)
        talk.machine.loop.run_once(0.01)
    told = [event["data"]["actual"] for event in talk.events() if event["event"] == "BALLOON_CHANGE"]
    assert told == [15 << 20]
    assert talk.hmp("info balloon") == "balloon: actual=12\r\n"


def test_its_statistics_are_properties_as_clients_look_for_them(talk: Talk) -> None:
    path = "/machine/peripheral/balloon0"
    names = {row["name"] for row in talk.result("qom-list", path=path)}
    assert {"guest-stats", "guest-stats-polling-interval"} <= names
    talk.result("qom-set", path=path, property="guest-stats-polling-interval", value=5)
    assert talk.result("qom-get", path=path, property="guest-stats-polling-interval") == 5
    assert talk.result("qom-get", path=path, property="guest-stats")["last-update"] == 0
    for value in (-1, "x", True, 1 << 40):
        assert "error" in talk.ask("qom-set", path=path, property="guest-stats-polling-interval", value=value)


@pytest.mark.parametrize("name", ["disk0", "/machine/peripheral/disk0", "/machine/peripheral/disk0/virtio-backend"])
def test_a_disk_has_limits_by_each_name_of_its_device(talk: Talk, name: str) -> None:
    rest = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
    wanted = {"id": name, "iops": 100, **rest}
    assert "return" in talk.raw(json.dumps({"execute": "block_set_io_throttle", "arguments": wanted}))
    assert talk.result("query-block")[0]["inserted"]["iops"] == 100


def test_processors_that_share_a_thread_have_none_of_their_own(talk: Talk) -> None:
    import os

    talk.machine.accelerator.own_threads = False
    talk.machine.board.possible_apic_ids.append(1)
    assert talk.result("query-cpus-fast")[0]["thread-id"] == os.getpid()
