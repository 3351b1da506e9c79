"""What `initrd:` names: an initial RAM disk, or the modules of a multiboot kernel.

    "a.bin first words,b.bin"       two modules, separated by a comma; what follows a file's name are its words

A comma within a name is written twice. A text that is itself the name of a file is that file. This is how QEMU reads
-initrd.
"""

from __future__ import annotations

import os
import stat

from vmrun.errors import BuildError

MOST_MODULES = 64


class Module:
    """A file's contents and the text that the kernel is given with it."""

    __slots__ = ("data", "path", "text")

    def __init__(self, path: str, text: str, data: bytes) -> None:
        self.path, self.text, self.data = path, text, data


def split(text: str) -> list[tuple[str, str]]:
    """(path, path and words) of each module."""
    if os.path.isfile(text):
        return [(text, text)]
    return [(part.partition(" ")[0], part) for part in _parts(text)]


def _parts(text: str) -> list[str]:
    parts = (part.replace("\0", ",").strip(" ") for part in text.replace(",,", "\0").split(","))
    return [part for part in parts if part]


def read_all(text: str, room: int, told: str = "") -> list[Module]:
    """`room`: bytes of memory that there are for all together. `told`: the same text with the names that the kernel is
    told. BuildError: no such file, too much.
    """
    told = told or text
    names = split(text)
    if len(names) > MOST_MODULES:
        raise BuildError(
            f"initrd names {len(names)} modules; a machine takes at most {MOST_MODULES}", code="VR0605", path="initrd"
        )
    words_of = [told] if names == [(text, text)] else _parts(told)
    found = []
    for n, (path, words) in enumerate(names):
        words = words_of[n] if len(words_of) == len(names) else words
        data = read_file(path, "initrd", room)
        room -= len(data)
        found.append(Module(path, words, data))
    return found


def read_file(path: str, what: str, most: int) -> bytes:
    """A regular file of at most `most` bytes, which is what memory has room for."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise BuildError(f"the {what}, '{path}', is no ordinary file", code="VR0626", path=what)
        if info.st_size > most:
            raise BuildError(
                f"the {what} {path} has {info.st_size} bytes; the machine has room for {max(most, 0)}",
                code="VR0715",
                path=what,
                remedy="give the machine more memory",
            )
        with open(path, "rb") as file:
            return file.read(max(most, 0) + 1)[: max(most, 0)]
    except ValueError:
        raise BuildError(f"the {what}'s name has a NUL in it", code="VR0620", path=what) from None
    except FileNotFoundError:
        raise BuildError(f"the {what}, '{path}', does not exist", code="VR0620", path=what) from None
    except OSError as error:
        raise BuildError(
            f"the {what}, '{path}', cannot be read: {error.strerror}", code="VR0622", path=what
        ) from None
