"""The table of QMP commands: one declaration gives argument parsing, `query-qmp-schema` and the documentation.

    @command("qom-get", {"path": "str", "property": "str"}, "any")
    def qom_get(monitor, path, property):
        '''The value of a property of an object.'''

A type is str, int, number, bool, any, null, the name of a structure or an enumeration declared here, or [type] for a
list of it. A name that ends in ? is optional. `gen=False`: members that the table does not name are passed on.
"""

from __future__ import annotations

from vmrun.monitor.errors import QmpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Members = dict[str, str]

SIMPLE = {
    "str": ("string", "string"),
    "int": ("int", "integer"),
    "number": ("number", "number"),
    "bool": ("boolean", "boolean"),
    "any": ("value", "value"),
    "null": ("null", "null"),
}
_PYTHON: dict[str, Any] = {"str": str, "int": int, "number": (int, float), "bool": bool}

structs: dict[str, Members] = {}
# of a structure whose further members depend on the value of one: (that member, value → structure with them)
unions: dict[str, tuple[str, dict[str, str]]] = {}
# one of several types
alternates: dict[str, tuple[str, ...]] = {}
enums: dict[str, tuple[str, ...]] = {}
commands: dict[str, Command] = {}
whole = False  # every area is in it
events: dict[str, Members] = {}
event_docs: dict[str, str] = {}


class Command:
    """One row."""

    __slots__ = (
        "area", "args", "doc", "features", "gen", "handler", "name", "oob", "optional", "required", "returns", "shape",
    )  # fmt: skip

    def __init__(self, name: str, args: Members, returns: str, handler: Callable[..., Any], gen: bool) -> None:
        self.name, self.args, self.returns, self.handler, self.gen = name, args, returns, handler, gen
        self.shape = ""  # the structure that the schema tells of the arguments, where they are checked elsewhere
        self.features: tuple[str, ...] = ()
        self.oob = False
        self.required = {key: kind for key, kind in args.items() if not key.endswith("?")}
        self.optional = {key[:-1]: kind for key, kind in args.items() if key.endswith("?")}
        self.doc = " ".join((handler.__doc__ or "").split())
        self.area = handler.__module__.rpartition(".")[2]

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments for the handler. QmpError in QEMU's words."""
        if not given and not self.required:
            return {}
        found: dict[str, Any] = {}
        for key, kind in self.required.items():
            if key not in given:
                raise QmpError(f"Parameter '{key}' is missing")
            found[key.replace("-", "_")] = check(given[key], kind, key)
        for key, kind in self.optional.items():
            if key in given:
                found[key.replace("-", "_")] = check(given[key], kind, key)
        for key, value in given.items():
            if key not in self.required and key not in self.optional:
                if self.gen:
                    raise QmpError(f"Parameter '{key}' is unexpected")
                found[key] = value
        return found


def command(
    name: str,
    args: Members | None = None,
    returns: str = "",
    *,
    gen: bool = True,
    shape: str = "",
    features: tuple[str, ...] = (),
    oob: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a handler into the table; it is called as handler(monitor, **arguments), dashes as underscores. `oob`: it
    may overtake others, and neither waits nor takes the device lock.
    """

    def put(handler: Callable[..., Any]) -> Callable[..., Any]:
        row = commands[name] = Command(name, args or {}, returns, handler, gen)
        row.shape, row.features, row.oob = shape, features, oob
        return handler

    return put


def struct(name: str, written: Members | None = None, /, **members: str) -> None:
    """Members by name, with _ for - and a trailing _ for an optional one; or as they are written."""
    structs[name] = written or {
        (key[:-1].replace("_", "-") + "?" if key.endswith("_") else key.replace("_", "-")): kind
        for key, kind in members.items()
    }


def union(name: str, tag: str, base: Members, cases: dict[str, str]) -> None:
    """A structure whose member `tag`, of an enumeration, tells which further members there are."""
    structs[name], unions[name] = base, (tag, cases)


def wrapped(name: str, kinds: str, cases: dict[str, str]) -> None:
    """The union {type, data}: the type of `data` by the value of `type`, which is of the enumeration `kinds`."""
    enums[kinds] = tuple(cases)
    for case, kind in cases.items():
        structs[f"{name}-{case}"] = {"data": kind}
    union(name, "type", {"type": kinds}, {case: f"{name}-{case}" for case in cases})


def event(name: str, doc: str, members: Members | None = None) -> None:
    events[name] = members or {}
    event_docs[name] = doc


def check(value: Any, kind: str, path: str) -> Any:
    """The value, or QmpError that says where what was expected."""
    if kind[0] == "[":
        if not isinstance(value, list):
            raise QmpError(f"Invalid parameter type for '{path}', expected: array")
        return [check(item, kind[1:-1], f"{path}[{n}]") for n, item in enumerate(value)]
    if kind in enums:
        if not isinstance(value, str):
            raise QmpError(f"Invalid parameter type for '{path}', expected: string")
        if value not in enums[kind]:
            name = path.rpartition(".")[2]
            raise QmpError(f"Parameter '{name}' does not accept value '{value}'")
        return value
    if kind in alternates:
        return _alternate(value, kind, path)
    if kind in structs:
        if not isinstance(value, dict):
            raise QmpError(f"Invalid parameter type for '{path}', expected: object")
        return _members(value, kind, path)
    expected = _PYTHON.get(kind)
    if expected is not None and (
        not isinstance(value, expected) or isinstance(value, bool) and expected is not bool
    ):
        raise QmpError(f"Invalid parameter type for '{path}', expected: {SIMPLE[kind][1]}")
    if kind == "int" and not -(1 << 63) <= value < 1 << 64:
        raise QmpError(f"Parameter '{path}' expects int64")
    return value


def _alternate(value: Any, kind: str, path: str) -> Any:
    """By the JSON type of the value."""
    for one in alternates[kind]:
        shape = dict if one in structs else str if one in enums else list if one[0] == "[" else _PYTHON.get(one)
        if one == "null" and value is None:
            return value
        if shape is not None and isinstance(value, shape) and (not isinstance(value, bool) or one == "bool"):
            return check(value, one, path)
    raise QmpError(f"Invalid parameter type for '{path}', expected: {kind}")


def _members(value: dict[str, Any], kind: str, path: str) -> dict[str, Any]:
    written, path = structs[kind], f"{path}." if path else ""
    if kind in unions:
        tag, cases = unions[kind]
        of = written.get(tag)
        if of is not None:
            if tag not in value:
                raise QmpError(f"Parameter '{path}{tag}' is missing")
            case = cases.get(check(value[tag], of, f"{path}{tag}"))
        else:
            case = cases.get(value.get(tag, ""))
        written = {**written, **(structs[case] if case is not None else {})}
    names = {name.removesuffix("?"): (name[-1] != "?", of) for name, of in written.items()}
    for name, (needed, _) in names.items():
        if needed and name not in value:
            raise QmpError(f"Parameter '{path}{name}' is missing")
    for name in value:
        if name not in names:
            raise QmpError(f"Parameter '{path}{name}' is unexpected")
    return {name: check(item, names[name][1], f"{path}{name}") for name, item in value.items()}


def find(name: str) -> Command | None:
    """The row of a command. The areas come in when a command is asked for that is in none of those that are there:
    most clients begin with the few that every conversation has, and the others would hold up the greeting.
    """
    return commands.get(name) or (None if whole else load().get(name))


def load() -> dict[str, Command]:
    """The table, with every area in it."""
    global whole
    from vmrun.monitor.commands import AREAS

    for area in AREAS:
        __import__(f"vmrun.monitor.commands.{area}")
    __import__("vmrun.monitor.events")
    whole = True
    return commands
