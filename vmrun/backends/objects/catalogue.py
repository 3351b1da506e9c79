"""The property tables of the host's objects, from the classes themselves: schema/objects.json, by which the checks
of machine files and editors know them.

`python -m vmrun.backends.objects.catalogue` rewrites it; a test fails when it is stale.
"""

from __future__ import annotations

from vmrun.backends.objects import KINDS, kind_class
from vmrun.core.props import props_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def build() -> dict[str, list[dict[str, Any]]]:
    """Kind of the host's objects → its properties: what schema/objects.json holds."""
    found = {}
    for kind in sorted(KINDS):
        cls = kind_class(kind)
        rows = [prop.describe() for prop in props_of(cls).values()]
        also = [{**row, "name": row["name"].replace(*pair)} for pair in cls.spellings for row in rows]
        found[kind] = rows + [row for row in also if row not in rows]
    return found


def text() -> str:
    import json

    return json.dumps(build(), indent=1, sort_keys=True) + "\n"


def main() -> None:
    import pathlib

    (pathlib.Path(__file__).resolve().parents[3] / "schema" / "objects.json").write_text(text())


if __name__ == "__main__":
    main()
