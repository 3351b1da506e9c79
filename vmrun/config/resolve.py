"""MachineSpec → ResolvedMachine: a pure function of the files, with every value filled in and every fault
found.

Resolving its own output changes nothing: a board device's id in a file changes that device, and what is
written wins over what would be assigned.
"""

from __future__ import annotations

import os

from vmrun.config import addresses, backends, clashes, devices, listeners, numa, plugs, settings, sugar, wires
from vmrun.config.catalogue import Catalogue, load_catalogue
from vmrun.config.check import check_schema
from vmrun.config.load import STDIN, load_file, machine_name
from vmrun.config.machinetypes import TypeSpec, load_type
from vmrun.config.node import Node, plain
from vmrun.config.sets import apply_sets
from vmrun.config.spec import MachineSpec, ResolvedMachine
from vmrun.config.viewers import viewers
from vmrun.config.work import Dev, Work, absolute
from vmrun.errors import ERROR, ConfigError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from vmrun.config.sections import MachineData


def resolve_file(
    path: str, sets: Sequence[str] = (), *, catalogue: Catalogue | None = None, directory: str = ""
) -> ResolvedMachine:
    """The resolved machine of the file at path, with 'path=value' sets put in first. `directory`: where relative paths
    begin, if not where the file is.

    Raises ConfigError with every problem found; warnings alone do not raise and are in the result.
    """
    machine, problems = check_file(path, sets, catalogue=catalogue, directory=directory)
    if machine is None:
        raise ConfigError(problems=[problem for problem in problems if problem.severity == ERROR])
    return machine


def check_file(
    path: str, sets: Sequence[str] = (), *, catalogue: Catalogue | None = None, directory: str = ""
) -> tuple[ResolvedMachine | None, list[Problem]]:
    """(the resolved machine or None, every error and warning in order of place). Raises nothing for a bad
    file.
    """
    problems: list[Problem] = []
    machine = None
    try:
        root = apply_sets(load_file(path, problems), tuple(sets))
        name = machine_name(path)
        files = () if path == STDIN else (path,)
        where = os.path.abspath(directory) if directory else os.path.dirname(os.path.abspath(path))
        machine = resolve(root, problems, where, name, catalogue, files)
    except ConfigError as error:
        problems.extend(error.problems)
    if any(problem.severity == ERROR for problem in problems):
        machine = None
    return machine, in_order(problems)


def sketch_file(path: str, sets: Sequence[str] = ()) -> ResolvedMachine:
    """Like resolve_file, for a machine that may hold devices which are not modelled yet: for comparing,
    not for building. Raises ConfigError for every other fault.
    """
    problems: list[Problem] = []
    root = apply_sets(load_file(path, problems), tuple(sets))
    name = machine_name(path)
    machine = resolve(root, problems, os.path.dirname(os.path.abspath(path)), name, None, (path,))
    faults = [p for p in problems if p.severity == ERROR and not p.code.startswith("VR08")]
    if machine is None or faults:
        raise ConfigError(problems=in_order(faults or problems))
    return machine


def check_type_file(path: str, *, catalogue: Catalogue | None = None) -> list[Problem]:
    """Every error and warning of the machine type in the file at path, found by resolving its least
    machine.
    """
    name = os.path.basename(path).rsplit(".", 1)[0]
    directory = os.path.dirname(path)
    root = Node({}, path, 1, 1)
    root.value = {"schema": root.at("vmrun/machine/1"), "machine": root.at(name)}
    problems: list[Problem] = []
    try:
        resolve(root, problems, directory, name, catalogue)
    except ConfigError as error:
        problems.extend(error.problems)
    return in_order(problems)


def resolve(
    root: Node,
    problems: list[Problem],
    directory: str,
    name: str = "machine",
    catalogue: Catalogue | None = None,
    files: Sequence[str] = (),
    objects: Mapping[str, str] | None = None,
) -> ResolvedMachine | None:
    """Resolve a loaded file. directory is where relative paths and the user's own types are; name the
    machine's when it has none; objects the kinds, by id, of those that the builder will be given besides.
    Adds to problems; None when something was so wrong that nothing could be
    resolved.
    """
    foreign = _type_instead(root, name)
    if foreign is not None:
        problems.append(foreign)
        return None
    whole = root
    root = check_schema(root, "machine", problems)
    if root.get("machine") is None:
        return None
    catalogue = catalogue or load_catalogue()
    spec = MachineSpec(root)
    machine_type = load_type(str(spec.type_name.value), directory, spec.type_name)
    removed = spec.get("remove")
    if removed is not None:
        machine_type = _without(machine_type, removed, problems)
    work = Work(spec, machine_type, catalogue, directory, problems)
    work.note("machine", spec.type_name.place)
    work.idle_backends |= _dropped(whole, root)
    short_forms = sugar.expand(work)
    sugar.planned_sections(work)
    devices.collect(work, short_forms)
    devices.check_globals(work)
    addresses.assign(work)
    plugs.check(work)
    wired = wires.expand(work)
    given = spec.value("name")
    clashes.check(work, wired, str(given) if given is not None else name)
    if root.get("objects") is not None or objects:
        from vmrun.config.objects import resolve_objects

        resolve_objects(work, objects or {})
    backends.resolve_backends(work)
    backends.check_references(work)
    backends.check_flash(work)
    listeners.check(work)
    data = _assemble(work, name, wired)
    _note_sections(work)
    read = (*files, *machine_type.files, *catalogue.files, *dict.fromkeys(work.files))
    return ResolvedMachine(data, work.places, tuple(problems), read, (*machine_type.missing, *work.missing))


def _note_sections(work: Work) -> None:
    """Where each section begins, and each of its entries, for what is found wrong later and noted no closer."""
    for key, node in work.spec.root.value.items():
        work.places.setdefault(key, node.place.key())
        for name, child in node.value.items() if type(node.value) is dict else ():
            work.places.setdefault(f"{key}.{name}", child.place.key())


def refuse_type(root: Node, path: str) -> None:
    """ConfigError when a loaded file is a machine type."""
    foreign = _type_instead(root, machine_name(path))
    if foreign is not None:
        raise ConfigError(problems=[foreign])


def _type_instead(root: Node, name: str) -> Problem | None:
    given = root.get("schema")
    if given is None or not str(given.value).startswith("vmrun/machine-"):
        return None
    return Problem(
        "VR0206",
        "this file is a machine type, not a machine",
        given.place,
        path="schema",
        remedy=f"for a machine of it: `schema: vmrun/machine/1` and `machine: {name}` elsewhere",
    )


def resolve_type(name: str, catalogue: Catalogue | None = None) -> ResolvedMachine:
    """The least machine of a type: its board and nothing else. Raises ConfigError."""
    root = Node({}, f"machines/{name}.yaml", 1, 1)
    root.value = {"schema": root.at("vmrun/machine/1"), "machine": root.at(name)}
    problems: list[Problem] = []
    machine = resolve(root, problems, "", name, catalogue)
    if machine is None or problems:
        raise ConfigError(problems=problems)
    return machine


def in_order(problems: list[Problem]) -> list[Problem]:
    """Problems by file and place, without repetitions; those of the file that was asked for come first."""
    unique: dict[tuple[Any, ...], Problem] = {}
    first = ""
    for problem in problems:
        place = problem.place.key() if problem.place is not None else ("", 0, 0)
        first = first or place[0]
        unique.setdefault((place[0] != first, *place, problem.code, problem.message), problem)
    return [unique[key] for key in sorted(unique)]


def _without(machine_type: TypeSpec, removed: Node, problems: list[Problem]) -> TypeSpec:
    """The type without the board devices that the file does not want."""
    from vmrun.config.near import nearest

    board = [str(node.value["id"].value) for node in machine_type.items("devices")]
    for node in removed.value:
        if node.value not in board:
            problems.append(
                Problem(
                    "VR0407",
                    f"the board of {machine_type.name} has no device '{node.value}' to remove",
                    node.place,
                    path="remove",
                    nearest=nearest(str(node.value), board),
                    remedy="`vmrun tree` shows the board",
                )
            )
    return machine_type.without(removed)


def _dropped(whole: Node, good: Node) -> set[tuple[str, str]]:
    """(kind, id) of the backends that the schema check took out: devices may go on naming them without a
    word.
    """
    result: set[tuple[str, str]] = set()
    for kind in ("drive", "chardev", "netdev"):
        before, after = whole.get(f"{kind}s"), good.get(f"{kind}s")
        if before is not None and type(before.value) is dict:
            left = after.value if after is not None else {}
            result.update((kind, id) for id in before.value if id not in left)
    return result


def _assemble(work: Work, name: str, wired: list[tuple[str, str]]) -> MachineData:
    spec, machine_type = work.spec, work.machine_type
    given = spec.get("name")
    if given is not None:
        work.note("name", given.place)
    amount, layout = settings.memory(work)
    cpus, firmware = settings.cpus(work), settings.firmware(work)
    slots = settings.memory_slots(work, amount, layout)
    settings.address_space(work, amount, layout, cpus, slots.get("memory-slots"))
    uuid = spec.value("uuid")
    data: Any = {  # optional keys come by `**`, which mypy does not follow
        "schema": "vmrun/machine/1",
        "name": str(given.value) if given is not None else name,
        "machine": machine_type.name,
        "family": _own_or_type(work, "family"),
        "hw-version": _own_or_type(work, "hw-version"),
        "accel": settings.accelerators(work),
        "kernel_irqchip": spec.value("kernel_irqchip") or "on",
        **({"translate": spec.value("translate")} if spec.get("translate") is not None else {}),
        **({"thread": spec.value("thread")} if spec.get("thread") is not None else {}),
        **({"clock": settings.clock(work)} if spec.get("clock") is not None else {}),
        "paused": bool(spec.value("paused")),
        "memory": amount,
        "memory-map": layout,
        "cpus": cpus,
        **slots,
        **(numa.nodes(work, amount, cpus) or (settings.one_node(work, amount, cpus) if slots else {})),
        "rtc": settings.rtc(work),
        "boot": settings.boot(work),
        "firmware": firmware,
        **settings.kernel(work),
        "pci-routing": settings.merged(work, "pci-routing"),
        **_removed(spec),
        "devices": [_plain_device(dev) for dev in work.devices],
        "wires": [list(wire) for wire in wired],
        "drives": _sorted(work.drives),
        "chardevs": _sorted(work.chardevs),
        "netdevs": _sorted(work.netdevs),
        **_segments(work),
        "monitors": _sorted({id: {"mode": "readline", **_plain(node)} for id, node in spec.monitors.items()}),
        **viewers(work),
        **({"keyboard": spec.value("keyboard")} if spec.get("keyboard") is not None else {}),
        **settings.memory_backing(work),
        **({"objects": work.objects} if work.objects else {}),
        **settings.policies(work),
        "uuid": uuid.lower() if uuid else None,
        "smbios": numa.smbios(work, firmware),
    }
    made: MachineData = data
    return made


def _removed(spec: MachineSpec) -> dict[str, list[str]]:
    given = spec.get("remove")
    return {"remove": sorted(str(node.value) for node in given.value)} if given is not None and given.value else {}


def _segments(work: Work) -> dict[str, Any]:
    """Name → the directory where its machines meet; of the user's own when none is said."""
    given = work.spec.get("segments")
    if given is None or not given.value:
        return {}
    found: dict[str, Any] = {}
    for name, node in given.value.items():
        dir = node.get("dir") if type(node.value) is dict else None
        found[str(name)] = {"dir": absolute(work, str(dir.value))} if dir is not None else {}
    return {"segments": _sorted(found)}


def _plain(node: Node) -> dict[str, Any]:
    value: Any = plain(node)
    return dict(value)


def _own_or_type(work: Work, key: str) -> str:
    own = work.spec.value(key)
    return str(own) if own is not None else work.machine_type.text(key)


def _sorted(table: dict[str, Any]) -> dict[str, Any]:
    return {id: table[id] for id in sorted(table)}


def _plain_device(dev: Dev) -> dict[str, Any]:
    result: dict[str, Any] = {"id": dev.id, "driver": dev.driver, "board": dev.board}
    if dev.in_kernel:
        result["in-kernel"] = dev.in_kernel
        result["in-kernel-props"] = dict(sorted(dev.in_kernel_props.items()))
    result["bus"] = dev.bus
    result["addr"] = dev.addr
    result["provides"] = dev.provides
    result["props"] = dict(sorted(dev.props.items()))
    return result


__all__ = ["TypeSpec", "check_file", "check_type_file", "in_order", "resolve", "resolve_file", "resolve_type"]
