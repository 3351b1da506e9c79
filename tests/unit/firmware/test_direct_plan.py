"""What is put into memory for a kernel that starts without a firmware."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.unit.firmware import kernels
from tests.unit.firmware.board import board
from vmrun.errors import BuildError
from vmrun.firmware import direct, kernel, lowmem, mptable
from vmrun.firmware.elf import Piece

MIB = 1 << 20
MULTIBOOT = kernels.multiboot(0x10003, (MIB, MIB, 0, MIB + 4096, MIB + 32))
MULTIBOOT2 = kernels.multiboot2(
    struct.pack("<HHI4I", 2, 0, 24, MIB, MIB, 0, 0), struct.pack("<HHII", 3, 0, 12, MIB + 8)
)
SAMPLES = {
    "bzImage": kernels.linux(),
    "zImage": kernels.linux(0x201, high=False),
    "old": kernels.old_linux(),
    "vmlinux": kernels.elf([(MIB, b"code", 4096), (2 * MIB, b"data", 8192)]),
    "vmlinux32": kernels.elf([(MIB, b"code", 4096)], bits=32),
    "pvh": kernels.elf([(MIB, b"code", 4096)], pvh=MIB),
    "multiboot": MULTIBOOT,
    "multiboot-elf": kernels.elf([(MIB, kernels.multiboot(), 4096)], bits=32),
    "multiboot2": MULTIBOOT2,
}


def low(memory: int = 64 * MIB, type_name: str = "pc-i440fx-2.0", kvm: bool = False, **more: Any) -> lowmem.LowMemory:
    return lowmem.LowMemory(board(type_name, memory=memory, **more), kvm)


def made(data: bytes, words: bytes = b"one two", initrd: bytes | None = None, **more: Any) -> kernel.Kernel:
    files = [kernel.modules.Module("/initrd", "/initrd x", initrd)] if initrd is not None else []
    return kernel.Kernel("/kernel", kernel.identify(data), data, files, words)


def plan(data: bytes, *, long_mode: bool = True, memory: int = 64 * MIB, **more: Any) -> direct.Plan:
    return direct.plan(made(data, **more), low(memory), long_mode)


def image(plan: direct.Plan, start: int, size: int) -> bytes:
    """Memory as the pieces leave it; later pieces win, as when they are written."""
    found = bytearray(size)
    for piece in plan.pieces:
        data = bytes(piece.data) + bytes(piece.size - len(piece.data))
        for at in range(max(piece.addr, start), min(piece.end, start + size)):
            found[at - start] = data[at - piece.addr]
    return bytes(found)


@pytest.mark.parametrize(
    ("sample", "long_mode", "entry", "begins_long"),
    [
        ("bzImage", True, 0x1000200, True),
        ("bzImage", False, 0x1000000, False),
        ("zImage", True, 0x1000, False),
        ("old", True, 0x1000, False),
        ("vmlinux", True, MIB, True),
        ("vmlinux32", True, MIB, False),
        ("pvh", True, MIB, False),
        ("multiboot", True, MIB + 32, False),
        ("multiboot2", True, MIB + 8, False),
    ],
)
def test_processor_begins_at_the_entry_in_the_mode_of_the_protocol(
    sample: str, long_mode: bool, entry: int, begins_long: bool
) -> None:
    start = plan(SAMPLES[sample], long_mode=long_mode).start
    assert (start.entry, start.long_mode) == (entry, begins_long)


@pytest.mark.parametrize("sample", ["bzImage", "zImage", "vmlinux"])
def test_boot_parameters_hold_memory_map_command_line_and_rsdp(sample: str) -> None:
    found = plan(SAMPLES[sample], initrd=b"R" * 5000)
    params = image(found, found.start.registers["rsi"], 4096)
    rows = [struct.unpack_from("<QQI", params, 0x2D0 + 20 * n) for n in range(params[0x1E8])]
    assert rows == [tuple(row) for row in found.low.rows]
    assert struct.unpack_from("<Q", params, 0x70) == (found.low.rsdp,)
    assert params[0x202:0x206] == b"HdrS"
    where, size = struct.unpack_from("<II", params, 0x218)
    assert size == 5000 and where % 4096 == 0 and image(found, where, 5000) == b"R" * 5000
    if sample == "zImage":
        assert struct.unpack_from("<H", params, 0x20) == (0xA33F,)
        line = found.start.registers["rsi"] + struct.unpack_from("<H", params, 0x22)[0]
    else:
        (line,) = struct.unpack_from("<I", params, 0x228)
    assert image(found, line, 8) == b"one two\0"


def test_setup_header_is_copied_as_far_as_the_kernel_says() -> None:
    params = image(plan(kernels.linux()), lowmem.PARAMS_AT, 4096)
    assert params[0x1F1] == 2
    assert struct.unpack_from("<I", params, 0x22C) == (0x7FFFFFFF,)
    assert struct.unpack_from("<I", params, 0x214) == (0x1000000,)


@pytest.mark.parametrize("memory, init", [(16 * MIB, 0x20000), (64 * MIB, 64 * MIB)])
def test_kernel_whose_favourite_place_is_too_high_asks_for_more_memory(memory: int, init: int) -> None:
    """Loaded lower it would move itself up there before it looks at anything."""
    with pytest.raises(BuildError, match=f"needs memory up to {16 + init / MIB:.4g} MiB") as refused:
        plan(kernels.linux(init=init), memory=memory)
    assert refused.value.code == "VR0715"
    assert "memory" in refused.value.problems[0].remedy


def test_initrd_stays_below_what_the_kernel_can_reach() -> None:
    data = bytearray(kernels.linux())
    struct.pack_into("<I", data, 0x22C, 0x2FFFFFF)
    found = plan(bytes(data), initrd=bytes(4097))
    assert struct.unpack_from("<I", image(found, lowmem.PARAMS_AT, 4096), 0x218) == (0x2FFE000,)


@pytest.mark.parametrize("sample", ["bzImage", "vmlinux", "pvh", "multiboot", "multiboot2"])
def test_initrd_without_room_behind_the_kernel_is_refused(sample: str) -> None:
    top = low().top
    end = 0x1020000 if sample == "bzImage" else 2 * MIB + 8192
    size = top - end
    plan(SAMPLES[sample], initrd=bytes(size - 8192))
    with pytest.raises(BuildError, match="does not fit|no free memory"):
        plan(SAMPLES[sample], initrd=bytes(top - MIB if sample.startswith(("pvh", "multi")) else size + 4096))


def test_command_line_longer_than_the_kernel_takes_is_refused() -> None:
    plan(kernels.linux(), words=bytes(2047))
    with pytest.raises(BuildError, match="takes 2047"):
        plan(kernels.linux(), words=bytes(2048))


def test_64_bit_kernel_on_a_32_bit_processor_is_refused() -> None:
    with pytest.raises(BuildError, match="64-bit code"):
        plan(SAMPLES["vmlinux"], long_mode=False)


def test_page_tables_map_the_first_4_gib_one_to_one() -> None:
    found = plan(SAMPLES["vmlinux"])

    def entry(table: int, index: int) -> int:
        return int(struct.unpack("<Q", image(found, table + 8 * index, 8))[0])

    for addr in (0, 0x12345678, 0xFEE00000, 0xFFFFFFFF):
        upper = entry(lowmem.PAGES_AT, 0)
        middle = entry(upper & ~0xFFF, addr >> 30)
        page = entry(middle & ~0xFFF, addr >> 21 & 511)
        assert page & ~0xFFF == addr & ~0x1FFFFF
        assert upper & middle & page & 3 == 3 and page & 0x80


def test_descriptors_are_flat_and_the_task_segment_is_where_it_says() -> None:
    for sample, code in (("vmlinux", 0x00AF9B000000FFFF), ("pvh", 0x00CF9B000000FFFF)):
        table = struct.unpack("<5Q", image(plan(SAMPLES[sample]), lowmem.GDT_AT, 40))
        assert table[:4] == (0, 0, code, 0x00CF93000000FFFF)
        assert table[4] >> 16 & 0xFFFFFF == lowmem.TSS_AT
        assert table[4] >> 40 & 0xFF == 0x8B and table[4] & 0xFFFF == 0x67


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_pieces_lie_in_memory_that_the_map_calls_usable_and_apart_from_each_other(sample: str) -> None:
    found = plan(SAMPLES[sample], initrd=None if sample == "old" else bytes(9000))
    ends = 0
    for piece in sorted(found.pieces, key=lambda piece: piece.addr):
        assert piece.addr >= ends
        ends = piece.end
        assert any(start <= piece.addr and piece.end <= start + size for start, size, _ in found.low.rows)


@pytest.mark.parametrize("type_name", ["pc-i440fx-2.0", "rhel6.3.0"])
def test_rsdp_is_found_in_the_rom_and_leads_to_tables_that_sum_up(type_name: str) -> None:
    memory = low(type_name=type_name)
    at = memory.rsdp - lowmem.ROM_AT
    assert memory.rom[at : at + 8] == b"RSD PTR " and at % 16 == 0
    assert sum(memory.rom[at : at + 20]) & 0xFF == 0
    (root,) = struct.unpack_from("<I", memory.rom, at + 16)
    (tables,) = [piece for piece in memory.pieces if piece.addr <= root < piece.end]
    rsdt = tables.data[root - tables.addr :]
    assert rsdt[:4] == b"RSDT"
    (size,) = struct.unpack_from("<I", rsdt, 4)
    assert sum(rsdt[:size]) & 0xFF == 0
    for (pointer,) in struct.iter_unpack("<I", rsdt[36:size]):
        table = tables.data[pointer - tables.addr :]
        assert sum(table[: struct.unpack_from("<I", table, 4)[0]]) & 0xFF == 0


def test_mp_table_counts_the_processors_and_sums_up() -> None:
    table = mptable.build(board("rhel6.3.0", cpus={"count": 3}), 0xF0080)
    assert table[:4] == b"_MP_" and sum(table[:16]) & 0xFF == 0
    assert struct.unpack_from("<I", table, 4) == (0xF0090,)
    assert sum(table[16:]) & 0xFF == 0 and struct.unpack_from("<H", table, 20) == (len(table) - 16,)
    assert [table[60 + 20 * n] for n in range(4)] == [0, 0, 0, 1]


def test_memory_map_has_ram_above_4_gib_and_the_pages_of_kvm() -> None:
    memory = low(5 << 30, kvm=True)
    assert (1 << 32, (5 << 30) - 0xC0000000, 1) in memory.rows
    assert (0xFEFFC000, 0x4000, 2) in memory.rows


def test_tiny_machine_has_no_room() -> None:
    with pytest.raises(BuildError, match="no room"):
        low(MIB + 4096)


# --- files that lie ---------------------------------------------------------------------------------------


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The file with a few bytes, words or its length changed, mostly where headers are."""
    image = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(min(len(image), dice.choice((64, 256, 640, 4096))))
        choice = dice.randrange(4)
        if choice == 0:
            image[at] = dice.randrange(256)
        elif choice == 1:
            value = dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0, 0x80000000, dice.getrandbits(32)))
            image[at : at + 4] = struct.pack("<I", value)[: len(image) - at]
        elif choice == 2:
            image[at : at + 8] = struct.pack("<Q", dice.choice(((1 << 64) - 1, 1 << 63, dice.getrandbits(64))))[
                : len(image) - at
            ]
        elif dice.random() < 0.2:
            del image[dice.randrange(len(image)) :]
            if not image:
                return b""
    return bytes(image)


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_damaged_kernel_is_refused_or_stays_within_memory(sample: str, tmp_path: Path) -> None:
    dice = random.Random(sample)
    memory = low()
    path = tmp_path / "kernel"
    config = board("pc-i440fx-7.2", memory=64 * MIB, kernel=str(path), initrd=None)
    tracemalloc.start()
    started = 0
    for _ in range(700):
        data = mutated(SAMPLES[sample], dice)
        try:
            found = direct.plan(made(data, initrd=None), memory, True)
        except BuildError as refused:
            assert refused.problems[0].message
        else:
            started += 1
            _check(found.pieces, memory)
            assert 0 <= found.start.entry < 64 * MIB
        path.write_bytes(data)
        try:
            boot = kernel.through_firmware(config, kernel.read(config))
        except BuildError as refused:
            assert refused.problems[0].message
        else:
            _check(boot.images, memory)
            assert all(len(item) <= 64 * MIB for item in boot.items.values())
    assert tracemalloc.get_traced_memory()[1] < 256 * MIB
    tracemalloc.stop()
    assert started  # the damage is not such that nothing ever gets through


def _check(pieces: list[Piece], memory: lowmem.LowMemory) -> None:
    for piece in pieces:
        assert piece.addr >= 0 and piece.end <= 64 * MIB
        assert piece.size >= len(piece.data)
        assert piece.addr >= MIB or piece.end <= 0xA0000


@pytest.mark.parametrize("kind", ["ELF", "PVH", "multiboot"])
def test_file_headers_in_front_of_the_code_are_left_out(kind: str) -> None:
    """A plain `ld -Ttext 0x100000` loads them at 0xff000, where a PC has its ROMs."""
    code = kernels.multiboot() if kind == "multiboot" else b"\xf4" * 64
    segments = [(0xFF000, b"\x7fELF" + bytes(0x70), 0x74), (MIB, code, 0x2000)]
    data = kernels.elf(segments, bits=32, entry=MIB, pvh=MIB if kind == "PVH" else None)
    found = plan(data)
    assert found.start.entry == MIB
    assert image(found, MIB, len(code)) == code
    assert all(piece.end <= 0xF0000 or piece.addr >= MIB for piece in found.pieces)


def test_a_segment_that_reaches_into_the_roms_keeps_the_rest_in_its_place() -> None:
    data = kernels.elf([(0xFF000, bytes(0x1000) + b"code", 0x1010)], entry=MIB)
    assert image(plan(data), MIB, 5) == b"code\0"
