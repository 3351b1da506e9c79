"""CPU models: data in machines/cpus/FAMILY/MODEL.yaml, with the rules of a family in
machines/cpus/families.yaml.

A name is a model's file, one of its versions (Skylake-Server-v2), the alias of a version (Skylake-Server-
IBRS), `host`, `max`, or `default`. What the words of a model mean is not looked at here.
"""

from __future__ import annotations

import os

from vmrun.config.data import data_dir
from vmrun.config.load import load_bytes, read_bytes
from vmrun.config.node import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OF_THE_HOST = ("host", "max")

# Values of `features` that are no CPUID bits but numbers, names and leaves…
_USED = frozenset((
    "level", "min-level", "xlevel", "min-xlevel", "xlevel2", "min-xlevel2", "family", "model", "stepping",
    "model-id", "vendor", "l3-cache", "legacy-cache", "cpuid-0xb", "x-vendor-cpuid-only",
    "full-cpuid-auto-level", "pmu", "phys-bits", "host-phys-bits", "migratable", "host-cache-info",
    "x-force-features",
))  # fmt: skip
# … and those that QEMU has and nothing here depends on: other hypervisors' leaves, leaf 40000010h, what only a
# migration between two QEMUs sees, and who checks what.
UNUSED = frozenset((
    "check", "enforce", "tcg-cpuid", "vmware-cpuid-freq", "fill-mtrr-mask",
    "kvm-no-smi-migration", "x-migrate-smi-count", "x-hv-max-vps", "x-hv-synic-kvm-only",
    "x-intel-pt-auto-level", "hv-version-id-build", "hv-version-id-major", "hv-version-id-minor",
    "lmce", "kvm", "host-phys-bits-limit",
))  # fmt: skip
SETTINGS = _USED | UNUSED
# … and those that vmrun does not model yet: Hyper-V's enlightenments, which `hv-passthrough` asks for by one word, and
# what needs the host's help.
_PLANNED = """
hv-apicv hv-avic hv-crash hv-emsr-bitmap hv-enforce-cpuid hv-evmcs hv-frequencies hv-ipi hv-no-nonarch-coresharing
hv-passthrough hv-reenlightenment hv-relaxed hv-reset hv-runtime hv-spinlocks hv-stimer-direct hv-stimer hv-syndbg
hv-synic hv-time hv-tlbflush-direct hv-tlbflush-ext hv-tlbflush hv-vapic hv-vendor-id hv-version-id-sbranch
hv-version-id-snumber
hv-version-id-spack hv-vpindex hv-xmm-input tsc-frequency lbr-fmt ucode-rev kvm-pv-enforce-cpuid
"""
PLANNED = frozenset(_PLANNED.split())


def planned(name: str) -> bool:
    """Whether a feature is to come; what is inside VMX comes with VMX."""
    return name in PLANNED or name.startswith("vmx-")


def load_model(name: str, family: str, files: list[str]) -> dict[str, Any] | None:
    """A model's data with its version's changes under `set` and its family's rules under `rules`; None if
    unknown.

    Adds what it reads to files. For host and max only `host: true` and the rules are there.
    """
    known = _read("families.yaml", files)
    if known is None or family not in known:
        return None
    rules = known[family]
    if name in _OF_THE_HOST:
        return {"name": name, "host": True, "set": {}, "rules": rules}
    found = _find(name, family, files)
    if found is None:
        return None
    model, version = found
    changes: dict[str, Any] = {}
    for number, row in model.get("versions", {}).items():
        if int(number) <= version:
            changes.update(row.get("set", {}))
    kept = {key: value for key, value in model.items() if key not in ("schema", "versions")}
    return {**kept, "name": name, "set": changes, "rules": rules}


def families(files: list[str]) -> list[str]:
    """The sets of models that there are, sorted."""
    return sorted(set(_read("families.yaml", files) or {}) - {"schema"})


def model_names(family: str) -> list[str]:
    """Every name that `model:` may have in a family, sorted; empty when the installation has no models of
    it.
    """
    names: set[str] = set()
    for file in _files(family):
        model = _read(os.path.join(family, file), [])
        if model is not None:
            names |= {file[:-5], *_versions(file[:-5], model)}
    return sorted({*names, *_OF_THE_HOST, "default"}) if names else []


def aliases(family: str) -> dict[str, str]:
    """Name → the version it stands for: Haswell → Haswell-v1, Haswell-noTSX → Haswell-v2."""
    found: dict[str, str] = {}
    for file in _files(family):
        base = file[:-5]
        model = _read(os.path.join(family, file), [])
        versions = _versions(base, model) if model is not None else {}
        if f"{base}-v1" in versions:
            found[base] = f"{base}-v1"
        for name, number in versions.items():
            if name != f"{base}-v{number}":
                found[name] = f"{base}-v{number}"
    return found


def feature_names(files: list[str]) -> frozenset[str]:
    """Names of CPUID bits, with their other spellings; empty when the installation has no table of them."""
    path = os.path.join(_directory(), "features.json")
    if not os.path.exists(path):
        return frozenset()
    from vmrun.config.catalogue import read_json

    files.append(path)
    table = read_json(path)
    bits = {name for names in table["words"].values() for name in names if name}
    return frozenset((*bits, *table["aliases"]))


def _find(name: str, family: str, files: list[str]) -> tuple[dict[str, Any], int] | None:
    """(the model's file, version) of a name. The name of a version begins with that of its model."""
    if os.sep in name:
        return None
    parts = name.split("-")
    for count in range(len(parts), 0, -1):
        base = "-".join(parts[:count])
        model = _read(os.path.join(family, f"{base}.yaml"), files)
        if model is None:
            continue
        if base == name:
            return model, 1
        version = _versions(base, model).get(name)
        return (model, version) if version is not None else None
    return None


def _versions(base: str, model: dict[str, Any]) -> dict[str, int]:
    """Name → number of a model's versions: BASE-vN, and what they are called besides."""
    found = {f"{base}-v1": 1} if not model.get("bare") else {}
    for number, row in model.get("versions", {}).items():
        found[f"{base}-v{number}"] = int(number)
        if "alias" in row:
            found[str(row["alias"])] = int(number)
    return found


def _files(family: str) -> list[str]:
    try:
        return [name for name in os.listdir(os.path.join(_directory(), family)) if name.endswith(".yaml")]
    except OSError:
        return []


def _directory() -> str:
    return os.path.join(data_dir("machines"), "cpus")


def _read(name: str, files: list[str]) -> dict[str, Any] | None:
    path = os.path.join(_directory(), name)
    if not os.path.exists(path):
        return None
    shown = os.path.join("machines", "cpus", name)
    files.append(path)
    value = plain(load_bytes(read_bytes(path, shown), shown))
    assert isinstance(value, dict)
    return value
