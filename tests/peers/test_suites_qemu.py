"""What QEMU's own qtest suites do, in our words, by qtest and QMP on both programs with one command line: boot-order,
numa, endianness, hd-geo, drive_del, cpu-plug, device-plug, machine-none. Processors stand still (-S).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.testing import QtestProgram

pytestmark = [pytest.mark.peer, needs_qemu]
ROOT = pathlib.Path(__file__).resolve().parents[2]
VMRUN = [sys.executable, str(ROOT / "bin" / "vmrun-qemu"), "-accel", "qtest"]
NULL = "file=null-co://,file.read-zeroes=on,format=raw"


class Side(QtestProgram):
    """A program with a monitor; `events` are those that came so far."""

    def __init__(self, program: list[str], *words: str) -> None:
        import socket
        import tempfile

        self.place = tempfile.TemporaryDirectory(prefix="vmrun-suites-")
        path = os.path.join(self.place.name, "qmp")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(20)
            control = ["-chardev", f"socket,path={path},id=char0", "-mon", "chardev=char0,mode=control"]
            super().__init__([*program, "-S", "-display", "none", *control, *words])
            self.connection = listener.accept()[0]
        self.connection.settimeout(20)
        self.stream = self.connection.makefile("rwb")
        self.events: list[dict[str, Any]] = []
        self.stream.readline()
        self.qmp("qmp_capabilities")

    def close(self) -> None:
        self.stream.close()
        self.connection.close()
        super().close()
        self.place.cleanup()

    def _message(self) -> dict[str, Any]:
        line = self.stream.readline()
        assert line, "the program has gone"
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message

    def qmp(self, command: str, **arguments: Any) -> Any:
        """What it returns, or the error."""
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self.stream.flush()
        while "event" in (message := self._message()):
            pass
        return message["return"] if "return" in message else message["error"]

    def hmp(self, line: str) -> str:
        return str(self.qmp("human-monitor-command", **{"command-line": line}))

    def until(self, event: str) -> dict[str, Any]:
        """The last one of its kind that names a device or is of no device."""
        while True:
            for message in reversed(self.events):
                data = message.get("data", {})
                if message["event"] == event and ("device" in data or "path" not in data):
                    return data
            self._message()

    def cmos(self, *cells: int) -> list[int]:
        found = []
        for cell in cells:
            self.outb(0x70, cell)
            found.append(self.inb(0x71))
        return found


def both(act: Callable[[Side], Any], *words: str) -> Any:
    """What it came to, which is the same on both."""
    found = []
    for program in (VMRUN, [str(QEMU), "-accel", "tcg"]):
        with contextlib.closing(Side(program, *words)) as side:
            found.append(act(side))
    assert found[0] == found[1]
    return found[0]


# --- boot-order-test -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("-no-fd-bootchk",)])
@pytest.mark.parametrize("words", ["", "c", "once=a", "order=cad", "c,once=a", "once=b,order=c"])
def test_the_boot_order_of_the_first_start_and_of_the_next(words: str, more: tuple[str, ...]) -> None:
    def act(side: Side) -> Any:
        first = side.cmos(0x38, 0x3D)
        side.qmp("system_reset")
        side.until("RESET")
        return first, side.cmos(0x38, 0x3D)

    both(act, "-machine", "pc", "-nodefaults", *(("-boot", words) if words else ()), *more)


# --- numa-test -----------------------------------------------------------------------------------------------

ONE = ["-m", "128", "-object", "memory-backend-ram,id=ram,size=128M"]
TOPOLOGY = "8,sockets=2,cores=2,threads=2"
NODES = {
    "all said": (["-smp", "8"], ["0-3", "4-7"], []),
    "none said": (["-smp", "8"], ["", ""], []),
    "some said": (["-smp", "8"], ["0-1", "4-5"], []),
    "by places": (
        ["-smp", TOPOLOGY],
        ["", ""],
        ["1,socket-id=0", "0,socket-id=1,core-id=0", "0,socket-id=1,core-id=1,thread-id=0",
         "1,socket-id=1,core-id=1,thread-id=1"],
    ),
}  # fmt: skip


def nodes(side: Side) -> Any:
    cpus = [(row["cpu-index"], row["props"]) for row in side.qmp("query-cpus-fast")]
    rows = side.qmp("query-hotpluggable-cpus")
    return side.hmp("info numa"), cpus, [(row["props"], row["type"], "qom-path" in row) for row in rows]


@pytest.mark.parametrize("name", NODES)
def test_processors_are_in_their_nodes_of_which_one_has_no_memory(name: str) -> None:
    smp, cpus, places = NODES[name]
    words = [*ONE, *smp]
    for n, (which, memory) in enumerate(zip(cpus, (",memdev=ram", ""), strict=True)):
        words += ["-numa", f"node,nodeid={n}{memory}" + (f",cpus={which}" if which else "")]
    for place in places:
        words += ["-numa", f"cpu,node-id={place}"]
    both(nodes, "-machine", "pc", *words)


# --- endianness-test -----------------------------------------------------------------------------------------


def test_wide_and_narrow_accesses_have_one_order() -> None:
    def act(side: Side) -> Any:
        found = []
        for write, value in (("outb", 0x87), ("outw", 0x8765), ("outl", 0x87654321)):
            for offset in range(4):
                side.ask(f"{write} {0xE0 + offset:#x} {value:#x}")
                reads = [("inb", n) for n in range(4)] + [("inw", n) for n in range(3)] + [("inl", 0)]
                found += side.ask_all([f"{read} {0xE0 + n:#x}" for read, n in reads])
        return found

    both(act, "-machine", "pc", "-device", "pc-testdev")


# --- hd-geo-test -----------------------------------------------------------------------------------------------

ENTRIES = {  # a partition table's first row
    "empty": "",
    "lba": "80010100" + "06fe3f40" + "3f000000" + "00100000",
    "chs": "80010100" + "060f1f40" + "20000000" + "00100000",
}


DISKS = [("empty", 1 << 20), ("empty", 9 << 30), ("lba", 4 << 30), ("chs", 300 << 20)]
TRANSLATIONS = ["", ",bios-chs-trans=lba", ",bios-chs-trans=rechs", ",cyls=16,heads=8,secs=62"]


@pytest.mark.parametrize("translation", TRANSLATIONS)
@pytest.mark.parametrize(("table", "size"), DISKS)
def test_the_firmware_is_told_a_disks_geometry(table: str, size: int, translation: str, tmp_path: pathlib.Path) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(size)
        if ENTRIES[table]:
            file.seek(446)
            file.write(bytes.fromhex(ENTRIES[table]).ljust(64, b"\0") + b"\x55\xaa")
    drive = ["-drive", f"if=none,id=d,file={image},format=raw", "-device", f"ide-hd,drive=d,bus=ide.0{translation}"]
    both(lambda side: side.cmos(0x10, 0x12, *range(0x19, 0x2D), 0x39), "-machine", "pc", "-nodefaults", *drive)


def of_firmware(side: Side, *names: str) -> list[str]:
    """Contents of fw_cfg's files."""

    def take(key: int, count: int) -> bytes:
        side.ask(f"outw 0x510 {key:#x}")
        return bytes(int(answer, 16) for answer in side.ask_all(["inb 0x511"] * count))

    directory = take(0x19, 4 + 64 * int.from_bytes(take(0x19, 4), "big"))
    rows = [directory[at : at + 64] for at in range(4, len(directory), 64)]
    files = {row[8:].rstrip(b"\0").decode(): row for row in rows}
    found = [files[name] for name in names]
    return [take(int.from_bytes(row[4:6], "big"), int.from_bytes(row[:4], "big")).decode() for row in found]


def test_a_reset_tells_the_firmware_of_the_disks_that_are_there_now() -> None:
    def act(side: Side) -> Any:
        names = ("bootorder", "bios-geometry")
        found = [of_firmware(side, *names)]
        disk = {"driver": "virtio-blk-pci", "id": "dev1", "drive": "n1", "addr": "6"}
        assert side.qmp("device_add", **disk, bootindex=1, lcyls=9, lheads=8, lsecs=7) == {}
        found.append(of_firmware(side, *names))
        for gone in ("", "dev0"):
            if gone:
                unplug(side, gone)
            side.qmp("system_reset")
            side.until("RESET")
            found.append(of_firmware(side, *names))
        return found

    words = [f"null-co,read-zeroes=on,node-name=n{n}" for n in range(2)]
    disk = "virtio-blk-pci,id=dev0,drive=n0,addr=5,bootindex=2,lcyls=100,lheads=16,lsecs=63"
    blocks = [word for each in words for word in ("-blockdev", each)]
    found = both(act, "-machine", "pc", "-nodefaults", *blocks, "-device", disk)
    assert found[3] != found[2] != found[0] == found[1]


# --- drive_del-test --------------------------------------------------------------------------------------------


def drives(side: Side) -> list[str]:
    return sorted(row["device"] for row in side.qmp("query-block"))


def unplug(side: Side, id: str = "dev0") -> Any:
    asked = side.qmp("device_del", id=id)
    side.qmp("system_reset")
    return asked, side.until("DEVICE_DELETED"), drives(side)


def test_an_empty_drive_comes_and_goes() -> None:
    def act(side: Side) -> Any:
        add, delete = "drive_add 0 if=none,id=drive0", "drive_del drive0"
        return [side.hmp(line) for line in (add, delete, delete, add, delete)]

    assert both(act, "-machine", "pc", "-nodefaults")[0] == "OK\r\n"


def test_a_drive_that_is_used_is_deleted_before_its_device() -> None:
    def act(side: Side) -> Any:
        deleted = side.hmp("drive_del drive0"), drives(side)
        return deleted, unplug(side), side.hmp(f"drive_add 0 if=none,id=drive0,{NULL}"), drives(side)

    device = ["-drive", f"if=none,id=drive0,{NULL}", "-device", "virtio-blk-pci,drive=drive0,id=dev0"]
    both(act, "-machine", "pc", "-nodefaults", *device)


def test_a_drive_goes_with_its_device() -> None:
    def act(side: Side) -> Any:
        added = side.hmp(f"drive_add 0 if=none,id=drive0,{NULL}")
        plugged = side.qmp("device_add", driver="virtio-blk-pci", drive="drive0", id="dev0", addr="5.0")
        return added, plugged, drives(side), unplug(side)

    both(act, "-machine", "pc", "-nodefaults")


def test_a_node_outlives_its_device() -> None:
    def act(side: Side) -> Any:
        node = {"node-name": "n0", "read-zeroes": True}
        found = [side.qmp("blockdev-add", driver="null-co", **node)]
        found.append(side.qmp("device_add", driver="virtio-scsi-pci", id="s0"))
        found.append(side.qmp("device_add", driver="scsi-hd", drive="n0", id="dev0"))
        found += [side.qmp("device_del", id="dev0"), side.until("DEVICE_DELETED")]
        return [*found, *(side.qmp("blockdev-del", **{"node-name": "n0"}) for _ in range(2))]

    both(act, "-machine", "pc", "-nodefaults")


# --- cpu-plug-test, device-plug-test, machine-none-test --------------------------------------------------------


@pytest.mark.parametrize(("machine", "smp"), [
    ("pc", "1,sockets=2,cores=3,threads=2,maxcpus=12"), ("pc-i440fx-2.6", "1,sockets=3,maxcpus=3"),
])  # fmt: skip
def test_all_processors_come(machine: str, smp: str) -> None:
    def act(side: Side) -> Any:
        absent = [row for row in reversed(side.qmp("query-hotpluggable-cpus")) if "qom-path" not in row]
        found = [side.qmp("device_add", driver=row["type"], id=f"c{n}", **row["props"]) for n, row in enumerate(absent)]
        return found, len(side.qmp("query-cpus-fast"))

    both(act, "-machine", machine, "-smp", smp, "-cpu", "qemu64")


@pytest.mark.parametrize("device", [
    ["-device", '{"driver": "virtio-rng-pci", "id": "dev0"}'],
    ["-device", "pci-bridge,id=b1,chassis_nr=1", "-device", "virtio-rng-pci,bus=b1,addr=1,id=dev0"],
])  # fmt: skip
def test_a_reset_takes_out_what_was_asked_for(device: list[str]) -> None:
    both(lambda side: unplug(side)[:2], "-machine", "pc", *device)


def test_an_empty_machine_answers() -> None:
    names = ("query-cpus-fast", "query-status", "query-hotpluggable-cpus", "query-memory-devices", "query-pci")
    both(lambda side: [side.qmp(name) for name in names], "-machine", "none")


def test_an_empty_machine_has_memory_and_blocks_that_it_is_given() -> None:
    def act(side: Side) -> Any:
        names = ("query-memdev", "query-memory-size-summary", "query-acpi-ospm-status")
        nodes = [row["node-name"] for row in side.qmp("query-named-block-nodes", flat=True)]
        return [side.qmp(name) for name in names], nodes, side.hmp("info ramblock"), side.hmp("xp /2wx 0x7fc")

    both(act, "-machine", "none", "-m", "8", "-blockdev", "null-co,node-name=n0")


@pytest.mark.parametrize("said", ["y", "n", "true", "no"])
def test_an_objects_flag_is_said_in_four_ways(said: str) -> None:
    found = both(lambda side: side.qmp("query-memdev"), "-machine", "none", "-object",
                 f"memory-backend-ram,id=m0,size=1M,prealloc={said}")  # fmt: skip
    assert found[0]["prealloc"] is (said in ("y", "true"))


def test_a_picture_of_an_empty_machine(tmp_path: pathlib.Path) -> None:
    words = ["-machine", "none", "-accel", "qtest", "-chardev", "vc,id=c"]
    with contextlib.closing(Side(VMRUN[:2], *words)) as side:
        assert side.qmp("screendump", filename=str(tmp_path / "x.ppm")) == {}
