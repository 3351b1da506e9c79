"""TLS below a connection whose other end reads and writes a descriptor: a thread carries what passes.

`plain(socket, context, hostname)` gives the socket on which all is in the clear; who closes it closes the connection.
"""

from __future__ import annotations

import ssl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as sockets
    from typing import Any

PIECE = 1 << 16  # bytes


def plain(socket: sockets.socket, context: Any, hostname: str | None) -> sockets.socket:
    """`socket` is connected, has a time limit, and has come to where TLS begins; it is the thread's from now on.
    ssl.SSLError (an OSError).
    """
    import socket as sockets
    import threading

    encrypted, clear = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(encrypted, clear, server_side=False, server_hostname=hostname)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            socket.sendall(clear.read())
            encrypted.write(_some(socket))
    socket.sendall(clear.read())
    mine, theirs = sockets.socketpair()
    theirs.settimeout(socket.gettimeout())
    socket.settimeout(None)
    threading.Thread(target=_carry, args=(socket, mine, tls, encrypted, clear), daemon=True, name="nbd tls").start()
    return theirs


def _some(socket: sockets.socket) -> bytes:
    found = socket.recv(PIECE)
    if not found:
        raise ssl.SSLError("the server ends the conversation")
    return found


def _carry(socket: Any, mine: Any, tls: Any, encrypted: Any, clear: Any) -> None:
    """Both ways, until one end closes. The node has one request at a time on a connection: nobody waits for who waits.
    """
    import select

    poll = select.poll()
    for one in (socket, mine):
        poll.register(one, select.POLLIN)
    try:
        _deliver(mine, tls)  # what came behind the handshake
        while True:
            for which, _ in poll.poll():
                if which == mine.fileno():
                    data = mine.recv(PIECE)
                    if not data:
                        return
                    tls.write(data)
                else:
                    encrypted.write(_some(socket))
                    _deliver(mine, tls)
                socket.sendall(clear.read())
    except OSError:
        return  # the other end learns it by the closed descriptor
    finally:
        socket.close()
        mine.close()


def _deliver(mine: Any, tls: Any) -> None:
    while True:
        try:
            data = tls.read(PIECE)
        except ssl.SSLWantReadError:
            return
        if not data:
            raise ssl.SSLError("the end")
        mine.sendall(data)
