"""Small kernels of our own, one for each way of being started. Each tells on COM1 what its loader gave it."""

from __future__ import annotations

import functools
import pathlib
import shutil
import struct
import subprocess
import tempfile

import pytest

HERE = pathlib.Path(__file__).parent
FLAGS = [
    "-ffreestanding", "-nostdlib", "-nostdinc", "-static", "-fno-pic", "-fno-pie", "-no-pie", "-Os",
    "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-mgeneral-regs-only",
    "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096", "-Wl,--no-warn-rwx-segments",
]  # fmt: skip


@functools.cache
def build(
    *defines: str, bits: int = 32, base: int = 0x200000, sources: tuple[str, ...] = ("entry.S", "kernel.c")
) -> bytes:
    """The ELF file. `defines`: MB1, MB2, PVH or BOOT_PARAMS, and what goes with it."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory) / "kernel"
        script = pathlib.Path(directory) / "kernel.lds"
        script.write_text((HERE / "kernel.lds").read_text().replace("BASE", hex(base)))
        command = ["gcc", f"-m{bits}", *FLAGS, *(f"-D{name}" for name in defines), "-Wl,-e,entry", "-T", str(script)]
        command += [*(str(HERE / source) for source in sources), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return out.read_bytes()


def multiboot1(flags: int = 3, base: int = 0x200000) -> bytes:
    """flags: of its header. With 0x10000 what is loaded is given there, and the file is no ELF file."""
    elf = build("MB1", f"MB1_FLAGS={flags}", base=base)
    return flat(elf) if flags & 0x10000 else elf


def multiboot2() -> bytes:
    return build("MB2")


def pvh(bits: int = 32) -> bytes:
    """With bits=64 the file's class is ELF64, as vmlinux's is; PVH enters it as 32-bit code all the same."""
    elf = build("PVH")
    return widen(elf) if bits == 64 else elf


def apics() -> bytes:
    """Two processors that interrupt each other; see apic.S for what it says."""
    return build(sources=("apic.S",))


def vmlinux(bits: int) -> bytes:
    """Entered with boot_params, without a note."""
    return build("BOOT_PARAMS", bits=bits)


def bzimage(version: int = 0x20F, *, bits: int = 64, low: bool = False) -> bytes:
    """A setup header and sector, then the protected-mode part. `low`: a zImage, for 0x1000."""
    if bits == 64:
        body = flat(build("BOOT_PARAMS", "FLAT64", bits=64, base=0x1000000))
    else:
        body = flat(build("BOOT_PARAMS", base=0x1000 if low else 0x100000))
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x200:0x202] = b"\xeb\x66"  # jump over the header, which ends at 0x268
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    setup[0x211] = 0 if low else 1
    struct.pack_into("<I", setup, 0x214, 0x1000 if low else 0x100000)
    if version >= 0x203:
        struct.pack_into("<I", setup, 0x22C, 0x7FFFFFFF)
    if version >= 0x205:
        struct.pack_into("<IB", setup, 0x230, 0x200000, bits == 64)  # alignment, relocatable
    if version >= 0x206:
        struct.pack_into("<I", setup, 0x238, 2047)
    if version >= 0x20A:
        struct.pack_into("<QI", setup, 0x258, 0x1000000 if bits == 64 else 0x100000, 0x20000)
    if version >= 0x20C:
        struct.pack_into("<H", setup, 0x236, 3 if bits == 64 else 0)
    return bytes(setup) + body


def flat(elf: bytes) -> bytes:
    """What is loaded of an ELF file with one segment, without its headers."""
    if elf[4] == 2:
        (table,) = struct.unpack_from("<Q", elf, 32)
        offset, _, _, held = struct.unpack_from("<QQQQ", elf, table + 8)
    else:
        (table,) = struct.unpack_from("<I", elf, 28)
        offset, _, _, held = struct.unpack_from("<IIII", elf, table + 4)
    return elf[offset : offset + held]


def widen(elf: bytes) -> bytes:
    """An ELF32 file's segments in an ELF64 file."""
    table, count = struct.unpack_from("<I", elf, 28)[0], struct.unpack_from("<H", elf, 44)[0]
    (entry,) = struct.unpack_from("<I", elf, 24)
    shift = 0x1000
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, count, 0, 0, 0)
    for n in range(count):
        kind, offset, virtual, addr, held, taken, flags, align = struct.unpack_from("<8I", elf, table + 32 * n)
        head += struct.pack("<IIQQQQQQ", kind, flags, offset + shift, virtual, addr, held, taken, align)
    return head.ljust(shift, b"\0") + elf
