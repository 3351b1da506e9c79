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


class Secret(UserObject):
    driver = "secret"

    data = Prop("str", doc="the secret itself")
    file = Prop("str", doc="a file that has it")
    format = Prop("enum", "raw", "how it is written", choices=("raw", "base64"))
    keyid = Prop("str", doc="the secret that it is encrypted with")
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
            raise BuildError("Must provide 'file' or 'data'")
        if self.keyid is not None:
            raise BuildError("vmrun has no encrypted secrets: give the secret without 'keyid'")
        if self.iv is not None:
            raise BuildError("'iv' goes with 'keyid'")
        if self.format == "base64":
            try:
                raw = binascii.a2b_base64(raw, strict_mode=False)
            except binascii.Error:
                raise BuildError("Base64 data is not valid") from None
        self.value = raw

    def shown(self) -> dict[str, Any]:
        return {"format": self.format, "loaded": True}
