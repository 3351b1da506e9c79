"""Where vmrun's own data is: machine types and schemas, in a wheel and in a source tree alike.

A wheel holds them under vmrun/_data; an editable install reads them from the root of the source tree. The
package's own path tells which, so importlib.resources (slow to import) is asked only for a package that has
no directory.
"""

from __future__ import annotations

import os

_found: dict[str, str] = {}


def data_dir(name: str) -> str:
    """The absolute directory of 'machines' or 'schema'.

    Raises FileNotFoundError when the installation lacks it.
    """
    if name not in _found:
        _found[name] = _find(name)
    return _found[name]


def _find(name: str) -> str:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for directory in (os.path.join(package, "_data", name), os.path.join(os.path.dirname(package), name)):
        if os.path.isdir(directory):
            return directory
    import importlib.resources  # a zipped or otherwise unusual installation

    entry = importlib.resources.files("vmrun") / "_data" / name
    if entry.is_dir():
        return str(entry)
    raise FileNotFoundError(f"vmrun's own data directory '{name}' is missing; reinstall vmrun")
