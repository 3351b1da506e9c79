"""Pins: 'isa.0.irq[0..15]' → 'gsi[0..15]' written out as sixteen pairs, each end known to exist."""

from __future__ import annotations

from vmrun.config.node import Node
from vmrun.config.work import Work
from vmrun.errors import Place

Wire = tuple[str, str]
_OUTSIDE = frozenset(("gsi", "cpus"))  # ends that are no device's: the interrupt numbers, the processors
MAX_PINS = 256  # of one wire
MAX_WIRES = 16_384  # of one machine


def expand(work: Work) -> list[Wire]:
    """Every wire of the type and of the file, one pin each, in order, without repetitions."""
    wires: dict[Wire, str] = {}  # → path of the entry that says it
    made = 0
    own = work.spec.get("wires")
    known = {dev.id for dev in work.devices} | set(work.buses) | _OUTSIDE
    for nodes, path in (
        (work.machine_type.items("wires"), "wires of the type"),
        (own.value if own else [], "wires"),
    ):
        for index, node in enumerate(nodes):
            pairs = _pairs(work, node, f"{path}[{index}]", known)
            made += len(pairs)
            if made > MAX_WIRES:
                work.wrong("VR0520", f"more than {MAX_WIRES} wires", node.place, f"{path}[{index}]")
                return list(wires)
            for pair in pairs:
                wires.setdefault(pair, f"{path}[{index}]")
    _check_circles(work, wires)
    return list(wires)


def _check_circles(work: Work, wires: dict[Wire, str]) -> None:
    """Pins that pass on what reaches them (of a bus, of gsi) must not lead back to themselves."""
    onward: dict[str, list[Wire]] = {}
    for wire in wires:
        onward.setdefault(_pin(wire[0]), []).append(wire)
    done: set[str] = set()
    for start in onward:
        way: dict[str, None] = {}
        stack = [(start, iter(onward[start]))]
        while stack:
            pin, rest = stack[-1]
            way[pin] = None
            try:
                wire = next(rest)
            except StopIteration:
                stack.pop()
                del way[pin]
                done.add(pin)
                continue
            target = _pin(wire[1])
            if target in way:
                path = wires[wire]
                work.wrong(
                    "VR0523", f"wire {wire[0]} -> {wire[1]} leads back to where it comes from",
                    _place(work, path), path, remedy="remove it",
                )  # fmt: skip
                return
            if target in onward and target not in done:
                stack.append((target, iter(onward[target])))


def _pin(text: str) -> str:
    """isa.0.irq and isa.0.irq[0] are one pin."""
    return text if text.endswith("]") else f"{text}[0]"


def _place(work: Work, path: str) -> Place | None:
    own = work.spec.get("wires")
    section, _, index = path.rstrip("]").rpartition("[")
    if section != "wires" or own is None:
        return work.spec.type_name.place
    place: Place = own.value[int(index)].place
    return place


def _pairs(work: Work, node: Node, path: str, known: set[str]) -> list[Wire]:
    ends: list[list[str]] = []
    for key in ("from", "to"):
        end: Node = node.value[key]
        pins = pin_range(str(end.value))
        if pins is None:
            work.wrong(
                "VR0520",
                f"'{end.value}' is no pin",
                end.place,
                f"{path}.{key}",
                remedy="device.pin, device.pin[n] or device.pin[first..last]",
            )
            return []
        owner = _owner(pins[0], known)
        if owner is None:
            name = pins[0].partition(".")[0].partition("[")[0]
            work.wrong(
                "VR0521",
                f"'{end.value}' names no device or bus of this machine",
                end.place,
                f"{path}.{key}",
                nearest=work.near(name, known),
            )
            return []
        ends.append(pins)
    if len(ends[0]) != len(ends[1]):
        work.wrong(
            "VR0520",
            f"{len(ends[0])} pins on one side and {len(ends[1])} on the other",
            node.place,
            path,
            remedy="give both sides as many pins",
        )
        return []
    return list(zip(ends[0], ends[1], strict=True))


def pin_range(text: str) -> list[str] | None:
    """'a.b[2..4]' → ['a.b[2]', 'a.b[3]', 'a.b[4]']; None when it cannot be read."""
    if not text.endswith("]"):
        return [text] if text and "[" not in text else None
    name, bracket, inside = text[:-1].rpartition("[")
    first, dots, last = inside.partition("..")
    if not bracket or not name or not _number(first) or (dots and not _number(last)):
        return None
    low, high = int(first), int(last) if dots else int(first)
    if high < low or high >= MAX_PINS:
        return None
    return [f"{name}[{number}]" for number in range(low, high + 1)]


def _number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 4


def _owner(pin: str, known: set[str]) -> str | None:
    """The device, bus or outside end that a pin belongs to; bus names have dots themselves, so the longest
    wins.
    """
    stem = pin.partition("[")[0]
    while stem:
        if stem in known:
            return stem
        stem = stem.rpartition(".")[0]
    return None
