"""Machine types: found by name, followed through `extends`, flattened into one TypeSpec with every value's
place kept.

A type states only how it differs from the one it extends. Mappings merge (the type's own value wins, ~
takes an inherited one away), devices merge by id, wires are added, any other list replaces. Vmrun's own types
have their names for ever: a user's file beside the machine cannot take one.
"""

from __future__ import annotations

import os

from vmrun.config.data import data_dir
from vmrun.config.load import SUFFIXES, load_bytes, read_bytes
from vmrun.config.near import nearest
from vmrun.config.node import Node, plain
from vmrun.errors import ConfigError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOT_INHERITED = ("schema", "name", "extends", "remove", "alias")
_ALIAS = b"\nalias: "

# Layers of vmrun's own types by path: a list of all types follows every chain.
_layers: dict[str, Node] = {}
_whole: dict[tuple[str, ...], Node] = {}  # paths of the layers → what they make together


class TypeSpec:
    """A machine type with all that it extends put into it.

    root is the flattened mapping; chain the names from the type itself to the part at the bottom; files
    what was read and missing what was looked for in vain, for the cache.
    """

    __slots__ = ("chain", "files", "missing", "name", "root")

    def __init__(
        self, name: str, root: Node, chain: tuple[str, ...], files: list[str], missing: list[str]
    ) -> None:
        self.name = name
        self.root = root
        self.chain = chain
        self.files = files
        self.missing = missing

    def section(self, name: str) -> dict[str, Node]:
        """The mapping of that name; empty when the type has none."""
        node = self.root.value.get(name)
        return node.value if node is not None and type(node.value) is dict else {}

    def items(self, name: str) -> list[Node]:
        """The list of that name; empty when the type has none."""
        node = self.root.value.get(name)
        return node.value if node is not None and type(node.value) is list else []

    def text(self, name: str, default: str = "") -> str:
        node = self.root.value.get(name)
        return str(node.value) if node is not None else default

    def default(self, name: str) -> Any:
        """A default of the type without its place; None when it names none."""
        node = self.section("defaults").get(name)
        return None if node is None else plain(node)

    def displays(self) -> dict[str, str]:
        """The driver for each word of `display:`; virtio's is the same for all types, which need not know it."""
        return {**(self.default("displays") or {}), "virtio": "virtio-vga"}

    def without(self, removed: Node) -> TypeSpec:
        """The type without the devices whose ids are listed, and without their wires."""
        root = _merge_type(self.root, removed.at({"remove": removed}))
        return TypeSpec(self.name, root, self.chain, self.files, self.missing)

    def to_dict(self) -> dict[str, Any]:
        """The flattened type as bare values: what its digest covers and what `types --diff` compares."""
        value = plain(self.root)
        return {"name": self.name, **{key: value[key] for key in sorted(value) if key not in _NOT_INHERITED}}


def type_names() -> list[str]:
    """Names of vmrun's own machine types, newest last within a family."""
    names = [name[:-5] for name in os.listdir(data_dir("machines")) if name.endswith(".yaml")]
    return sorted(names, key=_version_key)


def newest_type(alias: str = "pc") -> str:
    """The type that `pc`, `rhel6` and no -machine at all mean: our newest of that kind."""
    return [name for name in type_names() if name.startswith({"pc": "pc-i440fx-", "rhel6": "rhel6."}[alias])][-1]


def aliases() -> dict[str, str]:
    """Alias → the type of vmrun's own that it stands for."""
    found = {}
    for name in type_names():
        with open(os.path.join(data_dir("machines"), f"{name}.yaml"), "rb") as file:
            _, mark, rest = file.read(2048).partition(_ALIAS)
        if mark:
            found[rest.split(b"\n")[0].split()[0].decode()] = name
    return found


def load_type(name: str, directory: str = "", asked: Node | None = None) -> TypeSpec:
    """The flattened type of that name or alias; directory is where a user's own types may be, asked where the
    name stands.

    Raises ConfigError: no such type, a circle of extends, or the problems of a user's type file.
    """
    layers: list[tuple[str, Node]] = []
    files: list[str] = []
    missing: list[str] = []
    problems: list[Problem] = []
    seen: dict[str, Node | None] = {}
    current: str | None = name
    all_own = True
    while current is not None:
        if current in seen:
            raise _circle([*seen, current], asked)
        seen[current] = asked
        path, shown, own = _find(current, directory, asked, missing, bool(layers))
        all_own = all_own and own
        if own:
            node = _layers.get(path) or _layers.setdefault(path, load_bytes(read_bytes(path, shown), shown))
            current = os.path.basename(path)[:-5]
        else:
            node = _user_file(path, shown, asked, problems)
            _check_user_type(node, current, problems)
        files.append(path)
        layers.append((current, node))
        asked = node.get("extends")
        current = str(asked.value) if asked is not None else None
    if problems:
        raise ConfigError(problems=problems)
    whole = tuple(files) if all_own else ()
    root = _whole.get(whole) if whole else None
    if root is None:
        root = _merge_type(layers[-1][1].at({}), layers[-1][1])
        for _, layer in reversed(layers[:-1]):
            root = _merge_type(root, layer)
        if whole:
            _whole[whole] = root
    return TypeSpec(layers[0][0], root, tuple(layer for layer, _ in layers), files, missing)


def frozen_features(name: str, model: str) -> dict[str, Any]:
    """What one of vmrun's own types freezes of a CPU model: feature → value. Nothing for a type it does not know."""
    if name not in type_names():
        return {}
    table = load_type(name).section("cpu-compat")
    return {key: value for of in ("*", model) if of in table for key, value in plain(table[of]).items()}


def _user_file(path: str, shown: str, asked: Node | None, problems: list[Problem]) -> Node:
    """A type file of the user's; a file that cannot be read is told where the machine or type names it."""
    try:
        data = read_bytes(path, shown)
    except ConfigError as error:
        for problem in error.problems:
            if asked is not None and (problem.place is None or not problem.place.line):
                problem.place = asked.place
        raise
    return load_bytes(data, shown, problems)


def _find(
    name: str, directory: str, asked: Node | None, missing: list[str], extending: bool
) -> tuple[str, str, bool]:
    """(path, name to show, whether it is vmrun's own) of a type's file."""
    machines = data_dir("machines")
    if os.sep not in name and name not in (".", ".."):
        own = os.path.join(machines, f"{name}.yaml")
        if os.path.exists(own):
            return own, f"machines/{name}.yaml", True
        meant = "" if "." in name else aliases().get(name, "")
        if meant:
            return os.path.join(machines, f"{meant}.yaml"), f"machines/{meant}.yaml", True
        part = os.path.join(machines, "_parts", f"{name}.yaml")
        if extending and os.path.exists(part):
            return part, f"machines/_parts/{name}.yaml", True
        for suffix in SUFFIXES:
            path = os.path.join(directory, name + suffix)
            if os.path.exists(path):
                return path, path, False
            missing.append(path)
    where = asked.place if asked is not None else None
    raise ConfigError(
        problems=[
            Problem(
                "VR0301",
                f"there is no machine type '{name}'",
                where,
                path="extends" if extending else "machine",
                nearest=nearest(name, [*aliases(), *type_names()]),
                remedy="another board of QEMU's; vmrun has the i440FX ones: `machine: pc`, and what `vmrun types` lists"
                if another_board(name)
                else f"`vmrun types` lists them; a type of your own is a file {name}.yaml beside this one",
            )
        ]
    )


def another_board(name: str) -> bool:
    """Whether QEMU means a machine by it that is no i440FX PC."""
    return "q35" in name or name in ("microvm", "isapc", "xenfv", "xenpv", "x-remote")


def _circle(names: list[str], asked: Node | None) -> ConfigError:
    return ConfigError(
        f"the type extends itself: {' → '.join(names)}",
        code="VR0302",
        place=asked.place if asked is not None else None,
        path="extends",
        remedy="a type extends one of vmrun's own types, directly or through others",
    )


def _check_user_type(node: Node, name: str, problems: list[Problem]) -> None:
    from vmrun.config.check import check_schema

    check_schema(without_nulls(node), "machine-type", problems)
    given = node.get("name")
    if given is not None and given.value != name:
        problems.append(
            Problem(
                "VR0303",
                f"the type in this file is called '{given.value}', but it was looked for as '{name}'",
                given.place,
                path="name",
                remedy="give the file and the type the same name",
            )
        )
    if node.get("extends") is None:
        problems.append(
            Problem(
                "VR0303",
                "a type of your own must extend one of vmrun's",
                node.place,
                remedy="add `extends: rhel6.3.0` or another type",
            )
        )


def _merge_type(base: Node, layer: Node) -> Node:
    merged = {key: value for key, value in base.value.items() if key not in _NOT_INHERITED}
    removed = layer.get("remove")
    if removed is not None:
        gone = {str(node.value) for node in removed.value}
        for key, by in (("devices", "id"), ("gaps", "driver")):
            if key in merged:
                kept = [node for node in merged[key].value if _text(node, by) not in gone]
                merged[key] = merged[key].at(kept)
        if "wires" in merged:
            kept = [node for node in merged["wires"].value if not _wire_ends(node) & gone]
            merged["wires"] = merged["wires"].at(kept)
    for key, value in layer.value.items():
        if key in _NOT_INHERITED:
            continue
        old = merged.get(key)
        if value.value is None:
            merged.pop(key, None)
        elif old is not None and key == "devices":
            merged[key] = value.at(_merge_by_id(old.value, value.value))
        elif old is not None and key == "wires":
            merged[key] = value.at(old.value + value.value)
        else:
            merged[key] = merge(old, value)
    for key in _NOT_INHERITED:
        if key in layer.value:
            merged[key] = layer.value[key]
    return layer.at(merged)


def merge(old: Node | None, new: Node) -> Node:
    """new over old: mappings merge at every depth, ~ takes a value away, anything else is replaced."""
    if type(new.value) is not dict:
        return new
    result = dict(old.value) if old is not None and type(old.value) is dict else {}
    for key, value in new.value.items():
        if value.value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return new.at(result)


def without_nulls(layer: Node) -> Node:
    """What a type's file says, without what it takes away: the form that the schema knows."""

    def strip(node: Node, kept: tuple[str, ...] = ()) -> Node:
        if type(node.value) is not dict:
            return node
        there = {key: child for key, child in node.value.items() if child.value is not None or key in kept}
        return node.at({key: strip(child) for key, child in there.items()})

    return strip(layer, _NOT_INHERITED)


def _merge_by_id(old: list[Node], new: list[Node]) -> list[Node]:
    result = list(old)
    places = {_text(node, "id"): index for index, node in enumerate(result)}
    for node in new:
        index = places.get(_text(node, "id"))
        if index is None:
            result.append(node)
        else:
            result[index] = merge(result[index], node)
    return result


def _text(node: Node, key: str) -> str:
    child = node.get(key)
    return str(child.value) if child is not None else ""


def _wire_ends(node: Node) -> set[str]:
    return {_text(node, end).split(".")[0].split("[")[0] for end in ("from", "to")}


def _version_key(name: str) -> tuple[str, list[int]]:
    stem = name.rstrip("0123456789.")
    return stem, [int(part) for part in name[len(stem) :].split(".") if part]
