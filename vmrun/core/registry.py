"""Driver names → classes. Importing a device's module registers it; the catalogue says which module that is."""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from vmrun.core.object import Device

    D = TypeVar("D", bound=type[Device])

drivers: dict[str, type[Device]] = {}


def register(driver: str, *aliases: str, description: str = "") -> Callable[[D], D]:
    """Class decorator. Aliases are other names of the same type (`ide-drive` for `ide-hd`)."""

    def add(cls: D) -> D:
        cls.driver = driver
        if description:
            cls.description = description
        for name in (driver, *aliases):
            if name in drivers and drivers[name] is not cls:
                raise BuildError(f"driver {name} is registered twice")
            drivers[name] = cls
        return cls

    return add


def find(driver: str, module: str) -> type[Device]:
    """The class of `driver`, importing `module` when it is not loaded yet."""
    cls = drivers.get(driver)
    if cls is None:
        __import__(module)
        cls = drivers.get(driver)
        if cls is None:
            raise BuildError(f"{module} does not register {driver}")
    return cls
