"""QEMU's own PC types, pc-0.10 to pc-i440fx-7.2, against what is published about them.

pc-0.10 to pc-1.3 are in no QEMU of today: their values are typed from QEMU 2.12's tables (hw/i386/pc_piix.c, as
CentOS 7.8 carries them), the others' from 7.2's (hw/core/machine.c, hw/i386/pc.c, pc_piix.c). What QEMU 7.2 has is
beside it in tests/peers/test_types_qemu.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from vmrun.config.machinetypes import load_type, type_names

NEWEST_FIRST = [
    *(f"pc-i440fx-{major}.{minor}" for major in (7, 6, 5) for minor in (2, 1, 0)),
    *(f"pc-i440fx-{version}" for version in ("4.2", "4.1", "4.0", "3.1", "3.0")),
    *(f"pc-i440fx-2.{minor}" for minor in range(12, -1, -1)),
    *(f"pc-i440fx-1.{minor}" for minor in (7, 6, 5, 4)),
    *(f"pc-1.{minor}" for minor in (3, 2, 1, 0)),
    *(f"pc-0.{minor}" for minor in range(15, 9, -1)),
]
REMOVED = NEWEST_FIRST[-10:]


def flattened(name: str) -> dict[str, Any]:
    return load_type(name).to_dict()


def test_every_type_of_qemu_is_there() -> None:
    assert [name for name in type_names() if name.startswith("pc-")] == sorted(
        NEWEST_FIRST, key=lambda name: (name.startswith("pc-i"), [int(n) for n in name.split("-")[-1].split(".")])
    )


@pytest.mark.parametrize(("newer", "older"), list(zip(NEWEST_FIRST, NEWEST_FIRST[1:], strict=False)))
def test_each_type_is_a_difference_from_its_successor(newer: str, older: str) -> None:
    assert load_type(older).chain[1] == newer


def values(section: str, owner: str, prop: str, changes: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """(found, expected) along the chain; changes: type → the value from it on, towards the older ones."""
    found, expected, value = [], [], None
    for name in NEWEST_FIRST:
        value = changes.get(name, value)
        expected.append((name, value))
        found.append((name, flattened(name).get(section, {}).get(owner, {}).get(prop)))
    return found, expected


# driver, property, and from which type on (going back in time) it has which value.
COMPAT: list[tuple[str, str, dict[str, Any]]] = [
    ("virtio-device", "queue_reset", {"pc-i440fx-7.1": False}),
    ("nvme-ns", "eui64-default", {"pc-i440fx-7.0": True, "pc-i440fx-6.0": False}),
    ("virtio-mem", "unplugged-inaccessible", {"pc-i440fx-6.2": False}),
    ("e1000", "init-vet", {"pc-i440fx-6.0": False}),
    ("virtio-net-pci-base", "vectors", {"pc-i440fx-5.2": 3}),
    ("PIIX4_PM", "smm-compat", {"pc-i440fx-5.2": True}),
    ("virtio-blk-device", "num-queues", {"pc-i440fx-5.1": 1}),
    ("pvpanic", "events", {"pc-i440fx-5.1": 1}),
    ("vmport", "x-cmds-v2", {"pc-i440fx-5.0": False}),
    ("virtio-blk-device", "queue-size", {"pc-i440fx-4.2": 128}),
    ("VGA", "edid", {"pc-i440fx-4.0": False}),
    ("virtio-balloon-device", "qemu-4-0-config-size", {"pc-i440fx-4.0": True, "pc-i440fx-3.1": False}),
    ("usb-kbd", "serial", {"pc-i440fx-3.1": "42", "pc-0.12": "1"}),
    ("usb-mouse", "serial", {"pc-i440fx-3.1": "42", "pc-0.12": "1"}),
    ("usb-tablet", "serial", {"pc-i440fx-3.1": "42", "pc-0.12": "1"}),
    ("virtio-blk-device", "discard", {"pc-i440fx-3.1": False}),
    ("hpet", "hpet-offset-saved", {"pc-i440fx-2.11": False}),
    ("virtio-blk-pci", "vectors", {"pc-i440fx-2.11": 2, "pc-0.11": 0}),
    ("i440FX-pcihost", "x-pci-hole64-fix", {"pc-i440fx-2.10": False}),
    ("pci-bridge", "shpc", {"pc-i440fx-2.9": False, "pc-i440fx-2.8": True}),
    ("fw_cfg_io", "x-file-slots", {"pc-i440fx-2.8": 16}),
    ("cirrus-vga", "vgamem_mb", {"pc-i440fx-2.8": 8}),
    ("ioapic", "version", {"pc-i440fx-2.7": 0x11}),
    ("virtio-pci", "page-per-vq", {"pc-i440fx-2.7": True}),
    ("virtio-pci", "disable-modern", {"pc-i440fx-2.6": True}),
    ("virtio-pci", "disable-legacy", {"pc-i440fx-2.6": "off"}),
    ("isa-fdc", "fallback", {"pc-i440fx-2.5": 144}),
    ("fw_cfg_io", "dma_enabled", {"pc-i440fx-2.4": False}),
    ("e1000", "extra_mac_registers", {"pc-i440fx-2.4": False}),
    ("virtio-balloon-pci", "any_layout", {"pc-i440fx-2.3": False}),
    ("VGA", "qemu-extended-regs", {"pc-i440fx-2.1": False}),
    ("virtio-scsi-pci", "any_layout", {"pc-i440fx-2.1": False}),
    ("apic", "version", {"pc-i440fx-2.0": 0x11}),
    ("PIIX4_PM", "memory-hotplug-support", {"pc-i440fx-2.0": False}),
    ("PIIX4_PM", "acpi-pci-hotplug-with-bridge-support", {"pc-i440fx-1.7": False}),
    ("usb-device", "msos-desc", {"pc-i440fx-1.7": False}),
    ("e1000", "mitigation", {"pc-i440fx-1.6": False}),
    ("i440FX-pcihost", "short_root_bus", {"pc-i440fx-1.6": 1, "pc-i440fx-1.5": 0}),
    ("virtio-serial-pci", "vectors", {"pc-i440fx-1.4": 0xFFFFFFFF, "pc-0.12": 0}),
    ("e1000", "romfile", {"pc-i440fx-1.4": "pxe-e1000.rom"}),
    ("ide-hd", "discard_granularity", {"pc-i440fx-1.4": 0}),
    # only in 2.12's tables
    ("usb-tablet", "usb_version", {"pc-1.3": 1}),
    ("virtio-net-pci", "ctrl_mac_addr", {"pc-1.3": False}),
    ("virtio-net-pci", "mq", {"pc-1.3": False}),
    ("e1000", "autonegotiation", {"pc-1.3": False}),
    ("nec-usb-xhci", "msi", {"pc-1.2": False}),
    ("nec-usb-xhci", "msix", {"pc-1.2": False}),
    ("ivshmem", "use64", {"pc-1.2": False}),
    ("qxl", "revision", {"pc-i440fx-4.2": 4, "pc-1.2": 3, "pc-0.14": 2}),
    ("qxl-vga", "revision", {"pc-i440fx-4.2": 4, "pc-1.2": 3, "pc-0.14": 2}),
    ("VGA", "mmio", {"pc-1.2": False}),
    ("virtio-scsi-pci", "hotplug", {"pc-1.1": False}),
    ("virtio-scsi-pci", "param_change", {"pc-1.1": False}),
    ("VGA", "vgamem_mb", {"pc-1.1": 8}),
    ("vmware-svga", "vgamem_mb", {"pc-1.1": 8}),
    ("qxl", "vgamem_mb", {"pc-1.1": 8}),
    ("qxl-vga", "vgamem_mb", {"pc-1.1": 8}),
    ("virtio-blk-pci", "config-wce", {"pc-1.1": False}),
    ("isa-fdc", "check_media_rate", {"pc-1.0": False}),
    ("virtio-balloon-pci", "class", {"pc-1.0": 0x0500}),
    ("apic-common", "vapic", {"pc-1.0": False}),
    ("usb-device", "full-path", {"pc-1.0": False}),
    ("virtio-blk-pci", "event_idx", {"pc-0.14": False}),
    ("virtio-serial-pci", "event_idx", {"pc-0.14": False}),
    ("virtio-net-pci", "event_idx", {"pc-0.14": False}),
    ("virtio-balloon-pci", "event_idx", {"pc-0.14": False}),
    ("pci-device", "command_serr_enable", {"pc-0.13": False}),
    ("AC97", "use_broken_id", {"pc-0.13": True}),
    ("virtio-9p-pci", "vectors", {"pc-0.13": 0}),
    ("VGA", "rombar", {"pc-0.13": 0}),
    ("vmware-svga", "rombar", {"pc-0.13": 0}),
    ("virtio-serial-pci", "max_ports", {"pc-0.12": 1}),
    ("pci-device", "rombar", {"pc-0.11": 0}),
    ("ide-drive", "ver", {"pc-0.11": "0.11", "pc-0.10": "0.10"}),
    ("scsi-disk", "ver", {"pc-0.11": "0.11", "pc-0.10": "0.10"}),
    ("virtio-blk-pci", "class", {"pc-0.10": 0x0180}),
    ("virtio-serial-pci", "class", {"pc-0.10": 0x0380}),
    ("virtio-net-pci", "vectors", {"pc-0.10": 0}),
]


@pytest.mark.parametrize(("driver", "prop", "changes"), COMPAT, ids=lambda value: value if type(value) is str else "")
def test_frozen_value_along_the_family(driver: str, prop: str, changes: dict[str, Any]) -> None:
    found, expected = values("compat", driver, prop, changes)
    assert found == expected


VERSION = {"pc-i440fx-2.4": "2.4.0", "pc-i440fx-2.3": "2.3.0", "pc-i440fx-2.2": "2.2.0", "pc-i440fx-2.1": "2.1.0"}
VERSION |= {"pc-i440fx-2.0": "2.0.0", **{f"pc-i440fx-1.{n}": f"1.{n}.0" for n in (7, 6, 5, 4)}}
VERSION |= {"pc-1.3": "1.3.0", "pc-1.2": "1.2.0", "pc-1.1": "1.1.0", "pc-1.0": "1.0"}
VERSION |= {f"pc-0.{n}": f"0.{n}" for n in range(10, 16)}
MODEL_ID = {name: f"QEMU Virtual CPU version {version}" for name, version in VERSION.items()}

# model, property, from which type on it has which value; * is every model.
PROCESSORS: list[tuple[str, str, dict[str, Any]]] = [
    ("qemu64", "model-id", MODEL_ID),
    ("qemu32", "model-id", MODEL_ID),
    ("athlon", "model-id", MODEL_ID),
    ("*", "x-vendor-cpuid-only", {"pc-i440fx-6.0": False}),
    ("qemu64", "family", {"pc-i440fx-6.0": 6}),
    ("qemu64", "model", {"pc-i440fx-6.0": 6, "pc-i440fx-1.6": 2}),
    ("Opteron_G3", "rdtscp", {"pc-i440fx-3.1": False, "pc-i440fx-2.4": True}),
    ("Skylake-Server", "mpx", {"pc-i440fx-3.1": True}),
    ("Skylake-Server", "pku", {"pc-i440fx-3.0": False}),
    ("*", "legacy-cache", {"pc-i440fx-2.12": True}),
    ("*", "topoext", {"pc-i440fx-2.12": False}),
    ("EPYC", "xlevel", {"pc-i440fx-2.12": 0x8000000A}),
    ("Haswell", "stepping", {"pc-i440fx-2.8": 1}),
    ("*", "l3-cache", {"pc-i440fx-2.7": False}),
    ("*", "cpuid-0xb", {"pc-i440fx-2.6": False}),
    ("host", "host-cache-info", {"pc-i440fx-2.4": True}),
    ("*", "arat", {"pc-i440fx-2.3": False}),
    ("Conroe", "min-level", {"pc-i440fx-2.3": 4, "pc-i440fx-1.5": 2}),
    ("Nehalem", "model", {"pc-i440fx-1.5": 2}),
    ("Broadwell", "f16c", {"pc-i440fx-2.2": False}),
    ("coreduo", "vmx", {"pc-i440fx-2.1": True}),
    ("*", "pmu", {"pc-i440fx-1.5": True}),
    ("486", "model", {"pc-i440fx-1.4": 0}),
    ("Westmere", "pclmulqdq", {"pc-i440fx-1.4": False}),
    ("n270", "movbe", {"pc-i440fx-1.4": False}),
]


@pytest.mark.parametrize(
    ("model", "prop", "changes"), PROCESSORS, ids=lambda value: value if type(value) is str else ""
)
def test_frozen_value_of_a_cpu_model_along_the_family(model: str, prop: str, changes: dict[str, Any]) -> None:
    found, expected = values("cpu-compat", model, prop, changes)
    assert found == expected


# Path in the flattened type, its value in pc-i440fx-7.2, and what it becomes from which type on.
SETTINGS: list[tuple[str, Any, dict[str, Any]]] = [
    ("hw-version", "2.5+", VERSION),
    ("memory-map.amd-1tb-hole", True, {"pc-i440fx-7.0": None}),
    ("cpus.topology-fill", "cores", {"pc-i440fx-6.1": "sockets"}),
    ("cpus.versions", "v1", {"pc-i440fx-4.0": "legacy"}),
    ("cpus.smm", True, {"pc-i440fx-2.3": False}),
    ("cpus.mask-svm", True, {"pc-i440fx-2.1": False}),
    ("cpus.add-x2apic", None, {"pc-i440fx-1.7": False}),
    ("cpus.add-kvm-pv-eoi", None, {"pc-1.2": False}),
    ("cpus.apic-ids", "topology", {"pc-1.3": "contiguous"}),
    ("cpus.kvmclock", True, {"pc-0.13": False}),
    ("defaults.display", "std", {"pc-i440fx-2.1": "cirrus"}),
    ("defaults.nic", "e1000", {}),
    ("defaults.cpu", "qemu64", {}),
    ("limits.cpus", 255, {}),
    ("memory-map.low-ram-split", 0xC0000000, {"pc-i440fx-1.7": 0xE0000000}),
    ("firmware.bios", "bios-256k.bin", {"pc-i440fx-1.7": "bios.bin"}),
    ("firmware.acpi", "tables", {"pc-i440fx-1.6": "firmware"}),
    ("firmware.acpi-settings.pci-root-uid", 0, {"pc-i440fx-5.1": 1, "pc-i440fx-1.6": None}),
    ("firmware.acpi-settings.legacy-cpu-hotplug", False, {"pc-i440fx-2.6": True, "pc-i440fx-1.6": None}),
    ("firmware.acpi-settings.rsdp-in-ram", True, {"pc-i440fx-2.2": False, "pc-i440fx-1.6": None}),
    (
        "firmware.acpi-settings.legacy-table-size",
        None,
        {"pc-i440fx-2.0": 6652, "pc-i440fx-1.7": 6414, "pc-i440fx-1.6": None},
    ),
    ("firmware.fw_cfg.order", "name", {"pc-i440fx-2.5": "priority"}),
    ("firmware.fw_cfg.bios-geometry", True, {"pc-i440fx-2.5": False}),
    ("firmware.cmos.floppy", 5, {"pc-i440fx-2.5": 4}),
    ("firmware.smbios.form", "tables", {"pc-i440fx-2.0": "fields"}),
    ("firmware.smbios.uuid-encoded", True, {"pc-i440fx-2.1": False}),
    ("firmware.smbios.type1.manufacturer", "QEMU", {"pc-i440fx-1.7": None}),
]


@pytest.mark.parametrize(("path", "newest", "changes"), SETTINGS, ids=lambda value: value if type(value) is str else "")
def test_setting_along_the_family(path: str, newest: Any, changes: dict[str, Any]) -> None:
    value, expected, found = newest, [], []
    for name in NEWEST_FIRST:
        value = changes.get(name, value)
        expected.append((name, value))
        node: Any = flattened(name)
        for key in path.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        found.append((name, node))
    assert found == expected


@pytest.mark.parametrize("name", [name for name in NEWEST_FIRST if name not in REMOVED])
def test_type_names_itself_in_smbios_until_it_stopped_saying_anything(name: str) -> None:
    expected = None if name.split("-")[-1] in ("1.7", "1.6", "1.5", "1.4") else name
    assert flattened(name)["firmware"]["smbios"].get("type1", {}).get("version") == expected


@pytest.mark.parametrize("name", NEWEST_FIRST)
def test_every_version_has_a_hpet_and_its_wires(name: str) -> None:
    (hpet,) = [entry for entry in flattened(name)["devices"] if entry["driver"] == "hpet"]
    assert hpet["base"] == 0xFED00000
    assert ("pit.irq", "hpet.pit") in [(wire["from"], wire["to"]) for wire in flattened(name)["wires"]]
