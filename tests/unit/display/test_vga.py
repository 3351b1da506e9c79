"""The VGA chip: registers and memory as IBM's and Intel's manuals describe them."""

from __future__ import annotations

import pytest
from accel.clock import SteppedClock
from accel.ram import RamBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_regions import ExtendedRegs, VbeMmio, VbePorts, VgaPorts, VgaWindow

from vmrun.errors import StateError

COLOUR_TEXT = {  # mode 3, 80x25, as in the VGA BIOS's parameter table
    "sr": [0x03, 0x00, 0x03, 0x00, 0x02],
    "gr": [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF],
}


class Card:
    def __init__(self, size: int = 1 << 20) -> None:
        self.clock = SteppedClock()
        self.block = RamBlock("vram", size)
        self.vga = Vga(self.block, self.clock)
        self.ports, self.window, self.vbe = VgaPorts(self.vga), VgaWindow(self.vga), VbePorts(self.vga)
        self.out(0x3C2, 0x67)

    def out(self, port: int, value: int) -> None:
        self.ports.store(port - 0x3B0, 1, value)

    def inp(self, port: int) -> int:
        return int(self.ports.load(port - 0x3B0, 1))

    def set(self, port: int, index: int, value: int) -> None:
        self.out(port, index)
        self.out(port + 1, value)

    def get(self, port: int, index: int) -> int:
        self.out(port, index)
        return self.inp(port + 1)

    def dispi(self, index: int, value: int | None = None) -> int:
        self.vbe.store(0, 2, index)
        if value is not None:
            self.vbe.store(2, 2, value)
        return int(self.vbe.load(2, 2))

    def planar(self) -> None:
        """Mode 12h: four planes, 64 KiB at 0xa0000."""
        self.set(0x3C4, 2, 0x0F)
        self.set(0x3C4, 4, 0x06)
        self.set(0x3CE, 6, 0x05)
        self.set(0x3CE, 8, 0xFF)

    def text(self) -> None:
        for port, values in ((0x3C4, COLOUR_TEXT["sr"]), (0x3CE, COLOUR_TEXT["gr"])):
            for index, value in enumerate(values):
                self.set(port, index, value)


@pytest.fixture
def card() -> Card:
    return Card()


def test_monochrome_addresses_are_decoded_after_reset() -> None:
    ports = VgaPorts(Vga(RamBlock("vram", 1 << 18), SteppedClock()))
    assert ports.load(0x3D4 - 0x3B0, 1) == 0xFF
    assert ports.load(0x3B4 - 0x3B0, 1) == 0


def test_colour_select_moves_the_crtc_to_3d4(card: Card) -> None:
    assert card.inp(0x3B4) == 0xFF
    card.set(0x3D4, 0x0E, 0x12)
    assert card.get(0x3D4, 0x0E) == 0x12


def test_misc_output_reads_back_at_3cc_without_its_reserved_bit(card: Card) -> None:
    card.out(0x3C2, 0xFF)
    assert card.inp(0x3CC) == 0xEF


@pytest.mark.parametrize(("index", "mask"), [(0, 0x03), (1, 0x3D), (2, 0x0F), (3, 0x3F), (4, 0x0E)])
def test_sequencer_keeps_only_bits_that_exist(card: Card, index: int, mask: int) -> None:
    card.set(0x3C4, index, 0xFF)
    assert card.get(0x3C4, index) == mask


@pytest.mark.parametrize(
    ("index", "mask"),
    [
        (0, 0x0F),
        (1, 0x0F),
        (2, 0x0F),
        (3, 0x1F),
        (4, 0x03),
        (5, 0x7B),
        (6, 0x0F),
        (7, 0x0F),
        (8, 0xFF),
        (9, 0),
    ],
)
def test_graphics_controller_keeps_only_bits_that_exist(card: Card, index: int, mask: int) -> None:
    card.set(0x3CE, index, 0xFF)
    assert card.get(0x3CE, index) == mask


def test_attribute_port_takes_index_and_data_in_turn(card: Card) -> None:
    card.inp(0x3DA)
    for value in (0x02, 0x15, 0x03, 0x2A):
        card.out(0x3C0, value)
    card.inp(0x3DA)
    card.out(0x3C0, 0x02)
    assert card.inp(0x3C1) == 0x15


def test_reading_input_status_1_makes_the_next_attribute_write_an_index(card: Card) -> None:
    card.inp(0x3DA)
    card.out(0x3C0, 0x01)
    card.inp(0x3DA)
    card.out(0x3C0, 0x05)
    assert card.inp(0x3C0) == 0 and card.vga.save()["attr_index"] == 0x05


def test_crtc_protection_guards_registers_0_to_7_but_line_compare(card: Card) -> None:
    card.set(0x3D4, 0x11, 0x80)
    card.set(0x3D4, 0x00, 0x5F)
    card.set(0x3D4, 0x07, 0xFF)
    assert card.get(0x3D4, 0x00) == 0
    assert card.get(0x3D4, 0x07) == 0x10


def test_crtc_protection_does_not_reach_register_8(card: Card) -> None:
    card.set(0x3D4, 0x11, 0x80)
    card.set(0x3D4, 0x08, 0x1F)
    assert card.get(0x3D4, 0x08) == 0x1F


def test_palette_entry_is_written_with_its_third_byte(card: Card) -> None:
    card.out(0x3C8, 5)
    for value in (1, 2, 3):
        card.out(0x3C9, value)
    assert card.vga.palette[15:18] == b"\1\2\3"
    assert card.inp(0x3C8) == 6


def test_palette_reads_run_on_through_the_entries(card: Card) -> None:
    card.out(0x3C8, 255)
    for value in (10, 20, 30, 40, 50, 60):
        card.out(0x3C9, value)
    card.out(0x3C7, 255)
    assert [card.inp(0x3C9) for _ in range(6)] == [10, 20, 30, 40, 50, 60]


def test_dac_state_tells_the_last_mode(card: Card) -> None:
    card.out(0x3C7, 0)
    assert card.inp(0x3C7) == 3
    card.out(0x3C8, 0)
    assert card.inp(0x3C7) == 0


def test_pel_mask_is_all_ones_after_reset(card: Card) -> None:
    assert card.inp(0x3C6) == 0xFF


def test_feature_control_is_written_at_3da_and_read_at_3ca(card: Card) -> None:
    card.out(0x3DA, 0xFF)
    assert card.inp(0x3CA) == 0x10


def test_retrace_follows_the_clock(card: Card) -> None:
    # 100 characters of 9 dots at 28.322 MHz, 449 lines, retrace at line 412: about 14.27 ms a frame
    seen = set()
    for step in range(1000):
        card.clock.set_time(step * 14_270)
        seen.add(card.inp(0x3DA) & 0x09)
    assert seen == {0x00, 0x01, 0x09}


def test_retrace_comes_once_a_frame(card: Card) -> None:
    edges, before = 0, 0
    for step in range(14_270 * 70 // 10):
        card.clock.set_time(step * 10_000)
        now = card.inp(0x3DA) & 0x08
        edges += now > before
        before = now
    assert 6 <= edges <= 8 or 60 <= edges <= 75


def test_text_characters_go_to_plane_0_and_attributes_to_plane_1(card: Card) -> None:
    card.text()
    card.window.store(0x18000, 4, 0x07420741)
    assert card.block.read(0, 8) == bytes([0x41, 0x07, 0, 0, 0x42, 0x07, 0, 0])
    assert card.window.load(0x18000, 4) == 0x07420741


def test_text_window_is_32_kib_at_b8000(card: Card) -> None:
    card.text()
    card.window.store(0x00000, 1, 0x41)
    assert card.window.load(0x00000, 1) == 0xFF
    assert card.block.read(0, 4) == bytes(4)


def test_map_mask_selects_the_planes_written(card: Card) -> None:
    card.planar()
    card.set(0x3C4, 2, 0x05)
    card.window.store(3, 1, 0xAA)
    assert card.block.read(12, 4) == bytes([0xAA, 0, 0xAA, 0])


def test_set_reset_colours_the_enabled_planes(card: Card) -> None:
    card.planar()
    card.set(0x3CE, 0, 0x0A)
    card.set(0x3CE, 1, 0x0E)
    card.window.store(0, 1, 0x33)
    assert card.block.read(0, 4) == bytes([0x33, 0xFF, 0x00, 0xFF])


def test_bit_mask_keeps_latched_bits(card: Card) -> None:
    card.planar()
    card.window.store(0, 1, 0xF0)
    card.window.load(0, 1)
    card.set(0x3CE, 8, 0x0F)
    card.window.store(0, 1, 0x05)
    assert card.block.read(0, 4) == bytes([0xF5] * 4)


@pytest.mark.parametrize(("function", "result"), [(0x00, 0x0F), (0x08, 0x0C), (0x10, 0x3F), (0x18, 0x33)])
def test_logical_functions_combine_with_the_latch(card: Card, function: int, result: int) -> None:
    card.planar()
    card.window.store(0, 1, 0x3C)
    card.window.load(0, 1)
    card.set(0x3CE, 3, function)
    card.window.store(0, 1, 0x0F)
    assert card.block.read(0, 1) == bytes([result])


def test_rotate_turns_the_byte_right(card: Card) -> None:
    card.planar()
    card.set(0x3CE, 3, 0x01)
    card.window.store(0, 1, 0x01)
    assert card.block.read(0, 1) == b"\x80"


def test_write_mode_1_copies_the_latch(card: Card) -> None:
    card.planar()
    for plane in range(4):
        card.set(0x3C4, 2, 1 << plane)
        card.window.store(0, 1, 0x10 + plane)
    card.set(0x3C4, 2, 0x0F)
    card.window.load(0, 1)
    card.set(0x3CE, 5, 0x01)
    card.window.store(9, 1, 0xFF)
    assert card.block.read(36, 4) == bytes([0x10, 0x11, 0x12, 0x13])


def test_write_mode_2_writes_a_colour_number(card: Card) -> None:
    card.planar()
    card.set(0x3CE, 5, 0x02)
    card.window.store(0, 1, 0x05)
    assert card.block.read(0, 4) == bytes([0xFF, 0, 0xFF, 0])


def test_write_mode_3_uses_the_byte_as_a_mask(card: Card) -> None:
    card.planar()
    card.set(0x3CE, 5, 0x03)
    card.set(0x3CE, 0, 0x03)
    card.window.store(0, 1, 0x81)
    assert card.block.read(0, 4) == bytes([0x81, 0x81, 0, 0])


def test_read_mode_0_gives_the_selected_plane(card: Card) -> None:
    card.planar()
    card.set(0x3C4, 2, 0x04)
    card.window.store(0, 1, 0x77)
    card.set(0x3CE, 4, 2)
    assert card.window.load(0, 1) == 0x77


def test_read_mode_1_compares_colours(card: Card) -> None:
    card.planar()
    card.set(0x3CE, 5, 0x0A)  # write mode 2 to paint, read mode 1
    card.set(0x3CE, 8, 0xF0)
    card.window.store(0, 1, 0x06)  # left four pixels colour 6, the others 0
    card.set(0x3CE, 2, 0x06)
    card.set(0x3CE, 7, 0x0F)
    assert card.window.load(0, 1) == 0xF0


def test_colour_compare_ignores_planes_that_do_not_care(card: Card) -> None:
    card.planar()
    card.set(0x3CE, 5, 0x08)
    card.set(0x3CE, 2, 0x0F)
    card.set(0x3CE, 7, 0x00)
    assert card.window.load(0, 1) == 0xFF


def test_chain_4_is_linear(card: Card) -> None:
    card.planar()
    card.set(0x3C4, 4, 0x0E)
    card.window.store(5, 2, 0xBEEF)
    assert card.block.read(5, 2) == b"\xef\xbe"


def test_vbe_identifies_itself(card: Card) -> None:
    assert card.dispi(0) == 0xB0C5


def test_vbe_capabilities_are_read_while_getcaps_is_set(card: Card) -> None:
    card.dispi(4, 0x02)
    assert [card.dispi(index) for index in (1, 2, 3)] == [16000, 12000, 32]


def test_vbe_tells_the_memory_in_64_kib(card: Card) -> None:
    assert card.dispi(10) == 16


def test_vbe_enable_clears_the_picture(card: Card) -> None:
    card.block.write(0, b"\xaa" * 4096)
    for index, value in ((1, 640), (2, 480), (3, 8), (4, 0x41)):
        card.dispi(index, value)
    assert card.block.read(0, 4096) == bytes(4096)


def test_vbe_enable_with_noclear_keeps_the_picture(card: Card) -> None:
    card.block.write(0, b"\xaa" * 4096)
    for index, value in ((1, 640), (2, 480), (3, 8), (4, 0xC1)):
        card.dispi(index, value)
    assert card.block.read(0, 4096) == b"\xaa" * 4096


def test_vbe_mode_is_cut_to_the_memory(card: Card) -> None:
    for index, value in ((1, 1024), (2, 768), (3, 32), (4, 0x41)):
        card.dispi(index, value)
    assert card.vga.vbe_mode == (1024, 256, 32, 4096, 0)


def test_vbe_bank_moves_the_window(card: Card) -> None:
    for index, value in ((1, 640), (2, 480), (3, 8), (4, 0x41), (5, 2)):
        card.dispi(index, value)
    card.window.store(0x10, 1, 0x5A)
    assert card.block.read(0x20010, 1) == b"\x5a"


def test_vbe_8bit_dac_is_told(card: Card) -> None:
    card.dispi(4, 0x20)
    assert card.vga.palette_8bit


def test_vbe_registers_are_an_array_in_bar_2(card: Card) -> None:
    mmio = VbeMmio(card.vga)
    mmio.store(2, 2, 800)
    assert mmio.load(2, 2) == 800 and card.dispi(1) == 800


def test_extended_registers_tell_their_size_and_byte_order(card: Card) -> None:
    extended = ExtendedRegs(card.vga)
    assert extended.load(0, 4) == 8
    extended.store(4, 4, 0xBEBEBEBE)
    assert extended.load(4, 4) == 0xBEBEBEBE and card.vga.big_endian


def test_reset_equals_fresh(card: Card) -> None:
    card.text()
    for index, value in ((1, 640), (2, 480), (3, 8), (4, 0x41), (5, 3)):
        card.dispi(index, value)
    card.vga.reset()
    assert card.vga.save() == Vga(RamBlock("vram", 1 << 20), SteppedClock()).save()


def test_saved_state_comes_back(card: Card) -> None:
    card.text()
    for index, value in ((1, 640), (2, 480), (3, 24), (4, 0x61), (5, 3)):
        card.dispi(index, value)
    other = Card()
    other.vga.load_state(card.vga.save())
    assert other.vga.save() == card.vga.save()
    assert other.vga.vbe_mode == card.vga.vbe_mode and other.vga.palette_8bit


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sr", b""),
        ("gr", b"\xff" * 16),
        ("vbe", [0] * 11),
        ("bank_offset", 1 << 30),
        ("attr_index", 64),
        ("palette", bytes(3)),
        ("misc", "x"),
    ],
)
def test_an_impossible_state_is_refused_unchanged(card: Card, field: str, value: object) -> None:
    before = card.vga.save()
    with pytest.raises(StateError):
        card.vga.load_state({**before, field: value})
    assert card.vga.save() == before


ACCESSES = st.lists(
    st.tuples(
        st.sampled_from(["ports", "window", "vbe", "mmio", "extended"]),
        st.integers(0, 0x1FFFF),
        st.sampled_from([1, 2, 4, 8]),
        st.integers(0, (1 << 64) - 1),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(ACCESSES, st.integers(0, 3))
def test_any_access_returns_and_leaves_a_state_that_loads(
    accesses: list[tuple[str, int, int, int, bool]], mode: int
) -> None:
    card = Card(1 << 18)
    if mode & 1:
        card.planar()
    if mode & 2:
        card.set(0x3C4, 4, 0x0E)
    regions = {
        "ports": (card.ports, 0x30),
        "window": (card.window, 0x20000),
        "vbe": (card.vbe, 4),
        "mmio": (VbeMmio(card.vga), 0x16),
        "extended": (ExtendedRegs(card.vga), 8),
    }
    for name, offset, size, value, write in accesses:
        region, length = regions[name]
        if write:
            region.store(offset % length, size, value)
        else:
            region.load(offset % length, size)
    Card(1 << 18).vga.load_state(card.vga.save())
