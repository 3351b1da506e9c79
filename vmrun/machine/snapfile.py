"""The file of a saved machine: sections in a row, each with a sum of its bytes, and an end that says that all are
there.

    8 bytes   "vmrunsn1"
    a section: name (4 bytes), length (8), its bytes, CRC-32 of name, length and bytes (4); numbers are little-endian
    MANI      what machine it is, in JSON; comes first
    BLOK      a piece of memory: number of the block (4), offset (8), a bit for each of its 256 pages that is not all
              zeros (32), those pages as one zstd frame. Pages and pieces that are all zeros are left out.
    STAT      devices and processors, in JSON as a zstd frame
    END!      number of the sections before it (8); nothing follows

It is written under another name and gets its own when the host has it on disk. A file that is cut, or changed by a bit,
is refused before anything is read into a machine. Reading and writing hold one piece of memory at a time.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import struct

import zstandard

from vmrun.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

MAGIC = b"vmrunsn1"
MANIFEST, BLOCK, STATE, END = b"MANI", b"BLOK", b"STAT", b"END!"
HEAD, SUM, PIECE_HEAD, COUNT = struct.Struct("<4sQ"), struct.Struct("<I"), struct.Struct("<IQ32s"), struct.Struct("<Q")
PAGE, PIECE = 4096, 1 << 20
ZERO_PAGE, ZERO_PIECE = bytes(PAGE), bytes(PIECE)
LONGEST = {MANIFEST: 64 << 20, BLOCK: PIECE_HEAD.size + 2 * PIECE, STATE: 256 << 20, END: COUNT.size}
MOST_STATE = 512 << 20  # bytes of STAT when it is unpacked


class Writer:
    """`with Writer(path) as file: file.manifest(…); file.piece(…)…; file.state(…)`; an exception leaves no file.
    `fd`: a descriptor to write to from where it stands, which is the writer's from now on; `path` is its name then.
    """

    def __init__(self, path: str, fd: int = -1) -> None:
        # a terminal, a pipe or /dev/null is written to where it is: only a file has another put in its place
        special = os.path.exists(path) and not os.path.isfile(path)
        self.path, self.own = path, f"{path}.{os.getpid()}.part" if fd < 0 and not special else ""
        self.sections = self.written = 0
        self.packer = zstandard.ZstdCompressor(level=1)
        try:
            if fd < 0:
                how = os.O_CREAT | os.O_TRUNC if self.own else os.O_NONBLOCK  # a pipe that nobody reads is no place
                fd = os.open(self.own or path, os.O_WRONLY | how, 0o600)
            os.set_blocking(fd, True)
            self.file = os.fdopen(fd, "wb")
            self.file.write(MAGIC)
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is not None:
            self.drop()
            return
        try:
            self._section(END, COUNT.pack(self.sections))
            self.file.flush()
            if not self.own:
                self.file.close()
                return
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.own, self.path)
            folder = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            self.drop()
            raise StateError(f"{self.path} cannot be written: {error.strerror}") from None

    def drop(self) -> None:
        try:
            self.file.close()
        except OSError:
            pass
        try:
            if self.own:
                os.unlink(self.own)
        except OSError:
            pass

    def _section(self, name: bytes, data: bytes) -> None:
        head = HEAD.pack(name, len(data))
        try:
            self.file.write(head)
            self.file.write(data)
            self.file.write(SUM.pack(binascii.crc32(data, binascii.crc32(head))))
        except OSError as error:
            raise StateError(f"{self.path} cannot be written: {error.strerror}") from None
        self.sections += 1
        self.written += len(head) + len(data) + SUM.size

    def manifest(self, values: dict[str, Any]) -> None:
        self._section(MANIFEST, encode(values))

    def state(self, values: dict[str, Any]) -> None:
        self._section(STATE, self.packer.compress(encode(values)))

    def piece(self, block: int, offset: int, data: bytes) -> None:
        """Up to 1 MiB of a block of memory, whole pages; nothing is written of zeros."""
        if data == ZERO_PIECE[: len(data)]:
            return
        marks = bytearray(32)
        pages = []
        for n in range(len(data) // PAGE):
            page = data[n * PAGE : (n + 1) * PAGE]
            if page != ZERO_PAGE:
                marks[n >> 3] |= 1 << (n & 7)
                pages.append(page)
        self._section(BLOCK, PIECE_HEAD.pack(block, offset, bytes(marks)) + self.packer.compress(b"".join(pages)))


class Reader:
    """Opening looks at all of the file. StateError: it is none, or not whole. `fd`: a descriptor to read from where it
    stands on, which is the reader's from now on; what comes out of a pipe waits in a file without a name.
    """

    def __init__(self, path: str, fd: int = -1) -> None:
        self.path = path
        self.unpacker = zstandard.ZstdDecompressor()
        try:
            self.file: BinaryIO = open(path, "rb") if fd < 0 else _from(fd)
            self.start = self.file.tell()
        except OSError as error:
            raise StateError(f"{path} cannot be read: {error.strerror}") from None
        try:
            self.manifest = self._verify()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()

    def _verify(self) -> dict[str, Any]:
        if self._read(len(MAGIC)) != MAGIC:
            raise StateError(f"{self.path} is no saved machine")
        manifest: bytes = b""
        names = []
        for name, data in self._sections():
            names.append(name)
            if name == MANIFEST:
                manifest = data
            if len(names) == 1 and name != MANIFEST:
                break
        whole = names[-1:] == [END] and names[:1] == [MANIFEST] and names.count(MANIFEST) == names.count(STATE) == 1
        if not whole or names.count(END) != 1 or self.last != COUNT.pack(len(names) - 1) or self.file.read(1):
            raise StateError(f"{self.path} is not whole", remedy="save the machine again")
        values = decode(manifest, self.path)
        if not isinstance(values, dict):
            raise StateError(f"{self.path} does not say what machine it is")
        return values

    def _read(self, count: int) -> bytes:
        try:
            return self.file.read(count)
        except OSError as error:
            raise StateError(f"{self.path} cannot be read: {error.strerror}") from None

    def _sections(self) -> Iterator[tuple[bytes, bytes]]:
        """From where the file is; stops at the first that is not whole, and behind the end."""
        self.last = b""
        while len(head := self._read(HEAD.size)) == HEAD.size:
            name, length = HEAD.unpack(head)
            if length > LONGEST.get(name, -1):
                return
            data, sum_ = self._read(length), self._read(SUM.size)
            if len(data) != length or sum_ != SUM.pack(binascii.crc32(data, binascii.crc32(head))):
                return
            self.last = data
            yield name, data
            if name == END:
                return

    def pieces(self) -> Iterator[tuple[int, int, bytes]]:
        """(number of the block, offset, data) of each piece of memory, zeros filled in."""
        for name, data in self._again():
            if name != BLOCK:
                continue
            number, offset, marks = PIECE_HEAD.unpack_from(data)
            pages = [n for n in range(PIECE // PAGE) if marks[n >> 3] >> (n & 7) & 1]
            held = self._unpack(data[PIECE_HEAD.size :], len(pages) * PAGE, exactly=True)
            out = bytearray((pages[-1] + 1) * PAGE if pages else 0)
            for at, n in enumerate(pages):
                out[n * PAGE : (n + 1) * PAGE] = held[at * PAGE : (at + 1) * PAGE]
            yield number, offset, bytes(out)

    def state(self) -> dict[str, Any]:
        for name, data in self._again():
            if name == STATE:
                values = decode(self._unpack(data, MOST_STATE), self.path)
                if isinstance(values, dict):
                    return values
        raise StateError(f"{self.path} has no state of devices")

    def _again(self) -> Iterator[tuple[bytes, bytes]]:
        self.file.seek(self.start + len(MAGIC))
        return self._sections()

    def _unpack(self, data: bytes, most: int, exactly: bool = False) -> bytes:
        try:
            size = zstandard.frame_content_size(data)
            if not 0 <= size <= most or exactly and size != most:
                raise StateError(f"{self.path}: a part of it is not as large as it says")
            out: bytes = self.unpacker.decompress(data, max_output_size=max(size, 1))
        except zstandard.ZstdError:
            raise StateError(f"{self.path}: a part of it cannot be unpacked") from None
        if len(out) != size:
            raise StateError(f"{self.path}: a part of it is not as large as it says")
        return out


class Whole:
    """Looks at what is fed to it and finds the end of a state, which no end of a stream may follow; or that it is none,
    whose sender need not be waited for.
    """

    def __init__(self) -> None:
        self.found = False
        self.skip, self.last, self.head = 0, False, b""
        self.magic = MAGIC  # what of it is still to come

    def feed(self, data: bytes) -> None:
        begin = data[: len(self.magic)]
        self.found |= not self.magic.startswith(begin)
        self.magic, at = self.magic[len(begin) :], len(begin)
        while at < len(data) and not self.found:
            if self.skip:
                step = min(self.skip, len(data) - at)
                self.skip, at = self.skip - step, at + step
                self.found = self.last and not self.skip
                continue
            step = HEAD.size - len(self.head)
            self.head, at = self.head + data[at : at + step], at + step
            if len(self.head) == HEAD.size:
                name, length = HEAD.unpack(self.head)
                self.found = length > LONGEST.get(name, -1)
                self.skip, self.last, self.head = length + SUM.size, name == END, b""


def _from(fd: int) -> BinaryIO:
    """A file that can be gone back in, of what a descriptor has to give."""
    os.set_blocking(fd, True)
    given: BinaryIO = os.fdopen(fd, "rb")
    if given.seekable():
        return given
    import shutil
    import tempfile

    with given:
        kept = tempfile.TemporaryFile()
        shutil.copyfileobj(given, kept, PIECE)
    kept.seek(0)
    return kept


# --- plain values as JSON -------------------------------------------------------------------------------------


def encode(values: dict[str, Any]) -> bytes:
    return json.dumps(_wrapped(values), separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _wrapped(value: Any) -> Any:
    """Bytes, and dicts whose keys are numbers, as JSON has none: {"$": base64}, {"#": [[key, value], …]}."""
    if isinstance(value, bytes):
        return {"$": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        if any(type(key) is int for key in value):
            return {"#": [[key, _wrapped(item)] for key, item in value.items()]}
        return {key: _wrapped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_wrapped(item) for item in value]
    return value


def decode(data: bytes, path: str) -> Any:
    """StateError for what is none."""
    try:
        return json.loads(data, object_hook=_unwrapped, parse_constant=_no_constant)
    except (ValueError, RecursionError, TypeError, binascii.Error):
        raise StateError(f"{path}: the state in it cannot be read") from None


def _unwrapped(value: dict[str, Any]) -> Any:
    if len(value) == 1 and "$" in value:
        return base64.b64decode(value["$"], validate=True)
    if len(value) == 1 and "#" in value:
        pairs = value["#"]
        if not all(type(pair) is list and len(pair) == 2 and type(pair[0]) is int for pair in pairs):
            raise ValueError("keys are numbers")
        return dict(pairs)
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(text)
