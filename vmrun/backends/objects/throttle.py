"""throttle-group: limits that several drives and nodes (the driver throttle) share."""

from __future__ import annotations

from vmrun.core import iolimits
from vmrun.core.props import Prop, props_of
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.platform import Platform


def _limit(name: str) -> Prop:
    prop = Prop("uint64", None, "one of the limits")
    prop.name = f"x-{name}"
    return prop


class ThrottleGroup(UserObject):
    driver = "throttle-group"
    spellings = (("x-", "limits."),)

    for _name in iolimits.NAMES:
        _name = iolimits.to_qemu(_name)
        locals()[f"x_{_name.replace('-', '_')}"] = _limit(_name)
    del _name

    def prepared(self, values: dict[str, Any]) -> dict[str, Any]:
        """`limits` as one value, or each by its name."""
        limits = values.get("limits", {})
        dotted = {name[7:]: value for name, value in values.items() if name.startswith("limits.")}
        rest = {name: value for name, value in values.items() if not name.startswith("limits")}
        return {**rest, **self._named(limits), **self._named(dotted)}

    def _named(self, limits: Any) -> dict[str, Any]:
        if not isinstance(limits, dict):
            raise BuildError("Invalid parameter type for 'limits', expected: object")
        known = props_of(type(self))
        for name in limits:
            if f"x-{name}" not in known:
                raise BuildError(f"Parameter 'limits.{name}' is unexpected")
        return {f"x-{name}": value for name, value in limits.items()}

    def complete(self, platform: Platform) -> None:
        from vmrun.backends.block import limit_group

        known = platform.limit_groups.get(self.name)
        if known is not None and known.members:
            raise BuildError("A group with this name already exists")
        self.group: Any = limit_group(platform.limit_groups, self.name)
        self._set({name[2:]: value for name, value in self.get_props().items() if name[:2] == "x-"})
        self.group.kept = True

    def release(self) -> None:
        self.group.kept = False

    def in_use(self) -> bool:
        return bool(self.group.members)

    def _set(self, limits: dict[str, Any]) -> None:
        """By QEMU's names. BuildError."""
        try:
            self.group.set({iolimits.of_qemu(name): value for name, value in limits.items()})
        except ValueError as error:
            raise BuildError(str(error)) from None

    def limits(self) -> dict[str, int]:
        """As they are now, by QEMU's names."""
        known = self.group.limits
        return {
            iolimits.to_qemu(name): known.get(name, 1 if name.endswith("length") else 0) for name in iolimits.NAMES
        }

    def shown(self) -> dict[str, Any]:
        limits = self.limits()
        return {**{f"x-{name}": value for name, value in limits.items()}, "limits": limits}

    def qom_changes(self) -> dict[str, Callable[[Any], None]]:
        def fixed(value: Any) -> None:
            raise BuildError("Property cannot be set after initialization")

        return {"limits": self._change, **{f"x-{name}": fixed for name in self.limits()}}

    def _change(self, limits: Any) -> None:
        """The limits that are named are others now."""
        known = props_of(type(self))
        for name, value in self._named(limits).items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise BuildError(f"Invalid parameter type for 'limits.{name[2:]}', expected: integer")
            known[name].check(value, self)
        self._set({**self.limits(), **limits})
