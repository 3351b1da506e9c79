"""The object tree: every part of a machine is an Object with a type name, a parent, named children and properties.

Life: create → set properties → realize → reset → run → unrealize. Paths are written as QEMU writes them:
/machine/peripheral/<id>, /machine/unattached/device[n], /chardevs/<id>.
"""

from __future__ import annotations

from vmrun.core.props import Prop, props_of
from vmrun.core.state import Stateful, table_of
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from accel.api import IoRegion, IrqLine, IrqSink
    from accel.ram import RamBlock
    from accel.space import Region

    from vmrun.core.platform import Platform


class Object:
    """A node of the tree. `driver` is its type name, as QEMU spells it."""

    driver = "object"

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.parent: Object | None = None
        self.children: dict[str, Object] = {}
        self.prop_values: dict[str, Any] = {}

    @property
    def path(self) -> str:
        if self.parent is None:
            return "" if self.name in ("", "/") else f"/{self.name}"
        return f"{self.parent.path}/{self.name}"

    def add_child(self, child: Object, name: str = "") -> Object:
        name = name or child.name
        if name in self.children:
            raise BuildError(f"{self.path or '/'} already has a child named {name}")
        child.name, child.parent = name, self
        self.children[name] = child
        return child

    def walk(self) -> Iterator[Object]:
        yield self
        for child in list(self.children.values()):
            yield from child.walk()

    def set_props(self, values: dict[str, Any]) -> None:
        """Set properties by their QEMU names. BuildError names an unknown one."""
        known = props_of(type(self))
        for name, value in values.items():
            prop = known.get(name)
            if prop is None:
                raise BuildError(f"{self.path or self.driver}: {self.driver} has no property '{name}'")
            self.prop_values[name] = prop.check(value, self)

    def get_props(self) -> dict[str, Any]:
        return {name: self.prop_values.get(name, prop.default) for name, prop in props_of(type(self)).items()}


class Device(Object, Stateful):
    """A part that the guest sees.

    Subclasses declare: `bus` (the kind of bus it plugs into, or None), `provides` (kinds of buses it offers, in the
    order of the machine file's names), `resources` (which properties claim ISA ports, IRQs and DMA channels), Props,
    and `state` (vmrun.core.state), or set `chip` at realize, which then is all there is to reset, save and load. They
    override `realize`; what it mapped with `map` is unmapped by itself.
    """

    bus: str | None = None
    provides: tuple[str, ...] = ()
    resources: dict[str, list[Any]] = {}
    index: dict[str, Any] = {}
    description = ""
    hotpluggable = True             # can be put in and taken out while the machine runs, if its bus allows
    accel: str | None = None        # set on the variant that an accelerator has in its kernel
    user_creatable = True           # a machine file's `devices:` may name it; False: only boards have it
    controls_interrupts = False     # its state is loaded after that of the devices whose lines it watches

    id = Prop("str", doc="name of the device, unique in the machine", visible=False)

    chip: Any = None

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.parent_bus: Any = None                 # the vmrun.bus object it sits on
        self.buses: dict[str, Any] = {}             # bus name → bus object it provides
        self.outputs: dict[str, list[IrqLine]] = {}
        self.inputs: dict[str, IrqSink] = {}
        self.input_widths: dict[str, int] = {}
        self.mapped: list[tuple[Region, Region]] = []   # (container, what was added to it)
        self.ram_blocks: list[RamBlock] = []            # memory of its own, saved with the machine's
        self.realized = False
        self.hotplugged = False                     # put in after the machine was built
        self.leaving = False                        # the guest was asked to let go of it

    # --- pins and windows -------------------------------------------------------------------------------

    def add_output(self, name: str, count: int = 1) -> list[IrqLine]:
        """Declare output pins before realize returns; wires of the machine file connect them afterwards."""
        from accel.api import IrqLine

        lines = [IrqLine() for _ in range(count)]
        self.outputs[name] = lines
        return lines

    def add_input(self, name: str, sink: IrqSink, width: int = 1) -> None:
        """width: how many pins it has, from 0."""
        self.inputs[name], self.input_widths[name] = sink, width

    def map(
        self, space: Region, what: IoRegion | Region, base: int, size: int = 0, *, name: str = "", priority: int = 0
    ) -> Region:
        """Show `what` in the container `space` from `base` on, `size` bytes of an IoRegion; undone by unrealize."""
        from accel.space import Region

        region = what if isinstance(what, Region) else Region.device(name or what.name or self.driver, what, size)
        region.owner = self
        space.add(region, base, priority)
        self.mapped.append((space, region))
        return region

    # --- life -------------------------------------------------------------------------------------------

    def realize(self, platform: Platform) -> None:
        """Claim resources and map regions. May raise BuildError; the builder then takes everything back."""

    def unrealize(self) -> None:
        """Give everything back."""
        while self.mapped:
            space, region = self.mapped.pop()
            space.remove(region)

    # --- state ------------------------------------------------------------------------------------------

    def _keeper(self) -> Any:
        """Whose table it is: the device's own, or that of its one chip."""
        return self.chip if not self.state and self.chip is not None else self

    def reset(self) -> None:
        """The state of power-on. Runs with the device lock held, no processor running."""
        keeper = self._keeper()
        if keeper is self:
            self.state.reset(self)
        else:
            keeper.reset()

    def save(self) -> dict[str, Any]:
        """Guest-visible mutable state as plain values; the machine is stopped and its I/O drained."""
        keeper = self._keeper()
        return table_of(keeper).save(keeper)

    def check(self, state: dict[str, Any]) -> dict[str, Any]:
        """What `apply` takes. StateError when a value is impossible."""
        keeper = self._keeper()
        return table_of(keeper).check(keeper, state, self.path or self.driver)

    def apply(self, checked: dict[str, Any]) -> None:
        keeper = self._keeper()
        table_of(keeper).apply(keeper, checked)

    def load(self, state: dict[str, Any]) -> None:
        """Take a saved state; StateError, with nothing changed, when a value is impossible."""
        self.apply(self.check(state))
