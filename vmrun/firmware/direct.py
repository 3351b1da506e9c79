"""A kernel without a firmware (`firmware: none`): where everything lies and in which state the first processor begins.

| kernel | begins as | is handed |
|---|---|---|
| bzImage with a 64-bit entry, on a 64-bit processor | long mode, 512 bytes into the kernel | boot parameters |
| other bzImage, zImage | protected mode, paging off | boot parameters |
| ELF without a note | long mode or protected mode, by its class | boot parameters |
| PVH | protected mode | hvm_start_info |
| multiboot 1, 2 | protected mode | its information |

Ref: Linux Documentation/arch/x86/boot.rst and zero-page.rst; Xen docs/misc/pvh.pandoc, arch-x86/hvm/start_info.h;
Multiboot Specification 0.6.96; Multiboot2 Specification 2.0.
Not modelled: a video mode (nobody has set one), EFI, SMBIOS tables.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError, about
from vmrun.firmware import elf, linux, lowmem, multiboot
from vmrun.firmware import kernel as kernels
from vmrun.firmware.elf import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.firmware.kernel import Kernel
    from vmrun.firmware.lowmem import LowMemory

LOADER_TYPE = 0xFF  # none of the numbers that Linux gives out
HEADER_AT, HEADER_END = 0x1F1, 0x290
E820_AT, E820_MOST = 0x2D0, 128
RSDP_FIELD, EXT_MEM, LINE_MAGIC, E820_COUNT = 0x70, 0x02, 0x20, 0x1E8
RELOCATABLE, ENTRY_64, STAYS_LOADED = 0x234, 1, 0x40
PVH_MAGIC = 0x336EC578
PAGE = 4096


class Start:
    """Of the first processor: 64-bit or 32-bit code at `entry`, with these registers."""

    __slots__ = ("entry", "long_mode", "registers")

    def __init__(self, entry: int, long_mode: bool, **registers: int) -> None:
        self.entry, self.long_mode, self.registers = entry, long_mode, registers


class Plan:
    """what: the kernel and its way in, for a person. pieces: all that is written into RAM at every reset."""

    __slots__ = ("low", "pieces", "start", "what")

    def __init__(self, what: str, pieces: list[Piece], start: Start, low: LowMemory) -> None:
        self.what, self.start, self.low = what, start, low
        self.pieces = [*low.pieces, *pieces, lowmem.descriptors(start.long_mode)]
        if start.long_mode:
            self.pieces.append(lowmem.page_tables())


def plan(kernel: Kernel, low: LowMemory, long_mode: bool) -> Plan:
    """`long_mode`: the machine's processors have it. BuildError: the kernel cannot be started so."""
    with about("kernel", "VR0630"):
        return _plan(kernel, low, long_mode)


def _plan(kernel: Kernel, low: LowMemory, long_mode: bool) -> Plan:
    if kernel.kind == kernels.LINUX:
        return _linux(kernel, low, long_mode)
    if kernel.kind == kernels.PVH:
        return _pvh(kernel, low)
    if kernel.kind == kernels.ELF:
        return _elf(kernel, low, long_mode)
    return _multiboot(kernel, low, 1 if kernel.kind == kernels.MULTIBOOT_1 else 2)


# --- Linux's own protocol ---------------------------------------------------------------------------------


def _linux(kernel: Kernel, low: LowMemory, long_mode: bool) -> Plan:
    version, high = linux.protocol(kernel.data)
    setup, rest = linux.split(kernel.data)
    if not rest:
        raise BuildError("the kernel is cut off: nothing is behind its setup")
    where, needs = 0x1000, len(rest)
    if high:
        where, needs = _place_linux(setup, len(rest), low.top) if version >= 0x20A else (lowmem.MEBIBYTE, len(rest))
        linux.check_memory(setup, version, where, len(rest), low.top)
    piece = Piece(where, rest)
    kernels.check_room([Piece(where, b"", needs)], low.free, "kernel")
    flags = struct.unpack_from("<H", setup, 0x236)[0] if version >= 0x20C else 0
    wide = bool(flags & ENTRY_64) and long_mode
    params = _parameters(low)
    if version >= 0x200:
        end = min(0x202 + setup[0x201], HEADER_END)
        params[HEADER_AT:end] = setup[HEADER_AT:end]
        params[0x210] = LOADER_TYPE
        params[0x211] &= ~STAYS_LOADED & 0xFF
        if version >= 0x202:
            struct.pack_into("<I", params, 0x214, where)
    pieces = [piece, *_command_line(kernel, params, version, setup)]
    mode = linux.video_mode(kernel.words)
    if mode is not None:
        struct.pack_into("<H", params, 0x1FA, mode)
    if kernel.initrd:
        if version < 0x200:
            raise BuildError("the kernel is older than the boot protocol 2.00 and takes no initrd")
        limit = linux.highest(bytes(setup), version, low.top)
        pieces.append(_initrd(kernel.initrd, params, where + needs, limit))
    pieces.append(Piece(lowmem.PARAMS_AT, bytes(params)))
    name = "bzImage" if high else "zImage"
    entry = where + 0x200 if wide else where
    what = f"{name}, {64 if wide else 32}-bit entry"
    return Plan(what, pieces, Start(entry, wide, rsi=lowmem.PARAMS_AT), low)


def _place_linux(setup: bytearray, size: int, top: int) -> tuple[int, int]:
    """(address, bytes it needs there): where the kernel prefers to run, else as low as it can."""
    alignment, relocatable = struct.unpack_from("<IB", setup, 0x230)
    preferred, needs = struct.unpack_from("<QI", setup, 0x258)
    needs = max(needs, size)
    if not relocatable:
        return lowmem.MEBIBYTE, size
    if preferred + needs <= top and preferred >= lowmem.MEBIBYTE:
        return preferred, needs
    step = max(alignment, PAGE)
    return -(-lowmem.MEBIBYTE // step) * step, needs


def _parameters(low: LowMemory) -> bytearray:
    """The zero page with what a firmware would tell: memory and the RSDP."""
    params = bytearray(PAGE)
    rows = low.rows[:E820_MOST]
    params[E820_COUNT] = len(rows)
    for n, row in enumerate(rows):
        struct.pack_into("<QQI", params, E820_AT + 20 * n, *row)
    struct.pack_into("<Q", params, RSDP_FIELD, low.rsdp)
    above = (low.top - lowmem.MEBIBYTE) >> 10
    struct.pack_into("<H", params, EXT_MEM, min(above, 0xFFFF))
    struct.pack_into("<I", params, 0x1E0, above)
    return params


def _command_line(kernel: Kernel, params: bytearray, version: int, setup: bytearray | None = None) -> list[Piece]:
    most = lowmem.TEXTS_ROOM - 1
    if setup is not None:
        most = min(most, linux.longest_line(setup, version))
    if len(kernel.words) > most:
        raise linux.too_long(len(kernel.words), most)
    if version >= 0x202:
        struct.pack_into("<I", params, 0x228, lowmem.TEXTS_AT)
    else:
        struct.pack_into("<HH", params, LINE_MAGIC, 0xA33F, lowmem.TEXTS_AT - lowmem.PARAMS_AT)
    return [Piece(lowmem.TEXTS_AT, kernel.words + b"\0")]


def _initrd(data: bytes, params: bytearray, lowest: int, limit: int) -> Piece:
    """As high as it may be: the last byte is at `limit` or below."""
    where = (limit + 1 - len(data)) & ~(PAGE - 1)
    if where < max(lowest, lowmem.MEBIBYTE):
        raise linux.no_room(len(data))
    struct.pack_into("<II", params, 0x218, where, len(data))
    return Piece(where, data)


def _elf(kernel: Kernel, low: LowMemory, long_mode: bool) -> Plan:
    """vmlinux: entered as its own decompressor would."""
    found = elf.parse(kernel.data)
    wide = found.bits == 64
    if wide and not long_mode:
        raise BuildError(
            "the kernel is 64-bit code, and the machine's processors are not",
            remedy="choose another model under cpus, or a 32-bit kernel",
        )
    if not found.inside(found.entry):
        raise _outside(found.entry)
    kernels.check_room(found.pieces, low.free, "kernel")
    params = _parameters(low)
    params[0x1FE:0x200] = b"\x55\xaa"
    params[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", params, 0x206, 0x20C)
    params[0x210], params[0x211] = LOADER_TYPE, linux.LOADED_HIGH
    pieces = [*found.pieces, *_command_line(kernel, params, 0x20C)]
    if kernel.initrd:
        pieces.append(_initrd(kernel.initrd, params, found.high, low.top - 1))
    pieces.append(Piece(lowmem.PARAMS_AT, bytes(params)))
    return Plan(f"ELF, {found.bits}-bit entry", pieces, Start(found.entry, wide, rsi=lowmem.PARAMS_AT), low)


# --- PVH and multiboot ------------------------------------------------------------------------------------


def _pvh(kernel: Kernel, low: LowMemory) -> Plan:
    found = elf.parse(kernel.data)
    assert found.pvh is not None
    if not found.inside(found.pvh):
        raise _outside(found.pvh)
    kernels.check_room(found.pieces, low.free, "kernel")
    pieces = list(found.pieces)
    line = kernel.words + b"\0"
    if len(line) > lowmem.TEXTS_ROOM:
        raise linux.too_long(len(line) - 1, lowmem.TEXTS_ROOM - 1)
    listed = b""
    if kernel.initrd:
        where = (low.top - len(kernel.initrd)) & ~(PAGE - 1)
        if where < max(found.high, lowmem.MEBIBYTE):
            raise linux.no_room(len(kernel.initrd))
        pieces.append(Piece(where, kernel.initrd))
        listed = struct.pack("<QQQQ", where, len(kernel.initrd), 0, 0)
    info_size = 56
    list_at = lowmem.INFO_AT + info_size
    map_at = list_at + len(listed)
    table = b"".join(struct.pack("<QQII", *row, 0) for row in low.rows)
    info = struct.pack(
        "<IIIIQQQQII", PVH_MAGIC, 1, 0, len(listed) // 32, list_at if listed else 0, lowmem.TEXTS_AT, low.rsdp, map_at,
        len(low.rows), 0,
    )  # fmt: skip
    pieces += [Piece(lowmem.TEXTS_AT, line), Piece(lowmem.INFO_AT, info + listed + table)]
    return Plan("PVH", pieces, Start(found.pvh, False, rbx=lowmem.INFO_AT), low)


def _multiboot(kernel: Kernel, low: LowMemory, version: int) -> Plan:
    found = multiboot.load(kernel.data, version)
    if not any(piece.addr <= found.entry < piece.end for piece in found.pieces):
        raise _outside(found.entry)
    kernels.check_room(found.pieces, low.free, "kernel")
    places = multiboot.place_modules(kernel.modules, max(found.high, lowmem.MEBIBYTE))
    kernels.check_room(places, low.free, "kernel with its modules")
    words = kernel.line
    if version == 1:
        texts_at = lowmem.TEXTS_AT + multiboot.INFO_SIZE
        info, texts = multiboot.information_1(lowmem.TEXTS_AT, texts_at, words, kernel.modules, places, low.rows)
        told = info + texts
    else:
        told = multiboot.information_2(found.low, words, kernel.modules, places, low.rows, low.rsdp_bytes)
    if len(told) > lowmem.TEXTS_ROOM:
        raise BuildError(
            f"the kernel's words and its modules' have {len(told)} bytes together; {lowmem.TEXTS_ROOM} can be given",
            code="VR0714",
            path="cmdline",
            remedy="shorten `cmdline:`",
        )
    pieces = [*found.pieces, *places, Piece(lowmem.TEXTS_AT, told)]
    magic = multiboot.FOUND_1 if version == 1 else multiboot.FOUND_2
    start = Start(found.entry, False, rax=magic, rbx=lowmem.TEXTS_AT)
    return Plan("multiboot" if version == 1 else "multiboot 2", pieces, start, low)


def _outside(entry: int) -> BuildError:
    return BuildError(f"the kernel is entered at {entry:#x}, where nothing of it is loaded", remedy=elf.REMEDY)
