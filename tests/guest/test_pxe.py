"""A machine boots from the network: SeaBIOS, iPXE in the card's option ROM, DHCP and TFTP of the user network."""

from __future__ import annotations

import pathlib

import pytest

from tests.guest.machines import Guest

pytestmark = [pytest.mark.guest, pytest.mark.slow]


@pytest.mark.parametrize("driver", ["virtio-net-pci"])
def test_ipxe_runs_a_script_by_tftp(driver: str, tmp_path: pathlib.Path) -> None:
    served = tmp_path / "tftp"
    served.mkdir()
    (served / "boot.ipxe").write_text("#!ipxe\necho NETWORK-BOOTED ${net0/ip}\nsleep 100\n")
    with Guest(
        tmp_path, "soft", machine="pc-i440fx-7.2", memory="128MiB", display="std",
        netdevs={"lan": {"type": "user", "tftp": str(served), "bootfile": "boot.ipxe"}},
        devices=[{"id": "net0", "driver": driver, "netdev": "lan", "bootindex": 0}],
    ) as guest:  # fmt: skip
        assert guest.run_until(lambda: "NETWORK-BOOTED 10.0.2.15" in guest.screen(), 150), guest.screen()
