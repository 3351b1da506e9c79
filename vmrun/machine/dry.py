"""A machine built without a processor and without touching the host: for views and for tests of the hardware alone."""

from __future__ import annotations

from vmrun.backends.protocols import BlockBackend
from vmrun.errors import BackendError
from vmrun.firmware import parts
from vmrun.machine.builder import build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.drive import Drive
    from vmrun.config.sections import DeviceRow, Firmware, MachineData
    from vmrun.machine.machine import Machine


FLASH = 1 << 20  # bytes of a flash whose image is not read


class BlankDrive(BlockBackend):
    """Stands for an image that nobody opened: as large as it says, all zeros."""

    def __init__(self, size: int, cdrom: bool = False) -> None:
        self.set_size(size)
        self.cdrom, self.write_cache = cdrom, True

    def read_bytes(self, offset: int, count: int) -> bytes:
        return bytes(count)


def build_dry(config: MachineData, blank: int = 0, files: bool = True) -> Machine:
    """The machine on no accelerator; chardevs and netdevs lead nowhere, images are not opened, memory is not filled.

    blank: bytes of every disk; 0 for the sizes of the images. files: read firmware, option ROMs and kernel; without
    them the machine has a firmware of zeros.
    """
    bios = None
    if not files:
        from vmrun.firmware.images import Image

        config, bios, blank = _without_files(config), Image("none", "", bytes(0x10000)), blank or 1 << 30
    plain: MachineData = {**config, "chardevs": {name: {"type": "null"} for name in config["chardevs"]}}
    plain["netdevs"] = {
        name: {"type": "blank", "queues": spec.get("queues"), "fds": spec.get("fds")}
        for name, spec in config["netdevs"].items()
    }
    drives: dict[str, Any] = {
        name: BlankDrive(_blank(spec, blank), spec.get("media") == "cdrom") for name, spec in config["drives"].items()
    }
    for name in flash_drives(config):  # what is in it is the firmware
        drives[name] = peek(name, config["drives"][name]) if files else BlankDrive(FLASH)
    return build(plain, accel=["qtest"], drives=drives, bios=bios)


def _blank(spec: dict[str, Any], size: int) -> int:
    empty = spec.get("media", "disk") != "disk" and not spec.get("file")
    return 0 if empty else size or _size(spec)


def flash_drives(config: MachineData) -> list[str]:
    """Ids of the drives that are in flash."""
    found = [str(device["props"].get("drive")) for device in parts.with_driver(config, "cfi.pflash01")]
    return [name for name in found if name in config["drives"]]


def _without_files(config: MachineData) -> MachineData:
    """The machine without what is read from the host."""
    devices: list[DeviceRow] = [
        {**device, "props": {**device["props"], "romfile": ""}} if "romfile" in device["props"] else device
        for device in config["devices"]
    ]
    own = {name: given for name, given in config["firmware"].get("files", {}).items() if "string" in given}
    firmware: Firmware = {**config["firmware"], "bios": "bios.bin", "option-roms": [], "roms": [], "files": own}
    firmware["acpi-tables"] = []
    smbios = {kind: given for kind, given in config["smbios"].items() if kind != "files"}
    return {**config, "kernel": None, "devices": devices, "firmware": firmware, "smbios": smbios}


def peek(id: str, spec: dict[str, Any]) -> Drive:
    """The drive, opened for reading beside whoever has it. BackendError."""
    from accel.api import DeviceLock

    from vmrun.backends.block import open_drive

    return open_drive(id, {**spec, "readonly": True, "snapshot": False, "locking": "off"}, DeviceLock())


def _size(spec: dict[str, Any]) -> int:
    """Bytes of an image in whole sectors; 1 GiB when it cannot be had."""
    import os
    import stat

    if spec.get("format", "raw") not in ("raw", "auto"):
        try:
            drive = peek("", spec)
        except BackendError:
            return 1 << 30
        size = (int(drive.size) + 511) & ~511
        drive.close()
        return size
    try:
        info = os.stat(spec["file"])
        size = _device_size(spec["file"]) if stat.S_ISBLK(info.st_mode) else info.st_size
        return (size + 511) & ~511
    except (OSError, KeyError, TypeError, ValueError):
        return 1 << 30


def _device_size(path: str) -> int:
    import os

    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)
