"""ACPI machine language, written as Python expressions that give bytes.

    device("RTC", name("_HID", eisaid("PNP0B00")), name("_CRS", resources(io(0x70, 0x70, 1, 8), irq(8))))

Every function returns the encoded term. Where a term is an operand, a Python value stands for it: int, str
that is a name ("PRQ0", "\\\\_SB.PCI0"), text("…") for a string, ARG0…ARG6 and LOCAL0…LOCAL7.
Ref: ACPI specification 6.4, chapter 20 "ACPI Machine Language", and 6.4 "Resource Data Types".
Not modelled: what no table here needs (events, banks, indexed fields, floating names).
"""

from __future__ import annotations

import struct

Term = bytes | int | str

ZERO, ONE, ONES = b"\x00", b"\x01", b"\xff"
LOCAL0, LOCAL1, LOCAL2, LOCAL3, LOCAL4, LOCAL5, LOCAL6, LOCAL7 = (bytes([0x60 + n]) for n in range(8))
ARG0, ARG1, ARG2, ARG3, ARG4, ARG5, ARG6 = (bytes([0x68 + n]) for n in range(7))

SYSTEM_MEMORY, SYSTEM_IO, PCI_CONFIG = 0, 1, 2  # address spaces of an operation region
ANY_ACCESS, BYTE_ACCESS, WORD_ACCESS, DWORD_ACCESS = 0, 1, 2, 3
PRESERVE, WRITE_AS_ONES, WRITE_AS_ZEROS = 0, 1, 2
PACKAGE = 4  # an object type


# --- names and constants ------------------------------------------------------


_encoded: dict[str, bytes] = {}  # the same few hundred names come thousands of times


def path(name: str) -> bytes:
    """A NameString: "PCI0", "PCI0.S08", "\\_SB.PCI0", "^PRQ0". Segments are padded with underscores."""
    found = _encoded.get(name)
    if found is None:
        found = _encoded[name] = _path(name)
    return found


def _path(name: str) -> bytes:
    prefix = b""
    while name[:1] in ("\\", "^"):
        prefix += name[0].encode()
        name = name[1:]
    segments = [segment(part) for part in name.split(".")] if name else []
    if not segments:
        return prefix + b"\x00"
    if len(segments) == 1:
        return prefix + segments[0]
    if len(segments) == 2:
        return prefix + b"\x2e" + b"".join(segments)
    return prefix + b"\x2f" + bytes([len(segments)]) + b"".join(segments)


def segment(name: str) -> bytes:
    """Four characters, first a letter or underscore. ValueError otherwise."""
    good = name[:1].isalpha() or name[:1] == "_"
    if not (1 <= len(name) <= 4 and good and name.replace("_", "A").isalnum() and name == name.upper()):
        raise ValueError(f"{name!r} is no ACPI name")
    return name.ljust(4, "_").encode()


def integer(value: int) -> bytes:
    """The shortest constant."""
    if value in (0, 1):
        return bytes([value])
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if 0 <= value < 1 << 8 * size:
            return bytes([prefix]) + value.to_bytes(size, "little")
    raise ValueError(f"{value} is no 64-bit number")


def term(value: Term) -> bytes:
    """An operand: what is encoded already, a number, or a name."""
    if isinstance(value, bytes):
        return value
    return integer(value) if isinstance(value, int) else path(value)


def text(value: str) -> bytes:
    """An ASCII string constant."""
    return b"\x0d" + value.encode("ascii") + b"\x00"


def eisaid(value: str) -> bytes:
    """ "PNP0A03" in the compressed form of a _HID."""
    letters = [ord(character) - 0x40 for character in value[:3]]
    packed = letters[0] << 10 | letters[1] << 5 | letters[2]
    return b"\x0c" + struct.pack(">HH", packed, int(value[3:], 16))


def uuid(value: str) -> bytes:
    """A buffer with a UUID, its first three fields little-endian."""
    a, b, c, d, e = value.split("-")
    return buffer(
        bytes.fromhex(a)[::-1] + bytes.fromhex(b)[::-1] + bytes.fromhex(c)[::-1] + bytes.fromhex(d + e)
    )


def sized(opcode: bytes, body: bytes) -> bytes:
    """opcode PkgLength body. The length counts itself."""
    return opcode + length(len(body)) + body


def length(count: int, counts_itself: bool = True) -> bytes:
    """A PkgLength of `count` bytes to follow (or of that many bits, in a field list)."""
    for extra in range(4):
        total = count + (extra + 1 if counts_itself else 0)
        if extra == 0 and total < 0x40:
            return bytes([total])
        if extra and total < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | total & 0x0F]) + (total >> 4).to_bytes(extra, "little")
    raise ValueError(f"{count} bytes are too many for one package")


def buffer(data: bytes) -> bytes:
    return sized(b"\x11", integer(len(data)) + data)


def package(*items: Term, count: int | None = None) -> bytes:
    """Items, then empty ones up to `count`."""
    total = len(items) if count is None else count
    if total > 255:
        return sized(b"\x13", integer(total) + b"".join(map(term, items)))
    return sized(b"\x12", bytes([total]) + b"".join(map(term, items)))


# --- named things ------------------------------------------------------


def name(what: str, value: Term) -> bytes:
    return b"\x08" + path(what) + term(value)


def scope(where: str, *body: bytes) -> bytes:
    return sized(b"\x10", path(where) + b"".join(body))


def device(what: str, *body: bytes) -> bytes:
    return sized(b"\x5b\x82", path(what) + b"".join(body))


def processor(what: str, id: int, *body: bytes) -> bytes:
    """Without a P_BLK."""
    return sized(b"\x5b\x83", path(what) + bytes([id]) + bytes(5) + b"".join(body))


def method(what: str, arguments: int, *body: bytes, serialized: bool = False) -> bytes:
    return sized(b"\x14", path(what) + bytes([arguments | serialized << 3]) + b"".join(body))


def mutex(what: str) -> bytes:
    return b"\x5b\x01" + path(what) + b"\x00"


def region(what: str, space: int, offset: Term, size: int) -> bytes:
    return b"\x5b\x80" + path(what) + bytes([space]) + term(offset) + integer(size)


def field(of: str, access: int, *parts: tuple[str, int], lock: bool = False, update: int = PRESERVE) -> bytes:
    """Named parts of a region, (name, bits) from its first bit on; a part without a name is a gap."""
    body = path(of) + bytes([access | lock << 4 | update << 5])
    for part, bits in parts:
        body += (segment(part) if part else b"\x00") + length(bits, False)
    return sized(b"\x5b\x81", body)


def dword_field(what: str, source: Term, offset: int) -> bytes:
    """CreateDWordField."""
    return b"\x8a" + term(source) + integer(offset) + path(what)


def bit_field(what: str, source: Term, first: int, bits: Term) -> bytes:
    """CreateField: `bits` from the bit `first`; a buffer, or a number when it fits into one."""
    return b"\x5b\x13" + term(source) + integer(first) + term(bits) + path(what)


# --- statements ------------------------------------------------------


def store(value: Term, target: Term) -> bytes:
    return b"\x70" + term(value) + term(target)


def give(value: Term) -> bytes:
    """Return."""
    return b"\xa4" + term(value)


def when(condition: Term, *body: bytes) -> bytes:
    return sized(b"\xa0", term(condition) + b"".join(body))


def otherwise(*body: bytes) -> bytes:
    """Else; directly after a `when`."""
    return sized(b"\xa1", b"".join(body))


def loop(condition: Term, *body: bytes) -> bytes:
    """While."""
    return sized(b"\xa2", term(condition) + b"".join(body))


def leave() -> bytes:
    """Break: out of the loop."""
    return b"\xa5"


def call(what: str, *arguments: Term) -> bytes:
    return path(what) + b"".join(map(term, arguments))


def notify(what: str, value: Term) -> bytes:
    return b"\x86" + path(what) + term(value)


def increment(what: Term) -> bytes:
    return b"\x75" + term(what)


def acquire(what: str) -> bytes:
    """Wait for a mutex without limit."""
    return b"\x5b\x23" + path(what) + b"\xff\xff"


def release(what: str) -> bytes:
    return b"\x5b\x27" + path(what)


def sleep(milliseconds: int) -> bytes:
    return b"\x5b\x22" + integer(milliseconds)


# --- expressions ------------------------------------------------------


def _binary(opcode: int, a: Term, b: Term, target: Term) -> bytes:
    return bytes([opcode]) + term(a) + term(b) + term(target)


def add(a: Term, b: Term, target: Term = ZERO) -> bytes:
    return _binary(0x72, a, b, target)


def subtract(a: Term, b: Term, target: Term = ZERO) -> bytes:
    return _binary(0x74, a, b, target)


def shift_left(a: Term, b: Term, target: Term = ZERO) -> bytes:
    return _binary(0x79, a, b, target)


def shift_right(a: Term, b: Term, target: Term = ZERO) -> bytes:
    return _binary(0x7A, a, b, target)


def bit_and(a: Term, b: Term, target: Term = ZERO) -> bytes:
    return _binary(0x7B, a, b, target)


def bit_or(a: Term, b: Term, target: Term = ZERO) -> bytes:
    return _binary(0x7D, a, b, target)


def both(a: Term, b: Term) -> bytes:
    """Logical and."""
    return b"\x90" + term(a) + term(b)


def either(a: Term, b: Term) -> bytes:
    """Logical or."""
    return b"\x91" + term(a) + term(b)


def invert(a: Term) -> bytes:
    """Logical not."""
    return b"\x92" + term(a)


def equal(a: Term, b: Term) -> bytes:
    return b"\x93" + term(a) + term(b)


def greater(a: Term, b: Term) -> bytes:
    return b"\x94" + term(a) + term(b)


def less(a: Term, b: Term) -> bytes:
    return b"\x95" + term(a) + term(b)


def element(of: Term, n: Term) -> bytes:
    """A reference to an element (Index)."""
    return b"\x88" + term(of) + term(n) + ZERO


def value_at(of: Term, n: Term) -> bytes:
    """The element itself (DerefOf of Index)."""
    return b"\x83" + element(of, n)


def size_of(what: Term) -> bytes:
    return b"\x87" + term(what)


def type_of(what: Term) -> bytes:
    """ObjectType."""
    return b"\x8e" + term(what)


def concatenate(a: Term, b: Term, target: Term) -> bytes:
    return _binary(0x73, a, b, target)


def to_buffer(what: Term, target: Term) -> bytes:
    return b"\x96" + term(what) + term(target)


def to_integer(what: Term) -> bytes:
    return b"\x99" + term(what) + ZERO


def to_hex(what: Term, target: Term) -> bytes:
    return b"\x98" + term(what) + term(target)


# --- resource descriptors ------------------------------------------------------


def resources(*descriptors: bytes) -> bytes:
    """A ResourceTemplate; its checksum byte is 0, which means 'not checked'."""
    return buffer(b"".join(descriptors) + b"\x79\x00")


def io(first: int, last: int, align: int, count: int) -> bytes:
    """Ports with 16-bit decoding; `first` and `last` bound where they may begin."""
    return struct.pack("<BBHHBB", 0x47, 1, first, last, align, count)


def irq(n: int) -> bytes:
    """An ISA interrupt, edge, high (IRQNoFlags)."""
    return struct.pack("<BH", 0x22, 1 << n)


def dma(channel: int) -> bytes:
    """Compatibility mode, no bus master, 8 bits."""
    return struct.pack("<BBB", 0x2A, 1 << channel, 0)


def interrupts(*numbers: int) -> bytes:
    """Level, active high, shared: how PCI interrupts reach the controllers."""
    return struct.pack(f"<BHBB{len(numbers)}I", 0x89, 2 + 4 * len(numbers), 0x09, len(numbers), *numbers)


def memory32(base: int, size: int, writable: bool = False) -> bytes:
    return struct.pack("<BHBII", 0x86, 9, writable, base, size)


_FIXED = 0x0C  # both ends fixed, positive decoding, producer


def word_bus(first: int, last: int) -> bytes:
    return struct.pack("<BHBBBHHHHH", 0x88, 13, 2, _FIXED, 0, 0, first, last, 0, last - first + 1)


def word_io(first: int, last: int) -> bytes:
    return struct.pack("<BHBBBHHHHH", 0x88, 13, 1, _FIXED, 3, 0, first, last, 0, last - first + 1)


def dword_memory(first: int, last: int, cacheable: bool = False) -> bytes:
    return struct.pack(
        "<BHBBBIIIII", 0x87, 23, 0, _FIXED, 1 | cacheable << 1, 0, first, last, 0, last - first + 1
    )


def qword_memory(first: int, last: int, cacheable: bool = False) -> bytes:
    return struct.pack(
        "<BHBBBQQQQQ", 0x8A, 43, 0, _FIXED, 1 | cacheable << 1, 0, first, last, 0, last - first + 1
    )
