"""Command lines that QEMU refuses are refused with one line that names the option; nothing raises anything else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrun.config.importers.libvirt import import_domain
from vmrun.config.importers.line import OPTIONS, parse_command_line
from vmrun.config.importers.qemuopts import LineError, Option, boolean, size, split
from vmrun.errors import ConfigError

BAD = {
    "-foo": "-foo: invalid option",
    "-devic e1000": "-devic: invalid option",
    "-m": "-m: requires an argument",
    "-m 3z": "-m 3z: Parameter 'size' expects a non-negative number below 2^64",
    "-m -5": "-m -5: Parameter 'size' expects a non-negative number below 2^64",
    "-smp -1": "-smp -1: Invalid CPU topology: CPU topology parameters must be greater than zero",
    "-smp cups=4": "-smp cups=4: Invalid parameter 'cups'",
    "-drive if=nope": "-drive if=nope: unsupported bus type 'nope'",
    "-drive if=none,media=tape": "-drive if=none,media=tape: 'tape' invalid media",
    "-device virtio-rng-pci,id=1x": "-device virtio-rng-pci,id=1x: Parameter 'id' expects an identifier",
    "-netdev user,id=": "-netdev user,id=: Parameter 'id' expects an identifier",
    "-hda a -hda b": "-hda b: drive with bus=0, unit=0 (index=0) exists",
    "-drive file=a,bus=2": "-drive file=a,bus=2: machine type does not support if=ide,bus=2,unit=0",
    "-chardev pty,id=a -chardev pty,id=a": "-chardev pty,id=a: Duplicate ID 'a' for chardev",
    "-chardev nope,id=a": "-chardev nope,id=a: 'nope' is not a valid char driver name",
    "-chardev pty": "-chardev pty: Parameter 'id' is missing",
    "-device e1000,id=a -device e1000,id=a": "-device e1000,id=a: Duplicate ID 'a' for device",
    "-device id=a": "-device id=a: Parameter 'driver' is missing",
    "-device {": "-device {: JSON parse error, invalid keyword or unbalanced brackets",
    "-vga nope": "-vga nope: unknown vga type: nope",
    "-boot order=z": "-boot order=z: Invalid boot device 'z'",
    "-boot cc": "-boot cc: Boot device 'cc' was given twice",
    "-netdev nope,id=a": "-netdev nope,id=a: Parameter 'type' does not accept value 'nope'",
    "-net nic,model=nope": "-net nic,model=nope: Unsupported NIC model: nope",
    "-machine accel=hax": "-machine accel=hax: invalid accelerator hax",
    "-soundhw nope": "-soundhw nope: Unknown sound card name `nope'",
    "-uuid x": "-uuid x: failed to parse UUID string: wrong format",
    "-append x": "-append x: -append only allowed with -kernel option",
    "-set device.a.b=1": '-set device.a.b=1: there is no device "a" defined',
    "-readconfig /no/x": "-readconfig /no/x: Cannot read config file /no/x: No such file or directory",
}


@pytest.mark.parametrize("line", BAD)
def test_it_is_refused_in_qemus_form(line: str) -> None:
    with pytest.raises(LineError) as caught:
        parse_command_line(line.split())
    assert caught.value.said == f"qemu-system-x86_64: {BAD[line]}"


def test_accelerator_of_another_host_is_said_and_left_out() -> None:
    parsed = parse_command_line(["-accel", "whpx"], defaults=False)
    assert parsed.document["accel"] == ["kvm", "soft"]


def test_objects_that_a_device_names_are_in_the_file() -> None:
    line = "-object rng-random,id=r,filename=/dev/urandom -object rng-builtin,id=unused -device virtio-rng-pci,rng=r"
    machine = parse_command_line(line.split(), defaults=False).machine()
    assert machine["objects"] == {"r": {"type": "rng-random", "filename": "/dev/urandom"}}


def test_the_command_ends_with_1_and_starts_nothing() -> None:
    command = [sys.executable, "-m", "vmrun", "import", "qemu", "--", "-m", "64", "-devic", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == "qemu-system-x86_64: -devic: invalid option (did you mean '-device'?)"
    assert done.stderr.splitlines()[-1].endswith("argument 3")


def test_what_has_no_equal_is_named_with_its_position() -> None:
    warning = parse_command_line(["-m", "64", "-icount", "7,align=on"]).warnings[0]
    assert warning.place is not None
    assert warning.place.line == 3
    assert "-icount 7,align=on: 'align=on' has no equal in a machine file" in warning.message


def test_commas_are_doubled() -> None:
    assert split("a,,b,c=1,,2,") == ["a,b", "c=1,2", ""]


@pytest.mark.parametrize(("word", "value"), [("on", True), ("yes", True), ("n", False), ("off", False)])
def test_booleans_have_several_spellings(word: str, value: bool) -> None:
    assert boolean(Option("x", word, 0, ""), "k", word) is value


@pytest.mark.parametrize(
    ("word", "value"), [("64", 64 << 20), ("1G", 1 << 30), ("1.5G", 3 << 29), ("0x10", 16 << 20), ("7B", 7)]
)
def test_sizes_have_suffixes(word: str, value: int) -> None:
    assert size(Option("m", word, 0, ""), "size", word, "m") == value


WORDS = st.one_of(
    st.sampled_from([f"-{name}" for name in OPTIONS]),
    st.text(max_size=20),
    st.sampled_from(
        [
            "id=a",
            "pty,id=a",
            "e1000,netdev=a",
            "{}",
            "[]",
            '{"driver": []}',
            ",,",
            "=",
            "a=b,=c",
            "nic",
            "0x",
            "-",
            "--",
        ]
    ),
)


def test_what_a_terminal_would_act_upon_is_not_said() -> None:
    with pytest.raises(LineError) as caught:
        parse_command_line(["-serial", "a\nb"])
    assert caught.value.said == "qemu-system-x86_64: -serial a?b: 'a?b' is not a valid char driver"


@settings(max_examples=400)
@given(st.lists(WORDS, max_size=8))
def test_no_line_raises_anything_but_a_line_error(words: list[str]) -> None:
    try:
        parse_command_line(words)
    except LineError as error:
        assert "\n" not in error.said


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<domain",
        b"<a/>",
        b"\x00\xff",
        b'<!DOCTYPE d [<!ENTITY a "b">]><domain>&a;</domain>',
        b'<!DOCTYPE d SYSTEM "file:///etc/passwd"><domain/>',
        b"<domain><os><type machine='pc-q35-2.0'>hvm</type></os></domain>",
        b"<domain><memory>much</memory></domain>",
        b"<a>" * 1000,
        b"<domain>" + b" " * (1 << 20),
        b"<domain><devices><graphics type='vnc' port='x'/></devices></domain>",
        b"<domain><devices><controller type='usb'><address type='pci' slot='zz'/></controller></devices></domain>",
    ],
)
def test_bad_xml_is_a_config_error(text: bytes) -> None:
    with pytest.raises(ConfigError):
        import_domain(text, "x.xml")
