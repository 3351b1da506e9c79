"""The keyboard layouts by name, from schema/keymaps.json (tools/keymaps.py makes it)."""

from __future__ import annotations

import json
import os

from vmrun.config.data import data_dir

DEFAULT = "en-us"
KEYSYMS = "keysyms"
_table: dict[str, dict[str, str]] = {}


def names() -> list[str]:
    """All that `keys` knows."""
    return sorted(name for name in _read() if name != KEYSYMS)


def keys(name: str) -> dict[str, str]:
    """Key → its characters alone, with Shift, with AltGr, with both. KeyError for an unknown layout."""
    if name == KEYSYMS:
        raise KeyError(name)
    return _read()[name]


def keysyms() -> dict[str, str]:
    """Numbers in hex of X11's keysyms that are neither Latin-1 nor Unicode, and their characters."""
    return _read()[KEYSYMS]


def _read() -> dict[str, dict[str, str]]:
    if not _table:
        with open(os.path.join(data_dir("schema"), "keymaps.json"), encoding="utf-8") as file:
            _table.update(json.load(file))
    return _table
