"""Stock Linux's drivers on network cards of old: an address by DHCP, 16 MiB each way, two cards, the cable pulled."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, kernel
from tests.guest.machines import Guest
from tests.guest.network import BOTH_WAYS, UP, Peer, run, with_network
from tests.guest.test_snapshot import go_on
from vmrun.machine import snapshot

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
    text, wrong = run(tmp_path, script, {}, modules=modules, machine="pc-i440fx-7.2", **cards(drivers))
    peer.close()
    for n in range(len(drivers)):
        assert f".{2 + n}.15 10.0.{2 + n}.2 10.0.{2 + n}.3" in text, text[-3000:]
    assert f"CAME {peer.digest}" in text and peer.got == peer.digest, text[-3000:]
    assert wrong == []


@pytest.mark.long
@pytest.mark.parametrize("machine", ["rhel6.3.0", "pc-i440fx-7.2"])
@pytest.mark.parametrize("driver", MODULES)
def test_linux_moves_16_mib_each_way(driver: str, machine: str, tmp_path: pathlib.Path) -> None:
    peer = Peer()
    script = UP.format() + BOTH_WAYS.format(source=peer.source, sink=peer.sink)
    two = cards([driver, driver])
    text, wrong = run(tmp_path, script, {}, modules=MODULES[driver], machine=machine, **two)
    peer.close()
    assert "LEASE eth0 10.0.2.15 10.0.2.2 10.0.2.3" in text and "LEASE eth1 10.0.3.15" in text, text[-3000:]
    assert f"CAME {peer.digest}" in text and peer.got == peer.digest, text[-3000:]
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
    script = UP.format() + "busybox ping -c 60 -i 0.1 -W 3 10.0.2.2 > /tmp/pings\nbusybox tail -n 3 /tmp/pings\n"
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
    assert "60 packets transmitted, 60 packets received" in text, text[-2000:]


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
