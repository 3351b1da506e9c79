"""The other end of network block devices: exports of disks to NBD clients.

Ref: the NBD protocol, newstyle and fixed; simple and structured replies; NBD_OPT_EXPORT_NAME, LIST, INFO, GO,
STRUCTURED_REPLY, STARTTLS, LIST_META_CONTEXT and SET_META_CONTEXT with base:allocation, qemu:allocation-depth and
qemu:dirty-bitmap:NAME. Without TLS: a unix socket, or a network one trusts. A thread for each client; a client's sizes
and offsets are checked before anything is done.
"""

from __future__ import annotations

import struct
from functools import partial

from vmrun.backends.block.chain import seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

OPTIONS, REPLY = 0x49484156454F5054, 0x0003E889045565A9
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_CONTEXTS, SET_CONTEXTS = 1, 2, 3, 5, 6, 7, 8, 9, 10
DONE, SERVER, INFORMATION, CONTEXT = 1, 2, 3, 4  # answers to options
UNSUPPORTED, POLICY, INVALID, TLS_REQUIRED, UNKNOWN = 0x80000001, 0x80000002, 0x80000003, 0x80000005, 0x80000006
BLOCKS_REQUIRED = 0x80000008
READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, ZEROES, STATUS = 0, 1, 2, 3, 4, 5, 6, 7
FUA, NO_HOLE, WHOLE, ONE = 1, 2, 4, 8
LAST = 1  # of a chunk: the answer's end
NONE, DATA, HOLES, EXTENTS, FAILED = 0, 1, 2, 5, 0x8001  # chunks
HOLE, ZERO, DIRTY = 1, 2, 1  # flags of extents
ALLOCATION, DEPTH, BITMAP = "base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:"
MOST = 32 << 20  # bytes of a request
AHEAD = 1 << 20  # bytes that are read at a time to have them at hand
MOST_EXTENTS = 2048  # of an answer
MOST_CHUNKS = 256  # of what is read
MOST_CONTEXTS = 16  # of a client
PATIENCE = 30  # seconds, for a client's part of the handshake


class _Gone(Exception):
    """The client has left, or says what is not the protocol."""


class Client:
    """What one of them has been promised."""

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket
        self.structured = False
        self.contexts: list[str] = []  # whose numbers are their places, from 1
        self.of = ""  # the export that they were chosen for
        self.encrypted = False

    def reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self.socket.sendall(struct.pack(">QIII", REPLY, option, kind, len(data)) + data)

    def answer(self, handle: int, error: int, data: bytes = b"") -> None:
        """A simple one; a client that wants structured ones takes it for all but what it reads."""
        self.socket.sendall(struct.pack(">IIQ", 0x67446698, error, handle) + data)

    def chunk(self, handle: int, kind: int, data: bytes, last: bool = True) -> None:
        head = struct.pack(">IHHQI", 0x668E33EF, LAST if last else 0, kind, handle, len(data))
        self.socket.sendall(head + data)


class Export:
    """One disk: a node, or anything with its read, write, trim, write_zeroes and sync. look(offset, count): as
    chain.seen, which it is for a node. `bitmaps`: name → what clients may ask of.
    """

    def __init__(
        self,
        node: Any,
        name: str,
        readonly: bool,
        others: dict[str, Export] | None = None,
        bitmaps: dict[str, Any] | None = None,
        look: Callable[[int, int], tuple[int, bool, bool]] | None = None,
        tls: Any = None,
    ) -> None:
        """`others`: all exports by their names, this one too; None: this one, which the empty name is, too. `tls`: the
        server's SSLContext, or one with `allows` (objects/tls.py): nobody is told anything in the clear.
        """
        self.node, self.name, self.readonly, self.others = node, name, readonly, others
        self.bitmaps = bitmaps or {}
        self.description = ""
        self.clients: set[socket.socket] = set()  # in transmission
        self.alone = False  # one client at a time, who had better not try a second connection
        self.look = look or partial(seen, node)
        self.depth: Callable[[int, int], tuple[int, int]] | None = None  # as chain.deep, where clients may ask it
        self.block = 1  # bytes that clients who ask are told to keep to
        self.detect_zeroes = ""  # "on", "unmap": what is written as zeros is not stored
        self.tls = tls
        self.size = node.size
        self.served = False

    def flags(self, client: Client) -> int:
        """Has flags, flush, FUA, cache; several connections; whole answers; read-only, or trim and zeroes."""
        return (
            (1 | 4 | 8 | 1024)
            | (0 if self.alone else 256)
            | (128 if client.structured else 0)
            | (2 if self.readonly else 32 | 64)
        )

    def talk(self, client: socket.socket) -> None:
        """All of a client's conversation."""
        who = Client(client)
        try:
            chosen = self._haggle(who)
            if chosen is not None:
                chosen.clients.add(client)
                try:
                    chosen._transmit(who)
                finally:
                    chosen.clients.discard(client)
        except (OSError, _Gone, struct.error):
            pass
        finally:
            self.served = True
            who.socket.close()
            client.close()

    # --- what is to be served ---------------------------------------------------------------------------------

    def _find(self, name: str) -> Export | None:
        if self.others is None:
            return self if name in (self.name, "") else None
        return self.others.get(name)

    def _haggle(self, client: Client) -> Export | None:
        client.socket.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTIONS, 3))
        no_zeroes = struct.unpack(">I", _read(client.socket, 4))[0] & 2
        for _ in range(64):
            magic, option, length = struct.unpack(">QII", _read(client.socket, 16))
            if magic != OPTIONS or length > 8192:
                raise _Gone
            data = _read(client.socket, length)
            if self.tls is not None and not client.encrypted and option not in (STARTTLS, ABORT):
                if option == EXPORT_NAME:
                    raise _Gone
                client.reply(option, TLS_REQUIRED, f"Option {option:#x} not permitted before TLS".encode())
            elif option == EXPORT_NAME:
                found = self._find(data.decode(errors="replace"))
                if found is None:
                    raise _Gone
                client.socket.sendall(
                    struct.pack(">QH", found.size, found.flags(client)) + (b"" if no_zeroes else bytes(124))
                )
                return found._for(client)
            elif option == ABORT:
                client.reply(option, DONE)
                return None
            elif option == STARTTLS:
                self._encrypt(client, data)
            elif option == LIST:
                for each in [self] if self.others is None else list(self.others.values()):
                    name = each.name.encode()
                    client.reply(option, SERVER, struct.pack(">I", len(name)) + name + each.description.encode())
                client.reply(option, DONE)
            elif option in (INFO, GO):
                found = self._wanted(client, option, _text(data, 0)[0] if len(data) >= 6 else None)
                if found is None:
                    continue
                knows = _asks_blocks(data)
                client.reply(option, INFORMATION, struct.pack(">HQH", 0, found.size, found.flags(client)))
                if found.description:
                    client.reply(option, INFORMATION, struct.pack(">H", 2) + found.description.encode())
                least = found.block if knows else 1  # who does not ask for it need not keep to it
                client.reply(option, INFORMATION, struct.pack(">HIII", 3, least, 4096, MOST))
                if option == INFO and found.block > 1 and not knows:
                    client.reply(option, BLOCKS_REQUIRED, b"request NBD_INFO_BLOCK_SIZE to use this export")
                    continue
                client.reply(option, DONE)
                if option == GO:
                    return found._for(client)
            elif option == STRUCTURED:
                client.structured = not data
                client.reply(option, INVALID if data else DONE)
            elif option in (LIST_CONTEXTS, SET_CONTEXTS):
                self._contexts(client, option, data)
            else:
                client.reply(option, UNSUPPORTED)
        raise _Gone

    def _encrypt(self, client: Client, data: bytes) -> None:
        if self.tls is None:
            client.reply(STARTTLS, POLICY, b"TLS not configured")
            return
        if data or client.encrypted:
            client.reply(STARTTLS, INVALID)
            return
        client.reply(STARTTLS, DONE)
        raw = client.socket.dup()  # who ends the server shuts the other one
        try:
            raw.settimeout(PATIENCE)
            secret = self.tls.wrap_socket(raw, server_side=True)
        except (OSError, ValueError):
            raw.close()
            raise _Gone from None
        client.socket, client.encrypted, client.structured, client.contexts = secret, True, False, []
        secret.settimeout(None)
        allows = getattr(self.tls, "allows", None)
        if allows is not None:
            from vmrun.core.x509 import subject

            if not allows(subject(secret.getpeercert())):
                raise _Gone

    def _wanted(self, client: Client, option: int, name: str | None) -> Export | None:
        """The export that the client names; None: it was told that there is none."""
        if name is None:
            client.reply(option, INVALID)
            return None
        found = self._find(name)
        if found is None:
            short = name if len(name) <= 80 else f"{name[:80]}..."
            client.reply(option, UNKNOWN, f"export '{short}' not present".encode())
        return found

    def _for(self, client: Client) -> Export:
        if client.of != self.name:
            client.contexts = []  # they were another's
        return self

    def _contexts(self, client: Client, option: int, data: bytes) -> None:
        """What a client may ask of with block-status, or wants to."""
        name, at = _text(data, 0)
        queries = []
        if name is not None and len(data) >= at + 4:
            (count,) = struct.unpack_from(">I", data, at)
            at += 4
            for _ in range(min(count, 256)):
                query, at = _text(data, at)
                queries.append(query)
        if name is None or None in queries or at != len(data) or option == SET_CONTEXTS and not client.structured:
            client.reply(option, INVALID)
            return
        found = self._wanted(client, option, name)
        if found is None:
            return
        depth = [DEPTH] if found.depth is not None else []
        there = [ALLOCATION, *depth, *(BITMAP + bitmap for bitmap in found.bitmaps)]
        if option == LIST_CONTEXTS:
            parts = tuple(query for query in queries if query in ("base:", "qemu:", BITMAP))
            chosen = [one for one in there if not queries or one in queries or one.startswith(parts)]
        else:
            chosen = [one for one in there if one in queries][:MOST_CONTEXTS]
            client.contexts, client.of = chosen, found.name
        for number, context in enumerate(chosen, 1):
            client.reply(option, CONTEXT, struct.pack(">I", number) + context.encode())
        client.reply(option, DONE)

    # --- requests ---------------------------------------------------------------------------------------------

    def _transmit(self, client: Client) -> None:
        while True:
            magic, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _read(client.socket, 28))
            if magic != 0x25609513:
                raise _Gone
            if kind == DISCONNECT:
                return
            if kind in (READ, WRITE) and length > MOST:
                raise _Gone
            data = _read(client.socket, length) if kind == WRITE else b""
            if kind == STATUS:
                self._status(client, flags, handle, offset, length)
                continue
            if kind == READ and client.structured and not flags & WHOLE and length and offset + length <= self.size:
                self._pieces(client, flags, handle, offset, length)
                continue
            error, answer = self._perform(kind, flags, offset, length, data)
            if kind != READ or not client.structured:
                client.answer(handle, error, answer)
            elif error:
                client.chunk(handle, FAILED, struct.pack(">IH", error, 0))
            elif length:
                client.chunk(handle, DATA, struct.pack(">Q", offset) + answer)
            else:
                client.chunk(handle, NONE, b"")

    def _pieces(self, client: Client, flags: int, handle: int, offset: int, length: int) -> None:
        """What is read, without what reads as zeros."""
        end, sent = offset + length, 0
        while offset < end:
            count, zero = end - offset, False
            if sent < MOST_CHUNKS:
                try:
                    count, _, zero = self.look(offset, end - offset)
                except OSError:
                    pass  # reading tells what is wrong
            count, sent = max(1, min(count, end - offset)), sent + 1
            last = offset + count == end
            if zero:
                client.chunk(handle, HOLES, struct.pack(">QI", offset, count), last)
            else:
                error, data = self._perform(READ, flags, offset, count, b"")
                if error:
                    client.chunk(handle, FAILED, struct.pack(">IH", error, 0))
                    return
                client.chunk(handle, DATA, struct.pack(">Q", offset) + data, last)
            offset += count

    def _status(self, client: Client, flags: int, handle: int, offset: int, length: int) -> None:
        if not client.contexts or not length or offset > self.size or length > self.size - offset:
            client.chunk(handle, FAILED, struct.pack(">IH", 22, 0))
            return
        most = 1 if flags & ONE else MOST_EXTENTS
        try:
            rows = [self._extents(context, offset, length, most) for context in client.contexts]
        except OSError:
            client.chunk(handle, FAILED, struct.pack(">IH", 5, 0))
            return
        for number, found in enumerate(rows, 1):
            data = b"".join(struct.pack(">II", *row) for row in found)
            client.chunk(handle, EXTENTS, struct.pack(">I", number) + data, number == len(rows))

    def _extents(self, context: str, offset: int, length: int, most: int) -> list[tuple[int, int]]:
        """(bytes, flags) from `offset` on, neighbours that are alike as one."""
        found: list[tuple[int, int]] = []
        end = offset + length
        while offset < end:
            if context == ALLOCATION:
                count, allocated, zero = self.look(offset, end - offset)
                flags = (0 if allocated else HOLE) | (ZERO if zero else 0)
            elif context == DEPTH and self.depth is not None:
                count, flags = self.depth(offset, end - offset)
            else:
                count, dirty = self.bitmaps[context.removeprefix(BITMAP)].run(offset, end - offset)
                flags = DIRTY if dirty else 0
            count = max(1, min(count, end - offset))
            if found and found[-1][1] == flags:
                found[-1] = found[-1][0] + count, flags
            elif len(found) == most:
                break
            else:
                found.append((count, flags))
            offset += count
        return found

    def _perform(self, kind: int, flags: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
        """(error as the protocol numbers it, what was read)."""
        if kind != FLUSH and (offset > self.size or length > self.size - offset):
            return (28 if kind in (WRITE, ZEROES) else 22), b""
        if kind in (WRITE, TRIM, ZEROES) and self.readonly:
            return 1, b""
        try:
            if kind == READ:
                return 0, self.node.read(offset, length)
            if kind == WRITE and self.detect_zeroes and data.count(0) == length:
                self.node.write_zeroes(offset, length, self.detect_zeroes == "unmap")
            elif kind == WRITE:
                self.node.write(offset, data)
            elif kind == TRIM:
                self.node.trim(offset, length)
            elif kind == ZEROES:
                self.node.write_zeroes(offset, length, not flags & NO_HOLE)
            elif kind == CACHE:
                for at in range(offset, offset + length, AHEAD):
                    self.node.read(at, min(AHEAD, offset + length - at))  # the host keeps what was read
            elif kind != FLUSH:
                return 22, b""
            if kind == FLUSH or flags & FUA:
                self.node.sync()
            return 0, b""
        except OSError as error:
            return (28 if error.errno == 28 else 5), b""


def listener(host: str, port: int) -> socket.socket:
    """On an address of either family, the older one where a name has both. OSError, UnicodeError, OverflowError."""
    import socket

    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda row: row[0] != socket.AF_INET)
    return socket.create_server(address[:2], family=family)


def _asks_blocks(data: bytes) -> bool:
    """Whether a client wants to know of blocks, as INFO and GO say behind the export's name."""
    _, at = _text(data, 0)
    return any(data[place : place + 2] == b"\0\3" for place in range(at + 2, len(data) - 1, 2))


def _text(data: bytes, at: int) -> tuple[str | None, int]:
    """A text with its length before it, and where it ends; None where there is none."""
    if len(data) < at + 4:
        return None, at
    (length,) = struct.unpack_from(">I", data, at)
    end = at + 4 + length
    return (data[at + 4 : end].decode(errors="replace"), end) if end <= len(data) else (None, at)


def _read(client: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = client.recv(min(count - len(data), 1 << 20))
        if not piece:
            raise _Gone
        data += piece
    return bytes(data)
