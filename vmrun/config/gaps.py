"""What a machine type says that vmrun does not do yet: board devices it lacks, frozen values nothing looks
at.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.catalogue import Catalogue
    from vmrun.config.machinetypes import TypeSpec


def gaps(spec: TypeSpec, catalogue: Catalogue) -> list[tuple[str, str]]:
    """(what, why) of each gap, board first. Values that belong to classes of devices count by the class's
    members.
    """
    found: list[tuple[str, str]] = []
    for node in spec.items("gaps"):
        found.append((str(node.value["driver"].value), "a board device that is not modelled yet"))
    for node in spec.items("devices"):
        driver = node.get("driver")
        if driver is not None and catalogue.modelled(str(driver.value)) is None:
            found.append((str(driver.value), "a board device that is not modelled yet"))
    members: dict[str, set[str]] = {}
    for name in catalogue.modelled_names():
        entry = catalogue.modelled(name)
        if entry is not None:
            for cls in entry.classes:
                members.setdefault(cls, set()).update(entry.props)
    for cls, table in sorted(spec.section("compat").items()):
        for prop in table.value:
            if cls not in members:
                found.append((f"{cls}.{prop}", "its driver is not modelled yet"))
            elif prop not in members[cls]:
                found.append((f"{cls}.{prop}", "the driver has no such property yet"))
    found += _of_processors(spec)
    return list(dict.fromkeys(found))


def _of_processors(spec: TypeSpec) -> list[tuple[str, str]]:
    """Frozen values of CPU models that CPUID does not tell, by model."""
    from vmrun.config.cpumodels import UNUSED

    found = []
    for model, table in sorted(spec.section("cpu-compat").items()):
        found += [(f"cpu {model}: {name}", "CPUID is made without it") for name in table.value if name in UNUSED]
    smm = spec.section("cpus").get("smm")
    if smm is not None and smm.value is True:
        found.append(("cpus.smm", "the board offers no system management mode yet"))
    return found
