"""NUMA nodes of a machine file: which memory and which processors are near one another. And what `smbios:` may say."""

from __future__ import annotations

from vmrun.config import hmat
from vmrun.config.node import plain
from vmrun.config.scalar import parse_size, size_text
from vmrun.config.work import absolute
from vmrun.errors import WARNING, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.node import Node
    from vmrun.config.work import Work

MOST = 128
NEAR, FAR = 10, 254  # distances: of a node to itself, and the longest; 255 is "cannot be reached"


def nodes(work: Work, memory: int, cpus: dict[str, Any]) -> dict[str, Any]:
    """{"numa": [{"cpus": indices, "memory": bytes, "distances": to every node}]}; {} when the file names none."""
    section = work.spec.get("numa")
    if section is None or not section.value:
        return {}
    if len(section.value) > MOST:
        _wrong(work, section, f"{len(section.value)} NUMA nodes; the most is {MOST}")
        return {}
    found = [{**plain(node), "memory": parse_size(node.value["memory"].value) or 0} for node in section.value]
    total = sum(node["memory"] for node in found)
    if total != memory:
        what = f"the NUMA nodes have {size_text(total)} together, the machine {size_text(memory)}"
        _wrong(work, section, what, "memory of the nodes must add up to `memory:`")
    most = int(cpus.get("maxcpus", cpus["count"]))
    if not any("cpus" in node for node in found):
        socket = int(cpus.get("cores", 1)) * int(cpus.get("threads", 1))
        for n, node in enumerate(found):
            node["cpus"] = [index for index in range(most) if index // socket % len(found) == n]
    else:
        first = _check_cpus(work, section, most)
        if first is not None:
            found[0]["cpus"] = first
    _check_distances(work, section)
    hmat.attributes(work, section, found)
    work.note("numa", section.place)
    return {"numa": [{"cpus": sorted(node.get("cpus", ())), **_rest(node)} for node in found]}


def _rest(node: dict[str, Any]) -> dict[str, Any]:
    return {key: node[key] for key in ("memory", "distances", *hmat.KEYS) if key in node}


def _check_cpus(work: Work, section: Node, most: int) -> list[int] | None:
    """Each processor that there can be is in one node; else what node 0 has then."""
    at: dict[int, Node] = {}
    for node in section.value:
        for cpu in node.value["cpus"].value if "cpus" in node.value else ():
            if cpu.value >= most:
                _wrong(work, cpu, f"there is no CPU {cpu.value}; the machine has {most}, counted from 0")
            elif cpu.value in at:
                first = at[cpu.value]
                work.wrong(
                    "VR0711",
                    f"CPU {cpu.value} is in two NUMA nodes",
                    cpu.place,
                    "numa",
                    also=((first.place, "it is here already"),) if first.place is not None else (),
                )
            at.setdefault(cpu.value, cpu)
    # the rest is said to be in node 0, as QEMU's and the firmware's tables have it
    left = [str(index) for index in range(most) if index not in at]
    if left:
        which = ", ".join(left[:8]) + (" …" if len(left) > 8 else "")
        text, remedy = (
            f"in no NUMA node: CPU {which}; node 0 takes them",
            "name every CPU, or none: then they go by socket",
        )
        work.problems.append(Problem("VR0711", text, section.place, path="numa", remedy=remedy, severity=WARNING))
        first = section.value[0].value.get("cpus")
        return [*(cpu.value for cpu in (first.value if first is not None else ())), *map(int, left)]
    return None


def _check_distances(work: Work, section: Node) -> None:
    for n, node in enumerate(section.value):
        given = node.value.get("distances")
        if given is None:
            continue
        if len(given.value) != len(section.value):
            _wrong(work, given, f"distances to {len(given.value)} of {len(section.value)} NUMA nodes")
        for other, distance in enumerate(given.value):
            if not NEAR <= distance.value <= FAR or (distance.value == NEAR) != (other == n):
                whom = "itself" if other == n else f"node {other}"
                what = f"NUMA node {n} cannot be {distance.value} away from {whom}"
                _wrong(work, distance, what, f"{NEAR} to itself, {NEAR + 1} to {FAR} to others")


def _wrong(work: Work, node: Node, message: str, remedy: str = "") -> None:
    work.wrong("VR0711", message, node.place, "numa", remedy=remedy)


def smbios(work: Work, firmware: dict[str, Any]) -> dict[str, Any]:
    """The file's section as plain data. Firmware that makes the tables takes fields of two structures only."""
    section = work.spec.get("smbios")
    if section is None:
        return {}
    if (firmware.get("smbios") or {}).get("form") != "tables" and firmware.get("bios") != "none":
        for kind, node in section.value.items():
            if kind not in ("type0", "type1", "files"):
                work.wrong(
                    "VR0712",
                    f"smbios.{kind}: the firmware of {work.machine_type.name} makes the SMBIOS tables, and takes fields"
                    " of type0 and type1 only",
                    node.key_place,
                    f"smbios.{kind}",
                    remedy="leave it out, or take pc-i440fx-2.1 or newer",
                )
    found = plain(section)
    assert isinstance(found, dict)
    if "files" in found:
        found["files"] = [absolute(work, name) for name in found["files"]]
    devices = {dev.id for dev in work.devices}
    for section_path in ("smbios.files", "smbios.type41.devices"):
        rows = work.spec.get(*section_path.split("."))
        for n, row in enumerate(rows.value if rows is not None else ()):
            path, wanted = f"{section_path}.{n}", plain(row).get("pcidev") if type(row.value) is dict else None
            work.note(path, row.place)
            if wanted is not None and wanted not in devices:
                work.wrong("VR0712", f"there is no device '{wanted}'", row.place, path)
    return found
