"""A real disc in the CD-ROM drive: firmware, boot loader and program are read from it."""

from __future__ import annotations

import pathlib

import pytest

from tests.guest.machines import Guest

pytestmark = pytest.mark.guest
IPXE = "/usr/lib/ipxe/ipxe.iso"


def test_a_bootable_disc_boots(tmp_path: pathlib.Path) -> None:
    """El Torito by SeaBIOS, ISOLINUX from the disc, iPXE from ISOLINUX."""
    seen = set()

    def look() -> bool:
        text = guest.screen()
        seen.update(word for word in ("Booting from DVD/CD", "ISOLINUX", "iPXE initialising") if word in text)
        return "Open Source Network Boot Firmware" in text

    keys = {"machine": "pc-i440fx-2.0", "memory": "128MiB", "display": "std"}
    with Guest(tmp_path, "soft", cdrom=IPXE, **keys) as guest:
        assert guest.run_until(look, 60), guest.screen()
    assert {"Booting from DVD/CD", "ISOLINUX"} <= seen


def test_rhel_6_has_it_in_its_one_driver_for_disks(tmp_path: pathlib.Path) -> None:
    keys = {"machine": "rhel6.3.0", "memory": "128MiB", "display": "std"}
    with Guest(tmp_path, "soft", cdrom=IPXE, **keys) as guest:
        assert guest.run_until(lambda: "ISOLINUX" in guest.screen(), 60), guest.screen()
