"""What validating says about the files that a machine names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmrun.config.files import check_files
from vmrun.errors import Problem

from .conftest import Resolve


def faults(resolve: Resolve, body: str) -> list[Problem]:
    return check_files(resolve(body))


def sectors(path: Path, size: int = 1 << 20) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_good_image_is_fine(resolve: Resolve, tmp_path: Path) -> None:
    sectors(tmp_path / "a.img")
    assert faults(resolve, "disks: [a.img]\n") == []


def test_missing_image_is_told_at_its_line(resolve: Resolve) -> None:
    (problem,) = faults(resolve, "disks: [a.img]\n")
    assert (problem.code, str(problem.place)) == ("VR0620", "m.yaml:3:9")
    assert "does not exist" in problem.message


def test_directory_as_image(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "a.img").mkdir()
    (problem,) = faults(resolve, "disks: [a.img]\n")
    assert problem.code == "VR0621"


def test_empty_image(resolve: Resolve, tmp_path: Path) -> None:
    sectors(tmp_path / "a.img", 0)
    (problem,) = faults(resolve, "disks: [a.img]\n")
    assert problem.code == "VR0623"


def test_image_of_odd_length_is_a_warning(resolve: Resolve, tmp_path: Path) -> None:
    sectors(tmp_path / "a.img", 1000)
    (problem,) = faults(resolve, "disks: [a.img]\n")
    assert (problem.code, problem.severity) == ("VR0624", "warning")
    assert "last 488 bytes" in problem.message


@pytest.mark.parametrize(
    ("mode", "readonly", "code"), [(0o000, "false", "VR0622"), (0o400, "false", "VR0622")]
)
def test_image_without_permission(
    resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, readonly: str, code: str
) -> None:
    sectors(tmp_path / "a.img")
    bits = {os.R_OK: 0o400, os.W_OK: 0o200}
    monkeypatch.setattr(os, "access", lambda path, how: bool(mode & bits[how]))  # root may do anything
    (problem,) = faults(resolve, f"disks: [{{file: a.img, readonly: {readonly}}}]\n")
    assert problem.code == code


def test_readonly_drive_needs_no_write_permission(
    resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sectors(tmp_path / "a.img")
    monkeypatch.setattr(os, "access", lambda path, how: how == os.R_OK)
    assert faults(resolve, "disks: [{file: a.img, readonly: true}]\n") == []


def test_missing_kernel(resolve: Resolve) -> None:
    (problem,) = faults(resolve, "kernel: bzImage\n")
    assert (problem.code, str(problem.place)) == ("VR0620", "m.yaml:3:9")


def test_chardev_file_in_a_directory_that_is_not_there(resolve: Resolve) -> None:
    (problem,) = faults(resolve, "serial: 'file:nowhere/log'\n")
    assert problem.code == "VR0620"


def test_unix_socket_name_that_is_too_long(resolve: Resolve) -> None:
    (problem,) = faults(resolve, f"serial: unix:/{'x' * 120},server\n")
    assert problem.code == "VR0625"


@pytest.mark.parametrize(("more", "severity"), [("", "error"), (", reconnect: 1", "warning")])
def test_client_of_a_socket_that_is_not_there_fails_unless_it_tries_again(
    resolve: Resolve, more: str, severity: str
) -> None:
    (problem,) = faults(resolve, f"serial: {{type: socket, path: /nowhere/s{more}}}\n")
    assert (problem.code, problem.severity) == ("VR0620", severity)


@pytest.mark.parametrize("file", ["null-co://", "null-aio://", "nbd://h/x", "http://h/x", "fat:/tmp"])
def test_what_is_no_file_may_be_named_twice(resolve: Resolve, file: str) -> None:
    drive = f"{{file: '{file}', format: raw}}"
    machine = resolve(f"drives: {{a: {drive}, b: {drive}}}\n")
    assert {spec["file"] for spec in machine["drives"].values()} == {file}


def test_missing_firmware_directory(resolve: Resolve) -> None:
    """The firmware may be elsewhere."""
    (problem,) = faults(resolve, "firmware: {dirs: [nowhere]}\n")
    assert (problem.code, problem.severity) == ("VR0620", "warning")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("disks: [it]\n", "m.yaml:3:9"),
        ("kernel: it\n", "m.yaml:3:9"),
        ("firmware: {bios: ./it}\n", "m.yaml:3:18"),
    ],
)
def test_fifo_instead_of_a_file(resolve: Resolve, tmp_path: Path, body: str, place: str) -> None:
    os.mkfifo(tmp_path / "it")
    (problem,) = faults(resolve, body)
    assert (problem.code, str(problem.place)) == ("VR0626", place)
    assert problem.message.endswith("is a FIFO")


def test_endless_device_instead_of_an_image(resolve: Resolve) -> None:
    (problem,) = faults(resolve, "disks: [/dev/zero]\n")
    assert problem.code == "VR0626"


def test_missing_option_rom_that_the_file_names_by_its_path(resolve: Resolve) -> None:
    (problem,) = faults(resolve, "devices: [{id: v, driver: VGA, romfile: ./none.rom}]\n")
    assert (problem.code, str(problem.place)) == ("VR0620", "m.yaml:3:41")
