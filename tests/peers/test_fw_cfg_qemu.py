"""fw_cfg items and files, and CMOS bytes, of pc-i440fx-2.0: vmrun's beside QEMU's for the same machine."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.peers.oracle import Qemu, needs_qemu
from tests.unit.firmware.board import board
from vmrun import firmware
from vmrun.firmware import images

pytestmark = [pytest.mark.peer, needs_qemu]
GIB = 1 << 30

IDE = {"bus": "ide.0", "driver": "ide-hd", "drive": "d0", "unit": 0}
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": ({}, ["-m", "256"]),
    "tiny": ({"memory": 4 << 20}, ["-m", "4"]),
    "just-below-the-hole": ({"memory": 3 * GIB + GIB // 2 - (1 << 20)}, ["-m", "3583"]),
    "reaches-the-hole": ({"memory": 3 * GIB + GIB // 2}, ["-m", "3584"]),
    "5-gib": ({"memory": 5 * GIB}, ["-m", "5G"]),
    "processors": (
        {"cpus": {"count": 2, "sockets": 4, "maxcpus": 4}},
        ["-m", "256", "-smp", "2,maxcpus=4"],
    ),
    "topology": (
        {"cpus": {"count": 12, "sockets": 2, "cores": 3, "threads": 2, "maxcpus": 12}},
        ["-m", "256", "-smp", "12,sockets=2,cores=3,threads=2"],
    ),
    "64-processors": ({"cpus": {"count": 64, "sockets": 64}}, ["-m", "256", "-smp", "64"]),
    "boot": (
        {"boot": {"order": "ndc", "menu": True, "splash-time": 3000, "reboot-timeout": 1234}},
        ["-m", "256", "-boot", "order=ndc,menu=on,splash-time=3000,reboot-timeout=1234"],
    ),
    "once": ({"boot": {"order": "c", "once": "d"}}, ["-m", "256", "-boot", "order=c,once=d"]),
    "strict": (
        {
            "boot": {"strict": True},
            "devices": ({"id": "net0", "driver": "e1000", "bus": "pci.0", "addr": "03.0", "bootindex": 2},),
        },
        ["-m", "256", "-boot", "strict=on", "-device", "e1000,addr=3,bootindex=2,romfile="],
    ),
    "identity": (
        {
            "uuid": "00112233-4455-6677-8899-aabbccddeeff",
            "smbios": {
                "type0": {"vendor": "V", "version": "1", "date": "01/02/2003", "release": "4.5"},
                "type1": {"manufacturer": "Foo", "serial": "abc", "sku": "K", "family": "F"},
            },
        },
        [
            *("-m", "256", "-uuid", "00112233-4455-6677-8899-aabbccddeeff"),
            *("-smbios", "type=0,vendor=V,version=1,date=01/02/2003,release=4.5"),
            *("-smbios", "type=1,manufacturer=Foo,serial=abc,sku=K,family=F"),
        ],
    ),
    "no-screen": ({"firmware": {"nographic": True}}, ["-m", "256", "-machine", "graphics=off"]),
    "files": (
        {"firmware": {"files": {"opt/org.example/a": {"string": "hello"}, "etc/zz": {"string": "q"}}}},
        ["-m", "256", "-fw_cfg", "name=opt/org.example/a,string=hello", "-fw_cfg", "name=etc/zz,string=q"],
    ),
    "no-sleep": (
        {"devices": (), "pm": {"disable_s3": 1, "disable_s4": 0, "s4_val": 1}},
        ["-m", "256", "-global", "PIIX4_PM.disable_s3=1", "-global", "PIIX4_PM.s4_val=1"],
    ),
    "video-bios": (
        {
            "devices": (
                {
                    "id": "v",
                    "driver": "VGA",
                    "bus": "pci.0",
                    "addr": "02.0",
                    "rombar": 0,
                    "romfile": "vgabios-stdvga.bin",
                },
            )
        },
        ["-m", "256", "-vga", "std", "-global", "VGA.rombar=0"],
    ),
}


class Receiver:
    """Stands where the fw_cfg device and the clock will be."""

    def __init__(self) -> None:
        self.items: dict[int, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.cells: dict[int, int] = {}

    def add_bytes(self, key: int, data: bytes) -> None:
        self.items[key] = data

    def set_order(self, by_name: bool) -> None:
        self.by_name = by_name

    def add_file(self, name: str, data: bytes, callback: Any = None, order: int = 0) -> None:
        self.files[name] = data

    def set_cmos(self, index: int, value: int) -> None:
        self.cells[index] = value


def prepared(settings: dict[str, Any], **more: Any) -> Receiver:
    settings = dict(settings)
    pm = settings.pop("pm", {})
    machine = board("pc-i440fx-2.0", **settings)
    for device in machine["devices"]:
        if device["driver"] == "PIIX4_PM":
            device["props"] |= pm
    receiver = Receiver()
    firmware.prepare(None, receiver, receiver, machine, **more)
    return receiver


@pytest.mark.parametrize("case", CASES)
def test_contents_equal_qemus(case: str) -> None:
    settings, args = CASES[case]
    own = prepared(settings)
    with Qemu("pc-i440fx-2.0", *args) as qemu:
        assert list(own.files) == list(qemu.files())
        for name, data in own.files.items():
            theirs = qemu.file(name)
            assert len(data) == len(theirs), name
            if not name.startswith(("etc/acpi/", "etc/table-loader")):  # test_acpi_qemu.py looks into these
                assert data == theirs, name
        for key, data in own.items.items():
            padding = bytes(8)
            assert data + padding == qemu.fw_cfg(key, len(data) + 8), hex(key)
        theirs_only = [key for key in (*range(1, 0x19), *range(0x8000, 0x8008)) if key not in own.items]
        assert all(qemu.fw_cfg(key, 8) == bytes(8) for key in theirs_only)
        for index, value in own.cells.items():
            assert value == qemu.cmos(index), hex(index)
        rest = [index for index in range(0x0E, 0x80) if index not in own.cells and index not in (0x32, 0x37)]
        assert {index: qemu.cmos(index) for index in rest if qemu.cmos(index)} == {}


@pytest.mark.parametrize(
    ("megabytes", "table"),
    [
        (8, ""),
        (300, ""),
        (4000, ""),
        (300, "f0:3f"),
        (300, "0f:3f"),
        (4000, "fe:3f"),
        (9000, "fe:3f"),
        (40000, ""),
    ],
)
def test_disk_geometry_equals_qemus(tmp_path: Any, megabytes: int, table: str) -> None:
    image = tmp_path / "disk.img"
    sector = bytearray(512)
    if table:
        heads, sectors = (int(part, 16) for part in table.split(":"))
        sector[0x1BE:0x1CE] = bytes([0x80, 1, 1, 0, 0x83, heads, sectors, 10]) + b"\x3f\0\0\0\0\x10\0\0"
        sector[510:] = b"\x55\xaa"
    with open(image, "wb") as file:
        file.write(sector)
        file.truncate(megabytes * 1000 * 1000 // 512 * 512)
    size = image.stat().st_size
    disks = tuple(
        {"id": f"disk{n}", "driver": "ide-hd", "bus": bus, "unit": unit, "drive": "d0"}
        for n, (bus, unit) in enumerate((("ide.0", 0), ("ide.0", 1), ("ide.1", 1)))
    )
    own = prepared(
        {"devices": disks, "drives": {"d0": {"file": str(image), "format": "raw"}}},
        disk_size=lambda drive: size,
    )
    args = ["-m", "256"]
    for n, (bus, unit) in enumerate((("ide.0", 0), ("ide.0", 1), ("ide.1", 1))):
        args += ["-drive", f"if=none,id=d{n},format=raw,readonly=off,file={image},file.locking=off"]
        args += ["-device", f"ide-hd,bus={bus},unit={unit},drive=d{n}"]
    with Qemu("pc-i440fx-2.0", *args) as qemu:
        cells = [0x12, 0x19, 0x1A, *range(0x1B, 0x2D), 0x39]
        assert {hex(n): own.cells.get(n, 0) for n in cells} == {hex(n): qemu.cmos(n) for n in cells}


@pytest.mark.parametrize("bus", ["ide.0", "ide.1"])
@pytest.mark.parametrize("unit", [0, 1])
def test_boot_path_of_a_disk_equals_qemus(bus: str, unit: int) -> None:
    disk = {"id": "disk", "driver": "ide-cd", "bus": bus, "unit": unit, "bootindex": 1}
    own = prepared({"devices": (disk,)})
    with Qemu("pc-i440fx-2.0", "-device", f"ide-cd,bus={bus},unit={unit},bootindex=1") as qemu:
        assert own.files["bootorder"] == qemu.file("bootorder")


def test_option_rom_of_the_type_is_qemus(tmp_path: Any) -> None:
    with Qemu("pc-i440fx-2.0", "-m", "256") as qemu:
        assert images.load_rom("kvmvapic.bin").data == qemu.file("genroms/kvmvapic.bin")


@pytest.mark.kvm
@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm")
def test_memory_map_under_kvm_equals_qemus() -> None:
    own = prepared({"memory": 5 * GIB}, kvm=True)
    with Qemu("pc-i440fx-2.0", "-m", "5G", accel="kvm") as qemu:
        assert own.files["etc/e820"] == qemu.file("etc/e820")
        assert list(own.files) == list(qemu.files())
