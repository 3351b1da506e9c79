"""The other end of network block devices: exports of disks to NBD clients.

Ref: the NBD protocol, newstyle and fixed; simple replies; NBD_OPT_EXPORT_NAME, LIST, INFO, GO. No TLS: a unix socket,
or a network one trusts. A thread for each client; a client's sizes and offsets are checked before anything is done.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

OPTIONS, REPLY = 0x49484156454F5054, 0x0003E889045565A9
READ, WRITE, DISCONNECT, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
FUA, NO_HOLE = 1, 2
MOST = 32 << 20  # bytes of a request


class _Gone(Exception):
    """The client has left, or says what is not the protocol."""


class Export:
    """One disk: a node, or anything with its read, write, trim, write_zeroes and sync."""

    def __init__(self, node: Any, name: str, readonly: bool, others: dict[str, Export] | None = None) -> None:
        """`others`: all exports by their names, this one too; None: this one, which the empty name is, too."""
        self.node, self.name, self.readonly, self.others = node, name, readonly, others
        self.size = node.size
        self.served = False

    @property
    def flags(self) -> int:
        """Has flags, flush, FUA, several connections; read-only, or trim and zeroes."""
        return 1 | 4 | 8 | 256 | (2 if self.readonly else 32 | 64)

    def talk(self, client: socket.socket) -> None:
        """All of a client's conversation."""
        try:
            chosen = self._haggle(client)
            if chosen is not None:
                chosen._transmit(client)
        except (OSError, _Gone, struct.error):
            pass
        finally:
            self.served = True
            client.close()

    # --- what is to be served ---------------------------------------------------------------------------------

    def _find(self, name: str) -> Export | None:
        if self.others is None:
            return self if name in (self.name, "") else None
        return self.others.get(name)

    def _haggle(self, client: socket.socket) -> Export | None:
        client.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTIONS, 3))
        no_zeroes = struct.unpack(">I", _read(client, 4))[0] & 2
        for _ in range(64):
            magic, option, length = struct.unpack(">QII", _read(client, 16))
            if magic != OPTIONS or length > 8192:
                raise _Gone
            data = _read(client, length)
            if option == 1:  # EXPORT_NAME
                found = self._find(data.decode(errors="replace"))
                if found is None:
                    raise _Gone
                client.sendall(struct.pack(">QH", found.size, found.flags) + (b"" if no_zeroes else bytes(124)))
                return found
            if option == 2:  # ABORT
                self._reply(client, option, 1)
                return None
            if option == 3:  # LIST
                for each in [self.name] if self.others is None else list(self.others):
                    name = each.encode()
                    self._reply(client, option, 2, struct.pack(">I", len(name)) + name)
                self._reply(client, option, 1)
            elif option in (6, 7):  # INFO, GO
                if len(data) < 6 or struct.unpack(">I", data[:4])[0] > len(data) - 6:
                    self._reply(client, option, 0x80000003)
                    continue
                wanted = data[4 : 4 + struct.unpack(">I", data[:4])[0]].decode(errors="replace")
                found = self._find(wanted)
                if found is None:
                    self._reply(client, option, 0x80000006, b"no such export")
                    continue
                self._reply(client, option, 3, struct.pack(">HQH", 0, found.size, found.flags))
                self._reply(client, option, 3, struct.pack(">HIII", 3, 1, 4096, MOST))
                self._reply(client, option, 1)
                if option == 7:
                    return found
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
