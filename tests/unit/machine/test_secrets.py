"""Secrets that another secret encrypts. Vectors: NIST SP 800-38A, F.2.6 (CBC-AES256); and openssl's own work."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from vmrun.backends.objects import aes
from vmrun.errors import BuildError
from vmrun.testing import QTest

KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
IV = bytes(range(16))
CIPHER = bytes.fromhex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d")
PLAIN = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")


@pytest.fixture
def q() -> Iterator[QTest]:
    with QTest({"machine": "pc-i440fx-7.2", "memory": "32MiB"}) as made:
        made.machine.board.add_object(secret("master", base64.b64encode(KEY).decode(), format="base64"))
        yield made


def secret(name: str, data: str, **more: str) -> dict[str, str]:
    return {"qom-type": "secret", "id": name, "data": data, **more}


def test_the_published_blocks() -> None:
    assert aes.decrypted(CIPHER, KEY, IV) == PLAIN


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("text", [b"", b"letmein", b"exactly 16 bytes", b"x" * 1000], ids=len)
def test_what_openssl_encrypts_is_read(q: QTest, text: bytes) -> None:
    command = ["openssl", "enc", "-aes-256-cbc", "-K", KEY.hex(), "-iv", IV.hex()]
    data = subprocess.run(command, input=text, capture_output=True, check=True, timeout=60).stdout
    q.machine.board.add_object(
        secret("s", base64.b64encode(data).decode(), format="base64", keyid="master", iv=base64.b64encode(IV).decode())
    )
    found = q.machine.board.user_object("s")
    assert found.value == text  # type: ignore[attr-defined]
    assert "data" not in found.shown()


@pytest.mark.parametrize(
    ("data", "more", "why"),
    [
        (CIPHER, {"iv": ""}, "IV should be 16 bytes in length not 0"),
        (CIPHER, {}, "IV is required to decrypt secret"),
        (CIPHER[:20], {"iv": base64.b64encode(IV).decode()}, "Length 20 must be a multiple of block size 16"),
        (b"", {"iv": base64.b64encode(IV).decode()}, "Length 0"),
        (CIPHER, {"iv": base64.b64encode(IV).decode()}, "Incorrect number of padding bytes"),
        (CIPHER, {"keyid": "nobody"}, "No secret with id 'nobody'"),
        (bytes(70000 // 16 * 16), {"iv": base64.b64encode(IV).decode()}, "at most 65536 bytes"),
    ],
    ids=["short-iv", "no-iv", "half-a-block", "nothing", "padding", "no-key", "too-long"],
)
def test_what_cannot_be_read_is_refused(q: QTest, data: bytes, more: dict[str, str], why: str) -> None:
    with pytest.raises(BuildError, match=why):
        q.machine.board.add_object(
            secret("s", base64.b64encode(data).decode(), **{"format": "base64", "keyid": "master", **more})
        )


def test_a_key_of_another_length_is_none(q: QTest) -> None:
    q.machine.board.add_object(secret("short", "short"))
    with pytest.raises(BuildError, match="Key should be 32 bytes in length"):
        q.machine.board.add_object(secret("s", "x" * 16, keyid="short", iv=base64.b64encode(IV).decode()))
