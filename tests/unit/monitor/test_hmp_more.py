"""Local APICs, virtio devices and drives as the line monitor shows and changes them."""

from __future__ import annotations

import pathlib
import socket
import threading
import time

import pytest

from tests.board import Driven
from tests.unit.monitor.test_qmp import Talk
from vmrun.monitor.commands import dirtyrate
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
    lines = said(talk, "info virtio").split("\n")
    assert lines[0] == "/machine/peripheral/b/virtio-backend [virtio-blk]"
    assert lines[1:] == ["/machine/peripheral/r/virtio-backend [virtio-rng]", ""]
    assert talk.result("x-query-virtio")[1] == {"path": "/machine/peripheral/r/virtio-backend", "name": "virtio-rng"}


def test_what_people_see_is_text_for_programs(talk: Talk) -> None:
    for view in ("irq", "numa", "ramblock", "roms"):
        assert talk.result(f"x-query-{view}") == {"human-readable-text": said(talk, f"info {view}")}


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


def test_a_virtio_device_has_the_path_that_is_told_of_it(talk: Talk) -> None:
    path = talk.result("x-query-virtio")[1]["path"]
    assert talk.result("qom-get", path=path, property="type") == "virtio-rng-pci"
    assert talk.ask("qom-get", path="/machine/virtio-backend", property="type")["error"]["class"] == "DeviceNotFound"


def test_interrupts_are_counted(talk: Talk) -> None:
    """Each time a line is raised, and once for a pair of 8259s: 12 is the slave's 4, and raises the master's 2."""
    before = said(talk, "info irq")
    wires = [talk.machine.devices[name] for name in ("ioapic", "pic0", "pic1")]
    with talk.machine.board.lock:
        for _ in range(3):
            wires[0].inputs["in"].drive(9, 1)
            wires[0].inputs["in"].drive(9, 1)
            wires[0].inputs["in"].drive(9, 0)
        wires[2].inputs["in"].drive(4, 1)
    assert " 9:" not in before
    assert " 12:" not in before  # the timer's are there: its gate is opened by a reset
    ioapic, _, pair = said(talk, "info irq").partition("IRQ statistics for isa-i8259:\n")
    assert ioapic.startswith("IRQ statistics for ioapic:\n")
    assert " 9: 3\n" in ioapic
    assert pair.endswith(" 12: 1\n")
    assert " 9:" not in pair


def test_memory_that_is_written_is_measured(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB are all written in the second; who asks twice at the same time is told so."""
    ram, clock, told = talk.machine.board.ram, [100.0], threading.Event()

    def sleep(seconds: float) -> None:
        told.wait(60)
        ram.fill(1)
        clock[0] = 101.0

    monkeypatch.setattr(dirtyrate, "monotonic", lambda: clock[0])
    monkeypatch.setattr(dirtyrate, "sleep", sleep)
    assert talk.result("query-dirty-rate")["status"] == "unstarted"
    assert "(not ready)" in said(talk, "info dirty_rate")
    assert "out of range[1, 60]" in talk.ask("calc-dirty-rate", calc_time=61)["error"]["desc"]
    assert "use page-sampling" in talk.ask("calc-dirty-rate", calc_time=1, mode="dirty-ring")["error"]["desc"]
    assert "Either dirty ring or" in said(talk, "calc_dirty_rate -r -b 1")
    assert "with period 1 seconds" in said(talk, "calc_dirty_rate 1 16384")
    assert "already being measured" in talk.ask("calc-dirty-rate", calc_time=1)["error"]["desc"]
    assert talk.result("query-dirty-rate")["status"] == "measuring"
    told.set()
    end = time.monotonic() + 60
    while (found := talk.result("query-dirty-rate"))["status"] == "measuring" and time.monotonic() < end:
        talk.machine.loop.run_once(0.01)
    assert found["sample-pages"] == 16384
    assert (found["dirty-rate"], found["start-time"]) == (16, 100)
    assert f"Dirty rate: {found['dirty-rate']} (MB/s)" in said(talk, "info dirty_rate")


def test_drives_without_a_file_are_empty_or_zeros(tmp_path: pathlib.Path) -> None:
    drives = {"e": {}, "z": {"format": "null-co"}}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", drives=drives) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        for name in drives:
            pc.board.drive(name)
        rows = {row["device"]: row for row in talk.result("query-block")}
        assert "inserted" not in rows["e"]
        image = rows["z"]["inserted"]["image"]
        assert image == {"actual-size": 0, "filename": "null-co://", "format": "null-co", "virtual-size": 1 << 30}
        assert "drive_del" not in said(talk, "drive_del e")
        assert "e" not in {row["device"] for row in talk.result("query-block")}
        talk.monitors.close()


def test_what_the_accelerator_took_from_a_cpu_model_is_told_by_its_bits(talk: Talk) -> None:
    talk.machine.missing_features = ["avx512f", "vmx", "xsavec"]
    cpu = talk.result("query-cpus-fast")[0]["qom-path"]
    rows = talk.result("qom-get", path=cpu, property="filtered-features")
    keys = ("cpuid-input-eax", "cpuid-input-ecx", "cpuid-register")
    taken = {tuple(row.get(key) for key in keys): row["features"] for row in rows}
    assert {key: bits for key, bits in taken.items() if bits} == {
        (1, None, "ECX"): 1 << 5, (7, 0, "EBX"): 1 << 16, (0xD, 1, "EAX"): 1 << 1
    }  # fmt: skip
    assert taken[0x80000001, None, "EDX"] == 0
