"""The property tables of all modelled devices, from the classes themselves: what schema/devices.json holds, and
docs/devices/properties.md for people.

`python -m vmrun.devices.catalogue` rewrites both; a test fails when one is stale. Everything that needs a table
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
            "parents": list(getattr(cls, "parents", ())),
            "hotpluggable": cls.hotpluggable,
            "user_creatable": cls.user_creatable,
        }
    return rows


def text() -> str:
    import json

    return json.dumps(build(), indent=1, sort_keys=True) + "\n"


def page() -> str:
    """docs/devices/properties.md."""
    lines = [
        "# Drivers and their properties",
        "",
        "<!-- made by `python -m vmrun.devices.catalogue` -->",
        "",
        "What is modelled; `vmrun devices NAME` shows the same, `vmrun devices --all` also names what is to come.",
        "Names are QEMU's. A value that the machine type froze wins over the default here. A guest sees each property",
        "but those in *italics*, which concern the host or the machine file alone.",
    ]
    for name, row in build().items():
        place = f"on a bus of kind {row['bus']}" if row["bus"] else "on no bus"
        gives = f", provides {', '.join(row['provides'])}" if row["provides"] else ""
        lines += ["", f"## {name}", "", f"{row['description']}: {place}{gives}.", ""]
        lines += ["| property | kind | default | meaning |", "|---|---|---|---|"]
        lines += [_line(prop) for prop in row["props"] if prop["name"] not in ("id", "addr")]
    return "\n".join(lines) + "\n"


def _line(prop: dict[str, Any]) -> str:
    kind = ", ".join(prop["choices"]) or prop["type"]
    low, high = prop["min"], prop["max"]
    if prop["type"] != "bool" and low is not None and high is not None and (low or high < 0xFFFFFFFF):
        kind += f" {low}…{high}"
    default = prop["default"]
    shown = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    unit = f", in {prop['unit']}" if prop["unit"] else ""
    name = f"`{prop['name']}`" if prop["visible"] else f"*`{prop['name']}`*"
    cells = (name, kind, shown, (prop["doc"] or "") + unit)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def main() -> None:
    import pathlib

    root = pathlib.Path(__file__).resolve().parents[2]
    path = root / "schema" / "devices.json"
    path.write_text(text())
    (root / "docs" / "devices" / "properties.md").write_text(page())
    print(f"{path.name}: {len(drivers)} drivers")


if __name__ == "__main__":
    main()
