"""What every network card's glue does: its address, the host's side, the option ROM, its link.

A card's class says which chip it has (`make_chip`) and which option ROM; the chip does the rest.
"""

from __future__ import annotations

from vmrun.bus.pci import PciDevice
from vmrun.core.interfaces import NetworkCard
from vmrun.core.props import Prop
from vmrun.core.state import Part
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

FIRST_ADDRESS = "52:54:00:12:34:56"  # QEMU's first card's; a machine file's cards have theirs from the resolver


def station_address(text: str | None, where: str) -> bytes:
    """Six bytes of `aa:bb:cc:dd:ee:ff`. BuildError for anything else, and for a group's address."""
    parts = (text or FIRST_ADDRESS).replace("-", ":").split(":")
    try:
        address = bytes(int(part, 16) for part in parts)
    except ValueError:
        address = b""
    if len(address) != 6 or any(len(part) != 2 for part in parts):
        raise BuildError(f"{where}: {text!r} is no MAC address")
    if address[0] & 1:
        raise BuildError(f"{where}: {text} is a multicast address, which no card can have")
    return address


def with_ids(image: bytes, vendor_id: int, device_id: int) -> bytes:
    """An option ROM whose PCI data structure names this card: one of iPXE's ROMs drives many, but a firmware runs it
    for the one that it names. Its checksum stays 0.

    Ref: PCI Firmware Specification 3.0, 5.1.
    """
    at = int.from_bytes(image[0x18:0x1A], "little")
    if image[:2] != b"\x55\xaa" or image[at : at + 4] != b"PCIR" or len(image) < at + 8:
        return image
    data = bytearray(image)
    data[at + 4 : at + 8] = vendor_id.to_bytes(2, "little") + device_id.to_bytes(2, "little")
    data[6] = (data[6] - sum(data[at + 4 : at + 8]) + sum(image[at + 4 : at + 8])) & 0xFF
    return bytes(data)


class PciNic(PciDevice, NetworkCard):
    """Base of PCI network cards: subclasses give ids and `make_chip`, which also adds the BARs."""

    class_code = 0x020000
    interrupt_pin = 1
    state = PciDevice.state.extend("nic", 1, Part("chip"))

    mac = Prop("mac", None, "station address")
    netdev = Prop("netdev", None, "the host's side of the wire; none: a card whose cable leads nowhere", visible=False)
    bootindex = Prop("int32", None, "place in the boot order, 0 first")

    def pci_realize(self, platform: Platform) -> None:
        self.address = station_address(self.mac, f"{self.path}.mac")
        self.chip = self.make_chip(platform)
        if self.netdev:
            self.chip.attach(platform.netdev(self.netdev))

    def _add_rom(self, image: bytes) -> None:
        super()._add_rom(with_ids(image, self.vendor_id, self.device_id))

    def make_chip(self, platform: Platform) -> Any:
        raise NotImplementedError

    def unrealize(self) -> None:
        self.chip.detach()
        self.chip.stop()
        super().unrealize()

    def set_link(self, up: bool) -> None:
        self.chip.set_link(up)


__all__ = ["PciNic", "station_address", "with_ids"]
