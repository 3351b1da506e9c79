"""`--set path=value`: values of a command line put into a machine's Nodes."""

from __future__ import annotations

from vmrun.config.node import Node
from vmrun.config.scalar import plain_scalar
from vmrun.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def apply_sets(root: Node, sets: list[str] | tuple[str, ...]) -> Node:
    """root with each 'path=value' of the command line put in. path: 'memory', 'cpus.count',
    'devices.ID.PROP', 'devices[0].PROP'.

    In a list of mappings a name picks the entry with that id, a number the entry at that place (from 0). A device that
    the file does not name is one of the board or of a short form. Returns a changed copy; ConfigError when a path
    leads nowhere.
    """
    for text in sets:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"'{text}' is not of the form path=value", code="VR0109", remedy="--set memory=512MiB")
        steps = [step for step in path.replace("[", ".").replace("]", "").split(".") if step]
        root = _with(root, steps, 0, flow_value(value, f"--set {path}"), text)
    return root


def _with(node: Node, steps: list[str], at: int, value: Node, text: str) -> Node:
    step = steps[at]
    here = node.value
    last = at == len(steps) - 1
    if type(here) is dict:
        # 'ide.0' and the like: names may hold dots, so the longest key that exists is taken
        for end in range(len(steps), at + 1, -1):
            joined = ".".join(steps[at:end])
            if joined in here:
                step, last, at = joined, end == len(steps), end - 1
                break
        changed = dict(here)
        old = here.get(step)
        if last:
            changed[step] = value
        else:
            empty: Any = [] if step == "devices" and at == 0 else {}
            changed[step] = _with(old if old is not None else value.at(empty), steps, at + 1, value, text)
        return node.at(changed)
    if type(here) is list:
        for index, entry in enumerate(here):
            name = entry.get("id")
            if (name is not None and name.value == step) or str(index) == step:
                items = list(here)
                items[index] = value if last else _with(entry, steps, at + 1, value, text)
                return node.at(items)
        if at == 1 and steps[0] == "devices" and not last and not step.isdecimal():
            entry = value.at({"id": value.at(step)})
            return node.at([*here, _with(entry, steps, at + 1, value, text)])
    raise ConfigError(
        f"'{text}': there is no '{step}' to set under '{'.'.join(steps[:at]) or 'the file'}'",
        code="VR0109",
        place=node.place,
    )


def flow_value(text: str, source: str) -> Node:
    """The Node of a value typed on a command line: a word, or YAML flow notation when it begins with [ or
    {.
    """
    if text.lstrip()[:1] in ("[", "{", '"', "'"):
        from vmrun.config.load_yaml import load_yaml

        return load_yaml(text, source, [])
    return Node(plain_scalar(text), source, 1, 1)
