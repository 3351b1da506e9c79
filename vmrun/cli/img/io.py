"""`vmrun-io`, `vmrun img io`: qemu-io's command line. Reads, writes and more of an image, for scripts and by hand; what
the commands are is in vmrun/machine/qemuio.py.

    vmrun-io -f qcow2 -c 'write -P 0x11 0 64k' -c 'read -P 0x11 0 64k' disk.qcow2
"""

from __future__ import annotations

import os
import sys

from vmrun.cli.img.options import Given, HelpAsked, ImgError, inside, open_image, program, tell_faults
from vmrun.machine.blocks import Quiet, graph
from vmrun.machine.qemuio import FLUSH, READ, Io, Refused, usage, work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

HELP = """Usage: vmrun-io [OPTIONS]... [-c STRING]... [file]
The command line is qemu-io's (see qemu-io(1)):

  -c, --cmd STRING     do this command; without any they are read from the standard input
  -f, --format FMT     the image's format; guessed when not given
  -r, --read-only      nothing is written
  -s, --snapshot       what is written goes to a temporary file
  -n, --nocache        past the host's page cache, as -t none
  -t, --cache=MODE     as of a drive
  -d, --discard=MODE   ignore, unmap: whether discards are passed on
  -U, --force-share    others may write the image
  -C, --copy-on-read   keep in the image what is read from its backing image
  -k, -m, -i MODE      who moves the data, and from where: taken, threads do it
  --image-opts         the file is `driver=qcow2,file.filename=…`

`vmrun-io -c help` tells the commands.
"""


class Session(Io):
    """What commands work on, without a machine. `node` is None when no image is open."""

    def __init__(self) -> None:
        self.node: Any = None
        self.program = f"{program('io')}: "
        self.drive: Any = None
        self.through = False  # what is written is on the disk before the next command
        self.threads: list[Any] = []

    def open(self, name: str, given: Given) -> None:
        """ImgError."""
        from vmrun.backends.block import over_temporary, queue
        from vmrun.backends.block.tap import CopyOnReadNode

        readonly, snapshot = "r" in given, "s" in given
        cache = "none" if "n" in given else given.cache("t", "writeback")
        self.through = cache in ("writethrough", "directsync")
        discard = given["d"] or "unmap"
        if discard not in ("ignore", "off", "unmap", "on"):
            raise ImgError(f"Invalid discard option: {discard}")
        self.node = open_image(
            name, given["f"], cache=cache, write=not readonly and not snapshot, share="U" in given,
            options="image-opts" in given, discard=discard in ("unmap", "on"), more=given.all.get("o"),
        )  # fmt: skip
        if snapshot:
            self.node = over_temporary(name, self.node)
        if "C" in given or "copy-on-read" in given:
            if self.node.readonly:
                self.node.close()
                raise ImgError("Can't use copy-on-read on read-only device")
            self.node = CopyOnReadNode(self.node)
        self.drive = queue(self.node)
        for node in graph(self.node):
            if hasattr(node, "listen"):
                node.listen(sys.stdout.write)

    def complain(self, text: str) -> str:
        sys.stdout.flush()
        sys.stderr.write(text)
        return ""

    def aside(self, run: Callable[[Any], str]) -> None:
        import threading

        self.threads.append(threading.Thread(target=lambda: sys.stdout.write(run(None)), daemon=True))
        self.threads[-1].start()

    def flush(self) -> str:
        for thread in self.threads:
            thread.join()
        self.threads = []
        return ""

    def close(self) -> None:
        self.flush()
        images = [node for node in graph(self.node) if hasattr(node, "unwritten")] if self.node is not None else []
        try:
            if self.drive is not None:
                self.drive.close()
        except OSError as error:
            for _ in [node for node in images if node.unwritten and not node.broken]:
                self.complain(
                    f"{self.program}Failed to flush the L2 table cache: {error.strerror}\n"
                    f"{self.program}Failed to flush the refcount block cache: {error.strerror}\n"
                )
        self.node = self.drive = None

    def quiet(self) -> AbstractContextManager[object]:
        return Quiet([self.drive])

    def request(self, op: int, offset: int = 0, count: int = 0, data: bytes | None = None, flags: int = 0) -> bytes:
        if self.node.readonly and op not in (READ, FLUSH):
            raise Refused(f"{program('io')}: Block node is read-only", True)
        answer = super().request(op, offset, count, data, flags)
        if self.through and op not in (READ, FLUSH):
            super().request(FLUSH)
        return answer


def command() -> int:
    """The command vmrun-io."""
    try:
        code = io(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130
    return code


def io(argv: list[str]) -> int:
    try:
        given = _given(argv)
        if "V" in given:
            from vmrun import __version__
            from vmrun.cli.img import LIKE

            sys.stdout.write(f"{program('io')} version {LIKE} (vmrun {__version__})\n")
            return 0
        if len(given.args) > 1:
            sys.stdout.write(HELP)
            return 1
        session = Session()
        if given.args:
            _opened(session, given, given.args[0])
    except HelpAsked:
        sys.stdout.write(HELP)
        return 0
    except ImgError as error:
        sys.stderr.write(f"{program('io')}: {error}\n{HELP if error.usage else ''}")
        return 1
    try:
        return _commands(session, given)
    finally:
        session.close()


def _opened(session: Session, given: Given, name: str) -> None:
    try:
        session.open(name, given)
    except ImgError as error:
        told = inside(error, name)
        device = f" device {name}" if name else ""
        of_the_line = told.startswith("Invalid ") and " option: " in told
        raise ImgError(told if of_the_line else f"can't open{device}: {told}") from None


def _given(argv: list[str], more: str = "") -> Given:
    long = ("cmd=", "format=", "read-only", "snapshot", "nocache", "copy-on-read", "misalign", "native-aio", "aio=",
            "cache=", "discard=", "trace=", "version")  # fmt: skip
    given = Given(argv, f"c:f:rsnCmki:t:d:T:UV{more}", long)
    short = {"read-only": "r", "snapshot": "s", "nocache": "n", "cmd": "c", "format": "f", "cache": "t", "discard": "d"}
    for name, letter in {**short, "version": "V"}.items():
        if name in given:
            given.all.setdefault(letter, []).extend(given.all.pop(name))
    return given


def _commands(session: Session, given: Given) -> int:
    lines = given.all.get("c")
    if lines is not None:
        for line in lines:
            if not _one(session, line, given):
                break
        return 1 if session.failed else 0
    while True:
        sys.stdout.write("qemu-io> ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stdout.write("\n" if sys.stdin.isatty() else "")
            return 0
        if not _one(session, line, given):
            return 0


def _one(session: Session, line: str, given: Given) -> bool:
    """Whether to go on after it."""
    words = line.split()
    if not words:
        return True
    if words[0] in ("quit", "q"):
        return False
    text = ""
    if words[0] in ("open", "o"):
        try:
            if session.node is not None:
                raise ImgError("file open already, try 'help close'")
            inner = _given(words[1:], "o:")
            if len(inner.args) > 1 or not inner.args and "o" not in inner:
                raise Refused(usage("open"))
            _opened(session, inner, inner.args[0] if inner.args else "")
        except Refused as refused:
            session.failed = True
            sys.stdout.write(f"{refused}\n")
        except (ImgError, HelpAsked) as error:
            session.failed = True
            if isinstance(error, ImgError) and error.usage:
                letter = str(error)[:-1].rpartition("-")[2]
                session.complain(f"open: invalid option -- '{letter}'\n")
                sys.stdout.write(f"{usage('open')}\n")
            else:
                session.complain(f"{program('io')}: {error}\n")
    elif words[0] in ("close", "c"):
        session.close()
    elif words[0] == "abort":
        os.abort()  # tests want to see what a dead program leaves
    elif words[0] == "sigraise" and len(words) == 2 and words[1].isdecimal() and 0 < int(words[1]) < 65:
        os.kill(os.getpid(), int(words[1]))
    elif session.node is None and words[0] not in ("help", "sleep"):
        session.failed = True
        session.complain("no file open, try 'help open'\n")
    else:
        done = work(session, words)
        text = done if isinstance(done, str) else done(None)
        sys.stdout.flush()
        tell_faults(keep=True)
        if words in (["info"], ["i"]):
            text += _specific(session.node)
    sys.stdout.write(text)
    sys.stdout.flush()
    return True


def _specific(node: Any) -> str:
    from vmrun.backends.block.describe import describe
    from vmrun.backends.block.filenames import node_name
    from vmrun.backends.block.people import specific

    return specific(describe(node_name(node), node))
