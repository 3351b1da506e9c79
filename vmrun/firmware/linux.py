"""A Linux kernel in its usual form (bzImage, zImage): the fw_cfg items from which linuxboot.bin starts it.

Ref: Linux Documentation/arch/x86/boot.rst (protocol 2.00 to 2.15); offsets are the setup header's.
Not modelled: device trees.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError

KERNEL_ADDR, KERNEL_SIZE, INITRD_ADDR, INITRD_SIZE = 0x07, 0x08, 0x0A, 0x0B
KERNEL_DATA, INITRD_DATA, CMDLINE_ADDR, CMDLINE_SIZE, CMDLINE_DATA = 0x11, 0x12, 0x13, 0x14, 0x15
SETUP_ADDR, SETUP_SIZE, SETUP_DATA = 0x16, 0x17, 0x18

LOADER_TYPE = 0xB0  # QEMU's number; kernels know it as the loader that uses fw_cfg
LOADED_HIGH, CAN_USE_HEAP = 0x01, 0x80
ABOVE_4G = 0x02  # xloadflags: the initrd may lie anywhere below 4 GiB and above
VIDEO_MODES = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}


def is_kernel(data: bytes) -> bool:
    """A setup header; or, before 2.00 of the protocol, a boot sector that says how long the rest is."""
    if data[0x202:0x206] == b"HdrS":
        return True
    if len(data) < 0x260 or data[0x1FE:0x200] != b"\x55\xaa":
        return False
    rest = len(data) - ((data[0x1F1] or 4) + 1) * 512
    return rest > 0 and 0 <= int.from_bytes(data[0x1F4:0x1F6], "little") * 16 - rest < 4096


def load(kernel: bytes, initrd: bytes, command_line: bytes, top: int) -> dict[int, bytes]:
    """Place a bzImage as the boot protocol asks; `top` is where usable memory below 4 GiB ends."""
    version, high = protocol(kernel)
    if version >= 0x202 and high:
        real, line_at, protected = 0x10000, 0x20000, 0x100000
    else:
        real, line_at, protected = (
            0x90000,
            0x9A000 - _up(len(command_line), 16),
            0x100000 if high else 0x10000,
        )
    setup, rest = split(kernel)
    most = longest_line(setup, version)
    if len(command_line) - 1 > most:
        raise too_long(len(command_line) - 1, most)
    kernel_end = check_memory(setup, version, protected, len(rest), top)
    found = {CMDLINE_ADDR: line_at, CMDLINE_SIZE: len(command_line)}
    if version >= 0x202:
        struct.pack_into("<I", setup, 0x228, line_at)
    else:
        struct.pack_into("<HH", setup, 0x20, 0xA33F, line_at - real)
    mode = video_mode(command_line)
    if mode is not None:
        struct.pack_into("<H", setup, 0x1FA, mode)
    if version >= 0x200:
        setup[0x210] = LOADER_TYPE
    if version >= 0x201:
        setup[0x211] |= CAN_USE_HEAP
        struct.pack_into("<H", setup, 0x224, line_at - real - 0x200)
    if initrd:
        if version < 0x200:
            raise BuildError("the kernel is older than the boot protocol 2.00 and takes no initrd")
        where = (highest(kernel, version, top) - len(initrd)) & ~0xFFF
        if where < kernel_end:
            raise no_room(len(initrd))
        struct.pack_into("<II", setup, 0x218, where, len(initrd))
        found |= {INITRD_ADDR: where, INITRD_SIZE: len(initrd)}
    found |= {KERNEL_ADDR: protected, KERNEL_SIZE: len(rest), SETUP_ADDR: real, SETUP_SIZE: len(setup)}
    result = {key: struct.pack("<I", value) for key, value in found.items()}
    result |= {KERNEL_DATA: bytes(rest), SETUP_DATA: bytes(setup), CMDLINE_DATA: command_line}
    return {**result, INITRD_DATA: initrd} if initrd else result


def protocol(kernel: bytes) -> tuple[int, bool]:
    """(version of the boot protocol, loaded at 1 MiB); version 0: a zImage without a header. BuildError: cut off."""
    if len(kernel) < 0x260:
        raise BuildError(f"the kernel is cut off: a setup header alone ends at 0x260, the file at {len(kernel):#x}")
    if kernel[0x202:0x206] != b"HdrS":
        return 0, False
    return int(struct.unpack_from("<H", kernel, 0x206)[0]), bool(kernel[0x211] & LOADED_HIGH)


def split(kernel: bytes) -> tuple[bytearray, memoryview]:
    """(boot sector and setup code, protected-mode code)."""
    size = ((kernel[0x1F1] or 4) + 1) * 512
    if size > len(kernel):
        raise BuildError(f"the kernel is cut off: its setup alone has {size} bytes, the file {len(kernel)}")
    rest = memoryview(kernel)[size:]
    version, _ = protocol(kernel)
    promised = struct.unpack_from("<I" if version >= 0x204 else "<H", kernel, 0x1F4)[0] * 16
    if len(rest) < promised - 15 and (version >= 0x204 or not version):  # the field is short in between
        raise BuildError(
            f"the kernel is cut off: its header promises {promised} bytes behind the setup, the file has {len(rest)}",
            remedy="copy it again",
        )
    return bytearray(kernel[:size]), rest


def check_memory(setup: bytearray, version: int, where: int, size: int, top: int) -> int:
    """Where the memory ends that a kernel loaded at `where`, `size` bytes, needs to unpack itself. BuildError: it is
    more than there is.
    """
    end = where + size
    if version >= 0x20A:
        preferred, needs = struct.unpack_from("<QI", setup, 0x258)
        end = max(end, max(where, preferred) + needs)  # one that is loaded lower moves itself up
    if end > top:
        raise BuildError(
            f"the kernel needs memory up to {size_text(end)} to start; the machine has {size_text(top)} for it",
            code="VR0715",
            path="kernel",
            remedy="give the machine more memory",
        )
    return end


def size_text(count: int) -> str:
    return f"{count / (1 << 20):.4g} MiB"


def longest_line(setup: bytes | bytearray, version: int) -> int:
    """Bytes of a command line that the kernel takes, without the NUL."""
    return (struct.unpack_from("<I", setup, 0x238)[0] or 255) if version >= 0x206 else 255


def too_long(size: int, most: int) -> BuildError:
    return BuildError(
        f"the kernel's command line has {size} bytes; this kernel takes {most}",
        code="VR0714",
        path="cmdline",
        remedy="shorten `cmdline:`",
    )


def no_room(size: int) -> BuildError:
    return BuildError(
        f"the initrd of {size} bytes does not fit into memory behind the kernel",
        code="VR0715",
        path="initrd",
        remedy="give the machine more memory",
    )


def highest(kernel: bytes, version: int, top: int) -> int:
    """The last address that an initrd may have."""
    limit = 0x37FFFFFF
    if version >= 0x203:
        (limit,) = struct.unpack_from("<I", kernel, 0x22C)
    if version >= 0x20C and struct.unpack_from("<H", kernel, 0x236)[0] & ABOVE_4G:
        limit = 0xFFFFFFFF
    return min(limit, top - 1)


def video_mode(command_line: bytes) -> int | None:
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
