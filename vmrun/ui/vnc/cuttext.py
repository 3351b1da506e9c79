"""A viewer's clipboard: cut text of RFC 6143, which is Latin-1 and tells all at once, and the extended one, which is
UTF-8 and tells when it is asked.

Ref: RFC 6143 7.5.6, 7.6.4; "Extended Clipboard Pseudo-Encoding" of the community's RFB specification. Only text is
taken; lines end with CR LF on the wire and with LF here.
"""

from __future__ import annotations

import zlib

from vmrun.core.clipboard import MOST_TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.clipboard import Clipboard
    from vmrun.ui.vnc.client import Client

EXTENDED = 0xC0A1E5CE - (1 << 32)
TEXT = 1  # of the formats
CAPS, REQUEST, PEEK, NOTIFY, PROVIDE = 1 << 24, 1 << 25, 1 << 26, 1 << 27, 1 << 28
MOST_BYTES = 4 * MOST_TEXT  # of a message, and of what is packed in it
SERVER_CUT_TEXT = 3


class CutText:
    """One viewer's end of the clipboard; what it sends is hostile, and what cannot be understood is dropped."""

    def __init__(self, client: Client, clipboard: Clipboard) -> None:
        self.client, self.clipboard = client, clipboard
        self.extended = False
        clipboard.join(self)

    def close(self) -> None:
        self.clipboard.leave(self)

    # --- what the viewer says -----------------------------------------------------------------------------------

    def extend(self) -> None:
        """The viewer knows the extended clipboard: say what is done here."""
        self.extended = True
        self._send(CAPS | REQUEST | NOTIFY | PROVIDE | TEXT, bytes(4))

    def plain(self, data: bytes) -> None:
        """ClientCutText as the RFC has it."""
        self.clipboard.tell(self, data.decode("latin-1").replace("\r\n", "\n"))

    def message(self, data: bytes) -> None:
        """ClientCutText with a negative length: flags and what they say."""
        flags = int.from_bytes(data[:4], "big")
        if flags & CAPS:
            return
        if flags & NOTIFY:
            if flags & TEXT:
                self.clipboard.grab(self)
        elif flags & PEEK:
            self._send(NOTIFY | (TEXT if self._filled else 0))
        elif flags & REQUEST:
            if flags & TEXT:
                self.clipboard.ask(self)
        elif flags & PROVIDE and flags & TEXT:
            text = _unpacked(data[4:])
            if text is not None:
                self.clipboard.tell(self, text)

    # --- what others cut ----------------------------------------------------------------------------------------

    @property
    def _filled(self) -> bool:
        return self.clipboard.text is not None or self.clipboard.owner is not None

    def offered(self) -> None:
        if self.extended:
            self._send(NOTIFY | TEXT)
        else:
            self.clipboard.ask(self)

    def given(self, text: str) -> None:
        if self.extended:
            data = text.replace("\n", "\r\n").encode("utf-8", "replace") + b"\0"
            self._send(PROVIDE | TEXT, zlib.compress(len(data).to_bytes(4, "big") + data))
        else:
            self._write(text.encode("latin-1", "replace"), False)

    def wanted(self) -> None:
        if self.extended:
            self._send(REQUEST | TEXT)

    def _send(self, flags: int, data: bytes = b"") -> None:
        self._write(flags.to_bytes(4, "big") + data, True)

    def _write(self, data: bytes, extended: bool) -> None:
        """A viewer that does not read what others cut is not told more."""
        if self.client.ready and self.client.roomy:
            length = -len(data) if extended else len(data)
            self.client.stream.write(bytes((SERVER_CUT_TEXT, 0, 0, 0)) + length.to_bytes(4, "big", signed=True) + data)


def _unpacked(data: bytes) -> str | None:
    """The text of a PROVIDE, which comes first; None when it is none or too long."""
    inflate = zlib.decompressobj()
    try:
        head = inflate.decompress(data, 4)
        size = int.from_bytes(head, "big")
        if len(head) != 4 or size > MOST_BYTES:
            return None
        text = inflate.decompress(inflate.unconsumed_tail, size) if size else b""
    except zlib.error:
        return None
    if len(text) != size:
        return None
    return text.rstrip(b"\0").decode("utf-8", "replace").replace("\r\n", "\n")
