"""tls-creds-x509 and tls-creds-anon: what a TLS connection shows and trusts.

The directory holds ca-cert.pem, server-cert.pem and server-key.pem, client-cert.pem and client-key.pem, as QEMU reads
them. TLS itself is the standard library's.
"""

from __future__ import annotations

import os

from vmrun.core.props import Prop, named
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.platform import Platform

# RFC 7919's group ffdhe2048, for clients whose anonymous ciphers know no curves (gtk-vnc's)
FFDHE2048 = (
    "MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPf"
    "HtXV/WVhJDP1H18GbtCFY2VVPe0a87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7YdEIqUuy"
    "yOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61z"
    "O7X8vC7CIAXFjvGDfRaDssbzSibBsu/6iGtCOGEoXJf//////////wIBAg=="
)


class AnonymousCreds(UserObject):
    """Encryption with whoever answers: against those who listen, not against those who stand between."""

    driver = "tls-creds-anon"

    dir = Prop("str", doc="a directory, which may have dh-params.pem")
    endpoint = Prop("enum", "client", "which end of a connection this is", choices=("client", "server"))
    verify_peer = named("verify-peer", "bool", True, "the other end is who it says",
        idle="nobody says who they are here",
    )
    priority = Prop("str", doc="GnuTLS's choice of ciphers; none but the default")

    def complete(self, platform: Platform) -> None:
        import ssl

        if self.priority:
            raise BuildError("vmrun has no GnuTLS, whose words 'priority' takes")
        server = self.endpoint == "server"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        # TLS 1.3 has no anonymous ciphers, and OpenSSL counts them as of no security at all
        self.context.minimum_version = self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.context.set_ciphers("AECDH:ADH:!eNULL:@SECLEVEL=0")
        except ssl.SSLError:
            raise BuildError("this host's OpenSSL has no anonymous ciphers: use tls-creds-x509") from None
        params = os.path.join(self.dir or "", "dh-params.pem")
        if not server:
            return
        if not self.dir or not os.path.exists(params):
            own_params(self.context)
            return
        try:
            self.context.load_dh_params(params)
        except (OSError, ssl.SSLError) as error:
            raise BuildError(f"Unable to load DH parameters from {params}: {error}") from None


def own_params(context: ssl.SSLContext) -> None:
    """`ssl` takes them from a file alone."""
    file = os.memfd_create("dh-params")
    try:
        os.write(file, f"-----BEGIN DH PARAMETERS-----\n{FFDHE2048}\n-----END DH PARAMETERS-----\n".encode())
        os.lseek(file, 0, os.SEEK_SET)
        context.load_dh_params(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


class Asked:
    """The context of a server, and the object that is asked about who shows a certificate."""

    __slots__ = ("allows", "check_hostname", "wrap_socket")

    def __init__(self, context: Any, allows: Callable[[str], bool]) -> None:
        self.wrap_socket, self.check_hostname = context.wrap_socket, context.check_hostname
        self.allows = allows


class X509Creds(UserObject):
    driver = "tls-creds-x509"

    dir = Prop("str", doc="the directory of the files")
    endpoint = Prop("enum", "client", "which end of a connection this is", choices=("client", "server"))
    verify_peer = named("verify-peer", "bool", True, "the other end has to show a certificate of the authority")
    priority = Prop("str", doc="GnuTLS's choice of ciphers; none but the default")
    passwordid = Prop("object", doc="the secret that the key is encrypted with", of=("secret",))
    sanity_check = named("sanity-check", "bool", True,
        "refuse certificates at the start that nobody who knows the authority would trust: too old, of another one",
    )

    def complete(self, platform: Platform) -> None:
        if not self.dir:
            raise BuildError("Missing 'dir' property value")
        if self.priority:
            raise BuildError("vmrun has no GnuTLS, whose words 'priority' takes")
        self.password = b""  # of none OpenSSL asks the terminal, and waits
        if self.passwordid:
            secret = platform.user_object(self.passwordid)
            self.password = bytes(secret.value)
        self.made = self._make()

    @property
    def context(self) -> ssl.SSLContext:
        """For wrap_socket or an SSLObject, on the side that `endpoint` says."""
        return self.made

    def _make(self) -> ssl.SSLContext:
        import ssl

        server = self.endpoint == "server"
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        found.minimum_version = ssl.TLSVersion.TLSv1_2
        if server:
            # nobody comes back to a session, and TigerVNC's viewer misses what comes right behind a ticket
            found.num_tickets = 0
        if not self.verify_peer:
            found.check_hostname = False
        found.verify_mode = ssl.CERT_REQUIRED if self.verify_peer else ssl.CERT_NONE
        authority = self._path("ca-cert.pem")
        if not os.path.exists(authority):
            raise BuildError(f"Unable to access credentials {authority}: No such file or directory")
        certificate, key = self._path(f"{self.endpoint}-cert.pem"), self._path(f"{self.endpoint}-key.pem")
        try:
            found.load_verify_locations(authority)
        except (OSError, ssl.SSLError) as error:
            raise BuildError(f"Unable to import CA certificate list {authority}: {_why(error)}") from None
        if not server and not os.path.exists(certificate):
            return found
        for name in (certificate, key):
            if not os.path.exists(name):
                raise BuildError(f"Unable to access credentials {name}: No such file or directory")
        try:
            found.load_cert_chain(certificate, key, self.password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise BuildError(f"Cannot load certificate '{certificate}' & key '{key}': {_why(error)}") from None
        if self.sanity_check:
            check(self.endpoint, found, authority, certificate, key, self.password)
        return found

    def _path(self, name: str) -> str:
        return os.path.join(self.dir or "", name)


def _why(error: Exception) -> str:
    """What OpenSSL says, without where in it that is."""
    said = str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error)
    for word, meaning in SAID.items():
        if word in said:
            return meaning
    return said.replace("_", " ").lower()


SAID = {  # by OpenSSL
    "KEY_VALUES_MISMATCH": "The certificate and the given key do not match.",
    "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate in it",
    "BAD_DECRYPT": "the key is encrypted with another password: see passwordid",
    "PEM lib": "one of them is no PEM, or the key is encrypted with another password: see passwordid",
}

# OpenSSL's X509_V_ERR_…: what a certificate may be good for is left to who sees it, as QEMU does
NOT_YET, EXPIRED, PURPOSE = 9, 10, 26


def check(side: str, made: ssl.SSLContext, authority: str, certificate: str, key: str, password: bytes) -> None:
    """Whether one who knows the authority would trust who shows the certificate: both ends of a handshake, here.
    BuildError with what is wrong with which file.
    """
    import ssl
    import time

    now = time.time()
    for known in made.get_ca_certs():
        if now > ssl.cert_time_to_seconds(str(known["notAfter"])):
            raise BuildError(f"The CA certificate {authority} has expired")
        if now < ssl.cert_time_to_seconds(str(known["notBefore"])):
            raise BuildError(f"The CA certificate {authority} is not yet active")
    ends = {"server": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "client": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
    for name, end in ends.items():
        end.check_hostname, end.verify_mode = False, ssl.CERT_NONE
        if name in ("server", side):
            end.load_cert_chain(certificate, key, password)
        if name != side:
            end.verify_mode = ssl.CERT_REQUIRED
            end.load_verify_locations(authority)
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    talkers = [ends["client"].wrap_bio(one, other), ends["server"].wrap_bio(other, one, server_side=True)]
    try:
        for _ in range(3):  # a flight of each; the last one is what a server says to the client's certificate
            for talker in talkers:
                try:
                    talker.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLCertVerificationError as error:
        number = error.verify_code
        if number == PURPOSE:
            return
        if number in (NOT_YET, EXPIRED):
            what = "has expired" if number == EXPIRED else "is not yet active"
            raise BuildError(f"The {side} certificate {certificate} {what}") from None
        raise BuildError(
            f"Our own certificate {certificate} failed validation against {authority}: {error.verify_message}"
        ) from None
    except ssl.SSLError as error:
        raise BuildError(f"Our own certificate {certificate} cannot be shown: {_why(error)}") from None
