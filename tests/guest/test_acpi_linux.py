"""What Linux makes of the tables: on soft, from the old and the new forms of them."""

from __future__ import annotations

import pathlib
import re
import subprocess

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.peers.oracle import QEMU, needs_qemu

pytestmark = [pytest.mark.guest]
PATIENCE = 400.0
COMPLAINT = re.compile(r"ACPI.*(Error|Warning|Exception|BIOS bug)|Firmware Bug|DMI: not present|can't find|AE_[A-Z_]+")
SCRIPT = """
for device in /sys/bus/acpi/devices/*; do
  echo ACPI-DEVICE $(cat $device/path) hid=$(cat $device/hid 2>/dev/null) status=$(cat $device/status 2>/dev/null)
done
for name in sys_vendor product_name product_version product_serial chassis_version; do
  echo DMI-$name=$(cat /sys/class/dmi/id/$name)
done
"""
SERIAL = "A-4711"


def found(text: str) -> set[str]:
    """The devices that Linux found in the name space."""
    return set(re.findall(r"^ACPI-DEVICE (.*)", text, re.M))


def booted(type_name: str, directory: pathlib.Path) -> str:
    settings = {"machine": type_name, "cpus": {"count": 2}, "smbios": {"type1": {"serial": SERIAL}}}
    initrd = initramfs(directory, SCRIPT)
    with LinuxGuest(directory, "soft", kernel=kernel(), initrd=initrd, **settings) as guest:
        assert guest.run_to_end(PATIENCE) == "shutdown"
        return guest.console()


@pytest.mark.parametrize("type_name", ["pc-i440fx-2.6", "pc-i440fx-5.1", "pc-i440fx-7.2"])
def test_linux_has_nothing_to_say_against_the_tables(type_name: str, tmp_path: pathlib.Path) -> None:
    text = booted(type_name, tmp_path)
    assert [line for line in text.splitlines() if COMPLAINT.search(line)] == []
    assert "GUEST-UP 2\n" in text and "ACPI: Interpreter enabled" in text
    assert [line.split("status=")[1] for line in found(text) if "hid=LNXCPU" in line] == ["15", "15"]
    facts = dict(re.findall(r"^DMI-(\w+)=(.*)", text, re.M))
    assert facts == {
        "sys_vendor": "QEMU",
        "product_name": "Standard PC (i440FX + PIIX, 1996)",
        "product_version": type_name,
        "product_serial": SERIAL,
        "chassis_version": type_name,
    }


@needs_qemu
@pytest.mark.peer
@pytest.mark.slow
def test_linux_finds_the_devices_that_it_finds_in_qemu(tmp_path: pathlib.Path) -> None:
    ours = booted("pc-i440fx-7.2", tmp_path)
    log = tmp_path / "qemu.log"
    command = [QEMU or "", "-M", "pc-i440fx-7.2,smm=off", "-accel", "tcg", "-m", "256", "-smp", "2", "-nodefaults"]
    command += ["-display", "none", "-no-reboot", "-serial", f"file:{log}", "-smbios", f"type=1,serial={SERIAL}"]
    command += ["-kernel", kernel(), "-initrd", str(tmp_path / "initramfs.cpio"), "-append", "console=ttyS0 panic=-1"]
    subprocess.run(command, check=True, timeout=PATIENCE)
    theirs = found(log.read_text().replace("\r\n", "\n"))
    assert found(ours) == theirs
