"""Sizes, addresses, nearest names, wires, the YAML writer, error texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.config import backends
from vmrun.config.codes import CODES
from vmrun.config.load import load_bytes
from vmrun.config.near import nearest
from vmrun.config.node import Node, plain
from vmrun.config.props import convert
from vmrun.config.scalar import parse_mac, parse_pci_addr, parse_size, size_text
from vmrun.config.wires import pin_range
from vmrun.config.write import collapse, yaml_text
from vmrun.errors import ConfigError, Place, Problem, VmrunError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1111MiB", 1111 << 20),
        ("64k", 65536),
        ("64 KiB", 65536),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("0", 0),
        (4096, 4096),
    ],
)
def test_sizes(text: str | int, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(
    "text", ["", "MiB", "1MB", "1.5G", "-1", "1iB", "k", "0x10", "٣", "9" * 40, -1, True, None, []]
)
def test_what_is_no_size(text: object) -> None:
    assert parse_size(text) is None


@given(st.integers(0, 1 << 60))
def test_size_reads_back(value: int) -> None:
    text = size_text(value)
    assert parse_size(int(text) if text.isdecimal() else text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("05.0", (5, 0)),
        ("1f.7", (31, 7)),
        ("0x1.0x2", (1, 2)),
        ("10", (16, 0)),
        (10, (10, 0)),
        ("00.0", (0, 0)),
    ],
)
def test_pci_addresses(text: object, value: tuple[int, int]) -> None:
    assert parse_pci_addr(text) == value


@pytest.mark.parametrize(
    "text", ["", "20.0", "1.8", "1.2.3", "x", "-1", "1.", ".1", "001.0", 32, -1, None, True, "1 .0"]
)
def test_what_is_no_pci_address(text: object) -> None:
    assert parse_pci_addr(text) is None


@pytest.mark.parametrize(
    "text",
    ["52:54:00:12:34", "52:54:00:12:34:5g", "525400123456", "", 5, "52:54:00:12:34:56:78", "5:4:0:1:2:3"],
)
def test_what_is_no_mac(text: object) -> None:
    assert parse_mac(text) is None


@pytest.mark.parametrize(
    ("kind", "value", "good"),
    [
        ("uint64", 2**64 - 1, True),
        ("size", 2**64 - 1, True),
        ("size", 2**64, False),
        ("uint32", 2**32 - 1, True),
        ("uint32", 2**32, False),
        ("int32", -(2**31), True),
        ("int32", 2**31, False),
        ("uint8", -1, False),
        ("uint8", True, False),
        ("bool", 1, False),
        ("bool", "true", False),
        ("str", 5, False),
        ("str", True, False),
        ("str", [], False),
        ("usb-port", 1, True),
        ("usb-port", "1.2", True),
        ("usb-port", 0, False),
        ("usb-port", True, False),
    ],
)
def test_kinds_of_properties(kind: str, value: object, good: bool) -> None:
    problems: list[Problem] = []
    convert(Node(value, "f", 1, 1), {"name": "p", "type": kind}, "d", "p", problems)
    assert (problems == []) is good


@pytest.mark.parametrize(
    ("kind", "value", "remedy"),
    [
        ("str", 5, 'write it in quotes: "5"'),
        ("str", True, 'write it in quotes: "true"'),
        ("str", [], ""),
        ("bool", "off", "write false"),
        ("bool", 1, "write true"),
        ("uint8", True, "write 1"),
        ("uint8", "0x", "decimal, or hexadecimal with 0x in front"),
        ("uint8", "x", ""),
    ],
)
def test_remedies_of_wrong_properties(kind: str, value: object, remedy: str) -> None:
    problems: list[Problem] = []
    convert(Node(value, "f", 1, 1), {"name": "p", "type": kind}, "d", "p", problems)
    assert [problem.remedy for problem in problems] == [remedy]


def test_mac_is_told_in_one_spelling() -> None:
    assert parse_mac("52-54-00-AB-cd-EF") == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("memroy", ["memory", "machine"], "memory"),
        ("isa_serial", ["isa-serial", "isa-parallel"], "isa-serial"),
        ("ISA-SERIAL", ["isa-serial"], "isa-serial"),
        ("virtio-net", ["virtio-net-pci", "virtio-blk-pci"], "virtio-net-pci"),
        ("zzz", ["memory"], ""),
        ("a" * 10_000, ["memory"], ""),
        ("x", [], ""),
        ("accelerator", ["accel", "cpus"], "accel"),
        ("boot_order", ["boot", "board"], "boot"),
        ("ram", ["memory", "rtc"], "memory"),
        ("bios", ["memory"], ""),
        ("kernel-args", ["cmdline", "kernel-names"], "cmdline"),
    ],
)
def test_nearest_name(name: str, known: list[str], expected: str) -> None:
    assert nearest(name, known) == expected


@pytest.mark.parametrize(
    ("text", "pins"),
    [("a.b", ["a.b"]), ("a.b[3]", ["a.b[3]"]), ("a.b[1..3]", ["a.b[1]", "a.b[2]", "a.b[3]"])],
)
def test_pin_ranges(text: str, pins: list[str]) -> None:
    assert pin_range(text) == pins


@pytest.mark.parametrize(
    "text", ["", "a[", "a]", "a[]", "a[3..1]", "a[0..99999]", "a[x]", "a[1..]", "[1]", "a[1][2]x", "a[-1]"]
)
def test_what_is_no_pin(text: str) -> None:
    assert pin_range(text) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]), st.integers(0, 5), st.sampled_from(["x", "y"]), st.integers(0, 5)
        )
    )
)
def test_collapsed_wires_expand_to_the_same(pins: list[tuple[str, int, str, int]]) -> None:
    wires = [[f"{a}.p[{i}]", f"{b}.q[{j}]"] for a, i, b, j in pins]
    expanded = [
        [first, second]
        for source, target in collapse(wires)
        for first, second in zip(pin_range(source) or [], pin_range(target) or [], strict=True)
    ]
    assert expanded == wires


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
) | st.sampled_from(
    [
        "yes",
        "on",
        "null",
        "~",
        "0x10",
        "1.5",
        "01.2",
        "- a",
        "a: b",
        "#c",
        "{",
        "é",
        "\n",
        "\x85",
        "\u2028",
        " a",
        "a ",
        "1_0",
        "",
        "*",
        "&a",
        "!b",
        "%",
        "@",
        "`",
    ]
)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), TEXTS, min_size=1))
def test_written_text_reads_back(values: dict[str, str]) -> None:
    text = yaml_text({"name": "x", "cmdline": "y", **values})
    assert plain(load_bytes(text.encode(), "m.yaml")) == {
        "name": "x",
        "cmdline": "y",
        **{k: v for k, v in values.items() if v},
    }


def test_written_yaml_means_the_same_to_other_readers() -> None:
    import yaml

    words = {"a": "01.2", "b": "yes", "c": "1:30", "d": "null", "e": "0x10", "f": "2026-01-01", "g": "x"}
    assert yaml.safe_load(yaml_text({"words": words}))["words"] == words


def test_problem_text_has_place_path_owners_nearest_and_remedy() -> None:
    problem = Problem(
        "VR0001",
        "wrong",
        Place("f", 1, 2),
        path="a.b",
        also=[(Place("g", 3, 4), "here")],
        nearest="n",
        remedy="do",
    )
    assert problem.text() == (
        "f:1:2: error VR0001: wrong\n    at a.b\n    g:3:4: here\n    did you mean 'n'?\n    do"
    )


def test_error_carries_all_its_problems() -> None:
    error = ConfigError(problems=[Problem("VR0001", "a"), Problem("VR0002", "b")])
    assert [problem.code for problem in error.problems] == ["VR0001", "VR0002"]
    assert (error.code, error.exit_code) == ("VR0001", 1)


def test_error_of_one_message_is_a_problem_too() -> None:
    error = VmrunError("broken", place=Place("f", 1, 1), remedy="mend it")
    assert str(error) == "f:1:1: error VR0900: broken\n    mend it"


def test_every_code_in_the_source_is_explained_and_the_reverse() -> None:
    import re
    from pathlib import Path

    import vmrun

    used: set[str] = set()
    for path in Path(str(vmrun.__file__)).parent.rglob("*.py"):
        if path.name != "codes.py":
            used |= set(re.findall(r'"(VR\d{4})"', path.read_text(encoding="utf-8")))
    assert used - set(CODES) == set()
    ahead = {"VR0910", "VR0920", "VR0930", "VR0940", "VR0950"}
    assert set(CODES) - used - ahead == set()


def test_validation_from_python_finds_faults_and_advice() -> None:
    import vmrun

    head = "schema: vmrun/machine/1\nmachine: rhel6.3.0\n"
    assert vmrun.validate(head) == []
    assert [problem.code for problem in vmrun.validate(head + "rtc: {base: localtime}\n")] == ["VR1004"]
    strict = vmrun.validate(head + "rtc: {base: localtime}\n", strict=True)
    assert [problem.severity for problem in strict] == ["error"]
    assert [problem.code for problem in vmrun.validate("schema: vmrun/machine/1\nmachine: rhel6.9.0\n")] == ["VR0301"]


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("/a.img", True),
        ("null-co://", False),
        ('json:{"driver": "raw", "file": {"driver": "file", "filename": "/a"}}', True),
        ('json:{"driver": "raw", "file": {"driver": "null-co", "read-zeroes": "on"}}', False),
        ('json:{"driver": "raw", "file": {"filename": "null-co://", "read-zeroes": "on"}}', False),
        ('json:{"driver": "blkdebug", "image": {"driver": "nbd", "server": {"type": "unix", "path": "/s"}}}', False),
        ('json:{"driver": "raw", "file": "null-co://"}', False),
        ("json:{", True),
        ("json:[]", True),
    ],
)
def test_whether_two_drives_of_one_name_have_one_image(name: str, one: bool) -> None:
    assert backends._is_a_file(name) is one
