"""WebSocket on the server's side, for a chardev: the handshake and frames as a stream of bytes.

Ref: RFC 6455. Frames of any size are read piece by piece; what is sent are binary frames.
"""

from __future__ import annotations

import base64
import hashlib

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MOST_HEAD, MOST_CONTROL = 8192, 125
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


class Broken(Exception):
    """The other end does not speak WebSocket. `answer` is what it shall still get."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("not a WebSocket")
        self.answer = answer


class WebSocket:
    """`feed(bytes)` returns (bytes for the device, bytes to send back); Broken at the end. `frame(bytes)` to send."""

    def __init__(self) -> None:
        self.open = False
        self.head = b""
        self.left = 0           # bytes of the frame's payload still to come
        self.mask = b""
        self.at = 0             # in the mask
        self.opcode = CONTINUATION
        self.control = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        self.head += data
        out, answer = bytearray(), b""
        if not self.open:
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                if len(self.head) > MOST_HEAD:
                    raise Broken(REFUSAL)
                return b"", b""
            answer = self._shake(self.head[:end])
            self.head = self.head[end + 4 :]
            self.open = True
        while True:
            if not self.left and not self._begin():
                return bytes(out), answer
            part, self.head = self.head[: self.left], self.head[self.left :]
            plain = self._unmask(part)
            self.left -= len(part)
            if self.opcode < CLOSE:
                out += plain
            else:
                self.control += plain
                if not self.left and self.opcode == CLOSE:
                    raise Broken(self._frame(CLOSE, self.control))
                if not self.left and self.opcode == PING:
                    answer += self._frame(PONG, self.control)
            if self.left and not self.head:
                return bytes(out), answer

    def _begin(self) -> bool:
        """The head of the next frame, when all of it is there."""
        if len(self.head) < 2:
            return False
        first, second = self.head[0], self.head[1]
        opcode, length, at = first & 15, second & 0x7F, 2
        if not second & 0x80 or first & 0x70 or opcode not in (0, 1, 2, 8, 9, 10):
            raise Broken  # a client's frames are masked
        more = {126: 2, 127: 8}.get(length, 0)
        if len(self.head) < at + more + 4:
            return False
        if more:
            length, at = int.from_bytes(self.head[at : at + more], "big"), at + more
        if opcode >= CLOSE and (length > MOST_CONTROL or not first & 0x80):
            raise Broken
        self.mask, self.at, self.left, self.opcode, self.control = self.head[at : at + 4], 0, length, opcode, b""
        self.head = self.head[at + 4 :]
        if not length and opcode == CLOSE:
            raise Broken(self._frame(CLOSE, b""))
        return True

    def _unmask(self, part: bytes) -> bytes:
        if not part:
            return b""
        mask = self.mask[self.at :] + self.mask[: self.at]
        self.at = (self.at + len(part)) % 4
        whole = (mask * (len(part) // 4 + 1))[: len(part)]
        return (int.from_bytes(part, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(part), "big")

    def _shake(self, head: bytes) -> bytes:
        lines = head.split(b"\r\n")
        if not lines[0].startswith(b"GET ") or not lines[0].endswith(b" HTTP/1.1"):
            raise Broken(REFUSAL)
        fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            fields[name.strip().lower()] = value.strip()
        key = fields.get(b"sec-websocket-key", b"")
        wanted = fields.get(b"upgrade", b"").lower() == b"websocket" and fields.get(b"sec-websocket-version") == b"13"
        if not wanted or not key:
            raise Broken(REFUSAL)
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        if b"binary" in fields.get(b"sec-websocket-protocol", b""):
            answer += b"Sec-WebSocket-Protocol: binary\r\n"
        return answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"

    def frame(self, data: bytes) -> bytes:
        return self._frame(BINARY, data)

    @staticmethod
    def _frame(opcode: int, data: bytes) -> bytes:
        size = len(data)
        if size < 126:
            head = bytes((0x80 | opcode, size))
        elif size < 1 << 16:
            head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
        return head + data
