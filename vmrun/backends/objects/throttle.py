"""throttle-group: limits that several nodes share (the driver throttle)."""

from __future__ import annotations

from vmrun.core.props import Prop, props_of
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

NAMES = ("bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write")
MOST = 1000000000000000


def _limit(name: str) -> Prop:
    prop = Prop("uint64", None, "one of the limits")
    prop.name = f"x-{name}"
    return prop


class ThrottleGroup(UserObject):
    driver = "throttle-group"
    spellings = (("x-", "limits."),)

    for _name in (*NAMES, *(f"{name}-{end}" for name in NAMES for end in ("max", "max-length")), "iops-size"):
        locals()[f"x_{_name.replace('-', '_')}"] = _limit(_name)
    del _name

    def prepared(self, values: dict[str, Any]) -> dict[str, Any]:
        """`limits` as one value, or each by its name."""
        found: dict[str, Any] = {}
        known = props_of(type(self))
        limits = values.get("limits", {})
        if not isinstance(limits, dict):
            raise BuildError("Invalid parameter type for 'limits', expected: object")
        dotted = {name[7:]: value for name, value in values.items() if name.startswith("limits.")}
        for name, value in {**limits, **dotted}.items():
            if f"x-{name}" not in known:
                raise BuildError(f"Parameter 'limits.{name}' is unexpected")
            found[f"x-{name}"] = value
        rest = {name: value for name, value in values.items() if not name.startswith("limits")}
        return {**rest, **found}

    def complete(self, platform: Platform) -> None:
        from vmrun.backends.block.throttle import Group

        self.group: Any = Group()
        wanted = {name[2:]: value for name, value in self.get_props().items() if name[:2] == "x-" and value}
        if any(not 0 <= value <= MOST for value in wanted.values()):
            raise BuildError(f"bps/iops/max values must be within [0, {MOST}]")
        try:
            self.group.set_limits(wanted)
        except ValueError as error:
            raise BuildError(str(error)) from None
