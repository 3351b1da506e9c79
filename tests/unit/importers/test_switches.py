"""Switches of -machine that remove parts of the board: what they take, as QEMU says it. And other spellings."""

from __future__ import annotations

import pytest

from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import LineError


@pytest.mark.parametrize("value", ["off", "no", "n", "false"])
def test_a_part_is_off_in_any_spelling(value: str) -> None:
    document = parse_command_line(["-M", f"pc,hpet={value}"], defaults=False).document
    assert document["remove"] == ["hpet"]


@pytest.mark.parametrize("word", ["hpet=on", "hpet=y", "i8042=true", "vmport=auto", "acpi=on", "pit=on"])
def test_a_part_that_is_there_anyway_says_nothing(word: str) -> None:
    parsed = parse_command_line(["-M", f"pc,{word}"], defaults=False)
    assert not parsed.lost and "remove" not in parsed.document and "devices" not in parsed.document


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hpet=maybe", "Parameter 'hpet' expects 'on' or 'off'"),
        ("hpet=auto", "Parameter 'hpet' expects 'on' or 'off'"),
        ("acpi=yes", "Parameter 'acpi' does not accept value 'yes'"),
        ("vmport=true", "Parameter 'vmport' does not accept value 'true'"),
    ],
)
def test_what_is_neither_is_refused(word: str, message: str) -> None:
    with pytest.raises(LineError, match=message):
        parse_command_line(["-M", f"pc,{word}"], defaults=False)


@pytest.mark.parametrize("text", ["unix:/tmp/s,server=on,wait=off", "unix:path=/tmp/s,server=on,wait=off"])
def test_a_socket_s_path_may_have_its_name(text: str) -> None:
    document = parse_command_line(["-M", "pc", "-nodefaults", "-serial", text], defaults=False).document
    (spec,) = document["chardevs"].values()
    assert spec["path"] == "/tmp/s"


def test_a_device_cannot_say_what_buses_it_provides() -> None:
    parsed = parse_command_line(["-M", "pc", "-nodefaults", "-device", "virtio-scsi-pci,provides=x"], defaults=False)
    assert parsed.document["devices"][0]["provides"] == "x"  # no property, which the checks behind this refuse
