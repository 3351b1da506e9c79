"""Option ROMs that do not fit into the 128 KiB above 0xc0000."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vmrun.errors import Place
from vmrun.firmware.romspace import check_roms


def rom(path: Path, kib: int) -> str:
    path.write_bytes(b"\x55\xaa" + bytes([kib * 2]) + bytes(kib * 1024 - 3))
    return str(path)


def machine(*devices: tuple[str, str, str], roms: list[str] | None = None) -> dict[str, Any]:
    return {
        "memory-map": {"option-roms": {"base": 0xC0000, "size": 128 << 10}},
        "firmware": {"option-roms": roms or []},
        "devices": [{"id": id, "driver": driver, "props": {"romfile": file}} for id, driver, file in devices],
    }


def place(*path: str) -> Place:
    return Place("m.yaml", 1 + ("net0" in path), 1)


def test_roms_that_fit_are_fine(tmp_path: Path) -> None:
    vga, nic = rom(tmp_path / "vga", 40), rom(tmp_path / "nic", 88)
    assert check_roms(machine(("video0", "VGA", vga), ("net0", "e1000", nic), ("net1", "e1000", nic)), place) == []


def test_rom_that_does_not_fit_beside_the_displays_is_told_with_both(tmp_path: Path) -> None:
    vga, nic = rom(tmp_path / "vga", 40), rom(tmp_path / "nic", 89)
    (problem,) = check_roms(machine(("net0", "e1000", nic), ("video0", "VGA", vga)), place)
    assert problem.code == "VR0522"
    assert str(problem.place) == "m.yaml:2:1"
    assert problem.message == f"there is no room for {nic} of e1000 'net0' (89 KiB): 88 KiB of 128 KiB are left"
    assert [(str(where), what) for where, what in problem.also] == [
        ("m.yaml:1:1", f"{vga} of VGA 'video0' (40 KiB) comes first")
    ]


def test_rom_of_the_type_counts_too(tmp_path: Path) -> None:
    vga, own = rom(tmp_path / "vga", 40), rom(tmp_path / "own", 100)
    (problem,) = check_roms(machine(("video0", "VGA", vga), roms=[own]), place)
    assert problem.message.startswith(f"there is no room for {own} of the machine type (100 KiB)")


@pytest.mark.parametrize("data", [None, b"", b"\x55\xaa", b"no option ROM"])
def test_what_is_no_rom_takes_no_room(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "it").write_bytes(data)
    assert check_roms(machine(("net0", "e1000", str(tmp_path / "it"))), place) == []


def test_the_builder_refuses_what_validate_tells(tmp_path: Path) -> None:
    from vmrun.config.resolve import resolve_file
    from vmrun.errors import BuildError
    from vmrun.machine.builder import build

    (tmp_path / "m.yaml").write_text(
        "schema: vmrun/machine/1\nmachine: pc-i440fx-7.2\ndisplay: std\nmemory-map: {option-roms: {size: 16KiB}}\n"
    )
    with pytest.raises(BuildError, match="there is no room for vgabios-stdvga.bin of VGA 'video0'") as caught:
        build(resolve_file(str(tmp_path / "m.yaml")).data, accel=["qtest"])
    assert [(problem.code, problem.path) for problem in caught.value.problems] == [("VR0522", "devices.video0.romfile")]
