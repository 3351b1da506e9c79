"""Resources that two devices cannot both have: ISA ports, interrupts, DMA channels; boot indexes, ACPI indexes and, on
one network, MAC addresses.

Every clash is told once, at the device that comes later, with the other owner beside it.
"""

from __future__ import annotations

from vmrun.config.wires import Wire
from vmrun.config.work import Dev, Work
from vmrun.errors import WARNING, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ISA_IRQS = 16
DMA_CHANNELS = 8
CASCADE_IRQ = 2
CASCADE_DMA = 4
MOST_OWN_LINES = 4  # of one device; one wired to more is the router of other devices' interrupts
MAC_PREFIX = 0x525400 << 24  # of cards without an address of their own


def check(work: Work, wires: list[Wire], name: str) -> None:
    """Find every clash; give a MAC address to cards without one: one of the machine's `name` and the card's id."""
    active = [dev for dev in work.devices if not dev.idle or dev.planned]
    _ports(work, active)
    _irqs(work, active, wires)
    _dmas(work, active)
    _numbers(work, active)
    _macs(work, active, name)


def _ports(work: Work, devices: list[Dev]) -> None:
    claims: list[tuple[int, int, Dev, str]] = []
    for dev in devices:
        assert dev.entry is not None
        for claim in dev.entry.resources.get("ports", ()):
            base, length = _value(dev, claim[0]), _value(dev, claim[1])
            if base is None or not length or (len(claim) > 3 and not dev.props.get(claim[3])):
                continue
            start = base + (claim[2] if len(claim) > 2 else 0)
            if start + length > 0x10000:
                prop = claim[0] if isinstance(claim[0], str) else ""
                work.wrong(
                    "VR0514",
                    f"{dev.label} would need {_range(start, start + length)}; the last one is 0xffff",
                    dev.spec.place_of(prop),
                    f"{dev.spec.path}.{prop}",
                )
                continue
            claims.append((start, start + length, dev, claim[0] if isinstance(claim[0], str) else ""))
    claims.sort(key=lambda claim: (claim[0], claim[1], claim[2].id))
    told: set[tuple[str, str]] = set()
    open_claims: list[tuple[int, int, Dev, str]] = []
    for claim in claims:
        open_claims = [other for other in open_claims if other[1] > claim[0]]
        if not any(_port_clash(work, claim, other, told) for other in open_claims):
            open_claims.append(claim)  # one that clashes is not held against others as well


def _port_clash(
    work: Work, claim: tuple[int, int, Dev, str], other: tuple[int, int, Dev, str], told: set[tuple[str, str]]
) -> bool:
    """Whether two claims that overlap are a clash; told once for two devices."""
    if claim[2] is other[2] or _both_untouched(claim[2], other[2]):
        return False
    first, second = _later(other, claim)
    dev, owner = second[2], first[2]
    pair = (owner.id, dev.id)
    if pair in told:
        return True
    told.add(pair)
    both = (max(claim[0], other[0]), min(claim[1], other[1]))
    work.wrong(
        "VR0512",
        f"{dev.label} and {owner.label} both claim {_range(*both)}",
        dev.spec.place_of(second[3]),
        f"{dev.spec.path}.{second[3]}" if second[3] else dev.spec.path,
        also=[(owner.spec.place_of(first[3]), f"{owner.label} has {_range(first[0], first[1])}")],
        remedy=f"{dev.label} would have {_range(second[0], second[1])}; move or remove one of them",
    )
    return True


def _irqs(work: Work, devices: list[Dev], wires: list[Wire]) -> None:
    owners: dict[int, list[tuple[Dev, str]]] = {}
    cascaded: list[tuple[Dev, str]] = []
    for dev in devices:
        assert dev.entry is not None
        for claim in dev.entry.resources.get("irqs", ()):
            prop = claim if isinstance(claim, str) else ""
            irq = _value(dev, claim)
            if irq is None:
                continue
            place, path = dev.spec.place_of(prop), f"{dev.spec.path}.{prop}"
            if not 0 <= irq < ISA_IRQS:
                work.wrong("VR0514", f"{dev.label} has IRQ {irq}; ISA has 0 to 15", place, path)
            elif irq == CASCADE_IRQ:
                cascaded.append((dev, prop))
            else:
                owners.setdefault(irq, []).append((dev, prop))
    for irq, pin, dev in _wired_irqs(devices, wires):
        owners.setdefault(irq, []).append((dev, f" {pin}"))
    for dev, prop in cascaded:
        work.wrong(
            "VR0513",
            f"{dev.label} has IRQ 2, which links the two interrupt controllers",
            dev.spec.place_of(prop),
            f"{dev.spec.path}.{prop}",
            remedy=_free_irqs(owners),
        )
    for irq, several in sorted(owners.items()):
        holders: list[tuple[Dev, str]] = []  # of those that share the line with one another, the first
        for dev, prop in several:
            for owner, owner_prop in holders:
                if dev is owner or _both_untouched(dev, owner) or _shares(dev, owner, irq):
                    continue
                (first, first_prop), (last, last_prop) = _later_dev((owner, owner_prop), (dev, prop))
                if first.board and not last.board and last_prop not in last.spec.props:
                    # ne2k_isa's 9 is the power management's: QEMU's users have it so
                    work.warn(
                        "VR0513",
                        f"{last.label} has IRQ {irq} by default, which is {first.label}'s",
                        last.spec.place,
                        last.spec.path,
                        remedy=f"give it one of its own (`irq:`); {_free_irqs(owners)}",
                    )
                    break
                work.wrong(
                    "VR0513",
                    f"{last.label} and {first.label} both have IRQ {irq}, which cannot be shared on ISA",
                    last.spec.place_of(last_prop),
                    f"{last.spec.path}.{last_prop}",
                    also=[(first.spec.place_of(first_prop), f"{first.label} has IRQ {irq}")],
                    remedy=_free_irqs(owners),
                )
                break
            else:
                if not any(_shares(dev, owner, irq) for owner, _ in holders):
                    holders.append((dev, prop))


def _free_irqs(owners: dict[int, list[tuple[Dev, str]]]) -> str:
    free = [str(irq) for irq in range(3, ISA_IRQS) if irq not in owners]
    return f"free: {', '.join(free)}" if free else "no interrupt is free"


def _wired_irqs(devices: list[Dev], wires: list[Wire]) -> list[tuple[int, str, Dev]]:
    """Interrupts that a device's own pins are wired to."""
    by_id = {dev.id: dev for dev in devices}
    lines: dict[str, list[tuple[int, str]]] = {}
    for source, target in wires:
        owner, _, pin = source.partition(".")
        if target.startswith("isa.0.irq[") and owner in by_id:
            lines.setdefault(owner, []).append((int(target[10:-1]), pin))
    return [
        (irq, pin, by_id[owner])
        for owner, found in lines.items()
        if len(found) <= MOST_OWN_LINES
        for irq, pin in found
    ]


def _shares(dev: Dev, other: Dev, irq: int) -> bool:
    """COM1 and COM3 share a line in hardware, and so do all parallel ports: the line that their index or
    their default gives them.
    """
    if dev.driver != other.driver or dev.entry is None or dev.entry.index is None:
        return False
    sets: dict[str, list[int]] = dev.entry.index["sets"]
    if "irq" in sets:
        return irq in sets["irq"]
    prop = dev.entry.props.get("irq")
    return prop is not None and prop.get("default") == irq


def _dmas(work: Work, devices: list[Dev]) -> None:
    owners: dict[int, tuple[Dev, str]] = {}
    for dev in devices:
        assert dev.entry is not None
        for claim in dev.entry.resources.get("dmas", ()):
            prop = claim if isinstance(claim, str) else ""
            channel = _value(dev, claim)
            if channel is None:
                continue
            place, path = dev.spec.place_of(prop), f"{dev.spec.path}.{prop}"
            if not 0 <= channel < DMA_CHANNELS or channel == CASCADE_DMA:
                work.wrong(
                    "VR0515",
                    f"{dev.label} has DMA channel {channel}; there are 0 to 3 and 5 to 7",
                    place,
                    path,
                )
                continue
            other = owners.get(channel)
            if other is None:
                owners[channel] = (dev, prop)
            elif not _both_untouched(dev, other[0]):
                (first, first_prop), (last, last_prop) = _later_dev(other, (dev, prop))
                free = [str(n) for n in (0, 1, 2, 3, 5, 6, 7) if n not in owners]
                work.wrong(
                    "VR0515",
                    f"{last.label} and {first.label} both have DMA channel {channel}",
                    last.spec.place_of(last_prop),
                    f"{last.spec.path}.{last_prop}",
                    also=[(first.spec.place_of(first_prop), f"{first.label} has channel {channel}")],
                    remedy=f"free: {', '.join(free)}",
                )


def _numbers(work: Work, devices: list[Dev]) -> None:
    """Boot indexes, and the numbers that the firmware names cards by: each is one device's."""
    for code, kind, none in (("VR0516", "bootindex", -1), ("VR0524", "acpi-index", 0)):
        owners: dict[int, tuple[Dev, str]] = {}
        for dev in devices:
            for name, value in dev.props.items():
                if not name.startswith(kind) or type(value) is not int or value <= none:
                    continue
                other = owners.setdefault(value, (dev, name))
                if other[0] is dev:
                    continue
                free = next(n for n in range(none + 1, none + len(owners) + 2) if n not in owners)
                work.wrong(
                    code,
                    f"{dev.label} and {other[0].label} both have {name} {value}",
                    dev.spec.place_of(name),
                    f"{dev.spec.path}.{name}",
                    also=[(other[0].spec.place_of(other[1]), f"{other[0].label} is here")],
                    remedy=f"{free} is free",
                    facts={"value": value},
                )


def _macs(work: Work, devices: list[Dev], machine: str) -> None:
    owners: dict[str, tuple[Dev, str]] = {}
    waiting: list[tuple[Dev, str]] = []
    for dev in devices:
        assert dev.entry is not None
        for name, prop in dev.entry.props.items():
            if prop["type"] != "mac":
                continue
            mac = dev.props.get(name)
            if mac is None:
                waiting.append((dev, name))
            elif mac in owners:
                other = owners[mac]
                work.wrong(
                    "VR0517",
                    f"{dev.label} and {other[0].label} both have MAC address {mac}",
                    dev.spec.place_of(name),
                    f"{dev.spec.path}.{name}",
                    also=[(other[0].spec.place_of(other[1]), f"{other[0].label} is here")],
                    remedy="on one network give each card its own, or leave `mac` out",
                    severity=WARNING,  # on two networks they may, and a card with its stand-in must
                )
            else:
                owners[mac] = (dev, name)
    for dev, name in sorted(waiting, key=lambda item: item[0].id):
        from zlib import crc32

        number = crc32(f"{machine}/{dev.id}".encode()) & 0xFFFFFF
        while (own := (MAC_PREFIX | number).to_bytes(6, "big").hex(":")) in owners:
            number = (number + 1) & 0xFFFFFF
        dev.props[name] = own
        owners[own] = (dev, name)


def _value(dev: Dev, claim: Any) -> int | None:
    """A resource's number: written in the table itself, or the value of the property it names."""
    value = dev.props.get(claim) if isinstance(claim, str) else claim
    return value if type(value) is int else None


def _both_untouched(a: Dev, b: Dev) -> bool:
    """Two board devices as their type has them: what the type says is not questioned."""
    return a.board and b.board and not a.changed and not b.changed


def _later(a: tuple[int, int, Dev, str], b: tuple[int, int, Dev, str]) -> Any:
    return (a, b) if _rank(a[2]) <= _rank(b[2]) else (b, a)


def _later_dev(a: tuple[Dev, str], b: tuple[Dev, str]) -> Any:
    return (a, b) if _rank(a[0]) <= _rank(b[0]) else (b, a)


def _rank(dev: Dev) -> tuple[bool, tuple[str, int, int]]:
    """Board devices own what they have; among the others the one written first does."""
    place: Place = dev.spec.place
    return not (dev.board and not dev.changed), place.key()


def _range(start: int, end: int) -> str:
    return f"port {start:#x}" if end - start == 1 else f"ports {start:#x}…{end - 1:#x}"
