"""The views of `vmrun tree`: a machine's objects as nodes to show."""

from __future__ import annotations

from vmrun.config.write import collapse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from vmrun.core.object import Object
    from vmrun.machine.machine import Machine

RAM, ROM, IO = "ram", "rom", "i/o"


class Node:
    """A label and what hangs below it. span: first address and size, of a range of a space; kind: what it is of."""

    def __init__(
        self,
        label: str,
        detail: str = "",
        children: list[Node] | None = None,
        span: tuple[int, int] | None = None,
        kind: str = "",
    ) -> None:
        self.label, self.detail, self.span, self.kind = label, detail, span, kind
        self.children = children if children is not None else []

    def plain(self) -> dict[str, Any]:
        return {"label": self.label, "detail": self.detail, "children": [child.plain() for child in self.children]}


def _qom(machine: Machine) -> Node:
    return _object(machine.root)


def _object(node: Object) -> Node:
    props = ", ".join(
        f"{name}={_value(value)}" for name, value in node.get_props().items() if value is not None and name != "id"
    )
    title = f"{node.name} ({node.driver})" if node.driver != "object" else node.name
    return Node(title, props, [_object(child) for child in node.children.values()])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:#x}" if isinstance(value, int) and value > 9 else str(value)


def _buses(machine: Machine, kind: str) -> Iterator[Any]:
    for device in machine.devices.values():
        for bus in device.buses.values():
            if bus.kind == kind:
                yield bus


def _pci(machine: Machine) -> Node:
    top = Node(machine.name)
    for bus in _buses(machine, "PCI"):
        below = Node(bus.name)
        for device in sorted(bus.devices, key=lambda d: int(d.devfn)):
            ids = f"{device.config.get(0, 2):04x}:{device.config.get(2, 2):04x}"
            code = device.config.get(8, 4) >> 8
            pin = device.config.get(0x3D, 1)
            title = f"{device.devfn >> 3:02x}.{device.devfn & 7} {device.driver} ({device.name})"
            detail = f"[{ids}] class {code:06x} rev {device.config.get(8, 1):02x}"
            line = Node(title, detail + (f" INT{'?ABCD'[pin]}#" if pin else ""))
            for bar in device.bars.values():
                kind = "I/O" if bar.flags & 1 else "ROM" if bar.n == 6 else "memory"
                line.children.append(Node(f"BAR {bar.n}" if bar.n < 6 else "ROM BAR", f"{kind}, {size_text(bar.size)}"))
            for name, other in device.buses.items():
                line.children.append(Node(f"bus {name}", other.kind, [_leaf(d) for d in other.devices]))
            below.children.append(line)
        top.children.append(below)
    return top


def _leaf(device: Any) -> Node:
    return Node(f"{device.name} ({device.driver})")


def _space(machine: Machine, space: Any, digits: int) -> Node:
    top = Node(f"{machine.name}: {space.name}")
    for piece in space.flat:
        owner = piece.region.owner
        title = f"{piece.start:0{digits}x}-{piece.start + piece.size - 1:0{digits}x} {piece.region.name}"
        detail = kind = piece.region.kind_name
        if piece.readonly and detail == RAM:
            detail, kind = "ram, read-only", ROM
        if owner is not None:
            detail += f", {owner.name} ({owner.driver})"
        if digits > 4:
            detail += f", {size_text(piece.size)}"
        top.children.append(Node(title, detail, span=(piece.start, piece.size), kind=kind))
    return top


def _memory(machine: Machine) -> Node:
    return _space(machine, machine.board.memory, 16)


def _io(machine: Machine) -> Node:
    return _space(machine, machine.board.io, 4)


def _irq(machine: Machine) -> Node:
    top = Node(f"{machine.name}: interrupts")
    users: dict[int, list[str]] = {}
    for device in machine.devices.values():
        if device.bus == "ISA":
            for pin in device.resources.get("irqs", []):
                number = device.get_props().get(pin)
                if number is not None:
                    users.setdefault(number, []).append(f"{device.name} ({device.driver}.{pin})")
    for source, target in machine.config["wires"]:
        name, _, rest = target.partition(".irq[")
        if rest and name.startswith("isa") and not source.startswith("piix3.irq"):
            users.setdefault(int(rest[:-1]), []).append(source)
    isa = Node("ISA interrupts")
    for number in range(16):
        isa.children.append(Node(f"IRQ {number}", ", ".join(users.get(number, [])) or "free"))
    wired = collapse(machine.config["wires"])
    wires = Node("wires", "", [Node(f"{source} -> {target}") for source, target in wired])
    pci = Node("PCI interrupt pins")
    for bus in _buses(machine, "PCI"):
        for device in bus.devices:
            pin = device.config.get(0x3D, 1)
            if pin:
                above, slot, pin_at = bus, device.devfn >> 3, pin - 1
                while above.bridge is not None:  # a pin turns with each slot on its way
                    pin_at = (slot + pin_at) & 3
                    above, slot = above.bridge.parent_bus, above.bridge.devfn >> 3
                line = (slot + pin_at - above.intx_first_slot) & 3
                pci.children.append(Node(f"{device.name} INT{'?ABCD'[pin]}#", f"PIRQ{'ABCD'[line]}"))
    top.children += [isa, pci, wires]
    return top


def size_text(size: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift and not size & ((1 << shift) - 1):
            return f"{size >> shift} {unit}"
    return f"{size} bytes"


VIEWS: dict[str, Callable[[Machine], Node]] = {
    "qom": _qom,
    "pci": _pci,
    "memory": _memory,
    "io": _io,
    "irq": _irq,
}
