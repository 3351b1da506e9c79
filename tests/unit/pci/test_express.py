"""The bytes of power management and PCI Express capabilities, as qemu-kvm 7.2's devices have them."""

from __future__ import annotations

from vmrun.bus.pci.capability import EXPRESS, POWER, PcieEndpoint, PowerManagement


def test_an_endpoint_of_version_2_is_that_of_nvme() -> None:
    found = PcieEndpoint(function_reset=True)
    assert (found.id, found.size) == (EXPRESS, 0x3C)
    assert found.body[:18].hex() == "020000800010000000001104000000001100"
    assert {n + 2: value for n, value in enumerate(found.mask) if value} == {0x29: 0x80}
    assert found.body[0x26 - 2] == 0x30


def test_an_endpoint_of_version_1_is_that_of_e1000e() -> None:
    found = PcieEndpoint(1)
    assert found.body.hex() == "010000800000000000001104000000001100"
    assert not any(found.mask)


def test_power_management_is_that_of_nvme_and_i82559er() -> None:
    nvme = PowerManagement(mask=0x0003, control=0x0008)
    assert (nvme.id, nvme.body.hex(), nvme.mask.hex()) == (POWER, "030008000000", "000003000000")
    assert PowerManagement(0x7E21, mask=0).body.hex() == "217e00000000"
