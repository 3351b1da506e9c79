"""What a libvirt domain says is used, or named with its line; tests/peers/test_libvirt.py has libvirt's own word."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from vmrun.config.importers.libvirt import import_domain
from vmrun.errors import ConfigError

DOMAINS = sorted((pathlib.Path(__file__).parent / "domains").glob("*.xml"))


def domain(devices: str = "", more: str = "", machine: str = "pc-i440fx-7.2", os: str = "", kind: str = "kvm") -> str:
    return (
        f"<domain type='{kind}'><name>t</name><memory>65536</memory>"
        f"<os><type machine='{machine}'>hvm</type>{os}</os>\n"
        f"{more}\n<devices><controller type='usb' model='none'/><memballoon model='none'/>\n{devices}\n"
        "</devices></domain>"
    )


def imported(*words: Any, **more: Any) -> dict[str, Any]:
    return import_domain(domain(*words, **more).encode(), "m.xml")[0]


def told(*words: Any, **more: Any) -> list[tuple[int, str]]:
    found = import_domain(domain(*words, **more).encode(), "m.xml")[1]
    return [(problem.place.line, problem.message) for problem in found if problem.place is not None]


ACPI = "<features><acpi/></features>"


@pytest.mark.parametrize("path", DOMAINS, ids=[path.stem for path in DOMAINS])
def test_every_warning_has_a_line_of_the_file(path: pathlib.Path) -> None:
    _, warnings = import_domain(path.read_bytes(), path.name)
    last = path.read_text().count("\n") + 1
    for warning in warnings:
        assert warning.place is not None
        assert warning.place.file == path.name
        assert 0 < warning.place.line <= last
        assert "-smp" not in warning.message


def test_an_error_names_the_line_of_the_element() -> None:
    with pytest.raises(ConfigError) as caught:
        imported(
            "<disk><source file='/a'/><target dev='hda'/></disk>\n<disk><source file='/b'/><target dev='hda'/></disk>"
        )
    place = caught.value.problems[0].place
    assert place is not None
    assert (place.file, place.line) == ("m.xml", 5)


@pytest.mark.parametrize(
    ("xml", "index"),
    [("<target port='1'/>", 1), ("", 0), ("<target type='isa-serial' port='3'/>", 3)],
)
def test_the_port_of_a_serial_port(xml: str, index: int) -> None:
    assert imported(f"<serial type='pty'>{xml}</serial>", ACPI)["devices"][0]["index"] == index


@pytest.mark.parametrize(
    ("xml", "base"),
    [
        ("<clock offset='utc'/>", "utc"),
        ("<clock offset='localtime'/>", "localtime"),
        ("<clock offset='absolute' start='1000000000'/>", "2001-09-09T01:46:40"),
        ("<clock offset='timezone' timezone='Asia/Tokyo'/>", "localtime"),
        ("<clock offset='variable' adjustment='0' basis='localtime'/>", "localtime"),
    ],
)
def test_the_clock(xml: str, base: str) -> None:
    assert imported("", ACPI + xml)["rtc"]["base"] == base


def test_an_adjusted_clock_is_named() -> None:
    assert told("", f"{ACPI}<clock offset='variable' adjustment='3600'/>") == [
        (2, "adjustment='3600' of <clock> has no equal in a machine file")
    ]


def test_processors_are_sockets() -> None:
    assert imported("", f"{ACPI}<vcpu>4</vcpu>")["cpus"] == {"count": 4, "sockets": 4, "cores": 1, "threads": 1}
    assert imported("", f"{ACPI}<vcpu current='2'>4</vcpu>")["cpus"]["maxcpus"] == 4


def test_nodes_of_memory() -> None:
    cells = "<cell id='0' cpus='0' memory='32' unit='MiB'/><cell id='1' cpus='1' memory='32' unit='MiB'/>"
    found = imported("", f"{ACPI}<vcpu>2</vcpu><cpu><numa>{cells}</numa></cpu>")
    assert found["numa"] == [{"cpus": [0], "memory": "32MiB"}, {"cpus": [1], "memory": "32MiB"}]


def test_without_acpi() -> None:
    assert told() == [] == told("", ACPI)
    assert (imported()["remove"], imported("", ACPI).get("remove")) == (["pm"], None)


@pytest.mark.parametrize(
    ("features", "table"),
    [
        ("<kvm><hidden state='on'/></kvm>", {"kvm": False}),
        ("<pmu state='off'/>", {"pmu": False}),
        ("<apic eoi='on'/>", {"kvm-pv-eoi": True}),
        ("<pvspinlock state='on'/>", {"kvm-pv-unhalt": True}),
        ("<hyperv><vendor_id state='on' value='abc'/><vapic state='off'/></hyperv>", {"hv-vendor-id": "abc"}),
    ],
)
def test_features_of_the_processor(features: str, table: dict[str, Any]) -> None:
    assert imported("", f"<features><acpi/>{features}</features>")["cpus"]["features"] == table


@pytest.mark.parametrize(
    ("cpu", "table"),
    [
        ("<model vendor_id='GenuineIntel'>qemu64</model>", {"vendor": "GenuineIntel"}),
        ("<maxphysaddr mode='emulate' bits='40'/>", {"phys-bits": 40}),
        ("<maxphysaddr mode='passthrough' limit='42'/>", {"host-phys-bits": True, "host-phys-bits-limit": 42}),
        ("<cache mode='disable'/>", {"l3-cache": False}),
        ("<feature name='x2apic' policy='disable'/>", {"x2apic": False}),
    ],
)
def test_properties_of_the_processor(cpu: str, table: dict[str, Any]) -> None:
    assert imported("", f"{ACPI}<cpu>{cpu}</cpu>")["cpus"]["features"] == table


def test_power_management() -> None:
    pm = "<pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='yes'/><acpi-bridge-hotplug state='off'/></pm>"
    assert imported("", ACPI + pm)["globals"]["PIIX4_PM"] == {
        "disable_s3": 1, "disable_s4": 0, "acpi-pci-hotplug-with-bridge-support": False,
    }  # fmt: skip


def test_the_menu_and_the_firmware() -> None:
    os = "<bootmenu enable='yes' timeout='3000'/><bios rebootTimeout='500'/>"
    assert imported("", ACPI, os=os)["boot"] == {
        "menu": True, "splash-time": 3000, "reboot-timeout": 500, "strict": True,
    }  # fmt: skip


def test_a_disks_properties() -> None:
    xml = "<disk type='file'><driver type='raw' error_policy='report'/><source file='/a'/>"
    xml += "<target dev='hdc' rotation_rate='1'/>"
    xml += (
        "<wwn>5000c50015ea71ac</wwn><geometry cyls='5' heads='6' secs='7'/><blockio physical_block_size='4096'/></disk>"
    )
    found = imported(xml, ACPI)
    assert found["devices"][0] == {
        "id": "ide0-1-0", "driver": "ide-hd", "bus": "ide.1", "unit": 0, "drive": "drive-ide0-1-0",
        "physical_block_size": 4096, "wwn": 0x5000C50015EA71AC, "cyls": 5, "heads": 6, "secs": 7, "rotation_rate": 1,
        "bootindex": 1,
    }  # fmt: skip
    assert found["drives"]["drive-ide0-1-0"] == {"file": "/a", "format": "raw", "werror": "report", "rerror": "report"}


UNUSED = [
    ("<disk><source file='/a'/><target dev='hda'/>\n<iotune/></disk>", 5, "<iotune>"),
    ("<disk><source file='/a'/>\n<target dev='hda' strange='x'/></disk>", 5, "strange='x' of <target>"),
    ("<video><model type='cirrus'/>\n<driver name='vhostuser'/></video>", 5, "<driver>"),
    ("\n<tpm model='tpm-tis'><backend type='external'/></tpm>", 5, "a TPM of kind 'external'"),
    ("<serial type='pty'>\n<protocol type='telnet'/></serial>", 5, "type='telnet' of <protocol>"),
    ("\n<shmem name='x'/>", 5, "model='ivshmem' of <shmem>"),
]


@pytest.mark.parametrize(("xml", "line", "what"), UNUSED)
def test_what_nobody_uses_is_named(xml: str, line: int, what: str) -> None:
    assert (line, f"{what} has no equal in a machine file") in told(xml, ACPI)


def test_what_is_for_people_is_no_loss() -> None:
    more = "<title>x</title><description>y</description><metadata><a xmlns='u'><b/></a></metadata>"
    assert told("<serial type='pty'><alias name='x'/></serial>", ACPI + more) == []


def test_a_loader_in_flash_has_its_variables_below_it() -> None:
    os = "<loader readonly='yes' type='pflash'>/code.fd</loader><nvram template='/t'>/vars.fd</nvram>"
    found = imported("", ACPI, os=os)
    assert found["drives"]["pflash0"] == {"format": "raw", "file": "/code.fd", "readonly": True}
    assert found["drives"]["pflash1"] == {"format": "raw", "file": "/vars.fd"}
    flashes = [device for device in found["devices"] if device["driver"] == "cfi.pflash01"]
    assert [device.get("below") for device in flashes] == [None, "system.flash0"]


def test_a_floppy_may_be_empty() -> None:
    disk = "<disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>"
    found = imported(disk, ACPI)
    assert [device["unit"] for device in found["devices"] if device["driver"] == "floppy"] == [0]
    assert "drive" not in next(device for device in found["devices"] if device["driver"] == "floppy")


HOSTS_SIDES = {
    "<interface type='bridge'><source bridge='br-int'/></interface>": {"type": "bridge", "br": "br-int"},
    "<interface type='network'><source network='default'/></interface>": {"type": "bridge", "br": "virbr0"},
    "<interface type='ethernet'><target dev='tap7' managed='no'/><script path='/etc/up'/></interface>": {
        "type": "tap", "ifname": "tap7", "script": "/etc/up",
    },
    "<interface type='udp'><source address='::1' port='1'><local address='127.0.0.1' port='2'/></source></interface>": {
        "type": "socket", "udp": "::1:1", "localaddr": "127.0.0.1:2",
    },
    "<interface type='mcast'><source address='230.0.0.1' port='5558'/></interface>": {
        "type": "socket", "mcast": "230.0.0.1:5558",
    },
    "<interface type='server'><source address='192.168.0.1' port='5558'/></interface>": {
        "type": "socket", "listen": "192.168.0.1:5558",
    },
    "<interface type='client'><source address='192.168.0.1' port='5558'/></interface>": {
        "type": "socket", "connect": "192.168.0.1:5558",
    },
    "<interface type='user'><ip family='ipv4' address='172.17.2.0' prefix='24'/><portForward proto='tcp'>"
    "<range start='8000' end='8001' to='80'/></portForward></interface>": {
        "type": "user", "net": "172.17.2.0/24", "hostfwd": ["tcp::8000-:80", "tcp::8001-:81"],
    },
}  # fmt: skip


@pytest.mark.parametrize("xml", HOSTS_SIDES)
def test_the_hosts_side_of_a_card(xml: str) -> None:
    domain = f"<domain type='kvm'><os><type machine='pc'>hvm</type></os><devices>{xml}</devices></domain>"
    document, _ = import_domain(domain.encode(), "d.xml")
    assert document["netdevs"]["hostnet0"] == HOSTS_SIDES[xml]


def test_offloads_and_queues_of_a_card() -> None:
    card = (
        "<interface type='ethernet'><model type='virtio'/><driver name='vhost' queues='4'>"
        "<host csum='off' tso4='off' mrg_rxbuf='off'/><guest tso6='off'/></driver></interface>"
    )
    domain = f"<domain type='kvm'><os><type machine='pc'>hvm</type></os><devices>{card}</devices></domain>"
    document, _ = import_domain(domain.encode(), "d.xml")
    row = next(row for row in document["devices"] if row["driver"] == "virtio-net-pci")
    assert document["netdevs"]["hostnet0"] == {"type": "tap", "queues": 4}
    assert (row["mq"], row["vectors"]) == (True, 10)
    assert {key: row[key] for key in ("csum", "host_tso4", "mrg_rxbuf", "guest_tso6")} == dict.fromkeys(
        ("csum", "host_tso4", "mrg_rxbuf", "guest_tso6"), False
    )


def test_a_tpm_that_swtpm_emulates() -> None:
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    domain = f"<domain type='kvm'><name>w</name><os><type machine='pc'>hvm</type></os><devices>{tpm}</devices></domain>"
    document, told = import_domain(domain.encode(), "d.xml")
    assert document["chardevs"]["chrtpm"] == {"type": "socket", "path": "w-swtpm.sock"}
    assert document["objects"]["tpm-tpm0"] == {"type": "tpm-emulator", "chardev": "chrtpm"}
    assert {"id": "tpm0", "driver": "tpm-crb", "tpmdev": "tpm-tpm0"} in document["devices"]
    assert any("swtpm socket --tpm2" in problem.message for problem in told)
