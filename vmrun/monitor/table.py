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
enums: dict[str, tuple[str, ...]] = {}
commands: dict[str, Command] = {}
events: dict[str, Members] = {}
event_docs: dict[str, str] = {}


class Command:
    """One row."""

    __slots__ = ("area", "args", "doc", "gen", "handler", "name", "optional", "required", "returns")

    def __init__(self, name: str, args: Members, returns: str, handler: Callable[..., Any], gen: bool) -> None:
        self.name, self.args, self.returns, self.handler, self.gen = name, args, returns, handler, gen
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
    name: str, args: Members | None = None, returns: str = "", *, gen: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a handler into the table; it is called as handler(monitor, **arguments), dashes as underscores."""

    def put(handler: Callable[..., Any]) -> Callable[..., Any]:
        commands[name] = Command(name, args or {}, returns, handler, gen)
        return handler

    return put


def struct(name: str, written: Members | None = None, /, **members: str) -> None:
    """Members by name, with _ for - and a trailing _ for an optional one; or as they are written."""
    structs[name] = written or {
        (key[:-1].replace("_", "-") + "?" if key.endswith("_") else key.replace("_", "-")): kind
        for key, kind in members.items()
    }


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
            raise QmpError(f"Parameter '{path}' does not accept value '{value}'")
        return value
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


def _members(value: dict[str, Any], kind: str, path: str) -> dict[str, Any]:
    names = {name.removesuffix("?"): (name[-1] != "?", of) for name, of in structs[kind].items()}
    for name, (needed, _) in names.items():
        if needed and name not in value:
            raise QmpError(f"Parameter '{path}.{name}' is missing")
    for name in value:
        if name not in names:
            raise QmpError(f"Parameter '{path}.{name}' is unexpected")
    return {name: check(item, names[name][1], f"{path}.{name}") for name, item in value.items()}


def find(name: str) -> Command | None:
    """The row of a command. The areas come in when a command is asked for that is in none of those that are there:
    most clients begin with the few that every conversation has, and the others would hold up the greeting.
    """
    return commands.get(name) or load().get(name)


def load() -> dict[str, Command]:
    """The table, with every area in it."""
    from vmrun.monitor.commands import AREAS

    for area in AREAS:
        __import__(f"vmrun.monitor.commands.{area}")
    __import__("vmrun.monitor.events")
    return commands
