"""`vmrun-nbd`: qemu-nbd's command line. An image for NBD clients; what is said to them is in
vmrun/backends/block/nbd_server.py.

    vmrun-nbd --fork --pid-file=/run/disk.pid -t -r -f qcow2 -k /run/disk.sock disk.qcow2
"""

from __future__ import annotations

import os
import sys

from vmrun.cli.img.options import Given, HelpAsked, ImgError, inside, open_image, program, select
from vmrun.cli.img.serve import answer, listening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from vmrun.backends.block.nbd_server import Export

SIZES = 4096  # bytes of a name, of a description
HELP = """Usage: vmrun-nbd [OPTIONS] FILE
The command line is qemu-nbd's (see qemu-nbd(8)):

  -p, --port=PORT           port to listen on (10809)
  -b, --bind=IFACE          address to listen on (0.0.0.0)
  -k, --socket=PATH         listen on this unix socket
  -e, --shared=NUM          so many clients at a time (1; 0: any number)
  -t, --persistent          go on when the last client has left
  -x, --export-name=NAME    the export's name
  -D, --description=TEXT    what people are told of it
  -o, --offset=OFFSET       the image from there on
  -B, --bitmap=NAME         clients may ask of this bitmap, too
  -f, --format=FORMAT       the image's format; guessed when not given
  -r, --read-only           nothing is written
  -s, --snapshot            what is written goes to a temporary file
  -l, --load-snapshot=NAME  a snapshot inside the image, read-only
  -n, --nocache, --cache=MODE, --discard=MODE, --image-opts
                            as of a drive
      --fork                come back when clients can connect
      --pid-file=PATH       write the server's process id there
  -v, --verbose, --aio=MODE, --detect-zeroes=off
                            taken
"""
ELSEWHERE = {
    "c": "the kernel's client is nbd-client's: start this, then `nbd-client -unix PATH /dev/nbd0`",
    "connect": "the kernel's client is nbd-client's: start this, then `nbd-client -unix PATH /dev/nbd0`",
    "d": "`nbd-client -d DEVICE` disconnects",
    "disconnect": "`nbd-client -d DEVICE` disconnects",
    "L": "`nbdinfo --list URI` tells a server's exports",
    "list": "`nbdinfo --list URI` tells a server's exports",
    "A": "clients cannot ask for the depth of allocation",
    "allocation-depth": "clients cannot ask for the depth of allocation",
    "tls-creds": "no TLS: listen on a unix socket",
    "tls-authz": "no TLS: listen on a unix socket",
    "selinux-label": "the socket has the label of its directory",
}
LONG = {
    "port=": "p", "bind=": "b", "socket=": "k", "shared=": "e", "persistent": "t", "verbose": "v", "export-name=": "x",
    "description=": "D", "offset=": "o", "bitmap=": "B", "format=": "f", "read-only": "r", "snapshot": "s",
    "load-snapshot=": "l", "nocache": "n", "version": "V", "connect=": "", "disconnect": "", "list": "",
    "allocation-depth": "", "tls-creds=": "", "tls-authz=": "", "selinux-label=": "", "cache=": "", "aio=": "",
    "discard=": "", "detect-zeroes=": "", "fork": "", "pid-file=": "", "trace=": "",
}  # fmt: skip


def command() -> int:
    """The command vmrun-nbd."""
    try:
        return nbd(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


def nbd(argv: list[str]) -> int:
    try:
        given = Given(argv, "p:b:k:e:tvx:D:o:AB:LT:c:df:rsl:nV", tuple(LONG))
        for name, letter in LONG.items():
            if letter and name.rstrip("=") in given:
                given.all.setdefault(letter, []).extend(given.all.pop(name.rstrip("=")))
        if "V" in given:
            from vmrun import __version__
            from vmrun.cli.img import LIKE

            sys.stdout.write(f"{program('nbd')} {LIKE} (vmrun {__version__})\n")
            return 0
        _check(given)
        return _forked(given) if "fork" in given else _serve(given, -1)
    except HelpAsked:
        sys.stdout.write(HELP)
        return 0
    except ImgError as error:
        more = f"Try `{program('nbd')} --help' for more information.\n" if error.usage else ""
        sys.stderr.write(f"{program('nbd')}: {error}\n{more}")
        return 1


def _check(given: Given) -> None:
    """What a line cannot say. ImgError."""
    for name, text in ELSEWHERE.items():
        if name in given:
            raise ImgError(f"-{'-' if len(name) > 1 else ''}{name} is not there: {text}")
    shared = given["e"] or "1"
    if not shared.isdigit():
        raise ImgError(f"Invalid shared device number '{shared}'")
    path = given["k"]
    if path is not None and not path.startswith("/"):
        raise ImgError("socket path must be absolute")
    if len(given["x"] or "") > SIZES:
        raise ImgError("export name too long")
    if len(given["D"] or "") > SIZES:
        raise ImgError("export description too long")
    if len(given.args) != 1:
        raise ImgError("Invalid number of arguments", usage=True)
    for name, words in (
        ("discard", ("ignore", "off", "unmap", "on")), ("aio", ("threads", "native", "io_uring")),
        ("detect-zeroes", ("off",)),
    ):  # fmt: skip
        if given[name] is not None and given[name] not in words:
            raise ImgError(f"Invalid {name} mode `{given[name]}'")


def _export(given: Given) -> Export:
    """ImgError."""
    from vmrun.backends.block import over_temporary
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.images import raw
    from vmrun.backends.block.nbd_server import Export
    from vmrun.cli.img.bitmap import find

    name, snapshot, inner = given.args[0], "s" in given, given["l"]
    readonly = "r" in given or inner is not None
    try:
        cache = "none" if "n" in given else given.cache("cache", "writeback")
    except ImgError:
        raise ImgError(f"Invalid cache mode `{given['cache']}'") from None
    try:
        node: Any = open_image(
            name, given["f"], cache=cache, write=not readonly and not snapshot, options="image-opts" in given,
            discard=given["discard"] in ("unmap", "on"),
        )  # fmt: skip
        if snapshot:
            node = over_temporary(name, node)
    except ImgError as error:
        raise ImgError(f"Failed to blk_new_open '{name}': {inside(error, name)}") from None
    bitmaps = {}
    try:
        if inner is not None:
            select([node], inner)
        for wanted in given.all.get("B", []):
            bitmaps[wanted] = find(node, wanted).bits
        if given["o"] is not None:
            node = raw(node, {"offset": _offset(given["o"])})
    except ValueError:
        raise ImgError(f"Bitmap '{given['B']}' is not found") from None
    except ImageError as error:
        raise ImgError(error.text) from None
    export = Export(node, given["x"] or "", readonly, None, bitmaps)
    export.description = given["D"] or ""
    return export


def _offset(text: str) -> int:
    from vmrun.backends.block.sizes import bytes_of

    found = bytes_of(text)
    if found is None:
        raise ImgError(f"Invalid offset '{text}'")
    return found


def _serve(given: Given, told: int) -> int:
    """Until the last client has left. `told`: where who waits for us to listen gets a byte; -1: nobody does."""
    import signal

    export = _export(given)
    path, file = given["k"], given["pid-file"]
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        server = listening(path, given["b"] or "0.0.0.0", given["p"] or "10809")
        for one in before:
            signal.signal(one, _ended)
        if file is not None:
            try:
                with open(file, "w") as out:
                    out.write(f"{os.getpid()}\n")
            except OSError as error:
                raise ImgError(f"cannot write {file}: {error.strerror}") from None
        if told >= 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(null, descriptor)
            os.write(told, b"\0")
            os.close(told)
        return answer(server, path, export, int(given["e"] or "1"), "t" in given)
    except KeyboardInterrupt:  # a server is ended by a signal: nothing has failed
        return 0
    finally:
        for one in before:  # the image is closed whatever comes now
            signal.signal(one, signal.SIG_IGN)
        export.node.close()
        if file is not None and os.path.exists(file):
            os.unlink(file)
        for one, handler in before.items():
            signal.signal(one, handler)


def _ended(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _forked(given: Given) -> int:
    """A process of its own serves; this one comes back when it listens, or has said why it cannot."""
    reads, told = os.pipe()
    if os.fork():
        os.close(told)
        return 0 if os.read(reads, 1) else 1
    os.close(reads)
    os.setsid()
    return _serve(given, told)
