"""AML encodings, each typed from chapter 20 of the ACPI specification."""

from __future__ import annotations

import pytest

from vmrun.firmware import aml


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a02"),
        (0xFF, "0aff"),
        (0x100, "0b0001"),
        (0x10000, "0c00000100"),
        (1 << 32, "0e0000000001000000"),
    ],
)
def test_integers_take_the_shortest_form(value: int, encoded: str) -> None:
    assert aml.integer(value).hex() == encoded


def test_integers_beyond_64_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="64-bit"):
        aml.integer(1 << 64)


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("PCI0", b"PCI0"),
        ("_S3", b"_S3_"),
        ("\\", b"\\\0"),
        ("\\_SB", b"\\_SB_"),
        ("_SB.PCI0", b"\x2e_SB_PCI0"),
        ("\\_SB.PCI0.PCNT", b"\\\x2f\x03_SB_PCI0PCNT"),
        ("^PRQ0", b"^PRQ0"),
    ],
)
def test_names(name: str, encoded: bytes) -> None:
    assert aml.path(name) == encoded


@pytest.mark.parametrize("name", ["toolong", "pci0", "1ABC", "A B", ""])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no ACPI name"):
        aml.segment(name)


@pytest.mark.parametrize(
    ("count", "encoded"),
    [
        (0, "01"),
        (62, "3f"),
        (63, "4104"),
        (0xFFD, "4fff"),
        (0xFFE, "810001"),
        (0xFFFFC, "8fffff"),
        (0xFFFFD, "c1000001"),
    ],
)
def test_package_lengths_count_themselves(count: int, encoded: str) -> None:
    assert aml.length(count).hex() == encoded


def test_a_package_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        aml.length(1 << 28)


def test_field_widths_do_not_count_themselves() -> None:
    assert aml.length(8, False) == b"\x08" and aml.length(256, False).hex() == "4010"


def test_eisa_ids_are_compressed() -> None:
    assert aml.eisaid("PNP0A03").hex() == "0c41d00a03"


def test_uuids_have_three_little_endian_fields() -> None:
    assert (
        aml.uuid("00112233-4455-6677-8899-aabbccddeeff").hex() == "11130a1033221100554477668899aabbccddeeff"
    )


def test_a_device_with_a_name() -> None:
    assert aml.device("RTC", aml.name("_UID", 1)).hex() == "5b820b5254435f085f55494401"


def test_method_flags_hold_arguments_and_serialization() -> None:
    assert aml.method("AB", 2, serialized=True)[-1] == 0x0A


def test_buffers_and_packages_tell_their_counts() -> None:
    assert aml.buffer(b"ab").hex() == "11050a026162"
    assert aml.package(1, "ABCD", count=3).hex() == "1207030141424344"


def test_large_packages_have_a_variable_count() -> None:
    assert aml.package(*[0] * 256)[:1] == b"\x13"


def test_conditions_and_operators() -> None:
    term = aml.when(aml.less(aml.ARG0, 0x80), aml.store(aml.LOCAL0, "ABCD"))
    assert term.hex() == "a00b95680a80706041424344"


def test_io_descriptor() -> None:
    assert aml.io(0x3F8, 0x3F8, 0, 8).hex() == "4701f803f8030008"


def test_interrupt_descriptors() -> None:
    assert aml.irq(12).hex() == "220010"
    assert aml.interrupts(5, 10).hex() == "890a000902050000000a000000"


def test_window_descriptors_tell_their_lengths() -> None:
    assert aml.word_bus(0, 255).hex() == "880d00020c0000000000ff0000000001"
    assert aml.dword_memory(0xA0000, 0xBFFFF, cacheable=True)[-4:].hex() == "00000200"


def test_templates_end_with_an_end_tag() -> None:
    assert aml.resources(aml.irq(1)).hex() == "11080a052202007900"
