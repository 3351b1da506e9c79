"""secret: a password or key that options and other objects name by its id. Never told by the monitor.

Ref: QEMU's secret object: data or file, raw or base64; with `keyid` encrypted by another secret (AES-256-CBC).
"""

from __future__ import annotations

import binascii

from vmrun.core.props import Prop
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

MOST = 1 << 20
MOST_ENCRYPTED = 64 << 10


def _plain(text: bytes) -> bytes:
    """What base64 says."""
    try:
        return binascii.a2b_base64(text, strict_mode=False)
    except binascii.Error:
        raise BuildError("Base64 data is not valid") from None


class Secret(UserObject):
    driver = "secret"

    data = Prop("str", doc="the secret itself")
    file = Prop("str", doc="a file that has it")
    format = Prop("enum", "raw", "how it is written", choices=("raw", "base64"))
    keyid = Prop("object", doc="the secret that it is encrypted with", of=("secret",))
    iv = Prop("str", doc="initialisation vector, base64")

    value = b""

    def complete(self, platform: Platform) -> None:
        if self.data is not None and self.file is not None:
            raise BuildError("'file' and 'data' are mutually exclusive")
        if self.data is not None:
            raw = self.data.encode()
        elif self.file is not None:
            try:
                with open(self.file, "rb") as file:
                    raw = file.read(MOST)
            except OSError as error:
                raise BuildError(f"Unable to read {self.file}: {error.strerror}") from None
        else:
            raise BuildError("Either 'file' or 'data' must be provided")
        if self.keyid is None and self.iv is not None:
            raise BuildError("'iv' goes with 'keyid'")
        if self.format == "base64":
            raw = _plain(raw)
        self.value = raw if self.keyid is None else self._decrypted(raw, platform)

    def _decrypted(self, data: bytes, platform: Platform) -> bytes:
        from vmrun.backends.objects import aes

        try:
            master: Any = platform.user_object(str(self.keyid))
        except BuildError:
            raise BuildError(f"No secret with id '{self.keyid}'") from None
        key = getattr(master, "value", None)
        if not isinstance(key, bytes):
            raise BuildError(f"Object with id '{self.keyid}' is not a secret")
        if len(key) != aes.KEY:
            raise BuildError(f"Key should be {aes.KEY} bytes in length")
        if self.iv is None:
            raise BuildError("IV is required to decrypt secret")
        iv = _plain(self.iv.encode())
        if len(iv) != aes.BLOCK:
            raise BuildError(f"IV should be {aes.BLOCK} bytes in length not {len(iv)}")
        if not data or len(data) % aes.BLOCK:
            raise BuildError(f"Length {len(data)} must be a multiple of block size {aes.BLOCK}")
        if len(data) > MOST_ENCRYPTED:
            raise BuildError(f"an encrypted secret has at most {MOST_ENCRYPTED} bytes")
        plain = aes.decrypted(data, key, iv)
        padding = plain[-1]
        if not 0 < padding <= aes.BLOCK:
            raise BuildError(f"Incorrect number of padding bytes ({padding}) found on decrypted data")
        return plain[:-padding]

    def shown(self) -> dict[str, Any]:
        return {"format": self.format, "loaded": True}
