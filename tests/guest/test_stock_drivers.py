"""Debian's stock drivers, each with two cards: an address for both by DHCP, 16 MiB each way by the first and 1 MiB by
the second with equal digests, the cable pulled and put back. A table, of which CI runs a part.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, kernel
from tests.guest.network import BOTH_WAYS, I386, UP, VIRTIO, Peer, with_network
from vmrun.machine import network

pytestmark = [pytest.mark.guest, pytest.mark.slow]

NET = "drivers/net/ethernet"
MII = "drivers/net/mii"
PLAIN_CHIP = 0x10  # a revision before the RTL8139C+: 8139too takes no card that 8139cp can drive


@dataclasses.dataclass(frozen=True)
class Stock:
    """A kernel's modules and the card that they drive. `senses`: the driver knows whether there is a cable."""

    driver: str
    modules: tuple[str, ...]
    props: dict[str, Any] = dataclasses.field(default_factory=dict)
    machine: str = "pc-i440fx-7.2"
    senses: bool = True
    second: dict[str, Any] = dataclasses.field(default_factory=dict)
    pae: bool = False
    long: bool = True


VIRTIO_PLAIN = {"mrg_rxbuf": False, "guest_tso4": False, "csum": False, "vectors": 0}
STOCK = {
    "virtio-legacy": Stock("virtio-net-pci", VIRTIO, machine="pc-i440fx-2.0", long=False),
    "virtio-transitional": Stock("virtio-net-pci", VIRTIO),
    "virtio-modern": Stock("virtio-net-pci", VIRTIO, {"disable-legacy": "on"}, long=False),
    "virtio-packed": Stock("virtio-net-pci", VIRTIO, {"disable-legacy": "on", "packed": True}, long=False),
    "virtio-plain": Stock("virtio-net-pci", VIRTIO, VIRTIO_PLAIN),
    "virtio-mq": Stock("virtio-net-pci", VIRTIO, {"mq": True, "vectors": 10}),
    "e1000": Stock("e1000", (f"{NET}/intel/e1000/e1000",), long=False),
    "e1000-rhel6": Stock("e1000", (f"{NET}/intel/e1000/e1000",), machine="rhel6.3.0"),
    "e1000-82544gc": Stock("e1000-82544gc", (f"{NET}/intel/e1000/e1000",)),
    "e1000-82545em": Stock("e1000-82545em", (f"{NET}/intel/e1000/e1000",)),
    "e1000e": Stock("e1000e", (f"{NET}/intel/e1000e/e1000e",)),
    "8139cp": Stock("rtl8139", (MII, f"{NET}/realtek/8139cp")),
    "8139cp-rhel6": Stock("rtl8139", (MII, f"{NET}/realtek/8139cp"), machine="rhel6.3.0"),
    "8139too": Stock("rtl8139", (MII, f"{NET}/realtek/8139too")),
    "ne2k-pci": Stock("ne2k_pci", (f"{NET}/8390/8390", f"{NET}/8390/ne2k-pci"), senses=False),
    "ne": Stock(
        "ne2k_isa", (f"{NET}/8390/8390p", f"{NET}/8390/ne io=0x300,0x320 irq=5,11"), {"iobase": 0x300, "irq": 5},
        second={"iobase": 0x320, "irq": 11}, senses=False, pae=True,
    ),
    "pcnet32": Stock("pcnet", (MII, f"{NET}/amd/pcnet32")),
    "e100": Stock("i82559c", (MII, f"{NET}/intel/e100")),
    "e100-82557b": Stock("i82557b", (MII, f"{NET}/intel/e100")),
    "e100-82801": Stock("i82801", (MII, f"{NET}/intel/e100")),
    "vmxnet3": Stock("vmxnet3", ("drivers/net/vmxnet3/vmxnet3",)),
}  # fmt: skip

CABLE = """
echo READY
away() { ! busybox ping -c 1 -W 1 10.0.2.2 > /dev/null; }
there() { busybox ping -c 1 -W 1 10.0.2.2 > /dev/null; }
n=0
while ! {away} && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
echo PULLED
while ! {there} && [ $n -lt 1200 ]; do sleep 0.1; n=$((n + 1)); done
echo BACK
n=0
while ! there && [ $n -lt 30 ]; do n=$((n + 1)); done
there && echo ANSWERED
"""
NO_CARRIER = "grep -q 0 /sys/class/net/eth0/carrier"
CARRIER = "grep -q 1 /sys/class/net/eth0/carrier"


@pytest.mark.parametrize(
    "stock", [pytest.param(row, id=name, marks=[pytest.mark.long] if row.long else []) for name, row in STOCK.items()]
)
def test_a_stock_driver_and_two_cards(stock: Stock, tmp_path: pathlib.Path) -> None:
    if stock.pae and not (I386 / "modules").exists():
        pytest.skip("tools/fetch-i386.sh found no 32-bit kernel")
    peers = [Peer(), Peer(1 << 20)]
    script = UP.format()
    for n, peer in enumerate(peers):
        script += BOTH_WAYS.replace("10.0.2.2", f"10.0.{2 + n}.2").format(source=peer.source, sink=peer.sink)
    away, there = (NO_CARRIER, CARRIER) if stock.senses else ("away", "there")
    script += CABLE.replace("{away}", away).replace("{there}", there)
    rows = []
    for n in range(2):
        place = {} if stock.driver == "ne2k_isa" else {"addr": f"{4 + n}"}
        own = {"id": f"net{n}", "driver": stock.driver, "netdev": f"lan{n}", "mac": f"52:54:00:00:01:{n:02x}", **place}
        rows.append({**own, **stock.props, **(stock.second if n else {})})
    netdevs = {f"lan{n}": {"type": "user", "net": f"10.0.{2 + n}.0/24"} for n in range(2)}
    guest = LinuxGuest(
        tmp_path, "soft", "quiet", machine=stock.machine, netdevs=netdevs, devices=rows,
        kernel=str(I386 / "vmlinuz") if stock.pae else kernel(False),
        initrd=with_network(tmp_path, script, stock.modules, pae=stock.pae),
    )  # fmt: skip
    with guest:
        if stock.modules[-1].endswith("8139too"):
            for n in range(2):
                guest.machine.devices[f"net{n}"].config.set_byte(8, PLAIN_CHIP)
        for up, said in ((False, "READY"), (True, "PULLED")):
            assert guest.run_until(lambda said=said: f"{said}\n" in guest.console(), 500.0), guest.console()[-2000:]
            network.set_link(guest.machine, "net0", up)
        guest.run_to_end(200.0)
        text, wrong = guest.console(), guest.complaints()
    for peer in peers:
        peer.close()
    assert "LEASE eth0 10.0.2.15 10.0.2.2 10.0.2.3" in text and "LEASE eth1 10.0.3.15" in text, text[-3000:]
    for peer in peers:
        assert f"CAME {peer.digest}" in text and peer.got == peer.digest, text[-3000:]
    assert "BACK\nANSWERED\n" in text, text[-3000:]
    assert wrong == []
