"""What machine this is, and what machines there are."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.machinetypes import TypeSpec

enums["SysEmuTarget"] = ("x86_64",)
struct("NameInfo", name_="str")
struct("UuidInfo", UUID="str")
struct("KvmInfo", enabled="bool", present="bool")
struct("TargetInfo", arch="SysEmuTarget")
struct(
    "MachineInfo",
    name="str",
    alias_="str",
    is_default_="bool",
    cpu_max="int",
    hotpluggable_cpus="bool",
    numa_mem_supported="bool",
    deprecated="bool",
    default_cpu_type_="str",
    default_ram_id_="str",
)
struct(
    "CpuDefinitionInfo",
    name="str",
    migration_safe_="bool",
    static="bool",
    unavailable_features_="[str]",
    typename="str",
    alias_of_="str",
    deprecated="bool",
)
struct("CpuInstanceProperties", node_id_="int", socket_id_="int", core_id_="int", thread_id_="int")
struct(
    "CpuInfoFast",
    cpu_index="int",
    qom_path="str",
    thread_id="int",
    props_="CpuInstanceProperties",
    target="SysEmuTarget",
)


@command("query-name", returns="NameInfo")
def query_name(monitor: Any) -> dict[str, str]:
    """The machine's name."""
    name = monitor.machine.config.get("name")
    return {"name": name} if name else {}


@command("query-uuid", returns="UuidInfo")
def query_uuid(monitor: Any) -> dict[str, str]:
    """The machine's UUID; all zeros when it was given none."""
    return {"UUID": uuid(monitor.machine)}


@command("query-kvm", returns="KvmInfo")
def query_kvm(monitor: Any) -> dict[str, bool]:
    """Whether the machine runs on KVM, and whether this host has it."""
    import os

    return {"enabled": monitor.machine.accelerator.name == "kvm", "present": os.path.exists("/dev/kvm")}


@command("query-target", returns="TargetInfo")
def query_target(monitor: Any) -> dict[str, str]:
    """The processor's architecture."""
    return {"arch": "x86_64"}


# `-machine none`
_NOTHING = {
    "name": "none",
    "cpu-max": 1,
    "hotpluggable-cpus": False,
    "numa-mem-supported": False,
    "deprecated": False,
    "default-ram-id": "ram",
}


def _numa_mem(spec: TypeSpec) -> bool:
    """Whether nodes may have memory by size (mem=), as before pc-i440fx-5.1; the oldest types do not say."""
    return bool(spec.to_dict()["firmware"].get("acpi-settings", {}).get("numa-mem", True))


@command("query-machines", returns="[MachineInfo]")
def query_machines(monitor: Any) -> list[dict[str, Any]]:
    """The machine types."""
    from vmrun.config.machinetypes import load_type, newest_type, type_names

    aliases = {newest_type(alias): alias for alias in ("pc", "rhel6")}
    found: list[dict[str, Any]] = [dict(_NOTHING)]
    for name in type_names():
        spec = load_type(name)
        row: dict[str, Any] = {
            "name": name,
            "cpu-max": int(spec.to_dict().get("limits", {}).get("cpus", 1)),
            "hotpluggable-cpus": True,
            "numa-mem-supported": _numa_mem(spec),
            "deprecated": False,
            "default-ram-id": "pc.ram",
        }
        if name in aliases:
            row["alias"] = aliases[name]
        if aliases.get(name) == "pc":
            row["is-default"] = True
        if spec.default("cpu"):
            row["default-cpu-type"] = f"{spec.default('cpu')}-x86_64-cpu"
        found.append(row)
    return found


@command("query-cpu-definitions", returns="[CpuDefinitionInfo]")
def query_cpu_definitions(monitor: Any) -> list[dict[str, Any]]:
    """The CPU models of the machine's family, and what the accelerator lacks for each."""
    from vmrun.config import cpumodels
    from vmrun.machine.cpuid import missing_features

    machine = monitor.machine
    family = machine.config["cpus"]["family"]
    versioned = machine.config["cpus"].get("versions") == "v1"  # older types tell of no aliases
    stands_for = cpumodels.aliases(family) if versioned else {}
    found = []
    for name in cpumodels.model_names(family):
        if name == "default":
            continue
        of_the_host = name in ("host", "max")
        row = {
            "name": name,
            "typename": f"{name}-x86_64-cpu",
            "static": name == "base",
            "migration-safe": not of_the_host,
            "deprecated": False,
            "unavailable-features": missing_features(name, machine.config, machine.accelerator),
        }
        if name in stands_for:
            row["alias-of"] = stands_for[name]
        found.append(row)
    return found


@command("query-cpus-fast", returns="[CpuInfoFast]")
def query_cpus_fast(monitor: Any) -> list[dict[str, Any]]:
    """The processors and where they are in the tree."""
    return cpus(monitor.machine)


struct(
    "HotpluggableCPU", {"type": "str", "vcpus-count": "int", "props": "CpuInstanceProperties", "qom-path?": "str"}
)


@command("query-hotpluggable-cpus", returns="[HotpluggableCPU]")
def query_hotpluggable_cpus(monitor: Any) -> list[dict[str, Any]]:
    """Every processor that there can be, the last first; those that are there with their place in the tree."""
    from vmrun.machine.processor import Processor, numa_node, place

    machine = monitor.machine
    cpus = machine.config["cpus"]
    if "model" not in cpus:  # an empty machine
        raise QmpError("The feature 'query-hotpluggable-cpus' is not enabled")
    there = {node.index: node.path for node in machine.root.walk() if isinstance(node, Processor)}
    rows = []
    for index in reversed(range(len(machine.board.possible_apic_ids))):
        props = {**place(index, cpus), **numa_node(index, machine.config)}
        row = {"type": f"{cpus['model']}-x86_64-cpu", "vcpus-count": 1, "props": props}
        rows.append({**row, "qom-path": there[index]} if index in there else row)
    return rows


def uuid(machine: Any) -> str:
    return str(machine.config.get("uuid") or "00000000-0000-0000-0000-000000000000")


def cpus(machine: Any) -> list[dict[str, Any]]:
    import os

    from vmrun.machine.processor import Processor, numa_node, place

    threads = machine.board.control.thread_ids()
    if not machine.accelerator.own_threads and len(machine.board.possible_apic_ids) > 1:
        threads = {}  # one thread has the turns of all: none is a processor's own, and libvirt takes that for an answer
    found = (node for node in machine.root.walk() if isinstance(node, Processor))
    nodes = sorted(found, key=lambda node: node.index)
    return [
        {
            "cpu-index": node.index,
            "qom-path": node.path,
            "thread-id": threads.get(node.index) or os.getpid(),
            "props": {**place(node.index, machine.config["cpus"]), **numa_node(node.index, machine.config)},
            "target": "x86_64",
        }
        for node in nodes
    ]
