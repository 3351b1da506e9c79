"""virtio-net-pci: a network card without the detours of real ones.

Not modelled, and refused: receive-side scaling and hashes, coalescing of segments (guest_rsc_ext), failover pairs,
sending by a timer (`tx=timer` and its x-txtimer).
"""

from __future__ import annotations

import struct

from vmrun.bus.virtio.pci import NonTransitional, Transitional, VirtioPci
from vmrun.core.interfaces import NetworkCard
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.virtio.net import NetChip
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

FEATURES = {
    "csum": 0, "guest_csum": 1, "ctrl_guest_offloads": 2, "gso": 6, "guest_tso4": 7, "guest_tso6": 8, "guest_ecn": 9,
    "guest_ufo": 10, "host_tso4": 11, "host_tso6": 12, "host_ecn": 13, "host_ufo": 14, "mrg_rxbuf": 15, "status": 16,
    "ctrl_vq": 17, "ctrl_rx": 18, "ctrl_vlan": 19, "ctrl_rx_extra": 20, "guest_announce": 21, "mq": 22,
    "ctrl_mac_addr": 23,
}  # fmt: skip
MTU, MAC, MQ, CTRL_VQ, SPEED_DUPLEX = 1 << 3, 1 << 5, 1 << 22, 1 << 17, 1 << 63
STATUS_BIT = 1 << 16
WITH_CTRL = ("ctrl_rx", "ctrl_vlan", "ctrl_rx_extra", "guest_announce", "mq", "ctrl_mac_addr", "ctrl_guest_offloads")
CTRL_SIZE = 64
LINK_UP = 1
UNKNOWN = 0xFFFFFFFF
DUPLEX = {"half": 0, "full": 1}
FIRST_ADDRESS = "52:54:00:12:34:56"
NO_SPEED = -1


@register("virtio-net-pci", "virtio-net", description="virtio network card")
class VirtioNet(VirtioPci, NetworkCard):
    parents = (*VirtioPci.parents, "virtio-net-device", "virtio-net-pci-base")
    class_code = 0x020000
    virtio_id, legacy_device_id = 1, 0x1000
    tells_filters = True

    romfile = Prop("str", "efi-virtio.rom", "option ROM, found in the firmware directories")
    mac = Prop("mac", None, "station address")
    netdev = Prop("netdev", None, "the host's side of the wire; none: a card whose cable leads nowhere", visible=False)
    bootindex = Prop("int32", None, "place in the boot order, 0 first")
    csum = Prop("bool", True, "offer: checksums are left to the card")
    gso = Prop("bool", True, "offer: the old bit for all segmentation")
    guest_csum = Prop("bool", True, "offer: the guest takes frames without checksums")
    guest_tso4 = Prop("bool", True, "offer: the guest takes large TCP frames")
    guest_tso6 = Prop("bool", True, "offer: likewise of IPv6")
    guest_ecn = Prop("bool", True, "offer: those with congestion marks")
    guest_ufo = Prop("bool", True, "offer: the guest takes large UDP datagrams")
    host_tso4 = Prop("bool", True, "offer: TCP is cut into segments by the card")
    host_tso6 = Prop("bool", True, "offer: likewise over IPv6")
    host_ecn = Prop("bool", True, "offer: those with congestion marks")
    host_ufo = Prop("bool", True, "offer: UDP is cut into fragments by the card")
    mrg_rxbuf = Prop("bool", True, "offer: a frame may fill several buffers")
    status = Prop("bool", True, "offer: whether the cable is in")
    ctrl_vq = Prop("bool", True, "offer: the control queue")
    ctrl_rx = Prop("bool", True, "offer: filters by address")
    ctrl_vlan = Prop("bool", True, "offer: filters by VLAN")
    ctrl_rx_extra = Prop("bool", True, "offer: more of them")
    ctrl_mac_addr = Prop("bool", True, "offer: another address by the control queue")
    ctrl_guest_offloads = Prop("bool", True, "offer: what the guest takes can change")
    guest_announce = Prop("bool", True, "offer: the guest is asked to announce itself")
    mq = Prop("bool", False, "offer: a pair of queues for each of the netdev's")
    rx_queue_size = Prop("uint16", 256, "entries of a receive queue", min=256, max=1024)
    tx_queue_size = Prop("uint16", 256, "entries of a transmit queue", min=256, max=1024)
    host_mtu = Prop("uint16", 0, "bytes of the largest packet, told to the guest; 0: nothing is told")
    speed = Prop("int32", NO_SPEED, "Mbit/s, told to the guest; -1: nothing is told", min=-1)
    duplex = Prop("str", None, "half or full, told to the guest")
    tx = Prop("str", None, "bh: at once, as without it; timer is not modelled", visible=False)
    txtimer = named(
        "x-txtimer", "uint32", 150000, "ns that tx=timer would wait", visible=False, idle="frames are sent at once",
    )
    txburst = named("x-txburst", "int32", 256, "frames sent at one go, 128 at most", visible=False)
    mtu_bypass = named(
        "x-mtu-bypass-backend", "bool", True, "makes no difference", visible=False, idle="no tap's MTU is asked for",
    )
    hash = Prop("bool", False, "hashes of received frames; only off")
    rss = Prop("bool", False, "receive-side scaling; only off")
    guest_rsc_ext = Prop("bool", False, "coalesced segments; only off")
    rsc_interval = Prop("uint32", 300000, "makes no difference", visible=False, idle="received segments are not joined")
    failover = Prop("bool", False, "a stand-in for another card; only off")
    rhel620 = named(
        "x-__com_redhat_rhel620_compat", "bool", False, "RHEL 6.2's way with macvtap, no matter here", visible=False,
        idle="a tap needs no such care",
    )
    macvtap = named(
        "__com_redhat_macvtap_compat", "bool", False, "likewise", visible=False, idle="a tap needs no such care",
    )
    vlan = Prop("uint32", None, "RHEL 6's old networks", visible=False, idle="a card's network is its `netdev`")

    def make_chip(self, platform: Platform) -> NetChip:
        for name in ("hash", "rss", "guest_rsc_ext", "failover"):
            if getattr(self, name):
                raise BuildError(f"{self.path}: {name} is not modelled", remedy=f"leave `{name}` off")
        if self.tx == "timer":
            raise BuildError(f"{self.path}: tx=timer is not modelled", remedy="leave `tx` out: frames are sent at once")
        if self.duplex not in (None, *DUPLEX):
            raise BuildError(f"{self.path}: 'duplex' must be 'half' or 'full'")
        for name in ("rx_queue_size", "tx_queue_size"):
            size = getattr(self, name)
            if size & (size - 1):
                raise BuildError(f"{self.path}: Invalid {name} (= {size}), must be a power of 2 between 256 and 1024.")
        self.address = bytes.fromhex((self.mac or FIRST_ADDRESS).replace(":", ""))
        self.wire: Any = platform.netdev(self.netdev) if self.netdev else None
        pairs = int(getattr(self.wire, "queues", 1)) if self.mq else 1
        sizes = [self.rx_queue_size, self.tx_queue_size] * pairs + [CTRL_SIZE]
        chip = NetChip(self.dma, sizes, self.wire, self.address)
        if self.txburst > 0:
            chip.burst = self.txburst
        chip.offered = self._offered()
        chip.on_filter, chip.on_offloads = self._filter_changed, self._offloads_changed
        self.pairs = pairs
        chip.set_config(self._shown(chip.offered, pairs))
        platform.iothread.add(chip.later)
        if self.wire is not None:
            self.wire.plug(chip.port)
            if not self.wire.link:
                chip.set_link(False)
        return chip

    def default_vectors(self) -> int:
        return 2 * self.pairs + 2

    def _offered(self) -> int:
        features = MAC
        for name, bit in FEATURES.items():
            if getattr(self, name) and (self.ctrl_vq or name not in WITH_CTRL):
                features |= 1 << bit
        if self.host_mtu:
            features |= MTU
        if self.speed != NO_SPEED or self.duplex is not None:
            features |= SPEED_DUPLEX
        return features

    def _shown(self, features: int, pairs: int) -> bytes:
        """The configuration, as long as the features make it."""
        speed = UNKNOWN if self.speed == NO_SPEED else self.speed
        data = self.address + struct.pack(
            "<HHHIB", LINK_UP, pairs, self.host_mtu, speed, DUPLEX.get(self.duplex or "", 0xFF)
        )
        for bit, size in ((SPEED_DUPLEX, 17), (MTU, 12), (MQ, 10), (STATUS_BIT, 8)):
            if features & bit:
                return data[:size]
        return data[:6]

    def unrealize(self) -> None:
        if self.wire is not None:
            self.wire.plug(None)
        self.platform.iothread.remove(self.chip.later)
        super().unrealize()

    def _offloads_changed(self, takes: int) -> None:
        if self.wire is not None:
            self.wire.card_changed()

    # --- NetworkCard --------------------------------------------------------------------------------------

    def set_link(self, up: bool) -> None:
        self.chip.set_link(up)

    @property
    def link(self) -> bool:
        return bool(self.chip.cable)

    def _filter_changed(self) -> None:
        self.platform.filters_changed(self)

    def announce(self) -> bool:
        return bool(self.chip.announce())

    def current_address(self) -> bytes:
        return bytes(self.chip.get_config()[:6])

    def filters(self) -> dict[str, Any]:
        chip = self.chip
        chip.forget_told()
        table = bytes(chip.addresses)
        rows = [table[6 * n : 6 * n + 6] for n in range(chip.unicasts + chip.multicasts)]
        bits = bytes(chip.vlan_bits)
        vlans = [n for n in range(4096) if bits[n >> 3] >> (n & 7) & 1]
        return {
            "promiscuous": chip.promiscuous,
            "unicast": "none" if chip.no_unicast else "all" if chip.unicast_overflow or chip.all_unicast else "normal",
            "multicast": "none"
            if chip.no_multicast
            else "all"
            if chip.multicast_overflow or chip.all_multicast
            else "normal",
            "broadcast": not chip.no_broadcast,
            "unicast-overflow": chip.unicast_overflow,
            "multicast-overflow": chip.multicast_overflow,
            "unicasts": rows[: chip.unicasts],
            "multicasts": rows[chip.unicasts :],
            "vlans": vlans if chip.accepted >> 19 & 1 else None,
        }


__all__ = ["VirtioNet"]


@register("virtio-net-pci-transitional", description="virtio network card, legacy and modern")
class VirtioNetTransitional(Transitional, VirtioNet):
    """The same; registers of both kinds."""


@register("virtio-net-pci-non-transitional", description="virtio network card, modern")
class VirtioNetNonTransitional(NonTransitional, VirtioNet):
    """The same, without legacy registers."""
