"""Questions about a resolved machine (plain dict) that several parts of the firmware's data ask."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from vmrun.config.sections import Cpus, DeviceRow, MachineData

AMD = "AuthenticAMD"
DISPLAYS = ("VGA", "cirrus-vga", "qxl-vga", "vmware-svga", "virtio-vga")
# ISA displays without a ROM of their own: the firmware is handed their video BIOS (sga's shows text on a serial port).
ISA_DISPLAYS = {"isa-vga": "vgabios.bin", "isa-cirrus-vga": "vgabios-cirrus.bin", "sga": "sgabios.bin"}


TPMS = ("tpm-tis", "tpm-crb")
NVDIMM_FILE, NVDIMM_PAGE = "etc/acpi/nvdimm-mem", 4096  # where questions to non-volatile modules stand
TPM_LOG = 64 << 10  # bytes that the firmware's log of measurements gets


class Processor:
    """What the firmware's data say of a processor: CPUID's vendor, leaf 1's EAX and EDX, width of addresses."""

    __slots__ = ("features", "phys_bits", "vendor", "version")

    def __init__(self, vendor: str = "", version: int = 0, features: int = 0, phys_bits: int = 36) -> None:
        self.vendor, self.version, self.features, self.phys_bits = vendor, version, features, phys_bits


def processor_of(leaves: Iterable[dict[str, int]]) -> Processor:
    """From the CPUID leaves of the first processor: function, index, eax, ebx, ecx, edx of each."""
    by_function = {leaf["function"]: leaf for leaf in leaves if not leaf.get("index")}
    zero, one, sizes = (by_function.get(function, {}) for function in (0, 1, 0x80000008))
    vendor = b"".join(zero.get(name, 0).to_bytes(4, "little") for name in ("ebx", "edx", "ecx"))
    return Processor(
        vendor.decode("latin-1"), one.get("eax", 0), one.get("edx", 0), sizes.get("eax", 36) & 0xFF
    )


def with_driver(machine: MachineData, *drivers: str) -> Iterator[DeviceRow]:
    """The devices of these drivers, in the machine's order."""
    return (device for device in machine["devices"] if device["driver"] in drivers)


def first(machine: MachineData, *drivers: str) -> DeviceRow | None:
    return next(with_driver(machine, *drivers), None)


def flash(machine: MachineData) -> str:
    """The id of the drive that is the machine's firmware, in a flash below 4 GiB; '' when it is a ROM."""
    for device in with_driver(machine, "cfi.pflash01"):
        if not device["props"].get("below"):
            return str(device["props"].get("drive") or "")
    return ""


def floppy_drives(machine: MachineData, disk_size: Callable[[str], int] | None) -> dict[int, str]:
    """Unit → drive type ("120", "144", "288") of the board's floppy drives. disk_size: bytes of a drive by id."""
    from vmrun.core.floppies import drive_type

    controller = first(machine, "isa-fdc")
    if controller is None:
        return {}
    props = controller["props"]
    found = {
        unit: (props.get(f"drive{letter}"), props.get(f"fdtype{letter}", "auto"))
        for unit, letter in enumerate("AB")
        if props.get(f"drive{letter}")
    }
    for device in with_driver(machine, "floppy"):
        if device["bus"] in controller["provides"]:
            unit = device["props"].get("unit")
            unit = next((free for free in (0, 1) if free not in found), 2) if unit is None else int(unit)
            found[unit] = device["props"].get("drive"), device["props"].get("drive-type", "auto")
    kinds = {}
    for unit, (drive, kind) in found.items():
        size = disk_size(drive) if drive and disk_size is not None else 0
        kinds[unit] = drive_type(str(kind), size // 512 if size else None, str(props.get("fallback", "288")))
    return {unit: kind for unit, kind in sorted(kinds.items()) if kind != "none"}


def slot(device: DeviceRow) -> tuple[int, int]:
    """(device, function) of "01.3"."""
    number, _, function = str(device["addr"]).partition(".")
    return int(number, 16), int(function or "0", 16)


def memory_below_4g(machine: MachineData) -> int:
    return int(machine["memory-map"]["below-4g"])


def memory_above_4g(machine: MachineData) -> int:
    return int(machine["memory-map"]["above-4g"])


def high_ram(machine: MachineData) -> int:
    """Where RAM goes on that does not lie below 4 GiB."""
    return int(machine["memory-map"].get("high-ram", 1 << 32))


def end_of_memory(machine: MachineData) -> int:
    """The first address behind all RAM, 4 GiB at least."""
    return max(high_ram(machine) + memory_above_4g(machine), 1 << 32)


def reserved_end(machine: MachineData) -> int:
    """Where memory of PCI devices can begin above 4 GiB: behind RAM, and behind what is kept for modules."""
    slots = machine.get("memory-slots")
    return int(slots["reserved-end"]) if slots else end_of_memory(machine)


def memory_slots(machine: MachineData) -> int:
    """How many modules there can be."""
    return machine["memory-slots"]["count"] if "memory-slots" in machine else 0


def has_nvdimms(machine: MachineData) -> bool:
    slots = machine.get("memory-slots")
    return bool(slots and slots.get("nvdimm"))


def memory_ranges(machine: MachineData) -> list[tuple[int, int]]:
    """First and last address of RAM below and above 4 GiB."""
    found = [(0, memory_below_4g(machine) - 1)]
    if memory_above_4g(machine):
        found.append((high_ram(machine), end_of_memory(machine) - 1))
    return found


def numa(machine: MachineData) -> list[dict[str, Any]]:
    """NUMA nodes: their processors by index, their bytes of memory, their distances to all nodes."""
    return list(machine.get("numa") or ())


def nodes_of_processors(machine: MachineData) -> dict[int, int]:
    """Index of a processor → its node; {} without nodes."""
    return {int(cpu): n for n, node in enumerate(numa(machine)) for cpu in node.get("cpus", ())}


def apic_id(index: int, cpus: Cpus) -> int:
    """APIC id of a processor: its index, or socket, core and thread each in as many bits as they need."""
    if cpus.get("apic-ids", "topology") == "contiguous":
        return index
    threads, cores = int(cpus.get("threads", 1)), int(cpus.get("cores", 1))
    thread_bits, core_bits = (threads - 1).bit_length(), (cores - 1).bit_length()
    thread, core = index % threads, index // threads % cores
    return (index // (threads * cores) << core_bits | core) << thread_bits | thread


def apic_ids(machine: MachineData) -> list[int]:
    """APIC ids of all processors that there can be; those that `present` tells are there."""
    cpus = machine["cpus"]
    return [apic_id(index, cpus) for index in range(int(cpus.get("maxcpus") or cpus["count"]))]


def place_index(row: dict[str, int], cpus: Cpus) -> int:
    """The number of the processor at a socket, core and thread."""
    return (row["socket-id"] * int(cpus["cores"]) + row["core-id"]) * int(cpus["threads"]) + row["thread-id"]


def present(cpus: Cpus) -> list[int]:
    """Which of the processors that there can be are there, by number, of a resolved machine's `cpus`: the first
    `count` and those that were plugged in before power-on; with `present`, what a running machine has become.
    """
    if "present" in cpus:
        return list(cpus["present"])
    return sorted({*range(int(cpus["count"])), *(place_index(row, cpus) for row in cpus.get("plugged", ()))})


def apic_limit(machine: MachineData) -> int:
    """One more than the highest APIC id."""
    return max(apic_ids(machine)) + 1


def always_acpi(machine: MachineData) -> bool:
    """The power management function has no legacy mode: nothing answers at the SMI command port."""
    pm = first(machine, "PIIX4_PM")
    props = pm["props"] if pm is not None else {}
    return not (props.get("smm-enabled", False) or props.get("smm-compat", False))


def sleep_states(machine: MachineData) -> tuple[bool, bool, int]:
    """(S3 offered, S4 offered, sleep type of S4), from the power management function."""
    pm = first(machine, "PIIX4_PM")
    props = pm["props"] if pm is not None else {}
    return not props.get("disable_s3", 0), not props.get("disable_s4", 0), int(props.get("s4_val", 2))
