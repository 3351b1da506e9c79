"""What a machine publishes to its firmware, twice: vmrun's for a machine file, and QEMU's for the same command line."""

from __future__ import annotations

import functools
import json
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.peers.asl import split
from tests.peers.oracle import Qemu
from vmrun import firmware
from vmrun.config.resolve import sketch_file
from vmrun.firmware import acpi
from vmrun.firmware.parts import processor_of
from vmrun.machine.cpuid import make_cpuid

VERSIONS = (
    *("1.4", "1.5", "1.6", "1.7", "2.0", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8", "2.9", "2.10", "2.11"),
    *("2.12", "3.0", "3.1", "4.0", "4.1", "4.2", "5.0", "5.1", "5.2", "6.0", "6.1", "6.2", "7.0", "7.1", "7.2"),
)
# QEMU keeps the size that this type's tables once had, which cuts a bridge's description off; ours are whole. And a
# guest of this type cannot write to fw_cfg, and has no memory slots.
CUT = {
    ("pc-i440fx-1.7", "memory-slots"),
    *(("pc-i440fx-2.0", case) for case in ("bridges", "error-records", "generation", "memory-slots")),
}
TYPES = tuple(f"pc-i440fx-{version}" for version in VERSIONS)
WITH_TABLES = TYPES[3:]  # the older ones leave ACPI to the firmware
# of those, what the type has not at all
LACKING = {case for case in CUT if case[1] != "bridges"}
NAMED = tuple(f"pc-i440fx-{version}" for version in ("2.0", "2.6", "5.1", "7.2"))

ALL_DEVICES: list[dict[str, Any]] = [
    {"id": "v", "driver": "VGA", "bus": "pci.0", "addr": "02.0", "romfile": ""},
    {"id": "n", "driver": "e1000", "bus": "pci.0", "addr": "03.0", "romfile": ""},
    {"id": "s1", "driver": "isa-serial", "chardev": "a"},
    {"id": "s2", "driver": "isa-serial", "chardev": "b", "iobase": 0x2F8, "irq": 3},
    {"id": "p", "driver": "isa-parallel", "chardev": "c"},
    {"id": "pv", "driver": "pvpanic"},
]
ALL_ARGS = [
    *("-device", "VGA,addr=2,romfile=", "-device", "e1000,addr=3,romfile="),
    *("-serial", "null", "-serial", "null", "-parallel", "null", "-device", "pvpanic"),
]

GUID = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"

GENERATION = [{"id": "g", "driver": "vmgenid", "guid": GUID}, {"id": "c", "driver": "vmcoreinfo"}]

# name → (keys of the machine file, QEMU's arguments). System management mode is off in both unless a case says so:
# vmrun's board has none.
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": ({}, []),
    "full": (
        {"memory": "5GiB", "cpus": {"count": 2, "maxcpus": 4}, "devices": ALL_DEVICES},
        ["-m", "5G", "-smp", "2,maxcpus=4", *ALL_ARGS],
    ),
    "topology": (
        {"cpus": {"count": 12, "sockets": 2, "cores": 3, "threads": 2}},
        ["-smp", "12,sockets=2,cores=3,threads=2"],
    ),
    "64-processors": ({"cpus": {"count": 64, "sockets": 64}}, ["-smp", "64,sockets=64"]),
    "no-hpet": ({"devices": [{"id": "hpet", "remove": True}]}, ["-M", "hpet=off"]),
    "no-sleep": (
        {"globals": {"PIIX4_PM": {"disable_s3": 1, "disable_s4": 1}}},
        ["-global", "PIIX4_PM.disable_s3=1", "-global", "PIIX4_PM.disable_s4=1"],
    ),
    "no-slots": (
        {"globals": {"PIIX4_PM": {"acpi-root-pci-hotplug": False}}, "devices": ALL_DEVICES},
        ["-global", "PIIX4_PM.acpi-root-pci-hotplug=off", *ALL_ARGS],
    ),
    "no-hot-plug": (
        {"globals": {"PIIX4_PM": {"acpi-root-pci-hotplug": False, "acpi-pci-hotplug-with-bridge-support": False}}},
        [
            *("-global", "PIIX4_PM.acpi-root-pci-hotplug=off"),
            *("-global", "PIIX4_PM.acpi-pci-hotplug-with-bridge-support=off"),
        ],
    ),
    "numa": (
        {
            "memory": "6GiB",
            "cpus": {"count": 2, "sockets": 4, "maxcpus": 4},
            "numa": [
                {"memory": "2GiB", "cpus": [0, 1], "distances": [10, 21]},
                {"memory": "4GiB", "cpus": [2, 3], "distances": [21, 10]},
            ],
        },
        [
            *("-m", "6G", "-smp", "2,sockets=4,maxcpus=4", "-numa", "node,memdev=a,cpus=0-1"),
            *("-object", "memory-backend-ram,id=a,size=2G,reserve=off", "-numa", "node,memdev=b,cpus=2-3"),
            *("-object", "memory-backend-ram,id=b,size=4G,reserve=off", "-numa", "dist,src=0,dst=1,val=21"),
        ],
    ),
    "bridges": (
        {
            "devices": [
                {"id": "a", "driver": "pci-bridge", "chassis_nr": 1, "addr": "05.0"},
                {"id": "b", "driver": "pci-bridge", "chassis_nr": 2, "addr": "04.0"},
                {"id": "c", "driver": "pci-bridge", "chassis_nr": 3, "bus": "a", "addr": "02.0"},
                {"id": "d", "driver": "pci-testdev", "bus": "c", "addr": "07.0"},
            ]
        },
        [
            *("-device", "pci-bridge,id=a,chassis_nr=1,addr=5", "-device", "pci-bridge,id=b,chassis_nr=2,addr=4"),
            *("-device", "pci-bridge,id=c,chassis_nr=3,bus=a,addr=2", "-device", "pci-testdev,bus=c,addr=7"),
        ],
    ),
    "floppies": ({"floppies": ["empty", "empty"]}, ["-drive", "if=floppy", "-drive", "if=floppy,index=1"]),
    "memory-slots": (
        {"memory": "5GiB", "memory-slots": {"count": 3, "maxmem": "8GiB"}},
        ["-m", "5G,slots=3,maxmem=8G"],
    ),
    "generation": (
        {"devices": GENERATION},
        ["-device", f"vmgenid,guid={GUID}", "-device", "vmcoreinfo"],
    ),
    "management": (
        {
            "devices": [
                {"id": "b", "driver": "ipmi-bmc-sim"},
                {"id": "k", "driver": "isa-ipmi-kcs", "bmc": "b"},
                {"id": "c", "driver": "ipmi-bmc-sim", "slave_addr": 0x22},
                {"id": "t", "driver": "isa-ipmi-bt", "bmc": "c", "irq": 0},
            ]
        },
        [
            *("-device", "ipmi-bmc-sim,id=b", "-device", "isa-ipmi-kcs,bmc=b"),
            *("-device", "ipmi-bmc-sim,id=c,slave_addr=0x22", "-device", "isa-ipmi-bt,bmc=c,irq=0"),
        ],
    ),
    "error-records": (
        {
            "objects": {"m": {"type": "memory-backend-ram", "size": "64KiB"}},
            "devices": [{"id": "e", "driver": "acpi-erst", "memdev": "m", "addr": "04.0"}, *GENERATION],
        },
        [
            *("-object", "memory-backend-ram,id=m,size=64K", "-device", "acpi-erst,memdev=m,addr=4"),
            *("-device", f"vmgenid,guid={GUID}", "-device", "vmcoreinfo"),
        ],
    ),
    "smm": ({"globals": {"PIIX4_PM": {"smm-enabled": True}}}, ["-M", "smm=on"]),
}

# files that devices bring, as they are before a guest writes to them
DEVICES_OWN = {
    "pvpanic": {"etc/pvpanic-port": b"\x05\x05"},
    "vmgenid": {
        "etc/vmgenid_guid": bytes(40) + uuid.UUID(GUID).bytes_le + bytes(4096 - 56),
        "etc/vmgenid_addr": bytes(8),
    },
    "vmcoreinfo": {"etc/vmcoreinfo": b"\1" + bytes(15)},
}


class Published:
    """files: contents by name (of QEMU's ACPI tables only as much as is used). sizes: as the directory says."""

    def __init__(self, files: dict[str, bytes], sizes: dict[str, int], items: dict[int, bytes]) -> None:
        self.files, self.sizes, self.items = files, sizes, items

    @property
    def tables(self) -> dict[str, bytes]:
        return split(self.files[acpi.TABLES])


@functools.cache
def config(type_name: str, case: str = "plain") -> dict[str, Any]:
    keys = CASES[case][0]
    removed = {row["id"] for row in keys.get("devices", ()) if row.get("remove")}
    rows = [row for row in keys.get("devices", ()) if not row.get("remove")]
    chardevs = {row["chardev"]: {"type": "null"} for row in rows if "chardev" in row}
    file = {"memory": "256MiB", "display": "none", **keys, "devices": rows, "chardevs": chardevs}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "machine.json"
        path.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": type_name, **file}))
        found = dict(sketch_file(str(path)).data)
    found["devices"] = [device for device in found["devices"] if device["id"] not in removed]
    return found


class _Receiver:
    """Stands where the fw_cfg device and the clock are."""

    def __init__(self) -> None:
        self.items: dict[int, bytes] = {}
        self.files: dict[str, bytes] = {}

    def add_bytes(self, key: int, data: bytes) -> None:
        self.items[key] = data

    def set_order(self, by_name: bool) -> None:
        pass

    def add_file(self, name: str, data: bytes, callback: Any = None, order: int = 0) -> None:
        self.files[name] = data

    def set_cmos(self, index: int, value: int) -> None:
        pass


def own(machine: dict[str, Any]) -> Published:
    """vmrun's, with the processors that the model says, whatever an accelerator would take from it."""
    receiver = _Receiver()
    cpuid = make_cpuid(machine["cpus"], machine["cpus"]["model-data"], 0, [])
    files: dict[str, bytes] = {}
    for device in machine["devices"]:
        files |= DEVICES_OWN.get(device["driver"], {})
    firmware.prepare(None, receiver, receiver, machine, processor=processor_of(cpuid.entries), files=files)
    return Published(receiver.files, {name: len(data) for name, data in receiver.files.items()}, receiver.items)


@functools.cache
def theirs(type_name: str, *args: str, smm: str = "off") -> Published:
    """QEMU's, after what SeaBIOS does before it fetches the tables: power management registers at 0x600."""
    with Qemu(f"{type_name},smm={smm}", "-m", "256", *args) as qemu:
        qemu.pci_write(1, 3, 0x40, 0x601)
        qemu.pci_write(1, 3, 0x80, 1, 1)
        found: dict[str, bytes] = {}
        directory = qemu.files()
        for name, (key, size) in directory.items():
            if name == acpi.TABLES:
                found[name] = _used(qemu, key, size)
            elif name != acpi.LOADER and not name.startswith(("genroms/", "vgaroms/")):
                found[name] = qemu.fw_cfg(key, size)
        items = {key: qemu.fw_cfg(key, 512) for key in (0x01, 0x02, 0x0D, 0x0F, 0x8000, 0x8001, 0x8004)}
    return Published(found, {name: size for name, (_, size) in directory.items()}, items)


def theirs_in(type_name: str, case: str) -> Published:
    args = CASES[case][1]
    return theirs(type_name, *args, smm="on" if case == "smm" else "off")


def _used(qemu: Qemu, key: int, size: int) -> bytes:
    """The tables, which are a small part of their file: read on until the last one, RSDT, is whole."""
    most = 8192
    while True:
        data = qemu.fw_cfg(key, min(most, size))
        found = split(data)
        last = found.get("RSDT", b"")
        if most >= size or (len(last) >= 8 and len(last) == int.from_bytes(last[4:8], "little")):
            return data
        most *= 2
