"""The ELF file inside a stock kernel's bzImage."""

from __future__ import annotations

import lzma
import pathlib
import shutil
import struct
import subprocess
import zlib

import pytest


def vmlinux(path: str) -> bytes:
    """The payload, which the setup header (2.08 and later) points to, without its compression."""
    data = pathlib.Path(path).read_bytes()
    offset, size = struct.unpack_from("<II", data, 0x248)
    start = (data[0x1F1] + 1) * 512 + offset
    payload = data[start : start + size]
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(payload)
    if payload[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(payload)
    for magic, tool in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4")):
        if payload[:4] == magic and shutil.which(tool):
            # the kernel's size follows the stream, which the tools complain of
            return subprocess.run([tool, "-dc"], input=payload, capture_output=True, check=False).stdout
    pytest.skip(f"no tool for a kernel compressed as {payload[:4].hex()}")
