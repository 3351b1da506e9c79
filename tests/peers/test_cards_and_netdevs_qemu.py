"""Cards and what they stand on come and go in any order, beside QEMU: answers, and the addresses that are counted."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.peers.test_hotplug_qemu import EJECT, PROGRAM, Session
from tests.up import Up

pytestmark = [needs_qemu, pytest.mark.peer]
MACHINE = ["-M", "pc-i440fx-7.2", "-m", "64", "-display", "none", "-nodefaults", "-S"]
FIRST = ["-device", "e1000,id=first,addr=3"]
MAC = re.compile(r"(\w+): index=0,type=nic,model=[\w-]+,macaddr=([\w:]+)")


def in_any_order(session: Session) -> None:
    for id in ("a", "b", "c"):
        session.qmp("netdev_add", type="hubport", id=id, hubid=1)
    for n, kind in enumerate(("e1000", "rtl8139", "virtio-net-pci")):
        session.add(driver=kind, id=f"card{n}", netdev="abc"[n], addr=f"{4 + n}")
    session.add(driver="pcnet", id="own", addr="7", mac="52:54:00:12:34:5a")
    session.add(driver="e1000", id="alone", addr="8")
    session.add(driver="e1000", id="behind", addr="9")
    addresses(session)

    session.remove("card1")
    session.qtest.outl(EJECT, 1 << 5)
    session.qmp("query-status")
    session.add(driver="rtl8139", id="again", netdev="b", addr="5")
    addresses(session)

    session.qmp("netdev_del", id="a")  # a card has it
    for id in ("a", "d"):
        session.qmp("netdev_add", type="hubport", id=id, hubid=1)
    session.add(driver="e1000", id="late", netdev="d", addr="a")
    session.remove("card0")  # whose netdev has gone before it
    session.qtest.outl(EJECT, 1 << 4)
    session.qmp("query-status")
    session.add(driver="ne2k_pci", id="new", netdev="a", addr="4")

    session.qmp("object-add", **{"qom-type": "rng-random", "id": "r"})
    session.add(driver="virtio-rng-pci", id="dice", rng="r", addr="b")
    session.qmp("netdev_add", type="hubport", id="e", hubid=1)
    session.qmp("object-del", id="r")  # QEMU lets it go
    session.qmp("netdev_add", type="hubport", id="f", hubid=1)
    session.add(driver="e1000", id="last", netdev="f", addr="c")


def addresses(session: Session) -> None:
    session.qmp("human-monitor-command", **{"command-line": "info network"})
    name, _, answer = session.log.pop()
    session.log.append((name, sorted(MAC.findall(answer["return"]))))


def test_cards_and_netdevs_come_and_go_as_with_qemu(tmp_path: pathlib.Path) -> None:
    logs = {}
    for name, program in (("vmrun", PROGRAM), ("QEMU", [QEMU])):
        (tmp_path / name).mkdir()
        session = Session([*program, *MACHINE, *FIRST], tmp_path / name)
        try:
            in_any_order(session)
        finally:
            session.close()
        logs[name] = session.log
    assert logs["vmrun"] == logs["QEMU"]


def test_a_card_plugged_into_a_machine_of_a_file_has_an_address_of_its_own(tmp_path: pathlib.Path) -> None:
    found = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        with Up(tmp_path / name, machine="pc-i440fx-7.2", accel=["qtest"], name=name) as up:
            for id in ("a", "b"):
                up.qmp("device_add", driver="e1000", id=id)
            found += MAC.findall(str(up.qmp("human-monitor-command", **{"command-line": "info network"})))
    assert len(found) == 4 and len({mac for _, mac in found}) == 4
