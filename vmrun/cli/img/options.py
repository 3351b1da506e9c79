"""What the commands of the image tool share: options, sizes, opening images, progress."""

from __future__ import annotations

import sys

from vmrun.backends.block.sizes import bytes_of as size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmrun.backends.block.node import Node

CACHES = {
    "none": "none", "off": "none", "directsync": "directsync", "writeback": "writeback", "unsafe": "unsafe",
    "writethrough": "writethrough",
}  # fmt: skip
MOST = (1 << 63) - 1


class ImgError(Exception):
    """Printed after the program's name; `usage` adds where help is to be had."""

    def __init__(self, text: str, code: int = 1, usage: bool = False) -> None:
        super().__init__(text)
        self.code, self.usage = code, usage


class HelpAsked(Exception):
    """-h, --help: nothing else counts."""


class Given:
    """The options of a command line: `given["f"]`, `"q" in given`, `given.args`; or `all`."""

    def __init__(
        self, argv: list[str], short: str, long: tuple[str, ...] = (), same: dict[str, str] | None = None
    ) -> None:
        """`same`: long names of short options with a value."""
        common = ("object=", "image-opts", *(("force-share",) if "U" in short else ()), "help")
        long = (*long, *(f"{name}=" for name in same or ()))
        short = short + "h"
        self.args: list[str] = []
        self.all: dict[str, list[str]] = {}
        words = iter(argv)
        for word in words:
            if word == "--":
                self.args += words
            elif word.startswith("--"):
                self._long(word[2:], words, (*long, *common))
            elif word.startswith("-") and len(word) > 1:
                self._short(word[1:], words, short)
            else:
                self.args.append(word)
        for name, letter in (same or {}).items():
            if name in self.all:
                self.all.setdefault(letter, []).extend(self.all.pop(name))
        if "h" in self or "help" in self:
            raise HelpAsked
        for text in self.all.get("object", []):
            _object(text)
        if "image-opts" in self and "f" in self:
            raise ImgError("--image-opts and --format are mutually exclusive")
        if "force-share" in self:
            self.all.setdefault("U", [""])

    def _long(self, text: str, words: Iterator[str], known: tuple[str, ...]) -> None:
        """`--name`, `--name=value`, `--name value`; what begins only one name stands for it."""
        name, mark, value = text.partition("=")
        found = [one for one in known if one.rstrip("=") == name] or [one for one in known if one.startswith(name)]
        if len(found) != 1 or mark and not found[0].endswith("="):
            raise ImgError(f"unrecognized option '--{name}'", usage=True)
        self._add(found[0].rstrip("="), found[0].endswith("="), value if mark else None, words, f"--{name}")

    def _short(self, text: str, words: Iterator[str], known: str) -> None:
        """`-a`, `-ab`, `-fvalue`, `-f value`."""
        while text:
            letter, text = text[0], text[1:]
            at = known.find(letter)
            if at < 0 or letter == ":":
                raise ImgError(f"unrecognized option '-{letter}'", usage=True)
            wants = known[at + 1 : at + 2] == ":"
            self._add(letter, wants, text if wants and text else None, words, f"-{letter}")
            if wants:
                return

    def _add(self, name: str, wants: bool, value: str | None, words: Iterator[str], told: str) -> None:
        if wants and value is None:
            value = next(words, None)
            if value is None:
                raise ImgError(f"missing argument for option '{told}'", usage=True)
        self.all.setdefault(name, []).append(value or "")

    def __contains__(self, name: str) -> bool:
        return name in self.all

    def __getitem__(self, name: str) -> str | None:
        return self.all[name][-1] if name in self.all else None

    def cache(self, name: str, default: str) -> str:
        value = self[name]
        if value is None:
            return default
        if value not in CACHES:
            kind = "source cache" if name == "T" else "cache"
            raise ImgError(f"Invalid {kind} option: {value}")
        return CACHES[value]

    def one(self, what: str = "one image file name") -> str:
        if len(self.args) != 1:
            raise ImgError(f"Expecting {what}", usage=True)
        return self.args[0]

    def json(self) -> bool:
        """--output."""
        value = self["output"] or "human"
        if value not in ("human", "json"):
            raise ImgError("--output must be used with human or json as argument.")
        return value == "json"


def _object(text: str) -> None:
    """What --object makes; images name it by its id. ImgError."""
    from vmrun.backends.objects import make
    from vmrun.errors import BuildError

    found: dict[str, Any] = dict(pairs(text if "=" in text.split(",")[0] else f"qom-type={text}"))
    kind = found.get("qom-type", "")
    if kind == "iothread" and "id" in found:
        return  # whose threads do the work is nobody's business here
    if kind == "tls-creds-psk":
        raise ImgError("tls-creds-psk is not modelled: Python's TLS knows no shared keys; use tls-creds-x509")
    if kind not in _KINDS:
        raise ImgError(f"Parameter 'qom-type' does not accept value '{kind}'")
    try:
        made = make(found)
        if made.name in made_objects:
            raise ImgError(f"attempt to add duplicate property '{made.name}' to object (type 'container')")
        made.complete(_Platform())  # type: ignore[arg-type]
    except BuildError as error:
        text = error.problems[0].message
        if text.startswith("Invalid parameter '"):
            text = f"Parameter '{text.split(chr(39))[1]}' is unexpected"
        raise ImgError(text) from None
    made_objects[made.name] = made


_KINDS = (
    "secret", "tls-creds-x509", "tls-creds-anon", "throttle-group", "authz-list", "authz-list-file", "authz-simple",
)  # fmt: skip
made_objects: dict[str, Any] = {}  # by --object, of this command


class _Platform:
    """What an object asks of where it is made."""

    def user_object(self, id: str) -> Any:
        from vmrun.errors import BuildError

        if id not in made_objects:
            raise BuildError(f"No secret with id '{id}'")
        return made_objects[id]


def image_size(text: str, what: str = "image size") -> int:
    found = size(text)
    if found is None:
        raise ImgError(
            f"Invalid {what} specified. You may use k, M, G, T, P or E suffixes for\n"
            f"{program()}: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
        )
    if found > MOST:
        raise ImgError(f"Invalid {what} specified. Must be between 0 and {MOST}.")
    return found


def rate_of(text: str | None) -> int:
    """Bytes per second; 0: as fast as it goes."""
    if text is None:
        return 0
    found = size(text)
    if found is None:
        raise ImgError(
            "Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for\n"
            f"{program()}: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
        )
    return found


def program(tool: str = "img") -> str:
    """What it is called by who reads its messages: a link may have QEMU's name."""
    import os

    name = os.path.basename(sys.argv[0])
    return name if name.endswith(f"-{tool}") else f"vmrun-{tool}"


def pairs(text: str) -> dict[str, str]:
    """`a=1,b=x,,y` as a dictionary; a double comma is one in the value."""
    found: dict[str, str] = {}
    for part in text.replace(",,", "\0").split(","):
        part = part.replace("\0", ",")
        if not part:
            continue
        key, mark, value = part.partition("=")
        if not mark:
            key, value = (key[2:], "off") if key.startswith("no") and key != "nocow" else (key, "on")
        found[key] = value
    return found


HINTS = ("Is ", "You can force-remove")  # remedies that qemu-img tells, too


_opened: list[Any] = []  # qcow2 images of this run: what is wrong with them is told once


def _told(node: Node) -> Node:
    """An open image, and what is known of it."""
    header = getattr(node, "header", None)
    if header is not None:
        _opened.append(node)
        if header.stale and header.version >= 3:
            sys.stderr.write(
                f"{program()}: warning: a program lacking bitmap support modified this file, so all bitmaps are now "
                "considered inconsistent\n"
                "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.\n"
            )
    return node


def tell_faults(keep: bool = False) -> None:
    """What images that are open, or were, have been found to contradict themselves in. `keep`: there may be more."""
    for node in _opened:
        fault = node.take_fault()
        if fault is not None:
            what, which = ("Marking image as", "") if fault[3] else ("Image is", "non-fatal ")
            sys.stderr.write(
                f"qcow2: {what} corrupt: {fault[0]}; further {which}corruption events will be suppressed\n"
            )
    if not keep:
        _opened.clear()


def open_image(
    name: str, format: str | None, *, cache: str = "writeback", write: bool = False, share: bool = False,
    backing: bool = True, options: bool = False, discard: bool = True, more: list[str] | None = None,
    aio: str = "threads",
) -> Node:  # fmt: skip
    """The node of an image; ImgError in qemu-img's words. `more`: options besides the name, as `driver=raw,…`."""
    from vmrun.backends.block import filenames, images
    from vmrun.backends.block.errors import ImageError

    if not name and not options and not more:
        raise ImgError("Could not open '': The 'file' block driver requires a file name")
    if share and write:
        raise ImgError(f"Could not open '{name}': force-share=on can only be used with read-only images")
    access = images.Access(cache=cache, readonly=not write, share=share, discard=discard, aio=aio)
    access.with_objects(made_objects)
    try:
        if more:
            given: dict[str, Any] = {} if format is None else {"driver": format}
            given |= filenames.nested(dict(pairs(",".join(more))))
            return images.open_options(filenames.named(name, given) if name else given, access)
        if options:
            if name and "=" not in name and not name.startswith("json:"):
                raise ImageError(f"Could not open '{name}': Cannot find device='{name}' nor node-name='{name}'")
            return images.open_options(filenames.nested(dict(pairs(name))), access)
        if format is not None and format not in images.FORMATS and format not in ("file", *images.DEVICES, "nbd"):
            raise ImageError(f"Could not open '{name}': Unknown driver '{format}'")
        file = images.open_protocol(name, access)
        if images.says_format(name, file, format):
            return file
        try:
            if format is None and write and images.probe(file, name) == "raw":
                sys.stderr.write(
                    f"WARNING: Image format was not specified for '{name}' and probing guessed raw.\n"
                    "         Automatically detecting the format is dangerous for raw images, write operations on block"
                    " 0 will be restricted.\n"
                    "         Specify the 'raw' format explicitly to remove the restrictions.\n"
                )
            return _told(images.over(file, name, "raw" if format == "nbd" else format, access, backing=backing))
        except BaseException:
            file.close()
            raise
    except ImageError as error:
        from vmrun.backends.block.nodeoptions import of_the_host, unnamed

        text = unnamed(error.text) if options or more else error.text
        said = text.startswith("Could not open '")
        if not said or (options or text.startswith(f"Could not open '{name}': ")) and of_the_host(text):
            text = f"Could not open '{name}': {text}"
        if error.remedy.startswith(HINTS):
            text += f"\n{error.remedy}"
        raise ImgError(text) from None


def inside(error: ImgError, name: str) -> str:
    """What open_image told, for programs that name the image themselves."""
    from vmrun.backends.block.nodeoptions import of_the_host

    told = str(error)
    inner = told.removeprefix(f"Could not open '{name}': ")
    return inner if "Could not open" in inner or not of_the_host(inner) else told


def format_of(node: Node) -> str:
    return str(node.driver)


class Progress:
    """-p: `    (12.34/100%)` on one line; without it a line of standard error when SIGUSR1 asks. Any thread adds."""

    def __init__(self, shown: bool, total: int) -> None:
        import _thread
        import signal

        from vmrun.cli import owns_process

        self.shown, self.total, self.done, self.last = shown, max(1, total), 0, -1.0
        self.asked = False
        self.lock = _thread.allocate_lock()
        if owns_process:
            signal.signal(signal.SIGUSR1, self._ask)
        self.add(0)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = not self.shown

    def add(self, count: int) -> None:
        with self.lock:
            if self.shown:
                self._add(count)
                return
            self.done += count
            if self.asked:
                self.asked = False
                sys.stderr.write(f"    ({min(100.0, 100.0 * self.done / self.total):3.2f}/100%)\n")
                sys.stderr.flush()

    def _add(self, count: int) -> None:
        self.done += count
        percent = min(100.0, 100.0 * self.done / self.total)
        if percent - self.last >= 1.0 or percent >= 100.0 > self.last:
            self.last = percent
            sys.stdout.write(f"    ({percent:3.2f}/100%)\r")
            sys.stdout.flush()

    def leave(self) -> None:
        """It is over before its end."""
        if self.shown:
            sys.stdout.write("\n")

    def end(self) -> None:
        if self.shown:
            self.done = self.total
            if self.last < 100.0:
                self.add(0)
            sys.stdout.write("\n")


def asks_help(given: Given) -> bool:
    """Whether `help` is among the words of -o."""
    for text in given.all.get("o", []):
        if not text or text[0] == "," or text[-1] == ",":
            raise ImgError(f"Invalid option list: {text}")
    return any(
        word in ("help", "?") for text in given.all.get("o", []) for word in text.replace(",,", "\0").split(",")
    )


def options_of(given: Given, allowed: dict[str, Any], format: str, name: str) -> dict[str, Any]:
    """-o as values. `allowed`: name → kind (str, size, bool, int, or a tuple of words)."""
    found: dict[str, Any] = {}
    for text in given.all.get("o", []):
        for key, value in pairs(text).items():
            kind = allowed.get(key)
            if key == "encryption" and value in ("off", "no", "false", "n"):
                found[key] = False
                continue
            if kind is None and key.startswith("encrypt"):
                raise ImgError((f"{name}: " if name else "") + "encrypted images are not modelled")
            if kind is None:
                raise ImgError(f"{name}: Invalid parameter '{key}'" if name else f"Invalid parameter '{key}'")
            if kind == "size":
                number = size(value)
                if number is None:
                    raise ImgError(
                        f"{name}: Parameter '{key}' expects a non-negative number below 2^64\nOptional suffix k, M, G, "
                        "T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
                    )
                found[key] = number
            elif kind == "bool":
                if value not in ("on", "off", "yes", "no", "true", "false", "y", "n"):
                    raise ImgError(f"{name}: Parameter '{key}' expects 'on' or 'off'")
                found[key] = value in ("on", "yes", "true", "y")
            elif kind == "int":
                if not (value.isascii() and value.isdigit()):
                    raise ImgError(f"{name}: Parameter '{key}' expects a number")
                if len(value) > 19:
                    raise ImgError(f"{name}: Value '{value}' is too large for parameter '{key}'")
                found[key] = int(value)
            elif isinstance(kind, tuple):
                if value not in kind:
                    parameter = {"preallocation": "preallocation"}.get(key, key)
                    raise ImgError(f"{name}: Invalid parameter '{value}'" if parameter else "")
                found[key] = value
            else:
                found[key] = value
    return found


def select(nodes: list[Any], wanted: str) -> None:
    """The source as one of its snapshots has it."""
    from vmrun.backends.block.qcow2_snapshots import view_snapshot

    node = nodes[0]
    known = getattr(node, "snapshots", [])
    if wanted.startswith("snapshot."):
        asked = pairs(wanted)
        for key in asked:
            if key not in ("snapshot.id", "snapshot.name"):
                sys.stderr.write(f"{program()}: Invalid parameter '{key}'\n")
                raise ImgError(f"Failed in parsing snapshot param '{wanted}'")
        found = [
            one for one in known
            if asked.get("snapshot.id", one.id) == one.id and asked.get("snapshot.name", one.name) == one.name
        ]  # fmt: skip
    else:
        found = [one for one in known if one.id == wanted] or [one for one in known if one.name == wanted]
    if getattr(node, "snapshots", None) is None:
        raise ImgError(
            f"Failed to load snapshot: Block format '{node.driver}' used by device '' does not support temporarily "
            "loading internal snapshots"
        )
    if not found:
        raise ImgError("Failed to load snapshot: Can't find snapshot")
    try:
        view_snapshot(node, found[0])
    except OSError as error:
        raise ImgError(f"Failed to load snapshot: {error.strerror}") from None
