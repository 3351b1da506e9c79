"""`vmrun img serve`: an image as a network block device, for nbd clients and other machines. What is said to them is in
vmrun/backends/block/nbd_server.py.
"""

from __future__ import annotations

import os
import sys

from vmrun.backends.block.nbd_server import Export
from vmrun.cli.img.options import Given, ImgError, open_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

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
    name = given.one()
    readonly = "r" in given or "read-only" in given
    node = open_image(
        name, given["f"] or given["format"], cache=given.cache("cache", "writeback"), write=not readonly,
        options="image-opts" in given,
    )  # fmt: skip
    shared = given["e"] or given["shared"] or "1"
    if not shared.isdigit():
        raise ImgError(f"Invalid shared device number '{shared}'")
    export = Export(node, given["x"] or given["export"] or "", readonly)
    path = given["k"] or given["socket"]
    try:
        server = listening(path, given["b"] or given["bind"] or "127.0.0.1", given["p"] or given["port"] or "10809")
        sys.stdout.write(f"serving on {path or ':'.join(map(str, server.getsockname()[:2]))}\n")
        sys.stdout.flush()
        return answer(server, path, export, int(shared), "t" in given or "persistent" in given)
    finally:
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
        if not port.isdigit() or int(port) > 65535:
            raise ImgError(f"Invalid port '{port}'")
        return socket.create_server((host, int(port)))
    except (OSError, UnicodeError) as error:
        raise ImgError(f"cannot listen: {getattr(error, 'strerror', None) or error}") from None


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
            client.settimeout(None)
            with changed:
                served.add(client)
            threading.Thread(target=talk, args=(client,), daemon=True).start()
    finally:
        server.close()
        if path:
            os.unlink(path)
