"""What a guest sees of a released machine type never moves: the digests in machines/views.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.data import data_dir
from vmrun.config.machinetypes import type_names
from vmrun.machine import golden
from vmrun.machine.differ import LOCKED

RELEASED = json.loads(Path(data_dir("machines"), "views.json").read_text())


@pytest.mark.parametrize("name", type_names())
def test_what_a_guest_sees_of_a_type_is_as_it_was_released(name: str) -> None:
    now = golden.view(name)
    moved = [section for section in now if now[section] != RELEASED.get(name, {}).get(section)]
    assert moved == [], (
        f"a guest of {name} sees something else now in: {', '.join(moved)}. `vmrun diff` of two locks of one "
        "machine, made before and after, says what. If it is meant and not released yet: "
        "`vmrun types --views > machines/views.json`"
    )


def test_no_released_type_is_gone() -> None:
    assert set(RELEASED) == set(type_names())
    assert all(set(row) == set(LOCKED) - {"firmware"} for row in RELEASED.values())


def test_firmware_packages_of_the_host_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmrun.firmware import images

    before = golden.view("pc-i440fx-2.0")
    bios = images.locate("bios-256k.bin")
    assert bios is not None
    (tmp_path / "bios-256k.bin").write_bytes(Path(bios).read_bytes()[128 << 10 :])
    for name in ("vgabios-stdvga.bin", "kvmvapic.bin"):
        (tmp_path / name).write_bytes(b"\x55\xaa\x80" + bytes((64 << 10) - 3))
    monkeypatch.setenv(images.VARIABLE, str(tmp_path))
    assert golden.view("pc-i440fx-2.0") == before


def device(data: dict[str, Any], id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in data["devices"] if entry["id"] == id)
    return found


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("pci", lambda data: device(data, "video0").update(addr="09.0")),
        ("devices", lambda data: device(data, "video0")["props"].update(xres=800)),
        ("cpuid", lambda data: data["cpus"]["features"].update({"sse2": False})),
        ("ports", lambda data: data["devices"].pop()),
        ("cmos", lambda data: data["boot"].update(order="n")),
        ("smbios", lambda data: data["firmware"]["smbios"].update(type1={"product": "x"})),
    ],
)
def test_what_changes_in_a_machine_moves_its_digest(
    monkeypatch: pytest.MonkeyPatch, section: str, change: object
) -> None:
    import copy

    from vmrun.config.spec import ResolvedMachine
    from vmrun.config.standard import standard_machine

    before = golden.view("pc-i440fx-2.0")
    data = copy.deepcopy(standard_machine("pc-i440fx-2.0").data)
    assert callable(change)
    change(data)
    monkeypatch.setattr(golden, "standard_machine", lambda name: ResolvedMachine(data))
    assert golden.view("pc-i440fx-2.0")[section] != before[section]
