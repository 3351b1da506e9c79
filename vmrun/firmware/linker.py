"""The loader script of ACPI tables (fw_cfg file etc/table-loader): how the firmware places and joins them.

Ref: QEMU docs/specs/acpi_hw_reduced_hotplug and hw/acpi/bios-linker-loader's published interface: 128-byte
commands, little-endian, file names of 56 bytes.
"""

from __future__ import annotations

import struct

HIGH, FSEG = 1, 2  # zones: anywhere below 4 GiB, or 0xf0000-0xfffff
_SIZE = 128


class Linker:
    """Commands in the order in which the firmware carries them out."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def allocate(self, file: str, align: int, zone: int) -> None:
        self._add(struct.pack("<I56sIB", 1, _name(file), align, zone))

    def add_pointer(self, file: str, offset: int, size: int, target: str) -> None:
        """Add the address of `target` to the `size` bytes at `offset` of `file`."""
        self._add(struct.pack("<I56s56sIB", 2, _name(file), _name(target), offset, size))

    def add_checksum(self, file: str, offset: int, start: int, length: int) -> None:
        """Set the byte at `offset` so that `length` bytes from `start` sum to 0."""
        self._add(struct.pack("<I56sIII", 3, _name(file), offset, start, length))

    def write_pointer(self, file: str, offset: int, size: int, target: str, within: int) -> None:
        """Write the address of byte `within` of `target` to `file`, which stays with the machine."""
        self._add(struct.pack("<I56s56sIIB", 4, _name(file), _name(target), offset, within, size))

    def to_bytes(self, align: int) -> bytes:
        """The script, padded with zeros (which end it) to a multiple of `align`."""
        data = b"".join(self.commands)
        return data.ljust(-(-len(data) // align) * align, b"\0")

    def _add(self, command: bytes) -> None:
        self.commands.append(command.ljust(_SIZE, b"\0"))


def _name(file: str) -> bytes:
    if len(file) > 55:
        raise ValueError(f"{file}: a fw_cfg file's name has at most 55 characters")
    return file.encode()


def run(script: bytes, files: dict[str, bytes], places: dict[str, int]) -> dict[str, bytes]:
    """What a firmware makes of `script`: the files with pointers and checksums set, each at its place."""
    memory = {name: bytearray(data) for name, data in files.items()}
    for start in range(0, len(script), _SIZE):
        command = script[start : start + _SIZE]
        (kind,) = struct.unpack_from("<I", command)
        if kind == 0:
            break
        file = _text(command[4:60])
        if kind == 2:
            offset, size = struct.unpack_from("<IB", command, 116)
            field = memory[file][offset : offset + size]
            value = int.from_bytes(field, "little") + places[_text(command[60:116])]
            memory[file][offset : offset + size] = value.to_bytes(size, "little")
        elif kind == 3:
            offset, first, length = struct.unpack_from("<III", command, 60)
            memory[file][offset] = 0
            memory[file][offset] = -sum(memory[file][first : first + length]) & 0xFF
    return {name: bytes(data) for name, data in memory.items()}


def allocated(script: bytes) -> list[str]:
    """The files that `script` wants in memory."""
    commands = (script[start : start + _SIZE] for start in range(0, len(script), _SIZE))
    return [_text(command[4:60]) for command in commands if command[:4] == b"\x01\0\0\0"]


def addresses(script: bytes, places: dict[str, int]) -> list[tuple[str, int, bytes]]:
    """(file, offset, bytes) of all that a firmware writes to files which stay with the machine."""
    found = []
    for start in range(0, len(script), _SIZE):
        command = script[start : start + _SIZE]
        if command[:4] == b"\x04\0\0\0":
            offset, within, size = struct.unpack_from("<IIB", command, 116)
            value = places[_text(command[60:116])] + within
            found.append((_text(command[4:60]), offset, value.to_bytes(size, "little")))
    return found


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode()
