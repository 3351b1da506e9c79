"""CPU models: what one comes to, how two compare."""

from __future__ import annotations

from vmrun.errors import ConfigError
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["CpuModelExpansionType"] = ("static", "full")
struct("CpuModelInfo", {"name": "str", "props?": "any"})
struct("CpuModelExpansionInfo", {"model": "CpuModelInfo"})


@command(
    "query-cpu-model-expansion",
    {"type": "CpuModelExpansionType", "model": "CpuModelInfo"},
    "CpuModelExpansionInfo",
)
def query_cpu_model_expansion(monitor: Any, type: str, model: dict[str, Any]) -> dict[str, Any]:
    """What a CPU model comes to on this accelerator: every feature by name, and with `full` its other properties.
    `static`: as changes of the model `base`.
    """
    props = model.get("props", {})
    if not isinstance(props, dict):
        raise QmpError("Invalid parameter type for 'model.props', expected: object")
    found = expand(monitor.machine, model["name"], props)
    if type == "static":
        return {"model": {"name": "base", "props": found}}
    return {"model": {"name": model["name"], "props": {**found, **_besides(monitor.machine, model["name"])}}}


def expand(machine: Any, name: str, props: dict[str, Any]) -> dict[str, Any]:
    """Feature → bool, and the numbers and names that identify a processor. QmpError for an unknown model."""
    from vmrun.config.machinetypes import frozen_features
    from vmrun.machine import cpuid

    config = machine.config
    cpus: Any = {**config["cpus"]}
    cpus["compat"] = frozen_features(config["machine"], name) if config["machine"] != "none" else {}
    table = cpuid.features()
    known = {*table["bits"], *table["aliases"]}
    for key, value in props.items():
        if key in known and not isinstance(value, bool):
            raise QmpError(f"Invalid parameter type for '{key}', expected: boolean")
        if key not in known and key not in _SETTINGS:
            raise QmpError(f"Property '{name}-x86_64-cpu.{key}' not found")
    cpus["features"] = props
    try:
        if name == "default":
            raise ConfigError("")
        model = cpuid.load_model(name, cpus["family"])
    except ConfigError:
        raise QmpError(f"CPU model '{name}' not found") from None
    accelerator = machine.accelerator
    return cpuid.describe(cpus, model, accelerator.supported_cpuid(), kernel_apic=accelerator.has_local_apic)


_SETTINGS = (
    *("level", "min-level", "xlevel", "min-xlevel", "family", "model", "stepping", "model-id", "vendor", "l3-cache"),
    *("legacy-cache", "cpuid-0xb", "pmu", "phys-bits", "host-phys-bits", "migratable", "host-cache-info", "check"),
    *("enforce", "kvm", "lmce", "xlevel2", "min-xlevel2", "tsc-frequency"),
)


def _besides(machine: Any, name: str) -> dict[str, Any]:
    """What `full` tells beside features: the other spellings, and a processor's place, which it has not got yet."""
    from vmrun.machine import cpuid

    return {
        **{alias: False for alias in cpuid.features()["aliases"]},
        **{"core-id": -1, "socket-id": -1, "thread-id": -1, "die-id": -1, "node-id": -1, "apic-id": 0xFFFFFFFF},
        **{"realized": False, "hotplugged": False, "hotpluggable": True, "start-powered-off": False},
        **{"check": True, "enforce": False, "kvm": True, "cpuid": True, "type": f"{name}-x86_64-cpu"},
    }
