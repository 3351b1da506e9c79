"""Kernels of every kind are told apart, and files that are none, or lie about themselves, are refused with a reason."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.unit.firmware import kernels
from tests.unit.firmware.board import board
from vmrun.errors import BuildError
from vmrun.firmware import elf, kernel, linux, modules, multiboot

MIB = 1 << 20


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (kernels.linux(), kernel.LINUX),
        (kernels.linux(0x200, high=False), kernel.LINUX),
        (kernels.old_linux(), kernel.LINUX),
        (kernels.multiboot(), kernel.MULTIBOOT_1),
        (kernels.multiboot(before=bytes(4096)), kernel.MULTIBOOT_1),
        (kernels.multiboot2(), kernel.MULTIBOOT_2),
        (kernels.elf([(MIB, b"x", 1)], pvh=MIB), kernel.PVH),
        (kernels.elf([(MIB, b"x", 1)], bits=32, pvh=MIB), kernel.PVH),
        (kernels.elf([(MIB, b"x", 1)]), kernel.ELF),
    ],
)
def test_kernel_is_recognised(data: bytes, kind: str) -> None:
    assert kernel.identify(data) == kind


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ" + bytes(4096),
        bytes(510) + b"\x55\xaa",  # a boot sector
        bytes(0x1BE) + b"\x80" * 64 + b"\x55\xaa" + bytes(65536),  # a disk
        kernels.multiboot(before=bytes(8192)),  # the header is too far in
        kernels.multiboot(before=b"x"),  # … or not on a word
        struct.pack("<III", 0x1BADB002, 3, 0),  # its sum is wrong
    ],
)
def test_what_is_no_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(BuildError, match="of no kind") as refused:
        kernel.identify(data)
    assert "bzImage" in refused.value.problems[0].remedy


# --- ELF --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
def test_segments_are_placed_by_physical_address_with_zeros_behind(bits: int) -> None:
    found = elf.parse(kernels.elf([(2 * MIB, b"abc", 16), (MIB, b"defg", 4)], bits=bits))
    assert [(piece.addr, bytes(piece.data), piece.size) for piece in found.pieces] == [
        (MIB, b"defg", 4),
        (2 * MIB, b"abc", 16),
    ]


def test_entry_given_as_a_virtual_address_becomes_physical() -> None:
    data = kernels.elf([(MIB, bytes(64), 64)], virtual=0xC0000000, bits=32, entry=0xC0000000 + MIB + 8)
    assert elf.parse(data).entry == MIB + 8


def test_entry_that_is_physical_stays() -> None:
    data = kernels.elf([(MIB, bytes(64), 64)], virtual=0xFFFFFFFF80000000, entry=MIB + 8)
    assert elf.parse(data).entry == MIB + 8


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (kernels.elf([(MIB, b"x", 1)])[:40], "no ELF file"),
        (kernels.elf([(MIB, b"x", 1)])[:60], "cut off"),
        (kernels.elf([(MIB, b"x", 1)])[:100], "cut off"),
        (kernels.elf([(MIB, bytes(100), 100)])[:-1], "cut off"),
        (kernels.elf([(MIB, bytes(100), 99)]), "cut off"),
        (kernels.elf([(MIB, b"x", 0)]), "no segment"),
        (kernels.elf([(MIB, b"x", 4096), (MIB + 4095, b"x", 1)]), "overlap"),
        (kernels.elf([((1 << 32) - 1, b"x", 2)]), "above 4 GiB"),
        (kernels.elf([((1 << 64) - 4096, b"x", 8192)]), "above 4 GiB"),
        (kernels.elf([(MIB, b"x", 1)]).replace(b"\x02\x00\x3e\x00", b"\x02\x00\xb7\x00"), "another processor"),
        (kernels.elf([(MIB, b"x", 1)], form=1)[:56] + bytes(8), "no executable"),  # vmlinux.o has no segments
        (b"\x7fELF\x02\x02" + kernels.elf([(MIB, b"x", 1)])[6:], "little-endian"),
    ],
)
def test_elf_file_that_cannot_be_loaded_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        elf.parse(data)


@pytest.mark.parametrize("form", [0, 1, 3, 4, 0xFE00])
def test_what_has_segments_is_loaded_whatever_type_it_says(form: int) -> None:
    assert elf.parse(kernels.elf([(MIB, b"x", 1)], form=form)).entry == MIB


def test_thousands_of_program_headers_are_refused() -> None:
    data = bytearray(kernels.elf([(MIB, b"x", 1)]))
    struct.pack_into("<H", data, 56, 0xFFFF)
    with pytest.raises(BuildError, match="65535 program headers"):
        elf.parse(bytes(data))


def test_notes_that_make_no_sense_are_no_note() -> None:
    data = kernels.elf([(MIB, b"x", 1)], pvh=MIB)
    at = data.index(b"Xen\0") - 12
    assert elf.parse(data[:at] + b"\xff" * 12 + data[at + 12 :]).pvh is None


# --- multiboot --------------------------------------------------------------------------------------------


def test_multiboot_addresses_name_the_part_of_the_file_that_is_loaded() -> None:
    data = kernels.multiboot(0x10003, (MIB + 16, MIB, MIB + 64, MIB + 128, MIB + 48), before=bytes(16))
    (piece,) = multiboot.load(data, 1).pieces
    assert (piece.addr, len(piece.data), piece.size) == (MIB, 64, 128)
    assert bytes(piece.data) == data[:64]


def test_multiboot_without_a_load_end_takes_the_whole_file() -> None:
    data = kernels.multiboot(0x10000, (MIB, MIB, 0, 0, MIB + 32))
    assert len(multiboot.load(data, 1).pieces[0].data) == len(data)


@pytest.mark.parametrize(
    "addresses",
    [
        (MIB, MIB + 4, 0, 0, MIB),  # loaded from behind the header
        (MIB + 64, MIB, 0, 0, MIB),  # loaded from before the file
        (MIB, MIB, MIB + 4096, 0, MIB),  # more than the file has
        (MIB, MIB, MIB - 1, 0, MIB),  # less than nothing
        (MIB, MIB, MIB + 64, MIB + 63, MIB),  # bss ends within it
        (MIB, MIB),  # cut off
    ],
)
def test_multiboot_addresses_that_do_not_fit_are_refused(addresses: tuple[int, ...]) -> None:
    data = kernels.multiboot(0x10000, addresses)
    with pytest.raises(BuildError, match="multiboot"):
        multiboot.load(data[:20] if len(addresses) == 2 else data, 1)


def test_multiboot_kernel_that_needs_an_unknown_feature_is_refused() -> None:
    with pytest.raises(BuildError, match="needs features 0x100"):
        multiboot.load(kernels.multiboot(0x100), 1)


def test_multiboot_kernel_of_64_bits_is_refused() -> None:
    data = kernels.elf([(MIB, kernels.multiboot(), 76)])
    with pytest.raises(BuildError, match="64-bit ELF"):
        multiboot.load(data, 1)


def test_multiboot2_kernel_may_name_its_addresses_and_entry() -> None:
    addresses = struct.pack("<HHI4I", 2, 0, 24, MIB, MIB, 0, 0)
    data = kernels.multiboot2(addresses, struct.pack("<HHII", 3, 0, 12, MIB + 8)) + bytes(64)
    found = multiboot.load(data, 2)
    assert (found.entry, found.pieces[0].addr, found.pieces[0].size) == (MIB + 8, MIB, len(data))


@pytest.mark.parametrize("optional", [0, 1])
def test_multiboot2_tag_that_nobody_knows_matters_only_when_it_is_required(optional: int) -> None:
    data = kernels.multiboot2(
        struct.pack("<HHII", 99, optional, 12, 0),
        struct.pack("<HHI4I", 2, 0, 24, MIB, MIB, 0, 0),
        struct.pack("<HHII", 3, 0, 12, MIB),
    )
    if optional:
        assert multiboot.load(data, 2).entry == MIB
    else:
        with pytest.raises(BuildError, match="tag 99"):
            multiboot.load(data, 2)


def test_multiboot2_request_for_what_is_not_given_is_refused() -> None:
    with pytest.raises(BuildError, match="tag 1"):
        multiboot.load(kernels.multiboot2(struct.pack("<HHIII", 1, 0, 16, 6, 17)), 2)


# --- modules ----------------------------------------------------------------------------------------------


def test_modules_are_separated_by_commas_and_followed_by_their_words(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A")
    (tmp_path / "b,c").write_bytes(b"B")
    found = modules.read_all(f"{tmp_path}/a one  two, {tmp_path}/b,,c", 100)
    assert [(module.text, module.data) for module in found] == [
        (f"{tmp_path}/a one  two", b"A"),
        (f"{tmp_path}/b,c", b"B"),
    ]


def test_a_name_that_is_a_file_is_that_file_whatever_it_looks_like(tmp_path: Path) -> None:
    (tmp_path / "a b,c").write_bytes(b"A")
    assert [module.data for module in modules.read_all(f"{tmp_path}/a b,c", 100)] == [b"A"]


def test_modules_larger_than_memory_are_refused_unread(tmp_path: Path) -> None:
    for name in "ab":
        with open(tmp_path / name, "wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(BuildError, match="has room for 100"):
        modules.read_all(f"{tmp_path}/a,{tmp_path}/b", 100)


def test_a_pipe_is_no_kernel(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildError, match="no ordinary file"):
        modules.read_file(str(tmp_path / "pipe"), "kernel", 100)


@pytest.mark.parametrize("name", ["no-such-kernel", "a\0b"])
def test_a_kernel_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="kernel"):
        modules.read_file(str(tmp_path / name), "kernel", 100)


# --- through the firmware ---------------------------------------------------------------------------------


def machine(tmp_path: Path, data: bytes, type_name: str = "pc-i440fx-2.0", **more: Any) -> dict[str, Any]:
    (tmp_path / "kernel").write_bytes(data)
    return board(type_name, memory=64 * MIB, kernel=str(tmp_path / "kernel"), **more)


@pytest.mark.parametrize(
    ("type_name", "data", "rom"),
    [
        ("pc-i440fx-2.0", kernels.linux(), "linuxboot.bin"),
        ("pc-i440fx-2.6", kernels.linux(), "linuxboot.bin"),
        ("pc-i440fx-2.7", kernels.linux(), "linuxboot_dma.bin"),
        ("rhel6.3.0", kernels.multiboot(0x10000, (MIB, MIB, 0, 0, MIB)), "multiboot.bin"),
        ("pc-i440fx-7.2", kernels.multiboot(0x10000, (MIB, MIB, 0, 0, MIB)), "multiboot_dma.bin"),
        ("pc-i440fx-4.0", kernels.elf([(MIB, b"x", 1)], pvh=MIB), "pvh.bin"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_option_rom_is_the_one_that_the_type_has(type_name: str, data: bytes, rom: str, tmp_path: Path) -> None:
    config = machine(tmp_path, data, type_name)
    assert kernel.through_firmware(config, kernel.read(config)).rom == rom


@pytest.mark.parametrize(
    ("type_name", "data"),
    [
        ("pc-i440fx-3.1", kernels.elf([(MIB, b"x", 1)], pvh=MIB)),
        ("pc-i440fx-7.2", kernels.elf([(MIB, b"x", 1)])),
        ("pc-i440fx-7.2", kernels.multiboot2()),
    ],
)
def test_kernel_without_a_rom_for_it_is_refused_with_the_way_that_works(
    type_name: str, data: bytes, tmp_path: Path
) -> None:
    config = machine(tmp_path, data, type_name)
    with pytest.raises(BuildError) as refused:
        kernel.through_firmware(config, kernel.read(config))
    assert "firmware: none" in refused.value.problems[0].remedy


def test_pvh_kernel_lies_in_memory_and_its_initrd_below_the_tables(tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(bytes(5000))
    data = kernels.elf([(2 * MIB, b"code", 4096)], pvh=2 * MIB + 1)
    config = machine(tmp_path, data, "pc-i440fx-7.2", initrd=str(tmp_path / "initrd"), cmdline="a b")
    boot = kernel.through_firmware(config, kernel.read(config))
    assert [(piece.addr, piece.size) for piece in boot.images] == [(2 * MIB, 4096)]
    assert boot.items[kernel.ENTRY] == struct.pack("<I", 2 * MIB + 1)
    assert boot.items[linux.CMDLINE_DATA] == b"a b\0"
    (where,) = struct.unpack("<I", boot.items[linux.INITRD_ADDR])
    assert where % 4096 == 0 and where + 5000 < 64 * MIB - 0x28000


def test_several_initrds_are_for_multiboot_alone(tmp_path: Path) -> None:
    config = machine(tmp_path, kernels.linux())
    config["initrd"] = f"{config['kernel']},{config['kernel']}"
    with pytest.raises(BuildError, match="takes one"):
        kernel.through_firmware(config, kernel.read(config))


def test_multiboot_kernel_outside_memory_is_refused(tmp_path: Path) -> None:
    config = machine(tmp_path, kernels.multiboot(0x10000, (64 * MIB, 64 * MIB, 0, 0, 64 * MIB)))
    with pytest.raises(BuildError, match="no free memory"):
        kernel.through_firmware(config, kernel.read(config))


def test_multiboot_kernel_below_64_kib_is_started_without_the_map_that_would_lie_in_it(tmp_path: Path) -> None:
    config = machine(tmp_path, kernels.multiboot(0x10000, (0x8000, 0x8000, 0, 0, 0x8020)))
    items = kernel.through_firmware(config, kernel.read(config)).items
    (where,) = struct.unpack("<I", items[linux.KERNEL_ADDR])
    (info_at,) = struct.unpack("<I", items[linux.INITRD_ADDR])
    (flags,) = struct.unpack_from("<I", items[linux.INITRD_DATA])
    assert where == 0x8000 and info_at >= 0x8000 + len(items[linux.KERNEL_DATA]) and not flags & 1 << 6


# --- what is wrong is told before anything starts --------------------------------------------------------------


@pytest.mark.parametrize("version, lost", [(0x204, 16), (0x20F, 4096)])
def test_a_cut_kernel_is_told(version: int, lost: int) -> None:
    data = bytearray(kernels.linux(version, size=8192))
    struct.pack_into("<I", data, 0x1F4, 8192 // 16)
    linux.split(bytes(data))
    with pytest.raises(BuildError, match="cut off: its header promises 8192 bytes"):
        linux.split(bytes(data[:-lost]))


@pytest.mark.parametrize("version, most", [(0x20F, 2047), (0x205, 255)])
def test_the_longest_command_line_is_the_protocol_s(version: int, most: int) -> None:
    data = kernels.linux(version)
    linux.load(data, b"", b"x" * most + b"\0", 64 << 20)
    with pytest.raises(BuildError, match=f"has {most + 1} bytes; this kernel takes {most}") as refused:
        linux.load(data, b"", b"x" * (most + 1) + b"\0", 64 << 20)
    assert (refused.value.code, refused.value.problems[0].path) == ("VR0714", "cmdline")


def test_a_kernel_too_large_for_the_memory_says_what_it_needs() -> None:
    with pytest.raises(BuildError, match="needs memory up to 48 MiB to start; the machine has 32 MiB") as refused:
        linux.load(kernels.linux(init=32 << 20), b"", b"\0", 32 << 20)
    assert refused.value.code == "VR0715"


def test_an_elf_without_the_note_is_told_in_the_words_that_people_look_for() -> None:
    plain = kernel.Kernel("k", kernel.ELF, kernels.elf([(1 << 20, b"\xf4", 1)]), [], b"")
    machine = {"firmware": {}, "machine": "pc", "memory-map": {"below-4g": 1 << 26, "above-4g": 0}}
    with pytest.raises(BuildError, match="^error VR0630: an ELF kernel .* without PVH ELF Note") as refused:
        kernel.through_firmware(machine, plain)
    assert "firmware: none" in refused.value.remedy and "CONFIG_PVH" in refused.value.remedy


def test_a_multiboot_kernel_is_told_the_names_that_were_written(tmp_path: Path) -> None:
    """The host's directories are none of the guest's business."""
    (tmp_path / "k").write_bytes(kernels.elf([(1 << 20, kernels.multiboot(), 0x100)], bits=32))
    (tmp_path / "m").write_bytes(b"module")
    machine = {
        "kernel": f"{tmp_path}/k", "initrd": f"{tmp_path}/m one,{tmp_path}/m two", "cmdline": "words",
        "kernel-names": {"kernel": "sub/k", "initrd": "sub/m one, sub/m two"}, "firmware": {},
        "memory-map": {"below-4g": 1 << 26, "above-4g": 0},
    }  # fmt: skip
    items = kernel.through_firmware(machine, kernel.read(machine)).items
    handed = items[linux.KERNEL_DATA]
    assert b"sub/k words\0" in handed and b"sub/m one\0" in handed and b"sub/m two\0" in handed
    assert str(tmp_path).encode() not in b"".join(items.values())
