"""Where each device goes: its bus, its slot or unit, its index. What is given is kept; the rest is assigned
by id.

Assigned places depend on ids alone, never on the order in the file, so that moving a line changes nothing.
"""

from __future__ import annotations

from vmrun.config.node import Node
from vmrun.config.scalar import parse_pci_addr, pci_addr_text
from vmrun.config.spec import BOARD
from vmrun.config.work import MOST_NEAREST, Bus, Dev, Work
from vmrun.errors import Place

IDE_UNITS = 2
PCI_SLOTS = 32


def assign(work: Work) -> None:
    """Put every device on its bus, order the devices, and give slots, units and indexes."""
    _make_buses(work)
    for dev in work.devices:
        if dev.entry is not None and dev.entry.bus == "IDE" and dev.spec.bus is not None:
            work.ide.setdefault(str(dev.spec.bus.value), []).append(dev)
    for dev in work.devices:
        _choose_bus(work, dev)
    work.devices = _ordered(work)
    for bus in work.buses.values():
        bus.members = [dev for dev in work.devices if dev.bus == bus.name and (not dev.idle or dev.planned)]
        if bus.kind == "PCI" and not bus.unknown:
            _pci_slots(work, bus)
    _ide_units(work)
    _scsi_places(work)
    _namespaces(work)
    _indexes(work)


def _make_buses(work: Work) -> None:
    for dev in work.devices:
        _check_provides(work, dev)
        for name, kind in dev.provides.items():
            other = work.buses.get(name)
            if other is not None:
                work.wrong(
                    "VR0503",
                    f"two devices provide a bus called '{name}'",
                    dev.spec.place_of("provides"),
                    dev.spec.path,
                    also=[(other.owner.spec.place, f"{other.owner.label} provides it too")],
                    remedy="rename one of the devices, or one of the buses under `provides`",
                )
                continue
            work.buses[name] = Bus(name, kind, dev)


def _check_provides(work: Work, dev: Dev) -> None:
    """A file may name a device's buses; how many and of what kind is the driver's matter."""
    if dev.board or dev.entry is None or not dev.spec.provides:
        return
    kinds = list(dev.entry.provides)
    if sorted(dev.provides.values()) != sorted(kinds):
        work.wrong(
            "VR0502",
            f"{dev.driver} provides {', '.join(kinds) or 'no bus'}, not {', '.join(dev.provides.values())}",
            dev.spec.node.value["provides"].key_place,
            f"{dev.spec.path}.provides",
            remedy="name the buses the driver has, or leave `provides` out",
        )
        dev.provides = dev.entry.buses(dev.id)


def _choose_bus(work: Work, dev: Dev) -> None:
    entry, given = dev.entry, dev.spec.bus
    if entry is None or (entry.planned and _buses_to_come(work, given, entry.bus)):
        dev.bus = str(given.value) if given is not None else None
        return
    wanted = entry.bus
    if dev.spec.addr is not None and wanted != "PCI":
        work.wrong(
            "VR0508",
            f"{dev.driver} is no PCI device and has no addr",
            dev.spec.addr.key_place,
            f"{dev.spec.path}.addr",
            remedy="remove it"
            if "iobase" not in entry.props
            else "remove it; `iobase` says where its ports are",
        )
    if given is None:
        if wanted is not None:
            dev.bus = _first_bus(work, dev, wanted)
        return
    name = str(given.value)
    path = f"{dev.spec.path}.bus"
    if wanted is None:
        work.wrong("VR0501", f"{dev.driver} plugs into no bus", given.key_place, path, remedy="remove `bus:`")
        dev.idle = True
        return
    bus = work.buses.get(name)
    fitting = [bus.name for bus in work.buses.values() if bus.kind == wanted]
    if bus is None:
        work.wrong(
            "VR0501",
            f"there is no bus '{name}'",
            given.place,
            path,
            nearest=work.near(name, work.buses),
            remedy=f"{wanted} buses here: {', '.join(fitting) or 'none'}",
            facts={"bus": name},
        )
        dev.idle = True
        return
    if bus.kind != wanted:
        work.wrong(
            "VR0502",
            f"{dev.driver} plugs into {_a(wanted)} bus, but '{name}' is {_a(bus.kind)} bus",
            given.place,
            path,
            also=[(bus.owner.spec.place, f"{bus.owner.label} provides '{name}'")],
            remedy=f"{wanted} buses here: {', '.join(fitting) or 'none'}",
            facts={"driver": dev.driver, "kind": bus.kind},
        )
        dev.idle = True
        return
    dev.bus = name
    dev.idle = dev.idle or bus.idle


def _buses_to_come(work: Work, given: Node | None, kind: str | None) -> bool:
    """Whether the bus of a device may come from a part of the file that is not acted on yet."""
    there = any(
        bus.kind == kind if given is None else name == given.value for name, bus in work.buses.items()
    )
    return not there and any(work.spec.value(section) for section in ("include", "usb"))


def _first_bus(work: Work, dev: Dev, wanted: str) -> str | None:
    for bus in work.buses.values():
        if bus.kind == wanted and (wanted != "IDE" or _ide_room(work, bus.name, dev)):
            dev.idle = dev.idle or bus.idle
            if wanted == "IDE":
                work.ide.setdefault(bus.name, []).append(dev)
            return bus.name
    if wanted == "IDE" and any(bus.kind == "IDE" for bus in work.buses.values()):
        work.wrong(
            "VR0506",
            f"there is no room for {dev.label}: every IDE channel has two drives",
            dev.spec.place,
            dev.spec.path,
            also=[
                (other.spec.place, f"{other.label} is on {name}")
                for name, bus in work.buses.items()
                if bus.kind == "IDE"
                for other in work.ide.get(name, ())[:IDE_UNITS]
            ],
            remedy="remove a drive",
        )
    else:
        work.wrong(
            "VR0502",
            f"{dev.driver} needs {_a(wanted)} bus, and this machine has none",
            dev.spec.place,
            dev.spec.path,
            remedy=f"add a device that provides {_a(wanted)} bus: {_providers(work, wanted)}",
            facts={"driver": dev.driver, "wanted": wanted},
        )
    dev.idle = True
    return None


def _providers(work: Work, kind: str) -> str:
    """Drivers that provide such a bus, those that are modelled first."""
    if len(work.problems) > MOST_NEAREST:
        return "`vmrun devices` lists them"  # nobody reads so many
    modelled = work.catalogue.modelled_names()
    names = [*modelled, *(name for name in work.catalogue.names() if name not in modelled)]
    found = [name for name in names if (entry := work.catalogue.driver(name)) and kind in entry.provides]
    return f"{', '.join(found[:4])}{', …' if len(found) > 4 else ''}" if found else "there is none yet"


def _ide_room(work: Work, name: str, dev: Dev) -> bool:
    """Whether a drive without a bus may go here: fewer than two others, and none on the unit it asks for."""
    there = work.ide.get(name, ())
    unit = dev.props.get("unit")
    return len(there) < IDE_UNITS and (
        unit is None or all(other.props.get("unit") != unit for other in there)
    )


def _ordered(work: Work) -> list[Dev]:
    """The board in its own order; then a device always after the one whose bus it is on and those that it names,
    otherwise by id.
    """
    depth: dict[str, int] = {}
    board = [dev for dev in work.devices if dev.spec.origin == BOARD]
    rest = [dev for dev in work.devices if dev.spec.origin != BOARD]
    for dev in rest:
        _measure(work, dev, depth)
    return board + _named_first(sorted(rest, key=lambda dev: (depth[dev.id], dev.id)))


def _named_first(devices: list[Dev]) -> list[Dev]:
    """Each behind the devices that its properties name: a controller behind its subsystem."""
    by_id = {dev.id: dev for dev in devices}
    found: dict[str, Dev] = {}

    def enter(dev: Dev, above: tuple[str, ...]) -> None:
        if dev.id in found or dev.id in above:
            return
        known = dev.entry.props if dev.entry is not None else {}
        for name in dev.spec.props:
            prop = known.get(name)
            if prop is not None and prop["type"] == "link" and dev.props.get(name) in by_id:
                enter(by_id[str(dev.props[name])], (*above, dev.id))
        found[dev.id] = dev

    for dev in devices:
        enter(dev, ())
    return list(found.values())


def _measure(work: Work, dev: Dev, depth: dict[str, int]) -> None:
    """Enter how many buses down from the board a device and all above it are."""
    trail: dict[str, Dev] = {}
    above: Dev | None = dev
    while above is not None and above.id not in depth and above.id not in trail:
        trail[above.id] = above
        bus = work.buses.get(above.bus) if above.bus is not None else None
        above = bus.owner if bus is not None and not bus.owner.board else None
    if above is not None and above.id in trail:
        circle = list(trail)[list(trail).index(above.id) :]
        shown = circle if len(circle) <= 8 else [*circle[:4], "…", *circle[-3:]]
        work.wrong(
            "VR0504",
            f"{above.label} is on a bus that hangs on itself: {' → '.join((*shown, above.id))}",
            above.spec.bus.place if above.spec.bus is not None else above.spec.place,
            above.spec.path,
            remedy="put one of them on another bus",
        )
        above.idle = True
    level = depth.get(above.id, -1) if above is not None else -1
    for id in reversed(trail):
        level += 1
        depth[id] = level


def _pci_slots(work: Work, bus: Bus) -> None:
    taken: dict[tuple[int, int], Dev] = {}
    waiting: list[Dev] = []
    clashes: list[tuple[Dev, Dev, tuple[int, int]]] = []
    for dev in bus.members:
        given = dev.spec.addr
        if given is None:
            waiting.append(dev)
            continue
        at = parse_pci_addr(given.value)
        path = f"{dev.spec.path}.addr"
        if at is None:
            work.wrong(
                "VR0508",
                f"'{given.value}' is no PCI address",
                given.place,
                path,
                remedy='write slot.function in hexadecimal, slots 00 to 1f, functions 0 to 7: "05.0"',
            )
            dev.idle = True
            continue
        other = taken.get(at)
        if other is not None:
            clashes.append((dev, other, at))
            dev.idle = True
            continue
        taken[at] = dev
        dev.addr = pci_addr_text(*at)
    _check_functions(work, bus, taken)
    displays = set(work.machine_type.displays().values())
    waiting.sort(key=lambda dev: (dev.driver not in displays, dev.id))
    for dev in waiting:
        slot = _free_slot(taken)
        if slot is None:
            work.wrong(
                "VR0510",
                f"there is no free slot on {bus.name} for {dev.label}",
                dev.spec.place,
                dev.spec.path,
                remedy=f"it has {PCI_SLOTS} slots; remove a device or share a slot (multifunction: true)",
                facts={"driver": dev.driver},
            )
            dev.idle = True
            continue
        taken[(slot, 0)] = dev
        dev.addr = pci_addr_text(slot, 0)
    for dev, other, at in clashes:  # told last, when it is known which slots stay free
        free = _free_slot(taken)
        work.wrong(
            "VR0509",
            f"{dev.label} and {other.label} are both at {pci_addr_text(*at)} of {bus.name}",
            _addr_place(dev),
            f"{dev.spec.path}.addr",
            also=[(_addr_place(other), f"{other.label} is here")],
            remedy=f'addr "{pci_addr_text(free, 0)}" is free' if free is not None else "",
            facts={"driver": dev.driver, "slot": at[0], "function": at[1], "other": other.driver, "id": other.id},
        )


def _check_functions(work: Work, bus: Bus, taken: dict[tuple[int, int], Dev]) -> None:
    """A slot with several functions needs function 0, and function 0 must say that there are more."""
    for (slot, function), dev in sorted(taken.items(), key=lambda item: item[0]):
        if function == 0:
            continue
        first = taken.get((slot, 0))
        place = _addr_place(dev)
        path = f"{dev.spec.path}.addr"
        if first is None:
            work.warn(
                "VR0511",
                f"{dev.label} is function {function} of slot {slot:02x}, which has no function 0: no guest looks there",
                place,
                path,
                remedy=f'use addr "{slot:02x}.0", or put a device there with multifunction: true',
            )
        elif not first.props.get("multifunction", _given_true(first, "multifunction")):
            work.wrong(
                "VR0511",
                f"{dev.label} shares slot {slot:02x} with {first.label}, which is not multifunction",
                place,
                path,
                also=[(first.spec.place, f"{first.label} is function 0")],
                remedy=f"set multifunction: true on '{first.id}', or move '{dev.id}' to another slot",
                facts={"driver": dev.driver, "slot": slot, "function": function, "other": first.driver},
            )


def _given_true(dev: Dev, name: str) -> bool:
    node = dev.spec.props.get(name)
    return node is not None and node.value is True


def _addr_place(dev: Dev) -> Place:
    return dev.spec.addr.place if dev.spec.addr is not None else dev.spec.place


def _free_slot(taken: dict[tuple[int, int], Dev]) -> int | None:
    used = {slot for slot, _ in taken}
    return next((slot for slot in range(PCI_SLOTS) if slot not in used), None)


def _ide_units(work: Work) -> None:
    for bus in work.buses.values():
        if bus.kind != "IDE" or bus.unknown:
            continue
        taken: dict[int, Dev] = {}
        for dev in sorted(bus.members, key=lambda dev: (dev.props.get("unit") is None, dev.id)):
            unit = dev.props.get("unit")
            if unit is None:
                unit = next((free for free in range(IDE_UNITS) if free not in taken), IDE_UNITS)
            place = dev.spec.place_of("unit")
            path = f"{dev.spec.path}.unit"
            if unit >= IDE_UNITS:
                given = dev.props.get("unit") is not None
                work.wrong(
                    "VR0506",
                    f"{bus.name} has units 0 and 1, not {unit}"
                    if given
                    else f"{bus.name} already has two drives",
                    place,
                    path if given else dev.spec.path,
                    also=[
                        (other.spec.place, f"{other.label} is unit {number}")
                        for number, other in taken.items()
                    ],
                    remedy=_ide_remedy(work, bus),
                )
                dev.idle = True
            elif unit in taken:
                other = taken[unit]
                work.wrong(
                    "VR0505",
                    f"{dev.label} and {other.label} are both unit {unit} of {bus.name}",
                    place,
                    path,
                    also=[(other.spec.place_of("unit"), f"{other.label} is here")],
                    remedy=_ide_remedy(work, bus),
                )
                dev.idle = True
            else:
                taken[unit] = dev
                dev.props["unit"] = unit


def _scsi_places(work: Work) -> None:
    """Ids and units that are not given: the first free id, unit 0; of a given id the first free unit."""
    for bus in work.buses.values():
        if bus.kind != "SCSI" or bus.unknown:
            continue
        units = [dev for dev in bus.members if dev.entry is not None and "scsi-id" in dev.entry.props]
        taken = {_scsi_place(dev) for dev in units if None not in _scsi_place(dev)}
        for dev in sorted(units, key=lambda dev: (dev.props.get("scsi-id") is None, dev.id)):
            channel, target, lun = _scsi_place(dev)
            if target is not None and lun is not None:
                continue
            places = ((channel, target, number) for number in range(len(units) + 1))
            if target is None:
                places = ((channel, number, lun or 0) for number in range(len(units) + len(taken) + 1))
            free = next(place for place in places if place not in taken)
            taken.add(free)
            dev.props["scsi-id"], dev.props["lun"] = free[1], free[2]


def _namespaces(work: Work) -> None:
    """Numbers of NVMe namespaces that are not given: the first that is free in the controller's subsystem."""
    taken: dict[str, set[object]] = {}
    waiting: list[tuple[Dev, set[object]]] = []
    for bus in work.buses.values():
        if bus.kind != "nvme-bus" or bus.unknown:
            continue
        subsystem = bus.owner.props.get("subsys")
        numbers = taken.setdefault(f"subsystem {subsystem}" if subsystem else bus.name, set())
        if bus.owner.props.get("drive") is not None:
            numbers.add(1)
        numbers |= {dev.props.get("nsid") for dev in bus.members}
        waiting += [(dev, numbers) for dev in bus.members if dev.props.get("nsid") == 0]
    for dev, numbers in sorted(waiting, key=lambda row: row[0].id):
        dev.props["nsid"] = next(number for number in range(1, len(numbers) + 2) if number not in numbers)
        numbers.add(dev.props["nsid"])


def _scsi_place(dev: Dev) -> tuple[int | None, int | None, int | None]:
    channel, target, lun = (dev.props.get(name) for name in ("channel", "scsi-id", "lun"))
    return channel or 0, target, lun


def _ide_remedy(work: Work, full: Bus) -> str:
    free = []
    for bus in work.buses.values():
        if bus.kind == "IDE":
            used = {dev.props.get("unit") for dev in bus.members}
            free += [f"{bus.name} unit {unit}" for unit in range(IDE_UNITS) if unit not in used]
    return f"free: {', '.join(free)}" if free else "every IDE channel is full; remove a drive"


def _indexes(work: Work) -> None:
    """Ports that come in a numbered row (serial, parallel): the index gives the resources that are not
    given.
    """
    rows: dict[str, list[Dev]] = {}
    for dev in work.devices:
        if dev.entry is not None and dev.entry.index is not None and not dev.idle:
            rows.setdefault(dev.driver, []).append(dev)
    for devices in rows.values():
        entry = devices[0].entry
        assert entry is not None and entry.index is not None
        prop: str = entry.index["prop"]
        sets: dict[str, list[int]] = entry.index["sets"]
        count = max((len(values) for values in sets.values()), default=0)
        taken: dict[int, Dev] = {}
        for dev in devices:
            index = dev.props.get(prop)
            if index is None:
                index = _index_of(dev, sets)
            if index is not None and index not in taken:
                taken[index] = dev
                dev.props[prop] = index
        for dev in sorted(devices, key=lambda dev: dev.id):
            index = dev.props.get(prop)
            if index is None:
                index = next((free for free in range(count) if free not in taken), count)
                taken.setdefault(index, dev)
            elif taken.get(index) is not dev:
                _same_index(work, dev, taken[index], prop, index)
                continue
            if index >= count and any(dev.props.get(name) is None for name in sets):
                _no_index(work, dev, prop, index, count)
                continue
            dev.props[prop] = index
            for name, values in sets.items():
                if dev.props.get(name) is None and index < len(values):
                    dev.props[name] = values[index]


def _index_of(dev: Dev, sets: dict[str, list[int]]) -> int | None:
    """The index whose first resource is the one given explicitly, so that COM2's port makes it COM2."""
    for name, values in sets.items():
        given = dev.props.get(name)
        if name in dev.spec.props and type(given) is int and values.count(given) == 1:
            return values.index(given)
    return None


def _same_index(work: Work, dev: Dev, other: Dev, prop: str, index: int) -> None:
    work.wrong(
        "VR0505",
        f"{dev.label} and {other.label} both have {prop} {index}",
        dev.spec.place_of(prop),
        f"{dev.spec.path}.{prop}",
        also=[(other.spec.place_of(prop), f"{other.label} is here")],
        remedy="give each its own, or leave it out",
    )
    dev.idle = True


def _no_index(work: Work, dev: Dev, prop: str, index: int, count: int) -> None:
    work.wrong(
        "VR0507",
        f"{dev.driver} has only {prop} 0 to {count - 1}; '{dev.id}' would be {prop} {index}",
        dev.spec.place_of(prop),
        dev.spec.path,
        remedy="remove one, or give iobase and irq",
    )
    dev.idle = True


def _a(kind: str) -> str:
    return f"an {kind}" if kind[:1] in "AEIO" else f"a {kind}"
