"""Reading a machine or type file into Nodes: bounds, encoding, and the choice of a reader by the file's
name.

All three notations (YAML, TOML, JSON) end in the same Nodes, so that nothing after this knows which one it
was. A file is refused before it can cost anything: by size, by encoding, by depth, by number of entries.
"""

from __future__ import annotations

import os
import stat

from vmrun.config.node import Node
from vmrun.config.reading import too_deep
from vmrun.errors import ConfigError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import RawIOBase

MAX_BYTES = 1 << 20

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".toml", ".json")

_MARKS = (
    (b"\xef\xbb\xbf", "a byte order mark"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
)


_OWN = f"machines{os.sep}"  # how vmrun's own types and CPU models are called in messages
_MOST_OWN = 256
_own: dict[str, tuple[bytes, Node]] = {}  # read for every machine; nobody changes Nodes


def load_file(path: str, problems: list[Problem] | None = None, shown: str = "") -> Node:
    """Read the file at path; '-' is standard input. shown is the name to use in messages (default: path as given).

    Problems that leave something to go on with (duplicate keys) are added to problems; without such a list,
    and for all others, ConfigError is raised.
    """
    if path == STDIN:
        data = read_bytes("/dev/stdin", "standard input", pipes=True)
        return load_bytes(data, "<stdin>", problems, _notation(data))
    return load_bytes(read_bytes(path, shown or path), shown or path, problems)


def machine_name(path: str) -> str:
    """The name of a machine that gives itself none."""
    return os.path.basename(path).split(".")[0] if path != STDIN else "machine"


def _notation(data: bytes) -> str:
    """The suffix of what has no name, by how it begins."""
    start = data.lstrip()
    if start[:1] == b"{":
        return ".json"
    lines = (line.split(b"=")[0].rstrip() for line in start[:65536].splitlines() if b"=" in line)
    return ".toml" if b"schema" in lines else ".yaml"


def read_bytes(path: str, shown: str, pipes: bool = False, most: int = MAX_BYTES) -> bytes:
    """The contents of a file of at most so many bytes; ConfigError when it cannot be had. pipes: whether it may be a
    pipe with somebody at its other end.
    """
    try:
        # Without waiting for somebody to open the other end of a FIFO, who may never come.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb", buffering=0) as file:
            info = os.fstat(descriptor)
            kind = stat.S_IFMT(info.st_mode)
            if kind == stat.S_IFDIR:
                raise IsADirectoryError
            if kind != stat.S_IFREG and not (pipes and kind == stat.S_IFIFO):
                what = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}.get(kind, "a device")
                raise ConfigError(
                    f"'{shown}' is {what}, not a file", code="VR0101", remedy="name a .yaml, .toml or .json file"
                )
            if info.st_size > most:
                raise _too_big(shown, most)
            os.set_blocking(descriptor, True)
            data = _read_up_to(file, most + 1)
    except FileNotFoundError:
        if os.path.islink(path):
            raise ConfigError(f"'{shown}' is a symbolic link that leads nowhere", code="VR0101") from None
        raise ConfigError(f"there is no file '{shown}'", code="VR0101", remedy=_beside(path)) from None
    except IsADirectoryError:
        raise ConfigError(
            f"'{shown}' is a directory", code="VR0101", remedy="name a .yaml, .toml or .json file"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a possible file name"
        raise ConfigError(f"cannot read '{shown}': {reason}", code="VR0101") from None
    if len(data) > most:
        raise _too_big(shown, most)
    return data


def _read_up_to(file: RawIOBase, most: int) -> bytes:
    parts: list[bytes] = []
    left = most
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def load_bytes(data: bytes, shown: str, problems: list[Problem] | None = None, suffix: str = "") -> Node:
    """Nodes of a file's contents; shown (a file name) is used in messages and says the notation by its suffix, unless
    suffix does.
    """
    own = shown.startswith(_OWN)
    if own:
        kept = _own.get(shown)
        if kept is not None and kept[0] == data:
            return kept[1]
        node = _from_earlier(data, shown)
        if node is not None:
            return node
    text = decode(data, shown)
    found: list[Problem] = []
    suffix = suffix or os.path.splitext(shown)[1].lower()
    try:
        if suffix == ".toml":
            from vmrun.config.load_toml import load_toml as reader
        elif suffix == ".json":
            from vmrun.config.load_json import load_json as reader
        elif suffix in (".yaml", ".yml"):
            from vmrun.config.load_yaml import load_yaml as reader
        else:
            raise ConfigError(
                f"'{shown}' does not say what notation it is in",
                code="VR0102",
                place=Place(shown),
                remedy="name it .yaml, .toml or .json",
            )
        node = reader(text, shown, found)
    except RecursionError:
        raise too_deep(Place(shown)) from None
    if type(node.value) is not dict:
        from vmrun.config.node import kind

        raise ConfigError(
            f"the file holds {kind(node.value)} where a mapping of keys to values is needed",
            code="VR0103",
            place=node.place,
        )
    if own and not found:
        _remember(data, shown, node)
    if problems is None:
        if found:
            raise ConfigError(problems=found)
    else:
        problems.extend(found)
    return node


def _from_earlier(data: bytes, shown: str) -> Node | None:
    """One of vmrun's own files as an earlier run read it: reading it anew takes longer than all the rest of a start."""
    from vmrun.config.kept import read_part
    from vmrun.config.node import unpacked

    try:
        node = unpacked(read_part("nodes", shown.encode() + data), shown)
    except (TypeError, ValueError):
        return None
    if len(_own) < _MOST_OWN:
        _own[shown] = (data, node)
    return node


def _remember(data: bytes, shown: str, node: Node) -> None:
    from vmrun.config.kept import write_part
    from vmrun.config.node import packed

    if len(_own) < _MOST_OWN:
        _own[shown] = (data, node)
    write_part("nodes", shown.encode() + data, packed(node))


def decode(data: bytes, shown: str) -> str:
    """Text of UTF-8 bytes; ConfigError for anything else, with the line and column of the first bad byte."""
    if not data.strip():
        raise ConfigError("the file is empty", code="VR0103", place=Place(shown, 1, 1), remedy=_START)
    for mark, name in _MARKS:
        if data.startswith(mark):
            if name == "a byte order mark":
                data = data[3:]
                break
            raise ConfigError(
                f"the file is in {name}", code="VR0104", place=Place(shown, 1, 1), remedy="save it as UTF-8"
            )
    zero = data.find(0)
    if zero >= 0:
        raise ConfigError(
            "the file holds a NUL byte, so it is not text",
            code="VR0104",
            place=_byte_place(data, zero, shown),
            remedy="name a machine file (YAML, TOML or JSON), not an image",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            code="VR0104",
            place=_byte_place(data, error.start, shown),
            remedy="save the file as UTF-8",
        ) from None


def _too_big(shown: str, most: int) -> ConfigError:
    return ConfigError(
        f"the file is larger than {most >> 20} MiB",
        code="VR0105",
        place=Place(shown),
        remedy="name a machine file, not an image",
    )


_START = "`vmrun init TYPE` writes a file to start from"


def _beside(path: str) -> str:
    """A hint at a file of nearly that name in the same directory."""
    from vmrun.config.near import nearest

    directory = os.path.dirname(path) or "."
    try:
        names = [name for name in os.listdir(directory)[:1000] if name.endswith(SUFFIXES)]
    except (OSError, ValueError):
        return _START
    name = nearest(os.path.basename(path), names)
    return f"there is '{os.path.join(os.path.dirname(path), name)}'" if name else _START


def _byte_place(data: bytes, offset: int, shown: str) -> Place:
    before = data[:offset]
    line = before.count(b"\n") + 1
    col = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    return Place(shown, line, col)
