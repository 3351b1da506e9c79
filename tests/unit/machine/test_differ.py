"""Differences of any two things a guest can see: never silent, never a fault of vmrun's own."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from vmrun.config.machinetypes import type_names
from vmrun.config.standard import DISK, standard_machine
from vmrun.machine.differ import BREAKS, INVISIBLE, LOCKED, REDETECTED, SEVERITIES, compare
from vmrun.machine.lock import _sound
from vmrun.machine.visible import visible

JUNK: list[Any] = [None, True, 0, -1, "", "x → y", [], ["a"], {}, {"driver": "VGA"}, {"driver": "x", "props": {}}]


@pytest.fixture(scope="module")
def sections() -> dict[str, dict[str, Any]]:
    return visible(standard_machine("pc-i440fx-2.0").data, DISK)


def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path] if len(path) > 1 else []
    for key, child in value.items() if isinstance(value, dict) else ():
        found += places(child, (*path, key))
    return found


def given(value: Any) -> Any:
    """Without what is None: a property without a value and none at all are the same."""
    return {k: given(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def test_equal_sections_have_no_difference(sections: dict[str, dict[str, Any]]) -> None:
    assert compare(sections, copy.deepcopy(sections)) == []


def test_sections_are_those_of_a_lock(sections: dict[str, dict[str, Any]]) -> None:
    assert tuple(sections) == LOCKED


@pytest.mark.parametrize("seed", range(200))
def test_any_change_is_told_once_in_one_line(sections: dict[str, dict[str, Any]], seed: int) -> None:
    chance = random.Random(seed)
    changed = copy.deepcopy(sections)
    *parents, last = chance.choice(places(sections))
    parent: Any = changed
    for step in parents:
        parent = parent[step]
    if chance.random() < 0.3:
        del parent[last]
    else:
        parent[last] = chance.choice(JUNK)
    if not all(_sound(name, part) for name, part in changed.items()):
        return  # no lock has this form
    for old, new in ((sections, changed), (changed, sections)):
        found = compare(old, new)
        assert bool(found) == (given(old) != given(new))
        assert len({(change.section, change.key) for change in found}) == len(found)
        for change in found:
            assert change.severity in SEVERITIES
            assert change.text and "\n" not in change.text
            assert set(change.to_dict()) == {"section", "key", "severity", "text", "old", "new"}


def test_neighbouring_types_can_be_compared() -> None:
    names = type_names()
    views = {name: visible(standard_machine(name).data, DISK) for name in names}
    for one, other in zip(names, names[1:], strict=False):
        texts = [change.text for change in compare(views[one], views[other])]
        assert f"the machine as a whole: type {one} → {other}" in texts


@pytest.mark.parametrize(
    ("path", "value", "severity", "text"),
    [
        (("pci", "pci.0 02.0", "config", "00"), "00005333", BREAKS,
         "PCI configuration space of VGA at pci.0 02.0: vendor and device id at 00: 11111234 → 00005333"),
        (("pci", "pci.0 02.0", "bars", "0"), "memory 0x2000000", BREAKS,
         "PCI device VGA at pci.0 02.0: BAR 0 memory 0x1000000 → memory 0x2000000"),
        (("pci", "pci.0 02.0", "driver"), "cirrus-vga", BREAKS,
         "PCI device at pci.0 02.0 is another one: VGA → cirrus-vga"),
        (("irqs", "irq 4"), None, BREAKS, "irq 4 → isa-serial is gone"),
        (("firmware", "bios", "name"), "other.bin", INVISIBLE, ""),
        (("disks", "ide0-0-0", "serial"), "x", REDETECTED,
         "disk 'ide0-0-0' has another serial number: none → x; /dev/disk/by-id changes"),
        (("disks", "ide0-0-0", "geometry"), "1/2/3", BREAKS, ""),
        (("machine", "memory"), 1, BREAKS, ""),
        (("smbios", "type1", "product"), "x", REDETECTED, ""),
        (("cmos", "5b"), "01", REDETECTED, ""),
    ],
)  # fmt: skip
def test_severity_and_words_of_a_change(
    sections: dict[str, dict[str, Any]], path: tuple[str, ...], value: Any, severity: str, text: str
) -> None:
    changed = copy.deepcopy(sections)
    parent: Any = changed
    for step in path[:-1]:
        parent = parent[step]
    if value is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    (change,) = compare(sections, changed)
    assert change.severity == severity
    assert text in (change.text, "")


def test_gravest_changes_come_first(sections: dict[str, dict[str, Any]]) -> None:
    changed = copy.deepcopy(sections)
    changed["machine"] |= {"type": "x", "memory": 1, "uuid": "u"}
    assert [change.severity for change in compare(sections, changed)] == [BREAKS, REDETECTED, INVISIBLE]


@pytest.mark.parametrize(
    ("section", "key", "name"), [("cmos", "35", "memory above 16 MiB"), ("fw_cfg", "item 0003", "size of RAM")]
)
def test_numbers_are_told_with_what_they_mean(
    sections: dict[str, dict[str, Any]], section: str, key: str, name: str
) -> None:
    changed = {**sections, section: {**sections[section], key: "ff"}}
    (change,) = compare(sections, changed)
    assert f"{key} ({name}) {sections[section][key]} → ff" in change.text
