"""The tree of types that clients ask for (qom-list-types): classes above the drivers, and what drivers are besides, as
QEMU 7.2 tells them.
"""

from __future__ import annotations

import vmrun.backends.objects as objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VIRTIO = ("balloon", "blk", "net", "rng", "scsi")
# class → the one above it
ABSTRACT = {
    **{"device": "object", "bus": "object", "machine": "object", "accel": "object", "chardev": "object"},
    **{"x86-machine": "machine", "generic-pc-machine": "x86-machine", "cpu": "device", "x86_64-cpu": "cpu"},
    **dict.fromkeys(objects.PARENTS.values(), "object"),
    **{"memory-backend": "object", "rng-backend": "object", "tls-creds": "object", "secret_common": "object"},
    **{"event-loop-base": "object", "chardev-fd": "chardev"},
    **dict.fromkeys(("pci-device", "isa-device", "ide-device", "scsi-device", "sys-bus-device"), "device"),
    **dict.fromkeys(("apic-common", "ipmi-bmc"), "device"),
    **dict.fromkeys(("pci-piix3", "pci-vga", "e1000-base", "base-pci-bridge", "ivshmem-common"), "pci-device"),
    **dict.fromkeys(("megasas-base", "pci-ide", "virtio-pci"), "pci-device"),
    **dict.fromkeys(("fw_cfg", "pci-host-bridge", "ioapic-common"), "sys-bus-device"),
    **dict.fromkeys(("pic-common", "pit-common"), "isa-device"),
    "scsi-disk-base": "scsi-device",
    **{f"virtio-{kind}-pci-base": "virtio-pci" for kind in _VIRTIO},
    **{"virtio-gpu-pci-base": "virtio-pci", "virtio-gpu-pci-base-type": "virtio-gpu-pci-base"},
    **{"virtio-vga-base": "virtio-pci", "virtio-vga-base-type": "virtio-vga-base"},
}
ACCELERATORS = ("kvm-accel", "qtest-accel", "tcg-accel")
# a driver's class by its bus, and of those that have one of their own
_OF_BUS = {"PCI": "pci-device", "ISA": "isa-device", "IDE": "ide-device", None: "sys-bus-device"}
_PARENTS = {
    **{"PIIX3": "pci-piix3", "VGA": "pci-vga", "secondary-vga": "pci-vga", "piix3-ide": "pci-ide"},
    **dict.fromkeys(("e1000", "e1000-82544gc", "e1000-82545em"), "e1000-base"),
    **dict.fromkeys(("i82801b11-bridge", "pci-bridge"), "base-pci-bridge"),
    **dict.fromkeys(("megasas", "megasas-gen2"), "megasas-base"),
    **{"ivshmem-plain": "ivshmem-common", "lsi53c810": "lsi53c895a", "dc390": "am53c974"},
    **dict.fromkeys(("ioapic", "kvm-ioapic"), "ioapic-common"),
    **dict.fromkeys(("isa-i8259", "kvm-i8259"), "pic-common"),
    **dict.fromkeys(("isa-pit", "kvm-pit"), "pit-common"),
    **{"apic": "apic-common", "fw_cfg_io": "fw_cfg", "i440FX-pcihost": "pci-host-bridge"},
    **{"ipmi-bmc-sim": "ipmi-bmc", "nvdimm": "pc-dimm"},
    **dict.fromkeys(("nvme-subsys", "pc-dimm", "tpm-crb", "vmcoreinfo", "vmgenid"), "device"),
    **dict.fromkeys(("scsi-cd", "scsi-hd"), "scsi-disk-base"),
    **{
        f"virtio-{kind}-pci{end}": f"virtio-{kind}-pci-base"
        for kind in _VIRTIO
        for end in ("", "-transitional", "-non-transitional")
    },
    **{"virtio-gpu-pci": "virtio-gpu-pci-base-type", "virtio-vga": "virtio-vga-base-type"},
    **dict.fromkeys(("iothread", "main-loop"), "event-loop-base"),
    **dict.fromkeys(("chardev-file", "chardev-pipe", "chardev-serial", "chardev-stdio"), "chardev-fd"),
    **{"chardev-memory": "chardev-ringbuf", "host-x86_64-cpu": "max-x86_64-cpu"},
}
_EXPRESS_ALONE = ("e1000e", "nvme", "megasas-gen2")
_EXPRESS_TOO = (
    *("bochs-display", "pvscsi", "vmxnet3", "virtio-gpu-pci", "virtio-vga"),
    *(f"virtio-{kind}-pci{end}" for kind in _VIRTIO for end in ("", "-non-transitional")),
)
# what types are besides: names, or the classes that all of it lie below
INTERFACES: dict[str, tuple[str, ...]] = {
    "resettable": ("device", "bus"),
    "vmstate-if": ("device",),
    "pci-express-device": (*_EXPRESS_ALONE, *_EXPRESS_TOO),
    "conventional-pci-device": ("pci-device",),
    "user-creatable": tuple(name for name in objects.KINDS if name != "tpm-emulator"),
    "hotplug-handler": ("generic-pc-machine", "PIIX4_PM", "pci-bridge", "pvscsi"),
    "nmi": ("generic-pc-machine",),
    "intctrl": ("ioapic-common", "pic-common"),
    "ipmi-interface": ("isa-ipmi-bt", "isa-ipmi-kcs", "pci-ipmi-bt", "pci-ipmi-kcs"),
    "tpm-if": ("tpm-crb", "tpm-tis"),
    "acpi-device-interface": ("PIIX4_PM",),
    "memory-device": ("pc-dimm",),
    "acpi-dev-aml-interface": (
        *("PIIX3", "pci-vga", "i8042", "isa-fdc", "isa-ipmi-bt", "isa-ipmi-kcs", "isa-parallel", "isa-serial"),
        *("mc146818rtc", "pvpanic", "tpm-tis"),
    ),
    "isa-dma": ("i8257",),
}
_NOT = {"conventional-pci-device": _EXPRESS_ALONE}


def drivers() -> dict[str, Any]:
    """The rows of the catalogue: what vmrun models."""
    from vmrun.config.catalogue import device_rows

    return device_rows()


def parent_of(name: str) -> str:
    if name in ABSTRACT:
        return ABSTRACT[name]
    if name in _PARENTS:
        return _PARENTS[name]
    if name in objects.KINDS:
        return objects.PARENTS.get(name, "object")
    if name.endswith("-machine"):
        return "generic-pc-machine" if name != "none-machine" else "machine"
    if name.endswith("-x86_64-cpu"):
        return "x86_64-cpu"
    if name in ACCELERATORS:
        return "accel"
    if name.startswith("chardev-"):
        return "chardev"
    row = drivers().get(name)
    if row is None:  # an abstract type that only kinds of objects name
        return "object"
    return _OF_BUS.get(row["bus"], "device")


def every() -> list[str]:
    """The types that an object can have."""
    from vmrun.config.cpumodels import model_names
    from vmrun.config.machinetypes import type_names
    from vmrun.monitor.commands.chardevs import KINDS

    return [
        *drivers(),
        *objects.KINDS,
        *ACCELERATORS,
        *(f"{name}-machine" for name in (*type_names(), "none")),
        *(f"{name}-x86_64-cpu" for name in model_names("qemu") if name != "default"),
        *(f"chardev-{name}" for name in KINDS),
    ]


def lineage(name: str) -> list[str]:
    """A type and all above it."""
    line = [name]
    while line[-1] != "object":
        line.append(parent_of(line[-1]))
    return line


def implements(name: str, wanted: str) -> bool:
    """Whether a type is below a class, or has an interface."""
    line = lineage(name)
    below = INTERFACES.get(wanted)
    if below is None:
        return wanted in line
    return not set(line).isdisjoint(below) and name not in _NOT.get(wanted, ())


def types(wanted: str = "", abstract: bool = False) -> list[dict[str, Any]]:
    """ObjectTypeInfo of drivers and, if asked for, the classes above them; of those alone that implement `wanted`."""
    found: list[dict[str, Any]] = []
    for name in [*every(), *(ABSTRACT if abstract else ())]:
        if not wanted or implements(name, wanted):
            row: dict[str, Any] = {"name": name, "parent": parent_of(name)}
            if name in ABSTRACT:
                row["abstract"] = True
            found.append(row)
    return found
