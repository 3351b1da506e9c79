"""Objects of the host's side that a user makes: what QEMU's -object and object-add make.

    class Secret(UserObject):
        driver = "secret"
        data = Prop("str", doc="the secret itself")

They live under /objects, by their id, for as long as nobody uses them.
"""

from __future__ import annotations

from vmrun.core.object import Object
from vmrun.core.props import props_of
from vmrun.core.values import RANGES, read_value
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform



class UserObject(Object):
    """`changeable`: properties that qom-set may change afterwards. `spellings`: what in their names may be written
    otherwise, and how.
    """

    changeable: tuple[str, ...] = ()
    spellings: tuple[tuple[str, str], ...] = ()

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.users: list[str] = []  # who holds it, in words; while there is one it stays

    def prepared(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values as they were given, for fill(); a class may read some of them otherwise. BuildError."""
        return values

    def complete(self, platform: Platform) -> None:
        """All properties are set: take what they say. BuildError leaves nothing behind."""

    def release(self) -> None:
        """Give it back."""

    def in_use(self) -> bool:
        """Whether somebody has it, so that it must stay."""
        return bool(self.users)

    def changed(self, name: str) -> None:
        """A property of `changeable` has a new value."""

    def shown(self) -> dict[str, Any]:
        """All that qom-get reads: the properties, and what a class knows besides."""
        return self.get_props()


def fill(made: UserObject, values: dict[str, Any], typed: bool = False) -> None:
    """Set properties in QEMU's words of error. typed: they come from JSON, where no text stands for a number or for
    true and false.
    """
    known = props_of(type(made))
    for name, value in made.prepared(values).items():
        prop = known.get(name)
        if prop is None:
            raise BuildError(f"Parameter '{name}' is unexpected" if typed else f"Invalid parameter '{name}'")
        number = prop.type in RANGES or prop.type == "size"
        try:
            if typed and isinstance(value, str) and (number or prop.type == "bool"):
                raise BuildError(name)
            made.prop_values[name] = prop.check(read_value(prop.type, value), made)
        except BuildError:
            kinds = {"bool": "boolean", "str": "string", "enum": "string"}
            kind = kinds.get(prop.type, "integer" if number else "string")
            if prop.type == "enum" and isinstance(value, str):
                raise BuildError(f"Parameter '{name}' does not accept value '{value}'") from None
            raise BuildError(f"Invalid parameter type for '{name}', expected: {kind}") from None
