"""What the parts that read a libvirt domain's devices have of each other."""

from __future__ import annotations

from vmrun.config.importers.xmltree import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.config.importers.libvirt import _Domain

    Pairs = list[tuple[str, Any]]


class Base:
    """`add(line, *words)` adds options; `next(kind)` counts; `device` adds one with all that its element says of it."""

    if TYPE_CHECKING:
        domain: _Domain
        add: Callable[..., None]

        def next(self, kind: str) -> int: ...

        def device(self, item: Item, driver: str, pairs: Pairs) -> None: ...


def element(tag: str, line: int, **attributes: str) -> Item:
    """An element that libvirt adds."""
    item = Item(tag, attributes, line)
    item.used = True
    return item
