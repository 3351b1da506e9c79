"""Local APICs, virtio devices and drives as the line monitor shows and changes them."""

from __future__ import annotations

import pathlib
import socket

import pytest

from tests.board import Driven
from tests.unit.monitor.test_qmp import Talk
from vmrun.monitor.readline import LineMonitor


@pytest.fixture
def talk(tmp_path: pathlib.Path):
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    devices = [{"driver": "virtio-rng-pci", "id": "r"}, {"driver": "virtio-blk-pci", "id": "b", "drive": "d"}]
    drives = {"d": {"file": "disk", "format": "raw"}}
    with Driven(
        tmp_path, machine="pc-i440fx-7.2", memory="16MiB", devices=devices, drives=drives, kernel_irqchip="off"
    ) as pc:
        talk = Talk(pc)
        talk.ask("qmp_capabilities")
        yield talk


def said(talk: Talk, line: str) -> str:
    return talk.hmp(line).replace("\r\n", "\n")


def test_virtio_devices_are_listed(talk: Talk) -> None:
    assert said(talk, "info virtio") == "/machine/peripheral/b [virtio-blk]\n/machine/peripheral/r [virtio-rng]\n"
    assert talk.result("x-query-virtio")[1] == {"path": "/machine/peripheral/r", "name": "virtio-rng"}


def test_what_people_see_is_text_for_programs(talk: Talk) -> None:
    for view in ("numa", "ramblock", "roms"):
        assert talk.result(f"x-query-{view}") == {"human-readable-text": talk.hmp(f"info {view}")}


def test_a_drive_comes_serves_and_goes(talk: Talk, tmp_path: pathlib.Path) -> None:
    (tmp_path / "other").write_bytes(bytes(1 << 20))
    spec = f"if=none,id=o,format=raw,file={tmp_path / 'other'}"
    assert said(talk, f"drive_add 0 {spec}") == "OK\n"
    assert "Duplicate ID 'o' for drive" in said(talk, f"drive_add 0 {spec}")
    assert "Can't hot-add drive to type 'virtio'" in said(talk, "drive_add 0 if=virtio,file=x")
    assert said(talk, "device_add virtio-blk-pci,drive=o,id=ob") == ""
    assert said(talk, "drive_del o") == ""  # the device stays, without a medium
    row = next(row for row in talk.result("query-block") if "/ob/" in row.get("qdev", ""))
    assert row["device"] == "" and "inserted" not in row
    assert "Device 'o' not found" in said(talk, "drive_del o")
    assert "Device 'nothing' not found" in said(talk, "drive_del nothing")
    (tmp_path / "third").write_bytes(bytes(1 << 20))
    assert said(talk, f"drive_add 0 if=none,id=p,format=raw,file={tmp_path / 'third'}") == "OK\n"
    assert said(talk, "drive_del p") == ""
    assert "Device 'p' not found" in said(talk, "drive_del p")


def test_limits_are_six_numbers(talk: Talk) -> None:
    assert said(talk, "block_set_io_throttle d 0 0 0 100 0 0") == ""
    row = next(row for row in talk.result("query-block") if row["device"] == "d")
    assert row["inserted"]["iops"] == 100
    assert "invalid char 'x' in expression" in said(talk, "block_set_io_throttle d x 0 0 0 0 0")


def test_disks_are_served(talk: Talk, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "nbd"
    assert "error parsing address" in said(talk, "nbd_server_start nowhere")
    assert said(talk, f"nbd_server_start unix:{path}") == ""
    assert said(talk, "nbd_server_add d name") == ""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert said(talk, "nbd_server_remove name") == ""
    assert said(talk, "nbd_server_stop") == ""


def test_the_history_is_the_session_s(talk: Talk) -> None:
    shown: list[bytes] = []
    monitor = LineMonitor(talk.machine, shown.append)
    monitor.feed(b"info name\ninfo history\n")
    assert "0: 'info name'" in b"".join(shown).decode()
    assert said(talk, "info history") == ""


def test_a_local_apic_is_shown(tmp_path: pathlib.Path) -> None:
    from vmrun.monitor import hmp_more

    assert hmp_more._vector("LVT0", 0x10000, False) == (
        "LVT0\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)"
    )
    assert hmp_more._vector("LVTT", 0x200EF, True) == (
        "LVTT\t 0x000200ef active-hi edge                 periodic     Fixed  (vec 239)"
    )
    assert hmp_more._command(0x000C4630, 0x01000000, False)[0] == "ICR\t 0x000c4630 physical edge assert all"


# --- what the guest does, told to clients ------------------------------------------------------------------


def told(talk: Talk, name: str) -> list[dict[str, object]]:
    loop = talk.machine.loop
    loop.call_later(0.01, loop.stop)
    loop.run()
    return [event["data"] for event in talk.events() if event["event"] == name]


def cmos(pc: Driven, index: int, value: int) -> None:
    pc.outb(0x70, index)
    pc.outb(0x71, value)


def test_a_guest_that_sets_its_clock_is_told_of_once(tmp_path: pathlib.Path) -> None:
    rtc = {"base": "2020-05-06T07:08:09", "clock": "vm"}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", rtc=rtc) as pc:
        talk = Talk(pc)
        talk.ask("qmp_capabilities")
        cmos(pc, 0x0B, 0x82)  # SET: the clock stands still while its cells are written
        cmos(pc, 0x04, 0x08)  # an hour later
        cmos(pc, 0x02, 0x09)  # and a minute
        assert told(talk, "RTC_CHANGE") == []
        cmos(pc, 0x0B, 0x02)
        assert told(talk, "RTC_CHANGE") == [{"offset": 3660, "qom-path": "/machine/unattached/rtc"}]
        cmos(pc, 0x04, 0x07)  # without SET
        assert told(talk, "RTC_CHANGE")[1:] == [{"offset": 60, "qom-path": "/machine/unattached/rtc"}]
        assert talk.result("qom-get", path="/machine", property="rtc-time")["tm_hour"] == 7


def test_a_crash_kernel_that_took_over_is_told_of(tmp_path: pathlib.Path) -> None:
    devices = [{"driver": "pvpanic", "id": "p"}]
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", devices=devices) as pc:
        talk = Talk(pc)
        talk.ask("qmp_capabilities")
        pc.outb(0x505, 2)
        assert told(talk, "GUEST_CRASHLOADED") == [{"action": "run"}]
