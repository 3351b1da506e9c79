"""A Linux kernel given with `kernel:`: the fw_cfg items from which the option ROM linuxboot.bin starts it.

Ref: Linux Documentation/arch/x86/boot.rst (protocol 2.00 to 2.15); offsets are the setup header's.
Not modelled: multiboot and PVH kernels, device trees.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError
from vmrun.firmware import parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KERNEL_ADDR, KERNEL_SIZE, INITRD_ADDR, INITRD_SIZE = 0x07, 0x08, 0x0A, 0x0B
KERNEL_DATA, INITRD_DATA, CMDLINE_ADDR, CMDLINE_SIZE, CMDLINE_DATA = 0x11, 0x12, 0x13, 0x14, 0x15
SETUP_ADDR, SETUP_SIZE, SETUP_DATA = 0x16, 0x17, 0x18

LOADER_TYPE = 0xB0  # QEMU's number; kernels know it as the loader that uses fw_cfg
LOADED_HIGH, CAN_USE_HEAP = 0x01, 0x80
ABOVE_4G = 0x02  # xloadflags: the initrd may lie anywhere below 4 GiB and above
VIDEO_MODES = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}


def items(machine: dict[str, Any]) -> dict[int, bytes]:
    """The items of the machine's kernel; {} without one. BuildError: not such a kernel, no room, no file."""
    if not machine.get("kernel"):
        return {}
    kernel = _read(str(machine["kernel"]), "kernel")
    initrd = _read(str(machine["initrd"]), "initrd") if machine.get("initrd") else b""
    command_line = str(machine.get("cmdline") or "").encode() + b"\0"
    data_size = int(machine["firmware"].get("acpi-settings", {}).get("data-size", 0x10000))
    return load(kernel, initrd, command_line, parts.memory_below_4g(machine) - data_size)


def load(kernel: bytes, initrd: bytes, command_line: bytes, top: int) -> dict[int, bytes]:
    """Place a bzImage as the boot protocol asks; `top` is where usable memory below 4 GiB ends."""
    if len(kernel) < 0x260 or kernel[0x202:0x206] != b"HdrS":
        raise BuildError(
            "the kernel is no bzImage: it has no setup header",
            remedy="multiboot and PVH kernels are not modelled yet; boot them from a disk",
        )
    (version,) = struct.unpack_from("<H", kernel, 0x206)
    high = kernel[0x211] & LOADED_HIGH
    if version >= 0x202 and high:
        real, line_at, protected = 0x10000, 0x20000, 0x100000
    else:
        real, line_at, protected = (
            0x90000,
            0x9A000 - _up(len(command_line), 16),
            0x100000 if high else 0x10000,
        )
    size = ((kernel[0x1F1] or 4) + 1) * 512
    if size > len(kernel):
        raise BuildError(f"the kernel is cut off: its setup alone has {size} bytes, the file {len(kernel)}")
    setup, rest = bytearray(kernel[:size]), kernel[size:]
    found = {CMDLINE_ADDR: line_at, CMDLINE_SIZE: len(command_line)}
    if version >= 0x202:
        struct.pack_into("<I", setup, 0x228, line_at)
    else:
        struct.pack_into("<HH", setup, 0x20, 0xA33F, line_at - real)
    mode = _video_mode(command_line)
    if mode is not None:
        struct.pack_into("<H", setup, 0x1FA, mode)
    setup[0x210] = LOADER_TYPE
    if version >= 0x201:
        setup[0x211] |= CAN_USE_HEAP
        struct.pack_into("<H", setup, 0x224, line_at - real - 0x200)
    if initrd:
        where = (_highest(kernel, version, top) - len(initrd)) & ~0xFFF
        if where < protected + len(rest):
            raise BuildError(
                f"the initrd of {len(initrd)} bytes does not fit into memory behind the kernel",
                remedy="give the machine more memory",
            )
        struct.pack_into("<II", setup, 0x218, where, len(initrd))
        found |= {INITRD_ADDR: where, INITRD_SIZE: len(initrd)}
    found |= {KERNEL_ADDR: protected, KERNEL_SIZE: len(rest), SETUP_ADDR: real, SETUP_SIZE: len(setup)}
    result = {key: struct.pack("<I", value) for key, value in found.items()}
    result |= {KERNEL_DATA: rest, SETUP_DATA: bytes(setup), CMDLINE_DATA: command_line}
    return {**result, INITRD_DATA: initrd} if initrd else result


def _highest(kernel: bytes, version: int, top: int) -> int:
    """The last address that an initrd may have."""
    limit = 0x37FFFFFF
    if version >= 0x203:
        (limit,) = struct.unpack_from("<I", kernel, 0x22C)
    if version >= 0x20C and struct.unpack_from("<H", kernel, 0x236)[0] & ABOVE_4G:
        limit = 0xFFFFFFFF
    return min(limit, top - 1)


def _video_mode(command_line: bytes) -> int | None:
    """What `vga=` on the command line asks of the setup code."""
    for word in command_line.rstrip(b"\0").decode(errors="replace").split():
        if word.startswith("vga="):
            value = word[4:]
            if value in VIDEO_MODES:
                return VIDEO_MODES[value]
            try:
                return int(value, 0) & 0xFFFF
            except ValueError:
                return None
    return None


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BuildError(f"the {what} {path} cannot be read: {error.strerror}") from None
