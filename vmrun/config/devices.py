"""From what is written to devices with a driver and every property: board and file brought together.

A property's value is, from weakest to strongest: the driver's default, the type's compat value, the file's
`globals`, the device's own. A file that names a board device's id changes that device and adds none.
"""

from __future__ import annotations

from vmrun.config.backends import beside
from vmrun.config.node import Node, plain
from vmrun.config.props import convert
from vmrun.config.spec import BOARD, FILE, SHORT, DeviceSpec
from vmrun.config.work import Dev, Work, not_yet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.catalogue import Driver


def collect(work: Work, short_forms: list[DeviceSpec]) -> None:
    """Fill work.devices: the board in its own order, then the rest by bus depth and id."""
    from vmrun.config.machinetypes import merge

    board = [DeviceSpec(node, f"board device '{_id(node)}'", BOARD) for node in work.machine_type.items("devices")]
    originals = {spec.id: spec for spec in board}
    by_id = {spec.id: index for index, spec in enumerate(board)}
    changed: set[str] = set()
    others: dict[str, DeviceSpec] = {}
    nameless: list[DeviceSpec] = []
    for spec in (*work.spec.devices, *short_forms):
        if not spec.id:
            nameless.append(spec)
        elif spec.id in by_id:
            _change_board(work, board, by_id[spec.id], spec, changed)
        elif spec.id in others and spec.origin == SHORT and others[spec.id].driver is None:
            # as with a board device: what the file says of it without a driver changes it
            others[spec.id] = DeviceSpec(merge(spec.node, others[spec.id].node), others[spec.id].path, FILE, spec.id)
        elif spec.id in others:
            first = others[spec.id]
            work.wrong(
                "VR0402",
                f"two devices are called '{spec.id}'",
                spec.node.value["id"].place,
                f"{spec.path}.id",
                also=[(first.place, f"the other is this {_driver_name(first)}")],
                remedy=_rename(spec, first),
            )
        else:
            others[spec.id] = spec
    for spec in _named(nameless, {*by_id, *others}):
        others[spec.id] = spec
    for spec in (*board, *others.values()):
        dev = _device(work, spec)
        dev.changed = spec.id in changed and not _same_as_type(work, dev, originals[spec.id])
        work.devices.append(dev)


def _same_as_type(work: Work, dev: Dev, original: DeviceSpec) -> bool:
    """Whether a board device that the file names has nothing but the type's own values all the same."""
    problems, places = work.problems, work.places
    work.problems, work.places = [], {}
    try:
        own = _device(work, original)
    finally:
        work.problems, work.places = problems, places
    return own.props == dev.props and own.in_kernel_props == dev.in_kernel_props


def _rename(spec: DeviceSpec, first: DeviceSpec) -> str:
    if SHORT in (spec.origin, first.origin):
        return "rename the one under devices; the short form's id is fixed"
    return "rename one of them"


def _change_board(work: Work, board: list[DeviceSpec], index: int, spec: DeviceSpec, changed: set[str]) -> None:
    from vmrun.config.machinetypes import merge

    old = board[index]
    if spec.driver is not None and old.driver is not None and spec.driver.value != old.driver.value:
        work.wrong(
            "VR0403",
            f"id '{spec.id}' belongs to the board's {old.driver.value}",
            spec.node.value["id"].place,
            f"{spec.path}.id",
            also=[(old.place, "the board device is here")],
            remedy="choose another id, or leave out `driver` to change the board device's properties",
        )
        return
    if spec.id in changed:
        work.wrong(
            "VR0402",
            f"two devices are called '{spec.id}'",
            spec.node.value["id"].place,
            f"{spec.path}.id",
            also=[(old.place, "the other is here")],
            remedy="put both into one",
        )
        return
    changed.add(spec.id)
    board[index] = DeviceSpec(merge(old.node, spec.node), spec.path, BOARD)


def _named(specs: list[DeviceSpec], taken: set[str]) -> list[DeviceSpec]:
    """Devices without an id get DRIVER-0, DRIVER-1, …, by content so that their order in the file does not
    matter.
    """
    result = []
    numbers: dict[str, int] = {}
    count: dict[str, int] = {}
    for spec in specs:
        count[_driver_name(spec)] = count.get(_driver_name(spec), 0) + 1

    def content(spec: DeviceSpec) -> str:
        if count[_driver_name(spec)] == 1:
            return ""  # json is a tenth of a first start
        import json

        return json.dumps(plain(spec.node), sort_keys=True)

    for spec in sorted(specs, key=lambda s: (_driver_name(s), content(s))):
        name = _driver_name(spec)
        number = numbers.get(name, 0)
        while f"{name}-{number}" in taken:
            number += 1
        numbers[name] = number + 1
        id = f"{name}-{number}"
        result.append(DeviceSpec(spec.node, spec.path, spec.origin, id))
    return result


def _device(work: Work, spec: DeviceSpec) -> Dev:
    """A device with its properties; after a problem an idle one, so that what refers to it is left alone."""
    if spec.driver is None:
        meant = next((key for key in spec.props if work.near(key, ("driver",))), "")
        board = [_id(node) for node in work.machine_type.items("devices")]
        work.wrong(
            "VR0401",
            f"device '{spec.id}' names no driver" if "id" in spec.node.value else "a device names no driver",
            spec.props[meant].key_place if meant else spec.place,
            f"{spec.path}.{meant}" if meant else spec.path,
            nearest="driver" if meant else work.near(spec.id, board),
            remedy="add `driver:`; only a board device's id may stand without one",
        )
        return Dev(spec, "device", None)
    name = str(spec.driver.value)
    entry = work.catalogue.modelled(name) or work.catalogue.driver(name)
    if entry is None:
        needed = f"; the board of {work.machine_type.name} needs it" if spec.origin == BOARD else ""
        work.wrong(
            "VR0401",
            f"there is no driver '{name}'{needed}",
            spec.driver.place,
            _driver_path(spec),
            nearest=work.near(name, work.catalogue.names()),
            remedy="`vmrun devices` lists what there is",
        )
        return Dev(spec, name, None)
    dev = Dev(spec.with_addr() if entry.bus is None and "addr" in entry.props else spec, name, entry)
    if entry.planned:
        instead = str(entry.data.get("instead", ""))
        problem = not_yet(f"'{name}'", spec.driver.place, _driver_path(spec), "VR0801", entry.plan, instead)
        work.problems.append(problem)
        dev.provides = dev.provides or entry.buses(dev.id)
        dev.props = inherited(work, entry)
        _own(work, dev, entry, None, dev.props, {})
        return dev
    kernel = work.catalogue.modelled(spec.in_kernel) if spec.in_kernel else None
    dev.provides = dev.provides or entry.buses(dev.id)
    dev.props = inherited(work, entry)
    dev.in_kernel_props = inherited(work, kernel) if kernel is not None else {}
    _own(work, dev, entry, kernel, dev.props, dev.in_kernel_props)
    return dev


def inherited(work: Work, entry: Driver) -> dict[str, Any]:
    """Defaults, compat values and globals of a driver."""
    props = {name: prop["default"] for name, prop in entry.props.items() if prop.get("default") is not None}
    for source in (work.machine_type.section("compat"), work.spec.globals):
        for cls in entry.classes:
            table = source.get(cls)
            if table is None:
                continue
            for name, node in table.value.items():
                prop = entry.props.get(name)
                if prop is not None:
                    value = convert(node, prop, cls, f"{cls}.{name}", [])
                    if value is not None:
                        props[name] = value
    return props


def _own(
    work: Work,
    dev: Dev,
    entry: Driver,
    kernel: Driver | None,
    props: dict[str, Any],
    kernel_props: dict[str, Any],
) -> None:
    for name, node in dev.spec.props.items():
        path = f"{dev.spec.path}.{name}"
        prop = entry.props.get(name)
        kernel_prop = kernel.props.get(name) if kernel is not None else None
        if prop is None and kernel_prop is None:
            unknown_property(work, name, entry, node, path)
            continue
        if prop is not None:
            value = convert(node, prop, dev.driver, path, work.problems)
            if value is not None:
                props[name] = beside(work, value) if name == "romfile" and not dev.board else value
        if kernel_prop is not None:
            value = convert(node, kernel_prop, dev.in_kernel, path, work.problems if prop is None else [])
            if value is not None:
                kernel_props[name] = value
        work.note(f"devices.{dev.id}.{name}", node.place)
    if dev.spec.addr is not None:
        work.note(f"devices.{dev.id}.addr", dev.spec.addr.place)
    work.note(f"devices.{dev.id}", dev.spec.place)


def unknown_property(work: Work, name: str, entry: Driver, node: Node, path: str) -> None:
    """Say that a driver has no such property; of one that is not modelled they may not be known."""
    if entry.planned and not entry.props:
        return
    known = [known for known in entry.props if not known.startswith("x-")]
    near = work.near(name, entry.props)
    if near and len(known) > 12:
        remedy = f"`vmrun devices {entry.name}` lists its properties"
    elif not known:
        remedy = "it has no properties"
    else:
        remedy = f"its properties: {', '.join(sorted(known))}"
    work.wrong(
        "VR0405",
        f"{entry.name} has no property '{name}'",
        node.key_place,
        path,
        nearest=near,
        remedy=remedy,
        facts={"driver": entry.name, "property": name},
    )


def check_globals(work: Work) -> None:
    """Every driver and property under `globals` must exist, whether or not the machine has such a device."""
    for name, table in work.spec.globals.items():
        path = f"globals.{name}"
        entry = work.catalogue.modelled(name) or work.catalogue.driver(name)
        if entry is None:
            work.wrong(
                "VR0401",
                f"there is no driver '{name}'",
                table.key_place,
                path,
                nearest=work.near(name, work.catalogue.names()),
                remedy="`vmrun devices` lists what there is",
            )
            continue
        if entry.planned:
            work.problems.append(not_yet(f"'{name}'", table.key_place, path, "VR0801"))
        for prop_name, node in table.value.items():
            prop = entry.props.get(prop_name)
            if prop is None:
                unknown_property(work, prop_name, entry, node, f"{path}.{prop_name}")
            else:
                convert(node, prop, name, f"{path}.{prop_name}", work.problems)


def _id(node: Node) -> str:
    given = node.get("id")
    return str(given.value) if given is not None else ""


def _driver_path(spec: DeviceSpec) -> str:
    return spec.path if spec.origin == SHORT else f"{spec.path}.driver"


def _driver_name(spec: DeviceSpec) -> str:
    return str(spec.driver.value) if spec.driver is not None else "device"
