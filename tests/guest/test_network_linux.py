"""Stock Linux on soft and its network drivers: an address by DHCP from the user network, 16 MiB each way."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, kernel
from tests.guest.network import BOTH_WAYS, UP, VIRTIO, Peer, run, with_network
from vmrun.machine import network

pytestmark = [pytest.mark.guest, pytest.mark.slow]

HOTPLUG = VIRTIO
KINDS = [
    pytest.param("pc-i440fx-2.0", {}, id="legacy"),
    pytest.param("pc-i440fx-7.2", {}, id="transitional", marks=pytest.mark.long),
    pytest.param("pc-i440fx-7.2", {"disable-legacy": "on"}, id="modern"),
    pytest.param("pc-i440fx-7.2", {"disable-legacy": "on", "packed": True}, id="packed"),
    pytest.param(
        "pc-i440fx-7.2",
        {"mrg_rxbuf": False, "guest_tso4": False, "csum": False, "vectors": 0},
        id="plain",
        marks=pytest.mark.long,
    ),
]


@pytest.mark.parametrize(("machine", "props"), KINDS)
def test_linux_moves_16_mib_each_way_by_virtio_net(machine: str, props: dict[str, Any], tmp_path: pathlib.Path) -> None:
    peer = Peer()
    script = UP.format() + BOTH_WAYS.format(source=peer.source, sink=peer.sink)
    text, wrong = run(tmp_path, script, {"driver": "virtio-net-pci", **props}, machine=machine)
    peer.close()
    assert "LEASE eth0 10.0.2.15 10.0.2.2 10.0.2.3" in text, text[-3000:]
    assert f"CAME {peer.digest}" in text, text[-3000:]
    assert peer.got == peer.digest
    assert wrong == []


LINK = """
cat /sys/class/net/eth0/carrier
echo READY
n=0
while [ "$(cat /sys/class/net/eth0/carrier)" = 1 ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
echo DOWN
while [ "$(cat /sys/class/net/eth0/carrier)" = 0 ] && [ $n -lt 1200 ]; do sleep 0.1; n=$((n + 1)); done
echo UP
busybox udhcpc -q -n -f -t 10 -T 2 -i eth0 -s /lease 2>/dev/null && echo AGAIN
"""


def test_linux_sees_the_cable_come_and_go_and_has_two_cards(tmp_path: pathlib.Path) -> None:
    cards = [{"id": f"net{n}", "driver": "virtio-net-pci", "netdev": f"lan{n}", "romfile": ""} for n in range(2)]
    netdevs = {f"lan{n}": {"type": "user", "net": f"10.0.{2 + n}.0/24"} for n in range(2)}
    with LinuxGuest(
        tmp_path, "soft", "quiet", machine="pc-i440fx-7.2", kernel=kernel(False),
        initrd=with_network(tmp_path, UP.format() + LINK), netdevs=netdevs, devices=cards,
    ) as guest:  # fmt: skip
        machine = guest.machine
        assert guest.run_until(lambda: "READY" in guest.console(), 200)
        network.set_link(machine, "net0", False)
        assert guest.run_until(lambda: "DOWN" in guest.console(), 100)
        network.set_link(machine, "net0", True)
        guest.run_to_end(200)
        text, wrong = guest.console(), guest.complaints()
    assert "LEASE eth0 10.0.2.15" in text and "LEASE eth1 10.0.3.15" in text, text[-2000:]
    assert "UP" in text and "AGAIN" in text and wrong == []


COMES = """
echo READY
n=0
while [ ! -e /sys/class/net/eth0 ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
busybox ip link set eth0 up
busybox udhcpc -q -n -f -t 10 -T 2 -i eth0 -s /lease 2>/dev/null || echo NO-LEASE
echo USED
while [ -e /sys/class/net/eth0 ] && [ $n -lt 1200 ]; do sleep 0.1; n=$((n + 1)); done
[ -e /sys/class/net/eth0 ] || echo GONE
sleep 5
"""


def test_a_card_is_plugged_in_and_out(tmp_path: pathlib.Path) -> None:
    with LinuxGuest(
        tmp_path, "soft", "quiet", machine="pc-i440fx-7.2", kernel=kernel(False),
        initrd=with_network(tmp_path, COMES, HOTPLUG), netdevs={},
    ) as guest:  # fmt: skip
        machine = guest.machine
        assert guest.run_until(lambda: "READY" in guest.console(), 200)
        network.add(machine, "lan", {"type": "user"})
        machine.plug({"driver": "virtio-net-pci", "id": "net0", "netdev": "lan", "romfile": ""})
        assert guest.run_until(lambda: "USED" in guest.console(), 200)
        machine.unplug(machine.devices["net0"])
        assert guest.run_until(lambda: "net0" not in machine.devices, 200)
        guest.run_to_end(200)
        text = guest.console()
        assert "LEASE eth0 10.0.2.15" in text and "GONE" in text, text[-2000:]
        network.remove(machine, "lan")
        assert machine.board.netdevs == {} and machine.config["netdevs"] == {}
