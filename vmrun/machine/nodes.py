"""Block nodes with names: what -blockdev and blockdev-add open, for as long as somebody wants them.

A name holds its node, and so does everybody who is built on it. Errors are BuildError in QEMU's words.
"""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.node import Node

# members of a node's options that name other nodes
CHILDREN = ("file", "backing", "image", "data-file")


class Nodes:
    """`known`: name → options; `open`: name → node."""

    def __init__(self, objects: dict[str, Any] | None = None) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.open: dict[str, Node] = {}
        self.objects = objects if objects is not None else {}

    def add(self, options: dict[str, Any]) -> Node:
        """Open a node, and those within it that have names too."""
        name, driver = options.get("node-name"), options.get("driver")
        if not driver:
            raise BuildError("Parameter 'driver' is missing")
        if name is None:
            raise BuildError("'node-name' must be specified for the root node")
        node = self._opened(options)
        self._keep(options, node)
        return node

    def _opened(self, options: dict[str, Any]) -> Node:
        from vmrun.backends.block.errors import ImageError
        from vmrun.backends.block.images import Access, nested, open_options
        from vmrun.backends.block.nodeoptions import unnamed

        options = nested(options)
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

    def _check(self, options: dict[str, Any], seen: set[str]) -> None:
        name = options.get("node-name")
        if name is not None:
            if name in self.known or name in seen:
                raise BuildError(f"Duplicate nodes with node-name='{name}'")
            if not name or not name[0].isalpha() or set(name) - LETTERS:
                raise BuildError(f"Invalid node-name: '{name}'")
            if len(name) > 31:
                raise BuildError("Node name too long")
            seen.add(name)
        for key in CHILDREN:
            child = options.get(key)
            if isinstance(child, str) and child and child not in self.known:
                raise BuildError(f"Cannot find device='{child}' nor node-name='{child}'")
            if isinstance(child, dict):
                self._check(child, seen)

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
        node = self.open.get(name)
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
        for node in self.open.values():
            node.close()
        self.known.clear()
        self.open.clear()


# of a name
LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Without what is only the machine's."""
    return {
        key: _plain(value) if isinstance(value, dict) else value
        for key, value in options.items()
        if key != "node-name"
    }
