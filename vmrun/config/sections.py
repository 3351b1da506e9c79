"""The sections of a resolved machine, as mypy sees them: what `vmrun resolve` prints and the builder reads.

For annotations alone; nobody imports this while a machine starts. What a driver, a chardev or an object has is a matter
of the catalogue, and a plain table here. Sizes and addresses are bytes. Nobody changes any of it after resolving: who
needs a variant makes a new table.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Block(TypedDict):
    base: int
    size: int


BiosPlace = TypedDict("BiosPlace", {"end": int, "isa-window": int})
KvmPages = TypedDict("KvmPages", {"identity-map": int, "tss": int})
MemoryMap = TypedDict(
    "MemoryMap",
    {
        "low-ram-limit": int,
        "low-ram-split": int,
        "high-ram": int,
        "option-roms": Block,
        "bios": BiosPlace,
        "pci-hole": Block,
        "kvm": KvmPages,
        "low-rom-ram-backed": bool,
        "below-4g": int,
        "above-4g": int,
        "amd-1tb-hole": NotRequired[bool],
    },
)
Cpus = TypedDict(
    "Cpus",
    {
        "count": int,
        "sockets": int,
        "cores": int,
        "threads": int,
        "maxcpus": int,
        "apic-ids": str,
        "family": str,
        "model": str,
        "features": dict[str, Any],
        "compat": dict[str, Any],
        "topology-fill": str,
        "smm": bool,
        "kvmclock": bool,
        "model-data": dict[str, Any],
        "apic": NotRequired[dict[str, int]],
        "versions": NotRequired[str],
        "mask-svm": NotRequired[bool],
        "add-x2apic": NotRequired[bool],
        "add-kvm-pv-eoi": NotRequired[bool],
        "plugged": NotRequired[list[dict[str, Any]]],
        "present": NotRequired[list[int]],  # of a machine that runs: what it has become
    },
)
MemorySlots = TypedDict(
    "MemorySlots",
    {
        "count": int,
        "maxmem": int,
        "base": int,
        "size": int,
        "reserved-end": int,
        "nvdimm": NotRequired[bool],
        "nvdimm-persistence": NotRequired[str],
    },
)


class Rtc(TypedDict):
    base: str
    clock: str
    driftfix: str


Boot = TypedDict(
    "Boot",
    {
        "order": str,
        "menu": bool,
        "strict": bool,
        "reboot-timeout": int,
        "once": NotRequired[str],
        "floppy-check": NotRequired[bool],
        "splash": NotRequired[str],
        "splash-time": NotRequired[int],
    },
)
FwCfg = TypedDict(
    "FwCfg",
    {
        "order": str,
        "e820": bool,
        "hpet": bool,
        "irq0-override": bool,
        "bios-geometry": bool,
        "numa": bool,
        "boot-fail-wait": bool,
        "system-states": bool,
        "id": NotRequired[int],
    },
)
Cmos = TypedDict("Cmos", {"high-ram-bytes": int, "floppy": int, "disk-geometry": str})
SmbiosForm = TypedDict(
    "SmbiosForm", {"form": str, "type1": NotRequired[dict[str, Any]], "uuid-encoded": NotRequired[bool]}
)
AcpiSettings = TypedDict(
    "AcpiSettings",
    {
        "creator-id": str,
        "creator-revision": int,
        "data-size": int,
        "legacy-cpu-hotplug": bool,
        "loader-align": int,
        "numa-mem": bool,
        "oem-id": str,
        "oem-table-id": str,
        "pci-root-uid": int,
        "rsdp-in-ram": bool,
        "tables-align": int,
        "legacy-table-size": NotRequired[int],
    },
)


class KernelRoms(TypedDict):
    dma: bool
    pvh: NotRequired[bool]


Firmware = TypedDict(
    "Firmware",
    {
        "bios": str,
        "acpi": str,
        "fw_cfg": FwCfg,
        "cmos": Cmos,
        "option-roms": list[str],
        "files": NotRequired[dict[str, dict[str, str]]],
        "roms": NotRequired[list[dict[str, Any]]],
        "acpi-tables": NotRequired[list[dict[str, Any]]],
        "nographic": NotRequired[bool],
        "smbios": SmbiosForm,
        "dirs": list[str],
        "acpi-settings": NotRequired[AcpiSettings],
        "kernel-roms": NotRequired[KernelRoms],
        "pflash": NotRequired[list[str]],
    },
)
DeviceRow = TypedDict(
    "DeviceRow",
    {
        "id": str,
        "driver": str,
        "board": bool,
        "bus": Any,  # a name, or None
        "addr": Any,  # of a PCI device a text, else None
        "provides": dict[str, str],
        "props": dict[str, Any],
        "in-kernel": NotRequired[str],
        "in-kernel-props": NotRequired[dict[str, Any]],
    },
)
MachineData = TypedDict(
    "MachineData",
    {
        "schema": str,
        "name": str,
        "machine": str,
        "family": str,
        "hw-version": str,
        "accel": list[str],
        "kernel_irqchip": str,
        "paused": bool,
        "memory": int,
        "memory-map": MemoryMap,
        "cpus": Cpus,
        "rtc": Rtc,
        "boot": Boot,
        "firmware": Firmware,
        "kernel": str | None,
        "initrd": str | None,
        "cmdline": str | None,
        "kernel-names": NotRequired[dict[str, str]],
        "pci-routing": dict[str, int],
        "devices": list[DeviceRow],
        "wires": list[list[str]],
        "drives": dict[str, dict[str, Any]],
        "chardevs": dict[str, dict[str, Any]],
        "netdevs": dict[str, dict[str, Any]],
        "monitors": dict[str, dict[str, Any]],
        "uuid": str | None,
        "smbios": dict[str, Any],
        "translate": NotRequired[str],
        "thread": NotRequired[str],
        "clock": NotRequired[dict[str, Any]],
        "memory-slots": NotRequired[MemorySlots],
        "numa": NotRequired[list[dict[str, Any]]],
        "remove": NotRequired[list[str]],
        "segments": NotRequired[dict[str, dict[str, str]]],
        "vnc": NotRequired[dict[str, Any] | list[dict[str, Any]]],
        "keyboard": NotRequired[str],
        "on": NotRequired[dict[str, Any]],
        "memory-backing": NotRequired[dict[str, Any]],
        "objects": NotRequired[dict[str, dict[str, Any]]],
    },
)
