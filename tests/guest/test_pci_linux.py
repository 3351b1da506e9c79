"""PCI as a stock Linux finds it on soft: bridges and what is behind them, cards that come and go by ACPI."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from vmrun.machine.processor import Processor

pytestmark = [pytest.mark.guest, pytest.mark.slow]
PATIENCE = 300.0

LIST = """
list() { for d in /sys/bus/pci/devices/*; do echo "$1 ${d##*/} $(cat $d/vendor) $(cat $d/device)"; done; }
"""
SHOW = LIST + "list FOUND; cat /proc/iomem; cat /proc/ioports"
COME_AND_GO = LIST + """
echo READY
n=0
while [ $n -lt 600 ]; do
  for d in /sys/bus/pci/devices/*; do
    [ $(cat $d/device) = 0x11e8 ] && [ -z "$seen" ] && seen=${d##*/} && list CAME && echo 1 > $d/enable && echo PLUGGED
  done
  [ -n "$seen" ] && [ ! -e /sys/bus/pci/devices/$seen ] && list LEFT && sleep 1 && break
  sleep 0.1
  n=$((n + 1))
done
"""
BRIDGES = [
    {"id": "outer", "driver": "i82801b11-bridge", "addr": "04.0"},
    {"id": "inner", "driver": "i82801b11-bridge", "bus": "outer", "addr": "02.0"},
    {"id": "near", "driver": "edu", "bus": "outer", "addr": "05.0"},
    {"id": "far", "driver": "pci-testdev", "bus": "inner", "addr": "01.0"},
]


def guest(directory: pathlib.Path, script: str, machine: str, devices: list[dict[str, str]]) -> LinuxGuest:
    initrd = initramfs(directory, script)
    return LinuxGuest(directory, "soft", "quiet", machine=machine, kernel=kernel(), initrd=initrd, devices=devices)


def found(text: str, word: str) -> dict[str, str]:
    """address → vendor:device, as listed under a word."""
    rows = re.findall(rf"^{word} (\S+) 0x(\w+) 0x(\w+)$", text, re.M)
    return {address: f"{vendor}:{device}" for address, vendor, device in rows}


def test_linux_finds_cards_behind_two_bridges(tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, SHOW, "pc-i440fx-2.0", BRIDGES) as pc:
        pc.run_to_end(PATIENCE)
        text = pc.console()
        wrong = pc.complaints()
    cards = found(text, "FOUND")
    assert cards.get("0000:00:04.0") == "8086:244e" and cards.get("0000:01:02.0") == "8086:244e", text[-3000:]
    assert cards.get("0000:01:05.0") == "1234:11e8" and cards.get("0000:02:01.0") == "1b36:0005"
    assert len(re.findall(r"PCI Bus 0000:02|0000:02:01\.0", text)) >= 3  # windows and BARs have room
    assert wrong == []


@pytest.mark.parametrize(("machine", "bus"), [("pc-i440fx-2.0", ""), ("rhel6.3.0", "")])
def test_a_card_comes_and_goes_under_linux(machine: str, bus: str, tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, COME_AND_GO, machine, []) as pc:
        told: list[tuple[str, dict[str, object]]] = []
        pc.machine.listen(lambda name, **data: told.append((name, data)))
        pc.run_until(lambda: "READY" in pc.console(), PATIENCE)
        card = pc.machine.plug({"driver": "edu", "id": "card", **({"bus": bus} if bus else {})})
        pc.run_until(lambda: "PLUGGED" in pc.console(), PATIENCE)
        pc.machine.unplug(card)
        pc.run_to_end(PATIENCE)
        text = pc.console()
        wrong = pc.complaints()
    came, left = found(text, "CAME"), found(text, "LEFT")
    assert set(came) - set(left) == {f"0000:00:{int(card.addr[:2], 16):02x}.0"}, text[-3000:]
    assert ("DEVICE_DELETED", {"device": "card", "path": "/machine/peripheral/card"}) in told
    assert wrong == []


PROCESSOR = """
echo READY $(nproc)
n=0
while [ ! -e /sys/devices/system/cpu/cpu1 ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
sleep 0.5
[ $(cat /sys/devices/system/cpu/cpu1/online) = 1 ] || echo 1 > /sys/devices/system/cpu/cpu1/online
echo NOW $(nproc) $(grep ^apicid /proc/cpuinfo | sed "s/.*://")
"""
AND_GOES = PROCESSOR + """
n=0
while [ -e /sys/devices/system/cpu/cpu1 ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
echo LEFT $(nproc)
"""


@pytest.mark.parametrize("machine", ["pc-i440fx-2.0", "pc-i440fx-7.2"])
def test_a_processor_comes_under_linux(machine: str, tmp_path: pathlib.Path) -> None:
    """By the bitmap and by the registers."""
    initrd = initramfs(tmp_path, PROCESSOR)
    cpus = {"count": 1, "maxcpus": 4, "sockets": 4}
    with LinuxGuest(tmp_path, "soft", "quiet", machine=machine, kernel=kernel(), initrd=initrd, cpus=cpus) as pc:
        pc.run_until(lambda: "READY 1" in pc.console(), PATIENCE)
        pc.machine.plug_processor("second", 3)
        pc.run_to_end(PATIENCE)
        text = pc.console()
        wrong = pc.complaints()
    assert "\nNOW 2 0 3\n" in text, text[-3000:]
    assert wrong == []


def test_a_processor_goes_under_linux(tmp_path: pathlib.Path) -> None:
    """Linux takes it off line and ejects it."""
    initrd = initramfs(tmp_path, AND_GOES)
    cpus = {"count": 1, "maxcpus": 4, "sockets": 4}
    told: list[str] = []
    with LinuxGuest(
        tmp_path, "soft", "quiet", machine="pc-i440fx-7.2", kernel=kernel(), initrd=initrd, cpus=cpus
    ) as pc:
        pc.machine.listen(lambda name, **data: told.append(name))
        pc.run_until(lambda: "READY 1" in pc.console(), PATIENCE)
        pc.machine.plug_processor("second", 3)
        pc.run_until(lambda: "NOW 2" in pc.console(), PATIENCE)
        node = pc.machine.root.children["peripheral"].children["second"]
        assert isinstance(node, Processor)
        pc.machine.unplug_processor(node)
        pc.run_to_end(PATIENCE)
        text = pc.console()
        wrong = pc.complaints()
        left = len(pc.machine.accelerator.vcpus)
    assert "\nLEFT 1\n" in text, text[-3000:]
    assert "DEVICE_DELETED" in told and left == 1
    assert wrong == []
