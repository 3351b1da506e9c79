"""Stock Linux's drivers on network cards of old: an address by DHCP, 16 MiB each way, two cards, the cable pulled."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, kernel
from tests.guest.machines import Guest
from tests.guest.network import BOTH_WAYS, UP, VIRTIO, Peer, run, with_network
from tests.guest.test_snapshot import go_on
from vmrun.machine import network, snapshot

pytestmark = [pytest.mark.guest, pytest.mark.slow]

NET = "drivers/net/ethernet"
MODULES = {
    "i82559c": ("drivers/net/mii", f"{NET}/intel/e100"),
    "e1000e": (f"{NET}/intel/e1000e/e1000e",),
    "vmxnet3": ("drivers/net/vmxnet3/vmxnet3",),
    "e1000": (f"{NET}/intel/e1000/e1000",),
    "e1000-82544gc": (f"{NET}/intel/e1000/e1000",),
    "e1000-82545em": (f"{NET}/intel/e1000/e1000",),
    "rtl8139": ("drivers/net/mii", f"{NET}/realtek/8139cp", f"{NET}/realtek/8139too"),
    "pcnet": ("drivers/net/mii", f"{NET}/amd/pcnet32"),
    "ne2k_pci": (f"{NET}/8390/8390", f"{NET}/8390/ne2k-pci"),
}

SOME = ["e1000", *(pytest.param(name, marks=pytest.mark.long) for name in ("e1000e", "vmxnet3", "i82559c", "pcnet"))]


def cards(drivers: list[str]) -> dict[str, Any]:
    """Each on a network of its own."""
    nets = {f"lan{n}": {"type": "user", "net": f"10.0.{2 + n}.0/24"} for n in range(len(drivers))}
    rows = [
        {"id": f"net{n}", "driver": driver, "netdev": f"lan{n}", "mac": f"52:54:00:00:01:{n:02x}"}
        for n, driver in enumerate(drivers)
    ]
    return {"cards": rows, "netdevs": nets}


def test_linux_has_a_card_of_each_kind_at_once(tmp_path: pathlib.Path) -> None:
    drivers = ["e1000", "rtl8139", "pcnet", "ne2k_pci", "e1000e", "vmxnet3", "i82559c"]
    modules = tuple(dict.fromkeys(module for driver in drivers for module in MODULES[driver]))
    peer = Peer(1 << 20)
    script = UP.format() + BOTH_WAYS.format(source=peer.source, sink=peer.sink)
    keys = cards(drivers)
    for name, net in keys["netdevs"].items():
        net["capture"] = str(tmp_path / f"{name}.pcap")
    text, wrong = run(tmp_path, script, {}, modules=modules, machine="pc-i440fx-7.2", **keys)
    peer.close()
    for n in range(len(drivers)):
        assert f".{2 + n}.15 10.0.{2 + n}.2 10.0.{2 + n}.3" in text, text[-3000:]
    assert f"CAME {peer.digest}" in text and peer.got == peer.digest, text[-3000:]
    assert wrong == []
    tshark = shutil.which("tshark")
    for name in keys["netdevs"] if tshark is not None else ():
        words = [tshark, "-r", str(tmp_path / f"{name}.pcap"), "-T", "fields", "-e", "frame.protocols"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "malformed" not in done.stdout and "dhcp" in done.stdout, done.stdout[-2000:]


PLUGGED = """
busybox mkdir -p /tmp
n=0
while [ $n -lt {count} ]; do
  echo READY $n
  until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done
  busybox ip link set eth0 up
  busybox udhcpc -q -n -f -t 10 -T 2 -i eth0 -s /lease 2>/dev/null || echo NO-LEASE $n
  for try in 1 2 3 4 5; do  # the guest's idle seconds are the host's milliseconds
    busybox ping -c 3 -W 3 10.0.2.2 | grep "3 packets received" && break
  done
  echo USED $n $(busybox readlink /sys/class/net/eth0/device/driver)
  while [ -e /sys/class/net/eth0 ]; do sleep 0.1; done
  n=$((n + 1))
done
echo READY $n
sleep 5
"""
PLUGGABLE = {  # driver → Linux's name of its own
    "virtio-net-pci": "virtio_net", "e1000": "e1000", "e1000-82545em": "e1000", "e1000e": "e1000e",
    "vmxnet3": "vmxnet3", "i82559c": "e100", "rtl8139": "8139cp", "pcnet": "pcnet32", "ne2k_pci": "ne2k-pci",
}  # fmt: skip


def test_linux_uses_each_card_that_is_plugged_in_and_lets_it_go(tmp_path: pathlib.Path) -> None:
    drivers = [*PLUGGABLE]
    modules = (*VIRTIO, *dict.fromkeys(module for driver in drivers for module in MODULES.get(driver, ())))
    initrd = with_network(tmp_path, PLUGGED.format(count=len(drivers)), modules)
    keys = {"netdevs": {}, "kernel": kernel(False), "initrd": initrd}
    with LinuxGuest(tmp_path, "soft", "quiet", machine="pc-i440fx-7.2", **keys) as guest:
        machine = guest.machine
        for n, driver in enumerate(drivers):
            assert guest.run_until(lambda n=n: f"READY {n}\n" in guest.console(), 200.0), guest.console()[-2000:]
            network.add(machine, f"lan{n}", {"type": "user"})
            machine.plug({"driver": driver, "id": f"net{n}", "netdev": f"lan{n}", "romfile": ""})
            assert guest.run_until(lambda n=n: f"USED {n} " in guest.console(), 200.0), guest.console()[-2000:]
            machine.unplug(machine.devices[f"net{n}"])
            assert guest.run_until(lambda n=n: f"net{n}" not in machine.devices, 200.0), guest.console()[-2000:]
            network.remove(machine, f"lan{n}")
        guest.run_to_end(200.0)
        text = guest.console()
        assert machine.board.netdevs == {}
        assert guest.complaints() == []
    assert text.count("LEASE eth0 10.0.2.15") == len(drivers) and "NO-LEASE" not in text, text[-3000:]
    assert text.count("3 packets received") == len(drivers)
    for n, name in enumerate(PLUGGABLE.values()):
        assert re.search(rf"USED {n} \S+/{name}\n", text), text[-3000:]


FLOWS = """
busybox ip link set lo up
busybox ip link set eth0 up
busybox ip addr add 10.0.2.15/24 dev eth0
n=0
while [ $n -lt 24 ]; do busybox nc 10.0.2.2 {source} < /dev/null > /dev/null; n=$((n + 1)); done
grep eth0 /proc/interrupts
"""


def test_vmxnet3_spreads_flows_over_its_queues(tmp_path: pathlib.Path) -> None:
    """Receive-side scaling: the driver has a queue for each processor, the hash of a flow chooses one."""
    peer = Peer(64 << 10)
    text, wrong = run(
        tmp_path, FLOWS.format(source=peer.source), {}, modules=MODULES["vmxnet3"], machine="pc-i440fx-7.2",
        cpus={"count": 2}, **cards(["vmxnet3"]),
    )  # fmt: skip
    peer.close()
    counts = [sum(map(int, row.split()[1:3])) for row in text.splitlines() if "eth0-rxtx-" in row]
    assert len(counts) == 2 and min(counts) > 20, text[-3000:]
    assert wrong == []


WATCH = (
    UP
    + """
echo READY
n=0
while [ $(cat /sys/class/net/eth0/carrier) = 1 ] && [ $n -lt 300 ]; do busybox sleep 0.1; n=$((n + 1)); done
echo CARRIER $(cat /sys/class/net/eth0/carrier)
while [ $(cat /sys/class/net/eth0/carrier) = 0 ] && [ $n -lt 600 ]; do busybox sleep 0.1; n=$((n + 1)); done
echo CARRIER $(cat /sys/class/net/eth0/carrier)
"""
)


@pytest.mark.parametrize("driver", SOME)
def test_linux_sees_the_cable_pulled_and_put_back(driver: str, tmp_path: pathlib.Path) -> None:
    initrd = with_network(tmp_path, WATCH.format(), MODULES[driver])
    one = cards([driver])
    keys = {"netdevs": one["netdevs"], "devices": one["cards"], "kernel": kernel(False), "initrd": initrd}
    with LinuxGuest(tmp_path, "soft", "quiet", machine="pc-i440fx-7.2", **keys) as guest:
        for up, said in ((False, "READY"), (True, "CARRIER 0")):
            assert guest.run_until(lambda said=said: f"{said}\n" in guest.console(), 200.0), guest.console()[-2000:]
            with guest.machine.board.lock:
                guest.machine.devices["net0"].set_link(up)
        guest.run_to_end(200.0)
        assert "CARRIER 1\n" in guest.console(), guest.console()[-2000:]
        assert guest.complaints() == []


@pytest.mark.parametrize("driver", SOME)
def test_a_card_goes_on_in_the_middle_of_traffic(driver: str, tmp_path: pathlib.Path) -> None:
    """Pings while the machine is saved, and loaded by another process."""
    script = UP.format() + "busybox ping -c 300 -i 0.1 -W 3 10.0.2.2 > /tmp/pings\nbusybox tail -n 3 /tmp/pings\n"
    initrd = with_network(tmp_path, script, MODULES[driver])
    one = cards([driver])
    keys = {"netdevs": one["netdevs"], "devices": one["cards"], "kernel": kernel(False), "initrd": initrd}
    path = str(tmp_path / "saved.vm")
    with LinuxGuest(tmp_path, "soft", "quiet", machine="pc-i440fx-7.2", **keys) as guest:
        assert guest.run_until(lambda: "LEASE eth0" in guest.console(), 200.0), guest.console()[-2000:]
        guest.run_until(lambda: False, 1.0)
        guest.machine.pause()
        snapshot.save(guest.machine, path, "running")
    reason, text = go_on(path, "soft", "serial", "")
    assert reason == "shutdown"
    assert "300 packets transmitted, 300 packets received" in text, text[-2000:]


SCRIPT = "#!ipxe\necho VMRUN SCRIPT OF ${net0/ip}\nsleep 60\n"


@pytest.mark.parametrize("driver", ["e1000", "rtl8139", "pcnet", "ne2k_pci", "i82559c", "e1000e", "vmxnet3"])
def test_a_card_s_option_rom_boots_from_the_network(driver: str, tmp_path: pathlib.Path) -> None:
    """SeaBIOS finds the ROM, iPXE drives the card, TFTP gives it a script."""
    (tmp_path / "boot.ipxe").write_text(SCRIPT)
    lan = {"type": "user", "tftp": str(tmp_path), "bootfile": "boot.ipxe"}
    card = {"id": "net0", "driver": driver, "netdev": "lan", "bootindex": 0}
    keys: dict[str, Any] = {"netdevs": {"lan": lan}, "devices": [card], "display": "std", "memory": "128MiB"}
    with Guest(tmp_path, "soft", machine="pc-i440fx-7.2", **keys) as guest:
        found = guest.run_until(lambda: "VMRUN SCRIPT OF 10.0.2.15" in guest.screen(), 120.0)
        assert found, guest.screen()
