"""`vmrun-nbd`: qemu-nbd's command line. An image for NBD clients; what is said to them is in
vmrun/backends/block/nbd_server.py.

    vmrun-nbd --fork --pid-file=/run/disk.pid -t -r -f qcow2 -k /run/disk.sock disk.qcow2
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial

from vmrun.backends.block.sizes import digits
from vmrun.cli.img.options import Given, HelpAsked, ImgError, inside, made_objects, open_image, program, select
from vmrun.cli.img.serve import answer, closed, inherited, listening, until_a_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
  -A, --allocation-depth    clients may ask which image of the chain has what
  -B, --bitmap=NAME         clients may ask of this bitmap, too
  -f, --format=FORMAT       the image's format; guessed when not given
  -r, --read-only           nothing is written
  -s, --snapshot            what is written goes to a temporary file
  -l, --load-snapshot=NAME  a snapshot inside the image, read-only
  -n, --nocache, --cache=MODE, --discard=MODE, --detect-zeroes=MODE, --aio=MODE, --image-opts
                            as of a drive
      --object=TYPE,…       a secret, tls-creds-x509, authz-…
      --tls-creds=ID        clients have to speak TLS
      --tls-authz=ID        and their certificates' names be let in by this object
  -L, --list                tell what the server at the address exports
      --tls-hostname=NAME   what its certificate has to say
      --fork                come back when clients can connect
      --pid-file=PATH       write the server's process id there
  -v, --verbose             taken
A server that was started with LISTEN_FDS (systemd's socket activation) listens on that descriptor.
"""
ELSEWHERE = {
    "c": "the kernel's client is nbd-client's: start this, then `nbd-client -unix PATH /dev/nbd0`",
    "connect": "the kernel's client is nbd-client's: start this, then `nbd-client -unix PATH /dev/nbd0`",
    "d": "`nbd-client -d DEVICE` disconnects",
    "disconnect": "`nbd-client -d DEVICE` disconnects",
    "selinux-label": "the socket has the label of its directory",
}
LONG = {
    "port=": "p", "bind=": "b", "socket=": "k", "shared=": "e", "persistent": "t", "verbose": "v", "export-name=": "x",
    "description=": "D", "offset=": "o", "bitmap=": "B", "format=": "f", "read-only": "r", "snapshot": "s",
    "load-snapshot=": "l", "nocache": "n", "version": "V", "connect=": "", "disconnect": "",
    "list": "L", "allocation-depth": "A", "tls-creds=": "", "tls-authz=": "", "tls-hostname=": "",
    "selinux-label=": "", "cache=": "", "aio=": "", "discard=": "", "detect-zeroes=": "", "fork": "",
    "pid-file=": "", "trace=": "",
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
        if "L" in given:
            from vmrun.cli.img.nbd_list import tell

            return tell(given, _tls(given, "client"))
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
        if name in given and (name != "selinux-label" or "k" in given):
            raise ImgError(f"-{'-' if len(name) > 1 else ''}{name} is not there: {text}")
    if len(given.all.get("n", [])) + len(given.all.get("cache", [])) > 1:
        raise ImgError("-n and --cache can only be specified once")
    for name in ("discard", "aio"):
        if len(given.all.get(name, [])) > 1:
            raise ImgError(f"--{name} can only be specified once")
    shared = given["e"] or "1"
    if digits(shared) is None:
        raise ImgError(f"Invalid shared device number '{shared}'")
    path = given["k"]
    if path is not None and not path.startswith("/"):
        raise ImgError("socket path must be absolute")
    if len(given["x"] or "") > SIZES:
        raise ImgError("export name too long")
    if len(given["D"] or "") > SIZES:
        raise ImgError("export description too long")
    _check_modes(given)
    if "L" in given:
        if given.args:
            raise ImgError("List mode is incompatible with a file name")
        if any(name in given for name in ("x", "D", "B", "A", "o", "l", "s")):
            raise ImgError("List mode is incompatible with per-device settings")
        return
    if "tls-hostname" in given:
        raise ImgError("TLS hostname is only supported with list mode or as a client")
    if len(given.args) != 1:
        raise ImgError("Invalid number of arguments", usage=True)


def _check_modes(given: Given) -> None:
    if given["aio"] not in (None, "threads", "native", "io_uring"):
        raise ImgError(f"Invalid aio mode '{given['aio']}'")
    if given["discard"] not in (None, "ignore", "off", "unmap", "on"):
        raise ImgError(f"Invalid discard mode `{given['discard']}'")
    if "selinux-label" in given and "k" not in given:
        raise ImgError("--selinux-label is not permitted without --socket")
    if given["detect-zeroes"] not in (None, "off", "on", "unmap"):
        raise ImgError(f"Failed to parse detect_zeroes mode: invalid parameter value: {given['detect-zeroes']}")
    if given["detect-zeroes"] == "unmap" and given["discard"] not in ("unmap", "on"):
        raise ImgError("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
    for name in ("tls-authz", "tls-hostname"):
        if name in given and "tls-creds" not in given:
            raise ImgError(f"--{name} is not permitted without --tls-creds")


def _tls(given: Given, endpoint: str) -> Any:
    """An SSLContext, or None. ImgError."""
    from vmrun.backends.objects.tls import Asked

    id, authz = given["tls-creds"], given["tls-authz"]
    if id is None:
        return None
    made = made_objects.get(id)
    if made is None or not hasattr(made, "context"):
        raise ImgError(f"Failed to get TLS creds: No TLS credentials with id '{id}'")
    if made.endpoint != endpoint:
        raise ImgError(f"Failed to get TLS creds: Expecting TLS credentials with a {endpoint} endpoint")
    if authz is None:
        return made.context
    rule: Any = made_objects.get(authz)
    if not hasattr(rule, "allows"):
        raise ImgError(f"there is no authz object '{authz}': --object authz-simple,id={authz},identity=…")
    return Asked(made.context, rule.allows)


def _export(given: Given) -> Export:
    """ImgError."""
    from vmrun.backends.block import over_temporary
    from vmrun.backends.block.chain import backing_of, deep
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.images import raw
    from vmrun.backends.block.nbd_server import Export
    from vmrun.backends.block.probed import ProbedNode
    from vmrun.cli.img.bitmap import of

    name, snapshot, inner = given.args[0], "s" in given, given["l"]
    readonly = "r" in given or inner is not None
    tls = _tls(given, "server")
    try:
        cache = "none" if "n" in given else given.cache("cache", "writeback")
    except ImgError:
        raise ImgError(f"Invalid cache mode `{given['cache']}'") from None
    try:
        node: Any = open_image(
            name, given["f"], cache=cache, write=not readonly and not snapshot, options="image-opts" in given,
            discard=given["discard"] in ("unmap", "on"), aio=given["aio"] or "threads",
        )  # fmt: skip
        if snapshot:
            node = over_temporary(name, node)
    except ImgError as error:
        raise ImgError(f"Failed to blk_new_open '{name}': {inside(error, name)}") from None
    bitmaps, whole = {}, node
    try:
        if inner is not None:
            select([node], inner)
        for wanted in given.all.get("B", []):
            below: Any = node  # or of an image below it
            while not (found := [one for one in of(below) if one.name == wanted]):
                below = backing_of(below)
                if below is None:
                    raise ImgError(f"Bitmap '{wanted}' is not found")
            bitmap = found[0]
            if bitmap.inconsistent:
                raise ImgError(f"Bitmap '{wanted}' is inconsistent and cannot be used")
            bitmaps[wanted] = bitmap.bits
        if given["o"] is not None:
            start = _offset(given["o"])
            if start > node.size:
                raise ImgError(f"Invalid offset '{given['o']}'")
            node = raw(node, {"offset": start})
    except BaseException as error:
        closed(node)
        if isinstance(error, ImageError):
            raise ImgError(error.text) from None
        raise
    export = Export(node, given["x"] or "", readonly, None, bitmaps, tls=tls)
    export.description = given["D"] or ""
    if isinstance(whole, ProbedNode):
        export.block = 512  # what must not become another format's is its first sector
    if "A" in given and node is whole:
        export.depth = partial(deep, node)
    export.detect_zeroes = "" if given["detect-zeroes"] == "off" else given["detect-zeroes"] or ""
    return export


def _offset(text: str) -> int:
    from vmrun.backends.block.sizes import bytes_of

    found = bytes_of(text)
    if found is None:
        raise ImgError(
            "Parameter 'offset' expects a non-negative number below 2^64\n"
            "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
        )
    return found


def _serve(given: Given, told: int) -> int:
    """Until the last client has left. `told`: where who waits for us to listen gets a byte; -1: nobody does."""
    path, file = given["k"], given["pid-file"]
    written: str | None = None
    with until_a_signal():
        export = _export(given)
        try:
            server = inherited()
            if server is None:
                server = listening(path, given["b"] or "0.0.0.0", given["p"] or "10809")
            elif path or given["b"] or given["p"]:
                raise ImgError("Socket activation does not go with an address: -k, -b and -p")
            else:
                path = None
            if file is not None:
                try:
                    with open(file, "w") as out:
                        written = file  # not another server's, for which this one has no place
                        out.write(f"{os.getpid()}\n")
                except OSError as error:
                    raise ImgError(f"Could not create '{file}': {error.strerror}") from None
            if told >= 0:
                null = os.open(os.devnull, os.O_RDWR)
                for descriptor in range(3):
                    os.dup2(null, descriptor)
                os.write(told, b"\0")
                os.close(told)
            return answer(server, path, export, int(given["e"] or "1"), "t" in given)
        finally:
            closed(export.node)
            if written is not None:
                with contextlib.suppress(OSError):  # somebody was quicker, or has changed its directory
                    os.unlink(written)
    return 0


def _forked(given: Given) -> int:
    """A process of its own serves; this one comes back when it listens, or has said why it cannot."""
    reads, told = os.pipe()
    if os.fork():
        os.close(told)
        return 0 if os.read(reads, 1) else 1
    os.close(reads)
    os.setsid()
    return _serve(given, told)
