"""Stock Linux on soft and virtio-net's cable; what its driver moves is in test_stock_drivers.py."""

from __future__ import annotations

import pathlib

import pytest

from tests.guest.linux import LinuxGuest, kernel
from tests.guest.network import UP, with_network
from vmrun.machine import network

pytestmark = [pytest.mark.guest, pytest.mark.slow]

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
