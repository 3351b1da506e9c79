"""Networks of QEMU's command lines: lists, addresses with dots, counted MAC addresses; and back again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vmrun.config.importers.export import command_line
from vmrun.config.importers.line import parse_command_line


def document(*words: str) -> dict[str, Any]:
    return dict(parse_command_line(["-nodefaults", *words], defaults=True).document)


FORWARDS = "user,id=u,hostfwd=tcp::2222-:22,hostfwd=udp::53-:53,net=10.1.0.0/16,restrict=on"
STREAM = "stream,id=s,server=on,addr.type=unix,addr.path=/tmp/s"
DGRAM = (
    "dgram,id=d,local.type=inet,local.host=127.0.0.1,local.port=1,"
    "remote.type=inet,remote.host=127.0.0.1,remote.port=2"
)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (
            FORWARDS,
            {"type": "user", "hostfwd": ["tcp::2222-:22", "udp::53-:53"], "net": "10.1.0.0/16", "restrict": True},
        ),
        ("user,id=u,hostfwd=tcp::1-:2", {"type": "user", "hostfwd": "tcp::1-:2"}),
        (STREAM, {"type": "stream", "server": True, "addr": "unix:/tmp/s"}),
        (DGRAM, {"type": "dgram", "local": "inet:127.0.0.1:1", "remote": "inet:127.0.0.1:2"}),
        ("tap,id=t,fd=23,vnet_hdr=off", {"type": "tap", "fd": 23, "vnet_hdr": False}),
        ("user,id=u,restrict=yes,ipv6=n", {"type": "user", "restrict": True, "ipv6": False}),
        ("user,id=u,hostname=yes", {"type": "user", "hostname": "yes"}),
    ],
)
def test_a_netdev_is_read_and_written(text: str, spec: dict[str, Any]) -> None:
    found = document("-netdev", text)["netdevs"]
    (read,) = found.values()
    assert read == spec
    words, _ = command_line({"schema": "vmrun/machine/1", "machine": "pc-i440fx-7.2", "netdevs": found})
    assert document("-netdev", words[words.index("-netdev") + 1])["netdevs"] == found


def test_json_has_lists_and_addresses() -> None:
    text = json.dumps({"type": "user", "id": "u", "hostfwd": [{"str": "tcp::0-:22"}, {"str": "tcp::0-:80"}]})
    assert document("-netdev", text)["netdevs"]["u"]["hostfwd"] == ["tcp::0-:22", "tcp::0-:80"]
    text = json.dumps({"type": "stream", "id": "s", "addr": {"type": "fd", "str": "7"}})
    assert document("-netdev", text)["netdevs"]["s"]["addr"] == "fd:7"


def test_cards_count_their_addresses_as_qemu_does() -> None:
    words = ["-device", "virtio-net-pci", "-device", "e1000,mac=52:54:00:12:34:57", "-nic", "user,model=virtio"]
    macs = [device["mac"] for device in document(*words, "-device", "e1000")["devices"]]
    assert macs == ["52:54:00:12:34:56", "52:54:00:12:34:58", "52:54:00:12:34:57", "52:54:00:12:34:59"]


def test_a_line_without_a_network_gets_the_types_card_on_a_user_network() -> None:
    for machine, model in (("pc-i440fx-7.2", "e1000"), ("rhel6.3.0", "rtl8139")):
        found = parse_command_line(["-M", machine], defaults=True).document
        (card,) = (device for device in found["devices"] if "netdev" in device)
        assert (card["driver"], card["mac"]) == (model, "52:54:00:12:34:56")
        assert found["netdevs"][card["netdev"]] == {"type": "user"}
