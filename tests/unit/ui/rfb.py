"""A VNC client for tests, written from RFC 6143 alone: it decodes what the server sends into pixels."""

from __future__ import annotations

import contextlib
import socket
import struct
import zlib
from typing import Any

RAW, COPY_RECT, HEXTILE, ZLIB, TIGHT, ZRLE = 0, 1, 5, 6, 7, 16


class Rfb:
    """`connect` does the handshake; `update` asks for one update and applies it to `pixels` (0xRRGGBB)."""

    def __init__(self, peer: socket.socket, pump: Any) -> None:
        self.peer, self.pump = peer, pump
        peer.setblocking(False)
        self.buffer = b""
        self.width = self.height = 0
        self.pixels: dict[tuple[int, int], int] = {}
        self.kinds: set[int] = set()  # of tiles of ZRLE
        self.bits, self.big, self.most, self.shift = 32, False, (255, 255, 255), (16, 8, 0)
        self.depth = 24
        self.inflate: dict[object, Any] = {}
        self.copied: list[tuple[int, int, int]] = []  # from, to, lines
        self.heard: list[tuple[int, tuple[int, int, int, int], bytes]] = []

    def read(self, count: int) -> bytes:
        for _ in range(2000):
            if len(self.buffer) >= count:
                data, self.buffer = self.buffer[:count], self.buffer[count:]
                return data
            try:
                more = self.peer.recv(1 << 20)
                if not more:
                    raise EOFError(self.buffer)
                self.buffer += more
            except BlockingIOError:
                self.pump()
        raise TimeoutError(f"{count} bytes wanted, there are {len(self.buffer)}")

    def peek(self) -> bytes:
        """What has come and was not read yet."""
        with contextlib.suppress(BlockingIOError):
            self.buffer += self.peer.recv(1 << 20)
        return self.buffer

    def send(self, data: bytes) -> None:
        self.peer.sendall(data)

    def connect(self, shared: int = 1, version: bytes = b"RFB 003.008\n", answer: Any = None) -> None:
        assert self.read(12) == b"RFB 003.008\n"
        self.send(version)
        if version == b"RFB 003.003\n":
            kind = int.from_bytes(self.read(4), "big")
        else:
            count = self.read(1)[0]
            kind = self.read(count)[0]
            self.send(bytes((kind,)))
        if kind == 2:
            self.send(answer(self.read(16)))
        if (kind == 2 or version == b"RFB 003.008\n") and int.from_bytes(self.read(4), "big"):
            reason = b""
            if version == b"RFB 003.008\n":
                reason = self.read(int.from_bytes(self.read(4), "big"))
            raise PermissionError(reason.decode())
        self.send(bytes((shared,)))
        self.width, self.height = struct.unpack(">HH", self.read(4))
        self.read(16)
        self.name = self.read(int.from_bytes(self.read(4), "big")).decode()

    def encodings(self, *codes: int) -> None:
        self.send(struct.pack(f">BxH{len(codes)}i", 2, len(codes), *codes))

    def format(self, bits: int, depth: int, big: int, most: tuple[int, int, int], shift: tuple[int, int, int]) -> None:
        self.send(struct.pack(">B3x4B3H3B3x", 0, bits, depth, big, 1, *most, *shift))
        self.bits, self.depth, self.big, self.most, self.shift = bits, depth, bool(big), most, shift

    def key(self, keysym: int, down: bool) -> None:
        self.send(struct.pack(">BBxxI", 4, down, keysym))

    def pointer(self, mask: int, x: int, y: int) -> None:
        self.send(struct.pack(">BBHH", 5, mask, x, y))

    def ask(self, incremental: int = 0) -> None:
        self.send(struct.pack(">BB4H", 3, incremental, 0, 0, self.width, self.height))

    def update(self, incremental: int = 0) -> list[tuple[int, int, int, int]]:
        self.ask(incremental)
        return self.receive()

    def receive(self) -> list[tuple[int, int, int, int]]:
        while (kind := self.read(1)[0]) == 1:
            _, count = struct.unpack(">xHH", self.read(5))
            self.palette = self.read(6 * count)
        assert kind == 0
        (count,) = struct.unpack(">xH", self.read(3))
        found = []
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">4Hi", self.read(12))
            if encoding < 0:
                self._pseudo(encoding, (x, y, width, height))
            else:
                found.append((x, y, width, height))
                known: dict[int, Any] = {
                    RAW: self._raw, COPY_RECT: self._copy, HEXTILE: self._hextile, ZLIB: self._zlib,
                    TIGHT: self._tight, ZRLE: self._zrle,
                }  # fmt: skip
                known[encoding](x, y, width, height)
        return found

    def _copy(self, x: int, y: int, width: int, height: int) -> None:
        left, top = struct.unpack(">HH", self.read(4))
        places = [(column, line) for line in range(height) for column in range(width)]
        old = {at: self.pixels[left + at[0], top + at[1]] for at in places}
        self.pixels.update({(x + at[0], y + at[1]): value for at, value in old.items()})
        self.copied.append((top, y, height))

    def _pseudo(self, encoding: int, where: tuple[int, int, int, int]) -> None:
        data = b""
        if encoding == -308:
            data = self.read(4)
            data += self.read(16 * data[0])
        elif encoding == -261:
            data = self.read(1)
        elif encoding == -239:
            data = self.read(where[2] * where[3] * self.bits // 8 + (where[2] + 7) // 8 * where[3])
        if encoding in (-223, -308):
            self.width, self.height = where[2:]
        self.heard.append((encoding, where, data))

    # --- pixels -----------------------------------------------------------------------------------------------

    def value(self, data: bytes) -> int:
        number = int.from_bytes(data, "big" if self.big else "little")
        parts = [(number >> shift & most) * 255 // most for most, shift in zip(self.most, self.shift, strict=True)]
        return parts[0] << 16 | parts[1] << 8 | parts[2]

    def cpixel(self, take: Any) -> int:
        if self.bits == 32 and self.depth <= 24:
            data = take(3)
            low = max(self.shift) + 8 <= 24
            if self.big:
                return self.value(b"\0" + data if low else data + b"\0")
            return self.value(data + b"\0" if low else b"\0" + data)
        return self.value(take(self.bits // 8))

    def tpixel(self, take: Any) -> int:
        if self.bits == 32 and self.depth == 24 and self.most == (255, 255, 255):
            return int.from_bytes(take(3), "big")
        return self.value(take(self.bits // 8))

    def fill(self, x: int, y: int, width: int, height: int, colour: int) -> None:
        for line in range(y, y + height):
            for column in range(x, x + width):
                self.pixels[column, line] = colour

    # --- encodings --------------------------------------------------------------------------------------------

    def _raw(self, x: int, y: int, width: int, height: int, take: Any = None) -> None:
        take = take or self.read
        size = self.bits // 8
        data = take(width * height * size)
        for n in range(width * height):
            self.pixels[x + n % width, y + n // width] = self.value(data[n * size : (n + 1) * size])

    def _taker(self, data: bytes) -> Any:
        at = 0

        def take(count: int) -> bytes:
            nonlocal at
            assert at + count <= len(data), "data is too short"
            at += count
            return data[at - count : at]

        take.left = lambda: len(data) - at  # type: ignore[attr-defined]
        return take

    def _unpack(self, stream: object, data: bytes) -> Any:
        if stream not in self.inflate:
            self.inflate[stream] = zlib.decompressobj()
        return self._taker(self.inflate[stream].decompress(data))

    def _zlib(self, x: int, y: int, width: int, height: int) -> None:
        take = self._unpack("zlib", self.read(int.from_bytes(self.read(4), "big")))
        self._raw(x, y, width, height, take)
        assert take.left() == 0

    def _hextile(self, x: int, y: int, width: int, height: int) -> None:
        size = self.bits // 8
        back = front = 0
        for top in range(y, y + height, 16):
            for left in range(x, x + width, 16):
                w, h = min(16, x + width - left), min(16, y + height - top)
                kind = self.read(1)[0]
                if kind & 1:
                    self._raw(left, top, w, h)
                    continue
                if kind & 2:
                    back = self.value(self.read(size))
                if kind & 4:
                    front = self.value(self.read(size))
                self.fill(left, top, w, h, back)
                if kind & 8:
                    for _ in range(self.read(1)[0]):
                        colour = self.value(self.read(size)) if kind & 16 else front
                        place, extent = self.read(2)
                        self.fill(left + (place >> 4), top + (place & 15), (extent >> 4) + 1, (extent & 15) + 1, colour)

    def _zrle(self, x: int, y: int, width: int, height: int) -> None:
        take = self._unpack("zrle", self.read(int.from_bytes(self.read(4), "big")))
        for top in range(y, y + height, 64):
            for left in range(x, x + width, 64):
                self._zrle_tile(left, top, min(64, x + width - left), min(64, y + height - top), take)
        assert take.left() == 0

    def _zrle_tile(self, left: int, top: int, w: int, h: int, take: Any) -> None:
        kind = take(1)[0]
        self.kinds.add(kind)
        if kind == 0:
            found = [self.cpixel(take) for _ in range(w * h)]
        elif kind == 1:
            found = [self.cpixel(take)] * (w * h)
        elif kind <= 16:
            palette = [self.cpixel(take) for _ in range(kind)]
            bits = 1 if kind == 2 else 2 if kind <= 4 else 4
            found = []
            for _ in range(h):
                row = take((w * bits + 7) // 8)
                found += [
                    palette[row[n * bits // 8] >> 8 - bits - n * bits % 8 & (1 << bits) - 1] for n in range(w)
                ]
        elif kind == 128:
            found = []
            while len(found) < w * h:
                colour, length = self.cpixel(take), 1
                while (more := take(1)[0]) == 255:
                    length += 255
                found += [colour] * (length + more)
        else:
            assert kind >= 130, kind
            palette = [self.cpixel(take) for _ in range(kind - 128)]
            found = []
            while len(found) < w * h:
                index = take(1)[0]
                length = 1
                if index & 128:
                    while (more := take(1)[0]) == 255:
                        length += 255
                    length += more
                found += [palette[index & 127]] * length
        assert len(found) == w * h
        for n, colour in enumerate(found):
            self.pixels[left + n % w, top + n // w] = colour

    def _length(self) -> int:
        length = shift = 0
        for _ in range(3):
            byte = self.read(1)[0]
            length |= (byte & 0x7F if shift < 14 else byte) << shift
            shift += 7
            if not byte & 0x80:
                break
        return length

    def _tight_data(self, stream: int, count: int) -> Any:
        if count < 12:
            return self._taker(self.read(count))
        take = self._unpack(stream, self.read(self._length()))
        assert take.left() == count
        return take

    def _tight(self, x: int, y: int, width: int, height: int) -> None:
        kind = self.read(1)[0]
        assert not kind & 15
        if kind >> 4 == 8:
            self.fill(x, y, width, height, self.tpixel(self.read))
            return
        if kind >> 4 == 9:
            import io

            from PIL import Image

            picture = Image.open(io.BytesIO(self.read(self._length()))).convert("RGB")
            assert picture.size == (width, height)
            for n, (red, green, blue) in enumerate(list(zip(*[iter(picture.tobytes())] * 3, strict=True))):
                self.pixels[x + n % width, y + n // width] = red << 16 | green << 8 | blue
            return
        stream = kind >> 4 & 3
        filter = self.read(1)[0] if kind & 0x40 else 0
        if filter == 0:
            three = self.bits == 32 and self.depth == 24
            take = self._tight_data(stream, width * height * (3 if three else self.bits // 8))
            found = [self.tpixel(take) for _ in range(width * height)]
        else:
            assert filter == 1
            palette = [self.tpixel(self.read) for _ in range(self.read(1)[0] + 1)]
            if len(palette) == 2:
                take = self._tight_data(stream, (width + 7) // 8 * height)
                found = []
                for _ in range(height):
                    row = take((width + 7) // 8)
                    found += [palette[row[n // 8] >> 7 - n % 8 & 1] for n in range(width)]
            else:
                take = self._tight_data(stream, width * height)
                found = [palette[index] for index in take(width * height)]
        for n, colour in enumerate(found):
            self.pixels[x + n % width, y + n // width] = colour
