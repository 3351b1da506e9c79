"""Questions about a resolved machine (plain dict) that several parts of the firmware's data ask."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DISPLAYS = ("VGA", "cirrus-vga", "qxl-vga", "vmware-svga", "virtio-vga")


def with_driver(machine: dict[str, Any], *drivers: str) -> Iterator[dict[str, Any]]:
    """The devices of these drivers, in the machine's order."""
    return (device for device in machine["devices"] if device["driver"] in drivers)


def first(machine: dict[str, Any], *drivers: str) -> dict[str, Any] | None:
    return next(with_driver(machine, *drivers), None)


def slot(device: dict[str, Any]) -> tuple[int, int]:
    """(device, function) of "01.3"."""
    number, _, function = str(device["addr"]).partition(".")
    return int(number, 16), int(function or "0", 16)


def memory_below_4g(machine: dict[str, Any]) -> int:
    return int(machine["memory-map"]["below-4g"])


def memory_above_4g(machine: dict[str, Any]) -> int:
    return int(machine["memory-map"]["above-4g"])


def apic_id(index: int, cpus: dict[str, Any]) -> int:
    """APIC id of a processor: its index, or socket, core and thread each in as many bits as they need."""
    if cpus.get("apic-ids", "topology") == "contiguous":
        return index
    threads, cores = int(cpus.get("threads", 1)), int(cpus.get("cores", 1))
    thread_bits, core_bits = (threads - 1).bit_length(), (cores - 1).bit_length()
    thread, core = index % threads, index // threads % cores
    return (index // (threads * cores) << core_bits | core) << thread_bits | thread


def apic_ids(machine: dict[str, Any]) -> list[int]:
    """APIC ids of all processors that there can be; the first `count` are there at power-on."""
    cpus = machine["cpus"]
    return [apic_id(index, cpus) for index in range(int(cpus.get("maxcpus") or cpus["count"]))]


def apic_limit(machine: dict[str, Any]) -> int:
    """One more than the highest APIC id."""
    return max(apic_ids(machine)) + 1


def sleep_states(machine: dict[str, Any]) -> tuple[bool, bool, int]:
    """(S3 offered, S4 offered, sleep type of S4), from the power management function."""
    pm = first(machine, "PIIX4_PM")
    props = pm["props"] if pm is not None else {}
    return not props.get("disable_s3", 0), not props.get("disable_s4", 0), int(props.get("s4_val", 2))
