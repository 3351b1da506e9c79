"""Networks through the monitors: QEMU's answers, word for word where it gives any."""

from __future__ import annotations

import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ports import free_port, listens
from tests.up import Up
from vmrun.errors import MonitorError
from vmrun.monitor.client import QmpClient


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("net")
    with Up(
        directory,
        machine="pc-i440fx-7.2",
        accel=["qtest"],
        netdevs={"u": {"type": "user", "hostfwd": "tcp:127.0.0.1:0-:22"}},
        devices=[{"id": "n", "driver": "virtio-net-pci", "netdev": "u", "mac": "52:54:00:12:34:56", "romfile": ""}],
    ) as running:
        yield running


def ask(up: Any, name: str, /, **arguments: Any) -> Any:
    try:
        with QmpClient(str(up.socket)) as client:
            return client.execute(name, **arguments)
    except MonitorError as error:
        return str(error)


def line(up: Any, text: str) -> str:
    return str(up.qmp("human-monitor-command", **{"command-line": text})).replace("\r\n", "\n")


def test_filters_of_a_card_before_its_driver(up: Any) -> None:
    (row,) = ask(up, "query-rx-filter")
    assert row["vlan-table"] == list(range(4095, -1, -1))
    del row["vlan-table"]
    assert row == {
        "promiscuous": True, "name": "n", "main-mac": "52:54:00:12:34:56", "unicast": "normal", "vlan": "all",
        "unicast-table": [], "multicast": "normal", "multicast-overflow": False, "unicast-overflow": False,
        "multicast-table": [], "broadcast-allowed": True,
    }  # fmt: skip


def test_names_that_are_none(up: Any) -> None:
    assert "invalid net client name: zz" in ask(up, "query-rx-filter", name="zz")
    assert "net client(u) isn't a NIC" in ask(up, "query-rx-filter", name="u")
    assert "Device 'zz' not found" in ask(up, "set_link", name="zz", up=True)
    assert "Device 'n' not found" in ask(up, "netdev_del", id="n")
    assert "Duplicate ID 'u'" in ask(up, "netdev_add", type="user", id="u")
    assert "Parameter 'type' does not accept value 'foo'" in ask(up, "netdev_add", type="foo", id="x")


def test_back_ends_come_and_go(up: Any) -> None:
    assert ask(up, "netdev_add", type="user", id="x", hostfwd=[{"str": "tcp:127.0.0.1:0-:80"}]) == {}
    (row,) = (row for row in ask(up, "x-query-network") if row["id"] == "x")
    assert row["hostfwd"][0]["guest-port"] == 80
    port = row["hostfwd"][0]["port"]
    assert listens(port, up.process.pid)
    assert ask(up, "netdev_del", id="x") == {}
    assert not listens(port, up.process.pid)


def test_cables_are_pulled_and_plugged_in(up: Any) -> None:
    for name in ("n", "u"):
        assert ask(up, "set_link", name=name, up=False) == {}
        assert ask(up, "set_link", name=name, up=True) == {}


def test_the_free_port_is_told(up: Any) -> None:
    rows = ask(up, "x-query-network")
    (forward,) = next(row for row in rows if row["id"] == "u")["hostfwd"]
    assert forward["guest-port"] == 22
    socket.create_connection(("127.0.0.1", forward["port"]), 5).close()


def test_lines_say_what_qemu_says(up: Any) -> None:
    assert line(up, "info network") == (
        "n: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\n"
        " \\ u: index=0,type=user,net=10.0.2.0,restrict=off\n"
    )
    port = free_port()
    assert line(up, f"hostfwd_add tcp:127.0.0.1:{port}-:80") == ""
    assert f" {port} " in line(up, "info usernet")
    rule = f"tcp:127.0.0.1:{port}"
    assert line(up, f"hostfwd_remove u {rule}") == f"host forwarding rule for {rule} removed\n"
    assert line(up, f"hostfwd_remove {rule}") == f"host forwarding rule for {rule} not found\n"
    assert "unrecognized netdev id 'zz'" in line(up, "hostfwd_add zz tcp::0-:80")
    assert line(up, "netdev_add user,id=q") == "" and line(up, "netdev_del q") == ""
    assert line(up, "set_link n on") == "" and line(up, "announce_self n x") == ""


def test_announcements_have_bounds(up: Any) -> None:
    assert ask(up, "announce-self", initial=50, max=550, rounds=5, step=100) == {}
    assert "rounds" in ask(up, "announce-self", initial=50, max=550, rounds=-1, step=100)


def test_an_announcement_is_a_rarp_frame(tmp_path: pathlib.Path) -> None:
    capture = tmp_path / "net.pcap"
    with Up(
        tmp_path,
        machine="pc-i440fx-7.2",
        accel=["qtest"],
        netdevs={"u": {"type": "user", "capture": str(capture)}},
        devices=[{"id": "n", "driver": "virtio-net-pci", "netdev": "u", "mac": "52:54:00:12:34:56", "romfile": ""}],
    ) as running:
        assert ask(running, "announce-self", initial=50, max=550, rounds=1, step=0) == {}
    frame = capture.read_bytes()[40:100]
    mac = bytes.fromhex("525400123456")
    assert frame[:14] == b"\xff" * 6 + mac + b"\x80\x35"
    assert frame[20:22] == b"\0\3" and frame[22:28] == frame[32:38] == mac


def test_a_filter_that_changes_is_told_with_the_cards_name(up: Any) -> None:
    """A driver of old times writes its address into the registers."""
    with QmpClient(str(up.socket)) as client:
        client.execute("query-rx-filter")
        slot = next(one["slot"] for one in client.execute("query-pci")[0]["devices"] if one["qdev_id"] == "n")
        at = 0x80000000 | slot << 11
        for words in (f"o /4 0xcf8 {at | 0x10:#x}", "o /4 0xcfc 0xc001", f"o /4 0xcf8 {at | 4:#x}", "o /2 0xcfc 5"):
            assert client.execute("human-monitor-command", **{"command-line": words}) == ""
        client.execute("human-monitor-command", **{"command-line": "o /1 0xc014 0x52"})
        event = client.wait_for("NIC_RX_FILTER_CHANGED")
        assert event is not None and event["data"] == {"name": "n", "path": "/machine/peripheral/n"}
