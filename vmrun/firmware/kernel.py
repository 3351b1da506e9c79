"""The kernel of a machine (`kernel:`, `initrd:`, `cmdline:`): what kind it is, and how the firmware starts it.

With a firmware the kernel is started as QEMU does it: its parts lie in fw_cfg, and an option ROM that is booted first
fetches them. Without one (`firmware: none`) vmrun.firmware.direct puts everything in its place.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError, about
from vmrun.firmware import elf, fwcfg, linux, modules, multiboot, parts

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.config.sections import MachineData
    from vmrun.firmware.elf import Piece

LINUX, MULTIBOOT_1, MULTIBOOT_2, PVH, ELF = "Linux", "multiboot", "multiboot 2", "PVH", "ELF"
ENTRY = 0x10  # fw_cfg item: where the kernel is entered

# Where multiboot.bin puts the firmware's memory map, and behind it the information that it completes
MAP_AT, INFO_AT, INFO_HIGH = 0x9000, 0x9500, 0x8FF00
LOWEST = 0x1000  # of a multiboot kernel: behind interrupt vectors, BIOS data and the ROM's stack
FLAT_MOST = 1 << 30  # bytes from the first to the last of a kernel that is handed over as one piece
HEAD = 8192  # of an ELF file, which pvh.bin reads


class Kernel:
    """The files of a machine's kernel. kind: one of the names above."""

    __slots__ = ("data", "kind", "modules", "name", "path", "words")

    def __init__(
        self, path: str, kind: str, data: bytes, found: list[modules.Module], words: bytes, name: str = ""
    ) -> None:
        self.path, self.kind, self.data, self.modules, self.words = path, kind, data, found, words
        self.name = name or path  # what a multiboot kernel is told

    @property
    def line(self) -> bytes:
        """The command line of a multiboot kernel, which begins with the kernel's name."""
        return self.name.encode() + (b" " + self.words if self.words else b"")

    @property
    def initrd(self) -> bytes:
        """The one initrd; BuildError when there are several, which is for multiboot kernels."""
        if len(self.modules) > 1:
            raise BuildError(
                f"initrd names {len(self.modules)} files, and {_a(self.kind)} kernel takes one",
                code="VR0605",
                path="initrd",
                remedy="modules are for multiboot kernels; a comma in a name is written twice",
            )
        return self.modules[0].data if self.modules else b""


class Boot:
    """What the firmware is given: fw_cfg items, the option ROM that starts the kernel, what lies in memory already."""

    __slots__ = ("images", "items", "rom")

    def __init__(self, items: dict[int, bytes], rom: str, images: list[Piece] | None = None) -> None:
        self.items, self.rom, self.images = items, rom, images or []

    @property
    def jumps_in_rom(self) -> bool:
        """The ROM enters protected mode with descriptors of its own, where it lies."""
        return not self.rom.startswith("linuxboot")


def read(machine: MachineData) -> Kernel:
    """The machine's kernel and initrd. BuildError: no such file, too large for the machine, no kernel."""
    room = parts.memory_below_4g(machine)
    path = str(machine["kernel"])
    names = machine.get("kernel-names") or {}
    data = modules.read_file(path, "kernel", room)
    with about("kernel", "VR0630"):
        kind = identify(data)
    found: list[modules.Module] = []
    if machine.get("initrd"):
        text = str(machine["initrd"])
        found = modules.read_all(text, room, str(names.get("initrd", "")))
    return Kernel(path, kind, data, found, str(machine.get("cmdline") or "").encode(), str(names.get("kernel", path)))


def identify(data: bytes) -> str:
    """By what a loader would find first: a Linux setup header, a multiboot header, Xen's note. BuildError: none."""
    if linux.is_kernel(data):
        return LINUX
    for version, kind in ((1, MULTIBOOT_1), (2, MULTIBOOT_2)):
        if multiboot.find(data, version) is not None:
            return kind
    if data[:4] == elf.MAGIC:
        return ELF if elf.parse(data).pvh is None else PVH
    raise BuildError(
        "the kernel is of no kind that vmrun starts",
        remedy="give a bzImage, a vmlinux, or a multiboot or PVH kernel; others boot from a disk",
    )


def through_firmware(machine: MachineData, kernel: Kernel) -> Boot:
    """For the firmware and its option ROMs. BuildError: the kernel needs what this machine's firmware is not given."""
    with about("kernel", "VR0630"):
        return _through_firmware(machine, kernel)


def _through_firmware(machine: MachineData, kernel: Kernel) -> Boot:
    roms = machine["firmware"].get("kernel-roms", {})
    dma = bool(roms.get("dma")) and fwcfg.has_dma(machine)
    if kernel.kind == LINUX:
        data_size = int(machine["firmware"].get("acpi-settings", {}).get("data-size", 0x10000))
        top = parts.memory_below_4g(machine) - data_size
        items = linux.load(kernel.data, kernel.initrd, kernel.words + b"\0", top)
        return Boot(items, "linuxboot_dma.bin" if dma else "linuxboot.bin")
    if kernel.kind == MULTIBOOT_1:
        return Boot(_multiboot(machine, kernel), "multiboot_dma.bin" if dma else "multiboot.bin")
    if kernel.kind == PVH and roms.get("pvh") and fwcfg.has_dma(machine):
        return _pvh(machine, kernel)
    why = "there is no option ROM for it"
    if kernel.kind == PVH:
        why = f"{machine['machine']} does not have pvh.bin, the option ROM for it"
    if kernel.kind == ELF:  # in the words of QEMU's message, which is what people look for
        why = "Error loading uncompressed kernel without PVH ELF Note"
    raise BuildError(
        f"{_a(kernel.kind)} kernel cannot be started through the firmware here: {why}",
        remedy="start it without a firmware (`firmware: none`), or give a bzImage"
        + (", or build the kernel with CONFIG_PVH" if kernel.kind == ELF else ""),
    )


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


def check_room(pieces: list[Piece], ranges: list[tuple[int, int]], what: str) -> None:
    """Each piece lies wholly in one of the ranges [start, end). BuildError names the one that does not."""
    for piece in pieces:
        if not any(start <= piece.addr and piece.end <= end for start, end in ranges):
            free = ", ".join(f"{start:#x} to {end:#x}" for start, end in ranges)
            raise BuildError(
                f"the {what} wants {piece.addr:#x} to {piece.end:#x}, where the machine has no free memory ({free})",
                code="VR0715",
                remedy="give the machine more memory, or link the kernel for another address",
            )


def _multiboot(machine: MachineData, kernel: Kernel) -> dict[int, bytes]:
    """Kernel, modules and texts in one piece, and the information that the ROM completes with the firmware's map."""
    loaded = multiboot.load(kernel.data, 1)
    top = parts.memory_below_4g(machine)
    check_room(loaded.pieces, [(LOWEST, INFO_HIGH), (1 << 20, top)], "multiboot kernel")
    if loaded.high - loaded.low > FLAT_MOST:
        raise BuildError(f"the multiboot kernel spans {loaded.high - loaded.low:#x} bytes, too many to hand over")
    texts_at = -(-loaded.high // multiboot.PAGE) * multiboot.PAGE
    words = kernel.line
    texts_room = len(words) + 1024 + sum(len(module.text.encode()) + 32 for module in kernel.modules)
    places = multiboot.place_modules(kernel.modules, texts_at + texts_room)
    # A kernel where the ROM puts the map overwrites it: it gets none, and its information behind it
    covers = loaded.low < 0x10000
    info_at = INFO_HIGH if covers else INFO_AT
    info, texts = multiboot.information_1(info_at, texts_at, words, kernel.modules, places, None)
    elf_piece = elf.Piece(texts_at, texts)
    pieces = [*loaded.pieces, elf_piece, *places]
    check_room(pieces[len(loaded.pieces) :], [(LOWEST, INFO_HIGH), (1 << 20, top)], "kernel with its modules")
    image = bytearray(pieces[-1].end - loaded.low)
    for piece in pieces:
        image[piece.addr - loaded.low : piece.addr - loaded.low + len(piece.data)] = piece.data
    completed = bytearray(info)
    (flags,) = struct.unpack_from("<I", info)
    flags |= multiboot.INFO_DEVICE | (0 if covers else multiboot.INFO_MAP)
    struct.pack_into("<I", completed, 0, flags)
    struct.pack_into("<I", completed, 12, multiboot.FIRST_DISK)
    struct.pack_into("<I", completed, 48, MAP_AT)
    return {
        ENTRY: struct.pack("<I", loaded.entry),
        linux.KERNEL_ADDR: struct.pack("<I", loaded.low),
        linux.KERNEL_SIZE: struct.pack("<I", len(image)),
        linux.KERNEL_DATA: bytes(image),
        linux.INITRD_ADDR: struct.pack("<I", info_at),
        linux.INITRD_SIZE: struct.pack("<I", len(completed)),
        linux.INITRD_DATA: bytes(completed),
    }


def _pvh(machine: MachineData, kernel: Kernel) -> Boot:
    """The kernel lies in memory from reset on; pvh.bin hands it command line, initrd and the firmware's map."""
    loaded = elf.parse(kernel.data)
    data_size = int(machine["firmware"].get("acpi-settings", {}).get("data-size", 0x10000))
    top = parts.memory_below_4g(machine) - data_size
    check_room(loaded.pieces, [(1 << 20, top)], "PVH kernel")
    line, initrd = kernel.words + b"\0", kernel.initrd
    assert loaded.pvh is not None
    items = {
        ENTRY: struct.pack("<I", loaded.pvh),
        linux.KERNEL_ADDR: struct.pack("<I", loaded.low),
        linux.KERNEL_SIZE: struct.pack("<I", loaded.high - loaded.low),
        linux.CMDLINE_SIZE: struct.pack("<I", len(line)),
        linux.CMDLINE_DATA: line,
        linux.SETUP_SIZE: struct.pack("<I", HEAD),
        linux.SETUP_DATA: kernel.data[:HEAD].ljust(HEAD, b"\0"),
    }
    if initrd:
        where = (top - 1 - len(initrd)) & ~0xFFF
        if where < loaded.high:
            raise linux.no_room(len(initrd))
        items |= {
            linux.INITRD_ADDR: struct.pack("<I", where),
            linux.INITRD_SIZE: struct.pack("<I", len(initrd)),
            linux.INITRD_DATA: initrd,
        }
    return Boot(items, "pvh.bin", loaded.pieces)
