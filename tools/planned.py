"""Writes into schema/planned.json the drivers of QEMU's that neither it nor schema/devices.json has, as the
qemu-system-x86_64 of this host describes them, and what docs/planned.md says about each.

    python tools/planned.py            # needs QEMU 7.2; entries that are there stay as they are
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
QEMU = "qemu-system-x86_64"
STRUCTURE = ("addr", "id", "driver", "bus")
TYPES = r"bool|u?int(?:8|16|32|64)|size|str"

# pattern of names → the part of docs/planned.md that says what becomes of them
PARTS = {
    r"pcie-|ioh3420|x3130|xio3130|cxl-|pxb-pcie|pxb-cxl|i82801b11|intel-iommu|amd-iommu|AMDVI": "pci-express",
    r"vhost-|vfio-|x-pci-proxy|pci-assign|usb-host|scsi-block|scsi-generic|virtio-input-host": "the-hosts-own-devices",
    r"u2f": "the-hosts-own-devices",
    r"ahci|ich9-ahci|am53c974|dc390|lsi|megasas|mptsas|pvscsi|nvme|sd-card|sdhci|isa-ide|piix4-ide|ide-|scsi-|floppy|"
    r"isa-fdc|usb-bot|usb-uas|usb-storage|usb-mtp": "storage",
    r"virtio-(?:blk|scsi|pmem|9p)": "storage",
    r"virtio-(?:vga|gpu|input|keyboard|mouse|tablet)|ati-vga|.*vga|qxl|ramfb|bochs|secondary-vga": "display",
    r"i2c-ddc|vmmouse": "display",
    r"virtio-net|e1000|tulip|rocker|pvrdma|ne2k|pcnet|rtl8139|i82|vmxnet3|usb-net|igb": "network",
    r"hda-|intel-hda|ich9-intel-hda|AC97|ES1370|sb16|adlib|gus|cs4231a|usb-audio": "sound",
    r"usb-|.*-usb-|pci-ohci|qemu-xhci|ccid": "usb",
    r"pc-dimm|nvdimm|virtio-mem": "memory",
    r"ipmi|.*ipmi|tpm-|vmgenid|vmcoreinfo|acpi-erst|isa-applesmc|hv-syndbg|hyperv|vmbus|pvpanic|smbus-": "management",
    r"edu|loader|guest-loader|ivshmem|pci-testdev|pc-testdev|testdev": "test-devices",
}

# what older and newer ones have
GONE = [
    ("ivshmem", "PCI", "shared memory between guests, until QEMU 5"),
    ("igb", "PCI", "Intel 82576 NIC, since QEMU 8"),
    ("usb-bt-dongle", "USB", "Bluetooth, until QEMU 3"),
    ("ufs", "PCI", "UFS host controller, since QEMU 8"),
    ("virtio-sound-pci", "PCI", "virtio sound card, since QEMU 8"),
]

BUSES = {"usb-bus": "USB", "i2c-bus": "I2C", "System": ""}
PROVIDES = {
    r"ich9-ahci|ahci": ["IDE"] * 6,
    r"isa-ide": ["IDE"],
    r"am53c974|dc390|lsi|megasas|mptsas|virtio-scsi-pci|usb-bot|usb-uas": ["SCSI"],
    r"virtio-serial-pci": ["virtio-serial-bus"],
    r"pcie-|ioh3420|x3130|xio3130|pxb|pci-bridge|i82801b11": ["PCI"],
    r"sdhci-pci": ["sd-bus"],
}


def part(name: str) -> str:
    return next((where for pattern, where in PARTS.items() if re.match(pattern, name)), "the-rest")


def listed() -> list[tuple[str, str, str, str]]:
    """(name, bus, alias, description) of each driver that QEMU names."""
    text = subprocess.run([QEMU, "-device", "help"], capture_output=True, text=True, check=True).stdout
    found = []
    for row in text.splitlines():
        match = re.match(r'name "([^"]+)"(?:, bus ([\w-]+))?(?:, alias "([^"]+)")?(?:, desc "([^"]*)")?', row)
        if match is not None and not match[1].endswith("-x86_64-cpu"):
            found.append((match[1], match[2] or "", match[3] or "", match[4] or ""))
    return found


def props(name: str) -> list[dict[str, Any]]:
    text = subprocess.run([QEMU, "-device", f"{name},help"], capture_output=True, text=True).stdout
    found: list[dict[str, Any]] = []
    for row in text.splitlines():
        match = re.match(r"  ([\w.-]+)=<([^>]+)>(?:.*\(default: ([^)]*)\))?", row)
        if match is None or match[1] in STRUCTURE or match[2].startswith(("child", "link<bus")):
            continue
        kind = match[2] if re.fullmatch(TYPES, match[2]) else "str"
        prop: dict[str, Any] = {"name": match[1], "type": {"uint8": "uint32", "uint16": "uint32"}.get(kind, kind)}
        if match[1] in ("drive", "chardev", "netdev"):
            prop["type"] = match[1]
        elif match[1] == "mac" or match[1] == "macaddr":
            prop["type"] = "mac"
        elif match[3] is not None and kind == "bool":
            prop["default"] = match[3] == "true"
        elif match[3] is not None and kind.startswith("uint") and int(match[3]) != 0xFFFFFFFF:
            prop["default"] = int(match[3])
        found.append(prop)
    return found


def main() -> None:
    path = ROOT / "schema" / "planned.json"
    planned = json.loads(path.read_text())
    known = {*planned, *json.loads((ROOT / "schema" / "devices.json").read_text())}
    for name, bus, alias, description in listed():
        for each in (name, alias):
            if each and each not in known:
                text = description or f"QEMU's {name}"
                planned[each] = {
                    "bus": BUSES.get(bus, bus) or None,
                    "description": text if each == name else f"another name of {name}",
                }
                provides = next((kinds for pattern, kinds in PROVIDES.items() if re.match(pattern, name)), None)
                if provides:
                    planned[each]["provides"] = provides
                planned[each]["props"] = props(name)
                known.add(each)
    for name, bus, text in GONE:
        planned.setdefault(name, {"bus": bus, "description": text, "props": []})
    for name, entry in planned.items():
        entry["plan"] = part(name)
    path.write_text(text_of(planned))


def text_of(planned: dict[str, Any]) -> str:
    rows = []
    for name in sorted(planned, key=lambda name: (name.lower(), name)):
        entry = planned[name]
        head = {key: value for key, value in entry.items() if key != "props"}
        body = ",\n  ".join(json.dumps(prop) for prop in entry["props"])
        start = json.dumps(head)[:-1]
        rows.append(f'{json.dumps(name)}: {start}, "props": [' + (f"\n  {body}" if body else "") + "]}")
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    main()
