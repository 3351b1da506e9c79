"""The code of the modules that a command imports, in one file of the user's cache or the installation's.

A start needs a hundred small modules. Python looks each of them up in half a dozen directories, then opens and reads
its byte code: that takes longer than running them all. What was imported once is found here by name, with the size and
time of its source; a module whose source has changed is looked up anew, and all of them when anything is wrong with the
file. The byte code is what Python itself has kept; where it keeps none (PYTHONDONTWRITEBYTECODE, an installation that
the user may not write to) the source is compiled once more, for here.

Compiled modules are linked a second time, many in one shared object (setup.py's TOGETHER): the loader of shared objects
takes as long for each as the module's own code does. A module is taken from there while its own file is the one that
was linked with the others.

The scripts in bin/ import this alone, so that all the rest comes from there.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import (  # what importlib is made of; `import importlib.machinery` takes a millisecond
    ExtensionFileLoader,
    PathFinder,
    SourceFileLoader,
)

import vmrun.cli
from vmrun.config.kept import cache_dir, digest, file_digest, is_trusted, ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, NoReturn

    # path, its time in ns, its size, a package's directory or the shared object that has a compiled module too, where
    # the byte code is in the file, how much that is (0: a compiled module)
    Entry = tuple[str, int, int, str, int, int]

MAX_BYTES = 16 << 20
_HEAD = 16  # bytes that say how long the index behind them is; the byte code follows
_ABOVE = 200  # its descriptor is none that a user counts on, or gives us
_OTHERS_WRITE = 0o022
_Module = type(sys)
_TAG = sys.implementation.cache_tag

_place = ""  # where this process's bundle is
_state: tuple[Any, ...] = ()  # and what it is of
_table: dict[str, Entry] = {}
_file = -1  # descriptor of the bundle
_start = 0  # where its byte code begins
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_EARLY = frozenset(sys.modules)  # what is imported by now never comes from it


class _Loader(SourceFileLoader):
    """A module's source file, with its code at hand."""

    code: CodeType

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """With what importlib would look for first, in vain, and that is an error made and dropped each time."""
        module = _Module(spec.name)
        vars(module).update(__file__=spec.origin, __cached__=spec.cached)
        return module

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class _Finder:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        entry = _table.get(name)
        if entry is None:
            return None
        try:
            file, when, size, place, _, length = entry
            info = os.stat(file)
            if (info.st_mtime_ns, info.st_size) != (when, size):
                return None
            if not length:
                file = place or file
                return _spec(name, ExtensionFileLoader(name, file), file, "")
            loader = _Loader(name, file)
            loader.code = marshal.loads(_code(entry))
        except (OSError, ValueError, EOFError, TypeError):
            return None
        return _spec(name, loader, file, place)


def _spec(name: str, loader: Any, file: str, inside: str) -> ModuleSpec:
    """What spec_from_file_location makes, which takes longer than the stat: it asks again what is known here."""
    spec = ModuleSpec(name, loader, origin=file, is_package=bool(inside))
    spec.has_location = True
    if inside:
        spec.submodule_search_locations = [inside]
    if file.endswith(".py") and not sys.pycache_prefix:
        directory, _, base = file.rpartition("/")
        spec.cached = f"{directory}/__pycache__/{base[:-3]}.{_TAG}.pyc"
    return spec


class _Site:
    """After `python -S` (tools/prepare.py's scripts): site-packages, a quarter of the interpreter's start, are looked
    through when a module is wanted that neither Python nor vmrun has.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if path is not None or name == "sitecustomize":
            return None
        sys.meta_path.remove(_Site)
        import site

        site.main()
        return PathFinder.find_spec(name)


def run(module: str) -> NoReturn:
    """The command whose module has `command() -> exit code`. The process ends with it, without the interpreter's
    tidying up, which takes longer than most commands.
    """
    vmrun.cli.owns_process = True
    if module != "vmrun.cli.main":  # which tells of them
        _have_streams()
    install()
    code = __import__(module, fromlist=("command",)).command()
    keep()
    os._exit(code)


def _have_streams() -> None:
    """Who closed one of the standard streams (`>&-`) wants nothing of it: no message about that, nor that the next file
    that is opened gets its number, and what others print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


def install() -> None:
    """Modules are taken from the bundle from now on, if there is one: the user's, or the installation's."""
    global _place, _state
    _state = _made_of()
    _place = _path()
    if _place and not _take(_place):
        _take(ready(_place))
    if sys.flags.no_site:
        sys.meta_path.append(_Site)


def _take(path: str) -> bool:
    global _file, _start
    try:
        low = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            info = os.fstat(low)
            if not is_trusted(info) or info.st_mode & _OTHERS_WRITE or info.st_size > MAX_BYTES:
                return False  # code is not taken from others
            length = int(os.pread(low, _HEAD, 0))
            state, table = marshal.loads(os.pread(low, length, _HEAD))
            if state != _state or not isinstance(table, dict):
                return False
            _file = os.dup2(low, _free(), inheritable=False)
        finally:
            os.close(low)
    except (OSError, ValueError, EOFError, TypeError):
        return False
    _start = _HEAD + length
    _table.update(table)
    sys.meta_path.insert(0, _Finder)
    return True


def _free() -> int:
    """A descriptor that nobody has: fcntl's F_DUPFD without the import."""
    number = _ABOVE
    try:
        while os.fstat(number):
            number += 1
    except OSError:
        return number


def keep() -> None:
    """Bundle what this process has imported, if some of it is not in the bundle."""
    modules = [(name, sys.modules[name]) for name in [*sys.modules] if name not in _EARLY]
    found = {name: own for name, module in modules if (own := _own(name, module)) is not None}
    if not found or not _place:
        return
    together = _together()
    for name in found.keys() & together.keys():
        file, when, size, _, code = found[name]
        place, linked = together[name]
        if file_digest(file) == linked:
            found[name] = (file, when, size, place, code)
    for name, entry in _table.items():
        if name not in found and _is_current(entry):
            found[name] = (*entry[:4], _code(entry))
    _write(_place, found)


def _write(path: str, found: dict[str, tuple[str, int, int, str, bytes]]) -> None:
    """The modules as the new bundle, in one step. One that would be too large is not written."""
    table: dict[str, Entry] = {}
    at = 0
    for name, (file, when, size, place, code) in found.items():
        table[name] = (file, when, size, place, at, len(code))
        at += len(code)
    index = marshal.dumps((_state, table))
    body = b"".join((f"{len(index):<{_HEAD}}".encode(), index, *(entry[4] for entry in found.values())))
    if len(body) > MAX_BYTES:
        return
    part = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as out:
                out.write(body)
            os.replace(part, path)
        except OSError:
            os.unlink(part)
    except (OSError, ValueError):
        return


def _own(name: str, module: Any) -> tuple[str, int, int, str, bytes] | None:
    """What Python found for a module; None for one that is in the bundle or in the interpreter."""
    loader: Any = getattr(getattr(module, "__spec__", None), "loader", None)
    kind = type(loader)
    try:
        if kind is ExtensionFileLoader and not (name in _table and _is_current(_table[name])):
            info = os.stat(loader.path)
            return loader.path, info.st_mtime_ns, info.st_size, "", b""
        if kind is not SourceFileLoader:
            return None
        info = os.stat(loader.path)
        code = marshal.dumps(loader.get_code(name))  # what Python has kept, or the source compiled once more
    except (OSError, ImportError, SyntaxError, ValueError):
        return None
    place = os.path.dirname(loader.path) if module.__spec__.submodule_search_locations is not None else ""
    return loader.path, info.st_mtime_ns, info.st_size, place, code


def _together() -> dict[str, tuple[str, str]]:
    """Module → (the shared object that has it with others, the digest of the module's own), as setup.py wrote it."""
    found = {}
    for path in filter(os.path.exists, _objects()):
        try:
            with open(f"{path[:-3]}.txt", encoding="utf-8") as file:
                for line in file:
                    name, linked = line.split()
                    found[name] = (path, linked)
        except (OSError, ValueError):
            continue
    return found


def _objects() -> list[str]:
    return [os.path.join(_ROOT, place, "together.so") for place in ("vmrun", "accel/soft")]


def _code(entry: Entry) -> bytes:
    return os.pread(_file, entry[5], _start + entry[4]) if entry[5] else b""


def _is_current(entry: Entry) -> bool:
    try:
        info = os.stat(entry[0])
    except OSError:
        return False
    return (info.st_mtime_ns, info.st_size) == entry[1:3]


def _made_of() -> tuple[Any, ...]:
    """What decides which file a name stands for, and what its code means: a copy of an installation, times and all, is
    another one.
    """
    stamps = []
    for path in _objects():
        try:
            info = os.stat(path)
            stamps.append((info.st_mtime_ns, info.st_size))
        except OSError:
            pass
    return sys.version, sys.flags.optimize, [_ROOT, *sys.path[1:]], stamps


def _path() -> str:
    directory = cache_dir("code")
    return os.path.join(directory, digest(repr(_state[:3]).encode())[:40]) if directory else ""
