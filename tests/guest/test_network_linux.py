"""Stock Linux on soft and its network drivers: an address by DHCP from the user network, 16 MiB each way."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.guest.network import BOTH_WAYS, UP, Peer, run

pytestmark = [pytest.mark.guest, pytest.mark.slow]

KINDS = [
    pytest.param("pc-i440fx-2.0", {}, id="legacy"),
    pytest.param("pc-i440fx-7.2", {}, id="transitional"),
    pytest.param("pc-i440fx-7.2", {"disable-legacy": "on"}, id="modern"),
    pytest.param("pc-i440fx-7.2", {"disable-legacy": "on", "packed": True}, id="packed"),
    pytest.param("pc-i440fx-7.2", {"mrg_rxbuf": False, "guest_tso4": False, "csum": False, "vectors": 0}, id="plain"),
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
