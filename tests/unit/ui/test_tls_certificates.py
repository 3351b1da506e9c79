"""tls-creds-x509 says at the start what is wrong with which of its files, unless `sanity-check` is off."""

from __future__ import annotations

import contextlib
import pathlib
import ssl
import subprocess
import sys
from typing import Any

import pytest

from tests.certificates import CURVE, openssl
from vmrun.backends.objects.tls import X509Creds
from vmrun.errors import BuildError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Authorities `good`, `evil` and `past`; certificates of `good`: server, and old, whose day is over like past's."""
    place = tmp_path_factory.mktemp("certificates")
    for name, days in (("good", "9"), ("evil", "9")):
        files = ["-keyout", place / f"{name}-key.pem", "-out", place / f"{name}.pem", "-days", days]
        openssl("req", "-x509", *CURVE, "-subj", f"/CN={name}", *files)
    for name in ("server", "old"):
        openssl("req", *CURVE, "-subj", f"/CN={name}", "-keyout", place / f"{name}-key.pem", "-out", place / "request")
        authority = ["-CA", place / "good.pem", "-CAkey", place / "good-key.pem", "-CAcreateserial"]
        openssl(
            "x509", "-req", "-in", place / "request", *authority, "-out", place / f"{name}.pem",
            "-days", "-1" if name == "old" else "5",
        )  # fmt: skip
    (place / "extensions").write_text("basicConstraints=critical,CA:TRUE\n")
    openssl("req", *CURVE, "-subj", "/CN=past", "-keyout", place / "past-key.pem", "-out", place / "request")
    signed = ["-signkey", place / "past-key.pem", "-out", place / "past.pem", "-extfile", place / "extensions"]
    openssl("x509", "-req", "-in", place / "request", *signed, "-days", "-1")
    return place


def creds(made: pathlib.Path, place: pathlib.Path, authority: str, name: str, key: str, **more: Any) -> Any:
    side = more.get("endpoint", "server")
    for source, target in ((authority, "ca-cert"), (name, f"{side}-cert"), (f"{key}-key", f"{side}-key")):
        if source:
            (place / f"{target}.pem").write_bytes((made / f"{source}.pem").read_bytes())
    found = X509Creds("keys")
    found.dir, found.endpoint = str(place), side
    for word, value in more.items():
        setattr(found, word, value)
    found.complete(None)  # type: ignore[arg-type]
    return found.context


@pytest.mark.parametrize("endpoint", ["server", "client"])
def test_a_certificate_of_the_authority_serves(made: pathlib.Path, tmp_path: pathlib.Path, endpoint: str) -> None:
    assert creds(made, tmp_path, "good", "server", "server", endpoint=endpoint) is not None


@pytest.mark.parametrize("endpoint", ["server", "client"])
@pytest.mark.parametrize(
    ("authority", "name", "said"),
    [
        ("evil", "server", "Our own certificate {own} failed validation against {ca}: "),
        ("good", "old", "The {side} certificate {own} has expired"),
    ],
)
def test_what_nobody_would_trust_is_refused_unless_told_not_to_look(
    made: pathlib.Path, tmp_path: pathlib.Path, endpoint: str, authority: str, name: str, said: str
) -> None:
    own, ca = tmp_path / f"{endpoint}-cert.pem", tmp_path / "ca-cert.pem"
    with pytest.raises(BuildError) as caught:
        creds(made, tmp_path, authority, name, name, endpoint=endpoint)
    assert said.format(own=own, ca=ca, side=endpoint) in str(caught.value)
    assert creds(made, tmp_path, authority, name, name, endpoint=endpoint, sanity_check=False) is not None


def test_an_authority_of_yesterday_is_named(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(BuildError, match=r"The CA certificate .*ca-cert\.pem has expired"):
        creds(made, tmp_path, "past", "server", "server")


def test_nothing_stands_before_what_a_server_says_first(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A ticket in front of it kept TigerVNC's viewer waiting, where no password was asked for."""
    server = creds(made, tmp_path, "good", "server", "server", verify_peer=False)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)]
    for end in ends:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    ends[0].do_handshake()
    ends[1].do_handshake()
    assert ends[0].version() == "TLSv1.3"
    assert back.read() == b""
    ends[1].write(b"first")
    assert ends[0].session is None or not ends[0].session.has_ticket


def test_a_key_of_another_certificate_is_told(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(BuildError, match="The certificate and the given key do not match"):
        creds(made, tmp_path, "good", "server", "good")


@pytest.mark.parametrize("file", ["ca-cert", "server-cert", "server-key"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_file_that_is_not_there_or_has_nothing_in_it_is_named(
    made: pathlib.Path, tmp_path: pathlib.Path, file: str, gone: bool
) -> None:
    creds(made, tmp_path, "good", "server", "server")
    path = tmp_path / f"{file}.pem"
    path.unlink() if gone else path.write_text("hello\n")
    found = X509Creds("keys")
    found.dir, found.endpoint = str(tmp_path), "server"
    with pytest.raises(BuildError) as caught:
        found.complete(None)  # type: ignore[arg-type]
    assert str(path) in str(caught.value) and "_ssl.c" not in str(caught.value)
    assert not gone or f"Unable to access credentials {path}: No such file" in str(caught.value)


ASKED = """
import os, pty, sys
child, end = pty.fork()
if child == 0:
    from vmrun.backends.objects.tls import X509Creds
    from vmrun.errors import BuildError
    found = X509Creds("keys")
    found.dir, found.endpoint = sys.argv[1], "server"
    try:
        found.complete(None)
    except BuildError as error:
        print(error)
    sys.exit()
said = b""
try:
    while data := os.read(end, 4096):
        said += data
        if b"pass phrase" in said:
            break
except OSError:
    pass
print(said.decode())
"""


def test_nobody_is_asked_on_the_terminal_for_a_password(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """It may be the guest's console, and the machine would wait for it."""
    for source, target in (("good", "ca-cert"), ("server", "server-cert")):
        (tmp_path / f"{target}.pem").write_bytes((made / f"{source}.pem").read_bytes())
    key = ["-in", made / "server-key.pem", "-out", tmp_path / "server-key.pem"]
    openssl("ec", *key, "-aes128", "-passout", "pass:secret")
    words = [sys.executable, "-c", ASKED, str(tmp_path)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Cannot load certificate" in said
    assert "pass phrase" not in said
    assert "passwordid" in said
