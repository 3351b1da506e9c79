"""Typed properties: one declaration gives parsing, checks, help, JSON Schema and introspection.

    class IsaSerial(IsaDevice):
        iobase = Prop("uint16", default=0x3F8, doc="first I/O port")

Types are QEMU's spelling: bool, uint8 … uint64, int32, size (bytes), str, enum, pci-addr, mac, and the names of
other things: drive, chardev, netdev, link (the id of another device), object (the id of one of the host's side, whose
kind is one of `of`: `rng-backend` is rng-builtin and rng-random).
"""

from __future__ import annotations

from vmrun.core.values import RANGES
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMING = ("drive", "chardev", "netdev", "link", "object")  # types of what names something else
TEXT = ("str", "pci-addr", "mac", *NAMING)


class Prop:
    """A descriptor. `visible` tells whether the guest can see the value, and so whether a lock covers it; `idle` why
    nothing comes of the value here, which `vmrun validate` then says to who writes one.
    """

    __slots__ = ("choices", "default", "doc", "idle", "max", "min", "name", "of", "type", "unit", "visible")

    def __init__(
        self,
        type: str,
        default: Any = None,
        doc: str = "",
        *,
        unit: str = "",
        visible: bool = True,
        choices: tuple[str, ...] = (),
        min: int | None = None,
        max: int | None = None,
        of: tuple[str, ...] = (),
        idle: str = "",
    ) -> None:
        low, high = RANGES.get(type, (None, None))
        self.name = ""
        self.type, self.default, self.doc, self.unit = type, default, doc, unit
        self.visible, self.choices, self.of, self.idle = visible, choices, of, idle
        self.min = low if min is None else min
        self.max = high if max is None else max

    def __set_name__(self, owner: type, name: str) -> None:
        # A Python name cannot hold QEMU's dashes; `kbd_irq` declares `kbd-irq` with name= left to the registry.
        if not self.name:
            self.name = name

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        if obj is None:
            return self
        return obj.prop_values.get(self.name, self.default)

    def __set__(self, obj: Any, value: Any) -> None:
        obj.prop_values[self.name] = self.check(value, obj)

    def check(self, value: Any, obj: Any = None) -> Any:
        """The value, or BuildError that names the property and what it takes."""
        where = f"{obj.path}.{self.name}" if obj is not None else self.name
        if value is None:
            return None
        if self.type == "bool":
            if not isinstance(value, bool):
                raise BuildError(f"{where}: {value!r} is not true or false")
        elif self.type in RANGES:
            if isinstance(value, bool) or not isinstance(value, int):
                raise BuildError(f"{where}: {value!r} is not a number")
            if self.min is not None and value < self.min or self.max is not None and value > self.max:
                raise BuildError(f"{where}: {value} is outside {self.min}..{self.max}")
        elif self.type == "enum":
            if value not in self.choices:
                raise BuildError(f"{where}: {value!r} is not one of {', '.join(self.choices)}")
        elif not isinstance(value, str):
            raise BuildError(f"{where}: {value!r} is not text")
        return value

    def describe(self) -> dict[str, Any]:
        """The row of the catalogue (schema/devices.json)."""
        return {
            "name": self.name,
            "type": self.type,
            "default": self.default,
            "doc": self.doc,
            "unit": self.unit,
            "visible": self.visible,
            "min": self.min,
            "max": self.max,
            "choices": list(self.choices),
            **({"of": list(self.of)} if self.of else {}),
            **({"idle": self.idle} if self.idle else {}),
        }


def named(name: str, type: str, default: Any = None, doc: str = "", **more: Any) -> Prop:
    """A property whose QEMU name is no Python name: `kbd_irq = named("kbd-irq", "uint8", 1)`."""
    prop = Prop(type, default, doc, **more)
    prop.name = name
    return prop


def unused(name: str, type: str, default: Any, doc: str, why: str) -> Prop:
    """A property that is taken and has no effect, because of `why`; no guest sees it."""
    return named(name, type, default, doc, visible=False, idle=why)


def props_of(cls: type) -> dict[str, Prop]:
    """QEMU name → Prop of a class and its bases, in order of declaration, but what `without` of any of them names."""
    found: dict[str, Prop] = {}
    for base in reversed(cls.__mro__):
        for value in vars(base).values():
            if isinstance(value, Prop):
                found[value.name] = value
    for base in cls.__mro__:
        for name in vars(base).get("without", ()):
            found.pop(name, None)
    return found
