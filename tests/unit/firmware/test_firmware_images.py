"""Finding and checking firmware images."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from vmrun import firmware
from vmrun.errors import BuildError
from vmrun.firmware import images


def machine(bios: str, *dirs: Path) -> dict[str, Any]:
    return {"firmware": {"bios": bios, "dirs": [str(path) for path in dirs]}}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "mine.bin"
    path.write_bytes(bytes(0x20000 - 16) + b"\xea\x5b\xe0\x00\xf0" + bytes(11))
    return path


def test_directory_of_the_machine_is_searched(image: Path) -> None:
    assert len(firmware.load_bios(machine("mine.bin", image.parent))) == 0x20000


def test_directory_of_the_environment_is_searched(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMRUN_FIRMWARE", f"/nowhere:{image.parent}")
    assert images.locate("mine.bin") == str(image)


def test_machines_directory_goes_before_the_environment(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.bin").write_bytes(b"x")
    monkeypatch.setenv("VMRUN_FIRMWARE", str(other))
    assert images.locate("mine.bin", [str(image.parent)]) == str(image)


def test_a_path_is_taken_as_it_is(image: Path) -> None:
    assert images.load_bios_image(machine(str(image))).path == str(image)


def test_digest_is_sha256(image: Path) -> None:
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert images.load_bios_image(machine(str(image))).sha256 == digest


def test_missing_image_tells_where_it_was_looked_for_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        firmware.load_bios(machine("bios-none.bin", tmp_path))
    assert str(tmp_path) in str(caught.value) and "apt install seabios" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\x90" * 1000, "no multiple of 64 KiB"),
        (b"\x90" * 0x10000, "nothing but one byte value"),
        (b"\x01" * 0xFFF0 + bytes(16), "no code at the reset vector"),
        (b"\x90" * ((8 << 20) + 0x10000), "at most"),
    ],
)
def test_absurd_images_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "bad.bin").write_bytes(content)
    with pytest.raises(BuildError, match=sentence):
        firmware.load_bios(machine("bad.bin", tmp_path))


@pytest.mark.parametrize("content", [b"\x55\xab\x01" + bytes(509), b"\x55\xaa\x04" + bytes(509), b"\x55\xaa"])
def test_a_file_that_is_no_option_rom_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rom.bin").write_bytes(content)
    with pytest.raises(BuildError, match="no option ROM"):
        images.load_rom("rom.bin", [str(tmp_path)])


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "bios.bin").mkdir()
    assert images.locate(str(tmp_path / "bios.bin")) is None
