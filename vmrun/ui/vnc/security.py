"""How a viewer comes in: RFB's security types, VeNCrypt's inside of TLS, SASL.

Ref: RFC 6143 7.1.2, 7.2; VeNCrypt 0.2 and SASL as the community's RFB specification has them. A server offers one way:
what `vnc:` says. The steps are generators like the client's: each yields how many bytes it needs next.
"""

from __future__ import annotations

import os

from vmrun.ui.vnc.stream import ProtocolError, WebSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Protocol

    from vmrun.ui.vnc.client import Client
    class Door(Protocol):
        """What of a server's settings says how to come in."""

        needs_password: bool
        sasl: bool

NO_SECURITY, VNC_AUTHENTICATION, VENCRYPT, SASL = 1, 2, 19, 20
# VeNCrypt's: what is done inside of TLS, without certificates and with them
ANONYMOUS = {NO_SECURITY: 257, VNC_AUTHENTICATION: 258, SASL: 263}
X509 = {NO_SECURITY: 260, VNC_AUTHENTICATION: 261, SASL: 264}
MOST_NAME, MOST_ANSWER = 100, 1 << 20  # bytes of a mechanism's name and of what is said in it, as QEMU has them


def wanted(server: Door) -> int:
    """The security type, inside of TLS or not. A password goes before SASL."""
    return VNC_AUTHENTICATION if server.needs_password else SASL if server.sasl else NO_SECURITY


def enter(client: Client, version: int) -> Iterator[int]:
    """Everything between the version and ClientInit. ProtocolError for one that may not come in."""
    server = client.server
    kind = NO_SECURITY if client.trusted else wanted(server)
    encrypt = server.tls is not None and not client.trusted and not isinstance(client.stream, WebSocket)
    if version == 3 and (encrypt or kind == SASL):
        _unable(client, "this server wants what this version of the protocol cannot ask for")
    if encrypt:
        yield from _encrypt(client, version, kind)
    elif version == 3:
        client.stream.write(kind.to_bytes(4, "big"))
    else:
        client.stream.write(bytes((1, kind)))
        yield 1
        if client.data[0] != kind:
            _refuse(client, version, "that security type was not offered")
    if kind == VNC_AUTHENTICATION:
        challenge = os.urandom(16)
        client.stream.write(challenge)
        yield 16
        why = server.check_password(challenge, client.data)
        if why:
            _refuse(client, version, why)
        client.stream.write(bytes(4))
    elif kind == SASL:
        yield from _sasl(client, version, encrypt)
    elif version == 8:
        client.stream.write(bytes(4))


def _encrypt(client: Client, version: int, kind: int) -> Iterator[int]:
    """VeNCrypt 0.2 with the credentials of `tls-creds`: nothing else is offered."""
    client.stream.write(bytes((1, VENCRYPT)))
    yield 1
    if client.data[0] != VENCRYPT:
        _refuse(client, version, "that security type was not offered")
    client.stream.write(b"\0\2")
    yield 2
    if client.data != b"\0\2":
        client.stream.write(b"\xff")
        raise ProtocolError("another version of VeNCrypt")
    inside = (ANONYMOUS if client.server.anonymous else X509)[kind]
    client.stream.write(b"\0\1" + inside.to_bytes(4, "big"))
    yield 4
    if int.from_bytes(client.data, "big") != inside or client.waiting:
        # what was sent before TLS began must never count as said inside of it
        client.stream.write(b"\0")
        raise ProtocolError("that kind of VeNCrypt was not offered")
    client.stream.write(b"\1")
    client.stream.start_tls(client.server.tls, client.server.trusts)


def _sasl(client: Client, version: int, encrypted: bool) -> Iterator[int]:
    """Mechanisms, the viewer's choice, and steps until the library is content."""
    from vmrun.ui.vnc.sasl import Sasl, SaslError

    host, service, family = client.peer
    here = client.server.address
    names: tuple[str | None, str | None] = (None, None)
    if family != "unix":
        names = f"{here[0]};{here[1]}", f"{host};{service}"
    web = isinstance(client.stream, WebSocket) and client.server.tls is not None
    client.sasl = sasl = Sasl(names[0], names[1], encrypted or web, family == "unix")  # closed with the client
    try:
        offered = sasl.mechanisms()
        client.stream.write(len(offered).to_bytes(4, "big") + offered)
        yield 4
        length = int.from_bytes(client.data, "big")
        if not 0 < length <= MOST_NAME:
            raise ProtocolError("no mechanism's name is that long")
        yield length
        mechanism = client.data
        if mechanism not in offered.split(b","):
            raise ProtocolError("that mechanism was not offered")
        data = yield from _answer(client)
        answer = sasl.start(mechanism, data)
        while True:
            # what is said has a zero behind it, which counts
            said = b"" if answer is None else answer + b"\0"
            client.stream.write(len(said).to_bytes(4, "big") + said + bytes((sasl.complete,)))
            if sasl.complete:
                break
            data = yield from _answer(client)
            answer = sasl.step(data)
    except SaslError:
        client.server.wrong()
        _refuse(client, version, "Authentication failed")
    if client.server.blocked or sasl.strength and client.waiting:
        _refuse(client, version, "Authentication failed")
    client.user = sasl.user
    if not client.server.may_enter("sasl-authz", client.user):
        _refuse(client, version, "Authentication failed")
    client.stream.write(bytes(4))
    if sasl.strength:
        client.layer = sasl
        client.stream.encode = sasl.encode


def _answer(client: Client) -> Generator[int, None, bytes | None]:
    """A viewer's next words: None for none, which is not the same as empty ones."""
    yield 4
    length = int.from_bytes(client.data, "big")
    if length > MOST_ANSWER:
        raise ProtocolError("SASL's words are not that long")
    if not length:
        return None
    yield length
    return client.data[:-1]


def _unable(client: Client, why: str) -> None:
    client.stream.write(bytes(4) + len(why).to_bytes(4, "big") + why.encode())
    raise ProtocolError(why)


def _refuse(client: Client, version: int, why: str) -> None:
    text = why.encode() if version == 8 else b""
    client.stream.write(b"\0\0\0\1" + (len(text).to_bytes(4, "big") + text if version == 8 else b""))
    raise ProtocolError(why)
