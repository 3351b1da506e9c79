"""The machine types against the published facts about qemu-kvm of RHEL 6 and about QEMU's pc-i440fx-2.0.

Values are typed here from the documentation of those programs, not read from the files under test.
"""

from __future__ import annotations

from typing import Any

import pytest

from vmrun.config.machinetypes import load_type, type_names

RHEL6 = [f"rhel6.{minor}.0" for minor in range(7)]


def facts(name: str) -> dict[str, Any]:
    return load_type(name).to_dict()


def board(name: str) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in facts(name)["devices"]}


@pytest.mark.parametrize("name", type_names())
def test_pci_functions_of_the_board(name: str) -> None:
    found = {entry["driver"]: entry["addr"] for entry in board(name).values() if entry.get("bus") == "pci.0"}
    assert found == {"i440FX": "00.0", "PIIX3": "01.0", "piix3-ide": "01.1", "PIIX4_PM": "01.3"}


@pytest.mark.parametrize("name", type_names())
def test_ports_of_the_board(name: str) -> None:
    devices = board(name)
    names = ("pic0", "pic1", "pit", "i8042", "pcspk", "rtc", "port92", "fw_cfg")
    assert {name: devices[name]["iobase"] for name in names} == {
        "pic0": 0x20, "pic1": 0xA0, "pit": 0x40, "i8042": 0x60, "pcspk": 0x61, "rtc": 0x70, "port92": 0x92,
        "fw_cfg": 0x510,
    }  # fmt: skip
    assert (devices["pic0"]["elcr_addr"], devices["pic0"]["elcr_mask"]) == (0x4D0, 0xF8)
    assert (devices["pic1"]["elcr_addr"], devices["pic1"]["elcr_mask"]) == (0x4D1, 0xDE)
    assert devices["pm"]["smb_io_base"] == 0xB100


@pytest.mark.parametrize("name", type_names())
def test_interrupts_of_the_board(name: str) -> None:
    devices = board(name)
    assert (devices["pit"]["irq"], devices["i8042"]["kbd-irq"], devices["rtc"]["irq"]) == (0, 1, 8)
    assert devices["i8042"]["mouse-irq"] == 12
    wires = [(wire["from"], wire["to"]) for wire in facts(name)["wires"]]
    assert ("pm.sci", "isa.0.irq[9]") in wires
    assert ("gsi[0]", "ioapic.in[2]") in wires


@pytest.mark.parametrize("name", RHEL6)
def test_defaults_of_rhel_6(name: str) -> None:
    found = facts(name)["defaults"]
    assert {key: found[key] for key in ("cpu", "display", "nic", "boot-order", "memory", "cache")} == {
        "cpu": "cpu64-rhel6", "display": "cirrus", "nic": "rtl8139", "boot-order": "cad", "memory": "128MiB",
        "cache": "writethrough",
    }  # fmt: skip


def test_defaults_of_pc_i440fx_2_0() -> None:
    found = facts("pc-i440fx-2.0")["defaults"]
    assert {key: found[key] for key in ("cpu", "display", "nic", "boot-order", "memory")} == {
        "cpu": "qemu64", "display": "cirrus", "nic": "e1000", "boot-order": "cad", "memory": "128MiB",
    }  # fmt: skip


@pytest.mark.parametrize("name", RHEL6)
def test_rhel_6_has_no_hpet(name: str) -> None:
    assert "hpet" not in [entry["driver"] for entry in board(name).values()]


def test_hpet_of_pc_i440fx_2_0() -> None:
    hpet = board("pc-i440fx-2.0")["hpet"]
    assert (hpet["base"], hpet["hpet-intcap"]) == (0xFED00000, 4)


@pytest.mark.parametrize("name", RHEL6)
def test_smbios_of_rhel_6(name: str) -> None:
    minor = name.split(".")[1]
    assert facts(name)["firmware"]["smbios"] == {
        "form": "fields",
        "type1": {
            "manufacturer": "Red Hat", "product": "KVM", "version": f"RHEL 6.{minor}.0 PC",
            "family": "Red Hat Enterprise Linux",
        },
    }  # fmt: skip


# Where a compat value changes along the chain, from the oldest type to the newest.
CHAIN: list[tuple[str, str, list[Any]]] = [
    ("PIIX4_PM", "disable_s3", [0, 0, 1, 1, 1, 1, 1]),
    ("PIIX4_PM", "disable_s4", [0, 0, 1, 1, 1, 1, 1]),
    ("qxl-vga", "revision", [1, 2, 3, 3, 4, 4, 4]),
    ("qxl", "revision", [1, 2, 3, 3, 4, 4, 4]),
    ("VGA", "rombar", [0, None, None, None, None, None, None]),
    ("vmware-svga", "rombar", [0, None, None, None, None, None, None]),
    ("virtio-serial-pci", "flow_control", [False, None, None, None, None, None, None]),
    ("virtio-blk-pci", "event_idx", [False, False, None, None, None, None, None]),
    ("virtio-net-pci", "event_idx", [False, False, None, None, None, None, None]),
    ("usb-tablet", "migrate", [False, False, None, None, None, None, None]),
    ("hda-duplex", "mcompat", [True, True, None, None, None, None, None]),
    ("virtio-net-pci", "x-__com_redhat_rhel620_compat", [True, True, True, None, None, None, None]),
    ("e1000", "x-__com_redhat_rhel630_compat", [True, True, True, True, None, None, None]),
    ("isa-fdc", "migrate_dir", [False, False, False, False, None, None, None]),
    ("USB", "create_unique_serial", [False, False, False, False, None, None, None]),
    ("virtio-scsi-pci", "hotplug", [False, False, False, False, None, None, None]),
    ("virtio-scsi-pci", "param_change", [False, False, False, False, None, None, None]),
    ("virtio-scsi-pci", "vectors", [2, 2, 2, 2, 2, 4, 4]),
    ("virtio-net-pci", "ctrl_guest_offloads", [False, False, False, False, False, None, None]),
    ("virtio-net-pci", "ctrl_mac_addr", [False, False, False, False, False, None, None]),
    ("USB", "msos-desc", [False, False, False, False, False, False, None]),
]


@pytest.mark.parametrize(
    ("driver", "prop", "values"), CHAIN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_compat_values_along_the_chain(driver: str, prop: str, values: list[Any]) -> None:
    assert [facts(name)["compat"].get(driver, {}).get(prop) for name in RHEL6] == values


CPUS: list[tuple[str, str, list[Any]]] = [
    ("*", "sep", [False, False, False, False, False, None, None]),
    ("*", "tsc-deadline", [False, False, False, False, None, None, None]),
    ("*", "kvm-pv-eoi", [False, False, False, False, None, None, None]),
    ("*", "pmu", [False, False, False, True, None, None, None]),
    ("Penryn", "level", [2, 2, 2, 2, None, None, None]),
]


@pytest.mark.parametrize(
    ("model", "prop", "values"), CPUS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_cpu_values_along_the_chain(model: str, prop: str, values: list[Any]) -> None:
    found = [facts(name).get("cpu-compat", {}).get(model, {}).get(prop) for name in RHEL6]
    assert found == values


def test_apic_ids_follow_the_topology_from_rhel_6_4_on() -> None:
    contiguous = [facts(name)["cpus"]["apic-ids"] == "contiguous" for name in RHEL6]
    assert contiguous == [True, True, True, True, False, False, False]


# A few of the values that pc-i440fx-2.0 inherits, one from each age.
@pytest.mark.parametrize(
    ("driver", "prop", "value"),
    [
        ("virtio-device", "queue_reset", False),  # 7.1
        ("nvme-ns", "eui64-default", False),  # 7.0 says on, 6.0 off: the older one wins
        ("PIIX4_PM", "smm-compat", True),  # 5.2
        ("virtio-blk-device", "queue-size", 128),  # 4.2
        ("VGA", "edid", False),  # 4.0
        ("usb-kbd", "serial", "42"),  # 3.1
        ("fw_cfg_io", "x-file-slots", 16),  # 2.8
        ("pci-bridge", "shpc", True),  # 2.9 says off, 2.8 on
        ("ioapic", "version", 0x11),  # 2.7
        ("virtio-pci", "disable-modern", True),  # 2.6
        ("virtio-pci", "disable-legacy", "off"),  # 2.6; no switch but one of on, off, auto
        ("isa-fdc", "fallback", 144),  # 2.5
        ("fw_cfg_io", "dma_enabled", False),  # 2.4
        ("VGA", "qemu-extended-regs", False),  # 2.1
        ("PIIX4_PM", "memory-hotplug-support", False),  # 2.0
    ],
)
def test_compat_values_of_pc_i440fx_2_0(driver: str, prop: str, value: Any) -> None:
    assert facts("pc-i440fx-2.0")["compat"][driver][prop] == value


def test_model_name_of_qemu64_on_pc_i440fx_2_0() -> None:
    assert facts("pc-i440fx-2.0")["cpu-compat"]["qemu64"]["model-id"] == "QEMU Virtual CPU version 2.0.0"


@pytest.mark.parametrize("name", type_names())
def test_type_says_only_what_differs_from_the_one_it_extends(name: str) -> None:
    """A value that the extended type has already would hide which version changed it."""
    from vmrun.config.data import data_dir
    from vmrun.config.load import load_file
    from vmrun.config.node import plain

    own = plain(load_file(f"{data_dir('machines')}/{name}.yaml"))
    base = load_type(own["extends"]).to_dict() if own["extends"] in type_names() else {}
    for section in ("compat", "cpu-compat"):
        for driver, table in own.get(section, {}).items():
            for prop, value in table.items():
                assert base.get(section, {}).get(driver, {}).get(prop) != value, f"{driver}.{prop}"
