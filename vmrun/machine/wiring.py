"""The wires of a machine file: `device.output[n] -> device.input[n]`.

An end is written `owner.pin[n]` (or `owner.pin`, meaning pin 0), where the owner is a device id, a bus (`isa.0`,
`pci.0`) or one of the board's own: `gsi[n]`, `cpus.intr`. An output that two wires leave becomes a fan of its own.
"""

from __future__ import annotations

from accel.api import IrqFan, IrqLine, IrqSink

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmrun.core.object import Device


class Wiring:
    """All ends of a board by name, and the wires between them."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.fans: dict[str, IrqFan] = {}  # "gsi", "isa.0.irq": inputs that are also outputs
        self.sinks: dict[str, IrqSink] = {}  # "cpus.intr"
        self.lines: dict[str, list[IrqLine]] = {}  # "pci.0.pirq": outputs of a bus

    def connect_all(self, wires: Iterable[tuple[str, str]]) -> None:
        """BuildError names the wire whose end does not exist."""
        targets: dict[tuple[str, int], list[tuple[IrqSink, int]]] = {}
        for source, target in wires:
            try:
                sink = self._target(*split(target))
                targets.setdefault(split(source), []).append(sink)
            except KeyError as exc:
                raise BuildError(
                    f"wire {source} -> {target}: there is no {exc.args[0]}", code="VR0521", path=f"wires.{source}"
                ) from None
        for (name, n), sinks in targets.items():
            try:
                self._leave(name, n, sinks)
            except IndexError as exc:
                raise BuildError(f"wire from {name}[{n}]: {exc}", code="VR0521", path="wires") from None
            except KeyError as exc:
                raise BuildError(
                    f"wire from {name}[{n}]: there is no {exc.args[0]}", code="VR0521", path="wires"
                ) from None

    def _target(self, name: str, n: int) -> tuple[IrqSink, int]:
        owner, _, pin = name.rpartition(".")
        device = self.devices.get(owner)
        sink: IrqSink
        if name in self.fans:
            sink, width = self.fans[name], int(self.fans[name].count)
        elif name in self.sinks:
            sink, width = self.sinks[name], 1
        elif device is not None and pin in device.inputs:
            sink, width = device.inputs[pin], device.input_widths[pin]
        else:
            raise KeyError(f"input '{name}'")
        if n >= width:
            pins = f"pins 0 to {width - 1}" if width > 1 else "one pin, 0"
            raise KeyError(f"input '{name}[{n}]': it has {pins}")
        return sink, n

    def _leave(self, name: str, n: int, sinks: list[tuple[IrqSink, int]]) -> None:
        if name in self.fans:
            for sink, m in sinks:
                self.fans[name].connect(n, sink, m)
            return
        owner, _, pin = name.rpartition(".")
        device = self.devices.get(owner)
        lines = self.lines.get(name) or (device.outputs.get(pin) if device is not None else None)
        if lines is None or n >= len(lines):
            raise KeyError(f"output '{name}[{n}]'")
        if len(sinks) == 1:
            lines[n].connect(*sinks[0])
            return
        fan = IrqFan(f"{name}[{n}]", 1)
        for sink, m in sinks:
            fan.connect(0, sink, m)
        lines[n].connect(fan, 0)


def split(end: str) -> tuple[str, int]:
    """'isa.0.irq[3]' → ('isa.0.irq', 3); 'pic0.int' → ('pic0.int', 0)."""
    if end.endswith("]"):
        name, _, index = end[:-1].rpartition("[")
        return name, int(index)
    return end, 0
