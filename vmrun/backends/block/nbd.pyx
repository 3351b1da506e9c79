"""A network block device as a node: newstyle, fixed, without TLS; unix sockets and TCP.

Ref: the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md). One request at a time on a connection; where the
server allows several connections to one export, up to four. A server that goes away is an I/O error; nothing is tried
again. Where the server has structured replies it is asked for them, and for the context "base:allocation": what is a hole
there is one here. `x-dirty-bitmap` names another context, whose first bit then says what is no data, as with QEMU.
"""

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EINVAL, EIO, ENOSPC, EPERM, EROFS, ESHUTDOWN, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import os
import struct
from time import monotonic, sleep

from accel.api cimport u8, u16, u32, u64
from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)
from vmrun.backends.block.node cimport (
    EXTENT_ALLOCATED, EXTENT_DATA, EXTENT_HOLE, EXTENT_OFFSET, EXTENT_ZERO, NODE_FUA, NODE_NOWAIT, NODE_UNMAP, Cursor,
    Extent, Node, cursor_fill, cursor_get, cursor_put,
)

from vmrun.backends.block.errors import ImageError

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int, const void *, size_t, int)
    ssize_t recv(int, void *, size_t, int)
    int MSG_NOSIGNAL
    int MSG_WAITALL

cdef extern from "<endian.h>" nogil:
    u64 htobe64(u64)
    u32 htobe32(u32)
    u16 htobe16(u16)
    u64 be64toh(u64)
    u32 be32toh(u32)
    u16 be16toh(u16)

cdef enum:
    MOST_CONNECTIONS = 4
    PATIENCE = 2                 # seconds for a further connection
    WINDOW = 1 << 20
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    ZEROES = 6
    STATUS = 7
    # of requests
    FUA = 1
    NO_HOLE = 2
    REQ_ONE = 8
    # replies: a simple one, or chunks up to one with DONE
    SIMPLE = 0x67446698
    CHUNK = 0x668E33EF
    DONE = 1
    CHUNK_NONE = 0
    CHUNK_DATA = 1
    CHUNK_HOLE = 2
    CHUNK_STATUS = 5
    CHUNK_ERROR = 0x8000         # and above
    MOST_TOLD = 1 << 16          # bytes of a chunk that is not data
    MOST_ASKED = 1 << 30         # bytes whose status is asked for at once
    # of what the status tells
    HOLE = 1
    ZERO = 2
    # transmission flags
    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    SEND_TRIM = 32
    SEND_ZEROES = 64
    MULTI_CONN = 256


cdef int send_all(int fd, const u8 *data, u64 count) noexcept nogil:
    cdef ssize_t sent
    while count:
        sent = send(fd, data, count, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EINTR:
                continue
            return errno
        data += sent
        count -= <u64>sent
    return 0


cdef int receive_all(int fd, u8 *data, u64 count) noexcept nogil:
    cdef ssize_t got
    while count:
        got = recv(fd, data, count, MSG_WAITALL)
        if got == 0:
            return ECONNRESET
        if got < 0:
            if errno == EINTR:
                continue
            return errno
        data += got
        count -= <u64>got
    return 0


cdef int skip_all(int fd, u32 count) noexcept nogil:
    cdef u8 nowhere[256]
    cdef u32 part
    cdef int error = 0
    while count and error == 0:
        part = min(count, <u32>256)
        error = receive_all(fd, nowhere, part)
        count -= part
    return error


cdef u64 wide(const u8 *data) noexcept nogil:
    cdef u64 value
    memcpy(&value, data, 8)
    return be64toh(value)


cdef u32 word(const u8 *data) noexcept nogil:
    cdef u32 value
    memcpy(&value, data, 4)
    return be32toh(value)


cdef u16 half(const u8 *data) noexcept nogil:
    cdef u16 value
    memcpy(&value, data, 2)
    return be16toh(value)


ctypedef struct Request:
    int kind
    u64 offset
    u32 length
    u8 *data                    # what is written, or room for what is read
    Extent *found               # of STATUS
    u64 handle
    u32 error                   # the server's
    u64 came                    # bytes that were read


cdef class NbdNode(Node):
    """`sockets`: connected and in transmission, all to one export; they are the node's from now on. `structured`: replies come
    in chunks; `context`: the number of the one that STATUS tells of, None: there is none. Requests are whole blocks of
    `block` bytes (a power of two), and transfers at most `most`: what is no whole block is read, changed and written.
    """

    cdef int fds[MOST_CONNECTIONS]
    cdef bint busy[MOST_CONNECTIONS]
    cdef u32 count
    cdef u32 flags
    cdef bint lost
    cdef bint structured, asks
    cdef u32 context
    cdef readonly u64 block
    cdef u64 window              # bytes of a transfer
    cdef pthread_mutex_t whole   # where blocks are larger than a byte: one writes
    cdef u64 handle
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t idle
    cdef readonly str path
    cdef list sockets

    def __init__(
        self, list sockets, u64 size, u32 flags, bint readonly, str name, bint structured=False, context=None, u64 block=1,
        u64 most=WINDOW,
    ):
        self.driver, self.path, self.sockets = "nbd", name, sockets
        self.size, self.flags = size & ~(block - 1), flags
        self.block = block
        self.window = max(min(most, <u64>WINDOW) & ~(block - 1), block)
        self.readonly = readonly or flags & READ_ONLY != 0
        self.structured, self.asks = structured, structured and context is not None
        self.context = context or 0
        self.count = min(len(sockets), MOST_CONNECTIONS)
        for n in range(self.count):
            self.fds[n] = sockets[n].fileno()
        pthread_mutex_init(&self.mutex, NULL)
        pthread_mutex_init(&self.whole, NULL)
        pthread_cond_init(&self.idle, NULL)

    def shut(self):
        cdef u8 header[28]
        cdef Request request
        memset(&request, 0, sizeof(request))
        request.kind = DISCONNECT
        sockets, self.sockets = self.sockets, []
        for n, socket in enumerate(sockets):
            put_header(header, &request, 0)
            if not self.lost:
                send_all(self.fds[n], header, 28)
            socket.close()

    cdef int exchange(self, int kind, u32 flags, u64 offset, u32 length, u8 *data, Extent *found) noexcept nogil:
        """One request and its reply, with `length` bytes in `data` for reads and writes."""
        cdef u8 header[28]
        cdef Request request
        cdef u32 n
        cdef int error
        memset(&request, 0, sizeof(request))
        request.kind, request.offset, request.length, request.data, request.found = kind, offset, length, data, found
        pthread_mutex_lock(&self.mutex)
        while True:
            if self.lost:
                pthread_mutex_unlock(&self.mutex)
                return EIO
            n = 0
            while n < self.count and self.busy[n]:
                n += 1
            if n < self.count:
                break
            pthread_cond_wait(&self.idle, &self.mutex)
        self.busy[n] = True
        self.handle += 1
        request.handle = self.handle
        pthread_mutex_unlock(&self.mutex)
        put_header(header, &request, flags)
        error = send_all(self.fds[n], header, 28)
        if error == 0 and kind == WRITE:
            error = send_all(self.fds[n], data, length)
        if error == 0:
            error = self.answer(self.fds[n], &request)
        pthread_mutex_lock(&self.mutex)
        self.busy[n] = False
        if error:
            self.lost = True
            pthread_cond_broadcast(&self.idle)              # nobody's turn comes any more
        else:
            pthread_cond_signal(&self.idle)
        pthread_mutex_unlock(&self.mutex)
        if error:
            return EIO
        if request.error == 0:
            return 0
        return <int>request.error if request.error in (EPERM, EIO, EINVAL, ENOSPC, ESHUTDOWN, EROFS) else EIO

    cdef int answer(self, int fd, Request *request) noexcept nogil:
        """Read the whole reply. Not 0: the server says what makes no sense, or has gone."""
        cdef u8 head[20]
        cdef int error = 0
        cdef u32 flags
        while error == 0:
            error = receive_all(fd, head, 16)
            if error:
                break
            if wide(head + 8) != request.handle:
                return EIO
            if word(head) == SIMPLE:
                request.error = word(head + 4)
                if request.error or request.kind not in (READ, STATUS):
                    return 0
                return receive_all(fd, request.data, request.length) if request.kind == READ and not self.structured else EIO
            if word(head) != CHUNK or not self.structured:
                return EIO
            error = receive_all(fd, head + 16, 4)
            flags = half(head + 4)
            if error == 0:
                error = self.chunk(fd, request, half(head + 6), word(head + 16))
            if flags & DONE:
                break
        if error or request.error:
            return error
        if request.kind == READ and request.came != request.length or request.kind == STATUS and not request.came:
            return EIO
        return 0

    cdef int chunk(self, int fd, Request *request, u32 kind, u32 size) noexcept nogil:
        """A chunk of `size` bytes. They may come in any order, and are the server's: nothing goes beyond what was asked for."""
        cdef u8 head[12]
        cdef u64 at
        cdef u32 part
        cdef int error
        if kind == CHUNK_NONE:
            return EIO if size else 0
        if kind == CHUNK_DATA or kind == CHUNK_HOLE:
            if request.kind != READ or (size <= 8 if kind == CHUNK_DATA else size != 12):
                return EIO
            error = receive_all(fd, head, 8 if kind == CHUNK_DATA else 12)
            if error:
                return error
            part = size - 8 if kind == CHUNK_DATA else word(head + 8)
            at = wide(head) - request.offset                # beyond `length`, too, where it is before `offset`
            if at > request.length or part > request.length - at or request.came + part > request.length:
                return EIO
            request.came += part
            if kind == CHUNK_DATA:
                return receive_all(fd, request.data + at, part)
            memset(request.data + at, 0, part)
            return 0
        if size > MOST_TOLD:
            return EIO
        if kind == CHUNK_STATUS:
            if request.kind != STATUS or size < 12 or (size - 4) & 7:
                return EIO
            error = receive_all(fd, head, 12)
            if error:
                return error
            part = word(head + 4)
            if word(head) == self.context:
                if part == 0:
                    return EIO
                request.came = min(part, request.length)
                request.found.length = request.came
                request.found.flags = told(word(head + 8))
            return skip_all(fd, size - 12)
        if kind < CHUNK_ERROR or size < 6:
            return EIO
        error = receive_all(fd, head, 6)
        if error:
            return error
        request.error = word(head) or EIO
        return skip_all(fd, size - 6)

    cdef u8 *room(self, u64 bytes) noexcept nogil:
        """Memory for a transfer, zeroed: of what is read the server may leave something out."""
        return <u8 *>calloc(1, self.window if bytes + 2 * self.block > self.window else bytes + 2 * self.block)

    cdef u64 until(self, u64 offset, u64 bytes) noexcept nogil:
        """The end of the blocks of the next transfer."""
        return min((offset & -self.block) + self.window, (offset + bytes + self.block - 1) & -self.block)

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef u8 *memory
        cdef u64 step, first, end
        cdef int error = 0
        if flags & NODE_NOWAIT:
            return EAGAIN
        memory = self.room(bytes)
        if memory == NULL:
            return EIO
        while bytes and error == 0:
            if offset >= self.size:
                cursor_fill(to, bytes)
                break
            first, end = offset & -self.block, self.until(offset, min(bytes, self.size - offset))
            step = min(end - offset, bytes)
            error = self.exchange(READ, 0, first, <u32>(end - first), memory, NULL)
            if error == 0:
                cursor_put(to, memory + (offset - first), step)
            offset += step
            bytes -= step
        free(memory)
        return error

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef u8 *memory
        cdef u64 step, first, end
        cdef int error = 0
        cdef u32 how = FUA if flags & NODE_FUA and self.flags & SEND_FUA else 0
        if self.asleep:
            return EPERM
        if self.readonly or offset > self.size or bytes > self.size - offset:
            return EIO
        memory = self.room(bytes)
        if memory == NULL:
            return EIO
        if self.block > 1:
            pthread_mutex_lock(&self.whole)
        while bytes and error == 0:
            first, end = offset & -self.block, self.until(offset, bytes)
            step = min(end - offset, bytes)
            if offset > first:
                error = self.exchange(READ, 0, first, <u32>self.block, memory, NULL)
            if error == 0 and offset + step < end and (offset == first or end - first > self.block):
                error = self.exchange(READ, 0, end - self.block, <u32>self.block, memory + (end - self.block - first), NULL)
            cursor_get(source, memory + (offset - first), step)
            if error == 0:
                error = self.exchange(WRITE, how, first, <u32>(end - first), memory, NULL)
            offset += step
            bytes -= step
        if self.block > 1:
            pthread_mutex_unlock(&self.whole)
        free(memory)
        if error == 0 and flags & NODE_FUA and not how:
            error = self.flush()
        return error

    cdef int flush(self) noexcept nogil:
        if self.readonly or not self.flags & SEND_FLUSH:
            return 0
        return self.exchange(FLUSH, 0, 0, 0, NULL, NULL)

    cdef int whole_blocks(self, int kind, u32 flags, u64 offset, u64 end) noexcept nogil:
        """TRIM or ZEROES of whole blocks."""
        cdef u64 step
        cdef int error = 0
        while offset < end and error == 0:
            step = min(end - offset, <u64>1 << 30)
            error = self.exchange(kind, flags, offset, <u32>step, NULL, NULL)
            offset += step
        return error

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        if self.readonly or self.asleep or not self.flags & SEND_TRIM:
            return 0
        return self.whole_blocks(TRIM, 0, (offset + self.block - 1) & -self.block, (offset + bytes) & -self.block)

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef u64 first = (offset + self.block - 1) & -self.block, end = (offset + bytes) & -self.block
        cdef int error = 0
        if self.readonly or self.asleep:
            return EPERM if self.asleep else EIO
        if not self.flags & SEND_ZEROES or first >= end:
            return Node.zero(self, offset, bytes, flags)
        if first > offset:
            error = Node.zero(self, offset, first - offset, 0)
        if error == 0 and end < offset + bytes:
            error = Node.zero(self, end, offset + bytes - end, 0)
        if error == 0:
            error = self.whole_blocks(ZEROES, 0 if flags & NODE_UNMAP else NO_HOLE, first, end)
        if error == 0 and flags & NODE_FUA:
            error = self.flush()
        return error

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        cdef u64 first = offset & -self.block, most
        cdef int error
        found.length, found.flags = bytes, EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET
        if offset >= self.size:
            found.host, found.flags = offset, EXTENT_ZERO | EXTENT_ALLOCATED
            return 0
        found.host, found.length = offset, min(bytes, self.size - offset)
        if not self.asks:
            return 0
        most = found.length
        bytes = min((offset + most + self.block - 1 & -self.block) - first, <u64>MOST_ASKED)
        error = self.exchange(STATUS, REQ_ONE, first, <u32>bytes, NULL, found)
        if error == 0 and found.length <= offset - first:
            return EIO                                      # less than a block
        found.length = min(found.length - (offset - first), most)
        return error


cdef void put_header(u8 *data, const Request *request, u32 flags) noexcept nogil:
    cdef u32 magic = htobe32(0x25609513), length = htobe32(request.length)
    cdef u16 how = htobe16(<u16>flags), kind = htobe16(<u16>request.kind)
    cdef u64 handle = htobe64(request.handle), offset = htobe64(request.offset)
    memcpy(data, &magic, 4)
    memcpy(data + 4, &how, 2)
    memcpy(data + 6, &kind, 2)
    memcpy(data + 8, &handle, 8)
    memcpy(data + 16, &offset, 8)
    memcpy(data + 24, &length, 4)


cdef u32 told(u32 flags) noexcept nogil:
    """EXTENT_… of what the status tells. What is a hole and not said to be zeros is read like data."""
    if flags & HOLE:
        return EXTENT_ALLOCATED | (EXTENT_ZERO | EXTENT_OFFSET if flags & ZERO else EXTENT_DATA | EXTENT_HOLE)
    return EXTENT_ALLOCATED | EXTENT_OFFSET | EXTENT_DATA | (EXTENT_ZERO if flags & ZERO else 0)


# --- connecting -----------------------------------------------------------------------------------------------

OPTIONS, REPLY = 0x49484156454F5054, 0x0003E889045565A9
NO_ZEROES = 2
UNKNOWN = 0x80000006
EXPORT_NAME, GO, STRUCTURED, SET_CONTEXT = 1, 7, 8, 10                          # options
ACK, INFO, META_CONTEXT, UNSUPPORTED = 1, 3, 4, 0x80000001                      # replies to them
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
FIXED = 1
OLD = 0x00420281861253                                                          # in place of OPTIONS
ALLOCATION = "base:allocation"


def open_nbd(str name, bint readonly):
    """`nbd://host:port/export`, `nbd+unix:///export?socket=path`, `nbd:host:port[:exportname=x]`, `nbd:unix:path…`."""
    try:
        return _named(name, readonly)
    except ImageError as error:
        raise ImageError(f"Could not open '{name}': {error.text}") from None


def _named(str name, bint readonly):
    from urllib.parse import parse_qs, unquote, urlsplit

    if name.startswith(("nbd://", "nbd+tcp://", "nbd+unix://")):
        parts = urlsplit(name)
        export = unquote(parts.path.lstrip("/"))
        if name.startswith("nbd+unix"):
            paths = parse_qs(parts.query).get("socket")
            if not paths:
                raise ImageError(f"no `socket` in the address")
            return connect(paths[0], export, readonly, name)
        try:
            port = parts.port or 10809
        except ValueError:
            raise ImageError(f"Invalid URI") from None
        return connect((parts.hostname or "localhost", port), export, readonly, name)
    text, _, export = name.removeprefix("nbd:").partition(":exportname=")
    if text.startswith("unix:"):
        return connect(text[5:], export, readonly, name)
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise ImageError(f"the address has no port")
    return connect((host.strip("[]") or "localhost", int(port)), export, readonly, name)


def open_nbd_options(dict options, bint readonly):
    """The options of a -blockdev: server.type, .path or .host and .port; export, x-dirty-bitmap."""
    server = options.get("server", options)
    export = str(options.get("export", ""))
    context = str(options.get("x-dirty-bitmap", "")) or ALLOCATION
    if not isinstance(server, dict):
        raise ImageError("Invalid parameter type for 'server', expected: object")
    if server.get("type", "inet") not in ("inet", "unix"):
        raise ImageError(f"Parameter 'server.type' does not accept value '{server['type']}'; inet and unix are modelled")
    if "path" in server and "host" in server:
        raise ImageError("path and host may not be used at the same time")
    if "path" in server:
        return connect(str(server["path"]), export, readonly, f"nbd+unix:///{export}?socket={server['path']}", context)
    if "host" not in server:
        raise ImageError("NBD server address missing")
    address = (str(server["host"]), server.get("port", 10809))
    return connect(address, export, readonly, f"nbd://{address[0]}:{address[1]}/{export}", context)


def connect(address, str export, bint readonly, str name, str context=ALLOCATION):
    """`address`: a path, or (host, port); the port may be text. `context`: what block status tells of. ImageError."""
    sockets = []
    told = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    if not isinstance(address, str):
        if not str(address[1]).isdigit() or not 0 < int(address[1]) < 65536:
            raise ImageError(f"address resolution failed for {told}: the port is no number")
        address = (address[0], int(address[1]))
    try:
        socket, *told_of = negotiate(address, export, context)
        size, flags, structured, number, block, most = told_of
        sockets.append(socket)
        if number is None and context != ALLOCATION:
            raise ImageError(f"requested x-dirty-bitmap {context} not found")
        try:
            while flags & MULTI_CONN and len(sockets) < MOST_CONNECTIONS:
                socket, *again = negotiate(address, export, context, PATIENCE)
                sockets.append(socket)
                if again != told_of:                        # another export by now
                    sockets.pop().close()
                    break
        except (OSError, ImageError):
            pass                                            # the server has had enough: those there are do
        if not readonly and flags & READ_ONLY:
            raise ImageError(f"request for write access denied")
        return NbdNode(sockets, size, flags, readonly, name, structured, number, block, most)
    except BaseException as error:
        for socket in sockets:
            socket.close()
        if isinstance(error, (OSError, struct.error)):
            why = getattr(error, "strerror", None) or str(error) or "the server says something else"
            raise ImageError(f"Failed to connect to '{told}': {why}") from None
        raise


def negotiate(address, str export, str context, int seconds=30):
    """(socket, size, transmission flags, whether replies are structured, the context's number or None, the bytes of a block,
    the most of a transfer) of an export.
    """
    import socket as sockets

    if isinstance(address, str):
        found = sockets.socket(sockets.AF_UNIX)
        found.settimeout(seconds)
        try:
            _connect(found, address, monotonic() + seconds)
        except BaseException:
            found.close()
            raise
    else:
        found = sockets.create_connection(address, seconds)
        found.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
    try:
        found.settimeout(seconds)
        terms = _haggle(found, export, context)
        found.settimeout(None)
        return found, *terms
    except BaseException:
        found.close()
        raise


def _connect(socket, str path, double end):
    """A server whose queue is full is asked again until `end`: with a time limit the kernel does not wait for it."""
    while True:
        try:
            return socket.connect(path)
        except BlockingIOError:
            if monotonic() > end:
                raise
        sleep(0.01)


def _read(socket, count):
    data = b""
    while len(data) < count:
        piece = socket.recv(min(count - len(data), 65536))
        if not piece:
            raise OSError(ECONNRESET, "the server ends the conversation")
        data += piece
    return data


def _ask(socket, int option, bytes body):
    socket.sendall(struct.pack(">QII", OPTIONS, option, len(body)) + body)


def _answer(socket):
    """(kind, data) of one reply to an option."""
    magic, _, kind, length = struct.unpack(">QIII", _read(socket, 20))
    if magic != REPLY or length > 1 << 16:
        raise OSError(EINVAL, "the server's answer is not one")
    return kind, _read(socket, length)


def _context(socket, bytes name, str context):
    """The number of a context; None: the server does not know it."""
    query = context.encode()
    _ask(socket, SET_CONTEXT, struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(query)) + query)
    number = None
    for _ in range(64):
        kind, data = _answer(socket)
        if kind == META_CONTEXT and data[4:] == query:
            number = struct.unpack(">I", data[:4])[0]
        elif kind != META_CONTEXT:
            return number if kind == ACK else None
    raise OSError(EINVAL, "the server does not come to an end")


def _haggle(socket, str export, str context):
    """What `negotiate` gives, without the socket."""
    magic, kind = struct.unpack(">8sQ", _read(socket, 16))
    if magic == b"NBDMAGIC" and kind == OLD:
        size, flags = struct.unpack(">QI", _read(socket, 12))
        _read(socket, 124)
        if export:
            raise ImageError("Server does not support non-empty export names")
        return size, flags & 0xFFFF, False, None, 1, WINDOW
    if magic != b"NBDMAGIC" or kind != OPTIONS:
        raise OSError(EINVAL, "not a server of the newstyle protocol")
    (flags,) = struct.unpack(">H", _read(socket, 2))
    no_zeroes = flags & NO_ZEROES
    socket.sendall(struct.pack(">I", flags & (FIXED | NO_ZEROES)))
    name = export.encode()
    if not flags & FIXED:                                                       # it knows no other option
        return *_by_name(socket, name, no_zeroes), False, None, 1, WINDOW
    _ask(socket, STRUCTURED, b"")
    structured = _answer(socket)[0] == ACK
    number = _context(socket, name, context) if structured else None
    _ask(socket, GO, struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, INFO_BLOCK_SIZE))
    size, block, most = None, 1, WINDOW
    for _ in range(64):
        kind, data = _answer(socket)
        what = struct.unpack(">H", data[:2])[0] if kind == INFO and len(data) >= 2 else None
        if what == INFO_EXPORT and len(data) >= 12:
            size, transmission = struct.unpack(">QH", data[2:12])
        elif what == INFO_BLOCK_SIZE and len(data) >= 14:
            block, _, most = struct.unpack(">III", data[2:14])
            if not 0 < block <= 1 << 16 or block & (block - 1) or most < block:
                raise ImageError(f"server advertises blocks of {block} bytes, at most {most}: they make no sense")
        elif kind == ACK:
            if size is None:
                raise OSError(EINVAL, "the server tells no size")
            return size, transmission, structured, number, block, most
        elif kind == UNSUPPORTED:                                               # an old server
            return *_by_name(socket, name, no_zeroes), structured, number, 1, WINDOW
        elif kind & 0x80000000:
            text = data.decode(errors="replace")[:4096]
            text = f"\nserver reported: {text}" if text else f": error {kind & 0x7FFFFFFF}" if kind != UNKNOWN else ""
            raise ImageError(f"Requested export not available{text}")
    raise OSError(EINVAL, "the server does not come to an end")


def _by_name(socket, bytes name, bint no_zeroes):
    """(size, transmission flags) by NBD_OPT_EXPORT_NAME: a server that has no such export hangs up."""
    _ask(socket, EXPORT_NAME, name)
    size, flags = struct.unpack(">QH", _read(socket, 10))
    if not no_zeroes:
        _read(socket, 124)
    return size, flags
