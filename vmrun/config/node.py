"""Node: a value with the place it was written at. The whole of config works on these until the very end."""

from __future__ import annotations

from vmrun.errors import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Node:
    """A value of a file: None, bool, int, str, list of Node or dict of str to Node.

    line and col (from 1) are the value's; key_line and key_col those of the key it stands under, if any.
    """

    __slots__ = ("col", "file", "key_col", "key_line", "line", "value")

    def __init__(
        self, value: Any, file: str, line: int, col: int, key_line: int = 0, key_col: int = 0
    ) -> None:
        self.value = value
        self.file = file
        self.line = line
        self.col = col
        self.key_line = key_line or line
        self.key_col = key_col or col

    def __repr__(self) -> str:
        return f"Node({self.value!r} at {self.file}:{self.line}:{self.col})"

    @property
    def place(self) -> Place:
        return Place(self.file, self.line, self.col)

    @property
    def key_place(self) -> Place:
        return Place(self.file, self.key_line, self.key_col)

    def get(self, key: str) -> Node | None:
        """The child under key of a mapping; None when absent or when this is no mapping."""
        value = self.value
        return value.get(key) if type(value) is dict else None

    def at(self, value: Any) -> Node:
        """Another value, said to stand where this one does: for what is derived from it."""
        return Node(value, self.file, self.line, self.col, self.key_line, self.key_col)


def plain(node: Node) -> Any:
    """The bare value, without places."""
    value = node.value
    if type(value) is dict:
        return {key: plain(child) for key, child in value.items()}
    if type(value) is list:
        return [plain(child) for child in value]
    return value


def nodes(value: Any, file: str) -> Node:
    """A plain value as nodes; those of a mapping or list stand in one line, in their order."""
    column = 0

    def make(value: Any) -> Node:
        nonlocal column
        column += 1
        node = Node(value, file, 1, column)
        if isinstance(value, dict):
            node.value = {key: make(child) for key, child in value.items()}
        elif isinstance(value, list | tuple):
            node.value = [make(child) for child in value]
        return node

    return make(value)


def packed(node: Node) -> Any:
    """The node as plain data: (value, line, column, the key's), without its file."""
    value = node.value
    if type(value) is dict:
        value = {key: packed(child) for key, child in value.items()}
    elif type(value) is list:
        value = [packed(child) for child in value]
    return value, node.line, node.col, node.key_line, node.key_col


def unpacked(data: Any, file: str) -> Node:
    """What packed made of a node of that file. TypeError or ValueError for anything else."""
    value, line, col, key_line, key_col = data
    if type(value) is dict:
        value = {key: unpacked(child, file) for key, child in value.items()}
    elif type(value) is list:
        value = [unpacked(child, file) for child in value]
    return Node(value, file, line, col, key_line, key_col)


def kind(value: Any) -> str:
    """What a value is, in the words of an error message."""
    if value is None:
        return "nothing"
    if value is True or value is False:
        return "true or false"
    if isinstance(value, int):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "a mapping"
