"""Places on buses other than PCI and IDE: USB ports, SCSI targets, ports of a virtio-serial controller, codecs.

Only what the file gives is judged: a place that is taken twice, and one that the bus does not have. The rest is
assigned by whoever has the bus.
"""

from __future__ import annotations

from vmrun.config.work import Bus, Dev, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# kind of bus → (properties that are the place, what a place is called, the first that anybody may have, the number
# behind the last; 0: judged elsewhere)
KINDS: dict[str, tuple[tuple[str, ...], str, int, int]] = {
    "USB": (("port",), "port", 1, 0),
    "SCSI": (("channel", "scsi-id", "lun"), "channel, id and lun", 0, 0),
    "virtio-serial-bus": (("nr",), "port", 1, 31),  # 0 is the console's
    "HDA": (("cad",), "codec address", 0, 15),
    "floppy": (("unit",), "unit", 0, 2),
    "ccid-bus": (("slot",), "slot", 0, 1),
    "I2C": (("address",), "address", 0, 128),
}
FROM_ZERO = ("channel",)  # is 0 when it is not given
HUB = "usb-hub"


def check(work: Work) -> None:
    """Say which places are taken twice, and which do not exist."""
    for bus in work.buses.values():
        row = KINDS.get(bus.kind)
        if row is None or bus.unknown:
            continue
        names, what, first, end = row
        taken: dict[tuple[Any, ...], Dev] = {}
        for dev in sorted(bus.members, key=lambda dev: dev.spec.place.key()):
            if not all(name in dev.spec.props for name in names if name not in FROM_ZERO):
                continue  # what is not given is free for the bus to choose
            place = tuple(dev.props.get(name) for name in names)
            other = taken.setdefault(place, dev)
            if other is not dev:
                free = range(first, end or first + _ports(bus))
                _twice(work, bus, dev, other, names, what, _free(bus, names, taken, free))
            elif end and type(place[0]) is int and place[0] >= end:
                _beyond(work, bus, dev, names[0], f"{what} 0 to {end - 1}" if end > 1 else f"{what} 0")
        if bus.kind == "USB":
            _usb(work, bus, {str(place[0]): dev for place, dev in taken.items()})


def _twice(
    work: Work, bus: Bus, dev: Dev, other: Dev, names: tuple[str, ...], what: str, remedy: str
) -> None:
    shown = ".".join(str(dev.props.get(name, 0)) for name in names)
    given = next(name for name in names if name in dev.spec.props)
    first = next((name for name in names if name in other.spec.props), given)
    work.wrong(
        "VR0518",
        f"{dev.label} and {other.label} are both at {what} {shown} of {bus.name}",
        dev.spec.place_of(given),
        f"{dev.spec.path}.{given}",
        also=[(other.spec.place_of(first), f"{other.label} is here")],
        remedy=remedy,
    )


def _free(bus: Bus, names: tuple[str, ...], taken: dict[tuple[Any, ...], Dev], places: range) -> str:
    if len(names) > 1 or not places:
        return "give each its own"
    used = {str(place[0]) for place in taken}
    free = [str(number) for number in places if str(number) not in used]
    return f"free: {', '.join(free[:8])}" if free else f"every place of {bus.name} is taken; use another bus"


def _beyond(work: Work, bus: Bus, dev: Dev, name: str, has: str) -> None:
    work.wrong(
        "VR0519",
        f"{dev.label} is at {name} {dev.props[name]}, but {bus.name} has {has}",
        dev.spec.place_of(name),
        f"{dev.spec.path}.{name}",
        also=[(bus.owner.spec.place, f"{bus.owner.label} provides {bus.name}")],
    )


# --- USB ---------------------------------------------------------------------------------------------------


def _ports(bus: Bus) -> int:
    """How many ports the controller or hub of a USB bus has; 0 when its driver does not say."""
    owner = bus.owner
    given = owner.entry.data.get("usb-ports", ()) if owner.entry is not None else ()
    numbers = [owner.props.get(item) if isinstance(item, str) else item for item in given]
    return max((number for number in numbers if type(number) is int), default=0)


def _usb(work: Work, bus: Bus, taken: dict[str, Dev]) -> None:
    """Ports are paths through hubs: 1.2 is port 2 of the hub at port 1."""
    for port, dev in taken.items():
        above, dot, last = port.rpartition(".")
        steps = port.split(".")
        if not all(step.isdecimal() and step.isascii() and len(step) < 4 and int(step) for step in steps):
            work.wrong(
                "VR0519",
                f"'{port}' is no USB port",
                dev.spec.place_of("port"),
                f"{dev.spec.path}.port",
                remedy="a number from 1 on, or the numbers on the way through hubs: 1.2",
            )
            continue
        count = _ports(bus)
        if not dot:
            if count and int(port) > count:
                _beyond(work, bus, dev, "port", f"ports 1 to {count}")
            continue
        hub = taken.get(above)
        if hub is None or hub.driver != HUB:
            work.wrong(
                "VR0519",
                f"{dev.label} is at port {port}, but there is no hub at port {above} of {bus.name}",
                dev.spec.place_of("port"),
                f"{dev.spec.path}.port",
                also=[(hub.spec.place_of("port"), f"{hub.label} is there")] if hub is not None else (),
                remedy=f'add {{driver: {HUB}, bus: {bus.name}, port: "{above}"}}, or choose another port',
            )
            continue
        room = hub.props.get("ports")
        if type(room) is int and int(last) > room:
            work.wrong(
                "VR0519",
                f"{dev.label} is at port {port}, but the hub at port {above} has ports 1 to {room}",
                dev.spec.place_of("port"),
                f"{dev.spec.path}.port",
                also=[(hub.spec.place, f"{hub.label} is here")],
            )
