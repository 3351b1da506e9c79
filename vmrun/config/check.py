"""Checks Nodes against vmrun's JSON Schemas: all faults of a file in one go, each with its place and the
nearest name.

It knows the keywords the two schemas use and no others. The full validator agrees with it (a test sees to
that) but takes longer to import than a machine takes to check.
"""

from __future__ import annotations

import os

from vmrun.config.catalogue import read_json
from vmrun.config.data import data_dir
from vmrun.config.near import nearest
from vmrun.config.node import Node, kind
from vmrun.config.props import shown
from vmrun.errors import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a number",
}
MOST_NEAREST = 200  # problems for which a nearest name is looked for
_SAYS_NOTHING = frozenset(("anyOf", "type", "title", "description", "default", "examples"))
_schemas: dict[str, Any] = {}
_taken: dict[int, frozenset[type]] = {}  # by the id of a schema in _schemas, none of which ever goes away


def load_schema(name: str) -> Any:
    """The schema of that name: 'machine' or 'machine-type'."""
    if name not in _schemas:
        _schemas[name] = read_json(schema_path(name))
    return _schemas[name]


def schema_path(name: str) -> str:
    return os.path.join(data_dir("schema"), f"{name}.schema.json")


def check_schema(node: Node, name: str, problems: list[Problem]) -> Node:
    """Add to problems everything in node that the schema of that name does not allow.

    Returns node without its faulty parts, so that the rest can be looked at in the same run.
    """
    checker = _Checker(name, problems)
    checker.check(node, load_schema(name), "")
    return _without(node, checker.bad) if checker.bad else node


def _without(node: Node, bad: set[int]) -> Node:
    value = node.value
    if type(value) is dict:
        return node.at({key: _without(child, bad) for key, child in value.items() if id(child) not in bad})
    if type(value) is list:
        return node.at([_without(child, bad) for child in value if id(child) not in bad])
    return node


class _Checker:
    """bad: ids of the nodes that are at fault (they live as long as the file does)."""

    __slots__ = ("bad", "name", "problems")

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = problems
        self.bad: set[int] = set()

    def check(self, node: Node, schema: Any, path: str) -> None:
        taken = _taken.get(id(schema))
        if taken is None:
            taken = _taken[id(schema)] = _takes(self.name, schema)
        if type(node.value) in taken:
            return
        while "$ref" in schema:
            self.name, schema = _resolve_ref(self.name, schema["$ref"])
        name = self.name
        if "anyOf" in schema:
            self._any_of(node, schema, path)
            self.name = name
            return
        value = node.value
        wanted = schema.get("type")
        if wanted is not None and not _is(value, wanted):
            self._wrong_type(node, _expected(schema), path)
            return
        if "const" in schema and not _same(value, schema["const"]):
            self._add("VR0204", node, path, f"must be '{schema['const']}', not {shown(value)}")
        if "enum" in schema and not any(_same(value, choice) for choice in schema["enum"]):
            self._not_among(node, schema["enum"], path)
        kind_of = type(value)
        if kind_of is dict:
            self._mapping(node, schema, path)
        elif kind_of is list:
            self._sequence(node, schema, path)
        elif kind_of is str:
            self._text(node, schema, path)
        elif kind_of is int:
            low, high = schema.get("minimum"), schema.get("maximum")
            if (low is not None and value < low) or (high is not None and value > high):
                bounds = (
                    f"at least {low}"
                    if high is None
                    else f"at most {high}"
                    if low is None
                    else f"{low}…{high}"
                )
                self._add("VR0204", node, path, f"is {value}; it must be {bounds}")
        self.name = name

    def _mapping(self, node: Node, schema: Any, path: str) -> None:
        name = self.name
        known = schema.get("properties", {})
        extra = schema.get("additionalProperties", True)
        names = schema.get("propertyNames")
        for key, child in node.value.items():
            row = known.get(key, extra)
            if names is None and row is not False and type(child.value) in _taken.get(id(row), ()):
                continue  # as check() would find, without a path that nobody reads
            below = f"{path}.{key}" if path else key
            if names is not None:
                before = len(self.problems)
                self.check(Node(key, node.file, child.key_line, child.key_col), names, below)
                self.name = name
                if len(self.problems) > before:
                    self.bad.add(id(child))
            if key in known:
                self.check(child, known[key], below)
            elif extra is False:
                self.bad.add(id(child))
                self.problems.append(
                    Problem(
                        "VR0201",
                        f"unknown key '{_cut(key)}'",
                        child.key_place,
                        path=_cut(below),
                        nearest=self._near(key, known),
                        remedy=f"keys known here: {', '.join(known)}" if len(known) <= 12 else "",
                    )
                )
            elif extra is not True:
                self.check(child, extra, below)
            self.name = name
        for key in schema.get("required", ()):
            if key not in node.value:
                self._missing(node, key, known.get(key, {}), path)
            elif id(node.value[key]) in self.bad:
                self.bad.add(id(node))  # without it the whole says nothing

    def _sequence(self, node: Node, schema: Any, path: str) -> None:
        name = self.name
        items = schema.get("items")
        if items is not None:
            for index, child in enumerate(node.value):
                self.check(child, items, f"{path}[{index}]")
                self.name = name
        count = len(node.value)
        least, most = schema.get("minItems", 0), schema.get("maxItems", count)
        if count < least:
            self._add("VR0205", node, path, f"has {count} entries; at least {least} is needed")
        if count > most:
            self._add("VR0205", node, path, f"has {count} entries; {most} at most")

    def _text(self, node: Node, schema: Any, path: str) -> None:
        value = node.value
        if len(value) < schema.get("minLength", 0):
            self._add("VR0204", node, path, "is empty")
        elif len(value) > schema.get("maxLength", len(value)):
            self._add("VR0204", node, path, f"is longer than {schema['maxLength']} characters")
        elif "pattern" in schema and not _matches(schema["pattern"], value):
            what = schema.get("title", "what is allowed here")
            self._add("VR0204", node, path, f"is {shown(value)}, not {what}", schema.get("description", ""))

    def _any_of(self, node: Node, schema: Any, path: str) -> None:
        name = self.name
        branches = schema["anyOf"]
        fitting = [branch for branch in branches if _is(node.value, _type_of(name, branch))]
        if not fitting:
            words = [_expected(_follow(name, branch)) for branch in branches]
            self._wrong_type(node, " or ".join(dict.fromkeys(words)), path)
            return
        best: _Checker | None = None
        for branch in fitting:
            trial = _Checker(name, [])
            trial.check(node, branch, path)
            if not trial.problems:
                return
            if best is None or len(trial.problems) < len(best.problems):
                best = trial
        if best is not None:
            self.problems.extend(best.problems)
            self.bad |= best.bad

    def _not_among(self, node: Node, choices: list[Any], path: str) -> None:
        names = [str(choice) for choice in choices]
        value = node.value
        if value is True or value is False:
            on_off = {True: "on", False: "off"}[value]
            near = on_off if on_off in names else ""
        else:
            near = self._near(value, names) if type(value) is str else ""
        self.bad.add(id(node))
        self.problems.append(
            Problem(
                "VR0204",
                f"{_subject(path)} is {shown(value)}",
                node.place,
                path=path,
                nearest=near,
                remedy=f"one of: {', '.join(names)}",
            )
        )

    def _near(self, name: str, known: Iterable[str]) -> str:
        return nearest(name, known) if len(self.problems) < MOST_NEAREST else ""

    def _wrong_type(self, node: Node, expected: str, path: str) -> None:
        value = node.value
        remedy = ""
        if expected == "text" and type(value) is int:
            remedy = f'write it in quotes: "{value}"'
        elif expected == "true or false" and value in ("on", "yes", "off", "no"):
            remedy = f"write {'true' if value in ('on', 'yes') else 'false'}"
        elif value is None:
            remedy = "give a value or remove the key"
        elif expected.startswith("a list") and type(value) in (str, dict):
            remedy = "put it in a list: [ … ]"
        self._add("VR0202", node, path, f"is {_given(value)} where {expected} is needed", remedy)

    def _missing(self, node: Node, key: str, schema: Any, path: str) -> None:
        remedy = f"add `{key}: {schema['const']}`" if "const" in schema else f"add `{key}:`"
        if "description" in schema and "const" not in schema:
            remedy += f" ({schema['description']})"
        self.bad.add(id(node))
        where = f" in {path}" if path else ""
        self.problems.append(
            Problem("VR0203", f"'{key}' is missing{where}", node.place, path=path, remedy=remedy)
        )

    def _add(self, code: str, node: Node, path: str, what: str, remedy: str = "") -> None:
        self.bad.add(id(node))
        self.problems.append(
            Problem(code, f"{_subject(path)} {what}", node.place, path=_cut(path), remedy=remedy)
        )


def _subject(path: str) -> str:
    return f"'{_cut(path.rpartition('.')[2])}'" if path else "the file"


def _given(value: Any) -> str:
    return shown(value) if type(value) in (str, int) and value is not None else kind(value)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "…"


def _is(value: Any, wanted: str | None) -> bool:
    if wanted is None:
        return True
    if wanted == "integer":
        return type(value) is int
    return type(value) is _TYPES[wanted]


def _takes(name: str, schema: Any) -> frozenset[type]:
    """The types of which a schema takes every value: most values need no closer look."""
    while "$ref" in schema:
        name, schema = _resolve_ref(name, schema["$ref"])
    if not _SAYS_NOTHING.issuperset(schema):
        return frozenset()
    if "anyOf" in schema:
        return frozenset().union(*(_takes(name, branch) for branch in schema["anyOf"]))
    wanted = schema.get("type")
    plain = wanted in ("string", "boolean", "integer")
    return frozenset((int if wanted == "integer" else _TYPES[wanted],)) if plain else frozenset()


def _same(value: Any, choice: Any) -> bool:
    return type(value) is type(choice) and bool(value == choice)


def _expected(schema: Any) -> str:
    title = schema.get("title")
    wanted = schema.get("type")
    if wanted in ("object", "array") and wanted is not None:
        return _WORDS[wanted]
    if title and "pattern" in schema:
        return str(title)
    return _WORDS.get(wanted or "", str(title or "something else"))


def _follow(name: str, schema: Any) -> Any:
    """The schema that a reference leads to."""
    while "$ref" in schema:
        name, schema = _resolve_ref(name, schema["$ref"])
    return schema


def _type_of(name: str, schema: Any) -> str | None:
    wanted: str | None = _follow(name, schema).get("type")
    return wanted


def _resolve_ref(name: str, ref: str) -> tuple[str, Any]:
    file, _, pointer = ref.partition("#/")
    if file:
        name = file.removesuffix(".schema.json")
    schema = load_schema(name)
    for step in pointer.split("/"):
        schema = schema[step]
    return name, schema


_searches: dict[str, Any] = {}


def _matches(pattern: str, value: str) -> bool:
    search = _searches.get(pattern)
    if search is None:
        plain = PLAIN.get(pattern)
        if plain is not None and plain(value):
            return True
        import re

        search = _searches[pattern] = re.compile(pattern).search
    return search(value) is not None


# Patterns of the schema that nearly every machine meets → what is sure of nearly every value that meets them: regular
# expressions take longer to import and to compile than all the rest of a check.
PLAIN: dict[str, Callable[[str], bool]] = {
    r"^[0-9]{1,24} ?([kKmMgGtT](iB)?)?$(?!\n)": lambda text: (
        text.isascii() and text.removesuffix("iB")[:-1].isdecimal() and text.endswith(("MiB", "GiB")) and len(text) < 24
    ),
    r"^[A-Za-z0-9][A-Za-z0-9_.~-]*$(?!\n)": lambda text: (
        text.isascii() and text[:1].isalnum() and text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    ),
}
