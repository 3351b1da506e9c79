"""The property tables of all modelled devices, from the classes themselves: what schema/devices.json holds.

`python -m vmrun.devices.catalogue` rewrites the file; a test fails when it is stale. Everything that needs a table
without importing a device (validation, help, editors) reads the file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

import vmrun.devices
from vmrun.core.props import props_of
from vmrun.core.registry import drivers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load_all() -> None:
    """Import every device module, so that all drivers are registered."""
    for module in pkgutil.walk_packages(vmrun.devices.__path__, "vmrun.devices."):
        if not module.name.endswith(".catalogue"):
            import_module(module.name)


def build() -> dict[str, dict[str, Any]]:
    """driver → its row, in the form that vmrun.config.catalogue reads."""
    load_all()
    rows = {}
    for name, cls in sorted(drivers.items()):
        rows[name] = {
            "module": cls.__module__,
            "class": cls.__name__,
            "bus": cls.bus,
            "provides": list(cls.provides),
            "description": cls.description,
            "props": [prop.describe() for prop in props_of(cls).values()],
            "resources": cls.resources,
            "index": cls.index,
            "accel": cls.accel,
        }
    return rows


def text() -> str:
    import json

    return json.dumps(build(), indent=1, sort_keys=True) + "\n"


def main() -> None:
    import pathlib

    path = pathlib.Path(__file__).resolve().parents[2] / "schema" / "devices.json"
    path.write_text(text())
    print(f"{path.name}: {len(drivers)} drivers")


if __name__ == "__main__":
    main()
