"""XML as a tree that knows what was read of it: what nobody asked for is named with its line.

The parser is expat alone: a document type is refused, so there are no entities of anyone's own to expand.
"""

from __future__ import annotations

from xml.parsers import expat

from vmrun.errors import ConfigError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_MOST, _DEPTH = 1 << 20, 64


class Item:
    """An element: tag without its namespace, space that namespace, line in the file."""

    __slots__ = ("attributes", "children", "line", "read", "space", "tag", "used", "words")

    def __init__(self, name: str, attributes: dict[str, str], line: int) -> None:
        self.space, _, self.tag = name.rpartition("}")
        self.attributes, self.line = attributes, line
        self.children: list[Item] = []
        self.words = ""
        self.read: set[str] = set()
        self.used = False

    def get(self, name: str, default: str = "") -> str:
        self.used = True
        self.read.add(name)
        return self.attributes.get(name, default)

    def ignore(self, *names: str) -> None:
        """Attributes that only say what is so anyhow, or what only a manager wants to know."""
        self.used = True
        self.read.update(names)

    @property
    def text(self) -> str:
        self.used = True
        return self.words.strip()

    def peek(self, tag: str) -> Item | None:
        """The first child of that tag; it does not count as read."""
        return next((child for child in self.children if child.tag == tag), None)

    def find(self, *path: str) -> Item | None:
        """The first child of that tag, of that one the next…"""
        self.used = True
        found = self.peek(path[0])
        if found is None:
            return None
        found.used = True
        return found.find(*path[1:]) if len(path) > 1 else found

    def at(self, line: int) -> Item:
        """The innermost element that begins there, or nearest before."""
        below = [child for child in self.children if child.line <= line]
        return below[-1].at(line) if below else self

    def all(self, tag: str) -> list[Item]:
        self.used = True
        found = [child for child in self.children if child.tag == tag]
        for child in found:
            child.used = True
        return found

    def attr(self, *path: str) -> str:
        """An attribute of a child by path, '' when there is none."""
        found = self.find(*path[:-1])
        return found.get(path[-1]) if found is not None else ""

    def skip(self) -> None:
        """All of it is of no concern."""
        self.ignore(*self.attributes)
        for child in self.children:
            child.skip()

    def unread(self) -> Iterator[tuple[int, str]]:
        """(line, what) of all that was not asked for."""
        if not self.used:
            yield self.line, f"<{self.tag}>"
            return
        for name, value in self.attributes.items():
            if name not in self.read:
                yield self.line, f"{name.rpartition('}')[2]}='{value}' of <{self.tag}>"
        for child in self.children:
            yield from child.unread()


def wrong(message: str, file: str, line: int) -> ConfigError:
    return ConfigError(problems=[Problem("VR0122", message, Place(file, line, 1 if line else 0))])


def parse_xml(data: bytes, file: str) -> Item:
    """The tree of an XML text of at most 1 MiB and 64 levels. ConfigError for anything else, and for any DTD."""
    root: list[Item] = []
    open_: list[Item] = []
    parser = expat.ParserCreate(namespace_separator="}")

    def refuse(*_: Any) -> None:
        raise wrong("a document type is refused", file, parser.CurrentLineNumber)

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_) >= _DEPTH:
            raise wrong(f"more than {_DEPTH} levels of nesting", file, parser.CurrentLineNumber)
        item = Item(name, attributes, parser.CurrentLineNumber)
        (open_[-1].children if open_ else root).append(item)
        open_.append(item)

    def end(name: str) -> None:
        open_.pop()

    def text(data: str) -> None:
        open_[-1].words += data

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    if len(data) > _MOST:
        raise wrong("larger than 1 MiB", file, 0)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise wrong(f"not well-formed XML: {expat.ErrorString(error.code)}", file, error.lineno) from None
    except (LookupError, ValueError):
        raise wrong("of an unknown encoding", file, 0) from None
    return root[0]
