"""TLS below a connection whose other end reads and writes a descriptor: a thread carries what passes.

`plain(socket, context, hostname)` gives the socket on which all is in the clear; who closes it closes the connection.
"""

from __future__ import annotations

import ssl

from vmrun.backends.block.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as sockets
    from typing import Any

PIECE = 1 << 16  # bytes
# OpenSSL's X509_V_ERR_…
ELSEWHERE = (62, 64)  # another host's name, or address
NOBODYS = (2, 18, 19, 20, 21)  # of no authority that is known here


def plain(socket: sockets.socket, context: Any, hostname: str | None) -> sockets.socket:
    """`socket` is connected, has a time limit, and has come to where TLS begins; it is the thread's from now on.
    ImageError, OSError.
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
        except ssl.SSLCertVerificationError as error:
            raise ImageError(_untrusted(error, hostname)) from None
        except ssl.SSLError as error:
            why = (error.reason or str(error)).replace("_", " ").lower()
            raise ImageError(f"TLS handshake failed: {why}") from None
    socket.sendall(clear.read())
    mine, theirs = sockets.socketpair()
    theirs.settimeout(socket.gettimeout())
    socket.settimeout(None)
    threading.Thread(target=_carry, args=(socket, mine, tls, encrypted, clear), daemon=True, name="nbd tls").start()
    return theirs


def _untrusted(error: ssl.SSLCertVerificationError, hostname: str | None) -> str:
    if error.verify_code in ELSEWHERE:
        return f"Certificate does not match the hostname {hostname}"
    if error.verify_code in NOBODYS:
        return "The certificate hasn't got a known issuer"
    return f"The certificate is not trusted: {error.verify_message}"


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
