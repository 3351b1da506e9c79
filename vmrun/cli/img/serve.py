"""`vmrun img serve`: an image as a network block device, for nbd clients and other machines.

Ref: the NBD protocol, newstyle and fixed; simple replies; NBD_OPT_EXPORT_NAME, LIST, INFO, GO. No TLS: a unix socket,
or a network one trusts. A thread for each client; a client's sizes and offsets are checked before anything is done.
"""

from __future__ import annotations

import os
import struct
import sys

from vmrun.cli.img.options import Given, ImgError, open_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

OPTIONS, REPLY = 0x49484156454F5054, 0x0003E889045565A9
READ, WRITE, DISCONNECT, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
FUA, NO_HOLE = 1, 2
MOST = 32 << 20  # bytes of a request
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
    try:
        return _listen(given, export, int(shared), "t" in given or "persistent" in given)
    finally:
        node.close()


def _listen(given: Given, export: Export, shared: int, persistent: bool) -> int:
    import socket
    import threading

    path = given["k"] or given["socket"]
    try:
        if path:
            server = socket.socket(socket.AF_UNIX)
            server.bind(path)
            server.listen(16)
        else:
            port = given["p"] or given["port"] or "10809"
            if not port.isdigit() or int(port) > 65535:
                raise ImgError(f"Invalid port '{port}'")
            server = socket.create_server((given["b"] or given["bind"] or "127.0.0.1", int(port)))
    except OSError as error:
        raise ImgError(f"cannot listen: {error.strerror}") from None
    clients: list[threading.Thread] = []
    sys.stdout.write(f"serving on {path or ':'.join(map(str, server.getsockname()[:2]))}\n")
    sys.stdout.flush()
    try:
        while True:
            try:
                server.settimeout(0.2)
                client, _ = server.accept()
            except TimeoutError:
                clients = [thread for thread in clients if thread.is_alive()]
                if export.served and not clients and not persistent:
                    return 0
                continue
            clients = [thread for thread in clients if thread.is_alive()]
            if shared and len(clients) >= shared:
                client.close()
                continue
            client.settimeout(None)
            thread = threading.Thread(target=export.talk, args=(client,), daemon=True)
            clients.append(thread)
            thread.start()
    finally:
        server.close()
        if path:
            os.unlink(path)


class _Gone(Exception):
    """The client has left, or says what is not the protocol."""


class Export:
    def __init__(self, node: Any, name: str, readonly: bool) -> None:
        self.node, self.name, self.readonly = node, name, readonly
        self.size = node.size
        self.served = False

    @property
    def flags(self) -> int:
        """Has flags, flush, FUA, several connections; read-only, or trim and zeroes."""
        return 1 | 4 | 8 | 256 | (2 if self.readonly else 32 | 64)

    def talk(self, client: socket.socket) -> None:
        try:
            if self._haggle(client):
                self._transmit(client)
        except (OSError, _Gone, struct.error):
            pass
        finally:
            self.served = True
            client.close()

    # --- what is to be served ---------------------------------------------------------------------------------

    def _haggle(self, client: socket.socket) -> bool:
        client.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTIONS, 3))
        no_zeroes = struct.unpack(">I", _read(client, 4))[0] & 2
        for _ in range(64):
            magic, option, length = struct.unpack(">QII", _read(client, 16))
            if magic != OPTIONS or length > 8192:
                raise _Gone
            data = _read(client, length)
            if option == 1:  # EXPORT_NAME
                if data.decode(errors="replace") not in (self.name, ""):
                    raise _Gone
                client.sendall(struct.pack(">QH", self.size, self.flags) + (b"" if no_zeroes else bytes(124)))
                return True
            if option == 2:  # ABORT
                self._reply(client, option, 1)
                return False
            if option == 3:  # LIST
                name = self.name.encode()
                self._reply(client, option, 2, struct.pack(">I", len(name)) + name)
                self._reply(client, option, 1)
            elif option in (6, 7):  # INFO, GO
                if len(data) < 6 or struct.unpack(">I", data[:4])[0] > len(data) - 6:
                    self._reply(client, option, 0x80000003)
                    continue
                wanted = data[4 : 4 + struct.unpack(">I", data[:4])[0]].decode(errors="replace")
                if wanted not in (self.name, ""):
                    self._reply(client, option, 0x80000006, b"no such export")
                    continue
                self._reply(client, option, 3, struct.pack(">HQH", 0, self.size, self.flags))
                self._reply(client, option, 3, struct.pack(">HIII", 3, 1, 4096, MOST))
                self._reply(client, option, 1)
                if option == 7:
                    return True
            else:
                self._reply(client, option, 0x80000001)
        raise _Gone

    def _reply(self, client: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
        client.sendall(struct.pack(">QIII", REPLY, option, kind, len(data)) + data)

    # --- requests ---------------------------------------------------------------------------------------------

    def _transmit(self, client: socket.socket) -> None:
        while True:
            magic, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _read(client, 28))
            if magic != 0x25609513:
                raise _Gone
            if kind == DISCONNECT:
                return
            if kind in (READ, WRITE) and length > MOST:
                raise _Gone
            data = _read(client, length) if kind == WRITE else b""
            error, answer = self._perform(kind, flags, offset, length, data)
            client.sendall(struct.pack(">IIQ", 0x67446698, error, handle) + answer)

    def _perform(self, kind: int, flags: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
        """(error as the protocol numbers it, what was read)."""
        if kind != FLUSH and (offset > self.size or length > self.size - offset):
            return (28 if kind in (WRITE, ZEROES) else 22), b""
        if kind in (WRITE, TRIM, ZEROES) and self.readonly:
            return 1, b""
        try:
            if kind == READ:
                return 0, self.node.read(offset, length)
            if kind == WRITE:
                self.node.write(offset, data)
            elif kind == TRIM:
                self.node.trim(offset, length)
            elif kind == ZEROES:
                self.node.write_zeroes(offset, length, not flags & NO_HOLE)
            elif kind != FLUSH:
                return 22, b""
            if kind == FLUSH or flags & FUA:
                self.node.sync()
            return 0, b""
        except OSError as error:
            return (28 if error.errno == 28 else 5), b""


def _read(client: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = client.recv(min(count - len(data), 1 << 20))
        if not piece:
            raise _Gone
        data += piece
    return bytes(data)
