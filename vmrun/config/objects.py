"""Objects of the host's side, and who names them: their kinds, their properties, and that they are there.

Kinds and properties stand in schema/objects.json, which is made from the classes (vmrun.backends.objects.catalogue).
"""

from __future__ import annotations

from vmrun.config.node import Node
from vmrun.config.props import convert
from vmrun.config.work import Work, absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_PATHS = ("mem-path", "file", "dir", "filename")


def resolve_objects(work: Work, others: Mapping[str, str]) -> None:
    """Fill work.objects from the file's; `others`: kinds of those that whoever builds the machine brings, by id."""
    work.object_kinds.update(others)
    section = work.spec.get("objects")
    if section is None:
        return
    kinds = work.catalogue.objects
    for id, node in section.value.items():
        given = node.value["type"]
        name, path = str(given.value), f"objects.{id}"
        work.object_kinds[id] = name
        work.note(path, node.key_place)
        props = kinds.get(name)
        if props is None:
            work.wrong(
                "VR0601",
                f"there is no kind of object '{name}'",
                given.place,
                f"{path}.type",
                nearest=work.near(name, kinds),
                remedy=f"one of: {', '.join(sorted(kinds))}",
            )
            continue
        table = {prop["name"]: prop for prop in props}
        work.objects[id] = {"type": name, **_values(work, node, table, name, path)}
    for id, values in work.objects.items():
        for prop in kinds[values["type"]]:
            node = section.value[id].get(prop["name"])
            if prop["type"] == "object" and node is not None and values.get(prop["name"]):
                check_named(work, node, prop, f"{values['type']} '{id}'", f"objects.{id}.{prop['name']}")


def _values(work: Work, node: Node, table: dict[str, dict[str, Any]], kind: str, path: str) -> dict[str, Any]:
    """What is given, checked; the rest are the class's defaults."""
    found = {}
    for name, child in node.value.items():
        if name == "type":
            continue
        prop = table.get(name)
        if prop is None:
            work.wrong(
                "VR0607",
                f"object kind '{kind}' has no option '{name}'",
                child.key_place,
                f"{path}.{name}",
                nearest=work.near(name, table),
                remedy=f"its options: {', '.join(sorted(table))}" if table else "it has no options",
            )
            continue
        value = convert(child, prop, f"object kind '{kind}'", f"{path}.{name}", work.problems)
        if value is not None:
            found[name] = absolute(work, value) if name in _PATHS and value else value
            work.note(f"{path}.{name}", child.place)
    return found


def fits(kind: str, wanted: Sequence[str]) -> bool:
    """Whether an object of that kind is one of those `wanted`: `rng-backend` is each whose kind begins with `rng-`."""
    return any(kind == each or kind.startswith(f"{each.removesuffix('-backend')}-") for each in wanted)


def check_named(work: Work, node: Node, prop: dict[str, Any], user: str, path: str, driver: str = "") -> None:
    """The object that a property names is there, and of a kind that serves it. `driver`: the device's that names it."""
    id, wanted = str(node.value), prop["of"]
    kind = work.object_kinds.get(id)
    facts = {"driver": driver, "property": prop["name"], "id": id, "kind": wanted[0], "names": "object"}
    serve: list[str] = [other for other, kind in work.object_kinds.items() if fits(kind, wanted)]
    kinds = " or ".join(sorted(name for name in work.catalogue.objects if fits(name, wanted)))
    here = f"such objects here: {', '.join(serve)}" if serve else f"add one of kind {kinds} under `objects`"
    if kind is None:
        work.wrong(
            "VR0603",
            f"{user} names object '{id}', which does not exist",
            node.place,
            path,
            nearest=work.near(id, serve),
            remedy=here,
            facts=facts,
        )
    elif not fits(kind, wanted):
        work.wrong(
            "VR0613",
            f"{user} names object '{id}' of kind {kind}; '{prop['name']}' takes one of kind {kinds}",
            node.place,
            path,
            remedy=here,
            facts=facts,
        )
