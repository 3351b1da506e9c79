"""A network block device as a node: newstyle, fixed, without TLS; unix sockets and TCP.

Ref: the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md). One request at a time on a connection; where the
server allows several connections to one export, up to four. A server that goes away is an I/O error; nothing is tried
again. Replies are simple ones: structured replies, and with them block status, are not asked for.
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
    NODE_FUA, NODE_NOWAIT, NODE_UNMAP, Cursor, Extent, Node, cursor_fill, cursor_get, cursor_put,
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
    u32 be32toh(u32)

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
    FUA = 1
    NO_HOLE = 2
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


cdef class NbdNode(Node):
    """`sockets`: connected and in transmission, all to one export; they are the node's from now on."""

    cdef int fds[MOST_CONNECTIONS]
    cdef bint busy[MOST_CONNECTIONS]
    cdef u32 count
    cdef u32 flags
    cdef bint lost
    cdef u64 handle
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t idle
    cdef readonly str path
    cdef list sockets

    def __init__(self, list sockets, u64 size, u32 flags, bint readonly, str name):
        self.driver, self.path, self.sockets = "nbd", name, sockets
        self.size, self.flags = size, flags
        self.readonly = readonly or flags & READ_ONLY != 0
        self.count = min(len(sockets), MOST_CONNECTIONS)
        for n in range(self.count):
            self.fds[n] = sockets[n].fileno()
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.idle, NULL)

    def shut(self):
        cdef u8 header[28]
        sockets, self.sockets = self.sockets, []
        for n, socket in enumerate(sockets):
            self.header(header, DISCONNECT, 0, 0, 0)
            if not self.lost:
                send_all(self.fds[n], header, 28)
            socket.close()

    cdef void header(self, u8 *data, int kind, u32 flags, u64 offset, u32 length) noexcept nogil:
        cdef u32 word = htobe32(0x25609513)
        cdef u16 half = htobe16(<u16>flags)
        cdef u64 wide
        memcpy(data, &word, 4)
        memcpy(data + 4, &half, 2)
        half = htobe16(<u16>kind)
        memcpy(data + 6, &half, 2)
        wide = htobe64(self.handle)
        memcpy(data + 8, &wide, 8)
        wide = htobe64(offset)
        memcpy(data + 16, &wide, 8)
        word = htobe32(length)
        memcpy(data + 24, &word, 4)

    cdef int exchange(self, int kind, u32 flags, u64 offset, u32 length, u8 *data) noexcept nogil:
        """One request and its reply, with `length` bytes in `data` for reads and writes."""
        cdef u8 header[28]
        cdef u8 reply[16]
        cdef u32 n = 0, value
        cdef int error
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
        self.header(header, kind, flags, offset, length)
        pthread_mutex_unlock(&self.mutex)
        error = send_all(self.fds[n], header, 28)
        if error == 0 and kind == WRITE:
            error = send_all(self.fds[n], data, length)
        if error == 0:
            error = receive_all(self.fds[n], reply, 16)
        if error == 0:
            memcpy(&value, reply, 4)
            if be32toh(value) != 0x67446698:
                error = EIO
        value = 0
        if error == 0:
            memcpy(&value, reply + 4, 4)
            value = be32toh(value)
            if not same(reply + 8, header + 8):
                error = EIO
            elif value == 0 and kind == READ:
                error = receive_all(self.fds[n], data, length)
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
        if value == 0:
            return 0
        return <int>value if value in (EPERM, EIO, EINVAL, ENOSPC, ESHUTDOWN, EROFS) else EIO

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef u8 *memory
        cdef u64 step
        cdef int error = 0
        if flags & NODE_NOWAIT:
            return EAGAIN
        memory = <u8 *>malloc(WINDOW if bytes > WINDOW else bytes + 1)
        if memory == NULL:
            return EIO
        while bytes and error == 0:
            if offset >= self.size:
                cursor_fill(to, bytes)
                break
            step = bytes if bytes < WINDOW else WINDOW
            if step > self.size - offset:
                step = self.size - offset
            error = self.exchange(READ, 0, offset, <u32>step, memory)
            if error == 0:
                cursor_put(to, memory, step)
            offset += step
            bytes -= step
        free(memory)
        return error

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef u8 *memory
        cdef u64 step
        cdef int error = 0
        cdef u32 how = FUA if flags & NODE_FUA and self.flags & SEND_FUA else 0
        if self.readonly or offset > self.size or bytes > self.size - offset:
            return EIO
        memory = <u8 *>malloc(WINDOW if bytes > WINDOW else bytes + 1)
        if memory == NULL:
            return EIO
        while bytes and error == 0:
            step = bytes if bytes < WINDOW else WINDOW
            cursor_get(source, memory, step)
            error = self.exchange(WRITE, how, offset, <u32>step, memory)
            offset += step
            bytes -= step
        free(memory)
        if error == 0 and flags & NODE_FUA and not how:
            error = self.flush()
        return error

    cdef int flush(self) noexcept nogil:
        if self.readonly or not self.flags & SEND_FLUSH:
            return 0
        return self.exchange(FLUSH, 0, 0, 0, NULL)

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        cdef u64 step
        cdef int error = 0
        if self.readonly or not self.flags & SEND_TRIM:
            return 0
        while bytes and error == 0:
            step = bytes if bytes < 1 << 30 else 1 << 30
            error = self.exchange(TRIM, 0, offset, <u32>step, NULL)
            offset += step
            bytes -= step
        return error

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef u64 step
        cdef int error = 0
        if self.readonly:
            return EIO
        if not self.flags & SEND_ZEROES:
            return Node.zero(self, offset, bytes, flags)
        while bytes and error == 0:
            step = bytes if bytes < 1 << 30 else 1 << 30
            error = self.exchange(ZEROES, 0 if flags & NODE_UNMAP else NO_HOLE, offset, <u32>step, NULL)
            offset += step
            bytes -= step
        if error == 0 and flags & NODE_FUA:
            error = self.flush()
        return error


cdef bint same(const u8 *one, const u8 *other) noexcept nogil:
    cdef int n
    for n in range(8):
        if one[n] != other[n]:
            return False
    return True


# --- connecting -----------------------------------------------------------------------------------------------

OPTIONS, REPLY = 0x49484156454F5054, 0x0003E889045565A9
NO_ZEROES = 2
UNKNOWN = 0x80000006


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
    """The options of a -blockdev: server.type, .path or .host and .port; export."""
    server = options.get("server", options)
    export = str(options.get("export", ""))
    if not isinstance(server, dict):
        raise ImageError("Invalid parameter type for 'server', expected: object")
    if server.get("type", "inet") not in ("inet", "unix"):
        raise ImageError(f"Parameter 'server.type' does not accept value '{server['type']}'; inet and unix are modelled")
    if "path" in server and "host" in server:
        raise ImageError("path and host may not be used at the same time")
    if "path" in server:
        return connect(str(server["path"]), export, readonly, f"nbd+unix:///{export}?socket={server['path']}")
    if "host" not in server:
        raise ImageError("NBD server address missing")
    address = (str(server["host"]), server.get("port", 10809))
    return connect(address, export, readonly, f"nbd://{address[0]}:{address[1]}/{export}")


def connect(address, str export, bint readonly, str name):
    """`address`: a path, or (host, port); the port may be text. ImageError."""
    sockets = []
    told = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    if not isinstance(address, str):
        if not str(address[1]).isdigit() or not 0 < int(address[1]) < 65536:
            raise ImageError(f"address resolution failed for {told}: the port is no number")
        address = (address[0], int(address[1]))
    try:
        socket, size, flags = negotiate(address, export)
        sockets.append(socket)
        try:
            while flags & MULTI_CONN and len(sockets) < MOST_CONNECTIONS:
                sockets.append(negotiate(address, export, PATIENCE)[0])
        except (OSError, ImageError):
            pass                                            # the server has had enough: those there are do
        if not readonly and flags & READ_ONLY:
            raise ImageError(f"request for write access denied")
        return NbdNode(sockets, size, flags, readonly, name)
    except BaseException as error:
        for socket in sockets:
            socket.close()
        if isinstance(error, (OSError, struct.error)):
            why = getattr(error, "strerror", None) or str(error) or "the server says something else"
            raise ImageError(f"Failed to connect to '{told}': {why}") from None
        raise


def negotiate(address, str export, int seconds=30):
    """(socket, size, transmission flags) of an export."""
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
        size, flags = _haggle(found, export)
        found.settimeout(None)
        return found, size, flags
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


def _haggle(socket, str export):
    magic, kind, flags = struct.unpack(">8sQH", _read(socket, 18))
    if magic != b"NBDMAGIC" or kind != OPTIONS:
        raise OSError(EINVAL, "not a server of the newstyle protocol")
    no_zeroes = flags & NO_ZEROES
    socket.sendall(struct.pack(">I", 1 | no_zeroes))
    name = export.encode()
    body = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    socket.sendall(struct.pack(">QII", OPTIONS, 7, len(body)) + body)           # NBD_OPT_GO
    size = None
    for _ in range(64):
        magic, option, kind, length = struct.unpack(">QIII", _read(socket, 20))
        if magic != REPLY or length > 1 << 16:
            raise OSError(EINVAL, "the server's answer is not one")
        data = _read(socket, length)
        if kind == 3 and length >= 2 and struct.unpack(">H", data[:2])[0] == 0:  # NBD_INFO_EXPORT
            _, size, transmission = struct.unpack(">HQH", data[:12])
        elif kind == 1:
            if size is None:
                raise OSError(EINVAL, "the server tells no size")
            return size, transmission
        elif kind == 0x80000001:                                               # an old server: NBD_OPT_EXPORT_NAME
            socket.sendall(struct.pack(">QII", OPTIONS, 1, len(name)) + name)
            size, transmission = struct.unpack(">QH", _read(socket, 10))
            if not no_zeroes:
                _read(socket, 124)
            return size, transmission
        elif kind & 0x80000000:
            text = data.decode(errors="replace")[:4096]
            text = f"\nserver reported: {text}" if text else f": error {kind & 0x7FFFFFFF}" if kind != UNKNOWN else ""
            raise ImageError(f"Requested export not available{text}")
    raise OSError(EINVAL, "the server does not come to an end")
