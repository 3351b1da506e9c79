"""Block nodes with names: what -blockdev and blockdev-add open, for as long as somebody wants them.

A name holds its node, and so does everybody who is built on it. Errors are BuildError in QEMU's words.
"""

from __future__ import annotations

from vmrun.errors import BuildError, about

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.backends.block.node import Node

# members of a node's options that name other nodes
CHILDREN = ("file", "backing", "image", "data-file")
SERVED = ("nbd", "http", "https")  # drivers whose images are on a server


class Nodes:
    """`known`: name → options; `open`: name → node; `drives`: the machine's, whose nodes may have names, too."""

    def __init__(self, objects: dict[str, Any] | None = None, drives: dict[str, Any] | None = None) -> None:
        self.drives = drives if drives is not None else {}
        self.known: dict[str, dict[str, Any]] = {}
        self.open: dict[str, Node] = {}
        self.objects = objects if objects is not None else {}
        self.roots: dict[str, Node] = {}  # of drives that are not made yet

    def add(self, options: dict[str, Any], opened: Node | None = None) -> Node:
        """Open a node, and those within it that have names too. `opened`: what `far` gave."""
        options = _nested(options)
        name, driver = options.get("node-name"), options.get("driver")
        if not driver:
            raise BuildError("Parameter 'driver' is missing")
        if name is None:
            raise BuildError("'node-name' must be specified for the root node")
        if options.get("force-share") in (True, "on") and options.get("read-only") not in (True, "on"):
            raise BuildError("force-share=on can only be used with read-only images")
        if opened is not None:
            try:
                self._check(options, set())  # the names may be taken by now
            except BuildError:
                opened.close()
                raise
        node = opened if opened is not None else self._opened(options)
        self._keep(options, node)
        return node

    def far(self, options: dict[str, Any]) -> Callable[[], Node] | None:
        """What opens a node whose images all are new ones, one of them on a server, which may take its time: it is for
        another thread. None for others. BuildError.
        """
        levels = [_nested(options)]
        for level in levels:
            levels += [child for key in CHILDREN if isinstance(child := level.get(key), dict)]
        named = any(isinstance(level.get(key), str) for level in levels for key in CHILDREN)
        if named or not any(level.get("driver") in SERVED for level in levels):
            return None
        self._check(levels[0], set())
        return lambda: self._opened(options, checked=True)

    def begin(self, options: dict[str, Any]) -> None:
        """One of what the machine starts with: of -blockdev, or, with `drive`, of a -drive."""
        if "drive" in options:
            with about(f"drives.{options['drive']}"):
                self.add_root(options["drive"], {key: value for key, value in options.items() if key != "drive"})
        else:
            self.add(options)

    def add_root(self, drive: str, options: dict[str, Any]) -> None:
        """What -drive says of a drive's nodes: it is open from now on, and the drive takes it over. What has a name in
        it is not the monitor's.
        """
        from vmrun.backends.block.errors import ImageError
        from vmrun.backends.block.filenames import named

        options = _nested(options)
        try:
            whole = named(str(options.pop("filename")), options) if "filename" in options else options
        except ImageError as error:
            raise BuildError(error.text) from None
        self.roots[drive] = node = self._opened(whole)
        _name(whole, node)

    def root(self, drive: str) -> Node | None:
        """The node of such a drive, once."""
        return self.roots.pop(drive, None)

    def _opened(self, options: dict[str, Any], checked: bool = False) -> Node:
        from vmrun.backends.block.errors import ImageError
        from vmrun.backends.block.images import Access, open_options
        from vmrun.backends.block.nodeoptions import unnamed

        options = _nested(options)
        if not checked:
            self._check(options, set())
        readonly = options.get("read-only") in (True, "on")
        access = Access(readonly=readonly, known=self.held).with_objects(self.objects)
        try:
            return open_options(_plain(options), access)
        except ImageError as error:
            raise BuildError(unnamed(error.text)) from None
        except (ValueError, KeyError, TypeError) as error:
            raise BuildError(str(error)) from None
        except OSError as error:
            raise BuildError(error.strerror or str(error)) from None

    def named(self, name: str) -> Node | None:
        """The node of that name, whoever named it: what a -drive says of its nodes names some, too."""
        shown = [drive.node for drive in self.drives.values() if drive.node is not None]
        waiting: list[Node] = [*self.open.values(), *self.roots.values(), *shown]
        while waiting and name:  # most nodes have no name
            node = waiting.pop()
            if node.name == name:
                return node
            waiting += [child for _, child in node.children()]
        return None

    def taken(self, name: str) -> bool:
        return name in self.known or self.named(name) is not None

    def _check(self, options: dict[str, Any], seen: set[str], where: str = "") -> None:
        name = options.get("node-name")
        if name is not None:
            if name in seen or self.taken(name):
                raise BuildError(f"{where}Duplicate nodes with node-name='{name}'")
            if not name or not name[0].isalpha() or set(name) - LETTERS:
                raise BuildError(f"Invalid node-name: '{name}'")
            if len(name) > 31:
                raise BuildError("Node name too long")
            seen.add(name)
        for key in CHILDREN:
            child = options.get(key)
            if isinstance(child, str) and child and not self.taken(child):
                raise BuildError(f"Cannot find device='{child}' nor node-name='{child}'")
            if isinstance(child, dict):
                self._check(child, seen, "Could not open backing file: " if key == "backing" else where)

    def _keep(self, options: dict[str, Any], node: Node) -> None:
        """The names of a node that was opened and of those that stand within its options."""
        name = options.get("node-name")
        if name:
            node.name = name
            self.known[name], self.open[name] = options, node
        for role, child in node.children():
            inner = options.get("image" if role == "file" and "image" in options else role)
            if isinstance(inner, dict) and inner.get("node-name"):
                self._keep(inner, child.hold())

    def held(self, name: str) -> Node | None:
        """The node of that name, for somebody who closes it afterwards."""
        node = self.open.get(name) or self.named(name)
        return None if node is None else node.hold()

    def delete(self, name: str) -> None:
        if name not in self.known:
            raise BuildError(f"Failed to find node with node-name='{name}'")
        for other in self.open.values():
            role = next((role for role, child in other.children() if child is self.open[name]), None)
            if role == "backing":
                raise BuildError(f"Node '{name}' is busy: node is used as backing hd of '{other.name}'")
            if role is not None:
                raise BuildError(f"Block device {name} is in use")
        del self.known[name]
        self.open.pop(name).close()

    def close(self) -> None:
        for node in [*self.open.values(), *self.roots.values()]:
            node.close()
        self.roots.clear()
        self.known.clear()
        self.open.clear()


def _nested(options: dict[str, Any]) -> dict[str, Any]:
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.filenames import nested

    try:
        return nested(options)
    except ImageError as error:
        raise BuildError(error.text) from None


def _name(options: dict[str, Any], node: Node) -> None:
    if options.get("node-name"):
        node.name = str(options["node-name"])
    for role, child in node.children():
        inner = options.get("image" if role == "file" and "image" in options else role)
        if isinstance(inner, dict):
            _name(inner, child)


# of a name
LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Without what is only the machine's."""
    return {
        key: _plain(value) if isinstance(value, dict) else value
        for key, value in options.items()
        if key != "node-name"
    }
