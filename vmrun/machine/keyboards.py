"""Keyboard layouts, ready for use."""

from __future__ import annotations

from vmrun.config import keymaps
from vmrun.core.keymap import Layout

_layouts: dict[str, Layout] = {}


def load(name: str = "") -> Layout:
    """The layout of that name; '' for the default. KeyError for one that there is none of."""
    name = name or keymaps.DEFAULT
    if name not in _layouts:
        below = load() if name != keymaps.DEFAULT else None
        _layouts[name] = Layout(name, keymaps.keys(name), keymaps.keysyms(), below)
    return _layouts[name]
