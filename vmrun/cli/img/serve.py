"""`vmrun img serve`: an image as a network block device, for nbd clients and other machines. What is said to them is in
vmrun/backends/block/nbd_server.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys

from vmrun.backends.block.nbd_server import Export, listener
from vmrun.backends.block.sizes import digits
from vmrun.cli.img.options import Given, ImgError, open_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from typing import Any, NoReturn

HELP = """usage: vmrun img serve [OPTION…] IMAGE

  -f FORMAT          the image's format; guessed when not given (for writing, say it)
  -k, --socket PATH  listen on a unix socket
  -b, --bind HOST    listen on this address (127.0.0.1)
  -p, --port N       listen on this port (10809)
  -x, --export NAME  the export's name; clients that ask for none get it, too
  -r, --read-only    nothing is written
  -e, --shared N     so many clients at a time (1; 0: any number)
  -t, --persistent   go on when the last client has left
  --cache MODE       as of a drive (writeback)
"""


def serve(argv: list[str]) -> int:
    given = Given(
        argv, "f:k:b:p:x:re:t",
        ("socket=", "bind=", "port=", "export=", "read-only", "shared=", "persistent", "cache=", "format="),
    )  # fmt: skip
    if "h" in given or "help" in given:
        sys.stdout.write(HELP)
        return 0
    name, shared = given.one(), given["e"] or given["shared"] or "1"
    if digits(shared) is None:
        raise ImgError(f"Invalid shared device number '{shared}'")
    readonly = "r" in given or "read-only" in given
    with until_a_signal():
        node = open_image(
            name, given["f"] or given["format"], cache=given.cache("cache", "writeback"), write=not readonly,
            options="image-opts" in given,
        )  # fmt: skip
        try:
            export = Export(node, given["x"] or given["export"] or "", readonly)
            path = given["k"] or given["socket"]
            server = listening(
                path, given["b"] or given["bind"] or "127.0.0.1", given["p"] or given["port"] or "10809"
            )
            sys.stdout.write(f"serving on {path or ':'.join(map(str, server.getsockname()[:2]))}\n")
            sys.stdout.flush()
            return answer(server, path, export, int(shared), "t" in given or "persistent" in given)
        finally:
            closed(node)
    return 0


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def until_a_signal() -> Iterator[None]:
    """A server is ended by a signal: nothing has failed, and what is within ends as it should."""

    def end(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, end) for one in SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def closed(node: Any) -> None:
    """The image of a server that ends is closed whatever comes now."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    node.close()


def listening(path: str | None, host: str, port: str) -> socket.socket:
    """A server's socket, at a path or an address. ImgError."""
    import socket

    from vmrun.core.unixsocket import bind

    try:
        if path:
            server = socket.socket(socket.AF_UNIX)
            bind(server, path)
            server.listen(16)
            return server
        number = digits(port)
        if number is None or number > 65535:
            raise ImgError(f"Invalid port '{port}'")
        return listener(host, number)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise ImgError("Failed to find an available port: Address already in use") from None
        number = getattr(error, "errno", None) or 0
        why = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
        raise ImgError(f"Failed to bind socket: {why}") from None


def inherited() -> socket.socket | None:
    """The socket that whoever started this program listens on (systemd's socket activation); None: there is none.
    ImgError.
    """
    import socket

    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS", "").isdigit():
        return None
    count = int(os.environ["LISTEN_FDS"])
    if not count:
        return None
    if count > 1:
        raise ImgError(f"socket activation with {count} sockets: one is served")
    for name in ("LISTEN_FDS", "LISTEN_PID"):  # they are not for children
        del os.environ[name]
    try:
        return socket.socket(fileno=3)
    except OSError as error:
        raise ImgError(f"descriptor 3, of LISTEN_FDS: {error.strerror}") from None


def answer(server: socket.socket, path: str | None, export: Export, shared: int, persistent: bool) -> int:
    """Serve clients, `shared` at a time (0: any number), until the last has left or, if `persistent`, for ever. Who
    comes when no more may be served waits in the socket's queue until one of them has left.
    """
    import threading

    export.alone = shared == 1
    served: set[socket.socket] = set()
    changed = threading.Condition()

    def talk(client: socket.socket) -> None:
        try:
            export.talk(client)
        finally:
            with changed:
                served.remove(client)
                changed.notify_all()

    try:
        server.settimeout(0.2)
        while True:
            with changed:
                if shared and len(served) >= shared:
                    changed.wait(0.2)  # in turns: the signals' handlers run here
                    continue
                if export.served and not served and not persistent:
                    return 0
            try:
                client, _ = server.accept()
            except TimeoutError:
                continue
            except OSError:  # no descriptors, or who came has gone: the others are served on
                with changed:
                    changed.wait(0.2)
                continue
            client.settimeout(None)
            with changed:
                served.add(client)
            threading.Thread(target=talk, args=(client,), daemon=True).start()
    finally:
        server.close()
        if path:
            with contextlib.suppress(FileNotFoundError):  # somebody was quicker
                os.unlink(path)
