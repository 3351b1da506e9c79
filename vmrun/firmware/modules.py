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
    parts = [part.replace("\0", ",").strip(" ") for part in text.replace(",,", "\0").split(",")]
    return [(part.partition(" ")[0], part) for part in parts if part]


def read_all(text: str, room: int) -> list[Module]:
    """`room`: bytes of memory that there are for all together. BuildError: no such file, too much."""
    names = split(text)
    if len(names) > MOST_MODULES:
        raise BuildError(f"initrd names {len(names)} modules; a machine takes at most {MOST_MODULES}")
    found = []
    for path, words in names:
        data = read_file(path, "initrd", room)
        room -= len(data)
        found.append(Module(path, words, data))
    return found


def read_file(path: str, what: str, most: int) -> bytes:
    """A regular file of at most `most` bytes, which is what memory has room for."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise BuildError(f"the {what} {path} is no ordinary file")
        if info.st_size > most:
            raise BuildError(
                f"the {what} {path} has {info.st_size} bytes; the machine has room for {max(most, 0)}",
                remedy="give the machine more memory",
            )
        with open(path, "rb") as file:
            return file.read(max(most, 0) + 1)[: max(most, 0)]
    except ValueError:
        raise BuildError(f"the {what}'s name has a NUL in it") from None
    except OSError as error:
        raise BuildError(f"the {what} {path} cannot be read: {error.strerror}") from None
