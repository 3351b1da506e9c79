"""One VNC client: the protocol from its greeting to its last update.

Ref: RFC 6143; the community's RFB specification (rfbproto) for tight, the extended key event, the LED state, the
pointer motion change and the extended desktop size.

What a client sends is hostile: every message has a bounded length, text to be cut is skipped without being kept, and a
client that does not read gets no more updates until it has (one update and MOST_OUTPUT bytes wait at most).
"""

from __future__ import annotations

import time
import zlib
from struct import unpack

from vmrun.ui.vnc import encode
from vmrun.ui.vnc.cuttext import EXTENDED, MOST_BYTES, CutText
from vmrun.ui.vnc.keysyms import ALT, ALTGR, CONTROL, lookup, said, scancode
from vmrun.ui.vnc.scroll import Rows
from vmrun.ui.vnc.security import enter
from vmrun.ui.vnc.stream import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from vmrun.core.console import Console
    from vmrun.core.keymap import Stroke
    from vmrun.core.surface import View
    from vmrun.ui.vnc.sasl import Sasl
    from vmrun.ui.vnc.server import VncServer
    from vmrun.ui.vnc.stream import Stream

VERSIONS = {b"RFB 003.003\n": 3, b"RFB 003.005\n": 3, b"RFB 003.007\n": 7, b"RFB 003.008\n": 8}
RAW, COPY_RECT, HEXTILE, ZLIB, TIGHT, ZRLE = 0, 1, 5, 6, 7, 16
CURSOR, DESKTOP_SIZE, POINTER_CHANGE, KEY_EVENT, LED_STATE = -239, -223, -257, -258, -261
EXTENDED_DESKTOP_SIZE = -308
POWER_CONTROL = -309
POWER, POWER_VERSION, POWER_FAIL, POWER_INIT = 250, 1, 0, 1
POWER_KEYS = {2: "powerdown", 4: "reset"}  # 3, reboot, is nothing that a machine's button does
ENCODINGS = (TIGHT, ZRLE, ZLIB, HEXTILE, RAW)  # as far as the client's own order leaves a choice
MOST_OUTPUT = 4 << 20  # bytes that may wait for a slow client before it gets another update
MOST_ENCODINGS = 1024
SIDE = 1024  # rectangles are cut to this, both ways
BUTTONS = ("left", "middle", "right", "wheel-up", "wheel-down", "wheel-left", "wheel-right", "side")
TIGHT_FILL, TIGHT_JPEG, TIGHT_FILTER = 0x80, 0x90, 0x40
CAPS_LOCK = 4  # of the LEDs
SMALLEST_JPEG = 4096  # pixels
LEVEL = 6  # of zlib where the client names none: what moves is sent in half of what 1 needs
QUIET = 1.0  # seconds that a picture stands still before it is sent again exactly
MOST_LOSSY = 256  # parts that are to be sent again exactly
JPEG_QUALITY = (15, 29, 41, 42, 62, 77, 79, 86, 92, 100)  # of the client's levels 0 to 9


class Client:
    """`stream` is the connected peer; `server` has the console, the input and the policy."""

    def __init__(
        self, server: VncServer, stream: Stream, peer: tuple[str, str, str], trusted: bool = False
    ) -> None:
        self.server, self.stream, self.peer = server, stream, peer  # (host, service, family)
        self.trusted = trusted  # needs no password
        self.view: View | None = None
        self.format = encode.PixelFormat(32, 24, False, True, (255, 255, 255), (16, 8, 0))
        self.encodings: tuple[int, ...] = (RAW,)
        self.pseudo: frozenset[int] = frozenset()
        self.rows: Rows | None = None  # what can be copied, for a client that does
        self.quality = -1  # of JPEG, 0 to 9; -1: none wanted
        self.level = LEVEL
        self.wanted: tuple[int, int, int, int] | None = None  # an update was asked for: this part
        self.shown = (0, 0)  # the size that the client knows
        self.cursor_seen = -1
        self.leds_seen = -1
        self.absolute = True
        self.pointer = (0, 0)
        self.buttons = 0
        self.keys: dict[int, str] = {}  # keysym, or -scan code → key that it pressed
        self.held: set[int] = set()  # keysyms that are down
        self.typed = False  # it has pressed keys, or they wait
        self.shared = True
        self.user = ""  # whom SASL found it to be
        self.sasl: Sasl | None = None
        self.layer: Sasl | None = None  # what it says comes through this
        self.cut: CutText | None = None
        self.ready = False  # the handshake is over
        self.extended_keys = False
        self._lossy: list[tuple[int, int, int, int]] = []  # sent as JPEG
        self._lossy_at = 0.0
        self._deflate: dict[int, Any] = {}
        self._input = b""
        self._skip = 0  # bytes of a message that nobody keeps
        self._steps: Iterator[int] = self._talk()
        self.data = b""
        self._need = next(self._steps)

    # --- input --------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes from the client, for as long as it is there. ProtocolError ends the connection."""
        self._input += self.layer.decode(data) if self.layer is not None else data
        while not self.stream.closed:
            if self._skip:
                gone = min(self._skip, len(self._input))
                self._input, self._skip = self._input[gone:], self._skip - gone
                if self._skip:
                    return
            if len(self._input) < self._need:
                return
            self.data, self._input = self._input[: self._need], self._input[self._need :]
            self._need = next(self._steps)

    @property
    def waiting(self) -> bool:
        """Whether it has sent more than it was asked for so far."""
        return bool(self._input)

    @property
    def roomy(self) -> bool:
        """Whether it reads what it is sent."""
        return self.stream.waiting < MOST_OUTPUT

    def _take(self, form: str = "") -> tuple[Any, ...]:
        found: tuple[Any, ...] = unpack(form, self.data)
        return found

    def _talk(self) -> Iterator[int]:
        """The conversation: yields how many bytes it needs next, and finds them in self.data."""
        self.stream.write(b"RFB 003.008\n")
        yield 12
        version = VERSIONS.get(self.data)
        if version is None:
            if self.data[:8] != b"RFB 003." or self.data[-1:] != b"\n":
                if self.data[:4] == b"RFB ":
                    self.stream.write(bytes(4))
                raise ProtocolError("not a VNC client")
            version = 3
        yield from enter(self, version)
        yield 1
        self.shared = self.data != b"\0"
        self.server.admit(self)
        self._hello()
        while True:
            yield 1
            kind = self.data[0]
            if kind == 0:
                yield 19
                self._set_format()
            elif kind == 2:
                yield 3
                (count,) = self._take(">xH")
                if count > MOST_ENCODINGS:
                    raise ProtocolError(f"{count} encodings")
                yield 4 * count
                self._set_encodings(self._take(f">{count}i"))
            elif kind == 3:
                yield 9
                self._request(*self._take(">B4H"))
            elif kind == 4:
                yield 7
                down, keysym = self._take(">BxxI")
                self._key(bool(down), keysym, None)
            elif kind == 5:
                yield 5
                self._pointer(*self._take(">BHH"))
            elif kind == 6:
                yield 7
                yield from self._cut(*self._take(">xxxi"))
            elif kind == POWER:
                yield 3
                self._power(*self._take(">xBB"))
            elif kind == 251:
                yield 7
                width, height, screens = self._take(">xHHBx")
                yield 16 * screens
                self._resize(width, height)
            elif kind == 255:
                yield 1
                if self.data != b"\0":
                    raise ProtocolError("an unknown message of QEMU's")
                yield 10
                down, keysym, code = self._take(">HII")
                self._key(bool(down), keysym, code)
            else:
                raise ProtocolError(f"an unknown message: {kind}")

    def _cut(self, length: int) -> Iterator[int]:
        """Text that the viewer has cut; too much of it is read and dropped."""
        extended = length < 0
        if abs(length) > MOST_BYTES or extended and (length > -4 or self.cut is None or not self.cut.extended):
            self._skip = min(abs(length), 0x7FFFFFFF)
            return
        yield abs(length)
        assert self.cut is not None
        if extended:
            self.cut.message(self.data)
        else:
            self.cut.plain(self.data)

    def _hello(self) -> None:
        """ServerInit; from now on updates may go out."""
        console = self.server.console
        self.view = console.attach()
        console.refresh()
        surface = console.surface
        self.shown = surface.width, surface.height
        self.view.resized = False
        name = f"QEMU ({self.server.name})".encode() if self.server.name else b"QEMU"
        size = surface.width.to_bytes(2, "big") + surface.height.to_bytes(2, "big")
        form = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
        self.ready = True
        self.cut = CutText(self, self.server.clipboard)
        self.stream.write(size + form + len(name).to_bytes(4, "big") + name)

    def _set_format(self) -> None:
        bits, depth, big, true, *rest = self._take(">xxx4B3H3Bxxx")
        try:
            self.format = encode.PixelFormat(bits, depth, bool(big), bool(true), tuple(rest[:3]), tuple(rest[3:]))
        except ValueError as error:
            raise ProtocolError(f"a pixel format that cannot be served: {error}") from None
        if not true:
            self.stream.write(bytes((1, 0, 0, 0, 1, 0)) + self.format.palette())
        if self.view is not None:
            self.view.all()

    def _set_encodings(self, wanted: tuple[int, ...]) -> None:
        self.encodings = tuple(dict.fromkeys(code for code in wanted if code in ENCODINGS)) or (RAW,)
        self.pseudo = frozenset(code for code in wanted if code < 0)
        if COPY_RECT not in wanted:
            self.rows = None
        elif self.rows is None:
            self.rows = Rows()
        self.quality = next((code + 32 for code in wanted if -32 <= code <= -23), -1) if self.server.lossy else -1
        self.level = next((code + 256 for code in wanted if -256 <= code <= -247), LEVEL)
        if POWER_CONTROL in self.pseudo and self.server.power is not None:
            self.stream.write(bytes((POWER, 0, POWER_VERSION, POWER_INIT)))
        if EXTENDED in self.pseudo and self.cut is not None and not self.cut.extended:
            self.cut.extend()

    def _power(self, version: int, code: int) -> None:
        """The machine's buttons, where the server gives them away (`power-control`)."""
        if self.server.power is None or POWER_CONTROL not in self.pseudo:
            raise ProtocolError("power control was not offered")
        if version == POWER_VERSION and code in POWER_KEYS:
            self.server.power(POWER_KEYS[code])
        else:
            self.stream.write(bytes((POWER, 0, POWER_VERSION, POWER_FAIL)))

    def _pointer_kind(self) -> bytes:
        self.absolute = self.server.absolute
        surface = self.server.console.surface
        return encode.head(int(self.absolute), 0, surface.width, surface.height, POINTER_CHANGE)

    def _request(self, incremental: int, x: int, y: int, width: int, height: int) -> None:
        self.wanted = (x, y, width, height)
        if not incremental and self.view is not None:
            self.view.add(x, y, width, height)
            if self.rows is not None:
                self.rows.forget()
        self.server.look_soon()

    def _resize(self, width: int, height: int) -> None:
        """The client wants another size: the guest's driver decides, where the adapter can tell it."""
        tell = self.server.console.on_resize
        told = tell is not None and tell(width, height)
        if EXTENDED_DESKTOP_SIZE in self.pseudo:
            self._send([self._desktop_size(reason=1, status=0 if told else 1 if tell is None else 3)])

    # --- keys and pointer -----------------------------------------------------------------------------------

    def _key(self, down: bool, keysym: int, code: int | None) -> None:
        self.typed |= self.server.keys.put(lambda: self._press(down, keysym, code))

    def turned(self, before: Console) -> None:
        """The server shows another console."""
        self.keys.clear()
        if self.view is not None:
            before.detach(self.view)
            self.view = self.server.console.attach()
            self.server.console.refresh()
            self.cursor_seen = -1
            self._lossy.clear()
            if self.rows is not None:
                self.rows.forget()

    def _press(self, down: bool, keysym: int, code: int | None) -> None:
        """One key of the queue, when it is its turn: the client may have gone."""
        hands = self.server.input
        if down:
            self.held.add(keysym)
        else:
            self.held.discard(keysym)
        control = not self.held.isdisjoint(CONTROL)
        if down and control and not self.held.isdisjoint(ALT) and ord("1") <= keysym <= ord("9"):
            self.server.turn(keysym - ord("1"))
            return
        typed = getattr(self.server.console, "typed", None)
        if typed is not None:
            if down:
                typed(said(keysym, control))
                self.server.expect()
            return
        if code:
            key = scancode(code)
            if key is not None:
                if down:
                    self.keys[-code] = key
                else:
                    self.keys.pop(-code, None)
                hands.key(key, down)
                hands.sync()
                self.server.expect()
            return
        if not down:
            key = self.keys.pop(keysym, None)
            if key is not None:
                hands.key(key, False)
        else:
            strokes = lookup(keysym, self.server.layout)
            for dead in strokes[:-1]:
                self._strike(dead)
                hands.key(dead.key, False)
            for stroke in strokes[-1:]:
                self.keys[keysym] = stroke.key
                self._strike(stroke)
        hands.sync()
        self.server.expect()

    def _strike(self, stroke: Stroke) -> None:
        """Press a key with Shift and AltGr as the layout wants them, which are then as the client holds them."""
        hands, shift = self.server.input, stroke.shift
        if shift is not None and self.server.lock_keys and (hands.leds() or 0) & CAPS_LOCK:
            shift ^= self.server.layout.shifted_by_caps_lock(stroke.key)
        held = [key for key in ("shift", "shift_r") if key in hands.held]
        # the key AltGr may be plain Alt to a client, with which it wants other things than characters
        chosen = any(keysym in self.keys for keysym in ALTGR)
        changed = []
        if shift is not None and shift != bool(held):
            changed += [(key, shift) for key in held or ("shift",)]
        if stroke.altgr is not None and (chosen if not stroke.altgr else "alt_r" not in hands.held):
            changed.append(("alt_r", stroke.altgr))
        for key, down in changed:
            hands.key(key, down)
        hands.key(stroke.key, True)
        for key, down in reversed(changed):
            hands.key(key, not down)

    def _pointer(self, mask: int, x: int, y: int) -> None:
        hands, surface = self.server.input, self.server.console.surface
        if hasattr(self.server.console, "typed"):
            return  # a terminal has no pointer
        if self.server.absolute:
            width, height = max(surface.width - 1, 1), max(surface.height - 1, 1)
            hands.position(x * 0x7FFF // width, y * 0x7FFF // height)
        elif POINTER_CHANGE in self.pseudo and not self.absolute:
            hands.move(x - 0x7FFF, y - 0x7FFF)
        else:
            hands.move(x - self.pointer[0], y - self.pointer[1])
        self.pointer = (x, y)
        for bit, name in enumerate(BUTTONS):
            if (mask ^ self.buttons) >> bit & 1:
                hands.button(name, bool(mask >> bit & 1))
        self.buttons = mask
        hands.sync()

    # --- updates --------------------------------------------------------------------------------------------

    @property
    def hungry(self) -> bool:
        """True when it asked for an update and has read the last one."""
        return self.ready and self.wanted is not None and self.roomy

    def update(self) -> bool:
        """Send what it has not seen, if it asked; True when something went out."""
        if not self.hungry or self.view is None:
            return False
        rects = list(self._news())
        surface = self.server.console.surface
        if (surface.width, surface.height) == self.shown:
            parts = self.view.take()
            exact = not parts and bool(self._lossy) and time.monotonic() - self._lossy_at > QUIET
            if exact:  # nothing moves: what was sent as JPEG is sent as it is
                parts, self._lossy = self._lossy, []
            elif self.rows is not None and parts:
                parts = self._move(self.rows, parts, rects)
            for rectangle in parts:
                for part in _pieces(*rectangle):
                    rects += self._encode(*part, exact)
        if not rects:
            return False
        self.wanted = None
        self._send(rects)
        return True

    def _move(self, rows: Rows, parts: list[Any], rects: list[bytes]) -> list[Any]:
        """Have rows copied that only moved; what is left of `parts`."""
        surface = self.server.console.surface
        width = surface.width
        moves = rows.moves(surface, parts)
        rows.note(surface, parts)
        for to, source, count in moves:
            rects.append(encode.head(0, to, width, count, COPY_RECT) + b"\0\0" + source.to_bytes(2, "big"))
            parts = [left for part in parts for left in _without(part, to, to + count)]
            if self._lossy:  # what was copied may be a JPEG's
                self._note_lossy((0, to, width, count))
        return parts

    def _news(self) -> Iterator[bytes]:
        """Pseudo-rectangles: another size, cursor, pointer or LEDs, keys as scan codes. They go with an update that was
        asked for: libvncclient's programs wait for the socket between messages, and miss one that came with the last.
        """
        console = self.server.console
        size = console.surface.width, console.surface.height
        assert self.view is not None
        if size != self.shown:
            if EXTENDED_DESKTOP_SIZE in self.pseudo:
                self.shown = size
                yield self._desktop_size()
            elif DESKTOP_SIZE in self.pseudo:
                self.shown = size
                yield encode.head(0, 0, *size, DESKTOP_SIZE)
            else:
                raise ProtocolError("the screen has another size now, which this client cannot follow")
            self.view.all()
            self._lossy.clear()
        if KEY_EVENT in self.pseudo and not self.extended_keys:
            self.extended_keys = True
            yield encode.head(0, 0, 0, 0, KEY_EVENT)
        if POINTER_CHANGE in self.pseudo and self.absolute != self.server.absolute:
            yield self._pointer_kind()
        if CURSOR in self.pseudo and console.cursor is not None and self.cursor_seen != console.cursor_changes:
            self.cursor_seen = console.cursor_changes
            yield self._cursor(console.cursor)
        leds = self.server.input.leds() if LED_STATE in self.pseudo and self.server.lock_keys else None
        if leds is not None and leds != self.leds_seen:
            self.leds_seen = leds
            yield encode.head(0, 0, 0, 0, LED_STATE) + bytes((leds,))

    def _desktop_size(self, reason: int = 0, status: int = 0) -> bytes:
        width, height = self.server.console.surface.width, self.server.console.surface.height
        screen = bytes(4) + bytes(4) + width.to_bytes(2, "big") + height.to_bytes(2, "big") + bytes(4)
        return encode.head(reason, status, width, height, EXTENDED_DESKTOP_SIZE) + b"\1\0\0\0" + screen

    def _cursor(self, cursor: Any) -> bytes:
        """Pixels in the client's format, and a mask of what is opaque."""
        from vmrun.core.surface import Surface

        picture = Surface(cursor.width, cursor.height)
        mask = bytearray((cursor.width + 7) // 8 * cursor.height)
        for y in range(cursor.height):
            for x in range(cursor.width):
                value = int.from_bytes(cursor.pixels[4 * (y * cursor.width + x) :][:4], "little")
                picture.fill(x, y, 1, 1, value & 0xFFFFFF)
                if value >> 31:
                    mask[y * ((cursor.width + 7) // 8) + x // 8] |= 0x80 >> (x & 7)
        pixels = encode.raw(picture, self.format, 0, 0, cursor.width, cursor.height)
        return encode.head(cursor.hot_x, cursor.hot_y, cursor.width, cursor.height, CURSOR) + pixels + mask

    def _send(self, rects: list[bytes]) -> None:
        for at in range(0, len(rects), 0xFFFF):
            part = rects[at : at + 0xFFFF]
            self.stream.write(b"\0\0" + len(part).to_bytes(2, "big") + b"".join(part))

    # --- encodings ------------------------------------------------------------------------------------------

    def _encode(self, x: int, y: int, width: int, height: int, exact: bool) -> list[bytes]:
        """A part as the client likes it best; `exact`: not as JPEG."""
        code = self.encodings[0]
        surface, form = self.server.console.surface, self.format
        head = encode.head(x, y, width, height, code)
        if code == HEXTILE:
            return [head + encode.hextile(surface, form, x, y, width, height)]
        if code == ZLIB:
            return [head + self._deflated(ZLIB, encode.raw(surface, form, x, y, width, height))]
        if code == ZRLE:
            return [head + self._deflated(ZRLE, encode.zrle(surface, form, x, y, width, height))]
        if code == TIGHT:
            return [head + self._tight(x, y, width, height, exact)]
        return [head + encode.raw(surface, form, x, y, width, height)]

    def _packed(self, stream: int, data: bytes | bytearray) -> bytes:
        packer = self._deflate.get(stream)
        if packer is None:
            packer = self._deflate[stream] = zlib.compressobj(self.level)
        return bytes(packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))

    def _deflated(self, stream: int, data: bytes | bytearray) -> bytes:
        packed = self._packed(stream, data)
        return len(packed).to_bytes(4, "big") + packed

    def _tight(self, x: int, y: int, width: int, height: int, exact: bool) -> bytes:
        surface = self.server.console.surface
        palette, data = encode.tight(surface, self.format, x, y, width, height)
        if palette is not None and not data:
            return bytes((TIGHT_FILL,)) + palette
        if (
            palette is None and not exact and self.quality >= 0 and self.format.three
            and width * height >= SMALLEST_JPEG
        ):
            picture = _jpeg(surface, x, y, width, height, self.quality)
            if picture is not None:
                if self.server.adaptive:
                    self._note_lossy((x, y, width, height))
                return bytes((TIGHT_JPEG,)) + _compact(len(picture)) + picture
        if palette is None:
            return bytes((0,)) + self._tight_data(0, data)
        size = len(palette) // (3 if self.format.three else self.format.bits // 8)
        stream = 1 if size == 2 else 2
        return bytes((TIGHT_FILTER | stream << 4, 1, size - 1)) + palette + self._tight_data(stream, data)

    def _note_lossy(self, part: tuple[int, int, int, int]) -> None:
        self._lossy_at = time.monotonic()
        if part not in self._lossy:
            self._lossy.append(part)
        if len(self._lossy) > MOST_LOSSY:
            self._lossy = [(0, 0, *self.shown)]

    def _tight_data(self, stream: int, data: bytes | bytearray) -> bytes:
        if len(data) < 12:
            return bytes(data)
        packed = self._packed(0x100 + stream, data)
        return _compact(len(packed)) + packed

    # --- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of what it held down, of keys when all that it typed is pressed."""
        if self.view is not None:
            self.server.console.detach(self.view)
            self.view = None
        if self.cut is not None:
            self.cut.close()
            self.cut = None
        if self.sasl is not None:
            self.sasl.close()
        if self.typed:
            self.server.keys.put(self._let_go, always=True)
        self._pointer_up()
        self.server.input.sync()

    def _let_go(self) -> None:
        for key in self.keys.values():
            self.server.input.key(key, False)
        self.server.input.sync()

    def _pointer_up(self) -> None:
        for bit, name in enumerate(BUTTONS):
            if self.buttons >> bit & 1:
                self.server.input.button(name, False)


def _without(part: tuple[int, int, int, int], first: int, behind: int) -> Iterator[tuple[int, int, int, int]]:
    """What of a rectangle is not in rows from `first` to `behind`."""
    x, y, width, height = part
    if y < first:
        yield x, y, width, min(height, first - y)
    if y + height > behind:
        top = max(y, behind)
        yield x, top, width, y + height - top


def _pieces(x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    for top in range(y, y + height, SIDE):
        for left in range(x, x + width, SIDE):
            yield left, top, min(SIDE, x + width - left), min(SIDE, y + height - top)


def _compact(length: int) -> bytes:
    """Tight's length: seven bits a byte, the lowest first, at most three bytes."""
    if length < 0x80:
        return bytes((length,))
    if length < 0x4000:
        return bytes((length & 0x7F | 0x80, length >> 7))
    return bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))


_jpeg_of: list[Callable[..., bytes] | None] = []


def _jpeg(surface: Any, x: int, y: int, width: int, height: int, quality: int) -> bytes | None:
    """A JPEG of a part, or None where Pillow is not installed."""
    if not _jpeg_of:
        try:
            from vmrun.core.jpeg import encode as jpeg

            _jpeg_of.append(jpeg)
        except ImportError:
            _jpeg_of.append(None)
    make = _jpeg_of[0]
    if make is None:
        return None
    return make(bytes(surface.rectangle(x, y, width, height)), width, height, JPEG_QUALITY[quality], "BGRX")
