"""Advice on what is not reproducible, of devices that are modelled and of those to come."""

from __future__ import annotations

import pytest

from vmrun.config.api import validate
from vmrun.config.machinetypes import aliases
from vmrun.errors import Problem

HEAD = "schema: vmrun/machine/1\nmachine: pc-i440fx-2.0\n"
MAC, ADDR = 'mac: "52:54:00:00:00:01"', "addr: 03.0"


def advice(text: str) -> list[Problem]:
    return [problem for problem in validate(text) if problem.code.startswith("VR10")]


def codes(body: str, head: str = HEAD) -> list[str]:
    return [problem.code for problem in advice(head + body)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", []),
        ("cpus: {model: host}\n", ["VR1001"]),
        ("cpus: {model: max}\n", ["VR1001"]),
        ("cpus: {model: Penryn}\n", []),
        ("cpus: {features: {pmu: true}}\n", ["VR1007"]),
        ("cpus: {features: {pmu: false}}\n", []),
        ("rtc: {base: localtime}\n", ["VR1004"]),
        ("rtc: {base: utc}\n", []),
        (f"devices: [{{driver: e1000, {MAC}, {ADDR}}}]\n", []),
        (f"devices: [{{driver: e1000, {ADDR}}}]\n", ["VR1003"]),
        (f"devices: [{{driver: e1000, {MAC}}}]\n", ["VR1005"]),
        (f"devices: [{{driver: ne2k_isa, irq: 10, {MAC}}}]\n", []),
        ("devices: [{id: usb, driver: usb-ehci}, {driver: usb-host}]\n", ["VR1006"]),
    ],
)
def test_what_is_not_reproducible_gets_advice(body: str, expected: list[str]) -> None:
    assert codes(body) == expected


def test_an_alias_of_the_newest_type_gets_advice() -> None:
    newest = aliases()["pc"]
    (problem,) = advice("schema: vmrun/machine/1\nmachine: pc\n")
    assert (problem.code, problem.path, str(problem.place)) == ("VR1002", "machine", "<text>.yaml:2:10")
    assert problem.remedy == f"write `machine: {newest}`, which stays as it is"
    assert codes("", f"schema: vmrun/machine/1\nmachine: {newest}\n") == []


def test_advice_stands_at_its_line_and_says_what_to_write() -> None:
    (problem,) = advice(HEAD + "devices:\n  - {id: net0, driver: rtl8139, addr: 05.0}\n")
    assert problem.text().removeprefix("<text>.yaml:") == (
        "4:5: warning VR1003: card 'net0' has no MAC address of its own: another name of the machine changes it\n"
        "    at devices.net0\n"
        '    write `mac: "52:54:00:f3:d1:0f"`'
    )


def test_a_broken_machine_gets_no_advice() -> None:
    assert codes("rtc: {base: localtime}\nmemory: 1\n") == []


def test_strict_makes_errors_of_advice() -> None:
    found = validate(HEAD + "rtc: {base: localtime}\n", strict=True)
    assert [(problem.code, problem.severity) for problem in found] == [("VR1004", "error")]


@pytest.mark.parametrize(
    "body",
    [
        'serial: ["file:/dev/null", "file:/dev/null"]\n',
        'serial: ["tcp:10.0.0.1:4000,server,nowait", "tcp:10.0.0.2:4000,server,nowait"]\n',
        'serial: ["tcp:10.0.0.1:4000", "tcp:10.0.0.1:4000"]\n',
        'serial: ["unix:a,server,nowait", "unix:b,server,nowait"]\n',
        "serial: [stdio, stdio]\n",
        "chardevs: {c: {type: udp, port: 5}, d: {type: udp, port: 5}}\n",
    ],
)
def test_claims_on_the_host_that_go_together_are_fine(body: str) -> None:
    assert [problem for problem in validate(HEAD + body) if problem.code == "VR0610"] == []


@pytest.mark.parametrize(
    "body",
    [
        'serial: ["tcp:0.0.0.0:4000,server", "tcp:10.0.0.2:4000,server"]\n',
        'serial: ["tcp::4000,server", "tcp:localhost:4000,server"]\n',
        'serial: ["tcp:localhost:4000,server", "tcp:127.0.0.1:4000,server"]\n',
        "chardevs: {c: {type: udp, port: 5, localport: 6}, d: {type: udp, port: 7, localport: 6}}\n",
    ],
)
def test_addresses_that_include_each_other_are_told(body: str) -> None:
    assert len([problem for problem in validate(HEAD + body) if problem.code == "VR0610"]) == 1


@pytest.mark.parametrize("lun", ["", ", lun: 1"])
def test_disks_of_one_scsi_target_get_units_of_their_own(lun: str) -> None:
    disk = "driver: scsi-hd, scsi-id: 1"
    body = f"devices: [{{id: s, driver: virtio-scsi-pci}}, {{{disk}, lun: 0, drive: a}}, {{{disk}{lun}, drive: b}}]\n"
    found = validate(HEAD + "drives: {a: {file: a}, b: {file: b}}\n" + body)
    assert [problem.code for problem in found if not problem.code.startswith("VR08")] == []
